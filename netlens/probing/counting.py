"""How many samples a model is called with."""

from __future__ import annotations

from typing import Any

from netlens.probing.leaves import leaves


def samples_in(inputs: tuple[tuple[Any, ...], dict[str, Any]]) -> int:
    """Count the samples of a call: the first dimension of the first tensor, or the length of a list, as detectors take their pictures."""
    first = next((value for value in (*inputs[0], *inputs[1].values()) if leaves(value)), None)
    if isinstance(first, list):
        return len(first)
    return next((tensor.shape[0] if tensor.dim() else 1 for _, tensor in leaves(first)), 1)
