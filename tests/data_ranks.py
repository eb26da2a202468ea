"""What each of several processes does in tests/test_data_distributed.py; run as a program it writes what it found to a file."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from netlens.data.exchange import Exchange
from netlens.data.listing import Listing
from netlens.data.records import RECORD
from tests.data_rows import healthy, listed, scanned

SHARES = (3, 0, 4, 1)  # rows of each process: not the same, and none
ROWS = np.dtype([("digest", "<u8", 2), ("place", "<i4"), ("kind", "u1")])  # 21 bytes


def rows_of(rank: int) -> np.ndarray:
    """Return what one process has; the largest numbers among it."""
    rows = np.zeros(SHARES[rank], ROWS)
    rows["digest"] = np.uint64(2**64 - 1) - np.arange(2 * len(rows), dtype=np.uint64).reshape(-1, 2)
    rows["place"], rows["kind"] = np.arange(len(rows)) - 10 * rank, rank
    return rows


def owners_of(rank: int, size: int) -> np.ndarray:
    """Return where its rows go: not in order, and none to the last process."""
    return np.arange(SHARES[rank])[::-1] % max(1, size - 1)


def counts_of(rank: int) -> np.ndarray:
    """Return integers beyond what float64 can tell from their neighbours."""
    return np.array([[2**60 + rank, -rank], [1, 0]], np.int64)


def pictures() -> tuple[Listing, np.ndarray]:
    """Return a training and a validation set with copies of every kind, within them and across."""
    dice = np.random.default_rng(0)
    listing = listed({"train": {"cat": 60, "dog": 60}, "val": {"dog": 30, "cat": 30}})
    rows = healthy(180)
    rows["digest"] = dice.integers(1, 1 << 64, (180, 2), np.uint64)
    rows["hash"], rows["mirrored"] = dice.integers(1, 1 << 64, (2, 180), np.uint64)
    rows["thumb"] = dice.integers(0, 256, (180, 16, 16))
    for place, (to, source) in enumerate(dice.permutation(180).reshape(-1, 2)[:60]):
        own = rows["digest"][to].copy()
        rows[to] = rows[source]
        if place % 3:
            rows["digest"][to], rows["hash"][to] = own, rows["hash"][to] ^ np.uint64(1 << place)
        if place % 3 == 2:
            rows["hash"][to], rows["mirrored"][to] = rows["mirrored"][source], rows["hash"][source]
            rows["thumb"][to] = rows["thumb"][source][:, ::-1]
    return listing, rows


def found_by(exchange: Exchange) -> dict[str, Any]:
    """Return all that one process learns from the others."""
    from netlens.data.duplicates import find_copies

    rank, size = exchange.rank, exchange.size
    listing, rows = pictures()
    issues = find_copies(listing, scanned(rows, rank=rank, size=size), exchange)
    sent = exchange.sent(rows_of(rank), owners_of(rank, size))
    plain = exchange.sent(np.arange(2 * SHARES[rank]).reshape(-1, 2), owners_of(rank, size))
    return {
        "process": [rank, size],
        "summed": exchange.summed(counts_of(rank)).tolist(),
        "wrapped": exchange.summed(np.array([2**63 + rank], np.uint64)).tolist(),
        "sent": sent.tolist(),
        "plain": plain.tolist(),
        "none": [exchange.sent(np.empty(0, RECORD), np.empty(0, np.int64)).shape, exchange.gathered(np.empty((0, 3))).shape],
        "gathered": exchange.gathered(rows_of(rank)).tolist(),
        "collected": exchange.collected({"rank": rank, "name": "cat"}),
        "issues": [asdict(issue) for issue in issues],
    }


def main(folder: str) -> None:
    from netlens.data.distributed import joined

    with joined() as exchange:
        found = found_by(exchange)
    Path(folder, f"rank{exchange.rank}.json").write_text(json.dumps(found, default=np.ndarray.tolist))


if __name__ == "__main__":
    from netlens.cli.leaving import Leaving

    leaving = Leaving()
    main(sys.argv[1])
    leaving.code = 0
