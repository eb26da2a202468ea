"""The files that cells of a table name."""

from __future__ import annotations

from functools import cached_property
from os import stat
from os.path import normpath
from pathlib import Path
from stat import S_ISDIR

from netlens.data.tree import joined, read_folder
from netlens.data.tree_kinds import IMAGE_FOLDER, LEFT_OUT, is_hidden, suffix_of

MOST_FOLDERS = 20  # beside or below which names are looked for as well: data sets come in a few parts
ENDINGS = ("", ".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG", ".webp", ".bmp", ".tif", ".tiff", ".gif")  # tried for an id


def looks_like_picture(cell: str) -> bool:
    """Tell whether a text ends as names of pictures do."""
    return suffix_of(cell) in IMAGE_FOLDER or suffix_of(cell) in LEFT_OUT


class Finder:
    """Finds files by their names, or by names without suffix.

    In the folder of pictures, beside the table, or from where netlens runs; else in a folder of the first of these, if one alone has it.
    """

    def __init__(self, images: str | None, table: str) -> None:
        beside = table[: table.rfind("/") + 1]
        self._bases = list(dict.fromkeys([*([joined(images)] if images is not None else []), beside, ""]))
        self._endings = list(ENDINGS)
        self.added: set[str] = set()  # endings that were needed
        self.entered: set[str] = set()  # folders of the first base in which files were found

    def find(self, cell: str) -> str | None:
        """Return the path of the file that a cell names, as a user types it; None where there is none."""
        if not cell:
            return None
        bases = [""] if cell.startswith("/") else self._bases
        for place, ending in enumerate([""] if looks_like_picture(cell) else self._endings):
            base = next((base for base in bases if _is_file(f"{base}{cell}{ending}")), None)
            if base is None and not cell.startswith("/"):
                base = self._entered(f"{cell}{ending}")
            if base is not None:
                if ending:  # comes first from now on
                    self._endings.insert(0, self._endings.pop(place))
                    self.added.add(ending)
                return f"{base}{cell}{ending}"
        return None

    def _entered(self, name: str) -> str | None:
        """Return the one folder that has a file of this name."""
        found = [folder for folder in self._folders if _is_file(folder + name)]
        if len(found) != 1:
            return None
        self.entered.add(found[0])
        return found[0]

    @cached_property
    def _folders(self) -> list[str]:
        base = self._bases[0]
        try:
            names = [name for name in read_folder(base or ".").folders if not is_hidden(name)]
        except OSError:
            return []
        return [f"{base}{name}/" for name in names] if len(names) <= MOST_FOLDERS else []

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
