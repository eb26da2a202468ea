"""The last step of every command: the report in the format that was asked for, the findings, and the exit code."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from netlens import __version__
from netlens.cli import console
from netlens.cli.options import FailLevel, ReportFormat
from netlens.cli.versions import torch_version
from netlens.findings import Finding, Severity, worst
from netlens.jsonable import dumps

if TYPE_CHECKING:
    from rich.console import ConsoleRenderable

REACHED = {FailLevel.ERROR: Severity.ERROR, FailLevel.WARNING: Severity.WARNING}  # FailLevel.NEVER: no severity reaches it
STYLES = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.INFO: ""}
INDENT = 9  # "warning" and two spaces


@dataclass(frozen=True, slots=True)
class Renderers:
    """How a lens draws its report; called only for the format that needs it."""

    table: Callable[[int | None], Iterable[ConsoleRenderable]]  # takes the width of the terminal, None for any width
    markdown: Callable[[], str]


def emit(
    report: object,
    findings: Sequence[Finding],
    *,
    lens: str,
    subject: Mapping[str, object],
    format: ReportFormat,
    fail_on: FailLevel,
    renderers: Renderers,
) -> int:
    """Write the report and the findings to stdout and return the exit code, 0 or 1.

    Args:
        report: the lens's dataclass.
        findings: in any order; they are written worst first.
        lens: the name of the subcommand, which is also the name of the JSON schema.
        subject: what was looked at, for the JSON document: {"model": "resnet18", "device": "meta"}. The entries "model" and "file" are
            the title and the place of annotations.
        format: what goes to stdout. The job summary of GitHub is written besides, where its variable is set.
        fail_on: the severity that makes the exit code 1.
        renderers: the report as a table and as Markdown.
    """
    ranked = sorted(findings, key=lambda finding: -finding.severity)
    code = exit_code(ranked, fail_on)
    if format is ReportFormat.JSON:
        console.write(dumps(envelope(lens, subject, report, ranked)) + "\n")
    elif format is ReportFormat.MARKDOWN:
        console.write(_markdown(renderers, ranked))
    else:
        console.show([*renderers.table(console.width()), *finding_lines(ranked)])
    _tell_github(ranked, lens, subject, renderers, annotate=format is ReportFormat.GITHUB)
    return code


def exit_code(findings: Iterable[Finding], fail_on: FailLevel) -> int:
    """Return 1 where a finding reaches `fail_on`, else 0."""
    reached, severity = REACHED.get(fail_on), worst(findings)
    return int(reached is not None and severity is not None and severity >= reached)


def envelope(lens: str, subject: Mapping[str, object], report: object, findings: Sequence[Finding], number: int = 1) -> dict[str, Any]:
    """Wrap a report in the document that `--format json` writes.

    Args:
        number: of the lens's schema; a new field keeps it, a changed field raises it.
    """
    return {
        "schema": f"netlens.{lens}/{number}",
        "netlens": __version__,
        "torch": torch_version(),
        "subject": subject,
        "report": report,
        "findings": findings,
    }


def finding_lines(findings: Sequence[Finding]) -> Iterator[ConsoleRenderable]:
    """Draw findings as a list: an empty line, then severity, place, message, code, and below examples, what was measured, what to do."""
    from netlens.drawing.tables import Line

    for finding in findings:
        yield Line("")
        style = STYLES[finding.severity]
        yield Line(f"{_sentence(finding)} [{finding.code}]", style=style, label=finding.severity.name.lower(), indent=INDENT)
        yield from (Line(detail, indent=INDENT) for detail in _details(finding))
    if findings:
        yield Line("")
        yield Line(_count(findings))


def findings_markdown(findings: Sequence[Finding]) -> str:
    """Write findings as a Markdown list, "" where there are none."""
    from netlens.drawing.escapes import markdown_text

    if not findings:
        return ""
    lines = [f"**{_count(findings)}**", ""]
    for finding in findings:
        lines.append(f"- **{finding.severity.name.lower()}** `{finding.code}` {markdown_text(_sentence(finding))}")
        lines += [f"  - {markdown_text(detail)}" for detail in _details(finding)]
    return "\n".join(lines) + "\n"


def _markdown(renderers: Renderers, findings: Sequence[Finding]) -> str:
    parts = [renderers.markdown().rstrip("\n"), findings_markdown(findings).rstrip("\n")]
    return "\n\n".join(part for part in parts if part) + "\n"


def _tell_github(findings: Sequence[Finding], lens: str, subject: Mapping[str, object], renderers: Renderers, *, annotate: bool) -> None:
    """Annotate the workflow run, and write the job summary where GitHub says where."""
    if not annotate and not os.environ.get("GITHUB_STEP_SUMMARY"):
        return
    from netlens.cli import github

    title = f"netlens {lens} {subject.get('model', '')}".rstrip()
    if annotate:
        file = subject.get("file")
        console.write(github.annotations(findings, title, str(file) if file else None))
    if os.environ.get("GITHUB_STEP_SUMMARY"):
        github.job_summary(f"## {title}\n\n{_markdown(renderers, findings)}")


def _sentence(finding: Finding) -> str:
    return f"{finding.where}: {finding.message}" if finding.where else finding.message


def _details(finding: Finding) -> Iterator[str]:
    yield from finding.examples
    measured = f"measured {finding.measured}" if finding.measured else ""
    threshold = f"threshold {finding.threshold}" if finding.threshold else ""
    if measured or threshold:
        yield ", ".join(part for part in (measured, threshold) if part)
    if finding.remedy:
        yield f"remedy: {finding.remedy}"


def _count(findings: Sequence[Finding]) -> str:
    """Sum up: "2 errors, 1 warning, 1 info"."""
    counts = {severity: sum(finding.severity is severity for finding in findings) for severity in sorted(Severity, reverse=True)}
    plural = {Severity.INFO: ""}
    parts = [f"{n} {severity.name.lower()}{plural.get(severity, 's') if n != 1 else ''}" for severity, n in counts.items() if n]
    return ", ".join(parts)
