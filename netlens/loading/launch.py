"""Whether `torchrun` started this process beside others; standard library only."""

from __future__ import annotations

import os
from collections.abc import Mapping

from netlens.errors import UsageError

VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
# With torch 2.4, a thread of gloo that still lets go of the last result waits for Python's lock, which its destructor holds while it waits
# for the thread: every second process hung for ever. Of 160 groups that were given 0.01 s first, none did.
SETTLED = 0.2  # seconds


def launched(environment: Mapping[str, str] = os.environ) -> bool:
    """Tell whether `torchrun` started this process beside others.

    Raises:
        UsageError: only a part of its variables is set.
    """
    size = environment.get("WORLD_SIZE", "1")
    if not size.isdecimal():
        raise UsageError(f"WORLD_SIZE={size!r} is no number of processes", hint="start with torchrun, or unset WORLD_SIZE")
    missing = [name for name in VARIABLES if name not in environment]
    if int(size) > 1 and missing:
        raise UsageError(f"WORLD_SIZE is {size}, and {missing[0]} is not set", hint="start with torchrun, or unset WORLD_SIZE")
    return int(size) > 1
