"""What the featuremaps lens draws: maps, their mean over the photo, the whole network on a sheet, histograms and the profile in depth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from netlens.drawing.captions import joined
from netlens.drawing.grids import Grid, Scale, Tiles, contact_sheet
from netlens.drawing.histograms import Panel, histograms
from netlens.drawing.limits import common_limit
from netlens.drawing.numbers import percent
from netlens.drawing.overlay import overlay_page
from netlens.drawing.plots import Column, depth_plot
from netlens.lenses.featuremaps.choices import Options, parse_channels
from netlens.lenses.featuremaps.forms import chosen, flat, lines, reduced, strongest
from netlens.lenses.featuremaps.report import LayerActivity

if TYPE_CHECKING:
    from netlens.loading.preprocessing import Geometry

__all__ = ["Options", "depth_profile", "histogram_page", "map_grids", "mean_map", "parse_channels", "sheet", "stages"]

NAMED = 12  # channels are listed up to so many
SHEET_STRIPS = 48  # channels in time that make one tile of a sheet
SHEET_LAYERS = 48  # on a sheet that can still be read
UNIT = "activation"


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
    names = names or tuple(map(str, range(len(maps))))
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
    rows, how = flat(maps[:, indices])
    count, size = len(rows), rows.shape[2:]
    alone = count == 1 and size[0] > 1
    values, reduction = reduced(rows.swapaxes(0, 1).reshape(-1, *size), 1 if alone else count)
    scale, beyond = _scale(layer, values, options)
    labels = tuple(map(str, indices))
    pictures = tuple(inputs[:count])
    if alone:
        tiles = Tiles(values, labels, pictures=pictures)
    else:
        heads = tuple(names) if count > 1 else ()
        tiles = Tiles(values, columns=count, row_labels=labels, column_labels=heads, pictures=pictures)
        words = joined(f"{words} (rows)", f"{count} samples (columns)" if count > 1 else "")
    foot = joined(reduction, beyond, *_odd(maps))
    return Grid(_title(layer), tiles, scale, joined(words, how, _places(layer)), foot)


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
    return _lines(layer, _title(layer), values, labels, words.replace("channel", "feature"), options, _odd(maps, "features"))


def _prefix(layer: LayerActivity, tokens: np.ndarray, options: Options, names: Sequence[str]) -> Grid:
    count = tokens.shape[1]
    values, spans = lines(tokens.reshape(-1, tokens.shape[2]), np.arange(tokens.shape[2]))
    each = [joined(f"token {token}" if count > 1 else "", name if len(tokens) > 1 else "") for name in names for token in range(count)]
    labels = [joined(span, word) for span in spans for word in each]
    words = f"{count} prefix token{'s' if count > 1 else ''}, which stand for no place · {tokens.shape[2]:,} features"
    return _lines(layer, f"{_title(layer)} · prefix", values, labels, words, options, _odd(tokens.swapaxes(1, 2), "features"))


def _lines(
    layer: LayerActivity, title: str, values: np.ndarray, labels: Sequence[str], words: str, options: Options, odd: Sequence[str]
) -> Grid:
    scale, beyond = _scale(layer, values, options)
    how = f"in lines of {values.shape[-1]}, which are numbered at their left" if len(values) > 1 else ""
    tiles = Tiles(values.reshape(-1, 1, values.shape[-1]), columns=1, row_labels=tuple(labels))
    return Grid(title, tiles, scale, joined(words, how), joined(beyond, *odd))


def mean_map(layer: LayerActivity, maps: np.ndarray, picture: Image.Image | np.ndarray, geometry: Geometry) -> Image.Image:
    """Lay the mean over the channels of a layer on the photo, where the network saw it.

    Args:
        layer: what the report says about it.
        maps: of one sample, (C, *grid) with rows and columns as the last two; earlier ones (time) are averaged too.
        picture: the photo, upright.
        geometry: where the network's input lies on it.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        mean = maps.astype(np.float64).reshape(-1, *maps.shape[-2:]).mean(axis=0)
    height, width = maps.shape[-2:]
    return overlay_page(
        picture,
        mean,
        geometry.box,
        title=f"{_title(layer)} · mean",
        subtitle=f"mean of {len(maps):,} channels, {height} × {width}, where the network saw it; 0 is transparent",
        unit=f"mean {UNIT}",
        colours="diverging" if _signed(layer, maps) else "viridis",
    )


def sheet(title: str, entries: Sequence[tuple[LayerActivity, np.ndarray]], inputs: Sequence[np.ndarray] | None = None) -> Image.Image:
    """Show the whole network on one page, in the order in which it runs: of each layer its strongest channels for the first sample.

    Each tile has its own scale: a sheet is about patterns.

    Args:
        title: of the page.
        entries: layers and their maps, (n, C, *grid) or only the strongest channels of them.
        inputs: what the network saw, pictures (H, W, 3) uint8; the first sample's comes first.
    """
    sections = [_section(layer, maps[0]) for layer, maps in entries if maps.size]
    if inputs:
        picture = inputs[0]
        shape = " × ".join(map(str, (picture.shape[2], *picture.shape[:2])))
        sections.insert(0, Grid(f"input · {shape}", Tiles(picture[None]), Scale(signed=False)))
    return contact_sheet(title, sections, subtitle="the strongest channels of each layer, the strongest first, in the order of the network")


