"""What a lock file remembers of one model, and how two such memories differ.

Multiply-adds, times, devices and versions are left out: they change without the model.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from netlens.findings import Finding, Severity
from netlens.lenses.summary.report import Call, Layer, SummaryReport
from netlens.lenses.summary.wording import counted, leaf_text, listed

T = TypeVar("T")

LEVELS = ("output", "params", "layers")  # each compares what the one before does, and more
REMEDY = "if the change is intended, run again with --update-lock and commit the file"


@dataclass(frozen=True, slots=True)
class Row:
    """One layer."""

    path: str
    type: str
    output: tuple[str, ...]  # one text for each distinct output shape: "1,64,56,56", "1,8 x3"; () = never ran
    parameters: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One model with one input."""

    input: tuple[str, ...]  # as `--input` takes them: "input_ids=1,128:int64"
    output: tuple[str, ...] | None  # None: the model could not be run
    parameters: Mapping[str, int]  # "total", "trainable", "buffers"
    dtypes: Mapping[str, int]  # dtype -> elements of parameters and buffers
    layers: tuple[Row, ...]  # sorted by path


def entry_of(report: SummaryReport) -> Entry:
    """Keep of a report what a lock compares."""
    totals = report.totals
    dtypes: dict[str, int] = {}
    for weight in report.weights:
        if weight.tied_to is None:
            dtypes[weight.dtype] = dtypes.get(weight.dtype, 0) + math.prod(weight.shape)
    return Entry(
        input=tuple(leaf_text(leaf, dtype=True) for leaf in report.inputs),
        output=None if report.run.on == "nothing" else tuple(leaf_text(leaf, dtype=True) for leaf in report.outputs),
        parameters={"total": totals.parameters, "trainable": totals.trainable, "buffers": totals.buffers},
        dtypes=dict(sorted(dtypes.items())),
        layers=tuple(sorted((_row(layer) for layer in report.layers), key=lambda row: row.path)),
    )


def _row(layer: Layer) -> Row:
    times: dict[str, int] = {}  # calls with different inputs may give the same output
    for call in layer.calls:
        times[_output(call)] = times.get(_output(call), 0) + call.times
    output = tuple(text if count == 1 else f"{text} x{count}" for text, count in times.items())
    return Row(layer.path, layer.type, output, layer.parameters)


def _output(call: Call) -> str:
    return "; ".join(leaf_text(leaf, dtype=False) for leaf in call.outputs)


def to_json(entry: Entry) -> dict[str, object]:
    """Return the entry as it stands in the file, with a digest for each level."""
    return {
        "input": list(entry.input),
        "output": None if entry.output is None else list(entry.output),
        "parameters": dict(entry.parameters),
        "dtypes": dict(entry.dtypes),
        "digests": {level: digest(entry, level) for level in LEVELS},
        "layers": [{"path": row.path, "type": row.type, "output": list(row.output), "parameters": row.parameters} for row in entry.layers],
    }


def from_json(value: object, level: str) -> Entry:
    """Read an entry back.

    Raises:
        ValueError: something is missing, has the wrong type, or does not have the digest that stands next to it.
    """
    stored = _typed(value, dict)
    entry = Entry(
        input=_texts(stored.get("input")),
        output=None if stored.get("output", ()) is None else _texts(stored.get("output")),
        parameters=_numbers(stored.get("parameters")),
        dtypes=_numbers(stored.get("dtypes")),
        layers=tuple(_row_from_json(_typed(row, dict)) for row in _typed(stored.get("layers"), list)),
    )
    if _typed(stored.get("digests"), dict).get(level) != digest(entry, level):
        raise ValueError("its digest does not fit its content")
    return entry


def _row_from_json(row: dict[str, object]) -> Row:
    return Row(_typed(row.get("path"), str), _typed(row.get("type"), str), _texts(row.get("output")), _typed(row.get("parameters"), int))


def _typed(value: object, kind: type[T]) -> T:
    if not isinstance(value, kind):
        raise ValueError(f"{kind.__name__} expected, found {type(value).__name__}")
    return value


def _texts(value: object) -> tuple[str, ...]:
    return tuple(_typed(text, str) for text in _typed(value, list))


def _numbers(value: object) -> dict[str, int]:
    return {name: _typed(number, int) for name, number in _typed(value, dict).items()}


def digest(entry: Entry, level: str) -> str:
    """Return a short text that changes with anything that the level compares."""
    content: list[object] = [list(entry.input), None if entry.output is None else list(entry.output)]
    if level != "output":
        content += [dict(entry.parameters), dict(entry.dtypes)]
    if level == "layers":
        content += [[row.path, row.type, list(row.output), row.parameters] for row in entry.layers]
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return "sha256:" + hashlib.sha256(text.encode("ascii")).hexdigest()


