"""Golden data for the optimizers of matrices: parameters after steps 1, 2, 10 and 50.

Run with `python tests/golden/matrices.py`; it writes matrices.json beside itself.

Parameters and gradients are those of optimizers.py, row by row. Sources:

- "torch": `torch.optim.Muon` as it is, which orthogonalises in bf16.
- "torch, wide": the same class while `torch.bfloat16` names the parameters' own type, so that the whole step is in
  that type. This is what can be compared closely.
- "torch, wide, blocks": the same for each block of a matrix, as a parameter of its own. With `blocks`, this is so for every source.
- "optax": optax's Muon with a batch axis, without Nesterov, whose average it corrects as a whole.
- "timm, wide": timm's Muon, whose iteration is given the parameters' type. It has lists of coefficients.
- "timm, wide" and "pytorch-optimizer, wide" for NorMuon and AdaMuon, in the same way. pytorch-optimizer's AdaMuon corrects the bias of the second
  moment, which only ε tells apart.
- "pytorch-optimizer, wide" for Scion: its SCION, whose iteration is given the parameters' type.
- "naive f64 reference": the formulas of the documentation of Muon, Dion (algorithm 1 of its paper, as no package has it), Shampoo and SOAP, written out in numpy below. For
  Muon they must agree with "torch, wide"; the script stops if they do not.

SOAP's first basis is not unique where the first gradient's second moment has equal eigenvalues, as the longer side of a
matrix that is not square has. Such a side is left as it is (`max_side`) in the cases here. For the same reason Shampoo's
ε is well above f32's rounding where a side's moment has not full rank.
"""

from functools import partial
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from unittest.mock import patch

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytorch_optimizer
import timm
import timm.optim.muon
import torch

from common import numbers, splitmix64, unit, use_generic_kernels, write_json

STEPS = 50
RECORDED = [1, 2, 10, 50]
DTYPES = {"f32": np.float32, "f64": np.float64}
TORCH_DTYPES = {"f32": torch.float32, "f64": torch.float64}


def param(shape):
    return unit(np.arange(np.prod(shape))).reshape(shape)


def grad(shape, t):
    return unit((t + 1) * 1_000_003 * 7 + np.arange(np.prod(shape)) + 2**40).reshape(shape)


# gradus' names, and PyTorch's; timm calls the third "rms_to_rms", and None is no scale there.
SCALES = {"Original": "original", "MatchRmsAdamw": "match_rms_adamw", "RmsToRms": "spectral_unclamped"}
TIMM_SCALES = SCALES | {"RmsToRms": "rms_to_rms", "Unscaled": None}
PRESETS = {"Jordan": "original", "Dion": "quintic", "PolarExpress": "polar_express"}


def scale(options):
    return "MatchRmsAdamw" if options.get("match_rms_adamw") else options.get("scale", "Original")


def trajectory(shape, dtype, build, options={}):
    """What an optimizer of PyTorch makes of the parameter, or of its blocks, each a parameter of its own."""
    parts = (-1, *block(shape, options)) if "blocks" in options else (1, *shape)
    cut = lambda values: torch.from_numpy(values.astype(DTYPES[dtype])).reshape(parts)
    thetas = [torch.nn.Parameter(theta.clone()) for theta in cut(param(shape))]
    optimizer, recorded = build(thetas), []
    for t in range(STEPS):
        for theta, g in zip(thetas, cut(grad(shape, t))):
            theta.grad = g.clone()
        optimizer.step()
        if t + 1 in RECORDED:
            recorded.append(np.concatenate([theta.detach().numpy().copy().ravel() for theta in thetas]))
    return recorded


def coefficients(options):
    listed = options.get("coefficients", "Jordan")
    return PRESETS[listed] if isinstance(listed, str) else listed


def block(shape, options):
    """The rows and columns of a block."""
    rows, columns = shape[0], int(np.prod(shape[1:]))
    match options.get("blocks", "Whole"):
        case "Whole":
            return rows, columns
        case "LeadingAxes":
            return shape[-2:]
        case {"Rows": n}:
            return n, columns
        case {"Parts": n}:
            return rows // n, columns


