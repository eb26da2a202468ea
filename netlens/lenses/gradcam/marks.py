"""What a map explains, drawn on a photo: the box of a detection, where a class wins, or a point."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw

from netlens.drawing.overlay import Box

LINE, EDGE = (255, 122, 0), (24, 24, 24)  # neither in the colours of a map nor in those of boxes that were given; and beside it
WIDTH, RING = 2, 7  # pixels of the line, and of a point's ring from its middle


@dataclass(frozen=True, slots=True, eq=False)
class Mark:
    """Where on a photo a map's score comes from."""

    kind: str  # a key of WORDS
    box: Box  # of the detection, of the class map, of the point; in pixels of the photo
    region: np.ndarray | None = None  # of a class that wins: (h, w) bool, over the box

    def moved(self, left: float, top: float) -> Mark:
        """Return the same on a part of the photo that begins there."""
        return replace(self, box=(self.box[0] - left, self.box[1] - top, self.box[2] - left, self.box[3] - top))

    def drawn(self, pixels: np.ndarray, factors: tuple[float, float]) -> np.ndarray:
        """Draw it on a photo, (H, W, 3) uint8, that is larger by these factors, down and across."""
        down, across = factors
        box = self.box[0] * across, self.box[1] * down, self.box[2] * across, self.box[3] * down
        if self.region is not None:
            return _contour(pixels, _spread(self.region, box, pixels.shape[:2]))
        image = Image.fromarray(pixels)
        if self.kind == "box":
            _box(ImageDraw.Draw(image), box)
        elif self.kind == "point":
            _ring(ImageDraw.Draw(image), (box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
        return np.array(image)


WORDS = {
    "box": "orange: the detection that is explained",
    "region": "orange: where the class wins; its scores there are summed",
    "point": "orange: the point that is explained",
    "everywhere": "the class wins nowhere: its scores at all places are summed",
}


def told(marks: Iterable[Mark]) -> list[str]:
    """Say what is drawn, each kind once."""
    return [WORDS[kind] for kind in dict.fromkeys(mark.kind for mark in marks)]


def _box(pen: ImageDraw.ImageDraw, box: Box) -> None:
    left, top = round(box[0]), round(box[1])
    right, bottom = max(left, round(box[2]) - 1), max(top, round(box[3]) - 1)
    pen.rectangle((left - WIDTH, top - WIDTH, right + WIDTH, bottom + WIDTH), outline=EDGE, width=WIDTH + 2)
    pen.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline=LINE, width=WIDTH)


def _ring(pen: ImageDraw.ImageDraw, x: float, y: float) -> None:
    for radius, colour, width in ((RING + 1, EDGE, WIDTH + 2), (RING, LINE, WIDTH)):
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), outline=colour, width=width)


def _spread(region: np.ndarray, box: Box, size: tuple[int, int]) -> np.ndarray:
    """Read a region, which lies over a box, at the centres of pixels; (H, W)."""
    places = []
    for start, stop, cells, pixels in zip((box[1], box[0]), (box[3], box[2]), region.shape, size, strict=True):
        found = np.floor((np.arange(pixels) + 0.5 - start) / (stop - start) * cells)
        places.append(np.where((found >= 0) & (found < cells), found, cells).astype(int))
    spread: np.ndarray = np.pad(region, (0, 1))[np.ix_(*places)]
    return spread


def _contour(pixels: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Draw a line along the inner edge of what is inside, and a dark one on either side of it."""
    layers = [~_shrunk(~inside, outside=True), inside]
    for _ in range(WIDTH + 1):
        layers.append(_shrunk(layers[-1]))
    found = pixels.copy()
    found[layers[0] & ~layers[-1]] = EDGE
    found[layers[1] & ~layers[1 + WIDTH]] = LINE
    return found


def _shrunk(inside: np.ndarray, *, outside: bool = False) -> np.ndarray:
    """Take away what touches the rest, up, down, left or right; `outside`: what lies beyond the edges of the picture."""
    padded = np.pad(inside, 1, constant_values=outside)
    shrunk: np.ndarray = inside & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return shrunk
