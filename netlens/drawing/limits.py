"""How far a common scale goes, so that one number far out does not bleach the rest."""

from __future__ import annotations

import numpy as np

from netlens.drawing.tiles import Scale

CROWD = 0.999  # share of the numbers that a scale must hold,
FAR = 3.0  # where the largest is so many times further out


def common_limit(values: np.ndarray) -> tuple[float, str]:
    """Return the end of a common scale, and a remark on what lies beyond it: "" where nothing does.

    It is the largest finite |value|, unless this is far out: then what 999 of 1,000 keep within. 0 where there is nothing but zeros.
    """
    sizes = np.abs(values[np.isfinite(values)]).astype(np.float64)
    if not sizes.size:
        return 0.0, ""
    largest, crowd = float(sizes.max()), float(np.quantile(sizes, CROWD, method="higher"))
    if largest <= FAR * crowd or crowd == 0:
        return largest, ""
    beyond = np.count_nonzero(sizes > crowd)
    return crowd, f"{beyond:,} numbers are beyond the scale, up to {largest:.3g}"


def scale_of(values: np.ndarray, which: str, unit: str, *, signed: bool = True) -> tuple[Scale, str]:
    """Return the scale of tiles, "each" its own or one common to all of `values`, and what lies beyond it."""
    if which == "each":
        return Scale(signed, None, unit), ""
    limit, beyond = common_limit(values)
    return Scale(signed, limit or 1.0, unit), beyond