def optax_muon(shape, dtype, learning_rate, options):
    """The trajectory of optax's Muon, for which a matrix has its inputs first: here the last axis is the inputs."""
    spec = optax.contrib.MuonDimensionNumbers(reduction_axis=2, output_axis=1)
    assert len(shape) == 3 and options == {"blocks": "LeadingAxes", "nesterov": False}
    optimizer = optax.contrib.muon(
        learning_rate, weight_decay=0.1, nesterov=False, eps=0.0, muon_weight_dimension_numbers=spec
    )
    theta = jnp.asarray(param(shape), DTYPES[dtype])
    state, recorded = optimizer.init(theta), []
    for t in range(STEPS):
        updates, state = optimizer.update(jnp.asarray(grad(shape, t), DTYPES[dtype]), state, theta)
        theta = optax.apply_updates(theta, updates)
        if t + 1 in RECORDED:
            recorded.append(np.asarray(theta).ravel())
    return recorded


def timm_muon(shape, dtype, learning_rate, options):
    """The trajectory of timm's Muon; its test for matrices that are worth it is left out."""
    known = dict(
        weight_decay=options.get("weight_decay", 0.1),
        momentum=options.get("momentum", 0.95),
        nesterov=options.get("nesterov", True),
        ns_steps=options.get("iterations", 5),
        ns_coefficients=coefficients(options),
        adjust_lr_fn=TIMM_SCALES[scale(options)],
    )
    module = timm.optim.muon
    iteration = partial(module.zeropower_via_newtonschulz, dtype=TORCH_DTYPES[dtype])
    with patch.object(module, "zeropower_via_newtonschulz", iteration):
        groups = lambda thetas: [{"params": thetas, "use_fallback": False}]
        return trajectory(shape, dtype, lambda thetas: module.Muon(groups(thetas), lr=learning_rate, **known))


def timm_adamuon(shape, dtype, learning_rate, options):
    """The trajectory of timm's AdaMuon."""
    known = dict(
        algo="adamuon",
        weight_decay=options.get("weight_decay", 0.0),
        momentum=options.get("momentum", 0.95),
        betas=(0.9, options.get("beta2", 0.95)),
        eps=options.get("eps", 1e-10),
        nesterov=options.get("nesterov", True),
        ns_steps=options.get("iterations", 5),
        ns_coefficients=coefficients(options),
    )
    module = timm.optim.muon
    iteration = partial(module.zeropower_via_newtonschulz, dtype=TORCH_DTYPES[dtype])
    with patch.object(module, "zeropower_via_newtonschulz", iteration):
        groups = lambda thetas: [{"params": thetas, "use_fallback": False}]
        return trajectory(shape, dtype, lambda thetas: module.Muon(groups(thetas), lr=learning_rate, **known), options)


def kozistr(name, shape, dtype, learning_rate, options):
    """The trajectory of pytorch-optimizer's NorMuon or AdaMuon."""
    known = dict(
        weight_decay=options.get("weight_decay", 0.0),
        eps=options.get("eps", 1e-10),
        ns_steps=options.get("iterations", 5),
        ns_coeffs=coefficients(options),
        foreach=False,
    )
    momentum, beta2 = options.get("momentum", 0.95), options.get("beta2", 0.95)
    if name == "normuon":
        scale = {"MatchRmsAdamw": "match_rms", "Original": "preserve_norm"}[options.get("scale", "MatchRmsAdamw")]
        known |= dict(momentum=momentum, beta2=beta2, nesterov=options.get("nesterov", True), update_scale=scale)
        build = pytorch_optimizer.NorMuon
    else:
        assert not options["nesterov"]
        known["betas"] = momentum, beta2
        build = pytorch_optimizer.AdaMuon
    module = import_module(build.__module__)
    iteration = partial(module.zero_power_via_newton_schulz_5, dtype=TORCH_DTYPES[dtype])
    with patch.object(module, "zero_power_via_newton_schulz_5", iteration):
        groups = lambda thetas: [{"params": thetas, "use_muon": True}]
        return trajectory(shape, dtype, lambda thetas: build(groups(thetas), lr=learning_rate, **known), options)


