"""How many pictures the classes have, and how large pictures are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from netlens.data.facts_types import SplitFacts
from netlens.drawing.canvas import Canvas
from netlens.drawing.captions import Captions, joined
from netlens.drawing.colours import LEVELS, palette
from netlens.drawing.plots import APART, BAR, FAINT, GROUND, LINE
from netlens.drawing.rows import Rows, legible
from netlens.drawing.text import SOFT, elided, font, height, width
from netlens.wording import counted

WIDE, COUNT = 260, 64  # pixels of the bars of a split, and beside them of the numbers
IN_ORDER = 40  # up to so many classes keep the order of their indices
MOST = 1000  # classes that are drawn, evenly chosen
PLOT, MARGINAL, BINS = 360, 56, 60  # pixels of a density plot and of the bars beside it, and bins of both
ASPECTS = ((1 / 4, "1:4"), (1 / 2, "1:2"), (1.0, "1:1"), (2.0, "2:1"), (4.0, "4:1"))


def class_bars(title: str, splits: Sequence[SplitFacts]) -> Image.Image:
    """Draw how many pictures each class has, a column for each split, each on its own scale.

    Up to 40 classes stand in the order of their indices, more by their size in the first split.
    """
    known = [{each.name: each.count for each in split.classes} for split in splits]
    every = list(dict.fromkeys(name for counts in known for name in counts))
    if len(every) > IN_ORDER:
        every.sort(key=lambda name: -known[0].get(name, 0))
    names = [every[place] for place in np.unique(np.linspace(0, len(every) - 1, min(len(every), MOST)).astype(int))]
    empty = {place: "none" for place, name in enumerate(names) if not all(counts.get(name) for counts in known)}
    rows, line = Rows.of(names, empty), height(font(11))
    pitch = WIDE + COUNT + APART
    wide = rows.left + len(splits) * pitch - APART + rows.right

    def draw(canvas: Canvas, x: int, y: int) -> None:
        rows.write(canvas, x, y + line + 4, wide)
        for place, (split, counts) in enumerate(zip(splits, known, strict=True)):
            left = x + rows.left + place * pitch
            canvas.write(left, y, elided(split.name or "pictures", font(11, bold=True), WIDE), font(11, bold=True))
            _bars(canvas, left, y + line + 4, rows, [counts.get(name, 0) for name in names])

    words = joined(
        "in the order of their indices" if len(every) <= IN_ORDER else "the largest first",
        f"{len(names):,} of {len(every):,} classes, evenly chosen" if len(names) < len(every) else f"{len(every):,} classes",
        "each split on its own scale" if len(splits) > 1 else "",
    )
    foot = "!: no picture in one of the splits" if empty else ""
    return Captions(f"{title} · pictures of each class", words, foot).page((rows.tall + line + 4, wide), draw, None)


def _bars(canvas: Canvas, x: int, y: int, rows: Rows, counts: Sequence[int]) -> None:
    """Draw a bar for each class from 0, and beside it how many it stands for."""
    most, line = max(counts, default=0) or 1, height(font(11))
    thick = rows.pitch if rows.pitch < 5 else rows.pitch * 3 // 4  # thin ones touch: a silhouette
    for place, count in enumerate(counts):
        top = y + place * rows.pitch + (rows.pitch - thick) // 2
        canvas.paste(x, top, np.full((thick, max(round(WIDE * count / most), int(count > 0)), 3), BAR, np.uint8))
        canvas.paste(x, top, np.full((thick, 1, 3), LINE, np.uint8))
    for place in legible(len(counts), rows.pitch, line - 1, rows.marks):  # where the names stand
        top = y + place * rows.pitch + (rows.pitch - line) // 2
        end = WIDE * counts[place] / most if rows.pitch >= line else WIDE  # the bars between are not to be written over
        canvas.write(x + round(end) + 5, top, f"{counts[place]:,}", font(11))


@dataclass(frozen=True)
class Sizes:
    """Widths and heights of a split."""

    name: str
    values: np.ndarray  # (n, 2), one at least
    files: int  # of the split: more than n where some cannot be read, or an even choice was


def size_maps(title: str, splits: Sequence[Sizes]) -> Image.Image:
    """Draw how large pictures are: width against height on common scales of powers of two, and below width over height."""
    logs = [np.log2(split.values) for split in splits]
    every = np.concatenate(logs)
    low, high = float(np.floor(every.min())), float(np.ceil(every.max()))
    low, high = (low, high) if high - low >= 2 else (low - 1, low + 2)
    line, left = height(font(11)), width("16,384", font(11)) + 8
    wide = left + PLOT + 4 + MARGINAL
    tall = 2 * line + 8 + MARGINAL + 4 + PLOT + 2 * line + 8 + MARGINAL + 2 * line + 8

    def draw(canvas: Canvas, x: int, y: int) -> None:
        for place, (split, points) in enumerate(zip(splits, logs, strict=True)):
            _size_map(canvas, x + place * (wide + APART), y, split, points, (low, high), left)

    words = joined("width to the right, height upwards, both on a scale of powers of two", "the line: square pictures")
    foot = joined(
        "colour: the root of how many pictures have that size, from few (dark) to many (bright)",
        "as stored: EXIF orientation not read",
    )
    return Captions(f"{title} · sizes", words, foot).page((tall, len(splits) * (wide + APART) - APART), draw, None)


def _size_map(canvas: Canvas, x: int, y: int, split: Sizes, points: np.ndarray, ends: tuple[float, float], left: int) -> None:
    """Draw one split: its name, the bars of widths, the map with the bars of heights, the aspects; (x, y) is its corner."""
    line, bold = height(font(11)), font(11, bold=True)
    of = f"{len(split.values):,} of {counted(split.files, 'file')}"
    canvas.write(x + left, y, elided(split.name or "all", bold, PLOT), bold)
    canvas.write(x + left, y + line, of, font(11), SOFT)
    top, corner = y + 2 * line + 8, x + left
    counts, _, _ = np.histogram2d(points[:, 1], points[:, 0], bins=BINS, range=(ends, ends))
    canvas.paste(corner, top, _columns(counts.sum(axis=0)))
    canvas.paste(corner + PLOT + 4, top + MARGINAL + 4, _columns(counts.sum(axis=1)).transpose(1, 0, 2)[::-1, ::-1])
    top += MARGINAL + 4
    canvas.paste(corner, top, _density(counts))
    for power in _ticks(*ends):
        text, share = f"{2**power:,}", (power - ends[0]) / (ends[1] - ends[0])
        across = round(share * PLOT - width(text, font(11)) / 2)
        canvas.write(corner + min(max(across, 0), PLOT - width(text, font(11))), top + PLOT + 2, text, font(11), SOFT)
        canvas.write(corner - 5 - width(text, font(11)), top + round((1 - share) * PLOT - line / 2), text, font(11), SOFT)
    _aspects(canvas, corner, top + PLOT + line + 10, points[:, 0] - points[:, 1])


def _aspects(canvas: Canvas, x: int, y: int, logs: np.ndarray) -> None:
    line, end = height(font(11)), 2.5  # 2^2.5: what is beyond stands at the ends
    canvas.write(x, y, "width : height", font(11), SOFT)
    counts, _ = np.histogram(logs.clip(-end, end), bins=BINS + 1, range=(-end, end))
    canvas.paste(x, y + line + 2, _columns(counts))
    for value, text in ASPECTS:
        across = (np.log2(value) + end) / (2 * end) * PLOT
        canvas.write(x + round(across - width(text, font(11)) / 2), y + line + 2 + MARGINAL + 2, text, font(11), SOFT)


def _ticks(low: float, high: float) -> range:
    step = max(1, -(-int(high - low) // 8))
    return range(int(low), int(high) + 1, step)


def _columns(counts: np.ndarray) -> np.ndarray:
    """Draw bars from the bottom, as high as the root of their count, (MARGINAL, PLOT, 3)."""
    tall = np.sqrt(counts / max(counts.max(initial=0), 1)) * MARGINAL
    tall = np.where(counts > 0, np.maximum(tall, 2), 0)[np.arange(PLOT) * len(counts) // PLOT]
    bars: np.ndarray = np.where((np.arange(MARGINAL, 0, -1)[:, None] <= tall)[..., None], BAR, GROUND).astype(np.uint8)
    return bars


def _density(counts: np.ndarray) -> np.ndarray:
    """Draw the map, height upwards, with a line where pictures are square, (PLOT, PLOT, 3)."""
    shares = np.sqrt(counts / max(counts.max(initial=0), 1))[::-1]
    scale = PLOT // BINS
    colours = palette(False)[np.rint(shares * (LEVELS - 1)).astype(int)]
    pixels = np.where((shares > 0)[..., None], colours, GROUND).astype(np.uint8).repeat(scale, axis=0).repeat(scale, axis=1)
    along = np.arange(PLOT)
    empty = (pixels[PLOT - 1 - along, along] == GROUND).all(axis=-1)
    pixels[PLOT - 1 - along[empty], along[empty]] = FAINT
    return pixels
