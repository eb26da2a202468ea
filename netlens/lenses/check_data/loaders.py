"""Datasets and DataLoaders: each by itself, and all of them against each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

from torch.utils.data import DataLoader

from netlens.data.facts_types import ClassCount, SplitFacts
from netlens.data.issues import Issue
from netlens.lenses.check_data.found import Found
from netlens.lenses.check_data.report import CheckDataReport
from netlens.loaders.check import Checked, check_loader, leaks
from netlens.loaders.growth import memory_growth
from netlens.loaders.pace import paced
from netlens.loaders.repeats import samples_mutated
from netlens.loaders.source import source_of
from netlens.loaders.workers import check_workers

Eats = Callable[[Any], tuple[float, str]]  # takes a loader; samples per second that are wanted, and by whom
STOPS = {"sample-raises", "collate-fails", "no-batches", "loader-stuck", "worker-dies"}  # where one is, time is not measured


def check_loaders(
    named: Sequence[tuple[str, Any]],
    *,
    title: str = "data",
    classes: int | Sequence[str] | None = None,
    samples: int | None = None,
    target_rate: float | None = None,
    eats: Eats | None = None,
    step: Callable[[], object] = lambda: None,
) -> Found:
    """Look at loaders, and at the first one also over time.

    Args:
        named: name ("" or "train", "val", ...) and Dataset, DataLoader or iterable.
        title: what the user calls the one without a name: a "val_loader" may be in order.
        classes: how many there are, or their names.
        samples: of each, at most so many are read.
        target_rate: samples per second that training shall get.
        eats: asks a model for that rate.
        step: called after each sample and each batch.

    Raises:
        InputError: one of them holds no samples.
    """
    checked: list[Checked] = []
    issues: list[Issue] = []
    notes: list[str] = []
    for place, (name, found) in enumerate(named):
        one = check_loader(found, name or title, classes=classes, samples=samples, step=step)
        more: list[Issue] = []
        loader = found if isinstance(found, DataLoader) else source_of(found, name or title).loader
        if loader is not None and not STOPS & {issue.code for issue in one.issues}:
            one, more = _over_time(one, loader, target_rate, eats, notes, first=place == 0)
        checked.append(one)
        issues += [_of(name, issue) for issue in _once([*one.issues, *more])]
        notes += one.notes
    for a, b in combinations(checked, 2):
        issues += leaks(a, b)
    report = CheckDataReport(
        kind="loader",
        splits=tuple(_split(name, one) for (name, _), one in zip(named, checked, strict=True)),
        issues=tuple(issues),
        loaders=tuple(one.facts for one in checked),
        notes=tuple(dict.fromkeys(notes)),
    )
    return Found(report, shown=[(name, one.shown.pictures, one.shown.labels) for (name, _), one in zip(named, checked, strict=True)])


def _over_time(
    one: Checked, loader: DataLoader[Any], rate: float | None, eats: Eats | None, notes: list[str], *, first: bool
) -> tuple[Checked, list[Issue]]:
    """Look at workers, at what reading does to samples, and of the first loader at memory and pace."""
    issues = [*check_workers(loader, notes.append), *samples_mutated(loader, notes.append)]
    if not first:
        return one, issues
    wanted, by = (rate, "--target-rate") if rate is not None or eats is None else eats(loader)
    grown, growing = memory_growth(loader, notes.append)
    pace, slow = paced(loader, wanted=wanted, wanted_by=by if wanted is not None else "", say=notes.append)
    return replace(one, facts=replace(one.facts, pace=pace, memory_per_epoch=grown)), [*issues, *growing, *slow]


def _once(issues: Sequence[Issue]) -> Iterator[Issue]:
    """Leave out what two ways of looking both have found."""
    seen: set[str] = set()
    for issue in issues:
        if issue.code not in seen:
            seen.add(issue.code)
            yield issue


def _of(name: str, issue: Issue) -> Issue:
    """Say whose fault it is, where there are several loaders."""
    if not name:
        return issue
    items = tuple(replace(item, paths=tuple(f"{name}: {path}" for path in item.paths)) for item in issue.items)
    return replace(issue, items=items)


def _split(name: str, one: Checked) -> SplitFacts:
    names = one.classes or ()
    classes = [ClassCount(names[label] if 0 <= label < len(names) else str(label), label, count) for label, count in one.counts]
    read = one.facts.read
    return SplitFacts(name, one.facts.name, read, read, 0, tuple(classes), (), (), None, None, None, None)
