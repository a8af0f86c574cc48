"""Golden data for the learning-rate schedules.

Run with `python tests/golden/schedules.py`; it writes schedules.json beside itself.

The value at step t is the learning rate in force for the t-th optimizer step, counting from 0.
Recorded are steps 0 to 40, then every 7th step up to 1000, step 1000 itself, and the neighbors of
every step at which the schedule changes its course.

PyTorch's closed form is used where a class has one; the other PyTorch classes are stepped. Every
case holds the arguments it was made with (`options`) and the call as text.
"""

import math
from importlib import metadata
from pathlib import Path

import jax
import numpy as np
import optax
import torch
import transformers
from pytorch_optimizer import AdEMAMix
from torch.optim import lr_scheduler
from transformers import optimization

from common import numbers, unit, write_json

jax.config.update("jax_enable_x64", True)

LAST = 1000
COSINE_RISES_AGAIN = (
    "beyond compare_through the library follows the cosine up again instead of staying at the end value"
)


def recorded_steps(boundaries, last):
    """The steps of one case: `boundaries` are the steps at which the schedule changes its course."""
    steps = {*range(41), *range(47, LAST + 1, 7), LAST}
    steps |= {b + offset for b in boundaries for offset in (-1, 0, 1)}
    return sorted(t for t in steps if 0 <= t <= last)


def arguments(options):
    """Options as Python arguments: pairs in the JSON become a dictionary."""
    return {k: dict(v) if k == "boundaries_and_scales" else v for k, v in options.items()}


def call_text(name, options, first=()):
    """The call as text; an option that is a list of schedules becomes a list of calls."""

    def text(value):
        if isinstance(value, list) and value and isinstance(value[0], dict) and "name" in value[0]:
            return "[" + ", ".join(call_text(*without_name(v), first) for v in value) + "]"
        return repr(value)

    parts = [*first, *(f"{k}={text(v)}" for k, v in arguments(options).items())]
    return f"{name}({', '.join(parts)})"


def without_name(part):
    """Split a nested schedule into its name and its options."""
    return part["name"], {k: v for k, v in part.items() if k != "name"}


def case(name, library, version, call, options, steps, values, compare_through=None, note=None):
    """One case of the JSON file; `compare_through` and `note` are left out when there is nothing to say."""
    record = {
        "name": name,
        "library": library,
        "version": version,
        "call": call,
        "options": options,
        "steps": steps,
        "values": numbers(np.array(values, dtype=np.float64)),
        "compare_through": compare_through,
        "note": note,
    }
    return {k: v for k, v in record.items() if v is not None}


# PyTorch and Hugging Face: a scheduler changes the learning rate of an optimizer.


def dummy_optimizer(lr):
    """An optimizer whose only parameter never gets a gradient."""
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)


def build_scheduler(module, name, optimizer, options):
    """Build a scheduler of `module`, and first the schedulers it is made of."""
    parts = [
        build_scheduler(module, part_name, optimizer, part_options)
        for part_name, part_options in map(without_name, options.get("schedulers", []))
    ]
    nested = {"schedulers": parts} if parts else {}
    return getattr(module, name)(optimizer, **(options | nested))


def scheduler_values(optimizer, scheduler, steps):
    """Values from the closed form if there is one, otherwise from stepping."""
    if hasattr(scheduler, "_get_closed_form_lr"):
        values = []
        for t in steps:
            scheduler.last_epoch = t
            values += scheduler._get_closed_form_lr()
        return values
    walked = []
    for _ in range(steps[-1] + 1):
        walked.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if len(walked) <= steps[-1]:
            scheduler.step()
    return [walked[t] for t in steps]


def scheduler_case(module, library, name, lr, options, boundaries=(), last=LAST, **remarks):
    """A case from a scheduler that changes the learning rate `lr` of an optimizer."""
    optimizer = dummy_optimizer(lr)
    scheduler = build_scheduler(module, name, optimizer, options)
    steps = recorded_steps(boundaries, last)
    return case(
        name,
        library.__name__,
        library.__version__,
        f"{module.__name__}.{call_text(name, options, ('optimizer',))} with optimizer = SGD(lr={lr!r})",
        {"lr": lr} | options,
        steps,
        scheduler_values(optimizer, scheduler, steps),
        **remarks,
    )


