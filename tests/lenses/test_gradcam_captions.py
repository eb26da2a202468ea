"""What stands beside a map: numbers of one unit, how many channels it is made of, and no number of what is not finite."""

from __future__ import annotations

import numpy as np
import pytest

from netlens.lenses.gradcam.captions import Drawn, Words, class_words
from netlens.lenses.gradcam.report import Class
from tests.lenses.gradcam_case import heat

RAW = np.array([[-3.0, 2.0], [0.5, -0.25]], np.float32)


def words(*methods: str, top_channels: int | None = None) -> Words:
    maps = [Drawn.of(heat(method=method, least=-3.0 - place), RAW, None, top_channels) for place, method in enumerate(methods)]
    return Words(maps, "resnet18", "cat.png")


def test_the_least_number_is_told_of_maps_of_one_unit():
    assert words("gradcam").foot() == "not drawn: negative numbers, down to −3"
    assert words("gradcam", "gradcam").foot() == "not drawn: negative numbers, down to −4"
    assert words("gradcam", "hirescam").foot() == "not drawn: negative numbers", "−4 would be in the units of one of them"


@pytest.mark.parametrize(("methods", "told"), [(("scorecam",), True), (("gradcam", "scorecam"), True), (("gradcam", "ablationcam"), False)])
def test_how_many_channels_score_cam_is_made_of(methods, told):
    assert ("Score-CAM of at most 16 channels" in words(*methods, top_channels=16).about()) is told
    assert "channels" not in words(*methods).about()


@pytest.mark.parametrize("found", [Class(0, None, float("nan"), float("nan")), Class(3, "cat", float("inf"), None)])
def test_no_class_is_named_by_an_output_that_is_not_finite(found):
    assert class_words(found) == "the model's output is not finite"
