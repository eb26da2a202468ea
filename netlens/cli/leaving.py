"""How a process of many ends: at once, when all that Python has to do at exit is done."""

from __future__ import annotations

import atexit
import os
import sys
from contextlib import suppress


class Leaving:
    """Keeps the exit code of a process that `torchrun` started.

    DistributedDataParallel and FSDP keep their process group for ever, so its threads still run while C++ takes the process down, and now
    and then it aborts: "terminate called without an active exception", exit code 134, after the report was written. Functions given to
    `atexit` run last in, first out; so make this one before any other is given.
    """

    def __init__(self) -> None:
        self.code = 3  # netlens was left in a way that it does not know
        if os.environ.get("WORLD_SIZE", "1") != "1":
            atexit.register(self._end)

    def _end(self) -> None:
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):
                stream.flush()
        os._exit(self.code)