def torch_case(*args, **kwargs):
    """A case from torch.optim.lr_scheduler."""
    return scheduler_case(lr_scheduler, torch, *args, **kwargs)


def hf_case(*args, **kwargs):
    """A case from transformers.optimization."""
    return scheduler_case(optimization, transformers, *args, **kwargs)


def torch_cases():
    """PyTorch's schedules that depend on the step only."""
    yield torch_case("StepLR", 0.1, {"step_size": 30, "gamma": 0.5}, range(30, LAST, 30))
    yield torch_case("StepLR", 0.1, {"step_size": 250, "gamma": 0.1}, range(250, LAST, 250))
    milestones = [30, 80, 500]
    yield torch_case("MultiStepLR", 0.1, {"milestones": milestones, "gamma": 0.1}, milestones)
    milestones = [100, 100, 900]
    yield torch_case(
        "MultiStepLR",
        0.1,
        {"milestones": milestones, "gamma": 0.5},
        milestones,
        note="a milestone given twice counts twice",
    )
    yield torch_case("ExponentialLR", 0.1, {"gamma": 0.995})
    yield torch_case("ConstantLR", 0.1, {"factor": 0.25, "total_iters": 100}, [100])
    yield torch_case("LinearLR", 0.1, {"start_factor": 0.01, "end_factor": 1.0, "total_iters": 100}, [100])
    yield torch_case("LinearLR", 0.1, {"start_factor": 1.0, "end_factor": 0.0, "total_iters": 700}, [700])
    for power in (1.0, 2.0, 0.9):
        yield torch_case("PolynomialLR", 0.1, {"total_iters": 600, "power": power}, [600])
    for t_max, eta_min in ((1000, 0.0), (400, 0.001)):
        yield torch_case(
            "CosineAnnealingLR",
            0.1,
            {"T_max": t_max, "eta_min": eta_min},
            [t_max],
            compare_through=t_max,
            note=COSINE_RISES_AGAIN,
        )
    yield torch_case(
        "CosineAnnealingWarmRestarts", 0.1, {"T_0": 50, "T_mult": 1, "eta_min": 0.0}, range(50, LAST, 50)
    )
    yield torch_case(
        "CosineAnnealingWarmRestarts", 0.1, {"T_0": 50, "T_mult": 2, "eta_min": 0.001}, [50, 150, 350, 750]
    )
    yield from torch_one_cycle_cases()
    yield from torch_cyclic_cases()
    yield from torch_sequential_cases()
    yield from torch_cycle_momentum_cases()
    yield from torch_chained_cases()


def torch_one_cycle_cases():
    """OneCycleLR; it has no value at or beyond total_steps."""
    default = {
        "max_lr": 0.1,
        "total_steps": 500,
        "pct_start": 0.3,
        "anneal_strategy": "cos",
        "div_factor": 25.0,
        "final_div_factor": 1e4,
        "three_phase": False,
    }
    changes = [
        {},
        {"anneal_strategy": "linear"},
        {"three_phase": True},
        {"three_phase": True, "anneal_strategy": "linear", "pct_start": 0.25},
        {"total_steps": 1001},
        {"total_steps": 1001, "pct_start": 0.1, "div_factor": 10.0, "final_div_factor": 100.0},
        {"total_steps": 37, "pct_start": 0.3},
    ]
    for change in changes:
        options = default | change
        total, pct_start = options["total_steps"], options["pct_start"]
        yield torch_case(
            "OneCycleLR",
            0.1,
            options | {"cycle_momentum": False},
            [math.ceil(pct_start * total) - 1, math.ceil(2 * pct_start * total) - 2, total - 1],
            last=total - 1,
            note="phases end at pct_start * total_steps - 1, not always an integer, and at total_steps - 1; lr is ignored",
        )


