"""A Dataset or a DataLoader, looked at for one epoch or a bounded part of it: its samples, its batches, their numbers, its labels."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from typing import Any

from netlens.data.issues import Issue, Item
from netlens.loaders import batches
from netlens.loaders.batches import Ending, patient, read_batches
from netlens.loaders.collating import in_lists
from netlens.loaders.facts import LoaderFacts
from netlens.loaders.labels import Labels
from netlens.loaders.samples import Singles, read_singly, told
from netlens.loaders.seen import Seen, Shown
from netlens.loaders.source import Source, left_as_found, source_of
from netlens.loaders.verdicts import batch_failed, duplicates, epoch_issues, label_issues, must_stack, sample_issues, value_issues
from netlens.loading.words import one_line
from netlens.probing.untouched import seeded
from netlens.wording import counted

MOST = 10_000  # samples that are read where nobody says how many
SECONDS = 40.0  # for their batches


@dataclass(frozen=True)
class Checked:
    """What was seen of one loader."""

    facts: LoaderFacts  # without pace and memory
    issues: tuple[Issue, ...]
    shown: Shown
    counts: tuple[tuple[int, int], ...]  # label, and how many samples have it
    classes: tuple[str, ...] | None  # their names, where they are known
    keys: dict[bytes, str]  # digests of the pictures that were read, and where each was
    notes: tuple[str, ...] = ()


def check_loader(
    found: Any,
    name: str,
    *,
    classes: int | Sequence[str] | None = None,
    samples: int | None = None,
    step: Callable[[], object] = lambda: None,
) -> Checked:
    """Read what a Dataset, a DataLoader or an iterable gives, and tell what is wrong with it.

    The object itself is not changed; the states of all random number generators are put back.

    Args:
        found: what the user named, called where it is a function or a class.
        name: how messages and the place of samples call it; one like "val" may be in order.
        classes: how many there are, or their names; None: as the data set says.
        samples: at most so many; None: all, but not more than MOST or what comes in a minute.
        step: is called after each sample and each batch.

    Raises:
        InputError: it holds no samples.
    """
    with seeded(0), redirect_stdout(sys.stderr):  # what the user's code prints stays off the report's stdout
        with patient():
            source = source_of(found, name)
        with left_as_found(source):
            return _Check(source, classes, samples, step).run()


def leaks(a: Checked, b: Checked) -> list[Issue]:
    """Tell which pictures two loaders share, as the network gets them: augmentation hides them."""
    both = [key for key in b.keys if key in a.keys]
    items = [Item((f"{a.facts.name}: {a.keys[key]}", f"{b.facts.name}: {b.keys[key]}")) for key in both]
    measured = f"{len(both):,} of {len(b.keys):,} pictures of {b.facts.name} are in {a.facts.name} as well"
    return [Issue("leak-exact", tuple(items), len(b.keys), measured)] if items else []


class _Check:
    """One reading of one source."""

    def __init__(self, source: Source, classes: int | Sequence[str] | None, samples: int | None, step: Callable[[], object]) -> None:
        self.source, self.step, self.samples = source, step, samples
        self.names = source.classes if classes is None else None if isinstance(classes, int) else tuple(classes)
        self.count = classes if isinstance(classes, int) else len(self.names) if self.names else None
        self.said = classes is not None
        self.most = MOST if samples is None else samples
        self.seen = self._fresh()
        self.issues: list[Issue] = []
        self.notes: list[str] = []

    def run(self) -> Checked:
        singles = read_singly(self.source, self.most, self.step)
        self.issues = sample_issues(self.source, singles)
        if singles.stuck is None and (len(singles.raised) < singles.read or not singles.read):
            self._prepare(singles)
            ending = self._read_all()
            self._judge(singles, ending)
        return self._checked()

    def _fresh(self) -> Seen:
        return Seen(self.source, Labels(self.count, self.said), self.names)

    def _prepare(self, singles: Singles) -> None:
        """Leave out what raises, and do not stack what cannot be: then the rest can be seen."""
        if self.source.drawn is not None:
            self.source.drawn.left_out = set(singles.raised)
        if must_stack(self.source, singles):
            self.source = self.source.changed(collate_fn=in_lists)

    def _read_all(self) -> Ending:
        """Read the batches; where workers fail, read them in this process, which says what they fail at."""
        ending = self._read(self.source)
        if ending.error is None or ending.died or not self.source.workers:
            return ending
        first, self.seen = ending.error, self._fresh()
        ending = self._read(self.source.changed(num_workers=0))
        if ending.error is None:
            self.issues.append(Issue("workers-fail", (Item((self.source.name,), original(first)),), self.seen.read, original(first)))
        return ending

    def _read(self, source: Source) -> Ending:
        until = time.monotonic() + SECONDS

        def enough() -> bool:
            return self.seen.read >= self.most or (self.samples is None and time.monotonic() > until)

        def take(index: int, batch: Any) -> None:
            self.seen.take(index, batch)
            self.step()

        return read_batches(source, take, enough)

    def _judge(self, singles: Singles, ending: Ending) -> None:
        seen, source = self.seen, self.source
        if ending.died:
            what = f"a worker process {ending.died}"
            self.issues.append(Issue("worker-dies", (Item((f"batch {ending.batches}",), what),), seen.read, what))
        elif ending.stuck:
            what = f"nothing came in {batches.PATIENCE:g} s"
            self.issues.append(Issue("loader-stuck", (Item((f"batch {ending.batches}",), what),), seen.read, what))
        elif ending.error is not None:
            self._add(self._failed(ending.batches, ending.error))
        self.issues += value_issues(seen.fields.values(), seen.picture, seen.read)
        self.issues += label_issues(seen.labels, singles, source, self.names)
        if ending.finished and not singles.raised:
            self.issues += epoch_issues(source, ending.batches, seen.sizes, seen.read)
        elif not (ending.finished or ending.stuck or ending.error):
            self.notes.append(f"{source.name}: {counted(seen.read, 'sample')} were read{f' of {source.length:,}' if source.length else ''}")
        repeated = source.repeats or (source.dataset is None and (not ending.finished or source.workers > 1))
        if seen.picture is not None and not repeated:
            self.issues += duplicates(seen.picture.keys, seen.read)

    def _add(self, issue: Issue) -> None:
        """Add an issue to one of the same code, where there is one: more samples that raise."""
        same = next((one for one in self.issues if one.code == issue.code), None)
        if same is None:
            self.issues.append(issue)
        elif new := [item for item in issue.items if item not in same.items]:
            items, total = (*same.items, *new), same.total + issue.total
            self.issues[self.issues.index(same)] = replace(same, items=items, total=total, measured=f"{len(items):,} of {total:,}")

    def _failed(self, batch: int, error: BaseException) -> Issue:
        """Find the samples at which the batch failed."""
        keys = self.source.keys_of(batch) or []
        singles = read_singly(self.source, len(keys), self.step, keys)
        if singles.raised:
            return sample_issues(self.source, singles)[0]
        return batch_failed(error, batch, singles, self.seen.read)

    def _checked(self) -> Checked:
        seen, source = self.seen, self.source
        facts = LoaderFacts(
            name=source.name,
            kind=source.kind,
            samples=source.length,
            read=seen.read,
            batches=len(seen.sizes),
            batch_size=source.batch_size,
            fields=tuple(stats.facts() for stats in seen.fields.values()),
            pace=None,
            memory_per_epoch=None,
        )
        counts = tuple(sorted(seen.labels.counts.items()))
        return Checked(facts, tuple(self.issues), seen.shown(), counts, self.names, seen.keys(), tuple(self.notes))


def original(error: BaseException) -> str:
    """Return what a worker process raised, without the traceback that torch puts around it."""
    lines = str(error).splitlines()
    if "Original Traceback" not in str(error):
        return told(error)
    last = max(place for place, line in enumerate(lines) if line.startswith("  "))
    return one_line(" ".join(lines[last + 1 :])) or told(error)
