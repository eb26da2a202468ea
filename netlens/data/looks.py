"""What the pixels of one picture look like: exact sums for mean and standard deviation, and what is wrong with it as a photograph.

Thresholds separated planted faults from 15,585 clean pictures (2,500 of them measured); those that cite nothing else come from there.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np
from PIL import Image, ImageChops

from netlens.data.resampled import blocks, enlargement
from netlens.wording import number

SIDE = 128  # pixels a side of the grey picture that is judged, about (by area): shrinking by a whole number is exact, and fast
BLANK = 1.5  # standard deviation of grey; clean: over 28
DARK = 64  # 99th percentile of grey; planted: up to 24, clean: over 130
BRIGHT = 190  # 1st percentile; planted: over 241, clean: under 79
STRAY = 0.0002  # share of pixels that may lie outside; more are stars or lamps in the dark, lines of a drawing, a bird in the fog
LIT = 96  # what a dark picture has nothing over, but for STRAY, and a bright one nothing as far from white
LOW_CONTRAST = 34  # between the percentiles; planted: up to 24, clean: over 102, but for fog: over 35
SOFT = 0.12  # sharpness; planted: up to .0154 (.04 at half the blur), clean: over .082, so that it takes a second sign
SUSPECT = 0.25  # sharpness; enlarged five times: up to .25, a twentieth of clean ones as well
MOVED = 0.45  # sharpness that motion along one line can leave: across it everything stays sharp
ONE_WAY = 0.6  # smaller over larger variance of the gradients; motion: under .5 in nine of ten
# Variance of I(x + 3) - I(x) over that of I(x + 1) - I(x): 9 where a picture is smooth, 3 where it is made of edges, 1 where it is noise.
# Along a blur: over 6.4 (480 planted in photographs and scenes), across motion: under 5.5 in nine of ten, clean: under 5.4, skies: 6.1.
SMOOTH = 6.4
LIMP = 4.0  # what is enlarged or blurred is over it; nine of ten clean pictures are not
ROUGH = 5.5
TEXTURED = 0.05  # sharpness; a picture whose contrast was taken keeps its texture: over .11
STRUCTURE = 2.1  # in the direction of more: a picture whose contrast was taken keeps its structure, a grainy sky has under 2.1
PLAIN = 4.0  # standard deviation of grey around a smooth surface (of degree 2): a sky or a wall has under 2, what is blurred over 8
NOISY = 12.0  # sharpness; white noise: 20 by theory, clean: under 2.5
EVEN = 0.8  # smaller over larger variance of the gradients of noise; text and fences have less
CHEQUERED = 30.0  # sharpness that noise cannot have, and patterns of single pixels do
SAME = 3  # largest difference between channels of a grey picture: what JPEG's colour planes leave
SMALLEST = 32  # pixels a side, below which there is too little to tell noise
SMALL = 80  # or blur: a photograph shrunk to 64 can be as smooth
_AXIS = np.linspace(-1, 1, 16)
_SURFACES = np.linalg.qr(
    np.stack([np.outer(_AXIS**y, _AXIS**x).ravel() for y, x in ((0, 0), (0, 1), (1, 0), (0, 2), (1, 1), (2, 0))], axis=1)
)[0]
_ENLARGED = "enlarged about {} times"
_POWERS = np.stack([np.arange(256), np.arange(256) ** 2], axis=1)


@dataclass(frozen=True, slots=True)
class Looks:
    """What was measured of one picture."""

    sums: np.ndarray  # (C, 2) int64: of each channel and of its squares; C is 1 or 3
    counts: np.ndarray  # (C, 256) int64, how many pixels of each channel have which value
    colours: Image.Image  # shrunk by whole numbers
    grey: Image.Image  # the same, mode L
    pixels: np.ndarray  # the same, (h, w) uint8
    low: int  # 1st percentile of grey
    high: int  # 99th
    spread: float  # standard deviation of grey
    sharpness: float  # variance of the Laplacian over the variance of grey: does not depend on contrast; 0 where it is flat
    direction: float  # smaller over larger variance of the gradients across and down; 1 where there are none


def measured(im: Image.Image) -> Looks:
    """Measure a picture in RGB or L."""
    colours = im.reduce(max(1, round(sqrt(im.width * im.height) / SIDE)))
    grey = colours.convert("L")
    counts = np.array(im.histogram() + grey.histogram(), dtype=np.int64).reshape(-1, 256)
    sums = counts @ _POWERS
    low, high, variance = _levels(counts[-1], *sums[-1].tolist())
    pixels = np.frombuffer(grey.tobytes(), np.uint8).reshape(grey.height, grey.width)
    return Looks(sums[:-1], counts[:-1], colours, grey, pixels, low, high, variance**0.5, *_texture(pixels, variance))


def is_grey(looks: Looks, pixels: int) -> bool:
    """Tell whether the channels of a picture of so many pixels are the same; so they are where there is one."""
    if len(looks.sums) == 1:
        return True
    means = [int(channel) for channel in looks.sums[:, 0]]
    if max(means) - min(means) > SAME * pixels:
        return False
    red, green, blue = looks.colours.split()
    others = (ImageChops.difference(green, red), ImageChops.difference(green, blue))
    return all(other.getextrema()[1] <= SAME for other in others)  # type: ignore[operator]


def judged(looks: Looks, im: Image.Image) -> tuple[str, str]:
    """Return the one thing that is wrong with a picture's looks, as a code and in numbers; ("", "") where nothing is."""
    if looks.spread < BLANK:
        return "blank", f"its grey levels differ by {number(looks.spread)} of 255 (standard deviation)"
    if looks.high < DARK or looks.low > BRIGHT or looks.high - looks.low < LOW_CONTRAST:
        return _light_fault(looks)
    if min(looks.grey.size) < SMALLEST:
        return "", ""
    if looks.sharpness > NOISY:
        text = f"its texture is {number(looks.sharpness)} times its contrast; pure noise has 20"
        return ("noisy", text) if _is_noise(looks) else ("", "")
    if min(looks.grey.size) < SMALL:
        return "", ""
    if factor := blocks(im):
        return "upscaled", _ENLARGED.format(number(factor))
    one_way = looks.direction < ONE_WAY and looks.sharpness < MOVED
    return _soft_fault(looks, im) if looks.sharpness < SUSPECT or one_way else ("", "")


