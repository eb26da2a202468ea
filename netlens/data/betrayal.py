"""Classes that can be told without looking at a picture: by format, mode, size, quality, because they come from another source.

A clue is a value, or an interval of values, that is frequent in one class and rare in the others. How likely one so strong is by chance is
known exactly (the hypergeometric distribution, as in Fisher's test), and times the number of clues that were looked for (Bonferroni): no
permutations, and no approximation that fails for small classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import lgamma, log

import numpy as np

from netlens.data.features import FEATURES, Feature
from netlens.data.issues import Item
from netlens.wording import share

CHANCE = 1e-3  # that a split without any such class is said to have one
FEWEST = 5  # files with one value: rarer ones are no clue to a class, and are not looked for
# What follows from another clue is not told beside it.
FOLLOWS = {"side": ("size",), "aspect": ("size",), "compression": ("format",), "quality": ("format",)}


@dataclass(frozen=True)
class Clue:
    """What is frequent in one class: of `own` files of it `having`, of `others` files of all others `straying`."""

    feature: Feature
    label: int
    low: int
    high: int
    having: int
    own: int
    straying: int
    others: int

    @property
    def excess(self) -> float:
        """The share of the class that has it, less that of the others."""
        return self.having / self.own - self.straying / self.others


def betrayed(rows: np.ndarray, labels: np.ndarray, names: Sequence[str], split: str) -> tuple[list[tuple[float, Item]], str]:
    """Find classes of a split that a property of their files gives away.

    Args:
        rows: (n,) `facts.COLUMNS` of its decoded files.
        labels: (n,) places in `names`; -1: none.
        names: of classes.
        split: what it is called in details.

    Returns:
        Each class with what its clue is worth, and how much of the label the best property tells.
    """
    if (labels < 0).any():
        rows, labels = rows[labels >= 0], labels[labels >= 0]
    sizes = np.bincount(labels, minlength=len(names))
    if (sizes > 0).sum() < 2:
        return [], ""
    searched = [_clues(feature, rows, labels, sizes) for feature in FEATURES]
    price = log(sum(count for _, count in searched))
    sure = [[clue for clue in found if price + log_chance(clue) < log(CHANCE)] for found, _ in searched]
    clues = [clue for found in sure if found for clue in _themselves(found, rows, labels)]
    items = []
    for label in sorted({clue.label for clue in clues}):
        own = [clue for clue in clues if clue.label == label]
        told = {clue.feature.name for clue in own}
        kept = [clue for clue in own if told.isdisjoint(FOLLOWS.get(clue.feature.name, ()))]
        detail = "; ".join(_detail(clue, rows, labels) for clue in kept)
        items.append((max(clue.excess for clue in kept), Item((names[label],), f"in {split}, {detail}")))
    return items, _told(max(clues, key=lambda clue: clue.excess).feature, rows, labels) if clues else ""


def log_chance(clue: Clue) -> float:
    """Return a bound of the logarithm of the chance that a class gets as many of the files that have it, or more, as it has.

    Beyond the mean, each term of the hypergeometric distribution is less than the one before by a ratio that falls: a geometric series
    bounds the sum.
    """
    lacking, rest = clue.own - clue.having, clue.others - clue.straying
    all_having = _log_choose(clue.having + clue.straying, clue.having)
    term = all_having + _log_choose(lacking + rest, lacking) - _log_choose(clue.own + clue.others, clue.own)
    ratio = clue.straying * lacking / ((clue.having + 1) * (rest + 1))
    return term - log(1 - ratio) if ratio < 1 else 0.0


def _log_choose(n: int, k: int) -> float:
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)


def _clues(feature: Feature, rows: np.ndarray, labels: np.ndarray, sizes: np.ndarray) -> tuple[list[Clue], int]:
    """Return what is frequent enough in one class, and how many clues were looked for."""
    which = feature.of(rows)
    labels = labels[which]
    own = np.bincount(labels, minlength=len(sizes))
    classes = np.flatnonzero(2 * own > sizes)  # of fewer files than half of the class, nothing is said
    if (own > 0).sum() < 2 or not len(classes):
        return [], 1
    search = _intervals if feature.ordered else _values
    places, codes = np.unique(feature.values(rows)[which], return_inverse=True)
    return search(feature, places, codes.reshape(-1), labels, own, classes)


def _values(
    feature: Feature, places: np.ndarray, codes: np.ndarray, labels: np.ndarray, own: np.ndarray, classes: np.ndarray
) -> tuple[list[Clue], int]:
    """Look at each value by itself. Which are looked for does not depend on the labels, or their number would not be the fair price."""
    total = np.bincount(codes)
    pairs, counts = np.unique(codes * np.int64(len(own)) + labels, return_counts=True)
    code, label = pairs // len(own), pairs % len(own)
    straying, others = total[code] - counts, len(labels) - own[label]
    strong = (counts / own[label] - straying / others >= feature.enough) & (total[code] >= FEWEST) & np.isin(label, classes)
    clues = [
        Clue(feature, *map(int, (label[i], places[code[i]], places[code[i]], counts[i], own[label[i]], straying[i], others[i])))
        for i in np.flatnonzero(strong)
    ]
    return clues, int((total >= FEWEST).sum()) * len(classes)


def _intervals(
    feature: Feature, places: np.ndarray, codes: np.ndarray, labels: np.ndarray, own: np.ndarray, classes: np.ndarray
) -> tuple[list[Clue], int]:
    """Find for each class the interval that holds most of it beyond what it holds of the others (Kuiper's statistic)."""
    counts = np.bincount(codes * len(own) + labels, minlength=len(places) * len(own)).reshape(len(places), -1)[:, classes]  # (B, C)
    others = len(labels) - own[classes]
    rest = np.bincount(codes, minlength=len(places))[:, None] - counts
    sums = np.vstack([np.zeros(len(classes)), np.cumsum(counts / own[classes] - rest / others, axis=0)])
    gains = sums[1:] - np.minimum.accumulate(sums[:-1])
    clues = []
    for i in np.flatnonzero(gains.max(axis=0) >= feature.enough):
        last = int(gains[:, i].argmax())
        first = int(sums[: last + 1, i].argmin())
        having, straying = counts[first : last + 1, i].sum(), rest[first : last + 1, i].sum()
        clues.append(Clue(feature, *map(int, (classes[i], places[first], places[last], having, own[classes[i]], straying, others[i]))))
    return clues, len(places) * (len(places) + 1) // 2 * len(classes)


def _themselves(clues: list[Clue], rows: np.ndarray, labels: np.ndarray) -> list[Clue]:
    """Leave out classes that stand out only because others do: of cats in PNG among dogs and eels in JPEG, cats alone.

    The clearest class is taken first, and the next is compared with what is left, until nothing is clear any more.
    """
    clues = sorted(clues, key=lambda clue: (clue.having + clue.straying, clue.label))  # of two that are as clear, the rarer
    feature = clues[0].feature
    values, which = feature.values(rows), feature.of(rows)
    low, high = [clue.low for clue in clues], [clue.high for clue in clues]
    ordered = [np.sort(values[which & (labels == clue.label)]) for clue in clues]
    # (class, clue): files of one class that have what is a clue to another
    within = np.array([np.searchsorted(own, high, "right") - np.searchsorted(own, low, "left") for own in ordered])
    having, own, straying, others = np.array([(clue.having, clue.own, clue.straying, clue.others) for clue in clues]).T
    taken: list[int] = []
    while len(taken) < len(clues):
        excess = np.round(having / own - straying / np.maximum(others, 1), 9)
        excess[[*taken, *np.flatnonzero(others == 0)]] = -1
        best = int(excess.argmax())
        if excess[best] < feature.enough:
            break
        taken.append(best)
        straying, others = straying - within[best], others - own[best]
    return [clues[place] for place in taken]


def _detail(clue: Clue, rows: np.ndarray, labels: np.ndarray) -> str:
    """Say what most of a class is: "all 80 are 320 x 240, 2 % of the others"."""
    rows = rows[(labels == clue.label) & clue.feature.of(rows)]
    values = clue.feature.values(rows)
    rows = rows[(values >= clue.low) & (values <= clue.high)]
    most = f"all {clue.own:,}" if clue.having == clue.own else f"{share(clue.having, clue.own)} of {clue.own:,}"
    rest = f"{share(clue.straying, clue.others)} of the others" if clue.straying else "none of the others"
    return f"{most} are {clue.feature.says(rows)}, {rest}"


def _told(feature: Feature, rows: np.ndarray, labels: np.ndarray) -> str:
    """Say how much of the label a property tells: mutual information over the label's entropy, with what chance would give it.

    Of r values and c classes that have nothing to do with each other, n files show (r - 1) (c - 1) / 2 n nats (Miller 1955).
    """
    which = feature.of(rows)
    _, codes = np.unique(feature.values(rows)[which], return_inverse=True)
    classes, label = np.unique(labels[which], return_inverse=True)
    codes, label = codes.reshape(-1), label.reshape(-1)
    _, both = np.unique(codes * np.int64(len(classes)) + label, return_counts=True)
    entropy, values = _entropy(np.bincount(label)), np.bincount(codes)
    known = (entropy + _entropy(values) - _entropy(both)) / entropy
    chance = (len(values) - 1) * (len(classes) - 1) / (2 * len(label) * entropy)
    return f"the {feature.name} tells {share(min(1.0, known))} of the class, and would tell {share(min(1.0, chance))} by chance"


def _entropy(counts: np.ndarray) -> float:
    """Return the entropy of what has these counts, in nats."""
    shares = counts / counts.sum()
    return float(-(shares * np.log(shares)).sum())
