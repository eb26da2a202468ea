"""How each column of a summary's table writes its cells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from netlens.drawing import numbers
from netlens.drawing.tables import Cell, Column
from netlens.lenses.summary.columns import COLUMNS, REMARKS
from netlens.lenses.summary.guides import guides
from netlens.lenses.summary.report import SummaryReport, TensorLeaf, Weight
from netlens.lenses.summary.rows import SORT_KEYS, Plan, Row
from netlens.lenses.summary.tree import METRICS, walk

_BYTES = ("weights", "memory", "saved")
_CUT_TO = {"name": 28, "type": 10, "detail": 12, REMARKS: 15}
_MOST_LEAVES = 4
# Torch's attention hands the weights of the first to one function and never calls it; calls inside TorchScript are seen by nobody.
_UNSEEN = frozenset({"NonDynamicallyQuantizableLinear", "RecursiveScriptModule", "TopLevelTracedModule", "TracedModule"})


@dataclass(frozen=True, slots=True)
class Pen:
    """What a cell needs to know beside its row."""

    report: SummaryReport
    plan: Plan
    exact: bool  # there is room for every digit
    owned: dict[str, list[Weight]]  # path of a layer -> what it owns itself


def column(name: str, pen: Pen) -> Column:
    """Return how a column is set."""
    if name == REMARKS:
        return Column("", shortest=_CUT_TO[name])
    header = f"% {_share_header(pen.plan)}" if name == "share" else COLUMNS[name].header
    if name in _BYTES and pen.exact:
        header += " B"
    right = bool(COLUMNS[name].metric) or name in ("share", "calls", "depth")
    return Column(header, right, code=name in ("name", "detail"), shortest=_CUT_TO.get(name))


def cells(name: str, pen: Pen) -> list[Cell]:
    """Write one column."""
    metric = COLUMNS[name].metric if name in COLUMNS else ""
    if metric or name == "share":
        index = METRICS.index(metric or SORT_KEYS[pen.plan.share_of])
        return [_number_cell(row, number_text(name, row.numbers[index], pen), pen) for row in pen.plan.rows]
    if name == "name":
        return [_name_cell(row, pen) for row in pen.plan.rows]
    write = _WRITERS[name]
    return [Cell(write(row, pen), _style(name, row, pen)) for row in pen.plan.rows]


def total_cell(name: str, pen: Pen) -> Cell:
    """Write the cell below the rule."""
    if name == "name":
        return Cell("total so far" if pen.report.failure else "total", "bold")
    metric = COLUMNS[name].metric if name in COLUMNS else ""
    if name == "share" and pen.plan.total[METRICS.index(SORT_KEYS[pen.plan.share_of])]:
        return Cell("100", "bold")
    return Cell(number_text(name, pen.plan.total[METRICS.index(metric)], pen) if metric else "", "bold")


def number_text(name: str, value: float, pen: Pen) -> str:
    """Write a number as its column does; nothing at all is a dash."""
    if not value:
        return numbers.NOTHING
    if name == "time":
        return numbers.seconds(value)
    if name == "share":
        return numbers.percent(value, pen.plan.total[METRICS.index(SORT_KEYS[pen.plan.share_of])]).removesuffix(" %")
    number = int(value) * (2 if name == "flops" else 1)
    if pen.exact:
        return numbers.exact(number)
    return numbers.byte_size(number) if name in _BYTES else numbers.compact(number)


def status(row: Row, pen: Pen) -> str:
    """Tell what became of a row: "failed", "not reached", "not called", or "" where it ran or there is nothing to tell."""
    node = row.node
    if row.kind == "rest" or pen.report.run.on == "nothing":
        return ""
    if node.failing:
        inside = row.expanded or (row.kind == "own" and any(child.failing for child in node.children))
        return "" if inside else "failed"
    if node.called or node.layer.alias_of is not None:
        return ""
    if pen.report.failure:
        return "not reached"
    return "" if node.layer.type in _UNSEEN else "not called"


def _share_header(plan: Plan) -> str:
    return "MACs" if plan.share_of == "macs" else plan.share_of


def _number_cell(row: Row, text: str, pen: Pen) -> Cell:
    if text != numbers.NOTHING and row.expanded:
        text = f"Σ {text}" if pen.exact else f"Σ{text}"
    return Cell(text, "dim" if text == numbers.NOTHING or row.expanded or status(row, pen).startswith("not") else "")


def _name_cell(row: Row, pen: Pen) -> Cell:
    style = _style("name", row, pen) or ("bold" if row.expanded else "")
    return Cell(row.label, style, "" if pen.plan.flat else guides(row, pen.exact), f" ×{row.folded}" if row.folded > 1 else "")


def _style(name: str, row: Row, pen: Pen) -> str:
    state = status(row, pen)
    if state == "failed":
        return "bold red"
    if name == REMARKS and not row.node.layer.registered:
        return "yellow"
    return "dim" if state or name == REMARKS or row.kind != "layer" else ""


def _type(row: Row, pen: Pen) -> str:
    if row.kind == "rest":
        return ""
    if row.kind == "layer":
        return row.node.layer.type
    names = ", ".join(weight.name.rpartition(".")[2] for weight in pen.owned.get(row.node.layer.path, ()) if weight.kind == "parameter")
    return names or f"{row.node.layer.type}.forward"


def _detail(row: Row, pen: Pen) -> str:
    if row.kind == "layer":
        return row.node.layer.detail
    owned = pen.owned.get(row.node.layer.path, ()) if row.kind == "own" else ()
    return " · ".join(numbers.shape(weight.shape) for weight in owned if weight.kind == "parameter")


def _input(row: Row, pen: Pen) -> str:
    calls = row.node.layer.calls if row.kind == "layer" else ()
    return leaves(calls[0].inputs, pen.exact) if calls else ""


def _output(row: Row, pen: Pen) -> str:
    calls = row.node.layer.calls if row.kind == "layer" else ()
    state = status(row, pen)
    if state == "failed":
        return "✗ failed"
    return leaves(calls[0].outputs, pen.exact) if calls else state if row.kind == "layer" else ""


def leaves(found: tuple[TensorLeaf, ...], whole: bool) -> str:
    """Write the shapes of a nested value: "1,10 · 1,5", or "1,10 +1" where there is no room."""
    most = _MOST_LEAVES if whole else 1
    texts = [numbers.shape(leaf.shape) for leaf in found[:most]]
    if whole and len(found) > 1:
        texts = [f"{leaf.name} {text}" if leaf.name.isidentifier() else text for leaf, text in zip(found, texts, strict=False)]
    more = f" +{len(found) - most}" if len(found) > most else ""
    return " · ".join(texts) + more if found else "no tensor"


def _calls(row: Row, pen: Pen) -> str:
    times = sum(node.layer.times for node in row.members) if row.kind == "layer" else 0
    return numbers.exact(times) if times else ""


def _dtype(row: Row, pen: Pen) -> str:
    if row.kind == "rest":
        return ""
    nodes = [row.node] if row.expanded or row.kind == "own" else list(walk(row.node))
    found = dict.fromkeys(weight.dtype for node in nodes for weight in pen.owned.get(node.layer.path, ()) if weight.kind == "parameter")
    outputs = (leaf.dtype for call in row.node.layer.calls for leaf in call.outputs)
    return ", ".join(found or dict.fromkeys(outputs))


def _depth(row: Row, pen: Pen) -> str:
    return "" if row.kind == "rest" else str(row.node.layer.depth if pen.plan.flat else row.depth)


def _remarks(row: Row, pen: Pen) -> str:
    if row.kind == "rest":
        return ""
    layer = row.node.layer
    found = ["" if layer.registered else "not registered!", _failed(row, pen), _tied(row, pen), _frozen(row, pen)]
    if row.kind == "layer":
        shapes = len({call.outputs for call in layer.calls})
        found.append(f"→ {layer.alias_of}" if layer.alias_of is not None else "")
        found.append(f"×{layer.times}" + (f", {shapes} shapes" if shapes > 1 else "") if layer.times > 1 else "")
    return "; ".join(filter(None, found))


def _failed(row: Row, pen: Pen) -> str:
    if status(row, pen) != "failed" or pen.report.failure is None:
        return ""
    inside = pen.report.failure.path[len(row.node.layer.path) :].lstrip(".") if row.node.layer.path else ""
    return f"in {inside}" if inside else ""


def _tied(row: Row, pen: Pen) -> str:
    if not row.node.layer.tied or row.expanded:
        return ""
    targets = [weight.tied_to for weight in pen.owned.get(row.node.layer.path, ()) if weight.tied_to is not None]
    return "tied" if len(row.members) > 1 or not targets else "= " + ", ".join(targets)


def _frozen(row: Row, pen: Pen) -> str:
    parameters, trainable = row.numbers[:2]
    if row.expanded or not pen.report.totals.trainable or parameters == trainable:
        return ""
    return "partly frozen" if trainable else "frozen"


_WRITERS: dict[str, Callable[[Row, Pen], str]] = {
    "type": _type,
    "detail": _detail,
    "input": _input,
    "output": _output,
    "calls": _calls,
    "dtype": _dtype,
    "depth": _depth,
    REMARKS: _remarks,
}
