"""The attention maps of a running model, however it attends, without changing its code or its output."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class AttentionMap:
    """One call of attention."""

    name: str  # path of the module that attends; "#2" its second call
    weights: Tensor  # (N, heads, queries, keys), rows sum to 1; detached, on its device
    self_attention: bool  # queries and keys come from the same tokens, as far as their number tells


@contextmanager
def attended(model: nn.Module, look: Callable[[AttentionMap], None]) -> Iterator[None]:
    """Call `look` with the weights of every attention call while the block runs."""
    raise NotImplementedError
    yield


def rollout(maps: list[Tensor]) -> Tensor:
    """Attention rollout (Abnar & Zuidema 2020, section 3): the product over layers of (A + I) / 2, A the mean over heads.

    Args:
        maps: one a layer, first layer first, (N, heads, L, L).

    Returns:
        (N, L, L), rows sum to 1.
    """
    raise NotImplementedError