def torch_cyclic_cases():
    """CyclicLR in its three modes."""
    default = {
        "base_lr": 0.001,
        "max_lr": 0.01,
        "step_size_up": 50,
        "step_size_down": 50,
        "mode": "triangular",
        "gamma": 1.0,
    }
    changes = [
        {},
        {"mode": "triangular2"},
        {"mode": "exp_range", "gamma": 0.995},
        {"step_size_up": 30, "step_size_down": 70},
        {"step_size_up": 30, "step_size_down": 70, "mode": "triangular2"},
        {"step_size_up": 30, "step_size_down": 70, "mode": "exp_range", "gamma": 0.995},
    ]
    for change in changes:
        options = default | change
        up, cycle = options["step_size_up"], options["step_size_up"] + options["step_size_down"]
        turns = [start + turn for start in range(0, LAST + 1, cycle) for turn in (0, up)]
        yield torch_case("CyclicLR", 0.1, options | {"cycle_momentum": False}, turns, note="lr is ignored")


def torch_sequential_cases():
    """SequentialLR; the step count starts again from 0 at every milestone."""
    note = "PyTorch steps the parts by a recursion, which rounds differently from the closed form"
    warmup = {"name": "LinearLR", "start_factor": 0.01, "end_factor": 1.0, "total_iters": 100}
    yield torch_case(
        "SequentialLR",
        0.1,
        {
            "schedulers": [warmup, {"name": "CosineAnnealingLR", "T_max": 900, "eta_min": 0.001}],
            "milestones": [100],
        },
        [100, 1000],
        note=note,
    )
    yield torch_case(
        "SequentialLR",
        0.1,
        {
            "schedulers": [
                {"name": "ConstantLR", "factor": 0.1, "total_iters": 20},
                {"name": "ExponentialLR", "gamma": 0.99},
                {"name": "StepLR", "step_size": 100, "gamma": 0.5},
            ],
            "milestones": [20, 400],
        },
        [20, 400, 500, 600, 700, 800, 900, 1000],
        note=note,
    )


def torch_cycle_momentum_cases():
    """The momentum that OneCycleLR and CyclicLR steer against the learning rate."""
    lr = 0.1
    one_cycle = {
        "max_lr": lr,
        "total_steps": 25,
        "pct_start": 0.3,
        "anneal_strategy": "cos",
        "base_momentum": 0.85,
        "max_momentum": 0.95,
        "three_phase": False,
    }
    changes = [
        {},
        {"anneal_strategy": "linear"},
        {"three_phase": True},
        {"total_steps": 500},
        {"total_steps": 37, "pct_start": 0.41, "base_momentum": 0.5},
        {"total_steps": 37, "pct_start": 0.41, "three_phase": True, "anneal_strategy": "linear"},
    ]
    table = [("OneCycleLR", one_cycle | change) for change in changes]
    cyclic = {
        "base_lr": 0.001,
        "max_lr": 0.01,
        "step_size_up": 30,
        "step_size_down": 70,
        "mode": "triangular",
        "gamma": 1.0,
        "base_momentum": 0.8,
        "max_momentum": 0.9,
    }
    changes = [{}, {"mode": "triangular2"}, {"mode": "exp_range", "gamma": 0.995}]
    table += [("CyclicLR", cyclic | change) for change in changes]
    for name, options in table:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr, momentum=0.9)
        scheduler = getattr(lr_scheduler, name)(optimizer, **options)
        last = options.get("total_steps", LAST) - 1
        walked = []
        for _ in range(last):
            walked.append(optimizer.param_groups[0]["momentum"])
            optimizer.step()
            scheduler.step()
        walked.append(optimizer.param_groups[0]["momentum"])
        steps = recorded_steps([last], last)
        yield case(
            f"{name}.momentum",
            torch.__name__,
            torch.__version__,
            f"the momentum of {lr_scheduler.__name__}.{call_text(name, options, ('optimizer',))}",
            {"lr": lr} | options,
            steps,
            [walked[t] for t in steps],
        )


