"""What the symbolic unpickler puts where a pickle names something: inert objects, compared by identity, that hold what they were given."""

from __future__ import annotations

import mmap
from dataclasses import dataclass, field
from typing import Any

Bytes = bytes | mmap.mmap


@dataclass(frozen=True, slots=True, eq=False)
class Global:
    """A class or function that the pickle names. It is not imported."""

    module: str
    name: str
    dotted: str  # "torch.nn.modules.conv.Conv2d"


@dataclass(slots=True, eq=False)
class Stub:
    """What a call would have made: of which class or function, from which arguments, with which state."""

    made_by: object  # a Global; in a hostile pickle anything
    args: tuple[object, ...] = ()
    state: object = None
    items: list[object] | None = None  # what a list-like object was extended with
    pairs: dict[Any, object] | None = None  # what a dict-like object was filled with

    @property
    def dotted(self) -> str:
        """The name of what made it, or "" where that is no class or function."""
        return self.made_by.dotted if isinstance(self.made_by, Global) else ""


class Mapping(dict[Any, object]):
    """An OrderedDict, a defaultdict or a Counter; also how a Python object's `state` is kept apart from its entries."""

    __slots__ = ("cls", "state")

    def __init__(self, cls: str) -> None:
        super().__init__()
        self.cls = cls
        self.state: object = None


class Bag(list[object]):
    """A set: its elements need no hash here."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, eq=False)
class Odd:
    """A dictionary's key that is no text and no small number: kept by identity, because hashing it may take for ever."""

    value: object


@dataclass(frozen=True, slots=True, eq=False)
class Blob:
    """A long text or many bytes, left in the file."""

    size: int
    place: int  # where it starts in the bytes that the pickle was read from
    source: Bytes = field(repr=False)
    text: bool = False


@dataclass(slots=True, eq=False)
class Storage:
    """A block of memory that the pickle refers to; what the file really holds for it is checked later."""

    key: str
    dtype: str
    count: int  # elements, as the pickle says
    location: str = "cpu"
    itemsize: int = 0  # bytes; 0: a type that this reader does not know
    place: int = -1  # where its bytes start in the file; -1: nowhere, or not as they are
    problem: str = ""  # why it cannot be read
    same_as: Storage | None = None  # the storage whose bytes these are: read as another type, or a part of it
    shift: int = 0  # bytes from the start of that storage
    file: str = ""  # its name, where the checkpoint is several files

    @property
    def size(self) -> int:
        """Bytes, as the pickle says."""
        return self.count * self.itemsize

    @property
    def root(self) -> Storage:
        """The storage that has the bytes."""
        return self.same_as or self


@dataclass(slots=True, eq=False)
class Tensor:
    """A tensor, as its rebuild function would have made it."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: str
    offset: int = 0
    storage: Storage | None = None
    kind: str = "tensor"
    trainable: bool | None = None
    why: str = ""  # why only its own package can rebuild it; "" where plain bytes are enough
    cls: str = ""  # of a subclass of Tensor that is read as a plain tensor


@dataclass(slots=True, eq=False)
class Array:
    """A numpy array."""

    shape: tuple[int, ...] = ()
    dtype: str = ""
    fortran: bool = False
