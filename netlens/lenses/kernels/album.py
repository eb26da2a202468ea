"""The pictures of one request: which are drawn, in which order, and what is said about each in the report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from netlens.drawing.album import Folder, write, write_grids, write_pages
from netlens.lenses.kernels import figures
from netlens.lenses.kernels.report import LayerWeights
from netlens.parts import Picture

CONVOLUTIONS = ("conv1d", "conv2d", "conv3d")


@dataclass(frozen=True)
class Drawable:
    """One weight that is drawn."""

    layer: LayerWeights
    filters: Callable[[], np.ndarray]  # (filters, channels of a group, *kernel)
    other: Callable[[], np.ndarray] | None = None  # the same of the other checkpoint
    first: bool = False  # at the model's input


def drawn(layers: Sequence[LayerWeights], include: Sequence[str], named: bool) -> list[LayerWeights]:
    """Choose what is drawn: convolutions, what `--include` adds, and all that the user named."""
    return [layer for layer in layers if named or layer.kind in CONVOLUTIONS or layer.kind in include]


def draw(
    entries: Sequence[Drawable],
    layers: Sequence[LayerWeights],
    options: figures.Options,
    *,
    title: str,
    fft: bool,
    compared: tuple[str, str],
    alarms: Mapping[str, str],
    folder: Folder,
    step: Callable[[], None],
) -> Iterator[Picture]:
    """Write the pictures: of each weight its filters, then the sheet of the whole network and the histograms of all weights.

    Args:
        entries: what is drawn, in the order of the model.
        layers: whose histograms are drawn.
        options: of the user.
        title: what the user calls the model.
        fft: also draw the spectra of what stands at the input.
        compared: how the two checkpoints are called, where there are two.
        alarms: layer -> the word that its histogram is marked with.
        folder: where they are written.
        step: called after each weight.
    """
    names = [entry.layer.name for entry in entries]
    folder.reserve([*names, *(f"{entry.layer.name}-fft" for entry in entries if fft and entry.first), *_overviews(entries, layers)])
    sections = []
    for entry in entries:
        filters = entry.filters()
        yield from _filters(entry, filters, options, compared, folder)
        if fft and entry.first:
            grids = figures.spectra_grids(entry.layer, filters, options)
            yield from write_grids(folder, f"{entry.layer.name}-fft", grids, shows="spectra", layers=(entry.layer.name,))
        sections.append((entry.layer, filters))
        step()
    if sections:
        image = figures.sheet(f"{title} · contact sheet", sections)
        yield write(folder, "sheet", image, shows="sheet", layers=tuple(names), scale="each tile its own", prefer=True)
    if layers:
        images = figures.histogram_page(f"{title} · weights", layers, alarms)
        named = tuple(layer.name for layer in layers)
        yield from write_pages(folder, "histograms", images, shows="histograms", layers=named, scale="each its own range")


def _overviews(entries: Sequence[Drawable], layers: Sequence[LayerWeights]) -> list[str]:
    return [*(["sheet"] if entries else []), *(["histograms"] if layers else [])]


def _filters(
    entry: Drawable, filters: np.ndarray, options: figures.Options, compared: tuple[str, str], folder: Folder
) -> Iterator[Picture]:
    layer = entry.layer
    if entry.other is None:
        grids, shows = figures.filter_grids(layer, filters, options, first=entry.first), "filters"
    else:
        grids = figures.difference_grids(layer, filters, entry.other(), options, first=entry.first, names=compared)
        shows = "difference"
    yield from write_grids(folder, layer.name, grids, shows=shows, layers=(layer.name,), prefer=entry.first)
