"""Which parameters a pass uses, in what order, and what the loss does not reach: unused, frozen and detached told apart."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from netlens.probing.activations import Output

_CALL = re.compile(r"#\d+$")


@dataclass(frozen=True, slots=True)
class Owned:
    """A parameter, and the module that holds it."""

    name: str
    layer: str
    type: str  # of the module
    tensor: nn.Parameter
    listed: bool  # by `model.parameters()`, which is what an optimizer is given


class Uses(TorchFunctionMode):
    """While it is active, notes which parameters functions of torch are given: a weight may be used though its module never runs."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        modules = dict(model.named_modules())
        self._known = {id(tensor): _owned(name, modules, tensor) for name, tensor in model.named_parameters()}
        self._order: dict[int, None] = {}  # of first use, in all passes
        self._used: set[int] = set()  # in this one
        self._set_aside: dict[int, tuple[Tensor, Tensor | None]] = {}  # leaves, and their `.grad`

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one function of torch, and note the parameters that it computed with."""
        result = func(*args, **(kwargs or {}))
        with torch._C.DisableTorchFunction():
            if any(True for _ in _tensors((result,))):  # `weight.dtype` uses nothing
                for tensor in _tensors((*args, *(kwargs or {}).values())):
                    self._note(tensor)
        return result

    def _note(self, tensor: Tensor) -> None:
        key = id(tensor)
        if key not in self._known and key not in self._set_aside:
            if not (tensor.is_leaf and tensor.requires_grad):
                return
            self._set_aside[key] = tensor, tensor.grad
            tensor.grad = None
        self._order.setdefault(key)
        self._used.add(key)

    def ran(self, output: Output) -> None:
        """Take in a module that ran: what the model does not list (a module in a plain list), and what runs unseen (TorchScript)."""
        module = output.module
        if module is None:
            return
        if "<" in output.name:  # how paths name a module that the model does not list
            path = _CALL.sub("", output.name).removesuffix(f".{output.part}" if output.part else "")
            for name, tensor in module._parameters.items():
                if tensor is not None:
                    self._known.setdefault(id(tensor), Owned(f"{path}.{name}", path, output.type, tensor, False))
        if isinstance(module, torch.jit.ScriptModule):
            for tensor in module.parameters():
                self._note(tensor)

    def parameters(self) -> list[Owned]:
        """Return all parameters: those that were used in the order of their first use, then the others in the model's order."""
        used = [self._known[key] for key in self._order if key in self._known]
        return [*used, *(owned for key, owned in self._known.items() if key not in self._order)]

    def status(self, parameter: nn.Parameter) -> str:
        """Return "frozen", "gradient", "unused" or "detached", after the backward pass."""
        if not parameter.requires_grad:
            return "frozen"
        if parameter.grad is not None:
            return "gradient"
        return "detached" if id(parameter) in self._used else "unused"

    def clear(self) -> None:
        """Forget the last pass and its gradients."""
        self._used.clear()
        for tensor in (*(owned.tensor for owned in self._known.values()), *(tensor for tensor, _ in self._set_aside.values())):
            tensor.grad = None

    def put_back(self) -> None:
        """Give leaves that are not the model's their `.grad` back."""
        for tensor, gradient in self._set_aside.values():
            tensor.grad = gradient


@contextmanager
def uses_of(model: nn.Module) -> Iterator[Uses]:
    """Give out a `Uses` of `model`, with every `.grad` empty, and optimizers that step during backward asleep; then all is as it was.

    The model's own `.grad` is put back by `untouched`.
    """
    uses = Uses(model)
    hooks: list[dict[Any, Any]] = [found for parameter in model.parameters() if (found := parameter._post_accumulate_grad_hooks)]
    asleep = [(found, dict(found)) for found in hooks]
    uses.clear()
    for found in hooks:
        found.clear()
    try:
        yield uses
    finally:
        uses.put_back()
        for found, content in asleep:
            found.update(content)


def _owned(name: str, modules: dict[str, nn.Module], tensor: nn.Parameter) -> Owned:
    layer = name.rpartition(".")[0]
    return Owned(name, layer, type(modules[layer]).__name__, tensor, True)


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)) and not isinstance(value, torch.Size):
            yield from (item for item in value if isinstance(item, Tensor))
