"""Sets as a whole: planted faults with known answers, and clean sets by the hundred that must stay silent."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from math import comb, exp, log

import numpy as np
import pytest

from netlens.data.betrayal import Clue, betrayed, log_chance
from netlens.data.exchange import Alone
from netlens.data.facts import gathered
from netlens.data.features import FREQUENT
from netlens.data.issues import Issue
from netlens.data.listing import Listing
from netlens.data.records import FORMATS, MODES
from netlens.data.sets import judge
from netlens.findings import CODES
from tests.data_rows import flagged, healthy, listed, of_each, scanned, sized


def judged(listing: Listing, rows: np.ndarray | None = None, **asked: object) -> dict[str, Issue]:
    found = judge(listing, scanned(healthy(len(listing)) if rows is None else rows), Alone(), **asked)
    assert len({issue.code for issue in found}) == len(found)
    assert all(issue.code in CODES and issue.items and issue.total >= len(issue.items) for issue in found)
    return {issue.code: issue for issue in found}


def told(issue: Issue) -> dict[str, str]:
    return {item.paths[0]: item.detail for item in issue.items}


CLEAN = {"cat": 60, "dog": 70, "eel": 50}


def test_a_clean_set_has_no_issue():
    assert judged(listed({"train": CLEAN, "val": dict.fromkeys(CLEAN, 12)})) == {}
    assert judged(listed({"": CLEAN}), classes=3) == {}
    assert judged(listed({"": CLEAN}), classes=("cat", "dog", "eel")) == {}


def test_pictures_without_classes_have_no_issue_of_classes():
    listing = listed({"": {"all": 50}}, "flat")
    flat = Listing((type(listing.splits[0])("", "./data", (), "flat"),), listing.paths, listing.split, listing.label * 0 - 1)
    assert judged(flat) == {}


# Classes of splits


def test_classes_with_other_indices_are_shown_with_both():
    found = judged(listed({"train": {"bird": 40, "cat": 40, "dog": 40}, "val": {"cat": 20, "dog": 20}}))
    assert told(found["class-index-shift"]) == {"cat": "1 in train, 0 in val", "dog": "2 in train, 1 in val"}
    assert found["class-index-shift"].total == 2
    assert told(found["class-missing"]) == {"bird": "40 files in train, none in val"}
    assert set(found) == {"class-index-shift", "class-missing"}


def test_a_class_that_only_val_has_is_unknown_and_moves_those_after_it():
    found = judged(listed({"val": {"ant": 15, "cat": 20}, "train": {"cat": 40, "dog": 40}, "test": {"cat": 11, "dog": 12}}))
    assert told(found["class-unknown"]) == {"ant": "15 files in val, and train has no such class"}
    assert told(found["class-index-shift"]) == {"cat": "0 in train, 1 in val"}
    assert told(found["class-missing"]) == {"dog": "40 files in train, none in val"}


def test_an_empty_folder_is_another_issue_and_a_table_without_rows_is_this_one():
    splits: Mapping[str, Mapping[str, int]] = {"train": {"cat": 40, "dog": 40}, "val": {"cat": 20, "dog": 0}}
    assert "class-missing" not in judged(listed(splits))
    assert told(judged(listed(splits, "table"))["class-missing"]) == {"dog": "40 files in train, none in val"}


def test_names_that_were_asked_for_are_what_splits_are_compared_with():
    found = judged(listed({"": {"cat": 40, "dog": 40, "fox": 40}}), classes=("dog", "cat", "gnu"))
    assert told(found["class-index-shift"]) == {"dog": "0 in --classes, 1 in ./data", "cat": "1 in --classes, 0 in ./data"}
    assert told(found["class-unknown"]) == {"fox": "40 files in ./data, and --classes has no such class"}
    assert told(found["class-missing"]) == {"gnu": "none in ./data"}


def test_indices_outside_the_number_of_classes():
    listing = listed({"": {"a": 30, "b": 30, "c": 31}})
    assert told(judged(listing, classes=2)["label-range"]) == {"c": "index 2, 31 files in ./data: --classes 2 takes 0 to 1"}
    assert told(judged(listing, classes=5)["class-missing"]) == {"./data": "3 classes, and --classes says 5"}


def test_a_table_that_has_no_row_of_a_class_is_told_as_a_folder_is():
    table = listed({"train": {"0": 30, "1": 30, "2": 0}, "val": {"0": 12, "1": 12, "2": 12}}, "table")
    found = judged(table, classes=3)
    assert told(found["class-missing"]) == {"train": "2 classes, and --classes says 3"}
    assert told(found["class-unknown"]) == {"2": "12 files in val, and train has no such class"}
    assert "label-range" not in judged(table, classes=2)  # which the door of tables tells, row by row


def test_too_few_classes_and_fewer_still_in_val_are_one_issue():
    found = judged(listed({"train": {"a": 30, "b": 30, "c": 30}, "val": {"a": 12, "b": 12}}), classes=4)
    assert [(item.paths[0], item.detail) for item in found["class-missing"].items] == [
        ("train", "3 classes, and --classes says 4"),
        ("val", "2 classes, and --classes says 4"),
        ("c", "30 files in train, none in val"),
    ]


# Sizes of classes


@pytest.mark.parametrize(("rare", "out"), [(10, False), (9, True)])
def test_a_class_is_rare_below_a_tenth_of_an_equal_share(rare, out):
    """Four classes of 400 files in all: an equal share is 100."""
    found = judged(listed({"": {"a": 130, "b": 130, "c": 140 - rare, "d": rare}}))
    assert ("class-imbalance" in found) == out


def test_the_weights_of_rare_classes_are_those_of_scikit_learn():
    counts = {"a": 900, "b": 20, "c": 900, "d": 11}
    issue = judged(listed({"train": counts}))["class-imbalance"]
    total = sum(counts.values())
    weights = {name: total / (4 * count) for name, count in counts.items()}  # compute_class_weight("balanced")
    assert list(told(issue).items()) == [
        ("d", f"11 of 1,831 files of train, weight {weights['d']:.1f}"),
        ("b", f"20 of 1,831 files of train, weight {weights['b']:.1f}"),
    ]
    assert issue.measured == "81.8 times as many of a as of d; to answer a always is right for 49.2 % of train"


def test_classes_of_a_few_files():
    found = judged(listed({"train": {"a": 30, "b": 9, "c": 10}, "val": {"a": 4, "b": 4, "c": 3}}))
    assert told(found["tiny-class"]) == {"b": "9 files in train"}
    found = judged(listed({"train": {"a": 30, "b": 30, "c": 30}, "val": {"a": 14, "b": 14, "c": 3}}))
    assert told(found["tiny-class"]) == {"c": "3 files in val"}


def test_one_class_alone():
    found = judged(listed({"": {"images": 50}}))
    assert told(found["one-label"]) == {"images": "all 50 files of ./data"}


# Sizes of pictures


def test_three_odd_files_in_a_set_of_one_size_are_found():
    rows = healthy(200)
    sized(rows, [7, 8, 150], [330, 64, 4000], [240, 48, 3000])
    sized(rows, [20, 21], 240, 320)  # standing ones of the same size are not odd
    issue = judged(listed({"": {"a": 100, "b": 100}}), rows)["odd-size"]
    assert list(told(issue).items()) == [
        ("data/b/50.jpg", "4,000 x 3,000, 98.5 % are 320 x 240"),
        ("data/a/8.jpg", "64 x 48, 98.5 % are 320 x 240"),
        ("data/a/7.jpg", "330 x 240, 98.5 % are 320 x 240"),
    ]
    assert issue.total == 200


def test_far_larger_and_smaller_ones_among_many_sizes_are_found():
    rng = np.random.default_rng(0)
    rows = healthy(400)
    sized(rows, slice(None), *np.rint(500 * np.exp(rng.normal(0, 0.2, (2, 400)))))
    sized(rows, [3, 300], [20, 8000], [25, 6000])
    issue = judged(listed({"": {"a": 200, "b": 200}}), rows)["odd-size"]
    assert {path.split("/", 1)[1] for path in told(issue)} == {"a/3.jpg", "b/100.jpg"}
    assert issue.items[0].detail.startswith("20 x 25, 0.04") and issue.items[0].detail.endswith(" times the median side")


@pytest.mark.parametrize("share", [0.06, 0.2, 0.5])
def test_two_sizes_are_no_odd_files(share):
    rows = healthy(400)
    sized(rows, slice(0, int(400 * share)), 1024, 768)
    assert judged(listed({"": {"a": 400}}), rows).keys() == {"one-label"}


def test_clean_sizes_hardly_ever_alarm():
    """Sizes spread by factors (log-normally), aspects of photographs; of 160,000 pictures at most 0.1 % may be called odd."""
    alarms = pictures = 0
    for seed in range(160):
        rng = np.random.default_rng(seed)
        count = (20, 50, 200, 1000, 3730)[seed % 5]
        side = rng.uniform(100, 1500) * np.exp(rng.normal(0, rng.choice([0.03, 0.1, 0.3, 0.6, 1.0]), count))
        aspect = rng.choice([1, 4 / 3, 3 / 2, 16 / 9, 3 / 4, 2 / 3], count) * np.exp(rng.normal(0, rng.choice([0, 0.1, 0.2]), count))
        rows = healthy(count)
        sized(rows, slice(None), np.maximum(10, side * np.sqrt(aspect)).astype(int), np.maximum(10, side / np.sqrt(aspect)).astype(int))
        found = judged(listed({"": {"a": count // 2, "b": count - count // 2}}), rows)
        alarms += sum(len(found[code].items) for code in ("odd-size", "odd-aspect") if code in found)
        pictures += count
    assert pictures == 160_000
    assert alarms <= 160


def test_narrow_pictures_are_of_an_odd_aspect_and_not_also_of_an_odd_size():
    rows = healthy(100)
    sized(rows, [1, 50], [900, 100], [100, 1000])
    found = judged(listed({"": {"a": 50, "b": 50}}), rows)
    assert found.keys() == {"odd-aspect"}
    assert list(told(found["odd-aspect"]).items()) == [
        ("data/b/0.jpg", "100 x 1,000, 10.0 times as long as wide"),
        ("data/a/1.jpg", "900 x 100, 9.00 times as long as wide"),
    ]


def test_lines_of_text_are_all_narrow_and_none_is_odd():
    rows = healthy(300)
    rng = np.random.default_rng(0)
    sized(rows, slice(None), 32 * rng.uniform(4, 9, 300), 32)
    assert judged(listed({"": {"a": 150, "b": 150}}), rows) == {}


def test_files_that_cannot_be_decoded_are_not_odd():
    rows = healthy(100)
    sized(rows, 3, 60_000, 60_000)
    flagged(rows, 3, "picture-too-large")
    sized(rows, 4, 5, 5)
    flagged(rows, 4, "too-small")
    assert judged(listed({"": {"a": 50, "b": 50}}), rows) == {}


# Classes that their files give away


def spoilt(kind: str) -> np.ndarray:
    """Return three classes of 80, 100 and 60 files, the first of which is unlike the others but for 1 % and 2 %."""
    rng = np.random.default_rng(0)
    rows = healthy(240)
    sized(rows, slice(None), rng.integers(200, 2000, 240), rng.integers(200, 2000, 240))
    rows["quality"] = rng.integers(70, 97, 240)
    rows["bytes"] = rows["pixels"] * rng.uniform(0.2, 1, 240)
    cats = np.arange(240) < 80
    cats[:1], cats[100:103] = False, True
    if kind == "format":
        rows["format"][cats] = FORMATS.index("PNG")
    elif kind == "mode":
        rows["mode"][cats] = MODES.index("L")
        flagged(rows, cats, "mode-grey")
    elif kind == "grey":
        flagged(rows, cats, "mode-grey")
    elif kind == "size":
        sized(rows, cats, 320, 240)
    elif kind == "quality":
        rows["quality"][cats] = rng.integers(30, 36, cats.sum())
    elif kind == "side":
        sized(rows, cats, rng.integers(90, 110, cats.sum()), rng.integers(90, 110, cats.sum()))
    elif kind == "aspect":
        sized(rows, cats, rows["height"][cats] * 5, rows["height"][cats])
    elif kind == "bytes":
        rows["format"], rows["quality"] = FORMATS.index("WEBP"), 0
        rows["bytes"][cats] = rows["pixels"][cats] * 0.05
    return rows


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("format", "in train, 98.8 % of 80 are PNG files, 1.88 % of the others"),
        ("mode", "in train, 98.8 % of 80 are of mode L, 1.88 % of the others"),
        ("grey", "in train, 98.8 % of 80 are RGB without colour, 1.88 % of the others"),
        ("size", "in train, 98.8 % of 80 are 320 x 240, 1.88 % of the others"),
        ("quality", "in train, 98.8 % of 80 are of JPEG quality 30 to 35, 1.88 % of the others"),
        ("side", " pixels a side (root of the area), 1.88 % of the others"),
        ("aspect", " are 5 times as wide as high, "),
        ("bytes", "in train, 98.8 % of 80 are 0.05 bytes a pixel, 1.88 % of the others"),
    ],
)
def test_a_class_that_its_files_give_away_is_named_with_the_clue(kind, said):
    found = judged(listed({"train": {"cat": 80, "dog": 100, "eel": 60}}), spoilt(kind))
    assert list(told(found["class-betrayed"])) == ["cat"]
    assert said in found["class-betrayed"].items[0].detail


def test_a_class_that_is_betrayed_in_two_splits_is_told_once():
    rows = np.concatenate([spoilt("format"), spoilt("format")])
    counts = {"cat": 80, "dog": 100, "eel": 60}
    issue = judged(listed({"train": counts, "val": counts}), rows)["class-betrayed"]
    assert told(issue) == {"cat": "in train, 98.8 % of 80 are PNG files, 1.88 % of the others"}
    assert issue.total == 3


def test_how_much_a_format_tells_is_mutual_information_over_entropy():
    found = judged(listed({"train": {"cat": 80, "dog": 100, "eel": 60}}), spoilt("format"))
    table = {("cat", "PNG"): 79, ("cat", "JPEG"): 1, ("dog", "PNG"): 3, ("dog", "JPEG"): 97, ("eel", "JPEG"): 60}
    share = {key: count / 240 for key, count in table.items()}
    label = {name: sum(p for key, p in share.items() if key[0] == name) for name in ("cat", "dog", "eel")}
    kind = {name: sum(p for key, p in share.items() if key[1] == name) for name in ("PNG", "JPEG")}
    entropy = -sum(p * log(p) for p in label.values())
    known = sum(p * log(p / (label[a] * kind[b])) for (a, b), p in share.items()) / entropy
    chance = 1 * 2 / (2 * 240 * entropy)
    assert (
        found["class-betrayed"].measured
        == f"the format tells {100 * known:.3g} % of the class, and would tell {100 * chance:.3g} % by chance"
    )


@pytest.mark.parametrize("kind", ["format", "quality", "size"])
def test_a_thousand_classes_with_one_that_is_betrayed(kind):
    rng = np.random.default_rng(0)
    rows = healthy(20_000)
    sized(rows, slice(None), rng.integers(200, 220, 20_000), rng.integers(200, 220, 20_000))
    rows["quality"] = rng.integers(70, 97, 20_000)
    own = slice(20 * 700, 20 * 701)
    if kind == "format":
        rows["format"][own] = FORMATS.index("PNG")
    elif kind == "quality":
        rows["quality"][own] = 40
    else:
        sized(rows, own, 300, 300)
    found = judged(listed({"": {f"class {i:03}": 20 for i in range(1000)}}), rows)
    assert list(told(found["class-betrayed"])) == ["class 700"]


def test_classes_of_two_sources_are_told_by_the_one_source():
    """Four classes, two of them in PNG: the others stand out only because of these."""
    rows = healthy(160)
    rows["format"][:80] = FORMATS.index("PNG")
    rows["format"][80:] = FORMATS.index("JPEG")
    found = judged(listed({"": dict.fromkeys("abcd", 40)}), rows)["class-betrayed"]
    assert told(found) == dict.fromkeys("ab", "in ./data, all 40 are PNG files, 33.3 % of the others")


def test_a_class_of_each_quality_is_told_of_all_but_one():
    rows = healthy(400)
    rows["quality"] = np.repeat(np.arange(50, 70), 20)
    found = judged(listed({"": {f"{i:02}": 20 for i in range(20)}}), rows)["class-betrayed"]
    assert len(found.items) == 19
    assert all(detail.endswith(", none of the others") for detail in told(found).values())


def test_of_a_handful_of_files_nothing_is_concluded():
    """Five PNG files against five JPEG files are so by chance once in comb(10, 5) = 252 times."""
    rows = healthy(10)
    rows["format"][:5] = FORMATS.index("PNG")
    assert judged(listed({"": {"a": 5, "b": 5}}), rows).keys() == {"tiny-class"}


def test_a_weak_tie_in_a_huge_set_is_no_betrayal():
    rng = np.random.default_rng(0)
    rows = healthy(60_000)
    png = rng.random(60_000) < np.where(np.arange(60_000) < 30_000, 0.45, 0.05)
    rows["format"][png] = FORMATS.index("PNG")
    assert judged(listed({"": {"a": 30_000, "b": 30_000}}), rows) == {}


def test_clean_sets_do_not_betray_a_class():
    """Properties drawn without regard to the label, of 2 to 1,000 classes of 1 to 80 files: 200 sets, each with a chance of 0.1 %."""
    alarms = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        names = [f"{i:04}" for i in range((2, 3, 10, 100, 1000)[seed % 5])]
        sizes = rng.integers(1, (80, 80, 40, 12, 4)[seed % 5], len(names))
        labels = np.repeat(np.arange(len(names)), sizes)
        rows = healthy(len(labels))
        few = rng.integers(1, 5)
        rows["format"] = rng.choice(rng.integers(1, 8, few), len(rows))
        rows["mode"] = rng.choice(rng.integers(1, 8, few), len(rows))
        rows["quality"] = rng.choice([0, 75, 80, 90, 95], len(rows)) if seed % 2 else rng.integers(1, 100, len(rows))
        rows["width"] = rng.choice(rng.integers(50, 900, 3**few), len(rows))
        rows["height"] = rng.choice(rng.integers(50, 900, few), len(rows))
        rows["pixels"] = 1
        rows["bytes"] = rng.integers(100, 10**6, len(rows))
        flagged(rows, rng.random(len(rows)) < 0.2, "mode-grey")
        alarms += len(betrayed(gathered(scanned(rows), Alone()), labels, names, "train")[0])
    assert alarms <= 1


def test_the_chance_is_that_of_fishers_test():
    """The sum of the hypergeometric distribution in exact fractions; the bound is never below it, and close where it matters."""
    for having, own, straying, others in [(5, 5, 0, 5), (8, 10, 1, 30), (20, 20, 5, 400), (3, 4, 1, 6), (60, 80, 10, 160), (9, 9, 0, 1)]:
        marked, every = having + straying, own + others
        exact = Fraction(
            sum(comb(marked, k) * comb(every - marked, own - k) for k in range(having, min(marked, own) + 1)), comb(every, own)
        )
        bound = exp(log_chance(Clue(None, 0, 0, 0, having, own, straying, others)))
        assert float(exact) * (1 - 1e-9) <= bound <= 1.5 * float(exact)


def test_the_interval_is_the_best_of_all():
    """All intervals of qualities are tried in plain loops."""
    rng = np.random.default_rng(3)
    rows = healthy(120)
    labels = np.repeat([0, 1, 2], 40)
    rows["quality"] = np.where(labels == 1, rng.integers(40, 60, 120), rng.integers(30, 99, 120))
    own, rest = rows["quality"][labels == 1], rows["quality"][labels != 1]
    gains = {
        (low, high): np.mean((own >= low) & (own <= high)) - np.mean((rest >= low) & (rest <= high))
        for low in range(1, 101)
        for high in range(low, 101)
    }
    best = max(gains.values())
    ((worth, item),) = betrayed(gathered(scanned(rows), Alone()), labels, ("a", "b", "c"), "train")[0]
    assert best > FREQUENT
    assert worth == pytest.approx(best, abs=1e-12)
    assert f"JPEG quality {own.min()} to {own.max()}" in item.detail


@pytest.mark.parametrize("size", [2, 4])
def test_any_number_of_processes_gives_the_same_issues(size):
    rng = np.random.default_rng(5)
    listing = listed({"train": {"bird": 8, "cat": 80, "dog": 900}, "val": {"cat": 30, "dog": 40}})
    rows = healthy(len(listing))
    sized(rows, slice(None), rng.integers(300, 340, len(rows)), rng.integers(300, 340, len(rows)))
    sized(rows, [4, 500], [4000, 900], [4000, 90])
    rows["format"][8:88] = FORMATS.index("PNG")
    alone = judge(listing, scanned(rows), Alone(), classes=2)
    assert {issue.code for issue in alone} >= {"class-betrayed", "odd-size", "odd-aspect", "class-index-shift", "class-imbalance"}
    for answer in of_each(size, lambda rank, exchange: judge(listing, scanned(rows, rank=rank, size=size), exchange, classes=2)):
        assert answer == alone
