"""netlens: what is inside a PyTorch model, and what is wrong with it, in one line."""

from __future__ import annotations

__version__ = "0.1.0"
