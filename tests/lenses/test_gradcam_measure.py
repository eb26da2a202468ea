"""`netlens.gradcam` as a whole: every method against its paper in float64 on real networks, captum, models in odd states, other answers.

The papers are loops over channels in test_gradcam_methods.py; activations and gradients come from networks that are cut in two by hand.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import netlens
from netlens.errors import LayerNotFound, NetlensError
from netlens.lenses.gradcam.choices import METHODS
from netlens.lenses.gradcam.explorer import Explorer
from netlens.lenses.gradcam.rules import diagnose
from netlens.lenses.gradcam.settings import Settings
from netlens.loading.feeding import Batch
from sample_models.shapes import ShapeViT
from tests.lenses.test_gradcam_methods import SLOW, combined, enlarged, slow_ablationcam, slow_eigencam, slow_gradcam, slow_scorecam
from tests.test_untouched import differences, state_of, state_of_the_process

Array = np.ndarray[Any, Any]
Tail = Callable[[Tensor], Tensor]  # an activation (N, C, h, w) -> scores (N, K)
NEAR = dict.fromkeys(METHODS, 1e-4) | {"scorecam": 2e-3, "ablationcam": 2e-3}  # of the map's maximum


# -- networks, and how each is cut in two -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Case:
    """A network, and its two parts with a layer's output between them."""

    model: nn.Module
    x: Tensor
    layer: str
    split: Callable[[Any, Tensor], tuple[Tensor, Tail]]  # of a float64 copy: the layer's output (N, C, h, w), and what follows
    target: int
    without: frozenset[str] = frozenset()  # methods that it does not allow


def with_random_statistics(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in ((module.running_mean, -1, 1), (module.running_var, 0.5, 2)):
                nn.init.uniform_(tensor, low, high)
        if isinstance(module, (nn.BatchNorm2d, nn.LayerNorm)):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    return model.eval()


def resnet() -> nn.Module:
    from torchvision.models import resnet18

    torch.manual_seed(0)
    return with_random_statistics(resnet18(num_classes=10))


def resnet_layer4() -> Case:
    def split(net: Any, x: Tensor) -> tuple[Tensor, Tail]:
        stem = net.maxpool(net.relu(net.bn1(net.conv1(x))))
        return net.layer4(net.layer3(net.layer2(net.layer1(stem)))), lambda a: net.fc(a.mean((2, 3)))

    return Case(resnet(), torch.randn(2, 3, 33, 49), "layer4", split, 3, frozenset({"legrad"}))


def resnet_layer3() -> Case:
    def split(net: Any, x: Tensor) -> tuple[Tensor, Tail]:
        stem = net.maxpool(net.relu(net.bn1(net.conv1(x))))
        return net.layer3(net.layer2(net.layer1(stem))), lambda a: net.fc(net.layer4(a).mean((2, 3)))

    return Case(resnet(), torch.randn(2, 3, 33, 49), "layer3", split, 3, frozenset({"legrad", "cam"}))


def overwritten() -> Case:
    """A convolution whose output the next layer writes over."""
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(3, 8, 5, stride=3), nn.ReLU(inplace=True), nn.Conv2d(8, 12, 3, stride=2), nn.ReLU(inplace=True)),
        *(nn.AdaptiveAvgPool2d((2, 3)), nn.Flatten(), nn.Linear(72, 5)),
    )

    def split(net: Any, x: Tensor) -> tuple[Tensor, Tail]:
        return net[2](F.relu(net[0](x))), lambda a: net[6](F.adaptive_avg_pool2d(F.relu(a), (2, 3)).flatten(1))

    return Case(model.eval(), torch.randn(2, 3, 48, 80), "2", split, 1, frozenset({"legrad", "cam"}))


def hardswish() -> Case:
    """Negative activations, one channel, a picture that is no square."""
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(1, 8, 5, stride=4), nn.Hardswish(), nn.Conv2d(8, 10, 3, stride=2), nn.Hardswish()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(10, 7), nn.Hardswish(), nn.Linear(7, 4)),
    )

    def split(net: Any, x: Tensor) -> tuple[Tensor, Tail]:
        return net[:4](x), lambda a: net[6:](a.mean((2, 3)))

    return Case(model.eval(), 2 * torch.randn(2, 1, 40, 72), "3", split, 2, frozenset({"legrad", "cam"}))


