"""Going through all files: nothing is lost, whatever a decoder does, and no process stays behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from netlens.data import scan as scan_module
from netlens.data import workers as workers_module
from netlens.data.listing import Listing, Paths, Split
from netlens.data.records import BITS, RECORD, has
from netlens.data.scan import Scanned, scan
from netlens.errors import NetlensError

STAND_IN = """
import ctypes, os, signal, time
from hashlib import blake2b
from pathlib import Path
import numpy as np
from netlens.data.records import RECORD

def look(path):
    "A row that says whose it is; a file with an evil name does what it says."
    row = np.zeros(1, RECORD)
    content = Path(path).read_bytes() if os.path.exists(path) else b""
    row["bytes"], row["width"], row["height"] = len(content), os.getpid(), os.getppid()
    row["digest"] = np.frombuffer(blake2b(content, digest_size=16).digest(), "<u8")
    evil = os.path.basename(path).partition(".")[0]
    if evil == "segfault": os.kill(os.getpid(), signal.SIGSEGV)
    if evil == "kill": os.kill(os.getpid(), signal.SIGKILL)
    if evil == "exit": os._exit(1)
    if evil == "once" and not os.path.exists(path + ".been"):
        Path(path + ".been").touch()
        os.abort()
    if evil == "sleep": time.sleep(100)
    if evil == "hold": ctypes.PyDLL(None).sleep(100)  # and never gives Python's lock back
    if evil == "bug": raise ValueError("a bug in the look")
    if evil == "noise": os.write(1, b"noise" * 1000)
    return row[0], "even" if content and content[-1] % 2 == 0 else ""

def slow(path):
    time.sleep(0.02)
    return look(path)
"""

SCRIPT = """
import json, sys, os
from netlens.data.listing import Listing, Paths, Split
from netlens.data.scan import scan
from stand_in import look, slow
import numpy as np
paths = sorted(os.path.join("files", name) for name in os.listdir("files"))
listing = Listing((Split("", "files"),), Paths(paths), np.zeros(len(paths), np.uint8), np.full(len(paths), -1, np.int32))
found = scan(listing, workers=int(sys.argv[1]), seen=lambda files: print("begun", flush=True), look=slow)
print(json.dumps([found.interrupted, found.indices.tolist(), found.records["bytes"].tolist()]))
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module that workers can import, as they import netlens's own look."""
    (tmp_path / "stand_in.py").write_text(STAND_IN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "stand_in", raising=False)
    import stand_in  # type: ignore[import-not-found]

    module: ModuleType = stand_in
    return module


def listed(paths: list[str]) -> Listing:
    return Listing((Split("", "files"),), Paths(paths), np.zeros(len(paths), np.uint8), np.full(len(paths), -1, np.int32))


def made(folder: Path, names: list[str]) -> list[str]:
    folder.mkdir(exist_ok=True)
    paths = [str(folder / name) for name in names]
    for number, path in enumerate(paths):
        Path(path).write_bytes(b"x" * (number % 7) + bytes([number % 256]))
    return paths


def truth(path: str) -> tuple[int, bytes, str]:
    content = Path(path).read_bytes()
    return len(content), blake2b(content, digest_size=16).digest(), "" if content[-1] % 2 else "even"


def check(found: Scanned, paths: list[str]) -> None:
    """Compare with what each file holds."""
    assert len(found.records) == len(found.indices)
    for place, row in zip(found.indices.tolist(), found.records, strict=True):
        assert (int(row["bytes"]), row["digest"].tobytes(), found.details.get(place, "")) == truth(paths[place])


NAMES = [f"{number:03}.jpg" for number in range(60)]


@pytest.mark.parametrize(("workers", "most"), [(1, 256), (2, 256), (2, 1), (4, 3), (100, 5)])
def test_the_rows_are_those_of_the_files_for_any_number_of_workers(
    stand_in: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int, most: int
) -> None:
    monkeypatch.setattr(scan_module, "MOST_FILES", most)
    paths = made(tmp_path / "files", NAMES[: 5 if workers == 100 else 60])
    told: list[int] = []

    found = scan(listed(paths), workers=workers, seen=told.append, look=stand_in.look)

    check(found, paths)
    assert found.indices.tolist() == list(range(len(paths))) and not found.interrupted and not found.notes
    assert list(found.details) == sorted(found.details)
    assert sum(told) == len(paths) and min(told) > 0
    processes = set(found.records["width"].tolist())
    assert processes == {os.getpid()} if workers == 1 else os.getpid() not in processes and len(processes) <= workers


