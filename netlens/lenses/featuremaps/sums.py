"""Sums and extremes over all elements of what a layer put out, a piece at a time: nothing is fetched from the device."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from math import isfinite
from typing import NamedTuple

import torch
from torch import Tensor

PIECE = 1 << 21  # elements of a CPU tensor that are read together: 8 MB, so that the next look finds them in the cache
PIECE_ELSEWHERE = 1 << 24  # on accelerators launches cost more than memory; this bounds what their float64 copy takes
BLOCK = 1 << 12  # squares that are added up in float32 before float64 goes on
ENERGIES = 1 << 17  # elements of a batch whose energies are compared: whole samples; of a sample that is larger, every s-th channel
SAFE = (1e-12, 1e15)  # largest magnitudes whose squares, summed, keep their digits in float32
SATURATED = 0.95  # y^2 of tanh: 1 - y^2 < 0.05; (2 y - 1)^2 of sigmoid: 4 y (1 - y) < 0.05
SATURATING = ("tanh", "sigmoid")
PARTS = ("total", "squares", "flat", "nonzero", "nan", "infinite", "saturated", "shares", "shared")


class Sums(NamedTuple):
    """Of some samples. `values` is in the order of PARTS, in float64 (float32 on mps, which has no other)."""

    values: Tensor
    greatest: Tensor
    least: Tensor
    careful: bool  # squares need float64, or some element may not be finite


def wide(tensor: Tensor) -> torch.dtype:
    """Return the type in which sums of a tensor are combined."""
    return torch.float32 if tensor.device.type == "mps" else torch.float64


class _Piece(NamedTuple):
    """Of some rows, in float32 where that is exact enough."""

    of_places: Tensor  # sums over dimension 1
    squares: Tensor | float
    nonzero: Tensor | float
    nan: Tensor | float
    infinite: Tensor | float
    saturated: Tensor | float
    greatest: Tensor
    least: Tensor
    careful: bool


def sums(rows: Tensor, channel_axis: int, activation: str | None, *, zeros: bool = True) -> Sums:
    """Sum up what a layer put out for one batch.

    flat = sum over samples and channels of (sum over places)^2 / P; shares = sum over samples of the share of the energy that the strongest
    tenth of the places holds, where the energy of a place is the sum of squares over channels; shared = samples of which it is the sum.

    Args:
        rows: (N, C, P) or (N, P, C), contiguous and not empty.
        channel_axis: 1 or 2.
        activation: "tanh" and "sigmoid" are asked for saturation.
        zeros: False: there are none, and they need no counting.
    """
    found = [_of_piece(piece, activation, zeros) for piece in _pieces(rows.flatten(0, 1) if channel_axis == 1 else rows)]
    of_places = torch.cat([piece.of_places for piece in found]).to(wide(rows)).view(-1)
    flat = of_places.dot(of_places) / rows.shape[3 - channel_axis]
    careful, each = any(piece.careful for piece in found), rows[0].numel()
    some = rows[: max(1, ENERGIES // each)]
    step = -(-each // ENERGIES)
    shares = _shares(_finite(some[:, ::step] if channel_axis == 1 else some[..., ::step], careful), channel_axis)
    squares, *others = (sum(piece[place] for piece in found) for place in range(1, 6))
    values = packed((of_places.sum(), squares, flat, *others, *shares), like=of_places)
    greatest = reduce(torch.maximum, [piece.greatest for piece in found])
    return Sums(values, greatest, reduce(torch.minimum, [piece.least for piece in found]), careful)


def _pieces(rows: Tensor) -> Sequence[Tensor]:
    return torch.split(rows, max(1, (PIECE if rows.is_cpu else PIECE_ELSEWHERE) // rows[0].numel()))


def _of_piece(piece: Tensor, activation: str | None, zeros: bool) -> _Piece:
    """Sum up (n, P) or (n, P, C): kernels that torch runs on all cores, each reading the piece once."""
    greatest, least = piece.amax(), piece.amin()
    nan: Tensor | float = 0
    infinite: Tensor | float = 0
    careful = not piece.is_cpu or not _is_safe(float(greatest), float(least))  # on the CPU alone a look at the numbers costs nothing
    if careful:
        finite = piece.isfinite()
        nan = piece.isnan().sum()
        infinite = piece.numel() - finite.sum() - nan
        greatest, least = piece.where(finite, -torch.inf).amax(), piece.where(finite, torch.inf).amin()
    piece = _finite(piece, careful)
    saturated = _saturated(piece, activation) if activation in SATURATING else 0
    nonzero = count_nonzero(piece) if zeros or careful else piece.numel()
    return _Piece(piece.sum(1), _squares(piece.view(-1)), nonzero, nan, infinite, saturated, greatest, least, careful)


def _finite(values: Tensor, careful: bool) -> Tensor:
    """Return what can be squared and summed: float32 as it is, or where that would not do the finite elements in float64, others as 0."""
    if careful:
        return values.where(values.isfinite(), 0.0).to(wide(values))
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def _squares(flat: Tensor) -> Tensor:
    rest = len(flat) % BLOCK
    blocks: Tensor = torch.linalg.vector_norm(flat[: len(flat) - rest].view(-1, BLOCK), dim=1).to(wide(flat))
    if rest:
        blocks = torch.cat([blocks, torch.linalg.vector_norm(flat[-rest:]).to(wide(flat)).view(1)])
    return blocks.dot(blocks)


def count_nonzero(values: Tensor) -> Tensor | int:
    """Count what is not 0; on the CPU by numpy, which takes a third of the time."""
    if not values.is_cpu:
        return torch.count_nonzero(values)
    import numpy as np

    return int(np.count_nonzero(values.numpy() != 0))


def packed(parts: Sequence[Tensor | float], like: Tensor) -> Tensor:
    """Return numbers as one tensor on the device, and of the type, of `like`."""
    if like.is_cpu:
        return torch.tensor([float(part) for part in parts], dtype=like.dtype)
    return torch.stack([torch.as_tensor(part, dtype=like.dtype, device=like.device) for part in parts])


def _is_safe(greatest: float, least: float) -> bool:
    """Tell whether float32 is exact enough for squares of elements between these."""
    largest = max(greatest, -least)
    return isfinite(largest) and (largest == 0 or SAFE[0] <= largest <= SAFE[1])


def channel_extremes(
    rows: Tensor, channel_axis: int, some: Tensor, known: tuple[Tensor, Tensor] | None, *, careful: bool, dead: bool
) -> tuple[Tensor, Tensor]:
    """Return of each channel a largest and a smallest element, which are exact where they are equal and, if `dead`, where none is positive.

    Where looking at numbers costs nothing only those channels are read in full of which some elements leave that open.

    Args:
        rows: as in `sums`.
        channel_axis: 1 or 2.
        some: elements of each channel, (n, C).
        known: of earlier batches.
        careful: as `sums` found.
        dead: it matters whether a channel is ever positive.
    """
    high, low = _finite_extremes(rows, channel_axis) if careful else (some.amax(0), some.amin(0))
    if known is not None:
        high, low = torch.maximum(high, known[0]), torch.minimum(low, known[1])
    if not careful and len(unsettled := ((high <= 0) | (high == low) if dead else high == low).nonzero().view(-1)):
        whole, axes = rows.index_select(channel_axis, unsettled), (0, 3 - channel_axis)
        high[unsettled] = torch.maximum(high[unsettled], whole.amax(axes).to(high.dtype))
        low[unsettled] = torch.minimum(low[unsettled], whole.amin(axes).to(low.dtype))
    return high, low


def _finite_extremes(rows: Tensor, channel_axis: int) -> tuple[Tensor, Tensor]:
    pieces, axes = [(piece, piece.isfinite()) for piece in _pieces(rows)], (0, 3 - channel_axis)
    high = torch.stack([piece.where(finite, -torch.inf).amax(axes) for piece, finite in pieces])
    return high.amax(0), torch.stack([piece.where(finite, torch.inf).amin(axes) for piece, finite in pieces]).amin(0)


def _saturated(piece: Tensor, activation: str | None) -> Tensor:
    centred = piece if activation == "tanh" else 2 * piece - 1
    return (centred.square() > SATURATED).sum()


def _shares(samples: Tensor, channel_axis: int) -> tuple[Tensor | float, Tensor | float]:
    """Sum the shares of the strongest tenth of the places, rounded up, and count the samples that have one: some energy, 10 places."""
    places = samples.shape[3 - channel_axis]
    if places < 10:
        return 0.0, 0.0
    tenth = -(-places // 10)
    if samples.is_cpu:  # numpy's selection is several times as fast
        import numpy as np

        values = samples.numpy()
        energies = np.einsum("ncp,ncp->np" if channel_axis == 1 else "npc,npc->np", values, values)
        energies = energies[energies.any(1)]
        strong = np.partition(energies, places - tenth, axis=1)[:, -tenth:].sum(1, dtype=np.float64)
        return float((strong / energies.sum(1, dtype=np.float64)).sum()), len(energies)
    energy = samples.square().sum(channel_axis)
    strongest = energy.topk(tenth, dim=1, sorted=False).values.sum(1, dtype=wide(energy))
    each = energy.sum(1, dtype=wide(energy))
    some = each > 0
    return (strongest / each.where(some, 1.0)).where(some, 0.0).sum(), some.sum()
