"""The weights of a model or of a checkpoint, in one form: filters x channels x kernel, read when they are looked at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from netlens.lenses.kernels.report import NormStatistics
from netlens.loading.checkpoints.archive import TensorGroup
from netlens.loading.checkpoints.storages import Storages


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
    read: Callable[[], Tensor]  # the values as stored, on the CPU

    def filters(self) -> Tensor:
        """Return the values as (filters, channels of a group, *kernel), in float32 (float64 where they are stored so)."""
        raise NotImplementedError


@dataclass(frozen=True)
class Weights:
    """What a model or a checkpoint has to show."""

    tensors: tuple[WeightTensor, ...]  # in the order of the model
    norms: tuple[NormStatistics, ...]
    notes: tuple[str, ...] = ()  # what was left out, and why: quantised, lazy, sparse


def weights_of_model(model: nn.Module) -> Weights:
    """Return the weights of every convolution, linear layer and embedding of `model`, tied ones once."""
    raise NotImplementedError


def weights_of_group(group: TensorGroup, storages: Storages, skeleton: nn.Module | None = None) -> Weights:
    """Return the weights of a checkpoint, by the shapes of its tensors alone.

    Args:
        group: the state dict to look at.
        storages: of the archive, open.
        skeleton: a model (on the meta device) with the same names, where one is known: it tells types, groups and which are transposed.
    """
    raise NotImplementedError


__all__ = ["WeightTensor", "Weights", "torch", "weights_of_group", "weights_of_model"]
