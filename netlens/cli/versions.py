"""Which versions are at work, told without importing them."""

from __future__ import annotations

import re
import sys
from importlib.util import find_spec
from pathlib import Path


def torch_version() -> str | None:
    """Return torch's version, None where torch is not installed.

    Where torch is not imported yet, its version is read from the text of `torch/version.py`: importing torch takes a second, and asking
    `importlib.metadata` takes longer than all the rest of `netlens --version`.
    """
    if torch := sys.modules.get("torch"):
        return str(torch.__version__)
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    try:
        text = Path(spec.origin).with_name("version.py").read_text(encoding="utf-8")
    except OSError:
        return None
    found = re.search(r"^__version__\s*=\s*['\"]([^'\"]+)", text, re.MULTILINE)
    return found[1] if found else None


def versions() -> str:
    """Return what a report of a bug needs: "netlens 0.1.0 (torch 2.8.0, Python 3.11.7, linux)"."""
    from netlens import __version__

    torch = torch_version() or "not installed"
    python = ".".join(str(part) for part in sys.version_info[:3])
    return f"netlens {__version__} (torch {torch}, Python {python}, {sys.platform})"
