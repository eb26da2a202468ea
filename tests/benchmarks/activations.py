"""What the statistics of activations cost beside a plain forward pass: `python -m tests.benchmarks.activations [MODEL ...]`.

Beside netlens stand forward hooks as they are pasted from forum answers: mean, standard deviation, least, greatest, share of zeros and
"any NaN" of each leaf, each fetched by `.item()`. All three run the same batch of 8 pictures in turns in this process, every other turn
with one thread: where other processes take a core, threads that wait for each other take several times as long. The best time of each
counts. Building the rows at the end, once a run however many batches it has, is timed by itself.
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
from tests.benchmarks.inprocess import every_other_alone

MODELS = ("resnet50", "resnet18", "vit_b_16", "mobilenet_v2")
SHAPE = (8, 3, 224, 224)
TURNS = 8
BAR_MODEL, BAR = "resnet50", 1.3


@dataclass(frozen=True, slots=True)
class Row:
    """One model; seconds for a batch, the best of some turns."""

    model: str
    layers: int
    plain: float
    netlens: float
    hooks: float
    result: float  # once a run

    @property
    def ratio(self) -> float:
        """How many times longer a batch takes with netlens."""
        return self.netlens / self.plain

    @property
    def verdict(self) -> str:
        """Say whether the promise is kept."""
        return "kept" if self.ratio <= BAR else "MISSED"


def _seconds(run: Callable[[], Any]) -> float:
    _wait()
    started = time.perf_counter()
    run()
    _wait()
    return time.perf_counter() - started


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


def measure(name: str, turns: int = TURNS, shape: tuple[int, ...] = SHAPE, step: Callable[[], None] = lambda: None) -> Row:
    """Run all three in turns; the first turn is not counted."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = getattr(importlib.import_module("torchvision").models, name)().eval().to(device)
    images, layouts, accumulator = torch.randn(shape, device=device), Layouts(model), Accumulator()
    runs: tuple[Callable[[], Any], ...] = (
        lambda: model(images),
        lambda: _with_netlens(model, images, layouts, accumulator),
        lambda: _with_hooks(model, images),
    )
    times, prepare = [], every_other_alone()
    with torch.no_grad():
        for turn in range(turns + 1):
            prepare(turn)
            times.append([_seconds(run) for run in runs])
            step()
        started = time.perf_counter()
        layers = len(accumulator.result())
        result = time.perf_counter() - started
    prepare(0)
    plain, netlens, hooks = map(min, zip(*times[1:], strict=True))
    return Row(name, layers, plain, netlens, hooks, result)


def line(row: Row, turns: int = TURNS) -> str:
    """Write one row as plain text."""
    return (
        f"{row.model:14} {row.layers:4} layers  plain {row.plain * 1e3:7.0f} ms  netlens {row.netlens * 1e3:7.0f} ms {row.ratio:5.2f} x"
        f"  hooks with .item() {row.hooks * 1e3:7.0f} ms {row.hooks / row.plain:5.2f} x  rows, once: {row.result * 1e3:5.0f} ms"
        f"  best of {turns}"
    )


def main(*names: str) -> bool:
    """Measure, print, and return whether the promise is kept."""
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    kept = True
    for name in names or MODELS:
        row = measure(name)
        print(line(row), flush=True)
        if name == BAR_MODEL:
            print(f"bar: at most {BAR:g} x for {name}: {row.verdict}", flush=True)
            kept = row.verdict == "kept"
    return kept


if __name__ == "__main__":
    sys.exit(not main(*sys.argv[1:]))
