"""Parts that the reports of several lenses have in common: plain values, standard library only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Histogram:
    """How often values occur: bins of equal width from `low` to `high`, finite elements only."""

    low: float
    high: float
    counts: tuple[int, ...]
    sampled: bool = False  # of a strided sample, not of all elements


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture that was written."""

    file: str
    shows: str  # "filters", "maps", "difference", "sheet", "histograms", ...
    layers: tuple[str, ...]
    scale: str  # "±0.98, common" or "each filter its own"
    width: int
    height: int
