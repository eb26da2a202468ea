"""The facts of a split against their definitions: pixels as one long array, exact fractions, quantiles by counting."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from netlens.data.exchange import Alone
from netlens.data.facts import facts_of, spread
from netlens.data.facts_types import ClassCount, SplitFacts
from netlens.data.listing import Listing
from netlens.data.records import FORMATS, MODES
from tests.data_rows import flagged, healthy, listed, of_each, scanned, sized


def one(rows: np.ndarray, listing: Listing | None = None) -> SplitFacts:
    (facts,) = facts_of(listing or listed({"": {"a": len(rows)}}), scanned(rows), Alone())
    return facts


def filled(pictures: list[np.ndarray]) -> np.ndarray:
    """Return records of pictures, (h, w, 3) uint8 each, with their sums made by plain loops over Python's integers."""
    rows = healthy(len(pictures))
    sized(rows, slice(None), [picture.shape[1] for picture in pictures], [picture.shape[0] for picture in pictures])
    for place, picture in enumerate(pictures):
        for channel in range(3):
            values = [int(value) for value in picture[:, :, channel].flat]
            rows["sums"][place, channel], rows["sums"][place, 3 + channel] = sum(values), sum(value * value for value in values)
    return rows


@pytest.fixture
def pictures() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(low, 256, (h, w, 3), dtype=np.uint8) for low, h, w in ((0, 5, 7), (200, 11, 3), (90, 1, 64), (255, 8, 8))]


def test_mean_and_deviation_are_those_of_all_pixels_in_one_array(pictures):
    colours = one(filled(pictures)).colours
    pixels = np.concatenate([picture.reshape(-1, 3) for picture in pictures]).astype(np.float64) / 255
    np.testing.assert_allclose(colours.mean, pixels.mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(colours.std, pixels.std(axis=0), rtol=1e-13)  # the population's
    own = np.mean([picture.reshape(-1, 3).astype(np.float64).std(axis=0) / 255 for picture in pictures], axis=0)
    np.testing.assert_allclose(colours.std_of_pictures, own, atol=1e-9)
    assert (colours.pictures, colours.reduced) == (4, 0)


def test_mean_and_deviation_are_right_to_the_last_bit(pictures):
    colours = one(filled(pictures)).colours
    for channel in range(3):
        values = [Fraction(int(value), 255) for picture in pictures for value in picture[:, :, channel].flat]
        mean = sum(values) / len(values)
        assert colours.mean[channel] == float(mean)
        variance = sum(value**2 for value in values) / len(values) - mean**2
        assert colours.std[channel] == float(variance) ** 0.5


def test_sums_beyond_64_bits_do_not_overflow():
    rows = healthy(10)  # half of them white, half black, so large that the squares of two do not fit
    rows["pixels"] = 1 << 47
    rows["sums"] = 0
    rows["sums"][::2, :3], rows["sums"][::2, 3:] = 255 << 47, 65_025 << 47
    colours = one(rows).colours
    assert colours.mean == colours.std == (0.5, 0.5, 0.5)
    assert colours.std_of_pictures == (0, 0, 0)


def test_reduced_pictures_are_counted():
    rows = healthy(3)
    rows["pixels"][1] = 160 * 120
    rows["sums"][1] //= 4
    assert one(rows).colours.reduced == 1


@pytest.mark.parametrize("count", [1, 2, 19, 20, 21, 99, 100, 1000])
def test_quantiles_are_of_the_nearest_rank(count):
    """The definition: the smallest value that at least p % of all do not exceed."""
    values = np.random.default_rng(count).integers(1, 500, count)
    found = spread(values)
    for percent, value in ((5, found.p5), (50, found.median), (95, found.p95)):
        assert value == min(x for x in values if 100 * sum(values <= x) >= percent * count)
    assert (found.smallest, found.largest) == (min(values), max(values))


def test_quantiles_of_one_to_twenty():
    found = spread(np.arange(20, 0, -1))
    assert (found.smallest, found.p5, found.median, found.p95, found.largest) == (1, 1, 10, 19, 20)


def test_each_split_is_counted_by_itself():
    listing = listed({"train": {"cat": 3, "dog": 0, "eel": 2}, "val": {"cat": 1}})
    rows = healthy(6)
    rows["format"][:2] = FORMATS.index("PNG")
    rows["mode"][0] = MODES.index("L")
    rows["bytes"] = [1, 2, 3, 4, 5, 600]
    flagged(rows, 4, "picture-truncated")
    sized(rows, 5, 30, 10)
    train, val = facts_of(listing, scanned(rows), Alone())
    assert (train.name, train.root, train.files, train.decoded, train.bytes) == ("train", "./train", 5, 4, 15)
    assert train.classes == (ClassCount("cat", 0, 3), ClassCount("dog", 1, 0), ClassCount("eel", 2, 2))
    assert train.formats == (("JPEG", 3), ("PNG", 2))
    assert train.modes == (("RGB", 4), ("L", 1))
    assert train.colours.pictures == 4
    assert (val.files, val.width.median, val.height.median, val.aspect.median) == (1, 30, 10, 3)


def test_files_that_cannot_be_decoded_have_no_sizes_and_no_colours():
    rows = healthy(2)
    flagged(rows, [0, 1], "picture-truncated")
    facts = one(rows)
    assert (facts.files, facts.decoded, facts.bytes) == (2, 0, 40_000)
    assert facts.width is facts.height is facts.aspect is facts.colours is None


def test_files_that_were_not_reached_are_counted_and_no_more():
    found = scanned(healthy(10))
    found = replace(found, records=found.records[:4], indices=found.indices[:4], interrupted=True)
    (facts,) = facts_of(listed({"": {"a": 10}}), found, Alone())
    assert (facts.files, facts.classes[0].count, facts.decoded, facts.bytes) == (10, 10, 4, 80_000)


@pytest.mark.parametrize("size", [2, 3, 4])
def test_any_number_of_processes_gives_the_same_facts(size):
    rng = np.random.default_rng(1)
    listing = listed({"train": {"a": 40, "b": 30}, "val": {"a": 9}})
    rows = healthy(79)
    sized(rows, slice(None), rng.integers(10, 2000, 79), rng.integers(10, 2000, 79))
    for channel in range(3):
        rows["sums"][:, channel] = rng.integers(0, rows["pixels"] * 255 // 2)
        rows["sums"][:, 3 + channel] = rows["sums"][:, channel] * 200
    flagged(rows, [3, 77], "not-an-image")
    alone = facts_of(listing, scanned(rows), Alone())
    for answer in of_each(size, lambda rank, exchange: facts_of(listing, scanned(rows, rank=rank, size=size), exchange)):
        assert answer == alone
