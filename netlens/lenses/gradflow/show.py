"""How gradients look as tables: in a terminal, as plain text and as Markdown.

Where there is no room, columns give way in a fixed order, and one line says which; of hundreds of parameters a terminal shows the worst,
and a pipe has all of them. A sick cell has a colour and a sign; one line says whether the model learns, the findings below it why not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import ConsoleRenderable

from netlens.drawing.escapes import markdown_text
from netlens.drawing.facts import fact_lines, facts_markdown
from netlens.drawing.fitting import fitted
from netlens.drawing.tables import Line, Sheet, render
from netlens.lenses.gradflow.columns import SICK, STYLES, Table, chosen, of_layers, of_parameters, of_ranks
from netlens.lenses.gradflow.lines import facts, head, title_line, warning
from netlens.lenses.gradflow.report import GradflowReport, LayerFlow
from netlens.lenses.gradflow.rules import blamed, verdict
from netlens.wording import counted

__all__ = ["as_markdown", "as_text", "table"]

MOST_ROWS = 40  # parameters in a terminal
MOST_IN_MARKDOWN = 100  # a job summary that is too long is cut by who shows it
FEW_LAYERS = 12  # all are shown
NEIGHBOURS = 2  # layers before and after the one at which something goes wrong


@dataclass(frozen=True, slots=True)
class _Part:
    """A table, and the lines below that explain it."""

    sheet: Sheet
    below: tuple[str, ...]


def table(report: GradflowReport, width: int | None, *, title: str = "", sort: str | None = None) -> list[ConsoleRenderable]:
    """Draw the report for a terminal of `width` cells; None is as wide as needed, with all rows.

    Args:
        title: what the user called the model.
        sort: "order", forward, which is usual, or "worst", what is most wrong first.

    Raises:
        UsageError: there is no such order.
    """
    drawn: list[ConsoleRenderable] = [Line(title_line(report, title), "bold")]
    drawn += [Line(text, "bold yellow") for text in warning(report)]
    drawn += fact_lines(head(report))
    for part in _parts(report, width, sort, None if width is None else MOST_ROWS):
        drawn += [Line(""), part.sheet, *(Line(text, "dim") for text in part.below)]
    said, how = verdict(report)
    return [*drawn, Line(""), *fact_lines(facts(report)), Line(""), Line(said, STYLES[how] or "bold")]


def as_text(report: GradflowReport, width: int | None = None, *, title: str = "", sort: str | None = None) -> str:
    """Draw the report as plain text; without a width nothing is wrapped or cut."""
    return render(table(report, width, title=title, sort=sort), width)


def as_markdown(report: GradflowReport, *, title: str = "", sort: str | None = None) -> str:
    """Draw the report for a pull request or a job summary, the answer first.

    Raises:
        UsageError: there is no such order.
    """
    parts = [f"### {markdown_text(title_line(report, title))}", *(f"**{markdown_text(text)}**" for text in warning(report))]
    parts += [f"**{markdown_text(verdict(report)[0])}**", facts_markdown(head(report))]
    for part in _parts(report, None, sort, MOST_IN_MARKDOWN):
        parts += [part.sheet.markdown().rstrip("\n"), *map(markdown_text, part.below)]
    return "\n\n".join([*parts, facts_markdown(facts(report))]) + "\n"


def _parts(report: GradflowReport, width: int | None, sort: str | None, most: int | None) -> Iterator[_Part]:
    if report.parameters:
        places = chosen(report, sort, most)
        yield _fitted(of_parameters(report, places), width, *_left_out(report, places, sort, width))
    layers = _layers(report, most)
    if layers:
        left = len(report.layers) - len(layers)
        more = f"the gradient by what layers put out; {counted(left, 'other layer')} in {_elsewhere(width)}" if left else ""
        yield _fitted(of_layers(report, layers), width, more)
    if report.ranks:
        yield _fitted(of_ranks(report, report.ranks[:MOST_ROWS]), width)


def _elsewhere(width: int | None) -> str:
    """Name what has all rows: a terminal has a width, and Markdown has none."""
    return "--format json" if width is None else "a pipe and in --format json"


def _left_out(report: GradflowReport, places: list[int], sort: str | None, width: int | None) -> Iterator[str]:
    """Say which rows are not shown, and in what order those are that are."""
    every = len(report.shown) or len(report.parameters)
    order = "the worst first" if sort == "worst" else ""
    if len(places) < every:
        first = order or "the worst and those furthest from the usual size, in forward order"
        yield f"{len(places):,} of {counted(every, 'parameter')}, {first}; all are in {_elsewhere(width)}"
    elif order:
        yield order


def _layers(report: GradflowReport, most: int | None) -> list[LayerFlow]:
    """Choose layers: all in a pipe and where there is no parameter, else those around the ones at which something goes wrong."""
    if most is None:
        return list(report.layers)
    if not report.parameters:
        return list(report.layers[:most])
    if blamed(report) and len(report.layers) <= FEW_LAYERS:
        return list(report.layers)
    wrong = [place for place, layer in enumerate(report.layers) if layer.name in blamed(report)]
    return [layer for place, layer in enumerate(report.layers) if any(abs(place - other) <= NEIGHBOURS for other in wrong)]


def _fitted(drawn: Table, width: int | None, *more: str) -> _Part:
    """Leave blank columns out, choose those that fit, and say below what they mean and which are hidden."""
    filled = {name: field for name, field in drawn.fields.items() if any(cell.text for cell in field)}
    columns = {name: drawn.columns[name] for name in filled}
    sheet, shown, shortened = fitted(columns, filled, width, gives_way=drawn.gives_way, stays=drawn.stays, ill=drawn.ill)
    hidden = [columns[name].header for name in filled if name not in shown]
    legend = [f"{columns[name].header}: {drawn.legend[name]}" for name in shown if name in drawn.legend]
    legend += [f"{SICK}: see the findings"] if drawn.ill.intersection(shown) else []
    less = [*(["names shortened"] if shortened else []), *([f"{', '.join(hidden)} hidden"] if hidden else [])]
    gone = f"{' and '.join(less)} to fit {width} columns; a wider terminal or a pipe shows all" if less else ""
    return _Part(sheet, tuple(filter(None, (" · ".join(legend), gone, *more))))
