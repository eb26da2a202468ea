"""Words from outside - exceptions, names, files - made fit for a message of one line."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

LONGEST = 400  # characters of somebody else's message that are worth repeating


def one_line(text: object, longest: int = LONGEST) -> str:
    """Return `text` without line breaks and with unprintable characters escaped, cut where it gets long."""
    words = " ".join(str(text).split())
    safe = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in words)
    return safe if len(safe) <= longest else safe[: longest - 3] + "..."


def cause(error: BaseException) -> str:
    """Return the type and the message of an exception: "ValueError: width must be even"."""
    message = one_line(error)
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def user_path(text: str | Path) -> Path:
    """Return a path with `~` as the user's home; one of nobody that this machine knows is a name like any other."""
    path = Path(text)
    try:
        return path.expanduser()
    except RuntimeError:
        return path


def listed(names: Iterable[str], most: int = 8) -> str:
    """Return "a, b, c and 4 more"."""
    every = list(names)
    shown = ", ".join(one_line(name) for name in every[:most])
    return shown if len(every) <= most else f"{shown} and {len(every) - most} more"
