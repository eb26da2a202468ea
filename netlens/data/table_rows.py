"""The rows of tables that name a file, as columns of numbers: a million of them fit into 30 MB."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from netlens.data.layout_roots import split_of
from netlens.data.table_columns import Columns, of_parts
from netlens.data.table_files import Finder, key_of
from netlens.data.table_reading import Table
from netlens.data.tree import Oddities
from netlens.errors import FileProblem
from netlens.loading.words import listed, one_line

NO_LABEL = -1


@dataclass
class Rows:
    """What is kept of each row."""

    table: array[int] = field(default_factory=lambda: array("B"))
    line: array[int] = field(default_factory=lambda: array("q"))
    split: array[int] = field(default_factory=lambda: array("B"))
    text: array[int] = field(default_factory=lambda: array("i"))  # place in `texts`; -1: the row has no label
    key: array[int] = field(default_factory=lambda: array("q"))  # the same for the same file
    left_out: array[int] = field(default_factory=lambda: array("q"))  # keys of files of other rows
    texts: dict[str, int] = field(default_factory=dict)  # labels as they are written, each with its place
    splits: dict[tuple[str, int], int] = field(default_factory=dict)  # by name and table

    def add(self, table: int, line: int, split: str, text: str | None, key: int) -> None:
        """Keep a row."""
        self.table.append(table)
        self.line.append(line)
        self.split.append(self.splits.setdefault((split, table), len(self.splits)))
        self.text.append(NO_LABEL if text is None else self.texts.setdefault(text, len(self.texts)))
        self.key.append(key)

    def repeated(self) -> tuple[np.ndarray, list[np.ndarray]]:
        """Return the rows that name a file for the first time in their split; and groups of rows that name one file, in their order."""
        split, key = np.asarray(self.split), np.asarray(self.key)
        order = np.lexsort((key, split))  # stable: rows of one file stay in their order
        first = np.ones(len(order), dtype=bool)
        first[1:] = (key[order][1:] != key[order][:-1]) | (split[order][1:] != split[order][:-1])
        starts = np.flatnonzero(first)
        ends = np.append(starts[1:], len(order))
        several = np.flatnonzero(ends - starts > 1)
        groups = sorted((order[starts[place] : ends[place]] for place in several), key=lambda group: int(group[0]))
        return np.sort(order[starts]), groups


@dataclass
class TableReader:
    """Reads one table."""

    name: str  # of the split
    number: int
    table: Table
    columns: Columns
    finder: Finder
    here: str  # the current folder

    def paths(self, rows: Rows, odd: Oddities) -> Iterator[str]:
        """Give the files that rows name, and keep these rows; others are told.

        Raises:
            FileProblem: there is none of the files.
        """
        lost: str | None = None
        found = 0
        for line, row in self.table.rows(odd):
            cell = row[self.columns.path]
            path = self.finder.find(cell)
            if path is None:
                lost = cell if lost is None else lost
                detail = f"there is no {self.finder.tried(cell)}" if cell else "no path"
                odd.tell("row-without-file", f"{self.table.path}:{line}", detail)
            elif (split := self._split(row)) is None:
                odd.tell("row-malformed", f"{self.table.path}:{line}", "it is of no split")
                rows.left_out.append(key_of(path, self.here))
            else:
                found += 1
                rows.add(self.number, line, split, self._label(line, row, odd), key_of(path, self.here))
                yield path
        if not found:
            raise self._no_files(lost or "")

    def notes(self) -> list[str]:
        """Return what is to be said about how files were found."""
        column = one_line(self.table.header[self.columns.path])
        added, entered = ", ".join(sorted(self.finder.added)), listed(sorted(self.finder.entered))
        told = [f"files are those of column {column} with {added} added"] if added else []
        told += [f"files were found in {entered}"] if entered else []
        if self.part is not None:
            told.append(
                f"by column {one_line(self.part)} its rows are parts of pictures: of several for one, the label of the first counts"
            )
        return [f"{self.table.shown}: {each}" for each in told]

    @property
    def part(self) -> str | None:
        """The column by which a row is a part of a picture, so that a picture may have several; None: a row is a picture."""
        return of_parts(self.table.header)

    def _split(self, row: list[str]) -> str | None:
        return self.name if self.columns.split is None else split_of(row[self.columns.split])

    def _label(self, line: int, row: list[str], odd: Oddities) -> str | None:
        if self.columns.label is not None:
            return row[self.columns.label]
        ones = [place for place in self.columns.one_hot if row[place] in ("1", "1.0")]
        if len(ones) == 1:
            return self.table.header[ones[0]]
        if self.columns.one_hot:
            odd.tell("label-one-hot", f"{self.table.path}:{line}", f"{len(ones)} of its {len(self.columns.one_hot)} columns are 1")
        return None

    def _no_files(self, lost: str) -> FileProblem:
        column = one_line(self.table.header[self.columns.path])
        what = f"none of the files in column {column} of {self.table.shown} exists, such as {one_line(self.finder.tried(lost))}"
        back = "write / for \\ in its paths" if "\\" in lost else "name the folder at which its paths begin with --images"
        back = "download the files first, and name their folder with --images" if "://" in lost else back
        return FileProblem(what, hint=f"{back}, or another column with --path-column")
