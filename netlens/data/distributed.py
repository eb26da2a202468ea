"""Several processes as `torchrun` starts them, on one machine or on many: what `Exchange` asks for, over torch.distributed on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from math import prod
from time import sleep
from typing import TYPE_CHECKING, Any

import numpy as np

from netlens.data.exchange import Alone, Exchange
from netlens.errors import UsageError
from netlens.loading.launch import SETTLED, launched

if TYPE_CHECKING:
    from torch import Tensor

PATIENCE = timedelta(hours=6)  # for the slowest process: shares of large sets, on disks of different speed; torchrun ends all when one dies


@contextmanager
def joined() -> Iterator[Exchange]:
    """Join the other processes, and leave them afterwards; torch is imported only where there are any.

    A group that the user's code has made is kept.

    Raises:
        UsageError: only a part of torchrun's variables is set, or this torch cannot join.
    """
    if not launched():
        yield Alone()
        return
    import torch.distributed as dist

    if not dist.is_available() or not dist.is_gloo_available():
        raise UsageError("this torch was built without gloo, so processes cannot be joined", hint="start one process, without torchrun")
    begun = dist.is_initialized()
    if not begun:
        dist.init_process_group("gloo", timeout=PATIENCE)
    group = dist.new_group(backend="gloo", timeout=PATIENCE) if begun else None
    try:
        yield Group(group)
    finally:
        sleep(SETTLED)
        dist.destroy_process_group(group)


class Group(Exchange):
    """This process among others, joined by gloo: integers and bytes, so that every result is exact."""

    def __init__(self, group: Any = None) -> None:
        import torch.distributed as dist

        self._dist, self._group = dist, group
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)

    def summed(self, counts: np.ndarray) -> np.ndarray:
        """Return the sum over all processes of integers, an array of one shape in all; everyone gets it."""
        import torch

        total = torch.from_numpy(counts.astype(np.int64).reshape(-1))  # of unsigned 64 bits too: the sum is modulo 2^64 in both
        self._dist.all_reduce(total, group=self._group)
        summed: np.ndarray = total.numpy().astype(counts.dtype).reshape(counts.shape)
        return summed

    def sent(self, rows: np.ndarray, owners: np.ndarray) -> np.ndarray:
        """Send each row of an array to the process that `owners` (N,) names; return those that came, by sender."""
        going = np.bincount(owners.astype(np.int64), minlength=self.size).tolist()
        coming = [counts[self.rank] for counts in self.collected(going)]
        received, outgoing = _empty(rows, sum(coming)), rows[np.argsort(owners, kind="stable")]
        wide = rows.dtype.itemsize * prod(rows.shape[1:])
        came, went = ([wide * count for count in counts] for counts in (coming, going))
        self._dist.all_to_all_single(_bytes(received), _bytes(outgoing), came, went, group=self._group)
        return received

    def gathered(self, rows: np.ndarray) -> np.ndarray:
        """Return the rows of all processes, by rank; everyone gets them."""
        parts = [_empty(rows, count) for count in self.collected(len(rows))]
        parts[self.rank][:] = rows
        for rank, part in enumerate(parts):
            source = rank if self._group is None else self._dist.get_global_rank(self._group, rank)
            self._dist.broadcast(_bytes(part), source, group=self._group)
        return np.concatenate(parts)

    def collected(self, value: Any) -> list[Any]:
        """Return the plain Python values of all processes, by rank; everyone gets them."""
        found: list[Any] = [None] * self.size
        self._dist.all_gather_object(found, value, group=self._group)
        return found


def _empty(rows: np.ndarray, count: int) -> np.ndarray:
    """Return a new array of so many rows of the same shape and type."""
    return np.empty((count, *rows.shape[1:]), rows.dtype)


def _bytes(rows: np.ndarray) -> Tensor:
    """Return the bytes of a contiguous array, not copied."""
    import torch

    return torch.from_numpy(rows.reshape(-1).view(np.uint8))
