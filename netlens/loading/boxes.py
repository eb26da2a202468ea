"""`--boxes`: where the objects on photos are, from netlens's own JSON, COCO instances, Pascal VOC or YOLO files.

All are read as (left, top, right, bottom) in pixels of the photo, from its upper left corner; the first pixel reaches from 0 to 1. A box is
looked at when its photo is asked for, so that a faulty one in a large file stops nobody else.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree import ElementTree

from netlens.errors import FileProblem
from netlens.loading.preprocessing import Geometry
from netlens.loading.suggest import did_you_mean
from netlens.loading.words import cause, listed, one_line, user_path

Box = tuple[float, float, float, float]
Size = tuple[int, int]  # height, width

FORMATS = 'write {"photo.png": [{"label": "cat", "box": [left, top, right, bottom]}]}, COCO instances, or a folder of VOC or YOLO files'
PERMISSIONS = "check the path and its permissions"
ROUNDING = 1  # pixels by which a box may lie outside its photo: formats differ in where they begin to count
YOLO_NAMES = ("classes.txt", "obj.names")


@dataclass(frozen=True, slots=True)
class Labelled:
    """One object on a photo."""

    label: str
    corners: Box
    shares: bool = False  # corners are shares of the photo's width and height, as in YOLO


Entries = Iterator[tuple[str, list[Labelled]]]  # a photo and its objects


@dataclass(frozen=True, slots=True)
class Boxes:
    """The objects of many photos."""

    source: str  # the file, in words
    photos: dict[str, dict[str, list[Labelled]]]  # file name -> the photo as the source names it -> its objects

    @property
    def labels(self) -> frozenset[str]:
        """Every label that occurs."""
        return frozenset(box.label for photos in self.photos.values() for found in photos.values() for box in found)

    def boxes_for(self, photo: Path, label: str, size: Size) -> list[Box]:
        """Return the boxes on one photo that have a label; there may be none.

        Args:
            photo: its path; where several photos of the source have its name, the folders decide.
            label: a class; case and separators do not matter, and of names like "tabby, tabby cat" each will do.
            size: of the upright photo, height and width.

        Raises:
            FileProblem: the source does not know the photo, or a box is inverted or outside the photo.
        """
        wanted = {_plain(name) for name in (label, *label.split(","))}
        return [self._checked(box, photo, size) for box in self._of(photo) if _plain(box.label) in wanted]

    def _of(self, photo: Path) -> list[Labelled]:
        named = self.photos.get(photo.name) or self.photos.get(photo.stem)
        if named is None:
            hint = did_you_mean(photo.name, self.photos, "leave the photo out, or add it; a photo without objects has an empty list")
            raise FileProblem(f"{self.source} has no photo {one_line(photo.name)!r}", hint=hint)
        folders = str(photo.absolute().parent.as_posix())
        fitting = [name for name in named if f"/{folders}/".endswith(f"/{PurePosixPath(name).parent}/".replace("/./", "/"))]
        if not fitting and len(named) > 1:
            what = f"{self.source} has several photos {one_line(photo.name)!r}: {listed(named)}"
            raise FileProblem(what, hint="name the photo with the folder that the file gives it")
        return named[max(fitting or named, key=len)]

    def _checked(self, box: Labelled, photo: Path, size: Size) -> Box:
        height, width = size
        scales = (width, height, width, height) if box.shares else (1, 1, 1, 1)
        left, top, right, bottom = (value * scale for value, scale in zip(box.corners, scales, strict=True))
        what = f"{self.source}: a box of {one_line(box.label)!r} on {one_line(photo.name)!r}"
        where = f"[{left:g}, {top:g}, {right:g}, {bottom:g}]"
        if right <= left or bottom <= top:
            raise FileProblem(
                f"{what} ends before it begins: {where}", hint="a box is [left, top, right, bottom]; in COCO its width and height"
            )
        if min(left, top) < -ROUNDING or right > width + ROUNDING or bottom > height + ROUNDING:
            hint = f"count in pixels of the whole, upright photo, which is {width} wide and {height} high"
            raise FileProblem(f"{what} lies outside of it: {where}", hint=hint)
        return max(left, 0), max(top, 0), min(right, width), min(bottom, height)


def on_input(boxes: Iterable[Box], geometry: Geometry) -> list[Box]:
    """Return where boxes of a photo lie on the network's input, in its pixels; what the crop leaves out is outside of it."""
    return [(*geometry.to_input(left, top), *geometry.to_input(right, bottom)) for left, top, right, bottom in boxes]


def read_boxes(path: str | Path) -> Boxes:
    """Read the boxes of a file or a folder; which format it is, its content says.

    Raises:
        FileProblem: it cannot be read, or is none of the formats.
    """
    path = user_path(path)
    found: dict[str, dict[str, list[Labelled]]] = defaultdict(dict)
    for photo, objects in _read(path):
        found[PurePosixPath(photo).name].setdefault(photo, []).extend(objects)
    return Boxes(one_line(path.name), dict(found))


def _read(path: Path) -> Entries:
    if path.is_dir():
        return _folder(path)
    return _voc([path]) if path.suffix.lower() == ".xml" else _json(path)