def torch_chained_cases():
    """ChainedScheduler over schedulers that multiply what they find."""
    name, lr = "ChainedScheduler", 0.1
    exponential = {"name": "ExponentialLR", "gamma": 0.99}
    chains = [
        [exponential, {"name": "CosineAnnealingLR", "T_max": LAST, "eta_min": 0.0}],
        [{"name": "LinearLR", "start_factor": 0.1, "end_factor": 1.0, "total_iters": 100}, exponential],
        [
            {"name": "ConstantLR", "factor": 0.5, "total_iters": 20},
            {"name": "PolynomialLR", "total_iters": 900, "power": 2.0},
            {"name": "StepLR", "step_size": 100, "gamma": 0.5},
            {"name": "MultiStepLR", "milestones": [50, 300], "gamma": 0.1},
        ],
    ]
    for chain in chains:
        optimizer = dummy_optimizer(lr)
        parts = [build_scheduler(lr_scheduler, *part[:1], optimizer, part[1]) for part in map(without_name, chain)]
        steps = recorded_steps([20, 50, 100, 300, 900], LAST)
        yield case(
            name,
            torch.__name__,
            torch.__version__,
            f"{lr_scheduler.__name__}.{call_text(name, {'schedulers': chain})} with optimizer = SGD(lr={lr!r})",
            {"lr": lr, "schedulers": chain},
            steps,
            scheduler_values(optimizer, lr_scheduler.ChainedScheduler(parts, optimizer=optimizer), steps),
            note="PyTorch steps the parts by recursions, which round differently from the closed form",
        )


def plateau_metrics(count=80):
    """A noisy curve that falls towards 0.25; dyadic, hence exact, numbers."""
    noise = unit(np.arange(count))
    curve = 2.0 / (1 + np.arange(count) / 4) + 0.25 + 0.0625 * noise
    return np.round(curve * 1024) / 1024


def plateau_cases():
    """ReduceLROnPlateau: `values[i]` is the learning rate after `metrics[i]` was reported."""
    default = {
        "mode": "min",
        "factor": 0.5,
        "patience": 3,
        "threshold": 1e-4,
        "threshold_mode": "rel",
        "cooldown": 0,
        "min_lr": 0.0,
        "eps": 1e-8,
    }
    falling = plateau_metrics()
    rising = 3.0 - falling
    bare = (0.1, None)
    table = [
        ({}, falling, *bare),
        ({"threshold": 0.05}, falling, *bare),
        ({"threshold": 0.05, "threshold_mode": "abs"}, falling, *bare),
        ({"mode": "max"}, rising, *bare),
        ({"mode": "max", "threshold": 0.05}, rising, *bare),
        ({"mode": "max", "threshold": 0.05, "threshold_mode": "abs"}, rising, *bare),
        ({"cooldown": 5}, falling, *bare),
        ({"cooldown": 5, "mode": "max", "patience": 1}, rising, *bare),
        ({"min_lr": 0.02}, falling, *bare),
        ({"patience": 0, "factor": 0.9}, falling, *bare),
        ({"factor": 0.9, "patience": 0}, falling, 2e-7, "a reduction by eps or less is not made"),
        ({"patience": 2}, np.full(20, 1.0), 0.1, "equal metrics are no improvement"),
        (
            {"threshold": 0.1},
            np.round(-(0.95 ** np.arange(20)) * 1024) / 1024,
            0.1,
            "every metric is worse, yet the rate never falls: PyTorch asks for metric < best * (1 - threshold)",
        ),
    ]
    name = "ReduceLROnPlateau"
    for change, metrics, lr, note in table:
        options = default | change
        optimizer = dummy_optimizer(lr)
        scheduler = getattr(lr_scheduler, name)(optimizer, **options)
        values = []
        for metric in metrics:
            scheduler.step(metric)
            values.append(optimizer.param_groups[0]["lr"])
        call = call_text(name, options, ("optimizer",))
        record = case(
            name,
            torch.__name__,
            torch.__version__,
            f"{lr_scheduler.__name__}.{call} with optimizer = SGD(lr={lr!r})",
            {"lr": lr} | options,
            list(range(len(values))),
            values,
            note=note,
        )
        yield record | {"metrics": numbers(metrics)}


