"""Models without a fault raise nothing, and a planted fault is told once, by its own rule, where it is."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from netlens.findings import CODES, Severity
from netlens.lenses.featuremaps.report import FeaturemapsReport
from netlens.lenses.featuremaps.request import Request
from netlens.lenses.featuremaps.rules import diagnose
from netlens.lenses.featuremaps.run import ran
from netlens.probing.untouched import seeded
from sample_models import sick
from sample_models.scenes import scene
from tests.lenses.featuremaps_case import codes, measured

ROOT = Path(__file__).parents[2]
SCENES = str(ROOT / "sample_models/scenes")
SICK = f"{ROOT}/sample_models/sick.py"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def findings(model: str, **asked: Any) -> list[tuple[str, str]]:
    """Answer `netlens featuremaps MODEL`, and return what is wrong: code and layer."""
    report = ran(Request.of({"model": model, "pictures": False, **asked}), lambda *_: None, lambda _: None, lambda *_: None).report
    return [(finding.code, finding.where) for finding in diagnose(report)]


# -- healthy ------------------------------------------------------------------------------------------------------------------------

SIZES = {"noise of 1": {"input": ["1,3,64,64"]}, "noise of 2": {"input": ["2,3,64,64"]}, "scenes": {"image": [SCENES], "size": "64"}}
CONVOLUTIONAL = ("resnet18", "mobilenet_v3_small", "convnext_tiny", "shufflenet_v2_x0_5", "squeezenet1_1", "efficientnet_b0", "densenet121")


@pytest.mark.parametrize("asked", SIZES)
@pytest.mark.parametrize("model", CONVOLUTIONAL)
def test_fresh_convolutional_networks_are_healthy(model, asked):
    """Pictures of 64 x 64 end in maps of 2 x 2 and 1 x 1, where BatchNorm of one sample has a single value of each channel."""
    assert findings(model, **SIZES[asked]) == []


@pytest.mark.parametrize(
    "model", ["timm:vit_tiny_patch16_224", "alexnet", "regnet_y_400mf", "timm:nf_regnet_b0", "timm:swin_tiny_patch4_window7_224"]
)
def test_fresh_networks_of_their_own_size_are_healthy(model):
    assert findings(model) == []


def test_batchnorm_of_one_value_a_channel_does_not_normalise_by_it():
    """A channel of one value has no variance: torch refuses; then the statistics are those that the layer starts with, 0 and 1."""
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8, 4)
    )
    found = {layer.name: layer for layer in measured(model, torch.randn(1, 3, 8, 8), initialised=True).layers}
    assert found["1"].std == pytest.approx(1, abs=1e-3)
    assert found["3"].rms == pytest.approx(found["2"].rms, rel=1e-4)
    assert model[3].training and model[3].momentum == 0.1 and not model[3]._forward_pre_hooks


TEXT = {
    "hf:gpt2": {"model_arg": ["n_embd=64", "n_layer=4", "n_head=4"]},
    "hf:bert": {"model_arg": ["hidden_size=64", "num_hidden_layers=2", "num_attention_heads=4", "intermediate_size=128"]},
}


@pytest.mark.parametrize("model", TEXT)
def test_fresh_language_models_are_healthy(model):
    assert findings(model, **TEXT[model], attention=True) == []


class Decoder(nn.Module):
    """A small GPT."""

    def __init__(self, width: int = 64, scale: float = 1.0) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(100, width), nn.Embedding(32, width)
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, batch_first=True, norm_first=True, activation="gelu")
        self.blocks = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 100)

    def forward(self, ids: Tensor) -> Tensor:
        length = ids.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(length)
        return self.head(self.norm(self.blocks(self.tokens(ids) + self.places.weight[:length], mask=mask, is_causal=True)))


class Recurrent(nn.Module):
    """Words in, classes out."""

    def __init__(self, kind: type[nn.Module] = nn.LSTM) -> None:
        super().__init__()
        self.embedding, self.rnn, self.head = nn.Embedding(100, 32), kind(32, 64, num_layers=2, batch_first=True), nn.Linear(64, 5)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.rnn(self.embedding(ids))[0][:, -1])


class Series(nn.Module):
    """One number a step: its first layer has one signal in all channels by design."""

    def __init__(self) -> None:
        super().__init__()
        self.rise = nn.Linear(1, 64)
        self.body = nn.Sequential(nn.LayerNorm(64), nn.GELU(), nn.Linear(64, 64), nn.ReLU())
        self.head = nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.rise(x)).mean(1))


def built(make: Callable[[], nn.Module]) -> nn.Module:
    with seeded(0):
        return make()


IDS = torch.arange(8 * 24).remainder(97).view(8, 24)


@pytest.mark.parametrize("make", [Decoder, Recurrent, partial(Recurrent, nn.GRU), partial(Recurrent, nn.RNN)])
def test_small_networks_for_words_are_healthy(make):
    assert codes(diagnose(measured(built(make), IDS, initialised=True))) == []


@pytest.mark.parametrize("scale", [1e-2, 1.0, 1e6])
def test_a_network_that_normalises_takes_inputs_of_any_size(scale):
    model = nn.Sequential(nn.BatchNorm1d(16), nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
    with seeded(0):
        x = scale * torch.randn(64, 16)
        for _ in range(100):
            model[0](x)
    assert codes(diagnose(measured(model, x, initialised=True))) == []


def test_a_series_of_single_numbers_is_healthy():
    with seeded(0):
        assert codes(diagnose(measured(Series(), torch.randn(8, 50, 1), initialised=True))) == []


@pytest.mark.parametrize("name", ["ShapeNet", "ShapeViT"])
def test_the_trained_sample_models_are_healthy(name):
    weights = ROOT / f"sample_models/weights/{name.lower()}.safetensors"
    assert findings(f"{ROOT}/sample_models/shapes.py:{name}", checkpoint=weights, image=[SCENES], attention=True) == []
    for samples in (1, 2, 8):
        assert findings(f"{SICK}:healthy", input=[f"{samples},3,64,64"]) == []


@pytest.mark.parametrize("twin", ["healthy", "detached_branch", "wrong_normalisation", "fresh_plain", "unused_layer"])
def test_twins_whose_fault_does_not_show_in_a_forward_pass_raise_nothing(twin):
    assert findings(f"{SICK}:{twin}", image=[SCENES], size="64", mean="0.5", std="0.28") == []


def test_a_body_that_was_never_trained_shows_in_what_is_predicted():
    assert findings(f"{SICK}:frozen_body", image=[SCENES], size="64", mean="0.5", std="0.28") == [("constant-output", "")]


def of_one_class(label: int, mean: float = 0.5, bias: float = 0) -> FeaturemapsReport:
    """Return what the trained ShapeNet says of 12 scenes of one class, preprocessed with some mean; `bias` is added to one score."""
    model = sick.healthy()
    with torch.no_grad():
        model.head.bias[2] += bias
    drawn = [picture for index in range(150) if (picture := scene(777, index)).labels == (label,)][:12]
    images = torch.stack([torch.from_numpy(picture.image).permute(2, 0, 1) for picture in drawn]) / 255
    return measured(model, (images - mean) / 0.28)


@pytest.mark.parametrize("label", range(6))
def test_a_sure_model_on_pictures_of_one_class_is_no_warning(label):
    assert [finding for finding in diagnose(of_one_class(label)) if finding.severity > Severity.INFO] == []


@pytest.mark.parametrize("mean", [-5, 5, 50])
def test_a_mean_far_off_shows_in_the_channels_that_it_silences(mean):
    """Such pictures push what a convolution sums up to one side of what the normalisation behind it expects."""
    assert [(finding.code, finding.severity) for finding in diagnose(of_one_class(0, mean))] == [("dead-relu", Severity.ERROR)]


@pytest.mark.parametrize("bias", [50, 500])
def test_one_class_for_all_because_of_a_large_bias_is_a_warning(bias):
    """What comes out hardly depends on the picture, though the model is sure."""
    found = of_one_class(0, bias=bias)
    assert found.output is not None and found.output.entropy < 0.5
    assert [(finding.code, finding.severity) for finding in diagnose(found)] == [("constant-output", Severity.WARNING)]


# -- sick ---------------------------------------------------------------------------------------------------------------------------

TWINS = {
    "dead_relu": ("dead-relu", "layer2.0.act"),
    "saturated_sigmoid": ("saturated", "layer1.0.act"),
    "exploding_init": ("exploding-activations", "layer1.0.conv"),
    "vanishing_init": ("vanishing-activations", "layer1.0.conv"),
    "nan_weight": ("act-nonfinite", "layer2.0.conv"),
    "constant_output": ("input-ignored", "head"),
}


@pytest.mark.parametrize("size", ["64", "224"])
@pytest.mark.parametrize("twin", TWINS)
def test_each_sick_twin_raises_its_own(twin, size):
    assert findings(f"{SICK}:{twin}", image=[SCENES], size=size, mean="0.5", std="0.28") == [TWINS[twin]]


@pytest.mark.parametrize("twin", TWINS)
def test_the_twins_say_which_rule_finds_them(twin):
    assert TWINS[twin][0] in promised(getattr(sick, twin))


def test_the_twins_name_rules_that_there_are():
    twins = [function for name, function in inspect.getmembers(sick, inspect.isfunction) if promised(function)]
    assert len(twins) >= 10 and {code for twin in twins for code in promised(twin)} <= CODES.keys()


def promised(twin: Callable[..., object]) -> list[str]:
    """Return the codes after "Rule:" or "Rules:" in a docstring."""
    told = re.search(r"Rules?: ([^.]*)", inspect.getdoc(twin) or "")
    return [] if told is None or told[1].startswith("none") else re.findall(r"[a-z]+(?:-[a-z]+)+|saturated", told[1])


def test_layers_that_are_chosen_keep_their_number_and_their_place():
    """What runs last is the head, also where only a ReLU before it is looked at: it is judged."""
    asked = {"model": f"{SICK}:dead_relu", "image": [SCENES], "size": "64", "pictures": False, "layer": ["layer2.0.act"]}
    found = ran(Request.of(asked), lambda *_: None, lambda _: None, lambda *_: None).report
    assert [(layer.index, layer.name, layer.final) for layer in found.layers] == [(8, "layer2.0.act", False)]
    assert [finding.code for finding in diagnose(found)] == ["dead-relu"]


# -- sweeps -------------------------------------------------------------------------------------------------------------------------

LARGEST = 60_000_000  # parameters
# fmt: off
TIMM = [
    "resnet26d", "convnext_atto", "efficientnet_b0", "mobilenetv4_conv_small", "regnety_002", "vit_tiny_patch16_224",
    "swin_tiny_patch4_window7_224", "ghostnet_050", "repvgg_a0", "mixer_s32_224", "coat_lite_tiny", "nf_regnet_b0",
    "hrnet_w18_small", "lcnet_035", "deit_tiny_patch16_224", "cait_xxs24_224", "convit_tiny", "crossvit_tiny_240",
    "davit_tiny", "dla34", "dpn68", "edgenext_xx_small", "efficientformer_l1", "efficientvit_m0",
    "eva02_tiny_patch14_224", "focalnet_tiny_srf", "gcvit_xxtiny", "levit_128s", "mobilevit_xxs", "mobileone_s0",
    "mvitv2_tiny", "nfnet_f0", "pit_ti_224", "poolformer_s12", "pvt_v2_b0", "rexnet_100",
    "skresnet18", "twins_svt_small", "xcit_nano_12_p16_224", "resmlp_12_224", "gmixer_12_224", "sequencer2d_s",
    "fastvit_t8", "inception_next_atto",
]
# fmt: on
STARTS_CLOSED = {"cait_xxs24_224"}  # its class token sees the patches through a LayerScale of 1e-5: told as info


def small_models() -> list[str]:
    from torchvision import models

    return [name for module in (models, models.segmentation) for name in models.list_models(module=module)]


@pytest.mark.sweep
@pytest.mark.parametrize("model", small_models())
def test_fresh_torchvision_is_healthy(model):
    from netlens.loading.checkpoints.weights import on_meta
    from netlens.loading.models import find_model
    from netlens.loading.specs import parse_model_spec

    if sum(parameter.numel() for parameter in on_meta(find_model(parse_model_spec(model), {})).parameters()) > LARGEST:
        pytest.skip("more than 60 M parameters")
    assert findings(model) == []


@pytest.mark.sweep
@pytest.mark.parametrize("asked", [{}, {"image": [SCENES]}], ids=["noise", "scenes"])
@pytest.mark.parametrize("model", TIMM)
def test_fresh_timm_families_are_healthy(model, asked):
    told = findings(f"timm:{model}", **asked)
    if model in STARTS_CLOSED:
        assert told in ([("input-ignored", "")], [("batch-invariant", "")])
    else:
        assert told == []
