"""Worker processes: whether a loader works with them at all, draws other random numbers in each, and gives each sample once."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from functools import partial
from itertools import islice
from multiprocessing.context import set_spawning_popen
from multiprocessing.reduction import ForkingPickler
from multiprocessing.synchronize import SemLock
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from netlens.data.issues import Issue, Item
from netlens.loaders.aside import DIED, Say, attempted, ended, reason
from netlens.loaders.own import batches_of, own_loader
from netlens.loaders.seeds import worker_seeds
from netlens.loaders.shards import worker_duplicates

WORKERS = 2
NEW = "new processes (macOS, Windows, Python 3.14)"
BATCHES = 2  # that are read: one of each worker
STUCK = 30.0  # seconds for a batch of workers, where one process needs less than a quarter of it
LONGEST = 120.0
_HELD: list[Any] = []  # what would wait for a stuck worker if it were let go


def check_workers(loader: DataLoader[Any], say: Say = lambda _text: None) -> list[Issue]:
    """Return what is wrong with a loader as soon as it has workers; the loader and its data stay as they are.

    Args:
        loader: the user's; faults that need more workers than it has are latent.
        say: is told what could not be tested, and why.
    """
    failed = workers_fail(loader, say)
    if any(item.paths != (NEW,) for issue in failed for item in issue.items):
        return failed  # without workers there is nothing else to see
    return [*failed, *worker_seeds(loader, say), *worker_duplicates(loader, say)]


def workers_fail(loader: DataLoader[Any], say: Say = lambda _text: None) -> list[Issue]:
    """Tell whether a loader that works in one process fails in workers ("workers-fail").

    Two are tried as forks, as Linux starts them up to Python 3.13. Whether all could be sent to new processes, as everywhere else, is tried
    for loaders that have workers; where this Python forks, that is latent.
    """
    found = attempted(partial(_tried, loader), LONGEST, "whether the loader works with workers was not tested", say)
    if not found:
        return []
    where, why = found
    if loader.num_workers and why.startswith(DIED):
        return []  # reading the loader itself tells it
    forked = where != NEW
    latent = loader.num_workers == 0 if forked else not _starts_new(loader)
    return [Issue("workers-fail", (Item((where,), why),), 1, "it works in one process", latent=latent)]


def _tried(loader: DataLoader[Any]) -> tuple[str, str] | None:
    """Return where it fails, and why; None where it works in workers, or not even without them."""
    mine = own_loader(loader, workers=WORKERS, timeout=STUCK)
    mine.prefetch_factor = 1  # no more than what is looked at
    if why := _raised(lambda: _read(mine)):
        begun = perf_counter()
        alone = _raised(lambda: _read(own_loader(loader, workers=0)))
        return None if alone or perf_counter() - begun > STUCK / 4 else (f"{WORKERS} workers", why)
    if loader.num_workers and (why := _raised(lambda: _sent(loader))):
        return NEW, why
    return None


def _read(loader: DataLoader[Any]) -> None:
    batches = batches_of(loader)
    try:
        for _ in islice(batches, BATCHES):
            pass
    except RuntimeError as error:
        _HELD.append(batches)
        code = next((worker.exitcode for worker in getattr(batches, "_workers", ()) if worker.exitcode), None)
        if code is None or not str(error).startswith(DIED):
            raise
        raise RuntimeError(f"{DIED}worker {ended(code)}") from error


def _raised(work: Callable[[], None]) -> str:
    try:
        work()
    except Exception as error:
        return reason(error)
    return ""


def _starts_new(loader: DataLoader[Any]) -> bool:
    """Tell whether training would start new processes for workers here, and not forks."""
    context = loader.multiprocessing_context
    method = context.get_start_method() if context is not None else multiprocessing.get_start_method(allow_none=True)
    return (method or multiprocessing.get_all_start_methods()[0]) != "fork"


# Values of which there may be many GiB; and locks, which would be of the right kind where new processes are started.
_SENT = (torch.Tensor, torch.UntypedStorage, np.ndarray, SemLock)


class _Nowhere:
    """Where a pickle goes that nobody wants."""

    def write(self, content: bytes) -> int:
        return len(content)


class _Pickler(ForkingPickler):
    """Pickles as `multiprocessing` does, and leaves out what can always be sent."""

    def reducer_override(self, found: Any) -> Any:
        return (int, ()) if isinstance(found, _SENT) else NotImplemented


class _Starting:
    """A process that seems to be starting, so that locks and queues let themselves be sent."""

    DupFd = duplicate_for_child = staticmethod(lambda descriptor: descriptor)


def _sent(loader: DataLoader[Any]) -> None:
    set_spawning_popen(_Starting())  # type: ignore[arg-type]
    try:
        _Pickler(_Nowhere()).dump((loader.dataset, loader.collate_fn, loader.worker_init_fn))
    finally:
        set_spawning_popen(None)
