"""The columns that a summary's table can have, and how the user names them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from netlens.errors import UsageError
from netlens.lenses.summary.report import SummaryReport


@dataclass(frozen=True, slots=True)
class ColumnInfo:
    """What a column is called and what it shows."""

    header: str
    help: str
    metric: str = ""  # one of METRICS, where it is a number that adds up


COLUMNS: dict[str, ColumnInfo] = {
    "name": ColumnInfo("layer", "the layer's name below its parent"),
    "type": ColumnInfo("type", "its class"),
    "detail": ColumnInfo("detail", "what the layer says of itself"),
    "input": ColumnInfo("input", "shapes that go in"),
    "output": ColumnInfo("output", "shapes that come out"),
    "params": ColumnInfo("params", "parameters, each tensor counted once", "parameters"),
    "trainable": ColumnInfo("trainable", "parameters that require a gradient", "trainable"),
    "buffers": ColumnInfo("buffers", "elements of buffers", "buffers"),
    "weights": ColumnInfo("weights", "bytes of parameters and buffers", "weight_bytes"),
    "macs": ColumnInfo("MACs", "multiply-adds of one forward pass", "macs"),
    "flops": ColumnInfo("FLOPs", "2 × MACs", "macs"),
    "memory": ColumnInfo("memory", "bytes of the activations that one forward pass makes", "activation_bytes"),
    "saved": ColumnInfo("saved", "bytes that autograd keeps for backward", "saved_bytes"),
    "share": ColumnInfo("%", "share of the total of the sort key (parameters by default), in percent"),
    "calls": ColumnInfo("calls", "how often it ran"),
    "dtype": ColumnInfo("dtype", "of its weights, or of its output where it has none"),
    "time": ColumnInfo("time", "median time of its own operators, with --time", "seconds"),
    "depth": ColumnInfo("depth", "its level in the tree"),
}
USUAL = ("name", "type", "output", "params", "macs", "memory", "share")
REMARKS = "remarks"  # not for choosing: it is there where a row has something to say
GIVES_WAY = ("share", "memory", "type", "macs", "output")  # where the terminal is too narrow, in this order, then any other


def parse_columns(text: str, known: Mapping[str, ColumnInfo] = COLUMNS, usual: Sequence[str] = USUAL) -> tuple[str, ...]:
    """Read `--columns`: "name,params" chooses, "+time,-memory" changes the usual columns or those chosen.

    Raises:
        UsageError: a name is not one of the known columns.
    """
    items = [item.strip() for item in text.split(",") if item.strip()]
    chosen = [checked_column(item, known) for item in items if item[0] not in "+-"] or list(usual)
    for item in items:
        if item[0] in "+-":
            name = checked_column(item[1:].strip(), known)
            chosen = [*chosen, name] if item[0] == "+" else [column for column in chosen if column != name]
    return tuple(dict.fromkeys(["name", *chosen] if "name" not in chosen else chosen))


def checked_column(name: str, known: Mapping[str, ColumnInfo] = COLUMNS) -> str:
    """Return the name of a column as `known` has it; what stands above the column is understood, too."""
    from netlens.loading.suggest import closest

    for key, info in known.items():
        if name.lower() in (key, info.header.lower()):
            return key
    close = closest(name, known)
    hint = f"did you mean {close!r}?" if close else f"the columns are {', '.join(known)}"
    raise UsageError(f"there is no column {name!r}", hint=hint)


def usual_columns(report: SummaryReport) -> tuple[str, ...]:
    """Return the columns for which this report has numbers."""
    ran = report.run.on != "nothing"
    columns = [name for name in USUAL if ran or name not in ("output", "macs", "memory")]
    return (*columns, "time") if any(layer.seconds is not None for layer in report.layers) else tuple(columns)


def needed_metrics(columns: Iterable[str]) -> list[str]:
    """Return the metrics that these columns add up; parameters always, because the share and `(own)` rows speak of them."""
    return ["parameters", *(COLUMNS[name].metric for name in columns if COLUMNS[name].metric)]


def parse_depth(text: str | int | None) -> int | None:
    """Read `--depth`: a number of levels, or all.

    Raises:
        UsageError: it is neither.
    """
    if text is None:
        return None
    if str(text).strip().lower() == "all":
        return 1_000_000
    if not str(text).strip().isdigit() or int(text) < 1:
        raise UsageError(f"--depth {text!r} is not a number of levels", hint="write --depth 2, or --depth all")
    return int(text)
