"""Tables and lines of text in the style of netlens: one model, drawn by rich, as Markdown or as HTML.

A `Sheet` is drawn row by row instead of by `rich.table.Table`, which takes seconds for 3,000 rows and cuts numbers where the terminal is
too narrow. Here a number is never cut: only columns that say how far (`Column.shortest`) give way.

Text from the user is data: it is never parsed as markup, and control, bidi and escape characters are shown as escapes.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderResult
from rich.measure import Measurement
from rich.segment import Segment
from rich.style import Style
from rich.text import Text

from netlens.drawing.escapes import GLUE, harmless, html_text, markdown_code, markdown_text, plain

GAP = 2  # cells between columns
UNLIMITED = 1_000_000  # rich wants a width; this one stands for "as wide as needed"


@dataclass(frozen=True, slots=True)
class Cell:
    """One field: `lead` (tree guides, drawn dim), text, and `tail`, which stays where the text is cut."""

    text: str
    style: str = ""
    lead: str = ""
    tail: str = ""


@dataclass(frozen=True, slots=True)
class Column:
    """How the cells of one column stand."""

    header: str
    right: bool = False
    code: bool = False  # names and shapes: set as code in Markdown and HTML
    shortest: int | None = None  # may be cut to so many cells where the table is too wide; None: never


@dataclass(frozen=True, slots=True)
class Sheet:
    """A table: a header, rows and, below a rule, the totals."""

    columns: tuple[Column, ...]
    rows: Sequence[Sequence[Cell]]
    footer: Sequence[Sequence[Cell]] = ()

    def widths(self, ascii_only: bool = False) -> list[int]:
        """Measure the cells that each column takes when nothing is cut."""
        table = chain(self.rows, self.footer)
        cells = zip(*table, strict=True) if self.rows or self.footer else ((),) * len(self.columns)
        return [
            max(chain([cell_len(plain(column.header, ascii_only))], (_length(cell, ascii_only) for cell in field)))
            for column, field in zip(self.columns, cells, strict=True)
        ]

    def narrowest(self) -> list[int]:
        """Measure the same with every column cut as far as it allows."""
        return [
            width if column.shortest is None else min(width, column.shortest)
            for column, width in zip(self.columns, self.widths(), strict=True)
        ]

    def select(self, kept: Sequence[int]) -> Sheet:
        """Keep the columns of these indices."""

        def pick(rows: Sequence[Sequence[Cell]]) -> list[list[Cell]]:
            return [[row[index] for index in kept] for row in rows]

        return Sheet(tuple(self.columns[index] for index in kept), pick(self.rows), pick(self.footer))

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(total_width(self.narrowest()), total_width(self.widths()))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        widths = _shrink(self.columns, self.widths(options.ascii_only), options.max_width)
        rule = plain("─", options.ascii_only) * total_width(widths)
        header = [Cell(column.header, "bold") for column in self.columns]
        yield from self._line(header, widths, options.ascii_only)
        yield from (Segment(rule, Style.parse("dim")), Segment.line())
        for row in self.rows:
            yield from self._line(row, widths, options.ascii_only)
        if self.footer:
            yield from (Segment(rule, Style.parse("dim")), Segment.line())
        for row in self.footer:
            yield from self._line(row, widths, options.ascii_only)

    def _line(self, row: Sequence[Cell], widths: Sequence[int], ascii_only: bool) -> Iterator[Segment]:
        gap = ""
        for column, cell, width in zip(self.columns, row, widths, strict=True):
            lead, text, tail = plain(cell.lead, ascii_only), plain(cell.text, ascii_only), plain(cell.tail, ascii_only)
            used = cell_len(lead) + cell_len(text) + cell_len(tail)
            if used > width:
                text, used = _cut(text, max(cell_len(text) - used + width, 1), ascii_only), width
            pad = " " * (width - used)
            if column.right:
                gap += pad
            if gap or lead:
                yield Segment(gap + lead, Style.parse("dim"))
            yield Segment(text + tail, Style.parse(cell.style) if cell.style else None)
            gap = " " * GAP if column.right else pad + " " * GAP
        yield Segment.line()

    def markdown(self) -> str:
        """Draw a GitHub table that is aligned in its source, too. Tree guides keep their place by no-break spaces."""
        rows = [[_markdown_cell(cell, column) for cell, column in zip(row, self.columns, strict=True)] for row in self.rows]
        rows += [
            [f"**{text}**" if text else "" for text in (markdown_text(cell.lead + cell.text + cell.tail) for cell in row)]
            for row in self.footer
        ]
        heads = [markdown_text(column.header) for column in self.columns]
        widths = [max(3, *(cell_len(row[index]) for row in [heads, *rows])) for index in range(len(heads))]
        rule = ["-" * (width - 1) + (":" if column.right else "-") for width, column in zip(widths, self.columns, strict=True)]
        return "\n".join(_markdown_line(row, widths, self.columns) for row in [heads, rule, *rows]) + "\n"

    def html(self) -> str:
        """Draw a `<table>` with classes only; the page brings the style (`STYLE`)."""
        head = "".join(_html_cell("th", Cell(column.header), column) for column in self.columns)
        body = "".join(f"<tr>{_html_row('td', row, self.columns)}</tr>\n" for row in self.rows)
        foot = "".join(f"<tr>{_html_row('td', row, self.columns)}</tr>\n" for row in self.footer)
        return f"<table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody>\n<tfoot>{foot}</tfoot></table>\n"


@dataclass(frozen=True, slots=True)
class Line:
    """A paragraph with a label before it: wrapped between words only, its further lines indented below the first."""

    text: str
    style: str = ""
    label: str = ""
    indent: int = 0

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        text, label = plain(self.text, options.ascii_only), plain(self.label, options.ascii_only)
        if not text and not label:
            yield Segment.line()
            return
        indent = max(self.indent, cell_len(label) + GAP if label else 0)
        for index, line in enumerate(wrap(text, max(options.max_width - indent, 20))):
            yield Segment(set_cell_size(label if index == 0 else "", indent), Style.parse("dim"))
            yield Segment(line.replace(GLUE, " "), Style.parse(self.style) if self.style else None)
            yield Segment.line()


def wrap(text: str, width: int) -> list[str]:
    """Break text at its spaces; a single word that is longer than a line is broken inside."""
    lines = [""]
    for word in text.split(" "):
        while cell_len(word) > width:
            head = set_cell_size(word, width).rstrip(" ")
            lines += [head] if lines[-1] else []
            lines[-1], word = head, word[len(head) :]
            lines.append("")
        joined = f"{lines[-1]} {word}" if lines[-1] else word
        if cell_len(joined) <= width:
            lines[-1] = joined
        else:
            lines.append(word)
    return lines


def user_text(text: str, style: str = "") -> Text:
    """Text from the user for any rich renderable: harmless, never markup, never highlighted."""
    return Text(harmless(text), style=style, no_wrap=True, overflow="ignore")


def render(renderables: Iterable[ConsoleRenderable], width: int | None = None, encoding: str = "utf-8") -> str:
    """Draw to a str without colour; `width=None` is as wide as needed: nothing is wrapped or cut."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="\n")
    console = Console(file=stream, width=width or UNLIMITED, color_system=None, force_terminal=False, force_jupyter=False)
    for renderable in renderables:
        console.print(renderable, soft_wrap=False, crop=False, no_wrap=width is None)
    stream.seek(0)
    return "\n".join(line.rstrip() for line in stream.read().split("\n"))