def stages(layers: Sequence[LayerActivity], most: int = SHEET_LAYERS) -> list[LayerActivity]:
    """Choose layers for a sheet: all, if they are few; else where the size of the grid changes next, and activations, evenly thinned."""
    if len(layers) <= most:
        return list(layers)
    ends = {index for index, layer in enumerate(layers) if index + 1 == len(layers) or layers[index + 1].grid != layer.grid}
    ends = _thinned(sorted({0, *ends}), most)
    others = sorted({index for index, layer in enumerate(layers) if layer.activation} - ends) or sorted({*range(len(layers))} - ends)
    return [layers[index] for index in sorted(ends | _thinned(others, most - len(ends)))]


def _thinned(indices: Sequence[int], most: int) -> set[int]:
    places = np.linspace(0, len(indices) - 1, min(len(indices), most)).round().astype(int)
    return {indices[place] for place in places}


def histogram_page(heading: str, layers: Sequence[LayerActivity], alarms: Mapping[str, str]) -> list[Image.Image]:
    """Show how the activations of each layer are distributed, in the order of the network.

    Args:
        heading: of the pages.
        layers: those without a histogram have no finite element.
        alarms: layer -> a word for what a finding says about it: "dead", "saturated".
    """
    shown = [_panel(layer, alarms.get(layer.name, "")) for layer in layers]
    return histograms(heading, shown, subtitle="each over its full range; the height of a bin is the square root of its count")


def depth_profile(title: str, layers: Sequence[LayerActivity], alarms: Mapping[str, str] | None = None) -> Image.Image:
    """Plot how the signal changes from layer to layer: its size, zeros, dead channels and effective rank, downwards with depth.

    Args:
        title: of the page.
        layers: in the order of the network.
        alarms: layer -> a word for what a finding says about it; these layers are marked.
    """
    columns = [
        Column("standard deviation", [layer.std for layer in layers], log=True),
        Column("zeros", [layer.zeros for layer in layers], share=True),
        Column("dead channels", [None if layer.dead is None else layer.dead / max(layer.channels, 1) for layer in layers], share=True),
        Column("effective rank", [layer.effective_rank for layer in layers], log=True, ceiling=[float(layer.channels) for layer in layers]),
    ]
    alarms = alarms or {}
    marks = {index: alarms[layer.name] for index, layer in enumerate(layers) if layer.name in alarms}
    words = "from the first layer down to the last; grey: the number of channels, which no rank exceeds"
    return depth_plot(title, [layer.name for layer in layers], columns, subtitle=words, marks=marks)


def _title(layer: LayerActivity, *, short: bool = False) -> str:
    """Name a layer: "layer1.0.relu · ReLU · 64 × 56 × 56"; short, without the type."""
    return joined(layer.name, "" if short else layer.type, " × ".join(map(str, layer.shape)))


def _places(layer: LayerActivity) -> str:
    """Say where the places of tokens are."""
    if layer.layout != "tokens" or layer.grid is None or len(layer.grid) < 2:
        return ""
    apart = f", {layer.prefix} prefix token{'s' if layer.prefix > 1 else ''} apart" if layer.prefix else ""
    return f"tokens folded to {' × '.join(map(str, layer.grid))}{apart}"


def _signed(layer: LayerActivity, values: np.ndarray) -> bool:
    """Whether the layer goes below 0: over all samples, if the report knows."""
    least = layer.least if layer.least is not None else values.min(initial=0, where=np.isfinite(values))
    return bool(least < 0)


def _scale(layer: LayerActivity, values: np.ndarray, options: Options) -> tuple[Scale, str]:
    """Return the scale, and what lies beyond it."""
    signed = _signed(layer, values)
    if options.scale == "each":
        return Scale(signed, None, UNIT), ""
    limit, beyond = common_limit(values)
    return Scale(signed, limit or 1.0, UNIT), beyond


def _odd(maps: np.ndarray, word: str = "channels") -> list[str]:
    """Name channels that are 0 for these samples, and those that are not finite, also where they are not shown."""
    values = maps.swapaxes(0, 1).reshape(maps.shape[1], -1)
    silent, broken = np.flatnonzero((values == 0).all(axis=1)), np.flatnonzero(~np.isfinite(values).all(axis=1))
    return [
        *([f"NaN or Inf in {_list(broken)}"] if broken.size else []),
        *([f"0 everywhere: {_list(silent)} ({len(silent)} of {len(values):,} {word})"] if silent.size else []),
    ]


def _list(indices: np.ndarray) -> str:
    more = f" and {len(indices) - NAMED:,} more" if len(indices) > NAMED else ""
    return f"{', '.join(map(str, indices[:NAMED]))}{more}"


def _section(layer: LayerActivity, maps: np.ndarray) -> Grid:
    """Draw one layer of the sheet: maps, strips of the strongest channels as one tile, or features in lines."""
    scale, title = Scale(_signed(layer, maps), None, UNIT), _title(layer, short=True)
    if all(size == 1 for size in maps.shape[1:]):
        values, _ = lines(maps.reshape(1, -1), np.arange(len(maps)))
        return Grid(title, Tiles(values.reshape(1, -1, values.shape[-1])), scale)
    tiles, _ = flat(maps[strongest(maps)][None])
    return Grid(title, Tiles(tiles[0] if tiles.shape[3] > 1 else tiles[:, :SHEET_STRIPS, 0]), scale)


def _panel(layer: LayerActivity, alarm: str) -> Panel:
    notes = [alarm]
    if layer.mean is not None and layer.std is not None:
        notes.append(f"std {layer.std:.2g}" if layer.zeros else f"mean {layer.mean:.2g} · std {layer.std:.2g}")
    if layer.zeros:
        notes.append(f"{percent(layer.zeros, 1)} zeros")
    found = layer.histogram
    low, high, counts = (found.low, found.high, found.counts) if found else (0.0, 0.0, ())
    return Panel(layer.name, low, high, counts, joined(*notes), bool(alarm))
