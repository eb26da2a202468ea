"""What an operator in the model's own code was given, and what it takes."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

from netlens.probing.patterns import Mismatch, shape_text
from netlens.probing.trace import Stop

Shapes = Sequence[tuple[int, ...]]

# Errors that torch and Python word the same on every device, and the fields of a mismatch made of their numbers.
_WORDINGS: tuple[tuple[Any, ...], ...] = (
    (r"^view size is not compatible with input tensor's size and stride", "", "", "call", "use .reshape(...) in place of .view(...)"),
    (r"einsum\(\): subscript (\w) has size (\d+) for operand (\d+) .* size (\d+)", r"\1 = \2 in operand \3", r"\1 = \4, as before"),
    (r"^Dimension out of range .*\[(-?\d+), (-?\d+)\], but got (-?\d+)", r"dimension \3", r"a dimension from \1 to \2"),
    (
        r"split_sizes to sum exactly to (\d+) .* dimension (-?\d+)\), but got split_sizes=\[(.*)\]",
        r"split sizes \3",
        r"split sizes with the sum \1, the size of dimension \2",
    ),
    (r"input\.dim\(\) = (\d+) is not equal to len\(dims\) = (\d+)", r"a tensor with \1 dimensions", r"\2 dimensions to permute"),
    (
        r"expanded size of the tensor \((\d+)\) must match the existing size \((\d+)\) at .*dimension (\d+)\.\s+Target sizes: \[(.*?)\]",
        r"size \2 in dimension \3",
        r"size \1 or 1 in dimension \3, to become (\4)",
    ),
    (r"expected input\[([\d, ]+)\] to have (\d+) channels, but got \d+ channels", r"(\1)", r"(N, \2, *)", "channels"),
    (
        r"size of tensor a \((\d+)\) must match the size of tensor b \((\d+)\) at non-singleton dimension (\d+)",
        r"sizes \1 and \2 in dimension \3",
        r"equal sizes, or 1, in dimension \3",
    ),
    (r"values to unpack \(expected (\d+), got (\d+)\)", r"\2 values", r"\1 values to unpack"),
    (r"too many values to unpack \(expected (\d+)\)", "more values", r"\1 values to unpack"),
)


def worded(stop: Stop) -> Mismatch | None:
    """What the words of the exception tell."""
    text = str(stop.error)
    for pattern, *fields in _WORDINGS:
        if match := re.search(pattern, text):
            filled: list[Any] = [match.expand(field) for field in fields]
            return Mismatch(*filled)
    if match := re.search(r"index (-?\d+) is out of bounds for dimension (\d+) with size (\d+)", text):
        return Mismatch(match.expand(r"index \1 in dimension \2"), f"an index from 0 to {int(match[3]) - 1}", "values")
    match = re.search(r"shape '\[([-\d, ]*)\]' is invalid for input of size (\d+)", text)
    return _view([int(size) for size in match[1].split(",") if size], int(match[2]), stop.operands) if match else None


def _view(target: list[int], elements: int, operands: Shapes) -> Mismatch:
    shape = f"{shape_text(operands[0])} = " if operands and prod(operands[0]) == elements else ""
    some, needed = "a multiple of " if -1 in target else "", prod(size for size in target if size != -1)
    return Mismatch(f"{shape}{elements} elements", f"{some}{needed} elements for the shape {shape_text(target)}")


def operands_of(stop: Stop) -> Mismatch | None:
    """The shapes that the operator got; what it takes, where they do not fit together."""
    operator, shapes = stop.operator.partition(".")[2].strip("_"), stop.operands
    if not operator or not shapes:
        return None
    if operator in ("mm", "addmm", "bmm", "baddbmm"):
        operator, shapes = "matmul", tuple(shape for shape in shapes if len(shape) >= 2)[-2:]
    fits = _OPERATORS.get(operator)
    got = " and ".join(map(shape_text, shapes[:4]))
    return Mismatch(f"{operator} of {got}", fits(shapes, str(stop.error)) if fits else "")


def _product(shapes: Shapes, _words: str) -> str:
    if len(shapes) < 2:
        return ""
    left, right = shapes
    if left[-1] != right[-2]:
        return f"(*, {right[-2]}) on the left of {shape_text(right)}"
    return "equal batch sizes" if left[:-2] != right[:-2] else ""


def _concatenated(shapes: Shapes, words: str) -> str:
    """The shape that every tensor must have, where torch's words tell the joined dimension: "(1, *, 16, 16) for each"."""
    if len(set(map(len, shapes))) > 1:
        return "tensors with equally many dimensions"
    joined = re.search(r"except in dimension (\d+)", words)
    place = int(joined[1]) if joined else 0
    if joined is None or len({(*shape[:place], *shape[place + 1 :]) for shape in shapes}) == 1:
        return ""
    return f"({', '.join('*' if at == place else str(size) for at, size in enumerate(shapes[0]))}) for each"


def _broadcast(shapes: Shapes, _words: str) -> str:
    """Name the first dimension, from the right, in which sizes are neither equal nor 1."""
    for place in range(1, max(map(len, shapes)) + 1):
        if len({shape[-place] for shape in shapes if len(shape) >= place} - {1}) > 1:
            dimension = len(shapes[0]) - place if len(set(map(len, shapes))) == 1 else -place
            return f"equal sizes, or 1, in dimension {dimension}"
    return ""


_BROADCAST = (
    *("add", "sub", "rsub", "mul", "div", "where", "maximum", "minimum", "pow", "masked_fill", "lerp", "addcmul", "addcdiv"),
    *("eq", "ne", "lt", "le", "gt", "ge", "logical_and", "logical_or", "bitwise_and"),
)
_OPERATORS: dict[str, Callable[[Shapes, str], str]] = {
    "matmul": _product,
    "cat": _concatenated,
    "stack": lambda shapes, _: "equal shapes" if len(set(shapes)) > 1 else "",
    **dict.fromkeys(_BROADCAST, _broadcast),
}
