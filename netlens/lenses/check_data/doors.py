"""What DATA names: a folder of pictures, a table of labels, or something in Python code; told without torch."""

from __future__ import annotations

import re
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from netlens.errors import FileProblem, UsageError
from netlens.loading.specs import ModelSpec, parse_model_spec
from netlens.loading.suggest import did_you_mean
from netlens.loading.words import one_line, user_path

TABLES = (".csv", ".tsv", ".txt", ".tab")
PACKED = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")
HOW = "name a folder of pictures, a .csv file, or a Dataset or DataLoader as package.module:name or file.py:name"


@dataclass(frozen=True, slots=True)
class Door:
    """One set, as the user named it."""

    kind: str  # "folder", "table" or "loader"
    text: str
    path: Path | None = None
    spec: ModelSpec | None = None  # of a loader

    @property
    def name(self) -> str:
        """What it is called in file names."""
        return (self.spec.attribute or self.spec.text) if self.spec is not None else self.text


def door_of(text: str, option: str = "DATA") -> Door:
    """Tell what `text` names.

    Args:
        text: what the user wrote.
        option: where: "--val".

    Raises:
        NetlensError: it names nothing that can be looked at.
    """
    said = option.replace("--data", "DATA")
    path = user_path(text)
    if not text.strip():
        raise UsageError(f"{said} names nothing", hint=HOW)
    mode = _mode(text, path, said)
    if stat.S_ISDIR(mode):
        return Door("folder", text, path)
    if stat.S_ISREG(mode):
        return _file(text, path, said)
    if mode:
        raise FileProblem(f"{said} {one_line(text)!r} is neither a folder nor a regular file", hint=HOW)
    if re.fullmatch(r"(.+\.py:+|[\w.]+[:.])\w[\w.]*", text) and path.suffix.lower() not in (*TABLES, *PACKED, ".py"):
        return Door("loader", text, spec=parse_model_spec(text))
    near: list[str] = []
    with suppress(OSError):
        near = [child.name for child in path.parent.iterdir() if not child.name.startswith(".")]
    raise FileProblem(
        f"{said} {one_line(text)!r} is no folder, no file, and no name in Python code", hint=did_you_mean(path.name, near, HOW)
    )


def _mode(text: str, path: Path, said: str) -> int:
    """Return what the system says is there; 0: nothing is."""
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):  # or a name that no file can have
        return 0
    except OSError as error:
        what = f"{said} {one_line(text)!r} cannot be read: {error.strerror}"
        raise FileProblem(what, hint="check the path and its permissions") from error


def _file(text: str, path: Path, said: str) -> Door:
    suffix = path.suffix.lower()
    if suffix in TABLES:
        return Door("table", text, path)
    if suffix == ".py":
        raise UsageError(
            f"{said} {one_line(text)!r} does not say what of the file is meant", hint=f"name it: {one_line(text)}:train_loader"
        )
    if suffix in PACKED:
        raise UsageError(f"{said} {one_line(text)!r} is an archive", hint="unpack it, and name its folder")
    raise UsageError(f"{said} {one_line(text)!r} is one file, and no table", hint=HOW)
