"""What the report says of a map: its extremes, where it is greatest, which other map it equals, how far it can be believed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields

import torch
from torch import Tensor

from netlens.lenses.gradcam.measure import Map
from netlens.lenses.gradcam.methods import resized
from netlens.lenses.gradcam.report import Heatmap, MethodWorth, Worth

SAME = 1e-4  # of the maximum: what float32 leaves between maps that are equal by theory
Place = Callable[[float, float], tuple[float, float]]
Share = tuple[float, float]  # height and width of the grid's extent, in those of the input: more than 1 where the model pads it itself


def heatmap(made: Map, sample: int, layers: tuple[str, ...], at: Place, equals: str | None) -> Heatmap:
    """Describe one map.

    Args:
        made: the map.
        sample: of the report.
        layers: that it is made of.
        at: of a place in shares of the grid, column and row, where it lies on the photo or the input, in pixels.
        equals: an earlier method whose map is the same.
    """
    values = made.values
    finite = values[values.isfinite()]
    least, greatest = (float(finite.min()), float(finite.max())) if finite.numel() else (None, None)
    return Heatmap(
        sample=sample,
        target=made.target.found,
        asked=made.target.asked,
        method=made.method.name,
        layers=layers if made.method.layered else (),
        shape=tuple(values.shape),
        least=least,
        greatest=greatest,
        positive=float((values > 0).float().mean()),
        nonfinite=values.numel() - finite.numel(),
        peak=_peak(values, at) if greatest is not None and greatest > 0 else None,
        gradient=made.gradient,
        dead=made.dead,
        equals=equals,
    )


def _peak(values: Tensor, at: Place) -> tuple[int, int] | None:
    """Return the pixel in which the middle of the greatest cell lies; of a film, in its frame."""
    if values.dim() < 2:
        return None
    place = int(values.nan_to_num(-torch.inf, -torch.inf, -torch.inf).argmax()) % (values.shape[-1] * values.shape[-2])
    row, column = divmod(place, values.shape[-1])
    x, y = at((column + 0.5) / values.shape[-1], (row + 0.5) / values.shape[-2])
    return int(x), int(y)


def equal_to(made: Map, earlier: Iterable[Map]) -> str | None:
    """Return the first of the maps of the same question that is the same up to a positive factor; None for a blank map."""
    own = _scaled(made)
    for other in () if own is None else earlier:
        theirs = _scaled(other)
        if theirs is not None and own is not None and own.shape == theirs.shape and float((own - theirs).abs().max()) <= SAME:
            return other.method.name
    return None


def _scaled(made: Map) -> Tensor | None:
    positive = made.values.clamp(min=0)
    greatest = positive.max()
    return positive / greatest if torch.isfinite(greatest) and greatest > 0 else None


def on_input(values: Tensor, size: Sequence[int], share: Share) -> Tensor:
    """Bring a map (h, w) to the input's size, (H, W); what the model padded is cut off."""
    height, width = (max(1, round(side * part)) for side, part in zip(size, share, strict=True))
    return resized(values[None].float(), (height, width))[0, : size[0], : size[1]]


def of_methods(maps: Sequence[tuple[Heatmap, float]]) -> tuple[MethodWorth, ...]:
    """Return the mean worth of each method, in the order in which they were asked for; of maps with their seconds."""
    by_method: dict[str, list[tuple[Heatmap, float]]] = {}
    for found, seconds in maps:
        by_method.setdefault(found.method, []).append((found, seconds))
    return tuple(
        MethodWorth(method, len(own), _mean([found.worth for found, _ in own if found.worth]), sum(taken for _, taken in own) / len(own))
        for method, own in by_method.items()
    )


def _mean(found: Sequence[Worth]) -> Worth:
    known = {field.name: [value for each in found if (value := getattr(each, field.name)) is not None] for field in fields(Worth)}
    return Worth(**{name: sum(values) / len(values) if values else None for name, values in known.items()})
