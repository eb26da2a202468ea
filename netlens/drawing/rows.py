"""Names of layers below one another at the left of a plot, and remarks at its right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from netlens.drawing.canvas import Canvas
from netlens.drawing.text import elided, font, height, width
from netlens.drawing.tiles import TALLEST
from netlens.wording import abbreviated

PITCH = (2, 24)  # pixels of a layer, at least and at most
NAME, WORD = 320, 200  # pixels of a name and of a remark, at most
LETTERS = 50  # characters that have room in a name
RESERVED = 220  # pixels of a page for all but the layers
BAND = (252, 228, 222)  # behind a marked layer


@dataclass(frozen=True, slots=True)
class Rows:
    """Where the layers of a page stand."""

    names: Sequence[str]
    marks: Mapping[int, str]  # layer's place -> a word
    pitch: int  # pixels of a layer
    left: int  # pixels of the names
    right: int  # pixels of the remarks

    @classmethod
    def of(cls, names: Sequence[str], marks: Mapping[int, str]) -> Rows:
        """Measure the names; where they are too long, all that begin alike are abbreviated alike."""
        short = [f"! {name}" if index in marks else name for index, name in enumerate(_shortened(names))]
        left = min(NAME, max((width(name, font(11, bold=True)) for name in short), default=0)) + 12
        right = min(WORD, max((width(word, font(11)) for word in marks.values()), default=-18) + 18)
        pitch = min(max((TALLEST - RESERVED) // max(len(names), 1), PITCH[0]), PITCH[1])
        return cls(short, marks, pitch, left, max(right, 0))

    @property
    def tall(self) -> int:
        """Pixels of all layers."""
        return len(self.names) * self.pitch

    def write(self, canvas: Canvas, x: int, y: int, wide: int) -> None:
        """Write names and remarks, and a band behind marked layers; (x, y) is the corner, the page `wide` pixels from there."""
        small, line = font(11), height(font(11))
        for index in self.marks:
            canvas.paste(x, y + index * self.pitch, np.full((self.pitch, wide, 3), BAND, np.uint8))
        for index in legible(len(self.names), self.pitch, line - 1, self.marks):
            top = y + index * self.pitch + (self.pitch - line) // 2
            face = font(11, bold=index in self.marks)
            canvas.write(x, top, elided(self.names[index], face, self.left - 12), face)
            if index in self.marks:
                canvas.write(x + wide - self.right + 12, top, elided(self.marks[index], small, self.right - 12), small)


def _shortened(names: Sequence[str]) -> list[str]:
    alike: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        alike.setdefault(name.partition(".")[0], []).append(index)
    short = list(names)
    for indices in alike.values():
        for index, name in zip(indices, abbreviated([names[index] for index in indices], LETTERS), strict=True):
            short[index] = name
    return short


def legible(count: int, pitch: float, room: int, first: Mapping[int, str]) -> list[int]:
    """Choose labels that are written: those that come first, the last, then every one, every 2nd, 4th ... none upon another."""
    step = 1
    while step * pitch < room:
        step *= 2
    chosen: list[int] = []
    for index in (*sorted(first), *([count - 1] if count else []), *range(0, count, step)):
        if all(abs(index - other) * pitch >= room for other in chosen):
            chosen.append(index)
    return chosen
