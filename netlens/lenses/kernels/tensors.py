"""One weight that can be read when it is looked at, and all that a model or a checkpoint has of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from netlens.lenses.kernels.report import NormStatistics


@dataclass(frozen=True)
class WeightTensor:
    """One weight, not yet read."""

    name: str  # as in `LayerWeights`
    key: str  # of the tensor in the state dict: "conv1.weight"
    type: str
    kind: str
    shape: tuple[int, ...]  # as stored
    dtype: str
    groups: int
    transposed: bool
    trainable: bool | None
    normalised: bool | None
    head: bool
    read: Callable[[], Tensor]  # the values as stored, on the CPU; they may be the memory of the model itself: look, do not write

    def filters(self) -> Tensor:
        """Return the values as (filters, channels of a group, *kernel), in float32 (float64 where they are stored so)."""
        values = self.read()
        values = values.to(torch.float64 if values.dtype == torch.float64 else torch.float32)
        if self.transposed:  # (inputs, outputs of a group, *kernel); linear: (inputs, outputs)
            values = values.unflatten(0, (self.groups, self.shape[0] // self.groups)).transpose(1, 2).flatten(0, 1)
        return values.contiguous()

    @property
    def layout(self) -> tuple[int, int]:
        """Return the number of filters and of the elements of each, without reading the values."""
        if not self.transposed:
            return self.shape[0], prod(self.shape[1:])
        return self.shape[1] * self.groups, self.shape[0] // self.groups * prod(self.shape[2:])


@dataclass(frozen=True)
class Weights:
    """What a model or a checkpoint has to show."""

    tensors: tuple[WeightTensor, ...]  # in the order of the model
    norms: tuple[NormStatistics, ...]
    notes: tuple[str, ...] = ()  # what was left out, and why: quantised, lazy, sparse


def norm_statistics(
    name: str, kind: str, mean: Tensor, variance: Tensor, weight: Tensor | None = None, bias: Tensor | None = None
) -> NormStatistics:
    """Describe running statistics; a weight that is 0 everywhere counts as not moved, for residual blocks begin with such ones."""
    mean, variance = mean.detach().float().cpu(), variance.detach().float().cpu()
    finite = variance[variance.isfinite()]
    return NormStatistics(
        name=name,
        type=kind,
        features=mean.numel(),
        nonfinite=sum(int((~values.isfinite()).sum()) for values in (mean, variance)),
        least_variance=float(finite.min()) if finite.numel() else None,
        untouched=bool((mean == 0).all()) and bool((variance == 1).all()),
        affine_moved=None if weight is None and bias is None else _moved(weight) or bool(bias is not None and (bias != 0).any()),
    )


def _moved(weight: Tensor | None) -> bool:
    return weight is not None and bool((weight != 1).any()) and bool((weight != 0).any())


def left_out(omitted: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Return a sentence for each reason for which weights are not listed."""
    from netlens.loading.words import listed

    return tuple(f"left out, {why}: {listed(names)}" for why, names in omitted.items())
