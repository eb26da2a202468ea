"""Labels of a grid: above each tile, at the left of rows and above columns; thinned or elided where they would collide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from netlens.drawing.canvas import Canvas
from netlens.drawing.layout import Axis, Block, Pair
from netlens.drawing.text import SOFT, elided, font, height, width
from netlens.drawing.thumbnails import HEAD, SIDE, above, beside
from netlens.drawing.tiles import Tiles

SIZE = 10  # pixels: of the font
WIDEST, WIDEST_ROW = 110, 160  # pixels: longer labels are elided
FEW = 12  # columns whose labels are all shown, if need be with wider gaps


@dataclass(frozen=True, slots=True)
class Spacing:
    """The room that the labels of a grid take, in pixels."""

    tiles: Tiles
    lead: int  # above each tile
    left: int  # of all tiles
    above: int  # of all tiles
    label: int  # across: the widest label of a tile
    column: int  # the widest label of a column, and at least its picture
    head: int  # across: the picture of a column
    ticks: int  # above each tile, within its lead: numbers of its columns
    side: int  # at the left of each tile: numbers of its rows

    @classmethod
    def of(cls, tiles: Tiles) -> Spacing:
        """Measure the labels."""
        line = height(font(SIZE))
        head, side = (0, 0) if not tiles.pictures else (0, SIDE + 14) if tiles.beside else (HEAD, 0)
        ticks = line if tiles.ticks[1] else 0
        return cls(
            tiles,
            lead=ticks + (line if any(tiles.labels) else 0),
            left=side + (_widest(tiles.row_labels, WIDEST_ROW) + 6 if any(tiles.row_labels) else 0),
            above=(line if any(tiles.column_labels) else 0) + (head and head + 6),
            label=_widest(tiles.labels, WIDEST),
            column=max(head, _widest(tiles.column_labels, WIDEST)),
            head=head,
            ticks=ticks,
            side=_widest(tiles.ticks[0], WIDEST) + 4 if tiles.ticks[0] else 0,
        )

    @property
    def widest(self) -> int:
        """Pixels across of what stands above a tile: the last one may reach beyond it."""
        return max(self.head, self.label, self.column)

    def axes(self, size: Pair) -> tuple[Axis, Axis]:
        """Return how tiles of so many pixels stand: close together in a mosaic, wider where labels need it."""
        mosaic = self.tiles.columns is not None and not self.lead and min(size) < 32
        gap, group = (1, 4) if mosaic else (3, 0)
        gap += 0 if self.tiles.gaps is None else 5  # tiles are further apart than their panels
        label = max(self.label, self.column if len(self.tiles.column_labels) <= FEW or self.head else 0)
        return (
            Axis(size[0], gap + 4 if self.lead else gap, self.lead, group),
            Axis(size[1], max(gap, label + 6 - size[1], 6 if self.lead else 0), self.side, group),
        )

    def write(self, canvas: Canvas, x: int, y: int, axes: tuple[Axis, Axis], block: Block, all_columns: int) -> None:
        """Write the labels of a block, and put its pictures in; (x, y) is the corner of its first cell."""
        face, line = font(SIZE), height(font(SIZE))
        tops, lefts = (axis.starts(len(part)).tolist() for axis, part in zip(axes, (block.rows, block.columns), strict=True))
        if self.tiles.beside:
            beside(canvas, x - self.left - 1, y - 1 + axes[0].lead, self.tiles.beside)
        else:
            floor = y - (line + 3 if any(self.tiles.column_labels) else 3)
            above(canvas, [x + left for left in lefts], floor, self.tiles.pictures[block.columns.start :], axes[1].tile)
        for row, label in _thinned(self.tiles.row_labels, block.rows, _pitch(axes[0]), line - 2):
            label = elided(label, face, WIDEST_ROW)
            canvas.write(x - 7 - width(label, face), y + tops[row] + (axes[0].tile - line) // 2, label, face, SOFT)
        for column, label in _thinned(self.tiles.column_labels, block.columns, _pitch(axes[1]), self.column + 4):
            canvas.write(x + lefts[column], y - line - 1, elided(label, face, self.column), face, SOFT)
        labels = self.tiles.labels
        for top, row in zip(tops, block.rows, strict=True):
            for left, label in zip(lefts, labels[row * all_columns :][block.columns.start : block.columns.stop], strict=False):
                canvas.write(x + left, y + top - self.ticks - line - 1, elided(label, face, _pitch(axes[1]) - 4), face, SOFT)
        for cell in np.ndindex(len(tops), len(lefts)):
            if block.rows[cell[0]] * all_columns + block.columns[cell[1]] < len(self.tiles.values):
                self._number(canvas, x + lefts[cell[1]], y + tops[cell[0]], (axes[0].tile, axes[1].tile))

    def _number(self, canvas: Canvas, x: int, y: int, size: Pair) -> None:
        """Number some rows and columns of the tile at (x, y)."""
        face, line, (rows, columns) = font(SIZE), height(font(SIZE)), self.tiles.ticks
        down, across = (pixels / numbers for pixels, numbers in zip(size, self.tiles.values.shape[1:], strict=False))
        apart = max(line + 2, min(2 * line, size[0] // 4))  # sparser where there is room
        for index, text in _thinned(rows, range(len(rows)), down, apart):
            canvas.write(x - 4 - width(text, face), y + round((index + 0.5) * down - line / 2), text, face, SOFT)
        for index, text in _thinned(columns, range(len(columns)), across, _widest(columns, WIDEST) + 16):
            canvas.write(x + max(0, round((index + 0.5) * across - width(text, face) / 2)), y - line - 1, text, face, SOFT)


def _thinned(labels: Sequence[str], shown: range, pitch: float, room: int) -> list[tuple[int, str]]:
    """Return every label that is written, and its place among those shown: each, or every 2nd, 4th, 8th ... where they would collide."""
    step = 1
    while step * pitch < room:
        step *= 2
    return [(index - shown.start, labels[index]) for index in shown if index % step == 0 and index < len(labels)]


def _pitch(axis: Axis) -> int:
    return axis.lead + axis.tile + axis.gap


def _widest(labels: Sequence[str], most: int) -> int:
    return min(most, max((width(elided(label, font(SIZE), most), font(SIZE)) for label in labels), default=0))
