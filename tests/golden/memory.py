"""Golden data for the optimizers with little state: parameters after steps 1, 2, 3, 10 and 50.

Run with `python tests/golden/memory.py`; it writes memory.json beside itself.

Parameters and gradients are those of optimizers.py, row by row. The learning rate changes at every step as in options.py, unless the case is `constant`.
Sources:

- "transformers": Hugging Face's Adafactor.
- "optax": the pieces of `optax.adafactor`, with the weights of the means in the parameters' type instead of f32.
- "timm": `AdafactorBigVision`, with a momentum of the parameters' type.
- "adam-mini": the authors' Adam-mini, whose parameter has a name for the blocks of the case.
- "pytorch-optimizer": SM3 and CAME. optax: SM3 with momentum.
- "galore-torch": with singular vectors in f64, whose largest element is positive. "apollo-torch": with the projections of gradus, which are made of
  hashes. Both with weight decay before the step.
"""

import math
import os
import warnings
from importlib.metadata import version
from pathlib import Path

# bitsandbytes, which apollo-torch imports, computes with tensors when it is imported.
os.environ["ATEN_CPU_CAPABILITY"] = "default"

import adam_mini
import apollo_torch.random_projector
import galore_torch.galore_projector
import jax
import numpy as np
import optax
import pytorch_optimizer
import timm
import timm.optim
import torch
import transformers
from apollo_torch.apollo import AdamW as ApolloAdamW
from galore_torch.adamw import AdamW as GaLoreAdamW
from transformers.optimization import Adafactor as TransformersAdafactor

from common import numbers, splitmix64, unit, use_generic_kernels, write_json

jax.config.update("jax_enable_x64", True)
torch.set_default_dtype(torch.float64)

STEPS = 50
RECORDED = [1, 2, 3, 10, 50]
DTYPES = {"f32": np.float32, "f64": np.float64}


def param(shape):
    return unit(np.arange(math.prod(shape))).reshape(shape)


def grad(shape, t):
    return unit((t + 1) * 1_000_003 * 7 + np.arange(math.prod(shape)) + 2**40).reshape(shape)


