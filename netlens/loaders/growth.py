"""Memory over time: whether reading samples again and again takes more and more of it."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from itertools import islice, pairwise
from pathlib import Path
from time import perf_counter
from typing import Any

from torch.utils.data import DataLoader

from netlens.data.issues import Issue, Item
from netlens.loaders.aside import Say, attempted
from netlens.loaders.own import batches_of, first_indices, is_stream, own_loader
from netlens.loading.memory import size_text
from netlens.wording import counted

WARM_UP, PASSES = 2, 8  # over the same samples: caches fill, allocators settle; then each is measured
LEAST_PASSES = 4
PASS, LONG, LONGEST = 0.8, 10.0, 30.0  # seconds of a pass, of all of them, and until it is given up
MOST = 512  # samples of a pass
BATCH = 32  # samples, where the loader does not say
NOISE = 2**20  # bytes: 12 runs of healthy loaders of JPEG files grew by 0.11 MiB at most
LEAST = 1024  # bytes a sample: a million of them take 1 GiB
COPIED = 2**30  # bytes that all workers together would copy
DEEPEST = 4  # containers in containers in attributes of a data set


def memory_growth(loader: DataLoader[Any], say: Say = lambda _text: None) -> tuple[int | None, list[Issue]]:
    """Return the bytes that an epoch adds to a process, and whether that is a fault ("memory-growth").

    The same samples are read ten times, by one process: a cache of samples is full after the first time, so what still grows then is
    kept for nothing. Bytes are those of the process alone, not of files that it maps. None: it could not be measured.
    """
    measured = attempted(partial(_measured, loader), LONGEST, "whether memory grows was not tested", say)
    if measured is None:
        return None, []
    sizes, reads, copied = measured
    issues = _copied_by_workers(loader, copied)
    if len(sizes) <= LEAST_PASSES:
        if sizes:
            say("whether memory grows was not tested: reading samples takes too long, or this system does not tell")
        return None, issues
    a_sample = _growth(sizes) / reads
    if a_sample < LEAST:
        return 0, issues
    epoch = int(a_sample * _samples(loader, reads))
    item = Item(("every sample",), f"{size_text(int(a_sample))} are kept for each that is read, again when it is read again")
    measure = f"{size_text(epoch)} an epoch of {counted(_samples(loader, reads), 'sample')}"
    threshold = f"{size_text(NOISE)} in {counted(len(sizes) - 1, 'pass')}es over the same {counted(reads, 'sample')}"
    return epoch, [Issue("memory-growth", (item,), _samples(loader, reads), measure, threshold), *issues]


def _samples(loader: DataLoader[Any], otherwise: int) -> int:
    try:
        return len(loader.dataset)  # type: ignore[arg-type]
    except (TypeError, NotImplementedError):
        return otherwise


def _growth(sizes: list[int]) -> float:
    """Return the bytes of a pass, 0 where it is noise: growth goes on, in most passes and in both halves alike."""
    steps = [after - before for before, after in pairwise(sizes)]
    half = len(steps) // 2
    grown = sizes[-1] - sizes[0]
    steady = min(sum(steps[:half]), sum(steps[half:])) >= grown / 4 and sum(step > 0 for step in steps) > 0.7 * len(steps)
    return grown / len(steps) if grown >= NOISE and steady else 0.0


def _copied_by_workers(loader: DataLoader[Any], copied: int) -> list[Issue]:
    """Tell of Python objects that every worker copies by looking at them (pytorch/pytorch issue 13246), where that is much."""
    if copied * loader.num_workers < COPIED:
        return []
    item = Item(("each worker",), "lists and dicts of the data set are copied as they are looked at: keep them in arrays of numpy")
    measured = f"{size_text(copied)} in each of {loader.num_workers} workers"
    return [Issue("memory-growth", (item,), 1, measured, f"{size_text(COPIED)} altogether", latent=True)]


# --- In the fork


def _measured(loader: DataLoader[Any]) -> tuple[list[int], int, int]:
    """Return bytes after each pass, samples of a pass, and bytes that looking at all objects of the data set copies."""
    copied = _touched(loader) if loader.num_workers else 0
    try:
        return *_passes(loader, readable=False), copied
    except Exception:  # samples that raise, or do not fit together, are not our business
        return *_passes(own_loader(loader, workers=0, collate=_dropped), readable=True), copied


def _dropped(_samples: Any) -> None:
    return None


def _passes(loader: DataLoader[Any], *, readable: bool) -> tuple[list[int], int]:
    plan, batches, reads = _plan(loader, readable)
    sizes: list[int] = []
    begun = perf_counter()
    for place in range(WARM_UP + PASSES if reads else 0):
        _read(loader, plan, batches)
        _let_go()
        size = _kilobytes("/proc/self/status", ("RssAnon", "RssShmem"))
        if place >= WARM_UP - 1 and size is not None:
            sizes.append(size)
        if perf_counter() - begun > LONG:
            break
    return sizes, reads


def _let_go() -> None:
    """Give back to the system what is free, so that what is left is in use: glibc keeps tens of MiB of freed pictures."""
    gc.collect()
    with suppress(OSError, AttributeError, TypeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def _plan(loader: DataLoader[Any], readable: bool) -> tuple[list[list[Any]] | None, int, int]:
    """Return which samples a pass reads, in how many batches, and how many they are: as many as there is time for."""
    size = loader.batch_size or BATCH
    begun = perf_counter()
    if is_stream(loader):
        _read(loader, None, 1)
        batches = max(1, min(MOST // size, int(PASS / (perf_counter() - begun))))
        return None, batches, batches * size
    indices = first_indices(loader, MOST, readable=readable)
    begun = perf_counter()
    tried = indices[: min(4, size)]
    _read(loader, [tried] * bool(tried), 1)
    seconds = (perf_counter() - begun) / max(len(tried), 1)
    indices = indices[: max(len(tried), int(PASS / seconds))]
    plan = [indices[start : start + size] for start in range(0, len(indices), size)]
    return plan, len(plan), len(indices)


def _read(loader: DataLoader[Any], plan: list[list[Any]] | None, batches: int) -> None:
    for _ in islice(batches_of(own_loader(loader, workers=0, plan=plan)), batches):
        pass


def _kilobytes(path: str, names: tuple[str, ...]) -> int | None:
    """Return the sum of what a file of the kernel says, in bytes; None where there is none. RssAnon is not what a file maps."""
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return None
    found = [int(line.split()[1]) * 1024 for line in lines if line.partition(":")[0] in names]
    return sum(found) if found else None


def _touched(loader: DataLoader[Any]) -> int:
    """Look at every object that the data set holds, as an epoch would, and return by how much this fork parted from its parent."""
    before = _kilobytes("/proc/self/smaps_rollup", ("Private_Dirty",))
    for _ in _objects(getattr(loader.dataset, "__dict__", {}), 0):
        pass
    after = _kilobytes("/proc/self/smaps_rollup", ("Private_Dirty",))
    return 0 if before is None or after is None else max(0, after - before)


def _objects(value: Any, depth: int) -> Iterator[Any]:
    if depth > DEEPEST:
        return
    if isinstance(value, Mapping):
        value = value.values()
    elif not isinstance(value, (list, tuple)):
        yield from _objects(value.__dict__, depth + 1) if isinstance(getattr(value, "__dict__", None), dict) else ()
        return
    for child in value:
        yield child
        yield from _objects(child, depth + 1)
