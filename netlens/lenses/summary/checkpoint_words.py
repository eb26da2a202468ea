"""How the view of a checkpoint writes names and shapes from a file that may hold anything; standard library only."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

LONGEST_NAME = 100  # characters; a name of ten thousand would make every line of the table that long
MOST_DIMENSIONS = 8
MOST_LISTED = 6
_COMMAND = re.compile(r"(?<!\S)::")  # where a line may begin with it


def short(name: str, longest: int = LONGEST_NAME) -> str:
    """Cut the middle out of a long name, so that its beginning and its end remain; what GitHub would read as a command becomes escapes."""
    if "::" in name or "##[" in name:
        name = _COMMAND.sub(r"\\x3a:", name).replace("##[", "#\\x23[")
    if len(name) <= longest:
        return name
    tail = longest // 3
    return f"{name[: longest - tail - 1]}…{name[-tail:]}"


def dimensions(shape: Sequence[int]) -> str:
    """Write a shape: "64,3,7,7", and "()" for a scalar."""
    shown = ",".join(short(str(size), 24) for size in shape[:MOST_DIMENSIONS])
    more = f",… ({len(shape):,} dimensions)" if len(shape) > MOST_DIMENSIONS else ""
    return shown + more or "()"


def named(names: Iterable[str], total: int | None = None, most: int = MOST_LISTED) -> str:
    """Return "a, b and 14 more" of long or many names."""
    found = list(names)
    count = len(found) if total is None else total
    more = f" and {count - min(len(found), most):,} more" if count > min(len(found), most) else ""
    return ", ".join(short(name, 60) for name in found[:most]) + more


def number(value: float | None) -> str:
    """Write a value of a tensor with four significant digits."""
    if value is None:
        return "–"
    if value == int(value) and abs(value) < 100_000:
        return f"{int(value):,}"
    return f"{value:.4g}".replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")
