"""A number that changes from step to step, as one curve, with lines and ranges that say how to read it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from math import isfinite

import numpy as np
from PIL import Image, ImageDraw

from netlens.drawing.axes import Axis, finite
from netlens.drawing.canvas import Canvas
from netlens.drawing.captions import Captions
from netlens.drawing.plots import FAINT, GROUND, GUIDE, HEALTHY, LINE, SHARPER
from netlens.drawing.text import SOFT, elided, font, height, width

SIZE = (340, 640)  # pixels down and across
LABEL = 170  # pixels of the words beside a level, at most
DOTTED = 60  # points up to which each has a dot
OUTSIDE = 20  # times the height of a plot: as far up a curve is followed
FAR = 100  # numbers so many times apart are shown on a scale of powers of ten


@dataclass(frozen=True, slots=True)
class Curve:
    """What is plotted."""

    x: Sequence[float]
    y: Sequence[float]  # those that are not finite are left out
    x_name: str
    y_name: str
    log_x: bool = False
    levels: Sequence[tuple[float, str]] = ()  # heights at which a dashed line stands, and what each means
    span: tuple[float, float, str] | None = None  # a range of x that is shaded, and what it means
    at: tuple[float, str] | None = None  # an x at which a dashed line stands, and what it means
    limit: float | None = None  # a curve that is higher leaves the plot

    def axes(self) -> tuple[Axis, Axis]:
        """Choose scales for x and y that hold all that is drawn."""
        along = finite(self.x)
        most = float("inf") if self.limit is None else self.limit
        up = [min(value, most) for value in finite((*self.y, *(height for height, _ in self.levels)))]
        far = bool(up) and min(up) > 0 and max(up) > FAR * min(up)
        near_zero = bool(up) and 0 <= min(up) < 0.5 * max(up)
        upright = Axis.of_powers(up) if far else Axis.linear([*up, 0.0] if near_zero else up)
        return Axis.of_powers(along) if self.log_x else Axis.linear(along, tight=True), upright


def curve_plot(title: str, curve: Curve, *, subtitle: str = "", footnote: str = "") -> Image.Image:
    """Plot one curve; y has a logarithmic scale where its numbers are 100 times apart."""
    small, line = font(11), height(font(11))
    across, up = curve.axes()
    left = max(width(text, small) for _, text in up.ticks) + 8
    beside = max((min(LABEL, width(word, small)) for _, word in curve.levels), default=0)
    above = (1 + bool(curve.at) + bool(curve.span)) * line + 6

    def draw(canvas: Canvas, x: int, y: int) -> None:
        canvas.write(x, y, curve.y_name, font(11, bold=True))
        corner = (x + left, y + above)
        canvas.paste(*corner, _pixels(curve, across, up))
        _write_ticks(canvas, corner, across, up)
        room = width(curve.x_name, font(11, bold=True))
        canvas.write(corner[0] + (SIZE[1] - room) // 2, corner[1] + SIZE[0] + line + 6, curve.x_name, font(11, bold=True))
        _write_levels(canvas, corner, curve.levels, up)
        _write_above(canvas, corner, curve, across)

    return Captions(title, subtitle, footnote).page((above + SIZE[0] + 2 * line + 8, left + SIZE[1] + beside + 10), draw, None)


def _write_ticks(canvas: Canvas, corner: tuple[int, int], across: Axis, up: Axis) -> None:
    small, line, (x, y) = font(11), height(font(11)), corner
    for value, text in across.ticks:
        canvas.write(x + round(across.place(value, SIZE[1]) - width(text, small) / 2), y + SIZE[0] + 3, text, small, SOFT)
    for value, text in up.ticks:
        canvas.write(x - 6 - width(text, small), y + round(SIZE[0] - up.place(value, SIZE[0]) - line / 2), text, small, SOFT)


def _write_levels(canvas: Canvas, corner: tuple[int, int], levels: Sequence[tuple[float, str]], up: Axis) -> None:
    """Write what each level means at its right, none upon another."""
    line, (x, y) = height(font(11)), corner
    lowest = y - line
    for top, word in sorted((round(y + SIZE[0] - up.place(value, SIZE[0]) - line / 2), word) for value, word in levels):
        lowest = max(top, lowest + line)
        canvas.write(x + SIZE[1] + 6, lowest, elided(word, font(11), LABEL), font(11))


def _write_above(canvas: Canvas, corner: tuple[int, int], curve: Curve, across: Axis) -> None:
    """Write what the line and the range mean above them, the one nearer to the plot."""
    line, (x, y) = height(font(11)), corner
    words = [curve.at] if curve.at else []
    if curve.span:
        low, high, word = curve.span
        words.append(((low * high) ** 0.5 if across.log else (low + high) / 2, word))
    for value, word in words:
        y -= line
        place = round(across.place(value, SIZE[1]) - width(word, font(11)) / 2)
        canvas.write(x + min(max(place, 0), SIZE[1] - width(word, font(11))), y - 2, word, font(11))


def _pixels(curve: Curve, across: Axis, up: Axis) -> np.ndarray:
    """Draw the curve on its ground, (*SIZE, 3)."""
    tall, wide = (side * SHARPER for side in SIZE)
    image = Image.new("RGB", (wide, tall), GROUND)
    pen = ImageDraw.Draw(image)

    def right(x: float) -> float:
        return across.place(x, SIZE[1]) * SHARPER

    def down(y: float) -> float:
        return max(tall - up.place(y, SIZE[0]) * SHARPER, -OUTSIDE * tall)

    if curve.span:
        pen.rectangle((right(curve.span[0]), 0, right(curve.span[1]), tall), HEALTHY)
    for value, _ in across.ticks:
        pen.line((right(value), 0, right(value), tall), FAINT, SHARPER)
    for value, _ in up.ticks:
        pen.line((0, down(value), wide, down(value)), FAINT, SHARPER)
    for value, _ in curve.levels:
        _dashed(pen, (0, down(value)), (wide, 0))
    if curve.at:
        _dashed(pen, (right(curve.at[0]), 0), (0, tall))
    points = [(right(x), down(y)) if isfinite(y) else None for x, y in zip(curve.x, curve.y, strict=True)]
    for _, run in groupby(points, key=bool):
        line = [point for point in run if point]
        if len(line) > 1:
            pen.line(line, LINE, 2 * SHARPER, joint="curve")
        for x, y in line if len(points) <= DOTTED or len(line) == 1 else ():
            pen.ellipse((x - 2.5 * SHARPER, y - 2.5 * SHARPER, x + 2.5 * SHARPER, y + 2.5 * SHARPER), LINE)
    return np.asarray(image.reduce(SHARPER))


def _dashed(pen: ImageDraw.ImageDraw, start: tuple[float, float], along: tuple[int, int]) -> None:
    for begin in range(0, max(along), 10 * SHARPER):
        end = begin + 6 * SHARPER
        ends = [(start[0] + (part if along[0] else 0), start[1] + (part if along[1] else 0)) for part in (begin, end)]
        pen.line(ends, GUIDE, 2 * SHARPER - 2)
