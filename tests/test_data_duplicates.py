"""Copies: planted ones, whose groups are known, among pictures that have nothing in common."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from netlens.data import alike
from netlens.data.alike import correlation
from netlens.data.duplicates import find_copies
from netlens.data.exchange import Alone
from netlens.data.issues import Issue
from netlens.data.listing import Listing, Paths, Split
from netlens.data.look import look
from netlens.data.records import RECORD
from netlens.data.scan import Scanned
from tests.conftest import REPOSITORY
from tests.data_rows import flagged, healthy, listed, of_each, scanned

ONE = {"": {"cat": 40, "dog": 40}}
TWO = {"train": {"cat": 40, "dog": 40}, "val": {"cat": 40, "dog": 40}}


def pictures(count: int, seed: int = 0) -> np.ndarray:
    """Return records of pictures that have nothing in common."""
    dice = np.random.default_rng(seed)
    rows = healthy(count)
    rows["digest"] = dice.integers(1, 1 << 64, (count, 2), np.uint64)
    rows["hash"], rows["mirrored"] = dice.integers(1, 1 << 64, (2, count), np.uint64)
    rows["thumb"] = dice.integers(0, 256, (count, 16, 16))
    return rows


def same(rows: np.ndarray, place: int, as_place: int) -> None:
    rows[place] = rows[as_place]


def near(rows: np.ndarray, place: int, as_place: int, bits: int = 3, noise: int = 0) -> None:
    """Make a picture a changed copy of another: so many bits of its hashes are others, and its pixels are up to `noise` off."""
    digest = rows["digest"][place].copy()
    rows[place] = rows[as_place]
    rows["digest"][place] = digest
    chosen = random.Random(place).sample(range(64), bits)
    rows["hash"][place] ^= np.uint64(sum(1 << bit for bit in chosen))
    rows["mirrored"][place] ^= np.uint64(sum(1 << bit for bit in chosen))
    error = np.random.default_rng(place).integers(-noise, noise + 1, (16, 16))
    rows["thumb"][place] = (rows["thumb"][place] + error).clip(0, 255)


def mirrored(rows: np.ndarray, place: int, as_place: int) -> None:
    near(rows, place, as_place, bits=0)
    rows["hash"][place], rows["mirrored"][place] = rows["mirrored"][as_place], rows["hash"][as_place]
    rows["thumb"][place] = rows["thumb"][as_place][:, ::-1]


def copies(listing: Listing, rows: np.ndarray) -> dict[str, Issue]:
    found = find_copies(listing, scanned(rows), Alone())
    issues = {issue.code: issue for issue in found}
    assert len(issues) == len(found) and all(issue.items for issue in found)
    return issues


def groups(issue: Issue) -> list[tuple[str, ...]]:
    return [item.paths for item in issue.items]


def at(listing: Listing, *places: int) -> tuple[str, ...]:
    return tuple(listing.paths[place] for place in places)


def test_pictures_that_have_nothing_in_common_are_no_copies():
    assert copies(listed({"train": {"cat": 900, "dog": 900}, "val": {"cat": 200}}), pictures(2000)) == {}
    assert copies(listed({"": {}, "val": {"cat": 1}}), pictures(1)) == {}


def test_the_same_bytes():
    listing, rows = listed(ONE), pictures(80)
    for place, as_place in ((7, 3), (30, 3), (21, 20)):
        same(rows, place, as_place)
    issues = copies(listing, rows)
    assert set(issues) == {"duplicate-exact"}
    issue = issues["duplicate-exact"]
    assert groups(issue) == [at(listing, 3, 7, 30), at(listing, 20, 21)]  # the largest first
    assert {item.detail for item in issue.items} == {"identical"}
    assert (issue.total, issue.measured, issue.fix) == (80, "5 files in 2 groups", at(listing, 7, 21, 30))


def test_what_is_no_picture_is_no_copy():
    rows = pictures(80)
    rows["digest"][:5], rows["bytes"][:5] = rows["digest"][0], 0  # empty
    rows["digest"][5:10] = 0  # unreadable
    rows["digest"][10:15] = rows["digest"][10]
    flagged(rows, slice(10, 15), "not-an-image")  # the same error page of a server
    rows["digest"][15:17], rows["bytes"][15:17] = rows["digest"][15], (1000, 1001)  # no two files have the same digest and another size
    assert copies(listed(ONE), rows) == {}


def test_what_is_told_of_by_itself_is_not_told_again_as_a_copy():
    rows = pictures(80)
    for place in range(1, 8):
        same(rows, place, 0)
    flagged(rows, slice(0, 8), "blank")
    assert copies(listed(ONE), rows) == {}
    rows = pictures(42)
    same(rows, 0, 5)  # what an editor leaves in .ipynb_checkpoints
    same(rows, 20, 6)
    listing = listed({"": {".ipynb_checkpoints": 2, "cat": 40}})
    assert groups(copies(listing, rows)["duplicate-exact"]) == [at(listing, 6, 20)]


@pytest.mark.parametrize(("change", "grey", "found"), [(7, False, True), (30, False, False), (30, True, True)])
def test_pictures_of_other_colours_are_no_copies_unless_one_is_grey(change: int, grey: bool, found: bool):
    """Red is raised by 3/2 of `change` levels, so that it is `change` further above the mean of the three."""
    listing, rows = listed(ONE), pictures(80)
    near(rows, 9, 4)
    rows["sums"][9, 0] += rows["pixels"][9] * np.uint64(change * 3 // 2)
    if grey:
        flagged(rows, [4], "mode-grey")
    assert ("duplicate-near" in copies(listing, rows)) is found


def test_skies_that_differ_in_all_but_their_light_are_no_copies():
    listing, rows = listed(ONE), pictures(80)
    near(rows, 9, 4)
    light, dice = np.linspace(60, 200, 16)[:, None] * np.ones(16), np.random.default_rng(0)
    for place in (4, 9):
        rows["thumb"][place] = light + dice.normal(0, 3, (16, 16))
    correlated = np.corrcoef(rows["thumb"][4].ravel().astype(float), rows["thumb"][9].ravel().astype(float))[0, 1]
    assert correlated > 0.97 and copies(listing, rows) == {}


def test_a_file_that_two_tables_name_is_not_left_out():
    listing, rows = listed(TWO), pictures(160)
    listing = replace(listing, paths=Paths([listing.paths[80], *list(listing.paths)[1:]]))
    same(rows, 0, 80)
    issue = copies(listing, rows)["leak-exact"]
    assert groups(issue) == [at(listing, 0, 80)] and issue.fix == ()


def test_damaged_files_are_copies_as_well():
    listing, rows = listed(ONE), pictures(80)
    same(rows, 1, 0)
    flagged(rows, [0, 1], "picture-truncated")
    rows["hash"][[0, 1]], rows["pixels"][[0, 1]] = 0, 0
    assert groups(copies(listing, rows)["duplicate-exact"]) == [at(listing, 0, 1)]


def test_hardly_changed_and_mirrored_copies():
    listing, rows = listed(ONE), pictures(80)
    near(rows, 9, 4, bits=3, noise=20)
    near(rows, 12, 10, bits=8)
    mirrored(rows, 60, 50)
    issues = copies(listing, rows)
    assert set(issues) == {"duplicate-near", "duplicate-mirrored"}
    percent = int(100 * np.corrcoef(rows["thumb"][4].ravel(), rows["thumb"][9].ravel())[0, 1])
    assert 90 < percent < 100
    found = {item.paths: item.detail for item in issues["duplicate-near"].items}
    assert found == {
        at(listing, 4, 9): f"distance 3 of 64, {percent} % alike",
        at(listing, 10, 12): "distance 8 of 64, 100 % alike",
    }
    assert issues["duplicate-near"].fix == at(listing, 9, 12)
    (item,) = issues["duplicate-mirrored"].items
    assert (item.paths, item.detail) == (at(listing, 50, 60), "mirrored, distance 0 of 64, 100 % alike")


def test_a_close_hash_alone_makes_no_copy():
    rows = pictures(80)
    near(rows, 1, 0, noise=150)  # its thumbnail is another
    assert np.corrcoef(rows["thumb"][0].ravel(), rows["thumb"][1].ravel())[0, 1] < 0.89
    near(rows, 3, 2)
    rows["width"][2:4], rows["height"][2:4] = (400, 90), 100  # one is wide, the other is high: 4.4 times
    near(rows, 5, 4, bits=9)
    near(rows, 7, 6)
    rows["hash"][6:8] = 0  # nothing in it
    mirrored(rows, 9, 8)
    rows["thumb"][9] = rows["thumb"][8]  # only its hash is mirrored
    assert copies(listed(ONE), rows) == {}


def test_a_copy_may_be_squashed_to_a_square():
    listing, rows = listed(ONE), pictures(80)
    near(rows, 1, 0)
    rows["width"][:2], rows["height"][:2] = (1920, 224), (1080, 224)
    assert groups(copies(listing, rows)["duplicate-near"]) == [at(listing, 0, 1)]


def test_copies_of_the_same_bytes_are_not_told_again_as_near():
    """0 and 1 are one file, and 2 is near to it: only the pair of 2 and the first is left to tell."""
    listing, rows = listed(ONE), pictures(80)
    same(rows, 1, 0)
    near(rows, 2, 0)
    issues = copies(listing, rows)
    assert groups(issues["duplicate-exact"]) == [at(listing, 0, 1)] and groups(issues["duplicate-near"]) == [at(listing, 0, 2)]


@pytest.mark.parametrize("order", [("train", "val"), ("test", "train")])
def test_a_leak_is_taken_out_of_training(order):
    listing = listed({name: {"cat": 40, "dog": 40} for name in order})
    rows = pictures(160)
    same(rows, 100, 20)
    same(rows, 101, 20)
    near(rows, 102, 22)
    mirrored(rows, 103, 23)
    issues = copies(listing, rows)
    assert set(issues) == {"leak-exact", "leak-near"}
    first, second = (range(20, 24), range(100, 104)) if order[0] == "train" else (range(100, 104), range(20, 24))
    a, b = list(first), list(second)
    if order[0] == "train":
        assert groups(issues["leak-exact"]) == [at(listing, 20, 100, 101)] and issues["leak-exact"].fix == at(listing, 20)
    else:
        assert groups(issues["leak-exact"]) == [at(listing, 100, 101, 20)] and issues["leak-exact"].fix == at(listing, 100, 101)
    assert {item.paths: item.detail for item in issues["leak-near"].items} == {
        at(listing, a[2], b[2]): "distance 3 of 64, 100 % alike",
        at(listing, a[3], b[3]): "mirrored, distance 0 of 64, 100 % alike",
    }
    assert issues["leak-near"].fix == at(listing, a[2], a[3])


def test_of_three_splits_the_last_stays_as_it_is():
    listing, rows = listed({name: {"cat": 20} for name in ("train", "val", "test")}), pictures(60)
    for place, as_place in ((25, 5), (45, 5), (48, 28)):
        same(rows, place, as_place)
    issue = copies(listing, rows)["leak-exact"]
    assert groups(issue) == [at(listing, 5, 25, 45), at(listing, 28, 48)] and issue.fix == at(listing, 5, 25, 28)


def test_every_training_picture_that_leaks_is_taken_out():
    """Two that are not alike (8 bits) are both near to the one of val (4 bits)."""
    listing, rows = listed(TWO), pictures(160)
    near(rows, 100, 3, bits=4)
    near(rows, 4, 100, bits=0)
    rows["hash"][4] ^= np.uint64(0xF0F00) & ~(rows["hash"][100] ^ rows["hash"][3])
    near_bits = [int(rows["hash"][a] ^ rows["hash"][b]).bit_count() for a, b in ((3, 100), (4, 100), (3, 4))]
    assert near_bits[0] == 4 and near_bits[1] <= 8 < near_bits[2]
    issue = copies(listing, rows)["leak-near"]
    assert sorted(issue.fix) == sorted(at(listing, 3, 4))


def test_copies_with_different_labels():
    listing, rows = listed(ONE), pictures(80)
    same(rows, 45, 5)
    near(rows, 46, 6)
    same(rows, 8, 7)  # the same label
    mirrored(rows, 49, 9)  # "left" and "right" may be classes
    issues = copies(listing, rows)
    assert set(issues) == {"duplicate-labels", "duplicate-exact", "duplicate-mirrored"}
    issue = issues["duplicate-labels"]
    assert {item.paths: item.detail for item in issue.items} == {
        at(listing, 5, 45): "identical: cat, dog",
        at(listing, 6, 46): "distance 3 of 64, 100 % alike: cat, dog",
    }
    assert issue.fix == at(listing, 5, 6, 45, 46)  # nobody knows which label is right
    assert groups(issues["duplicate-exact"]) == [at(listing, 7, 8)]


def test_labels_are_compared_by_name():
    """In val cat is 1 and dog is 0. Where labels differ and splits too, both are told."""
    listing = listed({"train": {"cat": 40, "dog": 40}, "val": {"dog": 40, "cat": 40}})
    rows = pictures(160)
    same(rows, 120, 0)  # cat, cat
    near(rows, 121, 1)
    same(rows, 80, 2)  # dog, cat
    near(rows, 81, 3)
    issues = copies(listing, rows)
    assert groups(issues["duplicate-labels"]) == [at(listing, 2, 80), at(listing, 3, 81)]
    assert groups(issues["leak-exact"]) == [at(listing, 0, 120), at(listing, 2, 80)]
    assert groups(issues["leak-near"]) == [at(listing, 1, 121), at(listing, 3, 81)]
    assert set(issues) == {"duplicate-labels", "leak-exact", "leak-near"}


def test_files_without_labels_contradict_nothing():
    listing = Listing((Split("", "d", ("cat",)),), Paths(["a", "b", "c", "d"]), np.zeros(4, np.uint8), np.array([0, -1, -1, 0], np.int32))
    rows = pictures(4)
    same(rows, 1, 0)
    near(rows, 3, 2)
    issues = copies(listing, rows)
    assert groups(issues["duplicate-exact"]) == [("a", "b")] and groups(issues["duplicate-near"]) == [("c", "d")] and len(issues) == 2


def film(count: int, step: int) -> np.ndarray:
    """Return frames that each differ in `step` bits from the one before, as a path through 64 bits, there and back, would."""
    rows = pictures(count)
    rows["thumb"] = rows["thumb"][0]
    for frame in range(count):
        turned = sum(1 << (bit % 64) for bit in range(frame * step))
        rows["hash"][frame] = np.uint64(turned ^ 0x0123456789ABCDEF)
    return rows


def test_a_film_becomes_groups_around_pictures_that_are_not_alike():
    """Frames 4 bits apart: each is near to two before and two after it, and all would be one chain."""
    listing, rows = listed({"": {"cat": 16}}), film(16, step=4)
    issue = copies(listing, rows)["duplicate-near"]
    assert groups(issue) == [at(listing, *frames) for frames in ((0, 1, 2), (3, 4, 5), (6, 7, 8), (9, 10, 11), (12, 13, 14), (15, 14))]
    left = set(listing.paths) - set(issue.fix)
    assert left == set(at(listing, 0, 3, 6, 9, 12, 15))  # every third: no two of them are within 8 bits, and every other one is near to one


def test_many_pictures_of_one_hash_stay_bounded():
    """Each is looked at beside the first 8 only; the comparisons left out are those of the other 392."""
    listing, rows = listed({"": {"cat": 400}}), pictures(400)
    for column in ("hash", "mirrored", "thumb"):
        rows[column] = rows[column][0]
    issue = copies(listing, rows)["duplicate-near"]
    assert groups(issue) == [at(listing, *range(400))]
    assert f"{392 * 391 // 2:,} comparisons among pictures that all look alike were left out" in issue.measured


def test_two_hashes_with_many_pictures_each():
    """Those of one hash are all different pictures; the third of one is like the last of the other: within 8 of the first."""
    listing, rows = listed({"": {"cat": 40}}), pictures(40)
    rows["hash"][:20], rows["hash"][20:] = rows["hash"][0], rows["hash"][0] ^ np.uint64(1)
    rows["mirrored"][:20], rows["mirrored"][20:] = rows["mirrored"][0], rows["mirrored"][20]
    rows["thumb"][39], rows["thumb"][15] = rows["thumb"][2], rows["thumb"][25]
    issue = copies(listing, rows)["duplicate-near"]
    assert groups(issue) == [at(listing, 2, 39), at(listing, 15, 25)]
    assert f"{12 * 12 + 2 * (12 * 11 // 2):,} comparisons" in issue.measured


def test_pictures_that_are_alike_by_nature_are_believed_only_where_they_are_nearer():
    """Of 2, 4, 6 and 8 bits there are 1, 2, 20 and 60 pairs, as of digits, and one of the same hash."""
    listing, rows = listed({"": {"cat": 200}}), pictures(200)
    for pair, bits in enumerate([0] + [2] + [4] * 2 + [6] * 20 + [8] * 60):
        near(rows, 2 * pair + 1, 2 * pair, bits=bits)
    issue = copies(listing, rows)["duplicate-near"]
    assert groups(issue) == [at(listing, 2 * pair, 2 * pair + 1) for pair in range(4)]
    assert "80 pairs further apart may be chance" in issue.measured and "at most 4 of 64 bits" in issue.threshold


def test_against_the_definition_of_every_pair():
    """Clumps: all files of close pairs are shown, those of a group are close to its first, and what a clean set keeps is not close."""
    dice = random.Random(5)
    listing, rows = listed({"": {"cat": 240}}), pictures(240)
    for place in range(240):
        if place % 3:
            near(rows, place, dice.randrange(place), bits=dice.randrange(7), noise=dice.choice([0, 30, 60]))
    issues = copies(listing, rows)
    thumbs, aspects = rows["thumb"].reshape(240, -1).astype(float), rows["width"] / rows["height"]
    correlations = np.corrcoef(thumbs)
    close = {
        (a, b): (int(rows["hash"][a]) ^ int(rows["hash"][b])).bit_count() <= 8 and correlations[a, b] >= 0.9 and aspects[a] == aspects[b]
        for a in range(240)
        for b in range(240)
        if a != b
    }
    place_of = {path: place for place, path in enumerate(listing.paths)}
    shown = [[place_of[path] for path in group] for group in groups(issues["duplicate-near"])]
    assert set(issues) == {"duplicate-near"} and "left out" not in issues["duplicate-near"].measured
    assert {place for group in shown for place in group} == {place for pair, is_close in close.items() if is_close for place in pair}
    assert all(close[group[0], other] for group in shown for other in group[1:])
    left = set(range(240)) - {place_of[path] for path in issues["duplicate-near"].fix}
    assert not any(close[a, b] for a in left for b in left if a != b) and len(left) > 80


def mixed() -> tuple[Listing, np.ndarray]:
    """Return a set with some of everything."""
    listing, rows = listed(TWO), pictures(160)
    for place in range(0, 30, 3):
        same(rows, 130 - place, place)
        near(rows, 129 - place, place + 1, bits=place % 9)
        mirrored(rows, 60 + place // 3, place + 2)
    rows["hash"][31:39], rows["thumb"][31:39] = rows["hash"][31], rows["thumb"][31]
    return listing, rows


@pytest.mark.parametrize("size", [2, 3, 4])
def test_any_number_of_processes_finds_the_same(size, monkeypatch):
    listing, rows = mixed()
    expected = find_copies(listing, scanned(rows), Alone())
    codes = {"leak-exact", "leak-near", "duplicate-labels", "duplicate-near", "duplicate-mirrored"}
    assert {issue.code for issue in expected} == codes
    monkeypatch.setattr(alike, "ROUND", 5)
    shares = of_each(size, lambda rank, exchange: find_copies(listing, scanned(rows, rank=rank, size=size), exchange))
    assert shares == [expected] * size


def test_after_ctrl_c_what_was_seen_is_compared():
    listing, rows = listed(ONE), pictures(80)
    for place, as_place in ((7, 3), (70, 20)):
        same(rows, place, as_place)
    (issue,) = find_copies(listing, Scanned(rows[:50], np.arange(50), {}, True), Alone())
    assert groups(issue) == [at(listing, 3, 7)] and issue.total == 50
    assert find_copies(listing, Scanned(rows[:0], np.arange(0), {}, True), Alone()) == []


def test_correlation_is_that_of_numpy():
    dice = np.random.default_rng(1)
    a, b = dice.integers(0, 256, (2, 20, 16, 16), np.uint8)
    b[10:] = (a[10:] * 0.7 + 20).astype(np.uint8)
    a[0] = 255
    expected = [0.0, *(np.corrcoef(x.ravel(), y.ravel())[0, 1] for x, y in zip(a[1:], b[1:], strict=True))]
    np.testing.assert_allclose(correlation(a, b), expected, rtol=0, atol=1e-12)
    assert (correlation(a[1:], a[1:]) == 1).all() and RECORD["thumb"].shape == (16, 16)


def saved(folder: Path, images: Mapping[str, Image.Image]) -> Iterable[str]:
    for name, image in images.items():
        image.save(folder / name, quality=85)
        yield str(folder / name)


def test_real_pictures(tmp_path):
    """Copies of real pictures as people make them; the pictures themselves are not alike."""
    scenes = [Image.open(path).convert("RGB") for path in sorted((REPOSITORY / "sample_models/scenes").glob("*.png"))]
    images = {f"{place}.png": scene for place, scene in enumerate(scenes)}
    images["a.jpg"] = scenes[0]
    images["b.png"] = scenes[1].resize((200, 150))
    images["c.png"] = ImageEnhance.Brightness(scenes[2]).enhance(1.2)
    images["d.png"] = ImageOps.mirror(scenes[3])
    paths = list(saved(tmp_path, images))
    rows = np.concatenate([look(path)[0] for path in paths])
    listing = Listing((Split("", str(tmp_path)),), Paths(paths), np.zeros(len(paths), np.uint8), np.full(len(paths), -1, np.int32))
    issues = copies(listing, rows)
    count = len(scenes)
    assert groups(issues["duplicate-near"]) == [at(listing, place, count + place) for place in range(3)]
    assert groups(issues["duplicate-mirrored"]) == [at(listing, 3, count + 3)] and len(issues) == 2
