"""What a user can do wrong, each as one class that builds its own two lines.

    NetlensError               what is wrong (message) and what to do (hint); exit code 2
    ├─ UsageError              an option or its value
    ├─ ModelNotFound           the model's name leads nowhere
    ├─ ModelNotBuilt           the name leads to something that does not become a model
    ├─ InputError              the input does not describe what the model takes
    ├─ ForwardFailed           the model's own forward raised
    ├─ FileProblem             a file cannot be read or written
    ├─ CheckpointDoesNotFit    tensors of a checkpoint and places in the model do not pair
    └─ MissingExtra            an optional package is not installed

A bug in netlens is never a NetlensError: it keeps its traceback and exits with 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class NetlensError(Exception):
    """Something the user must change: `message` says what is wrong, `hint` what to do."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(NetlensError):
    """An option, or its value, cannot be used."""


class ModelNotFound(NetlensError):
    """The name of the model leads nowhere."""


class ModelNotBuilt(NetlensError):
    """The name leads to something that does not become an `nn.Module`."""


class InputError(NetlensError):
    """The input does not describe what the model takes."""


class ForwardFailed(NetlensError):
    """The model's own forward raised."""


class FileProblem(NetlensError):
    """A file cannot be read or written."""


@dataclass(frozen=True, slots=True)
class Detail:
    """A table that explains an error; its texts may come from a file, and are raw."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    more: int = 0  # rows that are not shown


class CheckpointDoesNotFit(NetlensError):
    """Tensors of a checkpoint and places in the model do not pair; tables and likely causes say which, and why."""

    def __init__(self, message: str, hint: str, tables: Sequence[Detail] = (), causes: Sequence[str] = ()) -> None:
        super().__init__(message, hint)
        self.tables = tuple(tables)
        self.causes = tuple(causes)


class MissingExtra(NetlensError):
    """An optional package that this request needs is not installed."""

    def __init__(self, package: str, extra: str, wanted: str) -> None:
        super().__init__(
            f"{wanted} needs the package {package!r}, which is not installed",
            hint=f"pip install 'netlens[{extra}]'",
        )
