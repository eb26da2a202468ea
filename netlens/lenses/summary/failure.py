"""What went wrong in a forward pass, and an input that would run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from netlens.lenses.summary.report import Failure
from netlens.probing.explain import Mismatch, mismatch, source_line
from netlens.probing.meta import MixedMeta, skeleton, stand_in
from netlens.probing.trace import Stop

if TYPE_CHECKING:
    from netlens.lenses.summary.attempts import Attempt

# Input sizes that published image models were made for: MNIST, CIFAR, Tiny ImageNet, ..., ImageNet and its crops.
SIZES = (28, 32, 64, 84, 96, 112, 128, 160, 192, 224, 227, 231, 240, 256, 260, 288, 299, 300, 320, 331, 380, 384, 448, 512)


def failure_of(tried: Attempt) -> Failure:
    """Explain the error of an attempt."""
    error = tried.error
    assert error is not None
    text = " ".join(str(error).split()) or type(error).__name__
    message = text if isinstance(error, (RuntimeError, ValueError)) else f"{type(error).__name__}: {text}"
    stop = tried.forward.stop if tried.forward else None
    if stop is None:
        return Failure("", type(tried.model).__name__, message, "", "", "", source_line(error.__traceback__), "")
    found = mismatch(stop) or Mismatch("", "")
    return Failure(
        path=stop.record.path,
        type=type(stop.record.module).__name__,
        message=message,
        got=found.got,
        expects=found.expects,
        producer=stop.producer or "",
        source=source_line(error.__traceback__),
        remedy=_remedy(tried, stop),
    )


def _remedy(tried: Attempt, stop: Stop) -> str:
    """An input of another size that runs, else the argument of the layer that would fit what it gets."""
    runs = _input_that_runs(tried)
    change = _layer_that_fits(stop)
    if runs is not None:
        text = ",".join(map(str, runs))
        return f"an input of {text} runs (--input {text})" + (f"; for this input, {change}" if change else "")
    return change


def _layer_that_fits(stop: Stop) -> str:
    module, x = stop.record.module, stop.args[0] if stop.args else None
    path = stop.record.path or "the model"
    if not isinstance(x, Tensor) or x.dim() == 0:
        return ""
    if isinstance(module, nn.Linear) and x.shape[-1] != module.in_features:
        return f"`{path}` would need in_features={x.shape[-1]}"
    if isinstance(module, nn.modules.conv._ConvNd) and x.dim() == len(module.kernel_size) + 2 and x.shape[1] != module.in_channels:
        return f"`{path}` would need in_channels={x.shape[1]}"
    if hasattr(module, "num_features") and x.dim() >= 2 and x.shape[1] != module.num_features:
        return f"`{path}` would need num_features={x.shape[1]}"
    return ""


def _input_that_runs(tried: Attempt) -> tuple[int, ...] | None:
    """Search, on meta, for the nearest image size and channel count at which the whole model runs."""
    args, kwargs = tried.arguments
    x = args[0] if len(args) == 1 and not kwargs else None
    if not isinstance(x, Tensor) or x.dim() not in (3, 4) or not x.is_floating_point():
        return None
    model = tried.model if tried.on == "meta" else skeleton(tried.model)
    model.eval()
    return next((shape for shape in _shapes(model, x) if _runs(model, x.new_empty(shape, device="meta"))), None)


def _shapes(model: nn.Module, x: Tensor) -> Iterator[tuple[int, ...]]:
    """Shapes to try: the layout of the first convolution, the sizes nearest to the given one first."""
    first = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    channels = first.in_channels if first is not None else x.shape[-3]
    batch = x.shape[0] if x.dim() == 4 else 1
    height, width = x.shape[-2:]
    yield batch, channels, height, width
    if x.dim() == 4 and x.shape[-1] == channels:  # channels last, as Pillow and numpy have it
        yield batch, channels, *x.shape[1:3]
    for size in sorted(SIZES, key=lambda size: abs(size - max(height, width))):
        yield batch, channels, size, size


def _runs(model: nn.Module, x: Tensor) -> bool:
    try:
        with torch.no_grad(), MixedMeta():
            model(stand_in(x))
    except Exception:
        return False
    return True
