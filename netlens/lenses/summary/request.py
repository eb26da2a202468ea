"""One request: what the command line and the configuration file ask, checked, and how it is answered."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from netlens.cli import console, misfit
from netlens.cli.config import Config, load_config
from netlens.cli.emit import Renderers, emit
from netlens.cli.lean import import_torch
from netlens.cli.options import FailLevel, ReportFormat
from netlens.errors import CheckpointDoesNotFit, ForwardFailed, UsageError
from netlens.findings import Finding, Severity
from netlens.lenses.summary.columns import parse_columns, parse_depth
from netlens.lenses.summary.expectation_syntax import Expectations, parse_expectations
from netlens.lenses.summary.expectations import check
from netlens.lenses.summary.lock import LockOutcome, compare_with_lock, model_key, parse_level
from netlens.lenses.summary.report import Failure, SummaryReport
from netlens.lenses.summary.rows import SORT_KEYS, TableOptions
from netlens.lenses.summary.rules import diagnose
from netlens.lenses.summary.source import find
from netlens.loading.checkpoints.archive import Archive
from netlens.loading.checkpoints.ask import Ask, program_of
from netlens.loading.device import check_device, parse_device
from netlens.loading.inputs import InputSpec, parse_input_spec
from netlens.loading.specs import ModelSpec, parse_model_args, parse_model_spec
from netlens.loading.suggest import did_you_mean

EXPECTATIONS = ("expect_output", "expect_params", "max_params", "max_macs", "max_size", "max_memory")


@dataclass(frozen=True, slots=True)
class Request:
    """Everything is checked that can be checked without torch."""

    model: ModelSpec
    texts: Mapping[str, Any]  # as the user wrote them, for the lock's key and the JSON document
    model_args: Mapping[str, object]
    inputs: tuple[InputSpec, ...]
    weights: str | None
    checkpoint: Ask | None  # weights to hold against the model
    program: Archive | None  # a program in a file, which is the model
    device: str
    time: bool
    table: TableOptions
    expectations: Expectations
    lock: Path | None
    lock_level: str
    update_lock: bool

    @classmethod
    def of(cls, asked: Mapping[str, Any], config: Config) -> Request:
        """Check what is asked: `asked` first, then the defaults of the configuration file.

        Raises:
            NetlensError: any of it cannot be.
        """
        asked = {**{name.replace("-", "_"): value for name, value in config.defaults.items()}, **asked}
        if asked.get("values"):
            raise UsageError(f"--values reads those of a checkpoint, and {asked['model']!r} is a model", hint="name a file: weights.pt")
        lock = asked.get("lock")
        if "lock" in asked and config.path is not None and asked["lock"] == config.defaults.get("lock"):
            lock = config.path.parent / str(lock)
        if asked.get("update_lock") and lock is None:
            raise UsageError("--update-lock needs a lock file to update", hint="name it: --lock netlens.lock.json --update-lock")
        spec = parse_model_spec(asked["model"])
        program = program_of(spec, bool(asked.get("trust_checkpoint")))
        return cls(
            model=spec,
            texts=_subject_texts(asked),
            model_args=parse_model_args(asked.get("model_arg") or ()),
            inputs=tuple(parse_input_spec(text) for text in asked.get("input") or ()),
            weights=asked.get("weights"),
            checkpoint=None if program else Ask.of(asked),
            program=program,
            device=parse_device(asked.get("device") or "auto"),
            time=bool(asked.get("time")),
            table=_table_options(asked),
            expectations=parse_expectations(**{name: asked[name] for name in EXPECTATIONS if asked.get(name) is not None}),
            lock=None if lock is None else Path(lock),
            lock_level=parse_level(asked.get("lock_level") or "layers"),
            update_lock=bool(asked.get("update_lock")),
        )


def _subject_texts(asked: Mapping[str, Any]) -> dict[str, Any]:
    named = ("model", "model_arg", "input", "weights", "checkpoint", "key", "strip_prefix")
    return {name: str(value) if isinstance(value, Path) else value for name, value in asked.items() if name in named}


def _table_options(asked: Mapping[str, Any]) -> TableOptions:
    only = asked.get("only") or ()
    sort = asked.get("sort")
    if sort is not None and sort not in SORT_KEYS:
        raise UsageError(f"--sort {sort!r} is not a key", hint=did_you_mean(sort, SORT_KEYS, f"the keys are {', '.join(SORT_KEYS)}"))
    if sort == "time" and not asked.get("time"):
        raise UsageError("--sort time needs times", hint="add --time")
    return TableOptions(
        depth=parse_depth(asked.get("depth")),
        columns=parse_columns(asked["columns"]) if asked.get("columns") else None,
        sort=sort,
        top=asked.get("top"),
        only=tuple(only.split(",") if isinstance(only, str) else only),
        fold=asked.get("fold"),
    )


@dataclass(frozen=True, slots=True)
class Answer:
    """What was learned, and what is wrong."""

    report: SummaryReport
    findings: tuple[Finding, ...]
    error: Exception | None  # what the forward raised
    note: str = ""  # what was written


def answer(request: Request) -> Answer:
    """Measure the model of a request and hold it against its expectations and its lock.

    Raises:
        NetlensError: the model or its input cannot be made.
    """
    import_torch()
    from netlens.lenses.summary.measure import measure
    from netlens.loading.subject import from_named

    check_device(request.device)
    found = find(request)
    try:
        with console.progress("timing") as step:
            report, error = measure(from_named(found.named, request.inputs), device=request.device, time=request.time, step=step)
    except SystemExit as ended:
        message = f"the model's code ended the program with sys.exit({ended.code!r})"
        raise ForwardFailed(message, hint="raise an exception there instead: --traceback shows where") from ended
    report = replace(report, notes=(*found.notes, *report.notes))
    if report.failure is not None:
        return Answer(report, (_failed(report.failure), *check(report, request.expectations)), error)
    lock = _compared(request, report)
    return Answer(
        report, (*check(report, request.expectations), *lock.findings, *(() if found.hides_layers else diagnose(report))), None, lock.note
    )


def _compared(request: Request, report: SummaryReport) -> LockOutcome:
    if request.lock is None:
        return LockOutcome((), "", wrote=False)
    key = model_key(request.model.text, _texts(request, "model_arg"), _texts(request, "input"))
    return compare_with_lock(report, request.lock, key, level=request.lock_level, update=request.update_lock)


def _texts(request: Request, name: str) -> Sequence[str]:
    return request.texts.get(name) or ()


def _failed(failure: Failure) -> Finding:
    """Findings name the layer themselves; the line of code is part of the message, as an annotation has no traceback."""
    at = f", at {failure.source}" if failure.source else ""
    message = f"{failure.type} raised: {failure.message}{at}"
    return Finding("forward-failed", Severity.ERROR, failure.path, message, failure.got, failure.expects, failure.remedy)


def run(asked: Mapping[str, Any]) -> int:
    """Answer one command line on stdout, and return the exit code.

    Raises:
        ForwardFailed: the table up to the failure has been written.
    """
    config = load_config(Path.cwd())
    if not asked.get("trust_checkpoint") and (spec := parse_model_spec(asked["model"])).source == "checkpoint":
        from netlens.lenses.summary.checkpoint_request import run as look_at_checkpoint

        return look_at_checkpoint(asked, spec, config)
    request = Request.of(asked, config)
    try:
        answered = answer(request)
    except CheckpointDoesNotFit as error:
        misfit.tell(error)
        raise
    title = request.model.text
    report, shown = answered.report, ReportFormat(asked.get("format") or config.defaults.get("format") or "table")
    from netlens.lenses.summary import show

    code = emit(
        report,
        answered.findings if answered.error is None or shown is not ReportFormat.TABLE else answered.findings[1:],
        lens="summary",
        subject={**request.texts, "device": report.run.on, "file": _file(request)},
        format=shown,
        fail_on=FailLevel(asked.get("fail_on") or config.defaults.get("fail-on") or "error"),
        renderers=Renderers(
            table=lambda width: show.table(report, request.table, width, title=title),
            markdown=lambda: show.as_markdown(report, request.table, title=title),
        ),
    )
    if answered.note:
        console.note(answered.note)
    if report.failure is not None:
        raise failed_forward(report.failure) from answered.error
    return code


def _file(request: Request) -> str | None:
    """The file of the model in this repository, for annotations."""
    return None if request.model.path is None else str(request.model.path)


def failed_forward(failure: Failure) -> ForwardFailed:
    """Say a failure in two lines."""
    place = f"layer `{failure.path}` {failure.type}" if failure.path else f"the forward of {failure.type}"
    if failure.expects:
        # What a layer got is what the layer before it returned, or was made of it; what an operator got came after that layer.
        link = "after" if not failure.path or re.match(r"\w+ of \(", failure.got) else "from"
        message = f"{place} expects {failure.expects}, got {failure.got}" + (f" {link} `{failure.producer}`" if failure.producer else "")
    else:
        message = f"{place} raised: {failure.message}"
    at = f"see {failure.source}" if failure.source else "--traceback shows where"
    return ForwardFailed(message, hint=failure.remedy or at)
