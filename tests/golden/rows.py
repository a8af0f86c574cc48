"""Golden data for gradients of rows: parameters after steps 1, 2, 3, 10, 50 and 100.

Run with `python tests/golden/rows.py`; it writes `rows.json` beside itself.

The inputs (`unit` and `splitmix64` are in common.py):

    param_ij                          = unit(i*WIDTH + j)
    row_k of step t, k < INDICES      = splitmix64(1000*(t+1) + k) mod ROWS, the same row several times among them
    values_kj of step t               = unit((t+1)*1_000_003*7 + k*WIDTH + j + 2^40)

With `same_rows`, every step has the rows of step 0. With `dense`, the optimizer gets the same gradient in full: PyTorch's momentum keeps
moving rows that have no gradient, which gradus does for a dense gradient.

The source is `torch.optim` in f64, on CPU, with sparse gradients (`torch.sparse_coo_tensor`).
"""

from pathlib import Path

import numpy as np
import torch

from common import numbers, splitmix64, unit, use_generic_kernels, write_json

ROWS, WIDTH, INDICES = 40, 3, 16
STEPS = 100
RECORDED = [1, 2, 3, 10, 50, 100]


def changing_rates(base):
    """A learning rate that jumps at every step and halves every 20 steps."""
    return [base * (1.0 + 0.5 * float(unit(np.array([t + 77]))[0])) * 0.5 ** (t // 20) for t in range(STEPS)]


def gradient(t, same_rows):
    rows = splitmix64(np.arange(INDICES) + 1000 * ((0 if same_rows else t) + 1)) % np.uint64(ROWS)
    values = unit((t + 1) * 1_000_003 * 7 + np.arange(INDICES * WIDTH) + 2**40).reshape(INDICES, WIDTH)
    return torch.from_numpy(rows.astype(np.int64)), torch.from_numpy(values)


def run(make, rates, same_rows):
    param = torch.nn.Parameter(torch.from_numpy(unit(np.arange(ROWS * WIDTH)).reshape(ROWS, WIDTH).copy()))
    optimizer = make([param])
    recorded = []
    for t, rate in enumerate(rates):
        rows, values = gradient(t, same_rows)
        param.grad = torch.sparse_coo_tensor(rows[None], values, (ROWS, WIDTH))
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
        if t + 1 in RECORDED:
            recorded.append(numbers(param.detach().numpy().ravel()))
    return recorded


def main():
    use_generic_kernels(torch)
    assert torch.__version__.split("+")[0] == "2.15.0", torch.__version__
    optim = torch.optim
    plans = [
        ("sparse_adam", {}, 1e-3, optim.SparseAdam),
        ("sparse_adam", {"betas": [0.8, 0.99], "eps": 1e-3}, 1e-2, optim.SparseAdam),
        ("adagrad", {}, 1e-2, optim.Adagrad),
        ("adagrad", {"lr_decay": 0.1, "initial_accumulator_value": 0.1, "eps": 1e-3}, 1e-1, optim.Adagrad),
        ("sgd", {}, 1e-2, optim.SGD),
        ("momentum", {"momentum": 0.9, "same_rows": True}, 1e-2, optim.SGD),
        ("momentum", {"momentum": 0.8, "dampening": 0.1, "same_rows": True}, 1e-2, optim.SGD),
        ("momentum", {"momentum": 0.9, "dense": True}, 1e-2, optim.SGD),
        ("nesterov", {"momentum": 0.9, "nesterov": True, "same_rows": True}, 1e-2, optim.SGD),
    ]
    cases = []
    for name, options, base, optimizer in plans:
        given = {key: value for key, value in options.items() if key not in ("same_rows", "dense")}

        def make(params, given=given, optimizer=optimizer):
            return optimizer(params, lr=1.0, **given)

        for rates in ([base] * STEPS, changing_rates(base)):
            values = run(make, rates, options.get("same_rows", False))
            cases.append({"optimizer": name, "options": options, "rates": rates, "params": values})
    header = {
        "generator": "tests/golden/rows.py",
        "source": f"torch {torch.__version__.split('+')[0]}",
        "rows": ROWS,
        "width": WIDTH,
        "indices": INDICES,
        "steps": RECORDED,
    }
    write_json(Path(__file__).with_name("rows.json"), header, cases)


if __name__ == "__main__":
    main()
