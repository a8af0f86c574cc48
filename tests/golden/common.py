"""What the golden-data generators share: the deterministic inputs and the JSON layout."""

import json
import os
from pathlib import Path

import numpy as np


def use_generic_kernels(torch):
    """Make PyTorch's last bits independent of this machine: no SIMD variants, one thread.

    Call it before the first tensor operation; PyTorch chooses its kernels then.
    """
    os.environ["ATEN_CPU_CAPABILITY"] = "default"
    torch.set_num_threads(1)
    assert torch.backends.cpu.get_cpu_capability() == "DEFAULT"


def splitmix64(x):
    """Finaliser of the SplitMix64 generator on an array of unsigned 64-bit integers (wrapping)."""
    z = x.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def unit(k):
    """Map an array of integers to f64 numbers in [-1, 1).

    unit(k) = (splitmix64(k) >> 40) / 2^23 - 1: the top 24 bits of the hash. The results are
    multiples of 2^-23, hence exact in f32 as well.
    """
    return (splitmix64(k) >> np.uint64(40)).astype(np.float64) / 2**23 - 1.0


def numbers(array):
    """Turn an array into nested lists of Python floats that print with the fewest digits.

    An f32 number is written with the digits that identify it among f32 numbers. The check makes
    sure that a reader who parses those digits as f64 and then rounds to f32 gets the same number.
    """
    array = np.asarray(array)
    assert np.isfinite(array).all(), "golden data must be finite"
    if array.dtype == np.float64:
        return array.tolist()
    assert array.dtype == np.float32
    short = np.array([float(str(x)) for x in array.ravel()], dtype=np.float64).reshape(array.shape)
    assert (short.astype(np.float32) == array).all()
    return short.tolist()


def write_json(path, header, cases):
    """Write `header` and the list of `cases` as one JSON object, one case per line."""

    def dumps(value):
        return json.dumps(value, separators=(",", ":"), allow_nan=False)

    lines = ",\n".join(dumps(case) for case in cases)
    path = Path(path)
    path.write_text(f'{dumps(header)[:-1]},"cases":[\n{lines}\n]}}\n')
    print(f"{path.name}: {len(cases)} cases, {path.stat().st_size / 1024:.0f} KiB")
