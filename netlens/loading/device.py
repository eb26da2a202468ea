"""Where a model runs: what `--device` says, read without torch, and then held against this machine."""

from __future__ import annotations

import os
import re
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from netlens.errors import UsageError
from netlens.loading.gpus import free_by_uuid, short_uuid
from netlens.loading.memory import Memory, memory_of
from netlens.loading.suggest import did_you_mean
from netlens.loading.words import one_line

if TYPE_CHECKING:
    import torch

HINT = "write meta, cpu, cuda, cuda:1, mps or xpu; without --device: meta, then the CPU"
COMPUTE_HINT = "write auto, cpu, cuda, cuda:1, cuda:auto (the one with most free memory), mps or xpu"
NAMES = ("auto", "cpu", "cuda", "cuda:auto", "mps", "xpu", "gpu")
ACCELERATORS = ("cuda", "xpu", "mps")
HIDING = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")  # and what they hide everything with:
NOTHING = ("", "-1", "NoDevFiles")
MOST_THREADS = 8  # of a server with a hundred cores, which others use as well


@dataclass(frozen=True, slots=True)
class Device:
    """Where a model runs."""

    torch_device: torch.device
    name: str  # for reports: "cpu", "cuda:1 NVIDIA H100 (GPU-1a2b3c4d…)"; the same in every run
    why: str  # it was chosen, where it was not named: "most free memory of 4 GPUs", "torch finds no GPU"
    memory: Memory  # free for this process when it was chosen

    @property
    def header(self) -> str:
        """A line for people: "cuda:1 NVIDIA H100 (GPU-1a2b3c4d…) · 61.2 of 80 GiB free"."""
        count = f"{threads()} threads" if self.torch_device.type == "cpu" else ""
        return " · ".join(filter(None, (self.name, count, str(self.memory), self.why)))


def parse_device(text: str) -> str:
    """Check the value of `--device` of a lens that need not compute, before torch is imported; "gpu" means "cuda"."""
    device = text.strip().lower()
    device = re.sub(r"^gpu(?=$|:)", "cuda", device)
    if not re.fullmatch(r"auto|meta|cpu|mps|(cuda|xpu)(:\d{1,3})?", device):
        raise UsageError(f"--device {text!r} is not a device", hint=HINT)
    return device


def parse_compute_device(text: str, lens: str = "this command") -> str:
    """Check the value of `--device` of a lens that computes, before torch is imported; "gpu" is any accelerator."""
    device = text.strip().lower()
    if device == "meta":
        raise UsageError(f"--device meta computes nothing, and {lens} needs values", hint=COMPUTE_HINT)
    if not re.fullmatch(r"auto|cpu|mps|(cuda|gpu)(:auto)?|(cuda|gpu|xpu)(:\d{1,3})?", device):
        raise UsageError(f"--device {text!r} is not a device", hint=did_you_mean(device, NAMES, COMPUTE_HINT))
    return device


def check_device(device: str) -> None:
    """Raise UsageError where this machine does not have the device; torch's own answers to that are walls of text."""
    kind, _, index = device.partition(":")
    if kind not in ACCELERATORS:
        return
    why = _missing(kind)
    if why:
        raise UsageError(f"--device {device}: {why}", hint=f"this machine has {_what_exists()}")
    if index.isdigit() and int(index) >= _count(kind):
        raise UsageError(f"--device {device}: there is none of that number", hint=f"this machine has {_what_exists()}")


def choose_device(text: str) -> Device:
    """Return the device that `--device` means on this machine; an accelerator is tried, which makes torch's context on that one alone.

    "auto" is an accelerator where one works, else the CPU. CUDA_VISIBLE_DEVICES holds: what it hides is neither chosen nor asked.

    Raises:
        UsageError: there is no such device, or it does not work.
    """
    device = parse_compute_device(text)
    kind, _, index = device.partition(":")
    if kind == "auto":
        return _automatic()
    if kind == "cpu":
        return _cpu("")
    if kind == "gpu":
        kind = next((kind for kind in ACCELERATORS if not _missing(kind)), "cuda")
    check_device(f"{kind}:{index}" if index else kind)
    number, why = _most_free(kind) if index == "auto" else (int(index or 0), "")
    return _tried(kind, number, why)