def rates(base, constant):
    """The learning rate of each step."""
    return [base if constant else base * 0.5 ** (t // 20) * (1 + 0.25 * (t % 3)) for t in range(STEPS)]


def sampled_indices(size):
    """All indices of a small tensor; otherwise the first 8, the last 8 and 8 spread evenly."""
    if size <= 24:
        return list(range(size))
    return list(range(8)) + [j * size // 9 for j in range(1, 9)] + list(range(size - 8, size))


def sampled(array):
    return np.array(array).ravel()[sampled_indices(array.size)]


def renamed(names, options, drop=()):
    """Options by their names in a library; others are the same there."""
    return {names.get(name, name): value for name, value in options.items() if name not in drop}


def run_torch(build, options, dtype, shape, lr):
    """Sampled values of an optimizer of PyTorch's kind."""
    theta = torch.nn.Parameter(torch.from_numpy(param(shape).astype(DTYPES[dtype])))
    optimizer, recorded = build(theta, lr[0], options), []
    for t in range(STEPS):
        theta.grad = torch.from_numpy(grad(shape, t).astype(DTYPES[dtype]))
        for group in optimizer.param_groups:
            if group["lr"] is not None:
                group["lr"] = lr[t]
        optimizer.step()
        if t + 1 in RECORDED:
            recorded.append(sampled(theta.detach().numpy()))
    return recorded


def run_optax(build, options, dtype, shape, lr):
    """Sampled values of an optimizer of optax."""
    schedule = jax.numpy.asarray(lr, DTYPES[dtype])
    optimizer, recorded = build(lambda t: schedule[t], options), []
    theta = jax.numpy.asarray(param(shape), DTYPES[dtype])
    state = optimizer.init(theta)
    for t in range(STEPS):
        updates, state = optimizer.update(jax.numpy.asarray(grad(shape, t), DTYPES[dtype]), state, theta)
        theta = optax.apply_updates(theta, updates)
        if t + 1 in RECORDED:
            recorded.append(sampled(np.asarray(theta)))
    return recorded


def hugging_face(theta, lr, options):
    """A learning rate excludes relative steps there."""
    eps = (options.get("eps", 1e-30), options.get("min_scale", 1e-3))
    relative = options.get("relative_step", True)
    own = renamed({"beta2_decay": "decay_rate"}, options, ["eps", "min_scale"])
    return TransformersAdafactor([theta], lr=None if relative else lr, eps=eps, **own)


def optax_adafactor(lr, options):
    """optax computes the weights of the means in f32, and has no limit to the steps that the offset takes away."""
    offset = options.get("decay_offset", 0)
    pieces = [
        optax.scale_by_factored_rms(
            decay_rate=-options.get("beta2_decay", -0.8),
            min_dim_size_to_factor=options.get("min_side", 128),
            epsilon=options.get("eps", 1e-30),
            decay_rate_fn=lambda step, exponent: 1 - jax.numpy.maximum(step - offset + 1.0, 1.0) ** -exponent,
        )
    ]
    if options.get("clip_updates", True):
        pieces.append(optax.clip_by_block_rms(options.get("clip_threshold", 1.0)))
    pieces.append(optax.scale_by_learning_rate(lr, flip_sign=False))
    if options.get("scale_parameter", True):
        pieces.append(optax.scale_by_param_block_rms())
    if "beta1" in options:
        pieces.append(optax.ema(options["beta1"], debias=False))
    if "weight_decay" in options:
        pieces.append(optax.add_decayed_weights(options["weight_decay"]))
    return optax.chain(*pieces, optax.scale(-1))


def big_vision(theta, lr, options):
    names = {"beta1": "momentum", "clip_threshold": "clipping_threshold", "min_side": "min_dim_size_to_factor"}
    own = renamed(names, options, ["beta2_decay", "fixed_decay", "clip_updates", "longest_axes"])
    if "beta2_decay" in options:
        own["decay_rate"] = -options["beta2_decay"]
    unscaled = options.get("fixed_decay", False)
    return timm.optim.AdafactorBigVision([theta], lr=lr, momentum_dtype=theta.dtype, unscaled_wd=unscaled, **own)


# Names that have such blocks in the package.
NAMES = {"Whole": "norm.weight", "Rows": "mlp.weight", "Parts": "query.weight", "Elements": "bias"}


def adam_mini_of(theta, lr, options):
    """A head has dim * dim / n_heads elements there."""
    kind, parts = options.get("blocks", ["Whole", 0])
    betas = (options.get("beta1", 0.9), options.get("beta2", 0.999))
    eps, decay = options.get("eps", 1e-8), options.get("weight_decay", 0.0)
    dim = theta.numel() if kind == "Parts" else 1
    rule = adam_mini.Adam_mini(
        [(NAMES[kind], theta)], lr=lr, betas=betas, eps=eps, weight_decay=decay, dim=dim, n_heads=dim * max(parts, 1), verbose=False
    )
    if kind == "Parts":
        rule.head_numel = theta.numel() // parts
    # The package has none for some names.
    for group in rule.param_groups:
        group["weight_decay"] = decay
    return rule


def sm3_of_pytorch_optimizer(theta, lr, options):
    return pytorch_optimizer.SM3([theta], lr=lr, momentum=options.get("momentum", 0.0), eps=options.get("eps", 1e-8))


def optax_sm3(lr, options):
    """The pieces of `optax.sm3`, with a learning rate that changes."""
    own = {"b1": options.get("momentum", 0.0), "b2": options.get("beta2", 1.0), "eps": options.get("eps", 1e-8)}
    return optax.chain(optax.scale_by_sm3(**own), optax.scale_by_learning_rate(lr))


def came(theta, lr, options):
    betas = tuple(options.get(name, default) for name, default in [("beta1", 0.9), ("beta2", 0.999), ("beta3", 0.9999)])
    return pytorch_optimizer.CAME([theta], lr=lr, betas=betas, **renamed({}, options, ["beta1", "beta2", "beta3"]))


class DecayedBefore:
    """An optimizer with weight decay before its step instead of after it."""

    def __init__(self, rule, decay):
        self.rule, self.decay, self.param_groups = rule, decay, rule.param_groups

    def step(self):
        for group in self.param_groups:
            for theta in group["params"]:
                theta.data.mul_(1 - group["lr"] * self.decay)
        self.rule.step()


def with_betas(options):
    betas = (options.get("beta1", 0.9), options.get("beta2", 0.999))
    return {"betas": betas, "eps": options.get("eps", 1e-6)}


def singular_vectors(weights, rank, type):
    """The largest element of each is positive."""
    u, _, vh = torch.linalg.svd(weights.double(), full_matrices=False)
    vectors = u[:, :rank] if type == "left" else vh[:rank].T
    largest = vectors.abs().argmax(dim=0, keepdim=True)
    vectors = vectors * torch.sign(vectors.gather(0, largest))
    return (vectors if type == "left" else vectors.T).to(weights.dtype)


def galore(theta, lr, options):
    group = {
        "params": [theta],
        "rank": options.get("rank", 128),
        "update_proj_gap": options.get("update_proj_gap", 200),
        "scale": options.get("scale", 0.25),
        "proj_type": "std",
    }
    rule = GaLoreAdamW([group], lr=lr, no_deprecation_warning=True, **with_betas(options))
    return DecayedBefore(rule, options.get("weight_decay", 0.0))


class OwnProjection:
    """The seed and the number of a projection, which are the key of its hashes."""

    def __init__(self, seed, nth=0):
        self.seed, self.nth = seed, nth

    def matrix(self, rows, columns):
        key = splitmix64(splitmix64(np.array(self.seed, np.uint64)) + np.uint64(self.nth))
        bits = splitmix64(key + np.arange(rows * columns, dtype=np.uint64))
        total = sum((bits >> np.uint64(16 * part)) & np.uint64(0xFFFF) for part in range(4)).astype(np.float64)
        values = (total - 2 * 65535.0) / np.sqrt((65536.0**2 - 1) / 3)
        return torch.from_numpy(values.reshape(rows, columns))


def own_projection(weights, rank, type, seed):
    """In the type of the weights; the package makes it in f32."""
    short = weights.shape[0] if type == "left" else weights.shape[1]
    matrix = (seed.matrix(short, rank) / math.sqrt(rank)).to(weights.dtype)
    return matrix if type == "left" else matrix.T


def apollo(theta, lr, options, mini=False):
    group = {
        "params": [theta],
        "rank": min(options.get("rank", 1 if mini else 256), min(theta.shape)),
        "proj": "random",
        "scale_type": "tensor" if mini else "channel",
        "scale": options.get("scale", 128.0 if mini else 1.0),
        "update_proj_gap": options.get("update_proj_gap", 200),
        "proj_type": "std",
    }
    rule = ApolloAdamW([group], lr=lr, disable_nl=not options.get("limit_growth", True), **with_betas(options))
    rule.state[theta]["seed"] = OwnProjection(options.get("seed", 0))
    return DecayedBefore(rule, options.get("weight_decay", 0.0))


def apollo_mini(theta, lr, options):
    return apollo(theta, lr, options, mini=True)


galore_torch.galore_projector.GaLoreProjector.get_orthogonal_matrix = lambda self, *args, **names: singular_vectors(*args, **names)
apollo_torch.random_projector.GradientProjector.get_orthogonal_matrix = lambda self, *args, **names: own_projection(*args, **names)
apollo_torch.random_projector.next_seed = lambda seed: OwnProjection(seed.seed, seed.nth + 1)
np.seterr(over="ignore")
warnings.simplefilter("ignore")

TRANSFORMERS = f"transformers {transformers.__version__}"
OPTAX = f"optax {optax.__version__}"
TIMM = f"timm {timm.__version__}"

SHAPES = [(), (7,), (4, 6), (6, 4), (2, 3, 4), (1, 9), (40, 25)]
MATRICES = [(4, 6), (6, 4), (8, 8), (40, 25), (1, 9)]
LARGE = [(5, 3), (130, 129), (127, 200)]
AXES = [(6, 5, 3), (5, 2, 7), (4, 6, 3, 3), (7, 1, 2, 9), (3, 3, 3)]
MIDDLE = [(7,), (15, 20), (18, 17), (2, 16, 24)]

# Name, source, what runs it, what builds it, learning rate, shapes, options of each case.
OPTIMIZERS = [
    (
        "adafactor.hugging_face",
        TRANSFORMERS,
        run_torch,
        hugging_face,
        1e-2,
        SHAPES,
        [
            {},
            {"warmup_init": True},
            {"weight_decay": 0.1},
            {"relative_step": False, "weight_decay": 0.1, "beta1": 0.9, "learning_rate": 0.8},
            {"relative_step": False, "scale_parameter": False, "eps": 1e-2, "clip_threshold": 0.9, "beta2_decay": -0.6},
        ],
    ),
    (
        "adafactor.optax",
        OPTAX,
        run_optax,
        optax_adafactor,
        3e-2,
        LARGE,
        [
            {},
            {"weight_decay": 0.01, "beta1": 0.9},
            {"scale_parameter": False, "beta2_decay": -0.6, "decay_offset": 7},
            {"clip_updates": False, "eps": 1e-2, "min_side": 127},
            {"clip_threshold": 1.1},
        ],
    ),
    (
        "adafactor.big_vision",
        TIMM,
        run_torch,
        big_vision,
        1e-2,
        MIDDLE,
        [
            {},
            {"weight_decay": 0.1, "beta2_cap": 0.9},
            {"weight_decay": 0.01, "fixed_decay": True, "beta1": 0.5},
            {"beta2_decay": -0.6, "decay_offset": 7, "eps": 1e-2, "min_side": 15},
            {"clip_updates": True, "clip_threshold": 0.9},
        ],
    ),
    # The package has no other axes.
    ("adafactor.optax", OPTAX, run_optax, optax_adafactor, 3e-2, AXES, [{"min_side": 2, "longest_axes": True}]),
    ("adafactor.big_vision", TIMM, run_torch, big_vision, 1e-2, AXES, [{"min_side": 2, "longest_axes": True}]),
    (
        "adammini",
        f"adam-mini {version('adam-mini')}",
        run_torch,
        adam_mini_of,
        1e-2,
        [(4, 6), (8, 3), (40, 25)],
        [
            {},
            {"blocks": ["Rows", 0], "beta1": 0.8, "weight_decay": 0.1},
            {"blocks": ["Parts", 2], "beta2": 0.99},
            {"blocks": ["Parts", 4], "weight_decay": 0.1},
            {"blocks": ["Elements", 0], "eps": 1e-4},
            {"eps": 1e-2, "weight_decay": 0.1},
        ],
    ),
    ("sm3", f"pytorch-optimizer {version('pytorch-optimizer')}", run_torch, sm3_of_pytorch_optimizer, 0.1, SHAPES, [{}, {"momentum": 0.9}, {"eps": 1e-2}]),
    ("sm3", OPTAX, run_optax, optax_sm3, 0.1, SHAPES[1:], [{"momentum": 0.9}, {"beta2": 0.9, "eps": 1e-2}]),
    (
        "came",
        f"pytorch-optimizer {version('pytorch-optimizer')}",
        run_torch,
        came,
        1e-3,
        SHAPES,
        [
            {},
            {"beta1": 0.8, "beta2": 0.99, "beta3": 0.995},
            {"eps1": 1e-2, "eps2": 1e-2, "weight_decay": 0.1},
            {"clip_threshold": 0.5},
        ],
    ),
    (
        "galore",
        f"galore-torch {version('galore-torch')}",
        run_torch,
        galore,
        1e-2,
        MATRICES,
        [
            {},
            {"rank": 2, "update_proj_gap": 7},
            {"rank": 3, "scale": 0.7, "beta1": 0.8, "beta2": 0.99},
            {"rank": 3, "eps": 1e-2, "weight_decay": 0.1, "update_proj_gap": 1},
        ],
    ),
    *(
        (
            name,
            f"apollo-torch {version('apollo-torch')}",
            run_torch,
            build,
            1e-2,
            MATRICES,
            [
                {},
                {"rank": 2, "update_proj_gap": 7, "seed": 3},
                {"rank": 3, "scale": 0.7, "beta1": 0.8, "beta2": 0.99},
                {"eps": 1e-2, "weight_decay": 0.1, "limit_growth": False},
            ],
        )
        for name, build in [("apollo", apollo), ("apollomini", apollo_mini)]
    ),
]


def cases():
    for name, source, run, build, lr, shapes, choices in OPTIMIZERS:
        for options in choices:
            options = dict(options)
            rate = options.pop("learning_rate", lr)
            # Relative steps have no learning rate of their own.
            constant = name == "adafactor.hugging_face" and options.get("relative_step", True)
            for dtype in DTYPES:
                for shape in shapes:
                    values = run(build, options, dtype, shape, rates(rate, constant))
                    yield {
                        "name": name,
                        "source": source,
                        "options": options,
                        "dtype": dtype,
                        "shape": shape,
                        "learning_rate": rate,
                        "constant": constant,
                        "indices": sampled_indices(math.prod(shape)),
                        "values": numbers(values),
                    }


def main():
    use_generic_kernels(torch)
    header = {"steps": RECORDED, "generator": Path(__file__).name}
    write_json(Path(__file__).with_name("memory.json"), header, list(cases()))


if __name__ == "__main__":
    main()
