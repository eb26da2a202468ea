"""The weights of a model or of a checkpoint, in one form: filters x channels x kernel, read when they are looked at."""

from __future__ import annotations

from netlens.lenses.kernels.in_checkpoint import weights_of_group
from netlens.lenses.kernels.in_model import weights_of_model
from netlens.lenses.kernels.tensors import Weights, WeightTensor

__all__ = ["WeightTensor", "Weights", "weights_of_group", "weights_of_model"]
