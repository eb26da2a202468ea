"""Sums and extremes over all elements of what a layer put out, a piece at a time: nothing is fetched from the device."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

PIECE = 1 << 19  # elements of a CPU tensor that are read together: 2 MB, so that the second look finds them in the cache
PIECE_ELSEWHERE = 1 << 24  # on accelerators launches cost more than memory; this bounds what their float64 copy takes
SAFE = (1e-12, 1e15)  # largest magnitudes whose squares, summed, keep their digits in float32
SATURATED = {"tanh": 0.95, "sigmoid": 0.95}  # 1 - y^2 < 0.05, and 4 y (1 - y) < 0.05, which is (2 y - 1)^2 > 0.95
PARTS = ("total", "squares", "flat", "nonzero", "nan", "infinite", "saturated", "shares", "shared")


class Sums(NamedTuple):
    """Of some samples. `values` is in the order of PARTS, in float64 (float32 on mps, which has no other)."""

    values: Tensor
    high: Tensor  # (C,)
    low: Tensor


class Scratch:
    """One buffer for squares and signs; a new one for every piece would cost more than the arithmetic."""

    def __init__(self) -> None:
        self._buffer: Tensor | None = None

    def like(self, tensor: Tensor) -> Tensor:
        """Return a tensor of the same shape and type, to be written over."""
        buffer = self._buffer
        if buffer is None or buffer.numel() < tensor.numel() or buffer.dtype != tensor.dtype or buffer.device != tensor.device:
            buffer = self._buffer = torch.empty(tensor.numel(), dtype=tensor.dtype, device=tensor.device)
        return buffer[: tensor.numel()].view(tensor.shape)


def wide(tensor: Tensor) -> torch.dtype:
    """Return the type in which sums of a tensor are combined."""
    return torch.float32 if tensor.device.type == "mps" else torch.float64


class _Piece(NamedTuple):
    """Of some samples, in float32 where that is exact enough."""

    of_maps: Tensor  # (N, C): sums over places
    energy: Tensor  # (N, P): sums of squares over channels
    nonzero: Tensor
    nan: Tensor | None  # None: all elements are finite
    infinite: Tensor | None
    saturated: Tensor | None
    high: Tensor  # (C,)
    low: Tensor


def sums(rows: Tensor, channel_axis: int, activation: str | None, scratch: Scratch) -> Sums:
    """Sum up what a layer put out for one batch.

    flat = sum over samples and channels of (sum over places)^2 / P; shares = sum over samples of the share of the energy that the strongest
    tenth of the places holds, where the energy of a place is the sum of squares over channels; shared = samples of which it is the sum.

    Args:
        rows: (N, C, P) or (N, P, C), not empty.
        channel_axis: 1 or 2.
        activation: "tanh" and "sigmoid" are asked for saturation.
        scratch: reused from layer to layer.
    """
    size, dtype = PIECE if rows.is_cpu else PIECE_ELSEWHERE, wide(rows)
    found = [_of_piece(piece, channel_axis, activation, scratch) for piece in rows.split(max(1, size // rows[0].numel()))]
    of_maps = torch.cat([piece.of_maps.to(dtype) for piece in found])
    energy = torch.cat([piece.energy for piece in found])  # cat widens where a piece needed float64
    each = energy.sum(1, dtype=dtype)
    shares, shared = _shares(energy, each)
    counts = (_counted([getattr(piece, name) for piece in found]) for name in ("nonzero", "nan", "infinite", "saturated"))
    values = packed((of_maps.sum(), each.sum(), of_maps.square().sum() / energy.shape[1], *counts, shares, shared), like=each)
    return Sums(values, torch.stack([piece.high for piece in found]).amax(0), torch.stack([piece.low for piece in found]).amin(0))


def packed(parts: Sequence[Tensor | float], like: Tensor) -> Tensor:
    """Return numbers as one tensor on the device, and of the type, of `like`."""
    return torch.stack([torch.as_tensor(part, dtype=like.dtype, device=like.device) for part in parts])


def _counted(counts: list[Tensor | None]) -> Tensor | float:
    known = [count for count in counts if count is not None]
    return torch.stack(known).sum(dtype=wide(known[0])) if known else 0.0


def _of_piece(piece: Tensor, channel_axis: int, activation: str | None, scratch: Scratch) -> _Piece:
    """Measure some samples in float32 where that is exact enough, else their finite elements in float64."""
    if piece.dtype in (torch.float16, torch.bfloat16):
        piece = piece.float()
    nan = infinite = None
    high, low = _extremes(piece, piece, channel_axis)
    if not piece.is_cpu or not is_safe(high, low):  # on the CPU alone a look at the numbers costs nothing
        finite = piece.isfinite()
        nan = piece.isnan().sum()
        infinite = piece.numel() - finite.sum() - nan
        high, low = _extremes(piece.where(finite, -torch.inf), piece.where(finite, torch.inf), channel_axis)
        piece = piece.where(finite, 0.0).to(wide(piece))
    buffer = scratch.like(piece)
    energy = torch.mul(piece, piece, out=buffer).sum(channel_axis)
    saturated = _saturated(piece, buffer, activation)
    signs = torch.sign(piece, out=buffer).view(-1)
    nonzero = signs.dot(signs) if piece.is_cpu and len(signs) < 1 << 24 else torch.count_nonzero(signs)  # BLAS is 5 times faster
    return _Piece(piece.sum(3 - channel_axis), energy, nonzero, nan, infinite, saturated, high, low)


def is_safe(high: Tensor, low: Tensor) -> bool:
    """Tell whether float32 is exact enough for squares of elements between these extremes, by looking at them."""
    largest = max(float(high.max()), -float(low.min()))
    return isfinite(largest) and (largest == 0 or SAFE[0] <= largest <= SAFE[1])


def _extremes(above: Tensor, below: Tensor, channel_axis: int) -> tuple[Tensor, Tensor]:
    """Return the largest and the smallest element of each channel; samples first, since short rows are slow."""
    high = above[0] if len(above) == 1 else above.amax(0)
    low = below[0] if len(below) == 1 else below.amin(0)
    return high.amax(2 - channel_axis), low.amin(2 - channel_axis)


def _saturated(piece: Tensor, squares: Tensor, activation: str | None) -> Tensor | None:
    if activation == "tanh":
        return (squares > SATURATED["tanh"]).sum()
    return ((2 * piece - 1).square() > SATURATED["sigmoid"]).sum() if activation == "sigmoid" else None


def _shares(energy: Tensor, each: Tensor) -> tuple[Tensor | float, Tensor | float]:
    """Sum the shares of the strongest tenth of the places, rounded up, and count the samples that have one: some energy, 10 places."""
    places = energy.shape[1]
    if places < 10:
        return 0.0, 0.0
    tenth = -(-places // 10)
    if energy.is_cpu:  # numpy's selection is several times as fast
        strongest = torch.from_numpy(np.partition(energy.numpy(), places - tenth, axis=1)[:, -tenth:]).sum(1, dtype=each.dtype)
    else:
        strongest = energy.topk(tenth, dim=1, sorted=False).values.sum(1, dtype=each.dtype)
    some = each > 0
    return (strongest / each.where(some, 1.0)).where(some, 0.0).sum(), some.sum()
