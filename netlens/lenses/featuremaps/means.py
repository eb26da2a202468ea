"""The mean activation of each layer over the picture, all layers on one page: where each of them is busy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from netlens.drawing.grids import Grid, Scale, Tiles
from netlens.lenses.featuremaps.report import LayerActivity
from netlens.wording import abbreviated

LEAST_GRID = 2  # rows and columns that a map must have to show a place
FINEST = 64  # rows or columns of a tile: more would not be seen
NAME = 14  # characters of a name, so that its end is seen
ROUNDING = 1e-5  # of a mean of float32 numbers: places that differ by less are equal


def mean_grid(title: str, entries: Sequence[tuple[LayerActivity, np.ndarray]], sample: int, picture: np.ndarray | None) -> Grid | None:
    """Show the mean |activation| over the channels of every layer with places, above its least; None where there is no such layer.

    Absolute values, because the channels of a layer that is not rectified cancel out. Each layer has a scale of its own, from its least to
    its largest mean, whose ratio stands beside its name: behind a normalisation all places are nearly as busy.

    Args:
        title: of the page.
        entries: layers and their maps, (n, C, *grid).
        sample: which of the n.
        picture: what the network saw, (H, W, 3) uint8.
    """
    placed = [(layer, maps[sample]) for layer, maps in entries if maps.ndim == 4 and min(maps.shape[2:]) >= LEAST_GRID and maps.shape[1]]
    if not placed:
        return None
    size = tuple(min(FINEST, max(maps.shape[axis] for _, maps in placed)) for axis in (1, 2))
    with np.errstate(invalid="ignore", over="ignore"):
        means = np.stack([_resized(np.abs(maps.astype(np.float64)).mean(axis=0), size) for _, maps in placed])
        least, most = (pick(means, axis=(1, 2), keepdims=True) for pick in (np.min, np.max))
        above = np.where(most - least > ROUNDING * most, means - least, means * 0)
    names = abbreviated([layer.name for layer, _ in placed], NAME)
    labels = tuple(f"{name}{_ratio(*pair)}" for name, *pair in zip(names, least.flat, most.flat, strict=True))
    words = "mean over the channels of |activation|, in the order of the network; × its largest over its least"
    tiles = Tiles(above, labels, pictures=() if picture is None else (picture,))
    return Grid(title, tiles, Scale(signed=False, unit="mean |activation| above the least"), words)


def _ratio(least: float, most: float) -> str:
    """Write " ×1.3"; "" where it would say nothing."""
    return f" ×{most / least:.3g}" if least > 0 and most < 1000 * least else ""


def _resized(values: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Repeat or thin rows and columns to `size`: each pixel is the nearest number."""
    rows, columns = (((np.arange(new) + 0.5) * old / new).astype(int) for old, new in zip(values.shape, size, strict=True))
    resized: np.ndarray = values[np.ix_(rows, columns)]
    return resized
