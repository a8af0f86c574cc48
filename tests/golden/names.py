"""Writes names.json: the names of optimizers, schedules and their helpers in other libraries.

The names come from the installed packages. The test `tests/guide.rs` compares them with the migration tables in
`guide/coming_from.md` and `guide/coming_from/`. bitsandbytes is imported only for its names; it needs no GPU for that.
"""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import functools
import importlib.metadata
import inspect
from pathlib import Path

import bitsandbytes.optim
import keras
import optax
import optax.contrib
import schedulefree
import timm.optim
import torch
from transformers.training_args import OptimizerNames

from common import write_json


def public(module):
    return {name: thing for name, thing in vars(module).items() if not name.startswith("_")}


def classes(module):
    return [name for name, thing in public(module).items() if inspect.isclass(thing)]


def functions(module, *origins):
    """The functions of a module that are defined in one of `origins`, which are beginnings of module names."""
    found = []
    for name, thing in public(module).items():
        defined = thing.func if isinstance(thing, functools.partial) else thing
        if callable(defined) and not inspect.isclass(defined):
            if getattr(defined, "__module__", "").startswith(origins):
                found.append(name)
    return found


# The title of a section in the guide: the package, and the names.
PARTS = {
    "torch.optim": ("torch", classes(torch.optim)),
    "torch.optim.lr_scheduler": ("torch", torch.optim.lr_scheduler.__all__),
    "torch.optim.swa_utils": ("torch", torch.optim.swa_utils.__all__),
    "torch.nn.utils.clip_grad": ("torch", torch.nn.utils.clip_grad.__all__),
    "optax optimizers": ("optax", functions(optax, "optax._src.alias")),
    # Everything that takes part in a step; not losses, projections, trees of arrays and numerics.
    "optax transformations": (
        "optax",
        ["MultiSteps"]
        + functions(
            optax,
            "optax._src.base",
            "optax._src.factorized",
            "optax._src.linesearch",
            "optax._src.lookahead",
            "optax._src.transform",
            "optax._src.update",
            "optax.schedules._inject",
            "optax.transforms",
        ),
    ),
    "optax schedules": ("optax", functions(optax, "optax.schedules._schedule", "optax.schedules._join")),
    "optax.contrib": ("optax", functions(optax.contrib, "optax.contrib")),
    "keras.optimizers": ("keras", classes(keras.optimizers)),
    "keras.optimizers.schedules": ("keras", classes(keras.optimizers.schedules)),
    "timm.optim": ("timm", timm.optim.list_optimizers()),
    "transformers optim=": ("transformers", [name.value for name in OptimizerNames]),
    "bitsandbytes.optim": ("bitsandbytes", classes(bitsandbytes.optim)),
    "schedulefree": ("schedulefree", classes(schedulefree)),
}


def main():
    cases = [
        {"section": section, "library": library, "version": importlib.metadata.version(library), "names": sorted(names)}
        for section, (library, names) in PARTS.items()
    ]
    write_json(Path(__file__).parent / "names.json", {"about": "names of other libraries"}, cases)
    for case in cases:
        print(f"{case['section']} ({case['library']} {case['version']}): {len(case['names'])} names")


if __name__ == "__main__":
    main()
