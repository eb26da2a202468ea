"""Look at a checkpoint of any kind and execute nothing of it. torch is not imported: the standard library reads all formats."""

from __future__ import annotations

import gc
import mmap
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from netlens.errors import FileProblem
from netlens.loading.checkpoints.archive import Archive, StoredTensor
from netlens.loading.checkpoints.distributed import read_distributed
from netlens.loading.checkpoints.files import OnDisk
from netlens.loading.checkpoints.machine import Damaged, Truncated
from netlens.loading.checkpoints.other_files import by_text
from netlens.loading.checkpoints.read_kinds import READERS, read_index
from netlens.loading.checkpoints.sniff import HEAD, folder_problem, kind_of, odd_suffix, regular_file

# What a folder of Hugging Face's libraries holds, in their own order of preference.
WHOLE = (
    "model.safetensors",
    "model.safetensors.index.json",
    "adapter_model.safetensors",
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "adapter_model.bin",
)
COMPLETE = "get the file again, and compare its size with the source's"


def read_archive(path: Path) -> Archive:
    """Say what a file or a folder holds.

    Takes milliseconds, and never more than some seconds and 200 MB, whatever the file claims.

    Raises:
        FileProblem: it is no checkpoint, or a damaged one; the message names what it is.
    """
    status = regular_file(path)
    with _without_collector():
        try:
            return _folder(path) if stat.S_ISDIR(status.st_mode) else _file(path)
        except OSError as error:
            raise FileProblem(
                f"{str(path)!r} cannot be read: {error.strerror or error}", hint="check the path and its permissions"
            ) from error


@contextmanager
def _without_collector() -> Iterator[None]:
    """Python's collector would look at a million new objects again and again, and find nothing to collect."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _folder(path: Path) -> Archive:
    if (path / ".metadata").is_file():
        return read_distributed(path)
    for name in WHOLE:
        if (path / name).is_file():
            return _file(path / name)
    indexes = [child for child in path.iterdir() if child.name.endswith(".index.json")]
    if len(indexes) == 1:
        return _file(indexes[0])
    raise folder_problem(path)


def _file(path: Path) -> Archive:
    with OnDisk(path) as file:
        head = file[0:HEAD]
        kind = kind_of(path, head, file.size)
        try:
            archive = read_index(path, file, _shard) if kind == "index" else READERS[kind](path, file)
        except Truncated as error:
            if _is_text(kind, head):
                raise by_text(path, head, file.size) from error
            detail = f": {error}" if str(error) else ""
            raise FileProblem(f"{str(path)!r} is truncated{detail}; {file.size:,} bytes are there ({kind})", hint=COMPLETE) from error
        except Damaged as error:
            if _is_text(kind, head):
                raise by_text(path, head, file.size) from error
            raise FileProblem(f"{str(path)!r} is damaged ({kind}): {error}", hint=COMPLETE) from error
    return replace(archive, oddities=(*odd_suffix(path, archive.kind), *archive.oddities))


def _is_text(kind: str, head: bytes) -> bool:
    """Whether what looked like a pickle of protocol 0 may as well be words, line by line."""
    return kind == "plain pickle" and head[:1] != b"\x80"


def _shard(path: Path) -> Archive:
    """Read one file of several."""
    regular_file(path)
    return _file(path)


def read_storage(archive: Archive, tensor: StoredTensor) -> memoryview:
    """Return the bytes of a tensor's storage, mapped from its file; offset, strides and byte order are the caller's business.

    Raises:
        FileProblem: the file does not hold them as plain bytes, or has changed.
    """
    shard = next((part for part in archive.shards if part.name == tensor.file), None)
    path = shard if shard is not None else archive.path
    if not tensor.storage_bytes and tensor.readable:
        return memoryview(b"")
    if tensor.place < 0:
        why = tensor.why or "its bytes are compressed, or lie in several files"
        raise FileProblem(f"the values of {tensor.name!r} cannot be read: {why}", hint="its shape and its type are known all the same")
    end = tensor.place + tensor.storage_bytes
    try:
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise FileProblem(f"{str(path)!r} cannot be read: {error}", hint="check the path and its permissions") from error
    if end > len(mapped):
        raise FileProblem(f"{str(path)!r} has become shorter while it was read", hint="wait until it is written, and look again")
    return memoryview(mapped)[tensor.place : end]
