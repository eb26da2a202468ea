"""How each column of the table of weights writes its cells."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod

from netlens.drawing import numbers
from netlens.drawing.tables import Cell, Column
from netlens.findings import Severity
from netlens.lenses.kernels.columns import COLUMNS, possible_rank, scale_to_initial
from netlens.lenses.kernels.report import LayerWeights
from netlens.wording import bounded, number, share, short

SICK = "!"  # colour never carries meaning alone
STYLES = {Severity.ERROR: "bold red", Severity.WARNING: "yellow"}
_LEFT = frozenset({"name", "type", "shape", "dtype"})
CUT_TO = {"name": 24, "type": 8}
Marks = Mapping[int, Mapping[str, Severity]]


def column(name: str) -> Column:
    """Return how a column is set."""
    return Column(COLUMNS[name].header, right=name not in _LEFT, code=name in ("name", "shape"), shortest=CUT_TO.get(name))


def cells(name: str, layers: list[LayerWeights], marks: Marks) -> list[Cell]:
    """Write one column. Where one of its cells is sick, all leave room for the sign, so that digits stand below digits."""
    bad = {layer.index: marks[layer.index][name] for layer in layers if name in marks.get(layer.index, {})}
    return [_cell(name, layer, bad) for layer in layers]


def _cell(name: str, layer: LayerWeights, bad: Mapping[int, Severity]) -> Cell:
    text = _WRITERS[name](layer)
    if layer.index in bad:
        return Cell(text, STYLES[bad[layer.index]], tail=SICK)
    return Cell(text, "dim" if name in ("index", "type", "dtype") else "", tail=" " if bad and text else "")


def _value(value: float | None) -> str:
    return "" if value is None else number(value)


def _bounded(value: float | None) -> str:
    return "" if value is None else bounded(value)


def _filters(count: int, layer: LayerWeights) -> str:
    return f"{count:,}/{layer.filters:,}" if count else ""


def _rank(layer: LayerWeights) -> str:
    return "" if layer.stable_rank is None else f"{number(layer.stable_rank)}/{possible_rank(layer):,}"


def _share(value: float | None) -> str:
    return share(value) if value else ""


_WRITERS: dict[str, Callable[[LayerWeights], str]] = {
    "index": lambda layer: str(layer.index),
    "name": lambda layer: short(layer.name) or "(no name)",
    "type": lambda layer: layer.type or layer.kind,
    "shape": lambda layer: numbers.shape(layer.shape),
    "dtype": lambda layer: layer.dtype,
    "mean": lambda layer: _value(layer.mean),
    "std": lambda layer: _value(layer.std),
    "min": lambda layer: _value(layer.least),
    "max": lambda layer: _value(layer.greatest),
    "norm": lambda layer: _value(layer.norm),
    "gain": lambda layer: _value(layer.gain),
    "init": lambda layer: _value(scale_to_initial(layer)),
    "dead": lambda layer: _filters(layer.dead, layer),
    "duplicates": lambda layer: _filters(layer.duplicates, layer),
    "cosine": lambda layer: _bounded(layer.largest_cosine),
    "rank": _rank,
    "smooth": lambda layer: _bounded(layer.smoothness),
    "zeros": lambda layer: _share(layer.zeros / max(prod(layer.shape), 1)),
    "near_zero": lambda layer: _share(layer.near_zero),
    "outlier": lambda layer: _value(layer.outlier),
    "valley": lambda layer: _bounded(layer.valley),
    "nonfinite": lambda layer: numbers.exact(layer.nan + layer.infinite) if layer.nan + layer.infinite else "",
    "moved": lambda layer: "" if layer.change is None else number(layer.change.relative),
    "moved_cosine": lambda layer: "" if layer.change is None else _bounded(layer.change.cosine),
}
