"""`--expect-...` and `--max-...`: what is accepted, what is not, and what cannot be known."""

from __future__ import annotations

from typing import Any

import pytest

from netlens.errors import UsageError
from netlens.findings import CODES, Finding, Severity
from netlens.lenses.summary.expectation_syntax import parse_limit, parse_output, parse_params
from netlens.lenses.summary.expectations import check, parse_expectations
from netlens.lenses.summary.report import SummaryReport
from tests.reports import TINY, failed, leaf, operator, report, without_run


def findings(subject: SummaryReport, **expected: Any) -> tuple[Finding, ...]:
    """Parse and check in one go."""
    return check(subject, parse_expectations(**expected))


def codes(subject: SummaryReport, **expected: Any) -> list[str]:
    """The codes of what is wrong."""
    return [finding.code for finding in findings(subject, **expected)]


# --- numbers: what stands for what is written out by hand -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("11689512", 11_689_512, 11_689_512),
        ("11,689,512", 11_689_512, 11_689_512),
        ("11_689_512", 11_689_512, 11_689_512),
        (" 11689512 ", 11_689_512, 11_689_512),
        ("0", 0, 0),
        ("12M", 11_500_000, 12_499_999),  # all that round to 12 million
        ("11.7M", 11_650_000, 11_749_999),
        ("11.70M", 11_695_000, 11_704_999),
        ("11.689512M", 11_689_512, 11_689_512),
        ("1.5K", 1_450, 1_549),
        ("7B", 6_500_000_000, 7_499_999_999),
        ("0.4k", 350, 449),
        ("11.7M±1%", 11_583_000, 11_817_000),
        ("11.7M+-1%", 11_583_000, 11_817_000),
        ("11.7M +/- 1 %", 11_583_000, 11_817_000),
        ("1000±0.25%", 998, 1_002),  # 997.5 to 1002.5
        ("1000±200%", 0, 3_000),
    ],
)
def test_expected_parameters_stand_for_a_range_of_whole_numbers(text: str, low: int, high: int) -> None:
    amount = parse_params(text)
    assert (amount.low, amount.high) == (low, high)


def test_numbers_from_a_configuration_file_may_be_integers() -> None:
    assert parse_params(51).low == parse_params(51).high == 51
    assert parse_limit("--max-size", 204, in_bytes=True).high == 204


@pytest.mark.parametrize(
    ("text", "in_bytes", "high"),
    [
        ("12M", False, 12_000_000),
        ("2.5G", False, 2_500_000_000),
        ("1T", False, 10**12),
        ("70B", False, 70 * 10**9),
        ("50", True, 50),
        ("50B", True, 50),
        ("50MB", True, 50_000_000),
        ("50M", True, 50_000_000),
        ("50mb", True, 50_000_000),
        ("1.5 GB", True, 1_500_000_000),
        ("1KiB", True, 1024),
        ("50MiB", True, 52_428_800),
        ("24GiB", True, 25_769_803_776),
        ("2TiB", True, 2_199_023_255_552),
        ("0.1KiB", True, 102),  # 102.4 bytes: 102 fit
    ],
)
def test_limits_are_decimal_but_for_the_binary_units(text: str, in_bytes: bool, high: int) -> None:
    assert parse_limit("--max-x", text, in_bytes=in_bytes).high == high


@pytest.mark.parametrize(
    "text",
    [
        "",
        "many",
        "-5",
        "1.5",
        "12X",
        "12MB",
        "12MiB",
        "11,68",
        "1,2,3",
        "11.689.512",
        "1e6",
        "12M±",
        "12M±1",
        "12M%",
        "9" * 5000,
        "٣",
        "11.6895125M",
        "1__0",
        "_1",
        "M",
        "12 M M",
        "0x10",
        "nan",
        "inf",
    ],
)
def test_what_is_no_number_of_parameters_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_params(text)
    assert "--expect-params" in caught.value.message
    assert "11.7M" in caught.value.hint
    assert len(caught.value.message) < 200


@pytest.mark.parametrize(("text", "in_bytes"), [("12KiB", False), ("12M±1%", False), ("12X", True), ("lots", True), ("12MBB", True)])
def test_what_is_no_limit_is_refused_with_an_example(text: str, in_bytes: bool) -> None:
    with pytest.raises(UsageError) as caught:
        parse_limit("--max-size", text, in_bytes=in_bytes)
    assert "--max-size" in caught.value.message
    assert "for example --max-size" in caught.value.hint


