"""Golden data for optimizers that get the Hessian's diagonal.

Run with `python tests/golden/curvature.py`; it writes curvature.json beside itself.

25 parameters and the gradients of 50 steps are those of README.md. Before every third step, beginning with the first, the optimizer gets
the diagonal

    0.5 + unit((step + 1)·1,000,003·7 + i + 2^42)

of which some elements are negative. With optax it gets it after the step. `values` are the parameters after `steps` steps.
"""

from importlib.metadata import version
from pathlib import Path

import jax
import numpy as np
import optax
import torch
from pytorch_optimizer import AdaHessian, SophiaH

from common import numbers, unit, use_generic_kernels, write_json

jax.config.update("jax_enable_x64", True)

SIZE = 25
EVERY = 3
RECORDED = [1, 2, 3, 10, 50]
DTYPES = {"f32": np.float32, "f64": np.float64}


def gradient(step):
    return unit((step + 1) * 1_000_003 * 7 + np.arange(SIZE) + 2**40)


def diagonal(step):
    return 0.5 + unit((step + 1) * 1_000_003 * 7 + np.arange(SIZE) + 2**42)


def torch_values(kind, dtype, **settings):
    cast = lambda array: torch.from_numpy(array.astype(DTYPES[dtype]))
    w = torch.nn.Parameter(cast(unit(np.arange(SIZE))))
    # The optimizer makes no estimates of its own.
    optimizer, values = kind([w], update_period=1000, foreach=False, **settings), []
    for step in range(RECORDED[-1]):
        w.grad = cast(gradient(step))
        optimizer.step(hessian=[cast(diagonal(step))] if step % EVERY == 0 else None)
        if step + 1 in RECORDED:
            values.append(numbers(w.detach().numpy()))
    return values


def optax_values(rate, **settings):
    w = jax.numpy.asarray(unit(np.arange(SIZE)))
    # Its own count: the state of the estimator is passed through.
    estimate = optax.GradientTransformationExtraArgs(
        lambda params: np.int64(0),
        lambda updates, count, params=None, *, diagonal, **rest: (diagonal, count),
    )
    optimizer = optax.contrib.sophia(
        rate, weight_decay=0.0, update_interval=EVERY, hessian_diagonal_fn=estimate, **settings
    )
    state, values = optimizer.init(w), []
    for step in range(RECORDED[-1]):
        grads, own = jax.numpy.asarray(gradient(step)), jax.numpy.asarray(diagonal(step))
        updates, state = optimizer.update(grads, state, w, diagonal=own)
        w = optax.apply_updates(w, updates)
        if step + 1 in RECORDED:
            values.append(numbers(np.asarray(w)))
    return values


def case(name, library, dtype, rate, options, values, after=False):
    return {
        "name": name,
        "library": library,
        "version": version(library),
        "dtype": dtype,
        "learning_rate": rate,
        "options": options,
        "after": after,
        "values": values,
    }


def main():
    use_generic_kernels(torch)
    cases = []
    for dtype in DTYPES:
        for (beta1, beta2), p, eps, decay in [
            ((0.96, 0.99), 1e-2, 1e-12, 0.0),
            ((0.8, 0.9), 0.5, 1e-12, 0.1),
            ((0.9, 0.5), 10.0, 0.3, 0.0),
        ]:
            settings = {"lr": 0.06, "betas": (beta1, beta2), "p": p, "eps": eps, "weight_decay": decay}
            options = {"beta1": beta1, "beta2": beta2, "gamma": 1.0, "threshold": p, "eps": eps, "weight_decay": decay}
            values = torch_values(SophiaH, dtype, **settings)
            cases.append(case("sophia", "pytorch-optimizer", dtype, 0.06, options, values))
        for (beta1, beta2), eps, decay in [((0.9, 0.999), 1e-16, 0.0), ((0.8, 0.9), 1e-16, 0.1), ((0.9, 0.999), 0.5, 0.0)]:
            settings = {"lr": 0.01, "betas": (beta1, beta2), "eps": eps, "weight_decay": decay}
            options = {"beta1": beta1, "beta2": beta2, "eps": eps, "weight_decay": decay}
            values = torch_values(AdaHessian, dtype, **settings)
            cases.append(case("adahessian", "pytorch-optimizer", dtype, 0.01, options, values))
    for options in [
        {"beta1": 0.965, "beta2": 0.99, "gamma": 0.01, "threshold": 1.0, "eps": 1e-8},
        {"beta1": 0.9, "beta2": 0.5, "gamma": 2.0, "threshold": 0.7, "eps": 1e-2},
    ]:
        names = {"beta1": "b1", "beta2": "b2", "threshold": "clip_threshold"}
        values = optax_values(0.01, **{names.get(name, name): value for name, value in options.items()})
        cases.append(case("sophia", "optax", "f64", 0.01, options | {"bias_correction": True}, values, after=True))
    header = {"generator": "curvature.py", "steps": RECORDED, "size": SIZE, "every": EVERY}
    write_json(Path(__file__).with_name("curvature.json"), header, cases)


if __name__ == "__main__":
    main()
