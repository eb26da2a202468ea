"""Running what was asked of Datasets and DataLoaders; naming one runs the user's code."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch.utils.data import DataLoader

from netlens.errors import InputError
from netlens.lenses.check_data.found import Found
from netlens.lenses.check_data.loaders import Eats, check_loaders
from netlens.loading.datasets import called
from netlens.loading.from_python import import_attribute
from netlens.loading.words import one_line

if TYPE_CHECKING:
    from netlens.lenses.check_data.request import Request
    from netlens.loading.download import Progress
    from netlens.loading.specs import ModelSpec


def checked_loaders(request: Request, progress: Progress, step: Callable[[], object]) -> Found:
    """Answer a request about loaders, except for its pictures.

    Args:
        request: what is asked.
        progress: of a download of a model's weights.
        step: called after each sample and each batch.

    Raises:
        NetlensError: there is no such name, it is no data, or the user's code raises.
    """
    asked = request.asked
    with _here():
        named = [(name, _made(door.spec, one_line(door.text))) for name, door in request.sets if door.spec is not None]
        return check_loaders(
            named,
            title=one_line(request.title),
            classes=request.classes,
            samples=asked.get("samples"),
            target_rate=asked.get("target_rate"),
            eats=None if request.model is None else _eats(request, progress),
            step=step,
        )


@contextmanager
def _here() -> Iterator[None]:
    """Come back to this folder, whatever the user's code does: pictures are written where the user is."""
    before = Path.cwd()
    try:
        yield
    finally:
        os.chdir(before)


def _made(spec: ModelSpec, name: str) -> Any:
    try:
        return called(import_attribute(spec), name)
    except SystemExit as ended:
        raise InputError(f"{name}() ended with sys.exit({ended.code!r})", hint="let it return a Dataset or a DataLoader") from ended


def _eats(request: Request, progress: Progress) -> Eats:
    """Return how to ask the model that was named what it eats."""
    from netlens.loaders.appetite import appetite
    from netlens.loading.device import choose_device
    from netlens.loading.valued import valued

    assert request.model is not None
    asked, device = request.model, choose_device(request.asked.get("device") or "auto")

    def eats(loader: DataLoader[Any]) -> tuple[float, str]:
        model = valued(asked, seed=int(request.asked.get("seed") or 0), progress=progress).model
        batch = next(islice(loader, 1), None)
        rate = appetite(model, batch, device.torch_device)
        return rate, f"{asked.spec.text}, a training step on {device.name}"

    return eats
