"""One optimizer step, taken up to where the optimizer would begin, and its numbers, fetched together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import isfinite
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from netlens.lenses.gradflow.backward import Batch, Layers, LossOf, backward
from netlens.lenses.gradflow.reached import Owned, Uses
from netlens.lenses.gradflow.report import LayerFlow, Rank
from netlens.lenses.gradflow.statistics import Magnitudes, all_magnitudes, is_blurred, sum_of_squares, wide
from netlens.probing.counting import samples_in
from netlens.probing.untouched import seeded

if TYPE_CHECKING:
    from netlens.lenses.gradflow.distributed import Processes

BACKOFF = 16  # by which a loss scale is divided when gradients overflow


@dataclass(frozen=True)
class Passes:
    """How steps are run."""

    model: nn.Module
    loss: LossOf
    around: Callable[[], Any]
    seed: int
    uses: Uses
    seen: Callable[[Any, Any, Tensor], object]
    processes: Processes | None = None  # this one among others, which take the same steps on batches of their own


@dataclass(frozen=True)
class Taken:
    """What a step showed; `.grad` of the parameters holds the gradient of the mean loss."""

    scale: float  # of the loss, divided out of everything here
    loss: float
    parameters: dict[str, Owned]  # in forward order
    gradients: dict[str, Magnitudes]  # of those that have one
    squares: dict[str, float]  # of the weights, summed
    layers: tuple[LayerFlow, ...]
    blurred: bool  # read it again, carefully
    ranks: tuple[Rank, ...] = ()  # the processes, before their gradients were reduced

    @property
    def broken(self) -> bool:
        """Whether anything is not finite."""
        parameters, layers = self.gradients.values(), self.layers
        return (
            not isfinite(self.loss)
            or any(each.nan or each.infinite for each in parameters)
            or any(row.nan or row.infinite for row in layers)
        )


def take(passes: Passes, batches: Sequence[Batch], index: int, scale: float) -> Taken:
    """Take a step: again with another scale where gradients overflow, as a GradScaler does, and again with care where it must be.

    Args:
        passes: how to run it.
        batches: of this step.
        index: of the step.
        scale: of the loss.
    """
    while True:
        taken = _passed(passes, batches, index, scale, careful=False)
        if taken.blurred:
            taken = _passed(passes, batches, index, scale, careful=True)
        if scale == 1 or not taken.broken or not isfinite(taken.loss):
            return taken
        scale = max(1.0, scale / BACKOFF)


def _passed(passes: Passes, batches: Sequence[Batch], index: int, scale: float, *, careful: bool) -> Taken:
    uses, layers = passes.uses, Layers(careful=careful)
    uses.clear()
    with seeded(passes.seed + index):  # so that a step can be taken again
        loss = backward(passes.model, batches, passes.loss, around=passes.around, scale=scale, uses=uses, layers=layers, seen=passes.seen)
    owned = {each.name: each for each in uses.parameters() if not is_lazy(each.tensor)}
    given = {name: each.tensor.grad for name, each in owned.items() if each.tensor.grad is not None}
    if scale != 1 and given:
        torch._foreach_mul_(list(given.values()), 1 / scale)
    samples, processes = sum(samples_in(batch[:2]) for batch in batches), passes.processes
    ranks: tuple[Rank, ...] = ()
    if processes is not None:
        reduced = processes.reduced(loss, [owned[name].tensor for name in sorted(owned)], samples)  # the order of use may differ
        loss, ranks = reduced.loss, reduced.ranks
        given = {name: each.tensor.grad for name, each in owned.items() if each.tensor.grad is not None}
    packs = (
        [loss.to(wide(loss)).view(1)],
        all_magnitudes(list(given.values()), careful=careful),
        [sum_of_squares(each.tensor).view(1) for each in owned.values()],
        layers.packed(),
    )
    fetched = iter(_fetched([tensor for pack in packs for tensor in pack]))
    (value,), of_gradients, of_weights, of_layers = ([next(fetched) for _ in pack] for pack in packs)
    gradients = {name: Magnitudes.of(numbers, owned[name].tensor.numel()) for name, numbers in zip(given, of_gradients, strict=True)}
    arrived = (*gradients.values(), *layers.magnitudes(of_layers))
    flows, blurred = layers.flows(of_layers, scale), not careful and not loss.is_cpu and any(map(is_blurred, arrived))
    if processes is not None:
        flows, blurred = processes.layers(flows, samples), any(processes.gathered(blurred))
    return Taken(
        scale=scale,
        loss=value[0],
        parameters=owned,
        gradients=gradients,
        squares={name: numbers[0] for name, numbers in zip(owned, of_weights, strict=True)},
        layers=flows,
        blurred=blurred,
        ranks=ranks,
    )


def _fetched(tensors: Sequence[Tensor]) -> list[list[float]]:
    """Bring vectors to the host, those of one device together."""
    places: dict[torch.device, list[int]] = {}
    for place, tensor in enumerate(tensors):
        places.setdefault(tensor.device, []).append(place)
    found: list[list[float]] = [[] for _ in tensors]
    for group in places.values():
        joined: list[float] = torch.cat([tensors[place] for place in group]).tolist()
        ends = accumulate(len(tensors[place]) for place in group)
        for place, end in zip(group, ends, strict=True):
            found[place] = joined[end - len(tensors[place]) : end]
    return found
