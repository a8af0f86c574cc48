"""Adapters written by peft, and the outputs that they give.

Run with `python tests/lora/make_peft.py`; it writes peft/<name>/ beside itself. With `--load FOLDER` it loads the adapters
that gradus wrote there (`GRADUS_PEFT_FOLDER=FOLDER cargo test --features lora,checkpoint --test lora peft`) with peft and
checks that they give the same outputs; those in folders that end with `.ours` have been created by gradus.

Made with peft 0.21.2, transformers 5.24.0 and torch 2.15.0. Each model is a chain of layers with the names that they have in
published models; between two of them is tanh(x/4). The numbers of weights, adapters and inputs are ((17 i + 5 phase) mod 23)/16 −
11/16, exact in f32 and bf16.
"""

import json
import sys
import warnings
from pathlib import Path

import torch
from peft import EvaConfig, LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn
from transformers.pytorch_utils import Conv1D

BATCH = 4
BLOCK = ["q_proj", "k_proj", "v_proj", "o_proj"]
LLAMA = [(f"model.layers.{layer}.self_attn.{name}", "linear", [5, 5]) for layer in (0, 1) for name in BLOCK]
LLAMA += [("model.layers.1.mlp.down_proj", "linear", [3, 5])]
GPT2 = [
    ("transformer.h.0.attn.c_attn", "conv1d_gpt2", [5, 6]),
    ("transformer.h.0.attn.c_proj", "conv1d_gpt2", [6, 6]),
    ("transformer.h.0.mlp.c_fc", "conv1d_gpt2", [6, 3]),
]
PAIR = [("hidden", "linear", [6, 5]), ("output", "linear", [3, 6])]
BERT = [
    ("bert.encoder.layer.0.attention.self.query", "linear+bias", [6, 5]),
    ("bert.encoder.layer.0.attention.self.value", "linear+bias", [4, 6]),
    ("classifier", "linear+bias", [3, 4]),
]
TOKENS = [("model.embed_tokens", "embedding", [7, 5]), ("model.layers.0.self_attn.q_proj", "linear", [3, 5])]
IMAGES = [("conv1", "conv2d", [4, 2, 3, 3]), ("conv2", "conv2d", [3, 4, 1, 1])]
SOUNDS = [("encoder.conv1", "conv1d", [3, 2, 3]), ("encoder.conv2", "conv1d", [2, 3, 1])]

# name: (layers, configuration, type of the numbers in the file)
CASES = {
    "lora": (PAIR, dict(r=2, lora_alpha=4, target_modules=["hidden", "output"]), None),
    "rslora": (PAIR, dict(r=3, lora_alpha=6, use_rslora=True, target_modules=["hidden", "output"], lora_dropout=0.1), None),
    "dora": (PAIR, dict(r=2, lora_alpha=2, use_dora=True, target_modules=["hidden", "output"]), None),
    "llama": (LLAMA, dict(r=2, lora_alpha=3, lora_dropout=0.05, target_modules=BLOCK, task_type="CAUSAL_LM"), None),
    "gpt2": (GPT2, dict(r=2, lora_alpha=4, target_modules=["c_attn", "c_proj"], fan_in_fan_out=True), None),
    "gpt2_dora": (GPT2, dict(r=2, lora_alpha=4, target_modules=["c_attn", "c_fc"], fan_in_fan_out=True, use_dora=True), None),
    "all_linear": (LLAMA, dict(r=2, lora_alpha=2, target_modules="all-linear"), None),
    "regex": (LLAMA, dict(r=2, lora_alpha=2, target_modules=r".*\.(0|1)\.self_attn\.(q|v)_proj|.*down_proj"), None),
    "layers": (
        LLAMA,
        dict(
            r=2,
            lora_alpha=2,
            target_modules=BLOCK,
            layers_to_transform=[1],
            layers_pattern="layers",
            exclude_modules=["v_proj"],
        ),
        None,
    ),
    "patterns": (
        LLAMA,
        dict(
            r=2,
            lora_alpha=2,
            target_modules=BLOCK + ["down_proj"],
            use_rslora=True,
            rank_pattern={r"layers\.1\..*_proj": 1, "q_proj": 3, "^model.layers.0.self_attn.v_proj": 4},
            alpha_pattern={"down_proj": 5, "model.layers.[01].self_attn.k_proj": 0.5},
        ),
        None,
    ),
    "classifier": (
        BERT,
        dict(r=2, lora_alpha=4, target_modules=["query", "value"], modules_to_save=["classifier", "score"]),
        None,
    ),
    "biases": (BERT, dict(r=2, lora_alpha=4, target_modules=["query"], bias="all"), None),
    "biases_of_adapters": (BERT, dict(r=2, lora_alpha=4, target_modules=["query"], bias="lora_only"), None),
    "embedding": (TOKENS, dict(r=2, lora_alpha=3, target_modules=["embed_tokens", "q_proj"]), None),
    "embedding_dora": (TOKENS, dict(r=2, lora_alpha=3, target_modules=["embed_tokens"], use_dora=True), None),
    "conv2d": (IMAGES, dict(r=2, lora_alpha=3, target_modules=["conv1", "conv2"]), None),
    "conv2d_dora": (IMAGES, dict(r=2, lora_alpha=3, target_modules=["conv1", "conv2"], use_dora=True), None),
    "conv1d": (SOUNDS, dict(r=2, lora_alpha=3, target_modules=["conv1", "conv2"]), None),
    "bf16": (PAIR, dict(r=2, lora_alpha=4, target_modules=["hidden", "output"]), torch.bfloat16),
    "f16": (PAIR, dict(r=2, lora_alpha=4, target_modules=["hidden", "output"], use_dora=True), torch.float16),
    "eva": (
        PAIR,
        dict(
            r=2,
            lora_alpha=2,
            target_modules=["hidden", "output"],
            init_lora_weights="eva",
            eva_config=EvaConfig(rho=2.0),
            rank_pattern={"hidden": 3, "output": 1},
            alpha_pattern={"hidden": 3, "output": 1},
        ),
        None,
    ),
    "orthogonal": (PAIR, dict(r=2, lora_alpha=4, target_modules=["hidden", "output"], init_lora_weights="orthogonal"), None),
    "pissa": (PAIR, dict(r=2, lora_alpha=4, target_modules=["hidden", "output"], init_lora_weights="pissa"), None),
    "pissa_gpt2": (GPT2, dict(r=1, lora_alpha=2, target_modules=["c_attn"], fan_in_fan_out=True, init_lora_weights="pissa"), None),
}


