"""Numbers as people read them, the same in every lens. Pure functions, number -> str.

`exact` is for wherever there is room; the others keep three or four significant digits and never claim more than they know: a part
that is not zero is never shown as 0, and one that is not the whole is never shown as 100 %.
"""

from __future__ import annotations

from collections.abc import Sequence

NOTHING = "–"  # a part of nothing

_DECIMAL = ("", "K", "M", "G", "T", "P", "E", "Z", "Y")
_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_SECONDS = (("ns", -9), ("µs", -6), ("ms", -3), ("s", 0))


def exact(number: int) -> str:
    """Write every digit: 11,689,512."""
    return f"{number:,}"


def compact(number: int) -> str:
    """Write four significant digits: 11.69 M. Below 10,000 that is the number itself: 9,408."""
    if abs(number) < 10_000:
        return exact(number)
    digits, exponent = _scientific(number, 4)
    unit = min(exponent // 3, len(_DECIMAL) - 1)
    return f"{_place_point(digits, exponent - 3 * unit)} {_DECIMAL[unit]}"


def byte_size(number: int) -> str:
    """Write bytes in binary units with three significant digits: 44.6 MiB is 44.6 x 2^20 bytes."""
    value, unit = float(number), 0
    while abs(value) >= (1024 if unit == 0 else 1023.5) and unit < len(_BINARY) - 1:
        value, unit = value / 1024, unit + 1
    if unit == 0:
        return f"{number} B"
    decimals = 2 if abs(value) < 9.995 else 1 if abs(value) < 99.95 else 0
    return f"{value:.{decimals}f} {_BINARY[unit]}"


def percent(part: float, whole: float) -> str:
    """Write a share: 72.3 %; "<0.1 %" and ">99.9 %" where rounding would say nothing or everything."""
    if whole == 0:
        return NOTHING
    share = 100 * part / whole
    if 0 < share < 0.05:
        return "<0.1 %"
    if 99.95 <= share < 100:
        return ">99.9 %"
    return f"{share:.1f} %" if share not in (0, 100) else f"{share:.0f} %"


def shape(dims: Sequence[int]) -> str:
    """Write a shape as `--input` reads it: 1,64,112,112; "()" is a scalar."""
    return ",".join(map(str, dims)) or "()"


def seconds(value: float) -> str:
    """Write a duration with three significant digits: 1.24 ms."""
    if value == 0:
        return "0 s"
    digits, exponent = _scientific(value, 3)
    unit, power = next(((unit, power) for unit, power in reversed(_SECONDS) if exponent >= power), _SECONDS[0])
    return f"{_place_point(digits, exponent - power)} {unit}"


def _scientific(number: float, significant: int) -> tuple[str, int]:
    """Round to significant digits: 11,689,512 -> ("1169", 7). The carry of 999,999 -> ("1000", 6) comes with it."""
    mantissa, exponent = f"{number:.{significant - 1}e}".split("e")
    return mantissa.replace(".", ""), int(exponent)


def _place_point(digits: str, exponent: int) -> str:
    """Write digits x 10^exponent without an exponent: ("1169", 1) -> "11.69"."""
    sign, digits = ("-", digits[1:]) if digits.startswith("-") else ("", digits)
    if exponent < 0:
        return f"{sign}0.{'0' * (-exponent - 1)}{digits}"
    whole, rest = digits[: exponent + 1].ljust(exponent + 1, "0"), digits[exponent + 1 :]
    return f"{sign}{int(whole):,}" + (f".{rest}" if rest else "")
