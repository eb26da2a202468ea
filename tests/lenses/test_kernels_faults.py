"""Planted faults, and healthy models: what the kernels lens says of real weights.

On the small network each fault is measured twice: slowly, by the definitions in `kernels_case`, and by the lens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from math import inf, nan

import pytest
import torch
from torch import nn

from netlens.findings import CODES, Finding, Severity
from netlens.lenses.kernels.layers import weights_of_model
from netlens.lenses.kernels.measure import initial_scales, kernels, measure
from netlens.lenses.kernels.report import KernelsReport
from netlens.lenses.kernels.rules import diagnose
from netlens.loading.checkpoints.weights import on_meta
from netlens.loading.models import NamedModel, find_model
from netlens.loading.specs import parse_model_spec
from netlens.probing.untouched import seeded
from sample_models import sick
from tests.lenses.kernels_case import codes, slow_report

INFO, WARNING, ERROR = Severity.INFO, Severity.WARNING, Severity.ERROR


def verdict(findings: tuple[Finding, ...]) -> list[tuple[str, Severity]]:
    assert {finding.code for finding in findings} <= set(CODES)
    return [(finding.code, finding.severity) for finding in findings]


# --- planted faults on a small network


def small() -> nn.Sequential:
    """A network in which every rule has its place; nothing is normalised but the first layer."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 5),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, groups=4),
        nn.ReLU(),
        nn.ConvTranspose2d(32, 24, 3),
        nn.Flatten(),
        nn.Linear(96, 40),
        nn.ReLU(),
        nn.Linear(40, 10),
    )


Plant = Callable[[nn.Sequential], None]


def at(place: int, change: Callable[[torch.Tensor], object]) -> Plant:
    def plant(net: nn.Sequential) -> None:
        with torch.no_grad():
            change(net[place].weight)

    return plant


def one_direction(weight: torch.Tensor) -> None:
    """One direction in all filters and noise of 8 % of its energy: the rank is 1.08, and the largest cosines about 0.97."""
    rows = weight.view(len(weight), -1)
    direction = rows[0] / rows[0].norm()
    rows.copy_(torch.linspace(-1, 1, len(rows))[:, None] * direction + 0.0166 * torch.randn_like(rows))


def shrink_half(weight: torch.Tensor) -> None:
    weight.mul_(torch.where(torch.rand_like(weight) < 0.5, 1e-6, 1.0))


def freeze_statistics(net: nn.Sequential) -> None:
    net[1].weight.data.uniform_(0.5, 1.5)


def poison_statistics(net: nn.Sequential) -> None:
    net[1].running_var[3] = -0.1


PLANTED: dict[str, tuple[Plant, str, Severity, str]] = {
    "a NaN": (at(3, lambda w: w[5, 2, 1, 1].fill_(nan)), "weight-nonfinite", ERROR, "3"),
    "an Inf in a linear layer": (at(9, lambda w: w[5, 2].fill_(inf)), "weight-nonfinite", ERROR, "9"),
    "all NaN but one": (at(3, lambda w: w.view(-1)[1:].fill_(nan)), "weight-nonfinite", ERROR, "3"),
    "zeros": (at(3, lambda w: w.zero_()), "weight-all-zero", INFO, "3"),
    "a constant": (at(3, lambda w: w.fill_(0.05)), "constant-weights", ERROR, "3"),
    "a constant with a little noise": (
        at(9, lambda w: w.fill_(0.05).add_(torch.randn_like(w), alpha=1e-6)),
        "constant-weights",
        ERROR,
        "9",
    ),
    "two dead filters": (at(3, lambda w: w[:2].mul_(1e-5)), "dead-filters", WARNING, "3"),
    "filters of zeros": (at(3, lambda w: w[:20].zero_()), "dead-filters", ERROR, "3"),
    "all filters but one dead": (at(3, lambda w: w[1:].mul_(1e-6)), "dead-filters", ERROR, "3"),
    "dead rows of a linear layer": (at(9, lambda w: w[10:20].mul_(1e-8)), "dead-filters", WARNING, "9"),
    "dead outputs of a transposed convolution": (at(7, lambda w: w[:, :6].mul_(1e-6)), "dead-filters", WARNING, "7"),
    "four equal filters": (at(3, lambda w: w[:4].copy_(w[:1].clone().expand_as(w[:4]))), "duplicate-filters", WARNING, "3"),
    "all filters equal": (at(3, lambda w: w.copy_(w[:1].clone().expand_as(w))), "duplicate-filters", ERROR, "3"),
    "filters that are multiples": (
        at(3, lambda w: w.copy_(w[:1].clone() * torch.linspace(0.2, 2, 32)[:, None, None, None])),
        "duplicate-filters",
        ERROR,
        "3",
    ),
    "equal filters within the groups": (at(5, lambda w: w.copy_(w[::8].clone().repeat_interleave(8, 0))), "duplicate-filters", ERROR, "5"),
    "equal outputs of a transposed convolution": (at(7, lambda w: w[:, 12:].copy_(w[:, :12].clone())), "duplicate-filters", ERROR, "7"),
    "rank one": (at(9, one_direction), "low-rank", WARNING, "9"),
    "one weight of 50": (at(3, lambda w: w[0, 0, 0, 0].fill_(50.0)), "weight-outlier", WARNING, "3"),
    "one weight of a million": (at(3, lambda w: w[0, 0, 0, 0].fill_(1e6)), "weight-outlier", ERROR, "3"),
    "a tenth of the scale's thousandth": (at(3, lambda w: w.mul_(1e-4)), "init-scale", ERROR, "3"),
    "twenty times the scale": (at(5, lambda w: w.mul_(20)), "init-scale", WARNING, "5"),
    "a thousand times the scale in a linear layer": (at(9, lambda w: w.mul_(1000)), "init-scale", ERROR, "9"),
    "pruned by magnitude": (at(3, lambda w: w.masked_fill_(w.abs() < w.abs().median() * 1.5, 0)), "weight-pruned", INFO, "3"),
    "half of the weights next to zero": (at(3, shrink_half), "weight-spike", WARNING, "3"),
    "a negative variance": (poison_statistics, "bn-stats-bad", ERROR, "1"),
    "statistics that were not trained": (freeze_statistics, "bn-stats-stale", WARNING, "1"),
}


