"""Running what was asked: the model with its values, on its device, on its data; then the report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netlens.lenses.gradflow.backward import Batch
from netlens.lenses.gradflow.distributed import Processes, own_device, processes
from netlens.lenses.gradflow.report import GradflowReport
from netlens.lenses.gradflow.session import Known, Session
from netlens.lenses.gradflow.steps import MakesAModel, step_of, stepped
from netlens.lenses.gradflow.training import SAMPLES
from netlens.loading.datasets import parse_data
from netlens.loading.device import Device, choose_device
from netlens.loading.from_python import import_named
from netlens.loading.labelled import Batches, labelled_batches
from netlens.loading.memory import watch_peak
from netlens.loading.placing import dtype_of, place_inputs, placed
from netlens.loading.shortage import levers, out_of_memory_told
from netlens.loading.valued import Valued, valued
from netlens.probing.leaves import map_tensors
from netlens.probing.replacing import inner
from netlens.wording import listed

if TYPE_CHECKING:
    from netlens.lenses.gradflow.request import Request
    from netlens.loading.asked_run import AskedSamples
    from netlens.loading.download import Progress


def ran(request: Request, progress: Progress, say: Callable[[str], None], step: Callable[[], object]) -> GradflowReport | None:
    """Answer a request, except for its pictures; None: another process of this run reports.

    Args:
        request: what is asked.
        progress: of a download.
        say: tells the user about the device, before anything is loaded.
        step: called after each batch.

    Raises:
        NetlensError: there is no such device, model, data or loss, the model raises, or memory runs out.
    """
    device = choose_device(own_device(request.running.device) or "auto")
    if device.torch_device.type != "cpu":
        say(device.header)
    if request.model.spec.source == "python":
        import_named(request.model.spec)  # may make a group of its own
    with processes(device.torch_device) as group, _quiet(group):
        report = _of_step(request, device, group, step)
        if report is None:
            found = valued(request.model, seed=request.running.seed, progress=progress)  # DistributedDataParallel needs the group
            options = levers(device.torch_device, batch_size=request.samples.batch_size, dtype=request.running.dtype)
            with out_of_memory_told(device.torch_device, options):
                report = _of_model(request, found, device, group, step)
        return report if group is None or group.reports else None


def _quiet(group: Processes | None) -> AbstractContextManager[None]:
    return nullcontext() if group is None else group.quiet()


def _of_step(request: Request, device: Device, group: Processes | None, step: Callable[[], object]) -> GradflowReport | None:
    """Return None where MODEL names no training step."""
    own = step_of(request.model.spec) if request.may_be_a_step else None
    if own is not None:
        with suppress(MakesAModel):
            return stepped(own, request.model.spec.text, request.settings.steps, device.name, group, step)
    return None


def _of_model(request: Request, found: Valued, device: Device, group: Processes | None, step: Callable[[], object]) -> GradflowReport:
    running, there = request.running, device.torch_device
    with placed(found.model, there, dtype=running.dtype, channels_last=running.channels_last):
        model, peak = inner(found.model), watch_peak(there)
        model.train(request.settings.train)

        def place(batch: Any) -> Batch:
            dtype = running.dtype or dtype_of(model)
            args, kwargs = place_inputs(batch.args, batch.kwargs, there, dtype=dtype, channels_last=running.channels_last)
            return args, kwargs, map_tensors(batch.labels, lambda tensor: tensor.to(there))

        def data(batch_size: int) -> Batches:
            asked = replace(request.samples, batch_size=batch_size)
            return labelled_batches(asked, request.model, found, loss=request.settings.loss, seed=running.seed)

        session = Session(
            model,
            request.settings,
            Known(found.source, found.initialised, device.name, found.notes),
            place,
            lambda: data(SAMPLES),
            peak=lambda: peak().allocated,
            step=step,
            processes=group,
        )
        report = session.report(data(request.samples.batch_size))
        return replace(report, notes=(*report.notes, *_not_prepared(request.samples, report.notes)))


def _not_prepared(asked: AskedSamples, notes: Sequence[str]) -> tuple[str, ...]:
    """Say that options for pictures change nothing where a data set of the user's own gives tensors; `notes` are of the data."""
    given = [f"--{name}" for name in ("size", "mean", "std") if getattr(asked, name)]
    prepared = asked.data is None or isinstance(parse_data(asked.data), Path) or any("prepared by" in note for note in notes)
    return () if prepared or not given else (f"{listed(given)}: not used, for the data set prepares its samples itself",)
