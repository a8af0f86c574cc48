"""Files with the state of PyTorch's optimizers after three steps, and where six steps lead.

Run with `python tests/checkpoint/torch_state.py`; it writes torch/*.safetensors. With `--load FOLDER` it goes on from the
files that gradus wrote there (`GRADUS_TORCH_FOLDER=FOLDER cargo test --features checkpoint torch`) instead, and checks
that the fourth to sixth step are its own.

Each file has the state, `slot/parameter`, and beside it the parameters after three (`<name>.params`) and six
(`<name>.after`) steps. Made with torch 2.15.0 and safetensors 0.8.0.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

OPTIMIZERS = {
    "adam": lambda params: torch.optim.Adam(params, lr=0.1, amsgrad=True, foreach=False),
    "adamw": lambda params: torch.optim.AdamW(params, lr=0.1, foreach=False),
    "momentum": lambda params: torch.optim.SGD(params, lr=0.1, momentum=0.9, dampening=0.5, foreach=False),
    "nesterov": lambda params: torch.optim.SGD(params, lr=0.1, momentum=0.9, nesterov=True, foreach=False),
    "rmsprop": lambda params: torch.optim.RMSprop(params, lr=0.01, momentum=0.9, centered=True, foreach=False),
    "nadam": lambda params: torch.optim.NAdam(params, lr=0.1, foreach=False),
    "adamax": lambda params: torch.optim.Adamax(params, lr=0.1, foreach=False),
    "adagrad": lambda params: torch.optim.Adagrad(params, lr=0.1, initial_accumulator_value=0.1, foreach=False),
    "adadelta": lambda params: torch.optim.Adadelta(params, lr=1.0, foreach=False),
    "rprop": lambda params: torch.optim.Rprop(params, lr=0.01, foreach=False),
    "asgd": lambda params: torch.optim.ASGD(params, lr=0.1, lambd=0.1, foreach=False),
    "adafactor": lambda params: torch.optim.Adafactor(params, lr=0.1, foreach=False),
}


def model():
    """Two linear layers of f64 with numbers that Rust computes, too."""
    net = torch.nn.ModuleDict({"hidden": torch.nn.Linear(3, 4), "output": torch.nn.Linear(4, 2)}).double()
    for number, p in enumerate(net.parameters()):
        p.data = tensor(p.shape, number)
    return net


def tensor(shape, phase):
    """((17 i + 5 phase) mod 23)/16 − 11/16 in row-major order: exact."""
    count = torch.tensor(shape).prod().item()
    return torch.tensor([((17 * i + 5 * phase) % 23) / 16 - 0.6875 for i in range(count)], dtype=torch.float64).reshape(shape)


def step(net, optimizer, number):
    for at, p in enumerate(net.parameters()):
        p.grad = tensor(p.shape, 7 * number + at + 100)
    optimizer.step()


def save(net, optimizer, path):
    names = {p: name for name, p in net.named_parameters()}
    save_file({f"{slot}/{names[p]}": torch.as_tensor(value) for p, state in optimizer.state.items()
               for slot, value in state.items() if value is not None}, path)


def load(net, optimizer, path):
    params = dict(net.named_parameters())
    for key, value in load_file(path).items():
        slot, name = key.split("/", 1)
        optimizer.state[params[name]][slot] = value


def complete(name, optimizer):
    """Adds what gradus does not store, as its documentation says."""
    group = optimizer.param_groups[0]
    for p, state in optimizer.state.items():
        t = int(state["step"])
        if name == "nadam":
            momenta = [group["betas"][0] * (1 - 0.5 * 0.96 ** (i * group["momentum_decay"])) for i in range(1, t + 1)]
            state["mu_product"] = torch.tensor(momenta).prod()
        if name == "asgd":
            state["eta"] = torch.tensor(group["lr"] / (1 + group["lambd"] * group["lr"] * t) ** group["alpha"])
            state["mu"], state["ax"] = torch.tensor(1 / max(1, t - group["t0"])), p.detach().clone()


def params_of(net):
    return {name: p.detach().clone() for name, p in net.named_parameters()}


def main():
    folder = Path(__file__).with_name("torch")
    for name, make in OPTIMIZERS.items():
        # PyTorch keeps the numbers of one tensor, such as NAdam's product, in its default type.
        torch.set_default_dtype(torch.float64 if name in ["nadam", "asgd"] else torch.float32)
        net = model()
        optimizer = make(net.parameters())
        if "--load" in sys.argv:
            theirs = Path(sys.argv[sys.argv.index("--load") + 1])
            net.load_state_dict(load_file(theirs / f"{name}.params.safetensors"))
            load(net, optimizer, theirs / f"{name}.safetensors")
            complete(name, optimizer)
        else:
            for number in range(3):
                step(net, optimizer, number)
            save(net, optimizer, folder / f"{name}.safetensors")
            save_file(params_of(net), folder / f"{name}.params.safetensors")
        for number in range(3, 6):
            step(net, optimizer, number)
        if "--load" not in sys.argv:
            save_file(params_of(net), folder / f"{name}.after.safetensors")
            continue
        expected = load_file(folder / f"{name}.after.safetensors")
        worst = max((p - expected[key]).abs().max().item() for key, p in params_of(net).items())
        print(f"{name}: {worst:.1e}")
        assert worst < 1e-13


if __name__ == "__main__":
    main()
