"""What is said on stderr before the two lines of an error that has tables: names in them come from files, and are shown harmlessly."""

from __future__ import annotations

from typing import TYPE_CHECKING

from netlens.cli import console
from netlens.errors import CheckpointDoesNotFit, Detail

if TYPE_CHECKING:
    from rich.console import ConsoleRenderable


def tell(error: CheckpointDoesNotFit) -> None:
    """Draw the tables, then the likely causes."""
    from netlens.drawing.tables import Cell, Column, Line, Sheet, render

    for detail in error.tables:
        columns = tuple(Column(header, right=header == "number", code=True) for header in detail.columns)
        sheet = Sheet(columns, [[Cell(text) for text in row] for row in detail.rows])
        drawn: list[ConsoleRenderable] = [Line(detail.title), sheet, *([Line(_more(detail))] if detail.more else [])]
        console.note(render(drawn))
    if error.causes:
        console.note(render([Line("likely causes"), *(Line(cause, label=f"{number}.") for number, cause in enumerate(error.causes, 1))]))


def _more(detail: Detail) -> str:
    return f"… and {detail.more:,} more"