def slowly(net: nn.Sequential) -> KernelsReport:
    """What follows a layer is known here: only the first is normalised."""
    found = slow_report(net, normalised=False)
    return replace(found, layers=(replace(found.layers[0], normalised=True), *found.layers[1:]))


def by_the_lens(net: nn.Sequential) -> KernelsReport:
    return replace(kernels(net), initialised=False)


MEASURES = pytest.mark.parametrize("look", [slowly, by_the_lens])


def smooth(found: KernelsReport) -> KernelsReport:
    """Give the first layer smooth kernels, because noise is not what is to be found."""
    return replace(found, layers=(replace(found.layers[0], smoothness_z=9.0), *found.layers[1:]))


@pytest.mark.parametrize("name", PLANTED)
@MEASURES
def test_a_planted_fault_raises_its_own_finding(look, name):
    plant, code, severity, where = PLANTED[name]
    net = small()
    plant(net)
    findings = diagnose(smooth(look(net)))
    assert verdict(findings) == [(code, severity)]
    assert findings[0].where == where


@MEASURES
def test_the_small_network_without_a_fault_is_silent(look):
    assert diagnose(smooth(look(small()))) == ()


@pytest.mark.parametrize("factor", [1e-3, 10])
@MEASURES
def test_the_scale_does_not_matter_where_a_normalisation_follows(look, factor):
    net = small()
    with torch.no_grad():
        net[0].weight.mul_(factor)
    assert diagnose(smooth(look(net))) == ()


def test_weights_that_became_far_too_wide():
    """A hundred times what torch's default gives: harmless to the output where it is normalised, but there they stop learning."""
    net = small()
    with torch.no_grad():
        net[0].weight.mul_(100)
    (finding,) = diagnose(smooth(by_the_lens(net)))
    assert verdict((finding,)) == [("weight-wide", WARNING)] and finding.where == "0"
    assert diagnose(fresh(net)) == ()  # a constructor that makes them so means it


@MEASURES
def test_noise_is_noise_and_a_blur_is_not(look):
    net = small()
    (finding,) = diagnose(look(net))
    assert verdict((finding,)) == [("untrained-filters", WARNING)]
    assert "all 4 convolutions" in finding.message
    with torch.no_grad():  # each kernel becomes the mean of itself and of its left neighbours: correlation 1/2
        net[3].weight.copy_((net[3].weight + net[3].weight.roll(1, -1)) / 2)
    assert diagnose(look(net)) == ()


