"""A page under construction: tiles are pasted, text is written, and both become one image."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from netlens.drawing.colours import INK, PAPER, palette
from netlens.drawing.escapes import harmless
from netlens.drawing.text import INK as STRONG
from netlens.drawing.text import Font, Paragraph


class Canvas:
    """Light paper, in palette indices (`colours`: fast to write, small) or in red, green and blue (`colours` is None)."""

    def __init__(self, width: int, height: int, colours: np.ndarray | None) -> None:
        self._colours = colours
        self._pixels = np.full((height, width) if colours is not None else (height, width, 3), PAPER, np.uint8)
        self._text = Image.new("L", (width, height))
        self._draw = ImageDraw.Draw(self._text)

    def paste(self, x: int, y: int, block: np.ndarray) -> None:
        """Put pixels, in the form of this canvas, with their top left corner at (x, y)."""
        self._pixels[y : y + block.shape[0], x : x + block.shape[1]] = block

    def write(self, x: int, y: int, text: str, face: Font, strength: int = STRONG) -> None:
        """Write one line; (x, y) is its top left corner."""
        self._draw.text((x, y), harmless(text), fill=strength, font=face)

    def paragraph(self, x: int, y: int, paragraph: Paragraph) -> int:
        """Write lines below one another, and return where the next thing may begin."""
        for number, line in enumerate(paragraph.lines):
            self.write(x, y + number * (paragraph.height // len(paragraph.lines)), line, paragraph.face, paragraph.strength)
        return y + paragraph.height

    def image(self) -> Image.Image:
        """Return the page, in mode "P" or "RGB"."""
        coverage = np.asarray(self._text)
        inked = coverage > 0
        levels = (PAPER - INK) - np.rint(np.arange(256) * ((PAPER - INK) / 255)).astype(np.uint8)
        indices = INK + levels[coverage[inked]]
        self._pixels[inked] = indices if self._colours is not None else palette(True)[indices]
        image = Image.fromarray(self._pixels)
        if self._colours is not None:
            image.putpalette(self._colours.tobytes())
        return image