def attended(attn: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """The attention map of a layer of ShapeViT, (N, heads, L, L), and its values, (N, heads, L, E): written out."""
    samples, length, width = x.shape
    query, key, value = attn.qkv(x).view(samples, length, 3, attn.heads, width // attn.heads).permute(2, 0, 3, 1, 4)
    return (query @ key.transpose(2, 3) / math.sqrt(query.shape[-1])).softmax(-1), value


def mixed(block: Any, tokens: Tensor, weights: Tensor, value: Tensor) -> Tensor:
    """The rest of a block of ShapeViT."""
    tokens = tokens + block.attn.proj((weights @ value).transpose(1, 2).reshape(len(weights), -1, tokens.shape[-1]))
    return tokens + block.mlp(block.norm2(tokens))


def first_tokens(net: Any, x: Tensor) -> Tensor:
    patches = net.patch_embed(net.stem(x)).flatten(2).transpose(1, 2)
    return torch.cat([net.cls_token.expand(len(x), -1, -1), patches], 1) + net.pos_embed


def vit() -> Case:
    torch.manual_seed(2)
    model = with_random_statistics(ShapeViT(width=32))
    nn.init.normal_(model.head.weight)

    def split(net: Any, x: Tensor) -> tuple[Tensor, Tail]:
        tokens = net.blocks[0](first_tokens(net, x)).detach()  # the graph begins at the layer, not on the shortcut around it
        block, normed = net.blocks[1], net.blocks[1].norm1(tokens)

        def tail(a: Tensor) -> Tensor:
            inside = torch.cat([normed[:, :1].detach().expand(len(a), -1, -1), a.flatten(2).transpose(1, 2)], 1)
            after = mixed(block, tokens, *attended(block.attn, inside))
            return net.head(net.norm(after)[:, 0])

        return normed[:, 1:].transpose(1, 2).unflatten(2, (8, 8)), tail

    return Case(model, torch.randn(2, 3, 64, 64), "blocks.1.norm1", split, 5, frozenset({"cam"}))


CASES = {make.__name__: make for make in (resnet_layer4, resnet_layer3, overwritten, hardswish, vit)}


@cache
def case(name: str) -> Case:
    return CASES[name]()


# -- the papers, in float64 ---------------------------------------------------------------------------------------------------------------


@cache
def parts(given: Case, sample: int) -> tuple[Any, Tensor, Tensor, Tail, Tensor]:
    """The network and a sample in float64; the layer's output as a leaf, what follows it, and the scores of that."""
    net, x = copy.deepcopy(given.model).double(), given.x[sample : sample + 1].double()
    activation, tail = given.split(net, x)
    leaf = activation.detach().requires_grad_()
    scores = tail(leaf)[0]
    torch.testing.assert_close(scores, net(x)[0])
    return net, x, leaf, tail, scores


def signed(given: Case, sample: int, method: str) -> Array:
    """Make the map of one sample by the equation of the paper, before its ReLU."""
    net, x, leaf, tail, scores = parts(given, sample)
    if method == "fullgrad":
        return fullgrad(net, x, given.target)
    if method == "legrad":
        return legrad(net, x, given.target)
    a = leaf.detach()[0].numpy()
    if method == "cam":
        return combined(a, net.fc.weight[given.target].tolist())
    if method == "eigencam":
        return slow_eigencam(a)
    if method == "scorecam":
        return slow_scorecam(a, masked(net, x, given.target), x.shape[2:])
    if method == "ablationcam":
        whole = float(scores[given.target].detach())
        with torch.no_grad():
            found = slow_ablationcam(a, lambda kept: whole if kept is a else float(tail(torch.from_numpy(kept)[None])[0, given.target]))
        return found * math.copysign(1, whole)  # divided by |y|: what takes from a negative score is not evidence for it
    if method == "finercam":
        near = sorted((index for index in range(len(scores)) if index != given.target), key=lambda i: abs(scores[i] - scores[given.target]))
        return slow_gradcam(a, gradient(scores[given.target] - 0.6 * sum(scores[index] for index in near[:3]) / 3, leaf))
    return SLOW[method](a, gradient(scores[given.target], leaf))


def gradient(score: Tensor, leaf: Tensor) -> Array:
    return torch.autograd.grad(score, leaf, retain_graph=True)[0][0].numpy()


def masked(net: nn.Module, x: Tensor, target: int) -> Callable[[Array], float]:
    """The score of a picture times a mask; that of nothing is computed once."""
    with torch.no_grad():
        nothing = float(net(x * 0)[0, target])

    def score(mask: Array) -> float:
        with torch.no_grad():
            return float(net(x * torch.from_numpy(mask))[0, target]) if mask.any() else nothing

    return score


def fullgrad(net: nn.Module, x: Tensor, target: int) -> Array:
    """Srinivas and Fleuret 2019, section 4: psi(x * dy/dx) + sum over layers and channels of psi(b * dy/dz), at places of the picture."""
    kept: list[tuple[Tensor, Tensor]] = []

    def keep(module: Any, _given: Any, z: Tensor) -> Tensor:
        bias = getattr(module, "bias", None)
        if isinstance(module, nn.BatchNorm2d):
            bias = module.bias - module.weight * module.running_mean / (module.running_var + module.eps).sqrt()
        if bias is not None:
            kept.append((bias.detach(), z))
        return z.clone()

    net = copy.deepcopy(net)
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.BatchNorm2d, nn.Linear, nn.LayerNorm)):
            module.register_forward_hook(keep)
    leaf = x.clone().requires_grad_()
    by_input, *gradients = torch.autograd.grad(net(leaf)[0, target], [leaf, *(z for _, z in kept)])
    total = psi((x * by_input)[0].numpy(), x.shape[2:])
    for (bias, _), slope in zip(kept, gradients, strict=True):
        if slope.dim() == 3:  # tokens: the class token has no place
            slope = slope[:, 1:].transpose(1, 2).unflatten(2, (8, 8))
        if slope.dim() == 4 and slope[0, 0].numel() > 1:
            total += psi((bias[:, None, None] * slope[0]).numpy(), x.shape[2:])
    return total


