"""`netlens.featuremaps`: statistics of the activations of a module that somebody holds in his hands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from netlens.errors import NetlensError
from netlens.lenses.featuremaps.attention import AttentionRecorder
from netlens.lenses.featuremaps.measure import Arguments, Measured, Unmeasured, measure
from netlens.lenses.featuremaps.report import FeaturemapsReport, Run
from netlens.lenses.featuremaps.rules import too_few
from netlens.loading.feeding import RANDOM_SAMPLES, Batch, Samples, first, of_nothing
from netlens.loading.named import NamedModel
from netlens.loading.placing import dtype_of, place_inputs
from netlens.loading.select import select
from netlens.loading.shortage import out_of_memory
from netlens.loading.subject import from_instance
from netlens.probing.failing import failed_forward
from netlens.probing.leaves import leaves
from netlens.probing.untouched import untouched


def featuremaps(
    model: nn.Module,
    x: Any = None,
    *,
    kwargs: Mapping[str, Any] | None = None,
    input_size: Any = None,
    layer: str | Sequence[str] | None = None,
    attention: bool = False,
) -> FeaturemapsReport:
    """Run `model` once, in eval mode and on its own device, and measure every layer; the model leaves as it came.

    Args:
        model: any module.
        x: a tensor, a tuple of positional arguments, or a dict of named ones.
        kwargs: named arguments beside `x`.
        input_size: instead of `x`, the shape of random numbers; with neither, the first layer tells.
        layer: only these: names, globs, types ("Conv2d"), indices or ranges of them ("0:3").
        attention: also look at every attention layer.

    Raises:
        InputError, ForwardFailed, LayerNotFound: the input does not describe what the model takes, its forward raises, no such layer.
    """
    tensors = (*model.parameters(), *model.buffers(), *(tensor for _, tensor in leaves((x, kwargs))))
    device = tensors[0].device if tensors else torch.device("cpu")
    recorder = AttentionRecorder() if attention else None
    with untouched(model):
        samples = _samples(model, x, kwargs, input_size, device)
        batch = first(samples)
        arguments = place_inputs(batch.args, batch.kwargs, device, dtype=dtype_of(model) if samples.random else None)
        measured = _measured(model, arguments, [layer] if isinstance(layer, str) else list(layer or ()), recorder)
    dtype = dtype_of(model)
    report = FeaturemapsReport(
        model=type(model).__name__,
        source="the values of the model",
        initialised=None,
        inputs=samples.name,
        run=Run(
            device=str(device),
            dtype="" if dtype is None else str(dtype).removeprefix("torch."),
            autocast=None,
            channels_last=False,
            samples=measured.samples,
            random_inputs=samples.random,
            input_rms=measured.input_rms,
            batch_statistics=measured.batch_statistics,
            preprocessing="",
            peak_bytes=None,
        ),
        layers=measured.layers,
        attention=recorder.layers() if recorder else (),
        output=measured.output,
        first_nonfinite=measured.first_nonfinite,
        notes=(*samples.notes(), *measured.notes),
    )
    return replace(report, notes=(*report.notes, *too_few(report)))


def _samples(model: nn.Module, x: Any, kwargs: Mapping[str, Any] | None, input_size: Any, device: torch.device) -> Samples:
    given = x is not None or bool(kwargs)
    if not given and input_size is None:
        name = type(model).__name__
        return of_nothing(NamedModel(name, "python", "", name, lambda: model, is_instance=True), model, RANDOM_SAMPLES)
    inputs = from_instance(model, x, kwargs, input_size).inputs(model)[0]
    args, named_args, notes = inputs.make(model, device)
    batch = Batch(args, named_args)
    name = inputs.source if given else f"random numbers of shape {input_size}"
    return Samples(name, lambda: iter((batch,)), batch.size, random=not given, notes=lambda: notes)


def _measured(model: nn.Module, arguments: Arguments, patterns: Sequence[str], recorder: AttentionRecorder | None) -> Measured:
    def chosen(names: Sequence[str], types: Sequence[str]) -> list[int]:
        return select(patterns, names, types)

    try:
        return measure(model, lambda: iter((arguments,)), select=chosen if patterns else None, attention=recorder)
    except Exception as error:
        if isinstance(error, (NetlensError, Unmeasured)) or out_of_memory(error):
            raise
        raise failed_forward(model, *arguments, error) from error
