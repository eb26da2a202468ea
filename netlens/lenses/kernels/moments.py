"""Sums over the elements of a weight, in float64."""

from __future__ import annotations

from dataclasses import dataclass
from math import frexp, gcd, isfinite, sqrt

import torch
from torch import Tensor

from netlens.parts import Histogram

PIECE = 1 << 20  # elements that are converted together; smaller ones are slow where other processes compete for the cores
CANCELLED = 1e-6  # variance / mean square below which their difference has lost too many digits
BINS = 64
SAMPLE = 1 << 16  # elements that tell a median or a shape well enough: +-0.4 % of the standard deviation
SAFE = (1e-9, 1e9)  # magnitudes whose fourth powers, summed, are safe in float32


@dataclass(frozen=True, slots=True)
class Cleaned:
    """The elements of a weight in a form that can be computed with."""

    values: Tensor  # as given, non-finite elements replaced by 0, divided by `scale`
    scale: float  # a power of 2; not 1 only where squares would overflow or vanish
    finite: Tensor | None  # which elements are finite; None: all
    nan: int
    infinite: int


@dataclass(frozen=True, slots=True)
class Moments:
    """Of the finite elements of one weight."""

    count: int
    mean: float
    std: float  # population
    rms: float
    norm: float
    least: float
    greatest: float
    histogram: Histogram

    def scaled(self, scale: float) -> Moments:
        """Return the moments of the elements times `scale`."""
        least, greatest = self.least * scale, self.greatest * scale
        histogram = Histogram(least, greatest, self.histogram.counts)
        return Moments(self.count, self.mean * scale, self.std * scale, self.rms * scale, self.norm * scale, least, greatest, histogram)


def cleaned(values: Tensor) -> Cleaned:
    """Take out what is not finite and, where magnitudes are extreme, the scale."""
    if not values.numel():
        return Cleaned(values, 1.0, None, 0, 0)
    least, greatest = _extremes(values)
    finite, nan, infinite = None, 0, 0
    if not (isfinite(least) and isfinite(greatest)):
        finite = values.isfinite()
        nan = int(values.isnan().sum())
        infinite = values.numel() - int(finite.sum()) - nan
        values = torch.where(finite, values, 0.0)
        least, greatest = _extremes(values)
    largest = max(-least, greatest)
    scale = 1.0 if largest == 0 or SAFE[0] <= largest <= SAFE[1] else 2.0 ** (frexp(largest)[1] - 1)
    return Cleaned(values if scale == 1.0 else values / scale, scale, finite, nan, infinite)


def _extremes(values: Tensor) -> tuple[float, float]:
    least, greatest = torch.aminmax(values)
    return float(least), float(greatest)


def moments(values: Tensor, finite: Tensor | None = None) -> Moments | None:
    """Return mean = sum(w) / n, std = sqrt(sum((w - mean)^2) / n), RMS = sqrt(sum(w^2) / n), norm = sqrt(sum(w^2)) and a histogram.

    Args:
        values: contiguous, of any shape, finite.
        finite: which elements count; None: all.
    """
    flat = values.reshape(-1) if finite is None else values[finite]
    if not flat.numel():
        return None
    least, greatest = _extremes(flat)
    mean = float(flat.sum(dtype=torch.float64)) / flat.numel()
    norm = float(torch.linalg.vector_norm(flat, dtype=torch.float64))
    rms = norm / sqrt(flat.numel())
    variance = rms * rms - mean * mean
    if variance < CANCELLED * rms * rms:
        variance = _variance(flat, mean) if least < greatest else 0.0
    histogram = Histogram(least, greatest, tuple(binned(flat, least, greatest, BINS).tolist()))
    return Moments(flat.numel(), mean, sqrt(variance), rms, norm, least, greatest, histogram)


def _variance(flat: Tensor, mean: float) -> float:
    return sum(float((piece.double() - mean).square().sum()) for piece in flat.split(PIECE)) / flat.numel()


def binned(numbers: Tensor, low: float, high: float, bins: int) -> Tensor:
    """Count numbers from `low` to `high` in up to 255 bins of equal width; `high` belongs to the last bin."""
    counts = torch.zeros(bins + 1, dtype=torch.int64)
    scale = bins / (high - low) if high > low else 0.0
    for piece in numbers.split(PIECE):
        counts += torch.bincount(piece.sub(low).mul_(scale).to(torch.uint8), minlength=bins + 1)
    counts[bins - 1] += counts[bins]
    return counts[:bins]


def strided(flat: Tensor, most: int = SAMPLE) -> Tensor:
    """Return every n-th element, at most `most` of them; n and the length have no common factor: no column is preferred."""
    step = max(1, -(-flat.numel() // most))
    while gcd(step, flat.numel()) > 1:
        step += 1
    return flat[::step]
