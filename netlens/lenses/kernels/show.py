"""How the weights of a model look as a table: in a terminal, as plain text and as Markdown.

Where there is no room, columns give way in a fixed order, those that are blank first, and one line says which. A sick cell has a colour
and a sign; the findings below say what is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from rich.console import ConsoleRenderable

from netlens.drawing.escapes import markdown_text
from netlens.drawing.facts import fact_lines, facts_markdown
from netlens.drawing.tables import Cell, Line, Sheet, kept, render, total_width
from netlens.lenses.kernels.cells import CUT_TO, cells, column
from netlens.lenses.kernels.columns import COLUMNS, GIVES_WAY, STAYS, ordered, parse_columns, usual_columns
from netlens.lenses.kernels.lines import facts, left_out, legend, title_line
from netlens.lenses.kernels.report import KernelsReport
from netlens.lenses.kernels.rules import marks
from netlens.wording import abbreviated

__all__ = ["as_markdown", "as_text", "parse_columns", "table"]


def table(
    report: KernelsReport,
    width: int | None,
    *,
    title: str = "",
    columns: Sequence[str] | None = None,
    sort: str | None = None,
    top: int | None = None,
) -> list[ConsoleRenderable]:
    """Draw the report for a terminal of `width` cells; None is as wide as needed.

    Args:
        title: what the user called the model.
        columns: keys of `COLUMNS`; None: those that say something of this report.
        sort: one of `SORT_KEYS`; None: the order of the model.
        top: at most so many rows.

    Raises:
        UsageError: there is no such sort key.
    """
    drawn: list[ConsoleRenderable] = [Line(title_line(report, title), "bold")]
    if report.layers:
        sheet, below = _fitted(report, width, columns, sort, top)
        drawn += [Line(""), sheet, *(Line(text, "dim") for text in below)]
    return [*drawn, Line(""), *fact_lines(facts(report))]


def as_text(report: KernelsReport, width: int | None = None, *, title: str = "") -> str:
    """Draw the report as plain text; without a width nothing is wrapped or cut."""
    return render(table(report, width, title=title), width)


def as_markdown(
    report: KernelsReport, *, title: str = "", columns: Sequence[str] | None = None, sort: str | None = None, top: int | None = None
) -> str:
    """Draw the report for a pull request or a job summary."""
    parts = [f"### {markdown_text(title_line(report, title))}"]
    if report.layers:
        sheet, below = _fitted(report, None, columns, sort, top)
        parts += [sheet.markdown().rstrip("\n"), *map(markdown_text, below)]
    return "\n\n".join([*parts, facts_markdown(facts(report))]) + "\n"


def _fitted(
    report: KernelsReport, width: int | None, columns: Sequence[str] | None, sort: str | None, top: int | None
) -> tuple[Sheet, list[str]]:
    """Choose rows and columns; return the table and the lines below it, which explain it and say what is not shown."""
    names = tuple(columns) if columns is not None else usual_columns(report)
    layers, sick = ordered(report.layers, sort, top), marks(report)
    fields = {name: cells(name, layers, sick) for name in names}
    filled = tuple(name for name, field in fields.items() if any(cell.text for cell in field))
    sheet, shown = _sheet(fields, names), names
    if width is not None and total_width(sheet.widths()) > width:
        ill = [name for name in names if any(name in row for row in sick.values())]
        # Blank columns go first, and one with a sick cell among the last.
        sheet = _sheet(fields, filled)
        left = kept(filled, sheet.narrowest(), width, tuple(sorted(GIVES_WAY, key=ill.__contains__)), STAYS)
        sheet, shown = sheet.select(left), tuple(filled[index] for index in left)
    drawn = _shortened(sheet, shown.index("name"), width) if "name" in shown else sheet
    hidden = [COLUMNS[name].header for name in filled if name not in shown]
    signs = any(name in row for row in sick.values() for name in shown)
    below = [
        legend(report, [name for name in shown if name in filled], signs),
        left_out(report, len(layers), sort, hidden, drawn.rows != sheet.rows, width),
    ]
    return drawn, [text for text in below if text]


def _sheet(fields: Mapping[str, list[Cell]], names: Sequence[str]) -> Sheet:
    return Sheet(tuple(map(column, names)), list(zip(*(fields[name] for name in names), strict=True)))


def _shortened(sheet: Sheet, place: int, width: int | None) -> Sheet:
    """Abbreviate long names where the table is too wide, so that they need not be cut."""
    widths = sheet.widths()
    if width is None or total_width(widths) <= width:
        return sheet
    room = max(CUT_TO["name"], width - total_width(widths) + widths[place])
    names = abbreviated([row[place].text for row in sheet.rows], room)
    rows = [(*row[:place], replace(row[place], text=name), *row[place + 1 :]) for row, name in zip(sheet.rows, names, strict=True)]
    return Sheet(sheet.columns, rows)
