"""How much memory a device has, how much a run took, and what to say when it was not enough."""

from __future__ import annotations

import gc
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from traceback import clear_frames
from typing import TYPE_CHECKING, Any, TypeVar

from netlens.errors import OutOfMemory

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
TIGHT = 1.2  # times the weights: with less than that free, a forward pass will hardly fit

# Errors that are not of torch's own class for it: the CPU's, Apple's, Intel's, and those of CUDA's libraries.
WORDS = re.compile(
    r"DefaultCPUAllocator: (can't allocate|not enough) memory|Storage size calculation overflowed|out of memory|Invalid buffer size: \d"
    r"|(CUBLAS|CUDNN|CUSOLVER|CUSPARSE)_STATUS_(INTERNAL_ERROR_)?ALLOC_FAILED|OUT_OF_(DEVICE|HOST)_(MEMORY)"
    r"|Unable to find a valid cuDNN algorithm",
    re.IGNORECASE,
)
SIZE = r"(\d+(?:\.\d+)?) ?(bytes|[KMGT]i?B)"
ASKED = re.compile(rf"tried to allocate {SIZE}|Unable to allocate {SIZE}|Invalid buffer size: {SIZE}", re.IGNORECASE)
OTHERS = re.compile(rf"Process \d+ has {SIZE} memory in use", re.IGNORECASE)


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


# -- What there is ---------------------------------------------------------------------------------------------------------------------


def available_memory() -> int | None:
    """Bytes that this process may still take, by the kernel and by the container's limit; None where nothing tells."""
    limits = [int(line.split()[1]) * 1024 for line in _lines("/proc/meminfo") if line.startswith("MemAvailable:")]
    most, used = _lines("/sys/fs/cgroup/memory.max"), _lines("/sys/fs/cgroup/memory.current")
    if most and used and most[0].isdigit():
        limits.append(int(most[0]) - int(used[0]))
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
    found = {name: int(value.split()[0]) * 1024 for name, _, value in (line.partition(":") for line in _lines("/proc/self/status")) if name in ("VmRSS", "VmHWM")}
    return found.get("VmRSS", 0), found.get("VmHWM", 0)


# -- Where it is not enough ------------------------------------------------------------------------------------------------------------


def out_of_memory(error: BaseException | None) -> bool:
    """Tell whether memory ran out, on whatever device, from an exception or from those that it was raised from."""
    import torch

    from netlens.probing.trace import chain

    own: Any = getattr(torch, "OutOfMemoryError", torch.cuda.OutOfMemoryError)  # torch 2.4 has it in torch.cuda alone
    return any(
        isinstance(cause, (own, MemoryError, OutOfMemory)) or (isinstance(cause, RuntimeError) and bool(WORDS.search(str(cause))))
        for cause in chain(error)
    )


def explained(error: BaseException, device: torch.device, levers: Sequence[str]) -> OutOfMemory:
    """Say of an error of which `out_of_memory` is true what was asked for, what there was, and what to change.

    Args:
        error: from torch, numpy or Python.
        device: where the model runs; what the CPU could not allocate is told of the CPU.
        levers: what the user may change, most helpful first; see `levers`.
    """
    from netlens.probing.trace import chain

    text = "\n".join(map(str, chain(error)))
    cpu = device.type == "cpu" or isinstance(error, MemoryError) or "DefaultCPUAllocator" in text
    memory = Memory(available_memory()) if cpu else memory_of(device)
    asked = ASKED.search(text)
    others = sum(_bytes(*found) for found in OTHERS.findall(text))
    facts = (
        f"{size_text(_bytes(*filter(None, asked.groups())))} were asked for at once" if asked else "",
        "more than any machine has was asked for" if "calculation overflowed" in text else str(memory),
        f"{size_text(others)} in use by other processes" if others else "",
    )
    return OutOfMemory("this machine" if cpu else str(device), list(filter(None, facts)), levers)


def _bytes(number: str, unit: str) -> int:
    return int(float(number) * 1024 ** "BKMGT".index(unit[0].upper()))  # "bytes" begins with a B as well


def levers(device: torch.device, *, batch_size: int = 1, dtype: str | None = None, pictures: bool = False) -> list[str]:
    """Return the options that save memory in this run, most helpful first.

    Args:
        device: where the model runs.
        batch_size: samples in one pass.
        dtype: the value of `--dtype`.
        pictures: the inputs are pictures, whose size can be chosen.
    """
    found = [f"--batch-size {batch_size // 2}"] if batch_size > 1 else []
    if dtype in (None, "fp32", "fp64"):
        found.append("--dtype bf16")
    if device.type != "cpu":
        found.append("--device cpu")
    return [*found, "a smaller --size"] if pictures else [*found, "a smaller --input"]


@contextmanager
def out_of_memory_told(device: torch.device, levers: Sequence[str]) -> Iterator[None]:
    """Raise OutOfMemory in place of any error that means it; the tensors in the frames of that error are let go."""
    try:
        yield
    except Exception as error:
        if isinstance(error, OutOfMemory) or not out_of_memory(error):
            raise
        clear_frames(error.__traceback__)
        free_cached()
        raise explained(error, device, levers) from error


def check_room(needed: int, device: torch.device, levers: Sequence[str]) -> str:
    """Refuse weights that do not fit, before the kernel ends the process for them; return a note where it will be tight.

    Args:
        needed: bytes that are not on `device` yet.
        device: where they go.
        levers: what the user may change.

    Raises:
        OutOfMemory: less than `needed` is free.
    """
    memory = memory_of(device)
    if memory.free is None or needed * TIGHT <= memory.free:
        return ""
    where = "this machine" if device.type == "cpu" else str(device)
    if needed > memory.free:
        raise OutOfMemory(where, [f"the weights alone take {size_text(needed)}", str(memory)], levers)
    return f"{where} has {memory}, and the weights alone take {size_text(needed)}: a forward pass may not fit"


def halving(run: Callable[[int], T], batch_size: int) -> tuple[T, int]:
    """Call `run(batch_size)`, with half the batch each time memory runs out, and return its result with the size that fitted.

    For `--auto-batch` alone: without it a run that does not fit is an error, because another batch size may give other findings.

    Args:
        run: begins anew at each call; whatever it collected in one that failed is lost.
        batch_size: to begin with.

    Raises:
        Exception: whatever `run` raises that is not about memory, or that is with one sample.
    """
    while True:
        try:
            return run(batch_size), batch_size
        except Exception as error:
            if batch_size == 1 or not out_of_memory(error):
                raise
            clear_frames(error.__traceback__)
        batch_size //= 2
        free_cached()  # only here is `error` gone, and with it the tensors that its frames held


def free_cached() -> None:
    """Give back what torch keeps for later on every device that is in use."""
    import torch

    gc.collect()
    for name in ("cuda", "xpu"):
        backend: Any = getattr(torch, name, None)
        if backend is not None and backend.is_initialized():
            backend.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()
