"""What is noted while the user's step function runs, and how numbers of parameters and gradients are taken."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import isclose, isfinite
from typing import Any

import torch
from torch import Tensor

from netlens.lenses.gradflow.backward import Layers
from netlens.lenses.gradflow.statistics import Magnitudes, all_magnitudes, is_blurred, sum_of_squares
from netlens.parts import Histogram

BREAK = "\n"  # between the name of a model and that of its layer: neither holds one


@dataclass
class Losses:
    """Losses of each optimizer step: those of one are added up, and so are gradients, as long as nobody clears them."""

    steps: list[list[Tensor]] = field(default_factory=list)
    inside: bool = False  # an optimizer that is stepping has run a backward pass
    _closed: bool = True

    def add(self, losses: Sequence[Tensor], *, new: bool, stepping: bool) -> None:
        """Take what a backward pass was called on.

        Args:
            losses: of one number each.
            new: the gradients of the pass before are cleared.
            stepping: an optimizer runs it; LBFGS takes many for one step, and the first is that of the weights before it.
        """
        first, self.inside = not self.inside, stepping
        if first and (new or self._closed):
            self.steps.append([])
            self._closed = False
        if first:
            self.steps[-1] += losses

    def close(self) -> None:
        """Note that an optimizer has stepped."""
        self._closed, self.inside = True, False


@dataclass
class Seen:
    """What one call of the step function showed; keys are ids of parameters."""

    layers: Layers
    used: set[int] = field(default_factory=set)  # their modules ran
    gradients: dict[int, Magnitudes] = field(default_factory=dict)  # as backward left them, without the loss scale
    weights: dict[int, float] = field(default_factory=dict)  # sum of squares, before the optimizer moved them
    histograms: dict[int, Histogram | None] = field(default_factory=dict)
    updates: dict[int, float] = field(default_factory=dict)  # norm of the step / norm of the weights before
    losses: Losses = field(default_factory=Losses)  # that backward was called on, without the loss scale
    scale: float = 1.0  # of the loss
    clipped: tuple[float, float] | None = None  # norm as backward left it, and as the optimizer got it
    backwards: int = 0
    stepped: dict[str, int] = field(default_factory=dict)  # steps of each class of optimizer
    samples: int = 0  # that the first model was called with
    left: bool = False  # an optimizer stepped with gradients that had been added to those of an earlier step
    early: int = 0  # steps of an optimizer that no backward pass had left gradients
    cleared: bool = False  # gradients were gone when the optimizer stepped
    moved: bool = True  # the weights, where no optimizer stepped
    rebuilt: bool = False  # no parameter with a gradient was there before
    rates: dict[str, float] = field(default_factory=dict)  # learning rate of each class of optimizer


def loss_of(seen: Seen, result: Any) -> float:
    """Return the loss of one optimizer step, a sum where batches are accumulated; of several what the function returns, or the mean."""
    sums = [sum(torch.stack([loss.double().cpu().reshape(()) for loss in losses]).tolist()) for losses in seen.losses.steps if losses]
    if not sums:
        return torch.nan
    mean: float = sum(sums) / len(sums)
    told = _number(result)
    if len(sums) == 1 or told is None or not isfinite(mean):
        return mean
    return told if isinstance(result, (Tensor, Mapping)) or any(isclose(told, each, rel_tol=1e-6) for each in sums) else mean


def _number(result: Any) -> float | None:
    """Return the number in what a step returns, if there is one."""
    found = result.get("loss") if isinstance(result, Mapping) else result
    if isinstance(found, Tensor):
        return float(found.detach()) if found.numel() == 1 and found.is_floating_point() else None
    return found if isinstance(found, float) else None


class Numbers:
    """Statistics of tensors that are here; `Processes` has them of tensors that are in parts elsewhere."""

    alone = True

    def magnitudes(self, tensors: Sequence[Tensor | None], parameters: Sequence[Any]) -> list[Magnitudes | None]:
        """Return the magnitudes of each tensor, fetched together; None for None."""
        given = [tensor for tensor in tensors if tensor is not None]
        found = self._fetched(given, careful=False)
        if any(not tensor.is_cpu and is_blurred(each) for tensor, each in zip(given, found, strict=True)):
            found = self._fetched(given, careful=True)
        values = iter(found)
        return [None if tensor is None else next(values) for tensor in tensors]

    def squares(self, tensors: Sequence[Tensor | None], parameters: Sequence[Any]) -> list[float | None]:
        """Return the sum of squares of each tensor, fetched together; None for None."""
        found = _listed([sum_of_squares(tensor) for tensor in tensors if tensor is not None])
        values = iter(found)
        return [None if tensor is None else next(values) for tensor in tensors]

    def _fetched(self, tensors: Sequence[Tensor], *, careful: bool) -> list[Magnitudes]:
        rows = _listed(all_magnitudes(tensors, careful=careful))
        return [Magnitudes.of(row, tensor.numel()) for row, tensor in zip(rows, tensors, strict=True)]


def _listed(tensors: Sequence[Tensor]) -> list[Any]:
    if not tensors:
        return []
    device = next((tensor.device for tensor in tensors if tensor.device.type != "cpu"), torch.device("cpu"))
    found: list[Any] = torch.stack(
        [tensor.to(device, torch.float32 if device.type == "mps" else torch.float64) for tensor in tensors]
    ).tolist()
    return found


def own_gradients(parameters: Sequence[Any]) -> Callable[[], list[Tensor]]:
    """Collect gradients before anybody reduces them: hooks of a parameter run before those of its accumulation.

    Returns:
        what ends it, and gives them out: copies, zeros where none came.
    """
    found: dict[int, Tensor] = {}

    def keep(place: int, gradient: Tensor) -> None:
        dense = gradient.detach().to_dense() if gradient.layout != torch.strided else gradient.detach()
        found[place] = found[place] + dense if place in found else dense.clone(memory_format=torch.contiguous_format)

    hooks = [parameter.register_hook(partial(keep, place)) for place, parameter in enumerate(parameters)]

    def result() -> list[Tensor]:
        for hook in hooks:
            hook.remove()
        return [
            found[place] if place in found else torch.zeros_like(parameter, memory_format=torch.contiguous_format)
            for place, parameter in enumerate(parameters)
        ]

    return result
