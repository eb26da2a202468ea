"""Leaving a model exactly as it came, also when its forward raises."""

from __future__ import annotations

import random
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

_DEEPEST = 4  # containers in containers in attributes that are put back
_MISSING: Any = object()
Restore = Callable[[], Any]


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Put everything back that a forward pass, a mode switch or a hook of ours may change on `model`.

    That is: every attribute of every module (training flags, caches, counters, lists), which parameters, buffers, hooks and submodules it
    has, the values of buffers and of tensors in attributes, parameters' `requires_grad` and `.grad`, lazy parameters without a shape, and
    the state of every random number generator. Values of parameters are not copied: a forward pass does not write them. What objects of
    other classes change inside themselves stays changed.
    """
    modules = list(model.modules())
    seen = {id(parameter) for parameter in model.parameters()}
    restores: list[Restore] = [_parameter(parameter) for parameter in model.parameters()]
    for module in modules:
        restores.append(partial(setattr, module, "__class__", type(module)))  # a lazy module becomes another class
        restores += _snapshot(vars(module), seen, 0)
    with seeded(None):
        try:
            yield
        finally:
            for restore in restores:
                restore()


def _snapshot(value: Any, seen: set[int], depth: int) -> Iterator[Restore]:
    """Yield what puts back a container, a tensor or a generator, and all that it holds."""
    if id(value) in seen:
        return
    if isinstance(value, (dict, list, set, deque, tuple)):
        if depth > _DEEPEST:
            return
        seen.add(id(value))
        content = dict(value) if isinstance(value, dict) else set(value) if isinstance(value, set) else list(value)
        if not isinstance(value, tuple):
            yield partial(_refill, value, content)
        for item in content.values() if isinstance(content, dict) else content:
            yield from _snapshot(item, seen, depth + 1)
    elif isinstance(value, (Tensor, random.Random, torch.Generator)):
        seen.add(id(value))
        yield from _state(value)


def _state(value: Any) -> Iterator[Restore]:
    if isinstance(value, random.Random):
        yield partial(value.setstate, value.getstate())
    elif isinstance(value, torch.Generator):
        yield partial(value.set_state, value.get_state())
    elif is_lazy(value):
        yield partial(_without_shape, value, type(value))
    elif not value.is_meta:
        with torch.inference_mode(value.is_inference()):
            yield partial(_rewrite, value, value.detach().clone())


def _refill(container: Any, content: Any) -> None:
    """Give a container its items back; one that nobody changed is not touched."""
    if isinstance(container, dict):
        same = len(container) == len(content) and all(container.get(key, _MISSING) is item for key, item in content.items())
    elif isinstance(container, set):
        same = container == content
    else:
        same = len(container) == len(content) and all(a is b for a, b in zip(container, content, strict=True))
    if not same:
        container.clear()
        container.extend(content) if isinstance(container, (list, deque)) else container.update(content)


def _rewrite(tensor: Tensor, before: Tensor) -> None:
    """Write a tensor's values back, where they changed."""
    plain = tensor.layout == torch.strided  # others cannot be compared
    with torch.inference_mode() if tensor.is_inference() else torch.no_grad():
        if tensor.shape != before.shape:
            tensor.set_(before)  # type: ignore[call-overload]
        elif not plain or not torch.equal(tensor, before):
            tensor.copy_(before)


def _parameter(parameter: nn.Parameter) -> Restore:
    lazy: bool = is_lazy(parameter)
    return (
        partial(_without_shape, parameter, type(parameter))
        if lazy
        else partial(_trainable, parameter, parameter.requires_grad, parameter.grad)
    )


def _trainable(parameter: nn.Parameter, requires_grad: bool, grad: Tensor | None) -> None:
    if parameter.requires_grad != requires_grad:
        parameter.requires_grad_(requires_grad)
    parameter.grad = grad


def _without_shape(tensor: Tensor, lazy: type) -> None:
    """Undo `UninitializedTensorMixin.materialize`."""
    if type(tensor) is not lazy:
        tensor.grad = None
        tensor.data = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
        tensor.__class__ = lazy


@contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """Seed Python's, numpy's and torch's generators while the block runs, and put their states back; None seeds nothing."""
    numpy = sys.modules.get("numpy")
    python_state, cpu_state = random.getstate(), torch.get_rng_state()
    numpy_state = numpy.random.get_state() if numpy is not None else None
    cuda_states: list[Tensor] = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    try:
        if seed is not None:
            random.seed(seed)
            torch.manual_seed(seed)
            if numpy is not None:
                numpy.random.seed(seed)
        yield
    finally:
        random.setstate(python_state)
        torch.set_rng_state(cpu_state)
        if numpy is not None:
            numpy.random.set_state(numpy_state)
        if cuda_states:
            torch.cuda.set_rng_state_all(cuda_states)
