"""Running what was asked: the model with its values, on its device, on its samples; then the report, and what is to be drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from torch import nn

from netlens.errors import NetlensError
from netlens.lenses.featuremaps.album import Shown
from netlens.lenses.featuremaps.attention import AttentionRecorder
from netlens.lenses.featuremaps.measure import Arguments, Maps, Measured, Unmeasured, measure
from netlens.lenses.featuremaps.report import FeaturemapsReport, Run
from netlens.lenses.featuremaps.rules import too_few
from netlens.loading.device import Device, choose_device
from netlens.loading.feeding import Batch, Samples
from netlens.loading.memory import watch_peak
from netlens.loading.placing import autocasting, dtype_of, place_inputs, placed
from netlens.loading.preprocessing import Preprocessing
from netlens.loading.sampling import samples_of, seen
from netlens.loading.select import select
from netlens.loading.shortage import halving, levers, out_of_memory, out_of_memory_told
from netlens.loading.valued import Valued, valued
from netlens.probing.failing import failed_forward

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
    asked, running, pictures = request.samples, request.running, bool(request.samples.images)
    device = choose_device(running.device)
    if device.torch_device.type != "cpu":
        say(device.header)
    found = valued(request.model, seed=running.seed, progress=progress)
    options = levers(device.torch_device, batch_size=asked.batch_size, dtype=running.dtype, pictures=pictures)
    with (
        out_of_memory_told(device.torch_device, options),
        placed(found.model, device.torch_device, dtype=running.dtype, channels_last=running.channels_last) as model,
    ):
        peak = watch_peak(device.torch_device)

        def run(batch_size: int) -> Ran:
            samples = samples_of(replace(asked, batch_size=batch_size), request.model, found)
            attention = AttentionRecorder(request.query, SHOWN if request.pictures else 0) if request.attention else None
            measured, shown = _measured(request, model, samples, device, attention, step)
            report = _report(request, found, samples, measured, device, peak().allocated)
            if attention is not None:
                layers = attention.layers()
                report = replace(report, attention=layers, notes=report.notes if layers else (*report.notes, NO_ATTENTION))
            return Ran(report, measured.maps, shown, attention)

        if not running.auto_batch:
            return run(asked.batch_size)
        done, fitted = halving(run, asked.batch_size)
    return done if fitted == asked.batch_size else _smaller(done, fitted, asked.batch_size)


def _smaller(done: Ran, fitted: int, asked: int) -> Ran:
    note = f"{asked} samples in one pass did not fit into memory: run with --batch-size {fitted}"
    return replace(done, report=replace(done.report, notes=(*done.report.notes, note)))


def _measured(
    request: Request,
    model: nn.Module,
    samples: Samples,
    device: Device,
    attention: AttentionRecorder | None,
    step: Callable[[], object],
) -> tuple[Measured, Shown]:
    running, dtype = request.running, request.running.dtype or dtype_of(model)
    shown: list[Shown] = []
    current: list[Arguments] = [((), {})]

    def batches() -> Iterator[Arguments]:
        for batch in samples.batches():
            if not shown:
                shown.append(_shown(batch, samples.preprocessing))
            current[0] = place_inputs(batch.args, batch.kwargs, device.torch_device, dtype=dtype, channels_last=running.channels_last)
            yield current[0]

    def chosen(names: Any, types: Any) -> list[int]:
        return select(request.layers, names, types)

    def around() -> Any:
        return autocasting(device.torch_device, running.autocast)

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
    report = FeaturemapsReport(
        model=type(found.model).__name__,
        source=found.source,
        initialised=found.initialised,
        inputs=samples.name,
        run=Run(
            device=device.name,
            dtype=str(dtype).removeprefix("torch.") if dtype is not None else "",
            autocast=request.running.autocast,
            channels_last=request.running.channels_last,
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
    return replace(report, notes=(*report.notes, *too_few(report)))


def _shown(batch: Batch, preprocessing: Preprocessing | None) -> Shown:
    """Return the samples that are drawn."""
    names = tuple(path.name for path in batch.paths[:SHOWN]) or tuple(map(str, range(min(batch.size, SHOWN))))
    inputs = seen(batch, preprocessing, SHOWN)
    return Shown(inputs, names, batch.paths[:SHOWN], batch.geometries[:SHOWN]) if inputs else Shown(names=names)
