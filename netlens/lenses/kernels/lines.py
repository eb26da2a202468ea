"""What stands around the table of weights: lines of plain text, the same in the terminal and in Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import hypot, isnan, prod

from netlens.drawing.facts import Fact
from netlens.drawing.numbers import exact
from netlens.lenses.kernels.cells import SICK
from netlens.lenses.kernels.columns import COLUMNS
from netlens.lenses.kernels.report import KernelsReport
from netlens.wording import counted, number, short

LEARNED_NOTHING = "nothing has been learned yet"
_EXPLAINED = ("gain", "init", "dead", "duplicates", "rank", "smooth", "moved")  # the others say it in their header


def title_line(report: KernelsReport, title: str) -> str:
    """Say what was looked at, and where its values come from: "resnet18 · ResNet · best.ckpt · against epoch01.ckpt"."""
    parts = [title]
    for part in (report.model, report.source):
        parts += [part] if part and not any(said.endswith(part) for said in parts) else []
    if report.initialised and LEARNED_NOTHING not in report.source:
        parts[-1] += f": {LEARNED_NOTHING}"
    return " · ".join(short(part) if part != report.source else part for part in parts if part) + _against(report)


def _against(report: KernelsReport) -> str:
    return "" if report.against is None else f" · against {short(report.against)}"


def legend(report: KernelsReport, shown: Sequence[str], sick: bool) -> str:
    """Explain the columns in this table that need it."""
    default = {"init": "std / std of torch's default initialisation"} if _by_default(report) else {}
    texts = [f"{COLUMNS[name].header}: {default.get(name, COLUMNS[name].help)}" for name in _EXPLAINED if name in shown]
    return " · ".join([*texts, f"{SICK}: see the findings"] if sick else texts)


def left_out(report: KernelsReport, rows: int, sort: str | None, hidden: Sequence[str], shortened: bool, width: int | None) -> str:
    """Say which rows and columns are not shown."""
    count = len(report.layers)
    order = f", by {sort}" if sort else ""
    first = f"{exact(rows)} of {counted(count, 'layer')}{order}" if rows < count else f"sorted{order[1:]}" if sort else ""
    given = " and ".join([*(["names shortened"] if shortened else []), *([f"{', '.join(hidden)} hidden"] if hidden else [])])
    second = f"{given} to fit {width} columns; a wider terminal or a pipe shows all" if given else ""
    return " · ".join(part for part in (first, second) if part)


def facts(report: KernelsReport) -> list[Fact]:
    """State what holds for all weights together."""
    found = {
        "weights": _weights(report),
        "filters": _filters(report),
        "values": _values(report),
        "norm layers": _norms(report),
        "moved": _moved(report),
        "pictures": _pictures(report),
    }
    return [Fact(label, text) for label, text in found.items() if text] + [Fact("note", note) for note in report.notes]


def _by_default(report: KernelsReport) -> bool:
    return any(layer.initial_source.startswith("torch") for layer in report.layers)


def _weights(report: KernelsReport) -> str:
    if not report.layers:
        return "no convolution, linear layer or embedding"
    types = Counter(layer.type or layer.kind for layer in report.layers)
    named = ", ".join(f"{count:,} {short(name)}" for name, count in types.most_common())
    norm = hypot(*(layer.norm for layer in report.layers if layer.norm is not None))
    return f"{exact(sum(prod(layer.shape) for layer in report.layers))} in {named} · norm {number(norm)}"


def _filters(report: KernelsReport) -> str:
    layers = [layer for layer in report.layers if layer.kind != "embedding"]
    if not layers:
        return ""
    dead, copies = sum(layer.dead for layer in layers), sum(layer.duplicates for layer in layers)
    told = f"{exact(dead) if dead else 'none'} dead · {exact(copies) if copies else 'no'} near {'copy' if copies == 1 else 'copies'}"
    return f"{exact(sum(layer.filters for layer in layers))} · {told}"


def _values(report: KernelsReport) -> str:
    nan, infinite = sum(layer.nan for layer in report.layers), sum(layer.infinite for layer in report.layers)
    told = [f"{exact(count)} {name}" for count, name in ((nan, "NaN"), (infinite, "Inf")) if count]
    return " · ".join(told) or ("all finite" if report.layers else "")


def _norms(report: KernelsReport) -> str:
    if not report.norms:
        return ""
    types = Counter(norm.type for norm in report.norms)
    named = ", ".join(f"{count:,} {short(name)}" if name else counted(count, "normalisation") for name, count in types.most_common())
    variances = [norm.least_variance for norm in report.norms if norm.least_variance is not None]
    untouched = sum(norm.untouched for norm in report.norms)
    if untouched == len(report.norms):
        return f"{named} · running statistics as initialised"
    least = f" · running variance {number(min(variances))} or more" if variances else ""
    return named + least + (f" · running statistics of {exact(untouched)} as initialised" if untouched else "")


def _moved(report: KernelsReport) -> str:
    compared = [(layer.change.relative, short(layer.name)) for layer in report.layers if layer.change is not None]
    changes = sorted(change for change in compared if not isnan(change[0]))
    if not changes:
        return ""
    if not changes[-1][0]:
        return "nothing: the weights are equal"
    moved = [change for change in changes if change[0]]
    (least, at_least), (most, at_most) = moved[0], moved[-1]
    still = f" · {counted(len(changes) - len(moved), 'layer')} not at all" if len(moved) < len(changes) else ""
    lowest = f" · least {at_least} ({number(least)})" if len(moved) > 1 else ""
    return f"most {at_most} ({number(most)}){lowest}{still}"


def _pictures(report: KernelsReport) -> str:
    if not report.pictures:
        return ""
    folders = dict.fromkeys(picture.file.rpartition("/")[0] or "." for picture in report.pictures)
    return f"{exact(len(report.pictures))} in {', '.join(folders)} · --format json lists them"
