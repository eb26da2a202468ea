"""What the gradcam lens draws: the maps of one sample over its photo, frames of a film, maps without a picture, and contact sheets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from netlens.drawing.captions import Captions, joined
from netlens.drawing.gallery import Card, arranged, gallery
from netlens.drawing.grids import Grid, Scale, Tiles
from netlens.drawing.overlay import Backdrop
from netlens.lenses.gradcam.captions import UNIT, Drawn, Words, blank_words, class_words, subject_words, tile_words
from netlens.lenses.gradcam.photo import Sample

COLUMNS = 7  # of a table of targets and methods: with more, each target has a page of its own
ROWS, TALL = 5, 1500  # rows on one page of such a table at most, and their pixels
FRAMES = 8  # of a film
SMALL, SHEET, SHEET_ROWS = 220, 56, 1700  # of a contact sheet: the side of a picture at most, pictures on a page, pixels of all rows


def photo_pages(sample: Sample, maps: Sequence[Drawn]) -> Iterator[Image.Image]:
    """Lay the maps of one sample, (h, w) each, on its photo, which comes first; all that fit beside each other are on one page.

    Several targets by several methods are a table with a row for each target; where this would be too wide, each target has a page.
    """
    questions = _by_question(maps)
    methods = list(dict.fromkeys(drawn.facts.method for drawn in maps))
    if len(methods) == 1:
        yield _photo_page(sample, maps)
    elif len(questions) == 1 or len(methods) >= COLUMNS:
        yield from (_photo_page(sample, row) for row in questions)
    else:
        yield from _table(sample, questions, methods)


def _photo_page(sample: Sample, maps: Sequence[Drawn]) -> Image.Image:
    """Show the photo and then every map."""
    words, several = sample.words(maps), len(maps) > 1
    columns, room = arranged(1 + len(maps), sample.shape)
    ground = sample.ground.fitted(room)
    cards = [
        _photo_card(
            sample, ground, drawn, *((words.of(drawn), joined(_which(drawn), tile_words(drawn, words.place))) if several else ("", ""))
        )
        for drawn in maps
    ]
    captions = Captions(words.heading(), words.about(words.scale()), words.foot(*sample.foot(maps)), words.bars())
    photo = sample.marked(ground.plain(), maps[0].question) if words.one_target else ground.plain()
    return gallery(captions, [Card(photo, sample.name if several else ""), *cards], columns)


def _table(sample: Sample, questions: Sequence[Sequence[Drawn]], methods: Sequence[str]) -> Iterator[Image.Image]:
    """Show a row for each target, with the photo before it, and a column for each method."""
    columns, pages = 1 + len(methods), -(-len(questions) // ROWS)
    rows = -(-len(questions) // pages)
    _, room = arranged(columns * rows, sample.shape, columns=columns, tall=TALL)
    ground = sample.ground.fitted(room)
    words = sample.words([drawn for row in questions for drawn in row])
    captions = Captions(words.heading(), words.about(words.scale()), words.foot(*sample.foot(words.maps)), words.bars())
    for start in range(0, len(questions), rows):
        cards = []
        for row in questions[start : start + rows]:
            found = {drawn.facts.method: drawn for drawn in row}
            photo = sample.marked(ground.plain(), row[0].question)
            cards.append(Card(photo, class_words(row[0].facts.target), _asked(row[0])))
            cards += [_cell(sample, ground, found.get(method), words.place) for method in methods]
        yield gallery(captions, cards, columns)


def _which(drawn: Drawn) -> str:
    """Say which of several detections a map explains, for they may be of one class."""
    return "" if drawn.facts.target.box is None else _asked(drawn)


def _asked(drawn: Drawn) -> str:
    """Say what was asked, unless that is the name of the class, which stands above it."""
    target, asked = drawn.facts.target, drawn.facts.asked.casefold()
    return "" if asked in ((target.name or "").casefold(), str(target.index)) else drawn.facts.asked


def _cell(sample: Sample, ground: Backdrop, drawn: Drawn | None, place: str) -> Card:
    if drawn is None:  # this method has no map of this target
        return Card(np.zeros((0, 0, 3), np.uint8))
    return _photo_card(sample, ground, drawn, drawn.method.title, tile_words(drawn, place))


def film_pages(frames: np.ndarray, maps: Sequence[Drawn], *, title: str, name: str) -> Iterator[Image.Image]:
    """Lay the maps of a film on its frames, a page for each target: the frames in a row, and below them a row for each method.

    Args:
        frames: what the network saw, (T, H, W, 3) uint8.
        maps: (t, h, w) each, or (h, w) for all frames; a slice is shown on the frame in its middle.
        title: what the user calls the model.
        name: of the sample.
    """
    height, width = frames.shape[1:3]
    for row in _by_question(maps):
        slices = max(len(_slices(drawn)) for drawn in row)
        kept = np.linspace(0, slices - 1, min(slices, FRAMES)).round().astype(int).tolist()
        columns, room = arranged(len(kept), (height, width), columns=len(kept))
        shown = [middle_frame(place, slices, len(frames)) for place in kept]
        grounds = [Backdrop.of(frames[frame], (0, 0, width, height), (), room) for frame in shown]
        words = Words(row, title, name)
        serves = f"maps serve all {len(frames)} frames" if slices == 1 < len(frames) else ""
        cards = [Card(ground.plain(), f"frame {frame}", serves) for ground, frame in zip(grounds, shown, strict=True)]
        for drawn in row:
            heads = [(drawn.method.title, tile_words(drawn, words.place)), *[("", "")] * (len(kept) - 1)]
            cards += [
                _card(ground, drawn, *head, place * len(_slices(drawn)) // slices)
                for ground, head, place in zip(grounds, heads, kept, strict=True)
            ]
        seen = f"shown: what the network saw of each frame, {width} × {height}"
        some = f"{len(kept)} of {slices} slices in time" if len(kept) < slices else ""
        yield gallery(Captions(words.heading(), words.about(some, words.scale()), words.foot(seen), words.bars()), cards, columns)


def bare_grids(maps: Sequence[Drawn], *, title: str, name: str) -> list[Grid]:
    """Show maps without a picture as tiles; those in time are strips, and the slices of a film stand below one another."""
    alike: dict[object, list[Drawn]] = {}
    for drawn in maps:
        limit = drawn.limit if drawn.common or drawn.values.ndim > 2 else None
        alike.setdefault((drawn.values.shape, limit), []).append(drawn)
    return [_bare(same, Words(same, title, name)) for same in alike.values()]


def _bare(same: Sequence[Drawn], words: Words) -> Grid:
    shape = same[0].values.shape
    strips = len(shape) == 1
    values = np.concatenate([drawn.values.reshape(-1, *((1, *shape) if strips else shape[-2:])) for drawn in same])
    slices = len(values) // len(same)
    labels = tuple(
        joined(words.of(drawn), f"slice {part}" if slices > 1 else "", blank_words(drawn)) for drawn in same for part in range(slices)
    )
    limits = {drawn.limit for drawn in same}
    scale = Scale(signed=False, limit=limits.pop(), unit=UNIT) if len(limits) == 1 else Scale(signed=False, unit="positive part")
    places = ((), tuple(map(str, range(shape[0])))) if strips else ((), ())
    tiles = Tiles(values, columns=1, row_labels=labels, ticks=places) if strips else Tiles(values, labels)
    return Grid(words.heading(), tiles, scale, words.about(), words.foot())


@dataclass(frozen=True, slots=True)
class SheetForm:
    """How the pictures of a contact sheet are spread over its pages."""

    pages: int
    each: int  # pictures on a page, but for the last
    columns: int
    room: tuple[int, int]  # pixels down and across for a picture

    @classmethod
    def of(cls, count: int) -> SheetForm:
        """Make all pages about equally full."""
        pages = -(-count // SHEET)
        each = -(-count // pages)
        return cls(pages, each, *arranged(each, (1, 1), large=SMALL, tall=SHEET_ROWS))


def sheet_card(sample: Sample, drawn: Drawn, room: tuple[int, int]) -> Card:
    """Return one picture of a contact sheet: the photo under a map, its name, and what the map explains."""
    return _photo_card(sample, sample.ground.fitted(room), drawn, sample.name, subject_words(drawn))


def sheet_page(cards: Sequence[Card], maps: Sequence[Drawn], form: SheetForm, *, title: str, notes: str, page: int) -> Image.Image:
    """Draw one page of a contact sheet of maps by one method."""
    words, number = Words(maps, "", ""), f"page {page} of {form.pages}" if form.pages > 1 else ""
    heading = joined(title, maps[0].method.title)
    captions = Captions(heading, words.about(number, words.scale()), words.foot(notes), words.bars(""))
    return gallery(captions, cards, form.columns, lines=1)


def middle_frame(part: int, parts: int, frames: int) -> int:
    """Return the frame in the middle of one of the equal parts of a film."""
    return min(frames - 1, int((part + 0.5) * frames / parts))


def _photo_card(sample: Sample, ground: Backdrop, drawn: Drawn, title: str, note: str) -> Card:
    """Draw a map, and what it explains."""
    card = _card(ground, drawn, title, note)
    return replace(card, picture=sample.marked(card.picture, drawn.question))


def _card(ground: Backdrop, drawn: Drawn, title: str, note: str, part: int = 0) -> Card:
    """Draw a map, of a film one slice."""
    return Card(ground.under(_slices(drawn)[part], drawn.limit), title, note, blank_words(drawn))


def _slices(drawn: Drawn) -> np.ndarray:
    slices: np.ndarray = drawn.values.reshape(-1, *drawn.values.shape[-2:])
    return slices


def _by_question(maps: Sequence[Drawn]) -> list[list[Drawn]]:
    found: dict[tuple[int, str], list[Drawn]] = {}
    for drawn in maps:
        found.setdefault(drawn.question, []).append(drawn)
    return list(found.values())