def test_two_epochs_of_which_one_layer_did_not_move():
    net, later = small(), small()
    with torch.no_grad():
        for place in (0, 3, 5, 7, 11):
            later[place].weight.mul_(1.01)
    findings = diagnose(smooth(replace(kernels(later, against=net), initialised=False)))
    assert verdict(findings) == [("weights-unchanged", INFO)] and findings[0].where == "9"
    (finding,) = diagnose(smooth(replace(kernels(small(), against=net), initialised=False)))
    assert "both hold the same weights" in finding.message


# --- planted faults in real architectures


def fresh(model: nn.Module) -> KernelsReport:
    """Measure a model as the command does that has just built it."""
    weights = weights_of_model(model)
    layers = measure(weights, initial=initial_scales(model))
    return KernelsReport(type(model).__name__, "as initialised", True, None, layers, weights.norms)


@pytest.fixture(scope="module")
def resnet18() -> nn.Module:
    return built("resnet18")


def built(name: str) -> nn.Module:
    """Build a model as the command does: detection models without the published backbone that their builder would fetch."""
    with seeded(0):
        return named(name).build()


def named(name: str) -> NamedModel:
    return find_model(parse_model_spec(name), {})


def two_modes(weight: torch.Tensor) -> None:
    """All weights are of one size but for 10 %, and of either sign."""
    rms = weight.square().mean().sqrt()
    weight.copy_(weight.sign() * rms * (1 + 0.1 * torch.randn_like(weight)))


Alter = Callable[[torch.Tensor], object]
IN_RESNET: dict[str, tuple[str, Alter, list[tuple[str, Severity]]]] = {
    "one NaN in 11 million": ("layer4.1.conv2.weight", lambda w: w[7, 7, 0, 0].fill_(nan), [("weight-nonfinite", ERROR)]),
    "an Inf in the head": ("fc.weight", lambda w: w[0, 0].fill_(-inf), [("weight-nonfinite", ERROR)]),
    "dead filters": ("layer2.0.conv1.weight", lambda w: w[:10].mul_(1e-6), [("dead-filters", WARNING)]),
    "a dead downsampling": ("layer3.0.downsample.0.weight", lambda w: w[3:].mul_(1e-6), [("dead-filters", ERROR)]),
    "every second filter a copy": ("conv1.weight", lambda w: w[::2].copy_(w[1::2].clone()), [("duplicate-filters", ERROR)]),
    "copies of another size": (
        "layer1.0.conv1.weight",
        lambda w: w[:5].copy_(3 * w[5:6].expand_as(w[:5])),
        [("duplicate-filters", WARNING)],
    ),
    "a constant": ("layer4.0.conv1.weight", lambda w: w.fill_(0.01), [("constant-weights", ERROR)]),
    "an outlier": ("layer1.1.conv1.weight", lambda w: w[0, 0, 0, 0].fill_(20.0), [("weight-outlier", WARNING)]),
    "two modes": ("layer1.0.conv2.weight", two_modes, [("weight-bimodal", INFO)]),
    "a spike": ("layer3.1.conv1.weight", shrink_half, [("weight-spike", WARNING)]),
    "zeros": ("layer3.1.conv2.weight", lambda w: w.zero_(), [("weight-all-zero", INFO)]),
    "a negative variance": ("layer2.1.bn1.running_var", lambda v: v[3].fill_(-1e-3), [("bn-stats-bad", ERROR)]),
    "a mean of NaN": ("layer2.1.bn1.running_mean", lambda v: v[3].fill_(nan), [("bn-stats-bad", ERROR)]),
    "a scale that normalisation undoes": ("layer2.1.conv1.weight", lambda w: w.mul_(1e4), []),
    "a small head": ("fc.weight", lambda w: w.mul_(1e-6), []),
}


@pytest.mark.parametrize("name", IN_RESNET)
def test_a_fault_in_resnet18_raises_its_own_finding(resnet18, name):
    key, change, expected = IN_RESNET[name]
    tensor = resnet18.state_dict()[key]
    kept = tensor.clone()
    layer_name = key.rpartition(".")[0]
    try:
        with torch.no_grad():
            change(tensor)
        found = kernels(resnet18, layer=layer_name if key.endswith("weight") else "conv1")
        findings = diagnose(replace(found, initialised=True))
    finally:
        tensor.copy_(kept)
    assert verdict(findings) == expected
    assert all(finding.where == layer_name for finding in findings)


def test_a_badly_scaled_network_is_one_finding():
    """SqueezeNet has no normalisation: 25 convolutions and the classifier's, which is the head."""
    model = built("squeezenet1_1")
    with torch.no_grad():
        for part in model.modules():
            if isinstance(part, nn.Conv2d):
                part.weight.mul_(1e-4)
    (finding,) = diagnose(fresh(model))
    assert verdict((finding,)) == [("init-scale", ERROR)]
    assert "the worst of 25 layers" in finding.message and "vanish" in finding.message


