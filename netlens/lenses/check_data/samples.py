"""Pictures of the data as training sees them: opened within a budget; and why one cannot be.

"As training sees them" is as ImageFolder does: `Image.open(path).convert("RGB")`, without a look at the EXIF orientation.
"""

from __future__ import annotations

import os
import stat
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
from PIL import Image, ImageFile

from netlens.data.listing import Listing
from netlens.drawing.thumbnails import fitted
from netlens.lenses.check_data.report import CheckDataReport
from netlens.loading.images import FORMATS
from netlens.loading.words import cause

LARGEST = 80_000_000  # pixels: as for the look at every file
DECODED = 30_000_000  # pixels that are decoded for a thumbnail: 90 MB; larger JPEG files are decoded at a part of their size
UNDECODED = ("file-unreadable", "file-empty", "not-an-image", "picture-undecodable", "picture-too-large")  # never opened a second time
MOST_SIZES = 4000  # files of a split whose size is read


class Unopened(Exception):
    """A picture that is not drawn, and why."""


def thumbnail(path: str, side: int) -> np.ndarray:
    """Open a picture as ImageFolder does, at most `side` pixels wide and high; a smaller one is enlarged: (h, w, 3) uint8.

    Raises:
        Unopened: it cannot be opened, or is too large.
    """
    try:
        with _opened(path) as image:
            image.draft(None, (2 * side, 2 * side))
            if image.width * image.height > DECODED:
                raise Unopened(f"{image.width:,} × {image.height:,} pixels")
            coloured = image.convert("RGB")
        coloured.thumbnail((side, side), Image.Resampling.LANCZOS)
    except Unopened:
        raise
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error, zlib.error, MemoryError, ...
        raise Unopened(cause(error)) from error
    return fitted(np.asarray(coloured), (side, side))


@contextmanager
def _opened(path: str) -> Iterator[Image.Image]:
    if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116 - a path may hold bytes that are no text
        raise Unopened("no regular file")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > LARGEST:
                raise Unopened(f"{image.width:,} × {image.height:,} pixels")
            yield image


@contextmanager
def what_is_left() -> Iterator[None]:
    """Let Pillow decode what there is of a truncated picture while the block runs."""
    before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, True
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


def unopenable(report: CheckDataReport) -> dict[str, str]:
    """Return the files that must not be opened again: path -> why; one of them may have ended a worker process."""
    issues = [issue for issue in report.issues if issue.code in UNDECODED]
    return {path: item.detail or issue.code for issue in issues for item in issue.items for path in item.paths}


def labels(listing: Listing, wanted: Iterable[str]) -> dict[str, str]:
    """Return split and class of those of `wanted` that are files of the data: path -> "train · cat"."""
    left, found = set(wanted), {}
    for place, path in enumerate(listing.paths if left else ()):
        if path in left:
            split = listing.splits[listing.split[place]]
            label = int(listing.label[place])
            name = split.classes[label] if 0 <= label < len(split.classes) else ""
            found[path] = " · ".join(part for part in (split.name, name) if part)
    return found


def sizes(listing: Listing, split: int, without: Mapping[str, str]) -> tuple[np.ndarray, int]:
    """Read the sizes of pictures of one split from their headers, of too many an even choice.

    Returns:
        Width and height, (n, 2), and how many files the split has.
    """
    places = np.flatnonzero(listing.split == split)
    chosen = places if len(places) <= MOST_SIZES else places[np.linspace(0, len(places) - 1, MOST_SIZES).astype(int)]
    paths = (listing.paths[place] for place in chosen.tolist())
    found = [size for path in paths if path not in without and (size := _size(path))]
    return np.array(found, dtype=np.int64).reshape(-1, 2), len(places)


def _size(path: str) -> tuple[int, int] | None:
    try:
        with _opened(path) as image:
            return image.size
    except Exception:  # what cannot be opened has its own finding
        return None
