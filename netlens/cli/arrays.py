"""The raw numbers of a command: NumPy files in `--out`, beside its pictures, told on stderr.

netlens replaces what it wrote itself, and nothing else. A .npy file has no place for texts, so ours are known by their header: it is padded
with spaces to a length that is valid and that no other program writes.
"""

from __future__ import annotations

import os
import stat
import struct
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from netlens.cli import console
from netlens.cli.files import ELSEWHERE, TOLD, check_folder, explained, one_line, write
from netlens.errors import FileProblem

if TYPE_CHECKING:
    import numpy as np

MAGIC = b"\x93NUMPY\x01\x00"
HEADER = 704  # bytes before the numbers; a multiple of 64, as the format asks; NumPy itself takes 128


class Arrays:
    """Writes the raw numbers of one command as "{lens}-{subject}-{name}.npy".

    Args:
        lens: the name of the subcommand.
        subject: what is looked at, as it shall stand in file names.
        out: the folder; made when the first file is written.
        overwrite: also replace files that netlens did not write.

    Raises:
        FileProblem: no file can be written there.
    """

    def __init__(self, lens: str, subject: str, *, out: Path, overwrite: bool) -> None:
        from netlens.cli.pictures import SUBJECT
        from netlens.drawing.png import LONGEST, FileNames, safe_name

        self._out, self._overwrite = out, overwrite
        self._prefix = f"{lens}-{safe_name(subject, SUBJECT)}-"
        self._names = FileNames(LONGEST - len(self._prefix))
        self._saved: Counter[str] = Counter()
        self._written: list[Path] = []
        with explained(out):
            check_folder(out)

    def reserve(self, names: Iterable[str]) -> None:
        """Check all files before the first is written; a name stands as often as it will be saved.

        Raises:
            FileProblem: one of them is not ours to replace.
        """
        seen: Counter[str] = Counter()
        for name in names:
            self._check(self._path(name, seen))

    def save(self, name: str, values: np.ndarray) -> str:
        """Write numbers as float32 and return the path, as the user would type it.

        Raises:
            FileProblem: it cannot be written.
        """
        path = self._path(name, self._saved)
        write(path, encode(values), self._check)
        self._written.append(path)
        return str(path)

    def finish(self) -> None:
        """Say what was written."""
        if len(self._written) <= TOLD:
            lines = [f"wrote {path}" for path in self._written]
        else:
            lines = [f"wrote {len(self._written)} files of raw numbers, {self._out / self._prefix}*.npy"]
        for line in lines:
            console.note(one_line(line))

    def _path(self, name: str, seen: Counter[str]) -> Path:
        seen[name] += 1
        return self._out / f"{self._prefix}{self._names.of(name, seen[name])}.npy"

    def _check(self, path: Path) -> None:
        """Raise where the place is taken by what netlens may not replace."""
        with explained(path):
            if not os.path.lexists(path):
                return
            if not stat.S_ISREG(path.lstat().st_mode):
                raise FileProblem(f"{path} is no regular file, and numbers are to be written there", hint=f"move it away, or {ELSEWHERE}")
            if not os.access(path, os.W_OK):
                raise PermissionError("it is write-protected")
            if not self._overwrite and not is_ours(path):
                raise FileProblem(f"{path} was not written by netlens", hint=f"--overwrite replaces it, or {ELSEWHERE}")


def encode(values: np.ndarray) -> bytes:
    """Return the .npy file of an array, as little-endian float32; equal numbers give equal bytes."""
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {tuple(map(int, values.shape))}, }}".encode("ascii")
    room = HEADER - len(MAGIC) - 2
    return MAGIC + struct.pack("<H", room) + header.ljust(room - 1) + b"\n" + values.astype("<f4").tobytes()


def is_ours(path: Path) -> bool:
    """Whether netlens wrote this file.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(HEADER)
    return head.startswith(MAGIC + struct.pack("<H", HEADER - len(MAGIC) - 2)) and head.endswith(b" \n") and b"'<f4'" in head
