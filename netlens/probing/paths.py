"""Seeing every call of a module, and telling under which name it was reached."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from torch import nn


@dataclass(slots=True)
class Place:
    """One module under one path; subclasses note what it did there."""

    path: str
    module: nn.Module
    registered: bool  # False: it ran, but `model.modules()` does not list it
    names: dict[int, str] | None = field(default=None, init=False, repr=False)  # id(child) -> name, made when first needed


P = TypeVar("P", bound=Place)
Watch = Callable[[Any, nn.Module, tuple[Any, ...], dict[str, Any]], Any]


class Paths(Generic[P]):
    """The places of a model's modules, found as they are called.

    A module may stand under several names, be reached past its parent, or stand under none at all (in a plain list). Its path is the
    caller's path plus the name that the caller knows it by, so that every place of a shared module has a row of its own.
    """

    def __init__(self, model: nn.Module, place: Callable[[str, nn.Module, bool], P]) -> None:
        self._model = model
        self._place = place
        self._listed = {id(module): path for path, module in model.named_modules()}
        self.found: dict[str, P] = {"": place("", model, True)}

    def of(self, module: nn.Module, caller: P | None) -> P:
        """Return the place of `module`, called by the module at `caller` (None: from outside)."""
        if module is self._model and caller is None:
            return self.found[""]
        path, registered = self._path(module, caller or self.found[""])
        place = self.found.get(path)
        if place is None:
            place = self.found[path] = self._place(path, module, registered)
        return place

    def listed(self, module: nn.Module) -> P | None:
        """Return the place of `module` under its first name, whoever calls it; None where the model does not list it."""
        path = self._listed.get(id(module))
        return None if path is None else self.found.setdefault(path, self._place(path, module, True))

    def _path(self, module: nn.Module, caller: P) -> tuple[str, bool]:
        if caller.names is None:
            children = [(id(child), name) for name, child in caller.module._modules.items() if child is not None]
            caller.names = dict(reversed(children))  # the first name of a child that has two wins
        name = caller.names.get(id(module))
        if name is None and id(module) in self._listed:  # reached past its parent: `self.encoder.layers[0](x)`
            return self._listed[id(module)], True
        if name is None:
            kind = type(module).__name__
            same = sum(other.startswith(f"<{kind}") for other in caller.names.values())
            caller.names[id(module)] = name = f"<{kind} {same + 1}>" if same else f"<{kind}>"
        return (f"{caller.path}.{name}" if caller.path else name), caller.registered and not name.startswith("<")


@contextmanager
def every_call(watch: Watch, elsewhere: Watch | None = None) -> Iterator[None]:
    """Route every module call of this thread through `watch(original, module, args, kwargs)` while the block runs.

    Calls in other threads go through `elsewhere`, or are left alone.

    Unlike forward hooks it sees keyword arguments and exceptions, and leaves nothing on any module.
    """
    original, thread = nn.Module.__call__, threading.get_ident()

    def watched(module: nn.Module, /, *args: Any, **kwargs: Any) -> Any:
        seen_by = watch if threading.get_ident() == thread else elsewhere
        return original(module, *args, **kwargs) if seen_by is None else seen_by(original, module, args, kwargs)

    nn.Module.__call__ = watched  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Module.__call__ = original  # type: ignore[method-assign]
