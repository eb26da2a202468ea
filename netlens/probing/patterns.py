"""Shapes as a person writes them, "(N, 3, H >= 7, W)": what is said of a layer, and what a tensor is held against, are one text.

The items of a pattern: "3" (this size), "H >= 7", "a multiple of 4", another word (any size), "*" (one or more dimensions). A "?" says that
an item may be absent, and is not shown. What stands before the bracket names the argument: "query (N?, L, 64)".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

About = Literal["shape", "channels", "dtype", "values", "call"]


@dataclass(frozen=True, slots=True)
class Mismatch:
    """What a layer got and what it takes instead."""

    got: str  # "(1, 12544)"
    expects: str  # "(*, 9216)"; "" where only the operator and its shapes are known
    about: About = "shape"  # only for "shape" can another image size help
    remedy: str = ""  # where it follows from the layer alone


def shape_text(shape: Any) -> str:
    """A shape as Python writes a tuple."""
    return str(tuple(shape))


def held_against(pattern: str, tensor: Tensor, about: About | None = None) -> Mismatch | None:
    """Hold a tensor's shape against a pattern; least sizes are said only where all else is right."""
    got = pattern[: pattern.index("(")] + shape_text(tensor.shape)
    loose = re.sub(r" >= \d+", "", pattern)
    if not _fits(loose, tensor.shape):
        # A number behind N or L is one of channels or features, and no other image size changes it.
        return Mismatch(got, loose.replace("?", ""), about or ("channels" if re.search(r"[NL]\??, \d", loose) else "shape"))
    return None if _fits(pattern, tensor.shape) else Mismatch(got, pattern.replace("?", ""), about or "shape")


def filled(pattern: str, shape: Sequence[int]) -> tuple[int, ...]:
    """The shape with the sizes that a pattern fixes; unchanged where the ranks differ."""
    items = _aligned(pattern, len(shape)) or ["any"] * len(shape)
    return tuple(int(item) if item.isdigit() else size for item, size in zip(items, shape, strict=True))


def brought(pattern: str, shape: Sequence[int]) -> int | None:
    """The size that stands where a pattern fixes one: channels or features. None where it fixes none or several, or the ranks differ."""
    sizes = [size for item, size in zip(_aligned(pattern, len(shape)) or [], shape, strict=False) if item.isdigit()]
    return sizes[0] if len(sizes) == 1 else None


def _fits(pattern: str, shape: Sequence[int]) -> bool:
    items = _aligned(pattern, len(shape))
    return items is not None and all(map(_takes, items, shape))


def _takes(item: str, size: int) -> bool:
    number = re.search(r"\d+", item)
    if number is None:
        return True
    if item.startswith("a multiple of"):
        return size % int(number[0]) == 0
    return size >= int(number[0]) if ">=" in item else size == int(number[0])


def _aligned(pattern: str, rank: int) -> list[str] | None:
    """One item for each of `rank` dimensions; None where the pattern has another rank."""
    items = pattern[pattern.index("(") + 1 : pattern.index(")")].rstrip(",").split(", ")
    star = next((place for place, item in enumerate(items) if item[0] == "*"), None)
    if star is not None:
        times = rank - len(items) + 1
        return [*items[:star], *["*"] * times, *items[star + 1 :]] if times >= (items[star] == "*") else None
    if rank == len(items) - 1:
        items = [item for item in items if not item.endswith("?")]
    return items if rank == len(items) else None
