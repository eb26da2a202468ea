"""The pictures of one request: maps of each layer, the sheet, the histograms, the profile in depth, and mean maps on the photos."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from netlens.drawing.album import Folder, write, write_grids, write_pages
from netlens.drawing.captions import joined
from netlens.drawing.grids import Grid
from netlens.lenses.featuremaps import figures
from netlens.lenses.featuremaps.attention_figures import head_grids, rollout_grid, sheet_grids, token_grids
from netlens.lenses.featuremaps.attention_shown import Shown as Attention
from netlens.lenses.featuremaps.means import mean_grid
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

    def name(self, sample: int) -> str:
        """Name a sample: "cat.png", "sample 0"."""
        return "" if sample >= len(self.names) else self.names[sample] if self.photos else f"sample {self.names[sample]}"

    def picture(self, sample: int) -> np.ndarray | None:
        """Return what the network saw of a sample, if it is a picture."""
        return self.inputs[sample] if sample < len(self.inputs) else None


def draw(
    layers: Sequence[LayerActivity],
    maps: Callable[[LayerActivity], np.ndarray],
    prefix: Callable[[LayerActivity], np.ndarray | None],
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
        prefix: tokens of a layer that belong to no place, (n, tokens, C).
        shown: the samples that the maps are of.
        options: of the user.
        title: what the user calls the model.
        mean_maps: also lay the mean of each layer on the photos.
        alarms: layer -> a word for what a finding says about it.
        folder: where they are written.
        step: called after each layer.
    """
    names = tuple(layer.name for layer in layers)
    means = [f"mean-{Path(name).stem}" for name in (shown.names if shown.photos else shown.names[:1])]
    overlays = [f"{name}-mean-{path.stem}" for name in names for path in shown.photos] if mean_maps else []
    folder.reserve([*names, *overlays, "sheet", *means, "profile", "histograms"])
    for layer in layers:
        values = maps(layer)
        grids = figures.map_grids(layer, values, shown.inputs, options, names=shown.names, prefix=prefix(layer))
        yield from write_grids(folder, layer.name, grids, shows="maps", layers=(layer.name,), prefer=layer.index == 0)
        if mean_maps:
            yield from _mean_maps(layer, values, shown, folder)
        step()
    placed = figures.of_places(layers)
    of_sheet = [(layer, maps(layer)) for layer in figures.stages(placed)]
    image = figures.sheet(joined(title, "feature maps", shown.name(0)), of_sheet, shown.inputs)
    yield write(folder, "sheet", image, shows="sheet", layers=names, scale="each tile its own", prefer=True)
    for sample, name in enumerate(means):
        heading = joined(title, "mean maps", shown.name(sample))
        found = mean_grid(heading, [(layer, maps(layer)) for layer in placed], sample, shown.picture(sample))
        if found is not None:
            yield from write_grids(folder, name, [found], shows="mean maps", layers=names)
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


def attention_names(layers: Sequence[Attention], rolled: np.ndarray | None) -> list[str]:
    """Return the names of all pictures of attention, to be reserved."""
    every = [f"attention-{_of_model(each.layer.name)}" for each in layers]
    return [*every, "attention", *(["rollout"] if rolled is not None else [])] if layers else []


def draw_attention(
    layers: Sequence[Attention], rolled: np.ndarray | None, shown: Shown, *, title: str, scale: str, folder: Folder
) -> Iterator[Picture]:
    """Write the pictures of attention: where each head of each layer looks, all of them on a sheet, and the rollout.

    Args:
        layers: what was kept of each, in the order in which they ran.
        rolled: attention rollout, (n, L, L), where there is one.
        shown: the samples.
        title: what the user calls the model.
        scale: "each" head its own, or "common".
        folder: where they are written.
    """
    for each, name in zip(layers, attention_names(layers, rolled), strict=False):
        grids = [grid for sample in range(len(each.rows)) for grid in _of_attention(each, sample, shown, scale)]
        yield from write_grids(folder, name, grids, shows="attention", layers=(each.layer.name,))
    names = tuple(each.layer.name for each in layers)
    if layers:
        grids = sheet_grids(joined(title, "attention", shown.name(0)), layers, 0, shown.picture(0), scale=scale)
        yield from write_grids(folder, "attention", grids, shows="attention", layers=names, prefer=True)
    if rolled is not None and layers:
        row = 0 if layers[0].layer.prefix else None
        names_of_samples = [shown.name(sample) for sample in range(len(rolled))]
        grid = rollout_grid(f"{title} · attention rollout", rolled, layers[0].layer, row, shown.inputs, names_of_samples)
        yield from write_grids(folder, "rollout", [grid], shows="rollout", layers=names)


def _of_model(name: str) -> str:
    """Name what runs in the model's own forward, which has no path."""
    return f"model{name}" if name[:1] in ("", "#") else name


def _of_attention(each: Attention, sample: int, shown: Shown, scale: str) -> list[Grid]:
    name = shown.name(sample)
    if each.whole is not None:
        return token_grids(each, sample, name=name)
    return head_grids(each, sample, shown.picture(sample), scale=scale, name=name)
