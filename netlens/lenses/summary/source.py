"""The model of a request: named, or a program out of a file; with a checkpoint, how that fits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from netlens.lenses.summary.request import Request
    from netlens.loading.named import NamedModel

HIDDEN = "TorchScript runs its layers out of sight: shapes and counts are those of the whole program, booked on it"


@dataclass(frozen=True)
class Found:
    """A model, and what to say about where it came from."""

    named: NamedModel
    notes: tuple[str, ...] = ()
    hides_layers: bool = False  # it has layers that nobody sees running


def find(request: Request) -> Found:
    """Find the model, and hold the checkpoint against it. Its values change nothing in a summary, so they are not read.

    Raises:
        NetlensError: there is no such model, or the checkpoint does not fit it.
    """
    from netlens.loading.models import find_model

    if request.program is not None:
        from netlens.loading.checkpoints.trusted import program_as_model

        scripted = request.program.kind == "torchscript"
        return Found(program_as_model(request.program, True, request.model.text), (HIDDEN,) * scripted, scripted)

    def again(model_args: Mapping[str, object]) -> NamedModel:
        return find_model(request.model, model_args, request.weights)

    named, ask = again(request.model_args), request.checkpoint
    if ask is None:
        return Found(named)
    from netlens.loading.checkpoints.causes import checked_fit
    from netlens.loading.checkpoints.misfit import left_as_built

    fit = checked_fit(named, ask.archive, again, key=ask.key, strip_prefix=ask.strip_prefix, strict=ask.strict)
    return Found(named, (f"{ask.archive.path.name}: {fit.coverage()}", *left_as_built(fit), *fit.notes))
