"""Flags of files become issues: one for each kind, the worst first, and of those that are many only what is unusual."""

from __future__ import annotations

import numpy as np
import pytest

from netlens.data.exchange import Alone
from netlens.data.files import file_issues
from netlens.data.issues import Issue
from netlens.data.records import FLAGS, MODES
from netlens.findings import CODES
from tests.data_rows import flagged, healthy, listed, of_each, scanned, sized

FIX = {
    *("file-unreadable", "file-empty", "not-an-image", "picture-truncated", "picture-damaged", "picture-undecodable"),
    *("picture-too-large", "all-transparent", "blank"),
}


def issues(rows: np.ndarray, details: dict[int, str] | None = None) -> dict[str, Issue]:
    found = file_issues(listed({"": {"a": len(rows)}}), scanned(rows, details), Alone())
    assert len({issue.code for issue in found}) == len(found)
    return {issue.code: issue for issue in found}


def places(issue: Issue) -> list[int]:
    return [int(item.paths[0].split("/")[-1].removesuffix(".jpg")) for item in issue.items]


def test_healthy_files_have_no_issue():
    assert issues(healthy(50)) == {}


def test_of_no_files_there_is_nothing_to_say():
    """As after a Ctrl-C before the first file was seen."""
    assert file_issues(listed({"": {"a": 5}}), scanned(healthy(0)), Alone()) == []


@pytest.mark.parametrize("code", [code for code in FLAGS if code != "mode-grey"])
def test_each_flag_is_an_issue_with_its_files(code):
    rows = healthy(30)
    flagged(rows, [4, 17], code)
    (issue,) = issues(rows, {4: "four", 17: "seventeen"}).values()
    assert issue.code == code in CODES
    assert {(*item.paths, item.detail) for item in issue.items} == {("data/a/4.jpg", "four"), ("data/a/17.jpg", "seventeen")}
    assert issue.total == 30
    assert set(issue.fix) == ({"data/a/4.jpg", "data/a/17.jpg"} if code in FIX else set())


@pytest.mark.parametrize(
    ("code", "values"),
    [
        ("blurred", {"sharpness": [0.02, 0.001, 0.01]}),
        ("upscaled", {"sharpness": [0.02, 0.001, 0.01]}),
        ("motion-blurred", {"direction": [0.19, 0.02, 0.1]}),
        ("noisy", {"sharpness": [13, 20, 19]}),
        ("dark", {"high": [60, 3, 20]}),
        ("bright", {"low": [191, 250, 200]}),
        ("low-contrast", {"low": [100, 100, 90], "high": [138, 101, 100]}),
        ("blank", {"spread": [1.2, 0, 0.4]}),
        ("too-small", {"width": [9, 1, 100], "height": [9, 50, 5]}),
        ("picture-too-large", {"width": [10**4, 10**5, 10**5], "height": [10**4, 10**5, 10**4]}),
    ],
)
def test_the_worst_come_first(code, values):
    """Of each triple the second is the worst, the first the least bad."""
    rows = healthy(5)
    flagged(rows, [0, 2, 4], code)
    for name, numbers in values.items():
        rows[name][[0, 2, 4]] = numbers
    assert places(issues(rows)[code]) == [2, 4, 0]


def test_files_without_a_measure_and_equal_ones_are_in_order():
    rows = healthy(9)
    flagged(rows, [1, 3, 8], "exif-rotated", "dark")
    assert places(issues(rows)["exif-rotated"]) == places(issues(rows)["dark"]) == [1, 3, 8]


def test_the_detail_of_a_look_is_about_the_first_flag_only():
    rows = healthy(2)
    flagged(rows, 1, "mode-grey", "wrong-suffix", "dark")
    rows["high"][1] = 21
    found = issues(rows, {1: "a PNG file"})
    assert found["wrong-suffix"].items[0].detail == "a PNG file"
    assert found["dark"].items[0].detail == "99 % of it is darker than 22 of 255"


@pytest.mark.parametrize(("grey", "told"), [(0, False), (1, True), (19, True), (20, False), (60, False), (100, False)])
def test_grey_is_told_only_of_a_minority(grey, told):
    rows = healthy(100)
    flagged(rows, slice(0, grey), "mode-grey")
    found = issues(rows)
    assert ("grey-among-colour" in found) == told
    assert "mode-grey" not in found
    if told:
        assert places(found["grey-among-colour"]) == list(range(grey))


@pytest.mark.parametrize(("coloured", "told"), [(0, False), (1, True), (19, True), (20, False)])
def test_colour_is_told_only_of_a_minority(coloured, told):
    rows = healthy(100)
    flagged(rows, slice(coloured, None), "mode-grey")
    found = issues(rows)
    assert ("modes-mixed" in found) == told
    if told:
        assert places(found["modes-mixed"]) == list(range(coloured))


@pytest.mark.parametrize("code", ["blank", "dark", "bright", "mode-bilevel", "mode-16-bit", "picture-truncated"])
def test_what_is_grey_for_another_reason_is_not_told_twice(code):
    rows = healthy(100)
    flagged(rows, [5], "mode-grey", code)
    assert list(issues(rows)) == [code]


def test_a_set_of_16_bits_is_one_issue():
    rows = healthy(40)
    rows["mode"] = MODES.index("I;16")
    flagged(rows, slice(None), "mode-16-bit", "mode-grey")
    (issue,) = issues(rows).values()
    assert (issue.code, len(issue.items), issue.total) == ("mode-16-bit", 40, 40)


@pytest.mark.parametrize("size", [2, 3])
def test_any_number_of_processes_gives_the_same_issues(size):
    rng = np.random.default_rng(0)
    rows = healthy(300)
    for code in FLAGS:
        flagged(rows, np.flatnonzero(rng.random(300) < 0.03), code)
    sized(rows, slice(None), rng.integers(1, 500, 300), rng.integers(1, 500, 300))
    for name in ("sharpness", "spread", "direction", "low", "high"):
        rows[name] = rng.integers(0, 4, 300)  # many are equal
    details = {int(place): f"detail {place}" for place in np.flatnonzero(rows["flags"])}
    listing = listed({"train": {"a": 200}, "val": {"a": 100}})
    alone = file_issues(listing, scanned(rows, details), Alone())
    assert len(alone) >= len(FLAGS)
    for answer in of_each(size, lambda rank, exchange: file_issues(listing, scanned(rows, details, rank=rank, size=size), exchange)):
        assert answer == alone
