"""Reading tensors out of a checkpoint's storages: bytes, shapes and strides, and never a pickle.

The reader has found where every storage begins and that the file really holds it as plain bytes; here these bytes are mapped into memory,
privately, and looked at as tensors. So the weights of a pickled module are as safe as those of safetensors, and as fast.
"""

from __future__ import annotations

import mmap
import sys
import zipfile
import zlib
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor

from netlens.errors import FileProblem
from netlens.loading.checkpoints.archive import Archive, StoredTensor
from netlens.loading.words import cause, one_line


class Storages:
    """The tensors of one checkpoint, as views into its mapped files; use it in a `with` block, and copy what shall outlive it."""

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        self._maps: dict[Path, mmap.mmap] = {}
        self._unpacked: dict[str, bytearray] = {}

    def __enter__(self) -> Storages:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._maps.clear()  # a map is closed when the last tensor that looks into it is gone
        self._unpacked.clear()

    def tensor(self, stored: StoredTensor) -> Tensor:
        """Return one tensor. It shares memory with the others of its storage, and changes of it never reach the file.

        Raises:
            FileProblem: the file does not hold it, or no longer.
        """
        dtype = self._dtype(stored)
        if 0 in stored.shape:
            return torch.empty(stored.shape, dtype=dtype)
        flat = self._storage(stored, dtype)
        try:
            return flat.as_strided(stored.shape, stored.stride, stored.offset)
        except RuntimeError as error:
            raise self._unreadable(stored, "it reaches beyond its storage") from error

    def forget(self) -> None:
        """Give back the memory of what has been read so far: it is read anew when it is looked at again."""
        for mapped in self._maps.values():
            if hasattr(mmap, "MADV_DONTNEED"):
                mapped.madvise(mmap.MADV_DONTNEED)

    def first_and_last(self, stored: StoredTensor) -> tuple[Tensor, Tensor]:
        """Read the first and the last element with the file's own `read`, for a check of what `tensor` gave.

        Args:
            stored: with elements, and with a place in the file.
        """
        dtype = self._dtype(stored)
        last = stored.offset + sum((size - 1) * step for size, step in zip(stored.shape, stored.stride, strict=True))
        found = []
        try:
            with self._file(stored).open("rb") as file:
                for index in (stored.offset, last):
                    file.seek(stored.place + index * dtype.itemsize)
                    found.append(self._numbers(bytearray(file.read(dtype.itemsize)), dtype, 1)[0])
        except (OSError, ValueError) as error:
            raise self._unreadable(stored, cause(error)) from error
        return found[0], found[1]

    def _storage(self, stored: StoredTensor, dtype: torch.dtype) -> Tensor:
        count = stored.storage_bytes // dtype.itemsize
        if stored.place < 0:
            return self._numbers(self._inflated(stored), dtype, count)
        content = self._map(stored)
        if stored.place + stored.storage_bytes > len(content) or not count:
            raise self._unreadable(stored, "the file ends before it does")
        if stored.place % dtype.itemsize or self._foreign_order:  # torch wants elements aligned, and in this machine's order
            return self._numbers(bytearray(content[stored.place : stored.place + stored.storage_bytes]), dtype, count)
        return torch.frombuffer(content, dtype=dtype, count=count, offset=stored.place)

    @property
    def _foreign_order(self) -> bool:
        return self.archive.byteorder != sys.byteorder

    def _numbers(self, content: bytearray, dtype: torch.dtype, count: int) -> Tensor:
        """Read bytes of our own as numbers, turned round where the file was written on the other kind of machine."""
        if not self._foreign_order:
            return torch.frombuffer(content, dtype=dtype, count=count)
        width = dtype.itemsize // 2 if dtype.is_complex else dtype.itemsize
        turned = torch.frombuffer(content, dtype=torch.uint8, count=count * dtype.itemsize).view(-1, width).flip(1)
        return turned.reshape(-1).view(dtype)

    def _inflated(self, stored: StoredTensor) -> bytearray:
        """Unpack a storage that somebody compressed when he packed the archive anew."""
        if stored.storage not in self._unpacked:
            try:
                with zipfile.ZipFile(self._file(stored)) as archive:
                    (member,) = (entry for entry in archive.infolist() if entry.filename.endswith(f"/data/{stored.storage}"))
                    if member.file_size != stored.storage_bytes:
                        raise self._unreadable(stored, "its storage has another size in the file")
                    self._unpacked[stored.storage] = bytearray(archive.read(member))
            except (OSError, ValueError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
                raise self._unreadable(stored, "its bytes are not in the file as they are") from error
        return self._unpacked[stored.storage]

    def _file(self, stored: StoredTensor) -> Path:
        if not stored.file:
            return self.archive.path
        folder = self.archive.path if self.archive.path.is_dir() else self.archive.path.parent
        return next((shard for shard in self.archive.shards if shard.name == stored.file), folder / stored.file)

    def _map(self, stored: StoredTensor) -> mmap.mmap:
        path = self._file(stored)
        if path not in self._maps:
            try:
                with path.open("rb") as file:
                    self._maps[path] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            except (OSError, ValueError) as error:
                raise FileProblem(f"{one_line(path)} cannot be read: {cause(error)}", hint="check the file and its permissions") from error
        return self._maps[path]

    def _dtype(self, stored: StoredTensor) -> torch.dtype:
        dtype = getattr(torch, stored.dtype, None)
        if not stored.readable:
            raise self._unreadable(stored, stored.why)
        if not isinstance(dtype, torch.dtype):
            raise self._unreadable(stored, f"this torch, {torch.__version__}, has no type {stored.dtype}")
        return dtype

    def _unreadable(self, stored: StoredTensor, why: str) -> FileProblem:
        return FileProblem(
            f"{one_line(stored.name)!r} in {one_line(self.archive.path)} cannot be read: {one_line(why)}",
            hint="get the file again, or leave this tensor out of it",
        )
