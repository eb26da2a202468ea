"""The layers of a report as a tree whose subtrees are summed and compared. Nothing here recurses, so that depth costs nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from operator import add, attrgetter
from typing import Any

from netlens.lenses.summary.report import Layer, SummaryReport

METRICS = ("parameters", "trainable", "buffers", "weight_bytes", "macs", "activation_bytes", "saved_bytes", "seconds")
Numbers = tuple[float, ...]  # one for each of METRICS; all are int except the last

_numbers = attrgetter(*METRICS[:-1])
_same_work = attrgetter("type", "detail", "calls", "registered", "alias_of", "tied", *METRICS[:6])  # not what is saved, nor the time


@dataclass(slots=True, eq=False)
class Node:
    """One layer with what is below it."""

    layer: Layer
    label: str  # its path as seen from its parent
    own: Numbers
    sums: Numbers  # of the layer and everything below it
    children: list[Node] = field(default_factory=list)
    called: bool = False  # the layer or anything below it ran
    failing: bool = False  # it was running when the forward raised
    reached: bool = True  # False: the forward raised before it, or anything below it, ran
    kind: int = 0  # equal for subtrees of the same structure and the same work


def build(report: SummaryReport) -> Node:
    """Return the model itself with all its layers below it."""
    nodes = _connect(report.layers)
    failing = _ancestors(report.failure.path) if report.failure else frozenset()
    kinds: dict[tuple[Any, ...], int] = {}
    for node in reversed(nodes):  # children stand behind their parents
        node.failing = node.layer.path in failing
        node.called = bool(node.layer.calls)
        for child in node.children:
            node.sums = tuple(map(add, node.sums, child.sums))
            node.called |= child.called
        node.reached = report.failure is None or node.called or node.failing
        if node.layer.alias_of is not None and not any(node.sums):
            node.children = []  # shown, and counted, where it stands first
        below = tuple((child.label, child.kind) for child in node.children)
        node.kind = kinds.setdefault((_same_work(node.layer), node.failing, below), len(kinds))
    return nodes[0]


def runs(children: Sequence[Node], fold: bool) -> Iterator[tuple[int, int]]:
    """Cut siblings into [start, stop) of consecutive equal ones: at least two containers, three single layers, or all that never ran."""
    start = 0
    while start < len(children):
        stop = start + 1
        while not children[start].reached and stop < len(children) and not children[stop].reached:
            stop += 1
        if not children[start].reached:
            yield start, stop
            start = stop
            continue
        while fold and stop < len(children) and children[stop].kind == children[start].kind:
            stop += 1
        if stop - start == 2 and not children[start].children:
            stop = start + 1
        yield start, stop
        start = stop


def tree_depth(root: Node) -> int:
    """Count the levels below the model itself."""
    depth, level = -1, [root]
    while level:
        depth, level = depth + 1, [child for node in level for child in node.children]
    return depth


def walk(root: Node) -> Iterator[Node]:
    """Yield every node in the order of definition."""
    stack = [root]
    while stack:
        node = stack.pop()
        yield node
        stack.extend(reversed(node.children))


def _connect(layers: Sequence[Layer]) -> list[Node]:
    """Hang each layer below the nearest layer whose path begins its own."""
    by_path: dict[str, Node] = {}
    for layer in layers:
        parent = layer.path.rpartition(".")[0]
        while parent not in by_path and parent:
            parent = parent.rpartition(".")[0]
        label = layer.path[len(parent) + 1 :] if parent else layer.path
        numbers = (*_numbers(layer), layer.seconds or 0.0)
        node = Node(layer, label, numbers, numbers)
        if by_path:
            by_path[parent].children.append(node)
        by_path[layer.path] = node
    return list(by_path.values())


def _ancestors(path: str) -> frozenset[str]:
    """Name every path from the model itself down to this one."""
    parts = path.split(".") if path else []
    return frozenset(".".join(parts[:length]) for length in range(len(parts) + 1))
