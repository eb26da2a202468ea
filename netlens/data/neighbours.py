"""All pairs of 64-bit hashes that differ in few bits: exact, in blocks, so that a million take seconds and little memory."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np

PAIR = np.dtype([("first", "<i4"), ("second", "<i4"), ("distance", "u1")])  # places of hashes, first < second
BANDS = ((0, 21), (21, 21), (42, 22))  # first bit and width: 254 values of each are near enough for 8 bits of 64
MOST = 16  # neighbours that a hash is sure to keep: the frames of a film have thousands
BLOCK = 1 << 17  # hashes that are looked up at once: their arrays stay in the cache
STEP = 1 << 18  # pairs that are compared at once
ALLOWED = 1 << 20  # comparisons for one block and one value of a band: hashes that clump have n^2
BUFFER = 1 << 18  # pairs between two prunings
_ONES = np.array([value.bit_count() for value in range(1 << 16)], dtype=np.uint8)


def bits_set(values: np.ndarray) -> np.ndarray:
    """Count the ones of each 64-bit value; (N,) uint8."""
    if hasattr(np, "bitwise_count"):  # numpy 2
        counted: np.ndarray = np.bitwise_count(values)
    else:
        counted = _ONES[np.ascontiguousarray(values).view(np.uint16).reshape(-1, 4)].sum(axis=1, dtype=np.uint8)
    return counted


def close_pairs(
    hashes: np.ndarray, others: np.ndarray | None = None, *, distance: int = 8, most: int = MOST, part: int = 0, parts: int = 1
) -> tuple[np.ndarray, int]:
    """Find the pairs of hashes that differ in at most `distance` bits.

    Two such hashes differ by at most distance // 3 bits in one of three bands at least (pigeonhole), so it is enough to look up each band
    with every change of so few bits.

    Args:
        hashes: (N,) uint64.
        others: (N,) uint64, of the same pictures mirrored: pairs of hashes[i] and others[j], i != j, are wanted instead.
        distance: 0 to 8; more is exact too, and slow.
        most: a pair is kept where it is among the `most` nearest of one of its two.
        part: which share of the work is done here, of `parts`; `nearest` of the pairs of all parts is the result of one.

    Returns:
        (P,) PAIR, and the number of comparisons that were left out because too many hashes are alike: 0 where the result is exact.
    """
    found, left_out = _Nearest(len(hashes), most), 0
    for task, (table, band, mask, rows) in enumerate(_lookups(hashes, others, distance // len(BANDS))):
        if task % parts != part:
            continue
        for block in range(0, len(rows), BLOCK):
            entries, starts, counts = _partners(table, band, mask, rows[block : block + BLOCK])
            left_out += int(counts.sum())
            if counts.sum() > ALLOWED:
                counts = np.minimum(counts, ALLOWED // len(counts))
            left_out -= int(counts.sum())
            for pairs in _compared(table, band, entries, starts, counts, distance):
                found.add(pairs)
    return found.reduced(), left_out


class _Nearest:
    """The nearest pairs of each hash among those that are added."""

    def __init__(self, count: int, most: int) -> None:
        self._most, self._room = most, BUFFER
        self._parts = [np.empty(0, PAIR)]
        self._worst = np.full(count, np.iinfo(np.int64).max)  # of each hash, the last of its nearest; what is further cannot be kept

    def add(self, pairs: np.ndarray) -> None:
        first, second = pairs["first"], pairs["second"]
        pairs = pairs[(_nearness(pairs, second) <= self._worst[first]) | (_nearness(pairs, first) <= self._worst[second])]
        self._parts.append(pairs)
        self._room -= len(pairs)
        if self._room < 0:
            self._room = len(self.reduced()) + BUFFER

    def reduced(self) -> np.ndarray:
        kept = nearest(np.concatenate(self._parts), self._most, self._worst)
        self._parts = [kept]
        return kept


def _nearness(pairs: np.ndarray, partner: np.ndarray) -> np.ndarray:
    """Return numbers in the order of distance, then of place."""
    ranked: np.ndarray = (pairs["distance"].astype(np.int64) << 32) + partner
    return ranked


def nearest(pairs: np.ndarray, most: int = MOST, worst: np.ndarray | None = None) -> np.ndarray:
    """Keep each pair once, where it is among the `most` nearest of one of its two; sorted.

    What is kept of parts that were each reduced like this is the same as of the whole.

    Args:
        pairs: PAIR.
        most: of each hash.
        worst: by hash, takes the last of its `most` nearest.
    """
    pairs = pairs[np.lexsort((pairs["distance"], pairs["second"], pairs["first"]))]
    pairs = pairs[begins_of(pairs["first"], pairs["second"])]
    own = np.concatenate([pairs["first"], pairs["second"]])
    near = np.concatenate([_nearness(pairs, pairs["second"]), _nearness(pairs, pairs["first"])])
    order = np.lexsort((near, own))
    begins = np.flatnonzero(begins_of(own[order]))
    rank = np.arange(len(own)) - np.repeat(begins, np.diff(begins, append=len(own)))
    if worst is not None:
        last = order[rank == most - 1]
        worst[own[last]] = near[last]
    kept = np.zeros(len(pairs), dtype=bool)
    kept[order[rank < most] % max(1, len(pairs))] = True
    chosen: np.ndarray = pairs[kept]
    return chosen


def begins_of(*columns: np.ndarray) -> np.ndarray:
    """Tell which rows of sorted columns differ from the one before."""
    begins = np.ones(len(columns[0]), dtype=bool)
    begins[1:] = np.any([column[1:] != column[:-1] for column in columns], axis=0)
    return begins


class _Band:
    """Hashes in the order of one band of their bits."""

    def __init__(self, hashes: np.ndarray, shift: int, width: int) -> None:
        keys = ((hashes >> np.uint64(shift)) & np.uint64((1 << width) - 1)).astype(np.int32)
        self.order = np.argsort(keys, kind="stable").astype(np.int32)
        self.keys, self.hashes = keys[self.order], hashes[self.order]


class _Table(_Band):
    """The same with a table: the run of rows that have a key; run 0 is empty."""

    def __init__(self, hashes: np.ndarray, shift: int, width: int) -> None:
        super().__init__(hashes, shift, width)
        begins = np.flatnonzero(begins_of(self.keys)).astype(np.int32)
        self.starts = np.insert(begins, 0, 0)
        self.sizes = np.diff(self.starts, append=np.int32(len(hashes)))
        self.sizes[0] = 0
        self.runs = np.zeros(1 << width, dtype=np.int32)
        self.runs[self.keys[begins]] = np.arange(1, len(begins) + 1, dtype=np.int32)


def _lookups(hashes: np.ndarray, others: np.ndarray | None, radius: int) -> Iterator[tuple[_Table, _Band, int, np.ndarray]]:
    """Yield every change of at most `radius` bits of every band, with the rows of the second to look up in the first."""
    every = np.arange(len(hashes), dtype=np.int32)
    for shift, width in BANDS:
        table = _Table(hashes if others is None else others, shift, width)
        band = table if others is None else _Band(hashes, shift, width)
        yield table, band, 0, every
        for top in range(width):
            # Among themselves, of a pair whose keys differ in this bit only the one without it looks up the other.
            rows = every if others is not None else np.flatnonzero((band.keys >> top) & 1 == 0).astype(np.int32)
            for count in range(radius):
                for lower in combinations(range(top), count):
                    yield table, band, sum(1 << bit for bit in (top, *lower)), rows


def _partners(table: _Table, band: _Band, mask: int, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return which rows have partners in a table, where those begin, and how many they are."""
    runs = table.runs[band.keys[rows] ^ np.int32(mask)]
    hits = np.flatnonzero(runs)
    rows, runs = rows[hits], runs[hits]
    starts, sizes = table.starts[runs], table.sizes[runs]
    if table is band and not mask:  # those of its own run that come after it
        return rows, rows + np.int32(1), starts + sizes - rows - np.int32(1)
    return rows, starts, sizes


def _compared(
    table: _Table, band: _Band, entries: np.ndarray, starts: np.ndarray, counts: np.ndarray, distance: int
) -> Iterator[np.ndarray]:
    """Yield the pairs of `entries` with the `counts` rows of a table from `starts` on that are close."""
    ends = np.cumsum(counts)
    cuts = np.searchsorted(ends, np.arange(STEP, ends[-1] if len(ends) else 0, STEP))
    for own, begin, count in zip(np.split(entries, cuts), np.split(starts, cuts), np.split(counts, cuts), strict=True):
        end = np.cumsum(count, dtype=np.int32)
        if not end.any():
            continue
        left = np.repeat(own, count)
        right = np.repeat(begin - end + count, count) + np.arange(end[-1], dtype=np.int32)
        apart = bits_set(band.hashes[left] ^ table.hashes[right])
        close = np.flatnonzero(apart <= distance)
        a, b = band.order[left[close]], table.order[right[close]]
        pairs = np.empty(len(close), PAIR)
        pairs["first"], pairs["second"], pairs["distance"] = np.minimum(a, b), np.maximum(a, b), apart[close]
        yield pairs[a != b]
