"""A picture's 64-bit perceptual hash, and that of its mirror image for one transform."""

from __future__ import annotations

import numpy as np

SIDE = 32  # pixels a side of what is transformed
LOW = 8  # frequencies a side that are kept
_STEPS = 16  # coefficients are rounded to 1/16 of a grey level: what is 0 but for rounding is 0, on every machine


def _cosines() -> np.ndarray:
    """Return the first rows of the orthonormal DCT-II, (LOW, SIDE)."""
    rows: np.ndarray = np.cos(np.pi / SIDE * np.outer(np.arange(LOW), np.arange(SIDE) + 0.5)) * np.sqrt(2 / SIDE)
    rows[0] /= np.sqrt(2)
    return rows


_COSINES = _cosines()
_TURNED = np.ascontiguousarray(_COSINES.T)
_MIRRORS = np.stack([np.ones(LOW), (-1.0) ** np.arange(LOW)])[:, None]  # a mirrored cosine of odd frequency is its negative


def perceptual(grey: np.ndarray) -> tuple[int, int]:
    """Return the pHash of a picture and of its mirror image.

    Zauner 2010, as `imagehash.phash` lays it out: the 8 x 8 lowest frequencies of a 32 x 32 DCT, each over or under their median, by
    rows, the first in the highest bit. `imagehash` shrinks by Lanczos; what is given here is shrunk as the caller likes.

    Args:
        grey: (32, 32), 0..255.
    """
    low = (np.rint((_COSINES @ grey @ _TURNED) * _STEPS) * _MIRRORS).reshape(2, -1)
    ranked = np.sort(low)
    over = low > (ranked[:, 31:32] + ranked[:, 32:33]) / 2
    upright, mirrored = np.packbits(over).view(">u8").tolist()
    return upright, mirrored
