"""The pictures of one request: which are drawn, in which order, and what is said about each in the report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL import Image

from netlens.drawing.grids import Grid, Scale, pages
from netlens.lenses.kernels import figures
from netlens.lenses.kernels.report import LayerWeights
from netlens.parts import Picture

CONVOLUTIONS = ("conv1d", "conv2d", "conv3d")


class Folder(Protocol):
    """Where pictures go."""

    def reserve(self, names: Iterable[str]) -> None:
        """Refuse names under which files stand that are not ours."""

    def save(self, name: str, image: Image.Image, *, prefer: bool = False, **facts: str) -> str:
        """Write one picture and return its path."""


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
            yield from _saved(folder, f"{entry.layer.name}-fft", grids, "spectra", (entry.layer.name,))
        sections.append((entry.layer, filters))
        step()
    if sections:
        image = figures.sheet(f"{title} · contact sheet", sections)
        yield _picture(folder, "sheet", image, "sheet", tuple(names), "each tile its own", prefer=True)
    for number, image in enumerate(figures.histogram_page(f"{title} · weights", layers, alarms) if layers else (), 1):
        shown = tuple(layer.name for layer in layers)
        yield _picture(folder, _page("histograms", number), image, "histograms", shown, "each its own range")


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
    yield from _saved(folder, layer.name, grids, shows, (layer.name,), prefer=entry.first)


def _saved(
    folder: Folder, name: str, grids: Iterable[Grid], shows: str, layers: tuple[str, ...], *, prefer: bool = False
) -> Iterator[Picture]:
    images = [(image, grid) for grid in grids for image in pages(grid)]
    for number, (image, grid) in enumerate(images, 1):
        scale = (
            "each tile its own" if grid.scale.limit is None else f"{'±' if grid.scale.signed else '0 to '}{grid.scale.limit:.3g}, common"
        )
        yield _picture(folder, _page(name, number), image, shows, layers, scale, prefer=prefer and number == 1)


def _scale(scale: Scale) -> str:
    if scale.limit is None:
        return "each tile its own"
    return f"{'±' if scale.signed else '0 to '}{scale.limit:.3g}, common"


def _page(name: str, number: int) -> str:
    return name if number == 1 else f"{name}-{number}"


def _picture(
    folder: Folder, name: str, image: Image.Image, shows: str, layers: tuple[str, ...], scale: str, *, prefer: bool = False
) -> Picture:
    facts = {"Method": shows, "Scale": scale}
    if len(layers) == 1:
        facts["Layer"] = layers[0]
    file = folder.save(name, image, prefer=prefer, **facts)
    return Picture(file, shows, layers, scale, *image.size)
