"""A pickle, read without running it: nothing is imported, looked up or called, so it cannot matter who wrote it."""

from __future__ import annotations

import _compat_pickle
from collections.abc import Callable
from dataclasses import dataclass, field

from netlens.loading.checkpoints import opcodes_objects, opcodes_values
from netlens.loading.checkpoints.dtypes import ITEMSIZES, STORAGES
from netlens.loading.checkpoints.machine import STEPS, Damaged, Exhausted, Machine, Truncated, extend, fill
from netlens.loading.checkpoints.rebuild import MOST, rebuilt, set_array
from netlens.loading.checkpoints.stubs import Array, Blob, Bytes, Global, Mapping, Storage, Stub, Tensor

HANDLERS = opcodes_values.HANDLERS | opcodes_objects.HANDLERS
WORK = 20_000_000  # elements, times ten, that calls may copy
LONGEST_NAME = 300
MOST_GLOBALS = 20_000
NESTED = 1000  # what reading a pickle inside of the pickle counts as work

WATCHED = ("builtins.getattr", "torch.storage._load_from_bytes")

Nested = Callable[[bytes | Blob, dict[str, Global]], object]


@dataclass(slots=True)
class Pickled:
    """A pickle that was read."""

    value: object
    end: int  # the first byte behind it
    globals: dict[str, Global]
    storages: dict[str, Storage]
    misused: frozenset[str]  # of the functions in WATCHED: those that were not used as honest pickles use them
    complete: bool  # False: it is larger, or does more, than netlens follows
    oddities: list[str] = field(default_factory=list)


class Reader:
    """Makes what a pickle names, calls and refers to: see `Maker`."""

    def __init__(self, nested: Nested | None = None) -> None:
        self.nested = nested
        self.globals: dict[str, Global] = {}
        self.storages: dict[str, Storage] = {}
        self.oddities: dict[str, None] = {}
        self.misused: set[str] = set()
        self.work = WORK

    def find(self, module: str, name: str) -> object:
        """Name a class or a function; Python 2's names become those of today."""
        module, name = _compat_pickle.NAME_MAPPING.get((module, name), (_compat_pickle.IMPORT_MAPPING.get(module, module), name))
        module = "torch._tensor" if module == "torch.tensor" else module  # where it was until torch 1.8
        dotted = f"{module[:LONGEST_NAME]}.{name[:LONGEST_NAME]}"
        found = self.globals.get(dotted)
        if found is None:
            if len(self.globals) >= MOST_GLOBALS:
                raise Exhausted
            found = self.globals[dotted] = Global(module[:LONGEST_NAME], name[:LONGEST_NAME], dotted)
        return found

    def call(self, function: object, args: object) -> object:
        """Describe what a call would have made."""
        if not isinstance(function, Global):
            return Stub(function, args if isinstance(args, tuple) else (args,))
        self._spend(args)
        if (known := rebuilt(function, args)) is not None:
            return known
        values = args if isinstance(args, tuple) else (args,)
        return self._special(function.dotted, values) or Stub(function, values)

    def _spend(self, args: object) -> None:
        for value in args[:10] if isinstance(args, tuple) else ():
            if isinstance(value, Global) and value.dotted in WATCHED:
                self.misused.add(value.dotted)  # handed on, to be called by another function
        if isinstance(args, tuple) and args and isinstance(args[0], str | bytes | list | tuple | dict):
            self.work -= len(args[0]) * (1 if isinstance(args[0], str | bytes) else 10)
            if self.work < 0:
                raise Exhausted

    def _special(self, name: str, args: tuple[object, ...]) -> object:
        """The calls that lead to other objects; None for every other call."""
        match name:
            case "builtins.getattr" if not (len(args) == 2 and isinstance(args[0], Stub) and isinstance(args[1], str)):
                self.misused.add(name)
            case "torch.storage._load_from_bytes":
                self.work -= NESTED
                found = self.nested(args[0], self.globals) if self.nested and args and isinstance(args[0], bytes | Blob) else None
                if found is None:
                    self.misused.add(name)
                return found
            case "torch._tensor._rebuild_from_type_v2" | "torch._tensor._rebuild_from_type" if len(args) >= 3:
                return self._of_type(*args[:3])
            case "copyreg._reconstructor" if args:
                return Stub(args[0])
            case "torch._utils._rebuild_tensor_v2" | "torch._utils._rebuild_tensor_v3" | "torch._utils._rebuild_tensor":
                self.oddities["a tensor's description is not one that torch writes, so the tensor is left out"] = None
        return None

    def _of_type(self, function: object, cls: object, args: object) -> object:
        value = self.call(function, args)
        if isinstance(value, Tensor) and isinstance(cls, Global):
            if cls.dotted in ("torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer"):
                value.kind = cls.name.lower()
            elif cls.dotted not in ("torch.Tensor", "torch._tensor.Tensor"):
                value.cls = cls.dotted
        return value

    def new(self, cls: object, args: object) -> object:
        """Describe an instance of a class."""
        values = args if isinstance(args, tuple) else (args,)
        if isinstance(cls, Global) and cls.dotted in WATCHED:
            self.misused.add(cls.dotted)
        if isinstance(cls, Global) and (known := rebuilt(cls, values)) is not None:
            return known
        return Stub(cls, values)

    def build(self, value: object, state: object) -> None:
        """Keep an object's state. What a second state would change is lost: no pickler writes one."""
        if isinstance(value, Array):
            set_array(value, state)
        elif isinstance(value, Stub | Mapping) and value.state is None:
            value.state = state

    def persistent(self, reference: object) -> object:
        """Describe what lies outside of the pickle: storages, in old files also the source text of modules."""
        if isinstance(reference, tuple) and reference and isinstance(tag := reference[0], str | bytes):
            tag = tag if isinstance(tag, str) else tag.decode("latin-1")
            if tag == "module" and len(reference) == 4:
                return reference[1]
            if tag == "storage" and len(reference) >= 5 and (storage := self.storage(*reference[1:5])):
                return _view(storage, reference[5] if len(reference) > 5 else None)
        if isinstance(reference, str | int) and (storage := self.storages.get(str(reference)[:100])):
            return storage
        self.oddities["the pickle refers to something outside of it that is no storage"] = None
        return Stub(None, (reference,))

    def storage(self, cls: object, key: object, location: object, count: object) -> Storage | None:
        """Describe one storage, the same for the same key; None where the description makes no sense."""
        if not isinstance(cls, Global) or not isinstance(key, str | bytes | int) or type(count) is not int or not 0 <= count < MOST:
            return None
        name = key.decode("latin-1") if isinstance(key, bytes) else str(key)
        if len(name) > 200:
            return None
        dtype = STORAGES.get(cls.name, cls.name.removesuffix("Storage").lower())
        device = location.decode("latin-1") if isinstance(location, bytes) else location
        made = Storage(name, dtype, count, device[:50] if isinstance(device, str) else "", ITEMSIZES.get(dtype, 0))
        known = self.storages.setdefault(name, made)
        if known.size == made.size and known.dtype != dtype:
            made.same_as = known
            return made
        if known.size != made.size:
            known.problem = known.problem or f"the file gives storage {name} two sizes"
        return known


