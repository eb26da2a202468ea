"""The elements of a weight, whatever their places: sums in float64, the histogram, outliers, values near zero, two modes."""

from __future__ import annotations

from dataclasses import dataclass
from math import frexp, gcd, inf, isfinite, pi, sqrt

import torch
from torch import Tensor

PIECE = 1 << 18  # elements that are worked on together: 1 MiB of float32, which a core's cache holds
CANCELLED = 1e-6  # variance / mean square below which their difference has lost too many digits
BINS = 64
NEAR = 1e-3  # of the RMS
SAFE = (1e-9, 1e9)  # magnitudes whose fourth powers, summed, are safe in float32
SAMPLE = 1 << 16  # elements that tell a median, to 0.5 %, and a shape well enough
LEAST_OUTLIER = 256  # elements below which a largest one says nothing
LEAST_MODES = 64  # elements below which no two modes can be told from chance
PRUNED = 0.1  # share of exact zeros above which the gap around zero is cut, not grown
TAIL = 0.005  # of each side, left out: one outlier would put all else into one bin
LEAST_MASS = 0.1  # on each side of a valley
SIGNIFICANT = 4.0  # standard deviations of the difference between mode and valley
GRID = 128


@dataclass(frozen=True, slots=True)
class Moments:
    """Sums over the finite elements of one weight."""

    mean: float
    std: float  # population
    rms: float
    norm: float
    least: float
    greatest: float


@dataclass(frozen=True, slots=True)
class Elements:
    """The elements of a weight in a form that can be computed with."""

    values: Tensor  # as given, non-finite elements replaced by 0, divided by `scale`
    scale: float  # a power of 2; not 1 only where squares would overflow or vanish
    finite: Tensor | None  # which elements are finite; None: all
    nan: int
    infinite: int
    moments: Moments | None  # of the finite elements of `values`; None: there are none

    @property
    def flat(self) -> Tensor:
        """Return the finite elements, (n,)."""
        return self.values.reshape(-1) if self.finite is None else self.values[self.finite]


def elements(values: Tensor) -> Elements:
    """Take out what is not finite and, where magnitudes are extreme, the scale; `values` are contiguous."""
    found, scale, finite, nan, infinite = moments(values.reshape(-1)), 1.0, None, 0, 0
    if found is not None and not isfinite(found.norm):
        finite, nan = values.isfinite(), int(values.isnan().sum())
        infinite = values.numel() - int(finite.sum()) - nan
        values = torch.where(finite, values, 0.0)
        found = moments(values[finite])
    size = 0.0 if found is None else max(-found.least, found.greatest)
    if size and not SAFE[0] <= size <= SAFE[1]:
        scale = 2.0 ** (frexp(size)[1] - 1)
        values = values / scale
        found = moments(values.reshape(-1) if finite is None else values[finite])
    return Elements(values, scale, finite, nan, infinite, found)


def moments(flat: Tensor) -> Moments | None:
    """Return mean = sum(w) / n, std = sqrt(sum((w - mean)^2) / n), RMS = sqrt(sum(w^2) / n), norm = sqrt(sum(w^2)) and the extremes."""
    if not (count := flat.numel()):
        return None
    least, greatest, total, squares = inf, -inf, 0.0, 0.0
    for piece in flat.split(PIECE):
        extremes = torch.aminmax(piece)
        least, greatest = min(least, float(extremes.min)), max(greatest, float(extremes.max))
        total += float(piece.sum(dtype=torch.float64))
        size = float(torch.linalg.vector_norm(piece, dtype=torch.float64))
        squares += size * size
    mean, rms = total / count, sqrt(squares / count)
    variance = rms * rms - mean * mean
    if variance < CANCELLED * rms * rms:
        variance = _variance(flat, mean) if least < greatest else 0.0
    return Moments(mean, sqrt(variance), rms, sqrt(squares), least, greatest)


def _variance(flat: Tensor, mean: float) -> float:
    return sum(float((piece.double() - mean).square().sum()) for piece in flat.split(PIECE)) / flat.numel()


