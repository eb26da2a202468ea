"""The shape of a distribution of weights: outliers, values near zero, two modes."""

from __future__ import annotations

from math import pi, sqrt

import torch
from torch import Tensor

from netlens.lenses.kernels.moments import PIECE, binned, strided

LEAST_OUTLIER = 256  # elements below which a largest one says nothing
NEAR = 1e-3  # of the RMS
LEAST_MODES = 64  # elements below which no two modes can be told from chance
PRUNED = 0.1  # share of exact zeros above which the gap around zero is cut, not grown
TAIL = 0.005  # of each side, left out: one outlier would put all else into one bin
LEAST_MASS = 0.1  # on each side of a valley
SIGNIFICANT = 4.0  # standard deviations of the difference between mode and valley
GRID = 128


def outlier(flat: Tensor, largest: float) -> float | None:
    """Return max |w| / (1.4826 median |w|), of a normal distribution the number of standard deviations of its largest element.

    Zeros are left out of the median, so that pruned weights keep a scale. None for fewer than 256 elements other than 0.

    Args:
        flat: all elements, finite.
        largest: max |w|.
    """
    sample = strided(flat)
    sizes = sample[sample != 0].abs()
    return largest / (1.4826 * float(sizes.median())) if len(sizes) >= LEAST_OUTLIER else None


def near_zero(flat: Tensor, rms: float, zeros: int) -> float | None:
    """Return the share of elements with 0 < |w| < 1e-3 RMS; of a normal distribution it is 2 phi(0) / 1000 = 0.0008."""
    if not flat.numel() or not rms:
        return None
    below = sum(int(torch.count_nonzero(piece.abs() < NEAR * rms)) for piece in flat.split(PIECE))
    return max(below - zeros, 0) / flat.numel()


def valley(flat: Tensor, zeros: int) -> float | None:
    """Return how deep the valley between two modes is: 1 - density there / density at the lower mode; 0 with one mode.

    The density is a histogram smoothed by a normal kernel (Silverman's bandwidth). A valley counts when a tenth of the elements lies on
    either side and when it is deeper than chance allows: the variance of the density is density / (2 sqrt(pi) n bandwidth). So normal,
    uniform, Laplace, Student's and truncated distributions give 0, and two normal ones that lie 4 standard deviations apart 0.5 to 0.75.
    None for fewer than 64 elements, and where a tenth of them are exactly 0.

    Args:
        flat: all elements, finite; of many, a sample is looked at.
        zeros: how many of them are exactly 0.
    """
    sample = strided(flat)
    if len(sample) < LEAST_MODES or zeros >= PRUNED * flat.numel():
        return None
    cut = 1 + int(TAIL * len(sample))
    low, high = float(sample.kthvalue(cut)[0]), float(sample.kthvalue(len(sample) + 1 - cut)[0])
    inside = sample[(sample >= low) & (sample <= high)].double()
    spread = float(inside.std(correction=0))
    if not high > low or not spread:
        return 0.0
    bandwidth = 0.9 * spread * len(inside) ** -0.2
    return _deepest(binned(inside, low, high, GRID).double(), bandwidth / ((high - low) / GRID))


def _deepest(counts: Tensor, bandwidth: float) -> float:
    """Return the depth of the deepest significant valley of a histogram; `bandwidth` is in bins."""
    place = torch.arange(len(counts), dtype=torch.float64)
    kernel = torch.exp(-0.5 * ((place[:, None] - place) / bandwidth) ** 2) / (sqrt(2 * pi) * bandwidth)
    density = kernel @ counts
    lower = torch.minimum(density.cummax(0)[0], density.flip(0).cummax(0)[0].flip(0))
    share = counts.cumsum(0) / counts.sum()
    deviations = (lower - density) / ((lower + density) / (2 * sqrt(pi) * bandwidth)).sqrt()
    counted = (share >= LEAST_MASS) & (share <= 1 - LEAST_MASS) & (deviations >= SIGNIFICANT)
    depth = torch.where(counted, 1 - density / lower, 0.0)
    return float(depth.max())
