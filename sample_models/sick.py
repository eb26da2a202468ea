"""The sick twins: `ShapeNet` with one planted fault each, for tools that claim to find it.

    netlens summary sample_models/sick.py:dead_relu --input 1,3,64,64

Rules are named as netlens names them. `healthy` is the patient without a fault. Every call builds the same model.
"""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that this file can also be named by its path from anywhere

from sample_models.shapes import ConvBlock, ShapeNet

WEIGHTS = Path(__file__).parent / "weights"
SAFETENSORS_TYPES = {"F32": torch.float32, "I64": torch.int64}


def load_weights(name: str = "shapenet") -> dict[str, Tensor]:
    """Read `weights/NAME.safetensors`, which `train.py` wrote."""
    content = (WEIGHTS / f"{name}.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header, data = json.loads(content[8 : 8 + length]), bytearray(content[8 + length :])
    entries = {key: entry for key, entry in header.items() if key != "__metadata__"}
    return {
        key: torch.frombuffer(data[slice(*entry["data_offsets"])], dtype=SAFETENSORS_TYPES[entry["dtype"]]).view(entry["shape"])
        for key, entry in entries.items()
    }


def healthy() -> ShapeNet:
    """Return the trained network, without a fault."""
    return _with_weights(ShapeNet())


def _with_weights(model: ShapeNet, name: str = "shapenet") -> ShapeNet:
    model.load_state_dict(load_weights(name))
    return model


def dead_relu() -> nn.Module:
    """Three quarters of the channels in front of one ReLU are pushed far below zero, as one far too large step does.

    Seen: the accuracy falls and never recovers; 36 of the 48 feature maps of `layer2.0` are black. Rule: dead-relu.
    """
    model = healthy()
    with torch.no_grad():
        model.layer2[0].norm.bias[:36] -= 50
    return model


def saturated_sigmoid() -> nn.Module:
    """`layer1` ends in a sigmoid behind a hundredfold gain, where a ReLU was.

    Seen: its feature maps are black and white without grey, and pictures are mistaken that were not before. Rule: saturated.
    """
    model = healthy()
    with torch.no_grad():
        model.layer1[0].norm.weight *= 100
    model.layer1[0].act = nn.Sigmoid()
    return model


def exploding_init() -> nn.Module:
    """A fresh network without normalisation, four of whose convolutions start a hundred times too large.

    Seen: scores and a first loss of order 1e8. Rules: init-scale, exploding-activations.
    """
    return _badly_started(100)


def vanishing_init() -> nn.Module:
    """A fresh network without normalisation, four of whose convolutions start two thousand times too small.

    Seen: scores of order 1e-13, and a loss of exactly ln 6. Rules: init-scale, vanishing-activations. Every gradient vanishes, but
    relative to their weights those of the small convolutions are the large ones: a rule that compares first with last layers sees them
    explode.
    """
    return _badly_started(1 / 2000)


def _badly_started(scale: float) -> nn.Module:
    model = fresh_plain()
    with torch.no_grad():
        for block in (model.stem, model.layer1[0], model.layer2[0], model.layer2[2]):
            block.conv.weight *= scale
    return model


def fresh_plain() -> ShapeNet:
    """Return a network without normalisation, started as He et al. 2015 advise: the healthy patient of the two faults above."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = ShapeNet(norm=False)
        for layer in model.modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu" if isinstance(layer, nn.Conv2d) else "linear")
                nn.init.zeros_(layer.bias)
    return model


def frozen_body() -> nn.Module:
    """Everything but the head is frozen, though nothing in it was ever trained.

    Seen: training hardly lowers the loss, and the filters of the first layer stay noise. Rules: untrained-filters, constant-output.
    """
    model = _with_weights(ShapeNet(), "untrained").requires_grad_(False)
    model.head.requires_grad_(True)
    return model


class DetachedShapeNet(ShapeNet):
    """ShapeNet in which no gradient passes between `layer1` and `layer2`."""

    def forward(self, images: Tensor) -> Tensor:
        """Score the classes."""
        early = self.layer1(self.stem(images))
        return self.head(self.layer3(self.layer2(early.detach())).mean(dim=(2, 3)))


def detached_branch() -> nn.Module:
    """A `.detach()`, forgotten after a look at the features, cuts `stem` and `layer1` off from the loss.

    Seen: nothing in the scores, which are the healthy ones; but the first filters never change. Rule: none that looks at
    weights or activations.
    """
    return _with_weights(DetachedShapeNet())


def nan_weight() -> nn.Module:
    """One weight of 87,166 is not a number.

    Seen: every score is nan. Rules: weight-nonfinite, act-nonfinite (both at `layer2.0.conv`).
    """
    model = healthy()
    with torch.no_grad():
        model.layer2[0].conv.weight[3, 1, 0, 2] = torch.nan
    return model


def constant_output() -> nn.Module:
    """The weights of the head are zero, so that its biases are all that is left.

    Seen: every picture gets the same scores. Rules: input-ignored, weight-all-zero.
    """
    model = healthy()
    with torch.no_grad():
        model.head.weight.zero_()
    return model


def duplicate_filters() -> nn.Module:
    """The second half of the first layer's filters are the first half again, twice as large.

    Seen: each picture in the grid of filters is there twice. Rule: duplicate-filters.
    """
    model = healthy()
    with torch.no_grad():
        model.stem.conv.weight[12:] = 2 * model.stem.conv.weight[:12]
    return model


class WithUnusedLayer(ShapeNet):
    """ShapeNet with a `layer4` that `forward` never calls."""

    def __init__(self) -> None:
        super().__init__()
        self.layer4 = ConvBlock(96, 96, 1)


def unused_layer() -> nn.Module:
    """A fourth stage was added to `__init__` and forgotten in `forward`.

    Seen: nothing, but that 9,408 parameters are saved and never change. Rule: unused-module.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = WithUnusedLayer()
    model.load_state_dict(load_weights(), strict=False)
    return model


def wrong_normalisation() -> nn.Module:
    """The running statistics of every BatchNorm are those of a new layer, as when parameters are saved without buffers.

    Seen: right in train mode, mistaken more often than not in eval mode. Rule: bn-stats-stale.
    """
    model = healthy()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.reset_running_stats()
    return model