def histogram(flat: Tensor, found: Moments) -> tuple[int, ...]:
    """Count elements in bins of equal width from the least to the greatest, which belongs to the last bin."""
    counts = torch.zeros(BINS + 1, dtype=torch.int64)
    scale = BINS / (found.greatest - found.least) if found.greatest > found.least else 0.0
    for piece in flat.split(PIECE):
        counts += torch.bincount(piece.sub(found.least).mul_(scale).to(torch.uint8), minlength=BINS + 1)
    counts[BINS - 1] += counts[BINS]
    return tuple(counts[:BINS].tolist())


def near_zero(flat: Tensor, rms: float, zeros: int) -> float | None:
    """Return the share of elements with 0 < |w| < 1e-3 RMS; of a normal distribution it is 2 phi(0) / 1000 = 0.0008."""
    if not rms:
        return None
    below = sum(int(torch.count_nonzero(piece.abs() < NEAR * rms)) for piece in flat.split(PIECE))
    return max(below - zeros, 0) / flat.numel()


def strided(flat: Tensor, most: int = SAMPLE) -> Tensor:
    """Return every n-th element, at most `most` of them; n and the length have no common factor: no column is preferred."""
    step = max(1, -(-flat.numel() // most))
    while gcd(step, flat.numel()) > 1:
        step += 1
    return flat[::step].contiguous()


def outlier(sample: Tensor, largest: float) -> float | None:
    """Return max |w| / (1.4826 median |w|), of a normal distribution the number of standard deviations of its largest element.

    Zeros are left out of the median, so that pruned weights keep a scale. None for fewer than 256 elements other than 0.

    Args:
        sample: `strided` elements, finite.
        largest: max |w| of all elements.
    """
    sizes = sample.abs()
    sizes = sizes[sizes > 0]
    return largest / (1.4826 * float(sizes.median())) if len(sizes) >= LEAST_OUTLIER else None


def valley(sample: Tensor) -> float | None:
    """Return how deep the valley between two modes is: 1 - density there / density at the lower mode; 0 with one mode.

    The density is a histogram smoothed by a normal kernel (Silverman's bandwidth). A valley counts when a tenth of the elements lies on
    either side and when it is deeper than chance allows: the variance of the density is density / (2 sqrt(pi) n bandwidth). So normal,
    uniform, Laplace, Student's and truncated distributions give 0, and two normal ones that lie 4 standard deviations apart 0.5 to 0.75.
    None for fewer than 64 elements, and where a tenth of them are exactly 0.

    Args:
        sample: `strided` elements, finite.
    """
    count = len(sample)
    if count < LEAST_MODES or count - int(torch.count_nonzero(sample)) >= PRUNED * count:
        return None
    cut = 1 + int(TAIL * count)
    low, high = (float(sample.topk(cut, largest=side).values[-1]) for side in (False, True))
    return _deepest(torch.histc(sample.double(), GRID, low, high)) if high > low else 0.0


def _deepest(counts: Tensor) -> float:
    """Return the depth of the deepest significant valley of a histogram; lengths are in bins."""
    place = torch.arange(len(counts), dtype=torch.float64)
    count = counts.sum()
    spread = torch.sqrt(counts @ (place - counts @ place / count).square() / count)
    bandwidth = 0.9 * spread * count**-0.2
    kernel = torch.exp(-0.5 * ((place[:, None] - place) / bandwidth) ** 2) / (sqrt(2 * pi) * bandwidth)
    density = kernel @ counts
    lower = torch.minimum(density.cummax(0)[0], density.flip(0).cummax(0)[0].flip(0))
    share = counts.cumsum(0) / count
    deviations = (lower - density) / ((lower + density) / (2 * sqrt(pi) * bandwidth)).sqrt()
    counted = (share >= LEAST_MASS) & (share <= 1 - LEAST_MASS) & (deviations >= SIGNIFICANT)
    return float(torch.where(counted, 1 - density / lower, 0.0).max())
