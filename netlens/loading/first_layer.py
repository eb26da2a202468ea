"""What the first layer takes, for models that nobody described."""

from __future__ import annotations

import math
from collections.abc import Iterator

from torch import nn

from netlens.errors import InputError
from netlens.loading.input_specs import Candidate, InputSpec
from netlens.loading.tensors import forward_signature, required_names
from netlens.loading.words import listed

IMAGES = (224, 32, 28, 64, 96, 128, 256, 299, 384, 512)  # sides, the usual ones first
SIGNALS = (1024, 128, 16000, 64, 256, 512, 4096)  # lengths
VOLUMES = ((16, 112, 112), (16, 224, 224), (32, 32, 32), (64, 64, 64), (96, 96, 96), (128, 128, 128))
SENTENCES = (128, 64, 32, 16, 8)  # lengths
KINDS: tuple[type[nn.Module], ...] = (
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear),
    *(nn.Embedding, nn.EmbeddingBag, nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention),
)
STEPS = 32  # of a sequence, and rows of a table


def first_layer_inputs(model: nn.Module) -> list[Candidate]:
    """Return inputs that fit the first layer of each kind, in order of definition, which need not be the order in which they run.

    Raises:
        InputError: no layer tells, or forward needs several inputs.
    """
    signature = forward_signature(model)
    required = required_names(signature)
    if len(required) > 1:
        names = listed(required)
        raise InputError(f"forward takes ({names})", hint=f"give one --input for each, like --input {required[0]}=1,3,224,224")
    if signature is not None and not signature.parameters:
        return [Candidate((), "forward takes no input")]
    candidates = [
        Candidate((InputSpec(None, shape, dtype),), f"first layer {name}" if name else "the layer itself")
        for name, layer in _first_of_each_kind(model)
        for shape, dtype in _shapes(layer, model)
    ]
    if not candidates:
        raise InputError(f"no layer of {type(model).__name__} tells what it takes", hint="say it, like --input 1,3,224,224")
    return list(dict.fromkeys(candidates))


def _first_of_each_kind(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    seen: set[type] = set()
    for name, layer in model.named_modules():
        kind = next((kind for kind in KINDS if isinstance(layer, kind)), None)
        if kind is not None and kind not in seen:
            seen.add(kind)
            yield name, layer


def _shapes(layer: nn.Module, model: nn.Module) -> Iterator[tuple[tuple[int, ...], str | None]]:
    """Yield shapes with their types; nothing for a lazy layer, which takes what it gets."""
    if isinstance(layer, (nn.Embedding, nn.EmbeddingBag)):
        yield from (((1, length), "int64") for length in SENTENCES)
    elif isinstance(layer, nn.Linear):
        yield from ((shape, None) for shape in _rows(layer.in_features))
    elif isinstance(layer, (nn.RNNBase, nn.MultiheadAttention)):
        size = layer.input_size if isinstance(layer, nn.RNNBase) else layer.embed_dim
        yield ((1, STEPS, size) if layer.batch_first else (STEPS, 1, size)), None
    elif isinstance(layer, nn.RNNCellBase):
        yield (1, layer.input_size), None
    elif getattr(layer, "in_channels", 0):
        channels = int(layer.in_channels)  # type: ignore[arg-type]
        yield from (((1, channels, *size), None) for size in _sizes(layer, model))


def _rows(features: int) -> Iterator[tuple[int, ...]]:
    if not features:
        return
    yield (1, features)
    yield (1, STEPS, features)
    for channels in (1, 3):  # pictures that forward flattens itself
        side = math.isqrt(features // channels)
        if channels * side * side == features:
            yield (1, channels, side, side)


def _sizes(layer: nn.Module, model: nn.Module) -> Iterator[tuple[int, ...]]:
    if isinstance(layer, (nn.Conv1d, nn.ConvTranspose1d)):
        yield from ((length,) for length in SIGNALS)
    elif isinstance(layer, (nn.Conv3d, nn.ConvTranspose3d)):
        yield from VOLUMES
    else:
        if isinstance(layer, nn.ConvTranspose2d):  # a generator starts from one point
            yield (1, 1)
        yield from ((side, side) for side in (*own_sides(model), *IMAGES))


def own_sides(model: nn.Module) -> Iterator[int]:
    """Yield the side of pictures that a vision transformer keeps: of torchvision's `image_size`, of timm's and others' `img_size`."""
    for name in ("image_size", "img_size"):
        side = getattr(model, name, None)
        if isinstance(side, int) and not isinstance(side, bool) and side > 0:
            yield side
