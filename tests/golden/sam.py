"""Golden data for SAM, ASAM and GSAM.

Run with `python tests/golden/sam.py`; it writes sam.json beside itself.

Two tensors, of 3 by 4 and of 5 elements, with the first 17 parameters of README.md. Element i has at w in step s (from 0) the gradient

    (1 + unit(1000 + i))·w + 0.3·(w·w·w) + 0.1·grad(s, i)

with README.md's gradients of a step, so that the second gradient of a step differs from the first. With `absent`, the second tensor has
no gradient in odd steps. `values` are all parameters after `steps` steps.

pytorch-optimizer computes norms of all gradients in float32 (`get_global_gradient_norm`). Here that function is replaced by the same sum in
float64 if the parameters are in float64. ASAM with η > 0 is not in pytorch-optimizer: it is the formula of its authors (algorithm 1), in numpy, with SAM's 1e-12.
"""

from importlib.metadata import version
from pathlib import Path

import jax
import numpy as np
import optax
import torch
from pytorch_optimizer.optimizer import sam as module

from common import numbers, unit, use_generic_kernels, write_json

jax.config.update("jax_enable_x64", True)

SHAPES = [(3, 4), (5,)]
SIZE = 17
RECORDED = [1, 2, 3, 10, 50]
DTYPES = {"f32": (np.float32, torch.float32), "f64": (np.float64, torch.float64)}


def split(flat):
    return [flat[:12].reshape(SHAPES[0]), flat[12:]]


def noise(step):
    return unit((step + 1) * 1_000_003 * 7 + np.arange(SIZE) + 2**40)


CURVATURE = split(1.0 + unit(1000 + np.arange(SIZE)))


def gradient(step, at, w, cast):
    """The gradient of the tensor at this place, in w's library and type."""
    curvature, own = cast(CURVATURE[at]), cast(0.1 * split(noise(step))[at])
    return curvature * w + 0.3 * (w * w * w) + own


def norm_in_f64(param_groups=None, device=None, *, weight_adaptive=False):
    squares = torch.zeros(1, dtype=torch.float64)
    for group in param_groups:
        for p in group["params"]:
            if p.grad is not None:
                scaled = p.grad * p.abs() if weight_adaptive and group.get("adaptive", False) else p.grad
                squares += (scaled * scaled).sum()
    return squares


class Model(torch.nn.Module):
    def __init__(self, dtype):
        super().__init__()
        self.tensors = torch.nn.ParameterList(
            [torch.nn.Parameter(torch.from_numpy(w.astype(dtype).copy())) for w in split(unit(np.arange(SIZE)))]
        )


class Radii:
    """A schedule of ρ, as GSAM takes it."""

    def __init__(self, rho):
        self.rho, self.at = rho, -1

    def step(self):
        self.at += 1
        return self.rho(self.at)


def torch_values(dtype, make, absent=False):
    (numpy_dtype, torch_dtype) = DTYPES[dtype]
    original = module.get_global_gradient_norm
    if dtype == "f64":
        module.get_global_gradient_norm = norm_in_f64
    model = Model(numpy_dtype)
    optimizer = make(model)
    values = []
    for step in range(RECORDED[-1]):

        def closure(step=step):
            with torch.no_grad():
                for at, w in enumerate(model.tensors):
                    cast = lambda x: torch.from_numpy(x).to(torch_dtype)
                    w.grad = None if absent and at == 1 and step % 2 else gradient(step, at, w.detach(), cast)
            return None, torch.zeros(())

        if isinstance(optimizer, module.SAM):
            closure()
        optimizer.step(closure)
        if isinstance(optimizer, module.GSAM):
            optimizer.update_rho_t()
        if step + 1 in RECORDED:
            values.append(numbers(np.concatenate([w.detach().numpy().ravel() for w in model.tensors])))
    module.get_global_gradient_norm = original
    return values


def optax_values(make_inner, rho):
    cast = jax.numpy.asarray
    params = [cast(w) for w in split(unit(np.arange(SIZE)))]
    ascent = optax.chain(optax.contrib.normalize(), optax.sgd(rho))
    optimizer = optax.contrib.sam(make_inner(), ascent, opaque_mode=True)
    state, values = optimizer.init(params), []
    for step in range(RECORDED[-1]):
        grads = lambda ws, _=0, step=step: [gradient(step, at, w, cast) for at, w in enumerate(ws)]
        updates, state = optimizer.update(grads(params), state, params, grad_fn=grads)
        params = optax.apply_updates(params, updates)
        if step + 1 in RECORDED:
            values.append(numbers(np.concatenate([np.asarray(w).ravel() for w in params])))
    return values


