"""Golden data for the arithmetic of trees: PyTorch's `lerp_`, `add_` and `mul_`.

Run with `python tests/golden/trees.py`; it writes trees.json beside itself. Both tensors have 40 elements, `unit(i)` and
`unit(i + 40)`; see README.md.
"""

from pathlib import Path

import numpy as np
import torch

from common import numbers, unit, use_generic_kernels, write_json

use_generic_kernels(torch)

ELEMENTS = 40
FACTORS = [0.0, 0.005, 0.3, 0.499, 0.5, 0.9, 1.0, 1.5, -0.25]


def main():
    cases = []
    for dtype in (torch.float64, torch.float32):
        index = np.arange(ELEMENTS)
        target, source = (torch.tensor(unit(index + start), dtype=dtype) for start in (0, ELEMENTS))
        for factor in FACTORS:
            for call, result in (
                ("lerp_", target.clone().lerp_(source, factor)),
                ("add_", target.clone().add_(source, alpha=factor)),
                ("mul_", target.clone().mul_(factor)),
            ):
                case = {"call": call, "factor": factor, "dtype": str(dtype).removeprefix("torch.")}
                cases.append(case | {"result": numbers(result.numpy())})
    header = {"versions": {"torch": torch.__version__}, "generator": "trees.py"}
    write_json(Path(__file__).with_suffix(".json"), header, cases)


if __name__ == "__main__":
    main()
