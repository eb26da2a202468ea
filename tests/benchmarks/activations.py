"""What the statistics of activations cost beside a plain forward pass: `python -m tests.benchmarks.activations [MODEL ...]`.

Beside netlens stand forward hooks as they are pasted from forum answers: mean, standard deviation, least, greatest, share of zeros and
"any NaN" of each leaf, each fetched by `.item()`. All three run the same batch of 8 pictures in turns in this process, first with one
thread, then with all that torch uses. The best time of each counts, of the clock and of all processors together: where other processes
take a core, threads wait for each other, the clock says little, and threads that wait by turning in a loop count as work. Building the
rows at the end, once a run however many batches it has, is timed by itself.
"""

from __future__ import annotations

import importlib
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from netlens.lenses.featuremaps.statistics import Accumulator
from netlens.probing.activations import Output, watched
from netlens.probing.tokens import Layouts

MODELS = ("resnet50", "resnet18", "vit_b_16", "mobilenet_v2")
SHAPE = (8, 3, 224, 224)
TURNS = 8
BAR_MODEL, BAR = "resnet50", 1.3


@dataclass(frozen=True, slots=True)
class Row:
    """One model with some number of threads; seconds for a batch, the best of some turns."""

    model: str
    threads: int
    layers: int
    plain: float
    netlens: float
    hooks: float
    plain_work: float  # seconds of all processors together
    netlens_work: float
    result: float  # once a run

    @property
    def ratio(self) -> float:
        """How many times longer a batch takes with netlens."""
        return self.netlens / self.plain

    @property
    def verdict(self) -> str:
        """Say whether the promise is kept."""
        return "kept" if self.ratio <= BAR else "MISSED"


def _seconds(run: Callable[[], Any]) -> tuple[float, float]:
    """Return how long a run takes by the clock, and of all processors together."""
    _wait()
    started, work = time.perf_counter(), time.process_time()
    run()
    _wait()
    return time.perf_counter() - started, time.process_time() - work


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _with_netlens(model: nn.Module, images: Tensor, layouts: Layouts, accumulator: Accumulator) -> None:
    def look(output: Output) -> None:
        accumulator.add(output, layouts.of(output))

    layouts.begin(images)
    with watched(model, look):
        model(images)


def _with_hooks(model: nn.Module, images: Tensor) -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = []

    def hook(_module: nn.Module, _args: Any, output: Any) -> None:
        if not isinstance(output, Tensor):
            return
        zeros = (output == 0).float().mean().item()
        extremes = (output.min().item(), output.max().item())
        found.append((output.mean().item(), output.std().item(), *extremes, zeros, output.isnan().any().item()))

    handles = [module.register_forward_hook(hook) for module in model.modules() if next(module.children(), None) is None]
    try:
        model(images)
    finally:
        for handle in handles:
            handle.remove()
    return found


def measure(name: str, threads: int, turns: int = TURNS, shape: tuple[int, ...] = SHAPE, step: Callable[[], None] = lambda: None) -> Row:
    """Run all three in turns; the first turn is not counted."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = getattr(importlib.import_module("torchvision").models, name)().eval().to(device)
    images, layouts, accumulator = torch.randn(shape, device=device), Layouts(model), Accumulator()
    runs: tuple[Callable[[], Any], ...] = (
        lambda: model(images),
        lambda: _with_netlens(model, images, layouts, accumulator),
        lambda: _with_hooks(model, images),
    )
    times, before = [], torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.no_grad():
            for _ in range(turns + 1):
                times.append([_seconds(run) for run in runs])
                step()
            started = time.perf_counter()
            layers = len(accumulator.result())
            result = time.perf_counter() - started
    finally:
        torch.set_num_threads(before)
    plain, netlens, hooks = (tuple(map(min, zip(*each, strict=True))) for each in zip(*times[1:], strict=True))
    return Row(name, threads, layers, plain[0], netlens[0], hooks[0], plain[1], netlens[1], result)


def line(row: Row, turns: int = TURNS) -> str:
    """Write one row as plain text."""
    return (
        f"{row.model:14} {row.layers:4} layers {row.threads:2} threads  plain {row.plain * 1e3:6.0f} ms"
        f"  netlens {row.netlens * 1e3:6.0f} ms {row.ratio:5.2f} x (work {row.plain_work * 1e3:.0f} -> {row.netlens_work * 1e3:.0f} ms,"
        f" {row.netlens_work / row.plain_work:.2f} x)  hooks with .item() {row.hooks * 1e3:6.0f} ms {row.hooks / row.plain:5.2f} x"
        f"  rows, once: {row.result * 1e3:4.0f} ms  best of {turns}"
    )


def main(*names: str) -> bool:
    """Measure, print, and return whether the promise is kept with every number of threads."""
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    kept = True
    for name in names or MODELS:
        for threads in sorted({1, torch.get_num_threads()}):
            row = measure(name, threads)
            print(line(row), flush=True)
            if name == BAR_MODEL:
                print(f"bar: at most {BAR:g} x for {name}: {row.verdict}", flush=True)
                kept = kept and row.verdict == "kept"
    return kept


if __name__ == "__main__":
    sys.exit(not main(*sys.argv[1:]))
