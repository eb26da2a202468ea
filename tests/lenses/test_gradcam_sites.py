"""The layer that is chosen for networks of every kind, against what their authors' code says; and what `--layer` means."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netlens.errors import LayerNotFound, NetlensError, UsageError
from netlens.lenses.gradcam.recording import recorded
from netlens.lenses.gradcam.report import Layer
from netlens.lenses.gradcam.sites import Choice, candidates, chosen, named
from netlens.probing.cutting import cut
from sample_models.shapes import ShapeNet, ShapeViT


def score(output: Any) -> Tensor:
    """Class 1, summed over places where there are some."""
    tensor = output if isinstance(output, Tensor) else output.logits if hasattr(output, "logits") else output["out"]
    return tensor[:, 1].flatten(1).sum(1) if tensor.dim() > 2 else tensor[:, 1]


def choose(model: nn.Module, *args: Tensor, wanted: tuple[str, ...] = (), seed: int = 0) -> Choice:
    torch.manual_seed(seed)
    return chosen(model.eval(), args, {}, score, wanted)


def pictures(size: int = 64, channels: int = 3) -> Tensor:
    return torch.randn(1, channels, size, size, generator=torch.Generator().manual_seed(0))


# --- by test


def _torchvision(name: str, **arguments: Any) -> nn.Module:
    import torchvision

    torch.manual_seed(0)
    return getattr(torchvision.models, name)(**arguments)


def _vit(*, head: bool) -> nn.Module:
    model = _torchvision("VisionTransformer", image_size=64, patch_size=16, num_layers=3, num_heads=3, hidden_dim=48, mlp_dim=96)
    if head:
        nn.init.normal_(model.heads.head.weight)
    return model


def _swin() -> nn.Module:
    return _torchvision(
        "SwinTransformer", patch_size=[4, 4], embed_dim=12, depths=[1, 1, 2], num_heads=[1, 2, 4], window_size=[4, 4], num_classes=5
    )


def _convnext() -> nn.Module:
    from torchvision.models.convnext import CNBlockConfig

    return _torchvision("ConvNeXt", block_setting=[CNBlockConfig(16, 32, 2), CNBlockConfig(32, None, 2)], num_classes=5)


def _maxvit() -> nn.Module:
    return _torchvision(
        "MaxVit", input_size=(64, 64), stem_channels=8, partition_size=2, block_channels=[16, 16], block_layers=[1, 2], head_dim=8,
        stochastic_depth_prob=0.1, num_classes=5,
    )  # fmt: skip


def _vgg() -> nn.Module:
    """As torchvision's: blocks of convolutions with in-place ReLUs, pooled to a fixed grid."""
    features = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(4))
    model = nn.Sequential(features, nn.AdaptiveAvgPool2d((7, 7)), nn.Flatten(), nn.Linear(6 * 49, 8), nn.ReLU(True), nn.Linear(8, 5))
    torch.manual_seed(0)
    return model


@pytest.mark.parametrize(
    ("build", "name", "grid"),
    [
        (lambda: _torchvision("resnet18"), "layer4", (2, 2)),
        (lambda: _torchvision("densenet121", num_classes=5), ":relu", (2, 2)),  # after `features`, in the forward of the model
        (lambda: _torchvision("mobilenet_v3_small"), "features", (2, 2)),
        (lambda: _torchvision("squeezenet1_1"), "features", (3, 3)),  # not `classifier.1`, the map of the classes
        (lambda: _torchvision("googlenet", init_weights=False, aux_logits=False), "inception5b", (2, 2)),
        (_vgg, "0", (16, 16)),  # not the pool of 7 x 7
        (_swin, "norm", (4, 4)),  # not its permutation
        (_convnext, "features", (8, 8)),
        (_maxvit, "blocks.1", (8, 8)),
        (lambda: _vit(head=True), "encoder.layers.encoder_layer_2.ln_1", (4, 4)),  # what follows sees the class token alone
        (ShapeNet, "layer3", (8, 8)),
        (ShapeViT, "blocks.1.norm1", (8, 8)),
    ],
)
def test_the_layer_that_is_found(build: Callable[[], nn.Module], name: str, grid: tuple[int, ...]) -> None:
    choice = choose(build(), pictures())
    (layer,) = choice.layers
    assert (layer.name, layer.grid, layer.chosen) == (name, grid, True)
    size = " x ".join(map(str, grid))
    assert layer.reason.startswith("the last of ")
    skipped = "; not classifier.1, which holds the scores of the classes" if name == "features" and grid == (3, 3) else ""
    assert layer.reason.endswith(f" layers with a map ({size}) on which the class score depends{skipped}")


