"""The labels of a data set: whatever comes beside the inputs, as tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import default_collate

from netlens.loading.arrays import is_array, is_image, is_part, of_array, of_numbers


def class_indices(labels: Sequence[Any]) -> Tensor | None:
    """Return labels of single samples as (N,), where they are whole numbers."""
    plain = [label.tolist() if hasattr(label, "tolist") else label for label in labels]
    plain = [label[0] if isinstance(label, list) and len(label) == 1 else label for label in plain]
    return torch.tensor(plain) if all(isinstance(label, Integral) for label in plain) else None


def collated_labels(labels: Sequence[Any]) -> Any:
    """Return labels of single samples as one tensor or a tuple of tensors; as a list where they are texts, dicts or of several sizes."""
    found = [as_tensors(label) for label in labels]
    if all(label is None for label in found):
        return None
    if any(isinstance(label, (Mapping, str)) for label in found):
        return found
    try:
        collated = default_collate(found)
    except (RuntimeError, TypeError, KeyError, ValueError):
        return found
    return tuple(collated) if isinstance(found[0], tuple) else collated


def as_tensors(value: Any) -> Any:
    """Return labels with tensors for arrays and for pictures, whose pixels are the labels then."""
    if is_image(value):
        import numpy as np

        value = np.array(value)
    if is_array(value):
        found = of_array(value)
        return value.tolist() if found is None else found
    if isinstance(value, Mapping):
        return {key: as_tensors(part) for key, part in value.items()}
    if not isinstance(value, (tuple, list)):
        return value
    if any(map(is_part, value)):
        parts = [as_tensors(part) for part in value]
        return tuple(parts) if isinstance(value, tuple) else parts
    numbers = of_numbers(value)
    return value if numbers is None else numbers
