"""How each column of the table of a checkpoint writes its cells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt

from netlens.drawing import numbers
from netlens.drawing.tables import Cell, Column
from netlens.lenses.summary.checkpoint_columns import COLUMNS, WITH_VALUES
from netlens.lenses.summary.checkpoint_report import CheckpointReport, Tensor, Values
from netlens.lenses.summary.checkpoint_rows import Plan, Row
from netlens.lenses.summary.checkpoint_tree import Mark, marks_of
from netlens.lenses.summary.checkpoint_words import dimensions, number, short
from netlens.lenses.summary.columns import REMARKS
from netlens.lenses.summary.guides import guides

_CUT_TO = {"name": 24, "shape": 12, "dtype": 8, REMARKS: 15}
_RIGHT = frozenset({"share", "tensors", "storage", *WITH_VALUES})
_MOST_SHAPES = 4
_MOST_TENSORS = 64  # whose shapes are looked at for one row


@dataclass(frozen=True, slots=True)
class Pen:
    """What a cell needs to know beside its row."""

    report: CheckpointReport
    plan: Plan
    exact: bool  # there is room for every digit
    several_places: bool  # not all tensors were saved from the same device


def column(name: str, pen: Pen) -> Column:
    """Return how a column is set."""
    if name == REMARKS:
        return Column("", shortest=_CUT_TO[name])
    info = COLUMNS[name]
    header = f"% {COLUMNS[pen.plan.share_of].header}" if name == "share" else info.header
    if name in ("bytes", "storage") and pen.exact:
        header += " B"
    return Column(header, bool(info.metric) or name in _RIGHT, code=name in ("name", "stride"), shortest=_CUT_TO.get(name))


def cells(name: str, pen: Pen) -> list[Cell]:
    """Write one column."""
    if name == "name":
        return [_name_cell(row, pen) for row in pen.plan.rows]
    if name in ("elements", "bytes", "share"):
        return [_number_cell(name, row, pen) for row in pen.plan.rows]
    write = _WRITERS[name]
    return [Cell(write(row, pen), _style(name, row)) for row in pen.plan.rows]


def total_cell(name: str, pen: Pen) -> Cell:
    """Write the cell below the rule."""
    root = pen.plan.root
    texts = {"name": "total", "share": "100" if getattr(root, pen.plan.share_of) else "", "tensors": numbers.exact(root.tensors)}
    text = number_text(name, getattr(root, name), pen) if name in ("elements", "bytes") else texts.get(name, "")
    return Cell(text, "bold")


def number_text(name: str, value: int, pen: Pen) -> str:
    """Write a sum as its column does; nothing at all is a dash."""
    if not value:
        return numbers.NOTHING
    if name == "share":
        return numbers.percent(value, getattr(pen.plan.root, pen.plan.share_of)).removesuffix(" %")
    if pen.exact:
        return numbers.exact(value)
    return numbers.byte_size(value) if name == "bytes" else numbers.compact(value)


def _number_cell(name: str, row: Row, pen: Pen) -> Cell:
    text = number_text(name, getattr(row, pen.plan.share_of if name == "share" else name), pen)
    if text != numbers.NOTHING and row.expanded:
        text = f"Σ {text}" if pen.exact else f"Σ{text}"
    return Cell(text, "dim" if text == numbers.NOTHING or row.expanded else "")


def _name_cell(row: Row, pen: Pen) -> Cell:
    lead = "" if pen.plan.flat else guides(row, pen.exact)
    style = "bold" if row.expanded else "dim" if row.kind in ("own", "rest") else ""
    return Cell(short(row.label) or "(no name)", style, lead, f" ×{row.folded:,}" if row.folded > 1 else "")


def _style(name: str, row: Row) -> str:
    if name == REMARKS:
        return "bold red" if row.node.marks & Mark.NOT_FINITE else "dim"
    return "dim" if row.tensor is None else ""


def _shape(row: Row, pen: Pen) -> str:
    if row.tensor is not None:
        return dimensions(row.tensor.shape)
    if row.expanded or row.kind == "rest":
        return ""
    below = row.node.children
    if row.node.depth == 1 and row.node.tensor is None and len(below) <= _MOST_TENSORS:
        shapes = Counter(dimensions(node.tensor.shape) for node in below if node.tensor is not None)
        if len(shapes) <= _MOST_SHAPES:
            return " · ".join(f"{shape} ×{times}" if times > 1 else shape for shape, times in shapes.items())
    return f"{row.tensors:,} {'tensor' if row.tensors == 1 else 'tensors'}"


def _dtype(row: Row, pen: Pen) -> str:
    if row.tensor is not None:
        return row.tensor.dtype
    types = dict.fromkeys(dtype for node in row.members for dtype in node.dtypes) if row.kind == "rest" else row.node.dtypes
    return "" if row.expanded else short(", ".join(types), 40)


def _remarks(row: Row, pen: Pen) -> str:
    if row.kind == "rest" or row.expanded:
        return ""
    if row.tensor is None or len(row.members) > 1:
        return ", ".join(words for mark, words in _MARKS.items() if row.node.marks & mark)
    return "; ".join(filter(None, _said_of(row.tensor, pen)))


def _said_of(tensor: Tensor, pen: Pen) -> list[str]:
    values = tensor.values
    return [
        not_finite(values) if values is not None else "",
        f"= {short(tensor.tied_to, 60)}" if tensor.tied_to is not None else "",
        f"unreadable: {short(tensor.unreadable, 60)}" if tensor.unreadable else "",
        tensor.layout if tensor.layout != "contiguous" else "",
        "frozen" if marks_of(tensor) & Mark.FROZEN else "",
        f"all {number(values.minimum)}" if values is not None and tensor.constant else "",
        short(tensor.location, 20) if pen.several_places else "",
    ]


def not_finite(values: Values) -> str:
    """Write "3 nan, 1 inf"."""
    counts = {"nan": values.nan, "inf": values.infinite}
    return ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)


_MARKS = {
    Mark.NOT_FINITE: "not finite",
    Mark.TIED: "tied",
    Mark.UNREADABLE: "unreadable",
    Mark.GAPS: "strided",
    Mark.FROZEN: "frozen",
}


def _pooled(row: Row) -> list[tuple[Values, int]]:
    """Return the values of all tensors that a row of one tensor, or of equal ones, stands for."""
    tensors = [node.tensor for node in row.members if node.tensor is not None] if row.tensor is not None else []
    return [(tensor.values, tensor.elements) for tensor in tensors if tensor.values is not None]


def _least(row: Row, pen: Pen) -> str:
    found = [values.minimum for values, _ in _pooled(row) if values.minimum is not None]
    return number(min(found)) if found else ""


def _greatest(row: Row, pen: Pen) -> str:
    found = [values.maximum for values, _ in _pooled(row) if values.maximum is not None]
    return number(max(found)) if found else ""


def _mean(row: Row, pen: Pen) -> str:
    moments = _moments(row)
    return number(moments[0]) if moments else ""


def _std(row: Row, pen: Pen) -> str:
    moments = _moments(row)
    return number(moments[1]) if moments else ""


def _moments(row: Row) -> tuple[float, float] | None:
    """Return mean and deviation of all elements of a row; tensors without them say nothing."""
    parts = [
        (values.mean, values.std, elements - values.nan - values.infinite)
        for values, elements in _pooled(row)
        if values.mean is not None and values.std is not None
    ]
    total = sum(count for *_, count in parts)
    if not total:
        return None
    mean = sum(part * count for part, _, count in parts) / total
    return mean, sqrt(sum(count * (std * std + (part - mean) ** 2) for part, std, count in parts) / total)


def _counted(row: Row, pick: Callable[[Values], int]) -> str:
    found = _pooled(row)
    return numbers.exact(sum(pick(values) for values, _ in found)) if found else ""


def _of_tensor(write: Callable[[Tensor], str]) -> Callable[[Row, Pen], str]:
    return lambda row, pen: write(row.tensor) if row.tensor is not None else ""


_WRITERS: dict[str, Callable[[Row, Pen], str]] = {
    "shape": _shape,
    "dtype": _dtype,
    "tensors": lambda row, pen: numbers.exact(row.tensors),
    "kind": _of_tensor(lambda tensor: "" if tensor.kind == "tensor" else tensor.kind),
    "layout": _of_tensor(lambda tensor: tensor.layout),
    "stride": _of_tensor(lambda tensor: dimensions(tensor.stride)),
    "storage": _of_tensor(lambda tensor: numbers.exact(tensor.storage_bytes)),
    "location": _of_tensor(lambda tensor: short(tensor.location, 40)),
    "min": _least,
    "max": _greatest,
    "mean": _mean,
    "std": _std,
    "zeros": lambda row, pen: _counted(row, lambda values: values.zeros),
    "nonfinite": lambda row, pen: _counted(row, lambda values: values.nan + values.infinite),
    REMARKS: _remarks,
}
