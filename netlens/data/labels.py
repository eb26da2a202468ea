"""What is wrong with classes: other indices in another split, classes that a split lacks, too few files of one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from netlens.data.facts import counts_of
from netlens.data.issues import Issue, Item
from netlens.data.listing import Listing
from netlens.data.tree_kinds import is_hidden
from netlens.wording import counted, number, share, short

RARE = 0.1  # of an equal share: a rarer class is out of balance, as for cleanlab's Datalab
TINY = 10  # files: fewer cannot be split for a tenfold cross-validation, and one of them moves the accuracy of the class by over 10 %
ASKED = "--classes"


@dataclass(frozen=True)
class Labels:
    """The classes of one split, in the order of their indices, with the files of each."""

    split: str
    kind: str
    names: tuple[str, ...]
    counts: tuple[int, ...]

    @property
    def filled(self) -> dict[str, int]:
        """The files of each class that has any; hidden folders are told of by themselves."""
        pairs = zip(self.names, self.counts, strict=True)
        return {name: count for name, count in pairs if count and not (self.kind == "folder" and is_hidden(name))}

    def has(self, name: str) -> bool:
        """Tell whether there are files of a class, or its folder, of whose emptiness another issue tells."""
        return name in self.filled or (self.kind == "folder" and name in self.names)


def label_issues(listing: Listing, classes: int | Sequence[str] | None) -> list[Issue]:
    """Return what is wrong with the classes of a listing, for which no file has to be opened.

    Args:
        listing: all files, of processes that are one of many as well.
        classes: how many there should be, or their names in the order of their indices.
    """
    every = [
        Labels(split.name or split.root, split.kind, split.classes, tuple(counts_of(listing, place).tolist()))
        for place, split in enumerate(listing.splits)
        if split.classes
    ]
    found = [_imbalance(every), _tiny(every), _one_label(every)]
    if isinstance(classes, int) and every:
        found += _against_number(every, classes)
    if classes is not None and not isinstance(classes, int):
        found += _against(Labels(ASKED, ASKED, tuple(classes), (1,) * len(classes)), every)
    elif len(every) > 1:
        first = training(every)
        found += _against(first, [labels for labels in every if labels is not first])
    return _of_each_code(issue for issue in found if issue.items)


def _of_each_code(issues: Iterable[Issue]) -> list[Issue]:
    """Make one issue of those with the same code: a class may be missing in a split, and in all of them."""
    found: dict[str, Issue] = {}
    for issue in issues:
        one = found.get(issue.code, Issue(issue.code, (), 0))
        found[issue.code] = replace(issue, items=one.items + issue.items, total=one.total + issue.total)
    return list(found.values())


def training(every: Sequence[Labels]) -> Labels:
    """Return the split that a network learns from: the one called train, else the first."""
    return next((labels for labels in every if labels.split == "train"), every[0])


def _against(first: Labels, others: Sequence[Labels]) -> list[Issue]:
    """Compare the classes of splits with those that they should have."""
    index = {name: place for place, name in enumerate(first.names)}
    shifted, unknown, missing = [], [], []
    for labels in others:
        own = {name: place for place, name in enumerate(labels.names)}
        shifted += [
            Item((name,), f"{place} in {first.split}, {own[name]} in {labels.split}")
            for name, place in index.items()
            if own.get(name, place) != place
        ]
        unknown += [
            Item((name,), f"{counted(count, 'file')} in {labels.split}, and {first.split} has no such class")
            for name, count in labels.filled.items()
            if not first.has(name)
        ]
        missing += [
            Item(
                (name,),
                f"none in {labels.split}" if first.split == ASKED else f"{counted(count, 'file')} in {first.split}, none in {labels.split}",
            )
            for name, count in first.filled.items()
            if not labels.has(name)
        ]
    shared = sum(len(index.keys() & set(labels.names)) for labels in others)
    theirs = sum(len(labels.filled) for labels in others)
    return [
        Issue("class-index-shift", tuple(shifted), shared),
        Issue("class-unknown", tuple(unknown), theirs),
        Issue("class-missing", tuple(missing), len(first.filled) * len(others)),
    ]


def _against_number(every: Sequence[Labels], classes: int) -> list[Issue]:
    """Compare how many classes there are with how many there should be."""
    outside, missing = [], []
    for labels in every:
        held = sum(map(labels.has, labels.names))
        if held < classes:
            missing.append(Item((labels.split,), f"{'1 class' if held == 1 else f'{held} classes'}, and --classes says {classes}"))
        if labels.kind == "table":  # its own door has looked
            continue
        where = f"--classes {classes} takes 0 to {classes - 1}"
        outside += [
            Item((name,), f"index {index}, {counted(count, 'file')} in {labels.split}: {where}")
            for index, (name, count) in enumerate(zip(labels.names, labels.counts, strict=True))
            if index >= classes
        ]
    total = sum(len(labels.names) for labels in every)
    return [Issue("label-range", tuple(outside), total), Issue("class-missing", tuple(missing), len(every))]


def _imbalance(every: Sequence[Labels]) -> Issue:
    """Find classes with less than a tenth of an equal share, the rarest first, with the weight that would make up for it.

    The weight is that of scikit-learn's "balanced": files / (classes * files of the class), 1 for a class of the mean size.
    """
    items, measured = [], ""
    for labels in every:
        files = sum(labels.counts)
        rare = RARE * files / max(1, len(labels.filled))
        few = sorted((count, name) for name, count in labels.filled.items() if count < rare)
        items += [
            Item((name,), f"{count:,} of {files:,} files of {labels.split}, weight {number(files / (len(labels.filled) * count))}")
            for count, name in few
        ]
        if few and not measured:
            largest, most = max(labels.filled.items(), key=lambda pair: pair[1])
            odds = f"{number(most / few[0][0])} times as many of {short(largest)} as of {short(few[0][1])}"
            measured = f"{odds}; to answer {short(largest)} always is right for {share(most, files)} of {labels.split}"
    total = sum(len(labels.filled) for labels in every)
    return Issue("class-imbalance", tuple(items), total, measured, "a tenth of an equal share")


def _tiny(every: Sequence[Labels]) -> Issue:
    """Find classes of a handful of files; of a split for measuring only where most of its classes have more."""
    items = []
    for labels in every:
        if labels is training(every) or np.median(list(labels.filled.values()) or [0]) >= TINY:
            few = sorted((count, name) for name, count in labels.filled.items() if count < TINY)
            items += [Item((name,), f"{counted(count, 'file')} in {labels.split}") for count, name in few]
    return Issue("tiny-class", tuple(items), sum(len(labels.filled) for labels in every), threshold=f"{TINY} files")


def _one_label(every: Sequence[Labels]) -> Issue:
    """Find splits with a single class."""
    items = tuple(
        Item((name,), f"all {counted(count, 'file')} of {labels.split}")
        for labels in every
        if len(labels.filled) == 1
        for name, count in labels.filled.items()
    )
    return Issue("one-label", items, len(every))
