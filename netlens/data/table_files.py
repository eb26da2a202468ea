"""The files that cells of a table name."""

from __future__ import annotations

from os import stat
from os.path import normpath
from pathlib import Path
from stat import S_ISDIR

from netlens.data.tree import joined
from netlens.data.tree_kinds import IMAGE_FOLDER, LEFT_OUT, suffix_of

ENDINGS = ("", ".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG", ".webp", ".bmp", ".tif", ".tiff", ".gif")  # tried for an id


def looks_like_picture(cell: str) -> bool:
    """Tell whether a text ends as names of pictures do."""
    return suffix_of(cell) in IMAGE_FOLDER or suffix_of(cell) in LEFT_OUT


class Finder:
    """Finds files in the folder of pictures, beside the table, or from where netlens runs; by their names, or by names without suffix."""

    def __init__(self, images: str | None, table: str) -> None:
        beside = table[: table.rfind("/") + 1]
        self._bases = list(dict.fromkeys([*([joined(images)] if images is not None else []), beside, ""]))
        self._endings = list(ENDINGS)
        self.added: set[str] = set()  # endings that were needed

    def find(self, cell: str) -> str | None:
        """Return the path of the file that a cell names, as a user types it; None where there is none."""
        if not cell:
            return None
        bases = [""] if cell.startswith("/") else self._bases
        for place, ending in enumerate([""] if looks_like_picture(cell) else self._endings):
            for base in bases:
                path = f"{base}{cell}{ending}"
                if _is_file(path):
                    if ending:  # comes first from now on
                        self._endings.insert(0, self._endings.pop(place))
                        self.added.add(ending)
                    return path
        return None

    def may_find(self, cell: str) -> bool:
        """Tell whether a cell names a file, or looks so."""
        return looks_like_picture(cell) or self.find(cell) is not None

    def tried(self, cell: str) -> str:
        """Return the first path that is looked at for a cell."""
        return cell if cell.startswith("/") else self._bases[0] + cell


def key_of(path: str, here: str) -> int:
    """Return a number that is the same for all ways to write a path, and for other paths another. `here` is the current folder."""
    return hash(normpath(path if path.startswith("/") else f"{here}/{path}"))


def current_folder() -> str:
    """Return the folder in which netlens runs."""
    return str(Path.cwd())


def _is_file(path: str) -> bool:
    try:
        return not S_ISDIR(stat(path).st_mode)  # noqa: PTH116 - a Path for each of a million rows would cost more than the look
    except (OSError, ValueError):
        return False
