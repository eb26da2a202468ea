"""Writing pictures one after the other, and what the report says about each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from PIL import Image

from netlens.drawing.grids import Grid, Scale, pages
from netlens.parts import Picture


class Folder(Protocol):
    """Where pictures go."""

    def reserve(self, names: Iterable[str]) -> None:
        """Refuse names under which files stand that are not ours."""

    def save(self, name: str, image: Image.Image, *, page: int = 1, prefer: bool = False, **facts: str) -> str:
        """Write one picture, or one page of it, and return its path."""


def write(
    folder: Folder,
    name: str,
    image: Image.Image,
    *,
    shows: str,
    layers: tuple[str, ...],
    scale: str,
    page: int = 1,
    prefer: bool = False,
) -> Picture:
    """Write one picture.

    Args:
        folder: where.
        name: of the file, beside the lens and the subject: "conv1".
        image: the picture.
        shows: what it shows: "filters".
        layers: the names of those that it shows.
        scale: how numbers became colours: "±0.98, common".
        page: its number, where there are several.
        prefer: one of those to look at first.
    """
    facts = {"Method": shows, "Scale": scale, **({"Layer": layers[0]} if len(layers) == 1 else {})}
    return Picture(folder.save(name, image, page=page, prefer=prefer, **facts), shows, layers, scale, *image.size)


def write_pages(
    folder: Folder, name: str, images: Iterable[Image.Image], *, shows: str, layers: tuple[str, ...], scale: str
) -> Iterator[Picture]:
    """Write the pages of one picture: "conv1", "conv1-2", "conv1-3"."""
    for number, image in enumerate(images, 1):
        yield write(folder, name, image, shows=shows, layers=layers, scale=scale, page=number)


def write_grids(
    folder: Folder, name: str, grids: Iterable[Grid], *, shows: str, layers: tuple[str, ...], prefer: bool = False
) -> Iterator[Picture]:
    """Draw and write grids, each on as many pages as it needs; `prefer` is the first."""
    images = [(image, grid) for grid in grids for image in pages(grid)]
    for number, (image, grid) in enumerate(images, 1):
        first = prefer and number == 1
        yield write(folder, name, image, shows=shows, layers=layers, scale=scale_text(grid.scale), page=number, prefer=first)


def scale_text(scale: Scale) -> str:
    """Say a scale in words."""
    if scale.limit is None:
        return "each tile its own"
    return f"{'±' if scale.signed else '0 to '}{scale.limit:.3g}, common"
