"""In which form a person can read a weight: colour tiles, single tiles, mosaics, strips or one matrix. Arrays in, arrays out.

`forms` decides once, on one array, which filters and channels are shown and how; `panels` then cuts any array of that shape into the
same form, so that two checkpoints can be held side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt
from typing import Literal

import numpy as np

from netlens.lenses.kernels.report import LayerWeights

Look = Literal["colour", "single", "mosaic", "strip", "matrix"]

MOSAIC = (64, 32)  # filters x channels: 2,048 kernels of 3 x 3 fill a page at about four pixels a weight
MATRIX = (2048, 2048)  # a page shows it with at most 2 x 2 weights averaged to a pixel
STRIP_CHANNELS = 16  # of a Conv1d: more rows than this in each tile, and filters are no longer seen as units
SPECTROGRAM = 128  # rows that a first Conv1d may have: mel bands are neighbours, so the tile is a picture
PICTURES = 256  # rows of a first Linear, drawn as pictures
LEAST_SIDE = 8  # of the picture that a first Linear may look at: scikit-learn's digits; 4 x 4 would be any 16 features


@dataclass(frozen=True)
class Options:
    """What the user may choose about pictures of filters."""

    scale: Literal["common", "each"] = "common"
    max_filters: int | None = None  # None: as many as the form can show
    max_channels: int | None = None
    sort: Literal["index", "norm"] = "index"
    summary: Literal["mean", "largest", "pc1"] | None = None  # one tile a filter where there would be a mosaic


@dataclass(frozen=True)
class Form:
    """What is shown of one weight, and how."""

    look: Look
    filters: np.ndarray  # their true indices, in the order shown
    channels: np.ndarray  # within the group
    of: tuple[int, int]  # so many filters and channels there are
    summary: str | None = None
    picks: np.ndarray | None = None  # with summary "largest": the channel of each filter shown


def forms(layer: LayerWeights, filters: np.ndarray, options: Options, *, first: bool, weight: np.ndarray | None = None) -> list[Form]:
    """Decide how `filters` (F, C, *kernel) are shown: one form, or two where a first layer sees colours and a fourth channel.

    Args:
        layer: what the report says about them.
        filters: the weights.
        options: of the user.
        first: whether this is the layer that sees the input.
        weight: of each filter, (F,), what decides which are shown where not all are; None: the norm.
    """
    kernels = plain_kernels(layer, filters, first=first)
    look = _look(layer, kernels, options, first=first)
    most_filters, most_channels = _most(look, options, pictures=layer.kind == "linear")
    weight = norms(kernels) if weight is None else weight
    rows = strongest(weight, most_filters, by_weight=options.sort == "norm")
    count, channels = kernels.shape[:2]
    if look == "colour" and channels == 4:
        return [Form("colour", rows, np.arange(3), (count, channels)), Form("single", rows, np.arange(3, 4), (count, channels))]
    columns = np.arange(channels)
    if look != "single" and most_channels < channels:
        columns = strongest(norms(kernels.swapaxes(0, 1)), most_channels, by_weight=False)
    summary = options.summary if look == "single" and channels > 1 else None
    picks = np.array([norms(kernels[row]).argmax() for row in rows], int) if summary == "largest" else None
    return [Form(look, rows, columns, (count, channels), summary, picks)]


def plain_kernels(layer: LayerWeights, filters: np.ndarray, *, first: bool) -> np.ndarray:
    """Take away what has no extent: (F, C) of a 1 x 1 convolution, (F, C, time) of a temporal one, (F, C, h, w) of a flat Conv3d.

    The rows of a first Linear over flattened square pictures become (F, 1 or 3, side, side).
    """
    count, channels, *kernel = filters.shape
    if layer.kind == "linear" and first and (shape := _picture(channels)):
        return filters.reshape(count, *shape)
    if all(size == 1 for size in kernel):
        return filters.reshape(count, channels)
    if len(kernel) == 3 and kernel[1:] == [1, 1]:
        return filters[..., 0, 0]
    return filters[:, :, 0] if len(kernel) == 3 and kernel[0] == 1 else filters


def panels(form: Form, kernels: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Cut kernels (F, C, *kernel) into tiles (n, rows, columns, h, w) or (n, rows, columns, h, w, 3), and name them.

    Each tile has rows x columns panels: the slices of a Conv3d stand side by side, every other form is one panel. Its axes are those of
    the weight: kernel rows are image rows, time runs to the right.
    """
    labels = tuple(map(str, form.filters))
    if form.look == "matrix":
        return kernels[np.ix_(form.filters, form.channels)][None, None, None], ()
    if form.look == "strip":
        chosen = kernels[np.ix_(form.filters, form.channels)]
        return np.repeat(chosen, _thickness(*chosen.shape[1:]), axis=1)[:, None, None], labels
    if form.look == "colour":
        return _slices(np.moveaxis(kernels[np.ix_(form.filters, form.channels)], 1, -1)), labels
    if form.look == "mosaic":
        chosen = kernels[np.ix_(form.filters, form.channels)]
        return _slices(chosen.reshape(-1, *chosen.shape[2:]))[..., :, :], ()
    if form.summary is None:
        return _slices(kernels[form.filters, form.channels[0]]), labels
    tiles, labels = summarised(form, kernels[form.filters])
    return _slices(tiles), labels


