"""What looking at a folder of pictures costs, beside cleanvision and beside decoding alone: `python -m tests.benchmarks.data [FILES]`.

So many files (2,000) are made by tests/data_defects.py: JPEG files of 270 x 270 and 500 x 375 pixels and a tenth with every kind of fault.
Each contestant is a process of its own, imports and all, in turns, one unmeasured turn first; CPU time counts, and ratios are taken within
a turn. cleanvision, which ends at the first file that cannot be opened and at the first grey PNG file with alpha, gets a folder without
those, and without what it does not list (.bmp, .tif, ...); netlens is timed on the same folder beside it. Bare Pillow opens and loads every
file of the whole folder, and skips what it cannot. The search for near copies has random hashes with planted pairs.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from threading import Event, Thread

from tests.benchmarks.children import Cost, run_child

FILES, TURNS, HASHES, PAIRS = 2000, 3, 1_000_000, 2000
LARGE, FAULTY = 5, 10  # one file of so many is of 500 x 375 pixels, one has a fault
CLEANER, MEMORY, DECODING, SEARCH = 8.0, 150e6, 2.0, 30.0  # bars: times less CPU, bytes, times bare decoding, seconds of CPU
LISTED = (".jpg", ".png", ".webp", ".gif")  # by cleanvision, of the suffixes that are made here
FATAL = "grey-alpha"  # IndexError at mode LA; beside the kinds that cannot be decoded
SURVIVED, FATAL_FOLDER = "survived", "fatal"

THIS = [sys.executable, "-m", "tests.benchmarks.data"]  # a part of it: what it imports shall not make this process larger
CLEANVISION = """
import sys
from cleanvision import Imagelab
lab = Imagelab(data_path=sys.argv[1], verbose=False)
lab.find_issues(n_jobs=1, verbose=False)
print(len(lab.issues))
"""
PILLOW = """
import os, sys, time
from PIL import Image
begun, decoded = time.process_time(), 0
for folder, _, names in os.walk(sys.argv[1]):
    for name in names:
        try:
            with Image.open(os.path.join(folder, name)) as image:
                image.load()
            decoded += 1
        except Exception:
            pass
