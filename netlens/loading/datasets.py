"""`--data`: a folder of pictures, or a Dataset, a DataLoader or batches of the user's own code; one batch at a time, never all of it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from glob import has_magic
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netlens.errors import FileProblem, InputError, UsageError
from netlens.loading.images import find_images
from netlens.loading.specs import ModelSpec, parse_model_spec
from netlens.loading.suggest import did_you_mean
from netlens.loading.words import listed, one_line, user_path

if TYPE_CHECKING:
    from netlens.loading.preprocessing import Preprocessing
    from netlens.loading.samples import DataBatch, Reader

HOW = "name a folder of pictures, or a Dataset, a DataLoader or a function that returns one: package.module:name or file.py:name"
NO_ARGUMENTS = "write a function without arguments that returns what you want, and name that"
Stream = Callable[["Reader", int, "int | None"], "Iterator[DataBatch]"]
Pick = Callable[["Reader", Sequence[int]], "DataBatch"]


@dataclass(frozen=True, slots=True)
class Data:
    """Samples that have been found, but not read."""

    name: str
    length: int | None  # samples; None: only the end tells
    classes: tuple[str, ...] | None
    stream: Stream
    remarks: Counter[str] = field(default_factory=Counter)
    pick: Pick | None = None  # reads samples by their indices; None: they come one after the other

    def batches(self, batch_size: int, preprocessing: Preprocessing | None, limit: int | None = None) -> Iterator[DataBatch]:
        """Yield the samples in their order, `batch_size` at a time; batches that come as such keep their size.

        Args:
            batch_size: samples in a batch.
            preprocessing: for pictures that come without a transform; None where the model takes no pictures.
            limit: at most so many samples: evenly spaced over all where each can be had by its index, else the first.

        Raises:
            InputError, FileProblem: a sample cannot be read, or does not fit the others.
        """
        from netlens.loading.samples import Reader

        self.remarks.clear()
        yield from self.stream(Reader(self.name, preprocessing, self.remarks), batch_size, limit)

    def picked(self, indices: Sequence[int], preprocessing: Preprocessing | None) -> DataBatch:
        """Read the samples with these indices as one batch; only where `pick` is not None.

        Raises:
            InputError, FileProblem: a sample cannot be read, or does not fit the others.
        """
        from netlens.loading.samples import Reader

        assert self.pick is not None
        return self.pick(Reader(self.name, preprocessing, self.remarks), indices)

    @property
    def notes(self) -> tuple[str, ...]:
        """What there is to say about the samples that have been read."""
        return tuple(f"{self.name}: {remark}" + (f" ({count} samples)" if count > 1 else "") for remark, count in self.remarks.items())


def parse_data(text: str) -> Path | ModelSpec:
    """Say what `--data` names, before torch is imported: a folder or a glob of pictures, or something in Python code.

    Raises:
        NetlensError: it names nothing.
    """
    text = text.strip()
    path = user_path(text)
    if text and (path.is_dir() or has_magic(text)):
        return path
    if path.suffix == ".py" and path.is_file():
        raise UsageError(f"--data {one_line(text)!r} does not say what of the file is meant", hint=f"name it: {one_line(text)}:val")
    if path.is_file():
        raise UsageError(f"--data {one_line(text)!r} is one file", hint="name its folder; single pictures are for --image")
    if not re.fullmatch(r"(.+\.py:+|[\w.]+[:.])\w[\w.]*", text):
        near = [child.name for child in Path().iterdir() if child.is_dir() and not child.name.startswith(".")]
        raise UsageError(f"--data {one_line(text)!r} is no folder, and no name in Python code", hint=did_you_mean(text, near, HOW))
    return parse_model_spec(text)


def open_data(text: str) -> Data:
    """Open what `--data` names; naming Python code runs it.

    Raises:
        NetlensError: it cannot be found, or is no data.
    """
    found = parse_data(text)
    if isinstance(found, Path):
        return _folder(text.strip())
    from netlens.loading.from_python import import_attribute

    return data_of(import_attribute(found), one_line(found.text))


def data_of(found: Any, name: str) -> Data:
    """Return as `Data` a Dataset, a DataLoader, any iterable of samples or batches, or a function or class that makes one.

    Raises:
        InputError: it is none of these, or is empty.
    """
    from torch.utils.data import DataLoader

    from netlens.loading.samples import classes_of
    from netlens.loading.streams import indexed, some_samples, streamed

    found = called(found, name)
    if isinstance(found, Mapping):
        raise InputError(f"{name} is a dict of {listed(found)}", hint=f"choose one: {NO_ARGUMENTS}")
    is_loader = isinstance(found, DataLoader) and found.batch_size is not None
    length = _length(found.dataset) if is_loader else _length(found)
    if length == 0:
        raise InputError(f"{name} is empty", hint="check the path that it reads from")
    if not is_loader and _by_index(found):
        assert length is not None
        return Data(name, length, classes_of(found), partial(indexed, found, length), pick=partial(some_samples, found))
    if not isinstance(found, Iterable) or isinstance(found, (str, Path)):
        raise InputError(f"{name} is of the type {type(found).__name__}, which holds no samples", hint=HOW)
    return Data(name, length if is_loader else None, classes_of(found), partial(streamed, found, is_loader))


def _folder(text: str) -> Data:
    """Pictures in a folder; where all lie in subfolders, these are the classes."""
    from netlens.loading.streams import pictures, some_pictures

    try:
        paths = find_images([text])
    except FileProblem as error:
        raise FileProblem(error.message, hint=error.hint.replace("--image", "--data")) from error
    folder = user_path(text)
    labelled = folder.is_dir() and all(path.parent != folder for path in paths)
    classes = tuple(sorted({path.parent.name for path in paths}, key=_natural)) if labelled else None
    return Data(one_line(text), len(paths), classes, partial(pictures, paths, classes), pick=partial(some_pictures, paths, classes))


def _natural(name: str) -> tuple[list[tuple[str, int]], str]:
    return [(letters, int(digits or -1)) for letters, digits in re.findall(r"(\D*)([0-9]*)", name.casefold())], name


@dataclass(frozen=True, slots=True)
class _Anew:
    """What a generator function gives, from the start each time."""

    make: Callable[[], Iterator[Any]]

    def __iter__(self) -> Iterator[Any]:
        return self.make()


def called(found: Any, name: str) -> Any:
    """Call a class or a function without arguments; anything else is returned as it is.

    Raises:
        InputError: it takes arguments, or raises.
    """
    if not isinstance(found, type) and (not callable(found) or hasattr(found, "__iter__") or hasattr(found, "__getitem__")):
        return found
    from netlens.loading.arguments import required_arguments
    from netlens.loading.streams import raised

    missing = required_arguments(found)
    if missing:
        raise InputError(f"{name} needs {listed(map(repr, missing))}", hint=NO_ARGUMENTS)
    try:
        made = found()
    except Exception as error:  # of the user's code
        raise raised(error, f"{name}()") from error
    return _Anew(found) if isinstance(made, Iterator) else made


def _length(found: Any) -> int | None:
    try:
        return len(found)
    except (TypeError, NotImplementedError):
        return None


def _by_index(found: Any) -> bool:
    """Tell whether each sample can be had by its index; a list may also be one of batches."""
    from torch.utils.data import DataLoader, IterableDataset

    from netlens.loading.samples import is_sample

    if _length(found) is None or not hasattr(found, "__getitem__") or isinstance(found, (IterableDataset, DataLoader, str)):
        return False
    return not isinstance(found, (list, tuple)) or is_sample(found[0])
