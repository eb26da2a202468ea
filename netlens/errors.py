"""What a user can do wrong, each as one class that builds its own two lines.

    NetlensError               what is wrong (message) and what to do (hint); exit code 2
    ├─ UsageError              an option or its value
    ├─ ModelNotFound           the model's name leads nowhere
    ├─ ModelNotBuilt           the name leads to something that does not become a model
    ├─ InputError              the input does not describe what the model takes
    ├─ ForwardFailed           the model's own forward raised
    ├─ LayerNotFound           the model has no such layer
    ├─ FileProblem             a file cannot be read or written
    ├─ CheckpointDoesNotFit    tensors of a checkpoint and places in the model do not pair
    ├─ OutOfMemory             a device has too little memory
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


class LayerNotFound(NetlensError):
    """The model has no layer of that name, index or type."""

    def __init__(self, pattern: str, names: Sequence[str], types: Sequence[str] = ()) -> None:
        if not names:
            super().__init__(f"no layer {pattern!r}: there are no layers to choose from", hint="leave --layer out")
        elif pattern.lstrip("-")[:1].isdigit() or pattern.startswith(":"):
            last = len(names) - 1
            super().__init__(f"no layer has the index {pattern}", hint=f"indices go from 0 to {last}, or from -{last + 1} to -1")
        else:
            super().__init__(f"no layer named {pattern!r}", hint=_similar_layer(pattern, names, types))


def _similar_layer(pattern: str, names: Sequence[str], types: Sequence[str]) -> str:
    from netlens.loading.suggest import closest

    ends = {name[start:]: name for name in reversed(names) for start in (0, *(dot + 1 for dot, c in enumerate(name) if c == "."))}
    known = {**dict.fromkeys(types), **ends}
    found = closest(pattern, [name for name in known if name])
    count = "there is 1 layer" if len(names) == 1 else f"there are {len(names)} layers"
    return f"{count}, from {names[0]!r} to {names[-1]!r}" if found is None else f"did you mean {known[found] or found!r}?"


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


class OutOfMemory(NetlensError):
    """A device has too little memory for what was asked of it; `facts` say how much, `levers` are the options that save some."""

    def __init__(self, where: str, facts: Sequence[str], levers: Sequence[str]) -> None:
        what = ", ".join(facts)
        *first, last = levers or ("a machine with more memory",)
        hint = f"try {', '.join(first)}{' or ' if first else ''}{last}"
        super().__init__(f"{where} is out of memory{': ' if what else ''}{what}", hint=hint)


class MissingExtra(NetlensError):
    """An optional package that this request needs is not installed."""

    def __init__(self, package: str, extra: str, wanted: str) -> None:
        super().__init__(
            f"{wanted} needs the package {package!r}, which is not installed",
            hint=f"pip install 'netlens[{extra}]'",
        )
