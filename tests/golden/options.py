"""Golden data for the options of the drivers, and for the optimizers that are named combinations of them.

Run with `python tests/golden/options.py`; it writes options.json beside itself.

Norms are taken tensor by tensor, so every case steps several: those of SIZES, whose elements are numbered one tensor after the other. Parameters and
gradients are those of README.md; the learning rate changes at every step. `values[s][j]` is the element `indices[j]` after `steps[s]` steps.

Where a library has the option in a function of its own (pytorch-optimizer's cautious updates, heavyball's decay and hyperball), the script gives it the
direction of Adam, which it computes as PyTorch does.
"""

import functools
import os
from importlib.metadata import version
from pathlib import Path

os.environ["TORCH_COMPILE_DISABLE"] = "1"

import heavyball.utils
import jax
import lion_pytorch.cautious_lion
import numpy as np
import optax
import optimi
import pytorch_optimizer
import timm.optim
import torch
from pytorch_optimizer.base.optimizer import BaseOptimizer

from common import numbers, unit, use_generic_kernels, write_json

jax.config.update("jax_enable_x64", True)
heavyball.utils.compile_mode = None

STEPS = 100
RECORDED = [1, 2, 3, 10, 50, 100]
SIZES = [0, 1, 7, 8, 9, 1000]
LARGE_SIZES = [9, 100003]
DTYPES = {"f32": np.float32, "f64": np.float64}
BASE_RATE = 0.01


