"""Preprocessing that came with a model: torchvision's weights, timm's configuration, an image processor of transformers."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from netlens.loading.named import NamedModel
from netlens.loading.preprocessing import Framing
from netlens.loading.words import one_line

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
RAW = ((0.0,), (1.0,))  # pixel values in 0..1, as they are
TIMM_SHARE = 0.875  # timm's own: of the resized picture, the part that is seen
WARPED = 384  # ConvNeXt's processor stretches from this size on, and crops below it
RESAMPLING = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")  # Pillow's numbers
PROCESSORS = (("preprocessor_config.json", None), ("processor_config.json", "image_processor"))  # the second since transformers 5


@dataclass(frozen=True, slots=True)
class Known:
    """What one source says about preprocessing; None where it says nothing."""

    source: str
    framing: Framing | None = None
    mean: tuple[float, ...] | None = None  # of values in 0..1; one, or one for each channel
    std: tuple[float, ...] | None = None


def published_preprocessing(named: NamedModel, model: nn.Module, size: tuple[int, int], source: str) -> Known | None:
    """Return the preprocessing with which the weights of this architecture were published, or None.

    Args:
        named: where the model comes from.
        model: on any device, the meta device included.
        size: (height, width) of the input that is known for the model.
        source: where that size is from.
    """
    return _torchvision(named, size, source) or _timm(model, size) or _transformers(named, getattr(model, "config", None))


def _torchvision(named: NamedModel, size: tuple[int, int], source: str) -> Known | None:
    if not named.presets:
        return None
    entries: list[Any] = list(named.presets)
    entry = next((entry for entry in entries if str(entry) == source), entries[0])
    transform: Any = entry.transforms()
    task = type(transform).__name__
    if task in ("ObjectDetection", "OpticalFlow"):
        mean, std = RAW if task == "ObjectDetection" else ((0.5,), (0.5,))
        return Known(str(entry), Framing(), mean, std)
    crop = _pair(getattr(transform, "crop_size", None))
    resize = transform.resize_size
    framing = Framing(
        "none" if resize is None else "shorter" if len(resize) == 1 else "stretch",
        _pair(resize) or (0, 0),
        crop,
        transform.interpolation.value,
        antialias=task != "VideoClassification",  # where torchvision hard-codes False
    )
    if crop not in (None, size):  # the model is built for another size than these weights
        return Known(str(entry), None, tuple(transform.mean), tuple(transform.std))
    return Known(str(entry), framing, tuple(transform.mean), tuple(transform.std))


def _timm(model: nn.Module, size: tuple[int, int]) -> Known | None:
    """Read timm's configuration as its `resolve_data_config` and `transforms_imagenet_eval` do."""
    config: Any = getattr(model, "pretrained_cfg", None)
    values: dict[str, Any] = config if isinstance(config, dict) else getattr(config, "__dict__", {})
    if not values.get("input_size"):
        return None
    share = values.get("crop_pct") or TIMM_SHARE
    height, width = (math.floor(side / share) for side in size)
    centre = "shorter" if height == width else "cover"
    mode = {"squash": "stretch", "border": "contain"}.get(values.get("crop_mode", ""), centre)
    framing = Framing(mode, (height, width), size, values.get("interpolation") or "bicubic", pad_mean=mode == "contain")
    mean, std = (tuple(values.get(key) or usual) for key, usual in zip(("mean", "std"), IMAGENET, strict=True))
    return Known("timm's pretrained_cfg", framing, mean, std)


def _transformers(named: NamedModel, config: Any) -> Known | None:
    """Read the image processor's configuration, which lies beside the model's."""
    name = getattr(config, "name_or_path", None)
    if not isinstance(name, str) or not name:
        return None
    for file, key in PROCESSORS:
        values = _json(name, file, local=named.source != "transformers")
        values = values.get(key) if key and isinstance(values, dict) else values
        if isinstance(values, dict):
            try:
                return Known(f"{file} of {one_line(name)}", _processor_framing(values), *_processor_values(values))
            except (TypeError, ValueError, KeyError, IndexError, ArithmeticError):  # written by something else than transformers
                return None
    return None


def _json(name: str, file: str, local: bool) -> Any:
    """Read a file from a folder or from the hub, whose ID the user gave; `local`: he did not, so only what was fetched before counts."""
    from transformers.utils.hub import cached_file

    try:
        found = cached_file(name, file, local_files_only=local)
        return json.loads(Path(found).read_text(encoding="utf-8")) if found else None
    except (OSError, ValueError):  # there is none, or no network, or it is no JSON
        return None


def _processor_framing(values: dict[str, Any]) -> Framing | None:
    """Return the framing, or None where it depends on more than one side (detection, patches of any number)."""
    crop = _pair(values.get("crop_size")) if values.get("do_center_crop") else None
    if not values.get("do_resize", True):
        return Framing(crop=crop)
    size, interpolation = values["size"], RESAMPLING[values.get("resample", 2)]
    if isinstance(size, int):  # of old files: the shorter side of what is cropped then, else both sides
        size = {"shortest_edge": size} if "do_center_crop" in values else {"height": size, "width": size}
    if set(size) == {"height", "width"}:
        return Framing("stretch", (size["height"], size["width"]), crop, interpolation)
    if set(size) != {"shortest_edge"}:
        return None
    side = size["shortest_edge"]
    if "crop_pct" not in values:
        return Framing("shorter", (side, side), crop, interpolation)
    if side >= WARPED:
        return Framing("stretch", (side, side), crop, interpolation)
    target = int(side / values["crop_pct"])
    return Framing("shorter", (target, target), (side, side), interpolation)


def _processor_values(values: dict[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and std of values in 0..1: v * factor * 255 - offset, then minus mean, divided by std."""
    factor = 255 * values.get("rescale_factor", 1 / 255) if values.get("do_rescale", True) else 255.0
    offset = 1.0 if values.get("rescale_offset") else 0.0  # to -1..1
    normal = values.get("do_normalize", True)
    mean, std = (tuple(values[key]) if normal else default for key, default in (("image_mean", (0.0,)), ("image_std", (1.0,))))
    std = tuple(value**2 for value in std) if values.get("include_top") else std  # EfficientNet's divides by it twice
    return tuple((value + offset) / factor for value in mean), tuple(value / factor for value in std)


def _pair(size: Any) -> tuple[int, int] | None:
    """Read a size that is written 224, [224], (224, 224) or {"height": 224, "width": 224}; None stays None."""
    if size is None:
        return None
    if isinstance(size, dict):
        return int(size["height"]), int(size["width"])
    sides = [int(side) for side in size] if isinstance(size, (tuple, list)) else [int(size)]
    return sides[0], sides[-1]