def psi(term: Array, size: tuple[int, ...]) -> Array:
    """Rescale the magnitude of each channel to 0..1, and add the channels; to enlarge is linear, and comes last."""
    total = np.zeros(term.shape[1:])
    for channel in np.abs(term):
        spread = channel.max() - channel.min()
        total += (channel - channel.min()) / spread if spread > 1e-9 * channel.max() else 0
    return enlarged(total, size)


def legrad(net: Any, x: Tensor, target: int) -> Array:
    """Bousselham et al. 2024, eq. 2-7: E_l = mean of (dy_l / dA_l)+ over heads and queries; their mean over layers."""
    tokens, layers = first_tokens(net, x).detach(), []
    for block in net.blocks:
        weights, value = attended(block.attn, block.norm1(tokens))
        leaf = weights.detach().requires_grad_()
        after = mixed(block, tokens, leaf, value.detach())
        slopes = gradient(net.head(net.norm(after))[0, 0, target], leaf)  # (heads, queries, keys)
        layers.append(np.maximum(slopes, 0).mean((0, 1))[1:].reshape(8, 8))
        tokens = after.detach()
    return np.mean(layers, 0)


SLOWLY = ("scorecam", "ablationcam")
LONG = {name: [pytest.mark.sweep] for name in CASES if name.startswith("resnet")}  # hundreds of passes in float64


@pytest.mark.parametrize(
    ("name", "slow"), [*((name, False) for name in CASES), *(pytest.param(name, True, marks=LONG.get(name, [])) for name in CASES)]
)
def test_every_method_is_its_paper(name, slow):
    given = case(name)
    methods = [method for method in METHODS if method not in given.without and (method in SLOWLY) == slow]
    x = given.x[:1] if slow and name.startswith("resnet") else given.x
    found = netlens.gradcam(given.model, x, target=given.target, method=methods, layer=given.layer)
    assert [(row.sample, row.method) for row in found.report.maps] == [(sample, method) for sample in range(len(x)) for method in methods]
    for row, heat in zip(found.report.maps, found.maps, strict=True):
        truth = signed(given, row.sample, row.method)
        rectified = np.maximum(truth, 0) if METHODS[row.method].rectified else truth
        assert heat.dtype == torch.float32 and rectified.max() > 0
        error = np.abs(heat.numpy() - rectified).max() / rectified.max()
        assert error <= NEAR[row.method], (row.method, row.sample, error)
        assert (row.least, row.greatest) == pytest.approx((truth.min(), truth.max()), rel=3e-3, abs=NEAR[row.method] * np.abs(truth).max())
        assert row.target.index == given.target and row.nonfinite == 0 and not row.dead


@pytest.mark.parametrize("name", CASES)
def test_what_a_network_does_not_allow_is_said(name):
    given = case(name)
    for method in given.without:
        with pytest.raises(NetlensError) as raised:
            netlens.gradcam(given.model, given.x, method=method, layer=given.layer)
        assert raised.value.hint


@pytest.mark.parametrize("name", CASES)
def test_captum_agrees(name):
    attributions = pytest.importorskip("captum.attr")
    given = case(name)
    if name == "vit":
        pytest.skip("captum averages over the wrong axis of tokens")
    layer = given.model.get_submodule(given.layer)
    expected = attributions.LayerGradCam(given.model, layer).attribute(given.x, given.target, relu_attributions=True)[:, 0].detach()
    products = attributions.LayerGradientXActivation(given.model, layer).attribute(given.x, given.target).sum(1).detach()
    found = netlens.gradcam(given.model, given.x, target=given.target, method=("gradcam", "hirescam"), layer=given.layer).maps
    for sample in (0, 1):
        for heat, theirs in ((found[2 * sample], expected[sample]), (found[2 * sample + 1], products[sample])):
            assert (heat - theirs).abs().max() <= 1e-4 * theirs.max()


# -- several of everything ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["resnet_layer3", "overwritten", "hardswish", "vit"])
def test_a_batch_is_its_samples_one_by_one(name):
    given = case(name)
    quick = [method.name for method in METHODS.values() if method.name not in given.without and not method.slow]
    slow = [] if name.startswith("resnet") else ["scorecam", "ablationcam"]
    methods, targets = [*quick, *slow], [0, given.target]
    whole = netlens.gradcam(given.model, given.x, target=targets, method=methods, layer=given.layer)
    parts = [
        netlens.gradcam(given.model, given.x[i : i + 1], target=targets, method=methods, layer=given.layer) for i in range(len(given.x))
    ]
    questions = [(row.sample, row.target.index, row.method) for row in whole.report.maps]
    assert questions == [(i, target, method) for i in (0, 1) for target in dict.fromkeys(targets) for method in methods]
    for row, heat, alone in zip(whole.report.maps, whole.maps, [heat for part in parts for heat in part.maps], strict=True):
        near = 20 * NEAR[row.method] if row.method in ("gradcam++", "xgradcam") else NEAR[row.method]  # quotients of small differences
        assert (heat - alone).abs().max() <= near * max(heat.abs().max(), alone.abs().max()), (row.method, row.sample)


