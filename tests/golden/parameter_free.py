"""Golden data for the optimizers that find their learning rate: Prodigy, DoG, L-DoG, DoWG and D-Adaptation.

Run with `python tests/golden/parameter_free.py`; it writes parameter_free.json beside itself.

What they find depends on all tensors of a step together, so every case steps several: those of SIZES in options.py, whose elements are numbered one tensor
after the other. `values[s][j]` is the element `indices[j]` after `steps[s]` steps, and `found[s]` the estimate after them, where there is one for all tensors.

The estimates grow only while parameters move along the gradients. So the gradients here have a direction, which turns every ten steps:

    grad_i at step t = unit((t+1)*1_000_003*7 + i + 2^40) + (-1)^(t // 10) * unit(i + 2^41)

which is exact in f32. The learning rate changes at every step. Tensors that are `resting` have learning rate 0; those that are `absent` have no gradient in
every third step.
"""

import functools
from importlib.metadata import version
from pathlib import Path

import jax
import numpy as np
import optax
import prodigyopt
import pytorch_optimizer.optimizer.dadapt
import torch
from dog import DoG, LDoG
from optax import contrib
from pytorch_optimizer import DAdaptAdam, DAdaptSGD

from common import numbers, unit, use_generic_kernels, write_json
from options import DTYPES, LARGE_SIZES, RECORDED, SIZES, STEPS, indices_of, params_of, rates, tensors

jax.config.update("jax_enable_x64", True)