def differences(old: Entry, new: Entry, level: str, severity: Severity, order: Sequence[str]) -> tuple[Finding, ...]:
    """Return one `lock-differs` finding for each kind of difference; `order` has the paths in order of definition."""
    findings = [_leaves_differ("input", old.input, new.input), _leaves_differ("output", old.output, new.output)]
    if level != "output":
        findings += [_totals_differ(old, new), _dtypes_differ(old, new)]
    if level == "layers":
        findings += _layers_differ({row.path: row for row in old.layers}, {row.path: row for row in new.layers}, order)
    return tuple(
        Finding("lock-differs", severity, where, message, measured, threshold, REMEDY if severity > Severity.INFO else "")
        for where, message, measured, threshold in filter(None, findings)
    )


_Difference = tuple[str, str, str, str]  # where, message, measured, threshold


def _leaves_differ(what: str, old: tuple[str, ...] | None, new: tuple[str, ...] | None) -> _Difference | None:
    if old == new:
        return None
    before, now = ("unknown (the model was not run)" if leaves is None else listed(leaves) or "nothing" for leaves in (old, new))
    return what, f"the {what} is {now}, the lock has {before}", now, before


def _totals_differ(old: Entry, new: Entry) -> _Difference | None:
    names = {"total": "parameters", "trainable": "trainable parameters", "buffers": "elements in buffers"}
    changed = [key for key in names if old.parameters.get(key, 0) != new.parameters.get(key, 0)]
    if not changed:
        return None
    gap = {key: new.parameters.get(key, 0) - old.parameters.get(key, 0) for key in names}
    if gap["total"] == gap["trainable"]:  # as a rule; then the second number says nothing
        names.pop("trainable")
        changed = [key for key in changed if key in names]
    now, before = (", ".join(f"{entry.parameters.get(key, 0):,} {names[key]}" for key in changed) for entry in (new, old))
    gaps = ", ".join(f"{gap[key]:+,} {names[key]}" for key in changed)
    return "", f"the model has {now}: {gaps} against the lock", now, before


def _dtypes_differ(old: Entry, new: Entry) -> _Difference | None:
    """Counts follow the totals, so they are a difference of their own only where a dtype came or went, or elements moved."""
    moved = sum(old.dtypes.values()) == sum(new.dtypes.values())
    if old.dtypes == new.dtypes or not (moved or old.dtypes.keys() != new.dtypes.keys()):
        return None
    now, before = (listed([f"{count:,} {dtype}" for dtype, count in entry.dtypes.items()]) or "nothing" for entry in (new, old))
    return "", f"the weights are {now}, the lock has {before}", now, before


def _layers_differ(old: Mapping[str, Row], new: Mapping[str, Row], order: Sequence[str]) -> list[_Difference | None]:
    both = [(old[path], new[path]) for path in order if path in old and path in new]
    reshaped = [(a.path, _calls(a), _calls(b)) for a, b in both if a.output != b.output]
    return [
        _came_or_went("new", [new[path] for path in order if path in new and path not in old]),
        _came_or_went("gone", [row for path, row in old.items() if path not in new]),
        _changed("changed type", [(a.path, a.type, b.type) for a, b in both if a.type != b.type]),
        _changed(
            "changed size",
            [(a.path, f"{a.parameters:,}", f"{b.parameters:,} parameters") for a, b in both if a.parameters != b.parameters],
        ),
        _changed("changed output shape, first", _innermost(reshaped)),
    ]


def _came_or_went(what: str, rows: list[Row]) -> _Difference | None:
    """Name the topmost layers only: a new block is one name, not its twenty layers."""
    if not rows:
        return None
    paths = {row.path for row in rows}
    tops = [row for row in rows if not row.path or row.path.rpartition(".")[0] not in paths]
    text = f"{counted(len(rows), 'layer')} ({sum(row.parameters for row in rows):,} parameters)"
    message = f"{text} {'is' if len(rows) == 1 else 'are'} {what}: {listed([f'{row.path} {row.type}' for row in tops])}"
    return (tops[0].path, message, text, "none") if what == "new" else (tops[0].path, message, "none", text)


def _changed(what: str, layers: list[tuple[str, str, str]]) -> _Difference | None:
    if not layers:
        return None
    path, first_before, first_now = layers[0]
    names = listed([f"{path or 'the model itself'} {before} -> {now}" for path, before, now in layers])
    return path, f"{counted(len(layers), 'layer')} {what}: {names}", first_now, first_before


def _innermost(layers: list[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    """Leave out the containers of changed layers: they changed because of what is in them."""
    paths = [path for path, _, _ in layers]
    above = {path[:at] for path in paths for at in range(len(path)) if path[at] == "."} | {"" for path in paths if path}
    return [layer for layer in layers if layer[0] not in above]


def _calls(row: Row) -> str:
    return " and ".join(row.output) or "never ran"
