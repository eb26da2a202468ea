"""Every model of torchvision with convolutions, and a dozen of timm, is drawn: each layer, in each way, on pages fit for a screen."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
import torch
from PIL import Image
from torchvision.models import list_models  # noqa: TID253

from netlens.lenses.kernels.album import CONVOLUTIONS, Drawable, draw, drawn
from netlens.lenses.kernels.figures import Options
from netlens.lenses.kernels.layers import Weights, weights_of_model
from netlens.lenses.kernels.measure import measure
from netlens.lenses.kernels.report import LayerWeights
from netlens.loading.checkpoints.weights import on_meta
from netlens.loading.models import find_model
from netlens.loading.specs import parse_model_spec
from netlens.probing.untouched import seeded

pytestmark = pytest.mark.sweep

LARGEST = 100_000_000  # parameters
PAGE, SHEET = (1600, 2000), (1600, 4000)  # pixels across and down
WAYS: dict[str, dict[str, Any]] = {"default": {}, "pc1": {"summary": "pc1"}}
TIMM = [
    "resnet26d",
    "convnext_atto",
    "efficientnet_b0",
    "mobilenetv4_conv_small",
    "regnety_002",
    "vit_tiny_patch16_224",
    "swin_tiny_patch4_window7_224",
    "ghostnet_050",
    "repvgg_a0",
    "mixer_s32_224",
    "coat_lite_tiny",
    "nf_regnet_b0",
    "hrnet_w18_small",
    "lcnet_035",
]


class Desk:
    """Takes pictures instead of a folder, and keeps only what they are like."""

    def __init__(self) -> None:
        self.sizes: dict[str, tuple[int, int]] = {}
        self.blank: list[str] = []

    def reserve(self, names: Iterable[str]) -> None:
        assert list(names)

    def save(self, name: str, image: Image.Image, *, page: int = 1, prefer: bool = False, **facts: str) -> str:
        self.sizes[file := f"{name} {page}"] = image.size
        if len(image.getcolors(1 << 22) or "many") < 2:
            self.blank.append(file)
        return file


def pictures(weights: Weights, layers: tuple[LayerWeights, ...], *, against: bool = False, **options: Any) -> Desk:
    """Draw all that `netlens kernels` would draw."""
    desk = Desk()

    def array(index: int) -> Any:
        return lambda: weights.tensors[index].filters().detach().numpy()

    entries = [
        Drawable(layer, array(layer.index), array(layer.index) if against else None, layer.index == 0) for layer in drawn(layers, (), False)
    ]
    options = {"max_filters": 64, **options}
    for _ in draw(
        entries, layers, Options(**options), title="net", fft=True, compared=("one", "two"), alarms={}, folder=desk, step=lambda: None
    ):
        pass
    return desk


def check(weights: Weights) -> None:
    others = {tensor.name: tensor.read for tensor in weights.tensors}
    layers = measure(weights, others=others)
    convolutions = [layer.name for layer in layers if layer.kind in CONVOLUTIONS]
    assert {layer.change.relative for layer in layers if layer.change} == {0.0} and all(layer.change for layer in layers)
    for way, options in {**WAYS, "against": {"against": True}}.items():
        desk = pictures(weights, layers, **options)
        assert set(convolutions) - set(desk.sizes) == set(), way
        assert desk.blank == [], way
        for name, size in desk.sizes.items():
            limit = SHEET if name == "sheet" else PAGE
            assert size[0] <= limit[0] and size[1] <= limit[1], (way, name, size)


def weights_of(spec: str) -> Weights | None:
    """Build a model as netlens does; None: it is too large, or has no convolution."""
    named = find_model(parse_model_spec(spec), {})
    if sum(parameter.numel() for parameter in on_meta(named).parameters()) > LARGEST:
        return None
    with seeded(0):
        found = weights_of_model(named.build().eval())
    return found if any(tensor.kind in CONVOLUTIONS for tensor in found.tensors) else None


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", list_models())
def test_every_layer_of_torchvision_is_drawn_in_every_way(name):
    weights = weights_of(name)
    if weights is None:
        pytest.skip("no convolutions, or more than 100 M parameters")
    check(weights)


@pytest.mark.parametrize("name", TIMM)
def test_every_layer_of_timm_families_is_drawn_in_every_way(name):
    pytest.importorskip("timm", reason="in the dev extra")
    weights = weights_of(f"timm:{name}")
    assert weights is not None
    check(weights)
