"""The activations of each layer in numbers, over all samples: computed on the device, fetched once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from math import isnan, prod, sqrt
from typing import Any

import torch
from torch import Tensor

from netlens.lenses.featuremaps.report import LayerActivity
from netlens.lenses.featuremaps.samples import Sampled
from netlens.lenses.featuremaps.sums import PARTS, SATURATING, channel_extremes, count_nonzero, packed, sums
from netlens.parts import Histogram
from netlens.probing.activations import Output
from netlens.probing.tokens import Layout, as_rows

PERCENTILES = (1, 5, 25, 50, 75, 95, 99)
BINS = 64
CANCELLED = 1e-5  # variance / mean square below which their difference has lost too many digits
RELU_LIKE = frozenset(
    ("relu", "relu6", "leaky_relu", "prelu", "rrelu", "elu", "celu", "selu", "gelu", "silu", "mish", "hardswish")
)  # off at <= 0
_PACKED = (*PARTS, "greatest", "least", "dead", "constant", "variance", "rank", "correlation")


@dataclass(slots=True)
class LayerStatistics:
    """What one layer put out, batch after batch; holds sums and samples, never the batch.

    Zeros are counted, all of them, where there may be more than a stray one: of an activation function, and of what else puts out one in
    the sample of a batch, from then on. Of other layers, which are most, that saves a pass.
    """

    name: str
    type: str
    layout: Layout  # of the first batch
    activation: str | None
    after_norm: bool
    samples: int = 0
    elements: int = 0
    _values: Tensor | None = None
    _zeros: bool = False  # they are counted
    _greatest: Tensor | None = None
    _least: Tensor | None = None
    _extremes: tuple[Tensor, Tensor] | None = None  # of channels, see channel_extremes; of none once there are others in a batch
    _sampled: Sampled = field(default_factory=Sampled)

    def add(self, tensor: Tensor, layout: Layout) -> None:
        """Take in one batch.

        Args:
            tensor: as the layer put it out; read, not kept.
            layout: of this tensor; grids may differ from batch to batch, channels too, but then nothing is said of channels.
        """
        rows, channel_axis = as_rows(tensor.detach(), layout)
        self.samples += len(rows)
        self.elements += rows.numel()
        if not rows.numel():
            return
        rows = rows.contiguous()
        chosen = self._sampled.choose(rows, channel_axis)
        some = chosen.flatten(0, 1)
        self._zeros = self._zeros or self.activation is not None or not rows.is_cpu or int(count_nonzero(some)) < some.numel()
        found = sums(rows, channel_axis, self.activation, zeros=self._zeros)
        self._sampled.add(chosen, rows, channel_axis, careful=found.careful)
        self._values = found.values if self._values is None else self._values + found.values
        self._greatest = found.greatest if self._greatest is None else torch.maximum(self._greatest, found.greatest)
        self._least = found.least if self._least is None else torch.minimum(self._least, found.least)
        if self._extremes is None or len(self._extremes[0]) == some.shape[1]:
            dead = self.activation in RELU_LIKE
            self._extremes = channel_extremes(rows, channel_axis, some, self._extremes, careful=found.careful, dead=dead)
        else:
            self._extremes = some[0, :0], some[0, :0]

    def packed(self) -> tuple[Tensor, Tensor] | None:
        """Return all numbers in one tensor, in the order of _PACKED, and the sample of elements; both on the device. None: it was empty."""
        if self._values is None or self._greatest is None or self._least is None or self._extremes is None:
            return None
        high, low = self._extremes
        whole = len(high) == self.layout.channels
        dead = ((high <= 0) & (high >= low)).sum() if whole and self.activation in RELU_LIKE else torch.nan
        constant = (high == low).sum() if whole and self.elements > self.layout.channels else torch.nan
        rest = (self._greatest, self._least, dead, constant, self._sampled.variance(), *self._sampled.channels())
        return torch.cat([self._values, packed(rest, like=self._values)]), self._sampled.elements.rows()

    def activity(self, index: int, final: bool, numbers: Sequence[float], values: Any) -> LayerActivity:
        """Turn what `packed` gave, now fetched, into the report.

        With n finite elements x: mean = sum x / n; rms = sqrt(sum x^2 / n); std = sqrt(rms^2 - mean^2), of the sample where that has lost
        its digits; zeros = count(x = 0) / n; within = 1 - flat / sum x^2, which is the mean over samples and channels of the variance over
        places, over the mean square; concentration = shares / shared. What compares places is None where an element is not finite.
        """
        known = dict(zip(_PACKED, numbers, strict=True)) if numbers else dict.fromkeys(_PACKED, 0.0)
        nan, infinite = int(known["nan"]), int(known["infinite"])
        count = self.elements - nan - infinite
        clean = not nan and not infinite and count > 0
        import numpy as np

        values = values[np.isfinite(values)].astype(np.float64)
        some = count > 0 and len(values) > 0
        mean, square = (known["total"] / count, known["squares"] / count) if some else (0.0, 0.0)
        variance = square - mean * mean
        if some and variance < CANCELLED * square:
            variance = float(values.var()) if known["least"] < known["greatest"] else 0.0
        places = prod(self.layout.shape) // max(1, self.layout.channels)
        return LayerActivity(
            index=index,
            name=self.name,
            type=self.type,
            shape=self.layout.shape,
            layout=self.layout.kind,
            grid=self.layout.grid or None,
            prefix=self.layout.prefix,
            channels=self.layout.channels,
            samples=self.samples,
            elements=self.elements,
            activation=self.activation,
            after_norm=self.after_norm,
            final=final,
            mean=mean if some else None,
            std=sqrt(variance) if some else None,
            rms=sqrt(square) if some else None,
            least=known["least"] if some else None,
            greatest=known["greatest"] if some else None,
            percentiles=tuple(np.percentile(values, PERCENTILES).tolist()) if some else None,
            zeros=(count - known["nonzero"]) / count if some else None,
            nan=nan,
            infinite=infinite,
            dead=_whole(known["dead"]) if some else None,
            constant=_whole(known["constant"]) if some else None,
            saturated=known["saturated"] / count if some and self.activation in SATURATING else None,
            effective_rank=_known(known["rank"]) if clean else None,
            correlation=_known(known["correlation"]) if clean else None,
            between=_known(known["variance"] / square if square else known["variance"]) if clean else None,
            within=max(0.0, 1 - known["flat"] / known["squares"]) if clean and places > 1 and known["squares"] else None,
            concentration=known["shares"] / known["shared"] if clean and known["shared"] else None,
            histogram=_histogram(values, known["least"], known["greatest"], len(values) < count) if some else None,
        )


def _known(number: float) -> float | None:
    return None if isnan(number) else number


def _whole(number: float) -> int | None:
    return None if isnan(number) else int(number)


def _histogram(values: Any, low: float, high: float, sampled: bool) -> Histogram:
    scale = BINS / (high - low) if high > low else 0.0
    places = ((values - low) * scale).astype("int64").clip(0, BINS - 1)
    counts = torch.bincount(torch.from_numpy(places), minlength=BINS)
    return Histogram(low, high, tuple(counts.tolist()), sampled)


class Accumulator:
    """The statistics of all layers, in the order in which they ran first."""

    def __init__(self) -> None:
        self._layers: dict[str, LayerStatistics] = {}
        self._last_weighted = 0  # place in the order

    def add(self, output: Output, layout: Layout) -> None:
        """Take in one output of one batch."""
        layer = self._layers.get(output.name)
        if layer is None:
            if output.module is not None and next(output.module.parameters(recurse=False), None) is not None:
                self._last_weighted = len(self._layers)
            after_norm = output.after_norm and output.activation is not None
            layer = LayerStatistics(output.name, output.type, layout, output.activation, after_norm)
            self._layers[output.name] = layer
        layer.add(output.tensor, layout)

    def result(self) -> tuple[LayerActivity, ...]:
        """Fetch everything, in two tensors a device, and return one row a layer."""
        packs = [layer.packed() for layer in self._layers.values()]
        fetched = iter(_fetched([numbers for numbers, _ in filter(None, packs)]))
        samples = iter(_fetched([values for _, values in filter(None, packs)]))
        return tuple(
            layer.activity(
                index,
                index >= self._last_weighted,
                *((), torch.empty(0).numpy()) if pack is None else (next(fetched).tolist(), next(samples)),
            )
            for index, (layer, pack) in enumerate(zip(self._layers.values(), packs, strict=True))
        )


def _fetched(tensors: list[Tensor]) -> list[Any]:
    """Bring tensors to the host, those of one device and type together."""
    groups: dict[tuple[torch.device, torch.dtype], list[int]] = {}
    for place, tensor in enumerate(tensors):
        groups.setdefault((tensor.device, tensor.dtype), []).append(place)
    found: list[Any] = [None] * len(tensors)
    for places in groups.values():
        parts = [tensors[place] for place in places]
        joined = torch.cat(parts).cpu().numpy() if not parts[0].is_cpu else None
        ends = accumulate(len(part) for part in parts)
        for place, end in zip(places, ends, strict=True):
            found[place] = tensors[place].numpy() if joined is None else joined[end - len(tensors[place]) : end]
    return found
