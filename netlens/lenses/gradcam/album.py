"""The pictures of one request: the maps of each sample on its photo, contact sheets, and the raw numbers as files."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from netlens.drawing.album import Folder, write
from netlens.drawing.captions import joined
from netlens.drawing.gallery import Card
from netlens.drawing.grids import pages as grid_pages
from netlens.drawing.overlay import Box, Outline
from netlens.lenses.gradcam import figures
from netlens.lenses.gradcam.captions import Drawn
from netlens.lenses.gradcam.marks import Mark
from netlens.lenses.gradcam.photo import Sample
from netlens.lenses.gradcam.report import GradcamReport
from netlens.loading.images import open_image
from netlens.parts import Picture

_ENDING = re.compile(r"\.[A-Za-z]\w{2,3}(?= to |$)")  # of the first and last frame of a film


class Arrays(Protocol):
    """Where raw numbers go."""

    def reserve(self, names: Iterable[str]) -> None:
        """Refuse names under which files stand that are not ours."""

    def save(self, name: str, values: np.ndarray) -> str:
        """Write numbers as float32 and return the path."""


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """What lies under the maps of one sample; without a photo and without pixels they stand by themselves."""

    photo: Path | None = None
    seen: np.ndarray | None = None  # without a photo: what the network saw, (H, W, 3) uint8, or frames (T, H, W, 3)
    box: Box | None = None  # where the network's input lies on the photo; None: everywhere
    outlines: tuple[Outline, ...] = ()  # boxes of objects on the photo; those of no class that is asked for are dashed
    marks: Mapping[tuple[int, str], Mark] = field(default_factory=dict)  # what is explained, by `Drawn.question`

    @property
    def rank(self) -> int:
        """Dimensions of what is shown: 2 for a picture, 3 for a film, else 0."""
        return 2 if self.photo is not None else self.seen.ndim - 1 if self.seen is not None else 0


def draw(
    report: GradcamReport,
    maps: Mapping[int, np.ndarray],
    scenes: Sequence[Scene],
    *,
    title: str,
    common: bool,
    folder: Folder,
    step: Callable[[], object],
) -> Iterator[Picture]:
    """Write the pictures: of each sample its maps, and of several photos contact sheets, one for each method.

    Args:
        report: what was learned.
        maps: the raw numbers of its maps by their index, (w,), (h, w) or (t, h, w); what is missing is not drawn.
        scenes: one for each of its shots.
        title: what the user calls the model.
        common: all maps of a method have one scale; else each its own.
        folder: where they are written.
        step: called after each sample.
    """
    samples = _drawn(report, maps, common)
    laid = [sample for sample, own in samples.items() if scenes[sample].rank == 2 and all(drawn.values.ndim == 2 for drawn in own)]
    sheets = _sheets([samples[sample] for sample in laid], title, folder)
    folder.reserve([*(_name(report, sample, scenes) for sample in samples), *(sheet.name for sheet in sheets.values())])
    for sample, own in samples.items():
        scene, shot, name = scenes[sample], report.shots[sample].name, _name(report, sample, scenes)
        if sample in laid:
            shown = _opened(scene, shot, title)
            yield from _written(folder, name, figures.photo_pages(shown, own), own, prefer=not sheets)
            for drawn in own:
                if sheet := sheets.get(drawn.facts.method):
                    yield from sheet.add(shown, drawn)
        elif scene.seen is not None and scene.rank == 3 and all(drawn.values.ndim > 1 for drawn in own):
            yield from _written(folder, name, figures.film_pages(scene.seen, own, title=title, name=shot), own, prefer=True)
        else:
            pages = [image for grid in figures.bare_grids(own, title=title, name=shot) for image in grid_pages(grid)]
            yield from _written(folder, name, pages, own, prefer=True)
        step()


def write_raw(report: GradcamReport, maps: Mapping[int, np.ndarray], scenes: Sequence[Scene], arrays: Arrays) -> GradcamReport:
    """Write the raw numbers of each map to a file of its own, named after the sample, the class and the method, and say where.

    Args as for `draw`.
    """
    every = [(index, report.maps[index]) for index in sorted(maps)]
    names = [
        f"{_name(report, facts.sample, scenes)}-{facts.target.name or facts.target.index}-{_plain(facts.method)}" for _, facts in every
    ]
    arrays.reserve(names)
    files = {index: arrays.save(name, maps[index]) for (index, _), name in zip(every, names, strict=True)}
    return replace(report, maps=tuple(replace(facts, file=files.get(index)) for index, facts in enumerate(report.maps)))


@dataclass(slots=True)
class _Sheet:
    """The contact sheet of one method: a page is written when it is full."""

    name: str
    total: int  # maps that it will have
    title: str
    folder: Folder
    cards: list[Card] = field(default_factory=list)
    maps: list[Drawn] = field(default_factory=list)
    notes: str = ""  # of the sample with the most to be said
    added: int = 0
    page: int = 1

    def add(self, sample: Sample, drawn: Drawn) -> Iterator[Picture]:
        """Take one more map."""
        form = figures.SheetForm.of(self.total)
        self.cards.append(figures.sheet_card(sample, drawn, form.room))
        self.maps.append(drawn)
        self.notes = max(self.notes, joined(*sample.foot([drawn])), key=len)
        self.added += 1
        if self.added == self.total or len(self.cards) == form.each:
            image = figures.sheet_page(self.cards, self.maps, form, title=self.title, notes=self.notes, page=self.page)
            yield _write(self.folder, self.name, image, self.maps, page=self.page, prefer=self.page == 1)
            self.cards, self.maps, self.page = [], [], self.page + 1


def _drawn(report: GradcamReport, maps: Mapping[int, np.ndarray], common: bool) -> dict[int, list[Drawn]]:
    """Return what is drawn of each sample that has a map."""
    greatest: dict[str, float] = {}
    for facts in report.maps:
        greatest[facts.method] = max(greatest.get(facts.method, 0.0), facts.greatest or 0.0)
    samples: dict[int, list[Drawn]] = {}
    for index, facts in enumerate(report.maps):
        if index in maps:
            limit = greatest[facts.method] if common else None
            samples.setdefault(facts.sample, []).append(Drawn.of(facts, maps[index], limit, report.run.top_channels))
    return samples


def _sheets(samples: Sequence[Sequence[Drawn]], title: str, folder: Folder) -> dict[str, _Sheet]:
    """Begin a sheet for each method, if there are several pictures."""
    counts = Counter(drawn.facts.method for own in samples for drawn in own)
    if len(samples) < 2:
        return {}
    return {name: _Sheet("sheet" if len(counts) == 1 else f"sheet-{_plain(name)}", total, title, folder) for name, total in counts.items()}


def _name(report: GradcamReport, sample: int, scenes: Sequence[Scene]) -> str:
    """Name the file of a sample."""
    scene, name = scenes[sample], report.shots[sample].name
    if scene.photo is not None:
        return scene.photo.stem
    return _ENDING.sub("", name) if scene.rank == 3 else name


def _plain(method: str) -> str:
    """Name a method in a file name, which takes no plus sign: "gradcampp"."""
    return method.replace("+", "p")


def _opened(scene: Scene, name: str, title: str) -> Sample:
    picture = open_image(scene.photo).image if scene.photo is not None else scene.seen
    assert picture is not None
    return Sample.of(picture, scene.box, scene.outlines, scene.marks, title=title, name=name)


def _written(folder: Folder, name: str, images: Iterable[Image.Image], maps: Sequence[Drawn], *, prefer: bool) -> Iterator[Picture]:
    for page, image in enumerate(images, 1):
        yield _write(folder, name, image, maps, page=page, prefer=prefer and page == 1)


def _write(folder: Folder, name: str, image: Image.Image, maps: Sequence[Drawn], *, page: int, prefer: bool) -> Picture:
    layers = tuple(dict.fromkeys(layer for drawn in maps for layer in drawn.facts.layers))
    titles, limits = dict.fromkeys(drawn.method.title for drawn in maps), {drawn.limit for drawn in maps}
    scale = "each map its own" if not maps[0].common else f"0 to {max(limits):.3g}, common" if len(titles) == 1 else "common to a method"
    return write(folder, name, image, shows=", ".join(titles), layers=layers, scale=scale, page=page, prefer=prefer)
