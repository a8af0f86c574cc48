"""Golden data for L-BFGS with bounds: scipy's solutions of standard problems.

Run with `python tests/golden/bounded.py`; it writes bounded.json beside itself.

The problems are those of W. Hock and K. Schittkowski, *Test Examples for Nonlinear Programming Codes* (1981), that have only bounds, under
their numbers. They are written out here and, the same, in bounded.rs. `evaluations` are those of scipy's L-BFGS-B with its tolerances as small as
they can be.
"""

from pathlib import Path

import numpy as np
import scipy
from scipy.optimize import minimize

from common import numbers, write_json


def hs4(x):
    return (x[0] + 1) ** 3 / 3 + x[1], np.array([(x[0] + 1) ** 2, 1.0])


def hs5(x):
    difference, slope = x[0] - x[1], np.cos(x[0] + x[1])
    loss = np.sin(x[0] + x[1]) + difference**2 - 1.5 * x[0] + 2.5 * x[1] + 1
    return loss, np.array([slope + 2 * difference - 1.5, slope - 2 * difference + 2.5])


def hs38(x):
    a, b, c, d = x[1] - x[0] ** 2, 1 - x[0], x[3] - x[2] ** 2, 1 - x[2]
    e, f = x[1] - 1, x[3] - 1
    loss = 100 * a**2 + b**2 + 90 * c**2 + d**2 + 10.1 * (e**2 + f**2) + 19.8 * e * f
    grad = [
        -400 * x[0] * a - 2 * b,
        200 * a + 20.2 * e + 19.8 * f,
        -360 * x[2] * c - 2 * d,
        180 * c + 20.2 * f + 19.8 * e,
    ]
    return loss, np.array(grad)


def hs45(x):
    return 2 - np.prod(x) / 120, np.array([-np.prod(np.delete(x, i)) / 120 for i in range(5)])


def hs110(x):
    low, high, product = np.log(x - 2), np.log(10 - x), np.prod(x) ** 0.2
    loss = np.sum(low**2 + high**2) - product
    return loss, 2 * low / (x - 2) - 2 * high / (10 - x) - 0.2 * product / x


def hs1(x):
    a, b = x[1] - x[0] ** 2, 1 - x[0]
    return 100 * a**2 + b**2, np.array([-400 * x[0] * a - 2 * b, 200 * a])


PROBLEMS = {
    "hs1": (hs1, [-2.0, 1.0], [-np.inf, -1.5], [np.inf, np.inf]),
    "hs4": (hs4, [1.125, 0.125], [1.0, 0.0], [np.inf, np.inf]),
    "hs5": (hs5, [0.0, 0.0], [-1.5, -3.0], [4.0, 3.0]),
    "hs38": (hs38, [-3.0, -1.0, -3.0, -1.0], [-10.0] * 4, [10.0] * 4),
    "hs45": (hs45, [2.0] * 5, [0.0] * 5, [1.0, 2.0, 3.0, 4.0, 5.0]),
    "hs110": (hs110, [9.0] * 10, [2.001] * 10, [9.999] * 10),
}


def finite(bounds):
    """JSON has no infinity."""
    return [bound if np.isfinite(bound) else None for bound in bounds]


def main():
    cases = []
    for name, (function, start, lower, upper) in PROBLEMS.items():
        found = minimize(
            function,
            np.array(start),
            jac=True,
            method="L-BFGS-B",
            bounds=list(zip(lower, upper)),
            options={"ftol": 0.0, "gtol": 1e-12, "maxiter": 10_000, "maxfun": 100_000},
        )
        loss, grad = function(found.x)
        projected = np.clip(found.x - grad, lower, upper) - found.x
        assert np.abs(projected).max() < 1e-7, (name, projected)
        assert np.allclose(grad, scipy.optimize.approx_fprime(found.x, lambda x: function(x)[0]), atol=1e-4), name
        case = {"problem": name, "evaluations": int(found.nfev), "loss": float(loss), "values": numbers(found.x)}
        case |= {"start": start, "lower": finite(lower), "upper": finite(upper)}
        cases.append(case)
    write_json(Path(__file__).with_name("bounded.json"), {"generator": "bounded.py", "scipy": scipy.__version__}, cases)


if __name__ == "__main__":
    main()
