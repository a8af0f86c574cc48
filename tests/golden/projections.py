"""Golden data for projections, and for least squares with constraints.

Run with `python tests/golden/projections.py`; it writes projections.json beside itself.

`set` cases: optax's projections of `scale * unit(first ...)`, a vector or, with `rows`, each row of a matrix. `least squares` cases: scipy's
solution of min ||A x - b||^2 / 2 with constraints, where A = unit(0 ...) in `rows` x `columns` and b = unit(10^6 ...), times 2.
scipy has no solver for the simplex alone: SLSQP's solution is improved on its support by numpy's solution of the linear system.
"""

from pathlib import Path

import jax
import numpy as np
import optax
import scipy
from optax import projections
from scipy.optimize import lsq_linear, minimize, nnls

from common import numbers, unit, write_json

jax.config.update("jax_enable_x64", True)

SETS = {
    "non_negative": lambda x, _: projections.projection_non_negative(x),
    "interval": lambda x, o: projections.projection_box(x, o[0], o[1]),
    "max_norm": lambda x, o: projections.projection_l2_ball(x, o[0]),
    "unit_norm": lambda x, _: projections.projection_l2_sphere(x),
    "simplex": lambda x, o: projections.projection_simplex(x, o[0]),
    "l1_ball": lambda x, o: projections.projection_l1_ball(x, o[0]),
}
OPTIONS = {
    "non_negative": [[]],
    "interval": [[-0.5, 0.25], [0.0, 1.0]],
    "max_norm": [[1.0], [100.0]],
    "unit_norm": [[]],
    "simplex": [[1.0], [7.5]],
    "l1_ball": [[1.0], [1e4]],
}
SIZES = [(1, 1), (1, 2), (1, 17), (1, 250), (6, 9)]


def set_cases():
    for name, project in SETS.items():
        for options in OPTIONS[name]:
            for rows, columns in SIZES:
                for scale in [1.0, 64.0]:
                    first = 1000 * rows + columns
                    x = scale * unit(first + np.arange(rows * columns)).reshape(rows, columns)
                    values = np.stack([np.asarray(project(jax.numpy.asarray(row), options)) for row in x])
                    yield {
                        "set": name,
                        "options": options,
                        "rows": rows,
                        "columns": columns,
                        "scale": scale,
                        "first": first,
                        "values": numbers(values.ravel()),
                    }


def simplex(a, b):
    """Least squares on the simplex."""
    n = a.shape[1]
    found = minimize(
        lambda x: 0.5 * np.sum((a @ x - b) ** 2),
        np.full(n, 1 / n),
        jac=lambda x: a.T @ (a @ x - b),
        bounds=[(0, None)] * n,
        constraints={"type": "eq", "fun": lambda x: x.sum() - 1, "jac": lambda x: np.ones(n)},
        method="SLSQP",
        options={"ftol": 1e-15, "maxiter": 1000},
    ).x
    support = found > 1e-6
    own, count = a[:, support], int(support.sum())
    system = np.block([[own.T @ own, np.ones((count, 1))], [np.ones((1, count)), np.zeros((1, 1))]])
    solution = np.linalg.solve(system, np.append(own.T @ b, 1.0))
    x = np.zeros(n)
    x[support] = solution[:-1]
    assert np.abs(x - found).max() < 1e-6 and (x >= 0).all()
    # No element outside of the support would lower the loss.
    assert (a.T @ (a @ x - b) + solution[-1] >= -1e-12).all()
    return x


def least_squares_cases():
    for rows, columns in [(12, 5), (40, 20)]:
        a = unit(np.arange(rows * columns)).reshape(rows, columns)
        b = 2 * unit(10**6 + np.arange(rows))
        box = lsq_linear(a, b, bounds=(-0.25, 0.25), method="bvls", tol=1e-15).x
        for name, values in [("non_negative", nnls(a, b)[0]), ("interval", box), ("simplex", simplex(a, b))]:
            yield {"set": name, "rows": rows, "columns": columns, "values": numbers(values)}


def main():
    header = {
        "generator": "projections.py",
        "optax": optax.__version__,
        "scipy": scipy.__version__,
        "least_squares": list(least_squares_cases()),
    }
    write_json(Path(__file__).with_name("projections.json"), header, list(set_cases()))


if __name__ == "__main__":
    main()
