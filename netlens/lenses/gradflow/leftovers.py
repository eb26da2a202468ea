"""Telling gradients that are added to those of an earlier step: what a forgotten zero_grad() does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from netlens.lenses.gradflow.shards import local_part


class Leftovers:
    """What became of gradients that an optimizer has stepped with; keys are ids of parameters."""

    def __init__(self) -> None:
        self._spent: dict[int, Any] = {}  # their states
        self._added: dict[int, Any] = {}  # states of gradients that were added to such

    def there(self, gradients: Mapping[int, Tensor | None]) -> set[int]:
        """Return whose gradients an optimizer has stepped with, and that are still there, not 0."""
        found = {key: (gradient, state(gradient)) for key, gradient in gradients.items()}
        same = [key for key, (_, now) in found.items() if now is not None and now in (self._spent.get(key), self._added.get(key))]
        return {key for key in same if _has_any(gradients[key])}

    def written(self, key: int, gradient: Tensor | None, *, kept: bool) -> None:
        """Note that a backward pass wrote a gradient; kept: by adding to one that was `there`."""
        self._spent.pop(key, None)
        self._added.pop(key, None)
        if kept:
            self._added[key] = state(gradient)

    def stepped(self, key: int, gradient: Tensor | None) -> None:
        """Note that an optimizer has stepped with a gradient."""
        self._added.pop(key, None)
        if gradient is not None:
            self._spent[key] = state(gradient)

    def holds(self, key: int, gradient: Tensor | None) -> bool:
        """Tell whether a gradient that is about to be stepped with still holds that of an earlier step; clipping leaves it in."""
        now, added = state(gradient), self._added.get(key)
        return now is not None and added is not None and now[0] == added[0] and (now == added or _has_any(gradient))


def state(gradient: Tensor | None) -> tuple[int, int] | None:
    """Return what changes whenever a gradient is written or replaced."""
    return None if gradient is None else (id(gradient), gradient._version)


def _has_any(gradient: Tensor | None) -> bool:
    return gradient is not None and bool(local_part(gradient).any())
