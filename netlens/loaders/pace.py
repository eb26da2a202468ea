"""How fast a loader is, and whether that is enough; numbers of this machine, now, with files that the system has already read once."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice, pairwise
from math import ceil
from statistics import median, quantiles
from time import perf_counter, process_time
from typing import Any

from torch.utils.data import DataLoader

from netlens.data.issues import Issue, Item
from netlens.data.workers import usable_cpus
from netlens.loaders.aside import Say, attempted
from netlens.loaders.facts import Pace
from netlens.loaders.own import batches_of, groups_of, is_stream, own_loader
from netlens.loading.samples import is_batch
from netlens.probing.counting import samples_in
from netlens.wording import counted, number

BATCHES = 50  # that are timed
LONG, COST, LONGEST = 8.0, 4.0, 60.0  # seconds for the loader, for one process, and until it is given up
TOLERANCE = 0.9  # of the rate that is wanted: shared machines are not steadier
SLOWER = 0.5  # of the rate of one process: below that workers are in the way; shared machines alone cost less
COMPUTING = 0.5  # share of a sample's time: below that it waits, and more workers than CPUs are of use


@dataclass(frozen=True, slots=True)
class _Timed:
    """Batches as they came."""

    first: float  # seconds until the first one
    gaps: list[float]  # between one and the next
    sizes: list[int]  # samples of the batch after each gap
    cpu: float  # seconds of this process alone, over all gaps

    def rate(self, window: int) -> list[float]:
        """Return samples per second of every `window` batches in a row: workers give theirs at nearly one time."""
        window = min(window, len(self.gaps))
        starts = range(len(self.gaps) - window + 1)
        return [sum(self.sizes[k : k + window]) / max(sum(self.gaps[k : k + window]), 1e-9) for k in starts]


def paced(
    loader: DataLoader[Any], *, wanted: float | None = None, wanted_by: str = "", say: Say = lambda _text: None
) -> tuple[Pace | None, list[Issue]]:
    """Time a loader, and say whether it is too slow ("loader-slow") or its workers are in the way ("workers-useless").

    Args:
        loader: the user's; copies of it run in forks, with its own number of workers, and with none to learn what a sample costs.
        wanted: samples per second that are to be reached.
        wanted_by: who wants them: "--target-rate", "resnet50, one training step on cuda:0".
        say: is told what could not be timed, and why.
    """
    alone = attempted(partial(_timed, loader, 0, COST), LONGEST, "the loader was not timed", say)
    if alone is None or not alone.gaps:
        return None, []
    timed: _Timed | None = alone
    if loader.num_workers:
        timed = attempted(partial(_timed, loader, loader.num_workers, LONG), LONGEST, "the loader was not timed with its workers", say)
    if timed is None or not timed.gaps:
        return None, []
    rates = timed.rate(max(loader.num_workers, 1))
    cost = 1 / median(alone.rate(1))
    found = Pace(
        samples_per_second=median(rates),
        seconds_per_sample=cost,
        workers=loader.num_workers,
        batches=len(timed.gaps),
        first_batch=timed.first,
        wanted=wanted,
        wanted_by=wanted_by,
        workers_needed=None if wanted is None else ceil(wanted * cost),
    )
    computing = min(1.0, alone.cpu / max(sum(alone.gaps), 1e-9))
    return found, [*_slow(found, rates, computing), *_useless(found, computing)]


def _busy() -> str:
    """Say how many processes wanted a CPU in the last minute, where they were more than there are."""
    with suppress(OSError, AttributeError):  # a system that does not tell
        load, cpus = os.getloadavg()[0], usable_cpus()
        return f"load {load:.1f} on {counted(cpus, 'CPU')}" if load > cpus else ""
    return ""


def _slow(pace: Pace, rates: list[float], computing: float) -> list[Issue]:
    if pace.wanted is None or pace.workers_needed is None or pace.samples_per_second >= TOLERANCE * pace.wanted:
        return []
    low, _, high = quantiles(rates, n=4) if len(rates) > 1 else rates * 3
    rate = f"{_rate(pace.samples_per_second)} samples a second, mostly {_rate(low)} to {_rate(high)}"
    measured = f"{rate}, with {counted(pace.workers, 'worker')}"
    busy = f"; the machine was busy ({_busy()}): alone it may be faster" if _busy() else ""
    item = Item(("the loader",), _advice(pace, computing, usable_cpus()) + busy)
    return [Issue("loader-slow", (item,), 1, measured, f"{_rate(pace.wanted)} a second: {pace.wanted_by}")]


def _rate(samples: float) -> str:
    return f"{samples:,.0f}" if samples >= 100 else number(samples)


def _advice(pace: Pace, computing: float, cpus: int) -> str:
    """Say what it takes: workers, where there are CPUs for them, or cheaper samples."""
    assert pace.wanted is not None and pace.workers_needed is not None
    cost = f"a sample takes {number(1000 * pace.seconds_per_sample)} ms in one process, {100 * computing:.0f} % of it computing"
    busy = pace.wanted * pace.seconds_per_sample * computing  # CPUs
    if busy > cpus:
        most = cpus / (pace.seconds_per_sample * computing)
        return f"{cost}: {counted(ceil(busy), 'CPU')} would be needed, and {counted(cpus, 'CPU')} can do {_rate(most)} a second at most"
    if pace.workers < pace.workers_needed:
        return f"{cost}: {counted(pace.workers_needed, 'worker')} would be needed"
    return f"{cost}: {counted(pace.workers, 'worker')} should do; CPUs are busy, or passing batches between processes takes the time"


def _useless(pace: Pace, computing: float) -> list[Issue]:
    if _busy() or (pace.wanted is not None and pace.samples_per_second >= pace.wanted):
        return []
    alone, cpus = 1 / pace.seconds_per_sample, usable_cpus()
    if pace.workers > 1 and pace.samples_per_second < SLOWER * alone:
        measured = f"{_rate(pace.samples_per_second)} samples a second with {pace.workers} workers, {_rate(alone)} with none"
        item = Item(("the loader",), "passing batches between processes takes longer than making them")
        return [Issue("workers-useless", (item,), 1, measured)]
    if pace.workers > cpus and computing > COMPUTING:
        item = Item(("the loader",), f"a sample is computed for {100 * computing:.0f} % of its time, so workers wait for each other")
        return [Issue("workers-useless", (item,), 1, f"{pace.workers} workers", counted(cpus, "CPU"))]
    return []


# --- In the fork


def _timed(loader: DataLoader[Any], workers: int, budget: float) -> _Timed:
    """Time batches after the first that each worker gives: the same ones again where an epoch has too few."""
    most = max(BATCHES, 4 * workers) + max(workers, 1)
    groups = [] if is_stream(loader) else list(islice(groups_of(loader), most))
    plan = None if is_stream(loader) else list(islice(cycle(groups), most))
    mine = own_loader(loader, workers=workers, plan=plan)
    times, cpu = [perf_counter()], [process_time()]
    sizes: list[int] = []
    for batch in islice(batches_of(mine), most):
        times.append(perf_counter())
        cpu.append(process_time())
        sizes.append(_samples(batch, loader, plan[len(sizes)] if plan else None))
        if times[-1] - times[1] > budget:
            break
    warm = min(max(workers, 1), len(sizes) - 1) if sizes else 0
    gaps = [after - before for before, after in pairwise(times[warm:])]
    return _Timed(times[min(1, len(sizes))] - times[0], gaps, sizes[warm:], cpu[-1] - cpu[warm])


def _samples(batch: Any, loader: DataLoader[Any], indices: list[Any] | None) -> int:
    """Count the samples of a batch, by its indices where it is made of samples, else by what is in it."""
    if loader.batch_sampler is not None and indices is not None:
        return len(indices)
    if loader.batch_size is None and not is_batch(batch):
        return 1
    return samples_in(((batch[0] if isinstance(batch, (list, tuple)) else batch,), {}))
