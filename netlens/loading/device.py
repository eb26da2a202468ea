"""Where a model runs."""

from __future__ import annotations

import re

from netlens.errors import UsageError

HINT = "write meta, cpu, cuda, cuda:1, mps or xpu; without --device: meta, then the CPU"


def parse_device(text: str) -> str:
    """Check the value of `--device` before torch is imported; "gpu" means "cuda"."""
    device = text.strip().lower()
    device = re.sub(r"^gpu(?=$|:)", "cuda", device)
    if not re.fullmatch(r"auto|meta|cpu|mps|(cuda|xpu)(:\d{1,3})?", device):
        raise UsageError(f"--device {text!r} is not a device", hint=HINT)
    return device


def check_device(device: str) -> None:
    """Raise UsageError where this machine does not have the device; torch's own answers to that are walls of text."""
    import torch

    kind, _, index = device.partition(":")
    if kind not in ("cuda", "xpu", "mps"):
        return
    backend = getattr(torch.backends, "mps", None) if kind == "mps" else getattr(torch, kind, None)
    if backend is None or not backend.is_available():
        raise UsageError(f"--device {device}: torch sees no such device on this machine", hint="run on the CPU: --device cpu")
    if index and int(index) >= backend.device_count():
        devices = ", ".join(f"{kind}:{i}" for i in range(backend.device_count()))
        raise UsageError(f"--device {device}: there is none of that number", hint=f"this machine has {devices}")
