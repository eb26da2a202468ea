"""Numbers to colours by a fixed rule, and back: colour `i` of a table stands for one number of the scale.

A palette holds 239 colours for numbers, one for what is not finite and 16 greys for paper and text. Both tables are perceptually ordered:

- diverging: ColorBrewer's RdBu (C. Brewer, colorbrewer2.org), reversed: blue is negative, white is zero, red is positive;
- sequential: viridis (S. van der Walt and N. Smith, CC0), from zero up.
"""

from __future__ import annotations

from functools import cache

import numpy as np

STEPS = 119  # colours on either side of zero
LEVELS = 2 * STEPS + 1
NONFINITE = LEVELS  # index of the colour of NaN and infinities
INK, PAPER = 240, 255  # the first and the last of the greys
MAT = 251  # the frame of a tile
MAGENTA = (255, 0, 255)  # of no table, and no RGB tile has it: their channels are 1..255

_RDBU = "0530612166ac4393c392c5ded1e5f0f7f7f7fddbc7f4a582d6604db2182b67001f"
_VIRIDIS = (
    "440154470e61481a6c482575472f7d443a834144873d4d8a39568c345f8d31688e2d708e2a788e27808e23888e21908c"
    "1f988b1fa08822a8842ab07f35b77943bf7154c56866cc5d7ad1518fd744a5db36bcdf27d2e21be8e419fde725"
)


@cache
def palette(signed: bool) -> np.ndarray:
    """Return all 256 colours, (256, 3) uint8."""
    greys = np.linspace(24, 255, PAPER - INK + 1)[:, None].repeat(3, axis=1)
    return np.concatenate([_interpolated(_RDBU if signed else _VIRIDIS), [MAGENTA], np.rint(greys)]).astype(np.uint8)


def _interpolated(knots: str) -> np.ndarray:
    colours = np.frombuffer(bytes.fromhex(knots), np.uint8).reshape(-1, 3)
    places = np.linspace(0, len(colours) - 1, LEVELS)
    return np.stack([np.rint(np.interp(places, np.arange(len(colours)), channel)) for channel in colours.T], axis=1)


def indices(values: np.ndarray, limit: np.ndarray | float, signed: bool) -> np.ndarray:
    """Return the palette index of each number, uint8.

    Signed: round(119 v / limit) + 119, so that zero is exactly the middle colour; else round(238 v / limit). Beyond the limit: its colour.
    """
    shares, finite = _shares(values, limit, signed)
    levels = np.rint(shares * STEPS) + STEPS if signed else np.rint(shares * 2 * STEPS)
    levels[~finite] = NONFINITE
    pixels: np.ndarray = levels.astype(np.uint8)
    return pixels


def channels(values: np.ndarray, limit: np.ndarray | float, signed: bool) -> np.ndarray:
    """Return (..., 3) numbers as red, green and blue, uint8 in 1..255; a pixel with a channel that is not finite is magenta.

    Signed: 0.5 + v / (2 limit) in 255 levels, that is round(127 v / limit) + 128: zero is a grey of exactly 128. Else
    round(254 v / limit) + 1.
    """
    shares, finite = _shares(values, limit, signed)
    levels = np.rint(shares * 127) + 128 if signed else np.rint(shares * 254) + 1
    levels[~finite.all(axis=-1)] = MAGENTA
    pixels: np.ndarray = levels.astype(np.uint8)
    return pixels


def _shares(values: np.ndarray, limit: np.ndarray | float, signed: bool) -> tuple[np.ndarray, np.ndarray]:
    finite = np.isfinite(values)
    numbers = np.where(finite, values, 0).astype(np.float64) / np.where(limit > 0, limit, 1)
    return np.clip(numbers, -1 if signed else 0, 1), finite
