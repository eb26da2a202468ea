"""Running what was asked: the model with its values, on its device, on its pictures; then the report, and what is to be drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from traceback import walk_tb
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from netlens.errors import NetlensError
from netlens.lenses.gradcam.album import Scene
from netlens.lenses.gradcam.explorer import Explorer
from netlens.lenses.gradcam.report import GradcamReport, Run
from netlens.lenses.gradcam.settings import Settings
from netlens.lenses.gradcam.targets import embeddings
from netlens.loading import feeding
from netlens.loading.class_names import ClassNames, class_names
from netlens.loading.device import Device, choose_device
from netlens.loading.feeding import Batch, Samples
from netlens.loading.memory import watch_peak
from netlens.loading.placing import autocasting, dtype_of, place_inputs, placed
from netlens.loading.sampling import clip_of, films, samples_of
from netlens.loading.shortage import halving, levers, out_of_memory, out_of_memory_told
from netlens.loading.valued import Valued, valued
from netlens.probing.cutting import Arguments
from netlens.probing.failing import failed_forward
from netlens.probing.modes import in_eval_mode
from netlens.probing.replacing import inner
from netlens.probing.untouched import seeded

if TYPE_CHECKING:
    from netlens.lenses.gradcam.request import Request
    from netlens.loading.download import Progress


@dataclass(frozen=True)
class Ran:
    """What was learned, and what is to be drawn."""

    report: GradcamReport
    maps: dict[int, np.ndarray]  # index of a map -> its numbers as in the paper
    scenes: list[Scene]


def ran(request: Request, progress: Progress, say: Callable[[str], None], step: Callable[[], object]) -> Ran:
    """Answer a request, except for its pictures.

    Args:
        request: what is asked.
        progress: of a download.
        say: tells the user about the device before anything is loaded, and how long slow methods will take.
        step: called after each batch, and each chunk of a slow method.

    Raises:
        NetlensError: there is no such device, model, picture, class or layer, the model raises, or memory runs out.
    """
    running = request.running
    device = choose_device(running.device)
    if device.torch_device.type != "cpu":
        say(device.header)
    found = valued(request.model, seed=running.seed, progress=progress)
    size = request.samples.batch_size
    options = levers(device.torch_device, batch_size=size, dtype=running.dtype, pictures=bool(request.samples.images))
    with (
        out_of_memory_told(device.torch_device, options),
        placed(found.model, device.torch_device, dtype=running.dtype, channels_last=running.channels_last),
    ):
        model = inner(found.model)

        def run(batch_size: int) -> Ran:
            return _Run(request, found, model, device, say, step).run(batch_size)

        with in_eval_mode(model), seeded(running.seed):
            if not running.auto_batch:
                return run(size)
            done, fitted = halving(run, size)
    if fitted == size:
        return done
    note = f"{size} samples in one pass did not fit into memory: run with --batch-size {fitted}"
    return replace(done, report=replace(done.report, notes=(*done.report.notes, note)))


class _Run:
    """One run with one size of batches."""

    def __init__(
        self, request: Request, found: Valued, model: nn.Module, device: Device, say: Callable[[str], None], step: Callable[[], object]
    ) -> None:
        self._request, self._found, self._model, self._device = request, found, model, device
        self._say, self._step = say, step
        self._names: dict[int | None, ClassNames | None] = {}
        self._current: Arguments = ((), {})

    def run(self, batch_size: int) -> Ran:
        request, found = self._request, self._found
        peak = watch_peak(self._device.torch_device)
        samples = self._samples(batch_size)
        explorer = Explorer(
            self._model,
            self._settings(samples),
            self._names_for,
            self._around,
            self._say,
            self._step,
            samples.count,
            chunk=2 * batch_size,
        )
        try:
            for batch, arguments in self._batches(samples):
                explorer.add(batch, arguments, samples.preprocessing)
                self._step()
                if request.settings.list_layers:
                    break
            explorer.finish(request.running.seed if request.sanity else None)
        except Exception as error:
            if isinstance(error, NetlensError) or out_of_memory(error) or not (_in_a_forward(error) or self._raises()):
                raise
            raise failed_forward(self._model, *self._current, error, self._around) from error
        report = GradcamReport(
            model=type(self._model).__name__,
            source=found.source,
            initialised=found.initialised,
            inputs=samples.name,
            run=Run(
                device=self._device.name,
                dtype=str(dtype_of(self._model) or "").removeprefix("torch."),
                autocast=request.running.autocast,
                channels_last=request.running.channels_last,
                preprocessing="" if (how := samples.preprocessing) is None else f"{how.source}: {how}",
                output=explorer.output,
                random_inputs=samples.random,
                peak_bytes=peak().allocated,
                top_channels=request.top_channels,
            ),
            layers=explorer.layers,
            shots=tuple(explorer.shots),
            maps=tuple(explorer.maps),
            methods=explorer.methods,
            sanity=explorer.sanity,
            notes=(*found.notes, *samples.notes(), *self._told(), *explorer.notes),
        )
        return Ran(report, explorer.values, explorer.scenes)

    def _samples(self, batch_size: int) -> Samples:
        asked = replace(self._request.samples, batch_size=batch_size)
        if asked.images and films(self._model):
            return clip_of(asked, self._request.model, self._found)
        return samples_of(asked, self._request.model, self._found, mixed=True)

    def _batches(self, samples: Samples) -> Iterator[tuple[Batch, Arguments]]:
        for batch in samples.batches():
            self._current = self._placed(batch)
            yield batch, self._current

    def _placed(self, batch: Batch) -> Arguments:
        running = self._request.running
        dtype = running.dtype or dtype_of(self._model)
        return place_inputs(batch.args, batch.kwargs, self._device.torch_device, dtype=dtype, channels_last=running.channels_last)

    def _around(self) -> Any:
        return autocasting(self._device.torch_device, self._request.running.autocast)

    def _raises(self) -> bool:
        """Tell whether the model's own forward raises for the current batch."""
        try:
            with torch.no_grad(), self._around():
                self._model(*self._current[0], **self._current[1])
        except Exception:
            return True
        return False

    def _settings(self, samples: Samples) -> Settings:
        settings, against = self._request.settings, self._request.against
        if against is not None:
            settings = replace(settings, reference=self._reference(samples), against=against.name)
        return settings.told_by(self._model)

    def _reference(self, samples: Samples) -> Any:
        """Return what the model makes of the picture of `--against`."""
        if self._request.against is None or samples.preprocessing is None:
            return None
        batch = feeding.first(feeding.of_pictures([self._request.against], samples.preprocessing, 1))
        self._current = args, kwargs = self._placed(batch)
        with torch.no_grad(), self._around():
            return embeddings(self._model(*args, **kwargs), samples=1, key=self._request.settings.key)

    def _names_for(self, classes: int | None) -> ClassNames | None:
        if classes not in self._names:
            archive = self._request.model.checkpoint.archive if self._request.model.checkpoint else None
            self._names[classes] = class_names(
                classes, given=self._request.names, archive=archive, named=self._found.named, model=self._model
            )
        return self._names[classes]

    def _told(self) -> Iterator[str]:
        for names in self._names.values():
            if names is not None:
                yield f"names of classes from {names.source}"


def _in_a_forward(error: Exception) -> bool:
    """Tell whether the code of some module raised, as of masked pictures, or what it called: with nothing of netlens in between."""
    inside = False
    for frame, _ in walk_tb(error.__traceback__):
        if frame.f_globals.get("__name__", "").startswith("netlens."):
            inside = False
        elif isinstance(frame.f_locals.get("self"), nn.Module):
            inside = True
    return inside
