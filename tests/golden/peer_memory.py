"""The memory of other libraries' optimizers, beside which the guide's table has that of gradus.

Run with `python tests/golden/peer_memory.py`; it writes peer_memory.json beside itself.

Each optimizer takes steps of one 1024 x 1024 matrix in f32 on the CPU. `state` is the bytes of all tensors that the optimizer holds afterwards, per
parameter: those in `optimizer.state`, in the tensors that a quantized one is made of, and in the objects that project gradients. Tables of codes, which all tensors share, do not count.
"""

import os
from importlib.metadata import version
from pathlib import Path

os.environ["ATEN_CPU_CAPABILITY"] = "default"

import bitsandbytes
import torch
import torchao.optim
from apollo_torch.apollo import AdamW as ApolloAdamW
from galore_torch.adamw import AdamW as GaLoreAdamW

from common import use_generic_kernels, write_json

SIDE = 1024
STEPS = 2


def storages(value, found):
    """The storages of all tensors that a value is made of, by their address."""
    if isinstance(value, torch.Tensor) and hasattr(value, "__tensor_flatten__"):
        names, _ = value.__tensor_flatten__()
        for name in names:
            if name != "qmap":
                storages(getattr(value, name), found)
    elif isinstance(value, torch.Tensor):
        storage = value.untyped_storage()
        found[storage.data_ptr()] = storage.nbytes()
    elif isinstance(value, dict):
        for name, part in value.items():
            if not str(name).startswith("qmap"):
                storages(part, found)
    elif isinstance(value, (list, tuple)):
        for part in value:
            storages(part, found)
    elif hasattr(value, "__dict__"):
        storages(vars(value), found)


def measure(make):
    torch.manual_seed(0)
    param = torch.nn.Parameter(torch.randn(SIDE, SIDE))
    optimizer = make(param)
    for _ in range(STEPS):
        param.grad = torch.randn(SIDE, SIDE)
        optimizer.step()
    found = {}
    storages({key: value for key, value in optimizer.state[param].items()}, found)
    return round(sum(found.values()) / SIDE**2, 4)


def group(param, **own):
    return [{"params": [param], "update_proj_gap": 200, "proj_type": "std", **own}]


# Library, its name of the optimizer, gradus' name, and how it is made.
PEERS = [
    ("torch", "AdamW", "AdamW", "f32", lambda p: torch.optim.AdamW([p])),
    ("torch", "Adafactor", "Adafactor", "f32", lambda p: torch.optim.Adafactor([p])),
    ("torchao", "AdamW8bit", "AdamW", "8 bits", lambda p: torchao.optim.AdamW8bit([p])),
    ("torchao", "AdamW4bit", "AdamW", "4 bits", lambda p: torchao.optim.AdamW4bit([p])),
    ("bitsandbytes", "AdamW8bit", "AdamW", "8 bits", lambda p: bitsandbytes.optim.AdamW8bit([p])),
    ("bitsandbytes", "Lion8bit", "Lion", "8 bits", lambda p: bitsandbytes.optim.Lion8bit([p])),
    ("galore-torch", "GaLoreAdamW", "GaLore", "f32", lambda p: GaLoreAdamW(group(p, rank=128, scale=0.25), no_deprecation_warning=True)),
    (
        "apollo-torch",
        "APOLLOAdamW",
        "Apollo",
        "f32",
        lambda p: ApolloAdamW(group(p, rank=256, scale=1.0, proj="random", scale_type="channel"), no_deprecation_warning=True),
    ),
    (
        "apollo-torch",
        "APOLLOAdamW, rank 1",
        "ApolloMini",
        "f32",
        lambda p: ApolloAdamW(group(p, rank=1, scale=128.0, proj="random", scale_type="tensor"), no_deprecation_warning=True),
    ),
]


def main():
    use_generic_kernels(torch)
    # What a compiled function keeps is the same.
    torch.compile = lambda function, **_: function
    cases = []
    for library, name, optimizer, precision, make in PEERS:
        case = {"library": library, "version": version(library), "name": name, "optimizer": optimizer, "precision": precision, "state": measure(make)}
        print(case)
        cases.append(case)
    header = {"about": "bytes per parameter of the state of other libraries' optimizers", "side": SIDE, "steps": STEPS}
    write_json(Path(__file__).parent / "peer_memory.json", header, cases)


if __name__ == "__main__":
    main()
