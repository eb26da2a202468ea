"""Reading tensors out of a folder that torch.distributed.checkpoint wrote, in one process and without a process group."""

from __future__ import annotations

import inspect
import logging
import warnings
from typing import Any

import torch
from torch import Tensor

from netlens.errors import FileProblem, UsageError
from netlens.loading.checkpoints.archive import Archive
from netlens.loading.checkpoints.fit import Fit
from netlens.loading.words import cause, listed, one_line


def distributed_tensors(archive: Archive, found: Fit, *, trust: bool = False) -> dict[str, Tensor]:
    """Read the tensors that fit, whole, by their names in the model.

    torch reads the folder's `.metadata` with a bare `pickle.load`, so first the reader must have found nothing in it but torch's own
    classes. Tensors are then read with `weights_only=True`; entries that are no tensors, which torch unpickles, are never asked for.

    Raises:
        UsageError: the metadata names other classes, and there is no `trust`. FileProblem: torch cannot read it.
    """
    foreign = [entry.name for entry in archive.foreign if entry.verdict != "known"]
    if (foreign or archive.runs_code) and not trust:
        raise UsageError(
            f"{one_line(archive.path.name)} cannot be read without running code: {listed(foreign) or one_line(archive.runs_code)}",
            hint="where you trust whoever made it: --trust-checkpoint",
        )
    state = {full: _empty(pair.tensor.shape, pair.tensor.dtype) for pair in found.pairs for full in (_full(found.key, pair.tensor.name),)}
    _load(archive, state)
    return {pair.name: state[_full(found.key, pair.tensor.name)] for pair in found.pairs}


def _full(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


def _empty(shape: tuple[int, ...], dtype: str) -> Tensor:
    return torch.empty(shape, dtype=getattr(torch, dtype))


def _load(archive: Archive, state: dict[str, Tensor]) -> None:
    from torch.distributed.checkpoint.filesystem import FileSystemReader
    from torch.distributed.checkpoint.state_dict_loader import load

    options: dict[str, Any] = {"no_dist": True} if "no_dist" in inspect.signature(load).parameters else {}
    log = logging.getLogger("torch.distributed")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            load(state, storage_reader=FileSystemReader(str(archive.path)), **options)
    except Exception as error:
        hint = "get the folder again, whole: every .distcp file and .metadata"
        raise FileProblem(f"{one_line(archive.path.name)} cannot be read: {cause(error)}", hint=hint) from error
    finally:
        log.setLevel(level)
