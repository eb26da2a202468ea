"""Whether neighbours in a kernel are alike: filters that learned something are smooth, random ones are not."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod, sqrt

from torch import Tensor

WIDEST = 4096  # positions of a kernel


def smoothness(filters: Tensor, rms: float) -> tuple[float | None, float | None]:
    """Return the autocorrelation of neighbours in the kernel, and how many standard deviations that is from noise.

    r = sum(a b) / sum((a^2 + b^2) / 2) over all pairs (a, b) of elements that are one step apart in one spatial dimension, in every channel
    of every filter: 1 for constant kernels, -1 for a chessboard (cf. Moran 1950). Under independent weights of mean 0 the products are
    uncorrelated, so z = sum(a b) / sqrt(sum(a^2 b^2)) is nearly standard normal.

    Args:
        filters: (filters, channels, *kernel), finite.
        rms: of the elements.

    Returns:
        (r, z); None for both where no pair is there, or every element is 0.
    """
    kernel = tuple(filters.shape[2:])
    positions = prod(kernel)
    if not 1 < positions <= WIDEST or not rms:
        return None, None
    left, right = (list(side) for side in zip(*_pairs(kernel), strict=True))
    flat = filters.reshape(-1, positions) / rms
    products = (flat.T @ flat).double()
    power = products.diagonal()
    squares = flat.square_()
    variance = float((squares.T @ squares).double()[left, right].sum())
    covariance, size = float(products[left, right].sum()), float((power[left] + power[right]).sum()) / 2
    if not variance or not size:
        return None, None
    return covariance / size, covariance / sqrt(variance)


def _pairs(kernel: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Yield the flat positions of every two neighbours."""
    step = prod(kernel)
    for size in kernel:
        step //= size
        yield from ((place, place + step) for place in range(prod(kernel)) if place // step % size < size - 1)
