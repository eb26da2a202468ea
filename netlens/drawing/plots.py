"""Numbers against the depth of a network: layers run downwards, so that their names can be read; a column of the plot is a statistic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from netlens.drawing.axes import INSET, WIDE, Axis, Column
from netlens.drawing.canvas import Canvas
from netlens.drawing.captions import Captions, joined, significant
from netlens.drawing.rows import BAND, PITCH, Rows
from netlens.drawing.text import SOFT, elided, font, height, width

__all__ = ["PITCH", "Axis", "Column", "depth_plot"]

APART = 24  # pixels between two columns
SHARPER = 3  # lines are drawn so many times larger, and reduced
DOTTED = 6  # pixels of a layer from which on each has a dot, and lines are strong
LINE, ALARM, GREY, FAINT, GROUND = (45, 93, 142), (190, 30, 30), (165, 165, 165), (226, 226, 226), (250, 250, 250)
BAR, HEALTHY, GUIDE, NOTHING = (176, 203, 228), (226, 240, 226), (90, 140, 90), (232, 232, 232)  # NOTHING: where a number is missing


def depth_plot(
    title: str,
    names: Sequence[str],
    columns: Sequence[Column],
    *,
    subtitle: str = "",
    footnote: str = "",
    marks: Mapping[int, str] | None = None,
    wide: int = WIDE,
) -> Image.Image:
    """Plot statistics of layers beside each other, downwards with depth.

    Names are left out evenly where they would collide, those of marked layers last.

    Args:
        title: of the page.
        names: of the layers.
        columns: the statistics, a value for each layer.
        subtitle: below the title.
        footnote: below the plot.
        marks: layer's place -> a word; these have a band, a "!" and bold letters.
        wide: pixels of a column.
    """
    rows, line = Rows.of(names, marks or {}), height(font(11))
    plots = [_Plot(column, Axis.of(column), rows, wide) for column in columns]
    across = rows.left + len(columns) * (wide + APART) - APART + rows.right

    def draw(canvas: Canvas, x: int, y: int) -> None:
        y += 2 * line + 4
        rows.write(canvas, x, y, across)
        for place, plot in enumerate(plots):
            plot.write(canvas, x + rows.left + place * (wide + APART), y)

    zeros = any(column.log and 0 in column.values for column in columns)
    gaps = ", ".join(dict.fromkeys(word for column in columns for _, _, word in column.gaps()))
    foot = joined(
        "at the very left, hollow: exactly 0" if zeros else "",
        f"on grey ground: {gaps}" if gaps else "",
        footnote,
        "!: a finding is about it" if marks else "",
    )
    return Captions(title, subtitle, foot).page((rows.tall + 3 * line + 10, across), draw, None)


Point = tuple[int, float, tuple[float, float]]  # place of the layer, its number, and where it stands, enlarged


@dataclass(frozen=True, slots=True)
class _Plot:
    """One column on a page."""

    column: Column
    axis: Axis
    rows: Rows
    wide: int

    def place(self, value: float) -> float:
        """Return where a number stands, in pixels from the left of the column."""
        return self.axis.place(value, self.wide)

    def write(self, canvas: Canvas, x: int, y: int) -> None:
        """Draw the column, its heading and its scale; (x, y) is the corner of its first layer."""
        line, bold = height(font(11)), font(11, bold=True)
        canvas.write(x, y - 2 * line - 4, elided(self.column.heading, bold, self.wide), bold)
        canvas.paste(x, y, self._pixels())
        for top in (y - line - 1, y + self.rows.tall + 3):
            self._ticks(canvas, x, top)
        for start, end, word in self.column.gaps():
            if (end - start) * self.rows.pitch >= line:
                down = y + ((start + end) * self.rows.pitch - line) // 2
                canvas.write(x + (self.wide - width(word, font(11))) // 2, down, word, font(11), SOFT)
        for index, value in enumerate(self.column.values if self.column.bars else ()):
            if value is not None:
                canvas.write(x + INSET + 4, y + index * self.rows.pitch + (self.rows.pitch - line) // 2, significant(value), font(11))

    def _ticks(self, canvas: Canvas, x: int, y: int) -> None:
        small = font(10)
        for value, text in self.axis.ticks:
            place = round(self.place(value) - width(text, small) / 2)
            canvas.write(x + min(max(place, 0), self.wide - width(text, small)), y, text, small, SOFT)

    def _pixels(self) -> np.ndarray:
        """Draw the column, (layers * pitch, wide, 3)."""
        image = Image.new("RGB", (self.wide * SHARPER, max(self.rows.tall, 1) * SHARPER), GROUND)
        pen = ImageDraw.Draw(image)
        self._ground(pen, image.height)
        points = self._points(self.column.values)
        if self.column.bars:
            self._bars(pen, points)
        else:
            self._curve(pen, self._points(self.column.ceiling), GREY, SHARPER + 1)
            self._curve(pen, points, LINE, 2 * SHARPER - 1 if self.rows.pitch >= DOTTED else SHARPER)
            self._dots(pen, points)
        return np.asarray(image.reduce(SHARPER))[: self.rows.tall]

    def _ground(self, pen: ImageDraw.ImageDraw, tall: int) -> None:
        pitch, right = self.rows.pitch * SHARPER, self.wide * SHARPER
        if self.column.healthy:
            low, high = (self.place(value) * SHARPER for value in self.column.healthy)
            pen.rectangle((low, 0, high, tall), HEALTHY)
        for index in self.rows.marks:
            pen.rectangle((0, index * pitch, right, (index + 1) * pitch - 1), BAND)
        for start, end, _ in self.column.gaps():
            pen.rectangle((0, start * pitch, right, end * pitch - 1), NOTHING)
        for value, _ in self.axis.ticks:
            across = self.place(value) * SHARPER
            pen.line((across, 0, across, tall), FAINT, SHARPER)
        if self.column.guide is not None:
            across = self.place(self.column.guide) * SHARPER
            for top in range(0, tall, 8 * SHARPER):
                pen.line((across, top, across, top + 4 * SHARPER), GUIDE, SHARPER)

    def _curve(self, pen: ImageDraw.ImageDraw, points: Sequence[Point], colour: tuple[int, int, int], thick: int) -> None:
        line = [place for _, _, place in points]
        if len(line) > 1:
            pen.line(line, colour, thick, joint="curve")

    def _dots(self, pen: ImageDraw.ImageDraw, points: Sequence[Point]) -> None:
        for index, value, (across, down) in points:
            marked = index in self.rows.marks
            if self.rows.pitch >= DOTTED or marked or len(points) == 1:
                size, colour = (3.5 * SHARPER, ALARM) if marked else (2.5 * SHARPER, LINE)
                hollow = self.axis.log and value <= 0
                pen.ellipse((across - size, down - size, across + size, down + size), GROUND if hollow else colour, colour, SHARPER)

    def _bars(self, pen: ImageDraw.ImageDraw, points: Sequence[Point]) -> None:
        start, half = self.place(0) * SHARPER, self.rows.pitch * SHARPER * 0.36
        for _, _, (across, down) in points:
            pen.rectangle((min(start, across), down - half, max(start, across), down + half), BAR, LINE)

    def _points(self, values: Sequence[float | None]) -> list[Point]:
        return [
            (index, value, (self.place(value) * SHARPER, (index + 0.5) * self.rows.pitch * SHARPER))
            for index, value in enumerate(values)
            if value is not None and np.isfinite(value)
        ]
