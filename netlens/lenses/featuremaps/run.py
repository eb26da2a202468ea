"""Running what was asked: the model with its values, on its device, on its samples; then the report, and what is to be drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from netlens.errors import InputError, NetlensError
from netlens.lenses.featuremaps.album import Shown
from netlens.lenses.featuremaps.attention import AttentionRecorder
from netlens.lenses.featuremaps.measure import Arguments, Maps, Measured, Unmeasured, measure
from netlens.lenses.featuremaps.report import FeaturemapsReport, Run
from netlens.loading import feeding
from netlens.loading.device import Device, choose_device
from netlens.loading.feeding import Batch, Samples
from netlens.loading.memory import watch_peak
from netlens.loading.placing import autocasting, dtype_of, place_inputs, placed
from netlens.loading.preprocessing import MODES, Preprocessing
from netlens.loading.preprocessing_sources import choose_preprocessing
from netlens.loading.select import select
from netlens.loading.shortage import halving, levers, out_of_memory, out_of_memory_told
from netlens.loading.valued import Valued, valued
from netlens.probing.failing import failed_forward
from netlens.probing.leaves import leaves

if TYPE_CHECKING:
    from netlens.lenses.featuremaps.request import Request
    from netlens.loading.download import Progress

NO_ATTENTION = "no layer computes attention as a softmax over keys: there are no maps of it to show"
SHOWN = 4  # samples that are drawn, side by side


@dataclass(frozen=True)
class Ran:
    """What was learned, and what is to be drawn."""

    report: FeaturemapsReport
    maps: dict[str, Maps]
    shown: Shown
    attention: AttentionRecorder | None


def ran(request: Request, progress: Progress, say: Callable[[str], None], step: Callable[[], object]) -> Ran:
    """Answer a request, except for its pictures.

    Args:
        request: what is asked.
        progress: of a download.
        say: tells the user about the device, before anything is loaded.
        step: called after each batch.

    Raises:
        NetlensError: there is no such device, model or sample, the model raises, or memory runs out.
    """
    device = choose_device(request.device)
    if device.torch_device.type != "cpu":
        say(device.header)
    found = valued(request.model, seed=request.seed, progress=progress)
    options = levers(device.torch_device, batch_size=request.batch_size, dtype=request.dtype, pictures=bool(request.images))
    with (
        out_of_memory_told(device.torch_device, options),
        placed(found.model, device.torch_device, dtype=request.dtype, channels_last=request.channels_last) as model,
    ):
        peak = watch_peak(device.torch_device)

        def run(batch_size: int) -> Ran:
            samples = _samples(replace(request, batch_size=batch_size), found)
            attention = AttentionRecorder(request.query, SHOWN if request.pictures else 0) if request.attention else None
            measured, shown = _measured(request, model, samples, device, attention, step)
            report = _report(request, found, samples, measured, device, peak().allocated)
            if attention is not None:
                layers = attention.layers()
                report = replace(report, attention=layers, notes=report.notes if layers else (*report.notes, NO_ATTENTION))
            return Ran(report, measured.maps, shown, attention)

        if not request.auto_batch:
            return run(request.batch_size)
        done, fitted = halving(run, request.batch_size)
    return done if fitted == request.batch_size else _smaller(done, fitted, request.batch_size)


def _smaller(done: Ran, fitted: int, asked: int) -> Ran:
    note = f"{asked} samples in one pass did not fit into memory: run with --batch-size {fitted}"
    return replace(done, report=replace(done.report, notes=(*done.report.notes, note)))


def _samples(request: Request, found: Valued) -> Samples:
    def preprocessing() -> Preprocessing:
        archive = request.model.checkpoint.archive if request.model.checkpoint else None
        return choose_preprocessing(found.named, found.model, archive=archive, size=request.size, mean=request.mean, std=request.std)

    if request.images:
        return feeding.of_pictures(request.images, preprocessing(), request.batch_size)
    if request.data is not None:
        return feeding.of_data(request.data, found.model, _preprocessing_or_none(preprocessing), request.batch_size, request.samples)
    if request.inputs:
        return feeding.of_inputs(request.inputs, found.model, request.batch_size)
    return feeding.of_nothing(found.named, found.model, request.batch_size)


def _preprocessing_or_none(preprocessing: Callable[[], Preprocessing]) -> Preprocessing | None:
    try:
        return preprocessing()
    except InputError:  # the model takes no pictures
        return None


def _measured(
    request: Request,
    model: nn.Module,
    samples: Samples,
    device: Device,
    attention: AttentionRecorder | None,
    step: Callable[[], object],
) -> tuple[Measured, Shown]:
    shown: list[Shown] = []
    current: list[Arguments] = [((), {})]

    def batches() -> Iterator[Arguments]:
        for batch in samples.batches():
            if not shown:
                shown.append(_shown(batch, samples.preprocessing))
            current[0] = place_inputs(
                batch.args, batch.kwargs, device.torch_device, dtype=request.dtype or dtype_of(model), channels_last=request.channels_last
            )
            yield current[0]

    def chosen(names: Any, types: Any) -> list[int]:
        return select(request.layers, names, types)

    def around() -> Any:
        return autocasting(device.torch_device, request.autocast)

    try:
        measured = measure(
            model,
            batches,
            select=chosen if request.layers else None,
            keep=SHOWN if request.pictures else 0,
            around=around,
            attention=attention,
            step=step,
        )
    except Exception as error:
        if not is_of_the_model(error):
            raise
        raise failed_forward(model, *current[0], error, around) from error
    return measured, shown[0] if shown else Shown()


def is_of_the_model(error: Exception) -> bool:
    """Tell what the model's forward raised from what netlens or a data set says, and from a lack of memory."""
    return not isinstance(error, (NetlensError, Unmeasured)) and not out_of_memory(error)


