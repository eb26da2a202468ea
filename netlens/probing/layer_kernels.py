"""Result shapes of convolutions, norms and matrix products; see `netlens.probing.kernels`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from netlens.probing.pointwise import Kernel, Misfit
from netlens.probing.shapes import empty, memory_format, numbers

_LOW_PRECISION = (torch.float16, torch.bfloat16)


# -- convolution and norms -----------------------------------------------------------------------------------------------------------


def convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any, transposed: bool, extra: Any, groups: int
) -> Tensor | None:
    """(N, C, ...) -> (N, C', ...); transposed too."""
    dims = weight.dim() - 2
    if dims < 1 or x.dim() != weight.dim():
        raise Misfit(f"expected {weight.dim()}-dimensional input for weight {tuple(weight.shape)}, but got input {tuple(x.shape)}")
    stride, padding, dilation, extra = (numbers(value, dims) for value in (stride, padding, dilation, extra))
    _check_convolution(x, weight, bias, groups, weight.shape[1] * groups if transposed else weight.shape[0], transposed)
    if min(stride) < 1 or min(dilation) < 1 or min(padding) < 0 or min(extra) < 0:
        raise Misfit("stride and dilation must be positive, padding and output padding not negative")
    if 0 in x.shape or 0 in weight.shape:
        return None
    kernel = [dilation[i] * (weight.shape[i + 2] - 1) + 1 for i in range(dims)]
    if transposed:
        if any(extra[i] >= max(stride[i], dilation[i]) for i in range(dims)):
            raise Misfit(f"output padding must be smaller than either stride or dilation, but got {extra}, {stride} and {dilation}")
        size = [(x.shape[i + 2] - 1) * stride[i] - 2 * padding[i] + kernel[i] + extra[i] for i in range(dims)]
    else:
        size = [(x.shape[i + 2] + 2 * padding[i] - kernel[i]) // stride[i] + 1 for i in range(dims)]
    if min(size) < 1:
        return None
    channels_last = any(memory_format(t) != torch.contiguous_format for t in (x, weight))
    layout = (torch.channels_last if dims == 2 else torch.channels_last_3d) if channels_last else None
    return empty(x, (x.shape[0], weight.shape[1] * groups if transposed else weight.shape[0], *size), layout=layout)


def _check_convolution(x: Tensor, weight: Tensor, bias: Tensor | None, groups: int, channels: int, transposed: bool) -> None:
    if groups < 1 or weight.shape[0] % groups or weight.shape[0] < groups:
        raise Misfit(f"weight {tuple(weight.shape)} cannot be divided into {groups} groups")
    expected = weight.shape[0] if transposed else weight.shape[1] * groups
    if x.shape[1] != expected:
        raise Misfit(f"expected input {tuple(x.shape)} to have {expected} channels, but got {x.shape[1]} channels instead")
    if bias is not None and tuple(bias.shape) != (channels,):
        raise Misfit(f"expected bias to be 1-dimensional with {channels} elements, but got bias of size {tuple(bias.shape)}")
    if any(other is not None and other.dtype != x.dtype for other in (weight, bias)):
        raise Misfit(f"input type ({x.dtype}) and weight type ({weight.dtype}) or bias type should be the same")


def _check_affine(x: Tensor, *weights: Tensor | None) -> None:
    """Weights of one dtype: the input's, or float32 beside an input of half precision."""
    kinds = {weight.dtype for weight in weights if weight is not None}
    if kinds not in (set(), {x.dtype}) and not (x.dtype in _LOW_PRECISION and kinds == {torch.float32}):
        raise Misfit(f"expected weight and bias of type {x.dtype}, but found {', '.join(sorted(map(str, kinds)))}")


def batch_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor | None, var: Tensor | None, training: bool, *_rest: Any
) -> tuple[Tensor, Tensor, Tensor] | None:
    """Result, batch mean and inverse deviation; in eval mode the CPU keeps none of the two."""
    if x.dim() < 2 or any(tensor is not None and tensor.shape != (x.shape[1],) for tensor in (weight, bias, mean, var)):
        return None
    _check_affine(x, weight, bias, mean, var)
    if not x.is_floating_point():
        return None
    kept = (x.shape[1] if training else 0,)
    like = next((tensor for tensor in (weight, bias, mean, var) if tensor is not None), x)
    return empty(x, x.shape, layout=memory_format(x)), empty(like, kept), empty(like, kept)


def layer_norm(x: Tensor, normalized: Any, weight: Tensor | None, bias: Tensor | None, _eps: float) -> tuple[Tensor, Tensor, Tensor] | None:
    """Result, mean and inverse deviation of each normalised part."""
    dims, shape = len(normalized), tuple(normalized)
    if not dims or tuple(x.shape[x.dim() - dims :]) != shape or any(w is not None and tuple(w.shape) != shape for w in (weight, bias)):
        raise Misfit(f"expected an input of shape (*, {', '.join(map(str, shape))}) and weights of shape {shape}, but got {tuple(x.shape)}")
    _check_affine(x, weight, bias)
    if not x.is_floating_point():
        return None
    kept = (*x.shape[: x.dim() - dims], *(1,) * dims)
    return empty(x, x.shape), empty(x, kept, _accumulator(x)), empty(x, kept, _accumulator(x))


def group_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, batch: int, channels: int, pixels: int, groups: int, _eps: float
) -> tuple[Tensor, Tensor, Tensor] | None:
    """Result, mean and inverse deviation (N, groups)."""
    if any(tensor is not None and tuple(tensor.shape) != (channels,) for tensor in (weight, bias)):
        raise Misfit(f"expected weight and bias to be vectors of size equal to the number of channels, {channels}")
    if groups < 1 or channels % groups:
        raise Misfit(f"expected number of channels in input to be divisible by num_groups, but got {channels} channels and {groups} groups")
    _check_affine(x, weight, bias)
    if not x.is_floating_point() or x.numel() != batch * channels * pixels or 0 in x.shape[1:]:
        return None
    kept = (batch, groups)
    return empty(x, x.shape, layout=memory_format(x)), empty(x, kept, _accumulator(x)), empty(x, kept, _accumulator(x))


