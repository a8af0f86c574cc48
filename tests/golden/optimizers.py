"""Golden data for the optimizers: parameters after steps 1, 2, 3, 10, 50 and 100.

Run with `python tests/golden/optimizers.py`; it writes one JSON file per optimizer beside itself.

The inputs are exact in f32 and can be made again in any language (`unit` is in common.py):

    param_i                       = unit(i)
    grad_i at step t = 0, …, 99   = unit((t+1)*1_000_003*7 + i + 2^40)

The gradients come from this formula and not from a loss, so an error in one step stays visible and
is neither damped nor amplified by the problem.

Three sources:

- "torch": `torch.optim`, the plain path for one tensor (`foreach=False`).
- "optax": its RMSProp, in f64, whose learning rate is inside the velocity, and its Lion and
  AdaBelief, which PyTorch does not have.
- "naive f64 reference": the formulas of the documentation, written out in numpy below, for the
  named alternatives that PyTorch does not have. With the alternatives switched off, the same
  functions must agree with every f64 run of PyTorch; the script stops if they do not.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import jax
import numpy as np
import optax
import torch

from common import numbers, unit, use_generic_kernels, write_json

jax.config.update("jax_enable_x64", True)

STEPS = 100
RECORDED = [1, 2, 3, 10, 50, 100]
ALL_SIZES = [0, 1, 7, 8, 9, 1000, 100003]
FEW_SIZES = [1, 9, 1000]
CHANGING_RATE_SIZES = [9, 1000]
DTYPES = {"f32": np.float32, "f64": np.float64}
TORCH = "torch"
OPTAX = f"optax {optax.__version__}"
NAIVE = "naive f64 reference"


def param(size):
    """Initial parameters."""
    return unit(np.arange(size))


def grad(size, t):
    """Gradient at step t, counted from 0."""
    return unit((t + 1) * 1_000_003 * 7 + np.arange(size) + 2**40)


def changing_rates(base):
    """A learning rate that jumps at every step and halves every 20 steps."""
    return [base * 0.5 ** (t // 20) * (1 + 0.25 * (t % 3)) for t in range(STEPS)]


def sampled_indices(size):
    """All indices of a small tensor; otherwise the first 8, the last 8 and 8 spread evenly."""
    if size <= 9:
        return list(range(size))
    spread = [j * size // 9 for j in range(1, 9)]
    return list(range(8)) + spread + list(range(size - 8, size))


# The naive reference. Each function takes options and returns `update(theta, g, lr) -> theta`.


def momentum_reference(momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False, classical=False):
    """SGD, momentum and Nesterov; `classical` puts the learning rate inside the velocity."""
    v = None

    def update(theta, g, lr):
        nonlocal v
        g = g + weight_decay * theta
        inside, outside = (lr, 1.0) if classical else (1.0, lr)
        v = inside * g if v is None else momentum * v + inside * (1 - dampening) * g
        return theta - outside * (inside * g + momentum * v if nesterov else v)

    return update


def rmsprop_reference(
    alpha=0.99,
    eps=1e-8,
    weight_decay=0.0,
    momentum=0.0,
    centered=False,
    eps_inside_sqrt=False,
    classical=False,
):
    """RMSProp; `classical` puts the learning rate inside the momentum buffer."""
    s = mean = b = 0.0

    def update(theta, g, lr):
        nonlocal s, mean, b
        g = g + weight_decay * theta
        s = alpha * s + (1 - alpha) * g * g
        mean = alpha * mean + (1 - alpha) * g
        average = s - mean * mean if centered else s
        denom = np.sqrt(average + eps) if eps_inside_sqrt else np.sqrt(average) + eps
        inside, outside = (lr, 1.0) if classical else (1.0, lr)
        b = momentum * b + inside * g / denom
        return theta - outside * b

    return update


def adam_reference(
    beta1=0.9,
    beta2=0.999,
    eps=1e-8,
    weight_decay=0.0,
    amsgrad=False,
    decoupled=False,
    eps_hat=False,
    bias_correction=True,
):
    """Adam and, with `decoupled`, AdamW."""
    t = 0
    m = v = v_max = 0.0

    def update(theta, g, lr):
        nonlocal t, m, v, v_max
        t += 1
        if decoupled:
            theta = theta * (1 - lr * weight_decay)
        else:
            g = g + weight_decay * theta
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g * g
        v_max = np.maximum(v_max, v)
        second = v_max if amsgrad else v
        bc1, bc2 = (1 - beta1**t, 1 - beta2**t) if bias_correction else (1.0, 1.0)
        if eps_hat:
            return theta - lr * bc2**0.5 / bc1 * m / (np.sqrt(second) + eps)
        return theta - lr / bc1 * m / (np.sqrt(second) / bc2**0.5 + eps)

    return update


def lion_reference(beta1=0.9, beta2=0.99, weight_decay=0.0):
    """Lion, algorithm 2 of the paper."""
    m = 0.0

    def update(theta, g, lr):
        nonlocal m
        direction = np.sign(beta1 * m + (1 - beta1) * g)
        m = beta2 * m + (1 - beta2) * g
        return theta * (1 - lr * weight_decay) - lr * direction

    return update


def adabelief_reference(beta1=0.9, beta2=0.999, eps=1e-16, weight_decay=0.0):
    """AdaBelief, algorithm 2 of the paper, with decoupled weight decay."""
    t = 0
    m = s = 0.0

    def update(theta, g, lr):
        nonlocal t, m, s
        t += 1
        m = beta1 * m + (1 - beta1) * g
        s = beta2 * s + (1 - beta2) * (g - m) ** 2 + eps
        m_hat = m / (1 - beta1**t)
        s_hat = s / (1 - beta2**t)
        return theta * (1 - lr * weight_decay) - lr * m_hat / (np.sqrt(s_hat) + eps)

    return update


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


def with_betas(options):
    """PyTorch's argument names for Adam's options."""
    options = dict(options)
    if "beta1" in options or "beta2" in options:
        options["betas"] = (options.pop("beta1", 0.9), options.pop("beta2", 0.999))
    return options


@dataclass
class Optimizer:
    """One golden file: how to run the optimizer and the options to run it with.

    `cases` are run with PyTorch, or with optax if PyTorch does not have the optimizer; `of_optax` with optax. `fixed` holds arguments of the PyTorch class that make it this optimizer, `fixed_reference`
    the same for the naive reference.
    """

    name: str
    torch_class: type | None
    reference: Callable
    learning_rate: float
    cases: dict
    alternatives: dict = field(default_factory=dict)
    of_optax: dict = field(default_factory=dict)
    optax_rule: Callable | None = None
    maximize: list = field(default_factory=list)
    fixed: dict = field(default_factory=dict)
    fixed_reference: dict = field(default_factory=dict)
    translate: Callable = dict


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
]


def recorded(values_after):
    """Run 100 steps and keep the values after the recorded ones.

    `values_after(t)` makes step t, counted from 0, and returns the parameters as a new array.
    """
    runs = [values_after(t) for t in range(STEPS)]
    return [runs[step - 1] for step in RECORDED]


def run_torch(optimizer, options, maximize, dtype, size, rates):
    """Sampled values from PyTorch."""
    sample = sampled_indices(size)
    theta = torch.nn.Parameter(torch.from_numpy(param(size).astype(dtype)))
    arguments = optimizer.translate(options) | optimizer.fixed
    torch_optimizer = optimizer.torch_class(
        [theta], lr=rates[0], foreach=False, maximize=maximize, **arguments
    )

    def values_after(t):
        theta.grad = torch.from_numpy(grad(size, t).astype(dtype))
        torch_optimizer.param_groups[0]["lr"] = rates[t]
        torch_optimizer.step()
        return theta.detach().numpy()[sample]

    return recorded(values_after)


def run_optax(optimizer, options, dtype, size, rates):
    """Sampled values from optax."""
    schedule = jax.numpy.asarray(rates, dtype)
    rule = optimizer.optax_rule(lambda t: schedule[t], options)
    theta = jax.numpy.asarray(param(size), dtype)
    state = rule.init(theta)

    def values_after(t):
        nonlocal theta, state
        updates, state = rule.update(jax.numpy.asarray(grad(size, t), dtype), state, theta)
        theta = optax.apply_updates(theta, updates)
        return np.asarray(theta)[sampled_indices(size)]

    return recorded(values_after)


def run_naive(optimizer, options, maximize, size, rates):
    """Sampled values from the naive reference; only the sampled elements are computed."""
    sample = sampled_indices(size)
    sign = -1.0 if maximize else 1.0
    update = optimizer.reference(**(optimizer.fixed_reference | options))
    theta = param(size)[sample]

    def values_after(t):
        nonlocal theta
        theta = update(theta, sign * grad(size, t)[sample], rates[t])
        return theta

    return recorded(values_after)


def runs(optimizer):
    """Every run of one optimizer as (case name, source, options, maximize, dtype, size, rates)."""
    library = TORCH if optimizer.torch_class else OPTAX
    table = [(name, library, options, False) for name, options in optimizer.cases.items()]
    table += [("maximize", TORCH, optimizer.cases[name], True) for name in optimizer.maximize]
    table += [(name, NAIVE, options, False) for name, options in optimizer.alternatives.items()]
    table += [(name, OPTAX, options, False) for name, options in optimizer.of_optax.items()]
    constant = [optimizer.learning_rate] * STEPS
    changing = changing_rates(optimizer.learning_rate)
    for name, source, options, maximize in table:
        constant_sizes = ALL_SIZES if name == "plain" else FEW_SIZES
        plan = [(constant, constant_sizes), (changing, CHANGING_RATE_SIZES)]
        for dtype in DTYPES if source == library else ["f64"]:
            for rates, sizes in plan:
                for size in sizes:
                    yield name, source, options, maximize, dtype, size, rates


def case(optimizer, name, source, options, maximize, dtype, size, rates):
    """Run one case and describe it for the JSON file."""
    naive = run_naive(optimizer, options, maximize, size, rates)
    if source == TORCH:
        values = run_torch(optimizer, options, maximize, DTYPES[dtype], size, rates)
        tolerance = 1e-12 if dtype == "f64" else 1e-4
        np.testing.assert_allclose(values, naive, rtol=tolerance, atol=tolerance, err_msg=name)
    elif source == OPTAX:
        values = run_optax(optimizer, options, DTYPES[dtype], size, rates)
        tolerance = 1e-12 if dtype == "f64" else 1e-4
        np.testing.assert_allclose(values, naive, rtol=tolerance, atol=tolerance, err_msg=name)
    else:
        values = naive
    return {
        "name": name,
        "source": source,
        "options": options,
        "maximize": maximize,
        "dtype": dtype,
        "size": size,
        "learning_rate": rates[:1] if len(set(rates)) == 1 else rates,
        "indices": sampled_indices(size),
        "steps": RECORDED,
        "values": numbers(values),
    }


def main():
    use_generic_kernels(torch)
    for optimizer in OPTIMIZERS:
        library = torch if optimizer.torch_class else optax
        header = {
            "library": library.__name__,
            "version": library.__version__,
            "naive_reference": f"numpy {np.__version__}",
            "generator": Path(__file__).name,
        }
        cases = [case(optimizer, *run) for run in runs(optimizer)]
        write_json(Path(__file__).with_name(f"{optimizer.name}.json"), header, cases)


if __name__ == "__main__":
    main()
