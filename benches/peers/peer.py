"""torch and optax, driven line by line, so that their rounds interleave with those of the Rust libraries.

    setup LIBRARY COUNT LENGTH CLIP THREADS    LIBRARY: torch-fused, torch-foreach, optax; of LENGTH x LENGTH: torch-muon,
                                               torch-muon-f32, and PACKAGE:OPTIMIZER of those in `zoo`
    run REPEATS                                answers with the seconds of one step
    values                                     answers with the first tensor's first eight parameters
    versions                                   answers with what is installed, torch with its SIMD level
"""

import importlib.metadata
import importlib.util
import sys
import time

import numpy as np

LR, DECAY = 1e-3, 0.01
EIGHT = 8


def tensors(count, length, phase):
    """The numbers of the Rust side: sin(0.61 i + phase) + 1.5 in f32."""
    i = np.arange(length, dtype=np.float32)
    return [(np.sin(i * np.float32(0.61) + np.float32(phase)) + np.float32(1.5)).astype(np.float32) for _ in range(count)]


class Torch:
    def __init__(self, count, length, clip, threads, **kind):
        import torch

        torch.set_num_threads(threads)
        self.torch, self.clip = torch, clip
        # Cloned into memory of torch's own allocator, where a model's parameters and autograd's gradients lie: numpy asks
        # the kernel for huge pages, torch does not.
        self.params = [torch.nn.Parameter(torch.from_numpy(p).clone()) for p in tensors(count, length, 0.0)]
        for p, g in zip(self.params, tensors(count, length, 1.0)):
            p.grad = torch.from_numpy(g).clone()
        self.opt = torch.optim.AdamW(self.params, lr=LR, weight_decay=DECAY, **kind)

    def step(self):
        if self.clip:
            self.torch.nn.utils.clip_grad_norm_(self.params, self.clip)
        self.opt.step()

    def wait(self):
        pass

    def values(self):
        return self.params[0].detach().numpy()[:EIGHT]


class TorchMuon:
    """One square matrix, which torch orthogonalises in bf16; wide: in f32, as that is then what bf16 names."""

    def __init__(self, _count, length, _clip, threads, wide=False):
        import torch

        torch.set_num_threads(threads)
        if wide:
            torch.bfloat16 = torch.float32

        def matrix(phase):
            return torch.from_numpy(tensors(1, length * length, phase)[0]).clone().reshape(length, length)

        self.param = torch.nn.Parameter(matrix(0.0))
        self.param.grad = matrix(1.0)
        self.opt = torch.optim.Muon([self.param], lr=LR)

    def step(self):
        self.opt.step()

    def wait(self):
        pass

    def values(self):
        return self.param.detach().numpy().ravel()[:EIGHT]


class Optax:
    def __init__(self, count, length, clip, _threads, made=None, shape=(-1,)):
        import jax
        import optax

        self.jax = jax
        opt = made or optax.adamw(LR, weight_decay=DECAY)
        if clip:
            opt = optax.chain(optax.clip_by_global_norm(clip), opt)
        self.params = [jax.numpy.asarray(p.reshape(shape)) for p in tensors(count, length, 0.0)]
        self.grads = [jax.numpy.asarray(g.reshape(shape)) for g in tensors(count, length, 1.0)]
        # Copied: what is given away must not be given twice, and a state may hold the parameters.
        self.state = jax.tree.map(jax.numpy.copy, opt.init(self.params))

        def update(params, state, grads):
            updates, state = opt.update(grads, state, params)
            return optax.apply_updates(params, updates), state

        self.update = jax.jit(update, donate_argnums=(0, 1))

    def step(self):
        self.params, self.state = self.update(self.params, self.state, self.grads)

    def wait(self):
        self.jax.block_until_ready((self.params, self.state))

    def values(self):
        return np.asarray(self.params[0][:EIGHT])


