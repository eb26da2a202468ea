"""Whose attention is shown, and what is kept of a layer for it. Standard library only: `--query` is checked before anything is loaded."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from netlens.errors import UsageError
from netlens.lenses.featuremaps.report import AttentionLayer

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class Query:
    """Whose attention is shown: one of both is set."""

    place: tuple[int, int] | None = None  # row and column among the patches of the first layer
    index: int | None = None  # among all tokens, those before the patches included


@dataclass(frozen=True)
class Shown:
    """What is kept of one layer, for the samples that are shown."""

    layer: AttentionLayer
    query: str  # whose attention `rows` is: "the class token", "patch 3,4", "mean over all queries"
    rows: np.ndarray  # (n, heads, keys)
    whole: np.ndarray | None  # (n, heads, queries, keys), of tokens that are no picture; of many, the first ones


def parse_query(text: str) -> Query:
    """Read `--query`: "3,4" is a patch, "0" a token.

    Raises:
        UsageError: it is neither.
    """
    match = re.fullmatch(r"\s*(\d+)\s*(?:,\s*(\d+)\s*)?", text)
    if match is None:
        hint = "write ROW,COLUMN of a patch, like --query 3,4, or the index of a token, like --query 0"
        raise UsageError(f"--query {text!r} is neither a patch nor a token", hint=hint)
    if match[2] is None:
        return Query(index=int(match[1]))
    return Query(place=(int(match[1]), int(match[2])))


def outside(query: Query, grid: tuple[int, int] | None, tokens: int) -> UsageError:
    """Say that there is no such query."""
    if query.place is None:
        return UsageError(f"--query {query.index}: there is no such token", hint=f"tokens go from 0 to {tokens - 1}")
    if grid is None:
        return UsageError("--query ROW,COLUMN is about patches of a picture, and there are none", hint="give the index of a token")
    row, column = query.place
    hint = f"rows go from 0 to {grid[0] - 1}, columns from 0 to {grid[1] - 1}"
    return UsageError(f"--query {row},{column} is outside the {grid[0]} × {grid[1]} patches", hint=hint)
