"""Writes range_test.json: smoothed losses and suggestions by fastai's rules, written out in Python: `python range_test.py`. Needs numpy.

The rules are those of fastai 2.7: `AvgSmoothLoss`, `LRFinder` and the functions `valley`, `minimum` and `steep` of `fastai.callback.schedule`.
"""

import json

import numpy as np


def smoothed(raw):
    value, losses, best = 0.0, [], float("inf")
    for count, loss in enumerate(raw, 1):
        value = loss + 0.98 * (value - loss)
        losses.append(value / (1 - 0.98**count))
        best = min(best, losses[-1])
        if losses[-1] > 4 * best:
            break
    return losses


def valley(rates, losses):
    lengths, end, start = [1] * len(losses), 0, 0
    for i in range(1, len(losses)):
        for j in range(i):
            if losses[i] < losses[j] and lengths[i] < lengths[j] + 1:
                lengths[i] = lengths[j] + 1
            if lengths[end] < lengths[i]:
                end = i
                start = end - lengths[end]
    sections = (end - start) / 3
    return rates[start + int(sections) + int(sections / 2)]


def minimum(rates, losses):
    return rates[int(np.argmin(losses))] / 10


def steep(rates, losses):
    slopes = np.diff(losses) / np.diff(np.log(rates))
    return rates[int(np.argmin(slopes))]


def case(raw):
    planned = len(raw)
    losses = smoothed(raw)
    rates = [1e-7 * (10.0 / 1e-7) ** (i / (planned - 1)) for i in range(len(losses))]
    points = slice(planned // 10, -5)
    own_rates, own_losses = np.array(rates)[points], np.array(losses)[points]
    rules = {"steep": steep, "valley": valley, "minimum": minimum}
    found = {name: float(rule(own_rates, own_losses)) if len(own_rates) > 1 else None for name, rule in rules.items()}
    return {"planned": planned, "raw": list(map(float, raw)), "rates": rates, "losses": losses, **found}


def main():
    at = lambda n: np.linspace(-7, 1, n)
    bowl = lambda x: 2.3 - 1.5 / (1 + np.exp(-3 * (x + 3))) + np.exp(2.5 * (x + 0.5))
    noise = np.random.default_rng(7)
    cases = [
        case(bowl(at(100))),
        case(bowl(at(100)) + 0.2 * noise.standard_normal(100)),
        case(bowl(at(57)) + 0.3 * noise.standard_normal(57)),
        case(2.0 - at(40)),
        case(np.where(at(30) < -4, 1 / (at(30) + 8), 500.0)),
        case(bowl(at(6))),
    ]
    with open("range_test.json", "w") as file:
        json.dump({"cases": cases}, file, indent=1)
        file.write("\n")


main()
