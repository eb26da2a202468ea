"""What is known of each split: counts, sizes, formats, and the mean and standard deviation of its pixels.

Sums are of integers, and what is sorted is gathered first: any number of processes gives the same numbers.
"""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING

import numpy as np

from netlens.data.exchange import Exchange
from netlens.data.facts_types import ClassCount, Colours, SplitFacts, Spread
from netlens.data.listing import Listing
from netlens.data.records import FORMATS, MODES, decoded

if TYPE_CHECKING:
    from netlens.data.scan import Scanned

COLUMNS = np.dtype(  # what comparing files needs of each: 35 bytes
    [
        ("place", "<i8"),
        ("bytes", "<u8"),
        ("flags", "<u8"),
        ("width", "<u4"),
        ("height", "<u4"),
        ("format", "u1"),
        ("mode", "u1"),
        ("quality", "u1"),
        ("decoded", "?"),
    ]
)
CHUNK = 1 << 16  # rows that are summed at a time: bounds what is copied
HALF = 32  # bits: sums of half a 64-bit number do not overflow before 2^31 files
FIXED = 1 << 24  # a standard deviation (at most 127.5) as an integer, whose sum then is the same in any order; 6e-8 of a grey level


def facts_of(listing: Listing, scanned: Scanned, exchange: Exchange) -> list[SplitFacts]:
    """Return the facts of each split; of files that were not looked at, only that they are there."""
    rows = gathered(scanned, exchange)
    split = listing.split[rows["place"]]
    sums = exchange.summed(_sums(listing, scanned))
    return [_facts(listing, place, rows, split == place, sums[place]) for place in range(len(listing.splits))]


def gathered(scanned: Scanned, exchange: Exchange) -> np.ndarray:
    """Return the COLUMNS of all files of all processes, in the order of the listing."""
    rows = np.empty(len(scanned.records), COLUMNS)
    rows["place"] = scanned.indices
    rows["decoded"] = decoded(scanned.records)
    for name in ("bytes", "flags", "width", "height", "format", "mode", "quality"):
        rows[name] = scanned.records[name]
    rows = exchange.gathered(rows)
    return rows if exchange.size == 1 else rows[np.argsort(rows["place"])]


def counts_of(listing: Listing, place: int) -> np.ndarray:
    """Return how many files each class of a split has; (K,) int64."""
    labels = listing.label[listing.split == place]
    return np.bincount(labels[labels >= 0], minlength=len(listing.splits[place].classes))


def _facts(listing: Listing, place: int, rows: np.ndarray, own: np.ndarray, sums: np.ndarray) -> SplitFacts:
    split = listing.splits[place]
    width, height = (rows[name][own & rows["decoded"]] for name in ("width", "height"))
    counts = counts_of(listing, place).tolist()
    return SplitFacts(
        name=split.name,
        root=split.root,
        files=int((listing.split == place).sum()),
        decoded=len(width),
        bytes=int(rows["bytes"][own].sum()),
        classes=tuple(ClassCount(name, index, count) for index, (name, count) in enumerate(zip(split.classes, counts, strict=True))),
        formats=_ranked(rows["format"][own], FORMATS),
        modes=_ranked(rows["mode"][own], MODES),
        width=spread(width),
        height=spread(height),
        aspect=spread(width / height),
        colours=_colours([int(value) for value in sums]),
        skipped=split.skipped,
    )


def _ranked(places: np.ndarray, names: tuple[str, ...]) -> tuple[tuple[str, int], ...]:
    counts = np.bincount(places, minlength=len(names)).tolist()
    found = [(name, count) for name, count in zip(names, counts, strict=True) if name and count]
    return tuple(sorted(found, key=lambda pair: -pair[1]))


def spread(values: np.ndarray) -> Spread | None:
    """Return quantiles by nearest rank: of n values the smallest that p % of them do not exceed. None: there are none."""
    if not len(values):
        return None
    ordered = np.sort(values)
    smallest, p5, median, p95, largest = (float(ordered[max(0, -(-len(ordered) * percent // 100) - 1)]) for percent in (0, 5, 50, 95, 100))
    return Spread(smallest, p5, median, p95, largest)


def _sums(listing: Listing, scanned: Scanned) -> np.ndarray:
    """Return of each split: pictures, reduced ones, low and high halves of pixels and of the six sums, deviations; (S, 19) int64."""
    found = np.zeros((len(listing.splits), 19), np.int64)
    for start in range(0, len(scanned.records), CHUNK):
        rows = scanned.records[start : start + CHUNK]
        splits = listing.split[scanned.indices[start : start + CHUNK]]
        for place in range(len(found)):
            found[place] += _sums_of(rows[decoded(rows) & (splits == place)])
    return found


def _sums_of(rows: np.ndarray) -> np.ndarray:
    exact = np.column_stack([rows["pixels"], rows["sums"]])  # (M, 7) uint64
    moments = rows["sums"] / rows["pixels"][:, None]
    variance = moments[:, 3:] - moments[:, :3] ** 2
    deviations = np.rint(np.sqrt(np.maximum(variance, 0)) * FIXED).astype(np.int64)
    reduced = rows["pixels"] < rows["width"].astype(np.uint64) * rows["height"]
    low, high = (exact & np.uint64((1 << HALF) - 1)).sum(axis=0), (exact >> np.uint64(HALF)).sum(axis=0)
    return np.concatenate([[len(rows), reduced.sum()], low, high, deviations.sum(axis=0)]).astype(np.int64)


def _colours(sums: list[int]) -> Colours | None:
    pictures, reduced, *rest = sums
    if not pictures:
        return None
    pixels, *moments = [low + (high << HALF) for low, high in zip(rest[:7], rest[7:14], strict=True)]
    pairs = list(zip(moments[:3], moments[3:], strict=True))
    # In whole numbers until the one division, which Python rounds correctly however large they are.
    mean = [total / (255 * pixels) for total, _ in pairs]
    std = [sqrt(max(0, pixels * squares - total**2) / (255 * pixels) ** 2) for total, squares in pairs]
    own = [deviation / (255 * FIXED * pictures) for deviation in rest[14:]]
    return Colours(pictures, (mean[0], mean[1], mean[2]), (std[0], std[1], std[2]), (own[0], own[1], own[2]), reduced)
