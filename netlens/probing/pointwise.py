"""Result shapes and layouts of operators that treat every element alike, and of those that place them alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Kernel = Callable[..., Any]
_BITWISE = frozenset(
    {"bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_not", "bitwise_left_shift", "bitwise_right_shift", "gcd", "lcm"}
    | {"and", "or", "xor", "lshift", "rshift", "iand", "ior", "ixor", "ilshift", "irshift"}  # __and__, __iand__, ...
)
_COMPARISONS = frozenset(
    {"eq", "ne", "lt", "le", "gt", "ge", "logical_and", "logical_or", "logical_xor", "logical_not", "isnan", "isinf", "isfinite"}
)
# Pointwise, but the result's dtype or number of tensors is not the arguments', or some dtypes are refused.
_NOT_PLAIN = frozenset(
    """
    frexp angle abs real imag sgn _to_copy masked_fill where polar complex bucketize heaviside isposinf isneginf signbit
    copy_ ldexp mvlgamma conj_physical_
    """.split()  # noqa: SIM905
)
_UNTAGGED = frozenset({"hardswish", "hardswish_", "relu6"})
_SCALAR = (int, float, bool)


class Misfit(RuntimeError):
    """Operands that every real kernel refuses, and torch's meta kernel takes."""


def pointwise_kernel(base: str, operator: Any) -> Kernel | None:
    """Return the shape kernel of a pointwise operator, or None where it is not one, or not a plain one."""
    if torch.Tag.pointwise not in operator.tags and base not in _UNTAGGED:
        return None
    if "out" in operator._overloadname or len(operator._schema.returns) != 1 or base in _NOT_PLAIN or base.endswith("_backward"):
        return None
    plain, in_place = base.strip("_"), operator._schema.is_mutable
    if plain in _BITWISE:
        return _bitwise_in_place if in_place else _bitwise
    if (in_place and plain in _COMPARISONS) or (plain == "pow" and operator._overloadname == "Scalar"):
        return None
    kernel = _in_place if in_place else _comparison if base in _COMPARISONS else _pointwise
    return _checked(_CHECKS[plain], kernel) if plain in _CHECKS else kernel


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


def laid_out(dtype: torch.dtype, *tensors: Tensor) -> Tensor:
    """An empty meta tensor of the shape that `tensors` broadcast to, with the strides that a pointwise operator gives its result."""
    first = tensors[0]
    shape, strides = first.shape, first.stride()
    if all(other.shape == shape for other in tensors):
        if all(other.is_contiguous() for other in tensors):
            return torch.empty(shape, dtype=dtype, device="meta")
        dense = sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True)) + 1 == shape.numel()
        if dense and all(other.stride() == strides for other in tensors):
            return torch.empty_strided(shape, strides, dtype=dtype, device="meta")
    shape = torch.Size(broadcast(*(other.shape for other in tensors)))
    result = dense_strides(shape, [_strides(x, shape) for x in tensors])
    return torch.empty_strided(shape, result, dtype=dtype, device="meta")


def _strides(x: Tensor, shape: Sequence[int]) -> list[int]:
    """Strides of `x` expanded to `shape`."""
    new = len(shape) - x.dim()
    return [0] * new + [0 if n == 1 != shape[new + d] else x.stride(d) for d, n in enumerate(x.shape)]


def dense_strides(shape: Sequence[int], operands: list[list[int]]) -> list[int]:
    """Strides without gaps, the dimensions ordered as in the operands' strides (torch's `TensorIteratorBase::reorder_dimensions`)."""
    dims = len(shape)
    order = list(range(dims - 1, -1, -1))  # the fastest dimension first
    for start in range(1, dims):
        place = start
        for before in range(start - 1, -1, -1):
            slower = _is_slower(order[before], order[place], shape, operands)
            if slower:
                order[before], order[place] = order[place], order[before]
                place = before
            elif slower is False:
                break
    strides, step = [0] * dims, 1
    for dim in order:
        strides[dim] = step
        step *= max(shape[dim], 1)
    return strides


def _is_slower(a: int, b: int, shape: Sequence[int], operands: list[list[int]]) -> bool | None:
    """Tell whether dimension `a` lies outside `b`, by the first operand that can tell; None: none can."""
    for strides in operands:
        if strides[a] == 0 or strides[b] == 0:
            continue
        if strides[a] != strides[b]:
            return strides[a] > strides[b]
        if shape[a] > shape[b]:
            return True
    return None


