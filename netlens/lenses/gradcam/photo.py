"""A photo under maps: what of it is shown, and what is drawn and said about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor

import numpy as np
from PIL import Image

from netlens.drawing.captions import joined
from netlens.drawing.gallery import ROOM
from netlens.drawing.overlay import Backdrop, Box, Outline
from netlens.lenses.gradcam.captions import Drawn, Words
from netlens.lenses.gradcam.marks import Mark, told

THIN = 4  # a photo so much longer than wide, of which the network sees a part, is not shown whole
PALE = 1.0  # pixels of the photo that the network does not see, from which on this is said


@dataclass(frozen=True, slots=True)
class Sample:
    """A sample as it is drawn."""

    ground: Backdrop  # its photo, as large as a page
    name: str
    title: str  # what the user calls the model
    notes: str  # on what is pale, and outlined
    size: tuple[int, int]  # of the photo, or of the part of it that is shown: height and width
    marks: Mapping[tuple[int, str], Mark]  # what is explained, by `Drawn.question`

    @classmethod
    def of(
        cls,
        picture: Image.Image | np.ndarray,
        box: Box | None,
        outlines: Sequence[Outline],
        marks: Mapping[tuple[int, str], Mark],
        *,
        title: str,
        name: str,
    ) -> Sample:
        """Take a photo, upright, (H, W, 3) uint8 as an array; without a box the network saw all of it."""
        image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
        seen, part = box or (0.0, 0.0, float(image.width), float(image.height)), ""
        cut = _cuts(image, seen)
        if cut and max(image.size) > THIN * min(image.size):
            part = f"shown: the part of the photo ({image.width:,} × {image.height:,}) that the network saw"
            left, top = max(0, floor(seen[0])), max(0, floor(seen[1]))
            image = image.crop((left, top, min(image.width, ceil(seen[2])), min(image.height, ceil(seen[3]))))
            seen = _moved(seen, left, top)
            outlines = [(_moved(outline, left, top), dashed) for outline, dashed in outlines]
            marks = {question: mark.moved(left, top) for question, mark in marks.items()}
            cut = _cuts(image, seen)
        dashed = "; dashed: of other classes" if any(dashed for _, dashed in outlines) else ""
        boxes = f"outlined: the boxes that were given{dashed}" if outlines else ""
        pale = "pale: outside of what the network saw" if cut else ""
        ground = Backdrop.of(image, seen, outlines, (min(image.height, ROOM), min(image.width, ROOM)))
        return cls(ground, name, title, joined(part, pale, boxes), (image.height, image.width), marks)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the photo."""
        return self.ground.photo.height, self.ground.photo.width

    def marked(self, pixels: np.ndarray, question: tuple[int, str]) -> np.ndarray:
        """Draw on the photo, in any size, what is explained."""
        factors = pixels.shape[0] / self.size[0], pixels.shape[1] / self.size[1]
        return self.marks[question].drawn(pixels, factors) if question in self.marks else pixels

    def foot(self, maps: Sequence[Drawn]) -> list[str]:
        """Say what is drawn on the photo beside its maps."""
        return [self.notes, *told(self.marks[drawn.question] for drawn in maps if drawn.question in self.marks)]

    def words(self, maps: Sequence[Drawn]) -> Words:
        """Return the words for a page of some of its maps."""
        return Words(maps, self.title, self.name)


def _cuts(image: Image.Image, seen: Box) -> bool:
    return max(seen[0], seen[1], image.width - seen[2], image.height - seen[3]) > PALE


def _moved(box: Box, left: float, top: float) -> Box:
    return box[0] - left, box[1] - top, box[2] - left, box[3] - top
