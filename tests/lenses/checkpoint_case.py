"""What the tests of the view of a checkpoint share: files that torch wrote, archives by hand, and a reader of drawn tables."""

from __future__ import annotations

import argparse
import re
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from netlens.lenses.summary.checkpoint_measure import measure
from netlens.lenses.summary.checkpoint_report import CheckpointReport, Tensor
from netlens.lenses.summary.checkpoint_values import read_values
from netlens.loading.checkpoints.archive import Archive, StoredTensor, TensorGroup
from netlens.loading.checkpoints.read import read_archive


class Net(nn.Module):
    """Every oddity that a healthy model has: a tie, buffers, frozen parameters, equal blocks, a tensor beside its children."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, width)
        self.scale = nn.Parameter(torch.ones(()))
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(width, width), nn.BatchNorm1d(width)) for _ in range(12))
        self.head = nn.Linear(width, 10, bias=False)
        self.head.weight = self.embed.weight
        self.blocks[0][0].weight.requires_grad_(False)


def net() -> Net:
    """Return the same network in every test."""
    torch.manual_seed(0)
    return Net()


def training() -> dict[str, Any]:
    """Return what a training script saves: wrapper, EMA, optimizer, scheduler, arguments."""
    model = net()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained)
    for parameter in trained:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    ema = OrderedDict((name, tensor.clone()) for name, tensor in model.state_dict().items())
    beside = {"epoch": 12, "lr_schedulers": [{"last_epoch": 12}], "args": argparse.Namespace(lr=0.1)}
    return {"state_dict": model.state_dict(), "state_dict_ema": ema, "optimizer": optimizer.state_dict(), **beside}


def look(path: Path, *, values: bool = False, key: str | None = None) -> CheckpointReport:
    """Read and measure a file."""
    return measure(read_archive(path), key=key, values=read_values if values else None)


def saved(folder: Path, value: object, name: str = "weights.pt", **options: Any) -> Path:
    """Write a file with torch."""
    torch.save(value, folder / name, **options)
    return folder / name


def by_hand(*names: str, shape: tuple[int, ...] = (2,), kind: str = "torch zip", **more: Any) -> Archive:
    """Return an archive with contiguous tensors of these names, each with a storage of its own."""
    return Archive(Path("weights.pt"), kind, 100, (TensorGroup("", "weights", tensors(dict.fromkeys(names, shape))),), **more)


def tensors(shapes: Mapping[str, tuple[int, ...]], dtype: str = "float32", size: int = 4) -> tuple[StoredTensor, ...]:
    """Return contiguous tensors of these shapes."""
    found = []
    for name, shape in shapes.items():
        empty = torch.empty(shape, device="meta")
        found.append(StoredTensor(name, shape, dtype, empty.stride(), 0, name, size * empty.numel()))
    return tuple(found)


def one(report: CheckpointReport, name: str) -> Tensor:
    """Return the tensor of this name."""
    (found,) = [tensor for group in report.table for tensor in group.tensors if tensor.name == name]
    return found


def drawn_rows(text: str) -> list[list[str]]:
    """Return the fields of the rows between the rules of a drawn table, header and total included."""
    lines = text.split("\n")
    first = next(place for place, line in enumerate(lines) if set(line) == {"─"}) - 1
    last = max(place for place, line in enumerate(lines) if set(line) == {"─"}) + 1
    return [re.split(r" {2,}", line.lstrip("│├└─ ")) for line in lines[first : last + 1] if set(line) != {"─"}]
