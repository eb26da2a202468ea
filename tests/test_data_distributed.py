"""Real processes, as torchrun starts them, against one process that has all files, and against the definition of what they exchange."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from netlens.data.distributed import joined
from netlens.data.exchange import Alone
from netlens.errors import UsageError
from tests import data_ranks as ranks
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="torch was built without gloo")
JOINED = """
import sys
from netlens.data.distributed import joined
with joined() as exchange:
    print(type(exchange).__name__, exchange.rank, exchange.size, "torch" in sys.modules)
"""
KEPT = """
import torch.distributed as dist
from netlens.data.distributed import joined
dist.init_process_group("gloo")
with joined() as exchange:
    import numpy as np
    print(exchange.gathered(np.array([exchange.rank])).tolist())
print(dist.is_initialized())
dist.destroy_process_group()
"""


def environment(rank: int, size: int, port: int) -> dict[str, str]:
    own = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"} | {name: str(value) for name, value in own.items()}


def answers(size: int, *command: str) -> list[str]:
    """Return what each of `size` processes writes to stdout."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = [
        subprocess.Popen(
            [sys.executable, *command], env=environment(rank, size, port), cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]  # fmt: skip
    try:
        ended = [process.communicate(timeout=180) for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0] * size, "\n".join(err for _, err in ended)[-4000:]
    return [out for out, _ in ended]


@pytest.fixture(scope="module", params=[2, 4])
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[dict[str, Any]]]:
    """Run all cases in two processes, then in four; return what each found."""
    folder: Path = tmp_path_factory.mktemp("ranks")
    answers(request.param, "-m", "tests.data_ranks", str(folder))
    yield [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(request.param)]


def as_json(value: Any) -> Any:
    return json.loads(json.dumps(value, default=lambda array: array.tolist()))


def test_every_process_knows_its_place(found):
    assert [each["process"] for each in found] == [[rank, len(found)] for rank in range(len(found))]


def test_sums_are_those_of_python(found):
    size = len(found)
    expected = [[size * 2**60 + sum(range(size)), -sum(range(size))], [size, 0]]
    assert all(each["summed"] == expected for each in found)
    assert all(each["wrapped"] == [(size * 2**63 + sum(range(size))) % 2**64] for each in found)


def test_rows_come_to_their_owners_by_sender(found):
    size = len(found)
    owners = [ranks.owners_of(rank, size).tolist() for rank in range(size)]
    for receiver, each in enumerate(found):
        for name, rows in (("sent", ranks.rows_of), ("plain", lambda rank: [[2 * i, 2 * i + 1] for i in range(ranks.SHARES[rank])])):
            expected = [
                row for sender in range(size) for row, owner in zip(as_json(rows(sender)), owners[sender], strict=True) if owner == receiver
            ]
            assert each[name] == expected
    assert not found[-1]["sent"] and sum(len(each["sent"]) for each in found) == sum(ranks.SHARES[:size])


def test_everyone_gets_all_rows_and_values(found):
    size = len(found)
    expected = list(chain.from_iterable(as_json(ranks.rows_of(rank)) for rank in range(size)))
    for each in found:
        assert each["gathered"] == expected and each["none"] == [[0], [0, 3]]
        assert each["collected"] == [{"rank": rank, "name": "cat"} for rank in range(size)]


def test_copies_are_those_that_one_process_finds(found):
    alone = as_json(ranks.found_by(Alone())["issues"])
    assert {issue["code"] for issue in alone} >= {"leak-exact", "leak-near", "duplicate-labels", "duplicate-near", "duplicate-mirrored"}
    assert all(json.dumps(each["issues"]) == json.dumps(alone) for each in found)  # to the last byte


def test_one_process_needs_no_torch():
    plain = {name: value for name, value in os.environ.items() if name not in ("WORLD_SIZE", "RANK")}
    for own in ({}, environment(0, 1, 1)):
        out = subprocess.run(
            [sys.executable, "-c", JOINED], env={**plain, **own}, cwd=REPOSITORY, capture_output=True, text=True, check=True
        )
        assert out.stdout.split() == ["Alone", "0", "1", "False"]


def test_a_group_that_is_there_is_used_and_kept():
    assert answers(2, "-c", KEPT) == ["[0, 1]\nTrue\n"] * 2


def test_half_an_environment_is_told(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("MASTER_PORT", raising=False)
    with pytest.raises(UsageError, match="WORLD_SIZE is 2, and"), joined():
        pass
