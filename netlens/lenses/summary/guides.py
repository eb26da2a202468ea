"""The lines that draw a tree before the names of its rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

MOST_GUIDES = 24  # levels; deeper rows name their depth instead of drawing it


class Placed(Protocol):
    """A row of any tree."""

    depth: int  # 1 is the first level
    last: bool  # among its siblings
    guides: tuple[bool, ...]  # for each level above, from depth 2: does a sibling follow there?


def place_guides(rows: Sequence[Placed]) -> None:
    """Tell each row at which levels above it a sibling follows."""
    follows: list[bool] = []
    for row in rows:
        del follows[row.depth - 1 :]
        row.guides = tuple(follows[1:]) if row.depth <= MOST_GUIDES else ()
        follows.append(not row.last)


def guides(row: Placed, roomy: bool) -> str:
    """Draw the lines of the tree: three cells a level where there is room, else two."""
    if row.depth == 1:
        return ""
    branch, line, blank = ("─ ", "│  ", "   ") if roomy else (" ", "│ ", "  ")
    turn = ("└" if row.last else "├") + branch
    if row.depth > (MOST_GUIDES if roomy else MOST_GUIDES // 2):
        return f"[{row.depth}] {turn}"
    return "".join(line if follows else blank for follows in row.guides) + turn
