"""The tensors inside what a model takes and returns, each with the name of its place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from typing import Any

import torch
from torch import Tensor

Leaf = tuple[str, Tensor]
MOST = 1000  # leaves; a key-value cache of 200 layers still fits


def leaves(value: Any) -> list[Leaf]:
    """Return (name, tensor) pairs in order: "" for a bare tensor, else "logits", "0", "boxes.1".

    Looks into tuples, lists, mappings, dataclasses, packed sequences and objects that hold tensors in attributes
    (distributions, key-value caches); other values are no tensors and have no place here.
    """
    if isinstance(value, Tensor):
        return [("", value)]
    found: list[Leaf] = []
    for leaf in _walk(value, "", set(), 0):
        found.append(leaf)
        if len(found) == MOST:
            break
    return found


def _walk(value: Any, name: str, above: set[int], depth: int) -> Iterator[Leaf]:
    if isinstance(value, Tensor):
        yield name, value
        return
    if depth > 8 or id(value) in above:
        return
    children = _children(value)
    if children:
        above = above | {id(value)}
        for key, child in children:
            yield from _walk(child, f"{name}.{key}" if name else str(key), above, depth + 1)


def _children(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, (str, bytes, int, float, bool, type(None), torch.Size, torch.dtype, torch.device, type, torch.nn.Module)):
        return []
    if isinstance(value, Mapping):
        return [(str(key), child) for key, child in value.items()]
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return list(zip(value._fields, value, strict=False))
    if isinstance(value, (list, tuple)):
        return [(str(index), child) for index, child in enumerate(value)]
    if is_dataclass(value) or hasattr(value, "__dict__"):
        return [(key, child) for key, child in vars(value).items() if not key.startswith("_")]
    return []


def map_tensors(value: Any, change: Any) -> Any:
    """Return `value` with `change` applied to every tensor in its tuples, lists, dicts and packed sequences."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, torch.nn.utils.rnn.PackedSequence):
        return type(value)(change(value.data), *value[1:])
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(map_tensors(child, change) for child in value))
    if type(value) in (list, tuple):
        return type(value)(map_tensors(child, change) for child in value)
    if isinstance(value, Mapping):
        try:
            return type(value)({key: map_tensors(child, change) for key, child in value.items()})  # type: ignore[call-arg]
        except TypeError:
            return {key: map_tensors(child, change) for key, child in value.items()}
    return value
