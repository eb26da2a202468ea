"""Numbers against the depth of a network: layers run downwards, so that their names can be read; a column of the plot is a statistic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, isfinite, log10

import numpy as np
from PIL import Image, ImageDraw

from netlens.drawing.canvas import Canvas
from netlens.drawing.captions import Captions, joined, significant
from netlens.drawing.text import SOFT, elided, font, height, width
from netlens.drawing.tiles import TALLEST

PITCH = (2, 24)  # pixels of a layer, at least and at most
WIDE, APART = 210, 24  # pixels of a column, and between two
NAME, WORD = 260, 200  # pixels of a name and of a remark, at most
INSET = 8  # pixels inside a column before its scale begins and after it ends
SHARPER = 3  # lines are drawn so many times larger, and reduced
DOTTED = 6  # pixels of a layer from which on each has a dot
TICKS = 5  # of a scale, at most
LINE, ALARM, GREY, FAINT, GROUND = (45, 93, 142), (190, 30, 30), (165, 165, 165), (226, 226, 226), (250, 250, 250)
BAND = (252, 228, 222)  # behind a marked layer


@dataclass(frozen=True, slots=True)
class Column:
    """One statistic of every layer; None where a layer has none."""

    heading: str
    values: Sequence[float | None]
    log: bool = False  # on a scale of powers of ten, what is 0 at the very left; else a share of 0..1, in percent
    ceiling: Sequence[float] | None = None  # what no value exceeds, in grey


@dataclass(frozen=True, slots=True)
class Axis:
    """A scale across a column."""

    low: float
    high: float
    log: bool
    ticks: tuple[tuple[float, str], ...]

    @classmethod
    def of(cls, column: Column) -> Axis:
        """Choose round ends, and ticks between them."""
        if not column.log:
            return cls(0, 1, False, ((0, "0"), (0.5, "50 %"), (1, "100 %")))
        found = [value for value in (*column.values, *(column.ceiling or ())) if value is not None and isfinite(value)]
        powers = [log10(value) for value in found if value > 0] or [0.0]
        low = min(floor(min(powers)), 307)
        high = max(min(ceil(max(powers)), 308), low + 1)  # 1e309 is no float
        step = ceil((high - low) / (TICKS - 1))
        return cls(low, high, True, tuple((10.0**power, significant(10.0**power)) for power in range(low, high + 1, step)))

    def place(self, value: float) -> float:
        """Return where a number stands, in pixels from the left of the column."""
        if self.log and value <= 0:
            return 2.0
        share = ((log10(value) if self.log else value) - self.low) / (self.high - self.low)
        return INSET + share * (WIDE - 2 * INSET)


def depth_plot(
    title: str, names: Sequence[str], columns: Sequence[Column], *, subtitle: str = "", marks: Mapping[int, str] | None = None
) -> Image.Image:
    """Plot statistics of layers beside each other, downwards with depth.

    Names are left out evenly where they would collide, those of marked layers last.

    Args:
        title: of the page.
        names: of the layers.
        columns: the statistics, a value for each layer.
        subtitle: below the title.
        marks: layer's place -> a word; these have a band, a "!" and bold letters.
    """
    marks = marks or {}
    pitch = min(max((TALLEST - 220) // max(len(names), 1), PITCH[0]), PITCH[1])
    small, line = font(11), height(font(11))
    labels = [f"! {name}" if index in marks else name for index, name in enumerate(names)]
    left = min(NAME, max((width(label, font(11, bold=True)) for label in labels), default=0)) + 12
    right = min(WORD, max((width(word, small) for word in marks.values()), default=-18) + 18)
    axes = [Axis.of(column) for column in columns]
    tall, wide = len(names) * pitch, left + len(columns) * (WIDE + APART) - APART + max(right, 0)

    def draw(canvas: Canvas, x: int, y: int) -> None:
        y += 2 * line + 4
        for index in marks:
            canvas.paste(x, y + index * pitch, np.full((pitch, wide, 3), BAND, np.uint8))
        for place, (column, axis) in enumerate(zip(columns, axes, strict=True)):
            start = x + left + place * (WIDE + APART)
            canvas.write(start, y - 2 * line - 4, elided(column.heading, font(11, bold=True), WIDE), font(11, bold=True))
            canvas.paste(start, y, _curve(column, axis, pitch, marks))
            for top in (y - line - 1, y + tall + 3):
                _write_ticks(canvas, start, top, axis)
        for index in _legible(len(names), pitch, line, marks):
            top = y + index * pitch + (pitch - line) // 2
            face = font(11, bold=index in marks)
            canvas.write(x, top, elided(labels[index], face, left - 12), face)
            if index in marks:
                canvas.write(x + wide - right + 12, top, elided(marks[index], small, right - 12), small)

    zeros = any(column.log and any(value == 0 for value in column.values) for column in columns)
    foot = joined("at the very left, hollow: exactly 0" if zeros else "", "!: a finding is about it" if marks else "")
    return Captions(title, subtitle, foot).page((tall + 3 * line + 10, wide), draw, None)


def _legible(count: int, pitch: int, line: int, marks: Mapping[int, str]) -> list[int]:
    """Choose the names that are written: marked ones first, then every one, every 2nd, 4th ... none upon another."""
    step = 1
    while step * pitch < line - 1:
        step *= 2
    chosen: list[int] = []
    for index in (*sorted(marks), *range(0, count, step)):
        if all(abs(index - other) * pitch >= line - 1 for other in chosen):
            chosen.append(index)
    return chosen


def _write_ticks(canvas: Canvas, x: int, y: int, axis: Axis) -> None:
    small = font(10)
    for value, text in axis.ticks:
        place = round(axis.place(value) - width(text, small) / 2)
        canvas.write(x + min(max(place, 0), WIDE - width(text, small)), y, text, small, SOFT)


def _curve(column: Column, axis: Axis, pitch: int, marks: Mapping[int, str]) -> np.ndarray:
    """Draw one column, (layers * pitch, WIDE, 3)."""
    tall = len(column.values) * pitch
    image = Image.new("RGB", (WIDE * SHARPER, max(tall, 1) * SHARPER), GROUND)
    pen = ImageDraw.Draw(image)
    for index in marks:
        pen.rectangle((0, index * pitch * SHARPER, WIDE * SHARPER, (index + 1) * pitch * SHARPER - 1), BAND)
    for value, _ in axis.ticks:
        across = axis.place(value) * SHARPER
        pen.line((across, 0, across, image.height), FAINT, SHARPER)
    points = _points(column.values, axis, pitch)
    for line, colour, thick in ((_points(column.ceiling or (), axis, pitch), GREY, SHARPER), (points, LINE, 2 * SHARPER - 1)):
        if len(line) > 1:
            pen.line([point for _, _, point in line], colour, thick, joint="curve")
    for index, value, (across, down) in points:
        if pitch >= DOTTED or index in marks or len(points) == 1:
            size = (3.5 if index in marks else 2.5) * SHARPER
            colour = ALARM if index in marks else LINE
            hollow = axis.log and value <= 0
            pen.ellipse((across - size, down - size, across + size, down + size), GROUND if hollow else colour, colour, SHARPER)
    return np.asarray(image.reduce(SHARPER))[:tall]


def _points(values: Sequence[float | None], axis: Axis, pitch: int) -> list[tuple[int, float, tuple[float, float]]]:
    """Return the places of the finite values, enlarged."""
    return [
        (index, value, (axis.place(value) * SHARPER, (index + 0.5) * pitch * SHARPER))
        for index, value in enumerate(values)
        if value is not None and isfinite(value)
    ]
