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
from netlens.probing.counting import samples_in
from netlens.probing.leaves import leaves
from netlens.probing.modes import running, without_statistics
from netlens.probing.tokens import Layouts, as_maps

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
Select = Callable[[Sequence[str], Sequence[str]], list[int]]


@dataclass
class Maps:
    """What one layer put out for the samples that are shown."""

    values: list[np.ndarray] = field(default_factory=list)  # (n, C, *grid), float32; a batch each
    tokens: list[np.ndarray] = field(default_factory=list)  # before those of the grid, (n, prefix, C); a batch each

    def joined(self) -> np.ndarray:
        """Return (n, C, *grid); of grids that differ only the first batch."""
        return _of_one_shape(self.values)

    def prefix(self) -> np.ndarray | None:
        """Return the tokens that belong to no place, (n, prefix, C); None where there are none."""
        return _of_one_shape(self.tokens) if self.tokens else None

    @property
    def count(self) -> int:
        """The number of samples."""
        return sum(len(part) for part in self.values)


def _of_one_shape(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([part for part in parts if part.shape[1:] == parts[0].shape[1:]])


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


def listed(model: nn.Module, arguments: Arguments, around: Callable[[], Any] = ExitStack) -> tuple[list[str], list[str]]:
    """Run one batch, and return the names and types of all that puts something out, in order."""
    found: dict[str, str] = {}

    def note(output: Output) -> None:
        found.setdefault(output.name, output.type)

    with running(model), around(), watched(model, note):
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
        names, types = listed(model, next(batches()), around)
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


class Unmeasured(Exception):
    """Measuring an output failed: the model is not to blame, though it was in its forward."""


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
        self._layouts.begin((args, kwargs), _of_list((args, kwargs)))
        self.samples += samples_in((args, kwargs))
        self._add_input((args, kwargs))
        with around(), watched(self._model, self._look), self._attended((args, kwargs)):
            result = self._model(*args, **kwargs)
        self.output.add(result)

    @contextmanager
    def _attended(self, inputs: Arguments) -> Iterator[None]:
        if self._attention is None:
            yield
            return
        picture = next((tensor.shape[2:] for _, tensor in leaves(inputs) if tensor.dim() == 4), None)
        self._attention.begin(samples_in(inputs), None if picture is None else (picture[0], picture[1]))
        with attended(self._model, self._attention.look):
            yield

    def _look(self, output: Output) -> None:
        try:
            self._measure(output)
        except Exception as error:
            raise Unmeasured(f"{output.name}, {output.type}, of shape {tuple(output.tensor.shape)}") from error

    def _measure(self, output: Output) -> None:
        if not output.tensor.numel():  # as of boxes, where none are found
            return
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
            maps, prefix = as_maps(output.tensor.detach(), layout)
            kept.values.append(_host(maps[:missing]))
            if prefix is not None:
                kept.tokens.append(_host(prefix[:missing]))

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
            layouts.begin((args, kwargs), _of_list((args, kwargs)))
            search.begin((args, kwargs), samples_in((args, kwargs)))
            with around(), watched(model, lambda output: search.add(output, layouts.of(output))):
                model(*args, **kwargs)
            if search.found is not None:
                break
    return search.found


def _of_list(inputs: Arguments) -> int | None:
    """Count the samples where they come as a list; None: the tensors tell."""
    return samples_in(inputs) if any(isinstance(value, list) for value in (*inputs[0], *inputs[1].values())) else None


def _host(tensor: Tensor) -> np.ndarray:
    array: np.ndarray = tensor.float().cpu().numpy().copy()  # a copy: what is cut off is not kept
    return array