def _light_fault(looks: Looks) -> tuple[str, str]:
    lowest, highest = _extremes(looks.counts)
    if looks.high < DARK:
        return ("dark", f"99 % of it is darker than {looks.high + 1} of 255") if highest.max() < LIT else ("", "")
    if looks.low > BRIGHT:
        return ("bright", f"99 % of it is brighter than {looks.low - 1} of 255") if lowest.min() > 255 - LIT else ("", "")
    near = looks.sharpness > TEXTURED and (highest - lowest).max() < 2 * LOW_CONTRAST
    if near and STRUCTURE < max(growth for _, growth in _growths(looks)) < SMOOTH:
        return "low-contrast", f"98 % of it lies between {looks.low} and {looks.high} of 255"
    return "", ""


def _extremes(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return between which values each channel lies, but for STRAY at either end; twice (C,)."""
    upto = counts.cumsum(axis=1) / counts[0].sum()
    return (upto < STRAY).sum(axis=1), (upto < 1 - STRAY).sum(axis=1)


def _is_noise(looks: Looks) -> bool:
    """Tell noise, which is everywhere, from stars, which are few, and from patterns of single pixels."""
    _, laplacian = _derivatives(looks.pixels)
    size = np.abs(laplacian)
    spread_out = looks.sharpness < CHEQUERED and looks.direction > EVEN
    return spread_out and float(np.median(size)) > 0.4 * float(np.sqrt(np.mean(size**2)))  # of a normal distribution: .67


def _soft_fault(looks: Looks, im: Image.Image) -> tuple[str, str]:
    (_, weak), (_, strong) = _growths(looks)
    if max(weak, strong) < LIMP or _unevenness(looks.grey) < PLAIN:
        return "", ""
    if looks.sharpness < SUSPECT and (factor := enlargement(im)):
        return "upscaled", _ENLARGED.format(number(factor))
    if weak > SMOOTH and strong < ROUGH and looks.direction < ONE_WAY:
        return "motion-blurred", f"its gradients are {number(1 / max(looks.direction, 1e-3))} times stronger in one direction"
    if looks.sharpness < SOFT and max(weak, strong) > SMOOTH and min(weak, strong) > ROUGH:
        return "blurred", f"its texture is {number(looks.sharpness)} times its contrast; sharp pictures have over 0.08"
    return "", ""


def _growths(looks: Looks) -> list[tuple[float, float]]:
    """Return for the direction of weaker gradients, and of stronger ones, their variance and how it grows."""
    grey = looks.pixels.astype(np.float32)
    if min(grey.shape) <= 3:
        return [(0.0, 0.0)] * 2
    across = _growth(grey[:, 1:] - grey[:, :-1], grey[:, 3:] - grey[:, :-3])
    return sorted((across, _growth(grey[1:] - grey[:-1], grey[3:] - grey[:-3])))


def _growth(near: np.ndarray, far: np.ndarray) -> tuple[float, float]:
    """Return the variance of neighbours' differences, and how many times it grows over three pixels."""
    variance = _variance(near)
    return variance, _variance(far) / variance if variance else 0.0


def _unevenness(grey: Image.Image) -> float:
    """Return the standard deviation of grey around the surface of degree 2 that fits it best."""
    values = np.asarray(grey.resize((16, 16), Image.Resampling.BOX)).astype(np.float64).ravel()
    return float((values - _SURFACES @ (values @ _SURFACES)).std())


def _levels(counts: np.ndarray, sum_: int, squares: int) -> tuple[int, int, float]:
    """Return the 1st and 99th percentile and the variance of values that occur so often, (256,)."""
    upto = counts.cumsum()
    total = int(upto[-1])
    low, high = upto.searchsorted((total / 100, total * 99 / 100)).tolist()
    return low, high, (squares - sum_ * sum_ / total) / total


def _texture(grey: np.ndarray, variance: float) -> tuple[float, float]:
    """Return sharpness and direction of (h, w) grey."""
    if min(grey.shape) < 3 or variance == 0:
        return 0.0, 1.0
    strengths, laplacian = _derivatives(grey)
    stronger = max(strengths)
    return _variance(laplacian) / variance, min(strengths) / stronger if stronger else 1.0


def _derivatives(grey: np.ndarray) -> tuple[tuple[float, float], np.ndarray]:
    """Return the variance of the gradients across and down, and the Laplacian, (h - 2, w - 2) float32."""
    height, width = grey.shape
    flat = grey.astype(np.float32).ravel()  # one long line, which numpy runs over twice as fast; what wraps around is cut off
    down = flat[width:] - flat[:-width]
    across = np.empty_like(flat)
    np.subtract(flat[1:], flat[:-1], out=across[:-1])
    laplacian = down[width:] - down[:-width]
    laplacian += across[width:-width]
    laplacian -= across[width - 1 : -width - 1]
    strengths = _variance(across.reshape(height, width)[:, :-1]), _variance(down.reshape(height - 1, width))
    return strengths, laplacian.reshape(height - 2, width)[:, 1:-1]


def _variance(values: np.ndarray) -> float:
    """Return the variance of (h, w), without BLAS: its threads would change the last bits."""
    mean = float(np.einsum("ij->", values)) / values.size
    return max(0.0, float(np.einsum("ij,ij->", values, values)) / values.size - mean * mean)
