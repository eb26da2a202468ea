"""One look at a model that learns: its loss is found, steps are taken on a copy and measured, and what else is asked for is tried."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import count
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from netlens.errors import NetlensError, UsageError
from netlens.lenses.gradflow.backward import Batch, Unmeasured
from netlens.lenses.gradflow.measure import Measured, measure
from netlens.lenses.gradflow.noise import measure_noise
from netlens.lenses.gradflow.outputs import output_facts
from netlens.lenses.gradflow.report import GradflowReport, Noise, OutputFacts, Run
from netlens.lenses.gradflow.rules import second_look_matters
from netlens.lenses.gradflow.second_look import second_look
from netlens.lenses.gradflow.training import overfit, rate_range
from netlens.lenses.gradflow.updates import Cosines, on_a_copy, ratios, watched_steps
from netlens.loading.labelled import Batches, LossName, answered
from netlens.loading.losses import Loss, choose_loss
from netlens.loading.optimizers import described, make_optimizer
from netlens.loading.placing import autocasting, dtype_of
from netlens.loading.shortage import out_of_memory
from netlens.loading.words import cause
from netlens.probing.counting import samples_in
from netlens.probing.failing import failed_forward
from netlens.probing.leaves import leaves
from netlens.probing.untouched import seeded, untouched

if TYPE_CHECKING:
    from netlens.lenses.gradflow.distributed import Processes

SCALE = 65536.0  # of a fresh torch.amp.GradScaler
NOISE = 6  # batches, the fewest of which `signal` can be told


@dataclass(frozen=True, slots=True)
class Settings:
    """What is asked."""

    loss: LossName = None
    optimizer: str = "SGD"
    options: Mapping[str, Any] = field(default_factory=dict)  # of the optimizer, "lr" among them
    steps: int = 1
    accumulate: int = 1  # batches in a step
    amp: str | None = None
    train: bool = True
    noise: int | None = None  # batches; None: a few where there is real data
    overfit: bool = False
    lr_range: bool = False
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Known:
    """What the report says of the model, and nothing here finds out."""

    source: str
    initialised: bool | None
    device: str
    notes: tuple[str, ...] = ()


class Session:
    """Looks at one model.

    Args:
        model: inside its wrappers, placed; in the mode in which it is to run.
        settings: what is asked.
        known: for the report.
        place: brings a batch to the model's device.
        sixteen: the same data, in the batches that `overfit` is made for.
        peak: bytes of the device's memory, at the end.
        step: called after each batch.
        processes: this one among others: each takes batches of its own, and gradients are compared, then reduced.
    """

    def __init__(
        self,
        model: nn.Module,
        settings: Settings,
        known: Known,
        place: Callable[[Any], Batch],
        sixteen: Callable[[], Batches],
        *,
        peak: Callable[[], int | None] = lambda: None,
        step: Callable[[], object] = lambda: None,
        processes: Processes | None = None,
    ) -> None:
        self._model, self._settings, self._known = model, settings, known
        self._place, self._sixteen, self._peak, self._step = place, sixteen, peak, step
        self._processes = processes
        self._device = next((tensor.device for tensor in (*model.parameters(), *model.buffers())), torch.device("cpu"))
        self._current: Batch = ((), {}, None)

    def report(self, data: Batches) -> GradflowReport:
        """Measure everything that is asked for.

        Raises:
            NetlensError: no loss fits, the model raises, or nothing can learn.
        """
        try:
            return self._report(data)
        except Exception as error:
            if isinstance(error, (NetlensError, Unmeasured)) or out_of_memory(error) or not self._raises():
                raise
            raise failed_forward(self._model, *self._current[:2], error, self._around) from error

    def _report(self, data: Batches) -> GradflowReport:
        if self._settings.noise == 1:
            raise UsageError("--noise 1: one batch has nothing to be compared with", hint=f"take at least 2; {NOISE} tell what is signal")
        data, loss, facts = self._beginning(data)
        optimizer = self._optimizer()
        measured, updates, cosines = self._steps(data, loss, optimizer)
        noise, signals = self._noise(data, loss, measured)
        report = self._described(data, loss, optimizer, measured, facts)
        if measured.first_nonfinite is None:
            report = replace(report, notes=(*report.notes, *self._noise_notes(noise)))
        rows = zip(measured.parameters, updates, cosines, signals, strict=True)
        parameters = tuple(replace(row, update=update, cosine=cosine, signal=signal) for row, update, cosine, signal in rows)
        report = self._looked_again(replace(report, parameters=parameters, noise=noise), data, loss)
        return self._tried(report, data, loss)

    def _beginning(self, data: Batches) -> tuple[Batches, Loss, OutputFacts | None]:
        """Run the first batch without a step: which labels and which loss there are depends on the output."""
        model, settings = self._model, self._settings
        with untouched(model), seeded(settings.seed), torch.enable_grad():
            data = answered(data, model, settings.loss, self._output(self._batch(data, 0)), seed=settings.seed)
            batch = self._batch(data, 0)
            output = self._output(batch)
            with self._around():
                loss = choose_loss(settings.loss, output, batch[2])
                return data, loss, output_facts(model, output, batch[2], loss)

    def _steps(
        self, data: Batches, loss: Loss, optimizer: torch.optim.Optimizer
    ) -> tuple[Measured, list[float | None], list[float | None]]:
        """Take the steps on a copy; return what was measured, with the updates and the cosines of its parameters."""
        model, settings, cosines = self._model, self._settings, Cosines()
        listed = list(model.parameters())

        def after(parameters: Any) -> None:
            if settings.steps > 1:
                cosines.add([parameter.grad for parameter in parameters])
            _stepped(optimizer)

        with on_a_copy(model, [optimizer]), watched_steps(listed, optimizer) as moves:
            measured = measure(
                model,
                lambda: self._batches(data),
                loss,
                steps=settings.steps,
                accumulate=settings.accumulate,
                around=self._around,
                scale=SCALE if settings.amp == "fp16" else 1.0,
                seed=settings.seed,
                after=after,
                step=self._step,
                processes=self._processes,
            )
            updates, alike = ratios(moves, len(listed)), cosines.means(len(listed))
        return measured, self._of_rows(measured, updates), self._of_rows(measured, alike)

    def _of_rows(self, measured: Measured, values: list[float | None]) -> list[float | None]:
        """Bring numbers of parameters that the model lists into the order of the rows; None for the others."""
        places = self._places()
        return [values[places[row.name]] if row.name in places else None for row in measured.parameters]

    def _places(self) -> dict[str, int]:
        """Return the place of each parameter, by each of its names, among those that the model lists."""
        order = {id(parameter): place for place, parameter in enumerate(self._model.parameters())}
        return {name: order[id(parameter)] for name, parameter in self._model.named_parameters(remove_duplicate=False)}

    def _noise(self, data: Batches, loss: Loss, measured: Measured) -> tuple[Noise | None, list[float | None]]:
        """Compare the gradients of some batches: of as many as asked for, else of a few where there is real data."""
        asked = self._settings.noise if self._settings.noise is not None else 0 if data.random_inputs or data.random_labels else NOISE
        if asked < 2 or measured.first_nonfinite is not None:
            return None, [None] * len(measured.parameters)
        size, step = measured.batch_size, self._step
        listed, batches = list(self._model.parameters()), self._different(data, asked, size)
        noise, signals = measure_noise(self._model, self._loss_of(loss), batches, listed, batch_size=size, step=step)
        return (noise if noise.batches > 1 else None), self._of_rows(measured, signals)

    def _noise_notes(self, noise: Noise | None) -> tuple[str, ...]:
        """Say where fewer batches were compared than asked for."""
        asked = self._settings.noise
        had = 0 if noise is None else noise.batches
        if not asked or had >= asked:
            return ()
        return (f"--noise {asked}: {f'{had} batches are compared' if had else 'nothing is compared'}, the data has no more of one size",)

    def _different(self, data: Batches, most: int, size: int) -> Iterator[Batch]:
        """Yield batches of so many samples until they come again."""
        number = 0
        while number < min(most, data.count() or most):  # which may be known only when the last one was read
            batch = self._batch(data, number)
            if number < (data.count() or most) and samples_in(batch[:2]) == size:
                yield batch
            number += 1

    def _looked_again(self, report: GradflowReport, data: Batches, loss: Loss) -> GradflowReport:
        """Look again where a rule would speak that some steps may silence; not where code holds parameters that no model lists."""
        places, listed = self._places(), list(self._model.parameters())
        if not second_look_matters(report) or not all(row.name in places for row in report.parameters):
            return report
        rows = [listed[places[row.name]] for row in report.parameters]
        return replace(report, look=second_look(self._model, self._loss_of(loss), self._batch(data, 0), rows))

    def _tried(self, report: GradflowReport, data: Batches, loss: Loss) -> GradflowReport:
        """Do what `--overfit` and `--lr-range` ask for."""
        if self._settings.overfit:
            batch = self._batch(self._answered_sixteen(data), 0)
            classes = None if report.output is None else report.output.classes
            samples = next((tensor.shape[0] for _, tensor in leaves(batch[:2]) if tensor.dim()), 1)
            found = overfit(self._model, self._loss_of(loss), batch, samples=samples, classes=classes, step=self._step)
            report = replace(report, overfit=found)
        if self._settings.lr_range:
            usable = rate_range(self._model, self._loss_of(loss), lambda: self._batches(data), self._optimizer, step=self._step)
            report = replace(report, rate_range=usable)
        return report

    def _answered_sixteen(self, data: Batches) -> Batches:
        again = self._sixteen()
        if again.labels is not None or data.labels is None:
            return again
        with untouched(self._model), torch.no_grad():
            return answered(again, self._model, self._settings.loss, self._output(self._batch(again, 0)), seed=self._settings.seed)

    def _described(
        self, data: Batches, loss: Loss, optimizer: torch.optim.Optimizer, measured: Measured, facts: OutputFacts | None
    ) -> GradflowReport:
        settings, known = self._settings, self._known
        return GradflowReport(
            model=type(self._model).__name__,
            source=known.source,
            initialised=known.initialised,
            inputs=data.name,
            run=Run(
                kind="the model's own loss" if loss.own else "model and loss",
                device=known.device,
                dtype=str(dtype_of(self._model) or "").removeprefix("torch."),
                amp=settings.amp,
                mode="train" if self._model.training else "eval",
                loss=loss.name,
                loss_source=loss.source,
                optimizer=described(optimizer),
                batch_size=measured.batch_size,
                accumulate=settings.accumulate,
                steps=len(measured.steps),
                random_inputs=data.random_inputs,
                random_labels=data.random_labels,
                processes=1 if self._processes is None else self._processes.size,
                peak_bytes=self._peak(),
            ),
            parameters=measured.parameters,
            layers=measured.layers,
            steps=measured.steps,
            output=facts,
            first_nonfinite=measured.first_nonfinite,
            ranks=measured.ranks,
            notes=(*known.notes, *data.notes(), *loss.notes, *measured.notes),
        )

    # --- Running

    def _optimizer(self) -> torch.optim.Optimizer:
        trainable = [each for each in self._model.parameters() if each.requires_grad]
        if not trainable:
            what = "parameters" if next(self._model.parameters(), None) is None else "parameters that are not frozen"
            hint = "name a model that has some" if what == "parameters" else "unfreeze what shall learn: requires_grad_()"
            raise UsageError(f"the model has no {what}: nothing can learn", hint=hint)
        return make_optimizer(self._settings.optimizer, trainable, **self._settings.options)

    def _batches(self, data: Batches) -> Iterator[Batch]:
        first, every = (0, 1) if self._processes is None else (self._processes.rank, self._processes.size)
        return (self._batch(data, number) for number in count(first, every))

    def _batch(self, data: Batches, number: int) -> Batch:
        self._current = self._place(data.batch(number))
        return self._current

    def _output(self, batch: Batch) -> Any:
        with self._around():
            return self._model(*batch[0], **batch[1])

    def _loss_of(self, loss: Loss) -> Callable[[Batch], Tensor]:
        def value(batch: Batch) -> Tensor:
            with self._around():
                return loss(self._model(*batch[0], **batch[1]), batch[2])

        return value

    def _around(self) -> Any:
        return autocasting(self._device, self._settings.amp)

    def _raises(self) -> bool:
        """Tell whether the model's own forward raises for the current batch."""
        try:
            with untouched(self._model), torch.no_grad():
                self._output(self._current)
        except Exception:
            return True
        return False


def _stepped(optimizer: torch.optim.Optimizer) -> None:
    try:
        optimizer.step()
    except Exception as error:
        if out_of_memory(error):
            raise
        what = f"{type(optimizer).__name__} cannot take a step: {cause(error)}"
        raise UsageError(what, hint="change its options, or take another --optimizer") from error
