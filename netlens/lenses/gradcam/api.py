"""`netlens.gradcam`: maps of a module and tensors that somebody holds in his hands."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from netlens.errors import UsageError
from netlens.lenses.gradcam.choices import METHODS, USUAL, Method
from netlens.lenses.gradcam.explorer import Explorer
from netlens.lenses.gradcam.report import GradcamReport, Run
from netlens.lenses.gradcam.settings import Settings
from netlens.lenses.gradcam.targets import embeddings
from netlens.loading.class_names import ClassNames, class_names
from netlens.loading.feeding import Batch
from netlens.loading.placing import dtype_of
from netlens.loading.suggest import check_choice
from netlens.probing.differentiable import differentiable
from netlens.probing.leaves import leaves
from netlens.probing.modes import in_eval_mode
from netlens.probing.replacing import inner
from netlens.probing.untouched import untouched
from netlens.wording import counted


@dataclass(frozen=True, slots=True, eq=False)
class Gradcam:
    """What `netlens.gradcam` returns."""

    report: GradcamReport
    maps: tuple[Tensor, ...]  # one for each of `report.maps`: the numbers of the paper on the layer's grid, float32, on the CPU


def gradcam(
    model: nn.Module,
    x: Any,
    *,
    kwargs: Mapping[str, Any] | None = None,
    target: int | str | Sequence[int | str] | None = None,
    method: str | Sequence[str] = "gradcam",
    layer: int | str | Sequence[int | str] | None = None,
    names: Sequence[str] | None = None,
    output: str | None = None,
    point: tuple[float, float] | None = None,
    against: Tensor | None = None,
) -> Gradcam:
    """Make maps of every sample in `x`, in eval mode and on the model's own device; the model leaves as it came.

    Args as for `netlens.gradcam`.
    """
    asked = _several(method) or [USUAL]
    settings = Settings(
        _methods(asked),
        skip="all" in asked,
        targets=tuple(_several(target)),
        point=point,
        key=output,
        layers=tuple(_several(layer)),
    )
    args, named = (tuple(x) if isinstance(x, (tuple, list)) else (x,)), dict(kwargs or {})
    batch = Batch(args, named)
    if not leaves((args, named)) or not batch.size:
        raise UsageError("there is no sample to look at", hint="give the model's input, such as a tensor of pictures (N, C, H, W)")
    given = None if names is None else ClassNames(tuple(map(str, names)), "names")
    with untouched(model), in_eval_mode(model):
        settings = replace(settings, reference=_vector(inner(model), against, output)).told_by(inner(model))
        explorer = Explorer(inner(model), settings, lambda classes: class_names(classes, given=given, model=model), ExitStack)
        explorer.add(batch, (args, named), None)
        explorer.finish(None)
    device = next((tensor.device for tensor in (*model.parameters(), *model.buffers())), torch.device("cpu"))
    run = Run(
        device=str(device),
        dtype=str(dtype_of(model) or "").removeprefix("torch."),
        autocast=None,
        channels_last=False,
        preprocessing="",
        output=explorer.output,
        random_inputs=False,
        peak_bytes=None,
    )
    report = GradcamReport(
        model=type(inner(model)).__name__,
        source="the values of the model",
        initialised=None,
        inputs="tensors",
        run=run,
        layers=explorer.layers,
        shots=tuple(explorer.shots),
        maps=tuple(explorer.maps),
        notes=explorer.notes,
    )
    return Gradcam(report, tuple(torch.from_numpy(values) for values in explorer.values.values()))


def _several(asked: Any) -> list[str]:
    """Return one or several names or numbers, also of NumPy and torch, as the command line has them."""
    one = isinstance(asked, str) or not isinstance(asked, Iterable) or getattr(asked, "ndim", 1) == 0
    every: Iterable[Any] = [] if asked is None else [asked] if one else asked
    return [each if isinstance(each, str) else str(int(each)) for each in every]


def _vector(model: nn.Module, picture: Tensor | None, key: str | None) -> Tensor | None:
    """Return what the model makes of the picture that the others are compared with."""
    if picture is None:
        return None
    with differentiable(model, (picture,), {}) as (args, kwargs), torch.no_grad():
        found = embeddings(model(*args, **kwargs), key=key)
    if len(found) != 1:
        raise UsageError(f"`against` holds {counted(len(found), 'sample')}", hint="give one, (1, C, H, W): all others are compared with it")
    return found


def _methods(names: Sequence[str]) -> tuple[Method, ...]:
    if "all" in names:
        return tuple(METHODS.values())
    for name in names:
        check_choice("method", name, (*METHODS, "all"))
    return tuple(METHODS[name] for name in dict.fromkeys(names))
