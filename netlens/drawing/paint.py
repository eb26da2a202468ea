"""Tiles as pixels: reduced, coloured, enlarged and placed, without a loop over pixels or tiles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from netlens.drawing.colours import LEVELS, MAGENTA, MAT, NONFINITE, PAPER, channels, indices, palette
from netlens.drawing.layout import Axis, Pair, Zoom
from netlens.drawing.tiles import Scale, Tiles


@dataclass(frozen=True, slots=True)
class Painter:
    """Numbers to pixels, for one set of tiles that is already reduced to what is drawn."""

    values: np.ndarray  # (n, h, w) or (n, h, w, 3)
    scale: Scale
    gaps: np.ndarray | None = None  # (h, w) bool

    @classmethod
    def of(cls, tiles: Tiles, scale: Scale, zoom: Zoom) -> Painter:
        """Reduce the tiles; a single tile with a scale of its own has a known limit."""
        values = area_means(np.asarray(tiles.values, np.result_type(tiles.values, np.float32)), zoom.down)
        if scale.limit is None and len(values) == 1:
            scale = Scale(scale.signed, float(own_limits(values)[0]), scale.unit)
        gaps = None if tiles.gaps is None else area_means(tiles.gaps[None], zoom.down)[0] > 0
        return cls(values, scale, gaps)

    @property
    def rgb(self) -> bool:
        """Whether tiles are red, green and blue."""
        return self.values.ndim == 4

    @property
    def colours(self) -> np.ndarray | None:
        """The palette of the page; None: it needs none."""
        return None if self.rgb else palette(self.scale.signed)

    def paint(self, chosen: np.ndarray | slice) -> np.ndarray:
        """Return the pixels of the chosen tiles, not yet enlarged: palette indices, or (n, h, w, 3)."""
        values = self.values[chosen]
        limit = own_limits(values) if self.scale.limit is None else np.float64(self.scale.limit)
        if np.ndim(limit):
            limit = limit.reshape(-1, *[1] * (values.ndim - 1))
        painted = channels(values, limit, self.scale.signed) if self.rgb else indices(values, limit, self.scale.signed)
        if self.gaps is not None:
            painted[:, self.gaps] = palette(True)[MAT] if self.rgb else MAT
        return painted

    def bar(self) -> np.ndarray:
        """Return every colour of the scale from left to right, (1, steps) or (1, steps, 3)."""
        if self.rgb:
            return np.arange(1, 256, dtype=np.uint8)[None, :, None].repeat(3, axis=2)
        return np.arange(LEVELS, dtype=np.uint8)[None]

    def remarks(self, chosen: np.ndarray | slice, painted: np.ndarray) -> list[str]:
        """Say what the colour bar cannot: what is not finite, and what is beyond the scale."""
        odd = (painted == MAGENTA).all(axis=-1).any() if self.rgb else (painted == NONFINITE).any()
        remarks = ["magenta: NaN or infinite"] if odd else []
        values, limit, signed = self.values[chosen], self.scale.limit, self.scale.signed
        finite = values[np.isfinite(values)]
        least, greatest = float(finite.min(initial=0)), float(finite.max(initial=0))
        if limit is not None and max(greatest, -least if signed else 0) > limit * (1 + 1e-6):
            remarks.append("values beyond the scale have the colour of its end")
        if least < 0 and not signed:
            remarks.append("negative values have the colour of 0")
        return remarks


def own_limits(values: np.ndarray) -> np.ndarray:
    """Return the largest finite |value| of each tile, 0 where there is none."""
    flat = np.abs(values.reshape(len(values), -1).astype(np.float64))
    limits: np.ndarray = np.where(np.isfinite(flat), flat, 0).max(axis=1, initial=0)
    return limits


def area_means(values: np.ndarray, down: Pair) -> np.ndarray:
    """Average blocks of `down` numbers; a block at the edge has fewer. One number that is not finite makes its block so."""
    for axis, size in zip((1, 2), down, strict=True):
        if size > 1:
            edges = np.arange(0, values.shape[axis], size)
            counts = np.diff(edges, append=values.shape[axis])
            with np.errstate(invalid="ignore", over="ignore"):
                sums = np.add.reduceat(values, edges, axis=axis, dtype=np.float64)
            values = sums / counts.reshape([-1 if place == axis else 1 for place in range(values.ndim)])
    return values


def place(tiles: np.ndarray, columns: int, axes: tuple[Axis, Axis], zoom: Zoom) -> np.ndarray:
    """Enlarge tiles and lay them out in reading order, each in a frame of one pixel.

    Args:
        tiles: painted, (n, h, w) or (n, h, w, 3); the last row need not be full.
        columns: of the grid.
        axes: where tiles stand, down and across.
        zoom: how often a pixel is repeated.

    Returns:
        The pixels of the axes, and one more on every side, for the frames.
    """
    count, height, width = tiles.shape[:3]
    rows = -(-count // columns)
    colour = palette(True) if tiles.ndim == 4 else np.arange(256, dtype=np.uint8)
    cells = np.full((rows * columns, *tiles.shape[1:]), colour[PAPER], np.uint8)
    cells[:count] = tiles
    mosaic = cells.reshape(rows, columns, *tiles.shape[1:]).swapaxes(1, 2).reshape(rows * height, columns * width, *tiles.shape[3:])
    across = _sources(axes[1], columns, width, zoom.up[1])
    lines = np.concatenate([mosaic, *(np.full_like(mosaic[:, :1], colour[grey]) for grey in (MAT, PAPER))], axis=1)[:, across]
    frame = colour[np.where(across == _PAPER, PAPER, MAT)]
    sheet: np.ndarray = np.concatenate([lines, frame[None], np.full_like(lines[:1], colour[PAPER])])[
        _sources(axes[0], rows, height, zoom.up[0])
    ]
    _blank_rest(sheet, count % columns, rows, axes)
    return sheet


_FRAME, _PAPER = -2, -1  # stand for a source: the last but one, and the last of a line, or of the lines


def _sources(axis: Axis, count: int, side: int, up: int) -> np.ndarray:
    """Return, for every pixel along an axis, which number of which tile it shows; or that it is frame or paper."""
    starts = axis.starts(count)[:, None] + 1
    sources = np.full(axis.length(count) + 2, _PAPER)
    sources[starts - 1] = sources[starts + axis.tile] = _FRAME
    sources[starts + np.arange(axis.tile)] = np.arange(count)[:, None] * side + np.arange(axis.tile) // up
    return sources


def _blank_rest(sheet: np.ndarray, last: int, rows: int, axes: tuple[Axis, Axis]) -> None:
    """Take the empty frames after the last tile away, where a row of `last` tiles is not full."""
    if last:
        down, across = axes[0].starts(rows) + 1, axes[1].starts(last) + 1
        above = down[-2] + axes[0].tile if rows > 1 else -1
        sheet[max(down[-1] - 1, above + 1) :, across[-1] + axes[1].tile + 1 :] = PAPER