def asam_values(rho, eta, rate):
    params, values = split(unit(np.arange(SIZE)).copy()), []
    for step in range(RECORDED[-1]):
        grads = [gradient(step, at, w, np.asarray) for at, w in enumerate(params)]
        reach = [np.abs(w) + eta for w in params]
        norm = np.sqrt(sum(np.sum((t * g) ** 2) for t, g in zip(reach, grads)))
        there = [w + rho / (norm + 1e-12) * t * t * g for w, t, g in zip(params, reach, grads)]
        params = [w - rate * gradient(step, at, up, np.asarray) for at, (w, up) in enumerate(zip(params, there))]
        if step + 1 in RECORDED:
            values.append(numbers(np.concatenate([w.ravel() for w in params])))
    return values


def case(library, call, inner, dtype, values, **options):
    return {
        "library": library,
        "version": version(library),
        "call": call,
        "inner": inner,
        "options": options,
        "dtype": dtype,
        "values": values,
    }


def main():
    use_generic_kernels(torch)
    cases = []
    bases = {
        "sgd": (torch.optim.SGD, {"lr": 0.1}),
        "momentum": (torch.optim.SGD, {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.01}),
        "adamw": (torch.optim.AdamW, {"lr": 0.01}),
    }
    for inner, (base, settings) in bases.items():
        for dtype in DTYPES:
            for rho, adaptive in [(0.05, False), (0.5, False), (0.5, True)]:
                make = lambda m: module.SAM(m.parameters(), base, rho=rho, adaptive=adaptive, foreach=False, **settings)
                options = {"rho": rho} | ({"eta": 0.0} if adaptive else {})
                values = torch_values(dtype, make)
                cases.append(case("pytorch-optimizer", f"SAM(rho={rho}, adaptive={adaptive})", inner, dtype, values, **options))
    make = lambda m: module.SAM(m.parameters(), torch.optim.SGD, rho=0.5, foreach=False, lr=0.1)
    values = torch_values("f64", make, absent=True)
    cases.append(case("pytorch-optimizer", "SAM(rho=0.5), absent", "sgd", "f64", values, rho=0.5, absent=True))

    def gsam(inner, dtype, rho, alpha, adaptive, absent=False):
        base, settings = bases[inner]
        fall = lambda at: rho / (1 + at)
        make = lambda m: module.GSAM(
            m.parameters(),
            base(m.parameters(), **settings),
            m,
            Radii(fall),
            alpha=alpha,
            adaptive=adaptive,
            foreach=False,
        )
        options = {"rho": rho, "alpha": alpha, "fall": True, "absent": absent} | ({"eta": 0.0} if adaptive else {})
        values = torch_values(dtype, make, absent)
        call = f"GSAM(rho={rho}/(1+t), alpha={alpha}, adaptive={adaptive})" + (", absent" if absent else "")
        cases.append(case("pytorch-optimizer", call, inner, dtype, values, **options))

    for inner, dtype, alpha, adaptive in [
        ("sgd", "f64", 0.4, False),
        ("sgd", "f64", 0.9, True),
        ("momentum", "f64", 0.1, False),
        ("adamw", "f64", 0.4, False),
        ("sgd", "f32", 0.4, False),
    ]:
        gsam(inner, dtype, 2.0, alpha, adaptive)
    gsam("sgd", "f64", 2.0, 0.4, False, absent=True)

    for inner, make_inner in [("sgd", lambda: optax.sgd(0.1)), ("adamw", lambda: optax.adamw(0.01, weight_decay=0.01))]:
        for rho in [0.05, 0.5]:
            cases.append(case("optax", f"contrib.sam(rho={rho})", inner, "f64", optax_values(make_inner, rho), rho=rho))
    for rho, eta in [(0.5, 0.01), (0.5, 0.1)]:
        cases.append(case("numpy", f"ASAM(rho={rho}, eta={eta})", "sgd", "f64", asam_values(rho, eta, 0.1), rho=rho, eta=eta))
    header = {"generator": "sam.py", "steps": RECORDED, "size": SIZE}
    write_json(Path(__file__).with_name("sam.json"), header, cases)


if __name__ == "__main__":
    main()
