"""A file's bytes, by slices: read when asked for, so that looking at a file of any size takes little memory."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

from netlens.loading.checkpoints.stubs import Bytes

COPIED = 32 << 20  # bytes of a pickle that are read at once; a larger one is mapped


class OnDisk:
    """An open file that is sliced like bytes."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb", buffering=0)
        self.size = os.fstat(self._file.fileno()).st_size
        self._map: mmap.mmap | None = None

    def __enter__(self) -> OnDisk:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()  # a map stays open as long as a value refers to it

    def __getitem__(self, part: slice) -> bytes:
        start, stop = part.start, min(part.stop, self.size)
        if start >= stop:
            return b""
        self._file.seek(start)
        found = self._file.read(stop - start)
        while len(found) < stop - start and (more := self._file.read(stop - start - len(found))):
            found += more
        return found

    def mapped(self) -> mmap.mmap:
        """Return the whole file, mapped into memory; read-only."""
        if self._map is None:
            self._map = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        return self._map


Sliced = bytes | OnDisk


def in_memory(code: Sliced, start: int, end: int) -> tuple[Bytes, int, int]:
    """Return bytes that can be read one by one, and where in them the part from `start` to `end` lies."""
    if isinstance(code, bytes):
        return code, start, end
    if end - start <= COPIED:
        content = code[start:end]
        return content, 0, len(content)
    return code.mapped(), start, end
