"""Leaving a model exactly as it came, also when its forward raises."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Put everything back that a forward pass, a mode switch or a hook of ours may change on `model`.

    That is: every attribute of every module (training flags, caches, counters), which parameters, buffers, hooks and submodules it has, the
    values of buffers and parameters' `requires_grad` and `.grad`, and the state of every random number generator. Values of parameters
    are not copied: a forward pass does not write them.
    """
    attributes = [(module, _attributes(module)) for module in model.modules()]
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers() if not buffer.is_meta]
    parameters = [(parameter, parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
    with seeded(None):
        try:
            yield
        finally:
            for module, before in attributes:
                _restore(module, before)
            for buffer, value in buffers:
                if not torch.equal(buffer, value):
                    with torch.no_grad():
                        buffer.copy_(value)
            for parameter, requires_grad, grad in parameters:
                if parameter.requires_grad != requires_grad:
                    parameter.requires_grad_(requires_grad)
                parameter.grad = grad


def _attributes(module: nn.Module) -> dict[str, Any]:
    """The module's attributes; its registries (dicts of parameters, hooks, ...) are copied one level deep."""
    return {name: (value, value.copy() if isinstance(value, dict) else None) for name, value in vars(module).items()}


def _restore(module: nn.Module, before: dict[str, Any]) -> None:
    now = vars(module)
    for name in [name for name in now if name not in before]:
        del now[name]
    for name, (value, content) in before.items():
        now[name] = value
        if content is not None and (
            len(value) != len(content) or any(value.get(key, _MISSING) is not item for key, item in content.items())
        ):
            value.clear()
            value.update(content)


_MISSING: Any = object()


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
        yield
    finally:
        random.setstate(python_state)
        torch.set_rng_state(cpu_state)
        if numpy is not None:
            numpy.random.set_state(numpy_state)
        if cuda_states:
            torch.cuda.set_rng_state_all(cuda_states)
