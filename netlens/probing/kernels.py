"""Result shapes of the operators that networks are made of, without torch's own meta kernels.

Torch runs most of them as Python references: 20-100 us a call, and the first call imports the compiler (`torch._dynamo`, `sympy`), a
second of every run. They also take what no real kernel takes: operands of different dtypes, a dimension out of range. Each kernel here
raises `Misfit` for those, and returns None wherever the case is not plain; torch's own kernel then answers, or raises its own message.
Tests hold every kernel against a real CPU run.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from netlens.probing import pooling
from netlens.probing.pointwise import Kernel, Misfit, broadcast, dense_strides, laid_out, pointwise_kernel

_LOW_PRECISION = (torch.float16, torch.bfloat16)


def kernel_of(base: str, operator: Any) -> Kernel | None:
    """Return the shape kernel of an operator, by its name without namespace, or None."""
    return _KERNELS.get(base) or pointwise_kernel(base, operator)


def _empty(x: Tensor, shape: Sequence[int], dtype: torch.dtype | None = None, *, layout: torch.memory_format | None = None) -> Tensor:
    return torch.empty(shape, dtype=dtype or x.dtype, device="meta", memory_format=layout or torch.contiguous_format)


def _memory_format(x: Tensor) -> torch.memory_format:
    """Channels last or contiguous, as `Tensor::suggest_memory_format` has it, ambiguous cases included."""
    if x.dim() not in (4, 5) or x.stride(1) != 1:
        return torch.contiguous_format
    smallest, order = 0, (1, 3, 2, 0) if x.dim() == 4 else (1, 4, 3, 2, 0)
    for dim in order:
        size, stride = x.shape[dim], x.stride(dim)
        if size == 0 or stride < smallest or (dim == 0 and smallest == x.stride(1)):
            return torch.contiguous_format
        smallest = stride * size if size > 1 else stride
    return torch.channels_last if x.dim() == 4 else torch.channels_last_3d


def _numbers(values: Any, count: int) -> list[int]:
    """`values` for each of `count` dimensions; one value is for all of them."""
    numbers: list[int] = [values] if isinstance(values, int) else list(values)
    if len(numbers) not in (1, count):
        raise Misfit(f"expected a single integer or a list of {count} integers, got {numbers}")
    return numbers * count if len(numbers) == 1 else numbers


def _check_dim(dim: int, dims: int) -> int:
    last = max(dims, 1)
    if not -last <= dim < last:
        raise Misfit(f"Dimension out of range (expected to be in range of [{-last}, {last - 1}], but got {dim})")
    return dim % last


# -- convolution and norms -----------------------------------------------------------------------------------------------------------


def _convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any, transposed: bool, extra: Any, groups: int
) -> Tensor | None:
    dims = weight.dim() - 2
    if dims < 1 or x.dim() != weight.dim():
        raise Misfit(f"expected {weight.dim()}-dimensional input for weight {tuple(weight.shape)}, but got input {tuple(x.shape)}")
    stride, padding, dilation, extra = (_numbers(value, dims) for value in (stride, padding, dilation, extra))
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
    channels_last = any(_memory_format(t) != torch.contiguous_format for t in (x, weight))
    layout = (torch.channels_last if dims == 2 else torch.channels_last_3d) if channels_last else None
    return _empty(x, (x.shape[0], weight.shape[1] * groups if transposed else weight.shape[0], *size), layout=layout)


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


def _batch_norm(
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
    return _empty(x, x.shape, layout=_memory_format(x)), _empty(like, kept), _empty(like, kept)


def _layer_norm(
    x: Tensor, normalized: Any, weight: Tensor | None, bias: Tensor | None, _eps: float
) -> tuple[Tensor, Tensor, Tensor] | None:
    dims, shape = len(normalized), tuple(normalized)
    if not dims or tuple(x.shape[x.dim() - dims :]) != shape or any(w is not None and tuple(w.shape) != shape for w in (weight, bias)):
        raise Misfit(f"expected an input of shape (*, {', '.join(map(str, shape))}) and weights of shape {shape}, but got {tuple(x.shape)}")
    _check_affine(x, weight, bias)
    if not x.is_floating_point():
        return None
    kept = (*x.shape[: x.dim() - dims], *(1,) * dims)
    return _empty(x, x.shape), _empty(x, kept, _accumulator(x)), _empty(x, kept, _accumulator(x))


def _group_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, batch: int, channels: int, pixels: int, groups: int, _eps: float
) -> tuple[Tensor, Tensor, Tensor] | None:
    if any(tensor is not None and tuple(tensor.shape) != (channels,) for tensor in (weight, bias)):
        raise Misfit(f"expected weight and bias to be vectors of size equal to the number of channels, {channels}")
    if groups < 1 or channels % groups:
        raise Misfit(f"expected number of channels in input to be divisible by num_groups, but got {channels} channels and {groups} groups")
    _check_affine(x, weight, bias)
    if not x.is_floating_point() or x.numel() != batch * channels * pixels or 0 in x.shape[1:]:
        return None
    kept = (batch, groups)
    return _empty(x, x.shape, layout=_memory_format(x)), _empty(x, kept, _accumulator(x)), _empty(x, kept, _accumulator(x))


def _accumulator(x: Tensor) -> torch.dtype:
    """The dtype of kept statistics, as GPUs have it: half precision models run there."""
    return torch.float32 if x.dtype in _LOW_PRECISION else x.dtype


# -- matrix products -----------------------------------------------------------------------------------------------------------------


def _mm(a: Tensor, b: Tensor) -> Tensor | None:
    if a.dim() != 2 or b.dim() != 2 or a.shape[1] != b.shape[0]:
        return None
    _check_dtypes(a, b)
    return _empty(a, (a.shape[0], b.shape[1]))


def _bmm(a: Tensor, b: Tensor) -> Tensor | None:
    if a.dim() != 3 or b.dim() != 3 or a.shape[0] != b.shape[0] or a.shape[2] != b.shape[1]:
        return None
    _check_dtypes(a, b)
    return _empty(a, (a.shape[0], a.shape[1], b.shape[2]))


def _check_dtypes(*tensors: Tensor) -> None:
    if any(tensor.dtype != tensors[0].dtype for tensor in tensors):
        raise Misfit(f"expected matrices of the same dtype, but got {', '.join(str(tensor.dtype) for tensor in tensors)}")


def _plus(product: Kernel) -> Kernel:
    def added(bias: Tensor, a: Tensor, b: Tensor, **_kwargs: Any) -> Tensor | None:
        out: Tensor | None = product(a, b)
        if out is None:
            return None
        _check_dtypes(bias, a)
        if bias.dim() > out.dim() or any(s not in (1, t) for s, t in zip(reversed(bias.shape), reversed(out.shape), strict=False)):
            raise Misfit(f"the expanded size {tuple(out.shape)} must match the size of the tensor that is added, {tuple(bias.shape)}")
        return out

    return added


# -- pooling and resizing ------------------------------------------------------------------------------------------------------------


def _max_pool2d(
    x: Tensor, kernel: Any, stride: Any = (), padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False
) -> tuple[Tensor, Tensor] | None:
    if x.dim() not in (3, 4) or 0 in x.shape[-3:]:
        return None
    kernel, padding, dilation = (_numbers(value, 2) for value in (kernel, padding, dilation))
    stride = _numbers(stride, 2) if stride not in ((), []) else kernel
    wide = [dilation[i] * (kernel[i] - 1) + 1 for i in range(2)]
    if min(*kernel, *stride, *dilation) < 1 or any(not 0 <= padding[i] <= kernel[i] // 2 for i in range(2)):
        raise Misfit("kernel size, stride and dilation must be positive, and padding at most half of the kernel size")
    size = []
    for i in range(2):
        rest = x.shape[i - 2] + 2 * padding[i] - wide[i]
        places = (rest + (stride[i] - 1 if ceil_mode else 0)) // stride[i] + 1
        outside = ceil_mode and (places - 1) * stride[i] >= x.shape[i - 2] + padding[i]  # a window that would see padding only
        size.append(places - outside)
    if min(size) < 1:
        return None
    shape, layout = (*x.shape[:-2], *size), _memory_format(x)
    return _empty(x, shape, layout=layout), _empty(x, shape, torch.int64, layout=layout)


def _adaptive_avg_pool2d(x: Tensor, size: Any) -> Tensor | None:
    if len(size) != 2:
        raise Misfit(f"adaptive_avg_pool2d: output_size must be 2, but got {list(size)}")
    if 0 in x.shape[-2:]:
        raise Misfit(f"adaptive_avg_pool2d(): Expected input to have non-zero size for non-batch dimensions, but got {tuple(x.shape)}")
    fits = x.dim() in (3, 4) and 0 not in x.shape and min(size) > 0
    return _empty(x, (*x.shape[:-2], *size), layout=_memory_format(x)) if fits else None


def _upsample(dims: int) -> Kernel:
    def resized(x: Tensor, size: Any, *_args: Any, **_kwargs: Any) -> Tensor | None:
        if not isinstance(size, (list, tuple)):
            return None
        if len(size) != dims or x.dim() != dims + 2 or 0 in x.shape[1:] or min(size) < 1:
            raise Misfit(
                f"expected a non-empty input with {dims + 2} dimensions and {dims} sizes, but got {tuple(x.shape)} and {list(size)}"
            )
        return _empty(x, (*x.shape[:2], *size), layout=_memory_format(x)) if x.is_floating_point() else None

    return resized


# -- reductions ----------------------------------------------------------------------------------------------------------------------


def _reduction(x: Tensor, dim: Any = None, keepdim: bool = False, **kwargs: Any) -> Tensor | None:
    if kwargs or not x.is_floating_point() or x.numel() == 0 or not isinstance(dim, (list, tuple, int, type(None))):
        return None
    given = [dim] if isinstance(dim, int) else dim or range(x.dim())
    gone = {_check_dim(d, x.dim()) for d in given}
    if len(gone) < len(given):
        raise Misfit(f"a dimension appears multiple times in the list of dims {dim}")
    return _empty(x, [1 if d in gone else size for d, size in enumerate(x.shape) if keepdim or d not in gone])


def _vector_norm(x: Tensor, _order: Any = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor | None:
    return _reduction(x, dim, keepdim) if dtype is None else None


def _softmax(x: Tensor, dim: int, half_to_float: bool) -> Tensor | None:
    _check_dim(dim, x.dim())
    return None if half_to_float or not x.is_floating_point() else _empty(x, x.shape)


# -- moving elements -----------------------------------------------------------------------------------------------------------------


def _cat(tensors: Any, dim: int = 0) -> Tensor | None:
    if not tensors:
        return None
    first = tensors[0]
    dims, formats = first.dim(), {_memory_format(other) for other in tensors}
    dim = dim + dims if dim < 0 else dim
    if not 0 <= dim < dims:
        return None
    shape = list(first.shape)
    for other in tensors[1:]:
        rest = list(other.shape)
        if other.dim() != dims or other.dtype != first.dtype or rest[:dim] + rest[dim + 1 :] != shape[:dim] + shape[dim + 1 :]:
            return None
        shape[dim] += rest[dim]
    return _empty(first, shape, layout=formats.pop() if len(formats) == 1 else None)


def _stack(tensors: Any, dim: int = 0) -> Tensor | None:
    first = tensors[0] if tensors else None
    if first is None or any(other.shape != first.shape or other.dtype != first.dtype for other in tensors):
        return None
    if not -first.dim() - 1 <= dim <= first.dim() or not all(other.is_contiguous() for other in tensors):
        return None
    shape = list(first.shape)
    shape.insert(dim % (first.dim() + 1), len(tensors))
    return _empty(first, shape)


def _roll(x: Tensor, shifts: Any, dims: Any = ()) -> Tensor | None:
    if not shifts or (len(shifts) != len(dims) and not (len(shifts) == 1 and not dims)):
        raise Misfit(f"shifts and dimensions must align, but got shifts {list(shifts)} and dims {list(dims)}")
    for dim in dims if x.numel() else ():
        if x.dim() == 0:
            raise Misfit(f"Dimension specified as {dim} but tensor has no dimensions")
        _check_dim(dim, x.dim())
    return _empty(x, x.shape, layout=_memory_format(x) if dims else None)


def _masked_fill(x: Tensor, mask: Tensor, value: Any) -> Tensor | None:
    _check_mask(mask, value)
    if not x.is_floating_point() or (isinstance(value, Tensor) and value.is_complex()):
        return None
    return _empty(x, broadcast(x.shape, mask.shape))


def _masked_fill_in_place(_x: Tensor, mask: Tensor, value: Any) -> None:
    _check_mask(mask, value)


def _check_mask(mask: Tensor, value: Any) -> None:
    if mask.dtype != torch.bool:
        raise Misfit(f"masked_fill only supports boolean masks, but got mask with dtype {mask.dtype}")
    if isinstance(value, Tensor) and value.dim():
        raise Misfit(f"masked_fill only supports a 0-dimensional value tensor, but got tensor with {value.dim()} dimension(s)")


def _where(condition: Tensor, a: Any = None, b: Any = None) -> Tensor | None:
    if not (isinstance(a, Tensor) and isinstance(b, Tensor)) or condition.dtype not in (torch.bool, torch.uint8):
        return None
    return laid_out(torch.result_type(a, b), condition, a, b)


def _index(x: Tensor, indices: Any) -> Tensor | None:
    """Integer positions in one run of dimensions, as in `table[index]` and `x[:, index]`."""
    places = [place for place, index in enumerate(indices) if index is not None]
    if len(indices) > x.dim():
        raise Misfit(f"too many indices for tensor of dimension {x.dim()} (got {len(indices)})")
    if not places or places[-1] - places[0] + 1 != len(places) or any(indices[p].dtype not in (torch.int64, torch.int32) for p in places):
        return None
    picked = broadcast(*(indices[place].shape for place in places))
    if prod(picked) and any(x.shape[place] == 0 for place in places):
        raise Misfit("index is out of bounds for dimension with size 0")
    before, after = places[0], places[-1] + 1
    shape = (*x.shape[:before], *picked, *x.shape[after:])
    if x.is_contiguous() and all(indices[place].is_contiguous() for place in places):
        return _empty(x, shape)
    zeros = [0] * (x.dim() - after)
    strides = [[*x.stride()[:before], *[0] * len(picked), *x.stride()[after:]]]
    strides += [[*[0] * before, *indices[place].expand(picked).stride(), *zeros] for place in places]
    return torch.empty_strided(shape, dense_strides(shape, strides), dtype=x.dtype, device="meta")


def _embedding(weight: Tensor, ids: Tensor, *_rest: Any) -> Tensor | None:
    if ids.dtype not in (torch.int64, torch.int32):
        raise Misfit(f"expected tensor for argument 'indices' to have one of the following scalar types: Long, Int; but got {ids.dtype}")
    if weight.dim() != 2:
        return None
    if ids.numel() and not weight.shape[0]:
        raise Misfit("index out of range: the embedding has no rows")
    return _empty(weight, (*ids.shape, weight.shape[1]))


def _like_factory(
    x: Tensor, *_fill: Any, dtype: Any = None, memory_format: Any = None, device: Any = None, **_kwargs: Any
) -> Tensor | None:
    plain = dtype in (None, x.dtype) and memory_format in (None, torch.preserve_format) and (device is None or device == x.device)
    return laid_out(x.dtype, x) if plain else None


_KERNELS: dict[str, Kernel] = {
    **pooling.KERNELS,
    "convolution": _convolution,
    "native_batch_norm": _batch_norm,
    "native_layer_norm": _layer_norm,
    "native_group_norm": _group_norm,
    "mm": _mm,
    "bmm": _bmm,
    "addmm": _plus(_mm),
    "baddbmm": _plus(_bmm),
    "max_pool2d_with_indices": _max_pool2d,
    "_adaptive_avg_pool2d": _adaptive_avg_pool2d,
    **dict.fromkeys(("upsample_nearest1d", "upsample_linear1d"), _upsample(1)),
    **dict.fromkeys(("upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d"), _upsample(2)),
    **dict.fromkeys(("upsample_nearest3d", "upsample_trilinear3d"), _upsample(3)),
    "mean": _reduction,
    "sum": _reduction,
    "linalg_vector_norm": _vector_norm,
    "_softmax": _softmax,
    "_log_softmax": _softmax,
    "cat": _cat,
    "stack": _stack,
    "roll": _roll,
    "masked_fill": _masked_fill,
    "masked_fill_": _masked_fill_in_place,
    "where": _where,
    "index": _index,
    "embedding": _embedding,
    **dict.fromkeys(("empty_like", "zeros_like", "ones_like", "full_like"), _like_factory),
}