# --- outputs ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shape", "matches"),
    [
        ("1,3", (1, 3), True),
        ("1, 3", (1, 3), True),
        ("(1, 3)", (1, 3), True),
        ("(3,)", (3,), True),
        ("1,3", (1, 4), False),
        ("1,3", (3, 1), False),
        ("1,3", (1, 3, 1), False),
        ("*,3", (7, 3), True),
        ("*,3", (3,), False),
        ("*", (), False),
        ("...,3", (3,), True),
        ("...,3", (5, 6, 3), True),
        ("...,3", (3, 5), False),
        ("1,...,3", (1, 3), True),
        ("1,...,3", (1, 9, 9, 3), True),
        ("1,...,3", (3,), False),
        ("1,...,*,3", (1, 3), False),
        ("1,...", (1,), True),
        ("...", (), True),
        ("...", (4, 4), True),
        ("()", (), True),
        ("()", (1,), False),
        ("1,3:float32", (1, 3), True),
        ("1,3:float16", (1, 3), False),
        ("?", (9, 9), True),
        ("?:float32", (9, 9), True),
        ("?:int64", (9, 9), False),
        ("0,4", (0, 4), True),
    ],
)
def test_a_pattern_fits_a_float32_output_or_not(text: str, shape: tuple[int, ...], matches: bool) -> None:
    subject = report(outputs=(leaf(*shape),))
    assert codes(subject, expect_output=[text]) == ([] if matches else ["expect-output"])


