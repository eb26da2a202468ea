"""Result shapes of the operators that networks are made of, without torch's own meta kernels.

Torch runs most of them as Python references: 20-100 us a call, and the first call imports the compiler (`torch._dynamo`, `sympy`), a
second of every run. They also take what no real kernel takes: operands of different dtypes, a dimension out of range. Each kernel here
raises `Misfit` for those, and returns None wherever the case is not plain; torch's own kernel then answers, or raises its own message.
Tests hold every kernel against a real CPU run.
"""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import Tensor

from netlens.probing import layer_kernels, pooling
from netlens.probing.pointwise import Kernel, Misfit, broadcast, dense_strides, laid_out, pointwise_kernel
from netlens.probing.shapes import check_dim, empty, memory_format, numbers

_LOW_PRECISION = (torch.float16, torch.bfloat16)


def kernel_of(base: str, operator: Any) -> Kernel | None:
    """Return the shape kernel of an operator, by its name without namespace, or None."""
    return _KERNELS.get(base) or pointwise_kernel(base, operator)


# -- pooling and resizing ------------------------------------------------------------------------------------------------------------


def _max_pool2d(
    x: Tensor, kernel: Any, stride: Any = (), padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False
) -> tuple[Tensor, Tensor] | None:
    if x.dim() not in (3, 4) or 0 in x.shape[-3:]:
        return None
    kernel, padding, dilation = (numbers(value, 2) for value in (kernel, padding, dilation))
    stride = numbers(stride, 2) if stride not in ((), []) else kernel
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
    shape, layout = (*x.shape[:-2], *size), memory_format(x)
    return empty(x, shape, layout=layout), empty(x, shape, torch.int64, layout=layout)


def _adaptive_avg_pool2d(x: Tensor, size: Any) -> Tensor | None:
    if len(size) != 2:
        raise Misfit(f"adaptive_avg_pool2d: output_size must be 2, but got {list(size)}")
    if 0 in x.shape[-2:]:
        raise Misfit(f"adaptive_avg_pool2d(): Expected input to have non-zero size for non-batch dimensions, but got {tuple(x.shape)}")
    fits = x.dim() in (3, 4) and 0 not in x.shape and min(size) > 0
    return empty(x, (*x.shape[:-2], *size), layout=memory_format(x)) if fits else None


def _upsample(dims: int) -> Kernel:
    def resized(x: Tensor, size: Any, *_args: Any, **_kwargs: Any) -> Tensor | None:
        if not isinstance(size, (list, tuple)):
            return None
        if len(size) != dims or x.dim() != dims + 2 or 0 in x.shape[1:] or min(size) < 1:
            raise Misfit(
                f"expected a non-empty input with {dims + 2} dimensions and {dims} sizes, but got {tuple(x.shape)} and {list(size)}"
            )
        return empty(x, (*x.shape[:2], *size), layout=memory_format(x)) if x.is_floating_point() else None

    return resized


# -- reductions ----------------------------------------------------------------------------------------------------------------------


def _reduction(x: Tensor, dim: Any = None, keepdim: bool = False, **kwargs: Any) -> Tensor | None:
    if kwargs or not x.is_floating_point() or x.numel() == 0 or not isinstance(dim, (list, tuple, int, type(None))):
        return None
    given = [dim] if isinstance(dim, int) else dim or range(x.dim())
    gone = {check_dim(d, x.dim()) for d in given}
    if len(gone) < len(given):
        raise Misfit(f"a dimension appears multiple times in the list of dims {dim}")
    return empty(x, [1 if d in gone else size for d, size in enumerate(x.shape) if keepdim or d not in gone])


def _vector_norm(x: Tensor, _order: Any = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor | None:
    return _reduction(x, dim, keepdim) if dtype is None else None


def _softmax(x: Tensor, dim: int, half_to_float: bool) -> Tensor | None:
    check_dim(dim, x.dim())
    return None if half_to_float or not x.is_floating_point() else empty(x, x.shape)


# -- moving elements -----------------------------------------------------------------------------------------------------------------


def _cat(tensors: Any, dim: int = 0) -> Tensor | None:
    if not tensors:
        return None
    first = tensors[0]
    dims, formats = first.dim(), {memory_format(other) for other in tensors}
    dim = dim + dims if dim < 0 else dim
    if not 0 <= dim < dims:
        return None
    shape = list(first.shape)
    for other in tensors[1:]:
        rest = list(other.shape)
        if other.dim() != dims or other.dtype != first.dtype or rest[:dim] + rest[dim + 1 :] != shape[:dim] + shape[dim + 1 :]:
            return None
        shape[dim] += rest[dim]
    return empty(first, shape, layout=formats.pop() if len(formats) == 1 else None)


def _stack(tensors: Any, dim: int = 0) -> Tensor | None:
    first = tensors[0] if tensors else None
    if first is None or any(other.shape != first.shape or other.dtype != first.dtype for other in tensors):
        return None
    if not -first.dim() - 1 <= dim <= first.dim() or not all(other.is_contiguous() for other in tensors):
        return None
    shape = list(first.shape)
    shape.insert(dim % (first.dim() + 1), len(tensors))
    return empty(first, shape)


def _roll(x: Tensor, shifts: Any, dims: Any = ()) -> Tensor | None:
    if not shifts or (len(shifts) != len(dims) and not (len(shifts) == 1 and not dims)):
        raise Misfit(f"shifts and dimensions must align, but got shifts {list(shifts)} and dims {list(dims)}")
    for dim in dims if x.numel() else ():
        if x.dim() == 0:
            raise Misfit(f"Dimension specified as {dim} but tensor has no dimensions")
        check_dim(dim, x.dim())
    return empty(x, x.shape, layout=memory_format(x) if dims else None)


def _masked_fill(x: Tensor, mask: Tensor, value: Any) -> Tensor | None:
    _check_mask(mask, value)
    if not x.is_floating_point() or (isinstance(value, Tensor) and value.is_complex()):
        return None
    return empty(x, broadcast(x.shape, mask.shape))


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
        return empty(x, shape)
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
    return empty(weight, (*ids.shape, weight.shape[1]))


def _like_factory(
    x: Tensor, *_fill: Any, dtype: Any = None, memory_format: Any = None, device: Any = None, **_kwargs: Any
) -> Tensor | None:
    plain = dtype in (None, x.dtype) and memory_format in (None, torch.preserve_format) and (device is None or device == x.device)
    return laid_out(x.dtype, x) if plain else None


_KERNELS: dict[str, Kernel] = {
    **pooling.KERNELS,
    "convolution": layer_kernels.convolution,
    "native_batch_norm": layer_kernels.batch_norm,
    "native_layer_norm": layer_kernels.layer_norm,
    "native_group_norm": layer_kernels.group_norm,
    "mm": layer_kernels.mm,
    "bmm": layer_kernels.bmm,
    "addmm": layer_kernels.plus(layer_kernels.mm),
    "baddbmm": layer_kernels.plus(layer_kernels.bmm),
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
