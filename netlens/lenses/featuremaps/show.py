"""How activations look as a table: in a terminal, as plain text and as Markdown.

Where there is no room, columns give way in a fixed order, those that are blank first, and one line says which. A sick cell has a colour
and a sign; the findings below say what is wrong.
"""

from __future__ import annotations

from rich.console import ConsoleRenderable

from netlens.drawing.escapes import markdown_text
from netlens.drawing.facts import Fact, fact_lines, facts_markdown
from netlens.drawing.fitting import fitted
from netlens.drawing.numbers import byte_size, exact, shape
from netlens.drawing.tables import Line, Sheet, render
from netlens.lenses.featuremaps.columns import ATTENTION, COLUMNS, GIVES_WAY, SICK, STAYS, attention_row, cells, column
from netlens.lenses.featuremaps.report import FeaturemapsReport, OutputFacts, Run
from netlens.lenses.featuremaps.rules import marks, peaked
from netlens.wording import counted, number, short

__all__ = ["as_markdown", "as_text", "table"]


def table(report: FeaturemapsReport, width: int | None, *, title: str = "") -> list[ConsoleRenderable]:
    """Draw the report for a terminal of `width` cells; None is as wide as needed. `title` is what the user called the model."""
    drawn: list[ConsoleRenderable] = [Line(title_line(report, title), "bold"), *map(Line, _run_lines(report))]
    if report.layers:
        sheet, below = _fitted(report, width)
        drawn += [Line(""), sheet, *(Line(text, "dim") for text in below)]
    if report.attention:
        drawn += [Line(""), _attention(report), Line(_ATTENTION_LEGEND, "dim")]
    return [*drawn, Line(""), *fact_lines(facts(report))]


def as_text(report: FeaturemapsReport, width: int | None = None, *, title: str = "") -> str:
    """Draw the report as plain text; without a width nothing is wrapped or cut."""
    return render(table(report, width, title=title), width)


def as_markdown(report: FeaturemapsReport, *, title: str = "") -> str:
    """Draw the report for a pull request or a job summary."""
    parts = [f"### {markdown_text(title_line(report, title))}", *map(markdown_text, _run_lines(report))]
    if report.layers:
        sheet, below = _fitted(report, None)
        parts += [sheet.markdown().rstrip("\n"), *map(markdown_text, below)]
    if report.attention:
        parts += [_attention(report).markdown().rstrip("\n"), markdown_text(_ATTENTION_LEGEND)]
    return "\n\n".join([*parts, facts_markdown(facts(report))]) + "\n"


def title_line(report: FeaturemapsReport, title: str) -> str:
    """Say what was looked at, and where its values come from."""
    parts = [title]
    for part in (report.model, report.source):
        parts += [part] if part and not any(said.endswith(part) for said in parts) else []
    return " · ".join(short(part) if part != report.source else part for part in parts if part)


def _run_lines(report: FeaturemapsReport) -> list[str]:
    """Say what went in, and how it was run."""
    run = report.run
    noise = ": noise, so trust numbers about samples less than those about the network" if run.random_inputs else ""
    how = [counted(run.samples, "sample"), f"on {run.device}", run.dtype, f"autocast {run.autocast}" if run.autocast else ""]
    how += ["channels last"] if run.channels_last else []
    how += ["eval mode" + (", BatchNorm by the batch: it has no statistics yet" if run.batch_statistics else "")]
    lines = [f"input {report.inputs}{noise}", " · ".join(part for part in how if part)]
    return [*lines, f"preprocessing {run.preprocessing}"] if run.preprocessing else lines


def _fitted(report: FeaturemapsReport, width: int | None) -> tuple[Sheet, list[str]]:
    """Choose columns; return the table and the lines below it, which explain it and say what is not shown."""
    layers, sick = list(report.layers), marks(report)
    fields = {name: cells(name, layers, sick) for name in COLUMNS}
    filled = {name: field for name, field in fields.items() if any(cell.text for cell in field)}
    ill = {name for row in sick.values() for name in row}
    columns = {name: column(name) for name in filled}
    drawn, shown, shortened = fitted(columns, filled, width, gives_way=GIVES_WAY, stays=STAYS, ill=ill)
    hidden = [COLUMNS[name].header for name in filled if name not in shown]
    legend = [f"{COLUMNS[name].header}: {COLUMNS[name].help}" for name in shown if COLUMNS[name].help]
    legend += [f"{SICK}: see the findings"] if ill.intersection(shown) else []
    less = [*(["names shortened"] if shortened else []), *([f"{', '.join(hidden)} hidden"] if hidden else [])]
    below = [" · ".join(legend), f"{' and '.join(less)} to fit {width} columns; a wider terminal or a pipe shows all" if less else ""]
    return drawn, [text for text in below if text]


_ATTENTION_LEGEND = "entropy of a head / ln(tokens): 1 looks everywhere, 0 at one token · distance: how far tokens look"


def _attention(report: FeaturemapsReport) -> Sheet:
    sick = peaked(report)
    return Sheet(ATTENTION, [attention_row(layer, sick) for layer in report.attention])


def facts(report: FeaturemapsReport) -> list[Fact]:
    """State what holds for the whole run."""
    found = {
        "output": "" if report.output is None else _output(report.output, report.run),
        "values": _values(report),
        "memory": "" if report.run.peak_bytes is None else f"{byte_size(report.run.peak_bytes)} at the peak on {report.run.device}",
        "pictures": _pictures(report),
    }
    return [Fact(label, text) for label, text in found.items() if text] + [Fact("note", note) for note in report.notes]


def _output(output: OutputFacts, run: Run) -> str:
    parts = [f"{output.name} {shape(output.shape)}".strip()]
    if output.nonfinite:
        return f"{parts[0]} · {exact(output.nonfinite)} NaN or Inf"
    if output.between is not None:
        parts.append(f"variance between samples / mean square {number(output.between)}")
    if output.classes and output.predicted is not None and output.top_probability is not None and output.entropy is not None:
        top, entropy = number(output.top_probability), number(output.entropy)
        parts.append(f"as scores of {exact(output.classes)} classes: largest probability {top}, entropy / ln(classes) {entropy}")
        classes = "1 class" if output.predicted == 1 else f"{exact(output.predicted)} classes"
        parts.append(f"{classes} predicted for {counted(run.samples, 'sample')}")
    return " · ".join(parts)


def _values(report: FeaturemapsReport) -> str:
    nan, infinite = sum(layer.nan for layer in report.layers), sum(layer.infinite for layer in report.layers)
    told = [f"{exact(count)} {name}" for count, name in ((nan, "NaN"), (infinite, "Inf")) if count]
    sampled = any(layer.histogram is not None and layer.histogram.sampled for layer in report.layers)
    note = " · rank, |corr|, between and percentiles are of an even sample" if sampled else ""
    looked = f" · {exact(sum(layer.elements for layer in report.layers))} in {counted(len(report.layers), 'output')}"
    return (" · ".join(told) or "all finite") + looked + note if report.layers else ""


def _pictures(report: FeaturemapsReport) -> str:
    if not report.pictures:
        return ""
    folders = dict.fromkeys(picture.file.rpartition("/")[0] or "." for picture in report.pictures)
    return f"{exact(len(report.pictures))} in {', '.join(folders)} · --format json lists them"
