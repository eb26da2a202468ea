"""Text from the user is data: made harmless for terminals, Markdown and HTML. Standard library only."""

from __future__ import annotations

import html
import re

GLUE = "\u00a0"  # a space at which no line is broken: between a number and its unit

_ASCII = str.maketrans(
    {
        "├": "|",
        "└": "`",
        "│": "|",
        "─": "-",
        "Σ": "+",
        "×": "x",
        "→": "->",
        "…": "..",
        "·": ";",
        "✗": "X",
        "–": "-",
        "µ": "u",
        "≥": ">=",
        "█": "#",
    }
)
_MARKDOWN = re.compile(r"[\\`*\[\]|~#]|<(?=[A-Za-z/!?])|(?<![0-9A-Za-z])_|_(?![0-9A-Za-z])")


def harmless(text: str) -> str:
    r"""Show what would steer a terminal (control, bidi, escape characters) as escapes: "\x1b[2J"."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char == GLUE else ascii(char)[1:-1] for char in text)


def plain(text: str, ascii_only: bool) -> str:
    """Make text ready for a stream: harmless, and without any character that an ASCII terminal could not show."""
    text = harmless(text)
    if ascii_only and not text.isascii():
        text = text.translate(_ASCII).replace(GLUE, " ").encode("ascii", "backslashreplace").decode("ascii")
    return text


def markdown_text(text: str) -> str:
    """Escape what Markdown, a table or HTML would read as theirs; `in_features` and `<0.1` need no escape."""
    return _MARKDOWN.sub(r"\\\g<0>", harmless(text)).replace("&", "&amp;").replace(GLUE, " ")


def markdown_code(text: str) -> str:
    """Set text as code, whatever backticks it holds. `|` is escaped because a table splits before it looks for code."""
    text = harmless(text).replace("|", "\\|")
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{pad}{text}{pad}{fence}" if text else ""


def html_text(text: str) -> str:
    """Escape for HTML, in text and in attributes."""
    return html.escape(harmless(text))
