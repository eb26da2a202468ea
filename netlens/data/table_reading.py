"""Tables as text: their encoding, what separates cells, whether the first row is a header; and their rows, one by one."""

from __future__ import annotations

import csv
import io
from codecs import BOM_UTF16_BE, BOM_UTF16_LE, getincrementaldecoder
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from netlens.data.tree import Oddities
from netlens.errors import FileProblem
from netlens.loading.suggest import did_you_mean
from netlens.loading.words import one_line, user_path
from netlens.wording import counted

SAMPLE = 65_536  # characters that tell what separates cells
CHUNK = 1 << 20  # bytes
SEPARATORS = ",;\t|"
SPREADSHEET = "save it as CSV, with UTF-8"


@dataclass(frozen=True, slots=True)
class Table:
    """A file of rows."""

    path: str  # as the user typed it
    encoding: str
    separator: str
    header: tuple[str, ...]  # names of columns; their numbers from 1 where the file names none
    named: bool  # the first row is the header

    @property
    def shown(self) -> str:
        """Its path for a message."""
        return one_line(self.path)

    def rows(self, odd: Oddities) -> Iterator[tuple[int, list[str]]]:
        """Give the line that each row begins at, and its cells: as many as the header has. Other rows are told, and left out."""
        records = self._records(odd)
        if self.named:
            next(records, None)
        for line, row in records:
            if len(row) > len(self.header) and not any(row[len(self.header) :]):
                row = row[: len(self.header)]
            if len(row) == len(self.header):
                yield line, row
            else:
                odd.tell("row-malformed", f"{self.path}:{line}", f"{counted(len(row), 'cell')}, and others have {len(self.header)}")

    def _records(self, odd: Oddities) -> Iterator[tuple[int, list[str]]]:
        with user_path(self.path).open(newline="", encoding=self.encoding, errors="replace") as file:
            reader = csv.reader(file, delimiter=self.separator, skipinitialspace=True, strict=True)
            while True:
                line = reader.line_num + 1
                try:
                    row = next(reader)
                except StopIteration:
                    return
                except csv.Error as error:
                    lost = reader.line_num - line
                    more = f", and {counted(lost, 'line')} after it {'is' if lost == 1 else 'are'} lost with it" if lost > 0 else ""
                    odd.tell("row-malformed", f"{self.path}:{line}", one_line(error) + more)
                    continue
                if any(map(str.strip, row)):
                    yield line, row


def open_table(
    path: str, asked: Sequence[str | None], is_file: Callable[[str], bool], known: Callable[[str], bool]
) -> tuple[Table, list[str]]:
    """Learn how a table is written; and what is to be said about that.

    Args:
        path: of the file.
        asked: columns that the user names.
        is_file: whether a cell names a picture.
        known: whether a text is the usual name of a column.

    Raises:
        FileProblem: it cannot be read, is no text, or empty.
    """
    encoding = _encoding(path)
    with user_path(path).open(newline="", encoding=encoding, errors="replace") as file:
        text = file.read(SAMPLE)
        complete = not file.read(1)
    separator, width = _separator(text if complete else text[: text.rfind("\n") + 1])
    rows = _sampled(text, separator)
    if not rows:
        raise FileProblem(f"{one_line(path)} is empty", hint="give a table with a column of paths and one of labels")
    first = [cell.strip() for cell in rows[0]]
    named = any(name in first for name in asked if name is not None) or _is_header(first, is_file, known)
    header = tuple(first) if named else tuple(str(place + 1) for place in range(width))
    notes = [] if encoding != "cp1252" else [f"{one_line(path)} is no UTF-8: it is read as Windows-1252"]
    return Table(path, encoding, separator, header, named), notes


def _encoding(path: str) -> str:
    """Return the encoding: UTF-8 where the bytes are, else Windows-1252."""
    decoder, first = getincrementaldecoder("utf-8")(), True
    try:
        with user_path(path).open("rb") as file:
            while chunk := file.read(CHUNK):
                if first and (encoding := _told(chunk, path)):
                    return encoding
                first = False
                decoder.decode(chunk)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return "cp1252"
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    return "utf-8-sig"


def _told(head: bytes, path: str) -> str | None:
    """Return the encoding that first bytes tell."""
    if head.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
        return "utf-16"
    if b"\0" in head or head.startswith((b"PK\x03\x04", b"\x1f\x8b", b"PAR1", b"%PDF")):
        workbook = head.startswith((b"PK", b"\xd0\xcf\x11\xe0"))
        hint = "unpack it" if head.startswith(b"\x1f\x8b") else SPREADSHEET
        raise FileProblem(f"{one_line(path)} is no text{', but may be a workbook' if workbook else ''}", hint=hint)
    return None


def _unreadable(path: str, error: Exception) -> FileProblem:
    place, shown = user_path(path), one_line(path)
    if isinstance(error, IsADirectoryError):
        return FileProblem(f"{shown} is a folder, and no table", hint=f"netlens check-data labels.csv --images {shown}")
    if isinstance(error, FileNotFoundError):
        near = sorted(entry.name for entry in place.parent.iterdir() if entry.is_file()) if place.parent.is_dir() else []
        return FileProblem(f"there is no file {shown!r}", hint=did_you_mean(place.name, near, "check the path"))
    why = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return FileProblem(f"{shown} cannot be read: {one_line(why)}", hint="check the path and its permissions")


def _separator(text: str) -> tuple[str, int]:
    """Return what separates cells, and how many cells most rows have: the separator by which the most rows have the same number, over 1."""
    found = []
    for separator in SEPARATORS:
        widths = Counter(map(len, _sampled(text, separator)))
        width, count = widths.most_common(1)[0] if widths else (1, 0)
        found.append((width > 1, count / max(1, widths.total()), width, separator))
    best = max(found, key=lambda each: each[:3])
    if not best[0]:
        rows = _sampled(text, " ")  # "cat/a.jpg 0", as Caffe and MMPretrain write lists
        if rows and all(len(row) == 2 and row[1].isdecimal() for row in rows):
            return " ", 2
    return best[3], best[2]


def _sampled(text: str, separator: str) -> list[list[str]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
    return [row for row in reader if any(map(str.strip, row))]


def _is_header(first: Sequence[str], is_file: Callable[[str], bool], known: Callable[[str], bool]) -> bool:
    if any(is_file(cell) for cell in first):
        return False
    return any(map(known, first)) or (len(set(first)) == len(first) and not any(_is_number(cell) for cell in first))


def _is_number(text: str) -> bool:
    try:
        return bool(text) and float(text) is not None
    except ValueError:
        return False
