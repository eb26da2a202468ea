"""Processes that look at files for another one: a crash or a hang of a decoder ends one of them, and not the run.

They are new interpreters, neither forks nor `multiprocessing`: they never run the user's script again, they hold numpy and Pillow and
nothing else, and it does not matter how many threads, and how much of torch, the process has that starts them. Questions (paths) go through
a worker's stdin, answers (rows) come from its stdout. When its stdin ends, for whatever reason, the worker ends.
"""

from __future__ import annotations

import faulthandler
import gc
import json
import os
import signal
import struct
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen
from threading import Lock
from time import monotonic
from traceback import format_exc
from typing import IO, Any

import numpy as np

from netlens.data.records import RECORD
from netlens.errors import NetlensError

Look = Callable[[str], tuple[Any, str]]  # a path -> a row of RECORD, and words
Looked = tuple[np.ndarray, dict[int, str]]  # rows of RECORD, and words by row

QUOTA = Path("/sys/fs/cgroup/cpu.max")  # of a container: "150000 100000" are one and a half CPUs, "max 100000" is no quota
_BOOT = "import sys; sys.path[:] = sys.argv[3:]; from netlens.data.workers import serve; serve(*sys.argv[1:3])"
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
_KEPT = 8 << 20  # bytes
_SIZES = struct.Struct("<QQ")  # bytes of rows and of JSON that follow


class WorkerEnded(Exception):
    """A worker ended before it answered; the message says why, as far as can be told."""


def usable_cpus() -> int:
    """Return how many CPUs this process may use: by its affinity, and by the quota of its container."""
    ours = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError):
        quota, period = map(int, QUOTA.read_text().split())
        ours = min(ours, max(1, -(-quota // period)))
    return ours


def keep_freed_memory() -> None:
    """Let glibc keep what a picture leaves for the next one: asking the system anew costs 20 microseconds a file.

    It keeps twice as much as the largest block that was freed so far. This one is freed at once, and never touched.
    """
    bytes(_KEPT)


def looked_at(look: Look, paths: Sequence[str]) -> Looked:
    """Look at files in this process."""
    rows = np.empty(len(paths), RECORD)
    details = {}
    for place, path in enumerate(paths):
        rows[place : place + 1], detail = look(path)
        if detail:
            details[place] = detail
        gc.collect(0)  # pictures that are held by themselves would wait by the dozen; 10 microseconds
    return rows, details


class Worker:
    """Looks at files in another process, which starts with the first question, and anew with the next one after it ended.

    Args:
        look: a function that can be imported by its module and name.
        limit: seconds for one question; a worker that takes longer ends itself.
    """

    def __init__(self, look: Look, limit: float) -> None:
        self._limit = limit
        self._command = [sys.executable, "-c", _BOOT, f"{look.__module__}:{look.__qualname__}", str(limit), *sys.path]
        self._process: Popen[bytes] | None = None
        self._stopped = False
        self._lock = Lock()

    def looked_at(self, paths: Sequence[str]) -> Looked:
        """Look at files.

        Raises:
            WorkerEnded: it crashed, it took too long, or `stop` was called. The next question starts it anew, but for `stop`.
            NetlensError: it cannot be started.
        """
        process = self._process or self._started()
        begun = monotonic()
        try:
            _send(_pipe(process.stdin), b"", list(paths))
            rows, told = _received(_pipe(process.stdout))
        except (OSError, EOFError):
            raise WorkerEnded(self._cause(self._end(process), monotonic() - begun)) from None
        if isinstance(told, str):
            raise RuntimeError(told)  # a bug in netlens, with its traceback over there
        return np.frombuffer(rows, RECORD), dict(told)

    def stop(self) -> None:
        """End it for good, at once, whatever it does. This alone may be called from another thread."""
        with self._lock:
            self._stopped = True
            if self._process:
                self._process.kill()

    def close(self) -> None:
        """End it for good, and leave nothing of it."""
        self.stop()
        if self._process:
            self._end(self._process)

    def _started(self) -> Popen[bytes]:
        with self._lock:
            if self._stopped:
                raise WorkerEnded("stopped")
            try:
                process = self._process = Popen(self._command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, env={**os.environ, **_ONE_THREAD})
            except OSError as error:
                raise _not_started(error.strerror or str(error)) from error
        try:
            _received(_pipe(process.stdout))
        except (OSError, EOFError):
            code = self._end(process)
            raise WorkerEnded("stopped") if self._stopped else _not_started(f"it ends with exit code {code}") from None
        return process

    def _end(self, process: Popen[bytes]) -> int:
        with self._lock:
            self._process = None
        process.kill()  # does nothing to one that has ended
        code = process.wait()
        for pipe in (process.stdin, process.stdout):
            with suppress(OSError):  # what could not be sent
                _pipe(pipe).close()
        return code

    def _cause(self, exit_code: int, seconds: float) -> str:
        if exit_code == 1 and seconds >= self._limit:  # faulthandler's code
            return f"decoding took more than {self._limit:g} s"
        return "ran out of memory" if exit_code == -getattr(signal, "SIGKILL", 0) else "the decoder crashed"


def _not_started(why: str) -> NetlensError:
    return NetlensError(f"a process that looks at files cannot be started: {why}", hint="--workers 1 looks at them without one")


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None
    return stream


def _send(stream: IO[bytes], rows: bytes, words: Any) -> None:
    text = json.dumps(words).encode()  # ASCII: so undecodable bytes of a path come through
    stream.write(_SIZES.pack(len(rows), len(text)) + rows + text)
    stream.flush()


def _received(stream: IO[bytes]) -> tuple[bytes, Any]:
    rows, text = _SIZES.unpack(_exactly(stream, _SIZES.size))
    return _exactly(stream, rows), json.loads(_exactly(stream, text))


def _exactly(stream: IO[bytes], count: int) -> bytes:
    content = stream.read(count)
    if len(content) < count:
        raise EOFError
    return content


def serve(name: str, limit: str) -> None:
    """Be a worker: answer every question on stdin, until there are no more.

    Args:
        name: the function that looks, "package.module:function".
        limit: seconds for one question, after which the process ends with exit code 1.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal; the first one decides
    questions, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a decoder prints must not get between the answers
    module, _, function = name.partition(":")
    look: Look = getattr(import_module(module), function)
    keep_freed_memory()
    _send(answers, b"", {})
    with suppress(EOFError):
        while True:
            _, paths = _received(questions)
            faulthandler.dump_traceback_later(float(limit), exit=True)  # a thread in C: it ends also what holds Python's lock
            answer = _answer(look, paths)
            faulthandler.cancel_dump_traceback_later()
            _send(answers, *answer)


def _answer(look: Look, paths: list[str]) -> tuple[bytes, Any]:
    try:
        rows, details = looked_at(look, paths)
    except Exception:
        return b"", format_exc()
    return rows.tobytes(), list(details.items())
