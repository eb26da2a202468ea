"""All that one run of the benchmark found, and where it ran."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from tests.benchmarks.bars import Bar
from tests.benchmarks.contestants import FLOOR, TORCH
from tests.benchmarks.rounds import Series

PACKAGES = ("netlens", "torch", "torchvision", "torchinfo", "fvcore")
WAITED = 1.2  # wall time over CPU time


@dataclass(frozen=True, slots=True)
class Inside:
    """Summaries of one existing model inside one process, the best of some."""

    model: str
    seconds: Mapping[str, float]  # tool -> shortest time
    failures: Mapping[str, str]
    compiler: bool  # torch._dynamo is loaded
    best_of: int


@dataclass(frozen=True, slots=True)
class Machine:
    """Versions and load; the load of one minute counts processes that wanted a core."""

    python: str
    versions: Mapping[str, str]
    cores: int
    load_before: float
    load_after: float


@dataclass(frozen=True, slots=True)
class Results:
    """What is printed, in any form."""

    machine: Machine
    repeats: int
    processes: Sequence[Series]
    static: Sequence[Series]
    inside: Sequence[Inside]
    bars: Sequence[Bar]
    missing: Mapping[str, str]  # contestant -> the command that installs it

    def failures(self) -> dict[str, str]:
        """Return what failed, and its last words."""
        series = {_name(one): one.failure for one in (*self.processes, *self.static) if one.failure}
        inside = {f"in one process: {tool}, {one.model}": why for one in self.inside for tool, why in one.failures.items()}
        return {**series, **inside}

    def waits(self) -> tuple[int, int]:
        """Count the bare imports that waited for a core or for the disk, and all of them.

        An import has one thread and computes all the time, so that what it takes beyond its CPU time is the doing of others.
        """
        costs = [cost for one in self.processes if one.job.who in (TORCH, FLOOR) for cost in one.costs]
        return sum(cost.wall > WAITED * cost.cpu for cost in costs), len(costs)

    def document(self) -> dict[str, Any]:
        """Return everything as plain values, with the verdicts that the bars come to."""
        return {**asdict(self), "bars": [{**asdict(bar), "verdict": bar.verdict} for bar in self.bars]}


def machine(load_before: float) -> Machine:
    """Describe this machine, now."""
    return Machine(platform.python_version(), _versions(), os.cpu_count() or 1, load_before, load())


def load() -> float:
    """Return how many processes ran or waited for a core in the last minute."""
    return os.getloadavg()[0]


def _versions() -> dict[str, str]:
    found = {package: _version(package) for package in PACKAGES}
    return {package: number for package, number in found.items() if number}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _name(series: Series) -> str:
    return ", ".join(part for part in (series.job.label, series.job.model) if part)
