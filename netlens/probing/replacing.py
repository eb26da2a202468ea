"""Passes in which the output of a layer is exchanged for another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from copy import copy
from dataclasses import dataclass, is_dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, _get_current_function_mode

from netlens.errors import UsageError
from netlens.probing.activations import function_name, parts_of
from netlens.probing.leaves import map_tensors
from netlens.probing.paths import every_call
from netlens.probing.tokens import Layout, as_maps
from netlens.probing.trace import plain_kernels

_FUSED = (nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerEncoder)
Change = Callable[[Tensor, bool], Tensor]  # what a layer put out, and whether that is its input, written in place


@dataclass(frozen=True, slots=True)
class Site:
    """One output of one call of a layer, where it is found again in other passes, and how to read it."""

    name: str
    type: str
    module: nn.Module  # of a function the module in whose forward it is called
    layout: Layout  # for inputs of the size that it was recorded with
    call: int = 1  # of this module, or of this function in this module, since the pass began
    part: str = ""  # of a tuple, mapping or dataclass
    function: str = ""


@contextmanager
def replaced(model: nn.Module, site: Site, make: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Let forward passes inside the block go on with `make(output)` at one site.

    `make` gets and returns the output as the layer puts it out; it may return more samples than it gets, such as 256 edited copies of one.
    """
    with changed(model, {site: lambda tensor, _: make(tensor)}):
        yield


def without_channels(output: Tensor, layout: Layout, channels: Sequence[int]) -> Tensor:
    """Return a copy of one sample's output for each of `channels`, in which this channel is 0 at all places of the grid.

    Args:
        output: of one sample, as the layer put it out.
        layout: of this output.
        channels: M of them.

    Returns:
        M samples, as the layer would put them out.
    """
    copies = torch.cat([output] * len(channels), dim=layout.batch_axis)
    maps, _ = as_maps(copies, layout)  # a view
    maps[torch.arange(len(channels)), list(channels)] = 0
    return copies


def inner(model: nn.Module) -> nn.Module:
    """Return the model inside DataParallel, DistributedDataParallel and `torch.compile`.

    Raises:
        UsageError: it is TorchScript.
    """
    while True:
        if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            model = model.module
        elif isinstance(compiled := getattr(model, "_orig_mod", None), nn.Module):
            model = compiled
        else:
            break
    if isinstance(model, torch.jit.ScriptModule):
        raise UsageError(
            "a TorchScript model does not let its layers be looked at",
            hint="name the Python class that it was made of, and give it the weights with --checkpoint",
        )
    return model


@contextmanager
def changed(model: nn.Module, changes: Mapping[Site, Change]) -> Iterator[None]:
    """Let the forward go on with what `changes` make of the outputs at their sites; code runs uncompiled, calls count from each pass."""
    calls: Counter[Site] = Counter()
    fast = torch.backends.mha.get_fastpath_enabled()
    fused = [module for module in model.modules() if isinstance(module, _FUSED)]
    hidden = any(site.module is part for site in changes for module in fused for part in module.modules() if part is not module)
    hidden = hidden or any(site.function and site.module in fused for site in changes)
    with ExitStack() as stack:
        stack.enter_context(plain_kernels())  # puts the fast path back as it was
        torch.backends.mha.set_fastpath_enabled(fast and not hidden)  # older versions of torch take it past hooks
        stack.callback(model.register_forward_pre_hook(lambda *_: calls.clear(), prepend=True).remove)
        for site, change in changes.items():
            if site.function:
                stack.enter_context(every_call(_Functions(site, change, calls).call))
            elif isinstance(site.module, torch.jit.ScriptModule):  # takes no hooks
                stack.enter_context(every_call(partial(_call, site.module, _hook(site, change, calls))))
            else:
                stack.callback(site.module.register_forward_hook(_hook(site, change, calls)).remove)
        yield


def _hook(site: Site, change: Change, calls: Counter[Site]) -> Callable[[nn.Module, Any, Any], Any]:
    def hook(_module: nn.Module, given: tuple[Any, ...], result: Any) -> Any:
        calls[site] += 1
        if calls[site] != site.call:
            return None
        tensor = dict(parts_of(result)).get(site.part)
        return None if tensor is None else exchanged(result, tensor, change(tensor, any(tensor is value for value in given)))

    return hook


def _call(wanted: nn.Module, hook: Callable[..., Any], original: Any, module: nn.Module, args: tuple[Any, ...], kwargs: Any) -> Any:
    result = original(module, *args, **kwargs)
    other = hook(module, args, result) if module is wanted else None
    return result if other is None else other


def exchanged(value: Any, old: Tensor | None, new: Any) -> Any:
    """Return arguments, or what a layer returned, with one tensor in them exchanged."""
    if not is_dataclass(value) or isinstance(value, Mapping):
        return map_tensors(value, lambda tensor: new if tensor is old else tensor)
    changed = copy(value)
    for key, child in vars(value).items():
        object.__setattr__(changed, key, exchanged(child, old, new))
    return changed


class _Functions(TorchFunctionMode):
    """Sees the functions that the forward of one module calls itself, and is off while modules inside it run: it costs time."""

    def __init__(self, site: Site, change: Change, calls: Counter[Site]) -> None:
        super().__init__()
        self._site, self._change, self._calls = site, change, calls
        self._on = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not self._on or function_name(func) != self._site.function or not isinstance(result, Tensor) or not result.is_floating_point():
            return result
        self._calls[self._site] += 1
        return self._change(result, result is args[0]) if self._calls[self._site] == self._site.call else result

    def call(self, original: Any, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run one module's call with the mode on, off, or as it is."""
        before, self._on = self._on, module is self._site.module
        if self._on and not before:
            change, back = self.__enter__, lambda: self.__exit__(None, None, None)
        elif before and not self._on and _get_current_function_mode() is self:
            change, back = lambda: self.__exit__(None, None, None), self.__enter__
        else:
            change = back = lambda: None
        change()
        try:
            return original(module, *args, **kwargs)
        finally:
            back()
            self._on = before
