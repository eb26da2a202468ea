"""Every output of every layer of a running model, named, as it is returned - before anything after it can change it in place."""

from __future__ import annotations

import re
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from netlens.probing.paths import Paths, Place, every_call
from netlens.probing.trace import plain_kernels

# fmt: off
ACTIVATIONS = frozenset((
    "relu", "relu6", "gelu", "silu", "sigmoid", "tanh", "hardswish", "hardsigmoid", "hardtanh", "leaky_relu", "elu",
    "selu", "celu", "prelu", "rrelu", "mish", "softplus", "softsign", "softmax", "log_softmax", "logsigmoid", "glu",
))
# fmt: on
_ALIASES = {"special_expit": "sigmoid", "swish": "silu", "leakyrelu": "leaky_relu", "logsoftmax": "log_softmax"}
_NORMS = frozenset(("batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm"))
_NORM_CLASS = re.compile("Norm(?!al)")  # not Normalize, which prepares pictures


@dataclass(frozen=True, slots=True)
class Output:
    """One tensor that a layer returned."""

    name: str  # path of the module, or the class of the model; "conv#2" its second call; "block:relu" a function in block; "lstm.0" a part
    type: str  # "Conv2d"; "relu" for a function
    module: nn.Module | None  # None: a function
    tensor: Tensor  # on its device, not copied: reduce or clone it at once
    after_norm: bool  # what it was called with is the output of a normalisation
    activation: str | None = None  # "relu", "gelu", ... where the layer is one: an activation function returned this very tensor
    part: str = ""  # of a tuple or dict: "0", "logits"
    caller: str = ""  # path of the module in whose forward it ran
    caller_module: nn.Module | None = None
    given: tuple[Any, ...] = ()  # what it was called with: positional arguments, then the values of keyword arguments
    call: int = 1  # which call of this module in this pass, under whatever path; of a function, which in forwards of `caller_module`
    same_as: str = ""  # the output whose memory this is, unwritten since: a view of it


@contextmanager
def watched(model: nn.Module, look: Callable[[Output], None], again: Callable[[Output], None] | None = None) -> Iterator[None]:
    """Call `look` with every output while the block runs; nothing is left on the model, also after an error.

    Leaf modules, functional activations (`F.relu`, `torch.tanh`, `x.sigmoid()`), and those containers that return another tensor than
    a module inside them just returned: the sum of a residual block is an output of its own. A leaf that hands on what it was given, as
    dropout in eval mode does, has none; `again` is called with these, and with containers that return what a module inside them did.
    Names are unique within one call of `model`, and start anew with the next.

    What the model returns is bitwise what it returns without `watched`, as long as torch's fused transformer path, which computes in
    another order, is off in both (`torch.backends.mha.set_fastpath_enabled(False)`): here it is off, since it hides the layers inside.
    """
    watcher = _Watcher(model, look, again)
    with plain_kernels(), watcher, every_call(watcher.call):
        yield


State = tuple[int, int | None]  # address of the storage, and how often it was written (None: inference mode does not tell)


@dataclass(slots=True)
class _Made:
    """A living storage that a layer of this pass put out."""

    state: State
    norm: bool
    name: str  # under which it was reported; "": it was not
    alive: weakref.ref[Any]


@dataclass(slots=True)
class _Frame:
    """One running module."""

    place: Place
    quiet: bool  # functions inside are the module's own business
    function: tuple[str, Tensor] | None = None  # the last activation function of a quiet module, and what it returned


