"""The pictures of one request: maps of each layer, the sheet, the histograms, the profile in depth, and mean maps on the photos."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from netlens.drawing.album import Folder, write, write_grids, write_pages
from netlens.lenses.featuremaps import figures
from netlens.lenses.featuremaps.report import LayerActivity
from netlens.parts import Picture

if TYPE_CHECKING:
    from netlens.loading.preprocessing import Geometry

MEAN_MAP_GRID = 2  # rows and columns that a map must have to be laid on a photo


@dataclass(frozen=True)
class Shown:
    """The samples that are drawn."""

    inputs: tuple[np.ndarray, ...] = ()  # what the network saw, (H, W, 3) uint8; none where it saw no pictures
    names: tuple[str, ...] = ()
    photos: tuple[Path, ...] = ()
    geometries: tuple[Geometry, ...] = ()  # where each input lies on its photo


def draw(
    layers: Sequence[LayerActivity],
    maps: Callable[[LayerActivity], np.ndarray],
    shown: Shown,
    options: figures.Options,
    *,
    title: str,
    mean_maps: bool,
    alarms: Mapping[str, str],
    folder: Folder,
    step: Callable[[], object],
) -> Iterator[Picture]:
    """Write the pictures.

    Args:
        layers: in the order of the network; those without maps are not drawn.
        maps: of a layer, (n, C, *grid).
        shown: the samples that the maps are of.
        options: of the user.
        title: what the user calls the model.
        mean_maps: also lay the mean of each layer on the photos.
        alarms: layer -> a word for what a finding says about it.
        folder: where they are written.
        step: called after each layer.
    """
    names = tuple(layer.name for layer in layers)
    folder.reserve([*names, "sheet", "histograms", "profile"])
    for layer in layers:
        values = maps(layer)
        grids = figures.map_grids(layer, values, shown.inputs, options, names=shown.names)
        yield from write_grids(folder, layer.name, grids, shows="maps", layers=(layer.name,), prefer=layer.index == 0)
        if mean_maps:
            yield from _mean_maps(layer, values, shown, folder)
        step()
    of_sheet = [(layer, maps(layer)) for layer in figures.stages(layers)]
    image = figures.sheet(f"{title} · feature maps", of_sheet, shown.inputs)
    yield write(folder, "sheet", image, shows="sheet", layers=names, scale="each tile its own", prefer=True)
    image = figures.depth_profile(f"{title} · from layer to layer", layers, alarms)
    yield write(folder, "profile", image, shows="profile", layers=names, scale="", prefer=True)
    images = figures.histogram_page(f"{title} · activations", layers, alarms)
    yield from write_pages(folder, "histograms", images, shows="histograms", layers=names, scale="each its own range")


def _mean_maps(layer: LayerActivity, values: np.ndarray, shown: Shown, folder: Folder) -> Iterator[Picture]:
    from netlens.loading.images import open_image

    if values.ndim < 4 or min(values.shape[-2:]) < MEAN_MAP_GRID:
        return
    for path, geometry, sample in zip(shown.photos, shown.geometries, values, strict=False):
        image = figures.mean_map(layer, sample, open_image(path).image, geometry)
        yield write(folder, f"{layer.name}-mean-{path.stem}", image, shows="mean map", layers=(layer.name,), scale="common")
