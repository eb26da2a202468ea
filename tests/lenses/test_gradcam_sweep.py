"""Every classification model of torchvision and 40 families of timm: a map that is not blank, or the reason why it is."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import netlens
from netlens.lenses.gradcam.rules import diagnose

pytestmark = pytest.mark.sweep

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


def torchvision_names() -> list[str]:
    from torchvision import models

    return models.list_models(module=models)


def with_heads(model: nn.Module) -> nn.Module:
    """Draw anew what starts at exactly zero, as the heads of many transformers do: of zeros there is no gradient."""
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)) and not module.weight.any():
            nn.init.normal_(module.weight, std=0.02)
    return model


def check(model: nn.Module, size: tuple[int, ...]) -> None:
    """Explain the three best classes of noise."""
    found = netlens.gradcam(with_heads(model), torch.randn(1, *size), target="top3")
    (layer,) = found.report.layers
    assert len(layer.grid) == 2 and min(layer.grid) >= 2 and layer.reason
    blank = [heat for heat in found.maps if not (heat > 0).any()]
    assert len(found.maps) == 3
    for heat, row in zip(found.maps, found.report.maps, strict=True):
        assert tuple(heat.shape) == layer.grid and heat.isfinite().all() and row.gradient and row.gradient > 0
        assert heat.max() > heat.min()
    assert all((heat < 0).any() for heat in blank)  # nothing but evidence against the class, which is said
    assert any(finding.code == "negative-evidence" for finding in diagnose(found.report)) == bool(blank)


@pytest.mark.parametrize("name", torchvision_names())
def test_torchvision(name):
    from torchvision.models import get_model

    torch.manual_seed(0)
    check(get_model(name), (3, 224, 224))


@pytest.mark.parametrize("name", TIMM)
def test_timm(name):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = timm.create_model(name)
    check(model, model.pretrained_cfg["input_size"])
