"""Running what was asked: the model with its values, on its device, on its data; then the report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from netlens.lenses.gradflow.backward import Batch
from netlens.lenses.gradflow.report import GradflowReport
from netlens.lenses.gradflow.session import Known, Session
from netlens.lenses.gradflow.training import SAMPLES
from netlens.loading.device import choose_device
from netlens.loading.labelled import Batches, labelled_batches
from netlens.loading.memory import watch_peak
from netlens.loading.placing import dtype_of, place_inputs, placed
from netlens.loading.shortage import levers, out_of_memory_told
from netlens.loading.valued import valued
from netlens.probing.leaves import map_tensors
from netlens.probing.replacing import inner

if TYPE_CHECKING:
    from netlens.lenses.gradflow.request import Request
    from netlens.loading.download import Progress


def ran(request: Request, progress: Progress, say: Callable[[str], None], step: Callable[[], object]) -> GradflowReport:
    """Answer a request, except for its pictures.

    Args:
        request: what is asked.
        progress: of a download.
        say: tells the user about the device, before anything is loaded.
        step: called after each batch.

    Raises:
        NetlensError: there is no such device, model, data or loss, the model raises, or memory runs out.
    """
    running, device = request.running, choose_device(request.running.device)
    if device.torch_device.type != "cpu":
        say(device.header)
    found = valued(request.model, seed=running.seed, progress=progress)
    options = levers(device.torch_device, batch_size=request.samples.batch_size, dtype=running.dtype)
    with (
        out_of_memory_told(device.torch_device, options),
        placed(found.model, device.torch_device, dtype=running.dtype, channels_last=running.channels_last),
    ):
        model, peak = inner(found.model), watch_peak(device.torch_device)
        model.train(request.settings.train)

        def place(batch: Any) -> Batch:
            dtype = running.dtype or dtype_of(model)
            args, kwargs = place_inputs(batch.args, batch.kwargs, device.torch_device, dtype=dtype, channels_last=running.channels_last)
            return args, kwargs, map_tensors(batch.labels, lambda tensor: tensor.to(device.torch_device))

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
        )
        return session.report(data(request.samples.batch_size))
