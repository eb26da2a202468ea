"""Tables of labels: the files that their rows name, with class indices, and what is wrong with rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

import numpy as np

from netlens.data.layout_roots import SPLITS, existing_folder
from netlens.data.listing import Listing, Paths, Split
from netlens.data.table_columns import choose_columns, known_name
from netlens.data.table_files import Finder, current_folder, key_of
from netlens.data.table_labels import Numbering, is_missing, number_labels
from netlens.data.table_reading import Table, open_table
from netlens.data.table_rows import Rows, TableReader
from netlens.data.tree import Oddities, joined, walk
from netlens.data.tree_kinds import IMAGE_FOLDER, is_hidden, suffix_of
from netlens.errors import FileProblem
from netlens.loading.words import one_line
from netlens.wording import counted, listed

FIRST_ROWS = 1000  # that tell what columns hold


def list_tables(
    tables: Sequence[tuple[str, str]],
    images: str | None,
    *,
    path_column: str | None = None,
    label_column: str | None = None,
    classes: Sequence[str] | int | None = None,
) -> Listing:
    """List the pictures that tables of labels name, each once in a split, in the order of their rows.

    A table is CSV, or has tabs, semicolons, bars or blanks for commas. Relative paths begin at `images`, else beside the table, else
    where netlens runs. Class indices are the same in all tables: integers stand for themselves, names are numbered in their order.

    Args:
        tables: name and path of each split; a single table may have a column of splits.
        images: folder of the pictures; those in it that no row names are told.
        path_column: name of the column of paths, or its number from 1 where the table has no header; None: the one that names files.
        label_column: the same for labels.
        classes: names of classes in the order of their indices, or how many there are; None: those that occur.

    Raises:
        NetlensError: a table cannot be read, has no such column, or names no file that exists.
    """
    images = None if images is None else existing_folder(images)
    rows, odd, notes = Rows(), Oddities(), list[str]()
    readers = []
    for number, (name, path) in enumerate(tables):
        finder = Finder(images, path)
        table, written = open_table(path, (path_column, label_column), finder.may_find, known_name)
        first = _first_rows(table)
        columns, chosen = choose_columns(table, first, finder.find, path_column, label_column, splits=len(tables) == 1)
        notes += written + chosen
        readers.append(TableReader(name, number, table, columns, finder, current_folder()))
    paths = Paths(path for reader in readers for path in reader.paths(rows, odd))
    kept = _tell_repeats(rows, readers, odd)
    counts = np.bincount(np.asarray(rows.text)[np.asarray(rows.text) >= 0], minlength=len(rows.texts))
    numbering = number_labels(list(rows.texts), counts, classes)
    _tell_labels(rows, readers, numbering, odd)
    if images is not None:
        _tell_unnamed(images, rows, odd)
    notes += [note for reader in readers for note in reader.notes()] + numbering.notes
    return _listing(readers, rows, paths, kept, numbering, odd, notes)


def _first_rows(table: Table) -> list[list[str]]:
    odd = Oddities()
    rows = [row for _, row in islice(table.rows(odd), FIRST_ROWS)]
    if rows:
        return rows
    for item in odd.get("row-malformed", ()):
        what = f"no row of {table.shown} can be read: {one_line(item.paths[0])}: {item.detail}"
        raise FileProblem(what, hint="check what separates its cells, and its quotation marks")
    raise FileProblem(f"{table.shown} has no rows", hint="give a table with a row for each picture")


def _tell_repeats(rows: Rows, readers: Sequence[TableReader], odd: Oddities) -> np.ndarray:
    """Tell files that several rows of a split name; return the first row of each file. What is no label is told by itself."""
    kept, groups = rows.repeated()
    texts = list(rows.texts)
    for group in groups:
        if readers[rows.table[group[0]]].part is not None:
            continue
        places = dict.fromkeys(rows.text[row] for row in group)
        first, *others = (_where(rows, readers, int(row)) for row in group)
        labels = [repr(texts[place]) for place in places if place >= 0 and not is_missing(texts[place])]
        if len(labels) > 1:
            odd.tell("label-conflict", first, f"labels {', '.join(labels)}", *others)
        else:
            odd.tell("duplicate-row", first, f"{len(group)} rows", *others)
    return kept


def _tell_labels(rows: Rows, readers: Sequence[TableReader], numbering: Numbering, odd: Oddities) -> None:
    texts = list(rows.texts)
    text = np.asarray(rows.text)
    order = np.argsort(text, kind="stable")
    ends = np.searchsorted(text[order], np.arange(-1, len(texts)), side="right")

    def places(several: Iterable[int]) -> list[str]:
        found = np.sort(np.concatenate([order[ends[place] : ends[place + 1]] for place in several]))
        return [_where(rows, readers, int(row)) for row in found]

    for code, why in numbering.faults.items():
        for place, detail in why.items():
            for where in places([place]):
                odd.tell(code, where, detail)
    for code, detail in numbering.whole.items():
        odd.tell(code, readers[0].table.path, detail)
    for group in numbering.groups:
        spelled = [f"{texts[place]!r} in {counted(int(ends[place + 1] - ends[place]), 'row')}" for place in group]
        first, *others = places(group[1:])
        odd.tell("label-spelling", first, listed(spelled), *others)


def _tell_unnamed(images: str, rows: Rows, odd: Oddities) -> None:
    named, here = np.sort(np.asarray(rows.key + rows.left_out)), current_folder()
    for folder in walk(images, None, odd):
        if folder.path != joined(images) and is_hidden(folder.name):
            continue
        names = [name for name in folder.files if suffix_of(name) in IMAGE_FOLDER and not is_hidden(name)]
        keys = np.array([key_of(folder.path + name, here) for name in names], dtype=np.int64)
        nearest = named[np.searchsorted(named[:-1], keys)]
        for place in np.flatnonzero(nearest != keys):
            odd.tell("file-without-row", folder.path + names[place])


def _listing(
    readers: Sequence[TableReader], rows: Rows, paths: Paths, kept: np.ndarray, numbering: Numbering, odd: Oddities, notes: list[str]
) -> Listing:
    order = sorted(rows.splits, key=lambda split: (split[1], SPLITS.index(split[0]) if split[0] in SPLITS else 0))
    rank = np.array([order.index(split) for split in rows.splits], dtype=np.uint8)
    split = rank[np.asarray(rows.split)[kept]]
    places = np.argsort(split, kind="stable")
    label = np.append(numbering.index, np.int32(-1))[np.asarray(rows.text)[kept][places]]  # the place -1 is that of no label
    return Listing(
        splits=tuple(Split(name, readers[table].table.path, numbering.names, "table") for name, table in order),
        paths=Paths(paths[int(place)] for place in kept[places]),
        split=split[places],
        label=label,
        oddities=dict(odd),
        notes=tuple(notes),
    )


def _where(rows: Rows, readers: Sequence[TableReader], row: int) -> str:
    """Return where a row is: "labels.csv:17"."""
    return f"{readers[rows.table[row]].table.path}:{rows.line[row]}"
