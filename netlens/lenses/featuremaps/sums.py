"""Sums and extremes over all elements of what a layer put out, a piece at a time: nothing is fetched from the device."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import NamedTuple

import torch
from torch import Tensor

PIECE = 1 << 19  # elements of a CPU tensor that are read together: 2 MB, so that the second look finds them in the cache
PIECE_ELSEWHERE = 1 << 24  # on accelerators launches cost more than memory; this bounds what their float64 copy takes
BLOCK = 1 << 16  # squares that are added up in float32 before float64 goes on
ENERGIES = 1 << 17  # elements of a batch whose energies are compared: whole samples; of a sample that is larger, every s-th channel
SAFE = (1e-12, 1e15)  # largest magnitudes whose squares, summed, keep their digits in float32
SATURATED = 0.95  # y^2 of tanh: 1 - y^2 < 0.05; (2 y - 1)^2 of sigmoid: 4 y (1 - y) < 0.05
SATURATING = ("tanh", "sigmoid")
PARTS = ("total", "squares", "flat", "nonzero", "nan", "infinite", "saturated", "shares", "shared")


class Sums(NamedTuple):
    """Of some samples. `values` is in the order of PARTS, in float64 (float32 on mps, which has no other)."""

    values: Tensor
    high: Tensor  # (C,)
    low: Tensor
    careful: bool  # squares need float64, or some element may not be finite


def wide(tensor: Tensor) -> torch.dtype:
    """Return the type in which sums of a tensor are combined."""
    return torch.float32 if tensor.device.type == "mps" else torch.float64


class _Piece(NamedTuple):
    """Of some samples, in float32 where that is exact enough."""

    of_maps: Tensor  # (N, C): sums over places
    squares: Tensor | float
    nonzero: Tensor | float
    nan: Tensor | float
    infinite: Tensor | float
    saturated: Tensor | float
    high: Tensor  # (C,)
    low: Tensor
    careful: bool


def sums(rows: Tensor, channel_axis: int, activation: str | None) -> Sums:
    """Sum up what a layer put out for one batch.

    flat = sum over samples and channels of (sum over places)^2 / P; shares = sum over samples of the share of the energy that the strongest
    tenth of the places holds, where the energy of a place is the sum of squares over channels; shared = samples of which it is the sum.

    Args:
        rows: (N, C, P) or (N, P, C), contiguous and not empty.
        channel_axis: 1 or 2.
        activation: "tanh" and "sigmoid" are asked for saturation.
    """
    size, dtype, each = PIECE if rows.is_cpu else PIECE_ELSEWHERE, wide(rows), rows[0].numel()
    found = [_of_piece(piece, channel_axis, activation) for piece in rows.split(max(1, size // each))]
    of_maps = torch.cat([piece.of_maps.to(dtype) for piece in found])
    flat = of_maps.square().sum() / rows.shape[3 - channel_axis]
    careful = any(piece.careful for piece in found)
    some = rows[: max(1, ENERGIES // each)]
    step = -(-each // ENERGIES)
    shares = _shares(_finite(some[:, ::step] if channel_axis == 1 else some[..., ::step], careful), channel_axis)
    counts = (sum(piece[place] for piece in found) for place in range(1, 6))
    squares, *others = counts
    values = packed((of_maps.sum(), squares, flat, *others, *shares), like=of_maps)
    return Sums(values, torch.stack([piece.high for piece in found]).amax(0), torch.stack([piece.low for piece in found]).amin(0), careful)


def _of_piece(piece: Tensor, channel_axis: int, activation: str | None) -> _Piece:
    high, low = _extremes(piece, piece, channel_axis)
    nan: Tensor | float = 0
    infinite: Tensor | float = 0
    careful = not piece.is_cpu or not _is_safe(high, low)  # on the CPU alone a look at the numbers costs nothing
    if careful:
        finite = piece.isfinite()
        nan = piece.isnan().sum()
        infinite = piece.numel() - finite.sum() - nan
        high, low = _extremes(piece.where(finite, -torch.inf), piece.where(finite, torch.inf), channel_axis)
    piece = _finite(piece, careful)
    squares, nonzero = _squares(piece)
    saturated = _saturated(piece, activation) if activation in SATURATING else 0
    return _Piece(piece.sum(3 - channel_axis), squares, nonzero, nan, infinite, saturated, high, low, careful)


def _finite(values: Tensor, careful: bool) -> Tensor:
    """Return what can be squared and summed: float32 as it is, or where that would not do the finite elements in float64, others as 0."""
    if careful:
        return values.where(values.isfinite(), 0.0).to(wide(values))
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def _squares(piece: Tensor) -> tuple[Tensor | float, Tensor | float]:
    """Return the sum of the squares, and how many elements are not 0; on the CPU by numpy, which takes half the time."""
    if not piece.is_cpu:
        return piece.square().sum(), torch.count_nonzero(piece)
    import numpy as np

    flat = piece.view(-1).numpy()
    blocks = (flat[start : start + BLOCK] for start in range(0, len(flat), BLOCK))
    return sum(float(block @ block) for block in blocks), int(np.count_nonzero(flat != 0))


def packed(parts: Sequence[Tensor | float], like: Tensor) -> Tensor:
    """Return numbers as one tensor on the device, and of the type, of `like`."""
    return torch.stack([torch.as_tensor(part, dtype=like.dtype, device=like.device) for part in parts])


def _is_safe(high: Tensor, low: Tensor) -> bool:
    """Tell whether float32 is exact enough for squares of elements between these extremes, by looking at them."""
    largest = max(float(high.max()), -float(low.min()))
    return isfinite(largest) and (largest == 0 or SAFE[0] <= largest <= SAFE[1])


def _extremes(above: Tensor, below: Tensor, channel_axis: int) -> tuple[Tensor, Tensor]:
    """Return the largest and the smallest element of each channel; samples first, since short rows are slow."""
    high = above[0] if len(above) == 1 else above.amax(0)
    low = below[0] if len(below) == 1 else below.amin(0)
    return high.amax(2 - channel_axis), low.amin(2 - channel_axis)


def _saturated(piece: Tensor, activation: str | None) -> Tensor:
    centred = piece if activation == "tanh" else 2 * piece - 1
    return (centred.square() > SATURATED).sum()


def _shares(samples: Tensor, channel_axis: int) -> tuple[Tensor | float, Tensor | float]:
    """Sum the shares of the strongest tenth of the places, rounded up, and count the samples that have one: some energy, 10 places."""
    places = samples.shape[3 - channel_axis]
    if places < 10:
        return 0.0, 0.0
    energy, tenth = samples.square().sum(channel_axis), -(-places // 10)
    if energy.is_cpu:  # numpy's selection is several times as fast
        import numpy as np

        strongest = torch.from_numpy(np.partition(energy.numpy(), places - tenth, axis=1)[:, -tenth:]).sum(1, dtype=wide(energy))
    else:
        strongest = energy.topk(tenth, dim=1, sorted=False).values.sum(1, dtype=wide(energy))
    each = energy.sum(1, dtype=wide(energy))
    some = each > 0
    return (strongest / each.where(some, 1.0)).where(some, 0.0).sum(), some.sum()