def kozistr_scion(shape, dtype, learning_rate, options):
    """The trajectory of pytorch-optimizer's SCION. Its norms are those of two axes, or of convolutions, by their own names."""
    module = import_module(pytorch_optimizer.SCION.__module__)
    norm, one_hot, transposed = (options.get(name) for name in ("norm", "one_hot", "transposed"))
    norms, normalize = module.LMONorm, {"normalize": not one_hot}
    sides = {"normalized": not one_hot, "transpose": bool(transposed)}
    steps = {"num_steps": options.get("iterations", 5)}
    norm_type, norm_kwargs = {
        None: (norms.AUTO, {}),
        "Spectral": (norms.SPECTRAL, normalize | steps),
        "SpectralMax": (norms.SPECTRAL, normalize | steps | {"max_scale": True}),
        "Sign": (norms.SIGN, normalize),
        "Rows": (norms.ROW, sides),
        "Columns": (norms.COL, sides),
        "Rms": (norms.BIAS, {}),
    }[norm]
    known = dict(
        momentum=1.0 - options.get("momentum", 0.9),
        constraint=options.get("constrained", False),
        norm_type=norm_type,
        norm_kwargs=norm_kwargs,
        scale=options.get("radius", 1.0),
        weight_decay=options.get("weight_decay", 0.0),
        foreach=False,
    )
    name = "zero_power_via_newton_schulz_5"
    iteration = partial(getattr(module, name), dtype=TORCH_DTYPES[dtype], weights=coefficients(options))
    with patch.object(module, name, iteration):
        return trajectory(shape, dtype, lambda thetas: pytorch_optimizer.SCION(thetas, lr=learning_rate, **known))


def torch_muon(shape, dtype, wide, learning_rate, options):
    """The trajectory of torch.optim.Muon, each block a parameter."""
    rows, columns = block(shape, options)
    cut = lambda values: torch.from_numpy(values.astype(DTYPES[dtype])).reshape(-1, rows, columns)
    names = {"momentum": "momentum", "weight_decay": "weight_decay"}
    known = {names[name]: value for name, value in options.items() if name in names}
    known["nesterov"] = options.get("nesterov", True)
    known["adjust_lr_fn"] = SCALES[scale(options)]
    if "iterations" in options:
        known["ns_steps"] = options["iterations"]
    if "coefficients" in options:
        (known["ns_coefficients"],) = options["coefficients"]
    thetas = [torch.nn.Parameter(theta.clone()) for theta in cut(param(shape))]
    optimizer = torch.optim.Muon(thetas, lr=learning_rate, **known)
    narrow = torch.bfloat16
    recorded = []
    for t in range(STEPS):
        for theta, g in zip(thetas, cut(grad(shape, t))):
            theta.grad = g.clone()
        try:
            if wide:
                torch.bfloat16 = thetas[0].dtype
            optimizer.step()
        finally:
            torch.bfloat16 = narrow
        if t + 1 in RECORDED:
            recorded.append(np.concatenate([theta.detach().numpy().ravel() for theta in thetas]))
    return recorded


def muon(momentum=0.95, weight_decay=0.1, nesterov=True, iterations=5, coefficients="Jordan", **options):
    m = 0.0
    listed = timm.optim.muon._COEFFICIENTS[PRESETS[coefficients]] if isinstance(coefficients, str) else coefficients

    def update(theta, g, lr, t):
        nonlocal m
        m = momentum * m + (1 - momentum) * g
        x = (1 - momentum) * g + momentum * m if nesterov else m
        rows, columns = g.shape
        x = x / max(np.linalg.norm(x), 1e-7)
        x = x.T if rows > columns else x
        for at in range(iterations):
            a, b, c = listed[min(at, len(listed) - 1)]
            square = x @ x.T
            x = a * x + (b * square + c * square @ square) @ x
        x = x.T if rows > columns else x
        factor = {
            "Original": max(1, rows / columns) ** 0.5,
            "MatchRmsAdamw": 0.2 * max(rows, columns) ** 0.5,
            "RmsToRms": (rows / columns) ** 0.5,
            "Unscaled": 1.0,
        }
        return theta * (1 - lr * weight_decay) - lr * factor[scale(options)] * x

    return update


def power(matrix, shift, exponent):
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * (np.maximum(values, 0) + shift) ** exponent) @ vectors.T