def hf_cases():
    """Hugging Face; all of these warm up linearly from 0 at step 0."""
    lr = 0.001
    for warmup in (100, 0):
        yield hf_case("get_constant_schedule_with_warmup", lr, {"num_warmup_steps": warmup}, [warmup])
    spans = [
        {"num_warmup_steps": 100, "num_training_steps": 1000},
        {"num_warmup_steps": 0, "num_training_steps": 800},
        {"num_warmup_steps": 50, "num_training_steps": 700},
    ]
    ends = [[span["num_warmup_steps"], span["num_training_steps"]] for span in spans]
    for span, end in zip(spans, ends):
        yield hf_case("get_linear_schedule_with_warmup", lr, span, end)
    for span, end in zip(spans, ends):
        yield hf_case(
            "get_cosine_schedule_with_warmup",
            lr,
            span | {"num_cycles": 0.5},
            end,
            compare_through=end[1],
            note=COSINE_RISES_AGAIN,
        )
    yield hf_case(
        "get_cosine_schedule_with_warmup",
        lr,
        spans[0] | {"num_cycles": 1.5},
        [100, 400, 700, 1000],
        note="num_cycles counts full waves: the rate falls and rises smoothly, without restarts",
    )
    for span, cycles, restarts in ((spans[0], 3, [400, 700]), (spans[1], 4, [200, 400, 600])):
        yield hf_case(
            "get_cosine_with_hard_restarts_schedule_with_warmup",
            lr,
            span | {"num_cycles": cycles},
            [*restarts, span["num_warmup_steps"], span["num_training_steps"]],
        )
    for power in (1.0, 2.0):
        for span, end in zip(spans, ends):
            yield hf_case(
                "get_polynomial_decay_schedule_with_warmup", lr, span | {"lr_end": 1e-7, "power": power}, end
            )
    yield hf_case("get_inverse_sqrt_schedule", lr, {"num_warmup_steps": 100, "timescale": 100}, [100])
    yield hf_case("get_inverse_sqrt_schedule", lr, {"num_warmup_steps": 100, "timescale": 400}, [100])
    yield hf_case("get_inverse_sqrt_schedule", lr, {"num_warmup_steps": 0, "timescale": 10000})
    stable = {"num_warmup_steps": 100, "num_stable_steps": 500, "num_decay_steps": 300}
    for decay in ("linear", "cosine", "1-sqrt"):
        for floor in (0.0, 0.1):
            yield hf_case(
                "get_wsd_schedule",
                lr,
                stable
                | {"warmup_type": "linear", "decay_type": decay, "min_lr_ratio": floor, "num_cycles": 0.5},
                [100, 600, 900],
                note="the warm-up starts at min_lr_ratio, not at 0" if floor else None,
            )


