"""The tensors of a checkpoint as a tree of their names, and the rows of the table: folded, cut in depth and in length.

Whatever is chosen, the rows that are not marked as a sum add up to the total. Nothing here recurses, and no table is longer than a
reader asked for, because names and nesting come from a file that may hold anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntFlag

from netlens.lenses.summary.checkpoint_report import CheckpointReport, Tensor

MOST_LEVELS = 40  # dots that are looked at; what follows stays one name


class Mark(IntFlag):
    """What a tensor, or anything below a prefix, is beside its size."""

    TIED = 1
    FROZEN = 2
    UNREADABLE = 4
    NOT_FINITE = 8
    CONSTANT = 16
    GAPS = 32  # strided or expanded


@dataclass(slots=True, eq=False)
class Node:
    """A prefix of names, or a tensor."""

    label: str  # as seen from its parent
    tensor: Tensor | None = None
    tensors: int = 0  # from here on all sums, of itself and of what is below it
    elements: int = 0
    bytes: int = 0
    marks: int = 0
    dtypes: tuple[str, ...] = ()
    kind: int = 0  # equal for subtrees of the same names, shapes and types
    depth: int = 0  # levels below it
    children: list[Node] = field(default_factory=list)


class Planter:
    """Makes the nodes of one tree."""

    def __init__(self) -> None:
        self.root = Node("")
        self.prefixes = [self.root]  # children stand behind their parents
        self.kinds: dict[object, int] = {}
        self.types: dict[str, tuple[str, ...]] = {}
        self.hollow = False  # there are nodes of tensors that went elsewhere

    def leaf(self, label: str, tensor: Tensor) -> Node:
        """Make the node of a tensor."""
        marks = marks_of(tensor)
        dtype = tensor.dtype
        counted = tensor.tied_to is None
        return Node(
            label,
            tensor,
            1,
            tensor.elements if counted else 0,
            tensor.bytes if counted else 0,
            marks,
            self.types.setdefault(dtype, (dtype,)),
            self.kinds.setdefault((tensor.shape, dtype, marks), len(self.kinds)),
        )

    def prefix(self, label: str, parent: Node) -> Node:
        """Make the node of a prefix."""
        node = Node(label)
        parent.children.append(node)
        self.prefixes.append(node)
        return node

    def hang(self, top: Node, tensors: Iterable[Tensor]) -> None:
        """Give each tensor a node below those of its prefixes."""
        known: dict[str, Node] = {"": top}
        leaves: dict[str, Node] = {}
        for tensor in tensors:
            prefix, _, label = name = tensor.name.rpartition(".")
            if prefix.count(".") >= MOST_LEVELS:
                *parts, label = tensor.name.split(".", MOST_LEVELS)
                prefix = ".".join(parts)
            elif not prefix:
                label = "".join(name)  # ".weight" has a prefix without letters: its dot is a part of the name
            parent = known.get(prefix) or self._down_to(prefix, known)
            leaves[tensor.name] = node = self.leaf(label, tensor)
            parent.children.append(node)
        for path in leaves.keys() & known.keys() - {""}:  # a tensor whose name is also a prefix
            known[path].tensor, leaves[path].tensor = leaves[path].tensor, None
            self.hollow = True

    def _down_to(self, prefix: str, known: dict[str, Node]) -> Node:
        """Make the nodes that are missing on the way to a prefix."""
        missing, path = [], prefix
        while (node := known.get(path)) is None:
            missing.append(path)
            path = path.rpartition(".")[0]
        for path in reversed(missing):
            node = known[path] = self.prefix(path.rpartition(".")[2], node)
        return node

    def finish(self) -> Node:
        """Join, sort and sum up the prefixes."""
        for node in self.prefixes:
            if self.hollow:
                node.children = [child for child in node.children if child.tensor is not None or child.children]
            _in_order(node.children)
        for node in reversed(self.prefixes):
            if node is not self.root and len(node.children) == 1 and node.tensor is None:
                _join(node)
            else:
                self.sum_up(node)
        return self.root

    def sum_up(self, node: Node) -> None:
        """Fill the sums of a prefix from what is below it."""
        own = [self.leaf("", node.tensor)] if node.tensor is not None else []
        below: list[object] = [child.kind for child in own]
        for child in (*own, *node.children):
            node.tensors += child.tensors
            node.elements += child.elements
            node.bytes += child.bytes
            node.marks |= child.marks
            if child.dtypes is not node.dtypes:
                node.dtypes = self._both(node.dtypes, child.dtypes)
        for child in node.children:
            node.depth = max(node.depth, child.depth + 1)
            below += (child.label, child.kind)
        node.kind = self.kinds.setdefault(tuple(below), len(self.kinds))

    def _both(self, some: tuple[str, ...], others: tuple[str, ...]) -> tuple[str, ...]:
        if not some:
            return others
        merged = tuple(dict.fromkeys((*some, *others)))
        return self.types.setdefault("\n".join(merged), merged)


def build(report: CheckpointReport) -> Node:
    """Return the root above all tensors of the groups that the table shows; several groups each have a node of their own."""
    groups, planter = report.table, Planter()
    for group in groups:
        planter.hang(planter.root if len(groups) == 1 else planter.prefix(group.key or group.role, planter.root), group.tensors)
    return planter.finish()


def flat(tensors: Iterable[tuple[str, Tensor]]) -> Node:
    """Return a root above these tensors, each under the given name."""
    planter = Planter()
    planter.root.children = [planter.leaf(name, tensor) for name, tensor in tensors]
    planter.sum_up(planter.root)
    return planter.root


def _join(node: Node) -> None:
    """Make one row of a prefix and its only child: "conv1.weight"."""
    (child,) = node.children
    node.label = f"{node.label}.{child.label}"
    node.tensor, node.children = child.tensor, child.children
    node.tensors, node.elements, node.bytes = child.tensors, child.elements, child.bytes
    node.marks, node.dtypes, node.kind, node.depth = child.marks, child.dtypes, child.kind, child.depth


def _in_order(siblings: list[Node]) -> None:
    """Sort "0, 1, 10, 11, 2", which is how some writers sort; each stem keeps the places that it has."""
    numbered: dict[str, list[int]] = {}
    if len(siblings) < 3:
        return
    for place, node in enumerate(siblings):
        if node.label[-1:].isdecimal():
            numbered.setdefault(node.label.rstrip("0123456789"), []).append(place)
    for stem, places in numbered.items():
        found = [siblings[place] for place in places]
        found.sort(key=lambda node: int(node.label[len(stem) :][:18] or 0))
        for place, node in zip(places, found, strict=True):
            siblings[place] = node


def marks_of(tensor: Tensor) -> int:
    """Say what a tensor is beside its size."""
    found = Mark.TIED.value if tensor.tied_to is not None else 0
    found |= Mark.FROZEN.value if tensor.trainable is False and tensor.kind == "parameter" else 0
    found |= Mark.UNREADABLE.value if tensor.unreadable else 0
    found |= Mark.GAPS.value if tensor.layout in ("strided", "expanded") else 0
    if tensor.values is not None:
        found |= Mark.NOT_FINITE.value if tensor.values.nan or tensor.values.infinite else 0
        found |= Mark.CONSTANT.value if tensor.constant else 0
    return found


def runs(children: Sequence[Node], fold: bool) -> Iterator[tuple[int, int]]:
    """Cut siblings into [start, stop) of equal ones whose names differ in a number: at least two prefixes, or three tensors."""
    start = 0
    while start < len(children):
        stop, first = start + 1, children[start]
        pattern = ""
        while fold and stop < len(children) and children[stop].kind == first.kind:
            pattern = pattern or pattern_of(first.label)
            if pattern_of(children[stop].label) != pattern:
                break
            stop += 1
        if stop - start == 2 and not first.children:
            stop = start + 1
        yield start, stop
        start = stop


def pattern_of(label: str) -> str:
    """Return a label with "#" in the place of its numbers."""
    return re.sub(r"\d+", "#", label)


def label_of_run(first: str, last: str) -> str:
    """Name consecutive siblings: "0…11", "layer_0…11", "0…2.weight"."""
    if first == last:
        return first
    pieces = list(zip(re.split(r"(\d+)", first), re.split(r"(\d+)", last), strict=False))
    differing = [place for place, (one, other) in enumerate(pieces) if one != other]
    if len(differing) != 1:
        return f"{first}…{last}"
    return "".join(one if one == other else f"{one}…{other}" for one, other in pieces)
