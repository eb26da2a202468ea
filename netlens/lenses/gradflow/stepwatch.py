"""Watching one call of the user's step function: its forward passes, its backward passes, and its optimizers, as it runs them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from math import sqrt
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from netlens.lenses.gradflow.backward import Layers, Unmeasured
from netlens.lenses.gradflow.graphs import graph_leaves
from netlens.lenses.gradflow.leftovers import Leftovers, state
from netlens.lenses.gradflow.shards import is_sharded, local_part
from netlens.lenses.gradflow.statistics import histograms
from netlens.lenses.gradflow.stepnames import Known, Names, unwrapped
from netlens.lenses.gradflow.stepnumbers import BREAK, Seen, own_gradients
from netlens.lenses.gradflow.updates import Cosines
from netlens.probing.activations import Output, watched
from netlens.probing.counting import samples_in
from netlens.probing.paths import every_call
from netlens.probing.trace import plain_kernels

Own = Callable[[list[Any], list[Tensor]], object]  # gets parameters with the gradients of this process, before others add theirs


class Watch:
    """Watches calls of one step function, one after the other."""

    def __init__(self, names: Names, numbers: Any, own: Own | None = None, *, cosines: bool = False) -> None:
        self.names = names
        self.order: dict[int, Known] = {}  # in forward order
        self.tops: dict[str, None] = {}  # models that ran
        self.held: set[int] = set()  # by optimizers
        self.cosines: dict[int, Cosines] = {}
        self.seen = Seen(Layers(careful=False))
        self._numbers, self._own, self._keeps = numbers, own, cosines
        self._inside = self._backward = False
        self._done: set[int] = set()  # an optimizer has stepped, in this call
        self._leftovers = Leftovers()
        self._empty: set[int] = set()  # optimizers that are stepping without gradients
        self._calls = 0
        self._before: dict[int, list[Tensor]] = {}  # values, while an optimizer steps
        self._written: dict[int, Any] = {}  # states of gradients as backward left them
        self._lent: list[tuple[Tensor, Tensor | None]] = []  # leaves, and their own gradients
        self._scales: dict[int, tuple[float, Tensor]] = {}  # of scaled losses, by their ids; and what they were before

    @contextmanager
    def watching(self) -> Iterator[Seen]:
        """Watch while the block calls the function."""
        self.seen = Seen(Layers(careful=False))
        self._done.clear()
        self._scales.clear()
        self._written.clear()
        there = self.names.ids()
        original, thread = torch.autograd.backward, threading.get_ident()
        scaling = torch.amp.GradScaler.scale

        def backward(tensors: Any, *args: Any, **kwargs: Any) -> None:
            if self._backward or threading.get_ident() != thread:  # of a checkpoint, in the middle of another
                return original(tensors, *args, **kwargs)
            return self._differentiate(original, [tensors] if isinstance(tensors, Tensor) else list(tensors), tensors, *args, **kwargs)

        def scale(scaler: Any, outputs: Any) -> Any:
            result = scaling(scaler, outputs)
            if isinstance(result, Tensor) and scaler.is_enabled():
                self._scales[id(result)] = scaler.get_scale(), outputs.detach()
            return result

        hooks = register_optimizer_step_pre_hook(self._begin), register_optimizer_step_post_hook(self._end)
        try:
            with (
                plain_kernels(),
                patch.object(torch.autograd, "backward", backward),
                patch.object(torch.amp.GradScaler, "scale", scale),
                every_call(self._call),
            ):
                yield self.seen
            self._settle([known.tensor for key, known in self.order.items() if key not in self._done])
            self._close(there)
        finally:
            for hook in hooks:
                hook.remove()
            for parameter, gradient in self._lent:
                parameter.grad = gradient
            self._lent.clear()

    def differentiate(self, loss: Tensor) -> None:
        """Take the gradient of a loss in place of the user; `.grad` is as it was when watching ends."""
        leaves = {id(leaf): leaf for leaf in (*graph_leaves([loss]), *(known.tensor for known in self.order.values()))}
        self._lent += [(leaf, leaf.grad) for leaf in leaves.values()]
        for leaf in leaves.values():
            leaf.grad = None
        loss.backward()

    def _close(self, there: set[int]) -> None:
        """Note what shows when the function has returned."""
        seen, self._calls = self.seen, self._calls + 1
        seen.rebuilt = self._calls > 1 and bool(seen.gradients) and not seen.gradients.keys() & there
        if seen.backwards and not seen.stepped and self._numbers.alone:
            parameters = [self.order[key].tensor for key in seen.weights]
            seen.moved = self._numbers.squares(parameters, parameters) != list(seen.weights.values())

    # --- Forward

    def _call(self, original: Any, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._inside:
            self._runs(module)
            return original(module, *args, **kwargs)
        if unwrapped(module) is not module or next(module.parameters(), None) is None:
            return original(module, *args, **kwargs)
        top, _ = self.names.place(module)
        self.tops.setdefault(top)
        self.seen.samples = self.seen.samples or samples_in((args, kwargs))
        self._inside = True
        try:
            with watched(module, lambda output: self._look(output, module)):
                return module(*args, **kwargs)
        finally:
            self._inside = False
            for known in self.names.parameters_of(module):  # of modules that are never called themselves
                self.order.setdefault(id(known.tensor), known)

    def _runs(self, module: nn.Module) -> None:
        for tensor in module._parameters.values():
            known = None if tensor is None else self.names.listed(tensor)
            if known is not None:
                self.order.setdefault(id(tensor), known)
                self.seen.used.add(id(tensor))

    def _look(self, output: Output, module: nn.Module) -> None:
        top, path = self.names.place(module)
        name = output.name.replace("_fsdp_wrapped_module.", "")
        if path:  # called past its parents
            own = output.module is module and name == output.type
            name = path if own else f"{path}{name}" if name.startswith(":") else f"{path}.{name}"
        try:
            self.seen.layers.look(replace(output, name=f"{top}{BREAK}{name}"))
        except Exception as error:
            raise Unmeasured(f"{name}, {output.type}, of shape {tuple(output.tensor.shape)}") from error

    # --- Backward

    def _differentiate(self, original: Any, roots: list[Tensor], *args: Any, **kwargs: Any) -> None:
        seen = self.seen
        sharded = any(is_sharded(known.tensor) for known in self.order.values())
        for leaf in () if sharded else graph_leaves(roots):  # leaves are wholes then, made for this pass
            if self.names.knows(leaf):
                self.order.setdefault(id(leaf), self.names.parameter(leaf))
        plain = [self._scales.get(id(root), (1.0, root.detach())) for root in roots]
        seen.scale = max((scale for scale, _ in plain), default=1.0)
        gradients = {key: known.tensor.grad for key, known in self.order.items()}
        before = {key: state(gradient) for key, gradient in gradients.items()}
        kept = self._leftovers.there(gradients)
        gradients.clear()  # who writes a new one shall not find the old one held
        whole = [known.tensor for known in self.order.values() if known.tensor.requires_grad and not is_sharded(known.tensor)]
        cleared = bool(self._written) and all(before.get(key) != now for key, now in self._written.items())
        seen.losses.add([loss for _, loss in plain if loss.numel() == 1], new=cleared, stepping=bool(self._before))
        own = own_gradients(whole) if self._own is not None else None
        self._backward = True
        try:
            with seen.layers.receiving():
                original(*args, **kwargs)
        finally:
            self._backward = False
        seen.backwards += 1
        for key, known in self.order.items():
            if state(known.tensor.grad) != before.get(key):
                self._leftovers.written(key, known.tensor.grad, kept=key in kept)
        fresh = [key for key, known in self.order.items() if key not in self._done]
        self._measure(fresh, [state(self.order[key].tensor.grad) != before.get(key) for key in fresh])
        if own is not None and self._own is not None:
            self._own(whole, own())
            self._own = None  # of the first pass alone: later ones may begin with other weights

    def _measure(self, keys: Sequence[int], chosen: Sequence[bool]) -> None:
        parameters = [self.order[key].tensor for key in keys]
        gradients = [parameter.grad if take else None for parameter, take in zip(parameters, chosen, strict=True)]
        weights = [None if key in self.seen.weights else parameter for key, parameter in zip(keys, parameters, strict=True)]
        found, squares = self._numbers.magnitudes(gradients, parameters), self._numbers.squares(weights, parameters)
        for key, gradient, numbers, square in zip(keys, gradients, found, squares, strict=True):
            if square is not None:
                self.seen.weights[key] = square
            if numbers is not None:
                self.seen.gradients[key] = numbers.divided(self.seen.scale)
            if gradient is not None:
                self._written[key] = state(gradient)
        places = [(key, local_part(gradient)) for key, gradient in zip(keys, gradients, strict=True) if gradient is not None]
        scaled = [part / self.seen.scale if self.seen.scale != 1 else part for _, part in places]
        self.seen.histograms |= dict(zip((key for key, _ in places), histograms(scaled), strict=True))

    def _settle(self, parameters: Sequence[Tensor]) -> None:
        """Compare the gradients with those of the call before, where somebody wants to know."""
        for parameter in parameters if self._keeps else ():
            if not is_sharded(parameter):
                self.cosines.setdefault(id(parameter), Cosines()).add([parameter.grad])

    # --- Optimizers

    def _begin(self, optimizer: Optimizer, *_: Any) -> None:
        parameters = _parameters(optimizer)
        for parameter in parameters:
            self.order.setdefault(id(parameter), self.names.parameter(parameter))
        keys = [id(parameter) for parameter in parameters]
        self.held.update(keys)
        self.seen.rates[type(optimizer).__name__] = max((float(group.get("lr", 0)) for group in optimizer.param_groups), default=0.0)
        self.seen.losses.inside = False
        gradients = [parameter.grad for parameter in parameters]
        if self.seen.backwards or sum(filter(None, self._numbers.squares(gradients, parameters))):
            fresh = [key for key in keys if key not in self._done]
            self._measure(fresh, [key not in self.seen.gradients for key in fresh])
            self._compare(fresh)
            self._settle([self.order[key].tensor for key in fresh])
            self.seen.left = self.seen.left or any(self._leftovers.holds(id(each), each.grad) for each in parameters)
        else:
            self._empty.add(id(optimizer))
        self._before[id(optimizer)] = [local_part(parameter.detach()).clone() for parameter in parameters]

    def _compare(self, keys: Sequence[int]) -> None:
        """Note whether gradients are smaller than backward left them; who did not write them did not clip them."""
        taken = [key for key in keys if key in self.seen.gradients]
        parameters = [self.order[key].tensor for key in taken]
        states = [state(parameter.grad) for parameter in parameters]
        if self._numbers.alone and states == [self._written.get(key) for key in taken]:
            return
        now = sum(filter(None, self._numbers.squares([parameter.grad for parameter in parameters], parameters)))
        before = sum(self.seen.gradients[key].squares for key in taken)
        self.seen.cleared = self.seen.cleared or now == 0 < before
        if 0 < now < before * 0.999:
            self.seen.clipped = sqrt(before), sqrt(now)

    def _end(self, optimizer: Optimizer, *_: Any) -> None:
        parameters, before = _parameters(optimizer), self._before.pop(id(optimizer))
        kind, early = type(optimizer).__name__, id(optimizer) in self._empty and not self.seen.backwards  # LBFGS runs its own
        self._empty.discard(id(optimizer))
        self.seen.early += early
        self.seen.losses.close()
        self.seen.stepped[kind] = self.seen.stepped.get(kind, 0) + 1
        with torch.no_grad():
            moved = [local_part(parameter.detach()) - value for parameter, value in zip(parameters, before, strict=True)]
        steps, sizes = self._numbers.squares(moved, parameters), self._numbers.squares(before, parameters)
        for parameter, step, size in zip(parameters, steps, sizes, strict=True):
            key = id(parameter)
            if early:
                continue
            if key not in self._done and key in self.seen.gradients and size:
                self.seen.updates[key] = sqrt((step or 0.0) / size)
            self._done.add(key)
            self._leftovers.stepped(key, parameter.grad)


def _parameters(optimizer: Optimizer) -> list[Any]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
