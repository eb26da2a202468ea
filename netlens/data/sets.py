"""What is wrong with a set as a whole: its classes, pictures unlike the others in size, and classes that their files give away."""

from __future__ import annotations

from collections.abc import Sequence
from math import log
from typing import TYPE_CHECKING

import numpy as np

from netlens.data.betrayal import betrayed
from netlens.data.exchange import Exchange
from netlens.data.facts import gathered
from netlens.data.issues import Issue, Item
from netlens.data.labels import label_issues
from netlens.data.listing import Listing, Split
from netlens.data.records import has
from netlens.wording import number, share

if TYPE_CHECKING:
    from netlens.data.scan import Scanned

FENCE = 3  # quartile ranges beyond the quartiles, as in cleanvision; here of logarithms, since sizes are spread by factors
FACTOR = 2.0  # a picture is odd only beyond this times the quartile: where all are alike, a little is many quartile ranges
RARE = 0.05  # share of odd pictures, at most: more are another part of the set
FEWEST = 20  # pictures; quartiles of fewer say nothing
NARROW = 0.35  # shorter over longer side, of cleanvision
LONG = 1.5  # and this times longer than the quartile: in a set of lines of text all are narrow


def judge(listing: Listing, scanned: Scanned, exchange: Exchange, *, classes: int | Sequence[str] | None = None) -> list[Issue]:
    """Return what is wrong with the splits as a whole, and between them.

    Args:
        listing: all files.
        scanned: those of this process.
        exchange: with the other processes.
        classes: how many there should be, or their names in the order of their indices.
    """
    rows = gathered(scanned, exchange)
    parts = [(each, rows[rows["decoded"] & (listing.split[rows["place"]] == place)]) for place, each in enumerate(listing.splits)]
    del rows  # as large as the parts
    found = [*label_issues(listing, classes), _odd_sizes(listing, parts), _odd_aspects(listing, parts), _betrayed(listing, parts)]
    return [issue for issue in found if issue.items]


def _odd_sizes(listing: Listing, parts: Sequence[tuple[Split, np.ndarray]]) -> Issue:
    items = []
    for _, rows in parts:
        if len(rows) >= FEWEST:
            other = _narrow(rows) | has(rows, "too-small")  # another issue tells of those
            side = np.log(rows["width"].astype(float) * rows["height"]) / 2
            factor = np.exp(side - np.median(side))
            found, usual = _not_alike(rows)
            found = _outside(side, FACTOR) if found is None else found
            for i in np.flatnonzero(found & ~other):
                detail = f"{_size(rows[i])}, {usual or f'{number(float(factor[i]))} times the median side'}"
                items.append((abs(log(factor[i])), Item((listing.paths[int(rows["place"][i])],), detail)))
    return Issue(
        "odd-size", _sorted(items), _pictures(parts), threshold=f"{FENCE} quartile ranges and {FACTOR:g} times beyond the quartiles"
    )


def _not_alike(rows: np.ndarray) -> tuple[np.ndarray | None, str]:
    """Of a split of one size, tell which pictures have another, lying or standing; None: it has no such size."""
    longer, shorter = np.maximum(rows["width"], rows["height"]), np.minimum(rows["width"], rows["height"])
    _, kind, counts = np.unique(longer.astype(np.int64) << 32 | shorter, return_inverse=True, return_counts=True)
    most = int(counts.argmax())
    if counts[most] < (1 - RARE) * len(rows):
        return None, ""
    found: np.ndarray = kind.reshape(-1) != most
    return found, f"{share(int(counts[most]), len(rows))} are {_size(rows[~found][0])}"


def _odd_aspects(listing: Listing, parts: Sequence[tuple[Split, np.ndarray]]) -> Issue:
    items = []
    for _, rows in parts:
        for i in np.flatnonzero(_narrow(rows)):
            sides = sorted((int(rows["width"][i]), int(rows["height"][i])))
            detail = f"{_size(rows[i])}, {number(sides[1] / sides[0])} times as long as wide"
            items.append((sides[1] / sides[0], Item((listing.paths[int(rows["place"][i])],), detail)))
    return Issue("odd-aspect", _sorted(items), _pictures(parts), threshold=f"{number(1 / NARROW)} times as long as wide")


def _narrow(rows: np.ndarray) -> np.ndarray:
    """Tell which pictures of a split are of an odd aspect."""
    if len(rows) < FEWEST:
        return np.zeros(len(rows), bool)
    length = np.abs(np.log(rows["width"] / rows["height"]))
    found: np.ndarray = _outside(length, LONG) & (length > -log(NARROW))
    return found


def _outside(values: np.ndarray, factor: float) -> np.ndarray:
    """Tell which logarithms are outliers: far beyond the quartiles, in quartile ranges and as a factor, and few."""
    low, high = np.percentile(values, [25, 75])
    reach = max(FENCE * (high - low), log(factor))
    found: np.ndarray = (values < low - reach) | (values > high + reach)
    return found if found.sum() <= RARE * len(values) else np.zeros_like(found)


def _betrayed(listing: Listing, parts: Sequence[tuple[Split, np.ndarray]]) -> Issue:
    """Find classes that their files give away, each in the first split where they do."""
    found: dict[tuple[str, ...], tuple[float, Item]] = {}
    measured = ""
    for split, rows in parts:
        items, told = betrayed(rows, listing.label[rows["place"]], split.classes, split.name or split.root)
        found = {item.paths: (worth, item) for worth, item in items} | found
        measured = measured or told
    names = {name for split, _ in parts for name in split.classes}
    return Issue("class-betrayed", _sorted(list(found.values())), len(names), measured)


def _size(row: np.void) -> str:
    return f"{row['width']:,} x {row['height']:,}"


def _pictures(parts: Sequence[tuple[Split, np.ndarray]]) -> int:
    return sum(len(rows) for _, rows in parts)


def _sorted(items: list[tuple[float, Item]]) -> tuple[Item, ...]:
    """Return the items, the most telling first, else in their order."""
    return tuple(item for _, item in sorted(items, key=lambda pair: -pair[0]))
