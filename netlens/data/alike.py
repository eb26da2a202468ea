"""Pictures that look alike: found by their hashes, then looked at again by their thumbnails; the same for any number of processes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import numpy as np

from netlens.data.exchange import Exchange
from netlens.data.neighbours import MOST, begins_of, close_pairs, nearest
from netlens.data.records import RECORD, has

# On 18,859 pictures with 880 planted pairs, 8 bits and a correlation of 0.9 found 92.5 % of them and nothing else; 8 bits alone found
# 93.8 %, and of what was found 13 % was false.
DISTANCE = 8  # bits of 64
ALIKE = 90  # percent: correlation of two grey thumbnails
# Unrelated pictures that are alike by nature, as digits are, give more pairs with every two bits more: 1,797 digits give 8, 78, 370 and 943
# at 2, 4, 6 and 8 bits. Of the copies that are found within 8 bits, 97 % are within 4.
CHANCE = 3  # times as many pairs beyond half of the bits as within
FEW = 10  # pairs beyond, which say nothing yet
# Skies and snow are alike in grey whatever they show. Of 204 such pairs of 6,000 pictures that are no copies, 45 have the same tint and 25
# the same detail as well; of 111 copies (encoded again, resized, brighter, mirrored, cropped) 110 have both.
TINT = 8  # levels of 255: difference of what red, green and blue are above or below their mean
DETAIL = 60  # percent: correlation of the Laplacians of two thumbnails
SQUASHED = 2.0  # ratio of two aspect ratios: a copy may have been made square, and 16:9 is 1.8
TESTED = 8  # of the pictures with one hash, those that are looked at beside every other: a film of one scene has n^2 pairs
ROUND = 1 << 12  # pairs that a process looks at before it is sent the next: 1 MB of thumbnails, and 8 MB for each of their sums

PAIR = np.dtype([("first", "<i4"), ("second", "<i4"), ("distance", "u1"), ("mirrored", "?"), ("alike", "u1")])  # first < second
_ENTRY = np.dtype([("hash", "<u8"), ("mirrored", "<u8"), ("file", "<i4")])
_SEEN = ("thumb", "width", "height", "flags", "pixels", "sums")  # of a picture, for the second look
_LOOK = np.dtype([("pair", PAIR), *((name, RECORD[name]) for name in _SEEN)])


@dataclass(frozen=True)
class Alike:
    """Pairs of pictures that look alike and are not the same bytes."""

    pairs: np.ndarray  # (P,) PAIR of files, sorted
    left_out: int  # comparisons, because too many pictures are alike
    crowded: int  # pictures with so many neighbours that only the nearest were looked at
    distance: int  # bits up to which a pair is believed to be no chance
    chance: int  # pairs beyond


def find_alike(records: np.ndarray, files: np.ndarray, content: np.ndarray, order: np.ndarray, exchange: Exchange) -> Alike:
    """Find the pairs of pictures that look alike, upright or mirrored.

    Every process gets all hashes, 20 bytes a file, which is less than its path takes in the listing; search and second look are shared.

    Args:
        records: (M,) RECORD of this process.
        files: numbers of those of them that are to be compared; their hashes are not 0.
        content: (N,) by number; the same for files with the same bytes.
        order: (N,) by number; the place of a file in the listing.
        exchange: with the other processes.
    """
    rows = order[files] // exchange.size
    entries = np.empty(len(files), _ENTRY)
    entries["hash"], entries["mirrored"], entries["file"] = records["hash"][rows], records["mirrored"][rows], files
    entries = exchange.gathered(entries)
    entries = entries[np.lexsort((entries["file"], entries["mirrored"], entries["hash"]))]
    starts = np.flatnonzero(begins_of(entries["hash"], entries["mirrored"]))
    sizes = np.diff(starts, append=len(entries))
    near, left_out = _close_nodes(entries[starts], sizes, exchange)
    tests = _Tests(near, entries["file"], starts, sizes)
    rounds = (pairs[content[pairs["first"]] != content[pairs["second"]]] for pairs in tests.rounds(exchange.rank, exchange.size))
    found = [np.empty(0, PAIR), *(_second_look(pairs, records, order, exchange) for pairs in rounds)]
    every = exchange.gathered(np.concatenate(found))
    every = every[np.lexsort((every["mirrored"], every["second"], every["first"]))]
    every = every[begins_of(every["first"], every["second"])]  # what is alike both ways is not called mirrored
    distance = _believed(every["distance"])
    pairs = every[every["distance"] <= distance]
    neighbours = np.bincount(np.concatenate([near["first"], near["second"]]), minlength=len(sizes))
    crowded = int(sizes[neighbours > MOST].sum())
    return Alike(pairs, left_out + tests.left_out, crowded, distance, len(every) - len(pairs))


def _believed(distances: np.ndarray) -> int:
    """Return the number of bits up to which pairs that look alike are copies rather than chance, which grows with the distance."""
    counts = np.bincount(distances, minlength=DISTANCE + 1)
    distance = DISTANCE
    while distance:
        within, beyond = counts[: distance // 2 + 1].sum(), counts[distance // 2 + 1 : distance + 1].sum()
        if beyond < FEW or beyond <= CHANCE * within:
            break
        distance //= 2
    return distance


def _close_nodes(nodes: np.ndarray, sizes: np.ndarray, exchange: Exchange) -> tuple[np.ndarray, int]:
    """Return pairs of nodes, each some pictures with one hash, that are close, or one node where it has several; and what was left out."""
    several = np.flatnonzero(sizes > 1)
    within = np.zeros(len(several), PAIR)
    within["first"] = within["second"] = several
    found, left_out = [within], 0
    for others in (None, nodes["mirrored"]):
        close, left = close_pairs(nodes["hash"], others, distance=DISTANCE, part=exchange.rank, parts=exchange.size)
        close = nearest(exchange.gathered(close))
        pairs = np.zeros(len(close), PAIR)
        for name in close.dtype.names or ():
            pairs[name] = close[name]
        pairs["mirrored"] = others is not None
        found.append(pairs)
        left_out += left
    return np.concatenate(found), int(exchange.summed(np.array([left_out]))[0])


class _Tests:
    """All pairs of pictures to look at, by number: those of a pair of nodes are a rectangle, or two where both have more than TESTED."""

    def __init__(self, near: np.ndarray, files: np.ndarray, starts: np.ndarray, sizes: np.ndarray) -> None:
        self._files, self._starts = files, starts
        rows, columns = sizes[near["first"]], sizes[near["second"]]
        more = np.flatnonzero((rows > TESTED) & (near["first"] != near["second"]))
        self._near = np.concatenate([near, near[more]])
        self._row = np.repeat([0, TESTED], [len(near), len(more)])  # where a rectangle begins
        self._width = np.concatenate([columns, np.minimum(columns[more], TESTED)])
        height = np.concatenate([np.minimum(rows, TESTED), rows[more] - TESTED])
        self._ends = np.cumsum(height * self._width)
        beyond = np.maximum(rows - TESTED, 0) * np.maximum(columns - TESTED, 0)
        alone = near["first"] == near["second"]
        self.left_out = int(np.where(alone, (beyond - np.maximum(rows - TESTED, 0)) // 2, beyond).sum())

    def rounds(self, rank: int, size: int) -> Iterator[np.ndarray]:
        """Yield the share of one process, in as many rounds as all others have."""
        total = int(self._ends[-1]) if len(self._ends) else 0
        for begin in range(0, total, ROUND * size):
            yield self._pairs(np.arange(begin + rank, min(begin + ROUND * size, total), size))

    def _pairs(self, numbers: np.ndarray) -> np.ndarray:
        """Return pairs of files by their numbers; of those of one node each once."""
        which = np.searchsorted(self._ends, numbers, side="right")
        pairs, width = self._near[which], self._width[which]
        inside = numbers - np.append(0, self._ends)[which]
        row, column = self._row[which] + inside // width, inside % width
        once = (pairs["first"] != pairs["second"]) | (row < column)
        a, b = self._files[self._starts[pairs["first"]] + row], self._files[self._starts[pairs["second"]] + column]
        pairs["first"], pairs["second"] = np.minimum(a, b), np.maximum(a, b)
        chosen: np.ndarray = pairs[once]
        return chosen


def _second_look(pairs: np.ndarray, records: np.ndarray, order: np.ndarray, exchange: Exchange) -> np.ndarray:
    """Return those of some pairs whose thumbnails are alike; they come from all processes, and go through those that have the records."""
    size = exchange.size
    pairs = exchange.sent(pairs, order[pairs["first"]] % size)
    first = records[order[pairs["first"]] // size]
    looks = np.empty(len(pairs), _LOOK)
    looks["pair"] = pairs
    for name in _SEEN:
        looks[name] = first[name]
    looks = exchange.sent(looks, order[pairs["second"]] % size)
    second, pairs = records[order[looks["pair"]["second"]] // size], looks["pair"].copy()
    thumbs = np.where(pairs["mirrored"][:, None, None], second["thumb"][:, :, ::-1], second["thumb"])
    pairs["alike"] = np.maximum(0, np.floor(100 * correlation(looks["thumb"], thumbs)))
    squashed = (looks["width"] / looks["height"]) / (second["width"] / second["height"])
    fit = (pairs["alike"] >= ALIKE) & (squashed <= SQUASHED) & (squashed >= 1 / SQUASHED) & _same_tint(looks, second)
    found: np.ndarray = pairs[fit & (100 * correlation(_laplacian(looks["thumb"]), _laplacian(thumbs)) >= DETAIL)]
    return found


def _same_tint(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Tell which pictures have their colours in common, (N,) bool; a grey copy of a colour picture may be any."""
    tints = []
    for rows in (a, b):
        means = rows["sums"][:, :3] / rows["pixels"][:, None]
        tints.append(means - means.mean(axis=1, keepdims=True))
    same: np.ndarray = (abs(tints[0] - tints[1]) <= TINT).all(axis=1) | has(a, "mode-grey") | has(b, "mode-grey")
    return same


def _laplacian(grey: np.ndarray) -> np.ndarray:
    """Return four times each pixel less its neighbours, (N, h - 2, w - 2) integers of (N, h, w)."""
    grey = grey.astype(np.int64)
    around = grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1] + grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:]
    found: np.ndarray = 4 * grey[:, 1:-1, 1:-1] - around
    return found


def correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the correlation of grey pictures, (N, h, w) integers each: (N,), 0 where one of the two is uniform.

    The sums are integers, so that the result does not depend on how many are computed at once.
    """
    a, b = (each.reshape(len(each), prod(each.shape[1:])).astype(np.int64) for each in (a, b))
    count, sum_a, sum_b = a.shape[1], a.sum(axis=1), b.sum(axis=1)
    together = count * (a * b).sum(axis=1) - sum_a * sum_b
    spread = (count * (a * a).sum(axis=1) - sum_a**2).astype(np.float64) * (count * (b * b).sum(axis=1) - sum_b**2)
    found: np.ndarray = np.divide(together, np.sqrt(spread), out=np.zeros(len(a)), where=spread > 0)
    return found
