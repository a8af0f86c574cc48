"""Golden data for L-BFGS: parameters, loss and number of evaluations after each call.

Run with `python tests/golden/lbfgs.py`; it writes lbfgs.json beside itself.

Every call is `step(closure)` of `torch.optim.LBFGS` in f64 with five iterations. The problems are written out here and,
the same, in lbfgs.rs; their numbers come from `unit` in common.py. Quasi-Newton steps multiply rounding, up to tenfold an
iteration. So every run is made five times, from starts that differ in the last bit, and recorded for as long as these runs
of PyTorch agree among themselves to 10^-10.
"""

from pathlib import Path

import numpy as np
import torch

from common import numbers, unit, use_generic_kernels, write_json

CALLS = 8
ITERATIONS = 5


def rosenbrock(w):
    odd, even = w[0::2], w[1::2]
    return ((1 - odd) ** 2 + 100 * (even - odd**2) ** 2).sum()


def quadratic(w):
    """Curvatures from 1 to 10^4, turned by a reflection."""
    n = len(w)
    curvatures = torch.from_numpy(10.0 ** (4 * np.arange(n) / (n - 1)))
    v = torch.from_numpy(unit(np.arange(n) + 100))
    turned = w - 2 * v * (v @ w) / (v @ v)
    return 0.5 * (curvatures * turned**2).sum() + turned.sum()


def logistic(w):
    """40 examples of 6 features, and a little weight decay."""
    x = torch.from_numpy(unit(np.arange(240) + 1000).reshape(40, 6))
    y = torch.from_numpy(np.where(unit(np.arange(40) + 2000) > 0, 1.0, -1.0))
    return torch.nn.functional.softplus(-y * (x @ w)).mean() + 0.005 * (w**2).sum()


PROBLEMS = {
    "rosenbrock": (rosenbrock, np.array([-1.2, 1.0])),
    "rosenbrock 10": (rosenbrock, np.tile([-1.2, 1.0], 5) + 0.1 * unit(np.arange(10))),
    "quadratic": (quadratic, unit(np.arange(20))),
    "logistic": (logistic, unit(np.arange(6))),
}


def calls(problem, nudge, **options):
    """Loss, evaluations and parameters after each call; `nudge` is what the start is multiplied with."""
    function, start = PROBLEMS[problem]
    w = torch.nn.Parameter(torch.from_numpy(start * nudge))
    optimizer = torch.optim.LBFGS([w], max_iter=ITERATIONS, **options)

    def closure():
        optimizer.zero_grad()
        loss = function(w)
        loss.backward()
        return loss

    for _ in range(CALLS):
        loss = optimizer.step(closure).item()
        yield loss, optimizer.state[w]["func_evals"], w.detach().numpy().copy()


def run(problem, **options):
    """The calls on which runs from all but the same start agree."""
    ulp = np.finfo(np.float64).eps
    nudges = [1.0, 1 + ulp, 1 - ulp, 1 + 2 * ulp, 1 - 2 * ulp]
    recorded = []
    for (loss, evaluations, values), *others in zip(*(calls(problem, nudge, **options) for nudge in nudges)):
        for _, other_evaluations, other in others:
            close = np.abs(other - values) <= 1e-10 * np.maximum(np.abs(values), 1e-3)
            if evaluations != other_evaluations or not close.all():
                return recorded
        recorded.append({"loss": loss, "evaluations": evaluations, "values": numbers(values)})
    return recorded


def main():
    use_generic_kernels(torch)
    cases = []
    for problem in PROBLEMS:
        for search in [None, "strong_wolfe"]:
            for history in [3, 100]:
                rate = 1.0 if search or problem == "logistic" else 0.2
                recorded = run(problem, lr=rate, history_size=history, line_search_fn=search)
                assert len(recorded) >= 3, (problem, search, history, len(recorded))
                case = {"problem": problem, "strong_wolfe": search is not None, "history": history}
                cases.append(case | {"learning_rate": rate, "calls": recorded})
    header = {"source": "torch", "version": torch.__version__, "iterations": ITERATIONS}
    write_json(Path(__file__).parent / "lbfgs.json", header, cases)


if __name__ == "__main__":
    main()
