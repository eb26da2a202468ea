"""Which preprocessing a model wants: as the user says, as the checkpoint says, as published, or assumed and said so."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from torch import nn

from netlens.errors import InputError, UsageError
from netlens.loading.checkpoints.archive import Archive
from netlens.loading.first_layer import own_sides
from netlens.loading.input_specs import Candidate
from netlens.loading.inputs import default_inputs
from netlens.loading.named import NamedModel
from netlens.loading.preprocessing import MODES, Framing, Preprocessing
from netlens.loading.preprocessing_options import LARGEST, numbers
from netlens.loading.preprocessing_published import IMAGENET, Known, published_preprocessing
from netlens.loading.words import one_line

PARTS = ("size", "mean", "std")
GREY = (0.299, 0.587, 0.114)  # Pillow's weights of red, green and blue (ITU-R 601-2)
SIDE = 224
Values = tuple[float, ...]

# Where people keep these things beside their weights: under these names, at the top or in one of these containers.
MEANS = frozenset({"mean", "image_mean", "img_mean", "pixel_mean", "norm_mean"})
STDS = frozenset({"std", "image_std", "img_std", "pixel_std", "norm_std"})
SIZES = frozenset({"input_size", "image_size", "img_size", "imgsz", "crop_size", "size"})
CHANNELS = frozenset({"channels", "in_channels", "in_chans", "num_channels"})
CONTAINERS = frozenset(
    {"", "preprocessing", "preprocess", "transform", "transforms", "normalize", "normalization", "image", "data", "data_config"}
    | {"pretrained_cfg", "config", "cfg", "args", "opt", "hparams", "hyper_parameters"}
)


def choose_preprocessing(
    named: NamedModel | None,
    model: nn.Module,
    *,
    archive: Archive | None = None,
    size: tuple[int, int] | None = None,
    mean: Values | None = None,
    std: Values | None = None,
) -> Preprocessing:
    """Return how pictures become inputs of `model`, part by part from the first source that says something.

    The sources: the user, the checkpoint's metadata, what was published with the architecture; for the rest ImageNet's mean and std and
    the usual size are assumed. Values above 1 are taken as those of pixels in 0..255.

    Args:
        named: where the model comes from; None for a user's own object.
        model: on any device, the meta device included; it is not run.
        archive: the checkpoint whose weights are loaded.
        size: `--size`, (height, width).
        mean: `--mean`, as written.
        std: `--std`, as written.

    Raises:
        InputError: the model takes no pictures, or nothing tells what it takes.
        UsageError: mean or std have another number of values than the model has channels.
    """
    named = named or NamedModel(type(model).__name__, "python", "", type(model).__name__, lambda: model, is_instance=True)
    metadata = _metadata(archive) if archive else {}
    told = [*_options(size, mean, std), *_of_metadata(metadata, archive)]
    channels, shape, source = _picture(named, model, metadata.get("channels"), is_told=any(known.framing for known in told))
    published = published_preprocessing(named, model, shape, source)
    usual = f"{shape[0]} x {shape[1]}"
    own = [Known(source, Framing.fitted(*shape))] if source else []
    known = [*told, *([published] if published else []), *own, Known(usual, Framing.fitted(*shape), *IMAGENET)]
    framed, centred, scaled = (next(each for each in known if getattr(each, part) is not None) for part in ("framing", "mean", "std"))
    assert framed.framing and centred.mean and scaled.std  # `known` ends with all three
    sources = dict(zip(PARTS, (framed.source, centred.source, scaled.source), strict=True))
    return Preprocessing(
        framed.framing,
        _for_channels(centred.mean, channels, 0.0, centred.source),
        _for_channels(scaled.std, channels, 1.0, scaled.source),
        _told(sources, usual),
        tuple(part for part in PARTS if sources[part] == usual),
    )


def _options(size: tuple[int, int] | None, mean: Values | None, std: Values | None) -> Iterator[Known]:
    if size is not None:
        yield Known("--size", Framing.fitted(*size))
    mean, std = _unit(mean, std)
    if mean is not None:
        yield Known("--mean", mean=mean)
    if std is not None:
        yield Known("--std", std=std)


def _of_metadata(metadata: Mapping[str, Values], archive: Archive | None) -> Iterator[Known]:
    size, mean, std = (metadata.get(part) for part in PARTS)
    mean, std = _unit(mean, std)
    if archive and (size or mean or std):
        framing = Framing.fitted(int(size[0]), int(size[-1])) if size else None
        yield Known(f"metadata of {one_line(archive.path.name)}", framing, mean, std)


def _unit(mean: Values | None, std: Values | None) -> tuple[Values | None, Values | None]:
    """Bring values for pixels in 0..255 to those for 0..1; mean and std that are given together are on one scale."""
    scale = 255 if max(map(abs, (*(mean or ()), *(std or ()))), default=0) > 1 else 1
    return mean and tuple(value / scale for value in mean), std and tuple(value / scale for value in std)


def _metadata(archive: Archive) -> dict[str, Values]:
    """Return what a checkpoint says about size, mean, std and channels; what is not understood is not said."""
    found: dict[str, Values] = {}
    for key, text in _flat(archive.scalars):
        container, _, name = key.rpartition(".")
        values = numbers(text)
        if values is None or container.lower() not in CONTAINERS:
            continue
        part = next((part for part, names in zip(PARTS, (SIZES, MEANS, STDS), strict=True) if name.lower() in names), "")
        if part == "size" and _are_sides(values):
            if len(values) == 3:
                found.setdefault("channels", values[:1])
            found.setdefault("size", values[-2:])
        elif name.lower() in CHANNELS and values[0] in MODES:
            found.setdefault("channels", values)
        elif (part == "mean" or (part == "std" and min(values) > 0)) and len(values) in MODES:
            found.setdefault(part, values)
    return found


def _flat(scalars: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the entries, and those of a JSON object that is written in one of them."""
    for key, text in scalars.items():
        yield key, text
        try:
            inner = json.loads(text) if text.startswith("{") else {}
        except ValueError:
            continue
        yield from ((f"{key}.{name}", str(value)) for name, value in inner.items())


