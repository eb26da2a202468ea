"""Which samples a loader takes: its sampler, listened to."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from itertools import chain, islice
from typing import Any


class Drawn:
    """A sampler that gives what another gives, and keeps it; samples in `left_out` are not asked for."""

    def __init__(self, sampler: Any, in_batches: bool) -> None:
        self._sampler, self.in_batches = sampler, in_batches
        self.batches: list[list[Any]] = []
        self.left_out: set[Any] = set()

    def __len__(self) -> int:
        return len(self._sampler)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sampler, name)

    def __iter__(self) -> Iterator[Any]:
        self.batches = []
        for keys in self._drawn():
            kept = [key for key in keys if key not in self.left_out] if self.left_out else keys
            if kept:
                self.batches.append(kept)
                yield kept if self.in_batches else kept[0]

    def _drawn(self) -> Iterator[list[Any]]:
        return ([key] if not self.in_batches else list(key) for key in self._sampler)

    def keys(self, batches: int) -> list[Any]:
        """Draw so many batches for trial, and return the indices in them, each once and in order."""
        drawn = chain.from_iterable(islice(self._drawn(), batches))
        found = list(dict.fromkeys(key for key in drawn if isinstance(key, Hashable)))
        return sorted(found) if all(isinstance(key, int) for key in found) else found
