"""Files that a command writes to `--out`: all or nothing, and what the system says about a path in two lines."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from netlens.errors import FileProblem

TOLD = 8  # files that are told one by one
ELSEWHERE = "choose another folder: --out FOLDER"


def one_line(text: str) -> str:
    """Return a line for the terminal that holds no control characters."""
    from netlens.drawing.escapes import harmless

    return harmless(text)


@contextmanager
def explained(path: Path, elsewhere: str = ELSEWHERE) -> Iterator[None]:
    """Turn what the system says about a path into two lines; `elsewhere` says how to choose another."""
    try:
        yield
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
        do = "make room" if full else "check the folder and its permissions"
        raise FileProblem(f"{path} cannot be written: {reason}", hint=f"{do}, or {elsewhere}") from error


def check_folder(folder: Path) -> None:
    """Raise OSError where no file could be written to a folder that may have to be made first."""
    there = folder
    while not os.path.lexists(there) and there != there.parent:
        there = there.parent
    if not stat.S_ISDIR(there.stat().st_mode):
        raise NotADirectoryError(errno.ENOTDIR, "it is not a folder" if there == folder else f"{there} is not a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, f"files cannot be made in {there}")


def write(path: Path, content: bytes, check: Callable[[Path], None], elsewhere: str = ELSEWHERE) -> None:
    """Write a file beside its place, and then put it there; its folder is made. `check` raises where the place has been taken meanwhile.

    Raises:
        FileProblem: it cannot be written.
    """
    with explained(path, elsewhere), _made(path.parent), _temporary(path) as beside:
        with beside.open("xb") as file:  # "x" keeps to the umask, which mkstemp does not
            file.write(content)
        check(path)
        beside.replace(path)


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """Make a folder for the block; where it fails, what was made goes again."""
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        with suppress(OSError):
            for place in made:
                place.rmdir()  # an empty one only
        raise


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """Name a file beside `path`; whatever happens, none of that name stays."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield beside
    finally:
        with suppress(OSError):
            beside.unlink()