def test_each_sample_has_its_own_top_prediction():
    given = case("overwritten")
    x = torch.cat([given.x, torch.randn(6, 3, 48, 80, generator=torch.Generator().manual_seed(5)) * 3])
    found = netlens.gradcam(given.model, x, layer="2")
    scores = copy.deepcopy(given.model).double()(x.double())
    assert [row.target.index for row in found.report.maps] == scores.argmax(1).tolist() and len(set(scores.argmax(1).tolist())) > 1
    for row, likely in zip(found.report.maps, scores.softmax(1), strict=True):
        assert row.target.probability == pytest.approx(float(likely.detach().max()), rel=1e-4) and row.asked == "top prediction"
    own = [replaced_target(given, int(index), x[i : i + 1]) for i, index in enumerate(scores.argmax(1))]
    for heat, truth in zip(found.maps, own, strict=True):
        assert np.abs(heat.numpy() - np.maximum(truth, 0)).max() <= 1e-4 * np.abs(truth).max()


def replaced_target(given: Case, target: int, x: Tensor) -> Array:
    return signed(Case(given.model, x, given.layer, given.split, target), 0, "gradcam")


def test_several_layers_are_fused_of_maps_scaled_by_their_maxima():
    given = case("resnet_layer3")
    found = netlens.gradcam(given.model, given.x, target=3, layer=["layer4", "layer3"])
    alone = [netlens.gradcam(given.model, given.x, target=3, layer=name).maps for name in ("layer3", "layer4")]
    assert [layer.name for layer in found.report.layers] == ["layer3", "layer4"]
    for sample, heat in enumerate(found.maps):
        scaled = [enlarged((part[sample] / part[sample].max()).double().numpy(), (3, 4)) for part in alone]
        np.testing.assert_allclose(heat.numpy(), (scaled[0] + scaled[1]) / 2, atol=1e-5)


def test_maps_that_are_equal_by_theory_are_marked():
    given = case("resnet_layer4")
    found = netlens.gradcam(given.model, given.x, target=3, method=("gradcam", "hirescam", "xgradcam", "layercam", "cam"), layer="layer4")
    assert {row.method: row.equals for row in found.report.maps} == {
        "gradcam": None,
        "hirescam": "gradcam",
        "xgradcam": "gradcam",
        "layercam": None,
        "cam": "gradcam",
    }
    assert [finding.code for finding in diagnose(found.report) if finding.code == "equal-maps"]


# -- models in odd states -----------------------------------------------------------------------------------------------------------------


def training(model: nn.Module) -> nn.Module:
    return model.train()


def frozen(model: nn.Module) -> nn.Module:
    return model.requires_grad_(False)


def parallel(model: nn.Module) -> nn.Module:
    return nn.DataParallel(model)


def compiled(model: nn.Module) -> nn.Module:
    return torch.compile(model, backend="eager")


def compiled_inside(model: nn.Module) -> nn.Module:
    for name, child in list(model.named_children())[:1]:
        setattr(model, name, torch.compile(child, backend="eager"))
    return model


@pytest.mark.parametrize("around", [nullcontext, torch.no_grad, torch.inference_mode], ids=["plain", "no_grad", "inference_mode"])
@pytest.mark.parametrize("change", [training, frozen, parallel, compiled, compiled_inside], ids=lambda change: change.__name__)
@pytest.mark.parametrize("name", ["overwritten", "vit"])
def test_the_state_of_the_model_changes_nothing_and_is_not_changed(name, change, around):
    given = case(name)
    methods = [method for method in METHODS if method not in given.without]
    expected = netlens.gradcam(given.model, given.x, target=given.target, method=methods, layer=given.layer)
    model = change(copy.deepcopy(given.model))
    before, process = state_of(model), state_of_the_process()
    with around():
        found = netlens.gradcam(model, given.x, target=given.target, method=methods, layer=given.layer)
    assert differences(before, state_of(model)) == [] and differences(process, state_of_the_process()) == []
    for row, heat, other in zip(expected.report.maps, found.maps, expected.maps, strict=True):
        assert (heat - other).abs().max() <= NEAR[row.method] * other.abs().max(), row.method
        assert not heat.requires_grad


def test_a_model_and_a_picture_made_in_inference_mode():
    given = case("overwritten")
    with torch.inference_mode():
        model, x = overwritten().model, given.x.clone()
    found = netlens.gradcam(model, x, target=1, method=("gradcam", "fullgrad", "scorecam", "ablationcam"), layer="2")
    expected = netlens.gradcam(given.model, given.x, target=1, method=("gradcam", "fullgrad", "scorecam", "ablationcam"), layer="2")
    for heat, other in zip(found.maps, expected.maps, strict=True):
        torch.testing.assert_close(heat, other)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", ["resnet_layer4", "overwritten", "vit"])