@pytest.mark.parametrize(
    ("name", "size", "arguments", "found", "grid"),
    [
        ("vit_tiny_patch16_224", 64, {"depth": 2}, "blocks.1.norm1", (4, 4)),
        ("vit_little_patch16_reg4_gap_256", 64, {"depth": 2}, "blocks", (4, 4)),  # the mean over patches: after the last block
        ("deit_tiny_distilled_patch16_224", 64, {"depth": 2}, "blocks.1.norm1", (4, 4)),
        ("cait_xxs24_224", 64, {"depth": 2}, "blocks", (4, 4)),  # before the blocks that look at the class token alone
        ("swin_tiny_patch4_window7_224", 56, {"depths": (1, 1, 2)}, "norm", (4, 4)),
    ],
)
def test_transformers_of_timm(name: str, size: int, arguments: dict[str, Any], found: str, grid: tuple[int, int]) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = timm.create_model(name, img_size=size, num_classes=5, **arguments)
    for head in model.modules():
        if isinstance(head, nn.Linear) and head.out_features == 5:
            nn.init.normal_(head.weight)
    (layer,) = choose(model, pictures(size)).layers
    assert (layer.name, layer.grid) == (found, grid)


def test_outputs_that_are_objects() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=32, patch_size=8
    )
    torch.manual_seed(0)
    (layer,) = choose(transformers.ViTForImageClassification(config), pictures(32)).layers
    assert (layer.type, layer.grid, layer.channels) == ("LayerNorm", (4, 4), 16)
    assert layer.name.endswith("layernorm_before") and ".1." in layer.name


class Segmenter(nn.Module):
    """As torchvision's FCN: a backbone that returns a dict, a head of a convolution for each class, then resizing."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(inplace=True))
        self.classifier = nn.Sequential(nn.Conv2d(6, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(), nn.Conv2d(8, 4, 1))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"out": F.interpolate(self.classifier(self.backbone(x)), size=x.shape[-2:], mode="bilinear")}


class AddedScores(nn.Module):
    """As LR-ASPP: maps of the classes from two depths are added, so that one of them is not the last layer with weights."""

    def __init__(self) -> None:
        super().__init__()
        self.low, self.high = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 6, 3, 2, 1)
        self.low_classifier, self.high_classifier = nn.Conv2d(3, 4, 1), nn.Conv2d(6, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        low = self.low_classifier(x)
        return (low + F.interpolate(self.high_classifier(F.relu(self.high(x))), size=x.shape[-2:])).mean((2, 3))


def test_maps_of_the_classes_are_passed_over() -> None:
    torch.manual_seed(0)
    assert choose(Segmenter(), pictures(16)).layers[0].name == "classifier.2"
    model = AddedScores().eval()
    assert choose(model, pictures(16)).layers[0].name == ":relu"
    reasons = {layer.name: layer.reason for layer in candidates(model, (pictures(16),), {})}
    assert reasons["high_classifier"] == "holds the scores of the classes"


def test_channels_as_many_as_an_embedding_has_numbers_are_no_scores() -> None:
    """Pooled and normalised: the last layer is the embedding's own; as scores of 16 classes it would hold them."""

    class Embedder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU())

        def forward(self, x: Tensor) -> Tensor:
            return F.normalize(self.body(x).mean((2, 3)), dim=1)

    torch.manual_seed(0)
    model = Embedder().eval()
    (layer,) = chosen(model, (pictures(16),), {}, score, scored=False).layers
    assert (layer.name, layer.grid, layer.reason) == ("body", (4, 4), "the last of 4 layers with a map (4 x 4) on which the score depends")
    assert not any(each.reason for each in candidates(model, (pictures(16),), {}, scored=False))
    (layer,) = chosen(model, (pictures(16),), {}, score).layers
    assert layer.name == "body.1" and layer.reason.endswith("; not body.2, which holds the scores of the classes")


