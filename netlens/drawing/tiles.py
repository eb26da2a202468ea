"""What a grid is made of: plain values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

WIDEST, TALLEST = 1600, 2000  # pixels of a page: what a screen shows without getting lost


@dataclass(frozen=True, slots=True)
class Tiles:
    """Equally sized tiles in reading order."""

    values: np.ndarray  # (n, h, w) numbers, shown in colours; or (n, h, w, 3) numbers, shown as red, green and blue
    labels: tuple[str, ...] = ()  # one a tile, above it: "17"
    columns: int | None = None  # a fixed number of columns (a mosaic of filters x channels); None: as many as fit
    row_labels: tuple[str, ...] = ()  # with fixed columns: at the left of each row
    column_labels: tuple[str, ...] = ()  # with fixed columns: above each column
    pictures: tuple[np.ndarray, ...] = ()  # (h, w, 3) uint8 of any size: with fixed columns above each, else at the left
    aside: bool = False  # pictures stand at the left with fixed columns, too
    gaps: np.ndarray | None = None  # (h, w) bool: what in a tile is no number but a line between panels, in the colour of frames
    ticks: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())  # of the rows and columns inside each tile; a few of them are written

    @property
    def beside(self) -> tuple[np.ndarray, ...]:
        """Pictures at the left of all tiles."""
        return self.pictures if self.columns is None or self.aside else ()


@dataclass(frozen=True, slots=True)
class Scale:
    """How numbers become colours."""

    signed: bool = True  # colours around zero, from -limit to limit; else from 0 to limit
    limit: float | None = None  # one scale for all tiles; None: each tile its own largest |value| (of what is drawn)
    unit: str = ""  # beside the colour bar: "weight"


@dataclass(frozen=True, slots=True)
class Grid:
    """A titled grid with a colour bar; it says which scale it has."""

    title: str
    tiles: Tiles
    scale: Scale
    subtitle: str = ""
    footnote: str = ""
