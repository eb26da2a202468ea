"""The two streams: stdout belongs to the report alone, everything else that netlens says goes to stderr.

rich is imported inside the functions, so that `--help` and errors do without it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from io import BytesIO, TextIOWrapper
from typing import TYPE_CHECKING, Any, TextIO

from netlens.errors import FileProblem

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

UNLIMITED = 100_000  # columns of a pipe: wider than any table, so that no number is wrapped or cut

_report_stream: TextIO | None = None  # the real stdout, while `report_only` keeps it from everyone else


@contextmanager
def report_only() -> Iterator[None]:
    """Keep stdout for `write` and `stdout()`: what the user's model prints meanwhile goes to stderr."""
    global _report_stream
    previous, _report_stream = _report_stream, sys.stdout
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _report_stream = previous


def report_stream() -> TextIO | None:
    """Return the stdout that belongs to the report; None where the shell closed it."""
    return _report_stream or sys.stdout


def write(text: str) -> None:
    """Write a part of the report to stdout.

    A reader that stops early (`netlens ... | head`) is no error: the rest goes nowhere, and the verdict stays what it is.

    Raises:
        FileProblem: stdout cannot be written, a full disk for example.
    """
    stream = report_stream()
    if stream is None:  # the shell closed it: `netlens ... >&-`
        return
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        discard(stream)
    except OSError as error:
        discard(stream)
        raise FileProblem(f"cannot write to stdout: {error.strerror}", hint="make room, or send the report elsewhere") from None


def discard(stream: TextIO) -> None:
    """Point `stream` at the null device: Python flushes it once more at exit, and a failure there would change the exit code."""
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def note(text: str) -> None:
    """Say something on stderr that is not part of the report: "wrote netlens.lock.json"."""
    if sys.stderr is None:
        return
    with suppress(OSError, ValueError):  # nobody listens: nothing to say, and no reason to fail
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


def width() -> int | None:
    """Return the columns of the terminal, or of COLUMNS where that is set; None in a pipe, which has any width."""
    stream = report_stream()
    return None if _is_endless(stream) else _console(_Page(stream)).width


def show(renderables: Iterable[RenderableType]) -> None:
    """Draw a part of the report on stdout, as wide as the terminal; in a pipe as wide as needed. Nothing is cut at the edge."""
    page = _Page(report_stream())
    screen = _console(page)
    for renderable in renderables:
        screen.print(renderable, crop=False)
    write("\n".join(line.rstrip() for line in page.lines()))


class _Page(TextIOWrapper):
    """Collects what rich draws for a stream, so that it is written at once and by `write`.

    rich itself answers a closed pipe with exit code 1, which here would mean that a finding was made.
    """

    def __init__(self, stream: TextIO | None) -> None:
        # rich asks for the encoding, and draws in ASCII where it has nothing better.
        super().__init__(BytesIO(), encoding=getattr(stream, "encoding", None) or "utf-8", errors="replace", newline="\n")
        self._stream = stream

    def isatty(self) -> bool:
        return is_terminal(self._stream)

    def lines(self) -> list[str]:
        self.seek(0)
        return self.read().split("\n")


@contextmanager
def progress(doing: str, total: int | None = None) -> Iterator[Callable[[], None]]:
    """Show a progress bar on stderr while the block runs, on a terminal only.

    Args:
        doing: what takes so long: "timing layers".
        total: number of steps; None where it is not known.

    Yields:
        A function to call after each step; it knows nothing of rich, so it can be handed to code that measures.
    """
    if not is_terminal(sys.stderr):
        yield lambda: None
        return
    from rich.progress import Progress

    with Progress(console=_console(sys.stderr), transient=True) as bar:
        task = bar.add_task(doing, total=total)
        yield lambda: bar.advance(task)


@contextmanager
def counting(doing: str, what: str, *, quiet: bool = False) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar with rate and time left on stderr from the first call of what it yields, on a terminal only.

    Args:
        doing: what takes so long: "reading".
        what: is counted: "files".
        quiet: show none.

    Yields:
        A function to call with how many are done, and of how many.
    """
    if quiet or not is_terminal(sys.stderr):
        yield lambda _done, _total: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Any) -> Text:
            return Text(f"{what}, {task.speed or 0:,.0f}/s,")

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn())
    with Progress(*columns, console=_console(sys.stderr), transient=True) as bar:
        task = bar.add_task(doing, total=None, visible=False)
        yield lambda done, total: bar.update(task, completed=done, total=total, visible=True)


@contextmanager
def download(doing: str) -> Iterator[Callable[[int, int | None], None]]:
    """Show a progress bar in bytes on stderr from the first call of what it yields, on a terminal only.

    Yields:
        A function to call with the bytes that are there, and with their number in all or None.
    """
    if not is_terminal(sys.stderr):
        yield lambda _done, _total: None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=_console(sys.stderr), transient=True) as bar:
        task = bar.add_task(doing, total=None, visible=False)
        yield lambda done, total: bar.update(task, completed=done, total=total, visible=True)


def _console(stream: TextIO) -> Console:
    from rich.console import Console

    # A width alone is not enough: for a dumb terminal rich looks at it only when the height is given as well.
    columns, lines = (UNLIMITED, 25) if _is_endless(stream) else (None, None)
    # No markup, highlighting or emoji codes: names come from the user and stand for themselves.
    return Console(file=stream, markup=False, highlight=False, emoji=False, width=columns, height=lines)


def _is_endless(stream: TextIO | None) -> bool:
    columns = os.environ.get("COLUMNS", "")
    return not is_terminal(stream) and not (columns.isdecimal() and int(columns))


def is_terminal(stream: TextIO | None) -> bool:
    """Tell whether a person looks at `stream`."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # closed
        return False
