"""The whole network on one page: a sheet of its strongest channels, histograms, and the profile in depth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import prod

import numpy as np
from PIL import Image

from netlens.drawing.captions import joined
from netlens.drawing.grids import Grid, Scale, Tiles, contact_sheet
from netlens.drawing.histograms import Panel, histograms
from netlens.drawing.numbers import percent
from netlens.drawing.plots import Column, depth_plot
from netlens.lenses.featuremaps.captions import UNIT, is_signed, title
from netlens.lenses.featuremaps.forms import flat, lines, reduced, strongest
from netlens.lenses.featuremaps.report import LayerActivity

SHEET_STRIPS = (16, 48)  # channels in time that make one tile of a sheet: more where it is long
SHEET_LAYERS = 48  # on a sheet that can still be read


def sheet(heading: str, entries: Sequence[tuple[LayerActivity, np.ndarray]], inputs: Sequence[np.ndarray] | None = None) -> Image.Image:
    """Show the whole network on one page, in the order in which it runs: of each layer its strongest channels for the first sample.

    Each tile has its own scale: a sheet is about patterns.

    Args:
        heading: of the page.
        entries: layers and their maps, (n, C, *grid) or only the strongest channels of them.
        inputs: what the network saw, pictures (H, W, 3) uint8; the first sample's comes first.
    """
    sections = [_section(layer, maps[0]) for layer, maps in entries if maps.size]
    if inputs:
        picture = inputs[0]
        shape = " × ".join(map(str, (picture.shape[2], *picture.shape[:2])))
        sections.insert(0, Grid(f"input · {shape}", Tiles(picture[None]), Scale(signed=False, limit=255.0)))
    return contact_sheet(
        heading, sections, subtitle="the strongest channels of each layer, the strongest first, in the order of the network"
    )


def of_places(layers: Sequence[LayerActivity]) -> list[LayerActivity]:
    """Leave out softmax within the network: the weights of attention, whose rows and columns are tokens and no places of the input."""
    return [layer for layer in layers if layer.type.lower() != "softmax" or layer is layers[-1]]


def stages(layers: Sequence[LayerActivity], most: int = SHEET_LAYERS) -> list[LayerActivity]:
    """Choose layers for a sheet: all, if they are few; else where the size of the grid changes next, and activations, evenly thinned.

    What has no places is left out of the middle: gates that look at the whole map.
    """
    if len(layers) <= most:
        return list(layers)
    placed = [index for index, layer in enumerate(layers) if prod(layer.grid or ()) > 1]
    among = [index for index in range(len(layers)) if index in placed or index > max(placed, default=-1)]
    turns = [index for index, following in pairwise(among) if layers[index].grid != layers[following].grid]
    ends = _thinned(sorted({among[0], *turns, among[-1]}), most)
    others = [index for index in among if layers[index].activation and index not in ends] or sorted({*among} - ends)
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


def depth_profile(heading: str, layers: Sequence[LayerActivity], alarms: Mapping[str, str] | None = None) -> Image.Image:
    """Plot how the signal changes from layer to layer: its size, zeros, dead channels and effective rank, downwards with depth.

    Args:
        heading: of the page.
        layers: in the order of the network.
        alarms: layer -> a word for what a finding says about it; these layers are marked.
    """
    columns = [
        Column("standard deviation", [layer.std for layer in layers], log=True),
        Column("zeros", [layer.zeros for layer in layers]),
        Column("dead channels", [None if layer.dead is None else layer.dead / max(layer.channels, 1) for layer in layers]),
        Column("effective rank", [layer.effective_rank for layer in layers], log=True, ceiling=[float(layer.channels) for layer in layers]),
    ]
    alarms = alarms or {}
    marks = {index: alarms[layer.name] for index, layer in enumerate(layers) if layer.name in alarms}
    words = "from the first layer down to the last; grey: the number of channels, which no rank exceeds"
    return depth_plot(heading, [layer.name for layer in layers], columns, subtitle=words, marks=marks)


def _section(layer: LayerActivity, maps: np.ndarray) -> Grid:
    """Draw one layer of the sheet: maps (their first slice), strips of the strongest channels as one tile, or features in lines."""
    scale, name = Scale(is_signed(layer, maps), None, UNIT), title(layer, short=True)
    if all(size == 1 for size in maps.shape[1:]):
        values, _ = lines(maps.reshape(1, -1), np.arange(len(maps)))
        return Grid(name, Tiles(values.reshape(1, -1, values.shape[-1])), scale)
    tiles = flat(maps[strongest(maps)][None])[0][0, :, 0]
    if tiles.shape[1] > 1:
        return Grid(name, Tiles(tiles), scale)
    strips, remark = reduced(tiles[: min(max(tiles.shape[2], SHEET_STRIPS[0]), SHEET_STRIPS[1])], 1)
    few = f"the strongest {len(strips)} of {len(tiles):,} channels, downwards" if len(strips) < len(tiles) else ""
    return Grid(name, Tiles(strips[None, :, 0]), scale, joined(few, remark))


def _panel(layer: LayerActivity, alarm: str) -> Panel:
    notes = [alarm]
    if layer.mean is not None and layer.std is not None:
        notes.append(f"std {layer.std:.2g}" if layer.zeros else f"mean {layer.mean:.2g} · std {layer.std:.2g}")
    if layer.zeros:
        notes.append(f"{percent(layer.zeros, 1)} zeros")
    found = layer.histogram
    low, high, counts = (found.low, found.high, found.counts) if found else (0.0, 0.0, ())
    return Panel(layer.name, low, high, counts, joined(*notes), bool(alarm))
