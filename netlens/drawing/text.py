"""Text on pictures: a real font, and text that always fits: wrapped, or elided in the middle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path

from PIL import ImageFont

from netlens.drawing.escapes import harmless

ELLIPSIS = "…"
INK, SOFT = 255, 165  # how strongly text is drawn

_LONGEST = 2000  # characters: no picture shows more, and measuring takes time

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@cache
def font(size: int, bold: bool = False) -> Font:
    """Return DejaVu Sans out of matplotlib's folder (which is found, not imported), else Pillow's own font."""
    spec = find_spec("matplotlib")
    for folder in (spec and spec.submodule_search_locations) or ():
        file = Path(folder, "mpl-data", "fonts", "ttf", "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf")
        if file.is_file():
            return ImageFont.truetype(file, size, layout_engine=ImageFont.Layout.BASIC)
    return ImageFont.load_default(size)


@lru_cache(4096)
def width(text: str, face: Font) -> int:
    """Measure text in pixels, rounded up."""
    return -int(-face.getlength(text) // 1)


@cache
def height(face: Font) -> int:
    """Return the height of a line: with room for accents and descenders."""
    return int(face.getbbox("Åg|")[3]) + 2


def elided(text: str, face: Font, room: int) -> str:
    """Cut the middle out of text that is wider than `room` pixels."""
    text = _shortened(text)
    if width(text, face) <= room:
        return text
    shortest, longest = 0, len(text) - 1  # characters that are kept
    while shortest < longest:
        kept = (shortest + longest + 1) // 2
        shortest, longest = (kept, longest) if width(_without_middle(text, kept), face) <= room else (shortest, kept - 1)
    return _without_middle(text, shortest)


def _shortened(text: str) -> str:
    return harmless(_without_middle(text, _LONGEST) if len(text) > _LONGEST else text)


def _without_middle(text: str, kept: int) -> str:
    tail = kept // 2
    return text[: kept - tail] + ELLIPSIS + text[len(text) - tail :]


def wrapped(text: str, face: Font, room: int, most: int) -> list[str]:
    """Break text at its spaces into at most `most` lines of `room` pixels; what is left, and a word that is too long, is elided."""
    words = _shortened(text).split()
    lines: list[str] = []
    while words and len(lines) < most - 1:
        count = 1
        while count < len(words) and width(" ".join(words[: count + 1]), face) <= room:
            count += 1
        lines.append(elided(" ".join(words[:count]), face, room))
        words = words[count:]
    return [*lines, elided(" ".join(words), face, room)] if words else lines


@dataclass(frozen=True, slots=True)
class Paragraph:
    """Lines that are known to fit."""

    lines: Sequence[str]
    face: Font
    strength: int = INK

    @property
    def height(self) -> int:
        """Pixels of all lines."""
        return len(self.lines) * (height(self.face) + 2)
