"""The pictures of a command: PNG files in `--out`, told on stderr, and with `--show` drawn in the terminal.

netlens replaces what it wrote itself, and nothing else: a file of somebody else stops the command, if possible before any work is done.
"""

from __future__ import annotations

import errno
import os
import re
import shlex
import shutil
import stat
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from netlens import __version__
from netlens.cli import console
from netlens.cli.files import ELSEWHERE, TOLD, check_folder, explained, one_line, write
from netlens.cli.options import ReportFormat
from netlens.errors import FileProblem

if TYPE_CHECKING:
    from PIL.Image import Image

OUT = "netlens-out"  # the folder, where neither the command line nor the configuration names one
SUBJECT = 48  # bytes of the subject in a file name
SHOWN = 4  # pictures that are drawn in the terminal
PAGE = re.compile(r"(.+)-\d+\.png")
OF = " of "  # in the text "Page" of every page but the first: "2 of kernels-resnet18-conv1.png"


class Pictures:
    """Writes the pictures of one command as "{lens}-{subject}-{name}.png".

    Args:
        lens: the name of the subcommand.
        subject: what is looked at, as it shall stand in file names.
        out: the folder; made when the first picture is written.
        overwrite: also replace files that netlens did not write.
        show: draw the most important pictures in the terminal at the end.
        facts: texts for every file, as "Model" and "Seed"; no dates, so that equal pictures are equal files.

    Raises:
        FileProblem: no file can be written there.
    """

    def __init__(self, lens: str, subject: str, *, out: Path, overwrite: bool, show: bool, facts: Mapping[str, str]) -> None:
        from netlens.drawing.png import LONGEST, MAKER, FileNames, safe_name

        self.out, self._overwrite, self._show = out, overwrite, show
        self._prefix = f"{lens}-{safe_name(subject, SUBJECT)}-"
        self._names = FileNames(LONGEST - len(self._prefix))
        self._facts = {"Software": f"{MAKER}{__version__}", "Command": shlex.join(["netlens", *sys.argv[1:]]), **facts}
        self._saved: Counter[str] = Counter()
        self._firsts: set[str] = set()  # file names of first pages
        self._written: list[str] = []
        self._preferred: list[tuple[str, Image]] = []
        self._others: list[tuple[str, Image]] = []
        with explained(out):
            check_folder(out)

    def reserve(self, names: Iterable[str]) -> None:
        """Check all files before the first is written; a name stands as often as it will be saved.

        How many pages each will have is not known yet: where a file stands that would be a further page, it is checked, too.

        Raises:
            FileProblem: one of them is not ours to replace.
        """
        seen: Counter[str] = Counter()
        firsts = [self._path(name, seen).name for name in names]
        pages = [file for file in self._there() if (match := PAGE.fullmatch(file)) and f"{match[1]}.png" in firsts]
        for file in (*firsts, *pages):
            self._check(self.out / file)

    def save(self, name: str, image: Image, *, page: int = 1, prefer: bool = False, **facts: str) -> str:
        """Write one picture and return its path, as the user would type it.

        Args:
            name: which picture of the subject: "conv1". Saved twice, it becomes two files.
            image: the picture.
            page: its number; "conv1-2.png" is the second. All further pages follow the first.
            prefer: one of those to look at first.
            facts: more texts for this file: Layer="conv1".

        Raises:
            FileProblem: it cannot be written.
        """
        from netlens.drawing.png import encode

        path = self._path(name, self._saved, page)
        first = f"{self._prefix}{self._names.of(name, self._saved[name])}.png"
        content = encode(image, {**self._facts, **facts, **({"Page": f"{page}{OF}{first}"} if page > 1 else {})})
        write(path, content, self._check)
        self._firsts.add(first)
        self._remember(str(path), image, prefer)
        return str(path)

    def finish(self, format: ReportFormat = ReportFormat.TABLE) -> None:
        """Remove pages that an earlier, longer run left, say what was written, and draw what shall be shown.

        It is called when the report is on stdout.

        Args:
            format: of the report. Pictures go with a table alone: anything else is for a program to read.
        """
        if not self._written:
            return
        stale = [path for path in map(self.out.joinpath, self._there()) if self._is_stale(path)]
        for path in stale:
            with suppress(OSError):
                path.unlink()
        for line in (*self._told(), *(f"removed {path}, a page of an earlier run" for path in stale[:TOLD])):
            console.note(one_line(line))
        if self._show:
            self._draw(format)

    def _path(self, name: str, seen: Counter[str], page: int = 1) -> Path:
        seen[name] += page == 1
        return self.out / f"{self._prefix}{self._names.of(name, seen[name], page)}.png"

    def _there(self) -> list[str]:
        """Return the names of the files of this lens and subject."""
        with explained(self.out):
            return sorted(file.name for file in self.out.glob("*.png") if file.name.startswith(self._prefix))

    def _is_stale(self, path: Path) -> bool:
        """Tell a page that netlens wrote of a picture that now has fewer pages."""
        from netlens.drawing.png import is_ours, read_texts

        with suppress(OSError):
            first = read_texts(path).get("Page", "").partition(OF)[2]
            return str(path) not in self._written and first in self._firsts and is_ours(path) and os.access(path, os.W_OK)
        return False

    def _check(self, path: Path) -> None:
        """Raise where the place is taken by what netlens may not replace."""
        from netlens.drawing.png import is_ours

        with explained(path):
            try:
                mode = path.lstat().st_mode
            except FileNotFoundError:
                return
            if not stat.S_ISREG(mode):
                kind = "a link" if stat.S_ISLNK(mode) else "a folder" if stat.S_ISDIR(mode) else "not a regular file"
                raise FileProblem(f"{path} is {kind}, and a picture is to be written there", hint=f"move it away, or {ELSEWHERE}")
            if not os.access(path, os.W_OK):
                raise PermissionError(errno.EACCES, "it is write-protected")
            if not self._overwrite and not is_ours(path):
                raise FileProblem(f"{path} was not written by netlens", hint=f"--overwrite replaces it, or {ELSEWHERE}")

    def _remember(self, path: str, image: Image, prefer: bool) -> None:
        self._written.append(path)
        best = self._preferred if prefer else self._others
        if len(best) < SHOWN:
            best.append((path, image))

    def _best(self) -> list[tuple[str, Image]]:
        return [*self._preferred, *self._others][:SHOWN]

    def _told(self) -> Iterator[str]:
        if len(self._written) <= TOLD:
            yield from (f"wrote {path}" for path in self._written)
        else:
            first = self._best()[0][0]
            yield f"wrote {len(self._written)} pictures, {self.out / self._prefix}*.png; the first to look at is {first}"

    def _draw(self, format: ReportFormat) -> None:
        stream = console.report_stream()
        folder = f"{self.out}{os.sep}"
        if format is not ReportFormat.TABLE or not console.is_terminal(stream):
            needed = "a terminal" if format is ReportFormat.TABLE else "--format table"
            console.note(one_line(f"--show needs {needed}; the pictures are in {folder}"))
            return
        from netlens.drawing.terminal import draw, palette

        columns, lines = shutil.get_terminal_size()
        colours = palette(os.environ, getattr(stream, "encoding", None))
        for path, image in self._best():
            console.write(f"\n{one_line(path)}\n{draw(image, columns, lines - 3, colours)}")  # less the title, a gap and the prompt
        if more := len(self._written) - len(self._best()):
            console.note(one_line(f"{more} more in {folder}"))
