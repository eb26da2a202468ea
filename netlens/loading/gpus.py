"""Free memory of all GPUs, without touching one: to ask CUDA itself would make a context, several hundred MiB, on each card asked."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from contextlib import suppress
from importlib import import_module

QUERY = ("--query-gpu=uuid,memory.used,memory.total", "--format=csv")
PATIENCE = 15  # seconds; a driver without persistence mode takes one for each card
LINE = re.compile(r"^\s*GPU-([0-9a-f-]+)\s*,\s*(\d+) *MiB\s*,\s*(\d+) *MiB\s*$", re.IGNORECASE | re.MULTILINE)


def free_by_uuid(uuids: Sequence[str]) -> dict[str, int]:
    """Return free bytes by UUID, as far as `nvidia-smi` or, where it does not know them, NVML tells.

    By UUID because both count cards by their slots, CUDA by speed, and neither knows CUDA_VISIBLE_DEVICES.

    Args:
        uuids: as torch writes them, with or without "GPU-" before them.
    """
    wanted = {uuid: _plain(uuid) for uuid in uuids}
    told = _told_by_nvidia_smi()
    if not set(wanted.values()) & set(told):
        told = _told_by_nvml(wanted.values())
    return {uuid: told[plain] for uuid, plain in wanted.items() if plain in told}


def short_uuid(uuid: str) -> str:
    """Return "GPU-1a2b3c4d…", which is enough to find a card in `nvidia-smi -L`."""
    return f"GPU-{_plain(uuid)[:8]}…"


def _plain(uuid: str) -> str:
    return re.sub(r"^(GPU|MIG)-", "", uuid, flags=re.IGNORECASE).lower()


def _told_by_nvidia_smi() -> dict[str, int]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return {}
    try:
        done = subprocess.run(
            [program, *QUERY],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=PATIENCE,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
    except (OSError, subprocess.SubprocessError):
        return {}
    # A card that does not tell ("[N/A]", "[Insufficient Permissions]") has a line that does not match.
    return {uuid.lower(): (int(total) - int(used)) << 20 for uuid, used, total in LINE.findall(done.stdout)}


def _told_by_nvml(uuids: Iterable[str]) -> dict[str, int]:
    """Ask the package nvidia-ml-py, where it is installed; unlike nvidia-smi it knows the parts of a card (MIG) by their UUIDs."""
    try:
        nvml = import_module("pynvml")
        nvml.nvmlInit()
    except Exception:  # not installed, no driver, or a driver that does not answer
        return {}
    found = {}
    for uuid in uuids:
        for name in (f"GPU-{uuid}", f"MIG-{uuid}"):
            with suppress(nvml.NVMLError):
                found[uuid] = int(nvml.nvmlDeviceGetMemoryInfo(nvml.nvmlDeviceGetHandleByUUID(name)).free)
    nvml.nvmlShutdown()
    return found
