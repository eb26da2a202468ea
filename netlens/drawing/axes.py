"""Statistics of layers and their scales: round ends, and ticks between them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import ceil, floor, isfinite, log10

from netlens.drawing.captions import significant

WIDE = 210  # pixels of a column
INSET = 8  # pixels inside a column before its scale begins and after it ends
TICKS = 5  # of a scale, at most
STEPS = (1, 2, 5, 10, 20)  # between ticks of a linear scale, times a power of ten
FARTHEST, LEAST = 1e300, 1e-300  # beyond the one and below the other there is no room for a step


@dataclass(frozen=True, slots=True)
class Column:
    """One statistic of every layer; None where a layer has none."""

    heading: str
    values: Sequence[float | None]
    log: bool = False  # on a scale of powers of ten, what is 0 at the very left; else a share of 0..1, in percent
    ceiling: Sequence[float | None] = ()  # what no value exceeds, in grey
    bars: bool = False  # from 0, with the number in it, on a linear scale
    healthy: tuple[float, float] | None = None  # a range that is shaded
    guide: float | None = None  # a number at which a dashed line stands
    absent: Sequence[str] = ()  # why a layer has no number where it ought to have one: "frozen", "detached"; "": there is nothing to say

    def gaps(self) -> list[tuple[int, int, str]]:
        """Return where numbers are missing: first layer, the one after the last, and why; what has nothing to say joins its neighbours."""
        said = [(index, word) for index, word in enumerate(self.absent) if word or self.values[index] is not None]
        runs = [(word, [index for index, _ in run]) for word, run in groupby(said, key=lambda each: each[1])]
        return [(run[0], run[-1] + 1, word) for word, run in runs if word]


@dataclass(frozen=True, slots=True)
class Axis:
    """A scale from `low` to `high`: of numbers or, where it is logarithmic, of their powers of ten."""

    low: float
    high: float
    log: bool
    ticks: tuple[tuple[float, str], ...]

    @classmethod
    def of(cls, column: Column) -> Axis:
        """Return a scale that holds all numbers of a column, and its healthy range."""
        shown = finite((*column.values, *column.ceiling, *(column.healthy or ())))
        return cls.of_powers(shown) if column.log else cls.linear([0.0, *shown]) if column.bars else cls.of_shares()

    @classmethod
    def of_shares(cls) -> Axis:
        """Return the scale of shares, in percent."""
        return cls(0, 1, False, ((0, "0"), (0.5, "50 %"), (1, "100 %")))

    @classmethod
    def of_powers(cls, numbers: Sequence[float]) -> Axis:
        """Return a scale of powers of ten that holds all positive numbers."""
        powers = [log10(value) for value in numbers if value > 0] or [0.0]
        low = min(floor(min(powers)), 307)
        high = max(min(ceil(max(powers)), 308), low + 1)  # 1e309 is no float
        step = ceil((high - low) / (TICKS - 1))
        return cls(low, high, True, tuple((10.0**power, significant(10.0**power)) for power in range(low, high + 1, step)))

    @classmethod
    def linear(cls, numbers: Sequence[float], *, tight: bool = False) -> Axis:
        """Return a linear scale that holds all numbers: from tick to tick or, tight, no more than they need."""
        limited = [min(max(value, -FARTHEST), FARTHEST) for value in numbers] or [0.0]
        low, high = min(limited), max(limited)
        spread = max(high - low, 1e-3 * max(abs(low), abs(high)), LEAST) if (low, high) != (0, 0) else 1.0
        power = 10.0 ** floor(log10(spread / (TICKS - 1)))
        step = next(power * each for each in STEPS if power * each * (TICKS - 1) >= spread)
        first, last = floor(low / step), max(ceil(high / step), floor(low / step) + 1)
        places = range(first, last + 1)
        decimals = max(0, -floor(log10(step) + 1e-9))
        short = decimals <= 4 and max(abs(low), abs(high)) < 1e6
        ticks = [(place * step, f"{place * step:.{decimals}f}" if short else significant(place * step)) for place in places]
        if tight and low < high:
            return cls(low, high, False, tuple(tick for tick in ticks if low <= tick[0] <= high))
        return cls(min(low, ticks[0][0]), max(high, ticks[-1][0]), False, tuple(ticks))

    def place(self, value: float, wide: float = WIDE) -> float:
        """Return where a number stands, in pixels from the beginning; of powers, 0 and what is below stand before them all."""
        if self.log and value <= 0:
            return INSET / 2
        share = ((log10(value) if self.log else value) - self.low) / (self.high - self.low)
        return INSET + share * (wide - 2 * INSET)


def finite(values: Iterable[float | None]) -> list[float]:
    """Return the numbers that are finite."""
    return [value for value in values if value is not None and isfinite(value)]