def _tensors(args: tuple[Any, ...]) -> list[Tensor] | None:
    """The tensors among plain arguments; None where an argument is of another kind, or only None is given beside one tensor."""
    found = []
    for value in args:
        if isinstance(value, Tensor):
            found.append(value)
        elif value is not None and not isinstance(value, (*_SCALAR, str)):
            return None
    return None if len(found) == 1 < len(args) and all(value is None for value in args[1:]) else found


def _pointwise(*args: Any, **kwargs: Any) -> Tensor | None:
    """Floating tensors of one dtype, after promotion of the first two."""
    tensors = _tensors(args)
    if not tensors or any(key not in ("alpha", "rounding_mode", "approximate", "negative_slope") for key in kwargs):
        return None
    dtype = tensors[0].dtype if len(tensors) == 1 else torch.result_type(*tensors[:2])
    if not dtype.is_floating_point or any(other.dtype != dtype for other in tensors[2:]):
        return None
    return laid_out(dtype, *tensors)


def _checked(check: Callable[..., None], kernel: Kernel) -> Kernel:
    def checked(*args: Any, **kwargs: Any) -> Tensor | None:
        check(*args)
        result: Tensor | None = kernel(*args, **kwargs)
        return result

    return checked


def _no_bools(*args: Any) -> None:
    if any(isinstance(value, bool) or (isinstance(value, Tensor) and value.dtype == torch.bool) for value in args[:2]):
        raise Misfit("subtraction, the `-` operator, with a bool tensor is not supported; use `~` or `logical_not()` instead")


def _one_dtype(start: Tensor, end: Tensor, weight: Any) -> None:
    for other in (end, weight):
        if isinstance(other, Tensor) and other.dtype != start.dtype and (other is end or start.is_floating_point()):
            raise Misfit(f"expected dtype {start.dtype}, but got dtype {other.dtype}")


def _some_bound(_x: Tensor, low: Any = None, high: Any = None) -> None:
    if low is None and high is None:
        raise Misfit("torch.clamp: At least one of 'min' or 'max' must not be None")


_CHECKS: dict[str, Callable[..., None]] = {
    "clamp": _some_bound,
    "clip": _some_bound,
    "lerp": _one_dtype,
    "rsub": _no_bools,
    "sub": _no_bools,
}


def _comparison(*args: Any, **kwargs: Any) -> Tensor | None:
    tensors = _tensors(args)
    if not tensors or kwargs or any(tensor.is_complex() for tensor in tensors):
        return None
    return laid_out(torch.bool, *tensors)


def _bitwise(*args: Any) -> Tensor | None:
    tensors = _tensors(args)
    _check_bits(args)
    if not tensors or len(tensors) != len(args) or any(tensor.dtype != tensors[0].dtype for tensor in tensors):
        return None
    return laid_out(tensors[0].dtype, *tensors)


def _bitwise_in_place(*args: Any) -> None:
    _check_bits(args)


def _check_bits(args: tuple[Any, ...]) -> None:
    for value in args:
        if isinstance(value, float) or (isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex())):
            kind = value.dtype if isinstance(value, Tensor) else "a Python float"
            raise Misfit(f"an operator on bits is not implemented for {kind}")


def _in_place(*args: Any, **_kwargs: Any) -> Tensor | None:
    tensors = _tensors(args)
    if not tensors or not isinstance(args[0], Tensor):
        return None
    x = args[0]
    for other in tensors[1:]:
        wanted = torch.result_type(x, other)
        if not torch.can_cast(wanted, x.dtype):
            raise Misfit(f"result type {wanted} can't be cast to the desired output type {x.dtype}")
    if not x.is_floating_point() or any(other.shape != x.shape and broadcast(x.shape, other.shape) != x.shape for other in tensors):
        return None
    check_writable(x)
    return x


def check_writable(x: Tensor) -> None:
    """Raise as an in-place operator does on an expanded tensor."""
    if any(stride == 0 and size > 1 for size, stride in zip(x.shape, x.stride(), strict=True)):
        raise Misfit(
            "unsupported operation: more than one element of the written-to tensor refers to a single memory location. "
            "Please clone() the tensor before performing the operation."
        )
