"""Where the tensors of an unpickled value are, and which of them belong together: state dicts, averaged copies, optimizers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from netlens.loading.checkpoints.modules import Flattener, attributes, is_module, model_class, text
from netlens.loading.checkpoints.stubs import Stub, Tensor

DEPTH = 64
MOST_CONTAINERS = 200_000
MOST_TENSORS = 200_000
MOST_GROUPS = 16  # beside one another; more are one group with longer names

WEIGHTS = frozenset(
    {"state_dict", "model_state_dict", "model", "model_state", "model_weights", "module", "net", "network", "params", "weights"}
    | {"generator", "discriminator", "encoder", "decoder", "backbone", "G", "D", "netG", "netD", "student", "student_state_dict"}
)
WHOLE = frozenset({"params", "state_dict", "model_state_dict", "weights"})  # what lies below is one state dict, however nested
AVERAGED = re.compile(r"(^|[._-])(ema|teacher|averaged|shadow|swa)([._-]|$)|^ema|ema$|_ema_", re.IGNORECASE)
OPTIMIZER = re.compile(r"optim|(^|[._-])opt([._-]|$)|exp_avg|fp32_flat_groups", re.IGNORECASE)
OTHER = re.compile(r"rng|random|scheduler|scaler|loss|metric|callback|sampler|loops|grad|(^|[._-])amp([._-]|$)|history", re.IGNORECASE)

Path = tuple[str, ...]
Named = tuple[str, Tensor]


@dataclass(slots=True, eq=False)
class Node:
    """A container, with what lies directly in it."""

    path: Path
    value: object
    tensors: list[Named] = field(default_factory=list)
    children: list[Node] = field(default_factory=list)
    total: int = 0  # tensors in it and below
    is_module: bool = False


@dataclass(frozen=True, slots=True)
class Group:
    """Tensors that belong together, not yet described."""

    key: str
    role: str
    tensors: list[Named]
    module: str = ""  # the class, where they are a module's


class Walk:
    """Visits every container once, under the first name that leads to it: values may contain themselves, or each other 2^60 times."""

    def __init__(self) -> None:
        self.seen: dict[int, Node] = {}
        self.oddities: dict[str, None] = {}
        self.count = 0
        self.complete = True

    def tree(self, value: object) -> Node:
        """Return the containers below a value."""
        root = Node((), value)
        self.seen[id(value)] = root
        order, waiting = [root], [root]
        while waiting:
            node = waiting.pop()
            waiting.extend(reversed(self._open(node)))
            order.extend(node.children)
        for node in reversed(order):
            node.total = len(node.tensors) + sum(child.total for child in node.children)
        return root

    def _open(self, node: Node) -> list[Node]:
        """Fill one node; return those of its children that are to be opened."""
        if is_module(node.value):
            node.is_module = True
            flattener = Flattener()
            assert isinstance(node.value, Stub)
            node.tensors = flattener.tensors(node.value)
            self.oddities |= flattener.oddities
            self.count += len(node.tensors)
            return []
        if isinstance(node.value, Tensor):
            node.tensors.append(("", node.value))
        for key, child in entries(node.value):
            if isinstance(child, Tensor):
                self.count += 1
                node.tensors.append((text(key), child))
            elif isinstance(child, dict | list | tuple | Stub) and id(child) not in self.seen and (child or isinstance(child, Stub)):
                self._add(node, text(key), child)
            if self.count > MOST_TENSORS or len(self.seen) > MOST_CONTAINERS:
                self.oddities["it holds more than netlens lists: what is shown is incomplete"] = None
                self.complete = False
                return []
        return node.children

    def _add(self, node: Node, key: str, child: object) -> None:
        if len(node.path) >= DEPTH:
            self.oddities[f"it is nested deeper than {DEPTH} levels: what lies below is left out"] = None
            return
        made = self.seen[id(child)] = Node((*node.path, key), child)
        node.children.append(made)


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
    """Return the groups in and below a container."""
    if not node.total:
        return []
    key = ".".join(node.path)
    if node.is_module:
        return [Group(key, _role(node, "weights"), node.tensors, model_class(node.value))]
    if is_optimizer(node.value):
        return [Group(key, "optimizer", list(_all_below(node)))]
    below = [child for child in node.children if child.total]
    if node.tensors and not _is_wrapper(node, below):
        return [Group(key, _role(node, "weights"), list(_all_below(node)))]
    found = [group for child in below for group in groups_of(child)]
    whole = bool(node.path) and node.path[-1] in WHOLE and not any(_is_named(child.path[-1]) for child in below)
    if (whole or len(found) > MOST_GROUPS) and not any(group.module or group.role == "optimizer" for group in found):
        return [Group(key, _role(node, "weights"), list(_all_below(node)))]
    if node.tensors:
        found.append(Group(key, "other" if found else _role(node, "weights"), node.tensors))
    return found


def _is_wrapper(node: Node, below: list[Node]) -> bool:
    """Whether a container that holds tensors itself is still a wrapper: something in it is a state dict of its own."""
    loose = all(not tensor.shape or OTHER.search(name) for name, tensor in node.tensors)
    for child in below:
        if child.is_module or is_optimizer(child.value) or (loose and child.total > len(node.tensors)):
            return True
        if _is_named(child.path[-1]) and not any("." in name for name, _ in node.tensors):
            return True
    return False


def _is_named(key: str) -> bool:
    """Whether a key is one that people give to a whole state dict."""
    return key in WEIGHTS or AVERAGED.search(key) is not None or OPTIMIZER.search(key) is not None


def _all_below(node: Node, prefix: str = "") -> Iterator[Named]:
    """Yield all tensors in and below a container, in the file's order as far as it is known."""
    for name, tensor in node.tensors:
        yield prefix + name, tensor
    for child in node.children:
        yield from _all_below(child, f"{prefix}{child.path[-1]}.")


def is_optimizer(value: object) -> bool:
    """Whether a value is an optimizer's state dict, or an optimizer."""
    inside = value if isinstance(value, dict) else attributes(value)
    return "param_groups" in inside and "state" in inside


def _role(node: Node, otherwise: str) -> str:
    for part in node.path:
        if AVERAGED.search(part):
            return "ema"
    for part in node.path:
        if OPTIMIZER.search(part):
            return "optimizer"
    if any(OTHER.search(part) for part in node.path) and not node.is_module:
        return "other"
    return otherwise if any(tensor.shape for _, tensor in _all_below(node)) else "other"