def summarised(form: Form, kernels: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Make one kernel of the channels of each filter: (n, C, *kernel) -> (n, *kernel), in the units of the weight."""
    if form.picks is not None:
        tiles = kernels[np.arange(len(kernels)), form.picks]
        return tiles, tuple(f"{row}:c{channel}" for row, channel in zip(form.filters, form.picks, strict=True))
    if form.summary == "mean":
        return kernels.mean(axis=1, dtype=np.float64), tuple(map(str, form.filters))
    tiles, shares = first_components(kernels)
    return tiles, tuple(f"{row} · {_share(share)}" for row, share in zip(form.filters, shares, strict=True))


def first_components(kernels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the first principal component of each filter's channels, and its share of the filter's squared norm.

    With the singular value decomposition W = U S V^T of a filter's matrix, channels x kernel and not centred, that is
    s_1 v_1 / sqrt(C): the pattern that explains most of the filter, as large as the root mean square over the channels of what it
    explains, and with the sign with which it correlates with their mean. A filter with NaN or Inf gives NaN.

    Args:
        kernels: (n, C, *kernel).

    Returns:
        (n, *kernel) and (n,) between 1 / min(C, size of the kernel) and 1; NaN where the filter is zero.
    """
    matrices = kernels.reshape(*kernels.shape[:2], -1).astype(np.float64)
    whole = np.isfinite(matrices).all(axis=(1, 2))
    left, sizes, right = np.linalg.svd(np.where(whole[:, None, None], matrices, 0), full_matrices=False)
    sign = np.where(left[:, :, 0].sum(axis=1) < 0, -1, 1)
    tiles = (sign * sizes[:, 0] / np.sqrt(kernels.shape[1]))[:, None] * right[:, 0]
    total = (sizes**2).sum(axis=1)
    shares = np.divide(sizes[:, 0] ** 2, total, out=np.full(len(kernels), np.nan), where=total > 0)
    tiles[~whole] = np.nan
    return tiles.reshape(len(kernels), *kernels.shape[2:]), shares


def norms(kernels: np.ndarray) -> np.ndarray:
    """Return the Frobenius norm of each `kernels[i]` in float64; inf where NaN or Inf is among its elements, so that it comes first."""
    flat = kernels.reshape(len(kernels), -1)
    squares = np.einsum("ij,ij->i", flat, flat, dtype=np.float64)
    return np.sqrt(np.where(np.isnan(squares), np.inf, squares))


def strongest(weight: np.ndarray, most: int, *, by_weight: bool) -> np.ndarray:
    """Return the indices of the `most` largest, in their order or the largest first; of equals the first."""
    order = np.argsort(-weight, kind="stable")[:most]
    return order if by_weight else np.sort(order)


def joined(tiles: np.ndarray, blank: np.ndarray) -> np.ndarray:
    """Join panels to tiles: (n, rows, columns, h, w, ...) -> (n, height, width, ...), with lines of `blank` (n,) between them."""
    count, rows, columns, height, width, *colour = tiles.shape
    gap = max(1, round(width / 12))
    fill = blank.reshape(-1, *[1] * (2 + len(colour)))
    out = np.empty((count, rows * (height + gap) - gap, columns * (width + gap) - gap, *colour))
    out[:] = fill
    for row in range(rows):
        for column in range(columns):
            top, left = row * (height + gap), column * (width + gap)
            out[:, top : top + height, left : left + width] = tiles[:, row, column]
    return out


def _look(layer: LayerWeights, kernels: np.ndarray, options: Options, *, first: bool) -> Look:
    channels = kernels.shape[1]
    if kernels.ndim == 2:
        return "matrix"
    if kernels.ndim > 3 and (first or layer.groups == 1) and (channels == 3 or (first and channels == 4)):
        return "colour"
    if channels == 1 or options.summary is not None:
        return "single"
    if kernels.ndim == 3 and channels <= (SPECTROGRAM if first else STRIP_CHANNELS):
        return "strip"
    return "mosaic"


def _most(look: Look, options: Options, *, pictures: bool) -> tuple[int, int]:
    """Say how many filters and channels are shown at most."""
    everything = 1 << 62
    usual = {"mosaic": MOSAIC, "matrix": MATRIX}.get(look, (PICTURES if pictures else everything, everything))
    return options.max_filters or usual[0], options.max_channels or usual[1]


def _picture(features: int) -> tuple[int, int, int] | None:
    """Read a number of features as channels x side x side of a flattened picture: 784 is 1 x 28 x 28, 3,072 is 3 x 32 x 32."""
    for channels in (1, 3):
        side = isqrt(features // channels)
        if side >= LEAST_SIDE and channels * side * side == features:
            return channels, side, side
    return None


def _slices(kernels: np.ndarray) -> np.ndarray:
    raise NotImplementedError


def _thickness(channels: int, size: int) -> int:
    """Say how many rows each channel of a strip takes, so that a long one is not a hairline."""
    return max(1, round(size / (6 * channels)))


def _share(share: float) -> str:
    return "–" if np.isnan(share) else f"{100 * share:.0f} %"


__all__: Sequence[str] = ()
