"""With which other argument a layer would fit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import batchnorm, conv, instancenorm

from netlens.lenses.summary.trials import Bench
from netlens.probing.call_rules import is_plain, layer_input
from netlens.probing.layer_shapes import takes
from netlens.probing.meta import META
from netlens.probing.patterns import Mismatch, brought, filled
from netlens.probing.untouched import untouched

_NORMS = (batchnorm._BatchNorm, instancenorm._InstanceNorm)
_Table = tuple[tuple[Any, str, dict[str, int]], ...]  # kinds, argument, {parameter or buffer of that size: in which dimension}
_OF_INPUT: _Table = (
    (nn.Linear, "in_features", {"weight": 1}),
    (conv._ConvTransposeNd, "in_channels", {"weight": 0}),
    (conv._ConvNd, "in_channels", {"weight": 1}),
    (_NORMS, "num_features", {"weight": 0, "bias": 0, "running_mean": 0, "running_var": 0}),
    (nn.GroupNorm, "num_channels", {"weight": 0, "bias": 0}),
    ((nn.LayerNorm, nn.RMSNorm), "normalized_shape", {"weight": 0, "bias": 0}),
    (nn.RNNBase, "input_size", {"weight_ih_l0": 1, "weight_ih_l0_reverse": 1}),
    (nn.RNNCellBase, "input_size", {"weight_ih": 1}),
    (nn.PReLU, "num_parameters", {"weight": 0}),
)
_OF_OUTPUT: _Table = (
    (nn.Linear, "out_features", {"weight": 0, "bias": 0}),
    (conv._ConvTransposeNd, "out_channels", {"weight": 1, "bias": 0}),
    (conv._ConvNd, "out_channels", {"weight": 0, "bias": 0}),
    (nn.Embedding, "embedding_dim", {"weight": 1}),
)


@dataclass(frozen=True, slots=True)
class _Change:
    """One argument of a layer with which it would fit."""

    path: str
    module: nn.Module
    argument: str
    size: int
    places: dict[str, int]

    def __str__(self) -> str:
        return f"`{self.path or 'the model'}` would need {self.argument}={self.size}"

    def apply(self) -> None:
        """Give the layer weights of that size, on meta; `untouched` undoes it."""
        for name, dim in self.places.items():
            old = {**self.module._buffers, **self.module._parameters}.get(name)
            if old is not None:
                shape = [self.size if place == dim else size for place, size in enumerate(old.shape)]
                new = torch.empty(shape, dtype=old.dtype, device=META)
                setattr(self.module, name, nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new)
        setattr(self.module, self.argument, (self.size,) if self.argument == "normalized_shape" else self.size)


def takes_features(module: nn.Module) -> bool:
    """Tell whether an argument of the layer says how many channels or features it gets."""
    return any(isinstance(module, kinds) for kinds, _, _ in _OF_INPUT)


def layers_that_fit(bench: Bench, found: Mismatch) -> str:
    """Say with which argument the layer that raised would run, or the one before it; and what raises then, if nothing helps alone."""
    x, path = layer_input(bench.stop), bench.stop.record.path
    if not found.expects or x is None or bench.spent():
        return ""
    changes = list(_changes(bench, dict(bench.model.named_modules()), x))
    fit = [change for change in changes if _runs_with(bench, change)]
    if fit:
        return ", or ".join(map(str, fit)) + (_factors(bench, x) if fit[0].argument == "in_features" else "")
    if changes and changes[0].path == path:
        _runs_with(bench, changes[0])
        if bench.last is not None and bench.last.record.path != path:
            return f"{changes[0]}; then `{bench.last.record.path or 'the model'}` raises"
    return ""


def _changes(bench: Bench, modules: dict[str, nn.Module], x: Tensor) -> Iterator[_Change]:
    path, producer = bench.stop.record.path, bench.stop.producer
    layer = modules.get(path)
    if layer is None or not takes_features(layer):
        return
    pattern = takes(layer, x.dim())
    yield from _change(_OF_INPUT, path, layer, brought(pattern, x.shape))
    if producer and producer in modules and not bench.got_the_input and x.shape in _outputs(bench):
        yield from _change(_OF_OUTPUT, producer, modules[producer], brought(pattern, filled(pattern, x.shape)))


def _change(table: _Table, path: str, module: Any, size: int | None) -> Iterator[_Change]:
    """The change of the argument of a layer in `table`; none where it is not one number of its own."""
    found = next(((name, places) for kinds, name, places in table if isinstance(module, kinds)), None)
    if found is not None and size is not None and is_plain(module) and getattr(module, "groups", 1) == 1:
        yield _Change(path, module, found[0], size, found[1])


def _outputs(bench: Bench) -> list[tuple[int, ...]]:
    """The shapes that the layer before returned."""
    record = bench.records.get(bench.stop.producer or "")
    return [shape for _, outputs in record.calls for _, shape, _ in outputs] if record is not None else []


def _runs_with(bench: Bench, change: _Change) -> bool:
    with untouched(bench.model):
        change.apply()
        return bench.runs(bench.arguments)


def _factors(bench: Bench, x: Tensor) -> str:
    """Show how a flatten made the features: " (256 x 7 x 7)"."""
    for shape in _outputs(bench):
        for start in range(1, len(shape) - 1):
            if (*shape[:start], prod(shape[start:])) == tuple(x.shape):
                return f" ({' x '.join(map(str, shape[start:]))})"
    return ""
