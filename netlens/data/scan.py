"""Every file is looked at once, by as many processes as there are CPUs, and the result does not tell how many there were."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock, Thread
from time import monotonic

import numpy as np

from netlens.data.cache import Cache
from netlens.data.listing import Listing, Paths
from netlens.data.look import look
from netlens.data.records import BITS, RECORD
from netlens.data.workers import Look, Looked, Worker, WorkerEnded, keep_freed_memory, looked_at, usable_cpus
from netlens.errors import FileProblem

SLOWEST = 60.0  # seconds for a file: 100 times what the largest picture that is decoded at all takes
FILES_EACH = 200  # files that are worth a worker: it takes 70 ms to start, and a file about 0.7 ms
CHUNK_SECONDS = 0.1  # of work in one question to a worker: Ctrl-C loses no more, and asking costs less than 1 % of it
MOST_FILES = 256  # in one question
TOLD = 0.1  # seconds between two reports of progress


@dataclass(frozen=True)
class Scanned:
    """What was seen of the files rank, rank + size, ... of a listing: all of them, or after Ctrl-C the first ones."""

    records: np.ndarray  # (M,) RECORD
    indices: np.ndarray  # (M,) int64, places in the listing
    details: dict[int, str]  # by place in the listing: more about the first bad flag
    interrupted: bool = False
    notes: tuple[str, ...] = ()  # what went wrong on the way and changed no result


def scan(
    listing: Listing,
    *,
    rank: int = 0,
    size: int = 1,
    workers: int | None = None,
    cache: Path | None = None,
    seen: Callable[[int], object] = lambda files: None,
    look: Look = look,
    limit: float = SLOWEST,
) -> Scanned:
    """Look at the files rank, rank + size, ... of a listing; the result is the same for any number of workers.

    The first Ctrl-C ends it, with what was seen until then.

    Args:
        workers: processes that look. None: one for each CPU that this process may use, as far as there are files for them. 1: this process
            alone, which a decoder that crashes or hangs takes along; with more, that costs its file, and a few seconds.
        cache: a file that remembers rows from run to run. Each of several ranks has its own beside it, "FILE.0of4".
        seen: called with the number of files newly finished.
        look: for workers, a function that can be imported by its name.
        limit: seconds that a worker gets for one file.

    Raises:
        FileProblem: the cache cannot be used.
        NetlensError: a worker cannot be started.
    """
    keep_freed_memory()
    share = _Share(listing.paths, np.arange(rank, len(listing), size, dtype=np.int64))
    memory = Cache(cache if size == 1 else cache.with_name(f"{cache.name}.{rank}of{size}")) if cache else None
    interrupted = False
    try:
        if memory:
            _recall(share, memory, seen)
        _finish(share, look, workers, limit, seen)
    except KeyboardInterrupt:
        interrupted = True
    return share.result(interrupted, _remember(share, memory) if memory else ())


class _Share:
    """The files of one process, and what is known of them. Places are places in this share."""

    def __init__(self, paths: Paths, indices: np.ndarray) -> None:
        self.indices = indices
        self.records = np.zeros(len(indices), RECORD)
        self.details: dict[int, str] = {}
        self.done = np.zeros(len(indices), bool)
        self.doubtful: list[int] = []  # another run, on another machine, may see more of these
        self._paths = paths

    def path(self, place: int) -> str:
        return self._paths[int(self.indices[place])]

    def keep(self, places: np.ndarray, looked: Looked) -> None:
        rows, details = looked
        self.records[places] = rows
        self.details.update((int(places[row]), detail) for row, detail in details.items())
        self.done[places] = True

    def result(self, interrupted: bool, notes: tuple[str, ...]) -> Scanned:
        seen = len(self.done) if self.done.all() else int(self.done.argmin())
        details = {int(self.indices[place]): detail for place, detail in sorted(self.details.items()) if place < seen}
        return Scanned(self.records[:seen], self.indices[:seen], details, interrupted, notes)


def _recall(share: _Share, memory: Cache, seen: Callable[[int], object]) -> None:
    for places, rows, details in memory.recalled(share.path(place) for place in range(len(share.indices))):
        share.keep(places, (rows, details))
        seen(len(places))


def _remember(share: _Share, memory: Cache) -> tuple[str, ...]:
    done = share.done.copy()
    done[share.doubtful] = False
    try:
        memory.remember(share.records, share.details, done)
    except FileProblem as problem:  # hours of looking are worth more than what would have been remembered of them
        return (problem.message,)
    return ()


def _finish(share: _Share, look: Look, workers: int | None, limit: float, seen: Callable[[int], object]) -> None:
    todo = np.flatnonzero(~share.done)
    ours = usable_cpus() // int(os.environ.get("LOCAL_WORLD_SIZE", 1))  # torchrun's: ranks that share this machine
    number = min(ours, len(todo) // FILES_EACH) if workers is None else min(workers, len(todo))
    if number > 1:
        _Crew(share, todo, [Worker(look, limit) for _ in range(number)]).run(seen)
        return
    for place in range(len(todo)):
        share.keep(todo[place : place + 1], looked_at(look, [share.path(todo[place])]))
        seen(1)


class _Crew:
    """Several workers, and for each of them a thread that asks it."""

    def __init__(self, share: _Share, todo: np.ndarray, workers: list[Worker]) -> None:
        self._share = share
        self._todo = todo
        self._workers = workers
        self._stopped = False
        self._next = 0
        self._lock = Lock()
        self._errors: list[BaseException] = []

    def run(self, seen: Callable[[int], object]) -> None:
        """Look at all files; whatever is raised, no worker is left."""
        threads = [Thread(target=self._tend, args=(worker,), daemon=True) for worker in self._workers]
        told = int(self._share.done.sum())
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                while thread.is_alive():
                    thread.join(TOLD)
                    done = int(np.count_nonzero(self._share.done))
                    if done > told:
                        seen(done - told)
                    told = done
        finally:
            self._stop()
            for thread in threads:
                if thread.ident:
                    thread.join()
        for error in self._errors:
            raise error

    def _stop(self) -> None:
        self._stopped = True
        for worker in self._workers:
            worker.stop()

    def _tend(self, worker: Worker) -> None:
        files = 1
        try:
            while len(places := self._taken(files)):
                begun = monotonic()
                self._ask(worker, places)
                each = (monotonic() - begun) / len(places)
                files = max(1, min(MOST_FILES, 2 * files, int(CHUNK_SECONDS / each)))
        except BaseException as error:
            if not self._stopped:
                self._errors.append(error)
                self._stop()
        finally:
            worker.close()

    def _taken(self, files: int) -> np.ndarray:
        with self._lock:
            places = self._todo[self._next : self._next + files]
            self._next += len(places)
        return places[:0] if self._stopped else places

    def _ask(self, worker: Worker, places: np.ndarray, *, again: bool = False) -> None:
        """Look at files; where that ends the worker, at each by itself, which finds out the one that did it."""
        try:
            looked = worker.looked_at([self._share.path(place) for place in places])
        except WorkerEnded as ended:
            if self._stopped:
                raise
            if not again:
                for place in range(len(places)):
                    self._ask(worker, places[place : place + 1], again=True)
                return
            looked = _undecodable(self._share.path(places[0])), {0: str(ended)}
            self._share.doubtful.append(int(places[0]))
        self._share.keep(places, looked)


def _undecodable(path: str) -> np.ndarray:
    row = np.zeros(1, RECORD)
    row["flags"] = BITS["picture-undecodable"]
    with suppress(OSError):
        row["bytes"] = Path(path).stat().st_size
    return row