def _folder(folder: Path) -> Entries:
    files = [path for path in sorted(_listed(folder)) if not path.name.startswith(".")]
    if voc := [path for path in files if path.suffix.lower() == ".xml"]:
        return _voc(voc)
    if yolo := [path for path in files if path.suffix.lower() == ".txt" and path.name not in YOLO_NAMES]:
        return _yolo(yolo, [place / name for place in (folder, folder.parent) for name in YOLO_NAMES])
    raise FileProblem(f"{one_line(folder)} holds neither VOC (.xml) nor YOLO (.txt) files", hint="name a file, or their folder")


# --- JSON


def _json(path: Path) -> Entries:
    try:
        document = json.loads(_content(path))
    except (ValueError, RecursionError) as error:
        raise _unknown(path, f"it is not JSON: {cause(error)}") from error
    if not isinstance(document, dict):
        raise _unknown(path, "its JSON is no object")
    return _coco(path, document) if {"images", "annotations"} <= document.keys() else _own(path, document)


def _own(path: Path, document: dict[str, Any]) -> Entries:
    for photo, objects in document.items():
        if not isinstance(objects, list) or not all(isinstance(found, dict) and "label" in found for found in objects):
            raise _unknown(path, f"{one_line(photo)!r} has no list of objects with a label and a box")
        yield photo, [Labelled(str(found["label"]), _corners(path, photo, found.get("box"))) for found in objects]


def _coco(path: Path, document: dict[str, Any]) -> Entries:
    try:
        photos = {image["id"]: str(image["file_name"]) for image in document["images"]}
        names = {kind["id"]: str(kind["name"]) for kind in document.get("categories", ())}
        yield from ((photo, []) for photo in photos.values())
        for found in document["annotations"]:
            photo, kind = photos[found["image_id"]], found["category_id"]
            left, top, width, height = _corners(path, photo, found["bbox"])
            yield photo, [Labelled(names.get(kind, str(kind)), (left, top, left + width, top + height))]
    except (KeyError, TypeError) as error:
        raise _unknown(path, f"it looks like COCO, but its entries do not fit together ({cause(error)})") from error


# --- Files of one photo each


def _voc(files: list[Path]) -> Entries:
    for path in files:
        root = _tree(path)
        if root.tag != "annotation":
            raise _unknown(path, f"its root is {one_line(root.tag)!r}, and not 'annotation'")
        photo = root.findtext("filename", "").strip() or path.stem
        yield photo, [_voc_object(path, photo, found) for found in root.iterfind("object")]


def _voc_object(path: Path, photo: str, found: ElementTree.Element) -> Labelled:
    """Pixels are counted from 1, and the last one belongs to the box."""
    texts = [found.findtext(f"bndbox/{side}", "") for side in ("xmin", "ymin", "xmax", "ymax")]
    left, top, right, bottom = _corners(path, photo, _numbers(texts))
    return Labelled(found.findtext("name", "").strip(), (left - 1, top - 1, right, bottom))


class _NoDoctype(ElementTree.TreeBuilder):
    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        """Refuse what could define entities that expand without end; annotations have none."""
        raise ValueError("it has a DOCTYPE")


def _tree(path: Path) -> ElementTree.Element:
    try:
        return ElementTree.fromstring(_content(path), ElementTree.XMLParser(target=_NoDoctype()))
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # LookupError: an encoding that is not known
        raise _unknown(path, f"it is no XML of the VOC kind: {cause(error)}") from error


def _yolo(files: list[Path], names: list[Path]) -> Entries:
    """Read lines of class, centre, width and height, in shares of the photo; without a file of names, a class is its number."""
    known = next((_content(path).decode(errors="replace").splitlines() for path in names if path.is_file()), [])
    for path in files:
        found = []
        for line in filter(str.strip, _content(path).decode(errors="replace").splitlines()):
            kind, *values = line.split()
            x, y, width, height = _corners(path, path.stem, _numbers(values))
            label = known[int(kind)].strip() if kind.isdecimal() and int(kind) < len(known) else kind
            found.append(Labelled(label, (x - width / 2, y - height / 2, x + width / 2, y + height / 2), shares=True))
        yield path.stem, found


# --- Parts


def _corners(path: Path, photo: str, values: Any) -> Box:
    numbers = values if isinstance(values, list) and len(values) == 4 else ()
    if not numbers or not all(isinstance(value, (int, float)) and abs(value) < 1e9 for value in numbers):
        raise _unknown(path, f"{one_line(photo)!r} has a box that is not four numbers: {one_line(values, 60)}")
    left, top, right, bottom = map(float, numbers)
    return left, top, right, bottom


def _numbers(texts: list[str]) -> list[float] | list[str]:
    try:
        return [float(text) for text in texts]
    except ValueError:
        return texts


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        near = [other.name for other in _listed(path.parent)] if path.parent.is_dir() else []
        raise FileProblem(f"there is no file {one_line(path)!r}", hint=did_you_mean(path.name, near, FORMATS)) from error
    except OSError as error:
        raise FileProblem(f"{one_line(path)} cannot be read: {error.strerror}", hint=PERMISSIONS) from error


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise FileProblem(f"{one_line(folder)} cannot be read: {error.strerror}", hint=PERMISSIONS) from error


def _unknown(path: Path, what: str) -> FileProblem:
    return FileProblem(f"{one_line(path)} holds no boxes that netlens reads: {what}", hint=FORMATS)


def _plain(label: str) -> str:
    return re.sub(r"[-_\s]+", " ", label).strip().casefold()
