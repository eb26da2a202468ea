"""What is remembered of files: only what still holds, never code, and never at the cost of a run."""

from __future__ import annotations

import errno
import json
import os
import pickle
import struct
import time
import zlib
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from netlens.data import cache as cache_module
from netlens.data.listing import Listing, Paths, Split
from netlens.data.records import BITS, FORMATS, RECORD
from netlens.data.scan import Scanned, scan
from netlens.errors import FileProblem

YEAR_2020 = 1_577_836_800


class Looks:
    """A stand-in for the look at a file, which counts."""

    def __init__(self) -> None:
        self.paths: list[str] = []

    def __call__(self, path: str) -> tuple[Any, str]:
        self.paths.append(path)
        row = np.zeros(1, RECORD)
        try:
            content = Path(path).read_bytes()
        except OSError:
            row["flags"] = BITS["file-unreadable"]
            return row, "it is gone"
        row["bytes"], row["digest"] = len(content), np.frombuffer(blake2b(content, digest_size=16).digest(), "<u8")
        row["flags"] = BITS["not-an-image"] if content.startswith(b"text") else 0
        return row, f"it says {content.decode()}" if row["flags"] else ""

    def names(self) -> list[str]:
        names = [Path(path).name for path in self.paths]
        self.paths.clear()
        return names


def old(path: str | Path, second: int = YEAR_2020) -> str:
    os.utime(path, (second, second))
    return str(path)


def files(folder: Path, count: int = 10) -> list[str]:
    """Pictures of a year ago; every third one is a text."""
    folder.mkdir(exist_ok=True)
    for number in range(count):
        (folder / f"{number}.jpg").write_text(f"{'text' if number % 3 == 0 else 'picture'} {number}")
    return [old(folder / f"{number}.jpg") for number in range(count)]


def listed(paths: list[str]) -> Listing:
    return Listing((Split("", "files"),), Paths(paths), np.zeros(len(paths), np.uint8), np.full(len(paths), -1, np.int32))


def check(found: Scanned, paths: list[str]) -> None:
    """Compare with what the files hold now."""
    contents = [Path(path).read_bytes() if Path(path).exists() else None for path in paths]
    assert found.indices.tolist() == list(range(len(paths)))
    for row, content in zip(found.records, contents, strict=True):
        if content is not None:
            assert (row["bytes"], row["digest"].tobytes()) == (len(content), blake2b(content, digest_size=16).digest())
    texts = {place: f"it says {content.decode()}" for place, content in enumerate(contents) if content and content.startswith(b"text")}
    assert found.details == texts | {place: "it is gone" for place, content in enumerate(contents) if content is None}
    assert not found.interrupted and not found.notes


def test_a_second_run_looks_at_nothing_and_finds_the_same(tmp_path: Path) -> None:
    paths, cache, look = files(tmp_path / "files"), tmp_path / "cache", Looks()
    first = scan(listed(paths), workers=1, cache=cache, look=look)
    assert len(look.names()) == 10
    written = cache.stat()
    told: list[int] = []

    second = scan(listed(paths), workers=1, cache=cache, look=look, seen=told.append)

    assert look.names() == [] and sum(told) == 10
    assert second.records.tobytes() == first.records.tobytes()
    check(first, paths)
    check(second, paths)
    assert (cache.stat().st_ino, cache.stat().st_mtime_ns) == (written.st_ino, written.st_mtime_ns)
    assert [path.name for path in tmp_path.iterdir()].count("cache") == 1 == len([*tmp_path.glob("*cache*")])


def test_whatever_changed_is_looked_at_again(tmp_path: Path) -> None:
    paths, cache, look = files(tmp_path / "files"), tmp_path / "cache", Looks()
    scan(listed(paths), workers=1, cache=cache, look=look)
    look.names()
    Path(paths[1]).write_text("picture of another size")
    old(paths[1])
    old(paths[2], YEAR_2020 + 1)  # another time, nothing else
    Path(paths[4]).write_text("picturE 4")  # the same size, and the same time again
    old(paths[4])
    Path(paths[5]).unlink()
    Path(paths[6]).rename(tmp_path / "files" / "7b.jpg")
    (tmp_path / "files" / "a.jpg").write_text("picture a")
    paths = [*paths[:6], *paths[7:], str(tmp_path / "files" / "7b.jpg"), old(tmp_path / "files" / "a.jpg")]

    found = scan(listed(paths), workers=1, cache=cache, look=look)

    assert look.names() == ["1.jpg", "2.jpg", "4.jpg", "5.jpg", "7b.jpg", "a.jpg"]
    check(found, paths)
    check(scan(listed(paths), workers=1, cache=cache, look=look), paths)
    assert look.names() == ["5.jpg"]  # what cannot be read may be there the next time


