"""The forward and backward passes of one optimizer step, with the gradient of what each layer put out measured as it passes by."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial, reduce
from math import isfinite, sqrt
from typing import Any

import torch
from torch import Tensor, nn

from netlens.errors import ForwardFailed
from netlens.lenses.gradflow.reached import Uses
from netlens.lenses.gradflow.report import LayerFlow
from netlens.lenses.gradflow.statistics import Magnitudes, joined, magnitudes, mean_square
from netlens.loading.shortage import out_of_memory
from netlens.probing.activations import Output, watched
from netlens.probing.trace import plain_kernels

Batch = tuple[tuple[Any, ...], dict[str, Any], Any]  # positional and named arguments of the model, labels
LossOf = Callable[[Any, Any], Tensor]  # of the model's output and the labels


class Unmeasured(Exception):
    """Measuring an output failed: the model is not to blame, though it was in its forward."""


@dataclass(slots=True)
class _Row:
    """What one layer put out in a step, and the gradients that came back."""

    name: str
    type: str
    shape: tuple[int, ...]
    tracked: bool = False  # a graph leads here
    squares: list[Tensor] = field(default_factory=list)  # mean square of the output, a batch each
    numbers: list[Tensor] = field(default_factory=list)  # magnitudes of gradients
    received: int = 0  # elements of gradients


class Layers:
    """The rows of one step; hooks on tensors measure gradients and let them go."""

    def __init__(self, *, careful: bool) -> None:
        self._careful = careful
        self._rows: dict[str, _Row] = {}
        self._receiving = False

    def look(self, output: Output) -> None:
        """Take in one output during the forward pass."""
        tensor = output.tensor
        row = self._rows.setdefault(output.name, _Row(output.name, output.type, tuple(tensor.shape)))
        row.squares.append(mean_square(tensor))
        if tensor.requires_grad:
            row.tracked = True
            tensor.register_hook(partial(self._receive, row))

    def _receive(self, row: _Row, gradient: Tensor | None) -> None:
        if self._receiving and gradient is not None:  # a model may take gradients in its forward
            row.received += gradient.numel()
            row.numbers.append(magnitudes(gradient, careful=self._careful, sampled=True))

    @contextmanager
    def receiving(self) -> Iterator[None]:
        """Measure gradients while the block runs."""
        self._receiving = True
        try:
            yield
        finally:
            self._receiving = False

    def packed(self) -> list[Tensor]:
        """Return the numbers of all rows, on their devices, to be fetched: mean square of the output, then magnitudes if there are any."""
        return [
            torch.cat([torch.stack(row.squares).mean().view(1), *([reduce(joined, row.numbers)] if row.numbers else [])])
            for row in self._rows.values()
        ]

    def flows(self, fetched: Sequence[Sequence[float]], scale: float) -> tuple[LayerFlow, ...]:
        """Return the rows for the report, from what `packed` gave."""
        return tuple(
            _flow(index, row, numbers, scale) for index, (row, numbers) in enumerate(zip(self._rows.values(), fetched, strict=True))
        )

    def magnitudes(self, fetched: Sequence[Sequence[float]]) -> list[Magnitudes]:
        """Return what `packed` gave of gradients, as they came."""
        return [_magnitudes(row, numbers) for row, numbers in zip(self._rows.values(), fetched, strict=True) if len(numbers) > 1]


def _magnitudes(row: _Row, numbers: Sequence[float]) -> Magnitudes:
    return Magnitudes.of(numbers[1:], row.received)


def _flow(index: int, row: _Row, numbers: Sequence[float], scale: float) -> LayerFlow:
    arrived = _magnitudes(row, numbers).divided(scale) if len(numbers) > 1 else None
    return LayerFlow(
        index=index,
        name=row.name,
        type=row.type,
        shape=row.shape,
        status="gradient" if arrived else "detached" if row.tracked else "no grad",
        activation_rms=sqrt(numbers[0]) if isfinite(numbers[0]) else None,
        mean=arrived and arrived.mean,
        greatest=arrived and arrived.largest,
        rms=arrived and arrived.rms,
        zeros=arrived and arrived.zeros,
        nan=int(arrived.nan) if arrived else 0,
        infinite=int(arrived.infinite) if arrived else 0,
    )


def backward(
    model: nn.Module,
    batches: Sequence[Batch],
    loss: LossOf,
    *,
    around: Callable[[], Any],
    scale: float,
    uses: Uses,
    layers: Layers,
    seen: Callable[[Any, Any, Tensor], object],
) -> Tensor:
    """Run one optimizer step up to where the optimizer would begin, and return the mean loss; `.grad` holds `scale` times its gradient.

    Args:
        model: in its mode; no `.grad` is set.
        batches: whose mean loss is differentiated, one after the other.
        loss: a scalar.
        around: a context for forward and loss: autocast.
        scale: of the loss, against underflow in half precision.
        uses: notes which parameters are used.
        layers: measures what layers put out.
        seen: called with output, labels and loss of each batch.

    Raises:
        ForwardFailed: the backward pass raises.
        Exception: what the model's own forward, or the loss, raises.
    """
    losses = []
    for args, kwargs, labels in batches:
        with plain_kernels(), checkpoints_with_graph():
            with uses, around():
                with watched(model, lambda output: _look(output, uses, layers)):
                    output = model(*args, **kwargs)
                value = loss(output, labels)
            seen(output, labels, value)
            del output
            losses.append(value.detach())
            if value.requires_grad:
                with layers.receiving():
                    differentiate(value, scale / len(batches))
    return torch.stack(losses).mean()


def _look(output: Output, uses: Uses, layers: Layers) -> None:
    try:
        uses.ran(output)
        layers.look(output)
    except Exception as error:
        raise Unmeasured(f"{output.name}, {output.type}, of shape {tuple(output.tensor.shape)}") from error


def differentiate(loss: Tensor, weight: float) -> None:
    """Add `weight` times the gradient of a loss to every `.grad`.

    Raises:
        ForwardFailed: the backward pass raises.
    """
    loss = loss.float() if loss.dtype.itemsize < 4 else loss  # a large weight would overflow
    try:
        loss.backward(torch.full_like(loss, weight))
    except RuntimeError as error:
        if out_of_memory(error):
            raise
        words = " ".join(str(error).split())
        hint = (
            "write a new tensor where one is changed in place" if "inplace" in words else "run the step with torch.autograd.detect_anomaly"
        )
        raise ForwardFailed(f"the backward pass raised: {words}", hint=hint) from error


@contextmanager
def checkpoints_with_graph() -> Iterator[None]:
    """Let reentrant checkpoints run as the others do, whose layers have a graph from the start; what they cut off stays cut off."""
    checkpoints: Any = sys.modules.get("torch.utils.checkpoint")
    if checkpoints is None:
        yield
        return

    def apply(run: Callable[..., Any], preserve_rng_state: bool, *args: Any) -> Any:
        tracked = any(isinstance(value, Tensor) and value.requires_grad for value in args)
        with torch.set_grad_enabled(tracked and torch.is_grad_enabled()):  # reentrant ones see gradients only in what they are given
            return checkpoints.checkpoint(run, *args, use_reentrant=False, preserve_rng_state=preserve_rng_state)

    checkpoints.CheckpointFunction.apply = apply
    try:
        yield
    finally:
        del checkpoints.CheckpointFunction.apply
