"""How a checkpoint looks: in a terminal, as plain text and as Markdown, in the style of a model's summary.

The rows that are not marked with Σ add up to the totals row. Where there is room, numbers are exact; in a narrow terminal they are rounded,
then columns give way in a fixed order, and one line says so. Names come from the file: they are shown as data, and long ones are cut.
"""

from __future__ import annotations

from rich.console import ConsoleRenderable

from netlens.drawing.escapes import markdown_text
from netlens.drawing.facts import fact_lines, facts_markdown
from netlens.drawing.tables import Line, Sheet, kept, render, total_width
from netlens.lenses.summary.checkpoint_cells import Pen, cells, column, total_cell
from netlens.lenses.summary.checkpoint_columns import GIVES_WAY, USUAL, VALUES
from netlens.lenses.summary.checkpoint_facts import facts, group_line, legend, title_line
from netlens.lenses.summary.checkpoint_report import CheckpointReport
from netlens.lenses.summary.checkpoint_rows import Plan, plan
from netlens.lenses.summary.columns import REMARKS
from netlens.lenses.summary.rows import TableOptions


def table(report: CheckpointReport, options: TableOptions, width: int | None, *, title: str = "") -> list[ConsoleRenderable]:
    """Draw the report for a terminal of `width` cells; None is as wide as needed. `title` is what the user called the file.

    Raises:
        UsageError: `--only` matches nothing.
    """
    drawn: list[ConsoleRenderable] = [Line(title_line(report, title), "bold"), Line(group_line(report))]
    if any(group.tensors for group in report.table):
        chosen, sheet, hidden, rounded = _fitted(report, options, width)
        drawn += [Line(""), sheet]
        drawn += [Line(" · ".join(signs), "dim")] if (signs := legend(chosen, hidden, rounded, width)) else []
    lines = fact_lines(facts(report, title))
    return drawn + ([Line(""), *lines] if lines else [])


def as_text(report: CheckpointReport, width: int | None = None, options: TableOptions | None = None, *, title: str = "") -> str:
    """Draw the report as plain text; without a width nothing is rounded, wrapped or cut."""
    return render(table(report, options or TableOptions(), width, title=title), width)


def as_markdown(report: CheckpointReport, options: TableOptions | None = None, *, title: str = "") -> str:
    """Draw the report for a pull request or a job summary."""
    parts = [f"### {markdown_text(title_line(report, title))}", markdown_text(group_line(report))]
    if any(group.tensors for group in report.table):
        chosen, sheet, _hidden, _rounded = _fitted(report, options or TableOptions(), None)
        parts += [sheet.markdown().rstrip("\n"), markdown_text(" · ".join(legend(chosen, [], False, None)))]
    parts += [facts_markdown(facts(report, title))]
    return "\n\n".join(part for part in parts if part) + "\n"


def _fitted(report: CheckpointReport, options: TableOptions, width: int | None) -> tuple[Plan, Sheet, list[str], bool]:
    """Choose rows and columns: exact numbers where they fit, then rounded ones, then fewer columns.

    Returns:
        the plan, the table, the headers of hidden columns, whether numbers are rounded.
    """
    names = options.columns if options.columns is not None else (*USUAL, *VALUES) if report.values_read else USUAL
    chosen = plan(report, options)
    sheet = _sheet(report, chosen, names, exact=True)
    if width is None or total_width(sheet.widths()) <= width:
        return chosen, sheet, [], False
    rounded = _sheet(report, chosen, names, exact=False)
    left = kept(names, rounded.narrowest(), width, GIVES_WAY, ("name",))
    hidden = [head.header for index, head in enumerate(rounded.columns) if index not in left]
    return chosen, rounded.select(left), hidden, True


def _sheet(report: CheckpointReport, chosen: Plan, names: tuple[str, ...], exact: bool) -> Sheet:
    places = {place for group in report.table for place in group.locations}
    pen = Pen(report, chosen, exact, several_places=len(places) > 1)
    fields = {name: cells(name, pen) for name in (*names, REMARKS)}
    if not any(cell.text for cell in fields[REMARKS]):
        del fields[REMARKS]
    rows = list(zip(*fields.values(), strict=True))
    return Sheet(tuple(column(name, pen) for name in fields), rows, [[total_cell(name, pen) for name in fields]])
