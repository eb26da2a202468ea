"""What a run leaves: the report, and what its pictures are made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from netlens.data.listing import Listing
from netlens.lenses.check_data.report import CheckDataReport


@dataclass(frozen=True)
class Found:
    """The answer to one request, before anything is drawn."""

    report: CheckDataReport
    listing: Listing | None = None  # of files
    shown: Any = None  # samples of loaders, just before the network
    pace: str = ""  # "20,162 files in 25 s, 806 a second, 2 workers": for stderr, since it is never the same twice
