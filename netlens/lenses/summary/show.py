"""How a summary looks: in a terminal, as plain text, as Markdown and in a notebook.

The rows that are not marked with Σ add up to the totals row. Where there is room, numbers are exact; in a narrow terminal they are rounded,
then columns give way in a fixed order, and one line says so. Nothing here knows colour from meaning: every mark is also a word or a sign.
"""

from __future__ import annotations

from rich.console import ConsoleRenderable

from netlens.drawing.escapes import html_text, markdown_text
from netlens.drawing.facts import Fact, fact_lines, facts_markdown
from netlens.drawing.tables import Line, Sheet, kept, render, total_width
from netlens.lenses.summary.blocks import failure, legend, shape_line, title_line, totals, uncounted
from netlens.lenses.summary.cells import Pen, cells, column, total_cell
from netlens.lenses.summary.columns import COLUMNS, GIVES_WAY, REMARKS, checked_column, needed_metrics, parse_columns, usual_columns
from netlens.lenses.summary.report import SummaryReport, Weight
from netlens.lenses.summary.rows import Plan, TableOptions, plan

__all__ = ["COLUMNS", "TableOptions", "as_html", "as_markdown", "as_text", "parse_columns", "table"]

_STYLE = (
    ".netlens{font-size:13px;line-height:1.45;overflow-x:auto}"
    ".netlens p{margin:.2em 0;opacity:.85}.netlens p.t{font-weight:600;opacity:1;font-size:14px}.netlens p.e{color:#c62828;font-weight:600}"
    ".netlens table{border-collapse:collapse;border:0;margin:.6em 0;font-size:13px;font-variant-numeric:tabular-nums}"
    ".netlens th,.netlens td{text-align:left;padding:1px 12px 1px 0;border:0;white-space:nowrap;background:none;vertical-align:baseline}"
    ".netlens th{border-bottom:1px solid currentColor;font-weight:600}.netlens tfoot td{border-top:1px solid currentColor;font-weight:600}"
    ".netlens .r{text-align:right}.netlens .c{font-family:ui-monospace,Menlo,Consolas,monospace;font-size:12px}"
    ".netlens .d{opacity:.55}.netlens td.e{color:#c62828;font-weight:600}.netlens td i{opacity:.45;font-style:normal}"
)


def table(report: SummaryReport, options: TableOptions, width: int | None, *, title: str = "") -> list[ConsoleRenderable]:
    """Draw the report for a terminal of `width` cells; None is as wide as needed. `title` is what the user called the model.

    Print them with `crop=False`: what cannot be made to fit is to be wrapped by the terminal, never cut.

    Raises:
        UsageError: the options name a column, a type or an order that there is not.
    """
    chosen, sheet, hidden, rounded = _fitted(report, options, width)
    drawn: list[ConsoleRenderable] = [Line(title_line(report, title), "bold"), Line(shape_line(report)), Line(""), sheet]
    drawn += [Line(" · ".join(signs), "dim")] if (signs := legend(report, chosen, hidden, rounded, width)) else []
    failed = failure(report)
    if failed is not None:
        drawn += [Line(""), Line(failed[0], "bold red"), *fact_lines(failed[1], indent=2)]
    drawn += [Line(""), *fact_lines(totals(report))]
    operators = uncounted(report)
    if operators is not None:
        drawn += [Line(""), Line(operators[0], "bold"), operators[1]]
    notes = [Line(note, label="note") for note in report.notes]
    return drawn + ([Line(""), *notes] if notes else [])


def as_text(report: SummaryReport, width: int | None = None, options: TableOptions | None = None, *, title: str = "") -> str:
    """Draw the report as plain text; without a width nothing is rounded, wrapped or cut."""
    return render(table(report, options or TableOptions(), width, title=title), width)


