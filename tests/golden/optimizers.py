"""Golden data for the optimizers: parameters after steps 1, 2, 3, 10, 50 and 100.

Run with `python tests/golden/optimizers.py`; it writes one JSON file per optimizer beside itself.

The inputs are exact in f32 and can be made again in any language (`unit` is in common.py):

    param_i                       = unit(i)
    grad_i at step t = 0, …, 99   = unit((t+1)*1_000_003*7 + i + 2^40)

Tensors are vectors, except for the optimizers that know rows and columns: there i goes through a tensor row by row.

The gradients come from this formula and not from a loss, so an error in one step stays visible and
is neither damped nor amplified by the problem.

Five sources:

- "torch": `torch.optim`, the plain path for one tensor (`foreach=False`). Its default type is f64 here, because PyTorch keeps the numbers
  of one tensor (NAdam's product of the momenta, ASGD's learning rate) in the default type.
- "optax", "keras" and "transformers", in f64, for their own forms of an optimizer, and optax or "timm" for those that PyTorch does not have.
- "schedulefree", the authors' schedule-free optimizers: the parameters y in training.
- "naive f64 reference": the formulas of the documentation, written out in references.py, for the
  named alternatives that no library has. The same functions must agree with every f64 run of the libraries; the
  script stops if they do not.
"""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

os.environ["KERAS_BACKEND"] = "jax"

import jax
import keras
import numpy as np
import optax
import schedulefree
import timm
import timm.optim
import torch
import transformers
from transformers.optimization import Adafactor as TransformersAdafactor

from common import numbers, unit, use_generic_kernels, write_json
from references import (
    adabelief_reference,
    adadelta_reference,
    adafactor_reference,
    adagrad_reference,
    adam_reference,
    adamax_reference,
    adan_reference,
    ademamix_reference,
    adopt_reference,
    asgd_reference,
    laprop_reference,
    lion_reference,
    madgrad_reference,
    momentum_reference,
    nadam_reference,
    radam_reference,
    rmsprop_reference,
    rprop_reference,
    signum_reference,
    simplified_ademamix_reference,
    yogi_reference,
    schedule_free_reference,
)

jax.config.update("jax_enable_x64", True)
keras.config.set_floatx("float64")
torch.set_default_dtype(torch.float64)

STEPS = 100
RECORDED = [1, 2, 3, 10, 50, 100]
ALL_SIZES = [0, 1, 7, 8, 9, 1000, 100003]
FEW_SIZES = [1, 9, 1000]
CHANGING_RATE_SIZES = [9, 1000]
ALL_SHAPES = [(), (1, 1), (1, 7), (8, 1), (4, 6), (6, 4), (2, 3, 4), (3, 2, 2, 3), (317, 316)]
FEW_SHAPES = [(3, 3), (40, 25)]
DTYPES = {"f32": np.float32, "f64": np.float64}
TORCH = "torch"
OPTAX = f"optax {optax.__version__}"
KERAS = f"keras {keras.__version__}"
TIMM = f"timm {timm.__version__}"
TRANSFORMERS = f"transformers {transformers.__version__}"
SCHEDULE_FREE = f"schedulefree {version('schedulefree')}"
NAIVE = "naive f64 reference"


def param(shape):
    """Initial parameters."""
    return unit(np.arange(math.prod(shape))).reshape(shape)


def grad(shape, t):
    """Gradient at step t, counted from 0."""
    return unit((t + 1) * 1_000_003 * 7 + np.arange(math.prod(shape)) + 2**40).reshape(shape)


