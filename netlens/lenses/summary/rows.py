"""Which rows a summary's table has: a tree that is folded and cut in depth, or a flat list that is sorted and cut in length.

Whatever is chosen, the rows that are not marked as a sum add up to the total.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import accumulate

from netlens.errors import UsageError
from netlens.lenses.summary.guides import place_guides
from netlens.lenses.summary.report import SummaryReport
from netlens.lenses.summary.tree import METRICS, Node, Numbers, build, runs, walk

FOLD_FROM = 80  # rows; a table that would be longer is folded
MOST_ROWS = 120  # rows; where nobody asked for a depth, the deepest level that stays within
SORT_KEYS = {"params": "parameters", "macs": "macs", "memory": "activation_bytes", "time": "seconds"}


@dataclass(frozen=True, slots=True)
class TableOptions:
    """What the user asks of the table."""

    depth: int | None = None  # levels of the tree; None: as deep as it stays readable
    columns: tuple[str, ...] | None = None  # keys of COLUMNS; None: the usual ones
    sort: str | None = None  # a key of SORT_KEYS: a flat list, the largest first
    top: int | None = None  # a flat list of so many layers and the rest
    only: tuple[str, ...] = ()  # a flat list of these class names: "Conv2d", "*norm*"
    fold: bool | None = None  # equal neighbours in one row; None: where the table would be long

    @property
    def flat(self) -> bool:
        """Ask whether the table is a list instead of a tree."""
        return self.sort is not None or self.top is not None or bool(self.only)


@dataclass(slots=True)
class Row:
    """One line of the table."""

    kind: str  # "layer", "own" (what a container has beside its children), "rest"
    label: str
    members: Sequence[Node]  # the equal layers that it stands for; one, where nothing is folded
    depth: int = 1
    last: bool = True  # among its siblings
    expanded: bool = False  # its children follow, so its numbers are a sum that is shown twice
    folded: int = 1  # so many siblings
    guides: tuple[bool, ...] = ()  # for each level above, from depth 2: does a sibling follow there?
    numbers: Numbers = ()  # what it adds to the columns, or the sum where it is expanded

    @property
    def node(self) -> Node:
        """The first of the layers; the others are equal."""
        return self.members[0]

    def count(self) -> None:
        """Fill `numbers`."""
        self.numbers = _total([node.own if self.kind == "own" else node.sums for node in self.members])


@dataclass(frozen=True, slots=True)
class Plan:
    """The rows, and what a reader must know about their choice."""

    rows: list[Row]
    total: Numbers
    flat: bool
    share_of: str  # a key of SORT_KEYS
    depth: int = 0  # levels shown
    deepest: int = 0  # levels that there are


def plan(report: SummaryReport, options: TableOptions, needed: Sequence[str]) -> Plan:
    """Choose the rows. `needed` are the METRICS on display: what a container owns gets a row only where one of them is not 0.

    Raises:
        UsageError: the options ask for an order, a type or a length that this report does not have.
    """
    root = build(report)
    if options.flat:
        return _flat(report, root, options)
    indices = [METRICS.index(metric) for metric in needed]
    whole = _expand(root, False, indices)
    rows = whole
    limit = options.depth if options.depth is None else max(options.depth, 1)
    if options.fold or (options.fold is None and sum(row.depth <= (limit or row.depth) for row in whole) > FOLD_FROM):
        rows = _expand(root, True, indices)
    deepest = max(row.depth for row in rows)
    shown = min(limit or _readable_depth(rows), deepest)
    rows = [replace(row, expanded=False) if row.depth == shown else row for row in rows if row.depth <= shown]
    place_guides(rows)
    for row in rows:
        row.count()
    return Plan(rows, root.sums, False, "params", shown, deepest)


def _expand(root: Node, fold: bool, needed: Sequence[int]) -> list[Row]:
    """Lay the whole tree out in the order of definition, without the model itself unless it is a single layer."""
    if not root.children:
        return [Row("layer", "(model)", [root])]
    rows: list[Row] = []
    stack = list(reversed(_below([root], 1, fold, needed)))
    while stack:
        row = stack.pop()
        rows.append(row)
        if row.expanded:
            stack.extend(reversed(_below(row.members, row.depth + 1, fold, needed)))
    return rows


def _below(members: Sequence[Node], depth: int, fold: bool, needed: Sequence[int]) -> list[Row]:
    """Return the rows directly below equal containers: what they own, then their children, merged position by position."""
    first = members[0]
    rows = [Row("own", "(own)", members, depth)] if any(_owns(node, needed) for node in members) else []
    for start, stop in runs(first.children, fold):
        merged = [child for node in members for child in node.children[start:stop]]
        if not merged[0].reached:
            rows.append(_not_reached(merged, depth))
            continue
        label = _range(first.children[start].label, first.children[stop - 1].label)
        rows.append(Row("layer", label, merged, depth, expanded=bool(merged[0].children), folded=stop - start))
    for row in rows[:-1]:
        row.last = False
    return rows


def _not_reached(nodes: Sequence[Node], depth: int) -> Row:
    """Stand for the layers behind a failure: what they are matters less than that they did not run."""
    if len(nodes) == 1:
        return Row("layer", nodes[0].label, nodes, depth)
    return Row("rest", f"{nodes[0].label}…{nodes[-1].label} not reached", nodes, depth)


def _range(first: str, last: str) -> str:
    """Name consecutive siblings: "0…11", "layer_0…11"."""
    if first == last:
        return first
    stem = first.rstrip("0123456789")
    return f"{first}…{last[len(stem) :] if last.rstrip('0123456789') == stem else last}"


def _owns(node: Node, needed: Sequence[int]) -> bool:
    """Ask whether a container has numbers beside its children's, a tied parameter, or the line that failed."""
    fails_itself = node.failing and not any(child.failing for child in node.children)
    return fails_itself or bool(node.layer.tied) or any(node.own[index] for index in needed)