def _accumulator(x: Tensor) -> torch.dtype:
    """The dtype of kept statistics, as GPUs have it: half precision models run there."""
    return torch.float32 if x.dtype in _LOW_PRECISION else x.dtype


# -- matrix products -----------------------------------------------------------------------------------------------------------------


def mm(a: Tensor, b: Tensor) -> Tensor | None:
    """(m, k) @ (k, n)."""
    if a.dim() != 2 or b.dim() != 2 or a.shape[1] != b.shape[0]:
        return None
    _check_dtypes(a, b)
    return empty(a, (a.shape[0], b.shape[1]))


def bmm(a: Tensor, b: Tensor) -> Tensor | None:
    """(b, m, k) @ (b, k, n)."""
    if a.dim() != 3 or b.dim() != 3 or a.shape[0] != b.shape[0] or a.shape[2] != b.shape[1]:
        return None
    _check_dtypes(a, b)
    return empty(a, (a.shape[0], a.shape[1], b.shape[2]))


def _check_dtypes(*tensors: Tensor) -> None:
    if any(tensor.dtype != tensors[0].dtype for tensor in tensors):
        raise Misfit(f"expected matrices of the same dtype, but got {', '.join(str(tensor.dtype) for tensor in tensors)}")


def plus(product: Kernel) -> Kernel:
    """The same product with something added that broadcasts to it."""

    def added(bias: Tensor, a: Tensor, b: Tensor, **_kwargs: Any) -> Tensor | None:
        out: Tensor | None = product(a, b)
        if out is None:
            return None
        _check_dtypes(bias, a)
        if bias.dim() > out.dim() or any(s not in (1, t) for s, t in zip(reversed(bias.shape), reversed(out.shape), strict=False)):
            raise Misfit(f"the expanded size {tuple(out.shape)} must match the size of the tensor that is added, {tuple(bias.shape)}")
        return out

    return added
