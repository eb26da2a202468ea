"""Running the user's code in a copy of this process: it may hang, crash, grow or change its objects, and none of that is left behind."""

from __future__ import annotations

import gc
import multiprocessing
import os
import random
import re
import signal
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar

import torch

from netlens.loading.words import cause, one_line

T = TypeVar("T")
LEAVING = 2.0  # seconds for a copy that is done, and for its workers, to end by themselves
DIED = "DataLoader "  # begins what torch says of workers that ended, or from which nothing comes
_PIDS = re.compile(r" \(pid(\(s\))? [\d, ]+\)")  # differ from run to run
_ADVICE = re.compile(r"\. (It is possible|Details are lost|Please try).*")  # of torch, to people who can change its source
Say = Callable[[str], object]  # is told, in a sentence, what could not be tested, and why


class Unfinished(Exception):
    """The copy gave no answer; the message says why: "took more than 30 s"."""


def aside(work: Callable[[], T], seconds: float) -> T:
    """Return what `work` returns in a fork of this process, with one thread, fixed seeds and silent output.

    Args:
        work: what it returns is pickled; it may start workers of its own.
        seconds: then the fork is killed, with all its workers.

    Raises:
        Unfinished: it took longer, ended, or raised; or this system cannot fork.
    """
    if "fork" not in multiprocessing.get_all_start_methods():
        raise Unfinished("this system cannot copy a process")
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(work, sender))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12: there may be threads, as when torch forks
            process.start()
    except OSError as error:
        raise Unfinished(f"a copy of this process cannot be made: {error.strerror}") from error
    sender.close()
    try:
        done, answer = _received(receiver, process, monotonic() + seconds, seconds)
        process.join(LEAVING)
    finally:
        _end(process)
        receiver.close()
    if not done:
        raise Unfinished(answer)
    found: T = answer
    return found


def attempted(work: Callable[[], T], seconds: float, what: str, say: Say) -> T | None:
    """Return what `work` returns in a fork; None where it gave no answer, which `say` is told: "{what}: took more than 30 s"."""
    try:
        return aside(work, seconds)
    except Unfinished as error:
        say(f"{what}: {error}")
        return None


def _received(receiver: Connection, process: Any, until: float, seconds: float) -> tuple[bool, Any]:
    while not receiver.poll(0.05):  # its end is not seen in the pipe while a worker of it holds the other side
        if process.exitcode is not None and not receiver.poll():
            raise Unfinished(f"the process {ended(process.exitcode)}")
        if monotonic() > until:
            raise Unfinished(f"took more than {seconds:g} s")
    try:
        found: tuple[bool, Any] = receiver.recv()
    except EOFError:
        process.join(LEAVING)
        raise Unfinished(f"the process {ended(process.exitcode)}") from None
    return found


def ended(exit_code: int | None) -> str:
    """Say how a process ended: "was killed by SIGKILL"."""
    if exit_code is not None and exit_code < 0:
        return f"was killed by {signal.Signals(-exit_code).name}"
    return f"ended, with exit code {exit_code}"


def _end(process: Any) -> None:
    with suppress(ProcessLookupError, PermissionError):  # it has not made its group yet, or is gone with all workers
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.join()


def _answer(work: Callable[[], Any], sender: Connection) -> None:
    """Be the copy. A group of its own makes its workers go with it, and keeps Ctrl-C for the first process."""
    os.setsid()
    sys.stdout = sys.stderr = nowhere = Path(os.devnull).open("w")  # noqa: SIM115
    os.dup2(nowhere.fileno(), 1)
    os.dup2(nowhere.fileno(), 2)
    torch.set_num_threads(1)  # as in torch's workers: a fork that has lost its threads would wait for them
    gc.freeze()  # what was there before is none of the garbage here: going through it would copy it
    seed(0)
    try:
        answer = (True, work())
    except BaseException as error:
        answer = (False, reason(error))
    sender.send(answer)


def reason(error: BaseException) -> str:
    """Return in one line what an exception says; of one in a worker, the last line of its traceback."""
    text = str(error)
    if "Original Traceback" in text:
        return one_line(text.strip().splitlines()[-1])
    if text.startswith(DIED):
        return _ADVICE.sub("", _PIDS.sub("", one_line(text))).strip().removesuffix(".")
    return cause(error)


def seed(number: int) -> None:
    """Seed the generators that torch seeds in its workers: Python's, numpy's and its own."""
    import numpy as np

    random.seed(number)
    np.random.seed(number)
    torch.manual_seed(number)
