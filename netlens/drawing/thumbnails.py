"""Pictures among tiles: what went into the network beside what came out."""

from __future__ import annotations

import numpy as np
from PIL import Image

from netlens.drawing.canvas import Canvas
from netlens.drawing.colours import PAPER
from netlens.drawing.layout import Axis, Block, Pair
from netlens.drawing.tiles import Tiles

HEAD = 72  # pixels: the sides of a picture above a column


def fitted(picture: np.ndarray, room: Pair) -> np.ndarray:
    """Resize a picture (h, w, 3) to the largest that fits into so many pixels down and across, with its proportions."""
    share = min(side / size for side, size in zip(room, picture.shape, strict=False))
    down, across = (max(1, min(side, round(share * size))) for side, size in zip(room, picture.shape, strict=False))
    resample = Image.Resampling.NEAREST if share >= 3 else Image.Resampling.LANCZOS  # the pixels of a tiny picture stay visible
    return np.asarray(Image.fromarray(picture).resize((across, down), resample))


def paste(canvas: Canvas, x: int, y: int, floor: int, tiles: Tiles, axes: tuple[Axis, Axis], block: Block) -> None:
    """Put the pictures of a block onto a page in colours; (x, y) is the corner of its first cell.

    With fixed columns they stand on `floor`, above them; else they take the place of the first tiles.
    """
    lefts = axes[1].starts(len(block.columns)).tolist()
    if tiles.columns is not None:
        for left, picture in zip(lefts, tiles.pictures[block.columns.start : block.columns.stop], strict=False):
            small = fitted(picture, (HEAD, max(HEAD, axes[1].tile)))
            canvas.paste(x + left, floor - len(small), small)
        return
    down, across = axes[0].tile, axes[1].tile
    first = block.rows.start * len(block.columns)
    for index, picture in enumerate(tiles.pictures[first : first + len(block.rows) * len(lefts)]):
        row, column = divmod(index, len(lefts))
        top, left = y + int(axes[0].starts(row + 1)[-1]), x + lefts[column]
        small = fitted(picture, (down, across))
        canvas.paste(left, top, np.full((down, across, 3), PAPER, np.uint8))
        canvas.paste(left + (across - small.shape[1]) // 2, top + (down - len(small)) // 2, small)
