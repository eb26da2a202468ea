"""Result shapes of operators that look through a window: pooling, unfolding, and sampling on a grid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from netlens.probing.pointwise import Misfit

Pools = Callable[..., Any]


def pooled(x: Tensor, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool, dims: int) -> list[int] | None:
    """Return the shape of `x` after pooling over its last `dims` dimensions; None where torch must say what is wrong."""
    if x.dim() not in (dims + 1, dims + 2) or 0 in x.shape:
        return None
    kernel, padding, dilation = (_each(value, dims) for value in (kernel, padding, dilation))
    stride = _each(stride, dims) if stride not in ((), []) else kernel
    if min(*kernel, *stride, *dilation) < 1 or any(not 0 <= 2 * padding[i] <= kernel[i] for i in range(dims)):
        return None
    size = []
    for i in range(dims):
        rest = x.shape[i - dims] + 2 * padding[i] - dilation[i] * (kernel[i] - 1) - 1
        places = (rest + (stride[i] - 1 if ceil_mode else 0)) // stride[i] + 1
        outside = ceil_mode and (places - 1) * stride[i] >= x.shape[i - dims] + padding[i]  # a window that would see padding only
        size.append(places - outside)
    return [*x.shape[:-dims], *size] if min(size) >= 1 else None


def _each(values: Any, dims: int) -> Sequence[int]:
    numbers = (values,) if isinstance(values, int) else tuple(values)
    if len(numbers) not in (1, dims):
        raise Misfit(f"expected a single integer or {dims} integers, got {numbers}")
    return numbers * dims if len(numbers) == 1 else numbers


def average_pool(dims: int) -> Pools:
    """The kernel of `avg_pool2d` or `avg_pool3d`."""

    def run(x: Tensor, kernel: Any, stride: Any = (), padding: Any = 0, ceil_mode: bool = False, *rest: Any) -> Tensor | None:
        fits = x.is_floating_point() and 0 not in rest[1:]  # a divisor of 0
        shape = pooled(x, kernel, stride, padding, 1, ceil_mode, dims) if fits else None
        if shape is None or dims == 2:
            return None if shape is None else _empty(x, shape)
        smaller = any(size < side for size, side in zip(x.shape[-3:], _each(kernel, 3), strict=True))  # padding does not help in 3d
        return None if smaller else x.new_empty(shape)

    return run


def max_pool_with_indices(
    x: Tensor, kernel: Any, stride: Any = (), padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False
) -> tuple[Tensor, Tensor] | None:
    """The kernel of `max_pool3d_with_indices`."""
    shape = pooled(x, kernel, stride, padding, dilation, ceil_mode, 3)
    return None if shape is None else (_empty(x, shape), _empty(x, shape, torch.int64))


def grid_sample(x: Tensor, grid: Tensor, *_modes: Any) -> Tensor | None:
    """The kernel of `grid_sampler_2d`: (N, C, H, W) sampled at (N, h, w, 2)."""
    if x.shape[0] != grid.shape[0] or 0 in x.shape[2:] or x.dtype != grid.dtype:
        raise Misfit(f"grid_sample: input {x.dtype} {tuple(x.shape)} and grid {grid.dtype} {tuple(grid.shape)} do not fit")
    fits = x.dim() == grid.dim() == 4 and grid.shape[3] == 2
    return x.new_empty((*x.shape[:2], *grid.shape[1:3])) if fits and 0 not in x.shape[1:] else None


def unfold(x: Tensor, kernel: Any, dilation: Any, padding: Any, stride: Any) -> Tensor | None:
    """The kernel of `im2col`: (N, C, H, W) to (N, C x window, windows)."""
    if x.dim() not in (3, 4) or 0 in x.shape[-3:]:
        return None
    kernel, dilation, padding, stride = (_each(value, 2) for value in (kernel, dilation, padding, stride))
    if min(*kernel, *dilation, *stride) < 1 or min(padding) < 0:
        raise Misfit("unfold: kernel size, dilation and stride must be positive, padding not negative")
    places = [(x.shape[i - 2] + 2 * padding[i] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1 for i in range(2)]
    if min(places) < 1:
        return None
    return x.new_empty((*x.shape[:-3], x.shape[-3] * prod(kernel), prod(places)))


def _empty(x: Tensor, shape: Sequence[int], dtype: torch.dtype | None = None) -> Tensor:
    """Channels last after channels last, else contiguous."""
    last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(x.dim())
    if last is not None and not x.is_contiguous() and x.is_contiguous(memory_format=last):
        return torch.empty(tuple(shape), dtype=dtype or x.dtype, device=x.device, memory_format=last)
    return x.new_empty(shape, dtype=dtype)


KERNELS: dict[str, Pools] = {
    "avg_pool2d": average_pool(2),
    "avg_pool3d": average_pool(3),
    "max_pool3d_with_indices": max_pool_with_indices,
    "grid_sampler_2d": grid_sample,
    "im2col": unfold,
}
