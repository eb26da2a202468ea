"""What reading a pickle needs to remember, and the bounds that it keeps: a hostile file ends in Exhausted, never in a full memory."""

from __future__ import annotations

import time
from typing import Protocol

from netlens.loading.checkpoints.stubs import Blob, Bytes, Odd, Stub

STEPS = 2_400_000  # opcodes; a checkpoint of 50,000 tensors takes two thirds of them
MEMORY = 80_000_000  # bytes that the values may take, roughly
LONGEST = 1 << 16  # characters of a text, or bytes, that are worth copying out of the file
LINE = 1 << 16  # bytes of an argument that ends with its line
DIGITS = 64  # bytes of an integer: a hash is shorter, and Python prints no more than 4300 digits


class Damaged(Exception):
    """The pickle breaks the rules of pickles."""


class Truncated(Damaged):
    """The pickle ends before its STOP."""


class Exhausted(Exception):
    """The pickle is larger, or does more, than this reader follows."""


class Patience:
    """Ends the reading of many parts, each of which is bounded by itself."""

    def __init__(self, seconds: float) -> None:
        self.deadline = time.process_time() + seconds

    def check(self) -> None:
        """Raise Damaged when the time is over."""
        if time.process_time() > self.deadline:
            raise Damaged("it has more parts than netlens reads")


class Maker(Protocol):
    """What a pickle's names, calls and references become."""

    def find(self, module: str, name: str) -> object:
        """Name a class or a function."""

    def call(self, function: object, args: object) -> object:
        """Describe what a call would have made."""

    def new(self, cls: object, args: object) -> object:
        """Describe an instance of a class."""

    def build(self, value: object, state: object) -> None:
        """Keep an object's state."""

    def persistent(self, reference: object) -> object:
        """Describe what lies outside of the pickle."""


class Machine:
    """One pickle being read, from `start`; afterwards `position` is the first byte behind it."""

    __slots__ = ("code", "end", "far", "maker", "marks", "memo", "memory", "position", "stack")

    def __init__(self, code: Bytes, start: int, end: int, maker: Maker, memory: int = MEMORY) -> None:
        self.code, self.position, self.end, self.maker, self.memory = code, start, end, maker, memory
        self.stack: list[object] = []
        self.marks: list[list[object]] = []
        self.memo: list[object] = []  # picklers count from 0
        self.far: dict[int, object] = {}  # what a pickle puts elsewhere

    def take(self, size: int) -> bytes:
        """Return the next `size` bytes."""
        start = self.position
        if size < 0 or start + size > self.end:
            raise Truncated
        self.position = start + size
        return self.code[start : start + size]

    def line(self) -> bytes:
        """Return the bytes up to the line's end, without it."""
        stop = self.code.find(b"\n", self.position, min(self.end, self.position + LINE))
        if stop < 0:
            raise Truncated
        line = self.code[self.position : stop]
        self.position = stop + 1
        self.memory -= 100 + 4 * len(line)
        return line

    def since_mark(self) -> list[object]:
        """Return what was pushed since the last mark, and take it off."""
        items = self.stack
        self.stack = self.marks.pop()
        return items

    def remember(self, index: int) -> None:
        """Keep the topmost value under a number."""
        value, memo = self.stack[-1], self.memo
        if index == len(memo):
            memo.append(value)
        elif index < len(memo):
            memo[index] = value
        else:
            self.far[index] = value
            self.memory -= 120
        self.memory -= 9

    def recall(self, index: int) -> None:
        """Push what was kept under a number."""
        memo = self.memo
        self.stack.append(memo[index] if 0 <= index < len(memo) else self.far[index])
        self.memory -= 9

    def push_text(self, size: int) -> None:
        """Push a text of `size` bytes."""
        if size > LONGEST:
            self.push_blob(size, text=True)
            return
        text = str(self.take(size), "utf-8", "surrogatepass")
        self.memory -= 64 + size if text.isascii() else 84 + 4 * size
        self.stack.append(text)

    def push_bytes(self, size: int) -> None:
        """Push `size` bytes."""
        if size > LONGEST:
            self.push_blob(size)
            return
        self.memory -= 48 + size
        self.stack.append(self.take(size))

    def push_blob(self, size: int, text: bool = False) -> None:
        """Push a stand-in for `size` bytes, and leave them in the file."""
        if size < 0 or self.position + size > self.end:
            raise Truncated
        self.memory -= 100
        self.stack.append(Blob(size, self.position, self.code, text))
        self.position += size

    def push_integer(self, size: int) -> None:
        """Push an integer of `size` bytes, little-endian and signed; a huge one stays in the file."""
        if size > DIGITS:
            self.push_blob(size)
            return
        self.memory -= 48
        self.stack.append(int.from_bytes(self.take(size), "little", signed=True))


QUICK = frozenset({str, bytes, bool, float, type(None)})  # Python salts the hashes of texts
LARGE = 1 << 60  # from twice that on, integers collide as somebody wants them to


def hashable(key: object) -> object:
    """Return a key that takes no time to hash or compare, whoever chose it."""
    if type(key) in QUICK or (type(key) is int and -LARGE < key < LARGE):
        return key
    return Odd(key)


def fill(target: object, items: list[object]) -> None:
    """Give a dictionary its keys and values."""
    if isinstance(target, Stub):
        target.pairs = {} if target.pairs is None else target.pairs
    pairs = target.pairs if isinstance(target, Stub) else target
    if not isinstance(pairs, dict) or len(items) % 2:
        raise Damaged("entries for what is no dictionary")
    for index in range(0, len(items), 2):
        key = items[index]
        pairs[key if type(key) is str else hashable(key)] = items[index + 1]


def extend(target: object, items: list[object]) -> None:
    """Give a list, or a set, its elements."""
    if isinstance(target, Stub):
        target.items = [] if target.items is None else target.items
    elements = target.items if isinstance(target, Stub) else target
    if not isinstance(elements, list):
        raise Damaged("elements for what is no list")
    elements.extend(items)
