"""Running what was asked of Datasets and DataLoaders; naming one runs the user's code."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING, Any

from torch.utils.data import DataLoader

from netlens.lenses.check_data.found import Found
from netlens.lenses.check_data.loaders import Eats, check_loaders
from netlens.loading.datasets import called
from netlens.loading.from_python import import_attribute
from netlens.loading.words import one_line

if TYPE_CHECKING:
    from netlens.lenses.check_data.request import Request
    from netlens.loading.download import Progress


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
    named = [(name, called(import_attribute(door.spec), one_line(door.text))) for name, door in request.sets if door.spec is not None]
    return check_loaders(
        named,
        title=one_line(request.title),
        classes=request.classes,
        samples=asked.get("samples"),
        target_rate=asked.get("target_rate"),
        eats=None if request.model is None else _eats(request, progress),
        step=step,
    )


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
