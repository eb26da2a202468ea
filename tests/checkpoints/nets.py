"""Modules and classes of users' own, for files that refer to them."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class Net(nn.Module):
    """All that a state dict can hold: tied and missing parameters, buffers that are kept and that are not, a None module."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 6)
        self.register_buffer("mask", torch.ones(2, 3), persistent=False)
        self.register_buffer("steps", torch.tensor(7))
        self.register_buffer("nothing", None)
        self.conv = nn.Conv2d(3, 4, 3, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.tied = nn.Linear(4, 6)
        self.tied.weight = self.head.weight
        self.absent: nn.Module | None = None
        self.register_module("absent2", None)
        self.scale = nn.Parameter(torch.ones(()), requires_grad=False)
        self.register_parameter("shift", None)
        self.parts = nn.ParameterList([nn.Parameter(torch.ones(n)) for n in (1, 2)])
        self.table = nn.ParameterDict({"a": nn.Parameter(torch.ones(1))})
        self.same = self.conv

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Not needed."""
        return x


class Scripted(nn.Module):
    """A small module for torch.jit and torch.export."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.register_buffer("bias", torch.ones(4, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """conv, norm, and a sum."""
        return self.norm(self.conv(x)) + self.bias


class WithSetState(Scripted):
    """TorchScript that runs when it is loaded."""

    @torch.jit.export
    def __getstate__(self) -> int:
        return 1

    @torch.jit.export
    def __setstate__(self, state: int) -> None:
        self.training = state == 1


class SubTensor(torch.Tensor):
    """A class of tensors of its own."""


class Bound(nn.Module):
    """Keeps a method of its own: pickled as getattr(self, name)."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(2, 2)
        self.hook = self.fc.forward


class Options:
    """Options of a training script."""

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)
