"""Where tiles stand: how far they are enlarged, how many columns and pages there are. Pure arithmetic, in pixels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

LARGEST, LONGEST = 256, 640  # pixels: the side of an enlarged tile, and the length of a strip
WEIGHT = 48  # pixels: the side of one number at most
READABLE = 36  # pixels: the side of a tile that stands by itself
MOSAIC = 3  # pixels: the side of one number in a mosaic at least, unless the tile itself is large
LARGE = 24  # numbers along the side of a tile that is readable without being enlarged
STRIP, THIN = 8, 16  # a tile that is so many times longer than wide is a strip, and is made so many pixels wide
GROUP = 8  # tiles after which a mosaic has a wider gap
COMFORTABLE = (920, 1120)  # pixels down and across: a grid that a screen shows without scrolling

Pair = tuple[int, int]  # down, across: as in a shape


@dataclass(frozen=True, slots=True)
class Zoom:
    """`up` pixels a number, or one pixel for the mean of `down` numbers, along either axis."""

    up: Pair = (1, 1)
    down: Pair = (1, 1)

    def size(self, shape: Pair) -> Pair:
        """Return the pixels of a tile of this shape."""
        return (-(-shape[0] // self.down[0]) * self.up[0], -(-shape[1] // self.down[1]) * self.up[1])


@dataclass(frozen=True, slots=True)
class Axis:
    """Equal cells in a row: a label's room, a tile and a gap each, with a wider gap after every eighth."""

    tile: int
    gap: int
    lead: int = 0
    group: int = 0

    def starts(self, count: int) -> np.ndarray:
        """Return where the first `count` tiles begin."""
        places = np.arange(count)
        return places * (self.lead + self.tile + self.gap) + places // GROUP * self.group + self.lead

    def length(self, count: int) -> int:
        """Return the pixels of so many cells, without a gap after the last."""
        return int(self.starts(count)[-1]) + self.tile if count else 0

    def most(self, room: int) -> int:
        """Return how many cells have room: one at least."""
        ends = self.starts(room // (self.lead + self.tile + self.gap) + 1) + self.tile
        return max(1, int(np.count_nonzero(ends <= room)))


@dataclass(frozen=True, slots=True)
class Block:
    """Rows and columns of a grid that stand together."""

    rows: range
    columns: range


@dataclass(frozen=True, slots=True)
class Plan:
    """A grid of `columns` x `rows` cells in blocks; a page has up to `beside` blocks beside each other, of consecutive rows."""

    zoom: Zoom
    axes: tuple[Axis, Axis]  # down, across
    columns: int
    rows: int
    block_columns: int
    block_rows: int
    beside: int

    def pages(self, count: int) -> Iterator[list[Block]]:
        """Return the blocks of every page, in reading order; those that have one of the `count` tiles."""
        for row in range(0, self.rows, self.block_rows * self.beside):
            bands = [
                range(first, min(first + self.block_rows, self.rows))
                for first in range(row, min(row + self.block_rows * self.beside, self.rows), self.block_rows)
            ]
            for column in range(0, self.columns, self.block_columns):
                blocks = [Block(band, range(column, min(column + self.block_columns, self.columns))) for band in bands]
                if filled := [block for block in blocks if block.rows[0] * self.columns + column < count]:
                    yield filled


def plan(count: int, shape: Pair, columns: int | None, axes: Callable[[Pair], tuple[Axis, Axis]], room: Pair, apart: int) -> Plan:
    """Choose the largest zoom at which all tiles fit a screen, else the smallest that is readable, on as many pages as it takes.

    Args:
        count: tiles, one at least.
        shape: of a tile, in numbers.
        columns: fixed (then further rows may stand beside the first ones), or None.
        axes: the spacing for tiles of so many pixels.
        room: pixels that a page has for tiles.
        apart: pixels between two blocks beside each other.
    """
    screen = (min(room[0], COMFORTABLE[0]), min(room[1], COMFORTABLE[1]))
    zooms = list(_zooms(shape, room, free=columns is None))
    for zoom, box in [*((zoom, screen) for zoom in zooms), (zooms[-1], room)]:
        down, across = spacing = axes(zoom.size(shape))
        chosen = columns or _columns(count, spacing, box)
        rows = -(-count // chosen)
        block_rows = _balanced(rows, down.most(box[0]))
        beside = -(-rows // block_rows)
        fits = down.length(block_rows) <= box[0] and beside * (across.length(chosen) + apart) - apart <= box[1]
        if fits and (columns or beside == 1):
            return Plan(zoom, spacing, chosen, rows, chosen, block_rows, beside)
    return _paged(count, zooms[-1], spacing, columns, room, apart)


def _paged(count: int, zoom: Zoom, spacing: tuple[Axis, Axis], columns: int | None, room: Pair, apart: int) -> Plan:
    """Split over pages, each about as full as the others."""
    down, across = spacing
    most = across.most(room[1])
    chosen = columns or min(count, most - most % GROUP or most)
    rows = -(-count // chosen)
    block_columns = _balanced(chosen, most)
    beside = max(1, (room[1] + apart) // (across.length(block_columns) + apart)) if columns else 1
    return Plan(zoom, spacing, chosen, rows, block_columns, _balanced(rows, down.most(room[0])), beside)


def _balanced(count: int, most: int) -> int:
    """Return the length of equal parts, none longer than `most`; of whole groups where that makes no further part."""
    parts = -(-count // most)
    even = -(-count // parts)
    grouped = -(-even // GROUP) * GROUP
    return grouped if parts > 1 and grouped <= most else even


def _columns(count: int, spacing: tuple[Axis, Axis], box: Pair) -> int:
    """Choose columns for easy counting (eights, fours), a pleasing page (4 : 3) and few empty places; fitting comes first."""
    down, across = spacing
    most = min(count, across.most(box[1]))
    unit = 8 if count >= 32 else 4 if count >= 12 else 1

    def cost(columns: int) -> float:
        rows = -(-count // columns)
        tall, wide = down.length(rows), across.length(columns)
        return (100 if tall > box[0] else 0) + abs(math.log(wide / tall * 3 / 4)) + 2 * (rows * columns - count) / count

    return min(range(unit, most + 1, unit) or range(1, most + 1), key=cost)


def _zooms(shape: Pair, room: Pair, free: bool) -> Iterator[Zoom]:
    """Return every zoom that may be used, the largest first."""
    short, longest = sorted(shape)
    shrunk = max(-(-shape[0] // room[0]), -(-shape[1] // room[1]))
    if shrunk > 1:
        yield _shrunken(shape, shrunk, room)
        return
    largest = LONGEST if longest >= STRIP * short else LARGEST
    top = max(1, min(WEIGHT, largest // longest, room[0] // shape[0], room[1] // shape[1]))
    least = -(-READABLE // longest) if free else MOSAIC if longest < LARGE else 1
    for up in range(top, min(least, top) - 1, -1):
        yield _stretched(shape, Zoom((up, up)), room)


def _shrunken(shape: Pair, factor: int, room: Pair) -> Zoom:
    """Reduce by `factor`, along a short side less, so that a strip is not lost."""
    down = tuple(min(factor, max(1, side // THIN)) for side in shape)
    fitting = tuple(max(part, -(-side // most)) for part, side, most in zip(down, shape, room, strict=True))
    return _stretched(shape, Zoom(down=(fitting[0], fitting[1])), room)


def _stretched(shape: Pair, zoom: Zoom, room: Pair) -> Zoom:
    """Widen strips to what an eye can see."""
    size = zoom.size(shape)
    if max(size) < STRIP * min(size):
        return zoom
    up = [part * max(1, min(-(-THIN // pixels), most // pixels)) for part, pixels, most in zip(zoom.up, size, room, strict=True)]
    return Zoom((up[0], up[1]), zoom.down)


def within(shape: Pair, room: Pair) -> Zoom:
    """Return the largest zoom at which one tile fits into `room`."""
    return next(_zooms(shape, room, free=True))
