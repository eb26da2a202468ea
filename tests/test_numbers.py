"""Numbers as people read them: every rounded number must name a value within half of its last digit of the true one."""

from __future__ import annotations

import random
from fractions import Fraction

import pytest

from netlens.drawing.numbers import byte_size, compact, exact, percent, seconds, shape

DECIMAL = {"K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15}
BINARY = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (999, "999"),
        (9_408, "9,408"),
        (9_999, "9,999"),
        (10_000, "10.00 K"),
        (11_689_512, "11.69 M"),
        (1_814_073_344, "1.814 G"),
        (999_949, "999.9 K"),
        (999_950, "1.000 M"),  # never "1000 K"
        (70_000_000_000, "70.00 G"),
        (-36_864, "-36.86 K"),
    ],
)
def test_compact_keeps_four_digits(number: int, text: str) -> None:
    assert compact(number) == text


def test_compact_is_within_half_of_its_last_digit_and_never_reaches_a_thousand() -> None:
    numbers = random.Random(0)
    for _ in range(2_000):
        number = numbers.randrange(10_000, 10 ** numbers.randint(5, 17))
        value, unit = compact(number).split(" ")
        last_digit = Fraction(1, 10 ** len(value.partition(".")[2]))
        assert abs(Fraction(value) - Fraction(number, DECIMAL[unit])) <= last_digit / 2
        assert len(value.replace(".", "")) == 4
        assert 1 <= Fraction(value) < 1000


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.00 KiB"),
        (46_758_048, "44.6 MiB"),  # resnet18 in float32: 11,689,512 x 4 bytes
        (1024 * 1024 - 1, "1.00 MiB"),  # never "1024 KiB"
        (10 * 1024 - 1, "10.0 KiB"),  # never "10.00 KiB"
        (100 * 2**20, "100 MiB"),
        (140 * 2**30, "140 GiB"),
    ],
)
def test_byte_size_is_binary(number: int, text: str) -> None:
    assert byte_size(number) == text


def test_byte_size_is_within_half_of_its_last_digit() -> None:
    numbers = random.Random(1)
    for _ in range(2_000):
        number = numbers.randrange(1024, 2 ** numbers.randint(11, 49))
        value, unit = byte_size(number).split(" ")
        last_digit = Fraction(1, 10 ** len(value.partition(".")[2]))
        assert abs(Fraction(value) - Fraction(number, BINARY[unit])) <= last_digit / 2
        assert Fraction(value) < 1024


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [
        (723, 1000, "72.3 %"),
        (1, 2, "50.0 %"),
        (1, 1_000_000, "<0.1 %"),
        (999_999, 1_000_000, ">99.9 %"),
        (7, 7, "100 %"),
        (0, 7, "0 %"),
        (0, 0, "–"),
    ],
)
def test_percent_never_rounds_to_nothing_or_to_everything(part: int, whole: int, text: str) -> None:
    assert percent(part, whole) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.00124, "1.24 ms"),
        (0, "0 s"),
        (1.5e-7, "150 ns"),
        (2.5e-6, "2.50 µs"),
        (0.0009999, "1.00 ms"),  # never "1000 µs"
        (12.34, "12.3 s"),
        (3600, "3,600 s"),
        (4e-10, "0.400 ns"),
    ],
)
def test_seconds_keep_three_digits(value: float, text: str) -> None:
    assert seconds(value) == text


def test_exact_and_shape() -> None:
    assert exact(11_689_512) == "11,689,512"
    assert shape((1, 64, 112, 112)) == "1,64,112,112"
    assert shape(()) == "()"
    assert shape((0,)) == "0"
