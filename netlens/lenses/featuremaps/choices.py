"""What the user may choose about pictures of feature maps. Standard library only: it is checked before anything is loaded."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from netlens.errors import UsageError

_PART = re.compile(r"(\d+)|(\d*):(\d*)")

Channels = int | tuple[range, ...]  # so many, or these: a range may end beyond the last channel
USUAL: Channels | None = None  # as many as can be read: fewer maps than features, which are one number each


@dataclass(frozen=True)
class Options:
    """What the user may choose about pictures of feature maps."""

    scale: str = "common"  # or "each": each channel its own
    channels: Channels | None = USUAL
    sort: str = "index"  # or "variance", "mean": the largest first


def parse_channels(text: str) -> Channels:
    """Read `--channels`: "16" are so many; "3,8,40:48", "0:16" and "3," are these; "all" are all.

    Raises:
        UsageError: it names no channels.
    """
    if text.strip() == "all":
        return (range(sys.maxsize),)
    if text.strip().isdecimal() and int(text):
        return int(text)
    parts = [part.strip() for part in text.split(",")]
    found = tuple(_parts(parts[:-1] if len(parts) > 1 and not parts[-1] else parts))
    if not found or not all(found) or text.strip() == "0":
        raise UsageError(
            f"--channels {text!r} names no channels", hint="say how many, like 16, or which, like 3,8,40:48 (a single one: 3,), or all"
        )
    return found


def _parts(parts: list[str]) -> Iterator[range]:
    """Yield the range of each part; an empty one for what cannot be read."""
    for part in parts:
        match = _PART.fullmatch(part)
        if match is None:
            yield range(0)
        elif match[1]:
            yield range(int(match[1]), int(match[1]) + 1)
        else:
            yield range(int(match[2] or 0), int(match[3] or sys.maxsize))
