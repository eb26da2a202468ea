"""How much memory a device has, and how much a run took."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


@dataclass(frozen=True, slots=True)
class Memory:
    """What a device has, in bytes; None where it does not tell."""

    free: int | None
    total: int | None = None

    def __str__(self) -> str:
        if self.free is None:
            return ""
        if self.total is None:
            return f"{size_text(self.free)} free"
        return f"{self.free / 1024 ** _power(self.total):.3g} of {size_text(self.total)} free"


@dataclass(frozen=True, slots=True)
class Peak:
    """The most memory that was in use at once, in bytes; None where the device does not tell."""

    allocated: int | None = None  # by tensors on the device
    reserved: int | None = None  # taken from the device for them
    resident: int | None = None  # on the CPU: by how much the process grew; differs from run to run

    def __str__(self) -> str:
        if self.allocated is not None and self.reserved is not None:
            return f"peak {size_text(self.allocated)} allocated, {size_text(self.reserved)} reserved"
        return "" if self.resident is None else f"peak {size_text(self.resident)} more than before the run"


def size_text(number: int) -> str:
    """Write bytes with three significant digits: "61.2 GiB"."""
    power = _power(number)
    return f"{number / 1024**power:.3g} {UNITS[power]}"


def _power(number: int) -> int:
    return next((power for power in range(len(UNITS)) if number < 999.5 * 1024**power), len(UNITS) - 1)


def available_memory() -> int | None:
    """Bytes that this process may still take, by the kernel and by the container's limit; None where nothing tells.

    Files that the kernel keeps in memory count as free: it drops them when a process wants their place.
    """
    limits = [int(line.split()[1]) * 1024 for line in _lines("/proc/meminfo") if line.startswith("MemAvailable:")]
    most, used = _lines("/sys/fs/cgroup/memory.max"), _lines("/sys/fs/cgroup/memory.current")
    if most and used and most[0].isdigit():
        kept = sum(int(line.split()[1]) for line in _lines("/sys/fs/cgroup/memory.stat") if line.startswith("inactive_file "))
        limits.append(int(most[0]) - int(used[0]) + kept)
    if not limits and hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min(limits, default=None)


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def memory_of(device: torch.device) -> Memory:
    """Return what `device` has for this process, with what torch has reserved there and does not use; makes a context on it."""
    import torch

    if device.type == "cpu":
        return Memory(available_memory())
    backend: Any = getattr(torch, device.type, None)
    if device.type == "mps":
        total = backend.recommended_max_memory() if hasattr(backend, "recommended_max_memory") else None
        return Memory(None if total is None else max(0, total - backend.driver_allocated_memory()), total)
    if not hasattr(backend, "mem_get_info"):
        return Memory(None)
    free, total = backend.mem_get_info(device)
    return Memory(free + backend.memory_reserved(device) - backend.memory_allocated(device), total)


def watch_peak(device: torch.device) -> Callable[[], Peak]:
    """Begin to watch the memory of `device`; call what is returned for the peak since then. Resets torch's own peak of that device.

    On the CPU the kernel keeps the peak of the whole process: a run that stays below an earlier peak has none that could be told.
    """
    import torch

    if device.type in ("cuda", "xpu"):
        backend: Any = getattr(torch, device.type)
        backend.reset_peak_memory_stats(device)
        return lambda: Peak(backend.max_memory_allocated(device), backend.max_memory_reserved(device))
    if device.type != "cpu":
        return Peak
    before, earlier = _resident()

    def grown() -> Peak:
        _, highest = _resident()
        return Peak(resident=highest - before) if highest > earlier else Peak()

    return grown


def _resident() -> tuple[int, int]:
    """Bytes of this process that are in memory, and the most that ever were; zeros where the kernel does not tell."""
    told = dict(line.split(":", 1) for line in _lines("/proc/self/status") if line.startswith(("VmRSS:", "VmHWM:")))
    now, highest = (int(told.get(name, "0").split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))
    return now, highest
