"""Labelled lines below a table: the same in the terminal and in Markdown."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import ConsoleRenderable

from netlens.drawing.escapes import markdown_text
from netlens.drawing.tables import Line


@dataclass(frozen=True, slots=True)
class Fact:
    """One labelled line."""

    label: str
    text: str


def fact_lines(facts: list[Fact], indent: int = 0) -> list[ConsoleRenderable]:
    """Draw labelled lines for a terminal."""
    column = max((len(fact.label) for fact in facts), default=0) + 2 + indent
    return [Line(fact.text, label=" " * indent + fact.label, indent=column) for fact in facts]


def facts_markdown(facts: list[Fact]) -> str:
    """Draw labelled lines as a Markdown list."""
    return "\n".join(f"- {f'**{fact.label}** ' if fact.label else ''}{markdown_text(fact.text)}" for fact in facts)
