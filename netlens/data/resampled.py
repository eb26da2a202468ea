"""Whether a picture was enlarged, by what interpolation leaves in it.

Gallagher 2005, "Detection of linear and cubic interpolation in JPEG compressed images": an interpolated line is smooth between the samples
that it was made of and bends at them, so the second derivative is periodic with the factor. Here the phase is known as well, as a picture is
enlarged as a whole: sample j of n lies at (j + 1/2) / n of the width. That tells a factor of 3 to 7 in JPEG files from any blur.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

CERTAIN = 4.5  # standard deviations over no pattern; blurred pictures: up to 4.3 in 800, enlarged 3..5 times by linear or cubic: 8..20
LEAST_FACTOR = 2.2
MOST_FACTOR = 16.0
LINES = 400  # rows, and columns, that are looked at
ALIKE = 4  # grey levels between two neighbours that are one pixel of a smaller picture; JPEG adds 1 to 3
DRAWN = 0.3  # share of neighbouring blocks of one colour, over which it is pixel art and no photograph
_HARMONICS = 6
_WINDOW = 31  # pixels, over which the picture's own unevenness is taken away


def enlargement(im: Image.Image) -> float:
    """Return by what factor a soft picture was enlarged, about; 0.0 where nothing shows that."""
    rows, columns = _lines(im)
    return _factor(_bends(rows), _bends(columns), (im.width, im.height), 1.5, -1)


def blocks(im: Image.Image) -> float:
    """Return by what factor a picture was enlarged by repeating its pixels; 0.0 where it was not, and for pixel art."""
    middle = np.asarray(im.crop((0, im.height // 2, im.width, im.height // 2 + 1)).convert("L"))[0].astype(np.int16)
    if np.count_nonzero(np.abs(middle[1:] - middle[:-1]) < ALIKE) < 0.5 * middle.size:
        return 0.0
    rows, columns = _lines(im)
    factor = _factor(_steps(rows), _steps(columns), (im.width, im.height), 1.0, 1)
    return factor if factor and _pictured(rows, factor) else 0.0


def _lines(im: Image.Image) -> tuple[np.ndarray, np.ndarray]:
    """Return some rows, (n, width), and some columns, (m, height), of grey, float32."""
    grey = np.asarray(im.convert("L"))
    rows, columns = grey[:: -(-im.height // LINES)], grey.T[:: -(-im.width // LINES)]
    return rows.astype(np.float32), columns.astype(np.float32)


def _bends(lines: np.ndarray) -> np.ndarray:
    return np.abs(2 * lines[:, 1:-1] - lines[:, :-2] - lines[:, 2:]).mean(axis=0)


def _steps(lines: np.ndarray) -> np.ndarray:
    return np.abs(lines[:, 1:] - lines[:, :-1]).mean(axis=0)


def _factor(across: np.ndarray, down: np.ndarray, size: tuple[int, int], offset: float, sign: int) -> float:
    """Return the factor that both axes agree on; 0.0 where none stands out."""
    smaller = np.arange(int(min(size) / MOST_FACTOR) + 1, int(min(size) / LEAST_FACTOR))  # pixels of the shorter side
    if not len(smaller) or min(smaller) < 4:
        return 0.0
    sums = np.zeros(len(smaller))
    for profile, length in ((across, size[0]), (down, size[1])):
        strengths = _strengths(profile, length, offset, sign)
        at = np.rint(smaller * length / min(size)).astype(np.intp)
        sums += strengths[at]
    best = int(sums.argmax())
    return min(size) / int(smaller[best]) if sums[best] / 2**0.5 > CERTAIN else 0.0


def _strengths(profile: np.ndarray, length: int, offset: float, sign: int) -> np.ndarray:
    """Return for each number of samples n, 0..length, how much a profile repeats n times, in standard deviations of a random one.

    Args:
        profile: (m,), the first of it `offset` pixels from the edge.
        sign: 1 where it is large between samples, -1 where it is large at their middles.
    """
    level = np.log(profile + 0.1)
    smooth = np.convolve(np.pad(level, _WINDOW // 2, mode="reflect"), np.full(_WINDOW, 1 / _WINDOW), "valid")
    level = (level - smooth) / max(float((level - smooth).std()), 1e-6)
    turns = np.arange(length // 2 + 1)
    waves = (np.fft.rfft(level, length) * np.exp(-2j * np.pi * turns * offset / length)).real / np.sqrt(len(level) / 2)
    blocks_of_jpeg = np.abs(turns[:, None] - length / 8 * np.arange(1, 5)).min(axis=1) < 2
    waves[blocks_of_jpeg] = 0
    sums, counts = np.zeros(length + 1), np.zeros(length + 1)
    for harmonic in range(1, _HARMONICS + 1):
        last = int(0.48 * length) // harmonic
        sums[: last + 1] += sign**harmonic * waves[: harmonic * last + 1 : harmonic]
        counts[: last + 1] += ~blocks_of_jpeg[: harmonic * last + 1 : harmonic]
    return sums / np.sqrt(np.maximum(counts, 1))


def _pictured(rows: np.ndarray, factor: float) -> bool:
    """Tell a photograph from pixel art, in which neighbouring blocks often have the same colour."""
    middles = ((np.arange(int(rows.shape[1] / factor)) + 0.5) * factor).astype(np.intp)
    samples = rows[:, middles]
    return float(np.mean(np.abs(samples[:, 1:] - samples[:, :-1]) < ALIKE)) < DRAWN
