"""The columns that the table of weights can have, and how the user names them; standard library only."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from netlens.errors import UsageError
from netlens.lenses.kernels.report import KernelsReport, LayerWeights
from netlens.loading.suggest import did_you_mean


@dataclass(frozen=True, slots=True)
class ColumnInfo:
    """What a column is called and what it shows."""

    header: str
    help: str


COLUMNS: dict[str, ColumnInfo] = {
    "index": ColumnInfo("#", "the number by which --layer takes it"),
    "name": ColumnInfo("layer", "the layer's name"),
    "type": ColumnInfo("type", "its class, or its kind where only a checkpoint tells"),
    "shape": ColumnInfo("shape", "of the weight, as stored"),
    "dtype": ColumnInfo("dtype", "of the weight, as stored"),
    "mean": ColumnInfo("mean", "of the elements"),
    "std": ColumnInfo("std", "standard deviation of the elements"),
    "min": ColumnInfo("min", "the least element"),
    "max": ColumnInfo("max", "the greatest element"),
    "norm": ColumnInfo("norm", "Frobenius norm"),
    "gain": ColumnInfo("gain", "RMS × sqrt(fan-in), the factor for a signal's RMS"),
    "init": ColumnInfo("×init", "std / std at initialisation"),
    "dead": ColumnInfo("dead", "filters of norm < 0.001 × the layer's RMS norm"),
    "duplicates": ColumnInfo("dup", "near copies of another filter"),
    "cosine": ColumnInfo("max cos", "largest |cosine| of two filters"),
    "rank": ColumnInfo("rank", "stable rank / possible rank"),
    "smooth": ColumnInfo("smooth", "neighbours in a kernel alike, 0 is noise"),
    "zeros": ColumnInfo("zeros", "share of exact zeros"),
    "near_zero": ColumnInfo("near 0", "share with 0 < |w| < 0.001 RMS"),
    "outlier": ColumnInfo("outlier", "max |w| / (1.4826 median |w|)"),
    "valley": ColumnInfo("valley", "how far two modes of the histogram are apart, 0 for one mode"),
    "nonfinite": ColumnInfo("NaN/Inf", "elements that are not finite"),
    "moved": ColumnInfo("moved", "relative norm of the difference"),
    "moved_cosine": ColumnInfo("cos", "cosine to the other"),
}
USUAL = ("index", "name", "type", "shape", "mean", "std", "norm", "init", "dead", "duplicates", "cosine", "rank", "smooth", "nonfinite")
COMPARED = ("moved", "moved_cosine")
STAYS = ("index", "name")
GIVES_WAY = ("mean", "type", "cosine", "smooth", "norm", "shape", "rank", "moved_cosine", "init", "gain", "std")  # where there is no room

Key = Callable[[LayerWeights], "float | None"]
SORT_KEYS: dict[str, Key] = {  # the largest first; of ranks the lowest
    "norm": lambda layer: layer.norm,
    "std": lambda layer: layer.std,
    "init": lambda layer: scale_to_initial(layer),
    "dead": lambda layer: layer.dead / max(layer.filters, 1),
    "duplicates": lambda layer: layer.duplicates / max(layer.filters, 1),
    "rank": lambda layer: None if layer.stable_rank is None else -layer.stable_rank / possible_rank(layer),
    "moved": lambda layer: None if layer.change is None else layer.change.relative,
}


def parse_columns(text: str) -> tuple[str, ...]:
    """Read `--columns`: "name,std" chooses, "+gain,-mean" changes the usual columns or those chosen.

    Raises:
        UsageError: there is no such column.
    """
    items = [item.strip() for item in text.split(",") if item.strip()]
    chosen = [_checked(item) for item in items if item[0] not in "+-"] or list(USUAL)
    for item in items:
        if item[0] == "+":
            chosen.append(_checked(item[1:].strip()))
        elif item[0] == "-":
            chosen = [column for column in chosen if column != _checked(item[1:].strip())]
    return tuple(dict.fromkeys(["name", *chosen] if "name" not in chosen else chosen))


def usual_columns(report: KernelsReport) -> tuple[str, ...]:
    """Return the columns that say something of this report.

    A fresh model is what its initialisation gives: there the gain says more than a ratio that is 1 everywhere.
    """
    compared = COMPARED if any(layer.change for layer in report.layers) else ()
    fresh = report.initialised is True
    return (*("gain" if name == "init" and fresh else name for name in USUAL), *compared)


def ordered(layers: Iterable[LayerWeights], sort: str | None, top: int | None) -> list[LayerWeights]:
    """Sort layers by one of `SORT_KEYS`, what has no such number last, and keep the first `top`.

    Raises:
        UsageError: there is no such key.
    """
    rows = list(layers)
    if sort is not None and sort not in SORT_KEYS:
        hint = did_you_mean(sort, SORT_KEYS, f"the keys are {', '.join(SORT_KEYS)}")
        raise UsageError(f"cannot sort layers by {sort!r}", hint=hint)
    if sort is not None:
        numbers = {layer.index: SORT_KEYS[sort](layer) for layer in rows}
        rows.sort(key=lambda layer: _descending(numbers[layer.index]))
    return rows[:top]


def scale_to_initial(layer: LayerWeights) -> float | None:
    """Return std / initial std; None where either is not known, or nothing was initialised to anything but a constant."""
    return layer.std / layer.initial_std if layer.std is not None and layer.initial_std else None


def possible_rank(layer: LayerWeights) -> int:
    """Return the largest rank that the matrix filters x fan_in of one group can have."""
    return min(layer.filters // layer.groups, layer.fan_in) or 1


def _descending(value: float | None) -> tuple[bool, float]:
    missing = value is None or value != value
    return missing, 0.0 if missing or value is None else -value


def _checked(name: str) -> str:
    for key, info in COLUMNS.items():
        if name.lower() in (key, info.header.lower()):
            return key
    raise UsageError(f"there is no column {name!r}", hint=did_you_mean(name, COLUMNS, f"the columns are {', '.join(COLUMNS)}"))
