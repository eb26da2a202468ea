"""What the shape kernels share: empty results, memory formats, and the checks of sizes and dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from netlens.probing.pointwise import Misfit


def empty(x: Tensor, shape: Sequence[int], dtype: torch.dtype | None = None, *, layout: torch.memory_format | None = None) -> Tensor:
    """An empty meta tensor with the dtype of `x`, where no other is named."""
    return torch.empty(shape, dtype=dtype or x.dtype, device="meta", memory_format=layout or torch.contiguous_format)


def memory_format(x: Tensor) -> torch.memory_format:
    """Channels last or contiguous, as `Tensor::suggest_memory_format` has it, ambiguous cases included."""
    if x.dim() not in (4, 5) or x.stride(1) != 1:
        return torch.contiguous_format
    smallest, order = 0, (1, 3, 2, 0) if x.dim() == 4 else (1, 4, 3, 2, 0)
    for dim in order:
        size, stride = x.shape[dim], x.stride(dim)
        if size == 0 or stride < smallest or (dim == 0 and smallest == x.stride(1)):
            return torch.contiguous_format
        smallest = stride * size if size > 1 else stride
    return torch.channels_last if x.dim() == 4 else torch.channels_last_3d


def numbers(values: Any, count: int) -> list[int]:
    """`values` for each of `count` dimensions; one value is for all of them."""
    numbers: list[int] = [values] if isinstance(values, int) else list(values)
    if len(numbers) not in (1, count):
        raise Misfit(f"expected a single integer or a list of {count} integers, got {numbers}")
    return numbers * count if len(numbers) == 1 else numbers


def check_dim(dim: int, dims: int) -> int:
    """Return `dim` counted from the front, for a tensor of `dims` dimensions; raises `Misfit`."""
    last = max(dims, 1)
    if not -last <= dim < last:
        raise Misfit(f"Dimension out of range (expected to be in range of [{-last}, {last - 1}], but got {dim})")
    return dim % last