def shampoo(eps=1e-6, beta2=None, momentum=0.0, every=10, weight_decay=0.0, graft=None):
    left, right, roots, m, first, second = 0.0, 0.0, None, 0.0, 0.0, 0.0

    def update(theta, g, lr, t):
        nonlocal left, right, roots, m, first, second
        g = g + weight_decay * theta
        kept, fresh = (1, 1) if beta2 is None else (beta2, 1 - beta2)
        left, right = kept * left + fresh * g @ g.T, kept * right + fresh * g.T @ g
        if t < min(every, 10) or t % every == 0:
            bias = 1 if beta2 is None else 1 - beta2 ** (t + 1)
            roots = power(left / bias, eps, -0.25), power(right / bias, eps, -0.25)
        d = roots[0] @ g @ roots[1]
        if graft == "rmsprop":
            second = 0.99 * second + 0.01 * g**2
            d = d * np.linalg.norm(g / (second**0.5 + 1e-8)) / np.linalg.norm(d)
        elif graft == "adam":
            first, second = 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g**2
            corrected = (second / (1 - 0.999 ** (t + 1))) ** 0.5 + 1e-8
            d = d * np.linalg.norm(first / (1 - 0.9 ** (t + 1)) / corrected) / np.linalg.norm(d)
        elif graft == "sgd":
            d = d * np.linalg.norm(g) / np.linalg.norm(d)
        m = momentum * m + d
        return theta - lr * m

    return update


def soap(beta1=0.95, beta2=0.95, eps=1e-8, weight_decay=0.01, every=10, max_side=10_000):
    m = v = 0.0
    moments, bases = [0.0, 0.0], [None, None]

    def turn(x, bases):
        return bases[0].T @ x @ bases[1]

    def update(theta, g, lr, t):
        nonlocal m, v
        theta = theta * (1 - lr * weight_decay)
        sides = [side <= max_side for side in g.shape]
        if t > 0:
            own = turn(g, bases)
            m, v = beta1 * m + (1 - beta1) * own, beta2 * v + (1 - beta2) * own**2
            correction = (1 - beta2**t) ** 0.5 / (1 - beta1**t)
            theta = theta - lr * correction * turn(m / (v**0.5 + eps), [basis.T for basis in bases])
        for axis, x in enumerate([g, g.T]):
            moments[axis] = beta2 * moments[axis] + (1 - beta2) * x @ x.T
        if t == 0:
            for axis in range(2):
                identity = np.eye(g.shape[axis])
                bases[axis] = np.linalg.eigh(moments[axis])[1][:, ::-1] if sides[axis] else identity
        elif t % every == 0:
            plain = turn(m, [basis.T for basis in bases])
            for axis in range(2):
                if sides[axis]:
                    moved = moments[axis] @ bases[axis]
                    order = np.argsort(-np.sum(bases[axis] * moved, axis=0), kind="stable")
                    v = np.take(v, order, axis=axis)
                    bases[axis] = np.linalg.qr(moved[:, order])[0]
            m = turn(plain, bases)
        return theta

    return update


def random(seed, count):
    """gradus' numbers in [-1, 1): the SplitMix64 finaliser of multiples of the golden ratio."""
    index = np.arange(count, dtype=np.uint64) + (np.uint64(seed) << np.uint64(32))
    z = splitmix64(index * np.uint64(0x9E3779B97F4A7C15) - np.uint64(0x9E3779B97F4A7C15))
    return (z >> np.uint64(11)).astype(np.float64) / 2.0**52 - 1.0


def dion(momentum=0.95, weight_decay=0.01, rank_fraction=1.0, seed=0, eps=1e-8):
    m, q = 0.0, None

    def update(theta, g, lr, t):
        nonlocal m, q
        shape, g = g.shape, g.reshape(len(g), -1)
        rows, columns = g.shape
        if t == 0:
            rank = int(np.ceil(rank_fraction * min(rows, columns)))
            q = random(seed, columns * rank).reshape(columns, rank)
        b = m + g
        p = np.linalg.qr(b @ q)[0]
        r = b.T @ p
        m = b - (1 - momentum) * p @ r.T
        q = r / (np.linalg.norm(r, axis=0) + eps)
        return theta * (1 - lr * weight_decay) - lr * (rows / columns) ** 0.5 * (p @ q.T).reshape(shape)

    return update


NAIVE = {"dion": dion, "muon": muon, "shampoo": shampoo, "soap": soap}


