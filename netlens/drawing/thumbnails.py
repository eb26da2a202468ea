"""Pictures beside tiles: what went into the network beside what came out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from netlens.drawing.canvas import Canvas
from netlens.drawing.layout import Pair
from netlens.drawing.text import SOFT, font, height

HEAD = 64  # pixels: the sides of a picture above a column,
SIDE = 160  # and at the left of all tiles
NAME = "input"
BELOW = 12  # pixels between two at the left


def fitted(picture: np.ndarray, room: Pair) -> np.ndarray:
    """Resize a picture (h, w, 3) to the largest that fits into so many pixels down and across, with its proportions."""
    share = min(side / size for side, size in zip(room, picture.shape, strict=False))
    down, across = (max(1, min(side, round(share * size))) for side, size in zip(room, picture.shape, strict=False))
    resample = Image.Resampling.NEAREST if share >= 3 else Image.Resampling.LANCZOS  # the pixels of a tiny picture stay visible
    return np.asarray(Image.fromarray(picture).resize((across, down), resample))


def above(canvas: Canvas, lefts: Sequence[int], floor: int, pictures: Sequence[np.ndarray], wide: int) -> None:
    """Put a picture above each column; they stand on `floor`, and their columns are `wide`."""
    for left, picture in zip(lefts, pictures, strict=False):
        small = fitted(picture, (HEAD, max(HEAD, wide)))
        canvas.paste(left, floor - len(small), small)


def beside(canvas: Canvas, x: int, y: int, pictures: Sequence[np.ndarray]) -> None:
    """Put pictures below one another, named, with the upper left corner of the first at (x, y)."""
    line = height(font(10))
    for picture in pictures:
        canvas.write(x, y - line - 1, NAME, font(10), SOFT)
        small = fitted(picture, (SIDE, SIDE))
        canvas.paste(x, y, small)
        y += len(small) + BELOW + line


def tall(pictures: Sequence[np.ndarray]) -> int:
    """Return the pixels down that `beside` takes."""
    line = height(font(10))
    return sum(len(fitted(picture, (SIDE, SIDE))) + line for picture in pictures) + BELOW * max(0, len(pictures) - 1)