def _view(storage: Storage, view: object) -> object:
    """Old files could store a storage that is a part of another one: (key, first element, number of elements)."""
    if not isinstance(view, tuple) or len(view) != 3:
        return storage
    first, count = view[1], view[2]
    if type(first) is not int or type(count) is not int or min(first, count) < 0 or first + count > storage.count:
        return Stub(None, (storage, view))
    part = Storage(storage.key, storage.dtype, count, storage.location, storage.itemsize, same_as=storage.root)
    part.shift = first * storage.itemsize
    return part


def read_pickle(code: Bytes, start: int, end: int, reader: Reader | None = None, steps: int = STEPS) -> Pickled:
    """Read the pickle that starts at `start`.

    Raises:
        Truncated, Damaged: it is no complete pickle. (One that is too large is cut, and an oddity says so.)
    """
    reader = Reader() if reader is None else reader
    machine = Machine(code, start, end, reader)
    complete = True
    try:
        value = run(machine, steps)
    except Exhausted:
        value, complete = salvaged(machine), False
        reader.oddities["it is larger, or does more, than netlens follows: what is listed is incomplete"] = None
    return Pickled(value, machine.position, reader.globals, reader.storages, frozenset(reader.misused), complete, list(reader.oddities))


def run(machine: Machine, steps: int = STEPS) -> object:
    """Read up to the STOP and return the value. Exhausted leaves the half-built value to `salvaged`."""
    handlers, code, end = HANDLERS, machine.code, machine.end
    try:
        for _ in range(steps):
            if (position := machine.position) >= end:
                raise Truncated
            machine.position = position + 1
            if (opcode := code[position]) == 46:  # STOP
                return machine.stack[-1]
            handlers[opcode](machine)
            if machine.memory < 0:
                raise Exhausted
    except (IndexError, KeyError, ValueError, OverflowError) as error:
        raise Damaged(f"its opcode at byte {machine.position - 1:,} makes no sense") from error
    raise Exhausted


def salvaged(machine: Machine) -> object:
    """Return the outermost value of a pickle that was given up, with what had been read of it."""
    while machine.marks:
        pending = machine.stack
        machine.stack = machine.marks.pop()
        target = machine.stack[-1] if machine.stack else None
        if isinstance(target, list):
            extend(target, pending)
        elif isinstance(target, dict):
            fill(target, pending[: len(pending) // 2 * 2])
    return machine.stack[0] if machine.stack else None