def test_a_young_file_is_not_relied_on(tmp_path: Path) -> None:
    """A file that is written twice within one tick of the file system's clock keeps its time."""
    paths, cache, look = files(tmp_path / "files", 3), tmp_path / "cache", Looks()
    os.utime(paths[0])
    os.utime(paths[1], (time.time() + 1000, time.time() + 1000))
    for _ in range(2):
        look.names()
        check(scan(listed(paths), workers=1, cache=cache, look=look), paths)
    assert look.names() == ["0.jpg", "1.jpg"]


def test_a_path_means_the_same_file_from_wherever_it_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths, cache, look = files(tmp_path / "files"), tmp_path / "cache", Looks()
    scan(listed(paths), workers=1, cache=cache, look=look)
    look.names()
    monkeypatch.chdir(tmp_path / "files")
    relative = [Path(path).name for path in paths]
    check(scan(listed(relative), workers=1, cache=Path("../cache"), look=look), relative)
    assert look.names() == []


def test_order_and_repetition_do_not_matter(tmp_path: Path) -> None:
    paths, cache, look = files(tmp_path / "files"), tmp_path / "cache", Looks()
    scan(listed(paths), workers=1, cache=cache, look=look)
    look.names()
    shuffled = [paths[place] for place in (3, 3, 9, 0, 5, 3, 0, 8)]
    check(scan(listed(shuffled), workers=1, cache=cache, look=look), shuffled)
    assert look.names() == []


