"""The batches of a loader, exactly as training would get them; what hangs, or dies, ends the reading and not netlens."""

from __future__ import annotations

import multiprocessing
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import torch

from netlens.loaders.source import Source

PATIENCE = 60.0  # seconds for one batch, or for one sample: DataLoader has no limit of its own
_GRACE = 5.0  # seconds by which DataLoader's own timeout comes first, since it says more
_JOIN = 2.0  # seconds for a process to end that was told to


class Stuck(BaseException):
    """It took longer than anybody waits. No `Exception`, so that the user's own code does not catch it."""


@contextmanager
def patient() -> Iterator[None]:
    """Raise `Stuck` in the block when it takes longer than PATIENCE; only the main thread, and only POSIX, can be woken."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def ring(*_: object) -> None:
        raise Stuck

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE, 1.0)  # again each second: code that is being left may swallow the first
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@dataclass(frozen=True, slots=True)
class Ending:
    """How reading came to its end; where nothing is said, enough was read."""

    batches: int = 0  # that came
    finished: bool = False  # the loader had no more
    error: BaseException | None = None  # that ended it
    stuck: bool = False
    died: str = ""  # how a worker process ended: "was killed by SIGKILL"


class _Over(Exception):
    """The loader gives no more, for the reason that `ending` says."""

    def __init__(self, ending: Ending) -> None:
        super().__init__()
        self.ending = ending


def read_batches(source: Source, take: Callable[[int, Any], object], enough: Callable[[], bool]) -> Ending:
    """Read batches until there are no more, or enough.

    Args:
        source: is iterated over once.
        take: is given each batch with its number.
        enough: is asked before each.
    """
    before = set(multiprocessing.active_children())
    started: set[Any] = set()
    batches: Any = None
    count, ending = 0, Ending()
    source = _guarded(source)
    try:
        batches = _asked(lambda: iter(source.batches), started)
        started |= set(multiprocessing.active_children()) - before
        while not enough():
            take(count, _asked(batches.__next__, started))
            count += 1
    except _Over as over:
        ending = over.ending
    finally:
        _end(batches, started or set(multiprocessing.active_children()) - before, ending.stuck)
    return replace(ending, batches=count)


def _asked(call: Callable[[], Any], started: set[Any]) -> Any:
    """Run code of the user, or of its loader; whatever it does becomes an `_Over`, and an error of netlens does not."""
    try:
        with patient(), _quiet():
            return call()
    except StopIteration:
        raise _Over(Ending(finished=True)) from None
    except Stuck:
        raise _Over(Ending(stuck=True)) from None
    except (Exception, SystemExit) as error:
        raise _Over(_failed(error, started)) from error


def _guarded(source: Source) -> Source:
    """Let DataLoader itself give up waiting for its workers: that also works where no signal can wake.

    Workers are forked where that is safe: a module that netlens loaded from a file has a name that new processes do not know. Whether
    they can be started anew is another check's.
    """
    if not source.workers:
        return source
    source = source.changed(timeout=source.loader.timeout or max(PATIENCE - _GRACE, PATIENCE / 2))
    if sys.platform == "linux" and not torch.cuda.is_initialized():
        source.loader.multiprocessing_context = "fork"
    return source


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what DataLoader itself warns of: netlens tells it as findings."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"torch\.utils\.data\..*")
        warnings.filterwarnings("ignore", message=".*fork", category=DeprecationWarning)  # Python 3.12 dislikes it beside threads
        yield


def _failed(error: BaseException, started: set[Any]) -> Ending:
    if "DataLoader timed out" in str(error):
        return Ending(stuck=True)
    died = "DataLoader worker (pid" in str(error)
    return Ending(error=error, died=next(filter(None, map(_death, started)), "ended without a word") if died else "")


def _death(process: Any) -> str:
    process.join(0)
    code = process.exitcode
    if not code:
        return ""
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def _end(batches: Any, processes: set[Any], stuck: bool) -> None:
    """End the workers now, since a later fork of this process would hold their iterator; those that hang are not asked."""
    with suppress(RuntimeError, AttributeError):  # torch's handler of SIGCHLD tells that a worker was killed: it was us
        if not stuck:
            batches._shutdown_workers()
    for process in processes:
        with suppress(RuntimeError, ValueError):
            process.kill()
            process.join(_JOIN)
    with suppress(RuntimeError, AttributeError):
        batches._shutdown_workers()
