"""Whether a picture was enlarged, by what interpolation leaves in it.

Gallagher 2005, "Detection of linear and cubic interpolation in JPEG compressed images": an interpolated line is smooth between samples of
the original and bends at them, so the second derivative is periodic with the factor. Here the phase is known as well, as a picture is
enlarged as a whole: sample j of n lies at (j + 1/2) / n of the width. That tells a factor of 3 to 7 in JPEG files from any blur.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from PIL import Image

CERTAIN = 4.5  # standard deviations over no pattern; blurred pictures: up to 4.3 in 800, enlarged 3..5 times by linear or cubic: 8..20
LEAST_FACTOR = 2.2
MOST_FACTOR = 16.0
MOST_STEPS = 1000  # along a line that are looked at for repeated pixels
LINES = 160  # rows, and columns, that are looked at
STEEP = 3  # grey levels of the least step; a sixth of the largest is not noise either
FEWEST = 0.02  # share of steps that are steep; a drawing has less
TOUCHING = 0.33  # share of the steep steps of a line that follow another: none in repeated pixels, half in the median of photographs
INSIDE = 0.4  # steps inside repeated pixels over steps between them; 0 but for JPEG, 1 in any other picture
SEEN = 3.0  # grey levels between repeated pixels, in the mean; JPEG's own blocks, which a smooth sky shows, have 1 or 2
DRAWN = 0.6  # share of blocks that have one of the 24 most frequent grey levels, over which it is pixel art and no photograph
_HARMONICS = 6
_WINDOW = 31  # pixels, over which the picture's own unevenness is taken away


def enlargement(im: Image.Image) -> float:
    """Return by what factor a soft picture was enlarged, about; 0.0 where nothing shows that."""
    across, down = (np.abs(steps[:, 1:] - steps[:, :-1]).mean(axis=0) for steps in map(_steps, _lines(im)))
    return _factor(across, down, im.size)


def blocks(im: Image.Image) -> float:
    """Return by what factor a picture was enlarged by repeating its pixels; 0.0 where it was not, and for pixel art."""
    width, height = im.size
    if _varied(im.crop((0, height // 2, width, height // 2 + 1))) or _varied(im.crop((width // 2, 0, width // 2 + 1, height))):
        return 0.0
    smaller = _candidates(im.size)
    contrast = np.full(len(smaller), np.inf)
    for lines, length in zip(_lines(im), im.size, strict=True):
        profile = np.abs(_steps(lines)).mean(axis=0)
        if profile.max() <= SEEN:
            return 0.0
        samples = np.rint(smaller * length / min(im.size)) / length
        contrast = np.minimum(contrast, np.maximum(_contrast(profile, samples, 1e-6), _contrast(profile, samples, -1e-6)))
        if contrast.max(initial=0) <= 0:
            return 0.0
    factor = min(im.size) / int(smaller[contrast.argmax()])
    return factor if _pictured(im, factor) else 0.0


def _varied(line: Image.Image) -> bool:
    """Tell whether steep steps follow each other along a line, which in repeated pixels they do not; or whether there are next to none."""
    pixels = np.frombuffer(line.convert("L").tobytes(), np.uint8)
    steps = np.abs(np.subtract(pixels[1:], pixels[:-1], dtype=np.int16))
    steep = steps >= max(STEEP, int(steps.max(initial=0)) // 6)
    count = np.count_nonzero(steep)
    return bool(count < FEWEST * len(steps) or np.count_nonzero(steep[1:] & steep[:-1]) > TOUCHING * count)


def _contrast(steps: np.ndarray, samples: np.ndarray, tie: float) -> np.ndarray:
    """Return how much larger steps between repeated pixels are than those inside them, 0 where that is not seen.

    Args:
        steps: (m,), between neighbours.
        samples: (n,), pixels of the original for one of the picture.
        tie: which way what lies between two pixels goes.
    """
    steps = steps[:MOST_STEPS]
    owners = ((np.arange(len(steps) + 1) + 0.5) * samples[:, None] + tie).astype(np.intp)
    between = owners[:, 1:] != owners[:, :-1]
    count = between.sum(axis=1)
    sums = between @ steps
    outer, inner = sums / np.maximum(count, 1), (steps.sum() - sums) / np.maximum(len(steps) - count, 1)
    found: np.ndarray = np.where((outer > SEEN) & (inner < INSIDE * outer), outer - inner, 0.0)
    return found


def _candidates(size: tuple[int, int]) -> np.ndarray:
    """Return how many pixels the shorter side can have had."""
    return np.arange(max(4, int(min(size) / MOST_FACTOR) + 1), int(min(size) / LEAST_FACTOR), dtype=np.intp)


def _lines(im: Image.Image) -> Iterator[np.ndarray]:
    """Give some rows, (n, width), and some columns, (m, height), of grey, float32."""
    grey: np.ndarray = np.asarray(im.convert("L"))
    yield grey[:: -(-im.height // LINES)].astype(np.float32)
    yield np.ascontiguousarray(grey[:, :: -(-im.width // LINES)].T).astype(np.float32)


def _steps(lines: np.ndarray) -> np.ndarray:
    steps: np.ndarray = lines[:, 1:] - lines[:, :-1]
    return steps


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
    phases, weights, scale = _harmonics(length)
    waves = (np.fft.rfft(level, length) * phases).real / np.sqrt(len(level) / 2)
    sums = np.zeros(length + 1)
    for harmonic, weight in enumerate(weights, 1):
        sums[: len(weight)] += weight * waves[: harmonic * len(weight) : harmonic]
    found: np.ndarray = sums / scale
    return found


@lru_cache(maxsize=16)
def _harmonics(length: int) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
    """Return what moves the phase of each frequency to the edge, how harmonics of n = 0, 1, ... count, and the deviation of their sum."""
    turns = np.arange(length // 2 + 1)
    apart = np.abs(turns[:, None] - length / 8 * np.arange(1, 5)).min(axis=1)  # from a frequency of JPEG's blocks
    weights, counts = [], np.zeros(length + 1)
    for harmonic in range(1, _HARMONICS + 1):
        at = slice(0, int(0.48 * length) + 1, harmonic)
        kept = apart[at] >= 2
        if harmonic % 2:  # the edges of blocks lie between samples: at a period of 8 or 4 they count against an enlargement
            kept |= (apart[at] < 0.6) & (turns[at] < 0.3 * length)
        weights.append((-1.0) ** harmonic * kept)
        counts[: len(kept)] += kept
    return np.exp(-2j * np.pi * turns * 1.5 / length), weights, np.sqrt(np.maximum(counts, 1))


def _pictured(im: Image.Image, factor: float) -> bool:
    """Tell a photograph from pixel art, which has few colours."""
    original = im.convert("L").resize((round(im.width / factor), round(im.height / factor)), Image.Resampling.BOX)
    counts = sorted(original.histogram())
    return sum(counts[-24:]) < DRAWN * sum(counts)
