"""What stands around the table of a checkpoint: lines of plain text, the same in the terminal and in Markdown."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator

from netlens.drawing.escapes import GLUE
from netlens.drawing.facts import Fact
from netlens.drawing.numbers import byte_size, exact, percent
from netlens.lenses.summary.checkpoint_report import CheckpointReport, Group, Guess
from netlens.lenses.summary.checkpoint_rows import Plan
from netlens.lenses.summary.checkpoint_tree import Mark
from netlens.lenses.summary.checkpoint_words import dimensions, named, short
from netlens.lenses.summary.wording import counted

MOST_SCALARS = 16
_HOW = {"fits": "", "names": ": all names fit, and all shapes outside the head", "body": ": all of it but the head fits"}
_ROLES = {"weights": "weights", "ema": "EMA", "optimizer": "optimizer", "other": "other"}


def title_line(report: CheckpointReport, title: str) -> str:
    """Say what file it is: "last.ckpt · written by torch.save (1.6 or newer) · 44.7 MiB"."""
    files = f" in {counted(len(report.files), 'file')}" if len(report.files) > 1 else ""
    return f"{short(title or report.file)} · {report.written_by} · {_size(report.bytes)}{files}"


def group_line(report: CheckpointReport) -> str:
    """Say what the table shows: "key state_dict · 122 tensors · 11,699,132 elements"."""
    if not report.table:
        return "no tensors"
    return "; ".join(_of_group(group) for group in report.table[:4]) + ("; …" if len(report.table) > 4 else "")


def _of_group(group: Group) -> str:
    key = f"key {short(group.key, 60)} · " if group.key else ""
    role = "" if group.role == "weights" else f"{_ROLES.get(group.role, group.role)} · "
    return f"{role}{key}{counted(len(group.tensors), 'tensor')} · {counted(group.elements, 'element')}"


def legend(plan: Plan, hidden: list[str], rounded: bool, width: int | None) -> list[str]:
    """Explain the signs in this table, and only those, and say what is not shown."""
    rows = [row for row in plan.rows if row.kind != "rest"]
    reduced = f"rounded, and {', '.join(hidden)} hidden," if hidden else "rounded"
    signs = {
        "Σ: sum of the rows below it; all other rows add up to the total": any(row.expanded for row in rows),
        "×N after a name: N equal ones in one row; it and the rows below it are their sums": any(row.folded > 1 for row in rows),
        "= x: the same memory as x, counted there": any(row.node.marks & Mark.TIED and row.tensor is not None for row in rows),
        f"depth {plan.depth} of {plan.deepest} shown; --depth all shows all": plan.depth < plan.deepest,
        "--depth all shows every tensor": plan.depth == plan.deepest and (plan.compact or plan.hidden > 0),
        "--top 20 lists the largest": plan.hidden > 0,
        f"{reduced} to fit {width} columns; a wider terminal or a pipe shows all": rounded,
    }
    return [text for text, applies in signs.items() if applies]


def facts(report: CheckpointReport, title: str) -> list[Fact]:
    """State the sums of each group, what stands beside the tensors, and what the weights belong to."""
    found = [*_sums(report), *_others(report), *_beside(report), *_origin(report), *_belongs(report, title), *_values(report)]
    return [fact for fact in found if fact.text]


def _sums(report: CheckpointReport) -> Iterator[Fact]:
    for group in report.table:
        name = _ROLES.get(group.role, group.role)
        label = name if len(report.table) == 1 else f"{name} {short(group.key, 30)}".rstrip()
        if group.role in ("weights", "ema"):
            rest = group.elements - group.parameters
            buffers = f" · {exact(rest)} more elements are buffers" if rest else ""
            frozen = f" · frozen {exact(group.frozen)}" if group.frozen else ""
            yield Fact("parameters" if len(report.table) == 1 else f"{label}:", f"{exact(group.parameters)}{buffers}{frozen}")
        types = " + ".join(f"{_size(size)} {dtype}" for dtype, size in group.dtypes.items())
        yield Fact(
            label if len(report.table) == 1 else "",
            f"{_size(group.bytes)}" + (f" = {types}" if len(group.dtypes) > 1 else f" {types.rpartition(' ')[2]}"),
        )


def _others(report: CheckpointReport) -> Iterator[Fact]:
    """One line for each group that the table does not show."""
    whole = sum(group.bytes for group in report.groups)
    for index, group in enumerate(report.groups):
        if index not in report.shown:
            key = short(group.key or group.role, 60)
            share = percent(group.bytes, whole).replace(" ", GLUE)
            count = counted(len(group.tensors), "tensor")
            text = f"{_size(group.bytes)} ({share} of all) · {count} · --key {shlex.quote(key)} shows them"
            yield Fact(_ROLES.get(group.role, group.role), text)


def _beside(report: CheckpointReport) -> Iterator[Fact]:
    scalars = [f"{short(key, 40)}{GLUE}{short(value, 60)}" for key, value in report.scalars.items()]
    yield Fact("beside them", _joined(scalars))
    yield Fact("also inside", _joined([f"{short(key, 40)} ({short(what, 60)})" for key, what in report.contents]))


def _joined(parts: list[str]) -> str:
    more = f" · and {len(parts) - MOST_SCALARS:,} more" if len(parts) > MOST_SCALARS else ""
    return " · ".join(parts[:MOST_SCALARS]) + more


def _origin(report: CheckpointReport) -> Iterator[Fact]:
    if report.model_class:
        yield Fact("class", f"{short(report.model_class)} · not imported, never run; its weights are read as plain tensors")
    known = [name.name for name in report.foreign if name.verdict == "known" and not (report.model_class and name.name.startswith("torch"))]
    yield Fact("also names", f"{named(known)} · not imported, and not needed for the tensors" if known else "")
    places = dict.fromkeys(place for group in report.groups for place in group.locations)
    foreign = [place for place in places if place not in ("cpu", "", "meta")]
    yield Fact("saved on", f"{named(foreign)} · reading it needs no such device" if foreign else "")
    yield Fact("files", named(report.files) if len(report.files) > 1 else "")


def _belongs(report: CheckpointReport, title: str) -> Iterator[Fact]:
    guess = report.guess
    if guess.models:
        model = " or ".join(guess.models[:3]) + "".join(f" with {name}={value}" for name, value in guess.model_args.items())
        yield Fact("fits" if guess.how == "fits" else "looks like", f"{model}{_HOW[guess.how]}")
        yield Fact("try", command(guess, title or report.file) if guess.how != "body" else "")
    yield Fact("looks like", guess.layout)
    if guess.head is not None and not guess.model_args:
        sure = "" if guess.head.certain else ", the last 2-D weight"
        yield Fact("head", f"{short(guess.head.name)} {dimensions(guess.head.shape)}: {counted(guess.head.outputs, 'output')}{sure}")


def command(guess: Guess, file: str) -> str:
    """Write the command line that loads the checkpoint into the model that it fits."""
    arguments = [word for name, value in guess.model_args.items() for word in ("--model-arg", f"{name}={value}")]
    return shlex.join(["netlens", "summary", guess.models[0], *arguments, "--checkpoint", short(file, 200)])


def _values(report: CheckpointReport) -> Iterator[Fact]:
    if not report.values_read:
        return
    read = [tensor for group in report.groups for tensor in group.tensors if tensor.values is not None]
    bad = [tensor for tensor in read if tensor.values is not None and tensor.values.nan + tensor.values.infinite]
    skipped = sum(len(group.tensors) for group in report.groups) - len(read)
    unread = f" · {counted(skipped, 'tensor')} not read" if skipped else ""
    yield Fact(
        "values",
        (f"{counted(len(bad), 'tensor')} with elements that are not finite" if bad else f"all finite in {counted(len(read), 'tensor')}")
        + unread,
    )


def _size(number: int) -> str:
    return byte_size(number).replace(" ", GLUE)


def total_of(groups: Iterable[Group], number: str) -> int:
    """Add up "elements", "parameters" or "bytes" of several groups."""
    return sum(getattr(group, number) for group in groups)
