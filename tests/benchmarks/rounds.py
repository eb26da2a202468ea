"""Commands measured in turns, so that a busy minute of the machine falls on all of them alike."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.children import Cost, Outcome, run_child


@dataclass(frozen=True, slots=True)
class Job:
    """One command to measure."""

    who: str
    label: str
    model: str  # "" where the command knows none
    command: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of some measurements, between the smallest and the largest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        """Sum up; None where nothing was measured."""
        return cls(statistics.median(values), min(values), max(values)) if values else None


@dataclass(frozen=True, slots=True)
class Series:
    """What the runs of one job cost, or why it failed."""

    job: Job
    costs: tuple[Cost, ...]
    failure: str = ""

    @property
    def wall(self) -> Spread | None:
        return Spread.of([cost.wall for cost in self.costs])

    @property
    def cpu(self) -> Spread | None:
        return Spread.of([cost.cpu for cost in self.costs])

    @property
    def peak(self) -> Spread | None:
        return Spread.of([cost.peak for cost in self.costs])


def ratio(ours: Spread | None, theirs: Spread | None) -> float | None:
    """Divide two medians; None where one is missing."""
    return None if ours is None or theirs is None or theirs.median == 0 else ours.median / theirs.median


def measured(
    jobs: Sequence[Job],
    repeats: int,
    folder: Path,
    step: Callable[[], None] = lambda: None,
    run: Callable[[Sequence[str], Path], Outcome] = run_child,
) -> list[Series]:
    """Run all jobs once, then once more, `repeats` times in all. A job that fails is not run again.

    Before that the first job of each contestant runs unmeasured, which brings its files into memory.
    """
    costs: dict[Job, list[Cost]] = {job: [] for job in jobs}
    failures: dict[Job, str] = {}

    def once(job: Job, kept: list[Cost]) -> None:
        if job not in failures:
            outcome = run(job.command, folder)
            if outcome.cost is None:
                failures[job] = outcome.failure
            else:
                kept.append(outcome.cost)
        step()

    for job in _warm_up(jobs):
        once(job, [])
    for job in list(jobs) * repeats:
        once(job, costs[job])
    return [Series(job, () if job in failures else tuple(costs[job]), failures.get(job, "")) for job in jobs]


def steps(jobs: Sequence[Job], repeats: int) -> int:
    """Count the calls of `step`."""
    return len(_warm_up(jobs)) + repeats * len(jobs)


def _warm_up(jobs: Sequence[Job]) -> list[Job]:
    first: dict[str, Job] = {}
    for job in jobs:
        first.setdefault(job.who, job)
    return list(first.values())
