"""What is wrong with data, as plain values: a kind of fault, and every place where it is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Item:
    """One place of a fault."""

    paths: tuple[str, ...]  # one file, as the user would type it; or those that are alike; "sample 17" of a loader; a class
    detail: str = ""  # what was measured there: "ends after 3,204 of 9,811 bytes", "96 % alike"


@dataclass(frozen=True, slots=True)
class Issue:
    """One kind of fault, with all its places."""

    code: str  # a key of findings.CODES
    items: tuple[Item, ...]  # the worst first
    total: int  # of how many files, pairs, classes or samples
    measured: str = ""  # of all of them together: "61 % of class cat are PNG files, 0 % of the others"
    threshold: str = ""
    fix: tuple[str, ...] = ()  # files that a clean set would leave out; of copies all but the first
    latent: bool = False  # no harm as things are: only with more workers, or on another system
