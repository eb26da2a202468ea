"""Pictures of any size in rows, each with a title and a note above it, on one page with captions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from PIL import Image

from netlens.drawing.canvas import Canvas
from netlens.drawing.captions import MARGIN, Captions
from netlens.drawing.colours import PAPER
from netlens.drawing.text import SOFT, Paragraph, font, height, width, wrapped
from netlens.drawing.tiles import WIDEST

APART, BELOW = 16, 14  # pixels between two pictures, and between two rows
NARROW = 120  # pixels of a column at least: room for a title
PAIR, LARGE, TALL = 520, 400, 1100  # pixels: the side of a square picture of two, or of more, at most, and of all rows
TEXT = 52  # pixels above a picture, at most
EMPTY = 0.5  # how much a share of empty places counts against a larger size
ROOM = WIDEST - 2 * MARGIN


@dataclass(frozen=True, slots=True)
class Card:
    """One picture."""

    picture: np.ndarray  # (h, w, 3) uint8, at the size at which it is drawn
    title: str = ""
    note: str = ""
    banner: str = ""  # on the picture itself, in its middle


def arranged(
    count: int, shape: tuple[int, int], *, columns: int | None = None, large: int | None = None, tall: int = TALL
) -> tuple[int, tuple[int, int]]:
    """Return the columns in which pictures of one shape are largest, and the pixels down and across that each may take.

    Args:
        count: of the pictures.
        shape: of each, height and width; only its proportions matter.
        columns: None: as many as are best.
        large: the side of a picture at most, or of the square of the same area; None: more for two than for many.
        tall: pixels of all rows.
    """

    large = large or (PAIR if count <= 2 else LARGE)

    def scale(columns: int) -> float:
        down = (tall / -(-count // columns) - TEXT - BELOW) / shape[0]
        across = ((ROOM + APART) / columns - APART) / shape[1]
        return max(1 / max(shape), min(down, across, large / sqrt(shape[0] * shape[1])))

    def worth(columns: int) -> tuple[float, int]:
        return scale(columns) * (1 - EMPTY * (-count % columns) / count), columns

    chosen = columns or max(range(1, min(count, (ROOM + APART) // (NARROW + APART)) + 1), key=worth)
    return chosen, (max(1, int(scale(chosen) * shape[0])), max(1, int(scale(chosen) * shape[1])))


def gallery(captions: Captions, cards: Sequence[Card], columns: int, *, lines: int = 2) -> Image.Image:
    """Draw pictures in reading order, those of a row with their upper edges on a line; a note has so many lines at most."""
    wide = max(NARROW, *(card.picture.shape[1] for card in cards))
    rows = [_Row.of(cards[first : first + columns], wide, lines) for first in range(0, len(cards), columns)]

    def draw(canvas: Canvas, x: int, y: int) -> None:
        for row in rows:
            for column, (card, title, note) in enumerate(zip(row.cards, row.titles, row.notes, strict=True)):
                left = x + column * (wide + APART)
                canvas.paragraph(left, canvas.paragraph(left, y, title), note)
                _draw(canvas, left, y + row.text, card)
            y += row.height

    body = sum(row.height for row in rows) - BELOW, min(columns, len(cards)) * (wide + APART) - APART
    return captions.page(body, draw, None)


@dataclass(frozen=True, slots=True)
class _Row:
    cards: Sequence[Card]
    titles: Sequence[Paragraph]
    notes: Sequence[Paragraph]

    @classmethod
    def of(cls, cards: Sequence[Card], wide: int, lines: int) -> _Row:
        large, small = font(12, bold=True), font(11)
        titles = [Paragraph(wrapped(card.title, large, wide, 1), large) for card in cards]
        return cls(cards, titles, [Paragraph(wrapped(card.note, small, wide, lines), small, SOFT) for card in cards])

    @property
    def text(self) -> int:
        return max(title.height + note.height for title, note in zip(self.titles, self.notes, strict=True)) + 2

    @property
    def height(self) -> int:
        return self.text + max(len(card.picture) for card in self.cards) + BELOW


def _draw(canvas: Canvas, x: int, y: int, card: Card) -> None:
    canvas.paste(x, y, card.picture)
    tall, wide = card.picture.shape[:2]
    face = font(13 if wide > 320 else 11)
    lines = wrapped(card.banner, face, wide - 12, 3) if wide > 40 else []
    line = height(face)
    top = y + (tall - len(lines) * line) // 2
    for place, text in enumerate(lines):
        across = width(text, face) + 12
        left = x + (wide - across) // 2
        canvas.paste(left, top + place * line, np.full((line, across, 3), PAPER, np.uint8))
        canvas.write(left + 6, top + place * line, text, face)
