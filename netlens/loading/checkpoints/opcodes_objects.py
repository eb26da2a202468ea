"""The opcodes of a pickle that build containers and objects. Names, calls and references go to the machine's maker."""

from __future__ import annotations

from collections.abc import Callable

from netlens.loading.checkpoints.machine import Damaged, Machine, extend, fill
from netlens.loading.checkpoints.stubs import Bag

Handler = Callable[[Machine], None]
HANDLERS: dict[int, Handler] = {}


def opcode(code: str) -> Callable[[Handler], Handler]:
    """Register a handler under its opcode's character."""

    def register(handler: Handler) -> Handler:
        HANDLERS[ord(code)] = handler
        return handler

    return register


@opcode("(")
def _mark(m: Machine) -> None:
    m.marks.append(m.stack)
    m.stack = []
    m.memory -= 150


@opcode("t")
def _tuple(m: Machine) -> None:
    items = tuple(m.since_mark())
    m.stack.append(items)
    m.memory += 80 - 8 * len(items)  # the mark is gone


@opcode("\x85")
def _tuple1(m: Machine) -> None:
    m.stack[-1] = (m.stack[-1],)
    m.memory -= 64


@opcode("\x86")
def _tuple2(m: Machine) -> None:
    m.stack[-2:] = [(m.stack[-2], m.stack[-1])]
    m.memory -= 72


@opcode("\x87")
def _tuple3(m: Machine) -> None:
    m.stack[-3:] = [(m.stack[-3], m.stack[-2], m.stack[-1])]
    m.memory -= 80


@opcode("]")
def _empty_list(m: Machine) -> None:
    m.stack.append([])
    m.memory -= 70


@opcode("}")
def _empty_dict(m: Machine) -> None:
    m.stack.append({})
    m.memory -= 80


@opcode("\x8f")
def _empty_set(m: Machine) -> None:
    m.stack.append(Bag())
    m.memory -= 70


@opcode("l")
def _list(m: Machine) -> None:
    m.stack.append(m.since_mark())


@opcode("\x91")
def _frozenset(m: Machine) -> None:
    m.stack.append(Bag(m.since_mark()))


@opcode("d")
def _dict(m: Machine) -> None:
    _empty_dict(m)
    value = m.stack.pop()
    _fill(m, value, m.since_mark())
    m.stack.append(value)


def _fill(m: Machine, target: object, items: list[object]) -> None:
    m.memory -= 50 * len(items)
    fill(target, items)


@opcode("s")
def _setitem(m: Machine) -> None:
    value, key = m.stack.pop(), m.stack.pop()
    _fill(m, m.stack[-1], [key, value])


@opcode("u")
def _setitems(m: Machine) -> None:
    items = m.since_mark()
    m.memory += 150
    _fill(m, m.stack[-1], items)


def _extend(m: Machine, items: list[object]) -> None:
    m.memory -= 9 * len(items)
    extend(m.stack[-1], items)


@opcode("a")
def _append(m: Machine) -> None:
    _extend(m, [m.stack.pop()])


@opcode("e")
@opcode("\x90")
def _appends(m: Machine) -> None:
    items = m.since_mark()
    m.memory += 150
    _extend(m, items)


@opcode("c")
def _global(m: Machine) -> None:
    module, name = m.line().decode("utf-8"), m.line().decode("utf-8")
    m.stack.append(m.maker.find(module, name))


@opcode("\x93")
def _stack_global(m: Machine) -> None:
    name, module = m.stack.pop(), m.stack.pop()
    if not isinstance(name, str) or not isinstance(module, str):
        raise Damaged("a name that is no text")
    m.stack.append(m.maker.find(module, name))
    m.memory -= 100


@opcode("i")
def _inst(m: Machine) -> None:
    cls = m.maker.find(m.line().decode("utf-8"), m.line().decode("utf-8"))
    args = tuple(m.since_mark())
    m.stack.append(m.maker.new(cls, args))


@opcode("o")
def _obj(m: Machine) -> None:
    cls, *args = m.since_mark()
    m.stack.append(m.maker.new(cls, tuple(args)))


@opcode("\x81")
def _newobj(m: Machine) -> None:
    args = m.stack.pop()
    m.stack[-1] = m.maker.new(m.stack[-1], args)
    m.memory -= 200


@opcode("\x92")
def _newobj_ex(m: Machine) -> None:
    keywords, args = m.stack.pop(), m.stack.pop()
    m.stack[-1] = m.maker.new(m.stack[-1], (args, keywords))
    m.memory -= 250


@opcode("R")
def _reduce(m: Machine) -> None:
    args = m.stack.pop()
    m.stack[-1] = m.maker.call(m.stack[-1], args)
    m.memory -= 200


@opcode("b")
def _build(m: Machine) -> None:
    state = m.stack.pop()
    m.maker.build(m.stack[-1], state)


@opcode("P")
def _persid(m: Machine) -> None:
    m.stack.append(m.maker.persistent(m.line().decode("ascii")))


@opcode("Q")
def _binpersid(m: Machine) -> None:
    m.stack[-1] = m.maker.persistent(m.stack[-1])
    m.memory -= 160


def _extension(m: Machine, number: int) -> None:
    m.stack.append(m.maker.find("extension", str(number)))


for _code, _size in ((0x82, 1), (0x83, 2), (0x84, 4)):
    HANDLERS[_code] = lambda m, size=_size: _extension(m, int.from_bytes(m.take(size), "little"))  # type: ignore[misc]


@opcode("0")
def _pop(m: Machine) -> None:
    if m.stack:
        m.stack.pop()
    else:
        m.since_mark()


@opcode("1")
def _pop_mark(m: Machine) -> None:
    m.since_mark()


@opcode("2")
def _dup(m: Machine) -> None:
    m.stack.append(m.stack[-1])
    m.memory -= 9


@opcode("\x97")
def _next_buffer(m: Machine) -> None:
    raise Damaged("data outside the pickle")


@opcode("\x98")
def _readonly_buffer(m: Machine) -> None:
    """The buffer stays what it is."""
