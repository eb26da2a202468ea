"""Optimizer steps up to where the optimizer would begin: loss, gradients of parameters and of what layers put out, and where they stop."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from math import isfinite, sqrt
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from netlens.errors import InputError
from netlens.lenses.gradflow.backward import Batch, LossOf
from netlens.lenses.gradflow.nonfinite import first_nonfinite
from netlens.lenses.gradflow.reached import Owned, uses_of
from netlens.lenses.gradflow.report import FirstNonFinite, LayerFlow, ParameterFlow, Rank, Step
from netlens.lenses.gradflow.statistics import histograms
from netlens.lenses.gradflow.taken import Passes, Taken, take
from netlens.parts import Histogram
from netlens.probing.counting import samples_in
from netlens.probing.replacing import inner
from netlens.probing.untouched import seeded, untouched
from netlens.wording import number

if TYPE_CHECKING:
    from netlens.lenses.gradflow.distributed import Processes


@dataclass(frozen=True)
class Measured:
    """What was learned from all steps."""

    parameters: tuple[ParameterFlow, ...]  # without `update`, `signal` and `cosine`
    layers: tuple[LayerFlow, ...]
    steps: tuple[Step, ...]  # fewer than asked for where one was not finite
    first_nonfinite: FirstNonFinite | None
    batch_size: int
    notes: tuple[str, ...] = ()
    ranks: tuple[Rank, ...] = ()  # the processes in the last step


def measure(
    model: nn.Module,
    batches: Callable[[], Iterator[Batch]],
    loss: LossOf,
    *,
    steps: int = 1,
    accumulate: int = 1,
    train: bool | None = None,
    around: Callable[[], Any] = ExitStack,
    scale: float = 1.0,
    seed: int = 0,
    optimized: Collection[nn.Parameter] | None = None,
    after: Callable[[Sequence[nn.Parameter]], object] = lambda parameters: None,
    seen: Callable[[Any, Any, Tensor], object] = lambda output, labels, value: None,
    step: Callable[[], object] = lambda: None,
    processes: Processes | None = None,
) -> Measured:
    """Differentiate the loss of some steps, and measure every gradient on its way. The model is as it was afterwards, also on errors.

    Args:
        model: placed; wrappers are taken off.
        batches: positional and named arguments on the model's device, and labels; from the start each time, again and again.
        loss: of the model's output and the labels, a scalar.
        steps: how many; none follows one that is not finite.
        accumulate: batches in a step.
        train: the mode to run in; None: the modes that the modules are in.
        around: a context for forward and loss: autocast.
        scale: of the loss, as of a GradScaler, divided out before anything is measured; reduced where gradients overflow.
        seed: of dropout and its like; each step has its own.
        optimized: what the optimizer has; None: all that the model lists and that requires a gradient.
        after: called at the end of each finite step with the parameters that the model lists; `.grad` holds the gradient of the mean loss.
            It may move parameters; who does so puts them back.
        seen: called with output, labels and loss of each batch.
        step: called after each step.
        processes: this one among others; `batches` are its own.

    Raises:
        UsageError: the model is TorchScript.
        InputError: there is no batch.
        ForwardFailed: the backward pass raises.
        Exception: what the model's own forward, or the loss, raises.
    """
    model, stream = inner(model), _endless(batches)
    first: FirstNonFinite | None = None
    history: list[Taken] = []
    size, used = 0, scale
    with untouched(model), torch.inference_mode(False), torch.enable_grad(), seeded(seed), uses_of(model) as uses:
        if train is not None:
            model.train(train)
        passes = Passes(model, loss, around, seed, uses, seen, processes)
        for index in range(steps):
            group = list(islice(stream, accumulate))
            size = size or samples_in(group[0][:2])
            history.append(take(passes, group, index, used))
            used = history[-1].scale
            if index == steps - 1 or history[-1].broken:
                rows = _rows(history[-1], [uses.status(owned.tensor) for owned in history[-1].parameters.values()], optimized)
            if history[-1].broken:
                first = _search(passes, group, index, history[-1])
                break
            after(list(model.parameters()))
            step()
    notes = () if used == scale else (f"gradients overflowed with a loss scale of {number(scale)}: measured with {number(used)}",)
    return Measured(rows, history[-1].layers, tuple(_step(taken, history[-1]) for taken in history), first, size, notes, history[-1].ranks)


def _endless(batches: Callable[[], Iterator[Batch]]) -> Iterator[Batch]:
    while True:
        empty = True
        for batch in batches():
            empty = False
            yield batch
        if empty:
            raise InputError("there is no batch to learn from", hint="name data with at least one sample and its label")


def _search(passes: Passes, batches: Sequence[Batch], index: int, taken: Taken) -> FirstNonFinite:
    with seeded(passes.seed + index):
        found = first_nonfinite(passes.model, batches, passes.loss, around=passes.around, scale=taken.scale)
    if passes.processes is not None:  # it may be in another process
        found = next((each for each in passes.processes.gathered(found) if each is not None), None)
    return found or FirstNonFinite("backward" if isfinite(taken.loss) else "loss", "", "", "", 0, 0)


def _step(taken: Taken, last: Taken) -> Step:
    found = taken.gradients
    norm = sqrt(sum(each.squares for each in found.values())) if found and not taken.broken else None
    return Step(taken.loss, norm, tuple(found[name].rms if name in found else None for name in last.parameters))


def _rows(taken: Taken, statuses: Sequence[str], optimized: Collection[nn.Parameter] | None) -> tuple[ParameterFlow, ...]:
    chosen = {id(owned.tensor) for owned in taken.parameters.values() if owned.listed and owned.tensor.requires_grad}
    if optimized is not None:
        chosen = set(map(id, optimized))
    gradients = {name: owned.tensor.grad for name, owned in taken.parameters.items() if owned.tensor.grad is not None}
    shapes = dict(zip(gradients, histograms(list(gradients.values())), strict=True))
    return tuple(
        _row(index, owned, status, taken, id(owned.tensor) in chosen, shapes.get(owned.name))
        for index, (owned, status) in enumerate(zip(taken.parameters.values(), statuses, strict=True))
    )


def _row(index: int, owned: Owned, status: str, taken: Taken, optimized: bool, histogram: Histogram | None) -> ParameterFlow:
    gradient, squares, elements = taken.gradients.get(owned.name), taken.squares[owned.name], owned.tensor.numel()
    norm = gradient and gradient.norm
    return ParameterFlow(
        index=index,
        name=owned.name,
        layer=owned.layer,
        type=owned.type,
        shape=tuple(owned.tensor.shape),
        elements=elements,
        status=status,
        optimized=optimized,
        weight_rms=sqrt(squares / elements) if elements and isfinite(squares) else None,
        mean=gradient and gradient.mean,
        greatest=gradient and gradient.largest,
        rms=gradient and gradient.rms,
        norm=norm,
        zeros=gradient and gradient.zeros,
        nan=int(gradient.nan) if gradient else 0,
        infinite=int(gradient.infinite) if gradient else 0,
        ratio=norm / sqrt(squares) if norm is not None and squares and isfinite(squares) else None,
        update=None,
        signal=None,
        cosine=None,
        histogram=histogram,
    )
