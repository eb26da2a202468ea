"""Parameters and multiply-adds of torchvision's models, against what torchvision publishes with every set of weights.

`num_params` is exact; `_ops` is in GMACs, rounded to 0.0005. Nothing is tolerated beyond that rounding: what differs is in one of the
two tables below, with its cause, and has to come out exactly when the cause is taken away.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from torch import nn
from torchvision.models import get_model, get_model_weights, list_models  # noqa: TID253

from netlens.lenses.summary.measure import measure
from netlens.lenses.summary.report import SummaryReport
from netlens.loading.models import find_model
from netlens.loading.specs import parse_model_spec
from netlens.loading.subject import from_named

ROUNDING = 500_000.5  # half of the last published digit of a GMAC


@dataclass(frozen=True)
class Detector:
    """What torchvision counted depends on how many boxes its trained model saw in one picture; here the model is untrained.

    Detectors without a second stage (FCOS, RetinaNet, SSD) do the same work whatever they see, so that their counts agree.
    """

    proposals: int = 0  # boxes that torchvision's run sent to the box head
    per_proposal: int = 0  # MACs of the box head and its predictor for one box
    detections: int = 0  # boxes that torchvision's run sent to the mask or keypoint head
    per_detection: int = 0


# Box head of two linear layers on 7 x 7 x 256 features, then 91 scores and 4 coordinates for each of 91 classes.
TWO_LAYERS = 7 * 7 * 256 * 1024 + 1024 * 1024 + 1024 * 5 * 91
TWO_LAYERS_PERSON = 7 * 7 * 256 * 1024 + 1024 * 1024 + 1024 * 5 * 2  # keypoints: person or not
# Box head of version 2: four 3 x 3 convolutions of 256 channels on 7 x 7, and one linear layer.
FOUR_CONVOLUTIONS = 4 * 7 * 7 * 256 * 256 * 9 + 7 * 7 * 256 * 1024 + 1024 * 5 * 91
# Four 3 x 3 convolutions on 14 x 14, a transposed 2 x 2 one to 28 x 28, and 91 masks.
MASK = 4 * 14 * 14 * 256 * 256 * 9 + 14 * 14 * 256 * 256 * 4 + 28 * 28 * 256 * 91
# Eight 3 x 3 convolutions on 14 x 14, the first from 256 to 512 channels, and a transposed 4 x 4 one to 17 keypoints.
KEYPOINTS = 14 * 14 * 9 * (256 * 512 + 7 * 512 * 512) + 14 * 14 * 512 * 17 * 16

# The box head gets at most 1000 boxes, and none where the region proposals of the MobileNet detectors all score below their threshold.
DETECTORS: dict[str, Detector] = {
    "fasterrcnn_mobilenet_v3_large_320_fpn-COCO_V1": Detector(0, TWO_LAYERS),
    "fasterrcnn_mobilenet_v3_large_fpn-COCO_V1": Detector(0, TWO_LAYERS),
    "fasterrcnn_resnet50_fpn-COCO_V1": Detector(1000, TWO_LAYERS),
    "fasterrcnn_resnet50_fpn_v2-COCO_V1": Detector(1000, FOUR_CONVOLUTIONS),
    "maskrcnn_resnet50_fpn-COCO_V1": Detector(1000, TWO_LAYERS, 0, MASK),
    "maskrcnn_resnet50_fpn_v2-COCO_V1": Detector(1000, FOUR_CONVOLUTIONS, 100, MASK),
    "keypointrcnn_resnet50_fpn-COCO_LEGACY": Detector(1000, TWO_LAYERS_PERSON, 0, KEYPOINTS),
    "keypointrcnn_resnet50_fpn-COCO_V1": Detector(1000, TWO_LAYERS_PERSON, 1, KEYPOINTS),
    "fcos_resnet50_fpn-COCO_V1": Detector(),
    "retinanet_resnet50_fpn-COCO_V1": Detector(),
    "retinanet_resnet50_fpn_v2-COCO_V1": Detector(),
    "ssd300_vgg16-COCO_V1": Detector(),
    "ssdlite320_mobilenet_v3_large-COCO_V1": Detector(),
}

ENTRIES: dict[str, tuple[str, Any]] = {f"{name}-{entry.name}": (name, entry) for name in list_models() for entry in get_model_weights(name)}
QUANTIZED = [key for key, (name, _) in ENTRIES.items() if name.startswith("quantized_")]
PLAIN = [key for key in ENTRIES if key not in DETECTORS and key not in QUANTIZED]

# One of each kind: plain, grouped, depthwise and 3d convolutions, attention in windows and on the whole, squeeze and excitation, published
# at sizes from 224 to 520, with frozen or auxiliary parts; in short, what a slip in one formula or one preset would hit.
DIVERSE = [
    "resnet18-IMAGENET1K_V1",
    "resnext50_32x4d-IMAGENET1K_V2",
    "densenet121-IMAGENET1K_V1",
    "mobilenet_v3_small-IMAGENET1K_V1",
    "efficientnet_b4-IMAGENET1K_V1",  # 380
    "googlenet-IMAGENET1K_V1",  # published without its auxiliary heads
    "inception_v3-IMAGENET1K_V1",  # 299
    "convnext_tiny-IMAGENET1K_V1",
    "regnet_y_16gf-IMAGENET1K_SWAG_E2E_V1",  # 384, and reads values in its constructor
    "swin_v2_t-IMAGENET1K_V1",
    "vit_h_14-IMAGENET1K_SWAG_E2E_V1",  # 518
    "maxvit_t-IMAGENET1K_V1",
    "mvit_v2_s-KINETICS400_V1",  # a video of 16 frames
    "deeplabv3_mobilenet_v3_large-COCO_WITH_VOC_LABELS_V1",  # 520, with an auxiliary head
    "raft_small-C_T_V1",  # two pictures
]


def counted(key: str) -> SummaryReport:
    """Summarise one set of weights as `netlens summary NAME --weights ENTRY` does."""
    name, entry = ENTRIES[key]
    args = {"quantize": True} if name.startswith("quantized_") else {}
    report, error = measure(from_named(find_model(parse_model_spec(name), args, weights=entry.name), ()))
    assert error is None
    assert report.failure is None
    assert not [operator for operator in report.uncounted if operator.multiplies]
    return report


def published_macs(key: str) -> float:
    return ENTRIES[key][1].meta["_ops"] * 1e9


def check_plain(key: str) -> None:
    report = counted(key)

    assert report.run.on == "meta", report.run.why
    assert report.totals.parameters == ENTRIES[key][1].meta["num_params"]
    assert abs(report.totals.macs - published_macs(key)) <= ROUNDING
    crop = getattr(ENTRIES[key][1].transforms(), "crop_size", None)
    if crop is not None:
        sides = {leaf.shape[-2:] for leaf in report.inputs}
        assert sides == {(crop[0], crop[-1])}


@pytest.mark.parametrize("key", DIVERSE)
def test_what_is_counted_is_what_is_published(key: str):
    check_plain(key)


@pytest.mark.sweep
@pytest.mark.parametrize("key", [key for key in PLAIN if key not in DIVERSE])
def test_what_is_counted_is_what_is_published_for_every_entry(key: str):
    check_plain(key)


def test_no_entry_is_left_out():
    assert len(PLAIN) >= 120
    assert set(DIVERSE) <= set(PLAIN)
    assert {key for key, (_, entry) in ENTRIES.items() if type(entry.transforms()).__name__ == "ObjectDetection"} == set(DETECTORS)


def boxes(report: SummaryReport, path: str) -> int:
    """How many boxes the head at `path` got."""
    layer = next((layer for layer in report.layers if layer.path == path), None)
    return 0 if layer is None else sum(call.inputs[0].shape[0] * call.times for call in layer.calls)


@pytest.mark.sweep
@pytest.mark.parametrize("key", DETECTORS)
def test_detectors_differ_by_the_boxes_that_they_saw(key: str):
    """With as many boxes as in torchvision's run, the published count comes out to the digit."""
    report, detector = counted(key), DETECTORS[key]

    assert report.run.on == "cpu"
    assert "reads values" in report.run.why
    assert report.totals.parameters == ENTRIES[key][1].meta["num_params"]
    proposals = boxes(report, "roi_heads.box_head") if detector.per_proposal else 0
    detections = boxes(report, "roi_heads.mask_head") + boxes(report, "roi_heads.keypoint_head")
    more = (detector.proposals - proposals) * detector.per_proposal + (detector.detections - detections) * detector.per_detection
    assert abs(report.totals.macs + more - published_macs(key)) <= ROUNDING


