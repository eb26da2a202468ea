"""The stable rank of a weight: how many directions carry it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

EXACT = 5e11  # multiply-adds of a Gram matrix that is worth them: two to five seconds on two cores
WIDEST = 8192  # rows of a Gram matrix that is held in memory: 256 MiB
BLOCK = 1024  # rows of it that are computed together
SMALL = 256  # rows up to which all eigenvalues cost no more than the largest one
ENOUGH = 5e-4  # residual / eigenvalue at which Lanczos' iteration stops; the error is of the order of its square


def gram_of(rows: Tensor) -> Tensor | None:
    """Return rows @ rows^T, (groups, filters, filters), of (groups, filters, fan_in); None where that would take too long."""
    groups, filters, fan_in = rows.shape
    if filters > WIDEST or groups * filters * filters * fan_in > EXACT:
        return None
    if filters <= 2 * BLOCK:
        return rows @ rows.mT
    gram = rows.new_empty(groups, filters, filters)
    for start in range(0, filters, BLOCK):  # one half of it; the other is the same
        end = start + BLOCK
        gram[:, start:end, start:] = rows[:, start:end] @ rows[:, start:].mT
        gram[:, end:, start:end] = gram[:, start:end, end:].mT
    return gram


def stable_rank(rows: Tensor, norms: Tensor, gram: Tensor | None) -> float | None:
    """Return the lowest ||W||_F^2 / sigma_max^2 of the groups (Rudelson and Vershynin 2007); None where every element is 0.

    Args:
        rows: (groups, filters of a group, fan_in).
        norms: (groups, filters of a group), of the rows.
        gram: `gram_of(rows)`.
    """
    if gram is None:
        gram = gram_of(rows.mT)
    found = []
    for group, squares in enumerate(norms.double().square().sum(dim=1).tolist()):
        if squares:
            found.append(max(squares / _largest(rows[group], None if gram is None else gram[group]), 1.0))
    return min(found, default=None)


def _largest(matrix: Tensor, gram: Tensor | None) -> float:
    """Return the square of the largest singular value."""
    if gram is None:
        return largest_eigenvalue(lambda vector: matrix.T @ (matrix @ vector), matrix[0])
    if len(gram) <= SMALL:
        return float(torch.linalg.eigvalsh(gram.double())[-1])
    return largest_eigenvalue(lambda vector: gram @ vector, gram[0])


def largest_eigenvalue(apply: Callable[[Tensor], Tensor], like: Tensor, most: int = 256) -> float:
    """Return the largest eigenvalue of a symmetric matrix by Lanczos' method with full reorthogonalisation.

    With `apply` v -> W^T (W v) it is the bidiagonalisation of Golub and Kahan (1965), written as what it is equal to.

    Args:
        apply: multiplies the matrix with a vector.
        like: a vector of its size and type.
        most: steps at most. Random matrices, whose largest eigenvalues lie closest together, take 40 at an error below 1e-5.
    """
    vector = torch.randn(like.shape, generator=torch.Generator().manual_seed(0), dtype=like.dtype)
    vector /= vector.norm()
    basis = like.new_empty(min(most, len(like)), len(like))
    tridiagonal = torch.zeros(len(basis) + 1, len(basis) + 1, dtype=torch.float64)
    largest = 0.0
    for step in range(len(basis)):
        basis[step] = vector
        image = apply(vector)
        tridiagonal[step, step] = image @ vector
        for _ in range(2):  # once is not enough in floating point (Kahan and Parlett)
            image = image - basis[: step + 1].T @ (basis[: step + 1] @ image)
        rest = image.norm()
        tridiagonal[step, step + 1] = tridiagonal[step + 1, step] = rest
        exhausted = float(rest) <= 1e-6 * float(tridiagonal.diagonal().max())
        if step % 5 == 4 or step + 1 == len(basis) or exhausted:
            values, vectors = torch.linalg.eigh(tridiagonal[: step + 1, : step + 1])
            largest = float(values[-1])
            if float(rest) * abs(float(vectors[-1, -1])) <= ENOUGH * largest:
                break
        vector = image / rest
    return largest