def _are_sides(values: Values) -> bool:
    return 1 <= len(values) <= 3 and all(value.is_integer() and 1 <= value <= LARGEST for value in values)


class _Picture(NamedTuple):
    """What a model takes."""

    channels: int
    size: tuple[int, int]
    source: str  # who says that size; "" for a guess


def _picture(named: NamedModel, model: nn.Module, channels: Values | None, is_told: bool) -> _Picture:
    """Return the picture that a model most likely takes; `is_told`: the size is known from elsewhere."""
    try:
        candidates = default_inputs(named, model)
    except InputError:
        if not is_told:
            raise
        return _Picture(int(channels[0]) if channels else 3, (SIDE, SIDE), "")
    # A linear layer behind other layers takes their features, not pixels.
    inner = {each.source for each in candidates if any(len(spec.shape) == 2 for spec in each.specs)} - {candidates[0].source}
    pictures = [picture for each in candidates if each.source not in inner for picture in _pictures(each)]
    if not pictures:
        what = ", ".join(map(str, candidates[0].specs)) or "none"
        raise InputError(f"{one_line(named.name)} takes no picture: its input is {what}", hint="describe the input: --input SHAPE")
    usable = [picture for picture in pictures if picture.channels in MODES]
    if not usable:
        first = pictures[0]
        what = f"{one_line(named.name)} takes pictures of {first.channels} channels ({first.source}), and files have 1, 3 or 4"
        raise InputError(what, hint="save the input as a tensor, and give it with --input FILE.npy")
    found = next((picture for picture in usable if channels and picture.channels == channels[0]), usable[0])
    if all(other.size == found.size for other in pictures if other.source == found.source):
        return found
    return found._replace(source=f"image size of {type(model).__name__}" if found.size[0] in own_sides(model) else "")


def _pictures(candidate: Candidate) -> Iterator[_Picture]:
    """Yield each input that is a picture, or a film of three colours, of which it is a frame."""
    for spec in candidate.specs:
        for shape in spec.shapes or (spec.shape[1:],):
            is_film = len(shape) == 4 and 3 in shape[:2]
            if spec.dtype is None and (len(shape) == 3 or is_film):
                yield _Picture(3 if is_film else shape[0], (shape[-2], shape[-1]), candidate.source)


def _for_channels(values: Values, channels: int, opacity: float, source: str) -> Values:
    """Return one value for each channel; of three colours for a grey picture, the grey one."""
    if len(values) == channels:
        return values
    if len(values) == 1:
        return values * channels
    if len(values) == 3:
        return (sum(map(float.__mul__, GREY, map(float, values))),) if channels == 1 else (*values, opacity)
    what = f"{source} has {len(values)} values, and the model takes {'grey pictures' if channels == 1 else f'{channels} channels'}"
    raise UsageError(what, hint="give one value for all channels" if channels == 1 else f"give one value, or {channels}")


def _told(sources: Mapping[str, str], usual: str) -> str:
    """Say where each part is from: "ResNet18_Weights.IMAGENET1K_V1, size from --size"."""
    by: dict[str, list[str]] = {}
    for part, source in sources.items():
        by.setdefault(source, []).append(part)
    assumed = _assumed(by.pop(usual, []), usual)
    files = [source for source in by if not source.startswith("--")]
    if not files:
        return ", ".join([*by, *assumed])
    base = max(files, key=lambda source: (not source.startswith("metadata"), len(by[source])))
    others = [f"{' and '.join(parts)} from {source}" for source, parts in by.items() if source != base]
    return ", ".join([base, *others, *assumed])


def _assumed(parts: Sequence[str], usual: str) -> list[str]:
    imagenet = " and ".join(part for part in parts if part != "size")
    what = [f"ImageNet's {imagenet}"] if imagenet else []
    return [f"assumed: {', '.join([*what, usual] if 'size' in parts else what)}"] if parts else []
