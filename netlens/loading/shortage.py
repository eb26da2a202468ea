"""Memory that ran out, or would: recognised on every device, told in two lines, and tried again with half the batch."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from traceback import clear_frames
from typing import TYPE_CHECKING, Any, TypeVar

from netlens.errors import OutOfMemory
from netlens.loading.memory import Memory, available_memory, memory_of, size_text

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
TIGHT = 1.2  # times the weights: with less than that free, a forward pass will hardly fit

# Errors that are not of torch's own class for it: the CPU's, Apple's, Intel's, and those of CUDA's libraries.
WORDS = re.compile(
    r"DefaultCPUAllocator: (can't allocate|not enough) memory|Storage size calculation overflowed"
    r"|\b(CUDA|HIP|XPU|MPS)\b[\w :]*out of memory|Invalid buffer size: \d|OUT_OF_(DEVICE|HOST)_MEMORY"
    r"|(CUBLAS|CUDNN|CUSOLVER|CUSPARSE)_STATUS_(INTERNAL_ERROR_)?ALLOC_FAILED|Unable to find a valid cuDNN algorithm",
    re.IGNORECASE,
)
SIZE = r"(\d+(?:\.\d+)?) ?(bytes|[KMGTPE]i?B)"
ASKED = re.compile(rf"tried to allocate {SIZE}|Unable to allocate {SIZE}|Invalid buffer size: {SIZE}", re.IGNORECASE)
OTHERS = re.compile(rf"Process \d+ has {SIZE} memory in use", re.IGNORECASE)


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
    try:
        memory = Memory(available_memory()) if cpu else memory_of(device)
    except RuntimeError:  # not even a context fits
        memory = Memory(None)
    asked = ASKED.search(text)
    others = sum(_bytes(*found) for found in OTHERS.findall(text))
    facts = (
        f"{size_text(_bytes(*filter(None, asked.groups())))} were asked for at once" if asked else "",
        "more than any machine has was asked for" if "calculation overflowed" in text else str(memory),
        f"{size_text(others)} in use by other processes" if others else "",
    )
    return OutOfMemory("this machine" if cpu else str(device), list(filter(None, facts)), levers)


def _bytes(number: str, unit: str) -> int:
    return int(float(number) * 1024 ** "BKMGTPE".index(unit[0].upper()))  # "bytes" begins with a B as well


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
        told = explained(error, device, levers)
        clear_frames(error.__traceback__)
        free_cached()
        raise told from error


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
