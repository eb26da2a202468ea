"""One command in a fresh child process, and what it cost: time, CPU time and peak memory, as the kernel counted them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Timer
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from resource import struct_rusage  # not on Windows

LIMIT = 600.0  # seconds, after which a child hangs
_RAISED = re.compile(r"[A-Za-z_][\w.]*(Error|Exception|Interrupt)(:|$)")
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # getrusage(2): bytes on macOS, KiB elsewhere


@dataclass(frozen=True, slots=True)
class Cost:
    """What one process took."""

    wall: float  # seconds from before its start until it was reaped
    cpu: float  # seconds, user + system, all its threads
    peak: int  # bytes, the largest resident set


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run: its cost, or why there is none."""

    cost: Cost | None
    failure: str  # the exception that it told on stderr, or else its last line there; "" where it went well
    stdout: str


def run_child(command: Sequence[str], folder: Path, limit: float = LIMIT) -> Outcome:
    """Run one command in `folder`, its output in a pipe, and measure it. A child that fails is an answer, not an exception.

    The peak is never below that of this process: where a child is started by vfork, Linux takes the parent's over. So the process that
    calls this must stay small, and imports no torch.
    """
    with tempfile.TemporaryFile() as stderr:
        started = time.perf_counter()
        try:
            process = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr)
        except OSError as error:
            return Outcome(None, f"{command[0]}: {error.strerror}", "")
        with process:
            stdout, usage = _wait(process, limit)
        cost = Cost(time.perf_counter() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * _RSS_UNIT)
        failure = _failure(process.returncode, stderr)
    return Outcome(None if failure else cost, failure, stdout)


def _wait(process: subprocess.Popen[bytes], limit: float) -> tuple[str, struct_rusage]:
    killer = Timer(limit, os.kill, (process.pid, signal.SIGKILL))
    killer.start()
    try:
        assert process.stdout is not None
        stdout = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
    finally:
        killer.cancel()
    process.returncode = os.waitstatus_to_exitcode(status)  # Popen would wait for what is reaped already
    return stdout.decode("utf-8", "replace"), usage


def _failure(returncode: int, stderr: IO[bytes]) -> str:
    if returncode == 0:
        return ""
    stderr.seek(0)
    said = [line.strip() for line in stderr.read().decode("utf-8", "replace").splitlines() if line.strip()]
    ended = f"killed by signal {-returncode}" if returncode < 0 else f"exit code {returncode}"
    raised = [line for line in said if _RAISED.match(line)]  # netlens itself says more after its traceback
    return f"{ended}: {(raised or said)[-1]}" if said else ended
