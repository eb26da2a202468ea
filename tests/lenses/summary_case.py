"""The form of the hand-derived cases in `summary_cases*.py`, and what their models share.

Conventions of the numbers, which every derivation uses:

- One multiply-add of a matrix product or a convolution is 1 MAC; bias, norm, activation, softmax, pooling, interpolation, lookup are 0.
- linear on rows R: R * in * out. Convolution: output elements * in_channels / groups * kernel elements.
  Transposed convolution: INPUT elements * out_channels / groups * kernel elements.
- attention: B * H * Lq * Lk * (E + Ev). RNN: steps * gates * H * (I + H).
- `parameters`: each tensor once. `buffers`: elements, persistent or not; a batch norm of C channels has 2 C + 1.
- `saved`: bytes that autograd keeps for backward in training mode with grad enabled, float32 unless said, each STORAGE once and whole,
  without parameters, buffers and inputs. What the operators keep (torch's derivatives.yaml):
  linear and matmul keep an operand only if the OTHER operand needs a gradient; convolution keeps its input and weight always;
  relu, sigmoid, tanh, softmax, log_softmax keep their result; gelu, silu, average and max pooling their input; norms their input and
  statistics; `a * b` keeps an operand if the other one needs a gradient; add, cat, views, mean and sum keep nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Case:
    """One small model with the numbers derived by hand in the comment above it."""

    name: str
    build: Callable[[], nn.Module]  # fresh, in its default (training) mode
    inputs: Callable[[], tuple[Any, ...]]  # real CPU values, positional
    parameters: int
    macs: int
    output: Any  # shape of a bare tensor, or {name of leaf: shape}
    saved: int | None = None  # None: not derived
    kwargs: Callable[[], dict[str, Any]] = dict
    uncounted: tuple[str, ...] = ()  # operators without a formula that must be listed
    own_macs: dict[str, int] = field(default_factory=dict)  # path -> MACs of that module's own operators, over all calls
    trainable: int | None = None
    buffers: int | None = None
    meta_build: bool = True  # False: the constructor reads values, so `torch.device("meta")` cannot build it


class Net(nn.Module):
    """A model from named children (or parameters) and a function of (itself, *inputs)."""

    def __init__(self, run: Callable[..., Any], **members: Any) -> None:
        super().__init__()
        self.run = run
        for name, member in members.items():
            setattr(self, name, member)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.run(self, *args, **kwargs)


class Function(nn.Module):
    """A model without weights: one function of its inputs."""

    def __init__(self, function: Callable[..., Any], **options: Any) -> None:
        super().__init__()
        self.function = function
        self.options = options

    def forward(self, *args: Any) -> Any:
        return self.function(*args, **self.options)


def floats(*shape: int) -> Tensor:
    """A float32 tensor; counts do not depend on its values."""
    return torch.full(shape, 0.5)


def parameter(*shape: int) -> nn.Parameter:
    """A trainable tensor of that shape."""
    return nn.Parameter(torch.full(shape, 0.5))


def frozen(module: nn.Module) -> nn.Module:
    """`module` with every parameter excluded from training."""
    return module.requires_grad_(False)
