"""Sums and extremes over all elements of what a layer put out, a piece at a time: nothing is fetched from the device."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import NamedTuple

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


def sums(rows: Tensor, channel_axis: int, activation: str | None, scratch: Scratch) -> Sums:
    """Sum up what a layer put out for one batch.

    Args:
        rows: (N, C, P) or (N, P, C), not empty.
        channel_axis: 1 or 2.
        activation: "tanh" and "sigmoid" are asked for saturation.
        scratch: reused from layer to layer.
    """
    size = PIECE if rows.is_cpu else PIECE_ELSEWHERE
    pieces = rows.split(max(1, size // rows[0].numel()))
    found = [_of_piece(piece, channel_axis, activation, scratch) for piece in pieces]
    if len(found) == 1:
        return found[0]
    values, highs, lows = zip(*found, strict=True)
    return Sums(torch.stack(values).sum(0), torch.stack(highs).amax(0), torch.stack(lows).amin(0))


def _of_piece(piece: Tensor, channel_axis: int, activation: str | None, scratch: Scratch) -> Sums:
    """Measure some samples in float32 where that is exact enough, else their finite elements in float64."""
    if piece.dtype in (torch.float16, torch.bfloat16):
        piece = piece.float()
    if piece.is_cpu:  # here alone a look at the numbers costs nothing
        high, low = _extremes(piece, piece, channel_axis)
        if is_safe(high, low):
            return Sums(_values(piece, channel_axis, activation, scratch), high, low)
    finite = piece.isfinite()
    nan = piece.isnan().sum()
    infinite = piece.numel() - finite.sum() - nan
    high, low = _extremes(piece.where(finite, -torch.inf), piece.where(finite, torch.inf), channel_axis)
    values = _values(piece.where(finite, 0.0).to(wide(piece)), channel_axis, activation, scratch)
    values[4], values[5] = nan, infinite
    return Sums(values, high, low)


def is_safe(high: Tensor, low: Tensor) -> bool:
    """Tell whether float32 is exact enough for squares of elements between these extremes, by looking at them."""
    largest = max(float(high.max()), -float(low.min()))
    return isfinite(largest) and (largest == 0 or SAFE[0] <= largest <= SAFE[1])


def _extremes(above: Tensor, below: Tensor, channel_axis: int) -> tuple[Tensor, Tensor]:
    """Return the largest and the smallest element of each channel; samples first, since short rows are slow."""
    high = above[0] if len(above) == 1 else above.amax(0)
    low = below[0] if len(below) == 1 else below.amin(0)
    return high.amax(2 - channel_axis), low.amin(2 - channel_axis)


def _values(piece: Tensor, channel_axis: int, activation: str | None, scratch: Scratch) -> Tensor:
    """Return PARTS without the counts of what is not finite.

    flat = sum over samples and channels of (sum over places)^2 / P; shares = sum over samples of sum of the strongest tenth of the places'
    energies / sum of all, where the energy of a place is the sum of squares over channels; shared = samples of which it is the sum.
    """
    dtype, buffer = wide(piece), scratch.like(piece)
    places = piece.shape[3 - channel_axis]
    of_maps = piece.sum(3 - channel_axis).to(dtype)  # (N, C)
    energy = torch.mul(piece, piece, out=buffer).sum(channel_axis)  # (N, P)
    each = energy.sum(1, dtype=dtype)
    saturated = _saturated(piece, buffer, activation)
    signs = torch.sign(piece, out=buffer).view(-1)
    nonzero = signs.dot(signs) if piece.is_cpu and piece.numel() < 1 << 24 else torch.count_nonzero(signs)  # BLAS is 5 times faster
    shares, shared = _shares(energy, each, places)
    flat = of_maps.square().sum() / places
    return packed((of_maps.sum(), each.sum(), flat, nonzero, 0, 0, saturated, shares, shared), like=each)


def packed(parts: Sequence[Tensor | float], like: Tensor) -> Tensor:
    """Return numbers as one tensor on the device, and of the type, of `like`."""
    return torch.stack([torch.as_tensor(part, dtype=like.dtype, device=like.device) for part in parts])


def _saturated(piece: Tensor, squares: Tensor, activation: str | None) -> Tensor | int:
    if activation == "tanh":
        return (squares > SATURATED["tanh"]).sum()
    return ((2 * piece - 1).square() > SATURATED["sigmoid"]).sum() if activation == "sigmoid" else 0


def _shares(energy: Tensor, each: Tensor, places: int) -> tuple[Tensor | int, Tensor | int]:
    """Sum the shares of the strongest tenth of the places, rounded up, and count the samples that have one: some energy, 10 places."""
    if places < 10:
        return 0, 0
    strongest = energy.topk(-(-places // 10), dim=1, sorted=False).values.sum(1, dtype=each.dtype)
    some = each > 0
    return (strongest / each.where(some, 1.0)).where(some, 0.0).sum(), some.sum()
