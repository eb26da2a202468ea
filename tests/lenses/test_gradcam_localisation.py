"""Do maps point at what they are asked for? On scenes whose truth is known, with one object and with two, which only class maps tell apart.

Asked is for every object whose class is the network's best answer (one object), or one of its two best (two objects). A map hits if its
maximum, drawn over the picture, lies in that object's box.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import netlens
from sample_models import sick
from sample_models.scenes import CLASSES, Box, normalised, scene

SERIES = 31415  # of scenes that train.py neither trains nor measures on
METHODS = ("gradcam", "eigencam")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """So small a model is slower with two, where other tests run beside."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def points_into(heat: Tensor, box: Box) -> bool:
    """Tell whether the maximum of a map on the layer's grid, (h, w), lies in a box of the picture."""
    shown = F.interpolate(heat.clamp(min=0)[None, None], size=(64, 64), mode="bilinear", align_corners=False)[0, 0].numpy()
    row, column = np.unravel_index(shown.argmax(), shown.shape)
    left, top, right, bottom = box
    return bool(shown.max() > 0 and left <= column < right and top <= row < bottom)


@cache
def answers(objects: int) -> dict[str, list[bool]]:
    """Return for each method whether it hits, question by question."""
    scenes = [scene(SERIES, index, objects) for index in range(200 if objects == 1 else 120)]
    pictures = normalised(torch.from_numpy(np.stack([one.image for one in scenes])).permute(0, 3, 1, 2))
    model = sick.healthy().eval()
    with torch.no_grad():
        best = model(pictures).topk(objects).indices.tolist()
    found = netlens.gradcam(model, pictures, method=METHODS, target=range(len(CLASSES)))
    maps = {(one.sample, one.target.index, one.method): heat for one, heat in zip(found.report.maps, found.maps, strict=True)}
    return {
        method: [
            points_into(maps[sample, label, method], box)
            for sample, one in enumerate(scenes)
            for label, box in zip(one.labels, one.boxes, strict=True)
            if label in best[sample]
        ]
        for method in METHODS
    }


@pytest.mark.parametrize("objects", [1, 2])
def test_gradcam_points_at_the_object_that_is_asked_for(objects):
    hits = answers(objects)["gradcam"]
    assert len(hits) > 190 and np.mean(hits) >= 0.95


def test_a_map_that_knows_no_class_finds_a_single_object_and_fails_with_two():
    assert np.mean(answers(1)["eigencam"]) >= 0.95
    assert np.mean(answers(2)["eigencam"]) < 0.65
