"""Histograms as small multiples on a page, drawn with Pillow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image


@dataclass(frozen=True, slots=True)
class Panel:
    """One histogram: bins of equal width."""

    label: str
    low: float
    high: float
    counts: Sequence[int]
    note: str = ""  # below the label: "std 0.021 · ×1.4 of its initialisation"
    alarm: bool = False  # a finding is about it: marked, not by colour alone


def histograms(title: str, panels: Sequence[Panel], *, subtitle: str = "") -> list[Image.Image]:
    """Draw one small histogram a panel, in reading order; several pages where one would get too tall."""
    raise NotImplementedError