def changing_rates(base):
    """A learning rate that jumps at every step and halves every 20 steps."""
    return [base * 0.5 ** (t // 20) * (1 + 0.25 * (t % 3)) for t in range(STEPS)]


def sampled_indices(size):
    """All indices of a small tensor; otherwise the first 8, the last 8 and 8 spread evenly."""
    if size <= 9:
        return list(range(size))
    spread = [j * size // 9 for j in range(1, 9)]
    return list(range(8)) + spread + list(range(size - 8, size))


def sampled(array):
    """The sampled elements, row by row."""
    return np.array(array).ravel()[sampled_indices(array.size)]


def optax_rmsprop(rate, options):
    """optax's RMSProp; its learning rate is always inside the velocity: `classical`."""
    names = {"alpha": "decay", "eps_inside_sqrt": "eps_in_sqrt", "centered": "centered", "momentum": "momentum"}
    return optax.rmsprop(rate, **{names[name]: value for name, value in options.items() if name != "classical"})


def optax_lion(rate, options):
    """optax's Lion without its default weight decay."""
    names = {"beta1": "b1", "beta2": "b2", "weight_decay": "weight_decay"}
    return optax.lion(rate, **({"weight_decay": 0.0} | {names[name]: value for name, value in options.items()}))


def optax_adabelief(rate, options):
    """optax's AdaBelief, whose two ε are one here, with optax's decoupled weight decay."""
    eps = options.get("eps", 1e-16)
    return optax.chain(
        optax.scale_by_belief(options.get("beta1", 0.9), options.get("beta2", 0.999), eps=eps, eps_root=eps),
        optax.add_decayed_weights(options.get("weight_decay", 0.0)),
        optax.scale_by_learning_rate(rate),
    )


def decayed(rule, rate, options):
    """A rule of optax with decoupled weight decay, which is added to its direction."""
    decay = optax.add_decayed_weights(options.get("weight_decay", 0.0))
    return optax.chain(rule, decay, optax.scale_by_learning_rate(rate))


def optax_signum(rate, options):
    """The pieces of optax's Signum."""
    momentum = optax.ema(options.get("momentum", 0.9), debias=False)
    return decayed(optax.chain(momentum, optax.scale_by_sign()), rate, options)


def optax_signsgd(rate, options):
    """The pieces of optax's signSGD."""
    return decayed(optax.scale_by_sign(), rate, options)


def optax_yogi(rate, options):
    """The pieces of optax's Yogi."""
    return decayed(optax.scale_by_yogi(**renamed(BETAS, options, ["weight_decay"])), rate, options)


def optax_ademamix(rate, options):
    """optax's AdEMAMix."""
    return optax.contrib.ademamix(rate, **renamed(BETAS | {"beta3": "b3"}, options))


def optax_simplified_ademamix(rate, options):
    """optax's simplified AdEMAMix."""
    return optax.contrib.simplified_ademamix(rate, **renamed(BETAS, options))


def optax_adopt(rate, options):
    """The pieces of optax's ADOPT."""
    own = renamed(BETAS, options, ["weight_decay", "clip_exponent"])
    exponent = options.get("clip_exponent", 0.25)
    rule = optax.contrib.scale_by_adopt(**own, clip_value_fn=lambda step: step**exponent)
    return decayed(rule, rate, options)


def with_three_betas(options):
    """timm's argument names for Adan's options."""
    betas = tuple(options.get(name, default) for name, default in [("beta1", 0.98), ("beta2", 0.92), ("beta3", 0.99)])
    no_prox = not options.get("proximal", True)
    return {"betas": betas, "no_prox": no_prox} | renamed({}, options, ["beta1", "beta2", "beta3", "proximal"])


def renamed(names, options, drop=()):
    """Options by their names in a library; others are the same there."""
    return {names.get(name, name): value for name, value in options.items() if name not in drop}


BETAS = {"beta1": "b1", "beta2": "b2"}


def optax_nadam(rate, options):
    """optax's NAdam, whose momentum is always b1."""
    return optax.nadam(rate, **renamed(BETAS, options, ["momentum_schedule"]))


def optax_nadamw(rate, options):
    """optax's NAdamW without its default weight decay."""
    return optax.nadamw(rate, **({"weight_decay": 0.0} | renamed(BETAS, options, ["momentum_schedule"])))


def optax_radam(rate, options):
    """optax's RAdam, which adds eps after the bias correction."""
    return optax.radam(rate, **renamed(BETAS, options, ["eps_hat"]))


def optax_adagrad(rate, options):
    """optax's Adagrad, whose eps is inside the root."""
    return optax.adagrad(rate, **renamed({}, options, ["eps_inside_sqrt"]))


def keras_names(options):
    """Keras' names for the options, without those that its optimizers have anyway."""
    names = {"beta1": "beta_1", "beta2": "beta_2", "eps": "epsilon"}
    return renamed(names, options, ["momentum_decay", "eps_outside_max", "eps_inside_sqrt"])


def with_betas(options):
    """PyTorch's argument names for Adam's options."""
    options = dict(options)
    if "beta1" in options or "beta2" in options:
        options["betas"] = (options.pop("beta1", 0.9), options.pop("beta2", 0.999))
    return options


def optax_adafactor(rate, options):
    """optax's Adafactor, the pieces of `optax.adafactor`, with the weights of its means in f64 instead of f32."""
    second_moment = optax.scale_by_factored_rms(
        min_dim_size_to_factor=options.get("min_side", 0),
        epsilon=options.get("eps", 1e-30),
        decay_rate_fn=lambda step, exponent: 1 - (step + 1.0) ** -exponent,
    )
    pieces = [
        second_moment,
        optax.clip_by_block_rms(options.get("clip_threshold", 1.0)),
        optax.scale_by_learning_rate(rate, flip_sign=False),
    ]
    if options.get("scale_parameter", True):
        pieces.append(optax.scale_by_param_block_rms())
    if "beta1" in options:
        pieces.append(optax.ema(options["beta1"], debias=False))
    return optax.chain(*pieces, optax.scale(-1))


def with_adafactor_names(options):
    """PyTorch's argument names for Adafactor's options."""
    eps = (options.get("eps"), options.get("min_scale", 1e-3))
    return {"eps": eps} | renamed({"clip_threshold": "d"}, options, ["eps", "min_scale"])


def of_transformers(theta, rate, options):
    """Hugging Face's Adafactor, in which a learning rate excludes relative steps."""
    eps = (options.get("eps", 1e-30), options.get("min_scale", 1e-3))
    relative = options.get("relative_step", True)
    own = renamed({"beta2_decay": "decay_rate"}, options, ["eps", "min_scale", "eps_inside_mean"])
    return TransformersAdafactor([theta], lr=None if relative else rate, eps=eps, **own)


def with_etas(options):
    """PyTorch's argument names for Rprop's options."""
    etas = (options.get("eta_minus", 0.5), options.get("eta_plus", 1.2))
    return {"etas": etas, "step_sizes": (options.get("min_step_size", 1e-6), options.get("max_step_size", 50))}


def in_training(schedule_free):
    """An optimizer of schedulefree that trains."""

    def make(params, **options):
        optimizer = schedule_free(params, foreach=False, **options)
        optimizer.train()
        return optimizer

    make.__module__ = schedule_free.__module__
    return make


def with_weights(options):
    """schedulefree's argument names."""
    names = {"time_power": "r", "lr_power": "weight_lr_power", "silent": "silent_sgd_phase"}
    return renamed(names, with_betas(options))


@dataclass
class Optimizer:
    """One golden file: how to run the optimizer and the options to run it with.

    `cases` are run with PyTorch or timm, or with optax if neither has the optimizer; `of_optax` with optax, `of_keras` with Keras,
    `of_transformers` with Hugging Face's transformers. `fixed` holds arguments of the class that make it this optimizer,
    `fixed_reference` the same for the naive reference. `sizes` are those of the plain case. If the optimizer `has_shapes`, all are also run
    with tensors that are no vectors, and the naive reference gets whole tensors.
    """

    name: str
    torch_class: type | None  # of PyTorch or timm
    reference: Callable
    learning_rate: float
    cases: dict
    alternatives: dict = field(default_factory=dict)
    of_optax: dict = field(default_factory=dict)
    optax_rule: Callable | None = None
    of_keras: dict = field(default_factory=dict)
    keras_class: type | None = None
    of_transformers: dict = field(default_factory=dict)
    maximize: list = field(default_factory=list)
    fixed: dict = field(default_factory=dict)
    fixed_reference: dict = field(default_factory=dict)
    translate: Callable = dict
    sizes: list = field(default_factory=lambda: ALL_SIZES)
    has_shapes: bool = False
    has_rates: bool = True  # whether its class has changing learning rates as we do

    @property
    def library(self):
        """The module that `cases` are run with."""
        if self.torch_class is None:
            return optax
        modules = {"timm": timm, "schedulefree": schedulefree}
        return modules.get(self.torch_class.__module__.split(".")[0], torch)


OPTIMIZERS = [
    Optimizer(
        "sgd",
        torch.optim.SGD,
        momentum_reference,
        0.01,
        {"plain": {}, "weight_decay": {"weight_decay": 0.01}},
    ),
    Optimizer(
        "momentum",
        torch.optim.SGD,
        momentum_reference,
        0.01,
        {
            "plain": {"momentum": 0.9},
            "dampening": {"momentum": 0.9, "dampening": 0.1},
            "weight_decay": {"momentum": 0.9, "weight_decay": 0.01},
            "dampening+weight_decay": {"momentum": 0.9, "dampening": 0.1, "weight_decay": 0.01},
        },
        alternatives={"classical": {"momentum": 0.9, "classical": True}},
        maximize=["plain"],
    ),
    Optimizer(
        "nesterov",
        torch.optim.SGD,
        momentum_reference,
        0.01,
        {
            "plain": {"momentum": 0.9},
            "weight_decay": {"momentum": 0.9, "weight_decay": 0.01},
        },
        alternatives={"classical": {"momentum": 0.9, "classical": True}},
        fixed={"nesterov": True},
        fixed_reference={"nesterov": True},
    ),
    Optimizer(
        "rmsprop",
        torch.optim.RMSprop,
        rmsprop_reference,
        0.01,
        {
            "plain": {},
            "alpha": {"alpha": 0.9},
            "eps": {"eps": 1e-4},
            "momentum": {"momentum": 0.9},
            "centered": {"centered": True},
            "centered+momentum": {"centered": True, "momentum": 0.9},
            "weight_decay": {"weight_decay": 0.01},
            "all": {
                "alpha": 0.9,
                "eps": 1e-4,
                "momentum": 0.9,
                "centered": True,
                "weight_decay": 0.01,
            },
        },
        alternatives={
            "eps_inside_sqrt": {"eps_inside_sqrt": True},
            "eps_inside_sqrt+eps+centered": {"eps_inside_sqrt": True, "eps": 1e-4, "centered": True},
            "momentum+classical": {"momentum": 0.9, "classical": True},
        },
        of_optax={
            "optax": {"alpha": 0.9, "eps_inside_sqrt": True},
            "optax+momentum": {"alpha": 0.9, "eps_inside_sqrt": True, "momentum": 0.9, "classical": True},
            "optax+centered+momentum": {
                "alpha": 0.9,
                "eps_inside_sqrt": True,
                "centered": True,
                "momentum": 0.9,
                "classical": True,
            },
        },
        optax_rule=optax_rmsprop,
    ),
    Optimizer(
        "lion",
        None,
        lion_reference,
        0.001,
        {
            "plain": {},
            "beta1": {"beta1": 0.8},
            "beta2": {"beta2": 0.9},
            "weight_decay": {"weight_decay": 0.1},
        },
        optax_rule=optax_lion,
    ),
    Optimizer(
        "adabelief",
        None,
        adabelief_reference,
        0.001,
        {
            "plain": {},
            "beta1": {"beta1": 0.8},
            "beta2": {"beta2": 0.99},
            "eps": {"eps": 1e-4},
            "weight_decay": {"weight_decay": 0.1},
        },
        optax_rule=optax_adabelief,
    ),
    Optimizer(
        "signum",
        None,
        signum_reference,
        0.001,
        {"plain": {}, "momentum": {"momentum": 0.8}, "weight_decay": {"weight_decay": 0.1}},
        optax_rule=optax_signum,
    ),
    Optimizer(
        "signsgd",
        None,
        signum_reference,
        0.001,
        {"plain": {}, "weight_decay": {"weight_decay": 0.1}},
        optax_rule=optax_signsgd,
        fixed_reference={"momentum": 0.0},
    ),
    Optimizer(
        "yogi",
        None,
        yogi_reference,
        0.001,
        {
            "plain": {},
            "betas+eps": {"beta1": 0.8, "beta2": 0.99, "eps": 1e-4},
            "initial_accumulator_value": {"initial_accumulator_value": 0.1},
            "weight_decay": {"weight_decay": 0.1},
        },
        optax_rule=optax_yogi,
    ),
    Optimizer(
        "laprop",
        timm.optim.LaProp,
        laprop_reference,
        0.001,
        {"plain": {}, "betas+eps": {"beta1": 0.8, "beta2": 0.99, "eps": 1e-4}},
        # timm averages the learning rate, and decays after the move.
        alternatives={"rates": {}, "weight_decay": {"weight_decay": 0.1}},
        fixed={"foreach": False},
        translate=with_betas,
        has_rates=False,
    ),
    Optimizer(
        "ademamix",
        None,
        ademamix_reference,
        0.001,
        {
            "plain": {},
            "betas+eps": {"beta1": 0.8, "beta2": 0.99, "eps": 1e-4},
            "slow": {"beta3": 0.9, "alpha": 2.0},
            "weight_decay": {"weight_decay": 0.1},
        },
        optax_rule=optax_ademamix,
    ),
    Optimizer(
        "simplifiedademamix",
        None,
        simplified_ademamix_reference,
        0.001,
        {
            "plain": {},
            "betas+eps": {"beta1": 0.8, "beta2": 0.99, "eps": 1e-4},
            "alpha": {"beta1": 0.95, "alpha": 10.0},
            "weight_decay": {"weight_decay": 0.1},
        },
        optax_rule=optax_simplified_ademamix,
    ),
    Optimizer(
        "adopt",
        None,
        adopt_reference,
        0.001,
        {
            "plain": {},
            "betas+eps": {"beta1": 0.8, "beta2": 0.99, "eps": 0.4},
            "clip_exponent": {"clip_exponent": 0.1},
            "weight_decay": {"weight_decay": 0.1},
        },
        optax_rule=optax_adopt,
    ),
    Optimizer(
        "adan",
        timm.optim.Adan,
        adan_reference,
        0.001,
        {
            "plain": {},
            "betas+eps": {"beta1": 0.9, "beta2": 0.8, "beta3": 0.95, "eps": 1e-4},
            "weight_decay": {"weight_decay": 0.1},
            "not proximal": {"weight_decay": 0.1, "proximal": False},
        },
        fixed={"foreach": False},
        translate=with_three_betas,
    ),
    Optimizer(
        "madgrad",
        timm.optim.MADGRAD,
        madgrad_reference,
        0.01,
        {
            "plain": {},
            "momentum": {"momentum": 0.5},
            "eps": {"eps": 1e-3},
            "weight_decay": {"weight_decay": 0.01},
        },
    ),
    Optimizer(
        "adam",
        torch.optim.Adam,
        adam_reference,
        0.001,
        {
            "plain": {},
            "beta1": {"beta1": 0.8},
            "beta2": {"beta2": 0.99},
            "eps": {"eps": 1e-4},
            "weight_decay": {"weight_decay": 0.01},
            "amsgrad": {"amsgrad": True},
            "amsgrad+weight_decay": {"amsgrad": True, "weight_decay": 0.01},
        },
        alternatives={
            "eps_hat": {"eps_hat": True},
            "eps_hat+eps": {"eps_hat": True, "eps": 1e-4},
            "bias_correction": {"bias_correction": False},
        },
        maximize=["plain"],
        translate=with_betas,
    ),
    Optimizer(
        "adamw",
        torch.optim.AdamW,
        adam_reference,
        0.001,
        {
            "plain": {},
            "weight_decay": {"weight_decay": 0.1},
            "amsgrad": {"amsgrad": True},
        },
        alternatives={"eps_hat": {"eps_hat": True}},
        fixed_reference={"decoupled": True, "weight_decay": 0.01},
        translate=with_betas,
    ),
    Optimizer(
        "nadam",
        torch.optim.NAdam,
        nadam_reference,
        0.002,
        {
            "plain": {},
            "betas+eps": {"beta1": 0.8, "beta2": 0.99, "eps": 1e-4},
            "momentum_decay": {"momentum_decay": 0.1},
            "weight_decay": {"weight_decay": 0.01},
        },
        of_optax={"optax": {"momentum_schedule": False}, "optax+betas": {"momentum_schedule": False, "beta1": 0.8, "beta2": 0.99}},
        optax_rule=optax_nadam,
        of_keras={"keras": {"momentum_decay": 1.0, "eps": 1e-4}},
        keras_class=keras.optimizers.Nadam,
        translate=with_betas,
    ),
    Optimizer(
        "nadamw",
        torch.optim.NAdam,
        nadam_reference,
        0.002,
        {"plain": {}, "weight_decay": {"weight_decay": 0.1}},
        of_optax={"optax": {"momentum_schedule": False, "weight_decay": 0.1}},
        optax_rule=optax_nadamw,
        fixed={"decoupled_weight_decay": True},
        fixed_reference={"decoupled": True},
        translate=with_betas,
    ),
    Optimizer(
        "radam",
        torch.optim.RAdam,
        radam_reference,
        0.001,
        {
            "plain": {},
            "betas+eps": {"beta1": 0.8, "beta2": 0.99, "eps": 1e-4},
            "weight_decay": {"weight_decay": 0.01},
        },
        of_optax={"optax": {"eps_hat": False, "eps": 1e-2}},
        optax_rule=optax_radam,
        translate=with_betas,
    ),
    Optimizer(
        "radamw",
        torch.optim.RAdam,
        radam_reference,
        0.001,
        {"plain": {}, "weight_decay": {"weight_decay": 0.1}},
        fixed={"decoupled_weight_decay": True},
        fixed_reference={"decoupled": True},
        translate=with_betas,
    ),
    Optimizer(
        "adamax",
        torch.optim.Adamax,
        adamax_reference,
        0.002,
        {
            "plain": {},
            "betas+eps": {"beta1": 0.8, "beta2": 0.99, "eps": 1e-4},
            "weight_decay": {"weight_decay": 0.01},
        },
        of_keras={"keras": {"eps_outside_max": True, "eps": 1e-4}},
        keras_class=keras.optimizers.Adamax,
        translate=with_betas,
    ),
    Optimizer(
        "adagrad",
        torch.optim.Adagrad,
        adagrad_reference,
        0.01,
        {
            "plain": {},
            "eps": {"eps": 1e-4},
            "learning_rate_decay": {"learning_rate_decay": 0.1},
            "initial_accumulator_value": {"initial_accumulator_value": 0.1},
            "weight_decay": {"weight_decay": 0.01},
        },
        of_optax={"optax": {"initial_accumulator_value": 0.1, "eps": 1e-4, "eps_inside_sqrt": True}},
        optax_rule=optax_adagrad,
        of_keras={"keras": {"initial_accumulator_value": 0.1, "eps": 1e-4, "eps_inside_sqrt": True}},
        keras_class=keras.optimizers.Adagrad,
        translate=lambda options: renamed({"learning_rate_decay": "lr_decay"}, options),
    ),
    Optimizer(
        "adadelta",
        torch.optim.Adadelta,
        adadelta_reference,
        1.0,
        {
            "plain": {},
            "rho+eps": {"rho": 0.95, "eps": 1e-4},
            "weight_decay": {"weight_decay": 0.01},
        },
        of_keras={"keras": {"rho": 0.95, "eps": 1e-5}},
        keras_class=keras.optimizers.Adadelta,
    ),
    Optimizer(
        "rprop",
        torch.optim.Rprop,
        rprop_reference,
        0.01,
        {
            "plain": {},
            "etas": {"eta_minus": 0.7, "eta_plus": 1.5},
            "step_sizes": {"min_step_size": 4e-3, "max_step_size": 0.0125},
        },
        translate=with_etas,
    ),
    Optimizer(
        "asgd",
        torch.optim.ASGD,
        asgd_reference,
        0.01,
        {
            "plain": {},
            "lambda+alpha": {"lambda": 0.1, "alpha": 0.6},
            "weight_decay": {"weight_decay": 0.01},
        },
        translate=lambda options: renamed({"lambda": "lambd"}, options),
    ),
    Optimizer(
        "adafactor",
        torch.optim.Adafactor,
        adafactor_reference,
        0.2,  # more than 1/√t in the later steps
        {
            "plain": {},
            "beta2_decay": {"beta2_decay": -0.5},
            "eps+min_scale": {"eps": 0.4, "min_scale": 0.7},
            "clip_threshold": {"clip_threshold": 1.02},
            "weight_decay": {"weight_decay": 0.1},
        },
        alternatives={"clip_threshold below 1": {"clip_threshold": 0.8}},
        of_optax={
            "optax": {"eps_inside_mean": True, "relative_step": False, "min_side": 4},
            "optax+beta1": {"eps_inside_mean": True, "relative_step": False, "min_side": 4, "eps": 1e-2, "beta1": 0.9},
            "optax+absolute": {"eps_inside_mean": True, "relative_step": False, "scale_parameter": False, "clip_threshold": 1.1},
        },
        optax_rule=optax_adafactor,
        of_transformers={
            "transformers": {"eps_inside_mean": True},
            "transformers+beta1": {"eps_inside_mean": True, "relative_step": False, "beta1": 0.9, "eps": 1e-2},
            "transformers+absolute": {
                "eps_inside_mean": True,
                "relative_step": False,
                "scale_parameter": False,
                "beta2_decay": -0.6,
            },
        },
        translate=with_adafactor_names,
        sizes=ALL_SIZES[1:],  # PyTorch divides by the number of elements
        has_shapes=True,
    ),
    Optimizer(
        "sgdschedulefree",
        in_training(schedulefree.SGDScheduleFree),
        schedule_free_reference,
        0.1,
        {
            "plain": {},
            "momentum": {"momentum": 0.8},
            "powers": {"time_power": 0.5, "lr_power": 1.0},
            "weight_decay": {"weight_decay": 0.01},
        },
        fixed_reference={"adaptive": False},
        translate=with_weights,
    ),
    Optimizer(
        "adamwschedulefree",
        in_training(schedulefree.AdamWScheduleFree),
        schedule_free_reference,
        0.0025,
        {
            "plain": {},
            "betas+eps": {"beta1": 0.8, "beta2": 0.99, "eps": 1e-4},
            "powers": {"time_power": 0.5, "lr_power": 1.0},
            "weight_decay": {"weight_decay": 0.1},
        },
        translate=with_weights,
    ),
    Optimizer(
        "radamschedulefree",
        in_training(schedulefree.RAdamScheduleFree),
        schedule_free_reference,
        0.0025,
        {
            "plain": {},
            "betas+eps": {"beta1": 0.8, "beta2": 0.99, "eps": 1e-4},
            "silent": {"silent": False},
            "powers": {"time_power": 0.5, "lr_power": 1.0},
            "weight_decay": {"weight_decay": 0.1},
        },
        fixed_reference={"rectified": True},
        translate=with_weights,
    ),
]


def recorded(values_after):
    """Run 100 steps and keep the values after the recorded ones.

    `values_after(t)` makes step t, counted from 0, and returns the parameters as a new array.
    """
    runs = [values_after(t) for t in range(STEPS)]
    return [runs[step - 1] for step in RECORDED]


def run_torch(optimizer, options, maximize, dtype, shape, rates):
    """Sampled values from PyTorch or timm."""
    theta = torch.nn.Parameter(torch.from_numpy(param(shape).astype(dtype)))
    arguments = optimizer.translate(options) | optimizer.fixed
    if optimizer.library is torch:
        arguments |= {"maximize": maximize, "foreach": False}
    torch_optimizer = optimizer.torch_class([theta], lr=rates[0], **arguments)

    def values_after(t):
        theta.grad = torch.from_numpy(grad(shape, t).astype(dtype))
        group = torch_optimizer.param_groups[0]
        group["lr"] = rates[t]
        if "eta" in torch_optimizer.state[theta]:
            # ASGD has computed this step's rate in the last one, from the learning rate then: here from this step's.
            eta = rates[t] / (1 + group["lambd"] * rates[t] * t) ** group["alpha"]
            if rates[t] == rates[t - 1]:
                assert eta == torch_optimizer.state[theta]["eta"].item()
            torch_optimizer.state[theta]["eta"].fill_(eta)
        torch_optimizer.step()
        return sampled(theta.detach().numpy())

    return recorded(values_after)


def run_transformers(options, shape, rates):
    """Sampled values from Hugging Face's transformers."""
    theta = torch.nn.Parameter(torch.from_numpy(param(shape)))
    rule = of_transformers(theta, rates[0], options)

    def values_after(t):
        theta.grad = torch.from_numpy(grad(shape, t))
        if not options.get("relative_step", True):
            rule.param_groups[0]["lr"] = rates[t]
        rule.step()
        return sampled(theta.detach().numpy())

    return recorded(values_after)


def run_optax(optimizer, options, dtype, shape, rates):
    """Sampled values from optax."""
    schedule = jax.numpy.asarray(rates, dtype)
    rule = optimizer.optax_rule(lambda t: schedule[t], options)
    theta = jax.numpy.asarray(param(shape), dtype)
    state = rule.init(theta)

    def values_after(t):
        nonlocal theta, state
        updates, state = rule.update(jax.numpy.asarray(grad(shape, t), dtype), state, theta)
        theta = optax.apply_updates(theta, updates)
        return sampled(theta)

    return recorded(values_after)


def run_keras(optimizer, options, shape, rates):
    """Sampled values from Keras."""
    theta = keras.Variable(param(shape))
    rule = optimizer.keras_class(learning_rate=rates[0], **keras_names(options))

    def values_after(t):
        rule.learning_rate = rates[t]
        rule.apply([keras.ops.convert_to_tensor(grad(shape, t))], [theta])
        return sampled(np.asarray(theta))

    return recorded(values_after)


def run_naive(optimizer, options, maximize, shape, rates):
    """Sampled values from the naive reference; of vectors only the sampled elements are computed."""

    def needed(array):
        return array if optimizer.has_shapes else sampled(array)

    sign = -1.0 if maximize else 1.0
    update = optimizer.reference(**(optimizer.fixed_reference | options))
    theta = needed(param(shape))

    def values_after(t):
        nonlocal theta
        theta = update(theta, sign * needed(grad(shape, t)), rates[t])
        return sampled(theta) if optimizer.has_shapes else theta

    return recorded(values_after)


def runs(optimizer):
    """Every run of one optimizer as (case name, source, options, maximize, dtype, shape, rates)."""
    library = {torch: TORCH, timm: TIMM, schedulefree: SCHEDULE_FREE, optax: OPTAX}[optimizer.library]
    table = [(name, library, options, False) for name, options in optimizer.cases.items()]
    table += [("maximize", TORCH, optimizer.cases[name], True) for name in optimizer.maximize]
    table += [(name, NAIVE, options, False) for name, options in optimizer.alternatives.items()]
    table += [(name, OPTAX, options, False) for name, options in optimizer.of_optax.items()]
    table += [(name, KERAS, options, False) for name, options in optimizer.of_keras.items()]
    table += [(name, TRANSFORMERS, options, False) for name, options in optimizer.of_transformers.items()]
    changing = changing_rates(optimizer.learning_rate)
    for name, source, options, maximize in table:
        constant = [optimizer.learning_rate] * STEPS
        constant_shapes = [(size,) for size in (optimizer.sizes if name == "plain" else FEW_SIZES)]
        changing_shapes = [(size,) for size in CHANGING_RATE_SIZES]
        if optimizer.has_shapes:
            constant_shapes += (ALL_SHAPES if name == "plain" else []) + FEW_SHAPES
            changing_shapes += FEW_SHAPES
        if source == TRANSFORMERS and options.get("relative_step", True):
            constant, changing_shapes = [1e-2] * STEPS, []  # its own limit
        if source == library and not optimizer.has_rates:
            changing_shapes = []
        plan = [(constant, constant_shapes), (changing, changing_shapes)]
        for dtype in DTYPES if source == library else ["f64"]:
            for rates, shapes in plan:
                for shape in shapes:
                    yield name, source, options, maximize, dtype, shape, rates


def case(optimizer, name, source, options, maximize, dtype, shape, rates):
    """Run one case and describe it for the JSON file."""
    naive = run_naive(optimizer, options, maximize, shape, rates)
    if source in (TORCH, TIMM, SCHEDULE_FREE):
        values = run_torch(optimizer, options, maximize, DTYPES[dtype], shape, rates)
    elif source == OPTAX:
        values = run_optax(optimizer, options, DTYPES[dtype], shape, rates)
    elif source == KERAS:
        values = run_keras(optimizer, options, shape, rates)
    elif source == TRANSFORMERS:
        values = run_transformers(options, shape, rates)
    else:
        values = naive
    tolerance = 1e-12 if dtype == "f64" else 1e-4
    np.testing.assert_allclose(values, naive, rtol=tolerance, atol=tolerance, err_msg=name)
    size = math.prod(shape)
    return {
        "name": name,
        "source": source,
        "options": options,
        "maximize": maximize,
        "dtype": dtype,
        "size": size,
        **({} if len(shape) == 1 else {"shape": shape}),
        "learning_rate": rates[:1] if len(set(rates)) == 1 else rates,
        "indices": sampled_indices(size),
        "steps": RECORDED,
        "values": numbers(values),
    }


def main():
    use_generic_kernels(torch)
    for optimizer in OPTIMIZERS:
        header = {
            "library": optimizer.library.__name__,
            "version": getattr(optimizer.library, "__version__", None) or version(optimizer.library.__name__),
            "naive_reference": f"numpy {np.__version__}",
            "generator": Path(__file__).name,
        }
        cases = [case(optimizer, *run) for run in runs(optimizer)]
        write_json(Path(__file__).with_name(f"{optimizer.name}.json"), header, cases)


if __name__ == "__main__":
    main()