def _readable_depth(rows: Sequence[Row]) -> int:
    """Find the deepest level down to which there are at most MOST_ROWS rows; the first level is always shown."""
    counts = [0] * (max(row.depth for row in rows) + 1)
    for row in rows:
        counts[row.depth] += 1
    return max(1, sum(so_far <= MOST_ROWS for so_far in accumulate(counts[1:])))


def _flat(report: SummaryReport, root: Node, options: TableOptions) -> Plan:
    key = _checked_key(report, options)
    whole = _matching_containers(root, options.only)
    rows = list(_single_layers(root, whole))
    kept = [row for row in rows if _matches(row.node.layer.type, options.only)]
    if options.only and not kept:
        raise UsageError(*_no_such_type(options.only, {node.layer.type for node in walk(root)}))
    if options.sort or options.top is not None:
        index = METRICS.index(SORT_KEYS[key])
        kept.sort(key=lambda row: row.numbers[index], reverse=True)
    kept = kept[: options.top]
    shown = {id(row) for row in kept}
    rest = [row for row in rows if id(row) not in shown]
    if rest:
        label = f"rest: {len(rest):,} {'layer' if len(rest) == 1 else 'layers'}"
        kept.append(Row("rest", label, [row.node for row in rest], numbers=_total([row.numbers for row in rest])))
    return Plan(kept, root.sums, True, key)


def _matching_containers(root: Node, patterns: Sequence[str]) -> set[int]:
    """Find the containers to list as a whole: `--only Bottleneck`. Where something inside matches, too, that is listed instead."""
    inside: set[int] = set()  # there is a match at or below it
    found: set[int] = set()
    for node in reversed(list(walk(root))) if patterns else ():
        below = any(id(child) in inside for child in node.children)
        matches = _matches(node.layer.type, patterns)
        if below or matches:
            inside.add(id(node))
        if matches and node.children and not below:
            found.add(id(node))
    return found


def _single_layers(root: Node, whole: set[int]) -> Iterator[Row]:
    """Yield each layer under its full path: with its own numbers, or, for those in `whole`, with everything below it."""
    stack = [root]
    while stack:
        node = stack.pop()
        path = node.layer.path or "(model)"
        if id(node) in whole or not node.children:
            row = Row("layer", path, [node])
        else:
            row = Row("own", f"{path} (own)", [node])
            stack.extend(reversed(node.children))
        row.count()
        if row.kind == "layer" or any(row.numbers):
            yield row


def _matches(type_name: str, patterns: Sequence[str]) -> bool:
    return not patterns or any(fnmatchcase(type_name.lower(), pattern.lower()) for pattern in patterns)


def _checked_key(report: SummaryReport, options: TableOptions) -> str:
    key = options.sort or "params"
    if key not in SORT_KEYS:
        raise UsageError(f"cannot sort by {key!r}", hint=f"sort by one of {', '.join(SORT_KEYS)}")
    if options.top is not None and options.top < 1:
        raise UsageError(f"the number of layers to show must be at least 1, not {options.top}", hint="for example: --top 10")
    if key == "time" and all(layer.seconds is None for layer in report.layers):
        raise UsageError("cannot sort by time, because no times were measured", hint="add --time")
    if key in ("macs", "memory") and report.totals.macs is None and report.run.on == "nothing":
        raise UsageError(f"cannot sort by {key}, because the model was not run", hint="give it an input, or sort by params")
    return key


def _no_such_type(patterns: Sequence[str], types: set[str]) -> tuple[str, str]:
    from netlens.loading.suggest import closest

    close = closest(patterns[0], types)
    hint = f"did you mean {close!r}?" if close else f"the types are {', '.join(sorted(types)[:8])}"
    return f"no layer of type {' or '.join(map(repr, patterns))}", hint


def _total(vectors: Sequence[Numbers]) -> Numbers:
    if len(vectors) == 1:
        return vectors[0]
    return tuple(map(sum, zip(*vectors, strict=True)))
