"""What is wrong with data: one finding a kind of fault, the most harmful first. Standard library only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from netlens.data.issues import Issue, Item
from netlens.findings import Finding, Severity
from netlens.lenses.check_data.report import CheckDataReport
from netlens.lenses.check_data.rulebook import BOOK, COPIES, NATURE
from netlens.wording import counted, share, short

EXAMPLES = 5  # of one finding
ALIKE = 3  # paths of a group that are named
PATH = 200  # characters of a path that are shown: the report has all
HALF = 0.5  # a look that more share is the nature of the data, as cleanvision's report has it
LATENT = "not as things are, but with more workers, or on another system"
NOTHING = "nothing, if all of the data are meant to be so"
APPLE = "._"  # begins what macOS puts beside a file on other systems: no picture, so ImageFolder stops at it
_ORDER = {code: place for place, code in enumerate(BOOK)}
_ONE = {"s": "", "es": "", "z": "s", "is": "is", "has": "has", "it": "it", "copy": "a copy of another", "class": "a class"}
_MANY = {"s": "s", "es": "es", "z": "", "is": "are", "has": "have", "it": "them", "copy": "copies of others", "class": "classes"}


def diagnose(report: CheckDataReport) -> list[Finding]:
    """Return a finding for each kind of fault, the most harmful first."""
    return [_finding(issue) for issue in ranked(report.issues)]


def ranked(issues: Iterable[Issue]) -> list[Issue]:
    """Put the most harmful first: by severity, then by kind as in the rulebook, then by how many are so."""
    return sorted(issues, key=lambda issue: (-severity(issue), _ORDER[issue.code], -_share(issue)))


def severity(issue: Issue) -> Severity:
    """Tell how bad a fault is; what most pictures share, and what does no harm as things are, is no fault."""
    if issue.latent or _natural(issue):
        return Severity.INFO
    if issue.code == "hidden-file" and any(_name(path).startswith(APPLE) for item in issue.items for path in item.paths):
        return Severity.ERROR
    return BOOK[issue.code].severity


def verdict(report: CheckDataReport) -> tuple[str, Severity]:
    """Answer in one line whether the data are fit to train on, and how bad it is if not."""
    grave = [issue for issue in ranked(report.issues) if severity(issue) > Severity.INFO]
    if not grave:
        return f"fit to train on? nothing stands in the way: {_checked(report)}", Severity.INFO
    worst = severity(grave[0])
    answer = "no" if worst is Severity.ERROR else "in doubt"
    more = f", and {counted(len(grave) - 1, 'more finding')}" if len(grave) > 1 else ""
    return f"fit to train on? {answer}: {sentence(grave[0])}{more}", worst


def sentence(issue: Issue) -> str:
    """Say what is wrong, with how many are so."""
    said = _filled(BOOK[issue.code].says, issue)
    later = f"{said}: {LATENT}" if issue.latent else said
    return f"{said}: more than half, so this is the nature of the data" if _natural(issue) else later


def example(item: Item, between: str = ", ") -> str:
    """Name a place, and what was measured there: "a.jpg = b.jpg: 96 % alike"."""
    more = f" and {len(item.paths) - ALIKE:,} more" if len(item.paths) > ALIKE else ""
    where = between.join(short(path, PATH) for path in item.paths[:ALIKE]) + more
    return ": ".join(part for part in (where, short(item.detail, PATH)) if part)


def _finding(issue: Issue) -> Finding:
    between = " = " if issue.code in COPIES else ", "
    return Finding(
        issue.code,
        severity(issue),
        "",
        sentence(issue),
        issue.measured,
        issue.threshold,
        NOTHING if _natural(issue) else _filled(BOOK[issue.code].remedy, issue),
        tuple(filter(None, (example(item, between) for item in issue.items[:EXAMPLES]))),
    )


def _filled(text: str, issue: Issue) -> str:
    """Put numbers into a sentence of the rulebook, and make its words agree with them."""
    count, copies = len(issue.items), sum(len(item.paths) - 1 for item in issue.items)
    words = _ONE if (copies if "{copies}" in text else count) == 1 else _MANY
    return text.format(n=f"{count:,}", total=f"{issue.total:,}", copies=f"{copies:,}", **words)


def _share(issue: Issue) -> float:
    return len(issue.items) / max(issue.total, 1)


def _natural(issue: Issue) -> bool:
    return issue.code in NATURE and _share(issue) > HALF


def _name(path: str) -> str:
    return path.replace("\\", "/").rpartition("/")[2]


def _checked(report: CheckDataReport) -> str:
    """Say what was looked at and found well."""
    if report.kind == "loader":
        read = sum(each.read for each in report.loaders)
        return f"{counted(read, 'sample')} were read: shapes, types, ranges, labels and workers are well"
    names = [split.name for split in report.splits]
    if report.interrupted is not None:
        return f"nothing was found in the {counted(report.interrupted, 'file')} that were seen"
    told = [f"{_all(report)} could be decoded", "none looks spoilt", "none is a copy"]
    told += [f"nothing leaks between {_joined(names)}"] if len(names) > 1 else []
    labelled = [split.name for split in report.splits if split.classes]
    of = "" if len(labelled) == len(names) else f" of {_joined(labelled)}"
    told += [f"classes and labels{of} are in order"] if labelled else []
    return ", ".join(told)


def _all(report: CheckDataReport) -> str:
    decoded, files = (sum(getattr(split, name) for split in report.splits) for name in ("decoded", "files"))
    every = "the only file" if files == 1 else f"all {counted(files, 'file')}"
    return every if decoded == files else f"{share(decoded, files)} of {counted(files, 'file')}"


def _joined(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1]))) if names else ""
