"""Numbers of layers from step to step: layers run downwards, steps to the right, colours are on a scale of powers of ten."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil

import numpy as np
from PIL import Image

from netlens.drawing.canvas import Canvas
from netlens.drawing.captions import Bar, Captions, joined, significant
from netlens.drawing.colours import INK, LEVELS, NONFINITE, PAPER, palette
from netlens.drawing.rows import Rows, legible
from netlens.drawing.text import SOFT, font, height, width

ACROSS = 880  # pixels of all steps together, at most
CELL = 30  # pixels of a step, at most
DECADES = 16  # below the largest number: what is smaller has the colour of the smallest
ZERO = INK + 9  # a grey that is in no table of colours


def step_map(
    title: str, names: Sequence[str], values: np.ndarray, *, unit: str, subtitle: str = "", marks: Mapping[int, str] | None = None
) -> Image.Image:
    """Draw one coloured row a layer and one column a step; where there are too many steps, a column is the geometric mean of several.

    Args:
        title: of the page.
        names: of the layers.
        values: (layers, steps), one step at least; nan or inf: not finite; below 0: there is no number.
        unit: what is shown, beside the colour bar.
        subtitle: below the title.
        marks: layer's place -> a word; these have a band, a "!" and bold letters.
    """
    rows, steps = Rows.of(names, marks or {}), values.shape[1]
    merged = max(1, ceil(steps / ACROSS))
    powers, absent = _powers(values, merged)
    low, high = _limits(powers)
    cell = max(1, min(CELL, ACROSS // max(powers.shape[1], 1)))
    pixels = _indices(powers, absent, low, high).repeat(rows.pitch, axis=0).repeat(cell, axis=1)
    line = height(font(10))
    wide = rows.left + pixels.shape[1] + rows.right

    def draw(canvas: Canvas, x: int, y: int) -> None:
        y += line + 2
        rows.write(canvas, x, y, wide)
        canvas.paste(x + rows.left, y, palette(False)[pixels])
        for top in (y - line - 1, y + rows.tall + 3):
            for column in legible(powers.shape[1], cell, width(f"{steps:,}", font(10)) + 8, {}):
                text = f"{column * merged + 1:,}"
                canvas.write(x + rows.left + round((column + 0.5) * cell - width(text, font(10)) / 2), top, text, font(10), SOFT)
        canvas.write(x, y - line - 1, "step", font(10), SOFT)

    ends = (significant(10.0**low), significant(10.0 ** ((low + high) / 2)), significant(10.0**high))
    bar = Bar(palette(False)[:LEVELS], ends, unit)
    mean = f"a column is the geometric mean of {merged} steps" if merged > 1 else ""
    foot = joined(*_remarks(powers, absent, low), mean, "!: a finding is about it" if marks else "")
    return Captions(title, subtitle, foot, [bar]).page((rows.tall + 2 * line + 6, wide), draw, None)


def _powers(values: np.ndarray, merged: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean power of ten of every `merged` steps, -inf for 0, nan where one is not finite; and where there is no number."""
    there = ~(values < 0)
    starts = np.arange(0, values.shape[1], merged)
    with np.errstate(divide="ignore", invalid="ignore"):
        powers = np.where(np.isposinf(values), np.nan, np.log10(np.where(there, values, 1.0)))
        counts = np.add.reduceat(there, starts, axis=1, dtype=int)
        return np.add.reduceat(powers, starts, axis=1) / counts, counts == 0


def _limits(powers: np.ndarray) -> tuple[float, float]:
    """Return the powers of ten at both ends of the scale."""
    found = powers[np.isfinite(powers)]
    if not found.size:
        return -1.0, 0.0
    low, high = max(found.min(), found.max() - DECADES), found.max()
    return (low, high) if low < high else (low - 0.5, high + 0.5)


def _indices(powers: np.ndarray, absent: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return the colour of each number, indices of a palette."""
    shares = (np.where(np.isfinite(powers), powers, low) - low) / (high - low)
    pixels = np.rint(np.clip(shares, 0, 1) * (LEVELS - 1)).astype(np.uint8)
    pixels[np.isneginf(powers)] = ZERO
    pixels[np.isnan(powers)] = NONFINITE
    pixels[absent] = PAPER
    return pixels


def _remarks(powers: np.ndarray, absent: np.ndarray, low: float) -> list[str]:
    least = powers[np.isfinite(powers)].min(initial=low)
    return [
        "grey: exactly 0" if np.isneginf(powers).any() else "",
        "magenta: not finite" if np.isnan(powers[~absent]).any() else "",
        "white: no number" if absent.any() else "",
        f"the darkest colour stands for all that is smaller, down to {significant(10.0**least)}" if least < low else "",
    ]
