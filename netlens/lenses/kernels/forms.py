"""In which form a person can read a weight: colour tiles, single tiles, mosaics, strips or one matrix. Arrays in, arrays out.

`form_of` decides on one array which filters and channels are shown and how; `panels` then cuts any array of that shape into the same
form, so that two checkpoints can be held side by side. Axes stay as they are: kernel rows are image rows, time runs to the right.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt
from typing import Literal

import numpy as np

from netlens.lenses.kernels.report import LayerWeights

Look = Literal["colour", "single", "row", "mosaic", "strip", "matrix"]

MATRIX = 1536  # rows and columns of one: a page has a pixel for each weight
MOSAIC_WIDTH = 480  # weights side by side: three pixels each on a page
ROW_CHANNELS = 8  # stand side by side in one tile: a mosaic of so few columns would be a thread
STRIP_CHANNELS = 16  # of a Conv1d: with more rows to a tile, filters are no longer seen as units
SPECTROGRAM = 128  # channels of a first Conv1d that still make a tile: mel bands are neighbours, so it is a picture
LEAST_SIDE = 8  # of a picture that a first Linear sees: the digits of scikit-learn; 4 x 4 would be any 16 features


@dataclass(frozen=True)
class Options:
    """What the user may choose about pictures of filters. No limit holds for a matrix, which is one tile."""

    scale: str = "common"  # or "each": each tile its own
    max_filters: int | None = 64  # None: all
    max_channels: int | None = 32  # columns of a mosaic
    sort: str = "index"  # or "norm": the largest first
    summary: str | None = None  # "mean", "largest" or "pc1": one tile a filter, where there would be one a channel


@dataclass(frozen=True)
class Form:
    """What is shown of one weight, and how. Indices are true ones, in the order shown."""

    look: Look
    filters: np.ndarray
    channels: np.ndarray  # within the group
    of: tuple[int, int]  # so many filters and channels there are
    summary: str | None = None
    picks: np.ndarray | None = None  # with the summary "largest": the channel of each filter shown


def form_of(layer: LayerWeights, kernels: np.ndarray, options: Options, *, first: bool, by: np.ndarray | None = None) -> Form:
    """Decide how `kernels` are shown.

    Args:
        layer: what the report says about them.
        kernels: as `plain_kernels` gives them.
        options: of the user.
        first: whether this layer sees the input.
        by: of the same shape; norms in it decide what is shown where not all is, and the order if sorted. None: `kernels` themselves.
    """
    by = kernels if by is None else by
    look = _look(layer, kernels, options, first=first)
    most_filters, most_channels = _most(look, kernels, options)
    rows = strongest(norms(by), most_filters, in_order=options.sort != "norm")
    columns = np.arange(kernels.shape[1])
    if most_channels < len(columns):
        columns = strongest(norms(by.swapaxes(0, 1)), most_channels, in_order=True)
    summary = options.summary if look == "single" and len(columns) > 1 else None
    picks = np.array([norms(by[row]).argmax() for row in rows], int) if summary == "largest" else None
    return Form(look, rows, columns, (kernels.shape[0], kernels.shape[1]), summary, picks)


def plain_kernels(layer: LayerWeights, filters: np.ndarray, *, first: bool) -> np.ndarray:
    """Leave axes of length 1 out: (F, C) of a 1 x 1 convolution, (F, C, time) of a temporal one, (F, C, h, w) of a flat Conv3d.

    The rows of a first Linear over flattened square pictures become (F, 1 or 3, side, side).
    """
    count, channels, *kernel = filters.shape
    if layer.kind == "linear" and first and (shape := _picture(channels)):
        return filters.reshape(count, *shape)
    if all(size == 1 for size in kernel):
        return filters.reshape(count, channels)
    if kernel[1:] == [1, 1]:
        return filters[..., 0, 0]
    return filters[:, :, 0] if len(kernel) == 3 and kernel[0] == 1 else filters


def panels(form: Form, kernels: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Cut kernels (F, C, *kernel) into tiles (n, rows, columns, h, w), with a sixth axis for colours, and name the tiles.

    Each tile has rows x columns panels, one in most forms: the slices of a Conv3d stand side by side, as do a few channels.
    """
    labels = tuple(map(str, form.filters))
    if form.summary:
        tiles, labels = summarised(form, kernels[form.filters])
        return _upright(tiles)[:, None], labels
    chosen = kernels[np.ix_(form.filters, form.channels)]
    if form.look == "colour":
        return _upright(np.moveaxis(chosen, 1, -1), colour=True)[:, None], labels
    if form.look in ("matrix", "strip"):
        tiles, labels = (chosen, labels) if form.look == "strip" else (chosen[None], ())
        return tiles[:, None, None], labels
    tiles = _upright(chosen.reshape(-1, *chosen.shape[2:]))
    if form.look == "row":
        tiles = tiles.reshape(*chosen.shape[:2], *tiles.shape[1:])
        return (tiles if chosen.ndim == 5 else tiles.swapaxes(1, 2)), labels
    return tiles[:, None], labels if form.look == "single" else ()


