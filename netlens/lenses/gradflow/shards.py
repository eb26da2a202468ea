"""Parameters and outputs of which each process holds a part, and how the parts make one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from hashlib import sha256
from math import prod, sqrt
from typing import Any

import torch
from torch import Tensor

from netlens.lenses.gradflow.report import LayerFlow
from netlens.lenses.gradflow.statistics import Magnitudes

PIECE = 1 << 22  # elements that are read at once
FLATTENED = "_fsdp_flattened"  # how FullyShardedDataParallel marks parameters; those of `fully_shard` are DTensors


def is_sharded(parameter: Tensor) -> bool:
    """Tell whether this process holds a part of a parameter alone."""
    return hasattr(parameter, "to_local") or hasattr(parameter, FLATTENED)


def local_part(tensor: Tensor) -> Tensor:
    """Return the part of a tensor that this process holds."""
    found: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return found


def replicas(parameter: Any, size: int) -> int:
    """Return how many of `size` processes hold the same part of a sharded parameter."""
    if not hasattr(parameter, "placements"):
        return 1
    shards: int = prod(parameter.device_mesh.size(dim) for dim, place in enumerate(parameter.placements) if place.is_shard())
    return size // shards


@torch.no_grad()
def fingerprint(tensors: Iterable[Tensor]) -> str:
    """Return 16 digits that differ where a bit of any tensor differs; integers, so that devices agree. Only these are fetched."""
    shapes, sums = [], []
    for tensor in tensors:
        shapes.append((tuple(tensor.shape), str(tensor.dtype)))
        sums.append(_checksum(tensor).cpu())
    return sha256(repr((shapes, [int(value) for value in sums])).encode()).hexdigest()[:16]


def _checksum(tensor: Tensor) -> Tensor:
    values = tensor.detach().contiguous()
    values = torch.view_as_real(values.resolve_conj()) if values.is_complex() else values
    kind = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[values.dtype.itemsize]
    total = torch.zeros((), dtype=torch.int64, device=values.device)
    for start, piece in enumerate(values.view(-1).view(kind).split(PIECE)):
        places = torch.arange(start * PIECE, start * PIECE + len(piece), device=piece.device)
        total += (piece.long() * (2 * places + 1)).sum()  # modulo 2^64
    return total


# --- Layers


def joined_layer(index: int, parts: Sequence[tuple[LayerFlow, int]], total: int) -> LayerFlow:
    """Return one layer's row for the samples of all processes.

    Args:
        index: its place.
        parts: the row of each process that ran it, and its samples.
        total: samples of all processes.
    """
    first = parts[0][0]
    arrived = [_sums(flow).divided(total / samples) for flow, samples in parts if flow.status == "gradient"]
    found = _added(arrived) if arrived else None
    squares = [flow.activation_rms**2 * samples for flow, samples in parts if flow.activation_rms is not None]
    known = len(squares) == len(parts)
    return replace(
        first,
        index=index,
        shape=_joined_shape(parts),
        status=next(status for status in ("gradient", "detached", "no grad") if any(flow.status == status for flow, _ in parts)),
        activation_rms=sqrt(sum(squares) / sum(samples for _, samples in parts)) if known else None,
        mean=found and found.mean,
        greatest=found and found.largest,
        rms=found and found.rms,
        zeros=found and found.zeros,
        nan=int(found.nan) if found else 0,
        infinite=int(found.infinite) if found else 0,
    )


def _sums(flow: LayerFlow) -> Magnitudes:
    """Return the sums that a row was made of."""
    elements = max(prod(flow.shape), flow.nan + flow.infinite)
    finite = elements - flow.nan - flow.infinite
    return Magnitudes(
        total=(flow.mean or 0.0) * finite,
        squares=(flow.rms or 0.0) ** 2 * finite,
        nonzero=finite - round((flow.zeros or 0.0) * finite),
        nan=flow.nan,
        infinite=flow.infinite,
        greatest=flow.greatest or 0.0,
        elements=elements,
    )


def _added(parts: Sequence[Magnitudes]) -> Magnitudes:
    columns = list(zip(*parts, strict=True))
    return Magnitudes.of([*map(sum, columns[:-2]), max(columns[-2])], sum(columns[-1]))


def _joined_shape(parts: Sequence[tuple[LayerFlow, int]]) -> tuple[int, ...]:
    shape, samples = list(parts[0][0].shape), parts[0][1]
    if samples in shape:
        shape[shape.index(samples)] = sum(count for _, count in parts)
    return tuple(shape)
