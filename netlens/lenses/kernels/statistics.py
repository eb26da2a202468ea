"""One weight in numbers, each with a definition that does not depend on the scale or the size of the layer where that is possible."""

from __future__ import annotations

from dataclasses import replace
from math import inf, sqrt

import torch
from torch import Tensor

from netlens.lenses.kernels.elements import PIECE, Elements, Moments, elements, histogram, near_zero, outlier, strided, valley
from netlens.lenses.kernels.neighbours import smoothness
from netlens.lenses.kernels.report import Change, LayerWeights
from netlens.lenses.kernels.similar import similarity
from netlens.lenses.kernels.tensors import WeightTensor
from netlens.parts import Histogram

DEAD = 1e-3  # norm of a filter / RMS norm of the layer's filters (diagnostics: dead-filters)
LEAST = 4  # filters, and elements of each, below which a small filter means nothing


def measured(
    weight: WeightTensor, index: int, *, initial_std: float | None = None, initial_source: str = "", other: Tensor | None = None
) -> LayerWeights:
    """Read one weight and measure it.

    Args:
        weight: what to read.
        index: its place in the model.
        initial_std: what its initialisation gives, where that is known.
        initial_source: where `initial_std` comes from.
        other: the same weight of another checkpoint, as stored and of the same shape.
    """
    filters = weight.filters()
    change = None if other is None else compare(filters, replace(weight, read=lambda: other).filters())
    known = elements(filters)
    layer = replace(
        _unmeasured(weight, index),
        zeros=filters.numel() - int(torch.count_nonzero(filters)),
        nan=known.nan,
        infinite=known.infinite,
        initial_std=initial_std,
        initial_source=initial_source if initial_std is not None else "",
        change=change,
    )
    del filters
    return layer if known.moments is None else _among_filters(_of_elements(layer, known, known.moments), known, known.moments)


def _unmeasured(weight: WeightTensor, index: int) -> LayerWeights:
    filters, fan_in = weight.layout
    return LayerWeights(
        index=index,
        name=weight.name,
        type=weight.type,
        kind=weight.kind,
        shape=weight.shape,
        dtype=weight.dtype,
        filters=filters,
        fan_in=fan_in,
        groups=weight.groups,
        transposed=weight.transposed,
        trainable=weight.trainable,
        normalised=weight.normalised,
        head=weight.head,
        mean=None,
        std=None,
        rms=None,
        norm=None,
        least=None,
        greatest=None,
        zeros=0,
        nan=0,
        infinite=0,
        initial_std=None,
        initial_source="",
        gain=None,
        dead=0,
        duplicates=0,
        duplicate_cosine=None,
        largest_cosine=None,
        stable_rank=None,
        outlier=None,
        near_zero=None,
        valley=None,
        smoothness=None,
        smoothness_z=None,
        histogram=None,
        change=None,
    )


def _of_elements(layer: LayerWeights, known: Elements, found: Moments) -> LayerWeights:
    """Add what does not depend on the places of elements. gain = RMS * sqrt(fan_in)."""
    flat, scale = known.flat, known.scale
    sample = strided(flat)
    return replace(
        layer,
        mean=found.mean * scale,
        std=found.std * scale,
        rms=found.rms * scale,
        norm=found.norm * scale,
        least=found.least * scale,
        greatest=found.greatest * scale,
        histogram=Histogram(found.least * scale, found.greatest * scale, histogram(flat, found)),
        gain=None if layer.kind == "embedding" else found.rms * scale * sqrt(layer.fan_in),
        outlier=outlier(sample, max(-found.least, found.greatest)),
        near_zero=near_zero(flat, found.rms, layer.zeros),
        valley=valley(sample),
    )


def _among_filters(layer: LayerWeights, known: Elements, found: Moments) -> LayerWeights:
    """Add what tells filters, and places in them, apart; nothing is said of filters with non-finite elements."""
    rows = known.values.reshape(layer.groups, layer.filters // layer.groups, layer.fan_in)
    norms = torch.linalg.vector_norm(rows, dim=2)
    whole = torch.ones_like(norms, dtype=torch.bool) if known.finite is None else known.finite.reshape(rows.shape).all(dim=2)
    alike = similarity(rows, norms, whole)
    smooth, deviations = smoothness(known.values, found.rms)
    return replace(
        layer,
        dead=0 if layer.kind == "embedding" else dead(norms, whole, layer.fan_in),
        duplicates=alike.duplicates,
        duplicate_cosine=alike.threshold,
        largest_cosine=alike.largest,
        stable_rank=alike.stable_rank,
        smoothness=smooth,
        smoothness_z=deviations,
    )


def dead(norms: Tensor, whole: Tensor, fan_in: int) -> int:
    """Count filters with norm <= 1e-3 x RMS norm of all filters; none where all are 0, or where there are too few to compare.

    Args:
        norms: of the filters.
        whole: False for filters with non-finite elements.
        fan_in: elements of a filter.
    """
    size = float(norms.double().square().mean().sqrt())
    if fan_in < LEAST or norms.numel() < LEAST or not size:
        return 0
    return int(((norms <= DEAD * size) & whole).sum())


def compare(this: Tensor, other: Tensor) -> Change:
    """Return ||this - other|| / ||other||, the cosine between the two, and max |this - other|, over elements that are finite in both.

    Both are contiguous and of one shape; the sums are in float64.
    """
    sums, largest = torch.zeros(4, dtype=torch.float64), 0.0
    for left, right in zip(this.reshape(-1).split(PIECE), other.reshape(-1).split(PIECE), strict=True):
        known = left.isfinite() & right.isfinite()
        a, b = left.double().where(known, 0.0), right.double().where(known, 0.0)
        apart = a - b
        sums += torch.stack([apart @ apart, a @ a, b @ b, a @ b])
        largest = max(largest, float(apart.abs().max()) if len(apart) else 0.0)
    distance, own, others, product = sums.tolist()
    relative = sqrt(distance / others) if others else (inf if distance else 0.0)
    cosine = max(-1.0, min(1.0, product / sqrt(own) / sqrt(others))) if own and others else None
    return Change(relative, cosine, largest)
