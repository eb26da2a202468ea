"""How far the maps of one run can be believed: what the score makes of their pixels, and whether they follow the weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from netlens.lenses.gradcam.answers import Answer, Target
from netlens.lenses.gradcam.batches import Sample, some_of
from netlens.lenses.gradcam.choices import Method
from netlens.lenses.gradcam.facts import on_input
from netlens.lenses.gradcam.measure import Explained, Map, Plan, explain
from netlens.lenses.gradcam.report import Sanity, Worth
from netlens.lenses.gradcam.sanity import sanity
from netlens.lenses.gradcam.settings import Settings
from netlens.lenses.gradcam.worth import energy, pointing, worth
from netlens.probing.cutting import Arguments
from netlens.probing.replacing import Site

CHECKED = 4  # samples whose maps are made again with other weights


def worth_of(
    made: Map, sample: Sample, answer: Answer, model: nn.Module, settings: Settings, around: Callable[[], Any], batch_size: int
) -> Worth | None:
    """Measure how far a map can be believed, as far as it is asked for; None also where the input is no picture.

    Args:
        made: the map.
        sample: that it is of.
        answer: of its batch.
        model: which is asked about altered pictures.
        settings: what is asked.
        around: a context for each pass: autocast.
        batch_size: altered pictures in one pass.
    """
    picture = sample.picture
    if picture is None or picture.dim() != 3 or made.values.dim() != 2 or not (settings.score or settings.boxes):
        return None
    heat = on_input(made.values, (picture.shape[-2], picture.shape[-1]), sample.share)
    boxes = sample.objects(settings.boxes, made.target)
    if not settings.score:
        return Worth(pointing=pointing(heat, boxes), energy=energy(heat, boxes))

    def probability(pictures: Tensor) -> Tensor:
        with torch.no_grad(), around():
            return answer.again(model(pictures.to(picture))).probabilities([made.target] * len(pictures))

    return worth(heat, picture, probability, boxes, batch_size=batch_size)


def checked(
    model: nn.Module,
    method: Method,
    inputs: Arguments,
    made: Explained,
    sites: Sequence[Site],
    chunk: int,
    around: Callable[[], Any],
    *,
    seed: int,
) -> Sanity:
    """Make maps of the first samples of a batch again, of the same classes, while the weights are drawn anew with `seed`.

    Args:
        model: it is left as it was.
        method: of the maps.
        inputs: of the batch.
        made: what was made of it.
        sites: the layers.
        chunk: altered pictures in one pass.
        around: a context for each pass: autocast.
        seed: of the new weights.
    """
    plan, some = Plan((method,), chunk), some_of(inputs, made.answer.samples, 0, CHECKED)
    asked: dict[int, dict[int, Target]] = {}
    for each in made.maps:
        asked.setdefault(each.sample, {})[id(each.target)] = each.target

    def again() -> list[Tensor]:
        found = explain(model, some, sites, made.answer.again, lambda _answer, index: list(asked[index].values()), plan, around)
        return [each.values for each in found.maps]  # a map that its ReLU makes blank would pass

    return Sanity(method.name, *sanity(model, again, seed=seed))
