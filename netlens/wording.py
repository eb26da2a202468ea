"""How lenses write counts, numbers and names; standard library only. Names may come from a file that holds anything."""

from __future__ import annotations

import re
from collections.abc import Sequence

MOST_NAMES = 6  # named in one finding
LONGEST = 100  # characters of a name
_COMMAND = re.compile(r"(?<!\S)::")  # GitHub reads a line that begins with it as a command


def counted(count: int, noun: str) -> str:
    """Return "1 layer" or "2 layers"."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def listed(texts: Sequence[str]) -> str:
    """Return "a, b, c and 14 more"."""
    more = f" and {len(texts) - MOST_NAMES:,} more" if len(texts) > MOST_NAMES else ""
    return ", ".join(texts[:MOST_NAMES]) + more


def number(value: float) -> str:
    """Write three significant digits: 0.0123, 12.0, 1.23e-7. Zero is 0."""
    if value == 0:
        return "0"
    digits, _, exponent = f"{value:#.3g}".partition("e")
    return f"{digits}e{int(exponent)}" if exponent else digits.removesuffix(".")


def bounded(value: float) -> str:
    """Write a number between -1 and 1 with three decimals; what is not 1 is never shown as 1."""
    text = f"{value:.3f}"
    if text in ("1.000", "-1.000") and abs(value) < 1 - 1e-9:
        return ">0.999" if value > 0 else "<-0.999"
    return "0.000" if text == "-0.000" else text


def share(part: float, whole: float = 1.0) -> str:
    """Write a share: 62.5 %. What is not everything is never 100 %."""
    percent = 100 * part / whole
    return ">99.9 %" if 99.95 <= percent < 100 else f"{percent:.3g} %"


def short(name: str, longest: int = LONGEST) -> str:
    """Cut the middle out of a long name; what GitHub would read as a command becomes escapes."""
    if "::" in name or "##[" in name:
        name = _COMMAND.sub(r"\\x3a:", name).replace("##[", "#\\x23[")
    tail = longest // 2
    return name if len(name) <= longest else f"{name[: longest - tail - 1]}…{name[-tail:]}"


def abbreviated(names: Sequence[str], room: int) -> list[str]:
    """Shorten the parts of dotted names from the left, in all names alike, until the longest fits.

    A part becomes its first letter and its last number: "encoder.layers.encoder_layer_11.mlp.0" becomes "e.l.e11.m.0".
    """
    split = [name.split(".") for name in names]
    found = list(names)
    for level in range(1, max(map(len, split), default=1)):
        if max(map(len, found)) <= room:
            break
        found = [_with_initials(parts, min(level, len(parts) - 1)) for parts in split]
    return found


def _with_initials(parts: Sequence[str], count: int) -> str:
    digits = [re.search(r"\d*$", part) for part in parts[:count]]
    heads = [part[:1] + found[0] if found and found[0] != part else part for part, found in zip(parts, digits, strict=False)]
    return ".".join([*heads, *parts[count:]])
