"""Did you mean: the three rules, in their order."""

from __future__ import annotations

import pytest

from netlens.loading.suggest import closest, closest_names, did_you_mean

MODELS = [
    "alexnet",
    "efficientnet_b0",
    "fcos_resnet50_fpn",
    "resnet101",
    "resnet18",
    "resnet50",
    "swin_b",
    "vit_b_16",
    "vit_b_32",
    "vit_l_16",
]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        # 1: equal but for case and separators
        ("resnet-18", "resnet18"),
        ("ResNet_18", "resnet18"),
        ("vit_b16", "vit_b_16"),
        ("efficientnetb0", "efficientnet_b0"),
        ("EfficientNet B0", "efficientnet_b0"),
        # 2: a beginning before a part, the shorter name before the longer
        ("resnet", "resnet18"),  # and not the longer resnet101, which comes first in the list
        ("resnet10", "resnet101"),
        ("efficient", "efficientnet_b0"),
        ("resnet50_v2", "resnet50"),  # the known name is the beginning of what was typed
        ("fpn", "fcos_resnet50_fpn"),
        # 3: nearly equal letters
        ("resnt18", "resnet18"),
        ("alexnte", "alexnet"),
        # nothing is better than something far away; plain difflib at its default of 0.6 would offer vit_b_16
        ("vit-base", None),
        ("zebra", None),
        ("", None),
        ("r", None),
    ],
)
def test_closest(typed: str, meant: str | None):
    assert closest(typed, MODELS) == meant


def test_an_equal_name_hides_every_other_rule():
    """`vitb16` is also a part of `vit_b_16_swag`, and close to `vit_b_32`."""
    assert closest_names("vitb16", ["vit_b_16_swag", "vit_b_32", "vit_b_16"]) == ["vit_b_16"]


def test_at_most_so_many():
    assert closest_names("resnet", MODELS, most=2) == ["resnet18", "resnet50"]


def test_a_hint_says_otherwise_when_nothing_is_close():
    assert did_you_mean("num_clases", ["num_classes"], "no") == "did you mean 'num_classes'?"
    assert did_you_mean("zebra", ["num_classes"], "it takes num_classes") == "it takes num_classes"
