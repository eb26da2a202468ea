"""Pairs of close hashes against their definition, every pair compared in plain loops."""

from __future__ import annotations

import random

import numpy as np
import pytest

from netlens.data import neighbours
from netlens.data.neighbours import PAIR, bits_set, close_pairs, nearest


def random_hashes(count: int, seed: int) -> list[int]:
    """Return hashes any two of which are far from each other, in all likelihood."""
    dice = random.Random(seed)
    return [dice.getrandbits(64) for _ in range(count)]


def changed(value: int, bits: int, dice: random.Random) -> int:
    """Return a hash that differs in so many bits."""
    for bit in dice.sample(range(64), bits):
        value ^= 1 << bit
    return value


def planted(count: int, seed: int) -> list[int]:
    """Return random hashes, and beside each tenth one that is 0 to 10 bits away."""
    dice = random.Random(seed)
    hashes = random_hashes(count, seed)
    return hashes + [changed(hashes[place], place // 10 % 11, dice) for place in range(0, count, 10)]


def clumped(count: int, seed: int) -> list[int]:
    """Return hashes that differ in a few bits of one place only: all of them are near to many others, and many are equal."""
    dice = random.Random(seed)
    base = dice.getrandbits(64)
    return [base ^ (dice.getrandbits(9) << 20) ^ (1 << dice.randrange(64)) for _ in range(count)]


def definition(hashes: list[int], others: list[int] | None, distance: int) -> dict[tuple[int, int], int]:
    """Return the distance of every pair that is close."""
    found: dict[tuple[int, int], int] = {}
    for i, one in enumerate(hashes):
        for j, other in enumerate(others or hashes):
            apart = (one ^ other).bit_count()
            pair = min(i, j), max(i, j)
            if i != j and apart <= min(distance, found.get(pair, 64)):
                found[pair] = apart
    return found


def found_pairs(hashes: list[int], others: list[int] | None = None, **options: int) -> dict[tuple[int, int], int]:
    pairs, left_out = close_pairs(np.array(hashes, np.uint64), None if others is None else np.array(others, np.uint64), **options)
    assert left_out == 0
    rows = pairs.tolist()
    assert rows == sorted(rows) and len({row[:2] for row in rows}) == len(rows)
    return {(first, second): distance for first, second, distance in rows}


@pytest.mark.parametrize("distance", range(9))
def test_every_close_pair_is_found_and_nothing_else(distance):
    hashes = planted(400, seed=1)
    expected = definition(hashes, None, distance)
    assert len(expected) == sum(place // 10 % 11 <= distance for place in range(0, 400, 10))
    assert found_pairs(hashes, distance=distance) == expected


def test_hashes_that_clump_and_are_equal():
    hashes = clumped(300, seed=2)
    expected = definition(hashes, None, 8)
    assert len(expected) > 10_000 and 0 in expected.values()
    assert found_pairs(hashes, most=300) == expected


def test_mirrored_ones_are_those_close_to_the_mirrored_hash_of_the_other():
    dice = random.Random(3)
    hashes, mirrored = random_hashes(300, 4), random_hashes(300, 5)
    for place in range(0, 100, 2):  # a picture, and its mirror image
        hashes[place + 1], mirrored[place + 1] = changed(mirrored[place], place % 9, dice), changed(hashes[place], 3, dice)
    mirrored[200] = hashes[200]  # the same on both sides
    expected = definition(hashes, mirrored, 8)
    assert set(expected) == {(place, place + 1) for place in range(0, 100, 2)} and set(expected.values()) <= {0, 1, 2, 3}
    assert found_pairs(hashes, mirrored) == expected


def test_in_small_pieces_it_is_the_same(monkeypatch):
    hashes = clumped(200, seed=6) + planted(200, seed=7)
    expected = definition(hashes, None, 8)
    monkeypatch.setattr(neighbours, "BLOCK", 17)
    monkeypatch.setattr(neighbours, "STEP", 50)
    monkeypatch.setattr(neighbours, "BUFFER", 100)
    assert found_pairs(hashes, most=420) == expected


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_hashes(count):
    assert found_pairs([5] * count) == ({(0, 1): 0} if count == 2 else {})


def plain_nearest(pairs: dict[tuple[int, int], int], most: int) -> dict[tuple[int, int], int]:
    """Return the pairs that are among the nearest of one of their two: the nearest first, then the one that comes first."""
    kept = set()
    for own in {place for pair in pairs for place in pair}:
        ranked = sorted((distance, sum(pair) - own, pair) for pair, distance in pairs.items() if own in pair)
        kept |= {pair for _, _, pair in ranked[:most]}
    return {pair: pairs[pair] for pair in kept}


@pytest.mark.parametrize("most", [1, 3])
def test_of_many_neighbours_the_nearest_are_kept(most, monkeypatch):
    hashes = clumped(150, seed=8)
    expected = plain_nearest(definition(hashes, None, 8), most)
    assert found_pairs(hashes, most=most) == expected
    monkeypatch.setattr(neighbours, "BUFFER", 500)  # thrown away on the way
    assert found_pairs(hashes, most=most) == expected


def test_parts_together_are_the_whole():
    hashes = clumped(150, seed=9) + planted(300, seed=10)
    parts = [close_pairs(np.array(hashes, np.uint64), most=4, part=part, parts=3)[0] for part in range(3)]
    assert min(map(len, parts)) > 0
    together = {tuple(row[:2]): row[2] for row in nearest(np.concatenate(parts), 4).tolist()}
    assert together == plain_nearest(definition(hashes, None, 8), 4)


def test_what_is_left_out_of_a_clump_is_counted(monkeypatch):
    """In two of the bands 300 small numbers are all equal: each compares all 300 * 299 / 2 pairs there, and is allowed 3,000."""
    expected = definition(list(range(300)), None, 2)
    assert found_pairs(list(range(300)), distance=2, most=300) == expected
    monkeypatch.setattr(neighbours, "ALLOWED", 3000)
    pairs, left_out = close_pairs(np.arange(300, dtype=np.uint64), distance=2, most=300)
    found = {(first, second): distance for first, second, distance in pairs.tolist()}
    assert found and found.items() <= expected.items()
    assert 2 * (300 * 299 // 2 - 3000) <= left_out < 2 * 300 * 299 // 2


def test_twenty_thousand_in_a_second():
    dice = random.Random(12)
    hashes = random_hashes(20_000, 13)
    hashes[10_000:10_900] = [changed(hashes[place], place % 9, dice) for place in range(900)]
    found = found_pairs(hashes)
    assert {(place, 10_000 + place): place % 9 for place in range(900)}.items() <= found.items()
    assert len(found) < 902  # by chance: 2e8 pairs * 2.8e-10


def test_ones_are_counted_without_numpy_2(monkeypatch):
    values = [*random_hashes(50, 14), 0, 1, 2**63, 2**64 - 1]
    expected = [value.bit_count() for value in values]
    assert bits_set(np.array(values, np.uint64)).tolist() == expected
    monkeypatch.delattr(np, "bitwise_count", raising=False)
    assert bits_set(np.array(values, np.uint64)).tolist() == expected
    assert bits_set(np.empty(0, np.uint64)).shape == (0,) and PAIR.itemsize == 9