@pytest.mark.filterwarnings("ignore")  # torch.ao.quantization is deprecated; torchvision uses it
@pytest.mark.parametrize("key", [pytest.param(key, marks=[] if "resnet18" in key else [pytest.mark.sweep]) for key in QUANTIZED])
def test_quantised_models_have_published_macs_and_no_parameters(key: str):
    """The published number of parameters is that of the float model: see the next test."""
    report = counted(key)

    assert abs(report.totals.macs - published_macs(key)) <= ROUNDING
    assert report.totals.parameters == 0
    assert any("quantised" in note for note in report.notes)


@pytest.mark.filterwarnings("ignore")
def test_what_quantised_layers_pack_are_the_published_parameters():
    """Quantising folds each batch norm (2 C parameters) into the bias of the convolution before it (C)."""
    layers = [module for module in get_model("quantized_resnet18", quantize=True).modules() if hasattr(module, "_weight_bias")]
    packed = [tensor for layer in layers if hasattr(layer, "scale") for tensor in layer._weight_bias()]
    folded = sum(module.num_features for module in get_model("resnet18").modules() if isinstance(module, nn.BatchNorm2d))

    entry = ENTRIES["quantized_resnet18-IMAGENET1K_FBGEMM_V1"][1]
    assert sum(tensor.numel() for tensor in packed) == entry.meta["num_params"] - folded
