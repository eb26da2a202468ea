"""What a checkpoint holds, told in two ways that know nothing of each other: by torch's loader and by netlens's reader."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from netlens.loading.checkpoints.archive import Archive, StoredTensor
from netlens.loading.checkpoints.read import read_storage

Row = tuple[str, tuple[int, ...], str, tuple[int, ...], int]


def loaded_tensors(value: object, path: tuple[str, ...] = (), seen: set[int] | None = None) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield every tensor of a loaded checkpoint with the keys that lead to it."""
    seen = set() if seen is None else seen
    if isinstance(value, torch.Tensor):
        yield ".".join(path), value
    elif isinstance(value, dict | list | tuple) and id(value) not in seen:
        seen.add(id(value))
        for key, child in value.items() if isinstance(value, dict) else enumerate(value):
            yield from loaded_tensors(child, (*path, str(key)), seen)


def torch_row(name: str, tensor: torch.Tensor) -> Row:
    """Describe a tensor as torch sees it."""
    strided = tensor.layout == torch.strided
    offset = tensor.storage_offset() if strided and not tensor.is_meta and tensor.numel() else 0
    return name, tuple(tensor.shape), str(tensor.dtype)[6:], tuple(tensor.stride()) if strided else (), offset


def stored_rows(archive: Archive) -> list[tuple[Row, StoredTensor]]:
    """Describe the archive's tensors in the same form."""
    rows = []
    for group in archive.groups:
        for one in group.tensors:
            name = ".".join(part for part in (group.key, one.name) if part)
            rows.append(((name, one.shape, one.dtype, one.stride, one.offset if one.numel else 0), one))
    return rows


def values(archive: Archive, tensor: StoredTensor) -> torch.Tensor:
    """Read a tensor's values through `read_storage`."""
    dtype: Any = getattr(torch, tensor.dtype)
    if 0 in tensor.shape:
        return torch.empty(tensor.shape, dtype=dtype)
    flat = torch.frombuffer(bytearray(read_storage(archive, tensor)), dtype=torch.uint8).view(dtype)
    return flat.as_strided(tensor.shape, tensor.stride, tensor.offset)


def same_values(left: torch.Tensor, right: torch.Tensor) -> bool:
    """Whether two tensors hold the same bits."""
    left, right = left.resolve_conj().resolve_neg().contiguous(), right.resolve_conj().resolve_neg().contiguous()
    if left.shape != right.shape or left.dtype != right.dtype:
        return False
    return bool(torch.equal(left.reshape(-1).view(torch.uint8), right.reshape(-1).view(torch.uint8)))


def load(path: Path) -> object:
    """Load with torch, safely."""
    return torch.load(path, weights_only=True, map_location="cpu")
