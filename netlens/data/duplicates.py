"""Copies among files: of the same bytes, hardly changed, mirrored; within a set, in two sets, and with different labels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from netlens.data.alike import ALIKE, Alike, find_alike
from netlens.data.issues import Issue, Item
from netlens.data.listing import Listing
from netlens.data.neighbours import MOST, begins_of
from netlens.data.records import decoded, has
from netlens.data.tree_kinds import is_hidden
from netlens.loading.words import listed
from netlens.wording import counted

if TYPE_CHECKING:
    from netlens.data.exchange import Exchange
    from netlens.data.scan import Scanned

THRESHOLD = f"at most {{}} of 64 bits of the hash differ, and thumbnails are at least {ALIKE} % alike"
NEAR = ("leak-near", "duplicate-near", "duplicate-mirrored")
_KEY = np.dtype([("digest", "<u8", 2), ("bytes", "<u8"), ("file", "<i4")])
_COPY = np.dtype([("first", "<i4"), ("file", "<i4")])
_Pair = tuple[int, int, int, bool]  # the other file, distance, alike, mirrored


def find_copies(listing: Listing, scanned: Scanned, exchange: Exchange) -> list[Issue]:
    """Find copies, and say what is wrong with each group of them; every process gets the same.

    A pair of the same bytes is not told again as one that looks alike. Copies with different labels are told as such instead of as
    copies; those in two splits are a leak besides.
    """
    files = _Files(listing)
    copies = _identical(files, scanned, exchange)
    content = np.arange(len(listing), dtype=np.int32)
    content[copies["file"]] = copies["first"]
    again = copies["file"][~begins_of(copies["first"], files.split[copies["file"]])]  # one of the same bytes in each split is enough
    fit = files.worth(scanned) & decoded(scanned.records) & (scanned.records["hash"] != 0)
    numbers = files.number[scanned.indices[fit]]
    alike = find_alike(scanned.records, np.setdiff1d(numbers, again), content, files.order, exchange)
    compared = exchange.summed(np.array([len(scanned.records), len(numbers)]))
    groups = _groups_of_identical(files, copies)
    for code, more in _groups_of_alike(files, alike.pairs).items():
        groups.setdefault(code, []).extend(more)
    return [_issue(code, files, each, alike, *compared.tolist()) for code, each in groups.items() if each]


class _Files:
    """The files by number: those of the training split first, so that of each group the first is the one to keep."""

    def __init__(self, listing: Listing) -> None:
        training = next((place for place, split in enumerate(listing.splits) if split.name == "train"), 0)
        self.order = np.argsort(listing.split != training, kind="stable")  # places by number
        self.number = np.empty(len(listing), np.int32)
        self.number[self.order] = np.arange(len(listing))
        self.split = listing.split[self.order]
        self._names = list(dict.fromkeys(name for split in listing.splits for name in split.classes))
        known = {name: place for place, name in enumerate(self._names)}  # two splits may number their classes differently
        self.label = listing.label[self.order]
        for place, split in enumerate(listing.splits):
            table = np.array([*(known[name] for name in split.classes), -1], np.int32)
            self.label[self.split == place] = table[self.label[self.split == place]]
        self._paths = listing.paths
        self._hidden = np.zeros(len(listing), bool)
        for place, split in enumerate(listing.splits):
            hidden = np.array([*(split.kind == "folder" and is_hidden(name) for name in split.classes), False])
            self._hidden[listing.split == place] = hidden[listing.label[listing.split == place]]

    def worth(self, scanned: Scanned) -> np.ndarray:
        """Tell which files are to be compared, (M,) bool: not those that other issues tell to leave out, blank ones and hidden classes."""
        told: np.ndarray = has(scanned.records, "not-an-image", "blank", "all-transparent") | self._hidden[scanned.indices]
        return ~told

    def path(self, number: int) -> str:
        return self._paths[int(self.order[number])]

    def labels(self, group: Iterable[int]) -> list[str]:
        """Return the names of all labels in a group of files, in its order."""
        return [self._names[label] for label in dict.fromkeys(self.label[list(group)].tolist()) if label >= 0]


def _identical(files: _Files, scanned: Scanned, exchange: Exchange) -> np.ndarray:
    """Return the files that have the same bytes as another, (C,) _COPY, each with the first of its group; sorted."""
    records = scanned.records
    fit = files.worth(scanned) & records["digest"].any(axis=1) & (records["bytes"] > 0)
    keys = np.empty(np.count_nonzero(fit), _KEY)
    keys["digest"], keys["bytes"], keys["file"] = records["digest"][fit], records["bytes"][fit], files.number[scanned.indices[fit]]
    keys = exchange.sent(keys, (keys["digest"][:, 0] % np.uint64(exchange.size)).astype(np.int64))
    columns = keys["digest"][:, 0], keys["digest"][:, 1], keys["bytes"]
    order = np.lexsort((keys["file"], *columns))
    begins = np.flatnonzero(begins_of(*(column[order] for column in columns)))
    sizes = np.diff(begins, append=len(keys))
    copies = np.empty(len(keys), _COPY)
    copies["file"] = keys["file"][order]
    copies["first"] = np.repeat(copies["file"][begins], sizes)
    every = exchange.gathered(copies[np.repeat(sizes, sizes) > 1])
    found: np.ndarray = every[np.lexsort((every["file"], every["first"]))]
    return found


class _Group(NamedTuple):
    """Files that are copies of each other, or of the first."""

    files: list[int]  # the one to keep first
    detail: str
    left_out: list[int]  # by a clean set


def _groups_of_identical(files: _Files, copies: np.ndarray) -> dict[str, list[_Group]]:
    """Return groups of the same bytes, by code."""
    found: dict[str, list[_Group]] = {}
    begins = np.flatnonzero(begins_of(copies["first"])).tolist()
    for begin, end in pairwise([*begins, len(copies)]):
        group: list[int] = copies["file"][begin:end].tolist()
        split = files.split[group]
        labels = files.labels(group)
        if len(labels) > 1:  # nobody but the user knows which is right
            found.setdefault("duplicate-labels", []).append(_Group(group, f"identical: {listed(labels)}", group))
        if split[0] != split[-1]:
            # What is in the last split stays, and with it what was measured there: training, or choosing a model, does without.
            earlier = np.array(group)[split != split[-1]].tolist()
            found.setdefault("leak-exact", []).append(_Group(group, "identical", earlier))
        elif len(labels) < 2:
            found.setdefault("duplicate-exact", []).append(_Group(group, "identical", group[1:]))
    return found


def _groups_of_alike(files: _Files, pairs: np.ndarray) -> dict[str, list[_Group]]:
    """Return groups of pictures that look alike, by code."""
    first, second, mirrored = pairs["first"], pairs["second"], pairs["mirrored"]
    labels = files.label[first], files.label[second]
    # "left" and "right" may be classes, so mirrored copies can have different ones.
    differ = (labels[0] != labels[1]) & (labels[0] >= 0) & (labels[1] >= 0) & ~mirrored
    leaks = files.split[first] != files.split[second]
    trained_on = set(first[leaks].tolist())
    return {
        "duplicate-labels": [_Group(group, f"{looks}: {listed(files.labels(group))}", group) for group, looks in _stars(pairs[differ])],
        "leak-near": [
            _Group(sorted(group), looks, [number for number in group if number in trained_on]) for group, looks in _stars(pairs[leaks])
        ],
        "duplicate-near": [_Group(group, looks, group[1:]) for group, looks in _stars(pairs[~(differ | leaks | mirrored)])],
        "duplicate-mirrored": [_Group(group, looks, group[1:]) for group, looks in _stars(pairs[~leaks & mirrored])],
    }


def _stars(pairs: np.ndarray) -> list[tuple[list[int], str]]:
    """Group pairs around files that are not alike: each file, in order, that is in no group yet, with its neighbours that are in none.

    Chains of pairs would join the frames of a film into one group whose ends show different things. A file all of whose neighbours are in
    other groups is shown with the nearest of them. The first files of all groups are what a clean set keeps of them: no two are a pair.
    """
    neighbours: dict[int, list[_Pair]] = {}
    for first, second, distance, alike, mirrored in pairs[["first", "second", "distance", "alike", "mirrored"]].tolist():
        neighbours.setdefault(first, []).append((second, distance, alike, mirrored))
        neighbours.setdefault(second, []).append((first, distance, alike, mirrored))
    taken: set[int] = set()
    found = []
    for centre in sorted(neighbours):
        if centre in taken:
            continue
        fresh = [pair for pair in neighbours[centre] if pair[0] not in taken]
        group = fresh or [min(neighbours[centre], key=lambda pair: (pair[1], -pair[2], pair[0]))]
        taken.update(number for number, *_ in group)
        found.append(([centre, *sorted(number for number, *_ in group)], _detail(group)))
    return found


def _detail(pairs: Sequence[_Pair]) -> str:
    """Say how far the least alike of some pairs are apart: "mirrored, distance 3 of 64, 97 % alike"."""
    distance, alike = max(pair[1] for pair in pairs), min(pair[2] for pair in pairs)
    mirrored = sum(pair[3] for pair in pairs)
    turned = "" if not mirrored else "mirrored, " if mirrored == len(pairs) else f"{mirrored} mirrored, "
    to, least = ("", "") if len(pairs) == 1 else ("up to ", "at least ")
    return f"{turned}distance {to}{distance} of 64, {least}{alike} % alike"


def _issue(code: str, files: _Files, groups: list[_Group], alike: Alike, hashed: int, looked_at: int) -> Issue:
    """Return an issue of groups, the largest first."""
    groups = sorted(groups, key=lambda group: (-len(group.files), group.files))
    every = {number for group in groups for number in group.files}
    left_out = sorted({number for group in groups for number in group.left_out})
    kept = set(map(files.path, every.difference(left_out)))  # two tables may name one file
    measured = [f"{counted(len(every), 'file')} in {counted(len(groups), 'group')}", *(_missing(alike) if code in NEAR else ())]
    return Issue(
        code,
        tuple(Item(tuple(map(files.path, group.files)), group.detail) for group in groups),
        looked_at if code in NEAR else hashed,
        measured="; ".join(measured),
        threshold=THRESHOLD.format(alike.distance) if code in NEAR else "",
        fix=tuple(path for path in map(files.path, left_out) if path not in kept),
    )


def _missing(alike: Alike) -> list[str]:
    """Say what was not compared, or not believed."""
    chance = f"{counted(alike.chance, 'pair')} further apart may be chance, because pictures of this set are alike by nature"
    crowded = f"of {counted(alike.crowded, 'picture')} with many neighbours, only the {MOST} nearest are sure to be found"
    left_out = f"{counted(alike.left_out, 'comparison')} among pictures that all look alike were left out"
    return [text for text, count in ((chance, alike.chance), (crowded, alike.crowded), (left_out, alike.left_out)) if count]
