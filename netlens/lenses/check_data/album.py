"""The pictures of one request: a contact sheet of each fault, samples, classes and sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from netlens.data.issues import Issue
from netlens.data.listing import Listing
from netlens.drawing.album import Folder
from netlens.lenses.check_data import figures, samples, sheets
from netlens.lenses.check_data.report import CheckDataReport
from netlens.lenses.check_data.rules import ranked
from netlens.wording import short

PREFERRED = 2  # sheets to look at first
MOST_SIZES = 3  # splits whose sizes are drawn

Shown = Sequence[tuple[str, Sequence[Any], Sequence[str]]]  # of each loader: its name, pictures (C, H, W), and a label for each


def draw(
    report: CheckDataReport,
    listing: Listing | None,
    shown: Shown | None,
    folder: Folder,
    step: Callable[[], object],
    *,
    title: str = "",
    seed: int = 0,
) -> Iterator[str]:
    """Write the pictures, and yield the path of each.

    Args:
        report: what was found.
        listing: the files; None where there are none.
        shown: samples of loaders just before the network.
        folder: where they are written.
        step: called after each picture.
        title: what the user calls the data.
        seed: of the random choice of samples.
    """
    title, without = short(title), samples.unopenable(report)
    issues, labels = _of_files(report, listing)
    grids = {_name("samples", split.name): place for place, split in enumerate(listing.splits)} if listing else {}
    tensors = [(_name("samples", name), name, pictures, words) for name, pictures, words in shown or ()]
    folder.reserve([*(issue.code for issue in issues), *grids, *(each[0] for each in tensors), "classes", "sizes"])
    preferred = 0
    for issue in issues:
        sheet = sheets.fault_sheet(title, issue, labels, without)
        prefer = sheet.opened and preferred < PREFERRED
        preferred += prefer
        yield folder.save(issue.code, sheet.image, prefer=prefer, Method=issue.code)
        step()
    for name, place in grids.items():
        if listing is not None and (grid := sheets.file_grid(title, listing, place, without, seed)) is not None:
            yield folder.save(name, grid, Method="samples")
            step()
    for name, of, pictures, words in tensors:
        if (grid := sheets.tensor_grid(" · ".join(filter(None, (title, short(of)))), pictures, words)) is not None:
            yield folder.save(name, grid, Method="samples", prefer=True)
            step()
    yield from _plots(report, listing, without, folder, title, step)


def _of_files(report: CheckDataReport, listing: Listing | None) -> tuple[list[Issue], dict[str, str]]:
    """Return the faults whose places are files of the data, the worst first, and the labels of those that are drawn."""
    if listing is None:
        return [], {}
    drawn = {issue: issue.items[: sheets.MOST] for issue in ranked(report.issues)}
    labels = samples.labels(listing, (path for items in drawn.values() for item in items for path in item.paths[:2]))
    return [issue for issue, items in drawn.items() if any(path in labels for item in items for path in item.paths)], labels


def _plots(
    report: CheckDataReport, listing: Listing | None, without: Mapping[str, str], folder: Folder, title: str, step: Callable[[], object]
) -> Iterator[str]:
    labelled = [split for split in report.splits if split.classes]
    if labelled:
        yield folder.save("classes", figures.class_bars(title, labelled), Method="classes")
        step()
    found = [] if listing is None else _sizes(listing, without)
    if any((split.values != found[0].values[0]).any() for split in found):
        yield folder.save("sizes", figures.size_maps(title, found), Method="sizes")
        step()


def _sizes(listing: Listing, without: Mapping[str, str]) -> list[figures.Sizes]:
    splits = enumerate(listing.splits[:MOST_SIZES])
    found = [figures.Sizes(split.name, *samples.sizes(listing, place, without)) for place, split in splits]
    return [split for split in found if len(split.values)]


def _name(what: str, split: str) -> str:
    return f"{what}-{split}" if split else what
