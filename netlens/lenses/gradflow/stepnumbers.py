"""What is noted while the user's step function runs, and how numbers of parameters and gradients are taken."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from netlens.lenses.gradflow.backward import Layers
from netlens.lenses.gradflow.statistics import Magnitudes, all_magnitudes, is_blurred, sum_of_squares
from netlens.parts import Histogram

BREAK = "\n"  # between the name of a model and that of its layer: neither holds one


@dataclass
class Seen:
    """What one call of the step function showed; keys are ids of parameters."""

    layers: Layers
    used: set[int] = field(default_factory=set)  # their modules ran
    gradients: dict[int, Magnitudes] = field(default_factory=dict)  # as backward left them, without the loss scale
    weights: dict[int, float] = field(default_factory=dict)  # sum of squares, before the optimizer moved them
    histograms: dict[int, Histogram | None] = field(default_factory=dict)
    updates: dict[int, float] = field(default_factory=dict)  # norm of the step / norm of the weights before
    losses: list[Tensor] = field(default_factory=list)  # that backward was called on, without the loss scale
    scale: float = 1.0  # of the loss
    clipped: tuple[float, float] | None = None  # norm as backward left it, and as the optimizer got it
    backwards: int = 0
    stepped: dict[str, int] = field(default_factory=dict)  # steps of each class of optimizer
    samples: int = 0  # that the first model was called with
    left: bool = False  # gradients of an earlier step were still there


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