class _Watcher(TorchFunctionMode):
    """Follows calls of modules and of activation functions, and reports what is new."""

    def __init__(self, model: nn.Module, look: Callable[[Output], None], again: Callable[[Output], None] | None) -> None:
        super().__init__()
        self._model = model
        self._look = look
        self._again = again
        self._paths = Paths(model, Place)
        self._frame: _Frame | None = None
        self._names: Counter[str] = Counter()
        self._calls: Counter[tuple[int, str]] = Counter()  # id(module), "" or a function in its forward
        self._made: dict[int, _Made] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one function of torch, and look at the result if it is an activation or a normalisation."""
        frame, name = self._frame, function_name(func)
        if frame is None or (name not in ACTIVATIONS and name not in _NORMS):
            return func(*args, **(kwargs or {}))
        given = (*args, *(kwargs or {}).values())
        with torch._C.DisableTorchFunction():
            after_norm = self._after_norm(given)
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            with torch._C.DisableTorchFunction():
                if name in _NORMS:
                    self._note(result, norm=True, name="")
                elif frame.quiet:
                    frame.function = (name, result)  # alive, so that its address is not used again
                elif result.is_floating_point():
                    call = self._count(frame.place.module, name)
                    self._report(Output(f"{frame.place.path}:{name}", name, None, result, after_norm, name, given=given, call=call), frame)
        return result

    def call(self, original: Any, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run one module's call, and report what it put out."""
        caller = self._frame
        if caller is None and module is self._model:
            self._names.clear()
            self._calls.clear()
        frame = _Frame(self._paths.of(module, None if caller is None else caller.place), self._is_quiet(module))
        given = (*args, *kwargs.values())
        with torch._C.DisableTorchFunction():
            after_norm = self._after_norm(given)
            before = {_state(value): value.shape for value in given if isinstance(value, Tensor)} if frame.quiet else {}
        self._frame = frame
        try:
            result = original(module, *args, **kwargs)
        finally:
            self._frame = caller
        with torch._C.DisableTorchFunction():
            parts, call, kind = list(parts_of(result)), self._count(module, ""), type(module).__name__
            for part, tensor in parts:
                state = _state(tensor)
                name = ".".join(filter(None, (frame.place.path, part if len(parts) > 1 else "")))
                function, same = _function(frame, state, kind), self._known(state)
                output = Output(name, kind, module, tensor, after_norm, function, part, given=given, call=call, same_as=same)
                # A leaf may hand on what it was given, a container what a module inside it returned.
                told = state is not None and state[1] is not None  # whether it was written
                if not (told and before.get(state) == tensor.shape if frame.quiet else same):
                    self._report(output, caller)
                elif same and self._again is not None:
                    self._again(self._named(output, caller))
        return result

    def _is_quiet(self, module: nn.Module) -> bool:
        """Tell whether a module is one operation, so that the functions in its forward are no layers beside it."""
        if not _is_leaf(module):
            return False
        plain = module is not self._model and next(module.parameters(recurse=False), None) is None
        return plain or type(module).__module__.startswith("torch.nn.")

    def _known(self, state: State | None) -> str:
        """Return the name under which a tensor in this state was reported, or ""."""
        made = None if state is None else self._made.get(state[0])
        return made.name if made is not None and made.state == state else ""

    def _count(self, module: nn.Module, function: str) -> int:
        self._calls[id(module), function] += 1
        return self._calls[id(module), function]

    def _after_norm(self, given: tuple[Any, ...]) -> bool:
        first = next((value for value in given if isinstance(value, Tensor)), None)
        state = None if first is None else _state(first)
        made = None if state is None else self._made.get(state[0])
        return made is not None and made.norm and made.state == state

    def _report(self, output: Output, caller: _Frame | None) -> None:
        output = self._named(output, caller)
        self._note(output.tensor, norm=_NORM_CLASS.search(output.type) is not None, name=output.name)
        self._look(output)

    def _named(self, output: Output, caller: _Frame | None) -> Output:
        self._names[output.name] += 1
        times = self._names[output.name]
        name = (output.name or output.type) + (f"#{times}" if times > 1 else "")  # the model itself has no path
        path, module = ("", None) if caller is None else (caller.place.path, caller.place.module)
        return replace(output, name=name, caller=path, caller_module=module)

    def _note(self, tensor: Tensor, *, norm: bool, name: str) -> None:
        """Remember a result for as long as its storage lives: addresses are used again."""
        state = _state(tensor)
        if state is None:
            return
        address = state[0]

        def freed(dead: weakref.ref[Any]) -> None:
            made = self._made.get(address)
            if made is not None and made.alive is dead:
                del self._made[address]

        self._made[address] = _Made(state, norm, name, weakref.ref(tensor.untyped_storage(), freed))


def function_name(function: Any) -> str:
    """Return the name under which a function of torch stands among ACTIVATIONS: "sigmoid" for `torch.special.expit` and `x.sigmoid_`."""
    name = getattr(function, "__name__", "")
    return _ALIASES.get(name, name.rstrip("_"))


def _is_leaf(module: nn.Module) -> bool:
    return next(module.children(), None) is None


def _state(tensor: Tensor) -> State | None:
    """Say which storage a tensor has and which writing of it this is; None for one without (sparse, lazy)."""
    try:
        return tensor.untyped_storage()._cdata, None if tensor.is_inference() else tensor._version
    except (NotImplementedError, RuntimeError, ValueError):
        return None


def _function(frame: _Frame, state: State | None, kind: str) -> str | None:
    """Return the activation function that a leaf is: the one that made its result, or else the one that it is called after."""
    if not frame.quiet:
        return None
    if frame.function is not None and _state(frame.function[1]) == state:
        return frame.function[0]
    name = kind.lower()
    name = "gelu" if "gelu" in name else _ALIASES.get(name, name)
    return name if name in ACTIVATIONS else None


def parts_of(value: Any, name: str = "", depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    """Yield the dense floating tensors in tuples, lists, mappings and dataclasses; key-value caches and other objects are no outputs."""
    if isinstance(value, Tensor):
        if value.is_floating_point() and value.layout == torch.strided and not value.is_nested:
            yield name, value
        return
    items: Any = ()
    if isinstance(value, Mapping):
        items = value.items()
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        items = zip(value._fields, value, strict=True)
    elif isinstance(value, (tuple, list)):
        items = enumerate(value)
    elif is_dataclass(value):
        items = vars(value).items()
    if depth < 8:
        for key, item in items:
            yield from parts_of(item, f"{name}.{key}" if name else str(key), depth + 1)
