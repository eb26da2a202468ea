"""What was seen of files in earlier runs, in a file of our own: numbers and short texts, nothing that could run."""

from __future__ import annotations

import json
import os
import secrets
import stat
import struct
import time
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import IO

import numpy as np

import netlens
from netlens.data.records import FLAGS, FORMATS, MODES, RECORD, has
from netlens.errors import FileProblem
from netlens.loading.words import one_line

LOOK_VERSION = 1  # to be raised whenever a look at the same file gives another row
RACY = 2_000_000_000  # ns: so young a file may change again and keep its time (FAT counts in 2 s; git calls it "racily clean")

_MAGIC = b"netlens: looks at files\n"
_BLOCK = 1024  # entries that are read, checked and written at once
_HEAD = struct.Struct("<III")  # of a block: entries, bytes of JSON after them, CRC-32 of both
_ENTRY = np.dtype([("key", "<u8", 2), ("row", RECORD)])
_ELSEWHERE = "choose another file: --cache FILE"

Recalled = tuple[np.ndarray, np.ndarray, dict[int, str]]  # places, rows of RECORD, and words by row


class Cache:
    """A file with rows of RECORD, each under a digest of the path, the size and the times of the picture that it was made of.

    What is damaged in it, or was written by another version, is as if it were not there.

    Raises:
        FileProblem: there is something else in its place, or nothing can be written there.
    """

    def __init__(self, file: Path) -> None:
        self._file = Path(os.path.realpath(file))
        self._keys = np.zeros((0, 2), np.uint64)  # of the pictures of this run; 0, 0: not to be remembered
        self._recalled = 0
        _check(self._file)

    def recalled(self, paths: Iterable[str]) -> Iterator[Recalled]:
        """Find the rows of the pictures that are as they were; places are places in `paths`."""
        self._keys = keys = _keys(paths)
        order = np.argsort(keys[:, 0], kind="stable")
        first = keys[order, 0]
        for entries, details in _blocks(self._file):
            low, high = (np.searchsorted(first, entries["key"][:, 0], side) for side in ("left", "right"))
            found = high - low  # over 1 where a picture is listed more than once
            entry = np.repeat(np.arange(len(entries)), found)
            places = order[np.arange(len(entry)) + np.repeat(high - np.cumsum(found), found)]
            same = (keys[places] == entries["key"][entry]).all(1) & keys[places].any(1) & _sane(entries["row"][entry])
            places, entry = places[same], entry[same]
            self._recalled += len(places)
            yield places, entries["row"][entry], {row: details[e] for row, e in enumerate(entry.tolist()) if e in details}

    def remember(self, records: np.ndarray, details: dict[int, str], worth: np.ndarray) -> None:
        """Write the rows of the pictures of this run, if there is a new one among them.

        Args:
            worth: (N,) bool, rows that another run may rely on.

        Raises:
            FileProblem: the file cannot be written; what was there stays.
        """
        if len(self._keys) != len(records):  # interrupted before they were known
            return
        places = np.flatnonzero(worth & self._keys.any(1) & ~has(records, "file-unreadable"))
        if len(places) == self._recalled:
            return
        beside = self._file.with_name(f".{self._file.name}.{secrets.token_hex(4)}.tmp")
        try:
            with beside.open("xb") as file:
                file.write(_MAGIC + _version())
                for start in range(0, len(places), _BLOCK):
                    _write_block(file, self._keys, records, details, places[start : start + _BLOCK])
            _check(self._file)
            beside.replace(self._file)
        except OSError as error:
            raise _unusable(self._file, error) from error
        finally:
            with suppress(OSError):
                beside.unlink()


def _version() -> bytes:
    import PIL

    made_by = RECORD.descr, FLAGS, FORMATS, MODES, LOOK_VERSION, netlens.__version__, PIL.__version__
    return blake2b(repr(made_by).encode(), digest_size=16).digest()


def _check(file: Path) -> None:
    try:
        if not file.exists():
            if not os.access(file.parent, os.W_OK | os.X_OK):
                raise OSError(0, f"{file.parent} is no folder that files can be made in")
            return
        if not stat.S_ISREG(file.stat().st_mode):
            raise OSError(0, "it is not a regular file")
        with file.open("rb") as opened:
            begin = opened.read(len(_MAGIC))
    except OSError as error:
        raise _unusable(file, error) from error
    if begin not in (b"", _MAGIC):
        raise FileProblem(f"{one_line(file)} is not a cache that netlens wrote, and stays as it is", hint=_ELSEWHERE)


def _unusable(file: Path, error: OSError) -> FileProblem:
    return FileProblem(f"the cache {one_line(file)} cannot be used: {error.strerror or error}", hint=_ELSEWHERE)


def _keys(paths: Iterable[str]) -> np.ndarray:
    """Return the key of each picture, (N, 2) uint64; 0, 0 where it cannot be found, or is too young to rely on its time."""
    folder = os.fsencode(Path.cwd())
    keys = bytearray()
    for path in paths:
        try:
            status = os.stat(path)  # noqa: PTH116 - a quarter of the time of Path(path).stat()
        except (OSError, ValueError):
            keys += bytes(16)
            continue
        times = struct.pack("<Qqq", status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        full = os.path.join(folder, os.fsencode(path))  # noqa: PTH118 - neither changes ".." nor costs much
        racy = status.st_mtime_ns > time.time_ns() - RACY
        keys += bytes(16) if racy else blake2b(full + times, digest_size=16).digest()
    return np.frombuffer(keys, "<u8").reshape(-1, 2)


def _sane(rows: np.ndarray) -> np.ndarray:
    known: np.ndarray = (rows["format"] < len(FORMATS)) & (rows["mode"] < len(MODES)) & (rows["flags"] < 1 << len(FLAGS))
    return known


def _blocks(file: Path) -> Iterator[tuple[np.ndarray, dict[int, str]]]:
    """Read entries, and words by entry, as far as the file is whole and of this version."""
    if not file.exists():
        return
    with file.open("rb") as opened:
        if opened.read(len(_MAGIC)) == _MAGIC and opened.read(16) == _version():
            while block := _read_block(opened):
                yield block


def _read_block(file: IO[bytes]) -> tuple[np.ndarray, dict[int, str]] | None:
    head = file.read(_HEAD.size)
    if len(head) < _HEAD.size:
        return None
    count, text, checksum = _HEAD.unpack(head)
    left = os.fstat(file.fileno()).st_size - file.tell()
    size = count * _ENTRY.itemsize + text
    if count > _BLOCK or size > left or zlib.crc32(body := file.read(size)) != checksum:
        return None
    try:
        details = {int(entry): str(words) for entry, words in json.loads(body[size - text :]).items()}
    except (ValueError, AttributeError, RecursionError):
        return None
    return np.frombuffer(body, _ENTRY, count), details


def _write_block(file: IO[bytes], keys: np.ndarray, records: np.ndarray, details: dict[int, str], places: np.ndarray) -> None:
    entries = np.empty(len(places), _ENTRY)
    entries["key"], entries["row"] = keys[places], records[places]
    text = json.dumps({entry: details[place] for entry, place in enumerate(places.tolist()) if place in details}).encode()
    body = entries.tobytes() + text
    file.write(_HEAD.pack(len(places), len(text), zlib.crc32(body)) + body)
