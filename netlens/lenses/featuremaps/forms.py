"""In which form a person can read what a layer put out: maps, strips in time, or lines of features. Arrays in, arrays out."""

from __future__ import annotations

from math import ceil, sqrt

import numpy as np

from netlens.drawing.paint import area_means
from netlens.lenses.featuremaps.choices import Channels, Options

MAPS, FEATURES = 64, 8192  # channels with a map, and features without, that are shown unless told otherwise
PAGE = 2_700_000  # pixels of a page that tiles can fill
SHARP, LONG = 112, 1200  # pixels: a map is not reduced below that, and a strip not below its share of this
LINE = 128  # features beside each other: each is 5 pixels wide
SLICES = 8  # of a film, side by side


def chosen(maps: np.ndarray, options: Options) -> tuple[np.ndarray, str]:
    """Choose channels of maps (n, C, *grid): their indices in the order shown, and in words what they are.

    Sorted, the largest come first, also before a number of them is taken; a channel with what is not finite comes before all.
    """
    count = maps.shape[1]
    wanted = options.channels or (FEATURES if all(size == 1 for size in maps.shape[2:]) else MAPS)
    indices = listed(wanted, count)
    by = ""
    if options.sort != "index" and count > 1:
        indices = indices[np.argsort(-_strength(maps[:, indices], options.sort), kind="stable")]
        by = f" by {options.sort}"
    if isinstance(wanted, int):
        indices = indices[:wanted]
    there = f"{count:,} channel{'' if count == 1 else 's'}"
    if len(indices) == count:
        return indices, there + by
    first = "the first " if isinstance(wanted, int) and not by else ""
    return indices, f"{first}{len(indices):,} of {there}{by}"


def listed(channels: Channels, count: int) -> np.ndarray:
    """Return the indices that are named, each once and in their order; all where only a number is."""
    if isinstance(channels, int):
        return np.arange(count)
    named = [index for part in channels for index in range(part.start, min(part.stop, count))]
    return np.array(list(dict.fromkeys(named)), int)


def _strength(maps: np.ndarray, key: str) -> np.ndarray:
    """Return the mean or the variance of each channel over samples and places; infinite where something is not finite."""
    values = maps.swapaxes(0, 1).reshape(maps.shape[1], -1).astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        found = values.mean(axis=1) if key == "mean" else values.var(axis=1)
    return np.where(np.isfinite(values).all(axis=1), found, np.inf)


def strongest(maps: np.ndarray) -> np.ndarray:
    """Return the indices of the channels of maps (C, *grid) with the largest mean square, the largest first."""
    values = np.nan_to_num(maps.reshape(len(maps), -1).astype(np.float64), posinf=0, neginf=0)
    return np.argsort(-np.square(values).mean(axis=1), kind="stable")


def flat(maps: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """Give maps (n, C, *grid) rows and columns: (n, C, slices, h, w), and which slices; a strip in time has one row.

    Of a third dimension - time, windows - up to `SLICES` slices are kept, evenly spread.
    """
    if maps.ndim < 5:
        return maps.reshape(*maps.shape[:2], 1, *(maps.shape[2:] if maps.ndim == 4 else (1, maps.shape[2]))), [0]
    films = maps.reshape(*maps.shape[:2], -1, *maps.shape[-2:])
    kept = np.linspace(0, films.shape[2] - 1, min(films.shape[2], SLICES)).round().astype(int).tolist()
    return films[:, :, kept], kept


def reduced(tiles: np.ndarray, columns: int) -> tuple[np.ndarray, str]:
    """Reduce tiles (n, h, w) that would not fit a page to means of blocks, and say so; `columns` of them stand beside each other."""
    count, height, width = tiles.shape
    if height == 1:
        factors = (1, ceil(width * columns / LONG))
    else:
        side = max(SHARP, sqrt(PAGE / count))
        factors = (ceil(max(height, width) / side),) * 2
    if max(factors) == 1:
        return tiles, ""
    return area_means(tiles, factors), f"every pixel is the mean of {factors[0]} × {factors[1]}"


def lines(vectors: np.ndarray, indices: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Break vectors (n, C) into lines of equal length: (lines, n, 1, length), and which features stand in each: "0–127".

    The last line is filled up with 0 where the number of features has no divisor that makes a good line.
    """
    count = len(indices)
    parts = ceil(count / LINE)
    length = next((size for size in range(min(count, LINE), LINE // 2, -1) if count % size == 0), ceil(count / parts))
    parts = ceil(count / length)
    filled = np.zeros((len(vectors), parts * length), vectors.dtype)
    filled[:, :count] = vectors[:, indices]
    names = [_span(indices[start : start + length]) for start in range(0, count, length)]
    return filled.reshape(len(vectors), parts, 1, length).swapaxes(0, 1), names


def _span(indices: np.ndarray) -> str:
    """Write "0–127", or "3, 8, 40" where they do not follow one another."""
    if len(indices) == 1:
        return str(indices[0])
    return f"{indices[0]}–{indices[-1]}" if (np.diff(indices) == 1).all() else ", ".join(map(str, indices))
