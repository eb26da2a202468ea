"""Which columns of a table hold paths, labels and splits: by what the user says, by their names, by what is in them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from netlens.data.layout_roots import split_of
from netlens.data.table_files import looks_like_picture
from netlens.data.table_reading import Table
from netlens.errors import FileProblem, UsageError
from netlens.loading.suggest import did_you_mean
from netlens.loading.words import listed, one_line

_PATHS = (
    "filepath path imagepath imgpath fullpath relpath filename imagefilename imagefile image img imagename imgname file picture photo "
    "imageid imgid uuid id name"
)
_LABELS = (
    "label class target category y classid labelid categoryid classidx classindex classname labelname categoryname labels classes species "
    "breed diagnosis dx"
)
PATHS = _PATHS.split()  # usual names, less separators, the most telling first
LABELS = _LABELS.split()
PARTS = frozenset(("xmin", "x1", "bbox", "boundingbox", "bndbox", "boxes", "encodedpixels", "rle"))  # of pictures: boxes and masks
SPLITS = ("split", "set", "subset", "partition", "phase", "fold")
TELLING = 20  # rows that tell whether a column names files
ONES = frozenset(("0", "1", "0.0", "1.0"))
OF_CLASSES = 0.5  # different values for each row, at most: more are no classes


@dataclass(frozen=True, slots=True)
class Columns:
    """Places of columns."""

    path: int
    label: int | None = None
    one_hot: tuple[int, ...] = ()  # columns of one class each
    split: int | None = None


def known_name(text: str) -> bool:
    """Tell whether a text is the usual name of a column."""
    return _plain(text) in {*PATHS, *LABELS, *SPLITS}


def of_parts(header: Sequence[str]) -> str | None:
    """Return the column that tells boxes or masks; None: there is none."""
    return next((name for name in header if _plain(name) in PARTS), None)


def choose_columns(
    table: Table, rows: Sequence[Sequence[str]], find: Callable[[str], str | None], path: str | None, label: str | None, *, splits: bool
) -> tuple[Columns, list[str]]:
    """Choose the columns, and say which they are.

    Args:
        table: whose they are.
        rows: its first ones.
        find: gives the file that a cell names.
        path: column that the user names; None: any.
        label: the same for labels.
        splits: whether the table may hold several.

    Raises:
        NetlensError: there is no such column, or none that names files.
    """
    found = _named(table, path, "--path-column") if path is not None else _paths(table, rows, find)
    rest = [place for place in range(len(table.header)) if place != found]
    asked = None if label is None else _named(table, label, "--label-column")
    split = next((place for place in rest if place != asked and _is_split(table.header[place], [row[place] for row in rows])), None)
    rest = [place for place in rest if place != split]
    split = split if splits else None
    columns, notes = (Columns(found, asked, split=split), []) if asked is not None else _labels(table, rows, found, split, rest)
    return columns, [_said(table, columns), *notes]


def _named(table: Table, name: str, option: str) -> int:
    if name in table.header:
        return table.header.index(name)
    known = f"its columns are {listed(table.header)}"
    if not table.named:
        known = f"its first row is no header, and columns are numbered from 1 to {len(table.header)}"
    raise UsageError(f"{table.shown} has no column {one_line(name)!r} for {option}", hint=did_you_mean(name, table.header, known))


def _paths(table: Table, rows: Sequence[Sequence[str]], find: Callable[[str], str | None]) -> int:
    """Return the column whose cells are files, else look like files, else the one that is called so; of several by name."""
    told = rows[:TELLING]
    places = range(len(table.header))
    there = {place: sum(find(row[place]) is not None for row in told) for place in places if not _all_ones(told, place)}
    like = {place: sum(looks_like_picture(row[place]) for row in rows) for place in places}
    named = {place: int(_rank(table.header[place], PATHS) < len(PATHS)) for place in places}
    for counts in (there, like, named):
        found = [place for place in places if counts.get(place)]
        if found:
            return min(found, key=lambda place: (_rank(table.header[place], PATHS), -counts[place]))
    hint = f"name it with --path-column; there are {listed(table.header)}"
    raise FileProblem(f"no column of {table.shown} names pictures", hint=hint)


def _labels(table: Table, rows: Sequence[Sequence[str]], path: int, split: int | None, rest: Sequence[int]) -> tuple[Columns, list[str]]:
    named = [place for place in rest if _rank(table.header[place], LABELS) < len(LABELS)]
    if named:
        return Columns(path, min(named, key=lambda place: _rank(table.header[place], LABELS)), split=split), []
    ones = [place for place in rest if _all_ones(rows, place)]
    if len(ones) > 1:
        if all(sum(float(row[place]) for place in ones) == 1 for row in rows):
            return Columns(path, one_hot=tuple(ones), split=split), []
        columns = listed([table.header[place] for place in ones])
        return Columns(path, split=split), [f"{columns} are several labels at once: only single labels are checked"]
    likely = [place for place in rest if len({row[place] for row in rows}) <= max(OF_CLASSES * len(rows), TELLING)]
    if len(likely) == 1:
        return Columns(path, likely[0], split=split), []
    hint = f": if one of its others does, name it with --label-column: {listed([table.header[place] for place in rest])}" if rest else ""
    return Columns(path, split=split), [f"{table.shown} has no column that is known to hold labels{hint}"]


def _is_split(name: str, cells: Sequence[str]) -> bool:
    return _plain(name) in SPLITS and any(cells) and all(split_of(cell) for cell in cells if cell)


def _all_ones(rows: Sequence[Sequence[str]], place: int) -> bool:
    return all(row[place] in ONES for row in rows)


def _rank(name: str, known: Sequence[str]) -> int:
    plain = _plain(name)
    return known.index(plain) if plain in known else len(known)


def _plain(name: str) -> str:
    """Return "imagepath" for "Image Path" and "image_path"."""
    return re.sub(r"[\W_]", "", name).lower()


def _said(table: Table, columns: Columns) -> str:
    def column(place: int) -> str:
        return f"column {one_line(table.header[place])}"

    parts = [f"paths are in {column(columns.path)}"]
    if columns.label is not None:
        parts.append(f"labels in {column(columns.label)}")
    if columns.one_hot:
        parts.append(f"labels in {len(columns.one_hot)} one-hot columns")
    if columns.split is not None:
        parts.append(f"splits in {column(columns.split)}")
    return f"{table.shown}: {', '.join(parts)}"
