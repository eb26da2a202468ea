"""Names for what the user's step function trains: of modules that it calls, and of parameters that are in none."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from netlens.lenses.gradflow.reached import Owned


@dataclass(frozen=True, slots=True)
class Known:
    """Where a parameter is."""

    top: str  # what the user calls the outermost module; "" for a parameter that is in no module
    layer: str  # path in it
    name: str
    type: str  # of the module that holds it
    tensor: Any


class Names:
    """What the function can see has the name that it has there; other modules have that of their class."""

    def __init__(self, step: Callable[..., Any]) -> None:
        self._tops: dict[int, tuple[str, str, nn.Module]] = {}  # id of a module -> name of its top, path in it, the top
        self._parameters: dict[int, Known] = {}
        self._loose: dict[int, str] = {}
        seen = dict(visible(step))
        self.optimizer = any(isinstance(value, torch.optim.Optimizer) for value in seen.values())
        for name, value in seen.items():
            if isinstance(value, Tensor) and value.is_leaf:
                self._loose.setdefault(id(value), name)
        modules = {name: unwrapped(value) for name, value in seen.items() if isinstance(value, nn.Module)}
        for name, module in sorted(modules.items(), key=lambda item: -sum(1 for _ in item[1].modules())):
            if id(module) not in self._tops:  # not a part of one that has been taken
                self._take(name, module)

    def place(self, module: nn.Module) -> tuple[str, str]:
        """Return the name of the outermost module that holds `module`, and the path in it."""
        if id(module) not in self._tops:
            kind, names = type(module).__name__, {top for top, _, _ in self._tops.values()}
            self._take(next(name for name in _numbered(kind) if name not in names), module)
        return self._tops[id(module)][:2]

    def parameter(self, tensor: Tensor) -> Known:
        """Return where a parameter is; a number is its name where nothing in sight holds it."""
        if id(tensor) not in self._parameters:
            name = self._loose.get(id(tensor)) or f"parameter {sum(not known.top for known in self._parameters.values()) + 1}"
            self._parameters[id(tensor)] = Known("", "", name, type(tensor).__name__, tensor)
        return self._parameters[id(tensor)]

    def listed(self, tensor: Tensor) -> Known | None:
        """Return where a parameter is that a module lists."""
        return self._parameters.get(id(tensor))

    def ids(self) -> set[int]:
        """Return the ids of all parameters that are known so far."""
        return {*self._parameters, *self._loose}

    def knows(self, tensor: Tensor) -> bool:
        """Tell whether a leaf is a parameter rather than an input of which somebody wants the gradient."""
        return isinstance(tensor, nn.Parameter) or id(tensor) in self._loose or id(tensor) in self._parameters

    def parameters_of(self, module: nn.Module) -> list[Known]:
        """Return the parameters of the outermost module that holds `module`."""
        top = self.place(module)[0]
        return [known for known in self._parameters.values() if known.top == top]

    def _take(self, name: str, top: nn.Module) -> None:
        for path, module in top.named_modules():
            self._tops.setdefault(id(module), (name, path, top))
            for leaf, tensor in module.named_parameters(recurse=False):
                path_ = path.replace("_fsdp_wrapped_module.", "").replace("_fsdp_wrapped_module", "").strip(".")
                self._parameters.setdefault(id(tensor), Known(name, path_, leaf, type(module).__name__, tensor))


def owned(known: Known, *, with_top: bool) -> Owned:
    """Return the row's names; of several models each begins with its own."""
    layer = ".".join(filter(None, (known.top if with_top else "", known.layer)))
    return Owned(".".join(filter(None, (layer, known.name))), layer, known.type, known.tensor, bool(known.top))


def unwrapped(module: nn.Module) -> nn.Module:
    """Return the model inside what hands its calls on."""
    while True:
        held = (
            module.module
            if isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel))
            else getattr(module, "_orig_mod", None)
        )
        if not isinstance(held, nn.Module):
            return module
        module = held


def visible(step: Callable[..., Any]) -> Iterator[tuple[str, Any]]:
    """Yield what a function uses by name: of its closure, its globals and its object, and what the objects among these hold."""
    while isinstance(step, functools.partial):
        yield from ((str(index), value) for index, value in enumerate(step.args))
        yield from step.keywords.items()
        step = step.func
    step = inspect.unwrap(step)
    found: dict[str, Any] = {}
    if isinstance(step, MethodType):
        found |= {type(step.__self__).__name__: step.__self__, **vars(step.__self__)} if hasattr(step.__self__, "__dict__") else {}
        step = step.__func__
    elif not isinstance(step, FunctionType):  # an object that can be called
        found |= getattr(step, "__dict__", {})
        step = type(step).__call__
    if isinstance(step, FunctionType):
        cells = zip(step.__code__.co_freevars, step.__closure__ or (), strict=True)
        found |= {name: cell.cell_contents for name, cell in cells if _filled(cell)}
        found |= {name: step.__globals__[name] for name in step.__code__.co_names if name in step.__globals__}
    kinds = (nn.Module, Tensor, torch.optim.Optimizer)
    for name, value in found.items():
        yield name, value
        plain = not isinstance(value, (type, ModuleType, FunctionType, MethodType, *kinds))
        if plain and hasattr(value, "__dict__"):
            yield from ((f"{name}.{key}", each) for key, each in vars(value).items() if isinstance(each, kinds))


def _filled(cell: Any) -> bool:
    try:
        return bool(cell.cell_contents is not cell)
    except ValueError:  # of a variable that has no value yet
        return False


def _numbered(name: str) -> Iterator[str]:
    yield name
    number = 2
    while True:
        yield f"{name}{number}"
        number += 1