def threads() -> int:
    """Return how many threads to compute with on the CPU: what OMP_NUM_THREADS says, else at most eight of those that are ours."""
    import torch

    if os.environ.get("OMP_NUM_THREADS") or os.environ.get("MKL_NUM_THREADS"):
        return torch.get_num_threads()
    ours = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(MOST_THREADS, ours, torch.get_num_threads())


def _automatic() -> Device:
    reasons = []
    for kind in ACCELERATORS:
        reason = _missing(kind)
        if not reason:
            try:
                return _tried(kind, 0, "")
            except UsageError as error:  # held by another process, or too old for this torch
                reason = error.message.removeprefix("--device ")
        reasons.append(reason)
    return _cpu(reasons[0])


def _cpu(why: str) -> Device:
    import torch

    place = torch.device("cpu")
    return Device(place, "cpu", why, memory_of(place))


def _tried(kind: str, index: int, why: str) -> Device:
    """Compute one number on the device: it may be there and not work."""
    import torch

    place = torch.device(kind) if kind == "mps" else torch.device(kind, index)
    try:
        torch.ones(1, device=place).item()
        return Device(place, _name(kind, index), why, memory_of(place))
    except RuntimeError as error:
        hint = f"this machine has {_what_exists()}"
        raise UsageError(f"--device {place} does not work: {one_line(str(error).partition(chr(10))[0])}", hint=hint) from error


def _name(kind: str, index: int) -> str:
    import torch

    if kind == "mps":
        return "mps"
    try:
        properties: Any = getattr(torch, kind).get_device_properties(index)
    except RuntimeError:  # a driver that counts a card which it cannot open
        return f"{kind}:{index}"
    uuid = str(getattr(properties, "uuid", "")) if kind == "cuda" else ""
    return f"{kind}:{index} {properties.name}" + (f" ({short_uuid(uuid)})" if uuid else "")


def _count(kind: str) -> int:
    import torch

    return 1 if kind == "mps" else int(getattr(torch, kind).device_count())


def _missing(kind: str) -> str:
    """Say why there is no such device; "" where there is."""
    import torch

    backend: Any = getattr(torch.backends if kind == "mps" else torch, kind, None)
    with warnings.catch_warnings(record=True) as told:  # a driver that is too old is told in a warning
        warnings.simplefilter("always")
        if backend is not None and backend.is_available():
            return ""
    hiding = [name for name in HIDING if os.environ.get(name, "-").strip() in NOTHING and kind == "cuda"]
    if hiding:
        return f"{hiding[0]}={os.environ[hiding[0]]!r} hides every GPU"
    if kind == "cuda" and torch.version.cuda is None and torch.version.hip is None:
        return "this torch is built without CUDA"
    if told:
        return one_line(str(told[0].message).partition(" (Triggered")[0])
    return "torch finds no GPU" if kind == "cuda" else f"torch finds no {kind} device"


def _what_exists() -> str:
    """Return "cpu, cuda:0 NVIDIA H100 (GPU-1a2b3c4d…)"."""
    found = [_name(kind, index) for kind in ACCELERATORS if not _missing(kind) for index in range(_count(kind))]
    return ", ".join(["cpu", *found]) if found else "no accelerator: --device cpu"


def _most_free(kind: str) -> tuple[int, str]:
    """Return the GPU with most free memory, and why it is that one."""
    import torch

    count = _count(kind)
    if count == 1 or kind != "cuda":
        return 0, "the only one" if count == 1 else "the first"
    uuids = [str(getattr(torch.cuda.get_device_properties(index), "uuid", "")) for index in range(count)]
    free = free_by_uuid(uuids)
    known = [index for index in range(count) if uuids[index] in free]
    if not known:
        return 0, "the first, because neither nvidia-smi nor NVML tells how much memory is free"
    best = max(known, key=lambda index: free[uuids[index]])
    unknown = f", {count - len(known)} of them unknown" if len(known) < count else ""
    return best, f"most free memory of {count} GPUs{unknown}"
