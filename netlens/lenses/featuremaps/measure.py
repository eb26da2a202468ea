"""Running a model on samples, and keeping of each batch only numbers, and the maps that are to be drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from netlens.lenses.featuremaps.attention import AttentionRecorder
from netlens.lenses.featuremaps.nonfinite import FirstNonFinite
from netlens.lenses.featuremaps.outputs import OutputStatistics
from netlens.lenses.featuremaps.report import LayerActivity, NonFinite, OutputFacts
from netlens.lenses.featuremaps.statistics import Accumulator
from netlens.probing.activations import Output, watched
from netlens.probing.attention_maps import attended
from netlens.probing.leaves import leaves
from netlens.probing.tokens import Layouts, as_maps
from netlens.probing.untouched import seeded

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
Select = Callable[[Sequence[str], Sequence[str]], list[int]]


@dataclass
class Maps:
    """What one layer put out for the samples that are shown."""

    values: list[np.ndarray] = field(default_factory=list)  # (n, C, *grid), float32; a batch each

    def joined(self) -> np.ndarray:
        """Return (n, C, *grid); of grids that differ only the first batch."""
        same = [part for part in self.values if part.shape[1:] == self.values[0].shape[1:]]
        return np.concatenate(same)

    @property
    def count(self) -> int:
        """The number of samples."""
        return sum(len(part) for part in self.values)


@dataclass
class Measured:
    """What was learned from all batches."""

    layers: tuple[LayerActivity, ...]
    output: OutputFacts | None
    first_nonfinite: NonFinite | None
    samples: int
    input_rms: float | None
    batch_statistics: bool  # of BatchNorm: it normalised by each batch
    maps: dict[str, Maps]  # by the layer's name
    notes: tuple[str, ...] = ()


def listed(model: nn.Module, arguments: Arguments) -> tuple[list[str], list[str]]:
    """Run one batch, and return the names and types of all that puts something out, in order."""
    found: dict[str, str] = {}

    def note(output: Output) -> None:
        found.setdefault(output.name, output.type)

    with running(model), watched(model, note):
        model(*arguments[0], **arguments[1])
    return list(found), list(found.values())


def measure(
    model: nn.Module,
    batches: Callable[[], Iterator[Arguments]],
    *,
    select: Select | None = None,
    keep: int = 0,
    around: Callable[[], Any] = ExitStack,
    attention: AttentionRecorder | None = None,
    step: Callable[[], object] = lambda: None,
) -> Measured:
    """Run `model` in eval mode on all batches, once, and measure every layer.

    Args:
        model: placed; its modes and buffers are as they were afterwards.
        batches: positional and named arguments, on the model's device; from the start each time.
        select: of the names and types of all layers, the indices of those to measure; None: all.
        keep: samples whose maps are kept.
        around: a context for each pass: autocast.
        attention: looks at every attention map as well.
        step: called after each batch.

    Raises:
        Exception: what the model's own forward raises.
    """
    wanted: set[str] | None = None
    if select is not None:
        names, types = listed(model, next(batches()))
        wanted = {names[index] for index in select(names, types)}
    pass_ = _Pass(model, wanted, keep, attention)
    with running(model):
        for args, kwargs in batches():
            pass_.run(args, kwargs, around)
            step()
    layers = pass_.layers()
    broken = any(layer.nan or layer.infinite for layer in layers)
    return Measured(
        layers=layers,
        output=pass_.output.result(),
        first_nonfinite=_first_nonfinite(model, batches, around) if broken else None,
        samples=pass_.samples,
        input_rms=pass_.input_rms,
        batch_statistics=bool(without_statistics(model)),
        maps=pass_.maps,
    )


class _Pass:
    """Sums over batches."""

    def __init__(self, model: nn.Module, wanted: set[str] | None, keep: int, attention: AttentionRecorder | None) -> None:
        self._model, self._wanted, self._keep, self._attention = model, wanted, keep, attention
        self._layouts = Layouts(model)
        self.statistics, self.output = Accumulator(), OutputStatistics()
        self.maps: dict[str, Maps] = {}
        self.samples = 0
        self._squares: list[Tensor] = []
        self._elements = 0
        self._order: dict[str, int] = {}  # of all outputs, also those that are not measured
        self._last_weighted = 0
        self._narrow: set[str] = set()

    def run(self, args: tuple[Any, ...], kwargs: dict[str, Any], around: Callable[[], Any]) -> None:
        self._layouts.begin((args, kwargs))
        self.samples += _batch_size((args, kwargs))
        self._add_input((args, kwargs))
        with around(), watched(self._model, self._look), self._attended((args, kwargs)):
            result = self._model(*args, **kwargs)
        self.output.add(result)

    @contextmanager
    def _attended(self, inputs: Any) -> Iterator[None]:
        if self._attention is None:
            yield
            return
        picture = next((tensor.shape[2:] for _, tensor in leaves(inputs) if tensor.dim() == 4), None)
        self._attention.begin(_batch_size(inputs), None if picture is None else (picture[0], picture[1]))
        with attended(self._model, self._attention.look):
            yield

    def _look(self, output: Output) -> None:
        layout = self._layouts.of(output)
        self._order.setdefault(output.name, len(self._order))
        weights = [] if output.module is None else list(output.module.parameters(recurse=False))
        if weights:
            self._last_weighted = max(self._last_weighted, self._order[output.name])
        if weights and weights[0].dim() > 1 and weights[0][:1].numel() == 1:
            self._narrow.add(output.name)
        if self._wanted is not None and output.name not in self._wanted:
            return
        self.statistics.add(output, layout)
        kept = self.maps.setdefault(output.name, Maps())
        if (missing := self._keep - kept.count) > 0:
            maps, _ = as_maps(output.tensor.detach(), layout)
            kept.values.append(maps[:missing].float().cpu().numpy().copy())

    def layers(self) -> tuple[LayerActivity, ...]:
        """Return all rows, numbered as `--layer` counts; what is made of a single number has one signal in all channels by design."""
        placed = [
            replace(layer, index=self._order[layer.name], final=self._order[layer.name] >= self._last_weighted)
            for layer in self.statistics.result()
        ]
        return tuple(replace(row, effective_rank=None, correlation=None) if row.name in self._narrow else row for row in placed)

    def _add_input(self, inputs: Any) -> None:
        for _, tensor in leaves(inputs):
            if tensor.is_floating_point() and tensor.numel():
                self._squares.append(tensor.detach().float().square().sum())
                self._elements += tensor.numel()

    @property
    def input_rms(self) -> float | None:
        if not self._elements:
            return None
        return float(torch.stack([each.double().cpu() for each in self._squares]).sum().div(self._elements).sqrt())


def _first_nonfinite(model: nn.Module, batches: Callable[[], Iterator[Arguments]], around: Callable[[], Any]) -> NonFinite | None:
    """Run again, and look for the first layer that makes what is not finite."""
    search, layouts = FirstNonFinite(), Layouts(model)
    with running(model):
        for args, kwargs in batches():
            layouts.begin((args, kwargs))
            search.begin((args, kwargs), _batch_size((args, kwargs)))
            with around(), watched(model, lambda output: search.add(output, layouts.of(output))):
                model(*args, **kwargs)
            if search.found is not None:
                break
    return search.found


def _batch_size(inputs: Any) -> int:
    return next((tensor.shape[0] for _, tensor in leaves(inputs) if tensor.dim()), 1)


@contextmanager
def running(model: nn.Module) -> Iterator[None]:
    """Let `model` run as in use: eval mode, no gradients, fixed random numbers; then it is as it was.

    BatchNorm that has seen no data normalises by each batch, as it would in training: its running statistics, 0 and 1, mean nothing.
    """
    modes = {module: module.training for module in model.modules()}
    model.eval()
    fresh = without_statistics(model)
    momenta = [norm.momentum for norm in fresh]
    hooks = [norm.register_forward_pre_hook(_normalise_by_the_batch) for norm in fresh]
    for norm in fresh:
        norm.momentum = 0.0  # statistics of the batch are used, and not kept
    try:
        with torch.no_grad(), seeded(0):
            yield
    finally:
        for hook in hooks:
            hook.remove()
        for norm, momentum in zip(fresh, momenta, strict=True):
            norm.momentum = momentum
            if norm.num_batches_tracked is not None:
                norm.num_batches_tracked.zero_()
        for module, training in modes.items():
            module.training = training


def _normalise_by_the_batch(norm: Any, given: tuple[Any, ...]) -> None:
    """Use the statistics of the batch, unless it has a single value of each channel, which torch refuses."""
    shape = given[0].shape if given and isinstance(given[0], Tensor) else ()
    norm.training = not shape or shape.numel() > shape[1 if len(shape) > 1 else 0]


def without_statistics(model: nn.Module) -> list[Any]:
    """Return the BatchNorm layers that have never seen a batch."""
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    return [norm for norm in norms if norm.running_mean is not None and norm.running_var is not None and _untouched(norm)]


def _untouched(norm: Any) -> bool:
    seen = norm.num_batches_tracked is not None and int(norm.num_batches_tracked)
    return not seen and bool((norm.running_mean == 0).all()) and bool((norm.running_var == 1).all())
