"""A checkpoint of 400 MB: listing it, and loading it into a model, beside torch itself: `python -m tests.benchmarks.checkpoints`.

Every job runs in a process of its own, which measures itself without its imports: seconds, and how far its memory rose at most.
"""

from __future__ import annotations

import importlib
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from tests.benchmarks.children import run_child

REPOSITORY = Path(__file__).parents[2]
LAYERS, WIDTH = 25, 2048  # 25 matrices of 16 MiB
REPEATS = 5


@dataclass(frozen=True, slots=True)
class Row:
    """One job."""

    task: str  # "list" or "load"
    who: str  # "netlens", "torch.load"
    seconds: float  # the median
    memory: int  # bytes, the median of how far the peak rose above what the imports took
    failure: str = ""


def _model() -> Any:
    from torch import nn

    return nn.ModuleList(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(LAYERS))


def _write(path: Path) -> None:
    import torch

    torch.save({"epoch": 3, "state_dict": _model().state_dict()}, path)


def _list_netlens(path: Path) -> Callable[[], Any]:
    from netlens.loading.checkpoints.read import read_archive

    return lambda: read_archive(path)


def _list_torch(path: Path, **options: Any) -> Callable[[], Any]:
    import torch

    return lambda: torch.load(path, weights_only=True, **options)


def _load_netlens(path: Path) -> Callable[[], Any]:
    from netlens.loading.checkpoints.read import read_archive
    from netlens.loading.checkpoints.weights import fit_model, load_into

    model = _model()

    def load() -> None:
        archive = read_archive(path)
        load_into(model, fit_model(model, archive, name="model"), archive)

    return load


def _load_torch(path: Path, **options: Any) -> Callable[[], Any]:
    import torch

    model = _model()
    return lambda: model.load_state_dict(torch.load(path, weights_only=True, **options)["state_dict"])


def _build_netlens(path: Path) -> Callable[[], Any]:
    from netlens.loading.checkpoints.read import read_archive
    from netlens.loading.checkpoints.weights import fit_model, on_meta, with_weights
    from netlens.loading.named import NamedModel

    named = NamedModel("model", "python", "", "model", _model)

    def build() -> Any:
        archive = read_archive(path)
        return with_weights(named, fit_model(on_meta(named), archive, name="model"), archive).build()

    return build


def _build_torch(path: Path) -> Callable[[], Any]:
    import torch

    return lambda: _model().load_state_dict(torch.load(path, weights_only=True)["state_dict"])


JOBS: dict[tuple[str, str], Callable[[Path], Callable[[], Any]]] = {
    ("list", "netlens"): _list_netlens,
    ("list", "torch.load(mmap=True)"): lambda path: _list_torch(path, mmap=True),
    ("list", "torch.load(map_location='meta')"): lambda path: _list_torch(path, map_location="meta"),
    ("list", "torch.load"): _list_torch,
    ("load into a model", "netlens"): _load_netlens,
    ("load into a model", "torch.load(mmap=True)"): lambda path: _load_torch(path, mmap=True),
    ("load into a model", "torch.load"): _load_torch,
    ("build and load", "netlens"): _build_netlens,
    ("build and load", "torch.load"): _build_torch,
}


def measure(repeats: int = REPEATS, step: Callable[[], None] = lambda: None) -> list[Row]:
    """Write the file, and run every job `repeats` times, in turns."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.pth"
        written = run_child([sys.executable, "-m", __spec__.name, "write", "", str(path)], REPOSITORY)
        if written.failure:
            raise RuntimeError(f"the checkpoint could not be written: {written.failure}")
        costs: dict[tuple[str, str], list[tuple[float, int]]] = {job: [] for job in JOBS}
        failures: dict[tuple[str, str], str] = {}
        for job in list(JOBS) * repeats:
            done = run_child([sys.executable, "-m", __spec__.name, *job, str(path)], REPOSITORY)
            if done.failure:
                failures[job] = done.failure
            else:
                seconds, memory = json.loads(done.stdout.splitlines()[-1])
                costs[job].append((seconds, memory))
            step()
    return [_row(job, costs[job], failures.get(job, "")) for job in JOBS]


def _row(job: tuple[str, str], costs: list[tuple[float, int]], failure: str) -> Row:
    seconds, memory = zip(*costs, strict=True) if costs else ((float("nan"),), (0,))
    return Row(*job, seconds=median(seconds), memory=int(median(memory)), failure=failure)


def lines(rows: list[Row]) -> list[str]:
    """Draw the rows as plain text."""
    return [
        f"{row.task:<18}  {row.who:<32}  " + (row.failure or f"{row.seconds * 1e3:9.1f} ms  {row.memory / 2**20:8.1f} MiB") for row in rows
    ]


def _run(task: str, who: str, path: Path) -> None:
    """Run one job in this process, and print what it took."""
    if task == "write":
        _write(path)
        return
    work = JOBS[task, who](path)
    path.open("rb").read()  # the file is in memory for everyone
    _reset_peak()
    before, started = _resident("VmRSS"), time.perf_counter()
    kept = work()
    seconds = time.perf_counter() - started
    print(json.dumps([seconds, _resident("VmHWM") - before]))
    del kept


def _reset_peak() -> None:
    """Let the kernel forget the largest resident set, which importing torch may have made (proc(5), clear_refs)."""
    importlib.import_module("gc").collect()
    Path("/proc/self/clear_refs").write_text("5")


def _resident(name: str) -> int:
    text = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith(name))


if __name__ == "__main__":
    if len(sys.argv) == 4:
        _run(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
    else:
        print("\n".join(lines(measure())))
