"""Histograms as small multiples on a page, in the manner of Tukey's rootogram: heights are square roots of counts.

So a single outlier is still seen beside ten thousand ordinary values, and a spike leaves something of the rest to see.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from PIL import Image

from netlens.drawing.canvas import Canvas
from netlens.drawing.colours import MAT, PAPER, palette
from netlens.drawing.grids import TALLEST, WIDEST
from netlens.drawing.text import SOFT, Paragraph, elided, font, height, width, wrapped
from netlens.wording import abbreviated

MARGIN, GAP = 24, 28  # pixels around the page, and between panels
LARGEST = ((1, 512), (6, 384), (24, 256))  # up to so many panels, each with a plot so many pixels wide,
SMALL = 192  # else this wide: all are multiples of 64, the usual number of bins
ASPECT = 0.42  # of a plot
NAME = 28  # characters of a label that fit above a plot
LOWEST = 2  # pixels of a bin that is not empty
COLOURS = ((176, 203, 228), (45, 93, 142), (246, 190, 168), (170, 30, 30))  # fill and outline of a bar; the same, alarmed
ZERO = 246  # the grey of the line at zero


@dataclass(frozen=True, slots=True)
class Panel:
    """One histogram: bins of equal width."""

    label: str
    low: float
    high: float
    counts: Sequence[int]
    note: str = ""  # below the label: "std 0.021 · ×1.4 of its initialisation"
    alarm: bool = False  # a finding is about it: marked, not by colour alone


@dataclass(frozen=True, slots=True)
class _Layout:
    """Sizes of a page in pixels."""

    plot: tuple[int, int]  # down, across
    columns: int
    rows: int  # of a page
    cell: tuple[int, int]  # down, across, gaps included
    head: int  # above the plot: label and note


def histograms(title: str, panels: Sequence[Panel], *, subtitle: str = "") -> list[Image.Image]:
    """Draw one small histogram a panel, in reading order; several pages where one would get too tall.

    A bin is as high as the square root of its count; the highest fills the plot, and one that is not empty is two pixels high at least.
    """
    layout = _layout(len(panels))
    most = layout.columns * layout.rows
    names = abbreviated([panel.label for panel in panels], NAME)
    panels = [replace(panel, label=name) for panel, name in zip(panels, names, strict=True)]
    pages = [panels[start : start + most] for start in range(0, max(len(panels), 1), most)]
    return [
        _page(title, page, f"page {number} of {len(pages)} · {subtitle}" if len(pages) > 1 else subtitle, layout)
        for number, page in enumerate(pages, 1)
    ]


def heights(counts: Sequence[int], size: tuple[int, int]) -> np.ndarray:
    """Return the height of the bars in whole pixels, 0..size[0], at each of size[1] columns of pixels."""
    roots = np.sqrt(np.asarray(counts, np.float64))
    tall = np.rint(roots / roots.max() * size[0]).astype(int)
    return np.where(roots > 0, np.maximum(tall, LOWEST), 0)[np.arange(size[1]) * len(tall) // size[1]]


def _layout(count: int) -> _Layout:
    """Choose the size of plots by how many there are, and spread them evenly over as few pages as it takes."""
    wide = next((size for most, size in LARGEST if count <= most), SMALL)
    down = round(wide * ASPECT)
    head = height(font(13)) + height(font(11)) + 6
    cell = (head + down + height(font(11)) + 4 + GAP, wide + GAP)
    fitting = (WIDEST - 2 * MARGIN + GAP) // cell[1]
    most_rows = (TALLEST - 2 * MARGIN - 110) // cell[0]
    columns = min(fitting, max(1, count))
    if count <= LARGEST[-1][0]:
        columns = min(columns, max(1, round((count * 1.3) ** 0.5)))
    rows = -(-count // columns)
    return _Layout((down, wide), columns, max(1, -(-rows // -(-rows // most_rows))) if rows else 1, cell, head)


def _page(title: str, panels: Sequence[Panel], subtitle: str, layout: _Layout) -> Image.Image:
    room = max(layout.columns * layout.cell[1] - GAP, 480)
    heading = Paragraph(wrapped(title, font(18, bold=True), room, 2), font(18, bold=True))
    below = Paragraph(wrapped(subtitle, font(12), room, 3), font(12), SOFT)
    top = MARGIN + heading.height + below.height + 16
    rows = -(-len(panels) // layout.columns)
    canvas = Canvas(room + 2 * MARGIN, top + rows * layout.cell[0] - GAP + MARGIN, _colours())
    canvas.paragraph(MARGIN, canvas.paragraph(MARGIN, MARGIN, heading), below)
    for index, panel in enumerate(panels):
        row, column = divmod(index, layout.columns)
        _panel(canvas, MARGIN + column * layout.cell[1], top + row * layout.cell[0], panel, layout)
    return canvas.image()


def _panel(canvas: Canvas, x: int, y: int, panel: Panel, layout: _Layout) -> None:
    """Draw one panel with its top left corner at (x, y): label, note, plot, and numbers below it."""
    down, across = layout.plot
    label, note, small = font(13, bold=panel.alarm), font(11), font(11)
    canvas.write(x, y, elided(f"! {panel.label}" if panel.alarm else panel.label, label, across), label)
    canvas.write(x, y + height(label), elided(panel.note, note, across), note, SOFT)
    bottom = y + layout.head + down
    if not sum(panel.counts):
        canvas.write(x, bottom - height(small), "no finite values", small, SOFT)
        return
    canvas.paste(x, y + layout.head, plot(panel, layout.plot))
    _axis(canvas, x, bottom + 3, panel, across)


def plot(panel: Panel, size: tuple[int, int]) -> np.ndarray:
    """Draw the bars of one panel, with their outline: palette indices (down, across); the last row is the base line."""
    down, across = size
    counts = panel.counts if panel.low < panel.high else (*[0] * 32, sum(panel.counts), *[0] * 32)  # of one value: in the middle
    tall = heights(counts, (down - 1, across))
    above = np.arange(down - 1, 0, -1)[:, None]  # how high the upper edge of each row of pixels is
    beside = np.pad(tall, 1)
    inside = above <= np.minimum(tall - 1, np.minimum(beside[:-2], beside[2:]))  # all but the outline
    pixels = np.full(size, MAT, np.uint8)
    pixels[:-1] = np.where(above <= tall, np.where(inside, 0, 1) + 2 * panel.alarm, PAPER)
    if (zero := _zero(panel, across)) is not None:
        pixels[::4, zero] = pixels[1::4, zero] = ZERO
    return pixels


def _zero(panel: Panel, across: int) -> int | None:
    """Return the column of pixels where 0 is."""
    return min(int(across * -panel.low / (panel.high - panel.low)), across - 1) if panel.low < 0 < panel.high else None


def _axis(canvas: Canvas, x: int, y: int, panel: Panel, across: int) -> None:
    """Write both ends of the range, and 0 where there is room for it."""
    small = font(11)
    left, right = number(panel.low), number(panel.high)
    if panel.low == panel.high:
        canvas.write(x + (across - width(left, small)) // 2, y, left, small, SOFT)
        return
    ends = (x + width(left, small), x + across - width(right, small))
    canvas.write(x, y, left, small, SOFT)
    canvas.write(ends[1], y, right, small, SOFT)
    if (zero := _zero(panel, across)) is not None:
        place = x + zero - width("0", small) // 2
        if ends[0] + 6 < place < ends[1] - 6 - width("0", small):
            canvas.write(place, y, "0", small, SOFT)


def number(value: float) -> str:
    """Write two significant digits: -0.031, 1.2e-07, 130."""
    rounded = float(f"{value:.1e}")
    return f"{rounded:g}" if rounded and not 1e-4 <= abs(rounded) < 1e5 else np.format_float_positional(rounded, trim="-")


@cache
def _colours() -> np.ndarray:
    """Return the palette of the page: the colours of bars, and the greys of every page."""
    colours = palette(True).copy()
    colours[: len(COLOURS)] = COLOURS
    return colours
