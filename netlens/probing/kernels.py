"""Result shapes of the operators that networks are made of, without torch's own meta kernels.

Torch runs most of them as Python references: 20-100 us a call, and the first call imports the compiler (`torch._dynamo`, `sympy`), a
second of every run. Each kernel here returns None wherever the case is not plain; torch's own kernel then answers, or raises its own
message. Tests hold every kernel against a real CPU run.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import Tensor

Kernel = Callable[..., Any]
_BITWISE = frozenset({"bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_not"})
_COMPARISONS = frozenset(
    {"eq", "ne", "lt", "le", "gt", "ge", "logical_and", "logical_or", "logical_xor", "logical_not", "isnan", "isinf", "isfinite"}
)
# Pointwise, but the result's dtype or number of tensors is not the arguments'.
_NOT_PLAIN = _COMPARISONS | {
    "frexp",
    "angle",
    "abs",
    "real",
    "imag",
    "sgn",
    "_to_copy",
    "masked_fill",
    "where",
    "polar",
    "complex",
    "bucketize",
}
_SCALAR = (int, float, bool)


def kernel_of(base: str, operator: Any) -> Kernel | None:
    """Return the shape kernel of an operator, by its name without namespace, or None."""
    found = _KERNELS.get(base)
    if found is not None or (torch.Tag.pointwise not in operator.tags and base not in _UNTAGGED):
        return found
    overload = operator._overloadname
    if "out" in overload or len(operator._schema.returns) != 1:
        return None
    if base.endswith("_"):
        return _in_place
    if base in _COMPARISONS:
        return _comparison
    if base in _BITWISE:
        return _bitwise
    return None if base in _NOT_PLAIN else _pointwise


_UNTAGGED = frozenset({"hardswish", "hardswish_", "relu6"})


def broadcast(*shapes: Any) -> tuple[int, ...]:
    """The shape that `shapes` broadcast to; torch's own function is Python too, and imports sympy.

    Raises:
        RuntimeError: they do not fit.
    """
    dims = max(map(len, shapes), default=0)
    result = [1] * dims
    for shape in shapes:
        for place, size in enumerate(shape, start=dims - len(shape)):
            if size != 1 and result[place] not in (1, size):
                raise RuntimeError(f"shapes {', '.join(str(tuple(s)) for s in shapes)} do not broadcast")
            result[place] = result[place] if size == 1 else size
    return tuple(result)


def _tensors(args: tuple[Any, ...]) -> list[Tensor] | None:
    """The tensors among plain arguments; None where an argument is of another kind."""
    found = []
    for value in args:
        if isinstance(value, Tensor):
            found.append(value)
        elif value is not None and not isinstance(value, (*_SCALAR, str)):
            return None
    return found


def _pointwise(*args: Any, **kwargs: Any) -> Tensor | None:
    """Floating tensors of one dtype: broadcast; the layout of the first where all shapes agree."""
    tensors = _tensors(args)
    if not tensors or any(key not in ("alpha", "rounding_mode", "approximate", "negative_slope") for key in kwargs):
        return None
    first = tensors[0]
    if len(tensors) == 1:
        return _like(first) if first.is_floating_point() else None
    dtype = torch.result_type(*tensors[:2])
    if not dtype.is_floating_point or any(other.dtype != dtype for other in tensors[2:]):
        return None
    if first.dtype == dtype and all(other.shape == first.shape for other in tensors):
        return _like(first)
    return first.new_empty(broadcast(*(tensor.shape for tensor in tensors)), dtype=dtype)


def _like(x: Tensor) -> Tensor:
    """An empty tensor like `x`, with its strides where they have no gaps: `torch.empty_like` is a Python reference on meta."""
    if x.is_contiguous() or sum((size - 1) * stride for size, stride in zip(x.shape, x.stride(), strict=True)) + 1 != x.numel():
        return x.new_empty(x.shape)
    return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=x.device)


def _like_factory(
    x: Tensor, *_fill: Any, dtype: Any = None, memory_format: Any = None, device: Any = None, **_kwargs: Any
) -> Tensor | None:
    plain = dtype in (None, x.dtype) and memory_format in (None, torch.preserve_format) and (device is None or device == x.device)
    return _like(x) if plain else None


def _masked_fill(x: Tensor, mask: Tensor, _value: Any) -> Tensor | None:
    shape = broadcast(x.shape, mask.shape)
    return x.new_empty(shape) if mask.dtype == torch.bool else None


def _where(condition: Tensor, a: Any = None, b: Any = None) -> Tensor | None:
    if not (isinstance(a, Tensor) and isinstance(b, Tensor)) or a.dtype != b.dtype or condition.dtype != torch.bool:
        return None
    return a.new_empty(broadcast(condition.shape, a.shape, b.shape))


def _index(x: Tensor, indices: Any) -> Tensor | None:
    """Integer positions in one run of dimensions, as in `table[index]` and `x[:, index]`."""
    places = [place for place, index in enumerate(indices) if index is not None]
    if not places or places[-1] - places[0] + 1 != len(places) or any(indices[p].dtype not in (torch.int64, torch.int32) for p in places):
        return None
    picked = broadcast(*(indices[place].shape for place in places))
    return x.new_empty((*x.shape[: places[0]], *picked, *x.shape[places[-1] + 1 :]))


def _comparison(*args: Any, **kwargs: Any) -> Tensor | None:
    tensors = _tensors(args)
    if not tensors or kwargs:
        return None
    return tensors[0].new_empty(broadcast(*(tensor.shape for tensor in tensors)), dtype=torch.bool)


def _bitwise(*args: Any) -> Tensor | None:
    tensors = _tensors(args)
    if not tensors or len(tensors) != len(args) or any(tensor.dtype != tensors[0].dtype for tensor in tensors):
        return None
    return tensors[0].new_empty(broadcast(*(tensor.shape for tensor in tensors)))


def _in_place(*args: Any, **_kwargs: Any) -> Tensor | None:
    tensors = _tensors(args)
    if not tensors or not isinstance(args[0], Tensor) or not args[0].is_floating_point():
        return None
    shape = args[0].shape
    if any(other.shape != shape and broadcast(shape, other.shape) != shape for other in tensors):
        return None
    return args[0]


def _convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
) -> Tensor | None:
    dims = weight.dim() - 2
    if dims < 1 or x.dim() != weight.dim() or x.dtype != weight.dtype or x.numel() == 0 or (bias is not None and bias.dtype != x.dtype):
        return None
    if x.shape[1] != (weight.shape[0] if transposed else weight.shape[1] * groups) or weight.shape[0] % groups:
        return None
    stride, padding, dilation = (list(value) * dims if len(value) == 1 else value for value in (stride, padding, dilation))
    kernel = [dilation[i] * (weight.shape[i + 2] - 1) for i in range(dims)]
    if transposed:
        extra = list(output_padding) * dims if len(output_padding) == 1 else output_padding
        size = [(x.shape[i + 2] - 1) * stride[i] - 2 * padding[i] + kernel[i] + extra[i] + 1 for i in range(dims)]
    else:
        size = [(x.shape[i + 2] + 2 * padding[i] - kernel[i] - 1) // stride[i] + 1 for i in range(dims)]
    if min(size) < 1:
        return None
    return x.new_empty((x.shape[0], weight.shape[1] * groups if transposed else weight.shape[0], *size))


def _batch_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor | None, var: Tensor | None, training: bool, *_rest: Any
) -> tuple[Tensor, Tensor, Tensor] | None:
    """Result, batch mean and inverse deviation; in eval mode the CPU keeps none of the two."""
    if x.dim() < 2 or any(tensor is not None and tensor.shape != (x.shape[1],) for tensor in (weight, bias, mean, var)):
        return None
    kept = (x.shape[1] if training else 0,)
    like = x if weight is None else weight
    return _like(x), like.new_empty(kept), like.new_empty(kept)


def _layer_norm(
    x: Tensor, normalized: Any, weight: Tensor | None, bias: Tensor | None, _eps: float
) -> tuple[Tensor, Tensor, Tensor] | None:
    dims = len(normalized)
    if tuple(x.shape[x.dim() - dims :]) != tuple(normalized) or (weight is not None and weight.shape != tuple(normalized)):
        return None
    kept = (*x.shape[: x.dim() - dims], *(1,) * dims)
    return x.new_empty(x.shape), *(x.new_empty(kept, dtype=_accumulator(x)) for _ in range(2))  # type: ignore[return-value]


def _group_norm(
    x: Tensor, weight: Tensor | None, _bias: Tensor | None, batch: int, channels: int, _pixels: int, groups: int, _eps: float
) -> tuple[Tensor, Tensor, Tensor] | None:
    if weight is not None and weight.numel() != channels:
        return None
    return _like(x), *(x.new_empty((batch, groups), dtype=_accumulator(x)) for _ in range(2))  # type: ignore[return-value]


def _accumulator(x: Tensor) -> torch.dtype:
    return torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype


def _mm(a: Tensor, b: Tensor) -> Tensor | None:
    if a.dim() != 2 or b.dim() != 2 or a.shape[1] != b.shape[0] or a.dtype != b.dtype:
        return None
    return a.new_empty((a.shape[0], b.shape[1]))


def _bmm(a: Tensor, b: Tensor) -> Tensor | None:
    if a.dim() != 3 or b.dim() != 3 or a.shape[0] != b.shape[0] or a.shape[2] != b.shape[1] or a.dtype != b.dtype:
        return None
    return a.new_empty((a.shape[0], a.shape[1], b.shape[2]))


def _plus(product: Kernel) -> Kernel:
    def added(bias: Tensor, a: Tensor, b: Tensor, **_kwargs: Any) -> Tensor | None:
        out: Tensor | None = product(a, b)
        fits = out is not None and bias.dtype == a.dtype and bias.dim() <= out.dim()
        return out if fits and all(s in (1, t) for s, t in zip(reversed(bias.shape), reversed(out.shape), strict=False)) else None  # type: ignore[union-attr]

    return added


def _cat(tensors: Any, dim: int = 0) -> Tensor | None:
    first = tensors[0]
    dims = first.dim()
    dim = dim + dims if dim < 0 else dim
    if not 0 <= dim < dims:
        return None
    shape = list(first.shape)
    for other in tensors[1:]:
        rest = list(other.shape)
        if other.dim() != dims or other.dtype != first.dtype or rest[:dim] + rest[dim + 1 :] != shape[:dim] + shape[dim + 1 :]:
            return None
        shape[dim] += rest[dim]
    return torch.empty(shape, dtype=first.dtype, device=first.device)


def _max_pool2d(
    x: Tensor, kernel: Any, stride: Any = (), padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False
) -> tuple[Tensor, Tensor] | None:
    if x.dim() not in (3, 4) or ceil_mode or x.numel() == 0:
        return None
    kernel, padding, dilation = (_pair(value) for value in (kernel, padding, dilation))
    stride = _pair(stride) if stride else kernel
    size = [(x.shape[i - 2] + 2 * padding[i] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1 for i in range(2)]
    if min(size) < 1 or any(2 * padding[i] > kernel[i] for i in range(2)):
        return None
    shape = (*x.shape[:-2], *size)
    return x.new_empty(shape), x.new_empty(shape, dtype=torch.int64)


def _pair(value: Any) -> tuple[int, int]:
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * 2 if len(values) == 1 else values


def _adaptive_avg_pool2d(x: Tensor, size: Any) -> Tensor | None:
    return x.new_empty((*x.shape[:-2], *size)) if x.dim() in (3, 4) and x.numel() and prod(size) else None


def _reduction(x: Tensor, dim: Any = None, keepdim: bool = False, **kwargs: Any) -> Tensor | None:
    if kwargs or not x.is_floating_point() or x.numel() == 0 or not isinstance(dim, (list, tuple, int, type(None))):
        return None
    dims = range(x.dim()) if dim is None or dim == [] else [dim] if isinstance(dim, int) else dim
    if any(not -x.dim() <= d < x.dim() for d in dims):
        return None
    gone = {d % x.dim() for d in dims}
    return x.new_empty([1 if d in gone else size for d, size in enumerate(x.shape) if keepdim or d not in gone])


def _upsample(x: Tensor, size: Any, *_args: Any, **_kwargs: Any) -> Tensor | None:
    if not isinstance(size, (list, tuple)) or x.dim() != len(size) + 2 or x.numel() == 0 or min(size) < 1:
        return None
    return x.new_empty((*x.shape[:2], *size))


def _stack(tensors: Any, dim: int = 0) -> Tensor | None:
    first = tensors[0]
    if any(other.shape != first.shape or other.dtype != first.dtype for other in tensors) or not -first.dim() - 1 <= dim <= first.dim():
        return None
    shape = list(first.shape)
    shape.insert(dim % (first.dim() + 1), len(tensors))
    return torch.empty(shape, dtype=first.dtype, device=first.device)


def _softmax(x: Tensor, dim: int, half_to_float: bool) -> Tensor | None:
    return None if half_to_float or not -x.dim() <= dim < max(x.dim(), 1) else x.new_empty(x.shape)


def _embedding(weight: Tensor, ids: Tensor, *_rest: Any) -> Tensor | None:
    return weight.new_empty((*ids.shape, weight.shape[1])) if weight.dim() == 2 else None


_KERNELS: dict[str, Kernel] = {
    "mean": _reduction,
    "sum": _reduction,
    "stack": _stack,
    "_softmax": _softmax,
    "_log_softmax": _softmax,
    "embedding": _embedding,
    **dict.fromkeys(
        ("upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "upsample_bilinear2d", "upsample_bicubic2d"), _upsample
    ),
    **dict.fromkeys(("upsample_linear1d", "upsample_trilinear3d"), _upsample),
    "convolution": _convolution,
    "native_batch_norm": _batch_norm,
    "native_layer_norm": _layer_norm,
    "native_group_norm": _group_norm,
    "mm": _mm,
    "bmm": _bmm,
    "addmm": _plus(_mm),
    "baddbmm": _plus(_bmm),
    "cat": _cat,
    "roll": lambda x, *_args, **_kwargs: x.new_empty(x.shape),
    "masked_fill": _masked_fill,
    "where": _where,
    "index": _index,
    **dict.fromkeys(("empty_like", "zeros_like", "ones_like", "full_like"), _like_factory),
    "max_pool2d_with_indices": _max_pool2d,
    "_adaptive_avg_pool2d": _adaptive_avg_pool2d,
}
