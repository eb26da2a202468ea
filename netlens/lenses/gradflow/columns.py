"""The tables of `netlens gradflow` as cells: parameters, layers and processes. Without torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, log10
from statistics import median

from netlens.drawing import numbers
from netlens.drawing.tables import Cell, Column
from netlens.errors import UsageError
from netlens.findings import Severity
from netlens.lenses.gradflow.report import GradflowReport, LayerFlow, ParameterFlow, Rank
from netlens.lenses.gradflow.rules import alarms, blamed, marks, notes
from netlens.loading.suggest import did_you_mean
from netlens.wording import bounded, number, short

SICK = "!"  # colour never carries meaning alone
STYLES = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.INFO: ""}
SORTS = ("order", "worst")  # forward order, or what is most wrong first
RARE = ("frozen", "gradient", "detached", "unused")  # what is shown last to first, of those that no finding names


@dataclass(frozen=True, slots=True)
class ColumnInfo:
    """A column: its header, what it says, and its cells."""

    header: str
    help: str  # "": the header says it
    write: Callable[[ParameterFlow], str]
    left: bool = False
    shortest: int | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """A table whose columns may give way."""

    columns: Mapping[str, Column]
    fields: Mapping[str, Sequence[Cell]]
    gives_way: tuple[str, ...]
    stays: tuple[str, ...]
    legend: Mapping[str, str]  # key of a column -> what it says
    ill: frozenset[str] = frozenset()  # columns with a sick cell


def _value(value: float | None) -> str:
    return "" if value is None else number(value)


def _share(value: float | None) -> str:
    """Write a share with one decimal, so that digits stand below digits; what is not none, or not all, is not written so."""
    if not value:
        return ""
    return "<0.1 %" if value < 0.0005 else ">99.9 %" if 0.9995 <= value < 1 else f"{100 * value:.1f} %"


def _nonfinite(row: ParameterFlow | LayerFlow) -> str:
    return f"{row.nan + row.infinite:,}" if row.nan or row.infinite else ""


COLUMNS: Mapping[str, ColumnInfo] = {
    "index": ColumnInfo("#", "", lambda row: str(row.index)),
    "name": ColumnInfo("parameter", "", lambda row: short(row.name), left=True, shortest=22),
    "type": ColumnInfo("type", "", lambda row: short(row.type), left=True, shortest=11),
    "shape": ColumnInfo("shape", "", lambda row: numbers.shape(row.shape), left=True),
    "weight_rms": ColumnInfo("weight", "root mean square of the weights", lambda row: _value(row.weight_rms)),
    "mean": ColumnInfo("mean |g|", "", lambda row: _value(row.mean)),
    "greatest": ColumnInfo("max |g|", "", lambda row: _value(row.greatest)),
    "rms": ColumnInfo("RMS", "of the gradient", lambda row: _value(row.rms)),
    "norm": ColumnInfo("norm", "of the gradient", lambda row: _value(row.norm)),
    "zeros": ColumnInfo("zeros", "", lambda row: _share(row.zeros)),
    "nonfinite": ColumnInfo("NaN/Inf", "", _nonfinite),
    "ratio": ColumnInfo("g/w", "norm of the gradient / norm of the weights", lambda row: _value(row.ratio)),
    "update": ColumnInfo("step/w", "norm of the optimizer's step / norm of the weights", lambda row: _value(row.update)),
    "signal": ColumnInfo("signal", "mean² / variance of the gradient over batches", lambda row: _value(row.signal)),
    "cosine": ColumnInfo("cos", "of the gradients of successive steps", lambda row: "" if row.cosine is None else bounded(row.cosine)),
    "note": ColumnInfo("note", "", lambda row: "" if row.status == "gradient" else row.status, left=True),
}
STAYS = ("index", "name", "note")
GIVES_WAY = (
    "type",
    "shape",
    "norm",
    "rms",
    "weight_rms",
    "cosine",
    "signal",
    "greatest",
    "zeros",
    "ratio",
    "nonfinite",
    "mean",
    "update",
)


def of_parameters(report: GradflowReport, places: Sequence[int]) -> Table:
    """Set a row for each parameter at these places of the report."""
    sick, words = marks(report), notes(report)
    fields: dict[str, list[Cell]] = {}
    for name, info in COLUMNS.items():
        bad = {place: sick[place][name] for place in places if name in sick.get(place, {})}
        texts = [info.write(report.parameters[place]) for place in places]
        if name == "note":
            texts = [words.get(place, text) for place, text in zip(places, texts, strict=True)]
        fields[name] = [_cell(text, name, bad.get(place), room=bool(bad)) for place, text in zip(places, texts, strict=True)]
    columns = {
        name: Column(info.header, right=not info.left, code=name in ("name", "shape"), shortest=info.shortest)
        for name, info in COLUMNS.items()
    }
    ill = frozenset(name for place in places for name in sick.get(place, {}))
    return Table(columns, fields, GIVES_WAY, STAYS, {name: info.help for name, info in COLUMNS.items() if info.help}, ill)


def _cell(text: str, name: str, bad: Severity | None, *, room: bool) -> Cell:
    """Write a cell; where one of its column is sick, all leave room for the sign, so that digits stand below digits."""
    if bad is not None and text:
        return Cell(text, STYLES[bad], tail=SICK)
    return Cell(text, "dim" if name in ("index", "type") or text == "frozen" else "", tail=" " if room and text else "")


def chosen(report: GradflowReport, sort: str | None, most: int | None) -> list[int]:
    """Choose rows, as places in the report: all, or of too many those that are most wrong; "order" keeps them in forward order.

    Raises:
        UsageError: there is no such order.
    """
    if sort is not None and sort not in SORTS:
        raise UsageError(f"cannot sort parameters by {sort!r}", hint=did_you_mean(sort, SORTS, f"the orders are {', '.join(SORTS)}"))
    every = [place for place, each in enumerate(report.parameters) if not report.shown or each.name in report.shown]
    if sort != "worst" and (most is None or len(every) <= most):
        return every
    worst_first = sorted(every, key=_badness(report), reverse=True)[:most]
    return worst_first if sort == "worst" else sorted(worst_first)


def _badness(report: GradflowReport) -> Callable[[int], tuple[int, int, bool, float]]:
    """Rank parameters: by their findings, then by what they lack, then by how far their step, or gradient, is from the usual one."""
    sick = marks(report)
    sizes = {place: each.update or each.ratio or each.rms for place, each in enumerate(report.parameters)}
    known = [log10(size) for size in sizes.values() if size and isfinite(size)]
    usual = median(known) if known else 0.0

    def key(place: int) -> tuple[int, int, bool, float]:
        size, row = sizes[place], report.parameters[place]
        far = abs(log10(size) - usual) if size and isfinite(size) else -1.0
        return max(sick.get(place, {}).values(), default=Severity.INFO), RARE.index(row.status), len(row.shape) > 1, far

    return key


def of_layers(report: GradflowReport, layers: Sequence[LayerFlow]) -> Table:
    """Set a row for the output of each of these layers; the one at which something goes wrong is marked."""
    blame = blamed(report)

    def note(layer: LayerFlow) -> Cell:
        text, how = blame.get(layer.name, ("" if layer.status == "gradient" else layer.status, Severity.INFO))
        return Cell(text, STYLES[how], tail=SICK if text and how > Severity.INFO else "")

    write: dict[str, Callable[[LayerFlow], str]] = {
        "index": lambda layer: str(layer.index),
        "name": lambda layer: short(layer.name),
        "type": lambda layer: short(layer.type),
        "shape": lambda layer: numbers.shape(layer.shape),
        "activation": lambda layer: _value(layer.activation_rms),
        "mean": lambda layer: _value(layer.mean),
        "greatest": lambda layer: _value(layer.greatest),
        "rms": lambda layer: _value(layer.rms),
        "zeros": lambda layer: _share(layer.zeros),
        "nonfinite": _nonfinite,
    }
    fields = {name: [Cell(of(layer), "dim" if name in ("index", "type") else "") for layer in layers] for name, of in write.items()}
    return Table(
        _LAYERS, {**fields, "note": [note(layer) for layer in layers]}, _LAYERS_GIVE_WAY, STAYS, {"activation": "RMS of the output"}
    )


_LAYERS = {
    "index": Column("#", right=True),
    "name": Column("output of", code=True, shortest=22),
    "type": Column("type", shortest=11),
    "shape": Column("shape", code=True),
    "activation": Column("output", right=True),
    "mean": Column("mean |g|", right=True),
    "greatest": Column("max |g|", right=True),
    "rms": Column("RMS", right=True),
    "zeros": Column("zeros", right=True),
    "nonfinite": Column("NaN/Inf", right=True),
    "note": Column("note"),
}
_LAYERS_GIVE_WAY = ("shape", "rms", "greatest", "type", "zeros", "activation", "nonfinite", "mean")


def of_ranks(report: GradflowReport, ranks: Sequence[Rank]) -> Table:
    """Set a row for each process."""
    words = alarms(report)
    fields = {
        "rank": [Cell(str(rank.rank)) for rank in ranks],
        "device": [Cell(short(rank.device)) for rank in ranks],
        "loss": [Cell(number(rank.loss)) for rank in ranks],
        "norm": [Cell(_value(rank.norm)) for rank in ranks],
        "cosine": [Cell("" if rank.cosine is None else bounded(rank.cosine)) for rank in ranks],
        "note": [Cell(words.get(f"rank {rank.rank}", ""), "yellow", tail=SICK if f"rank {rank.rank}" in words else "") for rank in ranks],
    }
    return Table(
        _RANKS, fields, ("device",), ("rank", "loss", "norm", "cosine", "note"), {"cosine": "of its gradient with the mean of all"}
    )


_RANKS = {
    "rank": Column("rank", right=True),
    "device": Column("device"),
    "loss": Column("loss", right=True),
    "norm": Column("|g|", right=True),
    "cosine": Column("cos", right=True),
    "note": Column("note"),
}
