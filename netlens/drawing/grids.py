"""Grids of tiles - filters, feature maps, maps - drawn straight into one array: numpy and Pillow, no matplotlib.

Numbers become colours by a fixed rule (`colours`), so that a pixel of a tile inverts to the number that it shows within half a step of its
scale.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from netlens.drawing.canvas import Canvas
from netlens.drawing.captions import MARGIN, Captions, joined, reduction, reserved, scale_bar
from netlens.drawing.labels import Spacing
from netlens.drawing.layout import Block, Plan, plan
from netlens.drawing.paint import Painter, place
from netlens.drawing.sheets import contact_sheet
from netlens.drawing.thumbnails import tall
from netlens.drawing.tiles import TALLEST, WIDEST, Grid, Scale, Tiles

__all__ = ["TALLEST", "WIDEST", "Grid", "Scale", "Tiles", "contact_sheet", "pages"]

APART = 24  # pixels between two blocks beside each other


def pages(grid: Grid, *, widest: int = WIDEST, tallest: int = TALLEST) -> list[Image.Image]:
    """Draw a grid: on one page where it fits at a readable size, else on several, each with title, labels and colour bar.

    No page is narrower than 580 pixels, whatever `widest` is; titles and footnotes take up to 300 pixels down. Tiles of numbers give
    images of mode "P", whose palette is the table of colours; coloured tiles and pictures give "RGB".
    """
    if not np.size(grid.tiles.values):
        empty = Captions(grid.title, grid.subtitle, joined(grid.footnote, "there is nothing to show"))
        return [empty.page((0, 0), lambda canvas, x, y: None, None)]
    spacing = Spacing.of(grid.tiles)
    count, tall, wide = grid.tiles.values.shape[:3]
    overhang = max(0, spacing.widest - wide)
    room = (
        max(64, tallest - reserved(1) - spacing.above - spacing.lead - 2),
        max(64, widest - 2 * MARGIN - spacing.left - spacing.side - overhang - 2),
    )
    chosen = plan(count, (tall, wide), grid.tiles.columns, spacing.axes, room, APART + spacing.left + overhang + 2)
    painter = Painter.of(grid.tiles, grid.scale, chosen.zoom)
    parts = list(chosen.pages(count))
    numbers = [f"page {number} of {len(parts)}" if len(parts) > 1 else "" for number in range(1, len(parts) + 1)]
    return [_page(grid, painter, chosen, spacing, page, number) for page, number in zip(parts, numbers, strict=True)]


def _page(grid: Grid, painter: Painter, chosen: Plan, spacing: Spacing, blocks: list[Block], number: str) -> Image.Image:
    """Draw some blocks beside each other."""
    shown = [_cells(block, chosen.columns, len(painter.values)) for block in blocks]
    painted = [painter.paint(cells) for cells in shown]
    pixels = [place(tiles, len(block.columns), chosen.axes, chosen.zoom) for tiles, block in zip(painted, blocks, strict=True)]
    pitch = pixels[0].shape[1] + spacing.left + max(0, spacing.widest - chosen.axes[1].tile) + APART
    bar, colours = scale_bar(painter.scale, painter.rgb), painter.colours
    if grid.tiles.pictures and colours is not None:
        pixels, bar, colours = [colours[tiles] for tiles in pixels], bar.in_rgb(colours), None

    def draw(canvas: Canvas, x: int, y: int) -> None:
        for index, block in enumerate(blocks):
            left, top = x + index * pitch + spacing.left, y + spacing.above
            canvas.paste(left, top, pixels[index])
            spacing.write(canvas, left + 1, top + 1, chosen.axes, block, chosen.columns)

    captions = Captions(
        grid.title,
        joined(grid.subtitle, number, _scale_words(grid)),
        joined(grid.footnote, reduction(chosen.zoom), *painter.remarks(np.concatenate(shown), np.concatenate(painted))),
        [bar],
    )
    body = (max(pixels[0].shape[0] + spacing.above, tall(grid.tiles.beside)), len(blocks) * pitch - APART)
    return captions.page(body, draw, colours)


def _cells(block: Block, columns: int, count: int) -> np.ndarray:
    """Return the indices of the tiles of a block, in reading order."""
    cells: np.ndarray = np.array(block.rows)[:, None] * columns + np.array(block.columns)
    return cells[cells < count]


def _scale_words(grid: Grid) -> str:
    if grid.scale.limit is not None:
        return "one scale for all"
    return "its own scale" if len(grid.tiles.values) == 1 else "each tile its own scale"
