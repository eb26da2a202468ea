"""What is learned about data: plain values, and the JSON schema."""

from __future__ import annotations

from dataclasses import dataclass

from netlens.data.facts_types import ClassCount as ClassCount
from netlens.data.facts_types import Colours as Colours
from netlens.data.facts_types import SplitFacts as SplitFacts
from netlens.data.facts_types import Spread as Spread
from netlens.data.issues import Issue
from netlens.loaders.facts import LoaderFacts


@dataclass(frozen=True, slots=True)
class CheckDataReport:
    """What is in the data, and every fault of it."""

    kind: str  # "files", "table" or "loader"
    splits: tuple[SplitFacts, ...]
    issues: tuple[Issue, ...]  # the worst first
    loaders: tuple[LoaderFacts, ...] = ()
    interrupted: int | None = None  # files that were looked at before Ctrl-C; None: all
    notes: tuple[str, ...] = ()
    pictures: tuple[str, ...] = ()  # files that were written
