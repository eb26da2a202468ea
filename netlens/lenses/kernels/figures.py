"""What the kernels lens draws: filters, differences, spectra, the whole network on a sheet, and histograms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import floor, log10

import numpy as np
from PIL import Image

from netlens.drawing.grids import Grid, Scale, Tiles, contact_sheet
from netlens.drawing.histograms import Panel, histograms
from netlens.drawing.layout import GROUP
from netlens.drawing.limits import common_limit, scale_of
from netlens.lenses.kernels.captions import counted, footnote, subtitle, title
from netlens.lenses.kernels.forms import Form, Options, form_of, joined, norms, panels, plain_kernels, strongest
from netlens.lenses.kernels.report import LayerWeights
from netlens.lenses.kernels.spectra import spectrum

__all__ = ["Options", "difference_grids", "filter_grids", "histogram_page", "sheet", "spectra_grids"]

SHEET_MATRIX = (32, 128)  # rows and columns of a matrix that a sheet has room for


def filter_grids(layer: LayerWeights, filters: np.ndarray, options: Options, *, first: bool) -> list[Grid]:
    """Show the filters of a layer in the form in which a person can read them.

    Colour tiles where 3 channels come in; one tile a filter for depthwise and few-channel kernels, or with `options.summary`; a mosaic of
    filters x channels for the others; one matrix for 1 x 1 kernels, linear layers and embeddings. Labels are true indices in any order.

    Args:
        layer: what the report says about them.
        filters: (F, C, *kernel), the channels those of one group.
        options: of the user.
        first: whether this layer sees the input: then it may look at pictures, which a Linear does flattened.
    """
    if filters.size == 0:
        return []
    kernels = plain_kernels(layer, filters, first=first)
    form = form_of(layer, kernels, options, first=first)
    tiles, labels = panels(form, kernels)
    scale, beyond = scale_of(tiles, options.scale, "weight")
    foot = footnote(layer, form, kernels, beyond, norms(kernels))
    return [Grid(title(layer), _tiles(form, tiles, labels), scale, subtitle(layer, form, kernels, options), foot)]


def difference_grids(
    layer: LayerWeights,
    this: np.ndarray,
    other: np.ndarray,
    options: Options,
    *,
    first: bool = False,
    names: tuple[str, ...] = ("this", "other"),
) -> list[Grid]:
    """Show the same filters of two checkpoints and their difference, side by side in each tile, on one scale.

    The difference is enlarged by a round factor that the subtitle names, so that it fills the scale of the weights. Where not all filters
    or channels are shown, those are that moved most; sorted, these come first. A mosaic has three blocks of 8 channels.

    Args:
        layer: what the report says about `this`.
        this: (F, C, *kernel).
        other: of the same shape.
        options: of the user.
        first: whether this layer sees the input.
        names: of the two: "last.ckpt", "first.ckpt".
    """
    if this.size == 0:
        return []
    one, two = (plain_kernels(layer, filters, first=first) for filters in (this, other))
    with np.errstate(invalid="ignore"):
        form = form_of(layer, one, replace(options, max_channels=GROUP), first=first, by=one - two)
        parts = [panels(form, kernels)[0].astype(np.float64) for kernels in (one, two)]
        change = parts[0] - parts[1]
    both = np.concatenate(parts)
    scale, beyond = scale_of(both, options.scale, "weight")
    factor = _round_factor(common_limit(both)[0], common_limit(change)[0])
    names = (*names, "their difference" if factor == 1 else f"{factor:g} × their difference")
    words = f"{', '.join(names)}: {_side_by_side(form, change.shape, scale)}; {subtitle(layer, form, one, options, moved=True)}"
    shown = _triples(form, [*parts, factor * change], names, panels(form, one)[1], scale)
    return [Grid(f"{title(layer)} · difference", shown, scale, words, footnote(layer, form, one, beyond, norms(one)))]


def spectra_grids(layer: LayerWeights, filters: np.ndarray, options: Options | None = None) -> list[Grid]:
    """Show which spatial (Conv1d: temporal) frequencies each filter answers to; none for 1 x 1 kernels and matrices."""
    kernels = plain_kernels(layer, filters, first=False)
    if filters.size == 0 or kernels.ndim == 2:
        return []
    options = options or Options()
    shown = strongest(norms(kernels), options.max_filters or len(kernels), in_order=options.sort != "norm")
    gains = spectrum(kernels[shown])
    flat = gains.ndim == 2
    largest = np.abs(gains).max(initial=0, where=np.isfinite(gains))
    scale = Scale(signed=False, limit=float(largest or 1) if options.scale == "common" else None, unit="gain")
    ends = "at the left, 0.5 cycles per step at the right" if flat else "in the middle, ±0.5 cycles per pixel at the edges"
    slices = f" and {counted(kernels.shape[2], kernels.shape[2], 'time slice')}" if kernels.ndim == 5 else ""
    inputs = counted(kernels.shape[1], kernels.shape[1], "input channel") + slices
    words = f"magnitude spectra of {counted(len(shown), len(kernels), 'filter')}: root of the power summed over {inputs}"
    foot = f"frequency 0, the answer to a flat input, is {ends}"
    tiles = Tiles(gains[:, None] if flat else gains, tuple(map(str, shown)))
    return [Grid(f"{title(layer)} · spectra", tiles, scale, words, foot)]


def sheet(heading: str, entries: Sequence[tuple[LayerWeights, np.ndarray]]) -> Image.Image:
    """Show the whole network on one page: of each weight its strongest filters, one tile each, the strongest first.

    Colours where 3 channels come in, else the channel with the largest norm; of a matrix the strongest rows and columns. Each tile has its
    own scale: a sheet is about shapes.
    """
    sections = [_section(layer, filters) for layer, filters in entries if filters.size]
    what = "the strongest filters of each layer: in colour where 3 channels come in, else their largest channel"
    return contact_sheet(heading, sections, subtitle=what)


def histogram_page(heading: str, layers: Sequence[LayerWeights], alarms: Mapping[str, str]) -> list[Image.Image]:
    """Show how the weights of each layer are distributed, in the order of the model.

    Args:
        heading: of the pages.
        layers: those with a histogram are shown; the others have no finite element.
        alarms: layer -> a word for what a finding says about its weights: "spike", "bimodal", "outliers".
    """
    shown = [_panel(layer, alarms.get(layer.name, "")) for layer in layers]
    what = "each over its full range; the height of a bin is the square root of its count"
    if any(layer.initial_std for layer in layers):
        what += "; ×1: the standard deviation that initialisation gives"
    return histograms(heading, shown, subtitle=what)


def _tiles(form: Form, tiles: np.ndarray, labels: tuple[str, ...], blocks: int = 1) -> Tiles:
    """Join panels and put them in their order."""
    images, gaps = joined(tiles)
    rows, columns = (tuple(map(str, indices)) for indices in (form.filters, form.channels))
    if form.look == "matrix":
        return Tiles(images, labels, ticks=(rows, columns))
    if form.look != "mosaic":
        return Tiles(images, labels, gaps=gaps)
    return Tiles(images, columns=blocks * len(columns), row_labels=rows, column_labels=blocks * columns, gaps=gaps)


def _axis(form: Form, shape: Sequence[int]) -> int:
    """Return the axis of panels along which two weights and their difference are put beside each other: rows 1, columns 2."""
    lone, wide = shape[2] == 1, shape[4] > 2 * shape[3]
    return 2 if lone and not wide and form.look != "strip" else 1


def _side_by_side(form: Form, shape: Sequence[int], scale: Scale) -> str:
    if form.look in ("matrix", "mosaic"):
        return "three matrices" if form.look == "matrix" else "three blocks of columns"
    if scale.limit is not None:
        return "three columns"
    return "from left to right in each tile" if _axis(form, shape) == 2 else "from top to bottom in each tile"


def _triples(form: Form, parts: list[np.ndarray], names: Sequence[str], labels: tuple[str, ...], scale: Scale) -> Tiles:
    """Put three weights beside each other: three matrices, three blocks of a mosaic, or three panels in each tile."""
    if form.look == "matrix":
        return _tiles(form, np.concatenate(parts), tuple(names))
    if form.look != "mosaic" and scale.limit is not None:
        tiles = _tiles(form, np.stack(parts, axis=1).reshape(-1, *parts[0].shape[1:]), ())
        return replace(tiles, columns=3, row_labels=labels, column_labels=tuple(names))
    if form.look != "mosaic":  # each filter its own scale: the three must share a tile to share it
        return _tiles(form, np.concatenate(parts, axis=_axis(form, parts[0].shape)), labels)
    rows = [part.reshape(len(form.filters), -1, *part.shape[1:]) for part in parts]
    return _tiles(form, np.concatenate(rows, axis=1).reshape(-1, *parts[0].shape[1:]), (), blocks=3)


def _round_factor(limit: float, change: float) -> float:
    """Return the largest of ..., 0.5, 1, 2, 5, 10, ... by which a change still fits the scale; 1 where there is none."""
    if not (limit > 0 and change > 0):
        return 1.0
    power = 10.0 ** floor(log10(limit / change))
    return max(step * power for step in (1, 2, 5) if step * power * change <= limit * (1 + 1e-9) or step == 1)


def _section(layer: LayerWeights, filters: np.ndarray) -> Grid:
    """Draw one layer of the sheet."""
    kernels = plain_kernels(layer, filters, first=False)
    note = f"of a sample of {len(filters)}" if len(filters) < layer.filters else ""
    if kernels.ndim == 2:
        rows, columns = (
            strongest(norms(side), most, in_order=False) for side, most in zip((kernels, kernels.T), SHEET_MATRIX, strict=True)
        )
        if len(rows) < len(kernels) or len(columns) < kernels.shape[1]:
            note = f"the strongest {len(rows)} × {len(columns)} {note}".strip()
        return Grid(title(layer, short=True), Tiles(kernels[np.ix_(rows, columns)][None]), Scale(unit="weight"), note)
    form = form_of(layer, kernels, Options(max_filters=None, sort="norm", summary="largest"), first=False)
    return Grid(title(layer, short=True), _tiles(form, panels(form, kernels)[0], ()), Scale(unit="weight"), note)


def _panel(layer: LayerWeights, alarm: str) -> Panel:
    notes = [alarm] if alarm else []
    if layer.std is not None:
        notes.append(f"std {layer.std:.3g}")
        if layer.initial_std:
            notes.append(f"×{layer.std / layer.initial_std:.3g}")
    found = layer.histogram
    low, high, counts = (found.low, found.high, found.counts) if found else (0.0, 0.0, ())
    return Panel(layer.name, low, high, counts, " · ".join(notes), bool(alarm))
