"""The pictures of one split, with their classes, given one by one; and what is odd about them."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from netlens.data.listing import Split
from netlens.data.tree import Folder, Oddities, Way, read_folder, start, walk
from netlens.data.tree_kinds import APPLE_DOUBLE, IMAGE_FOLDER, LEFT_OUT, alike, is_hidden, is_odd, is_picture, suffix_of
from netlens.errors import FileProblem
from netlens.loading.words import one_line
from netlens.wording import counted

NO_CLASSES = frozenset(("images", "imgs", "img", "jpegimages", "jpg"))  # folders of all pictures, beside labels or annotations
MOST_INDICES = 12  # classes whose indices are shown
NO_CLASS = -1


@dataclass
class _Branch:
    """A folder in the root with all below it: a class, as ImageFolder sees it. The root's own files are one without a name."""

    name: str
    path: str
    label: int
    files: int = 0
    taken: int = 0  # by ImageFolder
    pictures: int = 0  # that are opened
    parts: str = ""  # the folder in it from which several ways lead on, before there is any picture
    readable: bool = True

    @property
    def hidden(self) -> bool:
        return is_hidden(self.name)


class SplitReader:
    """Reads the folder of one split. All but the paths is complete when they were all given."""

    def __init__(self, name: str, root: str, odd: Oddities) -> None:
        self.name, self.root = name, root
        self.labels = array("i")
        self.others: Counter[str] = Counter()  # files that are no pictures, by suffix
        self.notes: list[str] = []
        self._odd = odd
        self._skipped: Counter[str] = Counter()
        self._first: dict[str, str] = {}  # file of each suffix in `others`
        self._own = _Branch("", root, NO_CLASS)
        self._branches: list[_Branch] = []

    def paths(self) -> Iterator[str]:
        """Give the pictures: those in the root, then those of each class in ImageFolder's order.

        Raises:
            FileProblem: the root cannot be read.
        """
        try:
            top, way = read_folder(self.root), start(self.root)
        except OSError as error:
            raise FileProblem(f"{one_line(self.root)} cannot be read: {error.strerror}", hint="check its permissions") from error
        own = [*self._pictures(top, self._own)]
        yield from own
        for label, name in enumerate(top.folders):
            self._branches.append(_Branch(name, top.path + name, label))
            yield from self._below(self._branches[-1], way)
        self._judge(own, top)

    def split(self) -> Split:
        """Return what is known of the split."""
        skipped = tuple(sorted(self._skipped.items(), key=lambda item: (-item[1], item[0])))
        if self._flat:
            return Split(self.name, self.root, (), "flat", skipped)
        return Split(self.name, self.root, tuple(branch.name for branch in self._branches), "folder", skipped)

    # --- Reading

    def _below(self, branch: _Branch, above: Way) -> Iterator[str]:
        branch.readable = False
        for folder in walk(branch.path, above, self._odd):
            before, branch.readable = branch.pictures, True
            yield from self._pictures(folder, branch)
            found = branch.pictures - before
            if not branch.pictures and not branch.parts and len(folder.folders) > 1:
                branch.parts = folder.path[:-1]
            if found and not branch.hidden and is_hidden(folder.name):
                self._odd.tell("hidden-file", folder.path[:-1], f"a hidden folder, whose {counted(found, 'picture')} ImageFolder takes")

    def _pictures(self, folder: Folder, branch: _Branch) -> Iterator[str]:
        self._names(folder, branch)
        branch.files += len(folder.files)
        for name in folder.files:
            suffix = suffix_of(name)
            path = folder.path + name
            taken = suffix in IMAGE_FOLDER
            branch.taken += taken
            if taken and name[0] == "." and not branch.hidden:
                apple = name.startswith(APPLE_DOUBLE)
                self._odd.tell("hidden-file", path, f"macOS's notes on {name[2:]}, and no picture" if apple else "a hidden file")
            if not is_picture(name, folder.path):
                if not taken:
                    self.others[suffix] += 1
                    self._first.setdefault(suffix, path)
                continue
            if not taken:
                self._skipped[suffix] += 1
                self._odd.tell("skipped-file", path, suffix if suffix in LEFT_OUT else "a picture by its first bytes")
            if is_odd(name):
                self._odd.tell("odd-name", path, ascii(name))
            branch.pictures += 1
            self.labels.append(branch.label)
            yield path

    def _names(self, folder: Folder, branch: _Branch) -> None:
        for name in filter(is_odd, folder.folders):
            self._odd.tell("odd-name", folder.path + name, ascii(name))
        one = "one on Windows and macOS"
        for group in alike(folder.folders):
            what = f"{len(group)} classes here" if branch is self._own else f"{len(group)} folders here"
            self._odd.tell("case-collision", folder.path + group[0], f"{what}, {one}", *(folder.path + name for name in group[1:]))
        for group in alike(folder.files):
            if all(suffix_of(name) in IMAGE_FOLDER | LEFT_OUT for name in group):
                rest = (folder.path + name for name in group[1:])
                self._odd.tell("case-collision", folder.path + group[0], f"{len(group)} files here, {one}", *rest)

    # --- Judging

    @property
    def _flat(self) -> bool:
        """Whether there are no classes: most pictures lie in the root, or all in a folder that is called "images"."""
        full = [branch for branch in self._branches if branch.pictures and not branch.hidden]
        if self._own.pictures:
            return not full or (len(full) == 1 and self._own.pictures > full[0].pictures)
        return len(full) == 1 and full[0].name.lower() in NO_CLASSES and not full[0].parts

    def _judge(self, own: list[str], top: Folder) -> None:
        for suffix, count in self.others.most_common():
            self._odd.tell(
                "other-file", self._first[suffix], f"{counted(count, 'file')} {f'of {suffix}' if suffix else 'without a suffix'}"
            )
        if self._flat:
            self.labels = array("i", [NO_CLASS]) * len(self.labels)
            self._judge_flat()
            return
        for path in own:
            self._odd.tell("stray-file", path)
        for branch in self._branches:
            self._judge_class(branch)
        self._judge_order([name for name in top.folders if not is_hidden(name)])
        self._judge_nesting()

    def _judge_flat(self) -> None:
        for branch in self._branches:
            if branch.pictures and branch.hidden:
                self._odd.tell("hidden-file", branch.path, f"a hidden folder with {counted(branch.pictures, 'picture')}")
            elif branch.pictures and self._own.pictures:
                what = f"most pictures lie in {one_line(self.root)} itself"
                self.notes.append(f"{what}: those in {one_line(branch.path)} are looked at, but it is taken for no class")
            elif branch.pictures:
                self.notes.append(f"all pictures lie in {one_line(branch.path)}, which is taken for no class")

    def _judge_class(self, branch: _Branch) -> None:
        held = counted(branch.taken, "picture") if branch.taken else "no pictures"
        if branch.hidden:
            self._odd.tell("hidden-class", branch.path, f"class {branch.label} of {len(self._branches)} for ImageFolder, with {held}")
        elif branch.readable and not branch.taken:
            left = f"{counted(branch.pictures, 'picture')}, of kinds that ImageFolder leaves out"
            other = f"{counted(branch.files, 'file')}, and no picture" if branch.files else "no files"
            self._odd.tell("empty-class", branch.path, left if branch.pictures else other)

    def _judge_order(self, names: list[str]) -> None:
        if not all(name.isascii() and name.isdecimal() for name in names) or names == sorted(names, key=int):
            return
        places = {branch.name: branch.label for branch in self._branches}
        shown = ", ".join(f"{name}: {places[name]}" for name in names[:MOST_INDICES])
        more = f" and {len(names) - MOST_INDICES:,} more" if len(names) > MOST_INDICES else ""
        self._odd.tell("numeric-classes", self.root, f"ImageFolder's indices are {shown}{more}")

    def _judge_nesting(self) -> None:
        full = [branch for branch in self._branches if branch.pictures and not branch.hidden]
        if len(full) == 1 and full[0].parts:
            path = one_line(full[0].parts)
            self.notes.append(f"all pictures are below {path}, for ImageFolder one class: if its folders are the classes, name {path}")
