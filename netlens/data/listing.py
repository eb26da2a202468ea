"""What a folder or a table of labels names, before any picture is opened."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from os import fsdecode, fsencode

import numpy as np

from netlens.data.issues import Item


class Paths:
    """Many paths in one buffer: a million Python strings would take 150 MB."""

    def __init__(self, paths: Iterable[str] = ()) -> None:
        self._bytes = bytearray()
        self._ends: list[int] | np.ndarray = []
        ends = []
        for path in paths:
            self._bytes += fsencode(path)
            ends.append(len(self._bytes))
        self._ends = np.array(ends, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> str:
        start = int(self._ends[index - 1]) if index else 0
        return fsdecode(bytes(self._bytes[start : int(self._ends[index])]))

    def __iter__(self) -> Iterator[str]:
        return (self[index] for index in range(len(self)))


@dataclass(frozen=True, slots=True)
class Split:
    """One set of pictures: all there is, or one of train, val and test."""

    name: str  # "train"; "" where there is only one
    root: str  # the folder or the table, as the user wrote it
    classes: tuple[str, ...] = ()  # in the order of their indices; () where files have no labels
    kind: str = "folder"  # "folder": ImageFolder's layout; "flat": no classes; "table"
    skipped: tuple[tuple[str, int], ...] = ()  # suffixes that ImageFolder leaves out, each with its count


@dataclass(frozen=True)
class Listing:
    """All files of all splits, in one order that does not depend on the file system: by split, then by path."""

    splits: tuple[Split, ...]
    paths: Paths  # as the user would type them: the root, then the way down
    split: np.ndarray  # (N,) uint8, place in `splits`
    label: np.ndarray  # (N,) int32, place in the classes of its split; -1: none
    oddities: dict[str, list[Item]] = field(default_factory=dict)  # by code: what is wrong without opening a file
    notes: tuple[str, ...] = ()  # "train and val were found in it: they are compared"

    def __len__(self) -> int:
        return len(self.paths)
