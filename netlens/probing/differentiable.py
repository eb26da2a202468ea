"""Running a model so that gradients of its output can be taken, whatever state it and its caller are in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from netlens.probing.leaves import leaves, map_tensors
from netlens.probing.trace import plain_kernels

Call = tuple[tuple[Any, ...], dict[str, Any]]  # what a model is called with


@contextmanager
def differentiable(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Call]:
    """Give out arguments for `model` that gradients can pass through, also inside `no_grad` and `inference_mode`.

    Parameters do not require a gradient meanwhile, so that a graph begins only at a tensor that the block makes a leaf; `.grad` stays
    as it is.
    """
    with torch.inference_mode(False), torch.enable_grad(), plain_kernels(), frozen(model):
        yield map_tensors((args, kwargs), usable)


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Let no weight require a gradient; copies stand in for what was made in inference mode, which backward cannot use."""
    stores: list[dict[str, Any]] = [store for module in model.modules() for store in (module._parameters, module._buffers)]
    held = [(store, name, tensor) for store in stores for name, tensor in store.items() if tensor is not None]
    lent = [each for each in held if each[2].is_inference()]
    trained = [tensor for _, _, tensor in held if tensor.requires_grad and tensor.is_leaf and not tensor.is_inference()]
    try:
        for tensor in trained:
            tensor.requires_grad_(False)
        for store, name, tensor in lent:
            copied = tensor.clone()
            store[name] = nn.Parameter(copied, requires_grad=False) if isinstance(tensor, nn.Parameter) else copied
        yield
    finally:
        for tensor in trained:
            tensor.requires_grad_()
        for store, name, tensor in lent:
            store[name] = tensor


def usable(tensor: Tensor) -> Tensor:
    """Return an input that a graph can be made of: outside of the caller's own graph, and not of inference mode."""
    return tensor.clone() if tensor.is_inference() else tensor.detach()


def at_least_float32(tensor: Tensor) -> Tensor:
    """Return a tensor in which small numbers can be added and multiplied: half precision as float32."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def first_tensor(value: Any, least_dims: int = 0) -> Tensor | None:
    """Return the first floating tensor in arguments or outputs; None: there is none of so many dimensions."""
    found = (tensor for _, tensor in leaves(value) if tensor.is_floating_point() and tensor.dim() >= least_dims)
    return next(found, None)
