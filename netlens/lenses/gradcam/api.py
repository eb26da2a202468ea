"""`netlens.gradcam`: maps of a module and tensors that somebody holds in his hands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from netlens.errors import UsageError
from netlens.lenses.gradcam.choices import METHODS, Method
from netlens.lenses.gradcam.explorer import Explorer
from netlens.lenses.gradcam.report import GradcamReport, Run
from netlens.lenses.gradcam.settings import Settings
from netlens.loading.class_names import ClassNames, class_names
from netlens.loading.feeding import Batch
from netlens.loading.placing import dtype_of
from netlens.loading.suggest import check_choice
from netlens.probing.leaves import leaves
from netlens.probing.modes import in_eval_mode
from netlens.probing.replacing import inner
from netlens.probing.untouched import untouched


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
    layer: str | Sequence[str] | None = None,
    names: Sequence[str] | None = None,
    output: str | None = None,
) -> Gradcam:
    """Make maps of every sample in `x`, in eval mode and on the model's own device; the model leaves as it came.

    Args as for `netlens.gradcam`.
    """
    methods = tuple(_method(name) for name in ([method] if isinstance(method, str) else method))
    targets = [] if target is None else [target] if isinstance(target, (int, str)) else target
    settings = Settings(
        methods,
        targets=tuple(map(str, targets)),
        key=output,
        layers=(layer,) if isinstance(layer, str) else tuple(layer or ()),
    )
    args, named = (tuple(x) if isinstance(x, (tuple, list)) else (x,)), dict(kwargs or {})
    if not leaves((args, named)):
        raise UsageError("there is no tensor to look at", hint="give the model's input, such as a batch of pictures (N, C, H, W)")
    given = None if names is None else ClassNames(tuple(map(str, names)), "names")
    with untouched(model), in_eval_mode(model):
        explorer = Explorer(inner(model), settings, lambda classes: class_names(classes, given=given, model=model), ExitStack)
        explorer.add(Batch(args, named), (args, named), None)
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


def _method(name: str) -> Method:
    check_choice("method", name, tuple(METHODS))
    return METHODS[name]