def zoo():
    """The optimizers of other packages; of each package only when it is asked for."""

    def timm(name, **settings):
        import timm.optim

        return getattr(timm.optim, name), settings

    def kozistr(name, **settings):
        import pytorch_optimizer

        return getattr(pytorch_optimizer, name), settings

    def authors(module, name, **settings):
        return getattr(importlib.import_module(module), name), settings

    def optax(name, rate):
        import optax

        part, _, name = name.rpartition(".")
        return getattr(getattr(optax, part) if part else optax, name)(rate)

    return {
        "timm:Lion": lambda: timm("Lion", lr=1e-4),
        "timm:Lamb": lambda: timm("Lamb", lr=LR),
        "timm:Adafactor": lambda: timm("Adafactor", lr=1e-2),
        "pytorch-optimizer:Lion": lambda: kozistr("Lion", lr=1e-4),
        "pytorch-optimizer:Lamb": lambda: kozistr("Lamb", lr=LR),
        "pytorch-optimizer:Adafactor": lambda: kozistr("AdaFactor", lr=1e-2),
        "pytorch-optimizer:AdEMAMix": lambda: kozistr("AdEMAMix", lr=LR),
        "pytorch-optimizer:AdamWScheduleFree": lambda: kozistr("ScheduleFreeAdamW", lr=LR),
        "pytorch-optimizer:Prodigy": lambda: kozistr("Prodigy", lr=1.0),
        "authors:Lion": lambda: authors("lion_pytorch", "Lion", lr=1e-4),
        "authors:AdamWScheduleFree": lambda: authors("schedulefree", "AdamWScheduleFree", lr=LR),
        "authors:Prodigy": lambda: authors("prodigyopt", "Prodigy", lr=1.0),
        "optax:Lion": lambda: optax("lion", 1e-4),
        "optax:Lamb": lambda: optax("lamb", LR),
        "optax:Adafactor": lambda: optax("adafactor", 1e-2),
        "optax:AdEMAMix": lambda: optax("contrib.ademamix", LR),
        "optax:AdamWScheduleFree": lambda: optax("contrib.schedule_free_adamw", LR),
        "optax:Prodigy": lambda: optax("contrib.prodigy", 1.0),
    }


class TorchZoo(TorchMuon):
    """One square matrix and an optimizer for PyTorch."""

    def __init__(self, made, length, threads):
        import torch

        torch.set_num_threads(threads)
        values, grads = (tensors(1, length * length, phase)[0].reshape(length, length) for phase in (0.0, 1.0))
        self.param = torch.nn.Parameter(torch.from_numpy(values).clone())
        self.param.grad = torch.from_numpy(grads).clone()
        kind, settings = made
        self.opt = kind([self.param], **settings)
        if hasattr(self.opt, "train"):
            self.opt.train()


class OptaxZoo(Optax):
    """One square matrix and an optimizer of optax."""

    def __init__(self, made, length):
        super().__init__(1, length * length, 0.0, 0, made=made, shape=(length, length))

    def values(self):
        return np.asarray(self.params[0].ravel()[:EIGHT])


def of_zoo(name, _count, length, _clip, threads):
    made = zoo()[name]()
    return OptaxZoo(made, length) if name.startswith("optax:") else TorchZoo(made, length, threads)


LIBRARIES = {
    "torch-fused": lambda *size: Torch(*size, fused=True),
    "torch-foreach": lambda *size: Torch(*size, foreach=True),
    "optax": Optax,
    "torch-muon": TorchMuon,
    "torch-muon-f32": lambda *size: TorchMuon(*size, wide=True),
}


def level(name):
    """The instructions that a library's own loops have, if it tells."""
    if name != "torch":
        return ""
    import torch

    return f" ({torch.backends.cpu.get_cpu_capability()})"


def main():
    peer = None
    for line in sys.stdin:
        command, *arguments = line.split()
        if command == "setup":
            library, count, length, clip, threads = arguments
            size = (int(count), int(length), float(clip), int(threads))
            peer = of_zoo(library, *size) if ":" in library else LIBRARIES[library](*size)
            print("ready", flush=True)
        elif command == "run":
            repeats = int(arguments[0])
            start = time.perf_counter()
            for _ in range(repeats):
                peer.step()
            peer.wait()
            print((time.perf_counter() - start) / repeats, flush=True)
        elif command == "values":
            print(*peer.values(), flush=True)
        elif command == "versions":
            names = ("torch", "jax", "optax", "timm", "pytorch_optimizer", "lion_pytorch", "schedulefree", "prodigyopt")
            there = [name for name in names if importlib.util.find_spec(name)]
            print(", ".join(f"{name} {importlib.metadata.version(name)}{level(name)}" for name in there), flush=True)


if __name__ == "__main__":
    main()
