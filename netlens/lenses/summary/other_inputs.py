"""With which other input a model would run: another layout, another size, another dtype."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from math import prod

import torch
from torch import nn
from torch.nn.modules import conv

from netlens.lenses.summary.other_layers import takes_features
from netlens.lenses.summary.trials import Bench
from netlens.probing.call_rules import is_plain, layer_input
from netlens.probing.layer_shapes import takes
from netlens.probing.patterns import Mismatch, filled
from netlens.probing.trace import Stop

# Input sizes that published models were made for: MNIST, CIFAR, Tiny ImageNet, ..., ImageNet and its crops; lengths of texts and signals.
SIZES = (28, 32, 48, 64, 84, 96, 112, 128, 160, 192, 224, 227, 231, 240, 256, 260, 288, 299, 300, 320, 331, 380, 384, 448, 512)
LENGTHS = (16, 32, 64, 77, 100, 128, 187, 256, 512, 1000, 1024, 2048, 4000, 4096, 5000, 8000, 16000, 22050, 32000, 44100)

Layouts = Iterator[tuple[tuple[int, ...], str]]  # a shape, and what is wrong with the given one


def other_dtype(bench: Bench) -> str:
    """Say with which dtype the model runs."""
    module, x = bench.stop.record.module, layer_input(bench.stop)
    ids = isinstance(module, (nn.Embedding, nn.EmbeddingBag))
    weight = next(iter(module.parameters(recurse=False)), None)
    wanted = torch.int64 if ids else weight.dtype if weight is not None else torch.get_default_dtype()
    if not bench.got_the_input and bench.stop.record.path:
        return f"convert what it gets: .to({wanted})"
    option = bench.option(x.shape, wanted) if bench.x is not None and x is not None else ""
    return f"{'ids are integers: ' if ids else ''}{option} runs" if option else ""


def input_that_runs(bench: Bench, found: Mismatch) -> str:
    """Search the input nearest to the given one with which the whole model runs."""
    if bench.x is None:
        return ""
    given, floating = tuple(bench.x.shape), bench.x.is_floating_point()
    first = _first_layer(bench)
    layouts: dict[tuple[int, ...], str] = {given: ""}
    for shape, why in (*_layouts(first, given), ((1, *given), "")):
        layouts.setdefault(shape, why)
    for shape, why in list(layouts.items())[1:] if floating else []:
        if option := bench.option(shape):
            return f"{why}{option} runs"
    if found.about in ("shape", "values") and len(given) == 2 and not floating:
        return _size_that_runs(bench, given[:1], given[1:])
    dims = len(first.kernel_size) if isinstance(first, conv._ConvNd) else 2
    if found.about == "shape" and len(given) == dims + 2:
        channels = first.in_channels if isinstance(first, conv._ConvNd) else given[1]
        return _size_that_runs(bench, (given[0], channels), given[2:])
    return ""


def _first_layer(bench: Bench) -> nn.Module | None:
    """The layer that takes the model's input: the one that raised, if it got it, else the first with weights that was called."""
    if bench.got_the_input:
        return bench.stop.record.module
    return next((record.module for record in bench.records.values() if takes_features(record.module)), None)


def _layouts(layer: nn.Module | None, given: tuple[int, ...]) -> Layouts:
    """Yield the shapes that a layer takes and that somebody who gave `given` may have meant."""
    pattern = takes(layer, len(given)) if layer is not None else ""
    last = re.search(r", (\d+)\)", pattern)  # (*, 784)
    if isinstance(layer, conv._ConvNd):
        yield from _image_layouts(layer.in_channels, len(layer.kernel_size), given)
    elif last and given:
        features = int(last[1])
        flattened = (given[0], features)
        yield flattened if prod(given[1:]) == features else filled(pattern, given), ""
        yield from ((flattened, ""), ((1, features), ""))
    elif pattern:
        yield filled(pattern, given), ""


def _image_layouts(channels: int, dims: int, given: tuple[int, ...]) -> Layouts:
    batch, last = given[:1], given[-1:] == (channels,) and channels not in given[1:-1]
    layouts = (
        (2, last, (*batch, channels, *given[1:-1]), "the input looks channels last: "),
        (2, True, (*batch, channels, *given[2:]), ""),
        (1, batch == (channels,), (1, *given), "the batch dimension is missing: "),
        (1, last, (1, channels, *given[:-1]), "the input looks channels last and without a batch dimension: "),
        (1, True, (*batch, channels, *given[1:]), "the channel dimension is missing: "),
        (1, True, (1, channels, *given[1:]), ""),
        (0, True, (1, channels, *given), "the batch and channel dimensions are missing: "),
    )
    yield from ((shape, why) for more, likely, shape, why in layouts if len(given) == dims + more and likely)


def _size_that_runs(bench: Bench, fixed: tuple[int, ...], spatial: tuple[int, ...]) -> str:
    """Search the nearest size, of equal sides. Frames of a video stay as they are."""
    frames, side = spatial[:-2], max(spatial[-2:])
    sides = min(len(spatial), 2)

    def run(size: int) -> str:
        return bench.option((*fixed, *frames, *(size,) * sides))

    near = sorted(LENGTHS if sides == 1 else SIZES, key=lambda size: (size % 32 != 0, abs(size - side)))  # most strides divide 32
    layer = bench.stop.record.module
    if isinstance(layer, nn.Linear) and is_plain(layer):
        fits = _bisected(bench, layer, run, side, 65536 if sides == 1 else 1024)
        near = [*(size for size in near if abs(size - fits) <= fits / 8), fits] if fits else []
    option = next((option for size in near if size != side and (option := run(size))), "")
    return f"{option} runs" if option else ""


def _bisected(bench: Bench, layer: nn.Linear, run: Callable[[int], str], side: int, most: int) -> int:
    """The side with which a layer after a flatten gets the features that it takes; they grow with the side. 0 where there is none."""
    low, high = 1, most
    given = _features(bench.stop)
    while low <= high:
        size = (low + high) // 2
        if run(size):
            return size
        if bench.last is None:
            return 0  # the limit is reached
        features = _features(bench.last) if bench.last.record.path == bench.stop.record.path else 0
        if features == layer.in_features or (features == given and abs(size - side) > 64):
            return 0  # something else is wrong, or the side makes no difference
        low, high = (low, size - 1) if features > layer.in_features else (size + 1, high)
    return 0


def _features(stop: Stop) -> int:
    x = layer_input(stop)
    return x.shape[-1] if x is not None and x.dim() else 0
