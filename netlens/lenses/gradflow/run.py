"""Running what was asked: the model with its values, its data and its loss; then the report. Whatever moves is a copy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from netlens.errors import NetlensError
from netlens.lenses.gradflow.backward import Batch, Unmeasured
from netlens.lenses.gradflow.measure import Measured, measure
from netlens.lenses.gradflow.noise import measure_noise
from netlens.lenses.gradflow.outputs import output_facts
from netlens.lenses.gradflow.report import GradflowReport, Noise, OutputFacts, Run
from netlens.lenses.gradflow.rules import second_look_matters
from netlens.lenses.gradflow.second_look import second_look
from netlens.lenses.gradflow.training import SAMPLES, overfit, rate_range
from netlens.lenses.gradflow.updates import Cosines, on_a_copy, ratios, watched_steps
from netlens.loading.device import Device, choose_device
from netlens.loading.labelled import Batches, answered, labelled_batches
from netlens.loading.losses import Loss, choose_loss
from netlens.loading.memory import watch_peak
from netlens.loading.optimizers import described, make_optimizer
from netlens.loading.placing import autocasting, dtype_of, place_inputs, placed
from netlens.loading.select import select
from netlens.loading.shortage import levers, out_of_memory, out_of_memory_told
from netlens.loading.valued import Valued, valued
from netlens.probing.failing import failed_forward
from netlens.probing.leaves import map_tensors
from netlens.probing.replacing import inner
from netlens.probing.untouched import seeded, untouched

if TYPE_CHECKING:
    from netlens.lenses.gradflow.request import Request
    from netlens.loading.download import Progress

SCALE = 65536.0  # of a fresh torch.amp.GradScaler
NOISE = 6  # batches, the fewest of which `signal` can be told


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
    device = choose_device(request.running.device)
    if device.torch_device.type != "cpu":
        say(device.header)
    found = valued(request.model, seed=request.running.seed, progress=progress)
    options = levers(device.torch_device, batch_size=request.samples.batch_size, dtype=request.running.dtype)
    with (
        out_of_memory_told(device.torch_device, options),
        placed(found.model, device.torch_device, dtype=request.running.dtype, channels_last=request.running.channels_last),
    ):
        return _Run(request, found, device, step).report()


class _Run:
    """One run."""

    def __init__(self, request: Request, found: Valued, device: Device, step: Callable[[], object]) -> None:
        self._request, self._found, self._device, self._step = request, found, device, step
        self._model = inner(found.model)
        self._model.train(request.train)
        self._current: Batch = ((), {}, None)
        self._peak = watch_peak(device.torch_device)

    def report(self) -> GradflowReport:
        """Measure everything that is asked for."""
        request, model = self._request, self._model
        data = labelled_batches(request.samples, request.model, self._found, loss=request.loss, seed=request.running.seed)
        try:
            data, loss, facts = self._beginning(data)
            optimizer = make_optimizer(
                request.optimizer.name, [each for each in model.parameters() if each.requires_grad], **request.optimizer.options
            )
            measured, updates, cosines = self._steps(data, loss, optimizer)
            noise, signals = self._noise(data, loss, measured)
            report = self._described(data, loss, optimizer, measured, facts)
            rows = zip(measured.parameters, updates, cosines, signals, strict=True)
            parameters = tuple(replace(row, update=update, cosine=cosine, signal=signal) for row, update, cosine, signal in rows)
            report = replace(report, parameters=parameters, noise=noise)
            report = self._looked_again(report, data, loss)
            return self._chosen(self._tried(report, data, loss))
        except Exception as error:
            if isinstance(error, (NetlensError, Unmeasured)) or out_of_memory(error) or not self._raises():
                raise
            raise failed_forward(model, *self._current[:2], error, self._around) from error

    # --- Parts

    def _beginning(self, data: Batches) -> tuple[Batches, Loss, OutputFacts | None]:
        """Run the first batch without steps: which labels and which loss there are depends on the output."""
        model, request = self._model, self._request
        with untouched(model), seeded(request.running.seed):
            args, kwargs, _ = self._batch(data, 0)
            with torch.no_grad(), self._around():
                output = model(*args, **kwargs)
            data = answered(data, model, request.loss, output, seed=request.running.seed)
            args, kwargs, labels = self._batch(data, 0)
            with torch.no_grad(), self._around():
                output = model(*args, **kwargs)
                loss = choose_loss(request.loss, output, labels)
                facts = output_facts(model, output, labels, loss)
        return data, loss, facts

    def _steps(
        self, data: Batches, loss: Loss, optimizer: torch.optim.Optimizer
    ) -> tuple[Measured, list[float | None], list[float | None]]:
        """Take the steps on a copy; return what was measured with the updates and the cosines of its parameters."""
        model, request, cosines = self._model, self._request, Cosines()
        listed = list(model.parameters())
        fp16 = request.amp == "fp16"

        def after(parameters: Any) -> None:
            if request.steps > 1:
                cosines.add([parameter.grad for parameter in parameters])
            optimizer.step()

        with on_a_copy(model, [optimizer]), watched_steps(listed, optimizer) as moves:
            measured = measure(
                model,
                lambda: (self._batch(data, number) for number in count()),
                loss,
                steps=request.steps,
                accumulate=request.accumulate,
                around=self._around,
                scale=SCALE if fp16 else 1.0,
                seed=request.running.seed,
                after=after,
                step=self._step,
            )
            updates, alike = ratios(moves, len(listed)), cosines.means(len(listed))
        places = self._places()
        rows = [places.get(row.name) for row in measured.parameters]
        return (
            measured,
            [None if row is None else updates[row] for row in rows],
            [None if row is None else alike[row] for row in rows],
        )

    def _places(self) -> dict[str, int]:
        """Return the place of each parameter, by each of its names, among those that the model lists."""
        order = {id(parameter): place for place, parameter in enumerate(self._model.parameters())}
        return {name: order[id(parameter)] for name, parameter in self._model.named_parameters(remove_duplicate=False)}

    def _noise(self, data: Batches, loss: Loss, measured: Measured) -> tuple[Noise | None, list[float | None]]:
        """Compare the gradients of some batches: of as many as asked for, else of a few where there is real data."""
        asked = self._request.noise if self._request.noise is not None else 0 if data.random_inputs else NOISE
        known: list[float | None] = [None] * len(measured.parameters)
        if asked < 2 or measured.first_nonfinite is not None:
            return None, known
        listed = list(self._model.parameters())
        batches = (self._batch(data, number) for number in range(asked))
        noise, signals = measure_noise(
            self._model, self._loss_of(loss), batches, listed, batch_size=measured.batch_size, step=self._step
        )
        places = self._places()
        rows = [places.get(row.name) for row in measured.parameters]
        return noise, [None if row is None else signals[row] for row in rows]

    def _looked_again(self, report: GradflowReport, data: Batches, loss: Loss) -> GradflowReport:
        """Look again where a rule would speak that some steps may silence."""
        if not second_look_matters(report):
            return report
        places, listed = self._places(), list(self._model.parameters())
        rows = [row for row in report.parameters if row.name in places]
        if len(rows) < len(report.parameters):  # the code holds some that the model does not list
            return report
        look = second_look(self._model, self._loss_of(loss), self._batch(data, 0), [listed[places[row.name]] for row in rows])
        return replace(report, look=look)

    def _tried(self, report: GradflowReport, data: Batches, loss: Loss) -> GradflowReport:
        """Do what `--overfit` and `--lr-range` ask for."""
        request, model = self._request, self._model
        if request.overfit:
            batch = self._batch(self._sixteen(data), 0)
            classes = None if report.output is None else report.output.classes
            samples = next((tensor.shape[0] for tensor in self._tensors(batch) if tensor.dim()), 1)
            found = overfit(model, self._loss_of(loss), batch, samples=samples, classes=classes, step=self._step)
            report = replace(report, overfit=found)
        if request.lr_range:

            def make() -> torch.optim.Optimizer:
                trainable = [each for each in model.parameters() if each.requires_grad]
                return make_optimizer(request.optimizer.name, trainable, **request.optimizer.options)

            batches = lambda: (self._batch(data, number) for number in count())  # noqa: E731
            report = replace(report, rate_range=rate_range(model, self._loss_of(loss), batches, make, step=self._step))
        return report

    def _sixteen(self, data: Batches) -> Batches:
        """Return the same data in batches of the size for which the rule was made."""
        request = self._request
        asked = replace(request.samples, batch_size=SAMPLES)
        again = labelled_batches(asked, request.model, self._found, loss=request.loss, seed=request.running.seed)
        if again.labels is not None or data.labels is None:
            return again
        args, kwargs, _ = self._batch(again, 0)
        with untouched(self._model), torch.no_grad(), self._around():
            output = self._model(*args, **kwargs)
        return answered(again, self._model, request.loss, output, seed=request.running.seed)

    def _described(
        self, data: Batches, loss: Loss, optimizer: torch.optim.Optimizer, measured: Measured, facts: OutputFacts | None
    ) -> GradflowReport:
        request, found = self._request, self._found
        return GradflowReport(
            model=type(self._model).__name__,
            source=found.source,
            initialised=found.initialised,
            inputs=data.name,
            run=Run(
                kind="the model's own loss" if loss.own else "model and loss",
                device=self._device.name,
                dtype=str(dtype_of(self._model) or "").removeprefix("torch."),
                amp=request.amp,
                mode="train" if request.train else "eval",
                loss=loss.name,
                loss_source=loss.source,
                optimizer=described(optimizer),
                batch_size=measured.batch_size,
                accumulate=request.accumulate,
                steps=len(measured.steps),
                random_inputs=data.random_inputs,
                random_labels=data.random_labels,
                processes=1,
                peak_bytes=self._peak().allocated,
            ),
            parameters=measured.parameters,
            layers=measured.layers,
            steps=measured.steps,
            output=facts,
            first_nonfinite=measured.first_nonfinite,
            notes=(*found.notes, *data.notes(), *loss.notes, *measured.notes),
        )

    def _chosen(self, report: GradflowReport) -> GradflowReport:
        """Keep the parameters that `--layer` names; findings are of all of them, made before."""
        if not self._request.layers:
            return report
        names, types = [row.name for row in report.parameters], [row.type for row in report.parameters]
        kept = {names[index] for index in select(self._request.layers, names, types)}
        return replace(report, shown=tuple(name for name in names if name in kept))

    # --- Running

    def _batch(self, data: Batches, number: int) -> Batch:
        """Return a batch on the model's device."""
        read, running = data.batch(number), self._request.running
        device = self._device.torch_device
        args, kwargs = place_inputs(
            read.args, read.kwargs, device, dtype=running.dtype or dtype_of(self._model), channels_last=running.channels_last
        )
        self._current = args, kwargs, map_tensors(read.labels, lambda tensor: tensor.to(device))
        return self._current

    def _loss_of(self, loss: Loss) -> Callable[[Batch], Tensor]:
        def value(batch: Batch) -> Tensor:
            args, kwargs, labels = batch
            with self._around():
                return loss(self._model(*args, **kwargs), labels)

        return value

    def _around(self) -> Any:
        return autocasting(self._device.torch_device, self._request.amp)

    def _tensors(self, batch: Batch) -> Iterator[Tensor]:
        from netlens.probing.leaves import leaves

        return (tensor for _, tensor in leaves(batch[:2]))

    def _raises(self) -> bool:
        """Tell whether the model's own forward raises for the current batch."""
        try:
            with untouched(self._model), torch.no_grad(), self._around():
                self._model(*self._current[0], **self._current[1])
        except Exception:
            return True
        return False


def parameters_of(model: nn.Module) -> list[nn.Parameter]:
    """Return those that an optimizer would get."""
    return [each for each in model.parameters() if each.requires_grad]
