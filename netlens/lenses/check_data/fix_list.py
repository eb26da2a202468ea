"""`--fix-list`: the files that a clean set would leave out, for other tools to read."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from netlens.data.issues import Issue
from netlens.errors import FileProblem, UsageError

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
        if os.path.lexists(path) and not self.overwrite:
            raise FileProblem(f"{path} is there already", hint="--overwrite replaces it, or choose another name for --fix-list")
        if path.is_dir() or not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
            raise FileProblem(f"{path} cannot be written", hint="name a file in a folder that is there and can be written to")

    def content(self, issues: Sequence[Issue]) -> bytes:
        """Return what is written: paths sorted, each once; as .csv once for each code."""
        pairs = sorted({(path, issue.code) for issue in issues for path in issue.fix})
        if self.path.suffix.lower() != ".csv":
            return b"".join(os.fsencode(path) + b"\n" for path in dict.fromkeys(path for path, _ in pairs))
        table = io.StringIO(newline="")
        csv.writer(table, lineterminator="\n").writerows([HEADER, *pairs])
        return table.getvalue().encode("utf-8", "surrogateescape")


def outside(path: Path, folders: Sequence[str], option: str) -> None:
    """Refuse a place inside the user's data.

    Raises:
        UsageError: it is inside one of `folders`.
    """
    place = path.resolve()
    for folder in folders:
        if place.is_relative_to(Path(folder).resolve()):
            hint = f"choose another place: {option} /tmp/{path.name}" + (", or --no-pictures" if option == "--out" else "")
            raise UsageError(f"{option} {path} lies inside the data, and nothing is written there", hint=hint)
