"""`netlens summary FILE`: what the command line asks of a checkpoint, checked, and how it is answered. Only --values imports torch."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from typing import Any

from netlens.cli import console
from netlens.cli.config import Config
from netlens.cli.emit import Renderers, emit
from netlens.cli.options import FailLevel, ReportFormat
from netlens.errors import UsageError
from netlens.findings import Finding
from netlens.lenses.summary.checkpoint_columns import COLUMNS, SORT_KEYS, USUAL, VALUES, WITH_VALUES
from netlens.lenses.summary.checkpoint_measure import measure
from netlens.lenses.summary.checkpoint_report import CheckpointReport
from netlens.lenses.summary.checkpoint_rules import diagnose
from netlens.lenses.summary.columns import parse_columns, parse_depth
from netlens.lenses.summary.expectation_syntax import Expectations, parse_expectations
from netlens.lenses.summary.expectations import check_weights
from netlens.lenses.summary.rows import TableOptions
from netlens.loading.specs import ModelSpec
from netlens.loading.suggest import did_you_mean

OF_A_MODEL = (
    *("input", "model_arg", "weights", "device", "time", "expect_output", "max_macs", "max_memory"),
    *("lock", "update_lock", "lock_level", "checkpoint", "strip_prefix", "no_strict"),
)
FROM_CONFIG = ("depth", "max_params", "max_size", "format", "fail_on")  # other defaults are meant for models


def run(asked: Mapping[str, Any], spec: ModelSpec, config: Config) -> int:
    """Answer one command line that names a checkpoint on stdout, and return the exit code.

    Raises:
        NetlensError: an option that only a model can answer, or a file that cannot be read.
    """
    gc.disable()  # for the rest of the process: a million small objects, and none of them garbage
    refuse_model_options(asked, spec.text)
    defaults = {name.replace("-", "_"): value for name, value in config.defaults.items()}
    asked = {**{name: defaults[name] for name in FROM_CONFIG if name in defaults}, **asked}
    options, expectations = table_options(asked), _expectations(asked)
    report = look(spec, asked.get("key"), values=bool(asked.get("values")))
    from netlens.lenses.summary import checkpoint_show as show

    return emit(
        report,
        (*_check(report, expectations), *diagnose(report)),
        lens="checkpoint",
        subject={"model": spec.text, "key": asked.get("key"), "values": report.values_read},
        format=ReportFormat(asked.get("format") or "table"),
        fail_on=FailLevel(asked.get("fail_on") or "error"),
        renderers=Renderers(
            table=lambda width: show.table(report, options, width, title=spec.text),
            markdown=lambda: show.as_markdown(report, options, title=spec.text),
        ),
    )


def look(spec: ModelSpec, key: str | None, *, values: bool) -> CheckpointReport:
    """Read what the file lists, and with `values` the elements of its tensors.

    Raises:
        NetlensError: it is no checkpoint, or is damaged, or has no such key.
    """
    from netlens.loading.checkpoints.read import read_archive

    assert spec.path is not None
    archive = read_archive(spec.path)
    if not values:
        return measure(archive, key=key)
    with console.progress("reading values", sum(len(group.tensors) for group in archive.groups)) as step:
        from netlens.lenses.summary.checkpoint_values import read_values

        return measure(archive, key=key, values=lambda archive: read_values(archive, step))


def refuse_model_options(asked: Mapping[str, Any], file: str) -> None:
    """Refuse what only a model can answer.

    Raises:
        UsageError: naming the first such option.
    """
    for name in OF_A_MODEL:
        if asked.get(name):
            option = f"--{name.replace('_', '-')}"
            further = "" if name == "checkpoint" else f" {option} ..."
            raise UsageError(
                f"{option} needs a model, and {file!r} is a checkpoint, which is not run",
                hint=f"name the model that it belongs to: netlens summary MODEL --checkpoint {file}{further}",
            )


def table_options(asked: Mapping[str, Any]) -> TableOptions:
    """Read the options of the table.

    Raises:
        UsageError: a key or a column that a checkpoint does not have.
    """
    sort, only = asked.get("sort"), asked.get("only") or ()
    if sort is not None and sort not in SORT_KEYS:
        raise UsageError(
            f"--sort {sort!r} is not a key of a checkpoint", hint=did_you_mean(sort, SORT_KEYS, f"the keys are {', '.join(SORT_KEYS)}")
        )
    read = bool(asked.get("values"))
    usual = (*USUAL, *VALUES) if read else USUAL
    columns = parse_columns(asked["columns"], COLUMNS, usual) if asked.get("columns") else None
    if columns is not None and not read and (needing := [name for name in columns if name in WITH_VALUES]):
        raise UsageError(f"the column {needing[0]} needs the values of the tensors", hint="add --values")
    return TableOptions(
        depth=parse_depth(asked.get("depth")),
        columns=columns,
        sort=sort,
        top=asked.get("top"),
        only=tuple(only.split(",") if isinstance(only, str) else only),
        fold=asked.get("fold"),
    )


def _expectations(asked: Mapping[str, Any]) -> Expectations:
    names = ("expect_params", "max_params", "max_size")
    return parse_expectations(**{name: asked[name] for name in names if asked.get(name) is not None})


def _check(report: CheckpointReport, expectations: Expectations) -> tuple[Finding, ...]:
    """Hold the groups that are shown against the limits."""
    parameters = sum(group.parameters for group in report.table)
    return check_weights(parameters, sum(group.bytes for group in report.table), expectations)