def test_half_precision_is_near_and_float32_outside(name, dtype):
    """Score-CAM and Ablation-CAM weigh scores of few digits: theirs must be there, and finite."""
    given = case(name)
    model, x = copy.deepcopy(given.model).to(dtype), given.x.to(dtype)
    methods = ("gradcam", "hirescam", "layercam", "eigencam", *(() if name.startswith("resnet") else ("scorecam", "ablationcam")))
    found = netlens.gradcam(model, x, target=given.target, method=methods, layer=given.layer)
    for row, heat in zip(found.report.maps, found.maps, strict=True):
        assert heat.dtype == torch.float32 and heat.isfinite().all()
        if row.method not in ("scorecam", "ablationcam"):
            truth = signed(given, row.sample, row.method)
            shown = np.maximum(truth, 0) if METHODS[row.method].rectified else truth
            assert np.abs(heat.numpy() - shown).max() <= 0.1 * np.abs(truth).max(), row.method
    assert found.report.run.dtype == str(dtype).removeprefix("torch.")


def test_a_float64_model_keeps_its_digits_inside():
    given = case("hardswish")
    found = netlens.gradcam(copy.deepcopy(given.model).double(), given.x.double(), target=2, layer="3")
    for row in found.report.maps:
        truth = signed(given, row.sample, "gradcam")
        assert (row.least, row.greatest) == pytest.approx((truth.min(), truth.max()), rel=1e-10)


@pytest.mark.parametrize("error", [ValueError("a mistake"), KeyboardInterrupt()], ids=["mistake", "interrupt"])
def test_a_model_that_raises_is_left_as_it_came(error):
    class Raising(nn.Sequential):
        passes = 0

        def forward(self, x: Tensor) -> Tensor:
            if len(x) > 2:  # in a pass of Score-CAM
                raise error
            return super().forward(x)

    model = Raising(*overwritten().model.train())
    before, process = state_of(model), state_of_the_process()
    with pytest.raises(type(error)):
        netlens.gradcam(model, case("overwritten").x, method=("gradcam", "scorecam"))
    assert differences(before, state_of(model)) == [] and differences(process, state_of_the_process()) == []


# -- other answers ------------------------------------------------------------------------------------------------------------------------


class Body(nn.Module):
    """What the models below have in common: a layer of 4 channels at half the size of the picture."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.conv = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.head = nn.Conv2d(4, 3, 3, padding=1)

    def grid(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv(x))


class Segmenter(Body):
    """Scores of 3 classes at every place, by a dict."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"out": F.interpolate(self.head(self.grid(x)), x.shape[2:], mode="bilinear")}


class Detector(Body):
    """Finds a box wherever the picture is bright on average; its confidence depends on all of it."""

    def forward(self, images: Any) -> list[dict[str, Tensor]]:
        scores = self.head(self.grid(images)).tanh().mean((2, 3)).sigmoid()  # (N, 3)
        boxes = torch.tensor([[0.0, 0.0, 8.0, 8.0], [8.0, 0.0, 16.0, 8.0], [0.0, 8.0, 16.0, 16.0]], dtype=scores.dtype)
        kept = [range(3) if bright else range(0) for bright in images.mean((1, 2, 3)) > 0]
        return [
            {"boxes": boxes[list(keep)], "labels": torch.tensor(list(keep), dtype=torch.long) + 1, "scores": own[list(keep)]}
            for keep, own in zip(kept, scores, strict=True)
        ]


class Binary(Body):
    """One logit, (N,)."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.grid(x)).tanh().mean((1, 2, 3)) * 30


def by_hand(model: Body, x: Tensor, score: Callable[[Tensor], Tensor]) -> Array:
    """Grad-CAM of one sample, by loops; `score` is of the output of `conv`'s ReLU."""
    net = copy.deepcopy(model).double()
    leaf = net.grid(x.double()).detach().requires_grad_()
    return slow_gradcam(leaf.detach()[0].numpy(), gradient(score(leaf), leaf))


def same(heat: Tensor, truth: Array) -> None:
    assert heat.shape == truth.shape and np.abs(heat.numpy() - np.maximum(truth, 0)).max() <= 1e-4 * np.abs(truth).max()


def test_a_class_of_a_segmentation_is_explained_over_its_region():
    model, x = Segmenter().eval(), torch.randn(2, 3, 16, 24)
    found = netlens.gradcam(model, x, target=[0, 1, 2], layer=":relu")
    net = copy.deepcopy(model).double()
    regions = net(x.double())["out"].argmax(1)
    assert found.report.run.output == "class map in 'out'" and len(found.maps) == 6
    for row, heat in zip(found.report.maps, found.maps, strict=True):
        index, region = row.target.index, regions[row.sample] == row.target.index
        assert region.any()

        def score(leaf: Tensor, index: int = index, region: Tensor = region) -> Tensor:
            return F.interpolate(net.head(leaf), (16, 24), mode="bilinear")[0, index][region].sum()

        same(heat, by_hand(model, x[row.sample : row.sample + 1], score))


