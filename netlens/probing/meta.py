"""Running a model on the meta device: shapes without values, so without compute and without memory.

Pure meta fails wherever a model looks at a value that does not depend on its weights: a mask, a length, a table made in its constructor. So
only what has the size of the weights is meta: parameters, float buffers, float inputs, and whatever is computed from them. Integers, and
what the forward makes itself, stay real; where the two meet, a `MixedMeta` mode swaps real arguments for meta stand-ins.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter, is_lazy

META = torch.device("meta")
_DEEPEST = 4  # containers in containers in attributes that are searched for tensors


def stand_in(tensor: Tensor) -> Tensor:
    """Return a meta tensor of the same shape, strides and dtype; a parameter stays a parameter, and a lazy one lazy."""
    if is_lazy(tensor):
        return type(tensor)(requires_grad=tensor.requires_grad, device=META, dtype=tensor.dtype)  # type: ignore[call-arg]
    meta = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=META)
    if isinstance(tensor, nn.Parameter):
        parameter = nn.Parameter(meta, requires_grad=tensor.requires_grad)
        parameter.__dict__.update(tensor.__dict__)
        return parameter
    return meta.requires_grad_(tensor.requires_grad)


def becomes_meta(tensor: Tensor) -> bool:
    """Floating tensors of plain type; a meta one is left alone, else ties are lost (huggingface/accelerate#3668)."""
    if type(tensor) in (UninitializedParameter, UninitializedBuffer):
        return tensor.device != META
    if type(tensor) not in (Tensor, nn.Parameter) or tensor.is_meta:
        return False
    return tensor.layout == torch.strided and not tensor.is_quantized and (tensor.is_floating_point() or tensor.is_complex())


class NotCopied(Exception):
    """No copy of a model can be made; the message says why."""


def skeleton(model: nn.Module) -> nn.Module:
    """Return a copy of `model` whose weights are on the meta device, with its ties; `model` is not touched.

    `model.to("meta")` would untie shared parameters and change the user's object. Compiled wrappers are taken off. An attribute that
    cannot be copied (a lock, an open file) is the same object in both.

    Raises:
        NotCopied: the model forbids it, or is nested too deeply.
    """
    memo: dict[int, Any] = {}
    for module in model.modules():
        for value in _tensors_of(module):
            if id(value) not in memo and becomes_meta(value):
                memo[id(value)] = stand_in(value)
    # deepcopy looks memo entries up by id, so the originals must stay alive: `model` holds them.
    model = _orig_mod(model)
    try:
        return uncompiled(copy.deepcopy(model, dict(memo)))
    except Exception:
        memo.update(_not_copied(model, memo))
    try:
        return uncompiled(copy.deepcopy(model, memo))
    except Exception as error:
        raise NotCopied(f"a copy of the model cannot be made ({type(error).__name__}: {' '.join(str(error).split())})") from error


def _not_copied(model: nn.Module, memo: dict[int, Any]) -> dict[int, Any]:
    """The attributes of modules that `copy.deepcopy` refuses, by id."""
    found: dict[int, Any] = {}
    for module in model.modules():
        for name, value in vars(module).items():
            if name in ("_parameters", "_buffers", "_modules") or isinstance(value, nn.Module) or id(value) in found:
                continue
            try:
                copy.deepcopy(value, {**memo, **found})
            except Exception:
                found[id(value)] = value
    return found


def lazy_copy(model: nn.Module) -> nn.Module:
    """Return a copy of a model of lazy modules, to run in its place: they get their shapes once and for all in the first run."""
    buffers = [buffer for buffer in model.buffers() if type(buffer) is UninitializedBuffer]
    memo = {id(b): type(b)(requires_grad=False, device=b.device, dtype=b.dtype) for b in buffers}  # type: ignore[call-arg]
    return copy.deepcopy(model, memo)


def _orig_mod(module: nn.Module) -> nn.Module:
    """The module inside a `torch.compile` wrapper; known by name, so that nothing of the compiler is imported."""
    return module._orig_mod if type(module).__name__ == "OptimizedModule" else module  # type: ignore[return-value]


def uncompiled(model: nn.Module) -> nn.Module:
    """Take every `torch.compile` wrapper out of `model`, which is changed: a wrapper calls its module where nobody sees it."""
    model = _orig_mod(model)
    for module in list(model.modules()):
        for name, child in module._modules.items():
            if child is not None:
                module._modules[name] = _orig_mod(child)
    return model


def _tensors_of(module: nn.Module) -> Iterator[Tensor]:
    """Parameters, buffers, and tensors in plain attributes (pruning keeps `weight` there) and in containers there."""
    pending: list[tuple[Any, int]] = [(value, 0) for value in vars(module).values()]
    while pending:
        value, depth = pending.pop()
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (dict, list, tuple)) and depth < _DEEPEST:
            pending += [(item, depth + 1) for item in (value.values() if isinstance(value, dict) else value)]


def input_stand_in(tensor: Tensor) -> Tensor:
    """What stands for an input tensor: floats without data, integers as they are."""
    if not (tensor.is_floating_point() or tensor.is_complex()) or tensor.layout != torch.strided:
        return tensor
    return stand_in(tensor.detach()).requires_grad_(tensor.requires_grad)
