"""What the featuremaps lens draws: maps and their mean over the photo; the pages about the whole network are in `overviews`."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from netlens.drawing.captions import joined
from netlens.drawing.grids import Grid, Tiles
from netlens.drawing.limits import scale_of
from netlens.drawing.overlay import overlay_page
from netlens.lenses.featuremaps.captions import UNIT, is_signed, oddities, places, title
from netlens.lenses.featuremaps.choices import Options, parse_channels
from netlens.lenses.featuremaps.forms import chosen, flat, lines, reduced
from netlens.lenses.featuremaps.overviews import depth_profile, histogram_page, of_places, sheet, stages
from netlens.lenses.featuremaps.report import LayerActivity

if TYPE_CHECKING:
    from netlens.loading.preprocessing import Geometry

__all__ = ["Options", "depth_profile", "histogram_page", "map_grids", "mean_map", "of_places", "parse_channels", "sheet", "stages"]

ROUNDING = 1e-5  # of the root mean square: a mean of float32 numbers below that is an error of rounding


def map_grids(
    layer: LayerActivity,
    maps: np.ndarray,
    inputs: Sequence[np.ndarray] | None,
    options: Options,
    *,
    names: Sequence[str] = (),
    prefix: np.ndarray | None = None,
) -> list[Grid]:
    """Show the channels of a layer: one tile each for one sample, else a row each with a column for every sample.

    Without places (Linear, pooled) the features stand in lines; in time each channel is a strip; slices of a film stand side by side.
    The scale starts from 0 where the layer never goes below it, and else has 0 in the middle. Labels are true indices in any order.

    Args:
        layer: what the report says about it.
        maps: (n, C, *grid).
        inputs: what the network saw, n pictures (H, W, 3) uint8; None: it saw no pictures.
        options: of the user.
        names: of the samples; their numbers, if there are none.
        prefix: tokens that belong to no place, (n, tokens, C): a grid of their own.
    """
    if not maps.size:
        return []
    names = [*names[: len(maps)], *map(str, range(len(names), len(maps)))]
    indices, words = chosen(maps, options)
    whole = all(size == 1 for size in maps.shape[2:])
    grids = []
    if len(indices):
        draw = _features if whole else _maps
        grids = [draw(layer, maps, indices, words, inputs or (), options, names)]
    if prefix is not None and prefix.size:
        grids.append(_prefix(layer, prefix, options, names))
    return grids


def _maps(
    layer: LayerActivity,
    maps: np.ndarray,
    indices: np.ndarray,
    words: str,
    inputs: Sequence[np.ndarray],
    options: Options,
    names: Sequence[str],
) -> Grid:
    """Show one map as one tile; with several samples or slices, or in time, a row for each channel."""
    rows, kept = flat(maps[:, indices])
    columns, size = len(rows) * len(kept), rows.shape[3:]
    alone = columns == 1 and size[0] > 1
    values, reduction = reduced(rows.swapaxes(0, 1).reshape(-1, *size), 1 if alone else columns)
    scale, beyond = scale_of(values, options.scale, UNIT, signed=is_signed(layer, values))
    labels, foot = tuple(map(str, indices)), joined(reduction, beyond, *oddities(maps))
    if alone:
        return Grid(title(layer), Tiles(values, labels, pictures=tuple(inputs[:1])), scale, joined(words, places(layer)), foot)
    heads = [joined(name if len(rows) > 1 else "", f"slice {part}" if len(kept) > 1 else "") for name in names for part in kept]
    pictures = [picture for picture in inputs[: len(rows)] for _ in kept]
    tiles = Tiles(values, columns=columns, row_labels=labels, column_labels=tuple(heads), pictures=tuple(pictures))
    samples = f"{len(rows)} samples" if len(rows) > 1 else ""
    slices = f"{len(kept)} of {prod(maps.shape[2:-2])} slices" if len(kept) > 1 else ""
    across = f"{joined(samples, slices)} (columns)" if columns > 1 else ""
    how = "each from left to right" if maps.ndim == 3 else places(layer)
    return Grid(title(layer), tiles, scale, joined(f"{words} (rows)", across, how), foot)


def _features(
    layer: LayerActivity,
    maps: np.ndarray,
    indices: np.ndarray,
    words: str,
    inputs: Sequence[np.ndarray],
    options: Options,
    names: Sequence[str],
) -> Grid:
    """Show a vector a sample, broken into lines; a line of one sample stands above the same line of the next."""
    values, spans = lines(maps.reshape(*maps.shape[:2]), indices)
    labels = [joined(span, name) for span in spans for name in names] if len(maps) > 1 else spans
    if len(maps) > 1 and len(spans) == 1:
        labels = list(names)
    return _lines(layer, title(layer), values, labels, words.replace("channel", "feature"), options, oddities(maps, "features"))


def _prefix(layer: LayerActivity, tokens: np.ndarray, options: Options, names: Sequence[str]) -> Grid:
    count = tokens.shape[1]
    values, spans = lines(tokens.reshape(-1, tokens.shape[2]), np.arange(tokens.shape[2]))
    each = [joined(f"token {token}" if count > 1 else "", name if len(tokens) > 1 else "") for name in names for token in range(count)]
    labels = [joined(span, word) for span in spans for word in each]
    words = f"{count} prefix token{'s' if count > 1 else ''} · {tokens.shape[2]:,} features"
    return _lines(layer, f"{title(layer)} · prefix", values, labels, words, options, oddities(tokens.swapaxes(1, 2), "features"))


def _lines(
    layer: LayerActivity, heading: str, values: np.ndarray, labels: Sequence[str], words: str, options: Options, odd: Sequence[str]
) -> Grid:
    scale, beyond = scale_of(values, options.scale, UNIT, signed=is_signed(layer, values))
    how = f"in lines of {values.shape[-1]}, which are numbered at their left" if len(values) > 1 else ""
    tiles = Tiles(values.reshape(-1, 1, values.shape[-1]), columns=1, row_labels=tuple(labels))
    return Grid(heading, tiles, scale, joined(words, how), joined(beyond, *odd))


def mean_map(layer: LayerActivity, maps: np.ndarray, picture: Image.Image | np.ndarray, geometry: Geometry) -> Image.Image:
    """Lay the mean over the channels of a layer on the photo, where the network saw it.

    Args:
        layer: what the report says about it.
        maps: of one sample, (C, *grid) with rows and columns as the last two; earlier ones (time) are averaged too.
        picture: the photo, upright.
        geometry: where the network's input lies on it.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        values = maps.astype(np.float64).reshape(-1, *maps.shape[-2:])
        mean, size = values.mean(axis=0), float(np.sqrt(np.square(values[np.isfinite(values)]).sum() / values.size))
    nothing = bool((np.abs(mean) <= ROUNDING * size).all())
    height, width = maps.shape[-2:]
    return overlay_page(
        picture,
        mean,
        geometry.box,
        title=f"{title(layer)} · mean",
        subtitle=f"mean of {len(maps):,} channels, {height} × {width}, where the network saw it; 0 is transparent",
        unit=f"mean {UNIT}",
        footnote="the mean is 0 everywhere, as a normalisation over the channels makes it" if nothing and size else "",
        colours="diverging" if is_signed(layer, maps) else "viridis",
        limit=size if nothing else None,
    )
