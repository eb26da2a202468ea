"""What GitHub Actions reads: workflow commands on stdout, and the job summary.

Its limits: 10 errors and 10 warnings a step are shown and the rest dropped without a word; a job summary of more than
1 MiB a step is not shown at all. Sources: "Workflow commands for GitHub Actions" in GitHub's documentation, and the parser in
actions/runner: src/Runner.Common/ActionCommand.cs, for what must be escaped.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from netlens.cli import console
from netlens.findings import Finding, Severity

MOST = 10  # annotations of one kind
LONGEST = 4000  # characters of one annotation
SUMMARY_BYTES = 64 * 1024  # of one call
STEP_BYTES = 1024 * 1024  # of all that one step writes
CUT = "\n*... cut here: the whole table is in the log of the step.*\n"
_KINDS = {Severity.ERROR: "error", Severity.WARNING: "warning"}


def annotations(findings: Iterable[Finding], title: str, file: str | None) -> str:
    """Return one workflow command a line for errors and warnings, errors first; infos stay in the table.

    Args:
        findings: in the order in which they are to be shown.
        title: shown in bold: "netlens summary".
        file: the path of the model's source or lock file in the repository; None where there is none.
    """
    every = list(findings)
    properties = f"file={_property(file)},title={_property(title)}" if file else f"title={_property(title)}"
    lines, left = [], 0
    for severity, kind in _KINDS.items():
        found = [finding for finding in every if finding.severity == severity]
        lines += [f"::{kind} {properties}::{_data(_words(finding))}" for finding in found[:MOST]]
        left += len(found[MOST:])
    if left:
        lines.append(f"::notice title={_property(title)}::and {left:,} more, all of them in the log of this step")
    return "".join(f"{line}\n" for line in lines)


def _words(finding: Finding) -> str:
    """The code and the message, then what is known about it and where it is, a line each."""
    lines = [
        f"{finding.code}: {finding.message}",
        f"where: {finding.where}" if finding.where else "",
        f"measured: {finding.measured}" if finding.measured else "",
        f"expected: {finding.threshold}" if finding.threshold else "",
        *finding.examples,
        finding.remedy,
    ]
    text = "\n".join(line for line in lines if line)
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."


def _data(text: str) -> str:
    """Escape what follows the second `::`: a line break would end the command, and its rest could be one of its own."""
    escaped = text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in escaped)


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def job_summary(markdown: str) -> None:
    """Append to the summary page of the job, where GitHub's variable for it is set; failing to write is a note, not an error."""
    name = os.environ.get("GITHUB_STEP_SUMMARY")
    if not name:
        return
    try:
        with Path(name).open("ab") as file:
            written = file.seek(0, os.SEEK_END)
            text = b"\n" * bool(written) + _fitting(markdown, SUMMARY_BYTES - 1)
            if written + len(text) > STEP_BYTES:
                console.note("note: the job summary of this step is full, so nothing was added to it")
            else:
                file.write(text)
    except (OSError, ValueError) as error:
        console.note(f"note: the job summary could not be written: {error}")


def _fitting(markdown: str, limit: int) -> bytes:
    """Cut after a whole line, close what the cut left open, and say so."""
    whole = (markdown.rstrip("\n") + "\n").encode("utf-8", "replace")
    if len(whole) <= limit:
        return whole
    closing = "```\n" + "</details>\n" * 4
    room = limit - len(closing.encode()) - len(CUT.encode())
    kept = whole[: whole.rfind(b"\n", 0, room) + 1].decode("utf-8")
    fence = "```\n" if sum(line.lstrip().startswith("```") for line in kept.splitlines()) % 2 else ""
    details = min(max(kept.count("<details") - kept.count("</details>"), 0), 4)
    return (kept + fence + "</details>\n" * details + CUT).encode()
