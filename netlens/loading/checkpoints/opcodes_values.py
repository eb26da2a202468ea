"""The opcodes of a pickle that push numbers and texts, or remember what was pushed (Lib/pickletools.py), for protocols 0 to 5."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

from netlens.loading.checkpoints.machine import DIGITS, Damaged, Machine

Handler = Callable[[Machine], None]
HANDLERS: dict[int, Handler] = {}


def opcode(code: str) -> Callable[[Handler], Handler]:
    """Register a handler under its opcode's character."""

    def register(handler: Handler) -> Handler:
        HANDLERS[ord(code)] = handler
        return handler

    return register


def _constant(code: str, value: object) -> None:
    HANDLERS[ord(code)] = lambda m: m.stack.append(value)


def _sized(code: str, push: Callable[[Machine, int], None], size: int, signed: bool = False) -> None:
    """Register an opcode with an integer of `size` bytes. Behind the end there is nothing to harm, and the next opcode notices."""
    read = int.from_bytes

    def handler(m: Machine) -> None:
        start = m.position
        m.position = stop = start + size
        push(m, read(m.code[start:stop], "little", signed=signed))

    HANDLERS[ord(code)] = handler


for _code, _value in (("N", None), ("\x88", True), ("\x89", False), (")", ())):
    _constant(_code, _value)

_TEXT, _BYTES, _INTEGER = Machine.push_text, Machine.push_bytes, Machine.push_integer
for _code, _push, _size in (
    ("\x8c", _TEXT, 1),
    ("X", _TEXT, 4),
    ("\x8d", _TEXT, 8),
    ("C", _BYTES, 1),
    ("B", _BYTES, 4),
    ("\x8e", _BYTES, 8),
    ("\x96", _BYTES, 8),
    ("\x8a", _INTEGER, 1),
    ("\x8b", _INTEGER, 4),
    ("h", Machine.recall, 1),
    ("j", Machine.recall, 4),
    ("q", Machine.remember, 1),
    ("r", Machine.remember, 4),
):
    _sized(_code, _push, _size)


@opcode("\x94")
def _memoize(m: Machine) -> None:
    m.remember(len(m.memo) + len(m.far))


@opcode("p")
def _put(m: Machine) -> None:
    m.remember(_decimal(m.line()))


@opcode("g")
def _get(m: Machine) -> None:
    m.recall(_decimal(m.line()))


@opcode("K")
def _binint1(m: Machine) -> None:
    m.stack.append(m.code[m.position])
    m.position += 1
    m.memory -= 9


def _push_integer(m: Machine, value: int) -> None:
    m.stack.append(value)
    m.memory -= 40


_sized("M", _push_integer, 2)
_sized("J", _push_integer, 4, signed=True)


@opcode("G")
def _binfloat(m: Machine) -> None:
    m.stack.append(struct.unpack(">d", m.take(8))[0])
    m.memory -= 32


def _decimal(line: bytes) -> int:
    if len(line) > 2 * DIGITS:
        raise Damaged("a number of many digits")
    return int(line.removesuffix(b"L"), 0)


@opcode("I")
def _int(m: Machine) -> None:
    line = m.line()
    m.stack.append(line == b"01" if line in (b"00", b"01") else _decimal(line))


@opcode("L")
def _long(m: Machine) -> None:
    m.stack.append(_decimal(m.line()))


@opcode("F")
def _float(m: Machine) -> None:
    m.stack.append(float(m.line()[:100]))


ESCAPE = re.compile(rb"\\\\(?:x([0-9a-fA-F]{2})|([0-7]{1,3})|(.))", re.DOTALL)
LETTERS = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"\\": b"\\", b"'": b"'", b'"': b'"', b"a": b"\a", b"b": b"\b", b"f": b"\f", b"v": b"\v"}


def _unescaped(found: re.Match[bytes]) -> bytes:
    """Return what an escape of Python 2's texts stands for; not codecs.escape_decode, which warns about unknown ones."""
    if found[1]:
        return bytes([int(found[1], 16)])
    if found[2]:
        return bytes([int(found[2], 8) & 255])
    return LETTERS.get(found[3], found[0])


def _python2_text(value: bytes) -> str | bytes:
    return value.decode("ascii") if value.isascii() else value


@opcode("S")
def _string(m: Machine) -> None:
    line = m.line()
    if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
        raise Damaged("a text without quotes")
    m.stack.append(_python2_text(ESCAPE.sub(_unescaped, line[1:-1])))


@opcode("V")
def _unicode(m: Machine) -> None:
    m.stack.append(str(m.line(), "raw-unicode-escape"))


def _push_python2(m: Machine, size: int) -> None:
    m.push_bytes(size)
    if isinstance(value := m.stack[-1], bytes):
        m.stack[-1] = _python2_text(value)


_sized("U", _push_python2, 1)
_sized("T", _push_python2, 4)


@opcode("\x80")
def _proto(m: Machine) -> None:
    if m.take(1)[0] > 5:
        raise Damaged("a protocol above 5")


@opcode("\x95")
def _frame(m: Machine) -> None:
    m.take(8)