def test_detections_are_no_scores_of_classes() -> None:
    """Boxes are (D, 4), and the layer has 4 channels."""

    class Detector(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3))

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            found = self.body(x).mean((2, 3))
            return {"boxes": found, "scores": found[:, 0], "labels": torch.ones(1, dtype=torch.int64)}

    choice = chosen(Detector().eval(), (pictures(16),), {}, lambda output: output["scores"])
    assert [layer.name for layer in choice.layers] == ["body"]


def test_signals_videos_and_one_channel() -> None:
    sound = nn.Sequential(nn.Conv1d(2, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(6, 3))
    layer = choose(sound, torch.randn(1, 2, 20)).layers[0]
    assert (layer.name, layer.shape, layer.grid) == ("1", (6, 18), (18,))
    video = nn.Sequential(nn.Conv3d(3, 6, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(6, 3))
    assert choose(video, torch.randn(1, 3, 4, 8, 6)).layers[0].grid == (4, 8, 6)
    gray = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3))
    assert choose(gray, torch.randn(1, 1, 8, 12)).layers[0].grid == (6, 10)


def test_a_head_of_zeros_gives_no_gradient_and_that_is_said() -> None:
    model = _vit(head=False)
    assert not model.heads.head.weight.any()
    (layer,) = choose(model, pictures()).layers
    assert layer.name == "encoder.layers.encoder_layer_2.ln_1"
    assert layer.reason.endswith("on which the input of heads.head depends; the class score depends on none")


def test_a_forward_that_switches_gradients_off() -> None:
    class Off(ShapeNet):
        @torch.no_grad()
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images)

    class OffAfterwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.body(x)
            with torch.no_grad():
                return self.head(x.mean((2, 3)))

    assert choose(Off(), pictures()).layers[0].name == "layer3"
    (layer,) = choose(OffAfterwards(), pictures(), wanted=("body",)).layers
    assert "the forward switches gradients off after it" in layer.reason
    assert choose(OffAfterwards(), pictures()).layers[0].reason.endswith("; the class score depends on none")


# --- the list


def by_name(layers: list[Layer]) -> dict[str, Layer]:
    assert [layer.index for layer in layers] == list(range(len(layers)))
    return {layer.name: layer for layer in layers}


def test_every_tensor_is_listed_once_under_the_name_of_the_outermost_container() -> None:
    layers = by_name(candidates(_torchvision("resnet18").eval(), (pictures(),), {}))
    assert layers["layer4"].type == "Sequential"
    assert layers["layer4"].shape == (512, 2, 2)
    assert layers["layer4"].layout == "channels first"
    assert not {"layer4.1.relu#2", "layer4.1", "avgpool", "fc"} & set(layers)
    # bn1 is read before its ReLU writes over it; the ReLU of a block runs twice.
    assert {"conv1", "bn1", "relu", "maxpool", "layer1.0.conv1", "layer1.0.relu#1", "layer1.0", "layer1.1.relu#1", "layer1"} <= set(layers)


def test_tokens_and_channels_last() -> None:
    layers = by_name(candidates(_vit(head=True).eval(), (pictures(),), {}))
    assert (layers["encoder.layers.encoder_layer_1"].layout, layers["conv_proj"].layout) == ("tokens", "channels first")
    assert layers["encoder.layers.encoder_layer_1"].shape == (17, 48)
    layers = by_name(candidates(_swin().eval(), (pictures(),), {}))
    assert (layers["norm"].layout, layers["norm"].shape) == ("channels last", (4, 4, 48))
    assert layers["permute"].reason == "the numbers of norm in another order"


