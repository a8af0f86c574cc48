"""Adapters written by peft, and the outputs that they give.

Run with `python tests/lora/make_peft.py`; it writes peft/<name>/ beside itself. With `--load FOLDER` it loads the adapters
that gradus wrote there (`GRADUS_PEFT_FOLDER=FOLDER cargo test --features lora,checkpoint --test lora peft`) with peft and
checks that they give the same outputs.

Made with peft 0.21.2 and torch 2.15.0. The model is two linear layers, "hidden" (6 × 5) and "output" (3 × 6); the
numbers of weights, adapters and inputs are ((17 i + 5 phase) mod 23)/16 − 11/16, exact in f32.
"""

import json
import sys
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file

CONFIGS = {
    "lora": LoraConfig(r=2, lora_alpha=4, target_modules=["hidden", "output"]),
    "rslora": LoraConfig(r=3, lora_alpha=6, use_rslora=True, target_modules=["hidden", "output"], lora_dropout=0.1),
    "dora": LoraConfig(r=2, lora_alpha=2, use_dora=True, target_modules=["hidden", "output"]),
}


def tensor(shape, phase):
    count = torch.tensor(shape).prod().item()
    return torch.tensor([((17 * i + 5 * phase) % 23) / 16 - 0.6875 for i in range(count)]).reshape(shape)


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = torch.nn.Linear(5, 6, bias=False)
        self.output = torch.nn.Linear(6, 3, bias=False)
        self.hidden.weight.data = tensor((6, 5), 1)
        self.output.weight.data = tensor((3, 6), 2)

    def forward(self, x):
        return self.output(torch.tanh(self.hidden(x)))


def main():
    folder, x = Path(__file__).with_name("peft"), tensor((4, 5), 3)
    for name, config in CONFIGS.items():
        if "--load" in sys.argv:
            theirs = Path(sys.argv[sys.argv.index("--load") + 1]) / name
            y = PeftModel.from_pretrained(Model(), theirs).eval()(x)
            expected = torch.tensor(json.loads((folder / name / "outputs.json").read_text()))
            worst = (y - expected).abs().max().item()
            print(f"{name}: {worst:.1e}")
            assert worst < 1e-5
            continue
        model = get_peft_model(Model(), config).eval()
        for number, (key, p) in enumerate(sorted(model.named_parameters())):
            if "lora_A" in key or "lora_B" in key:
                p.data = tensor(p.shape, 10 + number)
            elif "magnitude" in key:
                p.data *= 1.25
        model.save_pretrained(folder / name)
        (folder / name / "README.md").unlink()
        (folder / name / "outputs.json").write_text(json.dumps(model(x).tolist()) + "\n")


if __name__ == "__main__":
    main()
