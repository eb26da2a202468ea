"""Properties of files that may give a class away: format, mode, size, aspect, quality."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from netlens.data.records import FORMATS, MODES, has

FREQUENT = 0.5  # how much more of the class than of the others has the value: a network gains by learning it
NATURAL = 0.9  # the same for what pictures have by their content too: birds are cut out smaller than cars, skies pack better than forests
COLOURED = [MODES.index(name) for name in ("RGB", "RGBA", "P")]
LOSSY = [FORMATS.index(name) for name in ("JPEG", "WEBP", "AVIF")]
STEPS = 8  # bins an octave: 9 % each
GREY = 100  # added to the mode of what is stored in colours and has none


@dataclass(frozen=True)
class Feature:
    """One property of files."""

    name: str
    values: Callable[[np.ndarray], np.ndarray]  # (n,) rows to (n,) integers
    says: Callable[[np.ndarray], str]  # of the rows of one clue
    ordered: bool = False  # intervals of values are clues, not values alone
    enough: float = FREQUENT
    of: Callable[[np.ndarray], np.ndarray] = lambda rows: np.ones(len(rows), bool)  # which rows have it


def _side(rows: np.ndarray) -> np.ndarray:
    side: np.ndarray = np.sqrt(rows["width"].astype(float) * rows["height"])
    return side


def _aspect(rows: np.ndarray) -> np.ndarray:
    aspect: np.ndarray = rows["width"] / rows["height"]
    return aspect


def _packed(rows: np.ndarray) -> np.ndarray:
    packed: np.ndarray = rows["bytes"] / (rows["width"].astype(float) * rows["height"])
    return packed


def _unknown(rows: np.ndarray) -> np.ndarray:
    """Tell which files were packed in a way that nothing else tells; of the others, bytes follow from quality and content."""
    found: np.ndarray = np.isin(rows["format"], LOSSY) & (rows["quality"] == 0)
    return found


def _mode(rows: np.ndarray) -> np.ndarray:
    grey = has(rows, "mode-grey") & np.isin(rows["mode"], COLOURED)
    return rows["mode"] + np.where(grey, GREY, 0)


def _mode_told(rows: np.ndarray) -> str:
    mode = int(_mode(rows[:1])[0])
    return f"{MODES[mode - GREY]} without colour" if mode >= GREY else f"of mode {MODES[mode]}"


def _bins(values: np.ndarray) -> np.ndarray:
    bins: np.ndarray = np.floor(np.log2(values) * STEPS).astype(np.int64)
    return bins


def _range(values: np.ndarray) -> str:
    low, high = (f"{value:,.0f}" if value >= 100 else f"{value:.3g}" for value in (float(values.min()), float(values.max())))
    return low if low == high else f"{low} to {high}"


FEATURES = (
    Feature("format", lambda rows: rows["format"].astype(np.int64), lambda rows: f"{FORMATS[rows['format'][0]]} files"),
    Feature("mode", _mode, _mode_told),
    Feature(
        "size",
        lambda rows: (rows["width"].astype(np.int64) << 32) + rows["height"],
        lambda rows: f"{rows['width'][0]:,} x {rows['height'][0]:,}",
    ),
    Feature(
        "quality",
        lambda rows: rows["quality"].astype(np.int64),
        lambda rows: f"of JPEG quality {_range(rows['quality'])}",
        ordered=True,
        of=lambda rows: rows["quality"] > 0,
    ),
    Feature("side", lambda rows: _bins(_side(rows)), lambda rows: f"{_range(_side(rows))} pixels a side (root of the area)", True, NATURAL),
    Feature("aspect", lambda rows: _bins(_aspect(rows)), lambda rows: f"{_range(_aspect(rows))} times as wide as high", True, NATURAL),
    Feature(
        "compression", lambda rows: _bins(_packed(rows)), lambda rows: f"{_range(_packed(rows))} bytes a pixel", True, NATURAL, _unknown
    ),
)