def test_many_blocks_and_some_of_them_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever a byte is wrong, or the file ends, rows are lost and never wrong."""
    monkeypatch.setattr(cache_module, "_BLOCK", 3)
    paths, cache, look = files(tmp_path / "files"), tmp_path / "cache", Looks()
    scan(listed(paths), workers=1, cache=cache, look=look)
    whole = cache.read_bytes()
    lost = set()
    for place in range(len(cache_module._MAGIC), len(whole), 61):
        for damaged in (whole[:place], whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :]):
            cache.write_bytes(damaged)
            look.names()
            check(scan(listed(paths), workers=1, cache=cache, look=look), paths)
            lost.add(len(look.names()))
            assert cache.read_bytes() == whole  # built again
    assert lost == {10, 7, 4, 1}


def test_another_version_is_built_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths, cache, look = files(tmp_path / "files"), tmp_path / "cache", Looks()
    scan(listed(paths), workers=1, cache=cache, look=look)
    for name, value in (("LOOK_VERSION", -1), ("FLAGS", ("other",)), ("RECORD", np.dtype("u1"))):
        look.names()
        with monkeypatch.context() as changed:
            changed.setattr(cache_module, name, value)
            assert cache_module._version() not in cache.read_bytes()
            if name == "LOOK_VERSION":
                check(scan(listed(paths), workers=1, cache=cache, look=look), paths)
                assert len(look.names()) == 10
    scan(listed(paths), workers=1, cache=cache, look=look)
    assert len(look.names()) == 10


class Evil:
    def __reduce__(self) -> Any:
        return os._exit, (7,)


@pytest.mark.parametrize("content", [pickle.dumps(Evil()), b"my thesis\n", b"\x89PNG\r\n", b"n"])
def test_a_file_of_somebody_else_stays_as_it_is(tmp_path: Path, content: bytes) -> None:
    cache, look = tmp_path / "thesis.tex", Looks()
    cache.write_bytes(content)
    with pytest.raises(FileProblem, match="not a cache that netlens wrote") as caught:
        scan(listed(files(tmp_path / "files")), workers=1, cache=cache, look=look)
    assert "--cache" in caught.value.hint
    assert cache.read_bytes() == content and look.names() == []


def test_an_empty_file_is_taken(tmp_path: Path) -> None:
    paths, cache, look = files(tmp_path / "files"), tmp_path / "cache", Looks()
    cache.touch()
    for _ in range(2):
        check(scan(listed(paths), workers=1, cache=cache, look=look), paths)
    assert len(look.names()) == 10


@pytest.mark.parametrize("place", ["files", "nowhere/cache", "files/0.jpg/cache"])
def test_a_place_where_no_file_can_be_is_refused_before_anything_is_looked_at(tmp_path: Path, place: str) -> None:
    paths, look = files(tmp_path / "files"), Looks()
    with pytest.raises(FileProblem, match="cannot be used"):
        scan(listed(paths), workers=1, cache=tmp_path / place, look=look)
    assert look.names() == []


@pytest.mark.parametrize("field", ["format", "mode", "flags"])
def test_rows_that_no_look_makes_are_left_out(tmp_path: Path, field: str) -> None:
    paths, cache, look = files(tmp_path / "files", 1), tmp_path / "cache", Looks()
    scan(listed(paths), workers=1, cache=cache, look=look)
    content = bytearray(cache.read_bytes())
    start = len(content) - len(json.dumps({"0": "it says text 0"})) - RECORD.itemsize
    row = np.frombuffer(content, RECORD, 1, start)
    assert row["bytes"] == 6  # "text 0"
    row[field] = 200 if field != "flags" else 1 << 63
    body = len(cache_module._MAGIC) + 16 + 12
    content[body - 4 : body] = struct.pack("<I", zlib.crc32(content[body:]))
    cache.write_bytes(content)
    look.names()
    check(scan(listed(paths), workers=1, cache=cache, look=look), paths)
    assert len(look.names()) == 1 and len(FORMATS) < 200


@pytest.mark.parametrize(
    "text",
    [b"[" * 100_000, b"[]", b'{"a": "b"}', b"null", b"\xff", b'{"0": {}}', b'{"99": "b", "-1": "c"}', b'{"' + b"9" * 9999 + b'": ""}'],
)
def test_hostile_words_do_no_harm(tmp_path: Path, text: bytes) -> None:
    paths, cache, look = files(tmp_path / "files", 2), tmp_path / "cache", Looks()
    start = cache_module._MAGIC + cache_module._version()
    cache.write_bytes(start + struct.pack("<III", 0, len(text), zlib.crc32(text)) + text)
    check(scan(listed(paths), workers=1, cache=cache, look=look), paths)
    cache.write_bytes(start + struct.pack("<III", 2**32 - 1, 2**32 - 1, 0))
    check(scan(listed(paths), workers=1, cache=cache, look=look), paths)


def test_a_full_disk_costs_the_memory_and_not_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths, cache, look = files(tmp_path / "files"), tmp_path / "cache", Looks()
    scan(listed(paths[:3]), workers=1, cache=cache, look=look)
    before = cache.read_bytes()

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cache_module, "_write_block", full)
    found = scan(listed(paths), workers=1, cache=cache, look=look)

    assert found.records["bytes"].tolist() == [Path(path).stat().st_size for path in paths]
    assert len(found.notes) == 1 and "No space left on device" in found.notes[0] and str(cache) in found.notes[0]
    assert cache.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "files"]


def test_what_was_seen_before_ctrl_c_is_remembered(tmp_path: Path) -> None:
    paths, cache, look = files(tmp_path / "files"), tmp_path / "cache", Looks()

    def interrupted(path: str) -> tuple[Any, str]:
        if path == paths[4]:
            raise KeyboardInterrupt
        return look(path)

    assert scan(listed(paths), workers=1, cache=cache, look=interrupted).interrupted
    look.names()
    check(scan(listed(paths), workers=1, cache=cache, look=look), paths)
    assert look.names() == [f"{number}.jpg" for number in range(4, 10)]


def test_each_rank_has_a_file_of_its_own(tmp_path: Path) -> None:
    paths, look = files(tmp_path / "files"), Looks()
    for _ in range(2):
        look.names()
        for rank in range(3):
            found = scan(listed(paths), rank=rank, size=3, workers=1, cache=tmp_path / "cache", look=look)
            assert found.records["bytes"].tolist() == [Path(path).stat().st_size for path in paths[rank::3]]
            assert set(found.details) == {place for place in range(rank, 10, 3) if place % 3 == 0}
    assert look.names() == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache.0of3", "cache.1of3", "cache.2of3", "files"]


def crashing(path: str) -> tuple[Any, str]:
    """A stand-in that workers import."""
    if path.endswith("3.jpg"):
        os.abort()
    return np.zeros(1, RECORD), ""


def test_a_crash_is_not_remembered_and_workers_fill_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths, cache, look = files(tmp_path / "files"), tmp_path / "cache", Looks()
    monkeypatch.syspath_prepend(Path(__file__).parents[1])
    found = scan(listed(paths), workers=2, cache=cache, look=crashing)
    assert found.details == {3: "the decoder crashed"}
    scan(listed(paths), workers=1, cache=cache, look=look)
    assert look.names() == ["3.jpg"]
