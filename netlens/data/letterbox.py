"""Uniform bars at two opposite edges of a picture."""

from __future__ import annotations

import numpy as np

UNIFORM = 6  # grey levels between the darkest and the brightest pixel of a line that belongs to a bar
LEAST = 0.12  # share of the height or width; 21:9 shown in 16:9 has .24, a picture of 4:3 in 16:9 .25
DIFFERENT = 12  # grey levels between the bar and what it frames
FRAMED = 0.75  # share of the first line inside that differs: a thing on a plain ground has no straight edge along all of it
INNER = 0.05  # share of lines inside that may look like the bar: between lines of text there are more


def inside(grey: np.ndarray) -> tuple[float, float, float, float] | None:
    """Return what bars at two opposite edges leave, (left, upper, right, lower) in 0..1 of the picture; None where there are none.

    A picture with a margin on all four sides, as a page or a thing on white, is none.

    Args:
        grey: (h, w) uint8.
    """
    rows, columns = _flat(grey[0], grey[-1]), _flat(grey[:, 0], grey[:, -1])
    if rows == columns:
        return None
    found = _between(grey if rows else grey.T)
    if found is None:
        return None
    return (0.0, found[0], 1.0, found[1]) if rows else (found[0], 0.0, found[1], 1.0)


def _flat(first: np.ndarray, last: np.ndarray) -> bool:
    if abs(int(first[0]) - int(first[len(first) // 2])) >= UNIFORM:  # as nearly always
        return False
    return max(int(first.max()), int(last.max())) - min(int(first.min()), int(last.min())) < UNIFORM


def _between(lines: np.ndarray) -> tuple[float, float] | None:
    """Return where what is between bars begins and ends, in 0..1 down (h, w)."""
    count, bar = len(lines), int(np.median(lines[0]))
    away = np.abs(lines.astype(np.int16) - bar)
    uniform = away.max(axis=1) < UNIFORM
    places = np.flatnonzero(~uniform)
    if len(places) < 8:
        return None
    first, last = int(places[0]), int(places[-1])
    edges = [np.mean(away[place] > DIFFERENT) for place in (first + 1, last - 1)]  # shrinking mixes the outermost with the bar
    enough = (count - 1 - last + first) / count >= LEAST
    if not enough or min(edges) < FRAMED or np.mean(uniform[first : last + 1]) > INNER:
        return None
    return (first + 1) / count, last / count
