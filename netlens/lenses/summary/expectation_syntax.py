"""The grammar of `--expect-...` and `--max-...`: what a CI job demands of a model, parsed before torch is imported.

--expect-output 1,1000      sizes; `*` any size here, `...` any dimensions here, `()` a scalar, `?` alone: not checked
--expect-output logits=1,2  a named tensor of the output; repeated without names: all tensors of the output, in order
--expect-output 1,2:float16 with its dtype
--expect-params 11689512    exact (also 11,689,512); 11.7M must be met after rounding to the digits written; 11.7M±1% or 11.7M+-1%
--max-params 12M            and --max-macs 2G: K, M, G (or B, billion), T are 10^3, 10^6, 10^9, 10^12
--max-size 50MB             and --max-memory 24GiB: KB, MB, GB, TB are decimal, KiB, MiB, GiB, TiB binary
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from netlens.errors import UsageError

_DTYPE = re.compile(r"bool|b?float\d+\w*|q?u?int\d+\w*|complex\d+", re.ASCII)
COUNT_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9, "t": 10**12}
BYTE_UNITS = (
    {"": 1, "b": 1}
    | {letter + tail: 1000**power for power, letter in enumerate("kmgt", 1) for tail in ("", "b")}
    | {letter + "ib": 1024**power for power, letter in enumerate("kmgt", 1)}
)
_AMOUNT = re.compile(
    r"(?P<number>(?:\d{1,3}(?:,\d{3})+|\d+(?:_\d+)*)(?:\.(?P<decimals>\d+))?)\s*(?P<unit>[A-Za-z]*)"
    r"(?:\s*(?:±|\+-|\+/-)\s*(?P<percent>\d+(?:\.\d+)?)\s*%)?",
    re.ASCII,
)
_OUTPUT_HINT = "for example --expect-output 1,1000, '*,1000', '1,...,8', logits=1,1000 or 1,1000:float16; repeat it for several outputs"
_PARAMS_HINT = "for example --expect-params 11689512, 11,689,512, 11.7M or 11.7M+-1%"
_COUNT_HINT = "for example {option} 12000000, 12M or 2.5G"
_BYTES_HINT = "for example {option} 50MB, 1.5GB or 24GiB"
MAX_TEXT = 40  # longer numbers are typing errors, and Python refuses to convert thousands of digits


@dataclass(frozen=True, slots=True)
class OutputPattern:
    """What one tensor of the output must look like."""

    text: str
    name: str  # of the leaf; "" where it is found by its position
    shape: tuple[int | str, ...] | None  # sizes, "*" and at most one "..."; None: not checked
    dtype: str  # "": not checked


@dataclass(frozen=True, slots=True)
class Amount:
    """The whole numbers from `low` to `high`, both included, as the user wrote them."""

    text: str
    low: int
    high: int


@dataclass(frozen=True, slots=True)
class Expectations:
    """All that is demanded; None and () demand nothing."""

    output: tuple[OutputPattern, ...] = ()
    params: Amount | None = None
    max_params: Amount | None = None
    max_macs: Amount | None = None
    max_size: Amount | None = None
    max_memory: Amount | None = None


def parse_expectations(
    *,
    expect_output: Sequence[str] = (),
    expect_params: str | int | None = None,
    max_params: str | int | None = None,
    max_macs: str | int | None = None,
    max_size: str | int | None = None,
    max_memory: str | int | None = None,
) -> Expectations:
    """Parse the values of the options, or of the configuration file, where numbers may be integers.

    Raises:
        UsageError: naming the option, with an example.
    """
    return Expectations(
        output=parse_outputs(expect_output),
        params=None if expect_params is None else parse_params(expect_params),
        max_params=None if max_params is None else parse_limit("--max-params", max_params),
        max_macs=None if max_macs is None else parse_limit("--max-macs", max_macs),
        max_size=None if max_size is None else parse_limit("--max-size", max_size, in_bytes=True),
        max_memory=None if max_memory is None else parse_limit("--max-memory", max_memory, in_bytes=True),
    )


def parse_outputs(texts: Sequence[str]) -> tuple[OutputPattern, ...]:
    """Parse every `--expect-output`; either all have names or none has."""
    patterns = tuple(parse_output(text) for text in texts)
    names = [pattern.name for pattern in patterns if pattern.name]
    if names and len(names) < len(patterns):
        raise UsageError(
            "--expect-output is given with and without a name", hint="name every output, or none of them: then their order counts"
        )
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(f"--expect-output is given twice for {twice!r}", hint="keep one of the two")
    return patterns


def parse_output(text: str) -> OutputPattern:
    """Parse `[name=]sizes[:dtype]`."""
    name, named, rest = text.strip().rpartition("=")
    sizes, typed, dtype = (part.strip() for part in rest.partition(":"))
    if typed and not _DTYPE.fullmatch(dtype):
        raise UsageError(f"--expect-output {text!r}: {dtype!r} is not a dtype such as float32 or int64", hint=_OUTPUT_HINT)
    if (named and not name.strip()) or not sizes:
        raise UsageError(f"--expect-output {text!r}: the name or the sizes are missing", hint=_OUTPUT_HINT)
    return OutputPattern(text.strip(), name.strip(), None if sizes == "?" else _sizes(sizes, text), dtype)


def _sizes(sizes: str, text: str) -> tuple[int | str, ...]:
    if sizes.startswith("(") and sizes.endswith(")"):  # as the table prints them
        sizes = sizes[1:-1].strip().removesuffix(",")
        if not sizes:
            return ()
    parts = [part.strip() for part in sizes.split(",")]
    for part in parts:
        if part not in ("*", "...") and not re.fullmatch(r"[0-9]{1,18}", part):
            raise UsageError(f"--expect-output {text!r}: {part!r} is not a size, `*` or `...`", hint=_OUTPUT_HINT)
    if parts.count("...") > 1:
        raise UsageError(f"--expect-output {text!r}: `...` can stand once only", hint=_OUTPUT_HINT)
    return tuple(part if part in ("*", "...") else int(part) for part in parts)


def parse_params(value: str | int) -> Amount:
    """Parse `--expect-params`.

    A number without unit is exact. With a unit it stands for all numbers that round (half up) to the digits written: 11.7M is
    11,650,000 to 11,749,999. With ±p% it stands for all numbers within p percent of it.
    """
    text, match, scale = _match("--expect-params", value, COUNT_UNITS, _PARAMS_HINT)
    middle = _number(match) * scale
    if percent := match["percent"]:
        reach = middle * Fraction(percent) / 100
        low, high = math.ceil(middle - reach), math.floor(middle + reach)
    else:
        half = Fraction(scale, 2 * 10 ** len(match["decimals"] or ""))
        low, high = math.ceil(middle - half), math.ceil(middle + half) - 1
    if low > high or (scale == 1 and match["decimals"]):
        raise UsageError(f"--expect-params {text!r} is not a whole number", hint=_PARAMS_HINT)
    return Amount(text, max(low, 0), high)


def parse_limit(option: str, value: str | int, *, in_bytes: bool = False) -> Amount:
    """Parse the value of a `--max-...` option: from 0 to the amount."""
    units, hint = (BYTE_UNITS, _BYTES_HINT) if in_bytes else (COUNT_UNITS, _COUNT_HINT)
    text, match, scale = _match(option, value, units, hint.format(option=option))
    if match["percent"]:
        raise UsageError(f"{option} {text!r}: a limit has no tolerance", hint=hint.format(option=option))
    return Amount(text, 0, math.floor(_number(match) * scale))


def _match(option: str, value: str | int, units: dict[str, int], hint: str) -> tuple[str, re.Match[str], int]:
    text = str(value).strip()
    match = _AMOUNT.fullmatch(text) if len(text) <= MAX_TEXT else None
    if match is None:
        raise UsageError(f"{option} {text[:MAX_TEXT]!r} is not an amount", hint=hint)
    if (scale := units.get(match["unit"].lower())) is None:
        raise UsageError(f"{option} {text!r}: the unit {match['unit']!r} does not belong here", hint=hint)
    return text, match, scale


def _number(match: re.Match[str]) -> Fraction:
    return Fraction(match["number"].replace(",", "").replace("_", ""))
