"""Where the weights of a request come from: a model as built, one with a checkpoint or published weights, or a checkpoint alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor, nn

from netlens.errors import NetlensError, UsageError
from netlens.lenses.kernels.layers import Weights, WeightTensor, weights_of_group, weights_of_model
from netlens.lenses.kernels.measure import initial_scales
from netlens.loading.checkpoints.archive import Archive
from netlens.loading.checkpoints.fit import Fit
from netlens.loading.checkpoints.groups import chosen_group
from netlens.loading.checkpoints.identify import architectures
from netlens.loading.checkpoints.prefixes import bare
from netlens.loading.checkpoints.storages import Storages
from netlens.loading.checkpoints.weights import on_meta
from netlens.loading.download import Progress
from netlens.loading.models import find_model
from netlens.loading.specs import parse_model_spec
from netlens.loading.valued import again, built, load, loaded_notes, valued
from netlens.probing.untouched import seeded

if TYPE_CHECKING:
    from netlens.lenses.kernels.request import Request


@dataclass(frozen=True)
class Opened:
    """Weights, and what is known about them."""

    model: str  # the class, or the name of the file
    source: str  # of the values
    initialised: bool | None
    weights: Weights
    initial: Mapping[str, float] = field(default_factory=dict)  # standard deviations on a fresh model, by the weight's name
    others: Mapping[str, Callable[[], Tensor]] | None = None  # of the other checkpoint, by the weight's name
    notes: tuple[str, ...] = ()

    def filters(self, index: int) -> Callable[[], np.ndarray]:
        """Return what reads one weight as (filters, channels of a group, *kernel)."""
        return _array(self.weights.tensors[index])

    def filters_of_other(self, index: int) -> Callable[[], np.ndarray]:
        """Return what reads the same weight of the other checkpoint."""
        tensor = self.weights.tensors[index]
        return _array(replace(tensor, read=(self.others or {})[tensor.name]))


def _array(tensor: WeightTensor) -> Callable[[], np.ndarray]:
    return lambda: tensor.filters().detach().numpy()


def opened(request: Request, stack: ExitStack, progress: Progress | None = None) -> Opened:
    """Open what the request names; files stay mapped until `stack` is closed.

    Raises:
        NetlensError: there is no such model, or a checkpoint does not fit it.
    """
    if request.model is None:
        assert request.archive is not None
        return _file(request, request.archive, stack)
    initial: dict[str, float] = {}
    found = valued(request.model, seed=request.seed, progress=progress, fresh=lambda model: initial.update(initial_scales(model)))
    others, notes = None, found.notes
    if request.against is not None:
        with seeded(request.seed):
            other = built(found.named)
        fit = load(other, found.named, request.against, again(request.model))
        others = _readers(weights_of_model(other), fit)
        notes = (*notes, *loaded_notes(request.against, fit))
    weights = weights_of_model(found.model)
    return Opened(type(found.model).__name__, found.source, found.initialised, weights, initial, others, notes)


def _readers(weights: Weights, fit: Fit | None = None) -> dict[str, Callable[[], Tensor]]:
    """Return what reads each weight; with a fit, not those that the checkpoint left as they were built."""
    left = () if fit is None else (*fit.missing, *(difference.name for difference in fit.differences))
    built = [bare(name).replace(".parametrizations.", ".") for name in left]  # one of its parts is enough: "conv1.weight.original0"
    return {tensor.name: tensor.read for tensor in weights.tensors if not any(name.startswith(tensor.key) for name in built)}


def _file(request: Request, archive: Archive, stack: ExitStack) -> Opened:
    weights, notes = _listed(archive, request.key, stack)
    others = None
    if request.against is not None:
        listed, _ = _listed(request.against.archive, request.against.key, stack)
        others = _readers(listed)
        if {(tensor.name, tensor.shape) for tensor in listed.tensors}.isdisjoint((tensor.name, tensor.shape) for tensor in weights.tensors):
            raise UsageError(
                f"{archive.path.name} and {request.against.archive.path.name} have no weight of the same name and shape",
                hint="compare checkpoints of one model, or name the model: netlens kernels MODEL --checkpoint FILE --against FILE",
            )
    return Opened(archive.path.name, archive.path.name, None, weights, {}, others, notes)


def _listed(archive: Archive, key: str | None, stack: ExitStack) -> tuple[Weights, tuple[str, ...]]:
    """Return the weights of a file by their shapes, or with what a known architecture tells about them."""
    group = chosen_group(archive, lambda tensors: (len(tensors), 0), key)
    names = architectures((tensor.name, tensor.shape) for tensor in group.tensors)
    skeleton = _skeleton(names[0]) if names else None
    notes = (f"the tensors are those of torchvision's {' or '.join(names)}",) if names else ()
    key_note = (f"key {group.key}",) if group.key else ()
    return weights_of_group(group, stack.enter_context(Storages(archive)), skeleton), (*key_note, *notes)


def _skeleton(name: str) -> nn.Module | None:
    try:
        return on_meta(find_model(parse_model_spec(name), {}))
    except NetlensError:  # a torchvision that does not have it: shapes alone must do
        return None