def test_a_box_of_a_detector_is_explained_by_its_confidence():
    model, x = Detector().eval(), torch.rand(2, 3, 16, 16)
    found = netlens.gradcam(model, x, target=[1, 3], layer=":relu")
    net = copy.deepcopy(model).double()
    assert found.report.run.output == "detections" and [row.target.index for row in found.report.maps] == [1, 3, 1, 3]
    for row, heat in zip(found.report.maps, found.maps, strict=True):
        at = row.target.index - 1
        same(
            heat,
            by_hand(model, x[row.sample : row.sample + 1], lambda leaf, at=at: net.head(leaf).tanh().mean((2, 3)).sigmoid()[0, at]),
        )


def test_a_picture_without_detections_is_told_and_leaves_the_others_alone():
    model, x = Detector().eval(), torch.rand(4, 3, 16, 16)
    x[0], x[2] = -x[0], -x[2]
    found = netlens.gradcam(model, x, layer=":relu")
    assert [row.sample for row in found.report.maps] == [1, 3] and [shot.name for shot in found.report.shots] == [
        f"sample {i}" for i in range(4)
    ]
    assert [note for note in found.report.notes if "detects nothing" in note and "sample 0" in note]
    alone = netlens.gradcam(model, x[[1, 3]], layer=":relu")
    assert all(torch.allclose(heat, other, rtol=1e-5, atol=1e-9) for heat, other in zip(found.maps, alone.maps, strict=True))
    with pytest.raises(NetlensError, match="detects nothing"):
        netlens.gradcam(model, -x[[1, 3]], layer=":relu")


def test_a_detector_of_torchvision():
    from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn

    torch.manual_seed(0)
    model = fasterrcnn_mobilenet_v3_large_320_fpn(
        weights=None, weights_backbone=None, box_score_thresh=0.0, num_classes=5, min_size=96, max_size=96
    )
    before = state_of(model)
    found = netlens.gradcam(model, torch.rand(2, 3, 80, 96), target="#1", method=("gradcam", "layercam"))
    assert len(found.maps) == 4 and found.report.run.output == "detections"
    assert all(heat.isfinite().all() and row.gradient for heat, row in zip(found.maps, found.report.maps, strict=True))
    assert differences(before, state_of(model)) == []


def test_a_single_logit_speaks_for_two_classes():
    model, x = Binary().eval(), torch.randn(2, 3, 16, 24)
    found = netlens.gradcam(model, x, target=["positive", "negative"], layer=":relu")
    net = copy.deepcopy(model).double()
    for row, heat in zip(found.report.maps, found.maps, strict=True):
        sign = {"positive": 1, "negative": -1}[row.target.name or ""]
        same(
            heat,
            by_hand(model, x[row.sample : row.sample + 1], lambda leaf, sign=sign: sign * 30 * net.head(leaf).tanh().mean((1, 2, 3))[0]),
        )
        logit = 30 * float(net.head(net.grid(x[row.sample : row.sample + 1].double())).tanh().mean().detach())
        assert row.target.probability == pytest.approx(1 / (1 + math.exp(-sign * logit)), rel=1e-4)


