"""What is asked for and cannot be meant is refused before torch is imported."""

from __future__ import annotations

from typing import Any

import pytest

from netlens.errors import UsageError
from netlens.lenses.gradcam.request import Request
from tests.conftest import REPOSITORY

PHOTO = str(REPOSITORY / "sample_models" / "scenes" / "01-square.png")


def request(**asked: Any) -> Request:
    return Request.of({"model": "resnet18", "image": [PHOTO], **asked})


@pytest.mark.parametrize("method", [[","], [" "], [""], [",", " , "]])
def test_a_method_without_a_name(method):
    with pytest.raises(UsageError, match="--method names no method"):
        request(method=method)


@pytest.mark.parametrize("target", [[""], ["  "], [","], ["3", " , "]])
def test_a_target_without_a_name(target):
    with pytest.raises(UsageError, match="--target names no class"):
        request(target=target)


def test_names_and_numbers_with_commas():
    found = request(target=["3,7", "cat, tabby"], method=["gradcam,", "layercam"])
    assert (found.targets, [method.name for method in found.methods]) == (("3", "7", "cat, tabby"), ["gradcam", "layercam"])
    assert [method.name for method in request().methods] == ["gradcam"]


@pytest.mark.parametrize(("method", "allowed"), [(["gradcam"], False), ([], False), (["gradcam,scorecam"], True), (["all"], True)])
def test_channels_are_of_score_cam(method, allowed):
    if allowed:
        assert request(method=method, top_channels=8).top_channels == 8
    else:
        with pytest.raises(UsageError, match="--top-channels is about Score-CAM"):
            request(method=method, top_channels=8)