# --- the sick twins


# The two that start badly are built anew, so that their kernels are noise as well; and so is the frozen body that nobody trained.
SICK: dict[str, list[str]] = {
    "healthy": [],
    "dead_relu": [],
    "saturated_sigmoid": [],
    "exploding_init": ["init-scale", "untrained-filters"],
    "vanishing_init": ["init-scale", "untrained-filters"],
    "frozen_body": ["untrained-filters"],
    "detached_branch": [],
    "nan_weight": ["weight-nonfinite"],
    "constant_output": ["weight-all-zero"],
    "duplicate_filters": ["duplicate-filters"],
    "unused_layer": [],
    "wrong_normalisation": ["bn-stats-stale"],
}


@pytest.mark.parametrize("name", SICK)
def test_a_sick_twin_raises_its_own_finding(name):
    assert codes(diagnose(kernels(getattr(sick, name)()))) == SICK[name]


@pytest.mark.parametrize("name", ["exploding_init", "vanishing_init"])
def test_bad_scales_name_all_four_layers(name):
    finding = diagnose(kernels(getattr(sick, name)()))[0]
    told = f"{finding.where} {finding.message}"
    assert finding.severity is ERROR and "the worst of 4 layers" in told
    assert all(layer in told for layer in ("stem.conv", "layer1.0.conv", "layer2.0.conv", "layer2.2.conv"))


def test_a_well_started_network_without_normalisation_is_silent():
    torch.manual_seed(0)
    assert diagnose(fresh(sick.fresh_plain())) == ()


# --- healthy models are silent, also where only info would be said


def small_members() -> dict[str, Callable[[], nn.Module]]:
    from torchvision import models
    from torchvision.models import convnext, vgg

    return {
        "DenseNet": lambda: models.DenseNet(12, (2, 2), 16, num_classes=10),
        "VGG": lambda: models.VGG(vgg.make_layers([32, "M", 64, "M", 64, "M"]), num_classes=10).features,
        "ViT": lambda: models.VisionTransformer(32, 8, 3, 2, 32, 64, num_classes=10),
        "Swin": lambda: models.SwinTransformer([4, 4], 24, [2, 2], [2, 2], [4, 4], num_classes=10),
        "ConvNeXt": lambda: models.ConvNeXt([convnext.CNBlockConfig(16, 32, 2), convnext.CNBlockConfig(32, None, 2)], num_classes=10),
    }


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "mnasnet0_5", "shufflenet_v2_x0_5", "squeezenet1_1"])
def test_healthy_fresh_models_are_silent(name):
    assert diagnose(fresh(built(name))) == ()


@pytest.mark.parametrize("name", ["DenseNet", "VGG", "ViT", "Swin", "ConvNeXt"])
def test_small_members_of_large_families_are_silent(name):
    torch.manual_seed(0)
    assert diagnose(fresh(small_members()[name]())) == ()


TIMM = """
    resnet10t convnext_atto mobilevit_xxs deit_tiny_patch16_224 mixer_s32_224 poolformer_s12 xcit_nano_12_p16_224 regnetx_002 ghostnet_100
    efficientnet_b0 repvgg_a0 levit_128s coat_lite_tiny pvt_v2_b0 edgenext_xx_small tiny_vit_5m_224 nf_regnet_b0 eca_nfnet_l0 hardcorenas_a
    dla46_c res2net50_14w_8s cait_xxs24_224 beit_base_patch16_224 volo_d1_224 twins_svt_small gmlp_ti16_224 convmixer_768_32 fastvit_t8
"""
LARGEST = 100_000_000  # parameters


@pytest.mark.sweep
def test_every_fresh_torchvision_model_is_silent():
    from torchvision.models import list_models

    assert loud(list_models()) == {}


@pytest.mark.sweep
def test_fresh_timm_models_are_silent():
    pytest.importorskip("timm")
    assert loud([f"timm:{name}" for name in TIMM.split()]) == {}


def loud(names: Iterable[str]) -> dict[str, list[str]]:
    """Return the models that raise a finding."""
    found = {}
    for name in names:
        if sum(parameter.numel() for parameter in on_meta(named(name)).parameters()) <= LARGEST:
            findings = diagnose(fresh(built(name)))
            found[name] = [f"{finding.code} {finding.where}: {finding.message}" for finding in findings]
    return {name: findings for name, findings in found.items() if findings}
