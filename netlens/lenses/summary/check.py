"""`netlens check`: every model of `[tool.netlens.models]` against its limits and its lock, in one table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from netlens.cli import console
from netlens.cli.config import Config, load_config
from netlens.cli.emit import Renderers, emit
from netlens.cli.options import FailLevel, ReportFormat
from netlens.errors import NetlensError, UsageError
from netlens.findings import Finding, Severity, worst
from netlens.lenses.summary.report import SummaryReport, TensorLeaf
from netlens.lenses.summary.request import Request, answer, failed_forward
from netlens.loading.suggest import did_you_mean
from netlens.loading.words import one_line

if TYPE_CHECKING:
    from rich.console import ConsoleRenderable

    from netlens.drawing.tables import Sheet

EXAMPLE = '[tool.netlens.models.classifier] with model = "my.models:Net" and input = "1,3,224,224"'


@dataclass(frozen=True, slots=True)
class CheckedModel:
    """One model and its verdict; numbers are None where it could not be built or run."""

    name: str  # of its table in pyproject.toml
    model: str  # what the table names
    verdict: str  # "ok", "failed" (a finding is an error) or "error" (it could not be looked at)
    error: str  # what is wrong; "" where it could be looked at
    hint: str  # what to do about that
    outputs: tuple[TensorLeaf, ...] = ()
    parameters: int | None = None
    macs: int | None = None
    weight_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class CheckReport:
    """All models of the repository, in the order of the file."""

    models: tuple[CheckedModel, ...]


def run(names: tuple[str, ...], *, update_lock: bool, format: ReportFormat | None, fail_on: FailLevel | None) -> int:
    """Check the named models, or all; print one report, and return the exit code.

    A model that cannot be looked at does not keep the others from being checked; it makes the exit code 2.

    Raises:
        UsageError: there is nothing to check.
    """
    config = load_config(Path.cwd())
    wanted = _wanted(config, names)
    checked, findings = [], []
    for name, table in wanted.items():
        model, found = _check(name, table, config, update_lock)
        checked.append(model)
        findings += found
    report = CheckReport(tuple(checked))
    code = emit(
        report,
        findings,
        lens="check",
        subject={"file": str(config.path), "models": [model.name for model in checked]},
        format=ReportFormat(format or config.defaults.get("format") or "table"),
        fail_on=FailLevel(fail_on or config.defaults.get("fail-on") or "error"),
        renderers=Renderers(table=lambda _width: _table(report), markdown=lambda: _sheet(report).markdown()),
    )
    errors = [model for model in checked if model.error]
    for model in errors:
        console.note(f"error: {one_line(model.name)}: {one_line(model.error)}\nhint: {one_line(model.hint)}")
    return 2 if errors else code


def _wanted(config: Config, names: tuple[str, ...]) -> dict[str, dict[str, object]]:
    if not config.models:
        where = f"{config.path} has no" if config.path else "no pyproject.toml here or above has a"
        raise UsageError(f"{where} table [tool.netlens.models.NAME]", hint=f"add one: {EXAMPLE}")
    for name in names:
        if name not in config.models:
            raise UsageError(
                f"no model {name!r} in {config.path}", hint=did_you_mean(name, config.models, f"it has {', '.join(config.models)}")
            )
    return {name: table for name, table in config.models.items() if not names or name in names}


def _check(name: str, table: Mapping[str, object], config: Config, update_lock: bool) -> tuple[CheckedModel, list[Finding]]:
    spec = str(table["model"])
    try:
        asked = {key.replace("-", "_"): value for key, value in table.items()}
        for file in ("lock", "checkpoint"):
            if file in asked and config.path is not None:
                asked[file] = config.path.parent / str(asked[file])
        if update_lock and ("lock" in asked or "lock" in config.defaults):
            asked["update_lock"] = True
        answered = answer(Request.of(asked, config))
    except NetlensError as error:
        return CheckedModel(name, spec, "error", error.message, error.hint), []
    if answered.note:
        console.note(f"{name}: {answered.note}")
    findings = [replace(finding, where=f"{name}: {finding.where}".rstrip(": ")) for finding in answered.findings]
    if answered.report.failure is not None:
        failed = failed_forward(answered.report.failure)
        return _checked(name, spec, failed, answered.report), findings
    model = _checked(name, spec, None, answered.report)
    return (replace(model, verdict="failed") if worst(findings) == Severity.ERROR else model), findings


def _checked(name: str, spec: str, failed: NetlensError | None, report: SummaryReport) -> CheckedModel:
    weight_bytes = sum((*report.memory.parameters.values(), *report.memory.buffers.values()))
    totals = report.totals
    error, hint = (failed.message, failed.hint) if failed else ("", "")
    verdict = "error" if failed else "ok"
    return CheckedModel(name, spec, verdict, error, hint, report.outputs, totals.parameters, totals.macs, weight_bytes)


def _table(report: CheckReport) -> Iterator[ConsoleRenderable]:
    yield _sheet(report)


def _sheet(report: CheckReport) -> Sheet:
    from netlens.drawing.numbers import byte_size, exact, shape
    from netlens.drawing.tables import Cell, Column, Sheet

    def number(value: int | None) -> Cell:
        return Cell("–" if value is None else exact(value))

    columns = [Column("name"), Column("model"), Column("output"), Column("params", right=True), Column("MACs", right=True)]
    columns += [Column("weights", right=True), Column("verdict")]
    rows = [
        [
            Cell(model.name),
            Cell(model.model),
            Cell(" · ".join(shape(leaf.shape) for leaf in model.outputs[:3]) or "–"),
            number(model.parameters),
            number(model.macs),
            Cell("–" if model.weight_bytes is None else byte_size(model.weight_bytes)),
            Cell(model.verdict, style="" if model.verdict == "ok" else "red"),
        ]
        for model in report.models
    ]
    return Sheet(tuple(columns), rows)
