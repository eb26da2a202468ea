"""The graph that leads from tensors back to what they were computed from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor


def graph_leaves(tensors: Sequence[Tensor]) -> Iterator[Tensor]:
    """Yield the leaves into which gradients of `tensors` flow, the nearest ones first."""
    waiting: list[Any] = [tensor.grad_fn for tensor in tensors if tensor.grad_fn is not None]
    seen = set(waiting)
    for node in waiting:  # grows while it is walked
        variable = getattr(node, "variable", None)
        if variable is not None:
            yield variable
        fresh = dict.fromkeys(child for child, _ in node.next_functions if child is not None and child not in seen)
        seen.update(fresh)
        waiting += fresh
