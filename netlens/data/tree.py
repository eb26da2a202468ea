"""Walking folders as ImageFolder does, but never in circles."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from os import scandir
from pathlib import Path
from typing import NamedTuple

from netlens.data.issues import Item


class Oddities(dict[str, list[Item]]):
    """What is odd about names and folders, by code."""

    def tell(self, code: str, path: str, detail: str = "", *others: str) -> None:
        """Add one place; `others` are paths that are alike."""
        self.setdefault(code, []).append(Item((path, *others), detail))


class Way(NamedTuple):
    """A folder and those above it: what a link may lead back to."""

    path: str
    device: int
    inode: int
    above: Way | None


@dataclass(frozen=True, slots=True)
class Folder:
    """What one folder holds, by name, in the order of code points."""

    path: str  # ends in a slash
    files: list[str] = field(default_factory=list)  # all that is no folder: pipes and broken links as well
    folders: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.path[:-1].rpartition("/")[2]


def joined(folder: str, name: str = "") -> str:
    """Return the path of what is in a folder, as a user types it."""
    return f"{folder.rstrip('/')}/{name}"


def start(path: str) -> Way:
    """Return the way to a folder that nothing is above of.

    Raises:
        OSError: it cannot be looked at.
    """
    found = Path(path).stat()
    return Way(path, found.st_dev, found.st_ino, None)


def read_folder(path: str) -> Folder:
    """Return what is in a folder, sorted.

    Raises:
        OSError: it cannot be read.
    """
    folder = Folder(joined(path))
    with scandir(path) as entries:
        for entry in entries:
            try:
                into = folder.folders if entry.is_dir() else folder.files
            except OSError:  # a link that leads to itself; os.walk takes it as a file
                into = folder.files
            into.append(entry.name)
    folder.files.sort()
    folder.folders.sort()
    return folder


def walk(path: str, above: Way | None, odd: Oddities) -> Iterator[Folder]:
    """Give the folder, then those below it, in the order of their paths as text: as `sorted(os.walk(path, followlinks=True))` does.

    Links are followed, unless one leads back to a folder that it is in. What cannot be read is told, and left out.
    """
    waiting: list[tuple[str, Way | None]] = [(path, above)]
    while waiting:
        here, higher = heapq.heappop(waiting)  # a folder's path comes before those below it, so this is the order of all of them
        try:
            way = _step(here, higher, odd)
            if way is None:
                continue
            folder = read_folder(here)
        except OSError as error:
            odd.tell("folder-unreadable", here, error.strerror or type(error).__name__)
            continue
        for name in folder.folders:
            heapq.heappush(waiting, (folder.path + name, way))
        yield folder


def _step(path: str, above: Way | None, odd: Oddities) -> Way | None:
    """Return the way to a folder below `above`; None where it closes a circle."""
    found = Path(path).stat()
    way = above
    while way is not None:
        if (way.device, way.inode) == (found.st_dev, found.st_ino):
            odd.tell("link-loop", path, f"leads back to {way.path}")
            return None
        way = way.above
    return Way(path, found.st_dev, found.st_ino, above)
