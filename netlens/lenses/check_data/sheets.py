"""Contact sheets: what a kind of fault looks like, and what the network is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np
from PIL import Image

from netlens.data.issues import Issue, Item
from netlens.data.listing import Listing
from netlens.drawing.captions import Captions, joined
from netlens.drawing.colours import MAGENTA
from netlens.drawing.gallery import Card, gallery
from netlens.drawing.thumbnails import fitted
from netlens.lenses.check_data.rules import sentence
from netlens.lenses.check_data.samples import Unopened, thumbnail, what_is_left
from netlens.wording import counted

MOST = 24  # places of one fault
PAIRS = 12  # of them, where each is two pictures
SIDE, BETWEEN = 168, 4  # pixels of a picture, and between the two of a pair
COLUMNS = (6, 4)  # of pictures, and of pairs
GRID, TRIED = 36, 144  # samples of the grid, and files that are opened for it at most
NOTHING, FRAME = (228, 228, 228), 200  # the ground where no picture is, and the grey of lines around pictures
PARTIAL = ("picture-truncated", "picture-damaged")  # of which a part can be decoded
AS_SEEN = "as ImageFolder loads them: convert('RGB'), EXIF orientation not read"


@dataclass(frozen=True)
class Drawn:
    """A page, and whether there is any picture on it."""

    image: Image.Image
    opened: bool


def fault_sheet(title: str, issue: Issue, labels: Mapping[str, str], without: Mapping[str, str]) -> Drawn:
    """Draw up to 24 places of a fault, or 12 pairs of pictures that are alike.

    Args:
        title: what the user calls the data.
        issue: the fault.
        labels: path -> split and class.
        without: files that must not be opened -> why.
    """
    paired = any(len(item.paths) > 1 for item in issue.items)
    items = issue.items[: PAIRS if paired else MOST]
    with what_is_left() if issue.code in PARTIAL else nullcontext():
        found = [_card(item, labels, without) for item in items]
    shown = f"the first {len(items):,} of {len(issue.items):,}" if len(items) < len(issue.items) else ""
    partial = "what could be decoded, the rest is grey" if issue.code == PARTIAL[0] else ""
    captions = Captions(f"{title} · {issue.code}", joined(sentence(issue), shown), joined(AS_SEEN, partial))
    page = gallery(captions, [card for card, _ in found], COLUMNS[paired], lines=3)
    return Drawn(page, any(opened for _, opened in found))


def _card(item: Item, labels: Mapping[str, str], without: Mapping[str, str]) -> tuple[Card, bool]:
    """Draw one place: a picture, or the first two of those that are alike."""
    paths = item.paths[:2]
    title = " = ".join(PurePath(path).name for path in paths)
    of = list(dict.fromkeys(labels.get(path) or PurePath(path).parent.name for path in paths))
    more = f"and {len(item.paths) - 2:,} more" if len(item.paths) > 2 else ""
    parts = [_opened(path, without) for path in paths]
    reason = next((reason for _, reason in parts if reason), "")
    note = joined(" = ".join(filter(None, of)), more, item.detail if item.detail != reason else "")
    return Card(_beside([picture for picture, _ in parts]), title, note, reason), any(not reason for _, reason in parts)


def _opened(path: str, without: Mapping[str, str]) -> tuple[np.ndarray, str]:
    """Return a picture, or a blank one and why."""
    try:
        if path in without:
            raise Unopened(without[path])
        return _framed(thumbnail(path, SIDE - 2)), ""
    except Unopened as error:
        return np.full((SIDE * 2 // 3, SIDE, 3), NOTHING, np.uint8), str(error)


def _beside(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Put pictures beside each other on white, their upper edges on a line."""
    if len(pictures) == 1:
        return pictures[0]
    page = np.full((max(map(len, pictures)), sum(each.shape[1] + BETWEEN for each in pictures) - BETWEEN, 3), 255, np.uint8)
    left = 0
    for picture in pictures:
        page[: len(picture), left : left + picture.shape[1]] = picture
        left += picture.shape[1] + BETWEEN
    return page


def file_grid(title: str, listing: Listing, split: int, without: Mapping[str, str], seed: int) -> Image.Image | None:
    """Draw 36 random pictures of a split as ImageFolder gives them; None where none can be opened."""
    places = np.random.default_rng(seed).permutation(np.flatnonzero(listing.split == split))
    cards: list[Card] = []
    of = listing.splits[split]
    for place in places[:TRIED].tolist():
        picture, reason = _opened(listing.paths[place], without)
        if not reason:
            label = int(listing.label[place])
            name = of.classes[label] if 0 <= label < len(of.classes) else ""
            cards.append(Card(picture, name, PurePath(listing.paths[place]).name))
        if len(cards) == GRID:
            break
    if not cards:
        return None
    words = joined(f"{len(cards)} of {len(places):,} pictures, chosen at random", f"seed {seed}", "what the transforms are given")
    return gallery(Captions(joined(title, of.name, "samples"), words, AS_SEEN), cards, 6, lines=1)


def tensor_grid(title: str, pictures: Sequence[np.ndarray], labels: Sequence[str]) -> Image.Image | None:
    """Draw samples of a loader just before the network, (C, H, W) each, from the lowest to the highest number of all."""
    shown = [np.asarray(picture, np.float64) for picture in pictures[:GRID] if np.ndim(picture) == 3 and np.size(picture)]
    if not shown:
        return None
    finite = np.concatenate([picture[np.isfinite(picture)] for picture in shown])
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    cards = [Card(_painted(picture, low, high), label) for picture, label in zip(shown, [*labels, *[""] * len(shown)], strict=False)]
    channels = {len(picture) for picture in shown} - {1, 3}
    foot = joined(
        f"{low:.3g} is black, {high:.3g} is white, for all samples and channels alike: no normalisation is undone",
        "the first 3 channels as red, green and blue" if channels else "",
        "magenta: NaN or infinite" if any(not np.isfinite(picture).all() for picture in shown) else "",
    )
    words = counted(len(cards), "sample") + (" with their labels" if any(labels) else "")
    return gallery(Captions(f"{title} · just before the network", words, foot), cards, 6, lines=1)


def _painted(picture: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return (h, w, 3) uint8 at the size of a card."""
    channels = picture[:3] if len(picture) >= 3 else picture[:1].repeat(3, axis=0)
    odd = ~np.isfinite(channels).all(axis=0)
    levels = (np.where(np.isfinite(channels), channels, low) - low) / (high - low or 1) * 255
    pixels = np.rint(levels).clip(0, 255).astype(np.uint8).transpose(1, 2, 0).copy()
    pixels[odd] = MAGENTA
    return _framed(fitted(pixels, (SIDE - 2, SIDE - 2)))


def _framed(picture: np.ndarray) -> np.ndarray:
    """Draw a line around a picture, which may be as white as the paper."""
    return np.pad(picture, ((1, 1), (1, 1), (0, 0)), constant_values=FRAME)
