"""The columns of the tables of activations and of attention, and how each writes its cells. Standard library and cells alone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from statistics import fmean

from netlens.drawing import numbers
from netlens.drawing.tables import Cell, Column
from netlens.findings import Severity
from netlens.lenses.featuremaps.report import AttentionLayer, LayerActivity
from netlens.wording import number, short

SICK = "!"  # colour never carries meaning alone
STYLES = {Severity.ERROR: "bold red", Severity.WARNING: "yellow"}
SHORTEST = {"name": 24, "type": 11}  # cells to which these may be cut


@dataclass(frozen=True, slots=True)
class ColumnInfo:
    """A column: its header, what it says, and its cells."""

    header: str
    help: str  # "": the header says it
    write: Callable[[LayerActivity], str]
    left: bool = False


def _value(value: float | None) -> str:
    return "" if value is None else number(value)


def _share(value: float | None) -> str:
    """Write a share with one decimal, so that digits stand below digits; what is not none, or not all, is not written so."""
    if not value:
        return ""
    return "<0.1 %" if value < 0.0005 else ">99.9 %" if 0.9995 <= value < 1 else f"{100 * value:.1f} %"


def _dead(layer: LayerActivity) -> str:
    return f"{layer.dead:,}/{layer.channels:,}" if layer.dead else ""


def _rank(layer: LayerActivity) -> str:
    return "" if layer.effective_rank is None else f"{number(layer.effective_rank)}/{layer.channels:,}"


def _nonfinite(layer: LayerActivity) -> str:
    return f"{layer.nan + layer.infinite:,}" if layer.nan or layer.infinite else ""


COLUMNS: Mapping[str, ColumnInfo] = {
    "index": ColumnInfo("#", "", lambda layer: str(layer.index)),
    "name": ColumnInfo("layer", "", lambda layer: short(layer.name), left=True),
    "type": ColumnInfo("type", "", lambda layer: short(layer.type), left=True),
    "shape": ColumnInfo("shape", "", lambda layer: numbers.shape(layer.shape), left=True),
    "mean": ColumnInfo("mean", "", lambda layer: _value(layer.mean)),
    "std": ColumnInfo("std", "", lambda layer: _value(layer.std)),
    "least": ColumnInfo("min", "", lambda layer: _value(layer.least)),
    "greatest": ColumnInfo("max", "", lambda layer: _value(layer.greatest)),
    "zeros": ColumnInfo("zeros", "", lambda layer: _share(layer.zeros)),
    "dead": ColumnInfo("dead", "channels never positive", _dead),
    "saturated": ColumnInfo("saturated", "at the bounds of tanh, sigmoid", lambda layer: _share(layer.saturated)),
    "rank": ColumnInfo("rank", "effective, of all channels", _rank),
    "correlation": ColumnInfo("|corr|", "of two channels, mean", lambda layer: _value(layer.correlation)),
    "between": ColumnInfo("between", "variance between samples / mean square", lambda layer: _value(layer.between)),
    "concentration": ColumnInfo("conc", "energy in the strongest tenth of places", lambda layer: _value(layer.concentration)),
    "nonfinite": ColumnInfo("NaN/Inf", "", _nonfinite),
}
STAYS = ("index", "name")
GIVES_WAY = (
    "least",
    "mean",
    "concentration",
    "correlation",
    "type",
    "greatest",
    "shape",
    "zeros",
    "between",
    "rank",
    "saturated",
    "dead",
    "std",
)


def column(name: str) -> Column:
    """Return how a column is set."""
    info = COLUMNS[name]
    return Column(info.header, right=not info.left, code=name in ("name", "shape"), shortest=SHORTEST.get(name))


def cells(name: str, layers: list[LayerActivity], marks: Mapping[int, Mapping[str, Severity]]) -> list[Cell]:
    """Write one column. Where one of its cells is sick, all leave room for the sign, so that digits stand below digits."""
    bad = {layer.index: marks[layer.index][name] for layer in layers if name in marks.get(layer.index, {})}
    return [_cell(COLUMNS[name].write(layer), name, bad.get(layer.index), room=bool(bad)) for layer in layers]


def _cell(text: str, name: str, bad: Severity | None, *, room: bool) -> Cell:
    if bad is not None:
        return Cell(text, STYLES[bad], tail=SICK)
    return Cell(text, "dim" if name in ("index", "type") else "", tail=" " if room and text else "")


ATTENTION = (
    Column("attention layer", code=True, shortest=24),
    Column("heads", right=True),
    Column("tokens", right=True),
    Column("entropy: least", right=True),
    Column("mean", right=True),
    Column("most", right=True),
    Column("distance", right=True),
)


def attention_row(layer: AttentionLayer, sick: Collection[str]) -> list[Cell]:
    """Write one row of the table of attention layers; of those named in `sick` the mean entropy is marked."""
    tokens = f"{layer.queries:,}" if layer.queries == layer.keys else f"{layer.queries:,} to {layer.keys:,}"
    entropy = [number(value) for value in (min(layer.entropy), fmean(layer.entropy), max(layer.entropy))] if layer.entropy else [""] * 3
    distance = number(fmean(layer.distance)) if layer.distance else ""
    least, mean, most = map(Cell, entropy)
    room = " " if sick and mean.text else ""
    mean = Cell(mean.text, STYLES[Severity.WARNING], tail=SICK) if layer.name in sick else replace(mean, tail=room)
    return [Cell(short(layer.name)), Cell(f"{layer.heads}"), Cell(tokens), least, mean, most, Cell(distance)]
