"""The contact sheet: a short strip of tiles of every section, all on one page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np
from PIL import Image

from netlens.drawing.canvas import Canvas
from netlens.drawing.captions import MARGIN, Bar, Captions, joined, reserved, scale_bar, significant
from netlens.drawing.colours import palette
from netlens.drawing.escapes import harmless
from netlens.drawing.layout import Axis, within
from netlens.drawing.paint import Painter, place
from netlens.drawing.text import SOFT, elided, font, height, width
from netlens.drawing.tiles import TALLEST, WIDEST, Grid
from netlens.wording import abbreviated

MANY, TALLER = 200, 4000  # with more sections than that, a sheet may be so tall
SIDES = (56, 48, 40, 32, 26, 20, 16, 12, 8)  # pixels of a tile, the best first
NAME = 22  # characters of a layer in a title
NARROW, BETWEEN = 230, 20  # pixels of a section at least, and between two beside each other


@dataclass(frozen=True, slots=True)
class _Form:
    """How sections stand: in so many columns, each section with so many lines of tiles."""

    columns: int
    rows: int
    side: int  # pixels of a tile
    lines: int
    width: int  # pixels of a section

    @property
    def height(self) -> int:
        """Pixels of a section, with the space below it."""
        return height(font(11)) + 2 + self.lines * (self.side + self.gap) + self.below

    @property
    def gap(self) -> int:
        """Pixels between tiles."""
        return max(1, self.side // 16)

    @property
    def below(self) -> int:
        """Pixels below a section."""
        return max(4, self.side // 4)

    @classmethod
    def choose(cls, count: int, tallest: int, widest: int) -> _Form:
        """Choose the largest tiles, then two lines of them, then few columns; `rows` is less than needed where nothing fits."""
        most = max(1, (widest + BETWEEN) // (NARROW + BETWEEN))
        for side in SIDES:
            for lines in (2, 1):
                for columns in range(1, most + 1):
                    form = cls(columns, -(-count // columns), side, lines, (widest + BETWEEN) // columns - BETWEEN)
                    if form.rows * form.height <= tallest:
                        return form
        return replace(form, rows=max(1, tallest // form.height))


@dataclass(frozen=True, slots=True)
class _Strip:
    """The first tiles of a section, as pixels."""

    section: Grid
    count: int  # tiles that are shown
    pixels: np.ndarray
    rgb: bool
    remarks: tuple[str, ...]

    @classmethod
    def of(cls, section: Grid, form: _Form) -> _Strip:
        """Take as many tiles as there is room for."""
        tiles = section.tiles
        count, tall, wide = tiles.values.shape[:3]
        lines = form.lines * (form.side + form.gap) - form.gap
        zoom = within((tall, wide), (lines, form.width - 2) if count == 1 else (form.side, min(4 * form.side, form.width - 2)))
        apart = form.gap if tiles.gaps is None else form.gap + 8  # filters are further apart than the panels of one
        down, across = (Axis(side, gap) for side, gap in zip(zoom.size((tall, wide)), (form.gap, apart), strict=True))
        columns = min(count, across.most(form.width - 2))
        shown = min(count, columns * down.most(lines))
        painter = Painter.of(replace(tiles, values=tiles.values[:shown]), section.scale, zoom)
        painted = painter.paint(slice(None))
        remarks = [*painter.remarks(slice(None), painted), "large tiles are reduced to means" if max(zoom.down) > 1 else ""]
        return cls(section, shown, place(painted, columns, (down, across), zoom), painter.rgb, tuple(remarks))

    @property
    def height(self) -> int:
        """Pixels of the title and the tiles."""
        return height(font(11)) + len(self.pixels)

    def draw(self, canvas: Canvas, x: int, y: int, room: int, in_rgb: bool) -> None:
        """Draw the title and the tiles."""
        face = font(11)
        note = self._note(max(room - width(self.section.title, face), room // 4) - 10)
        title = elided(self.section.title, face, room - width(note, face) - 10)
        canvas.write(x, y, title, face)
        canvas.write(x + width(title, face) + 10, y, note, face, SOFT)
        colours = palette(self.section.scale.signed)
        canvas.paste(x, y + height(face), colours[self.pixels] if in_rgb and not self.rgb else self.pixels)

    def _note(self, room: int) -> str:
        """Say as much about the section as there is room for: above all, how far its scale goes."""
        total, scale = len(self.section.tiles.values), self.section.scale
        note = "" if scale.limit is None else ("±" if scale.signed else "0 to ") + significant(scale.limit)
        for further in (f"{self.count:,} of {total:,}" if self.count < total else "", harmless(self.section.subtitle)):
            longer = joined(further, note)
            note = longer if width(longer, font(11)) <= room else note
        return note


def _shortly_named(sections: list[Grid]) -> list[Grid]:
    """Shorten names of layers, in all titles alike, so that what follows them is not cut off: "layer3.0.conv1 · 64 × 3 × 3"."""
    parts = [section.title.partition(" · ") for section in sections]
    names = abbreviated([name for name, _, _ in parts], NAME)
    return [replace(section, title=f"{name}{dot}{rest}") for section, name, (_, dot, rest) in zip(sections, names, parts, strict=True)]


def contact_sheet(title: str, sections: list[Grid], *, subtitle: str = "", widest: int = WIDEST, tallest: int = TALLEST) -> Image.Image:
    """Draw a short strip of each section below one another, on one page; small tiles, every section titled, few or many sections.

    Labels, footnotes and fixed columns of the sections are left out. With more than 200 sections it may be 4,000 pixels tall.
    """
    filled = _shortly_named([section for section in sections if np.size(section.tiles.values)])
    tallest = max(tallest, TALLER) if len(filled) > MANY else tallest
    form = _Form.choose(len(filled), max(64, tallest - reserved(3)), max(64, widest - 2 * MARGIN))
    strips = [_Strip.of(section, form) for section in filled[: form.rows * form.columns]]
    pitch = BETWEEN + min(form.width, max((max(NARROW, strip.pixels.shape[1]) for strip in strips), default=0))
    kinds = {(strip.rgb, strip.section.scale.signed) for strip in strips}
    colours = palette(strips[0].section.scale.signed) if len(kinds) == 1 and not strips[0].rgb else None

    columns = [strips[first : first + form.rows] for first in range(0, len(strips), max(form.rows, 1))]

    def tops(column: Sequence[_Strip]) -> list[int]:
        return [0, *accumulate(strip.height + form.below for strip in column)]

    def draw(canvas: Canvas, x: int, y: int) -> None:
        for column, below in enumerate(columns):
            for strip, top in zip(below, tops(below), strict=False):
                strip.draw(canvas, x + column * pitch, y + top, pitch - BETWEEN, colours is None)

    bars, scales = _scales([strip for strip in strips if strip.section.tiles.values.dtype != np.uint8], colours is None)  # a photo has none
    left_out = f"the first {len(strips):,} of {len(filled):,}" if len(strips) < len(filled) else ""
    remarks = joined(*dict.fromkeys(remark for strip in strips for remark in strip.remarks)) if strips else "there is nothing to show"
    body = (max(tops(column)[-1] for column in columns) - form.below, len(columns) * pitch - BETWEEN) if strips else (0, 0)
    return Captions(title, joined(subtitle, left_out, scales), remarks, bars).page(body, draw, colours)


def _scales(strips: Sequence[_Strip], in_rgb: bool) -> tuple[list[Bar], str]:
    """Return a colour bar for each kind of scale, and the words that say whose scale it is."""
    limits = {strip.section.scale.limit for strip in strips}
    kinds = {(strip.rgb, strip.section.scale.signed): strip.section.scale for strip in strips}
    if len(limits) > 1:
        bars = [scale_bar(replace(scale, limit=None), rgb, "limit", "beside each title") for (rgb, _), scale in kinds.items()]
        words = "each layer its own scale"
    else:
        bars = [scale_bar(scale, rgb) for (rgb, _), scale in kinds.items()]
        words = "each tile its own scale" if limits == {None} else "one scale for all" if limits else ""
    return [bar.in_rgb(palette(scale.signed)) if in_rgb else bar for bar, scale in zip(bars, kinds.values(), strict=True)], words
