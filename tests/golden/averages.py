"""Golden data for averages of the parameters and for lookahead.

Run with `python tests/golden/averages.py`; it writes averages.json beside itself.

25 parameters and the gradients of 100 steps are those of README.md. The optimizer underneath is SGD with
learning rate 0.1 and momentum 0.9. `values` are the averages (lookahead: the parameters) after `steps` steps.
"""

from pathlib import Path

import jax
import numpy as np
import optax
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from common import numbers, unit, use_generic_kernels, write_json

jax.config.update("jax_enable_x64", True)

SIZE = 25
RECORDED = [1, 2, 3, 10, 50, 100]
RATE, MOMENTUM = 0.1, 0.9
DTYPES = {"f32": (np.float32, torch.float32), "f64": (np.float64, torch.float64)}


def parameters(dtype):
    return unit(np.arange(SIZE)).astype(dtype)


def gradient(step, dtype):
    return unit((step + 1) * 1_000_003 * 7 + np.arange(SIZE) + 2**40).astype(dtype)


class Model(torch.nn.Module):
    def __init__(self, dtype):
        super().__init__()
        self.w = torch.nn.Parameter(torch.from_numpy(parameters(dtype)))


def torch_average(dtype, due, **how):
    """The averages of AveragedModel, brought up to date after the steps that are `due` (from 1)."""
    model = Model(dtype)
    average = AveragedModel(model, **how)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=MOMENTUM, foreach=False)
    values = []
    for step in range(RECORDED[-1]):
        model.w.grad = torch.from_numpy(gradient(step, dtype))
        optimizer.step()
        if due(step + 1):
            average.update_parameters(model)
        if step + 1 in RECORDED:
            values.append(numbers(average.module.w.detach().numpy()))
    return values


def optax_average(dtype, decay):
    """optax.ema of the parameters, with its correction of the bias."""
    params, ema = jax.numpy.asarray(parameters(dtype)), optax.ema(decay, debias=True, accumulator_dtype=None)
    optimizer = optax.sgd(RATE, momentum=MOMENTUM)
    state, averages, values = optimizer.init(params), ema.init(params), []
    for step in range(RECORDED[-1]):
        updates, state = optimizer.update(jax.numpy.asarray(gradient(step, dtype)), state, params)
        params = optax.apply_updates(params, updates)
        corrected, averages = ema.update(params, averages)
        if step + 1 in RECORDED:
            values.append(numbers(np.asarray(corrected)))
    return values


def optax_lookahead(dtype, every, slow_step):
    """The fast weights of optax.lookahead."""
    params = optax.LookaheadParams.init_synced(jax.numpy.asarray(parameters(dtype)))
    optimizer = optax.lookahead(optax.sgd(RATE, momentum=MOMENTUM), every, slow_step)
    state, values = optimizer.init(params), []
    for step in range(RECORDED[-1]):
        updates, state = optimizer.update(jax.numpy.asarray(gradient(step, dtype)), state, params)
        params = optax.apply_updates(params, updates)
        if step + 1 in RECORDED:
            values.append(numbers(np.asarray(params.fast)))
    return values


def case(library, call, adaptor, options, dtype, values):
    return {
        "library": library.__name__,
        "version": library.__version__,
        "call": call,
        "adaptor": adaptor,
        "options": options,
        "dtype": dtype,
        "values": values,
    }


def main():
    use_generic_kernels(torch)
    cases = []
    for name, (dtype, _) in DTYPES.items():
        for decay in [0.5, 0.99]:
            values = torch_average(dtype, lambda step: True, multi_avg_fn=get_ema_multi_avg_fn(decay))
            cases.append(case(torch, f"AveragedModel, get_ema_multi_avg_fn({decay})", "ema", [decay], name, values))
            values = optax_average(dtype, decay)
            cases.append(case(optax, f"optax.ema({decay})", "ema_debiased", [decay], name, values))
        for start, every in [(1, 1), (2, 4), (40, 5)]:
            values = torch_average(dtype, lambda step: step >= start and (step - start) % every == 0)
            cases.append(case(torch, f"AveragedModel from {start}, every {every}", "swa", [start, every], name, values))
        for every, slow_step in [(5, 0.5), (3, 0.8)]:
            values = optax_lookahead(dtype, every, slow_step)
            cases.append(case(optax, f"optax.lookahead({every}, {slow_step})", "lookahead", [every, slow_step], name, values))
    header = {"generator": "averages.py", "steps": RECORDED, "size": SIZE, "learning_rate": RATE, "momentum": MOMENTUM}
    write_json(Path(__file__).with_name("averages.json"), header, cases)


if __name__ == "__main__":
    main()
