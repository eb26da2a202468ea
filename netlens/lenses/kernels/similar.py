"""How alike the filters of one layer are: cosines between them, those that are copies, and how many directions carry them all."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor

from netlens.lenses.kernels.elements import PIECE

EXACT = 8e9  # multiply-adds of all cosines up to which every one is computed: 3,200 filters of 768 elements, a tenth of a second
MOST = 1 << 16  # filters that are compared at all
BLOCK = 128  # filters that are compared together
PROJECTED = 64  # dimensions of the screen; a cosine c is then known to about (1 - c^2) / sqrt(64)
MARGIN = 0.02  # 16 standard deviations of that at c = 0.995
LEAST_COSINE, HOPELESS = 0.995, 0.99995  # below the first nothing is called a copy, above the second no test tells copies from chance
CHANCE = 1e-3  # of one random pair among all above the threshold
NOTHING = 1e-15  # norm / RMS norm below which a filter has no direction
SMALL = 128  # filters, or elements of one, up to which all eigenvalues cost no more than the largest one
ENOUGH = 5e-4  # residual / eigenvalue at which Lanczos' iteration stops; the error is of the order of its square


@dataclass(frozen=True, slots=True)
class Similarity:
    """What the filters of one layer have in common."""

    duplicates: int = 0
    threshold: float | None = None
    largest: float | None = None  # |cosine|; None where only near copies were looked for
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
    rank = stable_rank(rows, norms)
    compared = whole & (norms > NOTHING * norms.square().mean().sqrt())
    inverse = torch.where(compared, 1 / norms, 0.0)
    threshold = duplicate_threshold(filters, groups, fan_in)
    largest = None
    if groups * filters * filters * fan_in <= EXACT:
        nearest, greatest = _nearest(rows * inverse[:, :, None])
        largest = greatest if int(compared.sum(dim=1).max()) > 1 else None
    elif filters <= MOST and threshold is not None:
        nearest = torch.stack([_screened(*group, threshold) for group in zip(rows, inverse, strict=True)])
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


def _nearest(units: Tensor) -> tuple[Tensor, float]:
    """Return each row's largest cosine to another one of its group, or 0, and the largest |cosine| of all.

    Args:
        units: (groups, rows, dimensions) of length 1, or 0 for rows that are not compared.
    """
    best, opposite = units.new_zeros(units.shape[:2]), 0.0
    for start in range(0, units.shape[1], BLOCK):  # one half of the matrix; the other is the same
        end = start + BLOCK
        cosines = units[:, start:end] @ units[:, start:].mT
        cosines.diagonal(dim1=1, dim2=2).zero_()
        opposite = max(opposite, -float(cosines.min()))
        for part, nearest in ((best[:, start:end], cosines.amax(dim=2)), (best[:, start:], cosines.amax(dim=1))):
            torch.maximum(part, nearest, out=part)
    return best, min(max(opposite, float(best.max())), 1.0)


def _screened(rows: Tensor, inverse: Tensor, threshold: float) -> Tensor:
    """Return each filter's exact cosine to the one that is nearest in a random projection, or 0 where that one is not near.

    Random projections keep angles (Johnson and Lindenstrauss 1984), so nothing near is missed; the generator is a local one.
    """
    projection = torch.randn(rows.shape[1], PROJECTED, generator=torch.Generator().manual_seed(0), dtype=rows.dtype)
    short = torch.nn.functional.normalize(rows @ projection, dim=1) * (inverse > 0)[:, None]
    best, _ = _nearest(short[None])
    exact = rows.new_zeros(len(rows))
    for near in (best[0] > threshold - MARGIN).nonzero()[:, 0].split(BLOCK):
        cosines = short[near] @ short.T
        cosines[torch.arange(len(near)), near] = 0
        other = cosines.argmax(dim=1)
        exact[near] = (rows[near] * rows[other]).sum(dim=1) * inverse[near] * inverse[other]
    return exact


def stable_rank(rows: Tensor, norms: Tensor) -> float | None:
    """Return the lowest ||W||_F^2 / sigma_max^2 of the groups (Rudelson and Vershynin 2007); None where every element is 0.

    Args:
        rows: (groups, filters of a group, fan_in).
        norms: (groups, filters of a group), of the rows.
    """
    squares = norms.double().square().sum(dim=1)
    if not bool(squares.all()):
        rows, squares = rows[squares > 0], squares[squares > 0]
    if not len(rows):
        return None
    if min(rows.shape[1:]) <= SMALL:
        wide = rows if rows.shape[1] <= rows.shape[2] else rows.mT
        largest = torch.linalg.eigvalsh((wide @ wide.mT).double())[:, -1]
    else:
        largest = squares.new_tensor([_largest(group) for group in rows])
    return max(float((squares / largest).min()), 1.0)


def _largest(matrix: Tensor, most: int = 256) -> float:
    """Return the square of the largest singular value by Lanczos' method on W^T W, with full reorthogonalisation.

    That is equal to the bidiagonalisation of Golub and Kahan (1965). W is read once a step, in pieces that stay in the cache.

    Args:
        matrix: (m, n), not all 0.
        most: steps at most. Random matrices, whose largest singular values lie closest together, take 40 at an error below 1e-5.
    """
    pieces = matrix.split(max(1, PIECE // matrix.shape[1]))
    vector = torch.randn(matrix.shape[1], generator=torch.Generator().manual_seed(0), dtype=matrix.dtype)
    basis = matrix.new_empty(min(most, len(vector)), len(vector))
    diagonal: list[float] = []
    beside: list[float] = []
    rest = float(vector.norm())
    for step in range(len(basis)):
        vector = torch.div(vector, rest, out=basis[step])
        image = torch.zeros_like(vector)
        for piece in pieces:
            image.addmv_(piece.T, piece @ vector)
        diagonal.append(float(image @ vector))
        for _ in range(2):  # once is not enough in floating point (Kahan and Parlett)
            image.addmv_(basis[: step + 1].T, basis[: step + 1] @ image, alpha=-1)
        vector, rest = image, float(image.norm())
        exhausted = step + 1 == len(basis) or rest <= 1e-6 * max(diagonal)
        if step % 5 == 4 or exhausted:
            lower = torch.diag(torch.tensor(diagonal, dtype=torch.float64)) + torch.diag(torch.tensor(beside, dtype=torch.float64), -1)
            values, vectors = torch.linalg.eigh(lower)  # which reads no more of a symmetric matrix
            if exhausted or rest * abs(float(vectors[-1, -1])) <= ENOUGH * float(values[-1]):
                break
        beside.append(rest)
    direction = vectors[:, -1].to(matrix.dtype) @ basis[: len(diagonal)]
    image = torch.cat([piece @ direction for piece in pieces])  # its length has none of the rounding of all these steps
    return float(image.double().square().sum() / direction.double().square().sum())
