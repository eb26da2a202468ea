"""What is wrong with single files, as issues: one for each kind, with every file that has it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from netlens.data.exchange import Exchange
from netlens.data.issues import Issue, Item
from netlens.data.listing import Listing
from netlens.data.records import BITS, FLAGS, decoded, has
from netlens.wording import number, share

if TYPE_CHECKING:
    from netlens.data.scan import Scanned

MINORITY = 0.2  # from one in five on, grey pictures are a part of the set and not a slip; cleanvision hides a kind from half on
# Pictures that are grey because next to nothing is in them, or whose mode, of which another issue tells, has no colour.
NO_COLOUR = ("all-transparent", "mode-16-bit", "mode-float", "mode-bilevel", "blank", "dark", "bright", "low-contrast")
LEFT_OUT = frozenset(  # what a clean set does without: training cannot read it, or learns nothing from it
    (
        *("file-unreadable", "file-empty", "not-an-image", "picture-truncated", "picture-damaged", "picture-undecodable"),
        *("picture-too-large", "all-transparent", "blank"),
    )
)
FAULTY = np.dtype(
    [
        *(("place", "<i8"), ("flags", "<u8"), ("width", "<u4"), ("height", "<u4"), ("low", "u1"), ("high", "u1"), ("decoded", "?")),
        *(("spread", "<f4"), ("sharpness", "<f4"), ("direction", "<f4")),
    ]
)
# How bad a file is, by what it has: the worst has the least.
WORST: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "picture-too-large": lambda rows: -rows["width"].astype(float) * rows["height"],
    "too-small": lambda rows: np.minimum(rows["width"], rows["height"]),
    "blank": lambda rows: rows["spread"],
    "dark": lambda rows: rows["high"],
    "bright": lambda rows: 255 - rows["low"],
    "low-contrast": lambda rows: rows["high"] - rows["low"],
    "blurred": lambda rows: rows["sharpness"],
    "motion-blurred": lambda rows: rows["direction"],
    "upscaled": lambda rows: rows["sharpness"],
    "noisy": lambda rows: -rows["sharpness"],
}
# The same in words, as `look` has them, for files whose detail is about another flag.
TOLD: Mapping[str, Callable[[np.void], str]] = {
    "picture-too-large": lambda row: f"{row['width']:,} x {row['height']:,} pixels",
    "too-small": lambda row: f"{row['width']} x {row['height']} pixels",
    "blank": lambda row: f"its grey levels differ by {number(float(row['spread']))} of 255 (standard deviation)",
    "dark": lambda row: f"99 % of it is darker than {int(row['high']) + 1} of 255",
    "bright": lambda row: f"99 % of it is brighter than {int(row['low']) - 1} of 255",
    "low-contrast": lambda row: f"98 % of it lies between {row['low']} and {row['high']} of 255",
    "blurred": lambda row: f"its texture is {number(float(row['sharpness']))} times its contrast",
    "motion-blurred": lambda row: f"its gradients are {number(1 / max(float(row['direction']), 1e-3))} times stronger in one direction",
    "noisy": lambda row: f"its texture is {number(float(row['sharpness']))} times its contrast",
}


def file_issues(listing: Listing, scanned: Scanned, exchange: Exchange) -> list[Issue]:
    """Return an issue for each flag that a file has, its files the worst first, else in the order of the listing.

    That a picture is grey is one only among colour, and that it has colour only among grey.
    """
    records = scanned.records
    seen = decoded(records)
    coloured = seen & ~has(records, "mode-grey", *NO_COLOUR)
    grey = seen & has(records, "mode-grey") & ~has(records, *NO_COLOUR)
    files, pictures, in_colour, in_grey = exchange.summed(np.array([len(records), seen.sum(), coloured.sum(), grey.sum()])).tolist()
    mixed = 0 < in_colour < MINORITY * pictures and in_grey > in_colour
    rows = exchange.gathered(_faulty(scanned, has(records, *FLAGS) | (coloured & mixed)))
    rows = rows[np.argsort(rows["place"])]
    details = {place: text for each in exchange.collected(scanned.details) for place, text in each.items()}
    issues = [_issue(listing, code, rows[has(rows, code)], files, details) for code in FLAGS if code != "mode-grey"]
    if 0 < in_grey < MINORITY * pictures:
        among = rows[rows["decoded"] & has(rows, "mode-grey") & ~has(rows, *NO_COLOUR)]
        issues.append(_issue(listing, "grey-among-colour", among, pictures, {}, f"under {share(MINORITY)} of the pictures"))
    if mixed:
        among = rows[rows["decoded"] & ~has(rows, "mode-grey", *NO_COLOUR)]
        issues.append(_issue(listing, "modes-mixed", among, pictures, {}, f"under {share(MINORITY)} of the pictures"))
    return [issue for issue in issues if issue.items]


def _faulty(scanned: Scanned, which: np.ndarray) -> np.ndarray:
    rows = np.empty(int(which.sum()), FAULTY)
    rows["place"] = scanned.indices[which]
    rows["decoded"] = decoded(scanned.records)[which]
    for name in set(FAULTY.names or ()) - {"place", "decoded"}:
        rows[name] = scanned.records[name][which]
    return rows


def _issue(listing: Listing, code: str, rows: np.ndarray, total: int, details: Mapping[int, str], threshold: str = "") -> Issue:
    """Make the issue of one code from the files that have it, which come in the order of the listing."""
    if code in WORST:
        rows = rows[np.argsort(WORST[code](rows), kind="stable")]
    items = tuple(Item((listing.paths[int(row["place"])],), _detail(code, row, details)) for row in rows)
    so = {"grey-among-colour": "are grey", "modes-mixed": "have colour, the others are grey"}.get(code)
    measured = f"{share(len(rows), total)} of the pictures {so}" if so else ""
    return Issue(code, items, total, measured, threshold, tuple(item.paths[0] for item in items) if code in LEFT_OUT else ())


def _detail(code: str, row: np.void, details: Mapping[int, str]) -> str:
    """Say what was measured: the text of the look is about the first flag of a file, and of the others their numbers tell."""
    flags = int(row["flags"]) & ~BITS["mode-grey"]
    first = flags & -flags
    if BITS.get(code) == first and int(row["place"]) in details:
        return details[int(row["place"])]
    return TOLD[code](row) if code in TOLD else ""
