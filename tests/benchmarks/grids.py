"""A grid of 3 x 3 filters up to the PNG file, beside matplotlib's subplots: `python -m tests.benchmarks.grids`.

Both draw the same weights, each tile with its index, in turns in this process, and the best time of each counts. Importing matplotlib is
not counted; it is the last line.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from netlens.drawing.grids import Grid, Scale, Tiles, pages

ROUNDS = {16: 5, 64: 3, 256: 2, 512: 1}  # tiles -> how often
BAR_TILES, BAR = 64, 20.0


@dataclass(frozen=True, slots=True)
class Row:
    """One size."""

    tiles: int
    turns: int
    netlens: float  # seconds, the best
    matplotlib: float

    @property
    def ratio(self) -> float:
        """How many times faster netlens is."""
        return self.matplotlib / self.netlens

    @property
    def verdict(self) -> str:
        """Say whether the promise is kept."""
        return "kept" if self.ratio >= BAR else "MISSED"


def _filters(count: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, 3, 3)).astype(np.float32)


def _draw_netlens(filters: np.ndarray, file: Path) -> None:
    limit = float(np.abs(filters).max())
    grid = Grid("conv", Tiles(filters, tuple(map(str, range(len(filters))))), Scale(limit=limit, unit="weight"))
    (page,) = pages(grid)
    page.save(file)


def _draw_matplotlib(filters: np.ndarray, file: Path) -> None:
    import matplotlib.pyplot as plt

    side = math.ceil(math.sqrt(len(filters)))
    limit = float(np.abs(filters).max())
    figure, axes = plt.subplots(-(-len(filters) // side), side, figsize=(side, side))
    for axis in axes.flat:
        axis.axis("off")
    for index, (axis, values) in enumerate(zip(axes.flat, filters, strict=False)):
        axis.imshow(values, cmap="RdBu_r", vmin=-limit, vmax=limit)
        axis.set_title(str(index), fontsize=8)
    figure.tight_layout()
    figure.savefig(file)
    plt.close(figure)


def _seconds(draw: Callable[[np.ndarray, Path], None], filters: np.ndarray, file: Path) -> float:
    started = time.perf_counter()
    draw(filters, file)
    return time.perf_counter() - started


def measure(rounds: dict[int, int] | None = None, step: Callable[[], None] = lambda: None) -> tuple[list[Row], float]:
    """Draw every size with both, in turns; return the best times, and the seconds that importing matplotlib took."""
    started = time.perf_counter()
    import matplotlib.pyplot as plt

    importing = time.perf_counter() - started
    plt.switch_backend("agg")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "grid.png"
        for draw in (_draw_netlens, _draw_matplotlib):
            draw(_filters(4), file)  # fonts are loaded for both
        for count, turns in (rounds or ROUNDS).items():
            filters, times = _filters(count), []
            for _ in range(turns):
                times.append((_seconds(_draw_netlens, filters, file), _seconds(_draw_matplotlib, filters, file)))
                step()
            ours, theirs = map(min, zip(*times, strict=True))
            rows.append(Row(count, turns, ours, theirs))
    return rows, importing


def lines(rows: list[Row], importing: float) -> list[str]:
    """Draw the rows as plain text, and hold the promise against them."""
    told = [
        f"{row.tiles:>4} tiles  netlens {row.netlens * 1e3:8.1f} ms  matplotlib {row.matplotlib * 1e3:8.1f} ms  {row.ratio:6.1f} x"
        f"  best of {row.turns}"
        for row in rows
    ]
    told += [f"bar: at least {BAR:g} x faster for {row.tiles} tiles: {row.verdict}" for row in rows if row.tiles == BAR_TILES]
    return [*told, f"importing matplotlib.pyplot, not counted above: {importing * 1e3:.0f} ms"]


if __name__ == "__main__":
    found = measure()
    print("\n".join(lines(*found)))
