"""How data look as tables: in a terminal, as plain text and as Markdown.

Splits stand side by side where there is room, else below one another; of hundreds of classes a terminal shows the largest and the
smallest, and a pipe has all of them. One line says whether the data are fit to train on, the findings below it why not.
"""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import ConsoleRenderable

from netlens.drawing.escapes import markdown_code, markdown_text
from netlens.drawing.facts import Fact, fact_lines, facts_markdown
from netlens.drawing.fitting import fitted
from netlens.drawing.tables import Cell, Column, Line, Sheet, render, total_width
from netlens.findings import Severity
from netlens.lenses.check_data.columns import Table, of_classes, of_fields, split_facts
from netlens.lenses.check_data.lines import HEADER, facts, normalize, title_line, warning
from netlens.lenses.check_data.report import CheckDataReport
from netlens.lenses.check_data.rules import verdict
from netlens.wording import counted, short

__all__ = ["as_markdown", "as_text", "table"]

MOST_ROWS = 20  # classes in a terminal
MOST_IN_MARKDOWN = 100  # a job summary that is too long is cut by who shows it
STYLES = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.INFO: "bold green"}


def table(report: CheckDataReport, width: int | None, *, title: str = "") -> list[ConsoleRenderable]:
    """Draw the report for a terminal of `width` cells; None is as wide as needed, with all rows. `title` is what the user called it."""
    drawn: list[ConsoleRenderable] = [Line(title_line(report, title), "bold")]
    drawn += [Line(text, "bold yellow") for text in warning(report)]
    drawn += _splits(report, width)
    for part in _tables(report, None if width is None else MOST_ROWS):
        sheet, below = _fitted(part[0], width)
        drawn += [Line(""), sheet, *(Line(text, "dim") for text in (*below, part[1]) if text)]
    pasted = normalize(report)
    drawn += [Line(""), Line(pasted[0]), Line(pasted[1], "dim")] if pasted else []
    said, how = verdict(report)
    return [*drawn, Line(""), *fact_lines(facts(report)), Line(""), Line(said, STYLES[how])]


def as_text(report: CheckDataReport, width: int | None = None, *, title: str = "") -> str:
    """Draw the report as plain text; without a width nothing is wrapped or cut."""
    return render(table(report, width, title=title), width)


def as_markdown(report: CheckDataReport, *, title: str = "") -> str:
    """Draw the report for a pull request or a job summary, the answer first."""
    parts = [f"### {markdown_text(title_line(report, title))}", *(f"**{markdown_text(text)}**" for text in warning(report))]
    parts.append(f"**{markdown_text(verdict(report)[0])}**")
    if report.splits:
        parts.append(_side_by_side(report).markdown().rstrip("\n"))
    for drawn, below in _tables(report, MOST_IN_MARKDOWN):
        parts += [_fitted(drawn, None)[0].markdown().rstrip("\n"), markdown_text(below)]
    pasted = normalize(report)
    parts += [f"{markdown_code(pasted[0])}: {markdown_text(pasted[1])}"] if pasted else []
    return "\n\n".join(filter(None, [*parts, facts_markdown(facts(report))])) + "\n"


def _splits(report: CheckDataReport, width: int | None) -> Iterator[ConsoleRenderable]:
    """Draw the facts of each split as a column, or where there is no room below one another."""
    sheet = _side_by_side(report)
    if not report.splits:
        return
    yield Line("")
    if len(report.splits) > 1 and (width is None or total_width(sheet.widths()) <= width):
        yield sheet
        return
    rows = split_facts(report)
    for place, split in enumerate(report.splits):
        if len(report.splits) > 1:
            yield Line(short(split.name, HEADER), "bold")
        yield from fact_lines([Fact(label, texts[place]) for label, texts in rows if texts[place]])


def _side_by_side(report: CheckDataReport) -> Sheet:
    columns = [Column(""), *(Column(short(split.name, HEADER)) for split in report.splits)]
    return Sheet(tuple(columns), [[Cell(label, "dim"), *map(Cell, texts)] for label, texts in split_facts(report)])


def _tables(report: CheckDataReport, most: int | None) -> Iterator[tuple[Table, str]]:
    """Yield the tables, each with a line that says what is left out."""
    if any(split.classes for split in report.splits):
        drawn, left = of_classes(report, most)
        where = "--format json" if most == MOST_IN_MARKDOWN else "a pipe and in --format json"
        yield drawn, f"the largest and the smallest; {counted(left, 'class').replace('classs', 'classes')} more in {where}" if left else ""
    if any(loader.fields for loader in report.loaders):
        fields = of_fields(report)
        yield fields, "mean and std: of each channel" if "mean" in fields.fields else ""


def _fitted(drawn: Table, width: int | None) -> tuple[Sheet, list[str]]:
    """Leave out columns for which there is no room, and say which."""
    sheet, shown, shortened = fitted(drawn.columns, drawn.fields, width, gives_way=drawn.gives_way, stays=drawn.stays)
    hidden = [drawn.columns[name].header for name in drawn.fields if name not in shown and drawn.columns[name].header]
    less = [*(["names shortened"] if shortened else []), *([f"{', '.join(hidden)} hidden"] if hidden else [])]
    return sheet, [f"{' and '.join(less)} to fit {width} columns; a wider terminal or a pipe shows all"] if less else []