def total_width(widths: Sequence[int]) -> int:
    """Add the gaps between columns."""
    return sum(widths) + GAP * (len(widths) - 1)


def kept(
    names: tuple[str, ...],
    widths: list[int],
    width: int,
    gives_way: tuple[str, ...],
    stays: tuple[str, ...],
) -> list[int]:
    """Give columns up, those of `gives_way` first and then from the right, until the rest fits; return the indices that stay.

    Columns of `stays`, and those that are not in `names`, are never given up.
    """
    order = [name for name in gives_way if name in names]
    order += [name for name in reversed(names) if name not in (*order, *stays)]
    left = list(range(len(widths)))
    for name in order:
        if total_width([widths[index] for index in left]) <= width:
            break
        left.remove(names.index(name))
    return left


def _shrink(columns: Sequence[Column], widths: list[int], limit: int) -> list[int]:
    """Cut the widest of the columns that may be cut, cell by cell, until the table fits or nothing is left to cut."""
    widths = list(widths)
    while total_width(widths) > limit:
        loose = [index for index, column in enumerate(columns) if column.shortest is not None and widths[index] > column.shortest]
        if not loose:
            break
        widths[max(loose, key=widths.__getitem__)] -= 1
    return widths


def _length(cell: Cell, ascii_only: bool) -> int:
    return sum(cell_len(plain(part, ascii_only)) for part in (cell.lead, cell.text, cell.tail) if part)


def _cut(text: str, width: int, ascii_only: bool) -> str:
    mark = plain("…", ascii_only)
    return set_cell_size(text, max(width - len(mark), 0)) + mark if width > len(mark) else set_cell_size(text, width)


def _markdown_cell(cell: Cell, column: Column) -> str:
    if column.code:
        return markdown_code(cell.lead.replace(" ", GLUE) + cell.text + cell.tail)
    return markdown_text(cell.lead + cell.text + cell.tail)


def _markdown_line(row: Sequence[str], widths: Sequence[int], columns: Sequence[Column]) -> str:
    fields = (
        " " * (width - cell_len(text)) + text if column.right else text + " " * (width - cell_len(text))
        for text, width, column in zip(row, widths, columns, strict=True)
    )
    return f"| {' | '.join(fields)} |"


def _html_row(tag: str, row: Sequence[Cell], columns: Sequence[Column]) -> str:
    return "".join(_html_cell(tag, cell, column) for cell, column in zip(row, columns, strict=True))


def _html_cell(tag: str, cell: Cell, column: Column) -> str:
    classes = [name for name, on in (("r", column.right), ("c", column.code), ("d", "dim" in cell.style), ("e", "red" in cell.style)) if on]
    attribute = f' class="{" ".join(classes)}"' if classes else ""
    lead = f"<i>{html_text(cell.lead.replace(' ', GLUE))}</i>" if cell.lead else ""
    return f"<{tag}{attribute}>{lead}{html_text(cell.text + cell.tail)}</{tag}>"
