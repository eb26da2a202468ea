"""What stands around tiles on a page: title, colour bars and footnote, and the page that holds them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from netlens.drawing.canvas import Canvas
from netlens.drawing.colours import LEVELS, MAT, palette
from netlens.drawing.layout import Zoom
from netlens.drawing.text import SOFT, Paragraph, elided, font, height, width, wrapped
from netlens.drawing.tiles import Scale

MARGIN, SPACE = 20, 14
NARROWEST = 540  # pixels inside the margins: room for a title and a colour bar
BAR, STROKE = 255, 12  # pixels of a colour bar


@dataclass(frozen=True, slots=True)
class Bar:
    """A colour bar, and what stands below it at both ends and in between."""

    colours: np.ndarray  # from left to right, (steps,) palette indices or (steps, 3)
    marks: tuple[str, str, str]
    note: str  # at its right

    def in_rgb(self, colours: np.ndarray) -> Bar:
        """Return the same for a page without a palette."""
        return self if self.colours.ndim == 2 else replace(self, colours=colours[self.colours])

    def draw(self, canvas: Canvas, x: int, y: int, room: int) -> None:
        """Draw it; it is `bar_height()` tall and `room` wide at most."""
        face, steps = font(11), len(self.colours)
        frame = np.full((STROKE + 2, steps + 2), MAT, np.uint8)
        block = frame if self.colours.ndim == 1 else palette(True)[frame]
        block[1:-1, 1:-1] = self.colours
        canvas.paste(x, y, block)
        for mark, share in zip(self.marks, (0, 0.5, 1), strict=True):
            canvas.write(x + round(share * (steps + 2 - width(mark, face))), y + STROKE + 4, mark, face)
        canvas.write(x + steps + 12, y, elided(self.note, face, room - steps - 12), face, SOFT)


def bar_height() -> int:
    """Return the pixels of a colour bar with its marks."""
    return STROKE + 6 + height(font(11))


def scale_bar(scale: Scale, rgb: bool, end: str = "max", meaning: str = "") -> Bar:
    """Return the colour bar of a scale; where that has no one limit, it says `end` and what that means instead of a number."""
    meaning = meaning or f"largest {'|value|' if scale.signed else 'value'} of each tile"
    notes = joined(scale.unit, "each of R, G, B" if rgb else "", f"{end}: {meaning}" if scale.limit is None else "")
    end = end if scale.limit is None else significant(scale.limit)
    colours = np.arange(1, 256)[:, None].repeat(3, axis=1) if rgb else np.arange(LEVELS)
    return Bar(colours.astype(np.uint8), (f"−{end}", "0", f"+{end}") if scale.signed else ("0", "", end), notes)


def significant(number: float) -> str:
    """Write three significant digits: 0.0123, 1.23e-7."""
    mantissa, _, exponent = f"{number:.3g}".partition("e")
    return f"{mantissa}e{int(exponent)}" if exponent else mantissa


@dataclass(frozen=True, slots=True)
class Captions:
    """The words and the bars of one page."""

    title: str
    subtitle: str = ""
    footnote: str = ""
    bars: Sequence[Bar] = ()

    def page(self, body: tuple[int, int], draw: Callable[[Canvas, int, int], None], colours: np.ndarray | None) -> Image.Image:
        """Draw a page around a body of so many pixels (down, across), which `draw` puts where it is told."""
        inner = max(body[1], NARROWEST)
        heading, footing = self._heading(inner), self._footing(inner)
        bars = len(self.bars) * (bar_height() + 6)
        tall = 2 * MARGIN + sum(part.height for part in (*heading, footing)) + body[0] + bars + 2 * SPACE
        canvas = Canvas(inner + 2 * MARGIN, tall, colours)
        y = MARGIN
        for paragraph in heading:
            y = canvas.paragraph(MARGIN, y, paragraph)
        y += SPACE
        draw(canvas, MARGIN, y)
        y += body[0] + SPACE
        for bar in self.bars:
            bar.draw(canvas, MARGIN, y, inner)
            y += bar_height() + 6
        canvas.paragraph(MARGIN, y, footing)
        return canvas.image()

    def _heading(self, room: int) -> list[Paragraph]:
        large, small = font(16, bold=True), font(12)
        return [
            Paragraph(wrapped(self.title, large, room, 2), large),
            Paragraph(wrapped(self.subtitle, small, room, 3), small, SOFT),
        ]

    def _footing(self, room: int) -> Paragraph:
        return Paragraph(wrapped(self.footnote, font(11), room, 6), font(11), SOFT)


def reserved(bars: int) -> int:
    """Return the pixels down that captions may take at most, margins included."""
    lines = 2 * (height(font(16, bold=True)) + 2) + 3 * (height(font(12)) + 2) + 6 * (height(font(11)) + 2)
    return 2 * MARGIN + 2 * SPACE + lines + bars * (bar_height() + 6)


def reduction(zoom: Zoom) -> str:
    """Say how far tiles are reduced, if they are."""
    return f"every pixel is the mean of {zoom.down[0]} × {zoom.down[1]}" if max(zoom.down) > 1 else ""


def joined(*parts: str) -> str:
    """Put what is not empty behind one another."""
    return " · ".join(filter(None, parts))