def grads_of(sizes, t, dtype):
    at = np.arange(sum(sizes))
    turn = (-1.0) ** (t // 10)
    return tensors((unit((t + 1) * 1_000_003 * 7 + at + 2**40) + turn * unit(at + 2**41)).astype(dtype), sizes)


def first_norm_sq(groups):
    """pytorch-optimizer sums up in f32, whatever the type of the parameters."""
    return sum(param.grad.pow(2).sum() for group in groups for param in group["params"])


pytorch_optimizer.optimizer.dadapt.get_global_gradient_norm = first_norm_sq


def absent_at(t, absent):
    return absent if t % 3 == 2 else []


def torch_run(make, found, learning_rates, sizes, dtype, resting=(), absent=()):
    """A torch optimizer, and what it has found after each step."""
    torch.set_default_dtype({np.float32: torch.float32, np.float64: torch.float64}[dtype])
    params = [torch.nn.Parameter(torch.from_numpy(values.copy())) for values in params_of(sizes, dtype)]
    groups = [{"params": [params[at] for at in range(len(params)) if at not in resting]}]
    if resting:
        groups.append({"params": [params[at] for at in resting]})
    optimizer = make(groups)

    def run(t):
        optimizer.param_groups[0]["lr"] = learning_rates[t]
        for group in optimizer.param_groups[1:]:
            group["lr"] = 0.0
        for at, (param, grad) in enumerate(zip(params, grads_of(sizes, t, dtype))):
            param.grad = None if at in absent_at(t, absent) else torch.from_numpy(grad)
        optimizer.step()
        return [param.detach().numpy() for param in params], number(found(optimizer.param_groups[0]))

    return run


def optax_run(make, found, learning_rates, sizes, dtype):
    """An optimizer of optax, and what it has found after each step."""
    transform = make(lambda t: jax.numpy.asarray(learning_rates)[t])
    params = [jax.numpy.asarray(values) for values in params_of(sizes, dtype)]
    state = [transform.init(params), params]

    def run(t):
        grads = [jax.numpy.asarray(grad) for grad in grads_of(sizes, t, dtype)]
        updates, state[0] = transform.update(grads, state[0], state[1])
        state[1] = optax.apply_updates(state[1], updates)
        return [np.asarray(param) for param in state[1]], number(found(state[0]))

    return run


def number(found):
    return None if found is None else float(found)


def forms():
    """Name, options by our setters, the package, what runs it, base learning rate, and tensors that are resting or absent."""

    def prodigy(options, theirs=None, base=1.0, **more):
        theirs = options if theirs is None else theirs

        def make(groups):
            return prodigyopt.Prodigy(groups, lr=base, **theirs)

        run = functools.partial(torch_run, make, lambda group: group["d"], **more)
        return "prodigy", options, "prodigyopt", run, base, more

    def dog(options, theirs, make=None, **more):
        def run_with(groups):
            return (make or DoG)(groups, **theirs)

        # Its groups are apart, so that there is one number only without `layerwise`.
        def found(group):
            return group["eta"][0] / group["lr"] if make is None else None

        run = functools.partial(torch_run, run_with, found, **more)
        return "dog", options, "dog-optimizer", run, 1.0, more

    def of_optax(name, options, make, found, base=1.0):
        return name, options, "optax", functools.partial(optax_run, make, found), base, {}

    def optax_dog(options, eps=1e-8, **theirs):
        def found(state):
            state = state[1]
            if state.max_dist == 0:
                return theirs["init_step"][1]
            return state.max_dist / np.sqrt(state.sum_sq_norm_grads + eps)

        return of_optax("dog", options, lambda rate: contrib.dog(rate, eps=eps, **theirs), found)

    def optax_dowg(options, eps=1e-4, **theirs):
        def found(state):
            state = state[1]
            return state.estim_sq_dist / (np.sqrt(state.weighted_sq_norm_grads) + eps)

        return of_optax("dowg", options, lambda rate: contrib.dowg(rate, eps=eps, **theirs), found)

    def dadapt_adam(options, **theirs):
        return of_optax("dadaptadam", options, lambda rate: contrib.dadapt_adamw(rate, **theirs), lambda state: state.estim_lr)

    def kozistr(name, kind, options, theirs, base=1.0, **more):
        def make(groups):
            return kind(groups, lr=base, foreach=False, **theirs)

        run = functools.partial(torch_run, make, lambda group: group["d"], **more)
        return name, options, "pytorch-optimizer", run, base, more

    yield prodigy({})
    yield prodigy({"beta1": 0.8, "beta2": 0.99, "eps": 1e-3}, {"betas": (0.8, 0.99), "eps": 1e-3})
    yield prodigy({"beta1": 0.0, "growth_rate": 1.2}, {"betas": (0.0, 0.999), "growth_rate": 1.2})
    yield prodigy({"beta3": 0.9, "d_coef": 0.5})
    yield prodigy({"d0": 1e-4, "growth_rate": 1.2})
    yield prodigy({"safeguard_warmup": True})
    yield prodigy({"bias_correction": True}, {"use_bias_correction": True})
    yield prodigy({"weight_decay": 0.01})
    yield prodigy({"weight_decay": 0.01, "coupled_decay": True}, {"weight_decay": 0.01, "decouple": False})
    yield prodigy({}, resting=[2, 4])
    yield prodigy({"growth_rate": 1.2}, absent=[3, 5])
    yield optax_dog({})
    yield optax_dog({"relative_distance": 1e-3, "eps": 1e-2}, init_step=("heuristic", 1e-3), eps=1e-2)
    yield optax_dog({"initial_distance": 0.1}, init_step=("distance", 0.1))
    yield optax_dog({"initial_rate": 1e-3}, init_step=("learning_rate", 1e-3))
    yield optax_dog({"weight_decay": 0.1}, weight_decay=0.1)
    yield dog({}, {})
    yield dog({"layerwise": True}, {}, LDoG)
    yield dog({"layerwise": True, "relative_distance": 1e-3, "eps": 1e-2, "weight_decay": 0.1},
              {"reps_rel": 1e-3, "eps": 1e-2, "weight_decay": 0.1}, LDoG)
    yield optax_dowg({})
    yield optax_dowg({"initial_distance_sq": 1e-2, "eps": 1e-3}, init_estim_sq_dist=1e-2, eps=1e-3)
    yield optax_dowg({"weight_decay": 0.1}, weight_decay=0.1)
    yield dadapt_adam({})
    yield dadapt_adam({"beta1": 0.8, "beta2": 0.99, "eps": 1e-3}, betas=(0.8, 0.99), eps=1e-3)
    yield dadapt_adam({"d0": 1e-3, "weight_decay": 0.1}, estim_lr0=1e-3, weight_decay=0.1)
    yield kozistr("dadaptadam", DAdaptAdam, {"bias_correction": False, "growth_rate": 1.2},
                  {"bias_correction": False, "growth_rate": 1.2, "eps": 1e-8})
    yield kozistr("dadaptsgd", DAdaptSGD, {}, {})
    yield kozistr("dadaptsgd", DAdaptSGD, {"momentum": 0.5, "d0": 1e-3, "weight_decay": 0.1},
                  {"momentum": 0.5, "d0": 1e-3, "weight_decay": 0.1})
    yield kozistr("dadaptsgd", DAdaptSGD, {"growth_rate": 1.2}, {"growth_rate": 1.2})


def case(name, options, source, run, dtype, sizes, base, **more):
    rows, found = [], []
    for t in range(STEPS):
        after, estimate = run(t)
        if t + 1 in RECORDED:
            rows.append(numbers(np.concatenate([np.asarray(tensor).ravel() for tensor in after])[indices_of(sizes)]))
            found.append(estimate)
    return {
        "name": name,
        "options": options,
        "source": source,
        "dtype": dtype,
        "sizes": sizes,
        "learning_rate": base,
        "indices": indices_of(sizes),
        "found": found,
        "values": rows,
        **more,
    }


def main():
    use_generic_kernels(torch)
    cases, large = [], set()
    for name, options, package, run, base, more in forms():
        source = f"{package} {version(package)}"
        all_sizes = [SIZES] + [LARGE_SIZES] * (name not in large)
        large.add(name)
        for sizes in all_sizes:
            for dtype, kind in DTYPES.items():
                cases.append(case(name, options, source, run(rates(base), sizes, kind), dtype, sizes, base, **more))
    write_json(Path(__file__).with_name("parameter_free.json"), {"generator": "parameter_free.py", "steps": RECORDED}, cases)


if __name__ == "__main__":
    main()