class Embedder(Body):
    """A vector of 3 numbers, beside the map that it is the mean of."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        grid = self.head(self.grid(x)).tanh()
        return {"grid": grid, "embedding": grid.mean((2, 3))}


@pytest.mark.parametrize("around", [nullcontext, torch.inference_mode], ids=["plain", "inference_mode"])
def test_likeness_to_another_picture(around):
    """The cosine of the angle between two vectors, written out."""
    model, x, other = Embedder().train(), torch.randn(2, 3, 16, 24), torch.randn(1, 3, 16, 24)
    before = state_of(model)
    with around():
        found = netlens.gradcam(model, x, against=other, layer=":relu")
    net = copy.deepcopy(model).double()
    with torch.no_grad():
        reference = net(other.double())["embedding"][0]

    def likeness(leaf: Tensor) -> Tensor:
        vector = net.head(leaf).tanh().mean((2, 3))[0]
        return (vector * reference).sum() / (vector.square().sum().sqrt() * reference.square().sum().sqrt())

    assert found.report.run.output == "embedding in 'embedding'" and differences(before, state_of(model)) == []
    for row, heat in zip(found.report.maps, found.maps, strict=True):
        picture = x[row.sample : row.sample + 1]
        same(heat, by_hand(model, picture, likeness))
        assert row.target.score == pytest.approx(float(likeness(net.grid(picture.double())).detach()), rel=1e-4)
    with pytest.raises(NetlensError, match="2 samples"):
        netlens.gradcam(model, x, against=x)


def test_a_place_of_a_segmentation():
    model, x = Segmenter().eval(), torch.randn(1, 3, 16, 24)
    found = netlens.gradcam(model, x, target=1, point=(20, 3), layer=":relu")
    net = copy.deepcopy(model).double()
    same(found.maps[0], by_hand(model, x, lambda leaf: F.interpolate(net.head(leaf), (16, 24), mode="bilinear")[0, 1, 3, 20]))


def test_films_have_maps_of_frames():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv3d(2, 6, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(6, 3)).eval()
    x = torch.randn(2, 2, 4, 10, 12)
    found = netlens.gradcam(model, x, target=1, method=("gradcam", "cam", "scorecam", "fullgrad"), layer="1")
    net = copy.deepcopy(model).double()
    for row, heat in zip(found.report.maps, found.maps, strict=True):
        assert row.shape == (4, 10, 12)
        if row.method in ("gradcam", "cam"):
            a = net[:2](x[row.sample : row.sample + 1].double())[0].detach().numpy()
            truth = combined(a, (net[4].weight[1] / (480 if row.method == "gradcam" else 1)).tolist())
            shown = np.maximum(truth, 0) if row.method == "gradcam" else truth
            assert np.abs(heat.numpy() - shown).max() <= 1e-4 * np.abs(truth).max()


class Counting(nn.Module):
    """Called twice in one forward, and puts out a tuple."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.conv, self.head = nn.Conv2d(3, 3, 3, padding=1), nn.Linear(3, 4)

    def forward(self, x: Tensor, *, gain: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.tanh(self.conv(torch.tanh(self.conv(x))) * gain)
        return self.head(x.mean((2, 3))), x


def test_a_layer_that_is_called_twice_and_an_input_by_name():
    model, x, gain = Counting().eval(), torch.randn(2, 3, 8, 9), torch.full((2, 1, 1, 1), 2.0)
    net = copy.deepcopy(model).double()
    for name, calls in (("conv#1", 1), ("conv#2", 2), ("conv", 2)):
        found = netlens.gradcam(model, x, kwargs={"gain": gain}, target=2, output="0", layer=name, method=("gradcam", "ablationcam"))
        for row, heat in zip(found.report.maps, found.maps, strict=True):
            value = x[row.sample : row.sample + 1].double()
            leaf = net.conv(value if calls == 1 else torch.tanh(net.conv(value))).detach().requires_grad_()

            def score(leaf: Tensor, calls: int = calls) -> Tensor:
                second = leaf if calls == 2 else net.conv(torch.tanh(leaf))
                return net.head(torch.tanh(second * 2).mean((2, 3)))[0, 2]

            a = leaf.detach()[0].numpy()
            if row.method == "gradcam":
                truth = slow_gradcam(a, gradient(score(leaf), leaf))
            else:  # of a class whose score is negative it is divided by its magnitude
                truth = slow_ablationcam(a, lambda kept, score=score: float(score(torch.from_numpy(kept)[None]).detach())) * math.copysign(
                    1, float(score(leaf).detach())
                )
            assert np.abs(heat.numpy() - np.maximum(truth, 0)).max() <= NEAR[row.method] * np.abs(truth).max(), (name, row.method)


# -- CAM, and what ends in a finding ------------------------------------------------------------------------------------------------------


def pooled(classes: int = 4) -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, classes)).eval()


def test_cam_of_a_single_logit_speaks_for_two_classes():
    model, x = pooled(1), torch.randn(2, 3, 9, 11)
    found = netlens.gradcam(model, x, target=["positive", "negative"], method="cam", layer="1")
    a = copy.deepcopy(model)[:2].double()(x.double()).detach().numpy()
    for row, heat in zip(found.report.maps, found.maps, strict=True):
        truth = combined(a[row.sample], model[4].weight[0].tolist()) * (1 if row.target.name == "positive" else -1)
        assert np.abs(heat.numpy() - truth).max() <= 1e-4 * np.abs(truth).max()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("way", ["dtype", "autocast"])
def test_cam_is_allowed_in_half_precision(dtype, way):
    model, x = pooled(), torch.randn(8, 3, 9, 11)
    truth = [combined(a, model[4].weight[2].tolist()) for a in copy.deepcopy(model)[:2].double()(x.double()).detach().numpy()]
    if way == "dtype":
        model, x = model.to(dtype), x.to(dtype)
    with torch.autocast("cpu", dtype) if way == "autocast" else nullcontext():
        maps = netlens.gradcam(model, x, target=2, method="cam", layer="1").maps
    for heat, true in zip(maps, truth, strict=True):
        assert np.abs(heat.numpy() - true).max() <= 0.02 * np.abs(true).max()


def test_cam_is_refused_where_the_head_is_not_linear_in_the_means():
    for head in (nn.LayerNorm(6), nn.ReLU()):
        model = pooled()
        model = nn.Sequential(*model[:4], head, model[4]).eval()
        nn.init.normal_(model[0].bias, -0.3)
        model[1] = nn.Identity()  # means of both signs, which the ReLU after them changes
        with pytest.raises(NetlensError, match="CAM needs scores"):
            netlens.gradcam(model, torch.randn(4, 3, 9, 11), method="cam", layer="0")


def test_a_dead_layer_has_blank_maps_by_every_method_and_that_is_found():
    model = pooled()
    nn.init.constant_(model[0].bias, -1e3)
    found = netlens.gradcam(model, torch.randn(2, 3, 9, 11), method="all", layer="1")
    layered = [(row, heat) for row, heat in zip(found.report.maps, found.maps, strict=True) if METHODS[row.method].layered]
    assert len(layered) == 20 and not any(heat.any() for _, heat in layered) and all(row.dead for row, _ in layered)
    assert "dead-layer" in [finding.code for finding in diagnose(found.report)]