def _report(request: Request, found: Valued, samples: Samples, measured: Measured, device: Device, peak: int | None) -> FeaturemapsReport:
    dtype = dtype_of(found.model)
    return FeaturemapsReport(
        model=type(found.model).__name__,
        source=found.source,
        initialised=found.initialised,
        inputs=samples.name,
        run=Run(
            device=device.name,
            dtype=str(dtype).removeprefix("torch.") if dtype is not None else "",
            autocast=request.autocast,
            channels_last=request.channels_last,
            samples=measured.samples,
            random_inputs=samples.random,
            input_rms=measured.input_rms,
            batch_statistics=measured.batch_statistics,
            preprocessing="" if (how := samples.preprocessing) is None else f"{how.source}: {how}",
            peak_bytes=peak,
        ),
        layers=measured.layers,
        attention=(),
        output=measured.output,
        first_nonfinite=measured.first_nonfinite,
        notes=(*found.notes, *samples.notes(), *measured.notes),
    )


def _shown(batch: Batch, preprocessing: Preprocessing | None) -> Shown:
    """Return what the network saw of the samples that are drawn, as pictures where it is some."""
    names = tuple(path.name for path in batch.paths[:SHOWN]) or tuple(map(str, range(min(batch.size, SHOWN))))
    first = next((tensor for _, tensor in leaves((batch.args, batch.kwargs))), None)
    if first is None or first.dim() != 4 or first.shape[1] not in MODES or not first.is_floating_point():
        return Shown(names=names)
    return Shown(_pictures(first[:SHOWN].float(), preprocessing), names, batch.paths[:SHOWN], batch.geometries[:SHOWN])


def _pictures(values: Tensor, preprocessing: Preprocessing | None) -> tuple[np.ndarray, ...]:
    """Turn inputs, (N, C, H, W), into pictures, (H, W, 3) uint8: back through the preprocessing, else from the least to the greatest."""
    if preprocessing is not None:
        mean, std = (torch.tensor(each)[:, None, None] for each in (preprocessing.mean, preprocessing.std))
        values = values * std + mean
    else:
        finite = values[values.isfinite()]
        least, greatest = finite.aminmax() if len(finite) else (values.new_zeros(()), values.new_ones(()))
        values = (values - least) / (greatest - least).clamp_min(torch.finfo(values.dtype).tiny)
    colours = values[:, :3] if values.shape[1] > 1 else values.expand(-1, 3, -1, -1)
    pixels = colours.nan_to_num(0, 1, 0).clamp(0, 1).mul(255).round().byte().permute(0, 2, 3, 1)
    return tuple(pixels.numpy())
