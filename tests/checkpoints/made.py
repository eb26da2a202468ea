"""The list of files that the tests make: each with what a reader must say about it, and tools to write files that torch would not."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

Make = Callable[[Path], None]
MARKER = "MARKER"  # a hostile file that ran would leave it in its own folder


@dataclass(frozen=True)
class Made:
    """One file, or folder, of the collection."""

    name: str
    make: Make
    kind: str = ""  # what read_archive must call it
    says: str = ""  # otherwise: words of the error
    loads: bool = False  # torch.load(weights_only=True) reads it, and must agree about the tensors
    hostile: bool = False  # it would leave a marker
    odd: str = ""  # words that must be among the oddities
    tensors: int = -1  # how many, where that is a truth of its own
    heavy: bool = False  # made to take long, or much memory


FILES: list[Made] = []


def file(name: str, **truth: Any) -> Callable[[Make], Make]:
    """Register a function that writes one file."""

    def register(make: Make) -> Make:
        FILES.append(Made(name, make, **truth))
        return make

    return register


def saved(name: str, value: Callable[[], object], truth: dict[str, Any] | None = None, **options: Any) -> None:
    """Register a value that torch.save writes."""
    FILES.append(Made(name, lambda path: torch.save(value(), path, **options), **({"kind": "torch zip", "loads": True} | (truth or {}))))


def content(name: str, content_: bytes, **truth: Any) -> None:
    """Register a file of these bytes."""
    FILES.append(Made(name, lambda path: _write(path, content_), **truth))


def _write(path: Path, content_: bytes) -> None:
    path.write_bytes(content_)


@dataclass
class Ref:
    """A storage that a hand-made pickle refers to."""

    key: str
    count: int
    cls: Any = torch.FloatStorage
    location: str = "cpu"


class Call:
    """Pickles as a call of `function` with `args`."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.function, self.args = function, args

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.function, self.args


def tensor(ref: Ref, size: tuple[int, ...], stride: tuple[int, ...], offset: int = 0) -> Call:
    """A tensor as torch writes it, true or not."""
    return Call(torch._utils._rebuild_tensor_v2, ref, offset, size, stride, False, OrderedDict())


class _Pickler(pickle._Pickler):  # type: ignore[name-defined]
    def persistent_id(self, value: object) -> object:
        return ("storage", value.cls, value.key, value.location, value.count) if isinstance(value, Ref) else None


def pickled(value: object, protocol: int = 2) -> bytes:
    """Pickle a value with references to storages."""
    buffer = io.BytesIO()
    _Pickler(buffer, protocol).dump(value)
    return buffer.getvalue()


def torch_zip(path: Path, pickle_: bytes, storages: dict[str, bytes], *, method: int = 0, extra: dict[str, bytes] | None = None) -> None:
    """Write what torch 1.6 wrote, member by member."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle_)
        for key, data in storages.items():
            archive.writestr(f"archive/data/{key}", data, compress_type=method)
        for name, data in (extra or {}).items():
            archive.writestr(name, data)
        archive.writestr("archive/version", b"3\n")


def floats(count: int) -> bytes:
    """Return the bytes of 0., 1., 2. ..."""
    return struct.pack(f"<{count}f", *range(count))
