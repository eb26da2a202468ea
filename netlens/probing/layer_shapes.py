"""The shapes that the layers of torch take, read from their attributes, as patterns."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

from torch import nn
from torch.nn.modules import batchnorm, conv, instancenorm, padding, pooling

_SIDES = {"1d": "L", "2d": "H, W", "3d": "D, H, W"}
_OF_MODE = {"linear": "L", "bilinear": "H, W", "bicubic": "H, W", "trilinear": "D, H, W"}


def sides_of(module: nn.Module) -> str:
    """The spatial dimensions in the class name: "H, W" for Conv2d, and for Fold and Unfold."""
    return next((_SIDES[cls.__name__[-2:]] for cls in type(module).__mro__ if cls.__name__[-2:] in _SIDES), "H, W")


def _each(module: Any, name: str, default: int = 0) -> tuple[int, ...]:
    """An argument of a layer for each of its spatial dimensions."""
    value, dims = getattr(module, name, default), len(sides_of(module).split(", "))
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * dims if len(values) == 1 else values


def _at_least(module: nn.Module, least: list[int]) -> str:
    sides = zip(sides_of(module).split(", "), least, strict=True)
    return ", ".join(f"{side} >= {size}" if size > 1 else side for side, size in sides)


def _window(module: Any) -> str:
    """The sizes that a sliding window fits into."""
    if isinstance(getattr(module, "padding", 0), str) or getattr(module, "transposed", False):
        return sides_of(module)
    sizes = zip(_each(module, "kernel_size", 1), _each(module, "dilation", 1), _each(module, "padding"), strict=True)
    least = [dilation * (kernel - 1) + 1 - 2 * pad for kernel, dilation, pad in sizes]
    if getattr(module, "ceil_mode", False):  # the last window may reach beyond the input, by less than a stride
        strides = _each(module, "stride" if module.stride else "kernel_size")
        least = [size - stride + 1 for size, stride in zip(least, strides, strict=True)]
    return _at_least(module, least)


def _border(module: Any, extra: int) -> str:
    """The sizes that a padding can be made of: a mirror leaves the border out (`extra` = 1), a circle may use all."""
    pads = [max(pair) + extra for pair in zip(module.padding[::2], module.padding[1::2], strict=True)]
    return _at_least(module, pads[::-1])  # the last dimension comes first


def _blocks(module: Any) -> str:
    kernel = _each(module, "kernel_size")
    sizes = zip(*(_each(module, name) for name in ("output_size", "padding", "dilation", "stride")), kernel, strict=True)
    number = prod((size + 2 * pad - dilation * (side - 1) - 1) // stride + 1 for size, pad, dilation, stride, side in sizes)
    return f"a multiple of {prod(kernel)}, {number}"


def sequence(module: Any, features: int) -> str:
    """The pattern of a batch of sequences."""
    return f"(N?, L, {features})" if module.batch_first else f"(L, N?, {features})"


_POOLS = (pooling._MaxPoolNd, pooling._AvgPoolNd, pooling._LPPoolNd, pooling._AdaptiveAvgPoolNd, pooling._AdaptiveMaxPoolNd)
_PATTERNS: tuple[tuple[Any, Callable[[Any, int], str]], ...] = (
    (nn.Linear, lambda m, _: f"(*?, {m.in_features})"),
    (conv._ConvNd, lambda m, _: f"(N?, {m.in_channels}, {_window(m)})"),
    (instancenorm._InstanceNorm, lambda m, _: f"(N?, {m.num_features if m.affine else 'C'}, {sides_of(m)})"),
    (nn.BatchNorm1d, lambda m, rank: f"(N, {m.num_features})" if rank == 2 else f"(N, {m.num_features}, L)"),
    ((nn.BatchNorm2d, nn.BatchNorm3d), lambda m, _: f"(N, {m.num_features}, {sides_of(m)})"),
    (batchnorm._BatchNorm, lambda m, _: f"(N, {m.num_features}, *?)"),
    ((nn.LayerNorm, nn.RMSNorm), lambda m, _: f"(*?, {', '.join(map(str, m.normalized_shape))})"),
    (nn.GroupNorm, lambda m, _: f"(N, {m.num_channels}, *?)"),
    (nn.LocalResponseNorm, lambda m, _: "(N, C, *)"),
    (nn.RNNBase, lambda m, _: sequence(m, m.input_size)),
    (nn.RNNCellBase, lambda m, _: f"(N?, {m.input_size})"),
    (nn.MultiheadAttention, lambda m, _: f"query {sequence(m, m.embed_dim)}"),
    (nn.Transformer, lambda m, _: f"src {sequence(m, m.d_model)}"),
    ((*_POOLS, nn.Unfold), lambda m, _: f"(N?, C, {_window(m)})"),
    (padding._ReplicationPadNd, lambda m, _: f"(N?, C, {sides_of(m)})"),
    (padding._ReflectionPadNd, lambda m, _: f"(N?, C, {_border(m, 1)})"),
    (padding._CircularPadNd, lambda m, _: f"(N?, C, {_border(m, 0)})"),
    (nn.PReLU, lambda m, _: f"(N, {m.num_parameters}, *?)" if m.num_parameters > 1 else "(*?)"),
    (nn.PixelShuffle, lambda m, _: f"(*?, a multiple of {m.upscale_factor**2}, H, W)"),
    (nn.ChannelShuffle, lambda m, _: f"(N, a multiple of {m.groups}, *)"),
    (nn.Upsample, lambda m, _: f"(N, C, {_OF_MODE.get(m.mode, '*')}) for mode {m.mode!r}"),
    (nn.Fold, lambda m, _: f"(N?, {_blocks(m)})"),
)


def takes(module: nn.Module, rank: int) -> str:
    """The pattern of the inputs of `rank` dimensions that a layer takes; "" where there is none."""
    return next((pattern(module, rank) for kinds, pattern in _PATTERNS if isinstance(module, kinds)), "")
