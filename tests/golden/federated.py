"""Golden data for server optimizers: Flower's strategies, over several rounds.

Run with `python tests/golden/federated.py`; it writes federated.json beside itself.

Two tensors, (2, 3) and (4,), begin as param_i of README.md. In round r = 1, 2, … each of three clients returns the global
parameters plus 0.1·grad_{10·client + i} of step r − 1. `values` are the global parameters after each round, flat. Flower sees
f64 arrays and keeps them so.
"""

from pathlib import Path

import flwr
import numpy as np
from flwr.common import Code, FitRes, Status, ndarrays_to_parameters, parameters_to_ndarrays
from flwr.server.strategy import FedAdagrad, FedAdam, FedAvg, FedAvgM, FedYogi

from common import numbers, unit, write_json

SHAPES = [(2, 3), (4,)]
SIZE = 10
WEIGHTS = [10, 25, 65]
ROUNDS = 6


def tensors(flat):
    return [flat[:6].reshape(SHAPES[0]), flat[6:]]


def flat(tensors):
    return np.concatenate([tensor.ravel() for tensor in tensors])


def changes(round, client):
    return 0.1 * unit(round * 1_000_003 * 7 + 10 * client + np.arange(SIZE) + 2**40)


def run(make):
    current = unit(np.arange(SIZE)).astype(np.float64)
    strategy = make(ndarrays_to_parameters(tensors(current)))
    values = []
    for round in range(1, ROUNDS + 1):
        results = []
        for client, weight in enumerate(WEIGHTS):
            parameters = ndarrays_to_parameters(tensors(current + changes(round, client)))
            results.append((None, FitRes(Status(Code.OK, ""), parameters, weight, {})))
        parameters, _ = strategy.aggregate_fit(round, results, [])
        current = flat(parameters_to_ndarrays(parameters))
        assert current.dtype == np.float64
        values.append(numbers(current))
    return values


def main():
    strategies = [
        ("fedavg", {}, lambda start: FedAvg(initial_parameters=start)),
        (
            "fedavgm",
            {"learning_rate": 0.7, "momentum": 0.9},
            lambda start: FedAvgM(initial_parameters=start, server_learning_rate=0.7, server_momentum=0.9),
        ),
        ("fedadagrad", {"learning_rate": 0.1, "tau": 1e-9}, lambda start: FedAdagrad(initial_parameters=start)),
    ]
    for name, strategy in [("fedadam", FedAdam), ("fedyogi", FedYogi)]:
        for options in [
            {"eta": 0.1, "beta_1": 0.9, "beta_2": 0.99, "tau": 1e-9},
            {"eta": 0.03, "beta_1": 0.5, "beta_2": 0.8, "tau": 1e-3},
        ]:
            named = dict(zip(["learning_rate", "beta1", "beta2", "tau"], options.values()))
            make = lambda start, strategy=strategy, options=options: strategy(initial_parameters=start, **options)
            strategies.append((name, named, make))
    cases = [{"optimizer": name, "options": options, "values": run(make)} for name, options, make in strategies]
    header = {
        "generator": "federated.py",
        "library": "flwr",
        "version": flwr.__version__,
        "numpy": np.__version__,
        "weights": WEIGHTS,
    }
    write_json(Path(__file__).with_name("federated.json"), header, cases)


if __name__ == "__main__":
    main()
