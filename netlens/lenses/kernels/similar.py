"""How alike the filters of one layer are: cosines between them, and those that are copies."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor

from netlens.lenses.kernels.ranks import gram_of, stable_rank

MOST = 1 << 16  # filters that are compared at all
BLOCK = 1024  # filters that are compared together
PROJECTED = 64  # dimensions of the screen; a cosine c is then known to about (1 - c^2) / sqrt(64)
MARGIN = 0.02  # 16 standard deviations of that at c = 0.995
LEAST_COSINE, HOPELESS = 0.995, 0.99995  # below the first nothing is called a copy, above the second no test tells copies from chance
CHANCE = 1e-3  # of one random pair among all above the threshold
NOTHING = 1e-15  # norm / RMS norm below which a filter has no direction


@dataclass(frozen=True, slots=True)
class Similarity:
    """What the filters of one layer have in common."""

    duplicates: int = 0
    threshold: float | None = None
    largest: float | None = None  # |cosine|
    stable_rank: float | None = None


def similarity(rows: Tensor, norms: Tensor, whole: Tensor) -> Similarity:
    """Compare the filters of each group, and measure the rank of its matrix.

    Args:
        rows: (groups, filters of a group, fan_in), finite, of magnitudes whose squares float32 can hold.
        norms: (groups, filters of a group), of the rows.
        whole: (groups, filters of a group), False for filters with non-finite elements, which are like no other.
    """
    groups, filters, fan_in = rows.shape
    if filters < 2 or fan_in < 2:
        return Similarity()
    gram = gram_of(rows)
    rank = stable_rank(rows, norms, gram)  # before the Gram matrix becomes cosines
    compared = whole & (norms > NOTHING * norms.square().mean().sqrt())
    threshold = duplicate_threshold(filters, groups, fan_in)
    if gram is not None:
        nearest, largest = _nearest(gram, norms, compared)
    elif groups == 1 and filters <= MOST and threshold is not None:
        nearest, largest = _screened(rows[0], norms[0], compared[0], threshold), None
    else:
        return Similarity(stable_rank=rank)
    return Similarity(0 if threshold is None else int((nearest > threshold).sum()), threshold, largest, rank)


def duplicate_threshold(filters: int, groups: int, fan_in: int) -> float | None:
    """Return the cosine above which filters of one group count as copies; None where no cosine tells copies from chance.

    tau = max(0.995, sqrt(1 - (CHANCE / pairs)^(2 / (fan_in - 1)))): two random directions have a cosine above c with a probability
    below (1 - c^2)^((fan_in - 1) / 2), so among all pairs of the layer one exceeds tau with a probability below CHANCE.

    Args:
        filters: of one group.
        groups: how many of them there are.
        fan_in: elements of a filter.
    """
    pairs = groups * filters * (filters - 1) // 2
    if pairs < 1 or fan_in < 2:
        return None
    threshold = max(LEAST_COSINE, sqrt(1 - (CHANCE / pairs) ** (2 / (fan_in - 1))))
    return threshold if threshold <= HOPELESS else None


def _nearest(gram: Tensor, norms: Tensor, compared: Tensor) -> tuple[Tensor, float | None]:
    """Return each filter's largest cosine to another one, and the largest |cosine| of all; `gram` is overwritten."""
    inverse = torch.where(compared, 1 / norms, 0.0)
    cosines = gram.mul_(inverse[:, :, None]).mul_(inverse[:, None, :])
    cosines.diagonal(dim1=1, dim2=2).zero_()
    least, greatest = (float(extreme) for extreme in torch.aminmax(cosines))
    several = int(compared.sum(dim=1).max()) > 1
    return cosines.amax(dim=2), min(max(-least, greatest), 1.0) if several else None


def _screened(rows: Tensor, norms: Tensor, compared: Tensor, threshold: float) -> Tensor:
    """Return each filter's exact cosine to the one that is nearest in a random projection, or 0 where that one is not near.

    Random projections keep angles (Johnson and Lindenstrauss 1984), so nothing near is missed; the generator is a local one.
    """
    filters, fan_in = rows.shape
    projection = torch.randn(fan_in, PROJECTED, generator=torch.Generator().manual_seed(0), dtype=rows.dtype)
    short = torch.nn.functional.normalize(rows @ projection, dim=1) * compared[:, None]
    best = rows.new_zeros(filters)
    for start in range(0, filters, BLOCK):
        block = short[start : start + BLOCK] @ short[start:].T
        block.diagonal().zero_()
        for part, nearest in ((slice(start, start + BLOCK), block.amax(dim=1)), (slice(start, filters), block.amax(dim=0))):
            best[part] = torch.maximum(best[part], nearest)
    exact = rows.new_zeros(filters)
    for near in (best > threshold - MARGIN).nonzero()[:, 0].split(BLOCK):
        block = short[near] @ short.T
        block[torch.arange(len(near)), near] = 0
        other = block.argmax(dim=1)
        exact[near] = (rows[near] * rows[other]).sum(dim=1) / (norms[near] * norms[other])
    return exact
