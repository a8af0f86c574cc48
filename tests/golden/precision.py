"""Golden data for state in 4 bits (torchao) and for Kahan summation of 16-bit parameters (torch-optimi).

Run with `python tests/golden/precision.py`; it writes precision.json beside itself.

`codes`: what the numbers unit(i)^3, in f32, and their squares are after torchao's OptimState4bit has kept them, those with signs and these without.

`four_bits`: Adam4bit and AdamW4bit of torchao compile a function, `single_param_adam`. This script calls it as it is, with step and learning rate in f64, so
that bias corrections are. There is no amsgrad, for which torchao 0.18.0 lacks an operator. `values[s][j]` is the parameter `indices[j]` after `steps[s]`
steps. Parameters and gradients are those of README.md; the learning rate halves every 20 steps.

`kahan`: optimi's functions `sgd` and `adam` with bf16 parameters and compensations. Gradients and moments are f32 here, where optimi's class has bf16 for
them: its functions compute with whatever they get. Parameters and gradients are those of README.md, rounded to bf16. `values` and `compensations` are recorded after
the same steps, with a constant learning rate. There is no weight decay, which optimi multiplies into the parameters in bf16, where it is lost.
"""

from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from optimi.adam import adam
from optimi.sgd import sgd
from torchao.optim.adam import single_param_adam
from torchao.optim.subclass_4bit import OptimState4bit

from common import numbers, unit, use_generic_kernels, write_json

STEPS = 100
RECORDED = [1, 2, 3, 10, 50, 100]
SIZE = 4224
INDICES = [*range(0, SIZE, 23), SIZE - 1]


def param_of():
    return torch.from_numpy(unit(np.arange(SIZE)).astype(np.float32))


def grad_of(t):
    return torch.from_numpy(unit((t + 1) * 1_000_003 * 7 + np.arange(SIZE) + 2**40).astype(np.float32))


def kept(values, signed):
    """The values after a slot of 4 bits has kept them."""
    state = OptimState4bit.zeros(values.shape, signed=signed)
    state.copy_(values)
    return state.dequantize()


def codes_case(signed):
    roots = unit(np.arange(SIZE))
    cubes = roots * roots * roots
    values = torch.from_numpy(cubes.astype(np.float32))
    values = values if signed else values * values
    return {"kind": "codes", "signed": signed, "values": numbers(kept(values, signed).numpy()[INDICES])}


def four_bits_case(options, learning_rate):
    param = param_of()
    slot = lambda signed: OptimState4bit.zeros(param.shape, signed=signed)
    exp_avg, exp_avg_sq = slot(True), slot(False)
    recorded = []
    for t in range(STEPS):
        rate = torch.tensor(learning_rate * 0.5 ** (t // 20), dtype=torch.float64)
        single_param_adam(
            param, grad_of(t), torch.tensor(t + 1.0, dtype=torch.float64), exp_avg, exp_avg_sq, None, rate,
            options.get("beta1", 0.9), options.get("beta2", 0.999), options["weight_decay"], options.get("eps", 1e-8),
            options["decoupled"], False,
        )  # fmt: skip
        if t + 1 in RECORDED:
            recorded.append(numbers(param.numpy()[INDICES]))
    return {"kind": "four_bits", "options": options, "learning_rate": learning_rate, "values": recorded}


def kahan_case(name, options, learning_rate):
    param = param_of().to(torch.bfloat16)
    compensation, slots = torch.zeros_like(param), [torch.zeros(SIZE), torch.zeros(SIZE)]
    step, values, compensations = torch.tensor(0, dtype=torch.int32), [], []
    for t in range(STEPS):
        grad = grad_of(t).to(torch.bfloat16).float()
        if name == "adam":
            adam(
                [param], [grad], [slots[0]], [slots[1]], [compensation], lr=learning_rate, beta1=options["beta1"],
                beta2=options["beta2"], weight_decay=0.0, eps=options["eps"], step=step, decouple_wd=True, kahan_sum=True,
            )  # fmt: skip
        else:
            momentum = options.get("momentum")
            sgd(
                [param], [grad], [slots[0] if momentum else None], [compensation], lr=learning_rate,
                momentum=momentum or 0.0, weight_decay=0.0, dampening=False, decouple_wd=False, kahan_sum=True,
            )  # fmt: skip
        if t + 1 in RECORDED:
            values.append(numbers(param.float().numpy()[INDICES]))
            compensations.append(numbers(compensation.float().numpy()[INDICES]))
    case = {"kind": "kahan", "name": name, "options": options, "learning_rate": learning_rate}
    return case | {"values": values, "compensations": compensations}


def main():
    use_generic_kernels(torch)
    versions = {"torch": "2.15.0", "torchao": "0.18.0", "torch-optimi": "0.3.3"}
    for package, expected in versions.items():
        assert version(package).split("+")[0] == expected, package
    cases = [codes_case(True), codes_case(False)]
    for options, learning_rate in [
        ({"decoupled": True, "weight_decay": 0.01}, 1e-3),
        ({"decoupled": True, "weight_decay": 0.1, "beta1": 0.8, "beta2": 0.95}, 1e-2),
        ({"decoupled": False, "weight_decay": 0.1}, 1e-3),
        ({"decoupled": False, "weight_decay": 0.0, "eps": 1e-3}, 1e-2),
    ]:
        cases.append(four_bits_case(options, learning_rate))
    for name, options, learning_rate in [
        ("sgd", {}, 1e-3),
        ("sgd", {"momentum": 0.9}, 1e-4),
        ("adam", {"beta1": 0.9, "beta2": 0.99, "eps": 1e-6}, 1e-3),
        ("adam", {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8}, 1e-5),
    ]:
        cases.append(kahan_case(name, options, learning_rate))
    header = {
        "generator": "tests/golden/precision.py",
        "versions": versions,
        "size": SIZE,
        "indices": INDICES,
        "steps": RECORDED,
    }
    write_json(Path(__file__).with_name("precision.json"), header, cases)


if __name__ == "__main__":
    main()
