"""A map of numbers laid over a photo, where the network saw it: bilinear, in perceptually ordered colours, and 0 is transparent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw

from netlens.drawing.canvas import Canvas
from netlens.drawing.captions import Bar, Captions, significant
from netlens.drawing.colours import LEVELS, PAPER, indices, palette

Box = tuple[float, float, float, float]  # left, top, right, bottom on the photo; its first pixel reaches from 0 to 1
Outline = tuple[Box, bool]  # a box to be drawn on the photo, dashed or not
Colours = Literal["viridis", "diverging"]  # from zero up; around zero

ALPHA = 0.85  # of the largest value
SIDES = (360, 600)  # pixels of the longer side of a photo on a page: at least and at most
APART = 16  # pixels between two photos
VEIL = 0.55  # how far what the network does not see fades into paper
LIGHT, DARK, DASH = (255, 255, 255), (24, 24, 24), 5  # of an outline, which is seen on any photo; pixels of a dash


def overlay(
    picture: Image.Image | np.ndarray,
    values: np.ndarray,
    box: Box,
    *,
    colours: Colours = "viridis",
    alpha: float = ALPHA,
    limit: float | None = None,
) -> Image.Image:
    """Lay a map on the part of a photo that it is about, and leave the rest as it is.

    A pixel gets the colour of its number, the more opaque the larger that is: `alpha` times its share of the limit.

    Args:
        picture: the photo, (H, W, 3) uint8 as an array.
        values: (h, w); magenta where not finite.
        box: where the map lies on the photo; it may reach beyond.
        colours: "viridis": negative numbers are as transparent as 0; "diverging": blue is negative, red is positive.
        alpha: opacity at the limit, 0..1.
        limit: the end of the scale; None: the largest finite |value| of the map.

    Returns:
        A picture of the photo's size, mode "RGB".
    """
    photo = np.array(picture.convert("RGB") if isinstance(picture, Image.Image) else picture, np.uint8)
    down, across = _inside(box[1], box[3], photo.shape[0]), _inside(box[0], box[2], photo.shape[1])
    found = upsampled(values, (box[1], box[3]), (box[0], box[2]), down, across)
    limit = _limit(values) if limit is None else limit
    heat = palette(colours == "diverging")[indices(found, limit, colours == "diverging")]
    opacity = np.where(np.isfinite(found), alpha * _shares(found, limit, colours), 1)[..., None]
    part = photo[down.start : down.stop, across.start : across.stop]
    part[:] = np.rint(part + opacity * (heat.astype(np.float64) - part))
    return Image.fromarray(photo)


def upsampled(values: np.ndarray, rows: tuple[float, float], columns: tuple[float, float], down: range, across: range) -> np.ndarray:
    """Read a map at the centres of pixels: bilinear with half-pixel centres, the edge goes on outwards.

    Where the map covers the pixels exactly, that is `interpolate(mode="bilinear", align_corners=False)` of torch. A number that is not
    finite holds for what is nearest to it.

    Args:
        values: (h, w).
        rows: where the map begins and ends, in pixels.
        columns: the same, from left to right.
        down: the rows of pixels to read.
        across: the columns of pixels.
    """
    numbers = np.where(np.isfinite(values), values, 0).astype(np.float64)
    top, bottom, low = _taps(rows, down, values.shape[0])
    left, right, near = _taps(columns, across, values.shape[1])
    lines = numbers[top] * (1 - low[:, None]) + numbers[bottom] * low[:, None]
    found: np.ndarray = lines[:, left] * (1 - near) + lines[:, right] * near
    nearest = values[np.ix_(np.where(low < 0.5, top, bottom), np.where(near < 0.5, left, right))]
    return np.where(np.isfinite(nearest), found, np.nan)


def overlay_page(
    picture: Image.Image | np.ndarray,
    values: np.ndarray,
    box: Box,
    *,
    title: str,
    subtitle: str = "",
    footnote: str = "",
    unit: str = "",
    colours: Colours = "viridis",
    alpha: float = ALPHA,
    limit: float | None = None,
) -> Image.Image:
    """Draw a photo, and beside it the same photo in grey under a map, with title and colour bar; what is outside of the box is pale.

    Args as for `overlay`; `unit` stands beside the colour bar.
    """
    limit = _limit(values) if limit is None else limit
    photo, factor = _sized(picture if isinstance(picture, Image.Image) else Image.fromarray(picture))
    left, top, right, bottom = box
    place = (left * factor[1], top * factor[0], right * factor[1], bottom * factor[0])
    under = overlay(photo.convert("L"), values, place, colours=colours, alpha=alpha, limit=limit)
    pair = [_veiled(np.array(image), place) for image in (photo, under)]
    wide = photo.width + APART

    def draw(canvas: Canvas, x: int, y: int) -> None:
        for index, pixels in enumerate(pair):
            canvas.paste(x + index * wide, y, pixels)

    captions = Captions(title, subtitle, footnote, [heat_bar(significant(limit), unit, colours, alpha)])
    return captions.page((photo.height, 2 * wide - APART), draw, None)


def heat_bar(end: str, unit: str, colours: Colours = "viridis", alpha: float = ALPHA) -> Bar:
    """Show the colours as they are on white paper, with the words for the limit and, at the right, what the numbers are."""
    signed = colours == "diverging"
    numbers = np.linspace(-1 if signed else 0, 1, LEVELS)
    opacity = alpha * _shares(numbers, 1.0, colours)[:, None]
    blended = np.rint(PAPER + opacity * (palette(signed)[:LEVELS].astype(np.float64) - PAPER)).astype(np.uint8)
    return Bar(blended, (f"−{end}", "0", f"+{end}") if signed else ("0", "", end), unit)


@dataclass(frozen=True, slots=True)
class Backdrop:
    """A photo at the size at which it is drawn, and what lies where on it."""

    photo: Image.Image  # mode "RGB"
    box: Box
    outlines: tuple[Outline, ...] = ()

    @classmethod
    def of(cls, picture: Image.Image | np.ndarray, box: Box, outlines: Sequence[Outline], room: tuple[int, int]) -> Backdrop:
        """Bring a photo to the largest size that fits into so many pixels down and across; pixels of a small one stay visible."""
        image = (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).convert("RGB")
        share = min(room[0] / image.height, room[1] / image.width)
        share = int(share) if share >= 2 else share
        size = max(1, round(image.width * share)), max(1, round(image.height * share))
        resampling = Image.Resampling.NEAREST if share >= 2 else Image.Resampling.LANCZOS
        factors = size[0] / image.width, size[1] / image.height
        moved = [(_scaled(outline, factors), dashed) for outline, dashed in outlines]
        return cls(image.resize(size, resampling, reducing_gap=3.0), _scaled(box, factors), tuple(moved))

    def fitted(self, room: tuple[int, int]) -> Backdrop:
        """Return the same in another size."""
        return Backdrop.of(self.photo, self.box, self.outlines, room)

    def plain(self) -> np.ndarray:
        """Return the photo, (H, W, 3) uint8: pale where the network does not see it, and outlined."""
        return self._finished(self.photo)

    def under(self, values: np.ndarray, limit: float) -> np.ndarray:
        """Return the photo in grey under a map, (h, w); the colours go from 0, which is transparent, to `limit`."""
        return self._finished(overlay(self.photo.convert("L"), values, self.box, limit=limit))

    def _finished(self, image: Image.Image) -> np.ndarray:
        framed = Image.fromarray(_veiled(np.array(image), self.box))
        for outline, dashed in self.outlines:
            _outline(ImageDraw.Draw(framed), outline, dashed)
        return np.array(framed)


def _scaled(box: Box, factors: tuple[float, float]) -> Box:
    across, down = factors
    return box[0] * across, box[1] * down, box[2] * across, box[3] * down


def _outline(pen: ImageDraw.ImageDraw, box: Box, dashed: bool) -> None:
    """Draw a light line between two dark ones around a box, or dashes that are light and dark in turn."""
    left, top = round(box[0]), round(box[1])
    right, bottom = max(left, round(box[2]) - 1), max(top, round(box[3]) - 1)
    if not dashed:
        pen.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline=DARK, width=3 if min(right - left, bottom - top) > 4 else 1)
        pen.rectangle((left, top, right, bottom), outline=LIGHT)
        return
    pen.rectangle((left, top, right, bottom), outline=DARK)
    for start in range(left, right + 1, 2 * DASH):
        for y in (top, bottom):
            pen.line((start, y, min(start + DASH - 1, right), y), LIGHT)
    for start in range(top, bottom + 1, 2 * DASH):
        for x in (left, right):
            pen.line((x, start, x, min(start + DASH - 1, bottom)), LIGHT)


def _limit(values: np.ndarray) -> float:
    return float(np.abs(values).max(initial=0, where=np.isfinite(values)))


def _shares(values: np.ndarray, limit: float, colours: Colours) -> np.ndarray:
    """Return how far each number is on its way from 0 to the limit, 0..1."""
    sizes = np.abs(values) if colours == "diverging" else values
    shares: np.ndarray = np.clip(np.nan_to_num(sizes) / (limit or 1), 0, 1)
    return shares


def _inside(start: float, stop: float, size: int) -> range:
    """Return the pixels of 0..size whose centres lie in a stretch."""
    first, last = (min(max(int(np.ceil(edge - 0.5)), 0), size) for edge in (start, stop))
    return range(first, max(first, last))


def _taps(stretch: tuple[float, float], pixels: range, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return, for the centre of each pixel, the numbers before and after it, and the share of the latter."""
    start, stop = stretch
    places = (np.arange(pixels.start, pixels.stop) + 0.5 - start) * (size / (stop - start)) - 0.5
    places = np.clip(places, 0, size - 1)
    before = places.astype(int)
    return before, np.minimum(before + 1, size - 1), places - before


def _sized(photo: Image.Image) -> tuple[Image.Image, tuple[float, float]]:
    """Bring a photo to a size that fits a page; pixels of a small one stay visible. Also returns the factors down and across."""
    photo, longest = photo.convert("RGB"), max(photo.size)
    if longest < SIDES[0]:
        times = -(-SIDES[0] // longest)
        size = photo.width * times, photo.height * times
        return photo.resize(size, Image.Resampling.NEAREST), (times, times)
    share = min(1.0, SIDES[1] / longest)
    size = max(1, round(photo.width * share)), max(1, round(photo.height * share))
    return photo.resize(size, Image.Resampling.LANCZOS), (size[1] / photo.height, size[0] / photo.width)


def _veiled(pixels: np.ndarray, box: Box) -> np.ndarray:
    """Fade what is outside of the box."""
    seen = np.zeros(pixels.shape[:2], bool)
    down, across = _inside(box[1], box[3], pixels.shape[0]), _inside(box[0], box[2], pixels.shape[1])
    seen[down.start : down.stop, across.start : across.stop] = True
    pale = pixels + VEIL * (PAPER - pixels.astype(np.float64))
    faded: np.ndarray = np.where(seen[..., None], pixels, np.rint(pale)).astype(np.uint8)
    return faded