def test_an_empty_shortcut_is_no_name_to_call_a_layer_by() -> None:
    """`shortcut` returns what it is given, beside the main path: a cut there would miss the rest."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.shortcut = nn.Conv2d(4, 4, 3, padding=1), nn.Sequential()

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x) + self.shortcut(x)

    model = nn.Sequential(nn.Conv2d(3, 4, 3), Block(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    choice = choose(model, pictures(8), wanted=("1.shortcut",))
    assert choice.layers[0].name == "0"
    assert choice.sites[0].module is model[0]


# --- asked for


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    return _torchvision("resnet18").eval()


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        (("layer4",), ["layer4"]),
        (("layer4.1.relu#2",), ["layer4"]),  # the same tensor
        (("layer4.1.relu",), ["layer4"]),  # the last call
        (("layer4.1.relu#1",), ["layer4.1.relu#1"]),
        (("layer3.0.downsample",), ["layer3.0.downsample"]),
        (("1.conv1",), ["layer1.1.conv1", "layer2.1.conv1", "layer3.1.conv1", "layer4.1.conv1"]),
        (("downsample.0",), ["layer2.0.downsample.0", "layer3.0.downsample.0", "layer4.0.downsample.0"]),
        (("layer4.?",), ["layer4.0", "layer4"]),
        (("MaxPool2d",), ["maxpool"]),
        (("0", "-1"), ["conv1", "layer4"]),
        (("layer4", "layer2"), ["layer2", "layer4"]),  # in the order in which they run
    ],
)
def test_what_a_pattern_means(resnet: nn.Module, wanted: tuple[str, ...], names: list[str]) -> None:
    choice = choose(resnet, pictures(), wanted=wanted)
    assert [layer.name for layer in choice.layers] == names
    assert [site.name for site in choice.sites] == names
    every = by_name(candidates(resnet, (pictures(),), {}))
    assert [layer.index for layer in choice.layers] == [every[name].index for name in names]
    assert all(layer.chosen and not layer.reason for layer in choice.layers)


def test_of_nested_layers_that_one_pattern_means_the_outermost_are_taken(resnet: nn.Module) -> None:
    """Fused, a block and its own parts would be many votes of one. The parts are counted here: tensors with a grid inside each stage."""
    every = candidates(resnet, (pictures(),), {})
    choice = choose(resnet, pictures(), wanted=("layer*",))
    assert [layer.name for layer in choice.layers] == ["layer1", "layer2", "layer3", "layer4"]
    for layer in choice.layers:
        parts = sum(other.name.startswith(f"{layer.name}.") for other in every)
        assert layer.reason == f"{parts} parts of it that the pattern means as well, left out"
    both = choose(resnet, pictures(), wanted=("layer4", "layer4.0.conv1"))
    assert [(layer.name, layer.reason) for layer in both.layers] == [("layer4.0.conv1", ""), ("layer4", "")]  # asked for one by one


def test_misses(resnet: nn.Module) -> None:
    with pytest.raises(LayerNotFound, match="layer5") as caught:
        choose(resnet, pictures(), wanted=("layer5",))
    assert "layer" in caught.value.hint
    with pytest.raises(NetlensError, match="'fc' puts out 1000 numbers, which lie on no grid") as no_grid:
        choose(resnet, pictures(), wanted=("fc",))
    assert no_grid.value.hint == "the nearest that has one is 'layer4': 512 channels of 2 x 2"
    with pytest.raises(NetlensError, match="'avgpool' puts out 512 x 1 x 1 numbers"):
        choose(resnet, pictures(), wanted=("avgpool",))
    with pytest.raises(LayerNotFound, match="index"):
        choose(resnet, pictures(), wanted=("58",))
    with pytest.raises(NetlensError, match="no layer of Linear puts out values on a grid"):
        choose(nn.Linear(3, 2), torch.randn(1, 3))


def test_a_container_that_returns_something_else_means_the_last_layer_in_it() -> None:
    class Pyramid(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fine, self.coarse = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)

        def forward(self, x: Tensor) -> Any:
            x = self.fine(x)
            return (part for part in (x, self.coarse(x)))

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pyramid, self.head = Pyramid(), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(sum(part.mean((2, 3)) for part in self.pyramid(x)))

    assert [layer.name for layer in choose(Net(), pictures(12), wanted=("pyramid",)).layers] == ["pyramid.coarse"]


def test_layers_that_are_asked_for_although_they_show_little_carry_a_warning() -> None:
    model = _vit(head=True)
    (layer,) = choose(model, pictures(), wanted=("encoder.ln",)).layers
    assert layer.reason == "the class score does not depend on it"
    dead = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    (layer,) = choose(dead, pictures(8), wanted=("1",)).layers
    assert layer.reason == "holds the scores of the classes"


# --- what the rest of the lens does with it


@pytest.mark.parametrize(
    ("build", "tail"),
    [
        (ShapeNet, lambda model, a: model.head(a.mean((2, 3)))),
        (_swin, lambda model, a: model.head(a.mean((1, 2)))),
        (lambda: _torchvision("densenet121", num_classes=5), lambda model, a: model.classifier(a.mean((2, 3)))),
    ],
)
def test_gradients_at_the_chosen_layer_are_those_of_the_tail_alone(build: Any, tail: Any) -> None:
    torch.manual_seed(0)
    model = build().eval()
    batch = torch.randn(3, 3, 64, 64)
    choice = choose(model, pictures())
    (site,) = choice.sites
    with torch.no_grad(), cut(model, choice.sites, ((batch,), {})) as run:
        gradient = run.gradients(run.output[:, 1])[site.name]
    activation = run.taken[site.name].tensor.detach().requires_grad_()
    torch.testing.assert_close(tail(model, activation), run.output.detach(), rtol=1e-5, atol=1e-5)
    (expected,) = torch.autograd.grad(tail(model, activation)[:, 1].sum(), activation)
    expected = expected if site.layout.kind == "channels first" else expected.movedim(-1, 1)
    torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-8)
    assert run.maps(site.name).shape == (3, site.layout.channels, *site.layout.grid)


def test_the_same_layers_for_inputs_of_another_size() -> None:
    model = _vit(head=True).eval()
    first = choose(model, pictures()).sites
    assert named(model, (pictures(),), {}, [first[0].name]) == first
    model = ShapeNet().eval()
    (site,) = named(model, (torch.randn(1, 3, 64, 96),), {}, ["layer3"])
    assert site.layout.grid == (8, 12)
    with pytest.raises(NetlensError, match="'layer3' has no grid with an input of this size"):
        named(model, (torch.randn(1, 3, 8, 8),), {}, ["layer3"])


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_wrappers_scripts_and_modes() -> None:
    torch.manual_seed(0)
    model = ShapeNet().eval()
    for wrapped in (nn.DataParallel(model), torch.compile(model)):
        assert choose(wrapped, pictures()).sites[0].module is model.layer3[2].act
    with torch.inference_mode():
        assert choose(model, pictures().clone()).layers[0].name == "layer3"
    model.layer3 = torch.jit.script(model.layer3)  # what is inside a script is not seen
    assert choose(model, pictures()).layers[0].name == "layer3"
    with pytest.raises(UsageError, match="TorchScript"):
        choose(torch.jit.script(ShapeNet()), pictures())


def test_the_pass_leaves_no_trace() -> None:
    model = ShapeNet().eval()
    called = nn.Module.__call__
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    chosen(model, (pictures(),), {}, score)
    recording = recorded(model, ((pictures(),), {}))
    assert all(row.site.module in set(model.modules()) for row in recording.rows)
    assert torch.equal(torch.get_rng_state(), state)
    assert nn.Module.__call__ is called
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
