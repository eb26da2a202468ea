"""How large the elements of gradients are: sums and extremes, read once where the tensor is; nothing is fetched here."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from math import isfinite, sqrt
from typing import NamedTuple

import torch
from torch import Tensor

from netlens.parts import Histogram

PIECE = 1 << 20  # elements that are read together on the CPU: they stay in the cache
PIECE_ELSEWHERE = 1 << 24  # on accelerators; so many are still counted exactly in float32
SAFE = (1e-16, 1e15)  # largest magnitudes whose squares, summed, keep their digits in float32
BINS = 64
SAMPLE = 1 << 15  # elements of a histogram
RUN = 1 << 12  # elements whose squares are added up in float32 before float64 goes on; of a sample, elements in a row


class Magnitudes(NamedTuple):
    """Of the finite elements of one gradient."""

    total: float  # of |x|
    squares: float
    nonzero: float
    nan: float
    infinite: float
    greatest: float  # |x|
    elements: int

    @classmethod
    def of(cls, numbers: Sequence[float], elements: int) -> Magnitudes:
        """Return what `magnitudes` computed, now fetched."""
        total, squares, nonzero, nan, infinite, greatest = numbers
        return cls(total, squares, nonzero, nan, infinite, greatest, elements)

    @property
    def finite(self) -> int:
        """How many are."""
        return self.elements - int(self.nan) - int(self.infinite)

    def divided(self, scale: float) -> Magnitudes:
        """Return the magnitudes of the gradient / `scale`."""
        return self._replace(total=self.total / scale, squares=self.squares / scale**2, greatest=self.greatest / scale)

    @property
    def mean(self) -> float | None:
        """Of |x|."""
        return self.total / self.finite if self.finite else None

    @property
    def largest(self) -> float | None:
        """The greatest |x|."""
        return self.greatest if self.finite else None

    @property
    def norm(self) -> float | None:
        """L2."""
        return sqrt(self.squares) if self.finite else None

    @property
    def rms(self) -> float | None:
        """Norm / sqrt(elements)."""
        return sqrt(self.squares / self.finite) if self.finite else None

    @property
    def zeros(self) -> float | None:
        """Share of elements that are exactly 0."""
        return max(0.0, (self.finite - self.nonzero) / self.finite) if self.finite else None


COUNT = len(Magnitudes._fields) - 1  # numbers that are computed on the device


def magnitudes(tensor: Tensor, *, careful: bool = False, sampled: bool = False) -> Tensor:
    """Return the numbers of `Magnitudes` without `elements`, on the device: (6,), float64 (float32 on mps, which has no other).

    Args:
        tensor: of any shape, layout and floating or complex type.
        careful: read it in float64, and leave out what is not finite. On the CPU, where a look at a number costs nothing, this is done
            wherever it is needed; on other devices call again where `is_blurred`.
        sampled: on the CPU estimate the sum of |x| and the count of x != 0 of each seventh run of elements, where there are many.
    """
    values = _flat(tensor.detach())
    if not values.numel():
        return torch.zeros(COUNT, dtype=wide(values), device=values.device)
    if values.is_cpu and not careful:
        parts = [_on_cpu(piece, sampled=sampled and len(piece) > SAMPLE * 7) for piece in values.split(PIECE)]
        return torch.tensor([*map(sum, list(zip(*parts, strict=True))[:-1]), max(part[-1] for part in parts)], dtype=torch.float64)
    return reduce(joined, map(_carefully if careful else _elsewhere, values.split(PIECE_ELSEWHERE)))


def all_magnitudes(tensors: Sequence[Tensor], *, careful: bool = False) -> list[Tensor]:
    """Return `magnitudes` of each tensor; on accelerators in few launches."""
    if careful or not tensors or any(tensor.is_cpu or tensor.dtype != torch.float32 or tensor.is_sparse for tensor in tensors):
        return [magnitudes(tensor, careful=careful) for tensor in tensors]
    return _together(list(tensors))


def _together(tensors: list[Tensor]) -> list[Tensor]:
    total, norm, greatest = (torch.stack(torch._foreach_norm(tensors, order)) for order in (1, 2, torch.inf))
    nonzero = torch.stack([sum(torch.linalg.vector_norm(part, 0) for part in _flat(each).split(PIECE_ELSEWHERE)) for each in tensors])
    none = torch.zeros_like(total)
    kind = wide(total)
    return list(torch.stack([total.to(kind), norm.to(kind).square(), nonzero.to(kind), none, none, greatest.to(kind)], dim=1))


def joined(one: Tensor, other: Tensor) -> Tensor:
    """Return the magnitudes of two parts together."""
    return torch.cat([one[:-1] + other[:-1], torch.maximum(one[-1:], other[-1:])])


def is_blurred(numbers: Magnitudes) -> bool:
    """Tell whether magnitudes from an accelerator are of no use: an element is not finite, or squares left float32."""
    return not (isfinite(numbers.total) and _is_safe(numbers.greatest))


def sum_of_squares(tensor: Tensor) -> Tensor:
    """Return the sum of squares on the device; not finite where an element is not."""
    values = _flat(tensor.detach())
    if not values.is_cpu:
        return torch.stack([_norm(piece, 2).square() for piece in values.split(PIECE_ELSEWHERE)]).sum()
    return torch.tensor(sum(_squares(piece) for piece in values.split(PIECE)), dtype=torch.float64)


def mean_square(tensor: Tensor) -> Tensor:
    """Return the mean of squares on the device, of each seventh run of elements where there are many; not finite where one is not."""
    values = _flat(tensor.detach())
    if len(values) < SAMPLE * 7:
        return sum_of_squares(values) / len(values)
    return _norms(_some(values)).square().mean() / RUN


def wide(tensor: Tensor) -> torch.dtype:
    """Return the type in which sums are combined."""
    return torch.float32 if tensor.device.type == "mps" else torch.float64


def _flat(tensor: Tensor) -> Tensor:
    """Return all elements in the order in which they lie in memory, without a copy where there are no gaps."""
    if tensor.is_sparse:
        tensor = tensor.coalesce().values()
    if tensor.is_complex():
        tensor = tensor.abs()
    return tensor.permute(sorted(range(tensor.dim()), key=tensor.stride, reverse=True)).reshape(-1)


def _on_cpu(piece: Tensor, *, sampled: bool) -> list[float]:
    import numpy as np

    piece = piece.float() if piece.dtype.itemsize < 4 else piece
    sizes = (_some(piece) if sampled else piece).abs()
    greatest = max(float(piece.amax()), -float(piece.amin())) if sampled else float(sizes.amax())
    if not _is_safe(greatest):
        return _carefully(piece).tolist()
    nonzero = float(np.count_nonzero(sizes.numpy() != 0))  # a third of the time that torch takes
    share = sizes.numel() / len(piece)
    return [float(sizes.sum()) / share, _squares(piece), max(nonzero / share, float(greatest > 0)), 0.0, 0.0, greatest]


def _some(values: Tensor) -> Tensor:
    """Return each seventh run of elements, (n, RUN); not each eighth, because sizes are powers of 2."""
    return values[: len(values) - len(values) % RUN].view(-1, RUN)[::7]


def _squares(piece: Tensor) -> float:
    whole = len(piece) - len(piece) % RUN
    norms, rest = _norms(piece[:whole].view(-1, RUN)), piece[whole:].double()
    return float(norms.dot(norms)) + float(rest.dot(rest))


def _norms(runs: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(runs, dim=1, dtype=torch.promote_types(runs.dtype, torch.float32)).to(wide(runs))
    return norms


def _elsewhere(piece: Tensor) -> Tensor:
    total, norm, nonzero, greatest = (_norm(piece, order) for order in (1, 2, 0, torch.inf))
    none = torch.zeros_like(total)
    return torch.stack([total, norm.square(), nonzero, none, none, greatest])


def _norm(piece: Tensor, order: float) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(piece, order, dtype=torch.promote_types(piece.dtype, torch.float32)).to(wide(piece))
    return norm


def _carefully(piece: Tensor) -> Tensor:
    finite, nan = piece.isfinite(), piece.isnan().sum()
    sizes = piece.where(finite, 0.0).to(wide(piece)).abs()
    parts = (sizes.sum(), sizes.dot(sizes), sizes.count_nonzero(), nan, piece.numel() - finite.sum() - nan, sizes.amax())
    return torch.stack([part.to(sizes.dtype) for part in parts])


def _is_safe(greatest: float) -> bool:
    return greatest == 0 or SAFE[0] <= greatest <= SAFE[1]


def histograms(tensors: Sequence[Tensor]) -> list[Histogram | None]:
    """Return the histogram of each tensor's finite elements, of an even sample where there are many; None: there are none."""
    samples = []
    for tensor in tensors:
        values = _flat(tensor.detach())
        samples.append(values[:: max(1, -(-len(values) // SAMPLE))].float())
    fetched = torch.cat(samples).cpu().split([len(sample) for sample in samples]) if samples else ()
    return [_histogram(sample, len(sample) < tensor.numel()) for sample, tensor in zip(fetched, tensors, strict=True)]


def _histogram(values: Tensor, sampled: bool) -> Histogram | None:
    import numpy as np

    finite = values.numpy()[np.isfinite(values.numpy())]
    if not len(finite):
        return None
    low, high = float(finite.min()), float(finite.max())
    scale = BINS / (high - low) if high > low else 0.0
    places = ((finite.astype(np.float64) - low) * scale).astype(np.int64).clip(0, BINS - 1)
    return Histogram(low, high, tuple(np.bincount(places, minlength=BINS).tolist()), sampled)