@pytest.mark.parametrize(
    "texts",
    [
        [""],
        ["one"],
        ["1,,3"],
        ["1,-3"],
        ["1x3"],
        ["1,3:"],
        ["1,3:fp16"],
        ["=1,3"],
        ["a="],
        ["...,1,..."],
        ["1,?"],
        ["1.5"],
        ["1,3,"],
        ["a=1", "1"],
        ["a=1", "a=2"],
        ["٣"],
        ["9" * 40],
    ],
)
def test_what_is_no_pattern_is_refused_with_an_example(texts: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        parse_expectations(expect_output=texts)
    assert "--expect-output" in caught.value.message
    assert caught.value.hint


def test_a_pattern_keeps_its_parts() -> None:
    pattern = parse_output("boxes=*,4:float16")
    assert (pattern.name, pattern.shape, pattern.dtype) == ("boxes", ("*", 4), "float16")


def test_the_finding_names_the_dimension_and_both_shapes() -> None:
    (finding,) = findings(TINY, expect_output=["1,4"])
    assert (finding.code, finding.severity, finding.measured, finding.threshold) == ("expect-output", Severity.ERROR, "1,3 float32", "1,4")
    assert "dimension 1 is 3, expected 4" in finding.message
    assert finding.remedy


TWO = report(outputs=(leaf(name="loss"), leaf(1, 1000, name="logits", dtype="float16")))
BOXES = report(outputs=(leaf(9, 4, name="0.boxes"), leaf(9, name="0.labels", dtype="int64"), leaf(2, 4, name="1.boxes")))


@pytest.mark.parametrize(
    ("texts", "wrong"),
    [
        (["logits=1,1000"], 0),
        (["logits=1,1000:float16", "loss=()"], 0),
        (["logits=1,10", "loss=1"], 2),  # both are reported
        (["()", "1,1000"], 0),
        (["?", "1,1000"], 0),
        (["1,1000", "()"], 2),  # order counts
        (["1,1000"], 1),  # which of the two?
        (["?"], 0),
        (["?", "?", "?"], 1),  # three tensors are expected
        (["logit=1,1000"], 1),
        (["logits=?"], 0),
        (["logit=?"], 1),
    ],
)
def test_several_outputs_are_found_by_name_or_by_order(texts: list[str], wrong: int) -> None:
    assert codes(TWO, expect_output=texts) == ["expect-output"] * wrong


@pytest.mark.parametrize("text", ["1,1000", "logit=1,1000"])
def test_an_ambiguous_pattern_or_an_unknown_name_lists_the_tensors(text: str) -> None:
    (finding,) = findings(TWO, expect_output=[text])
    assert "loss=()" in finding.measured and "logits=1,1000" in finding.measured


def test_a_name_means_every_tensor_whose_dotted_name_ends_with_it() -> None:
    assert codes(BOXES, expect_output=["boxes=*,4"]) == []
    assert [finding.where for finding in findings(BOXES, expect_output=["boxes=9,4"])] == ["output.1.boxes"]
    assert codes(BOXES, expect_output=["0.boxes=9,4"]) == []
    assert codes(BOXES, expect_output=["oxes=*,4"]) == ["expect-output"]


def test_a_name_for_a_bare_tensor_says_that_it_has_none() -> None:
    (finding,) = findings(TINY, expect_output=["logits=1,3"])
    assert "leave the name out" in finding.remedy


@pytest.mark.parametrize("subject", [without_run(), failed(), report(outputs=())])
def test_an_output_that_is_not_known_is_not_as_expected(subject: SummaryReport) -> None:
    (finding,) = findings(subject, expect_output=["..."])
    assert finding.severity is Severity.ERROR
    assert "unknown" in finding.message
    assert codes(subject, expect_output=["?"]) == []


# --- parameters and limits: Tiny has 51 parameters, 96 MACs, 228 bytes, 984 bytes to train ----------------------------------


@pytest.mark.parametrize(("text", "good"), [("51", True), ("50", False), ("52", False), ("50±2%", True), ("0.05K", True), ("0.1K", True)])
def test_parameters_are_compared_exactly_or_as_written(text: str, good: bool) -> None:
    assert codes(TINY, expect_params=text) == ([] if good else ["expect-params"])


def test_the_finding_says_what_a_rounded_number_stands_for() -> None:
    (finding,) = findings(TINY, expect_params="11.7M")
    assert "11,650,000 to 11,749,999" in finding.message
    (finding,) = findings(TINY, expect_params="60")
    assert (finding.measured, finding.threshold) == ("51", "60")
    assert "9 fewer" in finding.message


@pytest.mark.parametrize(
    ("option", "at", "code"),
    [("max_params", 51, "max-params"), ("max_macs", 96, "max-macs"), ("max_size", 228, "max-size"), ("max_memory", 984, "max-memory")],
)
def test_a_limit_may_be_reached_but_not_exceeded(option: str, at: int, code: str) -> None:
    assert codes(TINY, **{option: at}) == []
    assert codes(TINY, **{option: str(at + 1)}) == []
    (finding,) = findings(TINY, **{option: at - 1})
    assert finding.code == code
    assert finding.severity is Severity.ERROR
    assert str(at) in finding.measured and str(at - 1) in finding.threshold


def test_everything_is_checked_and_reported_together() -> None:
    found = codes(TINY, expect_output=["1,4"], expect_params="1", max_params=1, max_macs=1, max_size=1, max_memory=1)
    assert found == ["expect-output", "expect-params", "max-params", "max-macs", "max-size", "max-memory"]
    assert set(found) <= set(CODES)


def test_no_demand_is_no_finding() -> None:
    assert codes(TINY) == []
    assert codes(without_run()) == []


def test_macs_that_are_a_lower_bound_are_unknown_below_the_limit_and_too_many_above_it() -> None:
    bound = report(uncounted=(operator("aten.fft_fft2"),))
    (below,) = findings(bound, max_macs="1M")
    assert "unknown" in below.message and "aten.fft_fft2" in below.message
    assert below.measured == "unknown: at least 96 multiply-adds"
    (above,) = findings(bound, max_macs=95)
    assert "unknown" not in above.message and "at least 96" in above.message


def test_operators_that_do_not_multiply_leave_macs_exact() -> None:
    assert codes(report(uncounted=(operator("aten.sort", multiplies=False),)), max_macs=96) == []


def test_without_a_run_macs_and_memory_are_unknown_but_parameters_are_not() -> None:
    found = findings(without_run("no input is known"), max_params=51, max_size=228, max_macs="1T", max_memory="1T")
    assert [finding.code for finding in found] == ["max-macs", "max-memory"]
    assert all("no input is known" in finding.message for finding in found)


def test_weights_alone_can_already_exceed_the_memory_limit() -> None:
    """Weights 204, buffers 24, input 64, gradients 204, moments 408: 904 bytes without any activation."""
    (above,) = findings(without_run(), max_memory=903)
    assert "unknown" not in above.message and "at least 904" in above.message
    (below,) = findings(without_run(), max_memory=904)
    assert "unknown" in below.message


def test_a_forward_pass_that_failed_bounds_macs_from_below() -> None:
    (below,) = findings(failed(), max_macs=72)
    assert "failed at fc" in below.message
    (above,) = findings(failed(), max_macs=71)
    assert "at least 72" in above.message
