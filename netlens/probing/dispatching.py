"""Seeing operators below Python: run as they run without being seen, and with names for what they are given."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor


def as_without(func: Any, args: Any, kwargs: Any) -> Any:
    """Run an operator as it runs without a mode.

    In inference mode operators that are made of others arrive whole, and run here without autocast and without what makes views of
    parameters require a gradient, on which depends how `matmul` folds its factors: so what was set outside is set again.
    """
    if not torch.is_inference_mode_enabled() or not _is_composite(func):
        return func(*args, **kwargs)
    with torch.overrides.enable_reentrant_dispatch():
        excluded = torch._C._dispatch_tls_local_exclude_set()
    with torch._C._ForceDispatchKeyGuard(torch._C._dispatch_tls_local_include_set(), excluded):
        return func(*args, **kwargs)


@cache
def _is_composite(func: Any) -> bool:
    if not isinstance(func, torch._ops.OpOverload):
        return False
    composite, viewing = (
        torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), key) for key in ("CompositeImplicitAutograd", "ADInplaceOrView")
    )
    return composite and not viewing


def bound(schema: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call by their names."""
    return {**dict(zip((argument.name for argument in schema.arguments), args, strict=False)), **kwargs}


def tensors(values: Any) -> Iterator[Tensor]:
    """Yield the tensors among arguments, and in lists of them."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from tensors(value)


def storage_of(tensor: Tensor) -> Any:
    """Return the tensor's storage, or None for one without (sparse, lazy, wrapper subclasses)."""
    try:
        return tensor.untyped_storage()
    except (NotImplementedError, RuntimeError, ValueError):
        return None


def storage_key(tensor: Tensor) -> int:
    """Return what tensors have in common that share their memory; 0 where there is none to share."""
    storage = storage_of(tensor)
    return 0 if storage is None else int(storage._cdata)
