"""`netlens` and `python -m netlens`: run one command line and leave with the right exit code.

0    done
1    done, and a finding reached --fail-on
2    the user must change something: two lines say what, and what to do
3    a bug in netlens: with its traceback
130  Ctrl-C
"""

from __future__ import annotations

import gc
import os
import sys
import traceback
import warnings
from pathlib import Path
from types import TracebackType

from netlens.cli.console import discard, note
from netlens.cli.leaving import Leaving
from netlens.cli.versions import versions
from netlens.errors import NetlensError, UsageError

PACKAGE = str(Path(__file__).parent)


def main() -> int:
    """Run the command line in `sys.argv` and return the exit code; whatever is raised ends here."""
    leaving = Leaving()
    _settle_streams()
    try:
        from netlens.cli.app import run

        code = run(sys.argv[1:])
    except BaseException as error:
        code = _exit_code(error)
    if "triton" not in sys.modules:  # its bindings would report on stderr, as leaked, what is not collected
        # At exit Python searches all that torch has built for garbage: a quarter of the time of `import torch`, for nothing.
        gc.freeze()
    leaving.code = code
    return code


def _settle_streams() -> None:
    if not sys.warnoptions:  # warnings are for who wrote the model; PYTHONWARNINGS and -W bring them back
        warnings.simplefilter("ignore")
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="replace")  # a terminal that cannot show a character must not end the report


def _exit_code(error: BaseException) -> int:
    """Report what was raised on stderr. An exit code of 1 is never the answer: it means that a finding was made."""
    if isinstance(error, NetlensError):
        return _user_error(error)
    if isinstance(error, KeyboardInterrupt):
        note("interrupted")
        return 130
    if isinstance(error, BrokenPipeError):  # `netlens --help | head`
        discard(sys.stdout)
        return 0
    if isinstance(error, SystemExit):  # netlens itself never raises it
        ended = UsageError(
            f"the model's code ended the program with sys.exit({error.code!r})", hint="guard its script part: if __name__ == '__main__':"
        )
        ended.__cause__ = error
        return _user_error(ended)
    note("".join(traceback.format_exception(error)).rstrip())
    note(f"this is a bug in {versions()}: please report it with these lines and with the command line that you used")
    return 3


def _user_error(error: NetlensError) -> int:
    if error.__cause__ is not None and _traceback_wanted():
        note(_without_our_frames(error.__cause__))
    note(f"error: {_one_line(error.message)}")
    note(f"hint: {_one_line(error.hint)}")
    return 2


def _traceback_wanted() -> bool:
    return "--traceback" in sys.argv[1:] or os.environ.get("NETLENS_TRACEBACK", "") not in ("", "0")


def _without_our_frames(error: BaseException) -> str:
    """Format the traceback of `error` from the first frame on that is not netlens's: the user's own."""
    theirs: TracebackType | None = error.__traceback__
    while theirs is not None and _is_ours(theirs.tb_frame.f_code.co_filename):
        theirs = theirs.tb_next
    return "".join(traceback.format_exception(type(error), error, theirs or error.__traceback__)).rstrip()


def _is_ours(filename: str) -> bool:
    return filename.startswith((PACKAGE + os.sep, "<frozen importlib")) or Path(filename).parent.name == "importlib"


def _one_line(text: str) -> str:
    """Keep an error's line one line that cannot steer the terminal, whatever a name or a foreign message contains."""
    line = " ".join(text.split())
    return line if line.isprintable() else "".join(char if char.isprintable() else ascii(char)[1:-1] for char in line)


if __name__ == "__main__":
    sys.exit(main())
