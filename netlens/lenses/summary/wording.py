"""How findings of this lens write counts, lists and tensors; standard library only."""

from __future__ import annotations

from collections.abc import Sequence

from netlens.lenses.summary.report import TensorLeaf

MAX_NAMES = 10  # named in one finding


def listed(names: Sequence[str]) -> str:
    """Return "a, b, c and 14 more"."""
    more = f" and {len(names) - MAX_NAMES:,} more" if len(names) > MAX_NAMES else ""
    return ", ".join(names[:MAX_NAMES]) + more


def counted(count: int, noun: str) -> str:
    """Return "1 layer" or "2 layers"."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def sizes(shape: Sequence[int]) -> str:
    """Return a shape as `--input` takes it: "1,3,224,224", and "()" for a scalar."""
    return ",".join(map(str, shape)) or "()"


def leaf_text(leaf: TensorLeaf, *, dtype: bool) -> str:
    """Return "1,1000:float32" or "logits=1,1000:float32", the dtype only on request."""
    name = f"{leaf.name}=" if leaf.name else ""
    return f"{name}{sizes(leaf.shape)}{f':{leaf.dtype}' if dtype else ''}"
