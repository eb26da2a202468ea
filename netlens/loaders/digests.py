"""Telling whether two samples are the same, whatever they are made of."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from torch import Tensor

from netlens.loading.arrays import is_array, is_image

DEEPEST = 8  # containers in containers
_PLAIN = (str, int, float, complex, type(None), np.generic)
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")  # differs from run to run


def digest(value: Any) -> bytes:
    """Return 16 bytes that are the same for equal samples: tensors, arrays, pictures, numbers, texts, and all that holds such."""
    found = blake2b(digest_size=16)
    for part in _bytes(value, 0):
        found.update(part)
        found.update(b"\0")
    return found.digest()


def digests(sample: Any) -> tuple[bytes, ...]:
    """Return the digest of the whole sample, then those of its parts."""
    parts = list(sample.values()) if isinstance(sample, Mapping) else list(sample) if isinstance(sample, (tuple, list)) else []
    return (digest(sample), *map(digest, parts))


def _bytes(value: Any, depth: int) -> Iterator[Any]:
    yield type(value).__name__.encode()
    if depth > DEEPEST:
        return
    if isinstance(value, Tensor):
        yield f"{value.dtype} {tuple(value.shape)}".encode()
        dense = value.detach().to_dense() if value.layout != torch.strided else value.detach()
        yield dense.cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    elif is_array(value) and not value.dtype.hasobject:
        yield f"{value.dtype} {value.shape}".encode()
        yield value.tobytes()
    elif is_image(value):
        yield f"{value.mode} {value.size}".encode()
        yield value.tobytes()
    elif isinstance(value, bytes):
        yield value
    elif isinstance(value, _PLAIN) or not (children := _children(value)):
        yield _ADDRESS.sub("", repr(value)).encode("utf-8", "backslashreplace")
    else:
        for child in children:
            yield from _bytes(child, depth + 1)


def _children(value: Any) -> list[Any]:
    """Return what a container holds, and of other objects their attributes."""
    if isinstance(value, Mapping):
        return [part for pair in value.items() for part in pair]
    if isinstance(value, (set, frozenset)):
        return sorted(value, key=repr)
    if isinstance(value, (list, tuple)) or is_array(value):
        return list(value)
    return [part for pair in vars(value).items() for part in pair] if hasattr(value, "__dict__") and not callable(value) else []
