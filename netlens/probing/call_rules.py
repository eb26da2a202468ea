"""How a layer was called: with which arguments, and whether forward takes them at all."""

from __future__ import annotations

import inspect
from contextlib import suppress
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from netlens.probing.patterns import Mismatch, shape_text
from netlens.probing.trace import Stop

_TAKE_OTHERS = (nn.RNNBase, nn.Sequential, nn.Identity, nn.modules.loss._Loss)  # layers of torch that take more than tensors


def is_plain(module: nn.Module) -> bool:
    """Tell whether torch's own forward runs, so that the module's attributes say what it takes."""
    return type(module).forward.__module__.startswith("torch.nn.modules.") and "forward" not in vars(module)


def arguments_of(stop: Stop) -> dict[str, Any]:
    """The arguments by the names and in the order of forward where it is torch's own, else as they were given."""
    module = stop.record.module
    if is_plain(module):
        with suppress(TypeError, ValueError):
            return inspect.signature(module.forward).bind_partial(*stop.args, **stop.kwargs).arguments
    return {**{str(place): value for place, value in enumerate(stop.args)}, **stop.kwargs}


def layer_input(stop: Stop) -> Tensor | None:
    """The first tensor that the layer got."""
    values = list(arguments_of(stop).values())
    if values and isinstance(values[0], PackedSequence):
        return values[0].data
    return next((value for value in values if isinstance(value, Tensor)), None)


def wrong_call(stop: Stop) -> Mismatch | None:
    """Arguments that do not fit forward's signature, no forward at all, or something else where a layer takes a tensor."""
    module = stop.record.module
    if "_forward_unimplemented" in getattr(module.forward, "__name__", ""):
        return _no_forward(module)
    signature = _unbound(stop) if isinstance(stop.error, TypeError) else None
    if signature is not None:
        root = "give one --input for each argument" if not stop.record.path else ""
        return Mismatch(f"forward({_given(signature, stop)})", f"forward{_short(signature)}", "call", root)
    if stop.args and is_plain(module) and not isinstance(stop.args[0], Tensor) and not isinstance(module, _TAKE_OTHERS):
        return _no_tensor(stop.args[0], f"`{stop.producer}` returned" if stop.producer else "it got")
    return None


def _no_forward(module: nn.Module) -> Mismatch:
    kind = type(module).__name__
    if isinstance(module, (nn.ModuleList, nn.ModuleDict)):
        remedy = f"call its layers one by one: nn.{kind} only holds them"
        return Mismatch("a call", f"to be looped over: a {kind} has no forward", "call", remedy)
    return Mismatch("a call", "a method forward", "call", f"define forward(self, ...) in {kind}")


def _unbound(stop: Stop) -> inspect.Signature | None:
    """The signature of forward where the arguments do not fit it."""
    with suppress(TypeError, ValueError):  # it has none
        signature = inspect.signature(stop.record.module.forward)
        try:
            signature.bind(*stop.args, **stop.kwargs)
        except TypeError:
            return signature
    return None


def _short(signature: inspect.Signature) -> str:
    """(x, mask=None): names and defaults without types."""
    plain = [p.replace(annotation=inspect.Parameter.empty) for p in signature.parameters.values()]
    return str(inspect.Signature(plain))


def _given(signature: inspect.Signature, stop: Stop) -> str:
    """The arguments of the call by the names that forward knows: "x, 2 more, scale=..."."""
    names = [p.name for p in signature.parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    more = len(stop.args) - len(names)
    return ", ".join([*names[: len(stop.args)], *([f"{more} more"] if more > 0 else []), *(f"{name}=..." for name in stop.kwargs)])


def _no_tensor(value: Any, origin: str) -> Mismatch:
    if value is None:
        return Mismatch("None", "a tensor", "call", f"{origin} None: a forward without `return` does")
    got = f"a {type(value).__name__}"
    if not isinstance(value, (tuple, list)):
        return Mismatch(got, "a tensor", "call")
    items = [shape_text(item.shape) if isinstance(item, Tensor) else f"a {type(item).__name__}" for item in value[:4]]
    more = ["..."] if len(value) > 4 else []
    return Mismatch(
        f"{got} of {', '.join(items + more)}", "a tensor", "call", f"{origin} {got}: pass on the item that is meant, perhaps [0]"
    )