def test_weights_that_are_not_numbers_are_found_and_no_mistake_of_the_user():
    model = pooled()
    model[0].weight.data[0, 0, 0, 0] = torch.nan
    found = netlens.gradcam(model, torch.randn(2, 3, 9, 11), method="all")
    assert {row.method for row in found.report.maps} >= {"cam", "gradcam", "eigencam", "scorecam", "ablationcam"}
    assert all(row.nonfinite and row.peak is None for row in found.report.maps if METHODS[row.method].layered)
    assert [finding.code for finding in diagnose(found.report)] == ["output-nonfinite"]


def test_slow_methods_of_several_layers_are_fused_of_their_own_maps():
    model, x = pooled(), torch.randn(2, 3, 9, 11)
    methods = ("scorecam", "ablationcam")
    fused = netlens.gradcam(model, x, target=1, method=methods, layer=["0", "1"]).maps
    parts = [netlens.gradcam(model, x, target=1, method=methods, layer=name).maps for name in ("0", "1")]
    for heat, *alone in zip(fused, *parts, strict=True):
        scaled = [part / part.max() if part.max() > 0 else part for part in alone]
        torch.testing.assert_close(heat, sum(scaled) / 2, rtol=1e-4, atol=1e-4)


def test_time_is_told_of_each_map():
    class Slow(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            time.sleep(0.05)
            return super().forward(x)

    layers = nn.Conv1d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(6, 4)  # no picture: no pass measures a map
    settings = Settings((METHODS["gradcam"], METHODS["scorecam"]), score=True)
    explorer, x = Explorer(Slow(*layers), settings, lambda _: None, nullcontext, chunk=6), torch.randn(2, 3, 9)
    explorer.add(Batch((x,), {}), ((x,), {}), None)
    seconds = {row.method: row.seconds for row in explorer.methods}
    assert seconds["gradcam"] >= 0.025 and seconds["scorecam"] >= 0.05  # one pass for two samples, and one for each with 6 masks


# -- mistakes -----------------------------------------------------------------------------------------------------------------------------


class Lists(nn.Sequential):
    """Returns its scores as a list of rows."""

    def forward(self, x: Tensor) -> Any:
        return list(super().forward(x))


class Saves(nn.Sequential):
    """Computes its layers again in the backward pass."""

    def forward(self, x: Tensor) -> Any:
        from torch.utils.checkpoint import checkpoint

        pool, flat, head = (self[place] for place in (2, 3, 4))
        return head(flat(pool(checkpoint(lambda x: self[1](self[0](x)), x, use_reentrant=False))))


@pytest.mark.parametrize(
    ("build", "x", "message"),
    [
        (Lists, torch.zeros(3, 3, 9, 11), "4 rows for 3 samples"),
        (Saves, torch.zeros(3, 3, 9, 11), "computed twice, by torch.utils.checkpoint"),
        (nn.Sequential, torch.zeros(0, 3, 9, 11), "no sample"),
        (nn.Sequential, np.zeros((1, 3, 9, 11)), "no sample"),
    ],
)
def test_what_cannot_be_explained_is_said(build, x, message):
    with pytest.raises(NetlensError, match=message) as raised:
        netlens.gradcam(build(*pooled()), x)
    assert raised.value.hint


def test_classes_and_layers_are_asked_for_in_many_forms():
    model, x = pooled(), torch.randn(1, 3, 9, 11)

    def asked(**options: Any) -> list[tuple[int, tuple[str, ...]]]:
        return [(row.target.index, row.layers) for row in netlens.gradcam(model, x, **options).report.maps]

    for target in (2, "2", np.int64(2), torch.tensor(2), [2], (np.int64(2),), torch.tensor([2]), np.array([2])):
        assert asked(target=target, layer="1") == [(2, ("1",))]
    assert asked(target=range(4), layer=0) == [(index, ("0",)) for index in range(4)]  # the first layer, as in `--layer 0`
    assert asked(target=0, method=["gradcam", "gradcam"], layer=[1]) == [(0, ("1",))]
    assert asked(target=0, method=[], layer=[]) == asked(target=0)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"method": "grad-cam"}, NetlensError, "grad-cam"),
        ({"layer": "layer9"}, LayerNotFound, "no layer named 'layer9'"),
        ({"target": 10}, NetlensError, "10"),
        ({"target": "tabby"}, NetlensError, "tabby"),
        ({"output": "logits"}, NetlensError, "logits"),
        ({"layer": "fc"}, NetlensError, "no grid"),
    ],
)
def test_mistakes_are_named(options, error, message):
    with pytest.raises(error, match=message) as raised:
        netlens.gradcam(case("resnet_layer4").model, case("resnet_layer4").x, **options)
    assert raised.value.hint


def test_nothing_is_kept_alive():
    import gc
    import weakref

    def ask() -> Iterator[weakref.ref[Any]]:
        given = overwritten()
        netlens.gradcam(given.model, given.x, method=[name for name in METHODS if name not in given.without])
        yield from (weakref.ref(item) for item in (*given.model.modules(), *given.model.parameters(), given.x))

    kept = list(ask())
    gc.collect()
    assert [item() for item in kept if item() is not None] == []
