"""Where the tensors of an unpickled value are, and which of them belong together: state dicts, averaged copies, optimizers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from netlens.loading.checkpoints.modules import LONGEST_NAME, Flattener, attributes, is_module, model_class, text
from netlens.loading.checkpoints.stubs import Stub, Tensor

DEPTH = 64
MOST_CONTAINERS = 100_000
MOST_TENSORS = 100_000
MOST_WORK = 1_500_000  # entries looked at: objects may share their arguments, and their states
MOST_GROUPS = 16  # beside one another; more are one group with longer names
MOST_SPECIAL = 500  # the same for modules, optimizers and averaged copies

WEIGHTS = frozenset(
    {"state_dict", "model_state_dict", "model", "model_state", "model_weights", "module", "net", "network", "params", "weights"}
    | {"generator", "discriminator", "encoder", "decoder", "backbone", "G", "D", "netG", "netD", "student", "student_state_dict"}
)
WHOLE = frozenset({"params", "state_dict", "model_state_dict", "weights"})  # what lies below is one state dict, however nested
AVERAGED = re.compile(r"(^|[._-])(ema|teacher|averaged|shadow|swa)([._-]|$)|^ema|ema$|_ema_", re.IGNORECASE)
OPTIMIZER = re.compile(r"optim|(^|[._-])opt([._-]|$)|exp_avg|fp32_flat_groups", re.IGNORECASE)
OTHER = re.compile(r"rng|random|scheduler|scaler|loss|metric|callback|sampler|loops|grad|(^|[._-])amp([._-]|$)|history", re.IGNORECASE)

CONTAINERS = (dict, list, tuple, Stub)
SIMPLE = frozenset({int, str, float, bool, bytes, type(None)})
Named = tuple[str, Tensor]

ROLES = ("ema", "optimizer", "other", "")  # the first that a key on the way suggests


@dataclass(slots=True, eq=False)
class Node:
    """A container, with what lies directly in it."""

    key: str
    value: object
    depth: int = 0
    hint: str = ""  # the role that its key, or one above it, suggests
    tensors: list[Named] = field(default_factory=list)
    children: list[Node] = field(default_factory=list)
    total: int = 0  # tensors in it and below
    is_module: bool = False


@dataclass(frozen=True, slots=True)
class Group:
    """Tensors that belong together, not yet described."""

    key: str  # below the container that it was asked of
    role: str
    tensors: list[Named]
    module: str = ""  # the class, where they are a module's

    @property
    def is_special(self) -> bool:
        """Whether it must stay apart from its neighbours."""
        return bool(self.module) or self.role in ("optimizer", "ema")


class Walk:
    """Visits every container once, under the first name that leads to it: values may contain themselves, or each other 2^60 times."""

    def __init__(self) -> None:
        self.seen: set[int] = set()
        self.oddities: dict[str, None] = {}
        self.flattener = Flattener()
        self.count = self.work = 0
        self.complete = True

    def tree(self, value: object) -> Node:
        """Return the containers below a value."""
        root = Node("", value)
        self.seen.add(id(value))
        order, waiting = [root], [root]
        while waiting:
            node = waiting.pop()
            self._open(node)
            waiting.extend(reversed(node.children))
            order.extend(node.children)
        for node in reversed(order):
            node.total = len(node.tensors) + sum(child.total for child in node.children)
        self.oddities |= self.flattener.oddities
        return root

    def _open(self, node: Node) -> None:
        """Fill one node."""
        if isinstance(node.value, Stub) and is_module(node.value):
            node.is_module = True
            node.tensors = self.flattener.tensors(node.value)
            return None
        if isinstance(node.value, Tensor):
            node.tensors.append(("", node.value))
        if self.work > MOST_WORK:
            return self._stop()
        for key, child in entries(node.value):
            self.work += 1
            if type(child) in SIMPLE:
                continue
            if isinstance(child, Tensor):
                self.count += 1
                if self.count > MOST_TENSORS:
                    return self._stop()
                node.tensors.append((text(key), child))
            elif isinstance(child, CONTAINERS) and id(child) not in self.seen and (child or isinstance(child, Stub)):
                self._add(node, text(key), child)
        return None

    def _stop(self) -> None:
        self.oddities["it holds more than netlens lists: what is shown is incomplete"] = None
        self.complete = False

    def _add(self, node: Node, key: str, child: object) -> None:
        if len(self.seen) >= MOST_CONTAINERS:
            return self._stop()
        if node.depth >= DEPTH:
            self.oddities[f"it is nested deeper than {DEPTH} levels: what lies below is left out"] = None
            return None
        self.seen.add(id(child))
        node.children.append(Node(key, child, node.depth + 1, min(node.hint, _hint(key), key=ROLES.index)))
        return None


def _hint(key: str) -> str:
    """Return the role that a key suggests, or ""."""
    if AVERAGED.search(key):
        return "ema"
    if OPTIMIZER.search(key):
        return "optimizer"
    return "other" if OTHER.search(key) else ""


def entries(value: object) -> Iterator[tuple[object, object]]:
    """Yield what a container holds, with its names."""
    if isinstance(value, dict):
        yield from value.items()
    elif isinstance(value, list | tuple):
        yield from enumerate(value)
    elif isinstance(value, Stub):
        yield from attributes(value).items()
        yield from (value.pairs or {}).items()
        yield from enumerate(value.items or ())
        for index, argument in enumerate(value.args):
            yield f"args.{index}", argument
        if isinstance(value.state, tuple | list):
            yield from enumerate(value.state)


def groups_of(node: Node) -> list[Group]:
    """Return the groups in and below a container, the keys relative to it."""
    if not node.total:
        return []
    if node.is_module:
        return [Group("", _role(node, node.tensors), node.tensors, model_class(node.value))]
    if is_optimizer(node.value):
        return [Group("", "optimizer", _all_below(node))]
    below = [child for child in node.children if child.total]
    special = any(child.is_module or is_optimizer(child.value) or _is_named(child.key) for child in below)
    if (node.tensors and not special and not _is_loose(node, below)) or (len(below) > MOST_GROUPS and not special):
        tensors = _all_below(node)
        return [Group("", _role(node, tensors), tensors)]
    found = [replace(group, key=_joined(child.key, group.key)) for child in below for group in groups_of(child)]
    whole = (node.key in WHOLE and not special) or len(found) > MOST_GROUPS
    if (whole and not any(group.is_special for group in found)) or len(found) > MOST_SPECIAL:
        tensors = node.tensors + [(_joined(group.key, name), tensor) for group in found for name, tensor in group.tensors]
        return [Group("", _role(node, tensors), tensors)]
    if node.tensors:
        found.append(Group("", "other" if found else _role(node, node.tensors), node.tensors))
    return found


def _joined(key: str, name: str) -> str:
    return (f"{key}.{name}" if key and name else key or name)[-LONGEST_NAME:]


def _is_loose(node: Node, below: list[Node]) -> bool:
    """Whether the tensors of a container are only things beside the state dicts in it: a loss, the state of a random generator."""
    if not all(not tensor.shape or OTHER.search(name) for name, tensor in node.tensors):
        return False
    return any(child.total > len(node.tensors) for child in below)


def _is_named(key: str) -> bool:
    """Whether a key is one that people give to a whole state dict."""
    return key in WEIGHTS or AVERAGED.search(key) is not None or OPTIMIZER.search(key) is not None


def _all_below(node: Node) -> list[Named]:
    """Return all tensors in and below a container, each container's own first."""
    found: list[Named] = []
    waiting = [(node, "")]
    while waiting:
        at, prefix = waiting.pop()
        found.extend((prefix + name, tensor) for name, tensor in at.tensors)
        waiting.extend((child, f"{_joined(prefix[:-1], child.key)}.") for child in reversed(at.children) if child.total)
    return found


def is_optimizer(value: object) -> bool:
    """Whether a value is an optimizer's state dict, or an optimizer."""
    inside = value if isinstance(value, dict) else attributes(value)
    return "param_groups" in inside and "state" in inside


def _role(node: Node, tensors: list[Named]) -> str:
    if node.hint in ("ema", "optimizer"):
        return node.hint
    if node.is_module:
        return "weights"
    return node.hint or ("weights" if any(tensor.shape for _, tensor in tensors) else "other")
