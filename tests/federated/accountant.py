"""Golden data for the accountant.

Run with `python tests/federated/accountant.py`; it writes accountant.json beside itself. It needs dp-accounting (and with it
mpmath) and Opacus' files, of which one module is loaded by itself, as it needs numpy and scipy only:

    pip install dp-accounting && pip install --no-deps opacus
"""

import functools
import importlib.util
import itertools
import json
from importlib.metadata import distribution, version
from pathlib import Path

import mpmath
from absl import logging
from dp_accounting.rdp import rdp_privacy_accountant

ORDERS = [1 + x / 10 for x in range(1, 100)] + list(range(12, 64))
MOMENTS = [
    (q, sigma, alpha)
    for q, sigma in [(0.04, 1.5), (0.5, 1.0), (0.9, 0.5), (1e-3, 0.7), (0.01, 4.0), (0.2, 0.1), (1e-6, 10.0)]
    for alpha in [1.1, 1.5, 2.0, 2.7, 3.9, 10.9, 33.0, 63.0]
]


def opacus_rdp():
    path = distribution("opacus").locate_file("opacus/accountants/analysis/rdp.py")
    spec = importlib.util.spec_from_file_location("opacus_rdp", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def epsilon_of(opacus, history, delta, orders):
    rdp = sum(opacus.compute_rdp(q=q, noise_multiplier=s, steps=n, orders=orders) for q, s, n in history)
    epsilon, order = opacus.get_privacy_spent(orders=orders, rdp=rdp, delta=delta)
    return float(epsilon), float(order)


@functools.cache
def google_rdp(q, sigma, orders):
    # It leaves out the orders whose series did not come to an end after 1000 terms, with a warning for each.
    logging.set_verbosity(logging.ERROR)
    return rdp_privacy_accountant._compute_rdp_poisson_subsampled_gaussian(q, sigma, orders)


def google_epsilon_of(history, delta, orders):
    rdp = sum(google_rdp(q, s, tuple(orders)) * n for q, s, n in history)
    epsilon, order = rdp_privacy_accountant.compute_epsilon(orders, rdp, delta)
    return float(epsilon), float(order)


def divergence(q, sigma, alpha):
    """ln(E[r^alpha]) / (alpha - 1) in 40 digits, by the trapezoidal rule.

    The integrand is analytic in a strip of half width pi sigma^2 around the real line, so the rule is exact to exp(-2 pi^2 sigma^2 / h).
    """
    mpmath.mp.dps = 40
    q, sigma, alpha = mpmath.mpf(q), mpmath.mpf(sigma), mpmath.mpf(alpha)
    width = min(sigma / 4, sigma**2 / 4)
    excess = mpmath.mpf(0)
    for i in range(int(-14 * sigma / width), int((alpha + 14 * sigma) / width)):
        z = i * width
        ratio = 1 - q + q * mpmath.exp((2 * z - 1) / (2 * sigma**2))
        # E[r] = 1: what is integrated is A - 1, and positive.
        excess += width * mpmath.npdf(z, 0, sigma) * (ratio**alpha - 1 - alpha * (ratio - 1))
    return float(mpmath.log1p(excess) / (alpha - 1))


def main():
    opacus = opacus_rdp()
    cases = []
    grid = itertools.product([1e-4, 0.01, 0.04, 0.3, 1.0], [0.6, 1.0, 2.5, 8.0], [1, 5000], [1e-5, 1e-8])
    histories = [([(q, sigma, steps)], delta, None) for q, sigma, steps, delta in grid]
    histories += [
        ([(1e-5, 1.0, 10), (1e-4, 3.0, 4)], 1e-5, list(range(2, 33))),
        ([(0.02, 1.1, 500), (0.05, 2.0, 1000), (1.0, 30.0, 7)], 1e-6, None),
    ]
    for history, delta, orders in histories:
        epsilon, order = epsilon_of(opacus, history, delta, orders or ORDERS)
        google, google_order = google_epsilon_of(history, delta, orders or ORDERS)
        cases.append({
            "history": history, "delta": delta, "orders": orders,
            "opacus": [epsilon, order], "dp_accounting": [google, google_order],
        })
    moments = [[q, sigma, alpha, divergence(q, sigma, alpha)] for q, sigma, alpha in MOMENTS]
    data = {
        "generator": "accountant.py",
        "versions": {name: version(name) for name in ["opacus", "dp-accounting", "mpmath", "scipy", "numpy"]},
        "epsilons": cases,
        "divergences": moments,
    }
    lines = json.dumps(data).replace('{"history"', '\n{"history"').replace("], [", "],\n[")
    Path(__file__).with_name("accountant.json").write_text(lines + "\n")


if __name__ == "__main__":
    main()