@pytest.mark.parametrize("workers", [1, 2])
def test_ranks_share_the_files_and_leave_none_out(stand_in: Any, tmp_path: Path, workers: int) -> None:
    paths = made(tmp_path / "files", NAMES[:10])
    for rank, places in enumerate(([0, 3, 6, 9], [1, 4, 7], [2, 5, 8])):
        found = scan(listed(paths), rank=rank, size=3, workers=workers, look=stand_in.look)
        check(found, paths)
        assert found.indices.tolist() == places
    assert len(scan(listed(paths), rank=10, size=11, workers=workers, look=stand_in.look).records) == 0
    assert len(scan(listed([]), workers=workers, look=stand_in.look).records) == 0


def test_a_crash_costs_its_file_and_no_other(stand_in: Any, tmp_path: Path) -> None:
    evil = {"segfault.jpg": "the decoder crashed", "kill.jpg": "ran out of memory", "exit.jpg": "the decoder crashed"}
    paths = made(tmp_path / "files", [*NAMES[:20], "segfault.jpg", *NAMES[20:22], "kill.jpg", "exit.jpg", *NAMES[22:40]])

    found = scan(listed(paths), workers=2, look=stand_in.look)

    crashed = [place for place, path in enumerate(paths) if Path(path).name in evil]
    assert np.flatnonzero(found.records["flags"]).tolist() == crashed == [20, 23, 24]
    assert set(found.records["flags"][crashed].tolist()) == {BITS["picture-undecodable"]}
    assert {Path(paths[place]).name: found.details[place] for place in crashed} == evil
    assert found.records["bytes"].tolist() == [Path(path).stat().st_size for path in paths]
    healthy = [place for place in range(len(paths)) if place not in crashed]
    details = {place: words for place, words in found.details.items() if place in healthy}
    check(Scanned(found.records[healthy], found.indices[healthy], details), paths)


def test_a_file_is_not_blamed_for_a_crash_that_does_not_come_again(stand_in: Any, tmp_path: Path) -> None:
    paths = made(tmp_path / "files", [*NAMES[:10], "once.jpg", *NAMES[10:20]])
    check(scan(listed(paths), workers=2, look=stand_in.look), paths)


def test_a_hang_ends_also_where_it_holds_pythons_lock(stand_in: Any, tmp_path: Path) -> None:
    paths = made(tmp_path / "files", ["hold.jpg", "sleep.jpg", *NAMES[:10]])

    found = scan(listed(paths), workers=2, look=stand_in.look, limit=1)

    assert np.flatnonzero(has(found.records, "picture-undecodable")).tolist() == [0, 1]
    assert found.details[0] == found.details[1] == "decoding took more than 1 s"
    check(Scanned(found.records[2:], found.indices[2:], {k: v for k, v in found.details.items() if k > 1}), paths)


def test_names_come_through_whatever_they_are(stand_in: Any, tmp_path: Path) -> None:
    names = ["a b.jpg", "Zoë.jpg", "line\nbreak.jpg", '"quoted".jpg', "\u2028.jpg", os.fsdecode(b"\xff\xfe.jpg"), "🐈.jpg", "x" * 250]
    paths = made(tmp_path / "files", names)
    check(scan(listed(paths), workers=2, look=stand_in.look), paths)


