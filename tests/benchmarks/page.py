"""How the results look: the same tables on a terminal and in Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from netlens.drawing.escapes import markdown_text
from netlens.drawing.tables import Cell, Column, Line, Sheet, total_width
from tests.benchmarks.bars import Bar, missed
from tests.benchmarks.contestants import NETLENS
from tests.benchmarks.results import Inside, Results
from tests.benchmarks.rounds import Series, Spread, ratio

_NOTHING = "–"
_SPREAD = "from - to"
_STYLES = {"MISSED": "bold red", "not measured": "dim"}

Part = Sheet | Line


def parts(results: Results, width: int | None = None) -> Iterator[Part]:
    """Yield the page from top to bottom; what does not fit into `width` loses the columns of the spread."""
    yield Line(_where(results))
    waited, imports = results.waits()
    if waited:
        yield Line(
            f"Busy machine: {waited} of {imports} bare imports waited for a core or the disk. CPU times tell more than wall times.",
            style="bold yellow",
        )
    for one, how in results.missing.items():
        yield Line(f"{one} is not installed, so it is not measured: {how}", style="bold yellow")
    if results.processes:
        title = "Whole processes, input 1,3,224,224; netlens / this: what netlens takes, divided by what that process takes"
        yield from _section(title, _fitted(_processes(results.processes), width))
    if results.static:
        yield from _section("Commands that need no model", _fitted(_static(results.static), width))
    if results.inside:
        yield from _section(_inside_title(results.inside), _inside(results.inside))
    for what, why in results.failures().items():
        yield Line(f"{what} failed: {why}", style="bold red")
    yield from _section("Promises", _promises(results.bars))
    yield Line("")
    yield _conclusion(results.bars)


def markdown(results: Results) -> str:
    """Write the page as Markdown."""
    found = (part for part in parts(results) if part != Line(""))
    return "\n".join(part.markdown() if isinstance(part, Sheet) else f"{_emphasis(part)}\n" for part in found)


def _section(title: str, sheet: Sheet) -> Iterator[Part]:
    yield Line("")
    yield Line(title, style="bold")
    yield sheet


def _fitted(sheet: Sheet, width: int | None) -> Sheet:
    if width is None or total_width(sheet.narrowest()) <= width:
        return sheet
    return sheet.select([index for index, column in enumerate(sheet.columns) if column.header != _SPREAD])


def _where(results: Results) -> str:
    machine = results.machine
    versions = ", ".join(f"{package} {number}" for package, number in machine.versions.items())
    load = f"{machine.cores} cores, load {machine.load_before:.1f} before and {machine.load_after:.1f} after"
    runs = f"medians of {results.repeats} runs" if results.repeats > 1 else "one run of each"
    return f"{versions}; Python {machine.python}; {load}; {runs}, taken in turns after a warm-up, with the smallest and the largest."


def _processes(processes: Sequence[Series]) -> Sheet:
    columns = (
        Column("model", shortest=8),
        Column("process", shortest=18),
        *(Column(header, right=True) for header in ("wall s", _SPREAD, "CPU s", _SPREAD, "MiB", "netlens / this", "in CPU")),
    )
    ours = {one.job.model: one for one in processes if one.job.who == NETLENS}
    return Sheet(columns, [_process(one, ours.get(one.job.model)) for one in processes])


def _process(one: Series, ours: Series | None) -> list[Cell]:
    style = "bold" if one.job.who == NETLENS else ""
    shares = ["", ""] if one.job.who == NETLENS or ours is None else [_times(ratio(ours.wall, one.wall)), _times(ratio(ours.cpu, one.cpu))]
    memory = _number(one.peak, 1 << 20, 0)
    texts = [one.job.model, one.job.label, *_time(one.wall), *_time(one.cpu), memory, *shares]
    return [Cell(text, style) for text in texts]


def _static(static: Sequence[Series]) -> Sheet:
    columns = (Column("command"), *(Column(header, right=True) for header in ("wall s", _SPREAD, "CPU s", _SPREAD)))
    return Sheet(columns, [[Cell(text) for text in (one.job.label, *_time(one.wall), *_time(one.cpu))] for one in static])


def _inside(inside: Sequence[Inside]) -> Sheet:
    tools = list(dict.fromkeys(tool for one in inside for tool in one.seconds))
    others = [tool for tool in tools if tool != NETLENS]
    columns = [Column("model"), *(Column(f"{tool} ms", right=True) for tool in tools)]
    columns += [Column(f"netlens / {tool}", right=True) for tool in others] if NETLENS in tools else []
    return Sheet(tuple(columns), [_inside_row(one, tools, others if NETLENS in tools else []) for one in inside])


def _inside_row(one: Inside, tools: Sequence[str], others: Sequence[str]) -> list[Cell]:
    ours = one.seconds.get(NETLENS)
    milliseconds = [f"{1000 * one.seconds[tool]:.1f}" if tool in one.seconds else _NOTHING for tool in tools]
    shares = [_times(ours / one.seconds[tool] if ours is not None and tool in one.seconds else None) for tool in others]
    return [Cell(text) for text in (one.model, *milliseconds, *shares)]


def _inside_title(inside: Sequence[Inside]) -> str:
    loaded = {one.compiler for one in inside}
    compiler = "is" if loaded == {True} else "is not" if loaded == {False} else "is for some of them"
    rounds = f"best of {inside[0].best_of}, half of them with one thread"
    return f"Inside a process, an existing model, to the text of the table: {rounds}; torch._dynamo {compiler} loaded"


def _promises(found: Sequence[Bar]) -> Sheet:
    columns = (Column("promise"), Column("at most", right=True), Column("measured", right=True), Column("verdict"))
    return Sheet(columns, [_promise(bar) for bar in found])


def _promise(bar: Bar) -> list[Cell]:
    measured = _NOTHING if bar.measured is None else _in_unit(bar.measured, bar.unit)
    return [Cell(bar.what), Cell(_in_unit(bar.limit, bar.unit)), Cell(measured), Cell(bar.verdict, _STYLES.get(bar.verdict, ""))]


def _conclusion(found: Sequence[Bar]) -> Line:
    failed = missed(found)
    if failed:
        return Line(f"MISSED: {len(failed)} of {len(found)} promises: {'; '.join(bar.what for bar in failed)}", style="bold red")
    unknown = sum(bar.measured is None for bar in found)
    kept = f"All {len(found) - unknown} promises that were measured are kept"
    return Line(f"{kept}; {unknown} could not be measured." if unknown else f"{kept}.", style="bold")


def _time(spread: Spread | None) -> tuple[str, str]:
    return (_NOTHING, _NOTHING) if spread is None else (f"{spread.median:.2f}", f"{spread.low:.2f} - {spread.high:.2f}")


def _number(spread: Spread | None, unit: int, decimals: int) -> str:
    return _NOTHING if spread is None else f"{spread.median / unit:,.{decimals}f}"


def _times(value: float | None) -> str:
    return _NOTHING if value is None else f"{value:.2f} x"


def _in_unit(value: float, unit: str) -> str:
    return f"{value:.0f} {unit}" if unit == "MiB" else f"{value:.2f} {unit}"


def _emphasis(line: Line) -> str:
    text = markdown_text(line.text)
    return f"**{text}**" if "bold" in line.style else text
