"""Building a model whose parameters are on the meta device from the start."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from weakref import ref

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_buffer_registration_hook, register_module_parameter_registration_hook

from netlens.probing.meta import META, becomes_meta, stand_in
from netlens.probing.mixed import FACTORIES, MixedMeta, elements, makes_floats

_LARGE_FLOAT = 1 << 20
_RANDOM = frozenset({"uniform_", "normal_", "random_", "bernoulli_", "exponential_", "cauchy_", "log_normal_", "geometric_"})


@contextmanager
def built_on_meta() -> Iterator[None]:
    """Give every parameter and float buffer that is registered while the block runs its place on the meta device.

    Constructors still see real values in what they compute themselves (RegNet reads `.tolist()` in its), except in tensors of over a
    million elements. Initialising a meta parameter is free.
    """
    made: dict[int, tuple[Callable[[], Tensor | None], Tensor]] = {}

    def register(_module: nn.Module, _name: str, tensor: Tensor | None) -> Tensor | None:
        if tensor is None or not becomes_meta(tensor):
            return None
        original, meta = made.get(id(tensor), (None, None))
        if original is None or meta is None or original() is not tensor:  # one real tensor registered twice stays one
            meta = stand_in(tensor)
            made[id(tensor)] = (ref(tensor), meta)
        return meta

    with ExitStack() as stack:
        for hook in (register_module_parameter_registration_hook, register_module_buffer_registration_hook):
            stack.callback(hook(register).remove)  # type: ignore[arg-type]
        stack.enter_context(_Construction())
        yield


class _Construction(MixedMeta):
    """What constructors do: random initialisation of meta tensors does nothing, huge float tensors are meta from the start."""

    def run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        base = func._schema.name.partition("::")[2]
        if base in _RANDOM and args[0].is_meta:
            return args[0]
        if base in FACTORIES and _on_cpu(kwargs) and _is_huge_float(base, args, kwargs):
            kwargs = {**kwargs, "device": META}
        return super().run(func, args, kwargs)


def _on_cpu(kwargs: dict[str, Any]) -> bool:
    return torch.device(kwargs.get("device") or "cpu").type == "cpu"


def _is_huge_float(base: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    first = args[0] if args and isinstance(args[0], Tensor) else None
    return elements(args, first) > _LARGE_FLOAT and makes_floats(base, args, kwargs, first)
