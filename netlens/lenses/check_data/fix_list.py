"""`--fix-list`: the files that a clean set would leave out, for other tools to read."""

from __future__ import annotations

import csv
import io
import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from netlens.data.issues import Issue
from netlens.errors import FileProblem, UsageError
from netlens.wording import counted

HEADER = ("path", "code")


@dataclass(frozen=True, slots=True)
class FixList:
    """One file to write: a path on each line, or a table of paths and codes."""

    path: Path
    overwrite: bool

    def check(self, path: Path) -> None:
        """Check that the file can be written.

        Raises:
            FileProblem: it is there already, or its folder takes no file.
        """
        refused = FileProblem(f"{path} cannot be written", hint="name a file in a folder that is there and can be written to")
        try:
            regular, there = stat.S_ISREG(path.lstat().st_mode), True
        except FileNotFoundError:
            regular, there = True, False
        except (OSError, ValueError) as error:
            raise refused from error
        if not regular or not os.access(path.parent, os.W_OK | os.X_OK):
            raise refused
        if there and not self.overwrite:
            raise FileProblem(f"{path} is there already", hint="--overwrite replaces it, or choose another name for --fix-list")

    def told(self, issues: Sequence[Issue]) -> str:
        """Say what was written, and what could not be."""
        broken = sum(map(_is_broken, {path for issue in issues for path in issue.fix}))
        if self._is_table or not broken:
            return f"wrote {self.path}"
        return f"wrote {self.path}, without {counted(broken, 'path')} in which a line ends: a .csv file takes them"

    @property
    def _is_table(self) -> bool:
        return self.path.suffix.lower() == ".csv"

    def content(self, issues: Sequence[Issue]) -> bytes:
        """Return what is written: paths sorted, each once, those of one line; as .csv all of them, once for each code."""
        pairs = sorted({(path, issue.code) for issue in issues for path in issue.fix})
        if not self._is_table:
            return b"".join(os.fsencode(path) + b"\n" for path in dict.fromkeys(path for path, _ in pairs) if not _is_broken(path))
        table = io.StringIO(newline="")
        csv.writer(table, lineterminator="\n").writerows([HEADER, *pairs])
        return table.getvalue().encode("utf-8", "surrogateescape")


def _is_broken(path: str) -> bool:
    """Tell whether a line of a list would name another file: a line ends in the path."""
    return "\n" in path or "\r" in path


def outside(path: Path, folders: Sequence[str], option: str) -> None:
    """Refuse a place inside the user's data.

    Raises:
        UsageError: it is inside one of `folders`.
    """
    place = Path(os.path.realpath(path))  # Path.resolve raises for a link that leads to itself
    for folder in folders:
        if place.is_relative_to(os.path.realpath(folder)):
            hint = f"choose another place: {option} /tmp/{path.name}" + (", or --no-pictures" if option == "--out" else "")
            raise UsageError(f"{option} {path} lies inside the data, and nothing is written there", hint=hint)


def apart(out: Path, pictures: Iterable[str]) -> None:
    """Refuse to write where pictures of the data lie, which of a table is known only when it has been read.

    Raises:
        FileProblem: one of them lies in `out`.
    """
    if os.path.realpath(out) in map(os.path.realpath, {path[: path.rfind("/") + 1] or "." for path in pictures}):
        raise FileProblem(
            f"--out {out} holds pictures of the data, and nothing is written there", hint="choose another folder: --out FOLDER"
        )
