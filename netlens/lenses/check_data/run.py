"""Running what was asked of files: list them, look at each, compare them; by one process, or by those that torchrun started."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import TYPE_CHECKING

from netlens.lenses.check_data.found import Found
from netlens.lenses.check_data.measure import measure
from netlens.loading.words import user_path

if TYPE_CHECKING:
    from netlens.data.listing import Listing
    from netlens.lenses.check_data.request import Request


def checked_files(request: Request, progress: Callable[[int, int], None]) -> Found | None:
    """Answer a request about folders or tables, except for its pictures; None: another process of this run reports.

    Args:
        request: what is asked.
        progress: called with the files that are done, and with how many there are.

    Raises:
        NetlensError: there is no such folder, table or column, or no picture.
    """
    from netlens.data.distributed import joined
    from netlens.data.scan import scan

    asked = request.asked
    listing = listed(request)
    with joined() as exchange:
        own = len(range(exchange.rank, len(listing), exchange.size))
        done = 0

        def seen(count: int) -> None:
            nonlocal done
            done += count
            progress(done, own)

        cache = None if asked.get("cache") is None else user_path(asked["cache"])
        begun = perf_counter()
        scanned = scan(listing, rank=exchange.rank, size=exchange.size, workers=asked.get("workers"), cache=cache, seen=seen)
        seconds = perf_counter() - begun
        report = measure(listing, scanned, exchange, classes=request.classes)
        if exchange.rank:
            return None
    count = len(scanned.records)
    return Found(report, listing, pace=f"{count:,} files in {seconds:.1f} s, {count / max(seconds, 1e-9):,.0f} a second")


def listed(request: Request) -> Listing:
    """Find all files of all sets.

    Raises:
        NetlensError: there is none.
    """
    asked = request.asked
    return listed_at(
        request.kind,
        [(name, str(door.path)) for name, door in request.sets],
        images=asked.get("images"),
        path_column=asked.get("path_column"),
        label_column=asked.get("label_column"),
        classes=request.classes,
    )


def listed_at(
    kind: str,
    places: Sequence[tuple[str, str]],
    *,
    images: str | None = None,
    path_column: str | None = None,
    label_column: str | None = None,
    classes: int | Sequence[str] | None = None,
) -> Listing:
    """Find all files of folders ("folder") or of tables ("table"), which are given by name and path.

    Raises:
        NetlensError: there is none.
    """
    if kind == "folder":
        from netlens.data.layout import list_folders

        return list_folders(places)
    from netlens.data.table import list_tables

    return list_tables(places, images, path_column=path_column, label_column=label_column, classes=classes)
