"""The training script of which `from_pytorch.rs` is the port. Printed with torch 2.15.0; the numbers are asserted at the end of the port.

    python from_pytorch.py
"""
import math
import os
import tempfile

import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

torch.set_default_dtype(torch.float64)
rows = [[float(v) for v in line.split(",")] for line in open(os.path.join(os.path.dirname(__file__), "digits.csv")).readlines()[1:]]
x = torch.tensor([row[1:] for row in rows]) / 16
y = torch.tensor([int(row[0]) for row in rows])

model = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10))
with torch.no_grad():  # a start that any language can repeat
    for layer in (model[0], model[2]):
        count = torch.arange(layer.weight.numel(), dtype=torch.float64)
        layer.weight.copy_(0.2 * torch.sin(1 + count).reshape(layer.weight.shape))
        layer.bias.zero_()

weights = [p for p in model.parameters() if p.ndim > 1]
biases = [p for p in model.parameters() if p.ndim == 1]
groups = [{"params": weights}, {"params": biases, "weight_decay": 0.0}]
optimizer = torch.optim.AdamW(groups, lr=1e-2, weight_decay=0.05)
warmup, cosine = LinearLR(optimizer, 0.1, total_iters=20), CosineAnnealingLR(optimizer, 180)
scheduler = SequentialLR(optimizer, [warmup, cosine], milestones=[20])
average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.95))


def accuracy(model):
    return (model(x[1600:]).argmax(1) == y[1600:]).double().mean().item()


path = os.path.join(tempfile.gettempdir(), "from_pytorch.pt")
for step in range(200):
    for half in range(2):  # two micro-batches of 64 make a batch
        start = (2 * step + half) * 64 % 1536
        loss = nn.functional.cross_entropy(model(x[start : start + 64]), y[start : start + 64])
        (loss / 2).backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    scheduler.step()
    optimizer.zero_grad()
    average.update_parameters(model)
    if step == 99:  # stop and go on
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}, path)
        saved = torch.load(path)
        model.load_state_dict(saved["model"]), optimizer.load_state_dict(saved["optimizer"]), scheduler.load_state_dict(saved["scheduler"])
    if step % 50 == 49:
        print(step + 1, repr(loss.item()), scheduler.get_last_lr()[0])
with torch.no_grad():
    print("accuracy", accuracy(model), "average", accuracy(average))
    print("norm of the average", repr(math.sqrt(sum((p**2).sum().item() for p in average.module.parameters()))))
