"""Golden data for QK-Clip: query and key weights after steps 1, 2 and 10 of pytorch-optimizer's MuonClip.

Run with `python tests/golden/qk_clip.py`; it writes qk_clip.json beside itself.

Parameters and gradients are those of README.md, those of the key from index 1000. The largest logit of head h in step t is
100 + 150 times element 2000 + h of the gradient of step t; the threshold is 100. Where a key has fewer heads than the query, MuonClip is
given the largest logit of each group for both. "wide": its Newton-Schulz iteration is given the parameters' type, and the factors are computed
in f64, where it computes in bf16 and f32.
"""

from functools import partial
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytorch_optimizer
import torch

from common import numbers, unit, use_generic_kernels, write_json

RECORDED = [1, 2, 10]
RATE, THRESHOLD = 0.02, 100.0
KEY, LOGITS = 1000, 2000
DTYPES = {"f32": (np.float32, torch.float32), "f64": (np.float64, torch.float64)}


def param(shape, start):
    return unit(np.arange(np.prod(shape)) + start).reshape(shape)


def grad(shape, step, start):
    return unit((step + 1) * 1_000_003 * 7 + np.arange(np.prod(shape)) + start + 2**40).reshape(shape)


def trajectory(dtype, query, key, heads, key_heads, rotary):
    narrow, wide = DTYPES[dtype]
    tensor = lambda values: torch.from_numpy(values.astype(narrow))
    thetas = [torch.nn.Parameter(tensor(param(shape, start))) for shape, start in [(query, 0), (key, KEY)]]
    roles = ["query_rotary", "key_rotary"] if rotary else ["query", "key"]
    groups = [dict(params=[t], use_muon=True, qk_clip=role, attention_name="a") for t, role in zip(thetas, roles)]
    optimizer = pytorch_optimizer.MuonClip(groups, lr=RATE, qk_clip_threshold=THRESHOLD, foreach=False)
    module, name, recorded = import_module("pytorch_optimizer.optimizer.muon.base"), "zero_power_via_newton_schulz_5", []
    for step in range(RECORDED[-1]):
        logits = 100.0 + 150.0 * grad((heads,), step, LOGITS)
        groups_of_heads = logits if rotary else logits.reshape(key_heads, -1).max(axis=1)
        for theta, start in zip(thetas, [0, KEY]):
            theta.grad = tensor(grad(tuple(theta.shape), step, start))
        iteration = partial(getattr(module, name), dtype=wide)
        with patch.object(module, name, iteration), patch.object(torch.Tensor, "float", torch.Tensor.double):
            optimizer.step(attention_max_logits={"a": torch.from_numpy(groups_of_heads)})
        if step + 1 in RECORDED:
            recorded.append([numbers(theta.detach().numpy().ravel()) for theta in thetas])
    return recorded


def main():
    use_generic_kernels(torch)
    cases = []
    for query, key, heads, key_heads, rotary in [
        ((8, 5), (8, 5), 4, 4, False),
        ((8, 5), (4, 6), 4, 2, False),
        ((6, 2, 5), (2, 2, 5), 6, 2, False),
        ((8, 5), (2, 5), 4, 1, True),
    ]:
        for dtype in DTYPES:
            values = trajectory(dtype, query, key, heads, key_heads, rotary)
            cases.append(dict(dtype=dtype, query=query, key=key, heads=heads, rotary=rotary, values=values))
    header = {
        "torch": torch.__version__,
        "pytorch-optimizer": version("pytorch-optimizer"),
        "learning_rate": RATE,
        "threshold": THRESHOLD,
        "steps": RECORDED,
    }
    write_json(Path(__file__).parent / "qk_clip.json", header, cases)


if __name__ == "__main__":
    main()
