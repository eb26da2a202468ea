"""Listings, records and exchanges made by hand, for what looks at sets of files without opening any."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from threading import Barrier, Thread
from typing import Any

import numpy as np

from netlens.data.exchange import Exchange
from netlens.data.listing import Listing, Paths, Split
from netlens.data.records import BITS, FORMATS, MODES, RECORD
from netlens.data.scan import Scanned


def listed(splits: Mapping[str, Mapping[str, int]], kind: str = "folder") -> Listing:
    """Return a listing of so many files of each class of each split; classes are in the order that they come in."""
    names = list(splits)
    paths = [f"{name or 'data'}/{each}/{i}.jpg" for name in names for each, count in splits[name].items() for i in range(count)]
    counts = [list(splits[name].values()) for name in names]
    return Listing(
        splits=tuple(Split(name, f"./{name or 'data'}", tuple(splits[name]), kind) for name in names),
        paths=Paths(paths),
        split=np.repeat(np.arange(len(names), dtype=np.uint8), [sum(each) for each in counts]),
        label=np.concatenate([np.repeat(np.arange(len(each), dtype=np.int32), each) for each in counts]).astype(np.int32),
    )


def healthy(count: int) -> np.ndarray:
    """Return records of ordinary pictures: 320 x 240, mid-grey with a standard deviation of 50 in each channel."""
    rows = np.zeros(count, RECORD)
    rows["bytes"] = 20_000
    rows["format"], rows["mode"], rows["quality"] = FORMATS.index("JPEG"), MODES.index("RGB"), 90
    rows["low"], rows["high"], rows["spread"], rows["sharpness"], rows["direction"] = 10, 240, 50, 0.5, 0.9
    sized(rows, slice(None), 320, 240)
    return rows


def flagged(rows: np.ndarray, places: Any, *codes: str) -> None:
    """Set flags of some rows."""
    rows["flags"][places] |= np.uint64(sum(BITS[code] for code in codes))


def sized(rows: np.ndarray, places: Any, width: Any, height: Any) -> None:
    """Give some rows another size, of the same colours."""
    rows["width"][places], rows["height"][places] = width, height
    rows["pixels"] = rows["width"].astype(np.uint64) * rows["height"]
    rows["sums"] = rows["pixels"][:, None] * np.array([128] * 3 + [128**2 + 50**2] * 3, np.uint64)


def scanned(rows: np.ndarray, details: Mapping[int, str] | None = None, *, rank: int = 0, size: int = 1) -> Scanned:
    """Return what process `rank` of `size` has seen of all rows."""
    places = np.arange(rank, len(rows), size, dtype=np.int64)
    own = {place: text for place, text in (details or {}).items() if place % size == rank}
    return Scanned(rows[places], places, own)


class Among:
    """One of several threads that stand for processes."""

    def __init__(self, rank: int, table: list[Any], barrier: Barrier) -> None:
        self.rank, self.size = rank, len(table)
        self._table, self._barrier = table, barrier

    def collected(self, value: Any) -> list[Any]:
        self._table[self.rank] = value
        self._barrier.wait(timeout=30)
        values = list(self._table)
        self._barrier.wait(timeout=30)
        return values

    def summed(self, counts: np.ndarray) -> np.ndarray:
        return np.sum(self.collected(counts), axis=0)

    def gathered(self, rows: np.ndarray) -> np.ndarray:
        return np.concatenate(self.collected(rows))

    def sent(self, rows: np.ndarray, owners: np.ndarray) -> np.ndarray:
        return np.concatenate([theirs[to == self.rank] for theirs, to in self.collected((rows, owners))])


def of_each(size: int, answer: Callable[[int, Exchange], Any]) -> list[Any]:
    """Return what `answer(rank, exchange)` gives in each of `size` processes."""
    table: list[Any] = [None] * size
    answers: list[Any] = [None] * size
    barrier = Barrier(size)

    def run(rank: int) -> None:
        try:
            answers[rank] = answer(rank, Among(rank, table, barrier))
        except BaseException as error:
            answers[rank] = error
            barrier.abort()

    threads = [Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers
