"""From what was seen of every file to what is wrong with all of them; the same for one process and for many."""

from __future__ import annotations

from typing import TYPE_CHECKING

from netlens.data.duplicates import find_copies
from netlens.data.facts import facts_of
from netlens.data.files import file_issues
from netlens.data.issues import Issue, Item
from netlens.data.sets import judge
from netlens.data.tree_kinds import IMAGE_FOLDER, suffix_of
from netlens.lenses.check_data.report import CheckDataReport

if TYPE_CHECKING:
    from collections.abc import Sequence

    from netlens.data.exchange import Exchange
    from netlens.data.listing import Listing
    from netlens.data.scan import Scanned


def measure(listing: Listing, scanned: Scanned, exchange: Exchange, *, classes: int | Sequence[str] | None = None) -> CheckDataReport:
    """Return what is in the files, and every fault of them.

    Args:
        listing: all files.
        scanned: those of this process.
        exchange: with the other processes.
        classes: how many there are, or their names.
    """
    seen = sum(exchange.collected(len(scanned.records)))
    interrupted = any(exchange.collected(scanned.interrupted))
    issues = [Issue(code, tuple(items), len(listing), fix=_hidden(code, items)) for code, items in listing.oddities.items()]
    issues += file_issues(listing, scanned, exchange)
    issues += find_copies(listing, scanned, exchange)
    issues += judge(listing, scanned, exchange, classes=classes)
    return CheckDataReport(
        kind="table" if listing.splits[0].kind == "table" else "files",
        splits=tuple(facts_of(listing, scanned, exchange)),
        issues=tuple(issues),
        interrupted=seen if interrupted else None,
        notes=(*listing.notes, *sorted({note for notes in exchange.collected(scanned.notes) for note in notes})),
    )


def _hidden(code: str, items: Sequence[Item]) -> tuple[str, ...]:
    """Return the hidden files that a clean set would leave out; of hidden folders a person decides."""
    return tuple(path for item in items for path in item.paths if code == "hidden-file" and suffix_of(path) in IMAGE_FOLDER)
