"""Golden data for SOAP with its options, KL-SOAP and PSGD Kron: parameters after steps 1, 2, 10 and 50.

Run with `python tests/golden/preconditioned.py`; it writes preconditioned.json beside itself.

Parameters and gradients are those of optimizers.py, row by row. The libraries run in f64; gradus is compared
in f64 and in f32. Sources:

- "pytorch-optimizer": its SOAP and Kron. The QR decomposition of the one and the triangular systems of the other are in f32; the script has them in f64. Kron's
  random numbers are 2·unit((t+1)·11,000,033 + i + 2^42), of element i in step t = 0, 1, …; they have variance 4/3. A tensor of more axes is given to Kron as
  a matrix of the first axis and all others.
- "heavyball": its SOAPNAdam and KLSOAP. Where gradus differs from it by a convention, the script gives heavyball that of gradus: ε is added to the root of the
  uncorrected second moment instead of being a lower bound, and the basis is updated in the steps 1 + n·every. heavyball also adds a multiple of the old basis
  to what it decomposes, 64·n times the rounding of f64 or ε, if that is more; the script leaves ε out.

The first basis is not unique where the first gradient's second moment has equal eigenvalues, as that of the longer side has if it is longer by more than 1.
Such a side is left as it is (`max_side`) in the cases here.
"""

import os
from importlib.metadata import version
from pathlib import Path
from unittest.mock import patch

os.environ["TORCH_COMPILE_DISABLE"] = "1"

import heavyball
import heavyball.utils
import numpy as np
import pytorch_optimizer
import torch

from common import numbers, unit, use_generic_kernels, write_json

heavyball.utils.compile_mode = None

STEPS = 50
RECORDED = [1, 2, 10, 50]


def param(shape):
    return unit(np.arange(np.prod(shape))).reshape(shape)


def grad(shape, t):
    return unit((t + 1) * 1_000_003 * 7 + np.arange(np.prod(shape)) + 2**40).reshape(shape)


def trajectory(shape, build):
    """What an optimizer of PyTorch makes of the parameter."""
    theta = torch.nn.Parameter(torch.from_numpy(param(shape)))
    optimizer, recorded = build(theta), []
    for t in range(STEPS):
        theta.grad = torch.from_numpy(grad(shape, t))
        optimizer.step()
        if t + 1 in RECORDED:
            recorded.append(theta.detach().numpy().copy().ravel())
    return recorded


def kozistr_soap(shape, rate, options):
    same = ["eps", "correct_bias", "normalize_gradient", "precondition_1d", "shampoo_beta"]
    known = {name: options[name] for name in same if name in options}
    known |= dict(
        betas=(options.get("beta1", 0.95), options.get("beta2", 0.95)),
        precondition_frequency=options.get("every", 10),
        max_precondition_dim=options.get("max_side", 10_000),
        merge_dims=len(shape) > 2,
        weight_decay=options["weight_decay"],
    )
    with patch.object(torch, "float32", torch.float64):
        return trajectory(shape, lambda theta: pytorch_optimizer.SOAP([theta], lr=rate, **known))


def heavyball_soap(name, shape, rate, options):
    beta1, beta2, eps = options.get("beta1", 0.95), options.get("beta2", 0.95), options.get("eps", 1e-8)
    every, utils, steps = options.get("every", 10), heavyball.utils, 0
    known = dict(
        betas=(beta1, beta2),
        shampoo_beta=options.get("shampoo_beta", beta2),
        eps=eps,
        weight_decay=options["weight_decay"],
        max_precond_dim=options.get("max_side", 10_000),
        precondition_1d=options.get("precondition_1d", False),
        merge_dims=False,
        storage_dtype="float64",
    )
    if name == "soap":
        assert options["nesterov"]
        known["momentum_decay"] = options.get("momentum_decay", 4e-3)

    def eps_sqrt(corrected, eps):
        nonlocal steps
        steps += 1
        return corrected.sqrt() + eps / (1 - beta2**steps) ** 0.5

    decompose = utils.get_orthogonal_matrix_QR
    without_eps = lambda *args, **kwargs: decompose(*args, **kwargs | {"floor": 0.0})

    def build(theta):
        optimizer = {"soap": heavyball.SOAPNAdam, "klsoap": heavyball.KLSOAP}[name]([theta], lr=rate, **known)
        optimizer.precond_schedule = lambda step: int(step > 1 and (step - 1) % every == 0)
        return optimizer

    with patch.object(utils, "eps_sqrt", eps_sqrt), patch.object(utils, "get_orthogonal_matrix_QR", without_eps):
        recorded = trajectory(shape, build)
    assert steps == STEPS - 1
    return recorded


