"""Inputs that somebody saved: tensors out of .pt, .npy, .npz and .safetensors files, read without running anything of them."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from netlens.errors import FileProblem
from netlens.loading.checkpoints.archive import KINDS
from netlens.loading.checkpoints.read import read_archive
from netlens.loading.checkpoints.storages import Storages
from netlens.loading.words import cause, one_line

if TYPE_CHECKING:
    import numpy as np

MAGIC = (b"\x93NUMPY", b"PK")  # .npy, and .npz, which is a zip archive
PROGRAMS = ("torchscript", "exported program")
SAVE = "save it with torch.save(tensor, 'x.pt') or numpy.save('x.npy', array)"


def read_tensors(path: Path) -> Tensor | tuple[Tensor, ...] | dict[str, Tensor]:
    """Read one tensor, or a tuple, or a dict of them, as it was saved; on the CPU, and no longer tied to the file.

    In a nested value names are joined with dots; what is not a tensor is left out.

    Raises:
        FileProblem: there is no such file, it holds no tensor or a whole model, or it is damaged.
    """
    if path.suffix.lower() in (".npy", ".npz"):
        return _of_numpy(path)
    archive = read_archive(path)
    name = one_line(path)
    if archive.model_class or archive.kind in PROGRAMS:
        raise FileProblem(f"{name} is {KINDS[archive.kind]}, not a saved tensor", hint=SAVE)
    listed = {".".join(filter(None, (group.key, stored.name))): stored for group in archive.groups for stored in group.tensors}
    try:
        with Storages(archive) as storages:
            found = {name: storages.tensor(stored).clone() for name, stored in listed.items()}
    except RuntimeError as error:  # a few bytes, expanded to more than there is
        raise FileProblem(f"{name} does not fit into memory", hint="save a smaller input") from error
    if not found:
        raise FileProblem(f"{name} holds no tensor", hint=SAVE)
    if "" in found:
        return found[""]
    return tuple(found.values()) if list(found) == [str(index) for index in range(len(found))] else found


def _of_numpy(path: Path) -> Tensor | dict[str, Tensor]:
    import numpy as np

    try:
        with path.open("rb") as file:
            if not file.read(len(MAGIC[0])).startswith(MAGIC):
                raise FileProblem(f"{one_line(path)} is not a file of numpy", hint=SAVE)
        found: Any = np.load(path, allow_pickle=False)
        if isinstance(found, np.ndarray):
            return _tensor(found, path, "")
        with found:
            return {name: _tensor(found[name], path, name) for name in found.files}
    except OSError as error:
        what = error.strerror or str(error)
        raise FileProblem(f"{one_line(path)} cannot be read: {one_line(what)}", hint="check the path and its permissions") from error
    except MemoryError as error:
        raise FileProblem(f"{one_line(path)} does not fit into memory, or is damaged", hint="save a smaller input") from error
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        objects = "Object arrays" in str(error)
        what = "holds Python objects, which could run code when they are read" if objects else f"is damaged or truncated: {cause(error)}"
        raise FileProblem(f"{one_line(path)} {what}", hint=SAVE) from error


def _tensor(array: np.ndarray[Any, Any] | bytes, path: Path, name: str) -> Tensor:
    if isinstance(array, bytes):
        raise ValueError(f"{name!r} in it is no array")
    native = array.astype(array.dtype.newbyteorder("="))  # always a copy: torch shares memory, and wants positive strides
    try:
        return torch.from_numpy(native)
    except TypeError as error:
        where = f"{one_line(name)!r} in {one_line(path)}" if name else one_line(path)
        raise FileProblem(f"{where} is of the type {array.dtype}, which torch does not have", hint="save it as float32 or int64") from error