print(decoded, time.process_time() - begun)
"""


def make(root: Path, count: int) -> None:
    """Write so many files, those that end cleanvision in a folder of their own."""
    from netlens.data.records import FLAGS
    from tests.data_defects import DEFECTS, clean

    kinds = [kind for kind in DEFECTS if kind != "folder"]
    broken = set(FLAGS[: FLAGS.index("picture-too-large") + 1])
    for name in (SURVIVED, FATAL_FOLDER):
        (root / name).mkdir()
    for number in range(count):
        if number % FAULTY == 0:
            kind = kinds[number // FAULTY % len(kinds)]
            for path in DEFECTS[kind].write(10 * number, root / SURVIVED / f"{number:06}-{kind}"):
                if kind == FATAL or broken.intersection(DEFECTS[kind].codes) or path.suffix not in LISTED:
                    path.rename(root / FATAL_FOLDER / path.name)
            continue
        large = number % LARGE == 1
        image = clean(10 * number, 500).crop((0, 62, 500, 437)) if large else clean(10 * number)
        image.save(root / SURVIVED / f"{number:06}.jpg", quality=92 if large else 90)


def search(count: int) -> tuple[float, float]:
    """Search random hashes, upright and mirrored as check-data does; return the seconds of CPU, and the share of planted pairs found."""
    import numpy as np

    from netlens.data.neighbours import close_pairs

    dice = np.random.default_rng(0)
    hashes, mirrored = dice.integers(1, 1 << 64, (2, count), np.uint64)
    first, second = dice.permutation(count)[: 2 * PAIRS].reshape(2, -1)
    flips = np.array([sum(1 << int(bit) for bit in dice.choice(64, number % 9, replace=False)) for number in range(PAIRS)], np.uint64)
    upright = np.arange(PAIRS) % 2 == 0  # the other half of the copies are mirrored
    hashes[second] = np.where(upright, hashes[first], mirrored[first]) ^ flips
    begun = time.process_time()
    found = [close_pairs(hashes, others, distance=8)[0] for others in (None, mirrored)]
    seconds = time.process_time() - begun
    told = [{(min(pair), max(pair)) for pair in zip(each["first"].tolist(), each["second"].tolist(), strict=True)} for each in found]
    planted = zip(first.tolist(), second.tolist(), upright.tolist(), strict=True)
    return seconds, sum((min(a, b), max(a, b)) in told[not same] for a, b, same in planted) / PAIRS


@contextmanager
def watched() -> Iterator[list[int]]:
    """Add up the bytes of all processes below this one, shared pages once, every 50 ms while the block runs; Linux only."""
    sums, over = [0], Event()

    def watch() -> None:
        while not over.wait(0.05):
            sums.append(sum(map(_proportional, _below(os.getpid()))))

    thread = Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield sums
    finally:
        over.set()
        thread.join()


def _below(top: int) -> list[int]:
    parents = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended
            parents[int(status.parent.name)] = int(status.read_text().rpartition(")")[2].split()[1])
    found = [top]
    for parent in found:
        found += [child for child, its in parents.items() if its == parent]
    return found[1:]


def _proportional(process: int) -> int:
    with suppress(OSError):
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        return next((int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:")), 0)
    return 0


def netlens(*arguments: object) -> list[str]:
    """Return the command line of a check that draws nothing."""
    return [sys.executable, "-m", "netlens", "check-data", *map(str, arguments), "--no-pictures", "--fail-on", "never", "--format", "json"]


def child(command: Sequence[str]) -> tuple[Cost, str]:
    """Run one process; whoever fails ends the benchmark."""
    outcome = run_child(command, Path.cwd())
    if outcome.cost is None:
        raise SystemExit(f"{' '.join(command[:6])} failed: {outcome.failure}")
    return outcome.cost, outcome.stdout


@dataclass(frozen=True)
class Turn:
    """What one contestant took in one turn."""

    wall: float  # seconds
    cpu: float
    peak: int  # bytes; of several processes all together
    said: str

    @property
    def files(self) -> int:
        """How many it looked at, as it says itself."""
        if self.said.startswith("{"):
            return sum(split["files"] for split in json.loads(self.said)["report"]["splits"])
        return int(self.said.split()[0])


Turns = dict[str, list[Turn]]


def times(root: Path, one: Path, step: Callable[[], None] = lambda: None) -> Turns:
    """Run all contestants in turns; the first turn is not counted."""
    seen = root.parent / "seen"
    jobs = {
        "netlens, same files": netlens(root / SURVIVED, "--workers", 1),
        "cleanvision": [sys.executable, "-c", CLEANVISION, str(root / SURVIVED)],
        "netlens": netlens(root, "--workers", 1),
        "netlens, 2 workers": netlens(root, "--workers", 2),
        "Pillow": [sys.executable, "-c", PILLOW, str(root)],
        "netlens, one file": netlens(one, "--workers", 1),
        "netlens, cached": netlens(root, "--workers", 1, "--cache", seen),
    }
    found: Turns = {name: [] for name in jobs}
    for turn in range(TURNS + 1):
        for name, command in jobs.items():
            with watched() as sums:
                cost, said = child(command)
            step()
            if turn:
                found[name].append(Turn(cost.wall, cost.cpu, max(sums) if "workers" in name else cost.peak, said))
    return found


def bar(promise: str, measured: str, kept: bool) -> bool:
    """Print whether a promise is kept."""
    print(f"bar: {promise}: {measured}: {'kept' if kept else 'MISSED'}", flush=True)
    return kept


def compared(found: Turns) -> bool:
    """Print what was measured, and hold the promises against it."""
    for name, turns in found.items():
        wall, cpu, peak = (median(getattr(turn, what) for turn in turns) for what in ("wall", "cpu", "peak"))
        files = turns[0].files
        print(
            f"{name:20} {files:6,} files  wall {wall:6.2f} s  CPU {cpu:6.2f} s  {cpu / files * 1e3:7.2f} ms/file  peak {peak / 1e6:4.0f} MB"
        )
    cpu = {name: [turn.cpu / turn.files for turn in turns] for name, turns in found.items()}
    own, start, bare = ([turn.cpu for turn in found[name]] for name in ("netlens", "netlens, one file", "Pillow"))
    loops = [float(turn.said.split()[1]) for turn in found["Pillow"]]
    cleaner = _ratio(cpu["cleanvision"], cpu["netlens, same files"])
    decoding = _ratio([whole - begun for whole, begun in zip(own, start, strict=True)], loops)
    both = f"{decoding:.2f} x; {_ratio(own, bare):.2f} x with the start of both processes"
    peak, tree = (median(turn.peak for turn in found[name]) for name in ("netlens", "netlens, 2 workers"))
    print(f"second run with --cache: {_ratio(cpu['netlens, cached'], cpu['netlens']):.2f} of the CPU of a run without")
    verdicts = (
        bar(f"at least {CLEANER:g} x less CPU a file than cleanvision on the same files", f"{cleaner:.1f} x", cleaner >= CLEANER),
        bar(f"at most {MEMORY / 1e6:g} MB", f"{peak / 1e6:.0f} MB; {tree / 1e6:.0f} MB with 2 workers", max(peak, tree) <= MEMORY),
        bar(f"at most {DECODING:g} x the CPU of bare Pillow decoding", both, decoding <= DECODING),
    )
    return all(verdicts)


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    return median(first / second for first, second in zip(ours, theirs, strict=True))


def main(count: int = FILES) -> bool:
    """Measure, print, and return whether all promises are kept."""
    with tempfile.TemporaryDirectory() as folder:
        root, one = Path(folder, "data"), Path(folder, "one")
        root.mkdir()
        one.mkdir()
        child([*THIS, "--make", str(root), str(count)])
        (one / "one.jpg").write_bytes(next((root / SURVIVED).glob("*1.jpg")).read_bytes())
        left_out = len(list((root / FATAL_FOLDER).iterdir()))
        print(f"{left_out:,} files that end cleanvision, or that it does not list, are left out of those for both", flush=True)
        kept = compared(times(root, one))
    searched = [tuple(map(float, child([*THIS, "--search", str(HASHES)])[1].split())) for _ in range(TURNS)]
    seconds, recall = median(each[0] for each in searched), min(each[1] for each in searched)
    promise = f"near copies among {HASHES:,} hashes, upright and mirrored, in {SEARCH:g} s of CPU"
    return bar(promise, f"{seconds:.1f} s, {recall:.2%} of {PAIRS:,} pairs within 8 bits", seconds <= SEARCH and recall == 1) and kept


if __name__ == "__main__":
    if sys.argv[1:2] == ["--make"]:
        make(Path(sys.argv[2]), int(sys.argv[3]))
    elif sys.argv[1:2] == ["--search"]:
        print(*search(int(sys.argv[2])))
    else:
        sys.exit(not main(*map(int, sys.argv[1:2])))
