"""How maps look as a table: in a terminal, as plain text and as Markdown.

Where there is no room, columns give way in a fixed order, and one line says which; of hundreds of maps those with a fault stay, and a pipe
has all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import ConsoleRenderable

from netlens.drawing.escapes import markdown_text
from netlens.drawing.facts import Fact, fact_lines, facts_markdown
from netlens.drawing.fitting import fitted
from netlens.drawing.numbers import byte_size, exact, shape
from netlens.drawing.tables import Line, Sheet, render
from netlens.lenses.gradcam.choices import METHODS, Method
from netlens.lenses.gradcam.columns import Table, of_layers, of_maps, of_methods, of_predictions, of_sanity
from netlens.lenses.gradcam.ranking import believed
from netlens.lenses.gradcam.report import GradcamReport, Layer, Sanity
from netlens.lenses.gradcam.rules import marks
from netlens.wording import listed, short

__all__ = ["as_markdown", "as_text", "table"]

MOST_ROWS = 40  # maps in a terminal and in Markdown
FEW = 8  # samples, up to which their predictions are listed
MOST_LAYERS = 4  # named above the table
UNTRAINED = "UNTRAINED: these maps mean nothing"


@dataclass(frozen=True, slots=True)
class _Part:
    """A table, and below it what follows from it, and what explains it."""

    sheet: Sheet
    below: tuple[str, ...]
    verdict: str


def table(report: GradcamReport, width: int | None, *, title: str = "") -> list[ConsoleRenderable]:
    """Draw the report for a terminal of `width` cells; None is as wide as needed, with all rows.

    Args:
        title: what the user called the model.
    """
    drawn: list[ConsoleRenderable] = [Line(title_line(report, title), "bold")]
    drawn += [Line(UNTRAINED, "bold yellow")] if _warns(report) else []
    drawn += fact_lines(_head(report))
    for part in _parts(report, width, None if width is None else MOST_ROWS):
        drawn += [
            Line(""),
            part.sheet,
            *([Line(part.verdict, "bold")] if part.verdict else []),
            *(Line(text, "dim") for text in part.below),
        ]
    facts = _facts(report)
    return [*drawn, Line(""), *fact_lines(facts)] if facts else drawn


def as_text(report: GradcamReport, width: int | None = None, *, title: str = "") -> str:
    """Draw the report as plain text; without a width nothing is wrapped or cut."""
    return render(table(report, width, title=title), width)


def as_markdown(report: GradcamReport, *, title: str = "") -> str:
    """Draw the report for a pull request or a job summary."""
    parts = [f"### {markdown_text(title_line(report, title))}", *([f"**{UNTRAINED}**"] if _warns(report) else [])]
    parts += [facts_markdown(_head(report))]
    for part in _parts(report, None, MOST_ROWS):
        verdict = f"**{markdown_text(part.verdict)}**" if part.verdict else ""
        parts += [part.sheet.markdown().rstrip("\n"), verdict, *map(markdown_text, part.below)]
    return "\n\n".join(filter(None, [*parts, facts_markdown(_facts(report))])) + "\n"


def title_line(report: GradcamReport, title: str) -> str:
    """Say what was looked at, and where its weights come from."""
    parts = [title]
    for part in (report.model, report.source):
        parts += [part] if part and not any(said.endswith(part) for said in parts) else []
    return " · ".join(short(part) if part != report.source else part for part in parts if part)


def _warns(report: GradcamReport) -> bool:
    return report.initialised is True and bool(report.maps)


def _head(report: GradcamReport) -> list[Fact]:
    """State what went in, where the maps come from, and how the model was run."""
    run = report.run
    noise = ": noise, so that the maps say nothing of real pictures" if run.random_inputs else ""
    how = [run.device, run.dtype, f"autocast {run.autocast}" if run.autocast else "", "channels last" if run.channels_last else ""]
    facts = [Fact("input", f"{report.inputs}{noise}")]
    chosen = [layer for layer in report.layers if layer.chosen or report.maps]
    facts += [Fact("layer", _layer(layer)) for layer in chosen[:MOST_LAYERS]]
    if len(chosen) > MOST_LAYERS:
        facts.append(Fact("", f"and {len(chosen) - MOST_LAYERS:,} more: --format json lists them"))
    if report.maps:
        facts.append(Fact("method", _method(report)))
    classes = max((shot.classes or 0 for shot in report.shots), default=0)
    output = f"{run.output}, {exact(classes)} classes" if classes > 1 else run.output
    facts.append(Fact("run", " · ".join(filter(None, (*how, "eval mode", output)))))
    return facts + ([Fact("preprocessing", run.preprocessing)] if run.preprocessing else [])


def _layer(layer: Layer) -> str:
    grid = f"{layer.channels:,} × {' × '.join(map(str, layer.grid))}"
    where = f"{grid} ({layer.layout}, {shape(layer.shape)})" if layer.layout != "channels first" else grid
    return " · ".join(filter(None, (short(layer.name), short(layer.type), where, layer.reason)))


def _method(report: GradcamReport) -> str:
    methods = [METHODS[name] for name in dict.fromkeys(found.method for found in report.maps)]
    if len(methods) == 1:
        blind = "" if methods[0].of_class else " · knows no class"
        return f"{methods[0].title} ({methods[0].paper}){blind}{_channels(report, methods[0])}"
    return ", ".join(f"{method.title}{_channels(report, method)}" for method in methods)


def _channels(report: GradcamReport, method: Method) -> str:
    most = report.run.top_channels
    return f" · approximated by at most {exact(most)} channels" if most and method.needs == "masked inputs" else ""


def _parts(report: GradcamReport, width: int | None, most: int | None) -> Iterator[_Part]:
    if not report.maps:
        if report.layers:
            yield _fitted(of_layers(report.layers), width)
        return
    if len(report.shots) <= FEW and any(shot.top for shot in report.shots):
        yield _fitted(of_predictions(report), width)
    rows = _rows(report, most)
    left = len(report.maps) - len(rows)
    more = f"{exact(left)} of {exact(len(report.maps))} maps are not shown; a pipe or --format json has all of them" if left else ""
    yield _fitted(of_maps(report, rows), width, more)
    if report.methods:
        yield _fitted(of_methods(report), width, verdict=believed(report))
    for steps, rows_of in _by_steps(report).items():
        yield _fitted(of_sanity(steps, rows_of), width, *_sanity_legend(steps, rows_of))


def _rows(report: GradcamReport, most: int | None) -> list[int]:
    """Choose maps: of too many those with a fault, the gravest first, and then the first ones."""
    every = list(range(len(report.maps)))
    if most is None or len(every) <= most:
        return every
    ill = marks(report)
    return sorted(every, key=lambda index: -ill[index][1] if index in ill else 0)[:most]


def _by_steps(report: GradcamReport) -> dict[tuple[str, ...], list[Sanity]]:
    found: dict[tuple[str, ...], list[Sanity]] = {}
    for row in report.sanity:
        found.setdefault(row.steps, []).append(row)
    return found


def _sanity_legend(steps: tuple[str, ...], rows: Sequence[Sanity]) -> tuple[str, ...]:
    named = [short(name) for name in steps]
    down = f", then {', '.join(named[1:])}" if named[1:] else ""
    blind = [METHODS[row.method].title for row in rows if not METHODS[row.method].of_class]
    blank = any(value is None for row in rows for value in row.similarity)
    return (
        "rank correlation with the maps of the real weights, near 0 is good",
        f"drawn anew, one after the other: {named[0]}{down}" if named else "",
        f"{listed(blind)}: 1.000 until its own layer or one before it is drawn anew, for it does not look at the head" if blind else "",
        "blank: the maps were the same everywhere or not finite, and not compared" if blank else "",
    )


def _fitted(drawn: Table, width: int | None, *more: str, verdict: str = "") -> _Part:
    """Leave blank columns out, choose those that fit, and say below what they mean and which are hidden."""
    filled = {name: field for name, field in drawn.fields.items() if any(cell.text or cell.tail for cell in field)}
    columns = {name: drawn.columns[name] for name in filled}
    sheet, shown, shortened = fitted(columns, filled, width, gives_way=drawn.gives_way, stays=drawn.stays)
    hidden = [columns[name].header for name in filled if name not in shown]
    legend = " · ".join(f"{columns[name].header}: {drawn.legend[name]}" for name in shown if name in drawn.legend)
    less = [*(["names shortened"] if shortened else []), *([f"{', '.join(hidden)} hidden"] if hidden else [])]
    gone = f"{' and '.join(less)} to fit {width} columns; a wider terminal or a pipe shows all" if less else ""
    return _Part(sheet, tuple(filter(None, (legend, gone, *more))), verdict)


def _facts(report: GradcamReport) -> list[Fact]:
    """State what was written, and what else is to be known."""
    raw = [found.file for found in report.maps if found.file]
    memory = "" if report.run.peak_bytes is None else f"{byte_size(report.run.peak_bytes)} at the peak on {report.run.device}"
    found = {"memory": memory, "raw maps": _files(raw), "pictures": _files([picture.file for picture in report.pictures])}
    return [Fact(label, text) for label, text in found.items() if text] + [Fact("note", note) for note in report.notes]


def _files(files: list[str]) -> str:
    folders = dict.fromkeys(file.rpartition("/")[0] or "." for file in files)
    return f"{exact(len(files))} in {listed(list(folders))} · --format json lists them" if files else ""
