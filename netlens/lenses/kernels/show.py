"""How the weights of a model look as a table: in a terminal, as plain text and as Markdown.

Where there is no room, columns give way in a fixed order, those that are blank first, and one line says which. A sick cell has a colour
and a sign; the findings below say what is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import ConsoleRenderable

from netlens.drawing.escapes import markdown_text
from netlens.drawing.facts import fact_lines, facts_markdown
from netlens.drawing.fitting import fitted
from netlens.drawing.tables import Line, Sheet, render
from netlens.lenses.kernels.cells import cells, column
from netlens.lenses.kernels.columns import COLUMNS, GIVES_WAY, STAYS, ordered, parse_columns, usual_columns
from netlens.lenses.kernels.lines import facts, left_out, legend, title_line
from netlens.lenses.kernels.report import KernelsReport
from netlens.lenses.kernels.rules import marks

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
    ill = {name for row in sick.values() for name in row}
    drawn, shown, shortened = fitted({name: column(name) for name in names}, fields, width, gives_way=GIVES_WAY, stays=STAYS, ill=ill)
    hidden = [COLUMNS[name].header for name in filled if name not in shown]
    below = [
        legend(report, [name for name in shown if name in filled], not ill.isdisjoint(shown)),
        left_out(report, len(layers), sort, hidden, shortened, width),
    ]
    return drawn, [text for text in below if text]
