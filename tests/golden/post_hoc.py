"""Post-hoc averages: the formulas of Karras et al. 2024 (arXiv:2312.02696), appendix C, in numpy.

Writes post_hoc.json: the power of a width, the weights of saved averages, and averages of a walk with their reconstruction.
"""

import json
from pathlib import Path

import numpy as np


def gamma_of_width(width):
    t = width ** -2
    return np.roots([1, 7, 16 - t, 12 - t]).real.max()


def product(t_a, gamma_a, t_b, gamma_b):
    ratio = t_a / t_b
    exponent = np.where(t_a < t_b, gamma_b, -gamma_a)
    return (gamma_a + 1) * (gamma_b + 1) * ratio ** exponent / ((gamma_a + gamma_b + 1) * np.maximum(t_a, t_b))


def weights(saved, wanted):
    t, gamma = (np.array(column, dtype=np.float64) for column in zip(*saved))
    a = product(t[:, None], gamma[:, None], t[None, :], gamma[None, :])
    b = product(t, gamma, np.float64(wanted[0]), np.float64(wanted[1]))
    return np.linalg.solve(a, b)


def averages(walk, gamma):
    average, all_of_them = 0.0, []
    for t, value in enumerate(walk, start=1):
        beta = (1 - 1 / t) ** (gamma + 1)
        average = beta * average + (1 - beta) * value
        all_of_them.append(average)
    return all_of_them


widths = [0.01, 0.05, 0.1, 0.15, 0.2, 0.25, 0.28]
narrow, wide = gamma_of_width(0.05), gamma_of_width(0.1)
sets = [
    ([(1000, wide)], (1000, narrow)),
    ([(1000, narrow), (1000, wide)], (1000, gamma_of_width(0.07))),
    ([(250, wide), (500, wide), (750, wide), (1000, wide)], (900, gamma_of_width(0.15))),
    ([(t, g) for t in (200, 400, 600, 800, 1000) for g in (narrow, wide)], (1000, gamma_of_width(0.2))),
    ([(t, g) for t in (200, 400, 600, 800, 1000) for g in (narrow, wide)], (1000, 0.0)),
]

steps = np.arange(400)
walk = (np.sqrt(steps) + np.sin(0.37 * steps * steps)).tolist()
times = list(range(20, 401, 20))
saved = [(t, g) for t in times for g in (narrow, wide)]
by_gamma = {g: averages(walk, g) for g in (narrow, wide)}
wanted = gamma_of_width(0.15)
made = float(sum(w * by_gamma[g][t - 1] for w, (t, g) in zip(weights(saved, (400, wanted)), saved)))

data = {
    "versions": {"numpy": np.__version__},
    "gammas": [{"width": width, "gamma": float(gamma_of_width(width))} for width in widths],
    "weights": [
        {
            "saved": [[t, float(g)] for t, g in saved_set],
            "wanted": [wanted_set[0], float(wanted_set[1])],
            "weights": weights(saved_set, wanted_set).tolist(),
            "condition": float(
                np.linalg.cond([[product(a[0], a[1], b[0], b[1]) for b in saved_set] for a in saved_set])
            ),
        }
        for saved_set, wanted_set in sets
    ],
    "walk": {
        "values": walk,
        "narrow": by_gamma[narrow][-1],
        "wide": by_gamma[wide][-1],
        "wanted": averages(walk, wanted)[-1],
        "made": made,
    },
}
Path(__file__).with_name("post_hoc.json").write_text(json.dumps(data, indent=1) + "\n")
print(len(data["weights"]), made, data["walk"]["wanted"], [case["condition"] for case in data["weights"]])