def as_markdown(report: SummaryReport, options: TableOptions | None = None, *, title: str = "") -> str:
    """Draw the report for a pull request or a job summary."""
    chosen, sheet, _hidden, _rounded = _fitted(report, options or TableOptions(), None)
    parts = [f"### {markdown_text(title_line(report, title))}", markdown_text(shape_line(report))]
    failed = failure(report)
    if failed is not None:
        parts += [f"**{markdown_text(failed[0])}**", facts_markdown(failed[1])]
    parts += [sheet.markdown().rstrip("\n")]
    parts += [markdown_text(" · ".join(legend(report, chosen, [], False, None))), facts_markdown(totals(report))]
    operators = uncounted(report)
    if operators is not None:
        parts += [f"**{markdown_text(operators[0])}**", operators[1].markdown().rstrip("\n")]
    parts += [f"> note: {markdown_text(note)}" for note in report.notes]
    return "\n\n".join(part for part in parts if part) + "\n"


def as_html(report: SummaryReport, options: TableOptions | None = None, *, title: str = "") -> str:
    """Draw the report for the cell of a notebook: self-contained, readable on light and on dark ground."""
    chosen, sheet, _hidden, _rounded = _fitted(report, options or TableOptions(), None)
    lines = [_paragraph(title_line(report, title), "t"), _paragraph(shape_line(report)), sheet.html()]
    lines += [_paragraph(line, "d") for line in legend(report, chosen, [], False, None)]
    failed = failure(report)
    if failed is not None:
        lines += [_paragraph(failed[0], "e"), _html_facts(failed[1])]
    lines += [_html_facts(totals(report))]
    operators = uncounted(report)
    if operators is not None:
        lines += [_paragraph(operators[0]), operators[1].html()]
    lines += [_paragraph(f"note: {note}") for note in report.notes]
    return f'<div class="netlens"><style>{_STYLE}</style>\n' + "\n".join(lines) + "</div>\n"


def _fitted(report: SummaryReport, options: TableOptions, width: int | None) -> tuple[Plan, Sheet, list[str], bool]:
    """Choose rows and columns: exact numbers where they fit, then rounded ones, then fewer columns.

    Returns:
        the plan, the table, the headers of hidden columns, whether numbers are rounded.
    """
    names = tuple(dict.fromkeys(map(checked_column, options.columns))) if options.columns is not None else usual_columns(report)
    names = names if "name" in names else ("name", *names)
    chosen = plan(report, options, needed_metrics(names))
    sheet = _sheet(report, chosen, names, exact=True)
    if width is None or total_width(sheet.widths()) <= width:
        return chosen, sheet, [], False
    rounded = _sheet(report, chosen, names, exact=False)
    left = kept(names, rounded.narrowest(), width, GIVES_WAY, stays=("name", "params"))
    hidden = [head.header for index, head in enumerate(rounded.columns) if index not in left]
    return chosen, rounded.select(left), hidden, True


def _sheet(report: SummaryReport, chosen: Plan, names: tuple[str, ...], exact: bool) -> Sheet:
    owned: dict[str, list[Weight]] = {}
    for weight in report.weights:
        owned.setdefault(weight.name.rpartition(".")[0], []).append(weight)
    pen = Pen(report, chosen, exact, owned)
    fields = {name: cells(name, pen) for name in (*names, REMARKS)}
    if not any(cell.text for cell in fields[REMARKS]):
        del fields[REMARKS]
    rows = list(zip(*fields.values(), strict=True))
    return Sheet(tuple(column(name, pen) for name in fields), rows, [[total_cell(name, pen) for name in fields]])


def _html_facts(facts: list[Fact]) -> str:
    rows = "".join(f'<tr><td class="d">{html_text(fact.label)}</td><td>{html_text(fact.text)}</td></tr>' for fact in facts)
    return f"<table><tbody>{rows}</tbody></table>"


def _paragraph(text: str, css: str = "") -> str:
    return f'<p class="{css}">{html_text(text)}</p>' if css else f"<p>{html_text(text)}</p>"