def test_what_a_decoder_prints_is_lost(stand_in: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    paths = made(tmp_path / "files", ["noise.jpg", *NAMES[:5], "noise.png"])
    check(scan(listed(paths), workers=2, look=stand_in.look), paths)
    assert capfd.readouterr() == ("", "")


def test_a_bug_of_the_look_is_told_with_its_traceback(stand_in: Any, tmp_path: Path) -> None:
    paths = made(tmp_path / "files", [*NAMES[:10], "bug.jpg", *NAMES[10:]])
    with pytest.raises(RuntimeError, match=r"(?s)Traceback.*stand_in\.py.*ValueError: a bug in the look"):
        scan(listed(paths), workers=2, look=stand_in.look)
    with pytest.raises(ValueError, match="a bug in the look"):
        scan(listed(paths), workers=1, look=stand_in.look)


@pytest.mark.parametrize(("interpreter", "why"), [("/nowhere/python", "No such file"), ("/bin/false", "exit code 1")])
def test_workers_that_do_not_start_are_told(
    stand_in: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interpreter: str, why: str
) -> None:
    monkeypatch.setattr(sys, "executable", interpreter)
    with pytest.raises(NetlensError, match=why) as caught:
        scan(listed(made(tmp_path / "files", NAMES)), workers=2, look=stand_in.look)
    assert "--workers 1" in caught.value.hint


def test_as_many_workers_as_there_are_cpus_but_none_without_enough_files(
    stand_in: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = made(tmp_path / "files", NAMES)
    crews: list[int] = []
    crew = scan_module._Crew
    monkeypatch.setattr(scan_module, "_Crew", lambda share, todo, workers: crews.append(len(workers)) or crew(share, todo, workers))
    monkeypatch.setattr(scan_module, "usable_cpus", lambda: 3)

    check(scan(listed(paths), look=stand_in.look), paths)
    assert crews == []
    monkeypatch.setattr(scan_module, "FILES_EACH", 10)
    check(scan(listed(paths), look=stand_in.look), paths)
    monkeypatch.setattr(scan_module, "FILES_EACH", 30)
    check(scan(listed(paths), look=stand_in.look), paths)
    assert crews == [3, 2]
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")  # the other rank needs its CPUs as well
    check(scan(listed(paths), look=stand_in.look), paths)
    assert crews == [3, 2]


@pytest.mark.parametrize(
    ("quota", "cpus"), [("150000 100000", 2), ("max 100000", 8), ("20000 100000", 1), (None, 8), ("9900000 100000", 8)]
)
def test_the_quota_of_a_container_limits_the_cpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str | None, cpus: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    monkeypatch.setattr(workers_module, "QUOTA", tmp_path / "cpu.max")
    if quota:
        (tmp_path / "cpu.max").write_text(quota + "\n")
    assert workers_module.usable_cpus() == cpus


def test_ctrl_c_in_this_process_keeps_the_first_files(stand_in: Any, tmp_path: Path) -> None:
    paths = made(tmp_path / "files", NAMES)

    def look(path: str) -> Any:
        if path.endswith("017.jpg"):
            raise KeyboardInterrupt
        return stand_in.look(path)

    found = scan(listed(paths), workers=1, look=look)

    assert found.interrupted and found.indices.tolist() == list(range(17)) and max(found.details) < 17
    check(found, paths)


def test_only_files_without_a_gap_are_kept_after_ctrl_c(stand_in: Any, tmp_path: Path) -> None:
    """A worker that is at file 0 for a long time, while the other one goes on: nothing is whole yet."""
    paths = made(tmp_path / "files", ["sleep.jpg", *NAMES[:30]])
    left = 30

    def seen(files: int) -> None:
        nonlocal left
        left -= files
        if not left:
            raise KeyboardInterrupt

    found = scan(listed(paths), workers=2, look=stand_in.look, seen=seen)

    assert found.interrupted and len(found.records) == 0 and not found.details and not left


def test_a_million_files_take_half_a_gib() -> None:
    files = 20_000
    row = np.zeros(1, RECORD)
    listing = listed([f"{number}.jpg" for number in range(files)])
    tracemalloc.start()
    try:
        found = scan(listing, workers=1, look=lambda path: (row, ""))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(found.records) == files
    assert peak / files <= 512


linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


def begun(tmp_path: Path, workers: int) -> subprocess.Popen[str]:
    """A script of a user, without a guard, at the head of its own process group; it has begun, and will take seconds."""
    made(tmp_path / "files", [f"{number:03}.jpg" for number in range(400)])
    (tmp_path / "script.py").write_text(SCRIPT)
    search = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[1])])
    script = subprocess.Popen(
        [sys.executable, "script.py", str(workers)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": search},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # what a shell starts in the background ignores it
    )
    assert script.stdout and script.stdout.readline() == "begun\n"
    return script


def alive(group: int) -> list[int]:
    """The processes of a group that have not ended; whoever is to bury the dead is not always quick."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, _, its_group = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
            except OSError:
                continue
            if int(its_group) == group and state not in "ZX":
                found.append(int(entry.name))
    return found


def until(condition: Callable[[], bool], seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


@linux
@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_on_a_terminal_gives_what_was_seen_and_leaves_no_process(stand_in: Any, tmp_path: Path, workers: int) -> None:
    script = begun(tmp_path, workers)
    assert until(lambda: len(alive(script.pid)) == (1 if workers == 1 else 3))
    os.killpg(script.pid, signal.SIGINT)
    out, err = script.communicate(timeout=30)

    interrupted, indices, sizes = json.loads(out.splitlines()[-1])
    assert interrupted and len(indices) < 400 and (indices or workers == 2)  # with two, the first file may be the one in work
    assert indices == list(range(len(indices))) and sizes == [index % 7 + 1 for index in indices]
    assert err == "" and script.returncode == 0
    assert alive(script.pid) == []


@linux
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_with_the_process_that_started_them(stand_in: Any, tmp_path: Path, end: signal.Signals) -> None:
    script = begun(tmp_path, 2)
    assert until(lambda: len(alive(script.pid)) == 3)
    os.kill(script.pid, end)
    script.communicate(timeout=30)
    assert until(lambda: not alive(script.pid))
