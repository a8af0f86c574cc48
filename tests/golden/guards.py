"""Golden data for accumulation by a schedule, and for guards against bad gradients.

Run with `python tests/golden/guards.py`; it writes guards.json beside itself.

`multi_steps`: 25 parameters and the gradients of README.md, SGD with learning rate 0.1 and momentum 0.9; `values` are the parameters after the
calls `calls`. `scaler`: the scales of PyTorch's GradScaler before each step and after the last, its counter after each step, and the parameters
after the steps; `finite` says which gradients are finite. `zero_nans`: gradients with NaN and infinities, as strings, and what optax makes of them.
`apply_if_finite`: whether a step was applied, for each step of `finite`. `noise`: optax's standard deviation in each step, as the ratio of its noise
to that of the same key with a variance of 1.
"""

from pathlib import Path

import jax
import numpy as np
import optax
import torch

from common import numbers, unit, use_generic_kernels, write_json

jax.config.update("jax_enable_x64", True)

SIZE = 25
CALLS = [1, 2, 3, 4, 7, 10, 20, 40]
RATE, MOMENTUM = 0.1, 0.9


def parameters():
    return unit(np.arange(SIZE))


def gradient(step):
    return unit((step + 1) * 1_000_003 * 7 + np.arange(SIZE) + 2**40)


def multi_steps(name, schedule):
    """optax.MultiSteps with a window that depends on the number of steps taken."""
    params = jax.numpy.asarray(parameters())
    optimizer = optax.MultiSteps(optax.sgd(RATE, momentum=MOMENTUM), schedule, accumulator_dtype=jax.numpy.float64)
    state, values = optimizer.init(params), []
    for call in range(CALLS[-1]):
        updates, state = optimizer.update(jax.numpy.asarray(gradient(call)), state, params)
        params = optax.apply_updates(params, updates)
        if call + 1 in CALLS:
            values.append(numbers(np.asarray(params)))
    return {"kind": "multi_steps", "schedule": name, "steps": int(state.gradient_step), "values": values}


# Good and bad gradients in every order that matters: growth, growth interrupted, two backoffs in a row.
FINITE = [True] * 4 + [False, True, False, False] + [True] * 7 + [False] + [True] * 3


def scaler(initial, growth, backoff, interval):
    """The scales of torch.amp.GradScaler on the CPU."""
    model = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = torch.optim.SGD([model], lr=1.0)
    grad_scaler = torch.amp.GradScaler(
        "cpu", init_scale=initial, growth_factor=growth, backoff_factor=backoff, growth_interval=interval
    )
    scales, counters, params = [grad_scaler.get_scale()], [], []
    for step, finite in enumerate(FINITE):
        grad_scaler.scale(torch.zeros(1))  # makes its state
        scale = grad_scaler.get_scale()
        model.grad = torch.tensor([(step + 1) * scale if finite else (np.nan, np.inf)[step % 2]], dtype=torch.float64)
        grad_scaler.step(optimizer)
        grad_scaler.update()
        scales.append(grad_scaler.get_scale())
        counters.append(grad_scaler._get_growth_tracker())
        params.append(float(model.detach()[0]))
    options = {"initial_scale": initial, "growth_factor": growth, "backoff_factor": backoff, "growth_interval": interval}
    return {"kind": "scaler", "options": options, "scales": numbers(scales), "counters": counters, "params": numbers(params)}


def zero_nans():
    """optax.zero_nans on two tensors, of which one has no NaN."""
    grads = [np.array([1.0, np.nan, -np.inf, np.nan, -0.5]), np.array([np.inf, 2.0])]
    transform = optax.zero_nans()
    updates, state = transform.update(grads, transform.init(grads))
    text = lambda tensors: [[str(x) for x in np.asarray(tensor).tolist()] for tensor in tensors]
    return {"kind": "zero_nans", "grads": text(grads), "expected": text(updates), "found_nan": [bool(x) for x in state.found_nan]}


def apply_if_finite(most):
    """Which updates optax.apply_if_finite applies."""
    params = jax.numpy.zeros(1)
    optimizer = optax.apply_if_finite(optax.sgd(1.0), most)
    state, applied = optimizer.init(params), []
    finite = [True, False, False, True, False, False, False, False, True]
    for good in finite:
        updates, state = optimizer.update(jax.numpy.asarray([1.0 if good else np.nan]), state, params)
        applied.append(bool(np.any(np.asarray(updates) != 0.0)))
    return {"kind": "apply_if_finite", "most": most, "finite": finite, "applied": applied}


def noise(eta, gamma):
    """The standard deviation of optax.add_noise in its first steps."""
    zeros, deviations = jax.numpy.zeros(4), []
    scaled, plain = optax.add_noise(eta, gamma, 1), optax.add_noise(1.0, 0.0, 1)
    states = [scaled.init(zeros), plain.init(zeros)]
    for _ in range(10):
        own, states[0] = scaled.update(zeros, states[0])
        one, states[1] = plain.update(zeros, states[1])
        deviations.append(float(np.mean(np.asarray(own) / np.asarray(one))))
    return {"kind": "noise", "eta": eta, "gamma": gamma, "deviations": numbers(deviations)}


def main():
    use_generic_kernels(torch)
    header = {
        "generator": Path(__file__).name,
        "versions": {library.__name__: library.__version__ for library in (jax, optax, torch)},
        "size": SIZE,
        "calls": CALLS,
        "learning_rate": RATE,
        "momentum": MOMENTUM,
        "finite": FINITE,
    }
    cases = [
        multi_steps("3", lambda step: 3),
        multi_steps("1 + step % 3", lambda step: 1 + step % 3),
        multi_steps("1 until step 4, then 5", lambda step: 1 + 4 * (step >= 4)),
        scaler(65536.0, 2.0, 0.5, 3),
        scaler(1024.0, 4.0, 0.25, 1),
        scaler(1000.0, 1.5, 0.3, 2),
        zero_nans(),
        apply_if_finite(0),
        apply_if_finite(2),
        noise(0.3, 0.55),
        noise(1.0, 0.0),
        noise(0.01, 1.0),
    ]
    write_json(Path(__file__).with_suffix(".json"), header, cases)


if __name__ == "__main__":
    main()
