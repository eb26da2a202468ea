"""`netlens.check_data`: a folder, a table, or a Dataset or DataLoader that somebody holds in his hands."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike, fspath
from typing import Any

from netlens.lenses.check_data.report import CheckDataReport


def check_data(
    data: Any,
    val: Any = None,
    *,
    test: Any = None,
    classes: int | Sequence[str] | None = None,
    images: str | PathLike[str] | None = None,
    samples: int | None = None,
    target_rate: float | None = None,
    workers: int | None = 1,
) -> CheckDataReport:
    """Look at data and return every fault of them.

    Args as for `netlens.check_data`.
    """
    sets = [(name, found) for name, found in (("train", data), ("val", val), ("test", test)) if found is not None]
    named = sets if len(sets) > 1 else [("", data)]
    if all(isinstance(found, (str, PathLike)) for _, found in named):
        return _files([(name, fspath(found)) for name, found in named], classes, images, workers)
    from netlens.lenses.check_data.loaders import check_loaders

    return check_loaders(named, classes=classes, samples=samples, target_rate=target_rate).report


def _files(
    places: Sequence[tuple[str, str]], classes: int | Sequence[str] | None, images: str | PathLike[str] | None, workers: int | None
) -> CheckDataReport:
    from netlens.data.exchange import Alone
    from netlens.data.scan import scan
    from netlens.lenses.check_data.doors import door_of
    from netlens.lenses.check_data.measure import measure
    from netlens.lenses.check_data.run import listed_at

    door = door_of(places[0][1])
    listing = listed_at(door.kind, places, images=None if images is None else fspath(images), classes=classes)
    return measure(listing, scan(listing, workers=workers), Alone(), classes=classes)
