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
REPEATED = 0.45  # share of neighbours in the middle row that are alike, under which no factor from LEAST_FACTOR on is thought of
INSIDE = 0.4  # steps inside repeated pixels over steps between them; 0 but for JPEG, 1 in any other picture
ALIKE = 4  # grey levels between neighbours that can be one pixel of a smaller picture: JPEG adds 1 to 3
DRAWN = 0.6  # share of blocks that have one of the 24 most frequent grey levels, over which it is pixel art and no photograph
_HARMONICS = 6
_WINDOW = 31  # pixels, over which the picture's own unevenness is taken away


def enlargement(im: Image.Image) -> float:
    """Return by what factor a soft picture was enlarged, about; 0.0 where nothing shows that."""
    rows, columns = _lines(im)
    return _factor(_bends(rows), _bends(columns), im.size)


def blocks(im: Image.Image) -> float:
    """Return by what factor a picture was enlarged by repeating its pixels; 0.0 where it was not, and for pixel art."""
    middle = np.asarray(im.crop((0, im.height // 2, im.width, im.height // 2 + 1)).convert("L"))[0].astype(np.int16)
    if np.count_nonzero(np.abs(middle[1:] - middle[:-1]) < ALIKE) < REPEATED * middle.size:
        return 0.0
    rows, columns = _lines(im)
    smaller = _candidates(im.size)
    worse = np.zeros(len(smaller))
    for profile, length in ((_steps(rows), im.width), (_steps(columns), im.height)):
        worse = np.maximum(worse, _within(profile[:LINES], length, np.rint(smaller * length / min(im.size))))
    if not len(smaller) or worse.min() > INSIDE:
        return 0.0
    factor = min(im.size) / int(smaller[worse.argmin()])
    return factor if _pictured(rows, factor) else 0.0


def _within(steps: np.ndarray, length: int, samples: np.ndarray) -> np.ndarray:
    """Return for each number of samples (n,) how large the steps (m,) inside repeated pixels are, of those between them."""
    owners = ((np.arange(len(steps) + 1) + 0.5) * (samples / length)[:, None]).astype(np.intp)
    between = owners[:, 1:] != owners[:, :-1]
    count = between.sum(axis=1)
    outer, total = between @ steps, steps.sum()
    inner = (total - outer) / np.maximum(len(steps) - count, 1)
    found: np.ndarray = inner / np.maximum(outer / np.maximum(count, 1), 1e-6)
    return found


def _candidates(size: tuple[int, int]) -> np.ndarray:
    """Return how many pixels the shorter side can have had."""
    return np.arange(max(4, int(min(size) / MOST_FACTOR) + 1), int(min(size) / LEAST_FACTOR))


def _lines(im: Image.Image) -> tuple[np.ndarray, np.ndarray]:
    """Return some rows, (n, width), and some columns, (m, height), of grey, float32."""
    grey = np.asarray(im.convert("L"))
    rows, columns = grey[:: -(-im.height // LINES)], grey.T[:: -(-im.width // LINES)]
    return rows.astype(np.float32), columns.astype(np.float32)


def _bends(lines: np.ndarray) -> np.ndarray:
    return np.abs(2 * lines[:, 1:-1] - lines[:, :-2] - lines[:, 2:]).mean(axis=0)


def _steps(lines: np.ndarray) -> np.ndarray:
    return np.abs(lines[:, 1:] - lines[:, :-1]).mean(axis=0)


def _factor(across: np.ndarray, down: np.ndarray, size: tuple[int, int]) -> float:
    """Return the factor that both axes agree on; 0.0 where none stands out."""
    smaller = _candidates(size)
    if not len(smaller):
        return 0.0
    sums = np.zeros(len(smaller))
    for profile, length in ((across, size[0]), (down, size[1])):
        strengths = _strengths(profile, length)
        at = np.rint(smaller * length / min(size)).astype(np.intp)
        sums += strengths[at]
    best = int(sums.argmax())
    return min(size) / int(smaller[best]) if sums[best] / 2**0.5 > CERTAIN else 0.0


def _strengths(profile: np.ndarray, length: int) -> np.ndarray:
    """Return for each number of samples n, 0..length, how much a line bends at their middles, in standard deviations of a random one.

    Args:
        profile: (length - 2,), the first of it 1.5 pixels from the edge.
    """
    level = np.log(profile + 0.1)
    smooth = np.convolve(np.pad(level, _WINDOW // 2, mode="reflect"), np.full(_WINDOW, 1 / _WINDOW), "valid")
    level = (level - smooth) / max(float((level - smooth).std()), 1e-6)
    turns = np.arange(length // 2 + 1)
    waves = (np.fft.rfft(level, length) * np.exp(-2j * np.pi * turns * 1.5 / length)).real / np.sqrt(len(level) / 2)
    blocks_of_jpeg = np.abs(turns[:, None] - length / 8 * np.arange(1, 5)).min(axis=1) < 2
    waves[blocks_of_jpeg] = 0
    sums, counts = np.zeros(length + 1), np.zeros(length + 1)
    for harmonic in range(1, _HARMONICS + 1):
        last = int(0.48 * length) // harmonic
        sums[: last + 1] += (-1) ** harmonic * waves[: harmonic * last + 1 : harmonic]
        counts[: last + 1] += ~blocks_of_jpeg[: harmonic * last + 1 : harmonic]
    return sums / np.sqrt(np.maximum(counts, 1))


def _pictured(rows: np.ndarray, factor: float) -> bool:
    """Tell a photograph from pixel art, which has few colours."""
    middles = ((np.arange(int(rows.shape[1] / factor)) + 0.5) * factor).astype(np.intp)
    counts = np.sort(np.bincount(rows[:, middles].astype(np.intp).ravel(), minlength=256))
    return int(counts[-24:].sum()) < DRAWN * int(counts.sum())