def rates(base):
    """A learning rate that jumps at every step and halves every 20 steps; the second is the largest."""
    return [base * 0.5 ** (t // 20) * (1 + 0.25 * (t % 3)) for t in range(STEPS)]


def tensors(all_elements, sizes):
    """The elements, cut into tensors."""
    return np.split(all_elements, np.cumsum(sizes)[:-1])


def params_of(sizes, dtype):
    return tensors(unit(np.arange(sum(sizes))).astype(dtype), sizes)


def grads_of(sizes, t, dtype):
    return tensors(unit((t + 1) * 1_000_003 * 7 + np.arange(sum(sizes)) + 2**40).astype(dtype), sizes)


def sampled_indices(size):
    """Ends and some between of each tensor; the numbers of optimizers.py, shifted for each tensor by the script."""
    if size <= 9:
        return list(range(size))
    return list(range(8)) + [j * size // 9 for j in range(1, 9)] + list(range(size - 8, size))


def indices_of(sizes):
    starts = np.cumsum([0, *sizes[:-1]])
    return [int(start) + index for start, size in zip(starts, sizes) for index in sampled_indices(size)]


def recorded(sizes, values, run):
    """What `run(t)` returns, all tensors after step t, at the recorded steps."""
    rows = []
    for t in range(STEPS):
        after = np.concatenate([np.asarray(tensor).ravel() for tensor in run(t)])
        if t + 1 in RECORDED:
            rows.append(numbers(after[indices_of(sizes)]))
    return rows


def torch_run(make, learning_rates, sizes, dtype, undecayed=()):
    """A torch optimizer; `undecayed` tensors are a group without weight decay."""
    params = [torch.nn.Parameter(torch.from_numpy(values.copy())) for values in params_of(sizes, dtype)]
    groups = [{"params": [params[at] for at in range(len(params)) if at not in undecayed]}]
    if undecayed:
        groups.append({"params": [params[at] for at in undecayed], "weight_decay": 0.0})
    optimizer = make(groups)

    def run(t):
        for group in optimizer.param_groups:
            group["lr"] = learning_rates[t]
        for param, grad in zip(params, grads_of(sizes, t, dtype)):
            param.grad = torch.from_numpy(grad)
        optimizer.step()
        return [param.detach().numpy() for param in params]

    return run


def optax_run(make, learning_rates, sizes, dtype):
    transform = make(lambda t: jax.numpy.asarray(learning_rates)[t])
    params = [jax.numpy.asarray(values) for values in params_of(sizes, dtype)]
    state = [transform.init(params), params]

    def run(t):
        grads = [jax.numpy.asarray(grad) for grad in grads_of(sizes, t, dtype)]
        updates, state[0] = transform.update(grads, state[0], state[1])
        state[1] = optax.apply_updates(state[1], updates)
        return [np.asarray(param) for param in state[1]]

    return run


def adam_run(update, learning_rates, sizes, dtype):
    """Adam's direction, as PyTorch computes it, which `update(param, direction, grad, rate, memory)` makes a step of."""
    params = [torch.from_numpy(values.copy()) for values in params_of(sizes, dtype)]
    moments = [[torch.zeros_like(param) for param in params] for _ in range(2)]
    memories = [{} for _ in params]

    def run(t):
        for param, grad, m, v, memory in zip(params, grads_of(sizes, t, dtype), *moments, memories):
            grad = torch.from_numpy(grad)
            m.lerp_(grad, 0.1)
            v.mul_(0.999).addcmul_(grad, grad, value=0.001)
            direction = (m / (1 - 0.9 ** (t + 1))) / (v.sqrt() / (1 - 0.999 ** (t + 1)) ** 0.5 + 1e-8)
            update(param, direction, grad, learning_rates[t], memory)
        return [param.numpy() for param in params]

    return run


def cautious(param, direction, grad, rate, _, decay):
    """Cautious AdamW of the authors."""
    BaseOptimizer.apply_cautious(direction, grad)
    param.mul_(1 - rate * decay).add_(direction, alpha=-rate)


def cautious_decay(param, direction, _, rate, __, decay):
    heavyball.utils.update_param_([param], [direction], rate, decay, cautious_decay=True)


def hyperball(param, direction, _, rate, memory, decay, cautious_decay=False):
    if param.numel() == 0:
        return
    norm = memory.setdefault("norm", param.norm())
    rate = torch.tensor(rate, dtype=param.dtype)
    heavyball.utils.hyperball_step_([param], [direction], [norm], rate, decay, False, [None], cautious_decay)


def case(name, options, source, run, dtype, sizes, base, **more):
    return {
        "name": name,
        "options": options,
        "source": source,
        "dtype": dtype,
        "sizes": sizes,
        "learning_rate": base,
        "indices": indices_of(sizes),
        "values": recorded(sizes, RECORDED, run),
        **more,
    }


def forms():
    """Name, options by our setters, the package, what runs it, base learning rate, and tensors without decay."""
    timm_lamb = functools.partial(timm.optim.Lamb, foreach=False)
    timm_lars = functools.partial(timm.optim.Lars, foreach=False)
    stable = functools.partial(optimi.StableAdamW, foreach=False, triton=False)
    kozistr = functools.partial(pytorch_optimizer.StableAdamW, foreach=False)
    most = 1.5 * BASE_RATE
    always = {"always_adapt": True, "max_grad_norm": None}

    def torch_form(name, options, package, make, base=BASE_RATE, **more):
        undecayed = more.get("undecayed", ())

        def run(learning_rates, sizes, dtype):
            return torch_run(make, learning_rates, sizes, dtype, undecayed)

        return name, options, package, run, base, more

    def adam_form(options, package, update, base=BASE_RATE):
        return "adamw", options, package, functools.partial(adam_run, update), base, {}

    def optax_form(name, options, make, base=BASE_RATE):
        return name, options, "optax", functools.partial(optax_run, make), base, {}

    def decayed(make, rate=BASE_RATE, **options):
        return lambda groups: make(groups, lr=rate, **options)

    yield torch_form("lamb", {}, "timm", decayed(timm_lamb, **always))
    yield torch_form("lamb", {"weight_decay": 0.3, "beta1": 0.8, "beta2": 0.95, "eps": 1e-3}, "timm",
                     decayed(timm_lamb, weight_decay=0.3, betas=(0.8, 0.95), eps=1e-3, **always))
    yield torch_form("lamb", {"clip_global_norm": 1.0, "always_adapt": False}, "timm", decayed(timm_lamb), undecayed=[2, 4])
    yield torch_form("lamb", {"weight_decay": 0.0, "always_adapt": False}, "timm",
                     decayed(timm_lamb, weight_decay=0.0, max_grad_norm=None))
    yield optax_form("lamb", {"weight_decay": 0.0}, optax.lamb)
    yield optax_form("lamb", {"weight_decay": 0.1}, lambda rate: optax.lamb(rate, weight_decay=0.1))
    for momentum, more in [(0.9, {}), (0.8, {"nesterov": True}), (0.9, {"dampening": 0.5})]:
        options = {"momentum": momentum, "weight_decay": 0.01, **more}
        yield torch_form("lars", options, "timm", decayed(timm_lars, 1.0, always_adapt=True, **options), 1.0)
    options = {"momentum": 0.9, "weight_decay": 0.1, "trust_coefficient": 0.02, "eps": 1e-3}
    theirs = {"momentum": 0.9, "weight_decay": 0.1, "trust_coeff": 0.02, "eps": 1e-3, "always_adapt": True}
    yield torch_form("lars", options, "timm", decayed(timm_lars, 1.0, **theirs), 1.0)
    yield torch_form("lars", {"momentum": 0.9, "weight_decay": 0.1, "always_adapt": False}, "timm",
                     decayed(timm_lars, 0.1, momentum=0.9, weight_decay=0.1), 0.1, undecayed=[2, 4])
    yield torch_form("stableadamw", {}, "torch-optimi", decayed(stable))
    yield torch_form("stableadamw", {"beta1": 0.8, "beta2": 0.9, "eps": 0.3, "weight_decay": 0.2}, "torch-optimi",
                     decayed(stable, betas=(0.8, 0.9), eps=0.3, weight_decay=0.2))
    yield torch_form("stableadamw", {"decoupled_decay": ["relative", most]}, "torch-optimi",
                     decayed(stable, decouple_lr=True, max_lr=most))
    yield torch_form("stableadamw", {"eps": 1e-8}, "pytorch-optimizer", decayed(kozistr))

    def mars(groups, **options):
        optimizer = pytorch_optimizer.MARS(groups, foreach=False, **options)
        # Its 1e-15 inside the root is none of the algorithm's.
        optimizer.apply_ams_bound = lambda _, exp_avg_sq, __, eps: exp_avg_sq.sqrt().add_(eps)
        return optimizer

    for name, kind in [("mars", "adamw"), ("marslion", "lion")]:
        for options in [{}, {"weight_decay": 0.1, "beta1": 0.8, "beta2": 0.9, "gamma": 0.3, "eps": 1e-3}]:
            theirs = {key: value for key, value in options.items() if not key.startswith("beta")}
            betas = (options.get("beta1", 0.9), options.get("beta2", 0.99))
            for vectors in [True, False]:
                own = {"beta1": 0.9, **options, "plain_first_step": True, "vectors": True}
                if not vectors:  # AdamW, which has none of these
                    own = {key: value for key, value in own.items() if key not in ("gamma", "plain_first_step", "vectors")}
                yield torch_form(name, own, "timm",
                                 decayed(timm.optim.Mars, mars_type=kind, optimize_1d=vectors, betas=betas, **theirs))
        # Without ε, which pytorch-optimizer adds before the bias correction.
        yield torch_form(name, {"eps": 0.0, "vectors": True}, "pytorch-optimizer",
                         decayed(mars, mars_type=kind, optimize_1d=True, eps=0.0))
        yield torch_form(name, {"eps": 0.0, "vectors": True, "beta1": 0.8, "gamma": 0.3, "weight_decay": 0.1}, "pytorch-optimizer",
                         decayed(mars, mars_type=kind, optimize_1d=True, eps=0.0, betas=(0.8, 0.99), gamma=0.3, weight_decay=0.1))
    yield optax_form("novograd", {}, optax.novograd)
    options = {"beta1": 0.8, "beta2": 0.9, "eps": 0.3, "weight_decay": 0.1}
    yield optax_form("novograd", options, lambda rate: optax.novograd(rate, 0.8, 0.9, 0.3, weight_decay=0.1))
    novograd = functools.partial(pytorch_optimizer.NovoGrad, foreach=False)
    theirs = {"beta1": 0.95, "beta2": 0.98, "eps": 1e-8}
    yield torch_form("novograd", theirs, "pytorch-optimizer", decayed(novograd))
    yield torch_form("novograd", {**theirs, "decoupled": True, "weight_decay": 0.3}, "pytorch-optimizer",
                     decayed(novograd, weight_decouple=True, weight_decay=0.3))
    yield torch_form("novograd", {**theirs, "grad_averaging": True, "weight_decay": 0.1}, "pytorch-optimizer",
                     decayed(novograd, grad_averaging=True, weight_decay=0.1))
    yield torch_form("adam", {"update_clipping": True, "weight_decay": 0.1, "beta2": 0.99}, "pytorch-optimizer",
                     decayed(kozistr, weight_decay=0.1, weight_decouple=False))
    yield torch_form("lion", {"cautious": True, "weight_decay": 0.1}, "pytorch-optimizer",
                     decayed(pytorch_optimizer.Lion, weight_decay=0.1, cautious=True, foreach=False))
    yield torch_form("lion", {"decoupled_decay": ["fixed"], "weight_decay": 1e-3}, "pytorch-optimizer",
                     decayed(pytorch_optimizer.Lion, weight_decay=1e-3, fixed_decay=True, foreach=False))
    yield torch_form("lion", {"cautious_decay": True, "weight_decay": 0.1}, "lion-pytorch",
                     decayed(lion_pytorch.cautious_lion.Lion, weight_decay=0.1, cautious_wd=True, cautious_factor=1.0))
    eps = {"eps_hat": True, "eps": 1e-8}
    for options, theirs in [
        ({"decoupled_decay": ["fixed"], "weight_decay": 1e-3}, {"fixed_decay": True, "weight_decay": 1e-3}),
        ({"decoupled_decay": ["corrected", most], "weight_decay": 0.5}, {"weight_decay": 0.5}),
    ]:

        def adamc(groups, theirs=theirs):
            groups = [{**group, "normalized": True} for group in groups]
            optimizer = pytorch_optimizer.AdamC(groups, lr=most, foreach=False, **theirs)
            # Its 1e-15 inside the root is none of the algorithm's.
            optimizer.apply_ams_bound = lambda **all: all["exp_avg_sq"].sqrt().add_(all["eps"])
            return optimizer

        yield torch_form("adam", options | eps, "pytorch-optimizer", adamc)
    yield adam_form({"cautious": True}, "pytorch-optimizer", functools.partial(cautious, decay=0.01))
    yield adam_form({"cautious": True, "weight_decay": 0.3}, "pytorch-optimizer", functools.partial(cautious, decay=0.3))
    yield adam_form({"cautious_decay": True, "weight_decay": 0.3}, "heavyball", functools.partial(cautious_decay, decay=0.3))
    yield adam_form({"trust_ratio": True, "keep_norm": True, "weight_decay": 0.0}, "heavyball",
                    functools.partial(hyperball, decay=0.0))
    yield adam_form({"trust_ratio": True, "keep_norm": True, "weight_decay": 0.3}, "heavyball",
                    functools.partial(hyperball, decay=0.3))
    yield adam_form({"trust_ratio": True, "keep_norm": True, "cautious_decay": True, "weight_decay": 0.3}, "heavyball",
                    functools.partial(hyperball, decay=0.3, cautious_decay=True))
    yield optax_form("adam", {"nesterov": True}, lambda rate: optax.adam(rate, nesterov=True))
    yield optax_form("adam", {"nesterov": True, "beta1": 0.7, "beta2": 0.9, "eps": 1e-3},
                     lambda rate: optax.adam(rate, b1=0.7, b2=0.9, eps=1e-3, nesterov=True))
    yield optax_form("adamw", {"nesterov": True, "weight_decay": 0.1},
                     lambda rate: optax.adamw(rate, weight_decay=0.1, nesterov=True))
    yield optax_form("adabelief", {"nesterov": True}, lambda rate: optax.adabelief(rate, nesterov=True))


def main():
    use_generic_kernels(torch)
    cases, large = [], {("lamb", "timm"), ("stableadamw", "torch-optimi"), ("adamw", "heavyball"), ("mars", "timm"), ("novograd", "optax")}
    for name, options, package, run, base, more in forms():
        source = f"{package} {version(package)}"
        all_sizes = [SIZES] + [LARGE_SIZES] * ((name, package) in large and "undecayed" not in more)
        large -= {(name, package)}
        for sizes in all_sizes:
            for dtype, kind in DTYPES.items():
                cases.append(case(name, options, source, run(rates(base), sizes, kind), dtype, sizes, base, **more))
    header = {"generator": "options.py", "steps": RECORDED}
    write_json(Path(__file__).with_name("options.json"), header, cases)


if __name__ == "__main__":
    main()