def naive(name, shape, learning_rate, options):
    theta, update, recorded = param(shape), NAIVE[name](**options), []
    for t in range(STEPS):
        theta = update(theta, grad(shape, t), learning_rate, t)
        if t + 1 in RECORDED:
            recorded.append(theta.ravel())
    return recorded


def main():
    use_generic_kernels(torch)
    jax.config.update("jax_enable_x64", True)
    cases = []

    def case(name, shape, dtype, source, learning_rate, options, values):
        values = [numbers(row) for row in values]
        shape = list(shape)
        cases.append(
            dict(
                name=name,
                shape=shape,
                dtype=dtype,
                source=source,
                learning_rate=learning_rate,
                options=options,
                values=values,
            )
        )

    for options in [{}, {"momentum": 0.9, "nesterov": False}, {"match_rms_adamw": True, "weight_decay": 0.0}]:
        for shape in [(6, 4), (4, 6), (9, 9)]:
            reference = naive("muon", shape, 0.02, options)
            for dtype in DTYPES:
                wide = torch_muon(shape, dtype, True, 0.02, options)
                case("muon", shape, dtype, "torch, wide", 0.02, options, wide)
                if dtype == "f64":
                    assert all(np.allclose(a, b, rtol=0, atol=1e-9) for a, b in zip(wide, reference))
            case("muon", shape, "f32", "torch", 0.02, options, torch_muon(shape, "f32", False, 0.02, options))

    both = ["f32", "f64"]
    triples = [[3.0, -3.2, 1.2], [2.5, -2.4, 0.9], [1.875, -1.25, 0.375]]
    for options, shape in [
        ({"coefficients": "PolarExpress"}, (6, 4)),
        ({"coefficients": "PolarExpress", "iterations": 9, "nesterov": False}, (5, 8)),
        ({"coefficients": "Dion", "scale": "RmsToRms"}, (8, 5)),
        ({"coefficients": "Dion", "iterations": 3, "scale": "RmsToRms"}, (4, 6)),
        ({"coefficients": triples, "scale": "Unscaled", "weight_decay": 0.0}, (8, 5)),
        ({"coefficients": triples, "iterations": 2, "scale": "MatchRmsAdamw"}, (5, 8)),
        ({"iterations": 1}, (6, 6)),
    ]:
        reference = naive("muon", shape, 0.02, options)
        for dtype in both:
            values = timm_muon(shape, dtype, 0.02, options)
            case("muon", shape, dtype, "timm, wide", 0.02, options, values)
            if dtype == "f64":
                assert all(np.allclose(a, b, rtol=0, atol=1e-9) for a, b in zip(values, reference))
    for options, shape in [({"coefficients": [[3.0, -3.2, 1.2]], "iterations": 7}, (7, 4)), ({"scale": "RmsToRms"}, (4, 7))]:
        for dtype in both:
            case("muon", shape, dtype, "torch, wide", 0.02, options, torch_muon(shape, dtype, True, 0.02, options))
    for options, shape in [
        ({"blocks": {"Rows": 2}}, (6, 4)),
        ({"blocks": {"Parts": 2}, "scale": "MatchRmsAdamw"}, (8, 3)),
        ({"blocks": {"Parts": 2}, "nesterov": False}, (4, 3, 2)),
        ({"blocks": "LeadingAxes"}, (3, 5, 2)),
        ({"blocks": "LeadingAxes", "scale": "RmsToRms"}, (2, 2, 3, 4)),
    ]:
        for dtype in both:
            values = torch_muon(shape, dtype, True, 0.02, options)
            case("muon", shape, dtype, "torch, wide, blocks", 0.02, options, values)
    for dtype in both:
        options, shape = {"blocks": "LeadingAxes", "nesterov": False}, (3, 5, 2)
        case("muon", shape, dtype, "optax", 0.02, options, optax_muon(shape, dtype, 0.02, options))

    for name, options, shape in [
        ("normuon", {}, (6, 4)),
        ("normuon", {"scale": "Original", "momentum": 0.9, "weight_decay": 0.1}, (8, 5)),
        ("normuon", {"nesterov": False, "beta2": 0.9, "eps": 1e-3, "coefficients": "PolarExpress", "iterations": 6}, (5, 8)),
        ("normuon", {"scale": "Original", "beta2": 0.5}, (3, 4, 2)),
        ("normuon", {"blocks": {"Rows": 2}}, (6, 4)),
        ("normuon", {"blocks": "LeadingAxes", "scale": "Original"}, (3, 5, 2)),
        ("adamuon", {}, (6, 4)),
        ("adamuon", {"blocks": {"Parts": 2}, "momentum": 0.9}, (8, 5)),
        ("adamuon", {"nesterov": False, "momentum": 0.9, "beta2": 0.9, "eps": 1e-3, "weight_decay": 0.1}, (5, 8)),
        ("adamuon", {"nesterov": False, "eps": 1e-20, "coefficients": "Dion", "iterations": 4}, (8, 5)),
    ]:
        of_timm = name == "adamuon" and "coefficients" not in options
        for dtype in both:
            if of_timm:
                case(name, shape, dtype, "timm, wide", 0.02, options, timm_adamuon(shape, dtype, 0.02, options))
            else:
                values = kozistr(name, shape, dtype, 0.02, options)
                case(name, shape, dtype, "pytorch-optimizer, wide", 0.02, options, values)
    for options, shape in [
        ({}, (6, 4)),
        ({}, (7,)),
        ({"radius": 3.0, "constrained": True}, (4, 3, 2, 2)),
        ({"norm": "SpectralMax", "momentum": 0.5, "weight_decay": 0.1}, (4, 6)),
        ({"norm": "Spectral", "one_hot": True, "coefficients": "PolarExpress", "iterations": 6}, (8, 5)),
        ({"norm": "Sign", "radius": 4.0}, (5, 8)),
        ({"norm": "Sign", "one_hot": True, "constrained": True}, (5, 4)),
        ({"norm": "Rows", "radius": 2.0}, (5, 4)),
        ({"norm": "Rows", "one_hot": True, "transposed": True}, (5, 4)),
        ({"norm": "Columns", "constrained": True}, (5, 4)),
        ({"norm": "Columns", "one_hot": True, "transposed": True, "momentum": 0.0}, (8, 3)),
    ]:
        for dtype in both:
            values = kozistr_scion(shape, dtype, 0.02, options)
            case("scion", shape, dtype, "pytorch-optimizer, wide", 0.02, options, values)
    for options, shape in [
        ({}, (6, 4)),
        ({"rank_fraction": 0.5, "weight_decay": 0.0}, (5, 8)),
        ({"rank_fraction": 0.25, "momentum": 0.8, "seed": 3}, (9, 6)),
        ({"rank_fraction": 0.3, "eps": 1e-2}, (4, 3, 3)),
    ]:
        for dtype in both:
            case("dion", shape, dtype, "naive f64 reference", 0.02, options, naive("dion", shape, 0.02, options))
    for options, shape in [
        ({"every": 1}, (6, 6)),
        ({"eps": 1e-2}, (5, 8)),
        ({"beta2": 0.9, "momentum": 0.9, "eps": 1e-3}, (8, 5)),
        ({"graft": "sgd", "weight_decay": 0.1, "every": 3}, (5, 5)),
        ({"graft": "rmsprop"}, (5, 5)),
        ({"graft": "adam", "beta2": 0.99, "eps": 1e-3}, (4, 7)),
    ]:
        rate = 0.01 if "graft" in options else 0.05
        for dtype in both:
            case("shampoo", shape, dtype, "naive f64 reference", rate, options, naive("shampoo", shape, rate, options))
    for options, shape in [
        ({}, (6, 6)),
        ({"every": 1, "weight_decay": 0.0}, (5, 5)),
        ({"beta1": 0.9, "beta2": 0.99, "eps": 1e-4, "max_side": 5}, (5, 9)),
        ({"every": 4, "max_side": 4}, (7, 4)),
    ]:
        for dtype in both:
            case("soap", shape, dtype, "naive f64 reference", 0.01, options, naive("soap", shape, 0.01, options))

    versions = {
        "torch": torch.__version__,
        "timm": timm.__version__,
        "pytorch-optimizer": version("pytorch-optimizer"),
        "optax": optax.__version__,
        "numpy": np.__version__,
    }
    header = versions | {"steps": RECORDED}
    write_json(Path(__file__).parent / "matrices.json", header, cases)


if __name__ == "__main__":
    main()
