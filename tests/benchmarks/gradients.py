"""What a step with netlens costs beside the bare forward and backward pass: `python -m tests.benchmarks.gradients [MODEL ...]`.

A step of netlens is all that `netlens gradflow` measures of one: loss, magnitudes, norms and histograms of every parameter's gradient, and
the gradient by what every layer puts out. Beside it stands the loop of forum answers: after the backward pass mean, greatest and standard
deviation of every `p.grad`, each fetched by `.item()`. All three take the same batch of 8 pictures in turns in this process, first with one
thread, then with all that torch uses. Ratios are taken within a turn, where other processes slow all three alike, and their median over
turns counts.
"""

from __future__ import annotations

import importlib
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netlens.lenses.gradflow.measure import measure as measured

MODELS = ("resnet50", "resnet18", "vit_b_16")
SHAPE = (8, 3, 224, 224)
TURNS = 9
BAR_MODEL, BAR = "resnet50", 1.15


@dataclass(frozen=True, slots=True)
class Row:
    """One model with some number of threads; ratios to the bare step are medians over turns."""

    model: str
    threads: int
    parameters: int
    plain: float  # seconds of a bare step, the best
    ratio: float  # of a step with netlens
    loop: float  # of a step with the loop of forum answers

    @property
    def verdict(self) -> str:
        """Say whether the promise is kept."""
        return "kept" if self.ratio <= BAR else "MISSED"


def _bare(model: nn.Module, images: Tensor, labels: Tensor) -> None:
    model.zero_grad(set_to_none=True)
    F.cross_entropy(model(images), labels).backward()


def _with_loop(model: nn.Module, images: Tensor, labels: Tensor) -> list[tuple[str, float, float, float]]:
    _bare(model, images, labels)
    found = []
    for name, p in model.named_parameters():
        if p.requires_grad and p.grad is not None:
            found.append((name, p.grad.abs().mean().item(), p.grad.abs().max().item(), p.grad.std().item()))
    return found


def _with_netlens(model: nn.Module, images: Tensor, labels: Tensor) -> None:
    model.zero_grad(set_to_none=True)
    measured(model, lambda: iter([((images,), {}, labels)]), F.cross_entropy)


def _seconds(run: Callable[[], Any]) -> float:
    _wait()
    started = time.perf_counter()
    run()
    _wait()
    return time.perf_counter() - started


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def measure(name: str, threads: int, turns: int = TURNS, shape: tuple[int, ...] = SHAPE, step: Callable[[], None] = lambda: None) -> Row:
    """Run all three in turns; the first turn is not counted."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = getattr(importlib.import_module("torchvision").models, name)().train().to(device)
    images, labels = torch.randn(shape, device=device), torch.arange(shape[0], device=device)
    runs = (_bare, _with_netlens, _with_loop)
    times, before = [], torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for turn in range(turns + 1):
            order = runs if turn % 2 else runs[::-1]  # none always runs behind the same other
            taken = {run: _seconds(partial(run, model, images, labels)) for run in order}
            times.append([taken[run] for run in runs])
            step()
    finally:
        torch.set_num_threads(before)
    plain, netlens, loop = zip(*times[1:], strict=True)
    ratios = [median(part / whole for part, whole in zip(each, plain, strict=True)) for each in (netlens, loop)]
    return Row(name, threads, sum(1 for _ in model.parameters()), min(plain), *ratios)


def line(row: Row, turns: int = TURNS) -> str:
    """Write one row as plain text."""
    return (
        f"{row.model:14} {row.parameters:4} parameters {row.threads:2} threads  bare step {row.plain * 1e3:6.0f} ms"
        f"  netlens {row.ratio:5.2f} x  loop with .item() {row.loop:5.2f} x  median of {turns}"
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
