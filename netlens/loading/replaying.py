"""Batches by their number: the same number gives the same batch. One batch is held, the last."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from netlens.errors import InputError
from netlens.loading.feeding import Batch
from netlens.probing.leaves import map_tensors
from netlens.probing.untouched import seeded

MOST = 1 << 18  # samples of a data set that get a turn


class Numbered:
    """Batches by their number; after the last one they come again from the first."""

    def __init__(self, count: int | None = None) -> None:
        self.count = count  # None: not known yet, or no end
        self.wrapped = False
        self._last: tuple[int, Batch] | None = None

    def __call__(self, number: int) -> Batch:
        """Return one batch.

        Raises:
            InputError, FileProblem: a sample cannot be read, or there is none.
        """
        place = number if self.count is None else number % self.count
        self.wrapped |= place != number
        if self._last is None or self._last[0] != place:
            self._last = None
            self._last = place, self._read(place)
        return self._last[1]

    def _read(self, place: int) -> Batch:
        raise NotImplementedError


class Picked(Numbered):
    """Samples that can be had by their index, shuffled as for training; an incomplete batch at the end is left out."""

    def __init__(self, indices: Sequence[int], batch_size: int, read: Callable[[Sequence[int]], Batch], seed: int) -> None:
        super().__init__(max(1, min(len(indices), MOST) // batch_size))
        self._order = random.Random(seed).sample(indices, min(len(indices), MOST))
        self._batch_size, self._pick, self._seed = batch_size, read, seed

    def _read(self, place: int) -> Batch:
        start = place * self._batch_size
        with seeded(self._seed + place):  # data sets draw how a sample is cropped or flipped
            return self._pick(self._order[start : start + self._batch_size])


class Replayed(Numbered):
    """Batches that come one after the other; for one that is gone, they come again from the start."""

    def __init__(self, start: Callable[[], Iterator[Batch]], seed: int) -> None:
        super().__init__()
        self._start, self._seed = start, seed
        self._batches: Iterator[Batch] = iter(())
        self._next: int | None = None  # the number of the next batch; None: not begun

    def _read(self, place: int) -> Batch:
        if self._next is None or place < self._next:
            self._batches, self._next = self._start(), 0
        while True:
            with seeded(self._seed + self._next):  # loaders shuffle, and data sets draw
                batch = next(self._batches, None)
            if batch is None:
                break
            self._next += 1
            if self._next > place:
                return batch
        if self._next == 0:
            raise InputError("the data holds no samples", hint="name a folder or a data set with at least one")
        self.count, self._next = self._next, None
        self.wrapped = True
        return self._read(place % self.count)


class Drawn(Numbered):
    """Random numbers, others for each batch, like those of a first one."""

    def __init__(self, like: Batch, seed: int) -> None:
        super().__init__()
        self._like, self._seed = like, seed

    def _read(self, place: int) -> Batch:
        if place == 0:
            return self._like
        generator = torch.Generator().manual_seed(self._seed + place)
        args, kwargs = map_tensors((self._like.args, self._like.kwargs), lambda tensor: _redrawn(tensor, generator))
        return replace(self._like, args=args, kwargs=kwargs)


def _redrawn(tensor: Tensor, generator: torch.Generator) -> Tensor:
    """Draw again what was drawn: normal numbers; whole ones change places; what is the same everywhere was asked for, and stays."""
    if not tensor.numel() or bool((tensor == tensor.flatten()[0]).all()):
        return tensor
    if tensor.is_floating_point():
        wide = tensor.dtype if tensor.dtype == torch.float64 else torch.float32
        return torch.randn(tensor.shape, generator=generator, dtype=wide).to(tensor.dtype)
    return tensor.flatten()[torch.randperm(tensor.numel(), generator=generator)].view(tensor.shape)