def summarised(form: Form, kernels: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Make one kernel of the channels of each filter: (n, C, *kernel) -> (n, *kernel), in the unit of the weight."""
    if form.picks is not None:
        tiles = kernels[np.arange(len(kernels)), form.picks]
        return tiles, tuple(f"{row}:c{channel}" for row, channel in zip(form.filters, form.picks, strict=True))
    if form.summary == "mean":
        with np.errstate(invalid="ignore"):
            return kernels.mean(axis=1, dtype=np.float64), tuple(map(str, form.filters))
    tiles, shares = first_components(kernels)
    return tiles, tuple(f"{row} · {_share(share)}" for row, share in zip(form.filters, shares, strict=True))


def first_components(kernels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the first principal component of each filter's channels, and its share of the filter's squared norm.

    With the singular value decomposition W = U S V^T of a filter's matrix, channels x kernel and not centred, that is
    s_1 v_1 / sqrt(C): the pattern that explains most of the filter, as large as the root mean square over the channels of what it
    explains, with the sign with which it correlates with their mean. A filter with NaN or Inf gives NaN.

    Args:
        kernels: (n, C, *kernel).

    Returns:
        (n, *kernel) and (n,), the share, which is at least 1 / min(C, size of the kernel); NaN where the filter is zero.
    """
    matrices = kernels.reshape(*kernels.shape[:2], -1).astype(np.float64)
    whole = np.atleast_1d(np.isfinite(matrices).all(axis=(1, 2)))
    left, sizes, right = np.linalg.svd(np.where(whole[:, None, None], matrices, 0), full_matrices=False)
    sign = np.where(left[:, :, 0].sum(axis=1) < 0, -1, 1)
    tiles = (sign * sizes[:, 0] / np.sqrt(kernels.shape[1]))[:, None] * right[:, 0]
    total = (sizes**2).sum(axis=1)
    shares = np.divide(sizes[:, 0] ** 2, total, out=np.full(len(kernels), np.nan), where=total > 0)
    tiles[~whole] = np.nan
    return tiles.reshape(len(kernels), *kernels.shape[2:]), shares


def norms(kernels: np.ndarray) -> np.ndarray:
    """Return the Frobenius norm of each `kernels[i]` in float64; inf where NaN or Inf is among its elements, so that it is seen first."""
    axes = list(range(kernels.ndim))
    squares = np.einsum(kernels, axes, kernels, axes, [0], dtype=np.float64)
    return np.sqrt(np.where(np.isnan(squares), np.inf, squares))


def strongest(weight: np.ndarray, most: int, *, in_order: bool) -> np.ndarray:
    """Return the indices of the `most` largest: in their order, or the largest first. Of equals the first."""
    order = np.argsort(-weight, kind="stable")[:most]
    return np.sort(order) if in_order else order


def joined(tiles: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Join the panels of each tile, (n, rows, columns, h, w, ...) -> (n, height, width, ...), and say where the lines between them are."""
    count, rows, columns, height, width, *colour = tiles.shape
    if rows == columns == 1:
        return tiles[:, 0, 0], None
    gap = max(1, round(min(height, width) / 12))
    out = np.zeros((count, rows * (height + gap) - gap, columns * (width + gap) - gap, *colour))
    gaps = np.ones(out.shape[1:3], bool)
    for row, column in np.ndindex(rows, columns):
        top, left = row * (height + gap), column * (width + gap)
        out[:, top : top + height, left : left + width] = tiles[:, row, column]
        gaps[top : top + height, left : left + width] = False
    return out, gaps


def _look(layer: LayerWeights, kernels: np.ndarray, options: Options, *, first: bool) -> Look:
    channels = kernels.shape[1]
    if kernels.ndim == 2:
        return "matrix"
    if kernels.ndim > 3 and channels == 3 and (first or layer.groups == 1):
        return "colour"
    if channels == 1 or options.summary is not None:
        return "single"
    if kernels.ndim == 3:
        return "strip" if channels <= (SPECTROGRAM if first else STRIP_CHANNELS) else "mosaic"
    return "row" if channels <= ROW_CHANNELS else "mosaic"


def _most(look: Look, kernels: np.ndarray, options: Options) -> tuple[int, int]:
    """Say how many filters and channels are shown at most."""
    if look == "matrix":
        return MATRIX, MATRIX
    count, channels = kernels.shape[:2]
    if look == "mosaic":
        width = kernels.shape[-1] * (kernels.shape[2] if kernels.ndim == 5 else 1)
        channels = min(options.max_channels or channels, max(1, MOSAIC_WIDTH // width))
    return options.max_filters or count, channels


def _picture(features: int) -> tuple[int, int, int] | None:
    """Read a number of features as channels x side x side of a flattened picture: 784 is 1 x 28 x 28, 3,072 is 3 x 32 x 32."""
    for channels in (1, 3):
        side = isqrt(features // channels)
        if side >= LEAST_SIDE and channels * side * side == features:
            return channels, side, side
    return None


def _upright(kernels: np.ndarray, *, colour: bool = False) -> np.ndarray:
    """Give kernels (n, k), (n, h, w) or (n, t, h, w) the shape (n, panels, h, w); colours, the last axis, stay the last."""
    dimensions = kernels.ndim - 1 - colour
    return kernels.reshape(kernels.shape[0], *[1] * (3 - dimensions), *kernels.shape[1:])


def _share(share: float) -> str:
    return "–" if np.isnan(share) else f"{100 * share:.0f} %"
