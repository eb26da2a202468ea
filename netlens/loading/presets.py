"""Inputs that came with the model: torchvision's weights, timm's and transformers' configs, Lightning's example."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from netlens.loading.first_layer import own_sides
from netlens.loading.input_specs import Candidate, InputSpec
from netlens.loading.named import NamedModel
from netlens.loading.transformers_inputs import transformers_inputs

FRAMES = 16  # of a clip: torchvision's counts of operations hold for 16 frames
FLOW_SIDE = 512  # RAFT names no size; with this one the published operations come out to the digit


def preset_inputs(named: NamedModel, model: nn.Module) -> list[Candidate]:
    """Return what is known about the model's input, most certain first; [] where nothing is."""
    found = list(_torchvision(named, model)) or list(transformers_inputs(model))
    return found or [*_detection(model), *_timm(named, model), *_example(model)]


def _torchvision(named: NamedModel, model: nn.Module) -> Iterator[Candidate]:
    if not named.presets:
        return
    entry: Any = named.presets[0]
    transform: Any = entry.transforms()
    task = type(transform).__name__
    if task == "ObjectDetection":
        yield from _detection(model)
    elif task == "OpticalFlow":
        frame = InputSpec(None, (1, 3, FLOW_SIDE, FLOW_SIDE))
        yield Candidate((frame, frame), f"torchvision's count of operations, {FLOW_SIDE} x {FLOW_SIDE}")
    elif task == "VideoClassification":
        side = named.args.get("spatial_size", transform.crop_size)
        frames = named.args.get("temporal_size", FRAMES)
        yield _images((1, 3, frames, *_pair(side)), str(entry))
    elif task == "SemanticSegmentation":
        yield _images((1, 3, *_pair(transform.resize_size)), str(entry))
    else:
        yield _classification(named, model, _pair(transform.crop_size))


def _classification(named: NamedModel, model: nn.Module, crop: tuple[int, int]) -> Candidate:
    """Return the preset's size, except for a model that is built for another: vit_h_14 is for 224, its default weights are for 518."""
    entries: list[Any] = list(named.presets)
    side = next(own_sides(model), None)
    own = _pair(named.args.get("input_size", crop if side is None else side))
    if own == crop:
        return _images((1, 3, *own), str(entries[0]))
    fitting = (str(entry) for entry in entries if _pair(entry.transforms().crop_size) == own)
    return _images((1, 3, *own), next(fitting, f"image size of {type(model).__name__}"))


def _detection(model: nn.Module) -> Iterator[Candidate]:
    """Return one picture of the size to which torchvision's detectors resize everything."""
    transform: Any = getattr(model, "transform", None)
    if type(transform).__name__ != "GeneralizedRCNNTransform":
        return
    size = transform.fixed_size or transform.min_size[-1]  # fixed_size is (width, height)
    width, height = _pair(size)
    yield Candidate((InputSpec(None, (), shapes=((3, height, width),)),), "the size to which the model's transform resizes")


def _timm(named: NamedModel, model: nn.Module) -> Iterator[Candidate]:
    config: Any = getattr(model, "pretrained_cfg", None)
    size = config.get("input_size") if isinstance(config, dict) else getattr(config, "input_size", None)
    if not size or len(size) != 3:
        return
    channels = named.args.get("in_chans", size[0])
    patches = getattr(getattr(model, "patch_embed", None), "img_size", None)
    side = named.args.get("img_size") or patches or size[1:]
    changed = tuple(size) != (channels, *_pair(side))
    yield _images((1, channels, *_pair(side)), "timm's model arguments" if changed else "timm's pretrained_cfg")


def _example(model: nn.Module) -> Iterator[Candidate]:
    """Return Lightning's `example_input_array`."""
    example = getattr(model, "example_input_array", None)
    items = example if isinstance(example, (tuple, list)) else (example,)
    if isinstance(example, dict) or not all(isinstance(item, torch.Tensor) for item in items):
        return
    yield Candidate(tuple(InputSpec(None, tuple(i.shape), str(i.dtype).removeprefix("torch.")) for i in items), "example_input_array")


def _images(shape: tuple[Any, ...], source: str) -> Candidate:
    return Candidate((InputSpec(None, tuple(int(size) for size in shape)),), source)


def _pair(size: Any) -> tuple[int, int]:
    """Read a size that is written 224, [224] or (224, 224)."""
    sides = [int(side) for side in size] if isinstance(size, (tuple, list)) else [int(size)]
    return sides[0], sides[-1]
