"""What `--size`, `--mean` and `--std` say, read without torch."""

from __future__ import annotations

import math
import re

from netlens.errors import UsageError

LARGEST = 16384  # pixels of a side: beyond it, a slip of the finger
SIZES = "write --size 224, or height,width: --size 224,320"
VALUES = "write one value for all channels or one for each, of pixel values in 0..1 (or in 0..255): {option} 0.485,0.456,0.406"


def parse_size(text: str) -> tuple[int, int]:
    """Read `--size` as (height, width): "224" is 224 x 224, and "224,320" is 224 high and 320 wide.

    Raises:
        UsageError: it is neither.
    """
    values = numbers(text)
    if values is None or len(values) not in (1, 2) or not all(value.is_integer() for value in values):
        raise UsageError(f"--size {text!r} is not a size", hint=SIZES)
    height, width = int(values[0]), int(values[-1])
    if not all(1 <= side <= LARGEST for side in (height, width)):
        raise UsageError(f"--size {text!r}: a side has 1 to {LARGEST} pixels", hint=SIZES)
    return height, width


def parse_mean(text: str) -> tuple[float, ...]:
    """Read `--mean`: "0.5", "0.485,0.456,0.406" or "[123.7, 116.3, 103.5]"; brackets and spaces are as one likes.

    Raises:
        UsageError: it holds no numbers, or more than a picture has channels.
    """
    return _values(text, "--mean")


def parse_std(text: str) -> tuple[float, ...]:
    """Read `--std`, written like `--mean`.

    Raises:
        UsageError: as for `parse_mean`, or a value is not above 0.
    """
    values = _values(text, "--std")
    if min(values) <= 0:
        raise UsageError(f"--std {text!r}: pixels are divided by it, so every value must be above 0", hint=VALUES.format(option="--std"))
    return values


def numbers(text: str) -> tuple[float, ...] | None:
    """Read finite numbers between commas or spaces, in brackets or not; None where there is anything else."""
    bare = text.strip().strip("[](){} ")
    try:
        values = tuple(float(part) for part in re.split(r"\s*,\s*|\s+", bare))
    except ValueError:
        return None
    return values if all(map(math.isfinite, values)) else None


def _values(text: str, option: str) -> tuple[float, ...]:
    values = numbers(text)
    if values is None or len(values) not in (1, 3, 4):
        what = "is not a list of numbers" if values is None else f"has {len(values)} values; a picture has 1, 3 or 4 channels"
        raise UsageError(f"{option} {text!r} {what}", hint=VALUES.format(option=option))
    return values