def kozistr_kron(shape, rate, options):
    modes = {"None": None, "OneDiag": "one_diag", "SmartOneDiag": "smart_one_diag", "AllDiag": "all_diag"}
    same = ["momentum", "weight_decay", "max_size_triangular", "min_ndim_triangular"]
    known = {name: options[name] for name in same if name in options}
    known |= dict(
        pre_conditioner_update_probability=options.get("update_probability"),
        memory_save_mode=modes[options.get("memory_save_mode", "None")],
        momentum_into_precondition_update=options.get("momentum_into_precond_update", True),
        precondition_dtype=torch.float64,
        balance_prob=0.1,
    )
    matrix = (shape[0], int(np.prod(shape[1:]))) if len(shape) > 2 else shape
    state = []

    def build(theta):
        optimizer = pytorch_optimizer.Kron([theta], lr=rate, **known)
        for name in ["precond_lr", "precond_init_scale"]:
            if name in options:
                optimizer.param_groups[0][name.replace("precond", "precondition")] = options[name]
        state.append(optimizer.param_groups[0])
        return optimizer

    def probe(like, **_):
        step = state[0]["step"]
        return torch.from_numpy(2 * unit(step * 11_000_033 + np.arange(like.numel()) + 2**42)).reshape(like.shape)

    np.random.seed(1)
    with patch.object(torch, "float32", torch.float64), patch.object(torch, "randn_like", probe):
        return trajectory(matrix, build)


def main():
    use_generic_kernels(torch)
    torch.set_default_dtype(torch.float64)
    cases = []

    def case(name, source, shape, rate, options, values):
        values = [numbers(row) for row in values]
        cases.append(
            dict(name=name, shape=list(shape), source=source, learning_rate=rate, options=options, values=values)
        )

    for shape, options in [
        ((6, 6), {}),
        ((5, 5), {"every": 1}),
        ((5, 9), {"beta1": 0.9, "beta2": 0.99, "eps": 1e-4, "max_side": 5}),
        ((5, 5), {"shampoo_beta": 0.8, "every": 2}),
        ((5, 5), {"correct_bias": False, "beta2": 0.8, "every": 3}),
        ((5, 5), {"normalize_gradient": True, "eps": 0.1}),
        ((5, 5), {"normalize_gradient": True, "correct_bias": False, "every": 1}),
        ((7,), {"precondition_1d": True, "max_side": 6, "every": 2}),
        ((7,), {"beta2": 0.9}),
        ((3, 2, 2), {"every": 3, "max_side": 5}),
    ]:
        options["weight_decay"] = 0.0
        case("soap", "pytorch-optimizer", shape, 0.01, options, kozistr_soap(shape, 0.01, options))

    for shape, options in [
        ((6, 6), {}),
        ((5, 5), {"every": 1, "beta1": 0.9, "beta2": 0.999, "shampoo_beta": 0.95}),
        ((5, 9), {"beta1": 0.9, "momentum_decay": 0.1, "eps": 1e-3, "max_side": 5, "every": 2}),
        ((7,), {"momentum_decay": 2.0}),
    ]:
        options |= {"nesterov": True, "weight_decay": 0.0}
        case("soap", "heavyball", shape, 0.01, options, heavyball_soap("soap", shape, 0.01, options))

    for shape, options in [
        ((6, 6), {}),
        ((5, 5), {"every": 1}),
        ((5, 5), {"beta1": 0.9, "beta2": 0.99, "shampoo_beta": 0.8, "eps": 1e-2, "every": 3}),
        ((5, 9), {"max_side": 5, "every": 2}),
        ((5, 6), {"eps": 1e-2, "every": 2}),
        ((6, 5), {"eps": 1e-2, "every": 3}),
    ]:
        options["weight_decay"] = 0.0
        case("klsoap", "heavyball", shape, 0.01, options, heavyball_soap("klsoap", shape, 0.01, options))

    for shape, options in [
        ((6, 4), {}),
        ((4, 6), {"momentum": 0.5, "weight_decay": 0.1, "update_probability": 0.3}),
        ((5, 5), {"memory_save_mode": "OneDiag", "precond_lr": 0.3}),
        ((6, 3), {"memory_save_mode": "SmartOneDiag", "precond_init_scale": 0.01}),
        ((4, 4), {"memory_save_mode": "SmartOneDiag"}),
        ((4, 6), {"memory_save_mode": "AllDiag", "momentum_into_precond_update": False}),
        ((6, 4), {"max_size_triangular": 4, "update_probability": 0.15}),
        ((4, 3), {"min_ndim_triangular": 3}),
        ((3, 2, 2), {"momentum_into_precond_update": False}),
        ((7,), {}),
        ((7,), {"min_ndim_triangular": 1, "update_probability": 0.5}),
        ((1,), {}),
    ]:
        case("kron", "pytorch-optimizer", shape, 0.01, options, kozistr_kron(shape, 0.01, options))

    versions = {
        "torch": torch.__version__,
        "pytorch-optimizer": version("pytorch-optimizer"),
        "heavyball": version("heavyball"),
        "numpy": np.__version__,
    }
    write_json(Path(__file__).parent / "preconditioned.json", versions | {"steps": RECORDED}, cases)


if __name__ == "__main__":
    main()
