"""A Dataset or a DataLoader, looked at for one epoch or a bounded part of it: its samples, its batches, their numbers, its labels."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import default_collate

from netlens.data.issues import Issue, Item
from netlens.loaders import batches
from netlens.loaders.batches import Ending, patient, read_batches
from netlens.loaders.facts import LoaderFacts
from netlens.loaders.labels import Labels
from netlens.loaders.samples import Singles, label_of, parts_of, read_singly, told
from netlens.loaders.source import Source, left_as_found, source_of
from netlens.loaders.values import Stats, fields_of
from netlens.loaders.verdicts import batch_failed, duplicates, epoch_issues, label_issues, must_stack, sample_issues, value_issues
from netlens.loading.samples import is_batch, is_sample
from netlens.loading.words import one_line
from netlens.probing.untouched import seeded
from netlens.wording import counted

MOST = 10_000  # samples that are read where nobody says how many
SECONDS = 40.0  # for their batches
SHOWN = 36  # samples that are kept for a picture
_PLACE = "batch {}, row {}"


@dataclass(frozen=True)
class Shown:
    """Some samples as the network gets them."""

    pictures: np.ndarray  # (n, C, H, W) float32; of films the first frame; n = 0 where there are none
    labels: tuple[str, ...]  # n names or numbers; "" where a sample has none
    places: tuple[str, ...]  # "sample 17"


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


@dataclass
class _Seen:
    """What the batches of one reading have shown."""

    labels: Labels
    fields: dict[str, Stats] = field(default_factory=dict)
    sizes: list[int] = field(default_factory=list)
    pictures: list[Tensor] = field(default_factory=list)
    names: list[tuple[str, str]] = field(default_factory=list)  # label and place of each of these pictures

    @property
    def read(self) -> int:
        """Samples."""
        return sum(self.sizes)

    @property
    def picture(self) -> Stats | None:
        """The part that is the picture: the first with three channels, or else the first with one or four."""
        found = [stats for name, stats in self.fields.items() if stats.channel_axis is not None and not _is_part(name, self.labels.name)]
        return min(found, key=lambda stats: stats.shape[stats.channel_axis or 0] != 3, default=None)


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

    def _fresh(self) -> _Seen:
        return _Seen(Labels(self.count, self.said))

    def _prepare(self, singles: Singles) -> None:
        """Leave out what raises, and do not stack what cannot be: then the rest can be seen."""
        if self.source.drawn is not None:
            self.source.drawn.left_out = set(singles.raised)
        ragged = self.source.kind != "DataLoader" and self.source.stacks and bool(singles.differing)
        if must_stack(self.source, singles) or (ragged and not any("None" in forms for forms in singles.differing.values())):
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

        return read_batches(source, self._take, enough)

    def _take(self, index: int, batch: Any) -> None:
        if not self.source.collates and is_sample(batch) and not is_batch(batch):
            batch = in_lists([batch])
        fields = fields_of(batch)
        rows = [sum(len(tensor) for tensor in tensors) for tensors in fields.values()]
        size = rows[0] if rows else max((len(part) for part in parts_of(batch).values() if isinstance(part, (list, tuple))), default=1)
        places = self._places(index, size)
        seen = self.seen
        seen.labels.name, label = label_of(batch)
        seen.labels.add(label, places)
        for (name, tensors), count in zip(fields.items(), rows, strict=True):
            stats = seen.fields.setdefault(name, Stats.of(name, tensors[0]))
            names = places if count == size else self._places(index, count)
            for tensor in tensors:
                here, names = names[: len(tensor)], names[len(tensor) :]
                stats.add(tensor, here)
        self._keep(fields, label, places)
        seen.sizes.append(size)
        self.step()

    def _places(self, index: int, size: int) -> list[str]:
        keys = self.source.keys_of(index, size)
        return [_PLACE.format(index, row) for row in range(size)] if keys is None else [f"sample {key}" for key in keys]

    def _keep(self, fields: dict[str, list[Tensor]], label: Any, places: list[str]) -> None:
        """Keep pictures of one shape for the eye."""
        picture, seen = self.seen.picture, self.seen
        if picture is None or picture.name not in fields or len(seen.pictures) >= SHOWN:
            return
        several = isinstance(label, Tensor) and label.shape == (len(places),) and not label.is_floating_point()
        names = [self._named(one) for one in label.tolist()] if several else [""] * len(places)
        rows = [row for tensor in fields[picture.name] for row in tensor.movedim(picture.channel_axis or 1, 1)]
        for row, name, place in zip(rows, names, places, strict=False):
            row = row[:, 0] if row.dim() == 4 else row
            if len(seen.pictures) < SHOWN and (not seen.pictures or row.shape == seen.pictures[0].shape):
                seen.pictures.append(row.float().clone())
                seen.names.append((name, place))

    def _named(self, label: int) -> str:
        return self.names[label] if self.names and 0 <= label < len(self.names) else str(label)

    def _judge(self, singles: Singles, ending: Ending) -> None:
        seen, source = self.seen, self.source
        if ending.died:
            what = f"a worker process {ending.died}"
            self.issues.append(Issue("worker-dies", (Item((f"batch {ending.batches}",), what),), seen.read, what))
        elif ending.stuck:
            what = f"nothing came in {batches.PATIENCE:g} s"
            self.issues.append(Issue("loader-stuck", (Item((f"batch {ending.batches}",), what),), seen.read, what))
        elif ending.error is not None:
            self.issues.append(self._failed(ending.batches, ending.error))
        self.issues += value_issues(seen.fields.values(), seen.picture, seen.read)
        self.issues += label_issues(seen.labels, singles, source, self.names, seen.read)
        if ending.finished and not singles.raised:
            self.issues += epoch_issues(source, ending.batches, seen.sizes, seen.read)
        elif not (ending.finished or ending.stuck or ending.error):
            self.notes.append(f"{source.name}: {counted(seen.read, 'sample')} were read{f' of {source.length:,}' if source.length else ''}")
        repeated = source.repeats or (source.dataset is None and (not ending.finished or source.workers > 1))
        if seen.picture is not None and not repeated:
            self.issues += duplicates(seen.picture.keys, seen.read)

    def _failed(self, batch: int, error: BaseException) -> Issue:
        """Find the samples at which the batch failed."""
        keys = self.source.keys_of(batch) or []
        singles = read_singly(self.source, len(keys), self.step, keys)
        if singles.raised:
            return sample_issues(self.source, singles)[0]
        return batch_failed(self.source, error, batch, singles, self.seen.read)

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
        keys: dict[bytes, str] = {}
        for place, key in seen.picture.keys if seen.picture is not None else ():
            keys.setdefault(key, place)
        pictures = np.stack([row.numpy() for row in seen.pictures]) if seen.pictures else np.zeros((0, 3, 1, 1), np.float32)
        shown = Shown(pictures, tuple(name for name, _ in seen.names), tuple(place for _, place in seen.names))
        counts = tuple(sorted(seen.labels.counts.items()))
        return Checked(facts, tuple(self.issues), shown, counts, self.names, keys, tuple(self.notes))


def in_lists(samples: list[Any]) -> Any:
    """Make a batch of samples that cannot be stacked: of each part a tensor where that goes, else a list."""
    if any(not isinstance(sample, type(samples[0])) for sample in samples):
        return samples
    parts = [parts_of(sample) for sample in samples]
    columns = {name: [part.get(name) for part in parts] for name in parts[0]}
    batch = {name: _column(values) for name, values in columns.items()}
    return batch if "0" not in batch else tuple(batch.values())


def _column(values: list[Any]) -> Any:
    try:
        return default_collate(values)
    except (RuntimeError, TypeError, KeyError, ValueError):
        return values


def original(error: BaseException) -> str:
    """Return what a worker process raised, without the traceback that torch puts around it."""
    lines = str(error).splitlines()
    if "Original Traceback" not in str(error):
        return told(error)
    last = max(place for place, line in enumerate(lines) if line.startswith("  "))
    return one_line(" ".join(lines[last + 1 :])) or told(error)


def _is_part(name: str, whole: str) -> bool:
    return bool(whole) and re.match(rf"{re.escape(whole)}(\.|$)", name) is not None
