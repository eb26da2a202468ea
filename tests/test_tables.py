"""Tables never cut a number and never let text from the user act: not on the terminal, not in Markdown, not in HTML."""

from __future__ import annotations

import html
import io
import re
from html.parser import HTMLParser

import pytest
from rich.console import Console

from netlens.drawing.escapes import GLUE, harmless, html_text, markdown_code, markdown_text
from netlens.drawing.tables import Cell, Column, Line, Sheet, render, user_text, wrap

EVIL = "[red]x[/red]\x1b[2J\u202e|`<script>alert(1)</script>\n\x07"


def sheet(name: str = "conv", number: str = "11,689,512", tail: str = "") -> Sheet:
    columns = Column("layer", code=True, shortest=6), Column("params", right=True)
    return Sheet(columns, [[Cell(name, lead="├─ ", tail=tail), Cell(number)]], [[Cell("total"), Cell(number)]])


def test_a_table_is_aligned_and_ruled() -> None:
    assert render([sheet()]).splitlines() == [
        "layer        params",
        "───────────────────",
        "├─ conv  11,689,512",
        "───────────────────",
        "total    11,689,512",
    ]


@pytest.mark.parametrize("width", [None, 200, 40, 20, 10, 3])
def test_a_number_is_whole_at_any_width(width: int | None) -> None:
    text = render([sheet("a_very_long_name_of_a_layer" * 3)], width)
    assert text.count("11,689,512") == 2


def test_only_the_name_gives_way_and_says_so() -> None:
    row = render([sheet("encoder_layer_0…11_of_a_long_name", tail=" ×12")], 30).splitlines()[2]
    assert len(row) == 30
    assert "… ×12" in row
    assert row.endswith("11,689,512")


def test_without_a_width_nothing_is_cut() -> None:
    name = "x" * 5_000
    assert name in render([sheet(name)])


def test_wide_characters_take_two_cells() -> None:
    lines = render([Sheet((Column("a"), Column("b", right=True)), [[Cell("層"), Cell("1")], [Cell("ab"), Cell("2")]])]).splitlines()
    assert lines[2:] == ["層  1", "ab  2"]


def test_ascii_streams_get_ascii() -> None:
    text = render([sheet("модель ×2"), Line("Σ → · –")], encoding="ascii")
    assert text.isascii()
    assert "|- " in text
    assert "\\u043c" in text
    assert "11,689,512" in text


def test_nothing_from_the_user_reaches_the_terminal_as_a_command() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, color_system=None, width=300)
    for renderable in (sheet(EVIL, EVIL, EVIL), Line(EVIL, label=EVIL), user_text(EVIL)):
        console.print(renderable, crop=False)
    drawn = re.sub(r"\x1b\[\d*m", "", stream.getvalue())  # rich's own styles
    assert set(drawn) & set("\x1b\x07\u202e") == set()
    assert drawn.count("[red]x[/red]\\x1b[2J\\u202e|`<script>alert(1)</script>\\n\\x07") == 7  # name, tail, number twice, label, line, text


def test_harmless_leaves_text_alone() -> None:
    assert harmless("层 Σ é 🙂 a\\b") == "层 Σ é 🙂 a\\b"
    assert harmless(f"1{GLUE}MiB") == f"1{GLUE}MiB"
    assert harmless(harmless(EVIL)) == harmless(EVIL)
    assert harmless("\ud800\u200b") == "\\ud800\\u200b"  # a lone surrogate, a zero-width space


def unescaped(row: str) -> list[str]:
    """Split a row as GitHub does: at every `|` that no backslash precedes."""
    return [field.strip() for field in re.split(r"(?<!\\)\|", row)[1:-1]]


def test_markdown_has_as_many_fields_as_columns_whatever_the_names() -> None:
    lines = sheet(EVIL, "a|b *c* _d_").markdown().splitlines()
    assert [len(unescaped(line)) for line in lines] == [2, 2, 2, 2]
    assert lines[1].endswith("-: |")  # numbers stand right
    assert unescaped(lines[2])[0].startswith("``├─\u00a0[red]")  # two backticks, because the name holds one
    assert unescaped(lines[2])[1] == r"a\|b \*c\* \_d\_"


def test_markdown_aligns_its_source() -> None:
    assert len({len(line) for line in sheet().markdown().splitlines()}) == 1


def test_markdown_text_escapes_only_what_acts() -> None:
    assert markdown_text("in_features <0.1 % a & b") == "in_features <0.1 % a &amp; b"
    assert markdown_text("<img src=x> [a](b) `c`") == r"\<img src=x> \[a\](b) \`c\`"
    assert markdown_code("") == ""
    assert markdown_code("`a`") == "`` `a` ``"


class Tags(HTMLParser):
    """Collects what a browser would see."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_html_holds_no_element_of_the_user() -> None:
    page = Tags()
    page.feed(sheet(EVIL, EVIL).html())
    assert set(page.tags) == {"table", "thead", "tbody", "tfoot", "tr", "th", "td", "i"}
    assert "<script>alert(1)</script>" in page.text
    assert html.unescape(html_text('"<a>&')) == '"<a>&'
    assert '"' not in html_text('"')


def test_lines_are_broken_between_words_and_never_inside_a_number_with_its_unit() -> None:
    text = f"weights 44.6{GLUE}MiB and 37.5{GLUE}KiB of buffers"
    lines = render([Line(text, label="memory", indent=8)], 32).splitlines()
    assert lines == ["memory  weights 44.6 MiB and", "        37.5 KiB of buffers"]
    assert "".join(wrap("x" * 50, 20)) == "x" * 50
    assert all(len(line) <= 20 for line in wrap("ab " + "x" * 50 + " cd", 20))
