"""Watching one forward pass: which module ran, with which shapes, and what its operators cost.

Every operator is booked on the innermost module that is running, so that a parent's own row is what its functional code does.
Calls are keyed by the path on which a module was reached, not by the module: shared and recursive modules get rows of their own.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from netlens.probing.attention import fused_attention
from netlens.probing.leaves import leaves
from netlens.probing.macs import formula_of, is_free
from netlens.probing.mixed import MixedMeta
from netlens.probing.paths import Paths, Place, every_call

IN_THREADS = "threads.calls"  # stands among the operators that nobody counted
Shapes = tuple[tuple[str, tuple[int, ...], torch.dtype], ...]  # (name, shape, dtype) of every leaf


@dataclass(slots=True)
class Record(Place):
    """What one module did under one path."""

    calls: dict[tuple[Shapes, Shapes], int] = field(default_factory=dict)
    macs: int = 0
    activation_bytes: int = 0
    saved_bytes: int = 0


@dataclass(frozen=True, slots=True)
class _Storage:
    serial: int  # addresses are used again, serials are not
    size: int
    alive: weakref.ref[Any]


@dataclass(slots=True)
class Uncounted:
    """An operator without a formula."""

    times: int = 0
    output_bytes: int = 0
    paths: dict[str, None] = field(default_factory=dict)


@dataclass(slots=True)
class Stop:
    """Where an exception came from: the innermost module that was running, its arguments and who returned last before."""

    error: BaseException
    record: Record
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    producer: str | None
    operator: str = ""  # the operator that raised, with the shapes it got: "aten.cat"
    operands: tuple[tuple[int, ...], ...] = ()


class Observer(MixedMeta):
    """Counts what runs while it is active; use it through `observe`."""

    def __init__(self, model: nn.Module, inputs: Any) -> None:
        super().__init__()
        self._paths = Paths(model, Record)
        self.records = self._paths.found
        self._current: Record | None = None
        self._outside = self.records[""]  # what runs before or after the model's own call is booked on the model
        self._last_returned: str | None = None
        self.stop: Stop | None = None
        self._failed_operator: tuple[BaseException, str, tuple[tuple[int, ...], ...]] | None = None
        self.uncounted: dict[str, Uncounted] = {}
        self._known: dict[Any, Any] = {}  # operator -> (name, formula, free, makes storages)
        self._made: dict[int, _Storage] = {}  # by address: storages that operators of this pass made, and that are alive
        self._stands_for: dict[int, _Storage | None] = {}  # by address of a stand-in
        self._serial = 0
        self._saved: set[int] = set()  # serials
        given = (*model.parameters(), *model.buffers(), *(tensor for _, tensor in leaves(inputs)))
        self._given = {storage._cdata for storage in map(_storage, given) if storage is not None}
        self.live = self.peak = 0

    # -- operators ---------------------------------------------------------------------------------------------------------------

    def run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run one operator and book it on the innermost module."""
        if torch.is_inference_mode_enabled():  # composite operators arrive whole: `aten.linear`, `aten.conv2d`
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        try:
            result = super().run(func, args, kwargs)
        except Exception as error:
            self._failed_operator = (error, _name(func), tuple(tuple(t.shape) for t in _tensors(args)))
            raise
        record = self._current or self._outside
        name, formula, free, makes = self._known.get(func) or self._know(func)
        if formula is not None:
            record.macs += formula(args, kwargs, result)
        made = self._book(result, record) if makes else 0
        if formula is None and not free:
            entry = self.uncounted.setdefault(name, Uncounted())
            entry.times += 1
            entry.output_bytes += made
            entry.paths[record.path] = None
        return result

    def _know(self, func: Any) -> tuple[str, Any, bool, bool]:
        name = _name(func)
        makes = any(returned.alias_info is None for returned in func._schema.returns)  # not a view, not in place
        known = self._known[func] = (name, formula_of(name), is_free(name, func), makes)
        return known

    def count(self, _name: str, macs: int) -> None:
        """Book MACs of an operator that runs as one although the dispatcher would take it apart."""
        (self._current or self._outside).macs += macs

    # -- memory ------------------------------------------------------------------------------------------------------------------

    def _book(self, result: Any, record: Record) -> int:
        """Book the storages that an operator made, and return their bytes."""
        made = 0
        for tensor in (result,) if isinstance(result, Tensor) else _tensors(result) if isinstance(result, (tuple, list)) else ():
            storage = _storage(tensor)
            if storage is not None and storage._cdata not in self._made and storage._cdata not in self._given:
                made += self._follow(storage)
        if made:
            record.activation_bytes += made
            self.live += made
            self.peak = max(self.peak, self.live)
        return made

    def _follow(self, storage: Any) -> int:
        """Note a new storage for as long as it lives, and return its bytes."""
        key, size = storage._cdata, storage.nbytes()

        def freed(_storage: Any) -> None:
            self._made.pop(key, None)
            self.live -= size

        self._serial += 1
        self._made[key] = _Storage(self._serial, size, weakref.ref(storage, freed))
        self._stands_for.pop(key, None)  # the address of a stand-in that is gone
        return int(size)

    def made_stand_in(self, tensor: Tensor, meta: Tensor) -> None:
        """Let a stand-in count as what it stands for: a storage of this pass, or (None) one that was there before."""
        real, standing = _storage(tensor), _storage(meta)
        if real is not None and standing is not None:
            self._stands_for[standing._cdata] = self._made.get(real._cdata)

    def _save(self, tensor: Tensor) -> Tensor:
        """Book a tensor that autograd keeps for backward, where this pass made it: weights and inputs are there anyway."""
        kept = tensor.detach()
        storage = _storage(kept)
        if storage is not None:
            key = storage._cdata
            made = self._stands_for[key] if key in self._stands_for else self._made.get(key)
            if made is not None and made.serial not in self._saved:
                self._saved.add(made.serial)
                (self._current or self._outside).saved_bytes += made.size
        return kept

    # -- modules -----------------------------------------------------------------------------------------------------------------

    def call(self, original: Any, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run one module's call, and note its shapes under its path."""
        parent = self._current
        record = self._paths.of(module, parent)
        inputs = shapes_of(args[0] if len(args) == 1 and not kwargs else (*args, *kwargs.values()) if not kwargs else _named(args, kwargs))
        self._current = record
        try:
            result = original(module, *args, **kwargs)
        except Exception as error:
            self._stopped(error, record, args, kwargs)
            raise
        finally:
            self._current = parent
        self._last_returned = record.path
        key = (inputs, shapes_of(result))
        record.calls[key] = record.calls.get(key, 0) + 1
        return result

    def call_elsewhere(self, original: Any, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a call in another thread: its shapes are seen, its operators are not, and that is said."""
        result = original(module, *args, **kwargs)
        record = self._paths.listed(module)
        if record is not None:
            key = (shapes_of(args), shapes_of(result))
            record.calls[key] = record.calls.get(key, 0) + 1
            entry = self.uncounted.setdefault(IN_THREADS, Uncounted())
            entry.times += 1
            entry.paths[record.path] = None
        return result

    def _stopped(self, error: BaseException, record: Record, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self.stop is not None and self.stop.error in chain(error):
            return  # an outer module passes on what an inner one raised
        self.stop = Stop(error, record, args, kwargs, self._last_returned)
        if self._failed_operator is not None and self._failed_operator[0] is error:
            _, self.stop.operator, self.stop.operands = self._failed_operator


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and those that it was raised from."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _named(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    return {**{str(index): value for index, value in enumerate(args)}, **kwargs}


def shapes_of(value: Any) -> Shapes:
    """Return (name, shape, dtype) of every tensor in `value`."""
    if isinstance(value, Tensor):
        return (("", _shape(value), value.dtype),)
    return tuple((name, _shape(tensor), tensor.dtype) for name, tensor in leaves(value))


def _shape(tensor: Tensor) -> tuple[int, ...]:
    try:
        return tuple(tensor.shape)
    except RuntimeError:  # a nested tensor has no shape; it knows only how many tensors it holds
        return (tensor.size(0),)


def _name(func: Any) -> str:
    namespace, _, base = func._schema.name.partition("::")
    return f"{namespace}.{base}"


def _tensors(values: Any) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from (item for item in value if isinstance(item, Tensor))


def _storage(tensor: Tensor) -> Any:
    """The tensor's storage, or None for one without (sparse, lazy, wrapper subclasses)."""
    try:
        return tensor.untyped_storage()
    except (NotImplementedError, RuntimeError, ValueError):
        return None


@contextmanager
def observe(observer: Observer, *, autograd: bool) -> Iterator[None]:
    """Let `observer` see every module call and operator of this thread while the block runs.

    Args:
        observer: what counts.
        autograd: record what backward needs; without it the pass runs under `torch.no_grad`.
    """
    with ExitStack() as stack:
        stack.enter_context(plain_kernels())
        stack.enter_context(torch.enable_grad() if autograd else torch.no_grad())
        if autograd:
            stack.enter_context(saved_tensors_hooks(observer._save, lambda kept: kept))
        stack.enter_context(fused_attention(observer.count))
        stack.enter_context(observer)
        stack.enter_context(every_call(observer.call, observer.call_elsewhere))
        yield


@contextmanager
def plain_kernels() -> Iterator[None]:
    """Switch off what hides operators: the fused transformer fast path, and compiled code."""
    fast = torch.backends.mha.get_fastpath_enabled()
    with ExitStack() as stack:
        # Only where the compiler is loaded: loading it takes longer than the summary of any model.
        if "torch._dynamo" in sys.modules and hasattr(torch.compiler, "set_stance"):
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        torch.backends.mha.set_fastpath_enabled(False)
        stack.callback(torch.backends.mha.set_fastpath_enabled, fast)
        yield
