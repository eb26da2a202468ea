"""Streams in workers: whether each worker gives its share, or all of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from time import monotonic
from typing import Any

from torch.utils.data import DataLoader, get_worker_info

from netlens.data.issues import Issue, Item
from netlens.loaders.aside import Say, attempted
from netlens.loaders.digests import digests
from netlens.loaders.own import batches_of, is_stream, own_loader
from netlens.wording import counted

WORKERS = 2
MOST = 2000  # samples of one worker
LONG = 10.0  # seconds for the stream in one process, and again in workers
STUCK = 20.0  # seconds for a batch
ENOUGH = 4  # different samples from which equal beginnings are no chance

Stream = list[tuple[bytes, ...]]  # of each sample the digest, and those of its parts


def worker_duplicates(loader: DataLoader[Any], say: Say = lambda _text: None) -> list[Issue]:
    """Tell whether a stream gives every sample once for each worker ("worker-duplicates"); latent where the loader has one worker or none.

    A stream that ends gives twice as many samples with two workers, and both give the same samples, or the same of a part that no
    augmentation changes: labels. Of one that does not end both workers begin alike.
    """
    if not is_stream(loader):
        return []
    found = attempted(partial(_read, loader), 2 * LONG + STUCK, "whether workers repeat each other's samples was not tested", say)
    if found is None:
        return []
    alone, ended, by_worker, all_ended = found
    count = sum(map(len, by_worker))
    if ended and all_ended:
        repeated = bool(alone) and count == WORKERS * len(alone) and _same_parts(by_worker)
        measured = f"{counted(len(alone), 'sample')} from one process, {count:,} from {WORKERS} workers"
    else:
        length = min(map(len, by_worker))
        first, second = (tuple(sample[0] for sample in stream[:length]) for stream in by_worker)
        repeated = first == second and len(set(first)) >= ENOUGH
        measured = f"the first {counted(length, 'sample')} of {WORKERS} workers are the same"
    if not repeated:
        return []
    item = Item((f"with {WORKERS} workers",), "both give all samples: nothing in the data set asks which worker it is in")
    return [Issue("worker-duplicates", (item,), count, measured, "each sample once", latent=loader.num_workers < 2)]


def _read(loader: DataLoader[Any]) -> tuple[Stream, bool, list[Stream], bool]:
    """Return the samples of one process, and of each worker, and whether these were all."""
    alone, ended = _collected(loader, 0)
    streams, all_ended = _collected(loader, WORKERS)
    return alone.get(0, []), ended, [streams.get(worker, []) for worker in range(WORKERS)], all_ended


def _collected(loader: DataLoader[Any], workers: int) -> tuple[dict[int, Stream], bool]:
    found: dict[int, Stream] = {}
    until = monotonic() + LONG
    for worker, samples in batches_of(own_loader(loader, workers=workers, collate=_told, timeout=STUCK)):
        found.setdefault(worker, []).extend(samples)
        if monotonic() > until or sum(map(len, found.values())) > MOST * max(workers, 1):
            return found, False
    return found, True


def _told(samples: Any) -> tuple[int, Stream]:
    """Take the place of `collate_fn`, which gets a list of samples, or what the stream gives where that makes the batches."""
    worker = get_worker_info()
    return 0 if worker is None else worker.id, [digests(sample) for sample in (samples if isinstance(samples, list) else [samples])]


def _same_parts(streams: list[Stream]) -> bool:
    """Tell whether the workers gave the same samples, or the same of one of their parts, in whatever order."""
    return any(len(first) > 1 and first == second for first, second in zip(*map(_columns, streams), strict=False))


def _columns(stream: Stream) -> Iterator[Counter[bytes]]:
    return map(Counter, zip(*stream, strict=False))