def hf_length_cases():
    """Hugging Face's schedules of lengths that warm-up, cycles and waves do not divide, up to the last training step."""
    lr = 1.0
    lengths = [(4, 4), (1, 0), (1, 1), (2, 1), (7, 3), (10, 9), (37, 0), (100, 100), (101, 1), (1000, 0), (997, 100)]
    for n, w in lengths:
        span = {"num_warmup_steps": w, "num_training_steps": n}
        yield hf_case("get_linear_schedule_with_warmup", lr, span, [w], last=n - 1)
        decay = span | {"lr_end": 1e-7, "power": 2.0}
        yield hf_case("get_polynomial_decay_schedule_with_warmup", lr, decay, [w], last=n - 1)
        for waves in (0.5, 1.0, 1.5, 2.25):
            wave = span | {"num_cycles": waves}
            yield hf_case("get_cosine_schedule_with_warmup", lr, wave, [w], last=n - 1)
        for cycles in (1, 2, 3, 7, 49):
            restarts = [w + i * (n - w) // cycles for i in range(cycles)]
            cycle = span | {"num_cycles": cycles}
            # With n = w the value at step n is that of step w, at which a cycle begins.
            last = n - 1 if n == w else min(n + 5, LAST)
            yield hf_case("get_cosine_with_hard_restarts_schedule_with_warmup", lr, cycle, restarts, last=last)


# optax: a schedule is a function of the step count.


def build_optax(name, options):
    """Build an optax schedule, and first the schedules it is made of."""
    parts = [build_optax(*without_name(part)) for part in options.get("schedules", [])]
    nested = {"schedules": parts} if parts else {}
    return getattr(optax, name)(**(arguments(options) | nested))


def optax_case(name, options, boundaries=(), **remarks):
    """A case from optax, computed in f64."""
    schedule = build_optax(name, options)
    steps = recorded_steps(boundaries, LAST)
    values = jax.numpy.stack([schedule(jax.numpy.asarray(t)) for t in steps])
    assert values.dtype == np.float64
    return case(
        name,
        optax.__name__,
        optax.__version__,
        f"optax.{call_text(name, options)}",
        options,
        steps,
        values,
        **remarks,
    )


def optax_cases():
    """optax; all of its schedules stay at their end value."""
    cosine = {"init_value": 0.1, "decay_steps": 700, "alpha": 0.0, "exponent": 1.0}
    for change in ({}, {"alpha": 0.1}, {"alpha": 0.1, "exponent": 2.0}, {"decay_steps": 1000}):
        options = cosine | change
        yield optax_case("cosine_decay_schedule", options, [options["decay_steps"]])
    warmup = {"init_value": 0.0, "peak_value": 0.1, "warmup_steps": 100}
    for change in ({}, {"init_value": 0.01, "end_value": 0.001}, {"end_value": 0.001, "exponent": 2.0}):
        yield optax_case(
            "warmup_cosine_decay_schedule",
            warmup | {"decay_steps": 900, "end_value": 0.0, "exponent": 1.0} | change,
            [100, 900],
            note="decay_steps includes the warm-up",
        )
    decay = {
        "transition_steps": 100,
        "decay_rate": 0.5,
        "transition_begin": 0,
        "staircase": False,
        "end_value": None,
    }
    for change in ({}, {"staircase": True}, {"transition_begin": 50}, {"end_value": 0.01}):
        options = {"init_value": 0.1} | decay | change
        begin = options["transition_begin"]
        yield optax_case("exponential_decay", options, range(begin, LAST, 100))
    for change in ({}, {"staircase": True, "end_value": 0.001}, {"transition_begin": 50}):
        yield optax_case("warmup_exponential_decay_schedule", warmup | decay | change, range(100, LAST, 50))
    scales = [[100, 0.5], [300, 0.1], [800, 2.0]]
    boundaries = [boundary for boundary, _ in scales]
    options = {"init_value": 0.1, "boundaries_and_scales": scales}
    note = "boundaries_and_scales is a dictionary, given here as pairs; the scales multiply up"
    yield optax_case("piecewise_constant_schedule", options, boundaries, note=note)
    for kind in ("linear", "cosine"):
        yield optax_case(
            "piecewise_interpolate_schedule", {"interpolate_type": kind} | options, boundaries, note=note
        )
    line = {"init_value": 0.1, "end_value": 0.01, "transition_steps": 600, "transition_begin": 0}
    for change in ({}, {"transition_begin": 100}, {"init_value": 0.0, "end_value": 0.1}):
        yield optax_case("linear_schedule", line | change, [100, 600, 700])
    for power, begin in ((1.0, 0), (2.0, 0), (2.0, 100), (0.5, 0)):
        yield optax_case(
            "polynomial_schedule", line | {"power": power, "transition_begin": begin}, [begin, begin + 600]
        )
    cycle = {
        "transition_steps": 500,
        "peak_value": 0.1,
        "pct_start": 0.3,
        "div_factor": 25.0,
        "final_div_factor": 1e4,
    }
    yield optax_case(
        "linear_onecycle_schedule",
        cycle | {"pct_final": 0.85},
        [150, 425, 500],
        note="the end value is peak_value / (div_factor * final_div_factor)",
    )
    yield optax_case(
        "linear_onecycle_schedule",
        cycle
        | {
            "transition_steps": 1000,
            "pct_start": 0.1,
            "pct_final": 0.5,
            "div_factor": 10.0,
            "final_div_factor": 100.0,
        },
        [100, 500, 1000],
    )
    yield optax_case("cosine_onecycle_schedule", cycle, [150, 500])
    yield optax_case(
        "cosine_onecycle_schedule",
        cycle | {"transition_steps": 1000, "pct_start": 0.1, "div_factor": 10.0, "final_div_factor": 100.0},
        [100, 1000],
    )
    lengths_and_peaks = [(200, 0.1), (300, 0.05), (400, 0.025)]
    restarts = [
        {
            "init_value": 0.0,
            "peak_value": peak,
            "warmup_steps": 20,
            "decay_steps": length,
            "end_value": 0.001,
            "exponent": 1.0,
        }
        for length, peak in lengths_and_peaks
    ]
    yield optax_case("sgdr_schedule", {"cosine_kwargs": restarts}, [20, 200, 220, 500, 520, 900])
    yield optax_case(
        "join_schedules",
        {
            "schedules": [
                {"name": "linear_schedule", "init_value": 0.0, "end_value": 0.1, "transition_steps": 100},
                {"name": "constant_schedule", "value": 0.1},
                {"name": "cosine_decay_schedule", "init_value": 0.1, "decay_steps": 400, "alpha": 0.01},
            ],
            "boundaries": [100, 500],
        },
        [100, 500, 900],
        note="every schedule sees the steps since its own boundary",
    )


def noam_cases():
    """The formula of the Transformer paper."""
    for d_model, warmup in ((512, 100), (512, 4000)):
        steps = recorded_steps([warmup - 1], LAST)
        values = [d_model**-0.5 * min(t**-0.5, t * warmup**-1.5) for t in (step + 1 for step in steps)]
        yield case(
            "noam",
            "formula",
            "Vaswani et al. 2017, section 5.3",
            "d_model^-0.5 * min(t^-0.5, t * warmup^-1.5) with t = step + 1",
            {"d_model": d_model, "warmup": warmup},
            steps,
            values,
            note="the paper counts steps from 1",
        )


def ademamix_cases():
    """The schedules of AdEMAMix' slow average."""
    for start, end, alpha, length in ((0.9, 0.9999, 5.0, 500), (0.5, 0.999, 2.0, 1000)):
        steps, version = recorded_steps([length], LAST), metadata.version("pytorch-optimizer")
        options = {"t_alpha_beta3": length, "beta1": start, "beta3": end}
        values = [AdEMAMix.schedule_beta3(step=step, **options) for step in steps]
        call = call_text("AdEMAMix.schedule_beta3", options)
        yield case("schedule_beta3", "pytorch_optimizer", version, call, options, steps, values)
        options = {"t_alpha_beta3": length, "alpha": alpha}
        values = [AdEMAMix.schedule_alpha(step=step, **options) for step in steps]
        call = call_text("AdEMAMix.schedule_alpha", options)
        yield case("schedule_alpha", "pytorch_optimizer", version, call, options, steps, values)


def main():
    cases = [*torch_cases(), *plateau_cases(), *hf_cases(), *hf_length_cases(), *optax_cases(), *noam_cases()]
    cases += ademamix_cases()
    header = {
        "versions": {module.__name__: module.__version__ for module in (torch, transformers, optax, jax)},
        "generator": Path(__file__).name,
    }
    write_json(Path(__file__).with_name("schedules.json"), header, cases)


if __name__ == "__main__":
    main()
