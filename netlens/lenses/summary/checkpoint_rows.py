"""Which rows the table of a checkpoint has: a tree that is folded and cut in depth, or a flat list that is sorted and cut in length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from operator import attrgetter

from netlens.errors import UsageError
from netlens.lenses.summary.checkpoint_columns import SORT_KEYS
from netlens.lenses.summary.checkpoint_report import CheckpointReport, Tensor
from netlens.lenses.summary.checkpoint_tree import Node, build, flat, label_of_run, runs
from netlens.lenses.summary.guides import place_guides
from netlens.lenses.summary.rows import FOLD_FROM, MOST_ROWS, TableOptions


@dataclass(slots=True)
class Row:
    """One line of the table."""

    kind: str  # "tensor", "prefix", "own" (a tensor whose name is also a prefix) or "rest"
    label: str
    members: Sequence[Node]  # the equal ones that it stands for; one, where nothing is folded
    depth: int = 1
    last: bool = True  # among its siblings
    expanded: bool = False  # its children follow, so its numbers are a sum that is shown twice
    folded: int = 1  # so many siblings
    guides: tuple[bool, ...] = ()
    tensors: int = 0  # from here on sums, see `count`
    elements: int = 0
    bytes: int = 0

    @property
    def node(self) -> Node:
        """The first of its members; the others are equal, except in the rest."""
        return self.members[0]

    @property
    def tensor(self) -> Tensor | None:
        """The tensor that it shows; None where it stands for a sum."""
        return self.node.tensor if self.kind in ("tensor", "own") else None

    def count(self) -> None:
        """Add its members up; of a tensor whose name is also a prefix, only the tensor."""
        if self.kind == "own":
            own = [node.tensor for node in self.members if node.tensor is not None]
            counted = [tensor for tensor in own if tensor.tied_to is None]
            self.tensors, self.elements, self.bytes = len(own), sum(t.elements for t in counted), sum(t.bytes for t in counted)
            return
        for node in self.members:
            self.tensors += node.tensors
            self.elements += node.elements
            self.bytes += node.bytes


@dataclass(frozen=True, slots=True)
class Plan:
    """The rows, and what a reader must know about their choice."""

    rows: list[Row]
    root: Node
    flat: bool
    share_of: str = "bytes"
    depth: int = 0  # levels shown
    deepest: int = 0  # levels that there are
    compact: bool = False  # a layer's tensors are in one row
    hidden: int = 0  # rows behind "... more"


def plan(report: CheckpointReport, options: TableOptions) -> Plan:
    """Choose the rows.

    Raises:
        UsageError: `--only` matches nothing.
    """
    if options.flat:
        return _flat(report, options)
    root = build(report)
    deepest = root.depth
    limit = min(options.depth or deepest, deepest)
    fold = options.fold if options.fold is not None else _rows_down_to(root, limit) > FOLD_FROM
    if options.depth is not None:
        rows = _expand(root, View(fold, limit))
        return Plan(rows, root, False, depth=limit, deepest=deepest)
    view = _readable(root, fold)
    rows = _expand(root, view)
    hidden = sum(len(row.members) for row in rows if row.kind == "rest")
    return Plan(rows, root, False, depth=view.depth, deepest=deepest, compact=view.compact, hidden=hidden)


def _rows_down_to(root: Node, limit: int) -> int:
    """Count the rows of the unfolded tree down to a level, as far as it matters."""
    rows, level = 0, root.children
    for _ in range(limit):
        rows += len(level)
        if rows > FOLD_FROM:
            break
        level = [child for node in level for child in node.children]
    return rows


@dataclass(frozen=True, slots=True)
class View:
    """How much of the tree is laid out."""

    fold: bool  # equal neighbours in one row
    depth: int
    compact: bool = False  # a prefix that has only tensors below it is one row
    most: int | None = None  # rows of the first level, which may be longer than any screen

    def opens(self, node: Node, depth: int) -> bool:
        """Ask whether the children of a node follow its row."""
        return bool(node.children) and depth < self.depth and node.depth > self.compact


def _readable(root: Node, fold: bool) -> View:
    """Choose the most detailed view of at most MOST_ROWS rows: every tensor, else a row for each layer, else the upper levels."""
    for compact in (False, True):
        depth = _readable_depth(root, View(fold, root.depth, compact))
        if depth >= root.depth:
            return View(fold, root.depth, compact, MOST_ROWS)
    return View(fold, depth, True, MOST_ROWS)


def _readable_depth(root: Node, view: View) -> int:
    """Find the deepest level down to which there are at most MOST_ROWS rows; the first level is always shown."""
    rows, depth, level = 0, 0, [root]
    while level:
        below: list[Node] = []  # of equal ones the first stands for all
        for node in level:
            rows += node.tensor is not None and bool(node.children)
            for start, _ in runs(node.children, view.fold):
                rows += 1
                if rows > MOST_ROWS:
                    return max(depth, 1)
                below.append(node.children[start])
        depth += 1
        level = [node for node in below if view.opens(node, depth)]
    return root.depth


def _expand(root: Node, view: View) -> list[Row]:
    """Lay the tree out."""
    rows: list[Row] = []
    stack = list(reversed(_below([root], 1, view, view.most)))
    while stack:
        row = stack.pop()
        row.count()
        rows.append(row)
        row.expanded = row.kind == "prefix" and view.opens(row.node, row.depth)
        if row.expanded:
            stack.extend(reversed(_below(row.members, row.depth + 1, view)))
    place_guides(rows)
    return rows


def _below(members: Sequence[Node], depth: int, view: View, most: int | None = None) -> list[Row]:
    """Return the rows directly below equal prefixes: a tensor of that very name, then the children, merged position by position.

    Args:
        most: rows; what is beyond them is summed up in the last one.
    """
    first = members[0]
    rows = [Row("own", "(own)", members, depth, last=False)] if first.tensor is not None and first.children else []
    for start, stop in runs(first.children, view.fold):
        if len(rows) + 1 == most and stop < len(first.children):
            rest = first.children[start:]
            return [*rows, Row("rest", f"… {len(rest):,} more", rest, depth)]
        merged = [child for node in members for child in node.children[start:stop]]
        label = label_of_run(first.children[start].label, first.children[stop - 1].label)
        kind = "prefix" if merged[0].children else "tensor"
        rows.append(Row(kind, label, merged, depth, last=stop == len(first.children), folded=stop - start))
    return rows


def _flat(report: CheckpointReport, options: TableOptions) -> Plan:
    several = len(report.table) > 1
    root = flat(
        (f"{group.key or group.role}: {tensor.name}" if several else tensor.name, tensor)
        for group in report.table
        for tensor in group.tensors
    )
    kept = [node for node in root.children if _matches(node.tensor, options.only)] if options.only else list(root.children)
    if options.only and not kept:
        raise _nothing_matches(options.only, root.dtypes)
    key = SORT_KEYS[options.sort or "bytes"]
    if options.sort or options.top is not None:
        kept.sort(key=attrgetter(key), reverse=True)
    kept = kept[: options.top]
    rows = [Row("tensor", node.label, [node]) for node in kept]
    shown = {id(node) for node in kept}
    rest = [node for node in root.children if id(node) not in shown]
    if rest:
        rows.append(Row("rest", f"rest: {len(rest):,} {'tensor' if len(rest) == 1 else 'tensors'}", rest))
    for row in rows:
        row.count()
    return Plan(rows, root, True, share_of=key)


def _matches(tensor: Tensor | None, patterns: Sequence[str]) -> bool:
    """Ask whether a pattern fits the type of its elements or its name."""
    return tensor is not None and any(fnmatchcase(tensor.dtype, text) or fnmatchcase(tensor.name, text) for text in patterns)


def _nothing_matches(patterns: Sequence[str], types: Sequence[str]) -> UsageError:
    wanted = " or ".join(repr(text) for text in patterns)
    return UsageError(f"no tensor has the type or the name {wanted}", hint=f"the types are {', '.join(types)}; a name may be '*.bias'")
