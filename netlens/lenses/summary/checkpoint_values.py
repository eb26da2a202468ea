"""Reading the elements of a checkpoint's tensors, with --values: mapped files, one piece at a time, in bounded memory.

Nothing is unpickled: the reader knows where the bytes of every storage are, and they are looked at as numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import inf, isfinite, sqrt
from typing import TYPE_CHECKING

import torch

from netlens.errors import NetlensError
from netlens.lenses.summary.checkpoint_report import Values

if TYPE_CHECKING:
    from netlens.loading.checkpoints.archive import Archive, StoredTensor
    from netlens.loading.checkpoints.storages import Storages

PIECE = 1 << 21  # elements that are looked at together; as float64 they take 16 MiB
MAPPED = 1 << 26  # bytes after which the maps are closed, so that what was read does not stay in memory
OVERLAP = 4  # times a storage's elements; more of them than that are a trick


def read_values(archive: Archive, step: Callable[[], None] = lambda: None) -> Iterator[tuple[tuple[int, int], Values | str]]:
    """Read every tensor of every group, each memory once.

    Yields:
        (group, index in the group), and what its elements are, or why they cannot be read. `step` is called after each tensor.
    """
    known: dict[tuple[object, ...], Values | str] = {}
    reader = _Reader(archive)
    for place, group in enumerate(archive.groups):
        for index, stored in enumerate(group.tensors):
            memory = (stored.storage, stored.offset, stored.shape, stored.stride, stored.dtype)
            if not stored.storage or memory not in known:
                known[memory] = reader.read(stored)
            yield (place, index), known[memory]
            step()


class _Reader:
    """Reads pieces, and closes the maps of the file now and then."""

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        self.storages: Storages | None = None
        self.mapped = 0

    def read(self, stored: StoredTensor) -> Values | str:
        """Return what the elements are, or why they cannot be read."""
        if why := self._why_not(stored):
            return why
        found = Moments()
        try:
            for piece in pieces(stored):
                found.add(self._piece(piece))
        except NetlensError as error:
            return error.message.rpartition("cannot be read: ")[2]
        except (RuntimeError, NotImplementedError, TypeError):
            return f"this torch cannot compute with {stored.dtype}"
        return found.values()

    def _why_not(self, stored: StoredTensor) -> str:
        if not stored.readable:
            return stored.why or "unknown layout"
        if stored.location == "meta":
            return "a meta tensor has no elements"
        if self.archive.byteorder != "little":
            return f"written on a {self.archive.byteorder}-endian machine"
        return ""

    def _piece(self, piece: StoredTensor) -> torch.Tensor:
        from netlens.loading.checkpoints.storages import Storages

        if self.storages is None or self.mapped > MAPPED:
            self.storages, self.mapped = Storages(self.archive), 0
        tensor = self.storages.tensor(piece)
        self.mapped += tensor.numel() * tensor.itemsize
        return tensor


def pieces(stored: StoredTensor) -> Iterator[StoredTensor]:
    """Cut a tensor into parts of at most PIECE elements; dimensions along which nothing changes are looked at once.

    Raises:
        RuntimeError: more elements than its storage can have.
    """
    sides = [(size, step) for size, step in zip(stored.shape, stored.stride, strict=True) if size != 1 and step != 0 and size]
    if 0 in stored.shape:
        return
    sides.sort(key=lambda side: -side[1])
    whole = replace(stored, shape=tuple(size for size, _ in sides), stride=tuple(step for _, step in sides))
    if whole.numel > OVERLAP * max(stored.storage_bytes, 1):
        raise RuntimeError
    stack = [whole]
    while stack:
        part = stack.pop()
        if part.numel <= PIECE:
            yield part
            continue
        side = max(range(len(part.shape)), key=lambda dimension: (part.shape[dimension] > 1, part.stride[dimension]))
        half = part.shape[side] // 2
        first, rest = list(part.shape), list(part.shape)
        first[side], rest[side] = half, part.shape[side] - half
        stack.append(replace(part, shape=tuple(rest), offset=part.offset + half * part.stride[side]))
        stack.append(replace(part, shape=tuple(first)))


@dataclass(slots=True)
class Moments:
    """Sums over all pieces of a tensor so far."""

    count: int = 0  # finite elements
    mean: float = 0.0
    squares: float = 0.0  # squared distances from the mean
    least: float = inf
    greatest: float = -inf
    nan: int = 0
    infinite: int = 0
    zeros: int = 0
    ordered: bool = True  # False: complex

    def add(self, piece: torch.Tensor) -> None:
        """Count the elements of one piece."""
        if piece.is_complex():
            return self._add_complex(piece.to(torch.complex128))
        numbers = piece.to(torch.float64).reshape(-1)
        self.zeros += numbers.numel() - int(torch.count_nonzero(numbers))
        least, greatest = (float(extreme) for extreme in torch.aminmax(numbers))
        if isfinite(least) and isfinite(greatest):
            return self._add_finite(numbers, least, greatest)
        self.nan += int(numbers.isnan().sum())
        self.infinite += int(numbers.isinf().sum())
        finite = numbers[numbers.isfinite()]
        if finite.numel():
            self._add_finite(finite, float(finite.min()), float(finite.max()))
        return None

    def _add_finite(self, numbers: torch.Tensor, least: float, greatest: float) -> None:
        """Merge extremes, mean and squares (Chan, Golub and LeVeque 1979)."""
        self.least, self.greatest = min(self.least, least), max(self.greatest, greatest)
        variance, mean = (float(moment) for moment in torch.var_mean(numbers, correction=0))
        count = self.count + numbers.numel()
        apart = mean - self.mean
        self.squares += variance * numbers.numel() + apart * apart * self.count * numbers.numel() / count
        self.mean += apart * numbers.numel() / count
        self.count = count

    def _add_complex(self, numbers: torch.Tensor) -> None:
        self.ordered = False
        nan = numbers.isnan()
        self.nan += int(nan.sum())
        self.infinite += int((numbers.isinf() & ~nan).sum())
        self.zeros += int((numbers == 0).sum())

    def values(self) -> Values:
        """Return what is known in the end."""
        if not self.count or not self.ordered:
            return Values(None, None, None, None, self.nan, self.infinite, self.zeros)
        deviation = sqrt(max(self.squares, 0.0) / self.count)
        return Values(self.least, self.greatest, self.mean, deviation, self.nan, self.infinite, self.zeros)