def tensor(shape, phase):
    count = torch.tensor(shape).prod().item()
    return torch.tensor([((17 * i + 5 * phase) % 23) / 16 - 0.6875 for i in range(count)]).reshape(list(shape))


def layer(kind, shape, phase):
    if kind.startswith("linear"):
        made = nn.Linear(shape[1], shape[0], bias=kind.endswith("bias"))
        if made.bias is not None:
            made.bias.data = tensor(shape[:1], phase + 50)
    elif kind == "conv1d_gpt2":
        made = Conv1D(shape[1], shape[0])
        made.bias.data.zero_()
    elif kind == "embedding":
        made = nn.Embedding(*shape)
    elif kind == "conv2d":
        made = nn.Conv2d(shape[1], shape[0], shape[2:], padding=shape[2] // 2, bias=False)
    else:
        made = nn.Conv1d(shape[1], shape[0], shape[2], padding=shape[2] // 2, bias=False)
    made.weight.data = tensor(shape, phase)
    return made


class Model(nn.Module):
    def __init__(self, layers):
        super().__init__()
        self.names = [name for name, _, _ in layers]
        for phase, (name, kind, shape) in enumerate(layers):
            *parents, last = name.split(".")
            module = self
            for parent in parents:
                if not hasattr(module, parent):
                    module.add_module(parent, nn.Module())
                module = getattr(module, parent)
            module.add_module(last, layer(kind, shape, phase + 1))

    def forward(self, x):
        for at, name in enumerate(self.names):
            x = self.get_submodule(name)(x if at == 0 else torch.tanh(x / 4))
        return x


    def prepare_inputs_for_generation(self, *args, **kwargs):
        """Only so that `task_type="CAUSAL_LM"` is accepted."""


def inputs(layers):
    _, kind, shape = layers[0]
    if kind == "embedding":
        return torch.tensor([(3 * i + 1) % shape[0] for i in range(BATCH)])
    if kind == "conv2d":
        return tensor((BATCH, shape[1], 3, 4), 3)
    if kind == "conv1d":
        return tensor((BATCH, shape[1], 5), 3)
    return tensor((BATCH, shape[0] if kind == "conv1d_gpt2" else shape[1]), 3)


def train(model):
    """Numbers that are not the initial ones."""
    for number, (key, p) in enumerate(sorted(model.named_parameters())):
        if "magnitude" in key:
            p.data *= 1.25
        elif "lora_" in key and "pissa" in str(model.peft_config["default"].init_lora_weights):
            p.data += tensor(p.shape, 10 + number) / 8
        elif "lora_" in key or p.requires_grad:
            p.data = tensor(p.shape, 10 + number)


def load(name, folder, layers, x, expected):
    y = PeftModel.from_pretrained(Model(layers), folder).eval().base_model(x)
    worst = (y.flatten() - torch.tensor(expected)).abs().max().item()
    print(f"{name}: {worst:.1e}")
    assert worst < 1e-5 * max(abs(value) for value in expected)


def main():
    folder = Path(__file__).with_name("peft")
    for name, (layers, settings, dtype) in CASES.items():
        here, x = folder / name, inputs(layers)
        if "--load" in sys.argv:
            theirs = Path(sys.argv[sys.argv.index("--load") + 1])
            expected = json.loads((here / "model.json").read_text())["outputs"]
            load(name, theirs / name, layers, x, expected)
            ours = theirs / f"{name}.ours"
            if ours.exists():
                load(ours.name, ours, layers, x, json.loads((ours / "outputs.json").read_text()))
            continue
        model = get_peft_model(Model(layers), LoraConfig(**settings)).eval()
        train(model)
        model.save_pretrained(here)
        (here / "README.md").unlink()
        file = here / "adapter_model.safetensors"
        if dtype is not None:
            save_file({key: p.to(dtype) for key, p in load_file(file).items()}, file, metadata={"format": "pt"})
        y = PeftModel.from_pretrained(Model(layers), here).eval().base_model(x)
        if dtype is None and "pissa" not in name:
            assert (y - model.base_model(x)).abs().max() == 0.0
        text = {"layers": layers, "input": list(x.shape), "outputs": y.flatten().tolist()}
        (here / "model.json").write_text(json.dumps(text) + "\n")
        (here / "outputs.json").unlink(missing_ok=True)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    main()
