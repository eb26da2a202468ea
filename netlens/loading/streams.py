"""Samples of a data set, one batch after the other: read when they are wanted, and not kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import IterableDataset

from netlens.errors import InputError
from netlens.loading.named import user_line
from netlens.loading.preprocessing import load_batch
from netlens.loading.samples import DataBatch, Reader, is_batch, is_sample
from netlens.loading.words import cause


def pictures(
    paths: Sequence[Path], classes: tuple[str, ...] | None, reader: Reader, batch_size: int, limit: int | None
) -> Iterator[DataBatch]:
    """Yield pictures of files, with the index of their folder among `classes` as label."""
    for indices in _groups(spaced(len(paths), limit), batch_size):
        yield some_pictures(paths, classes, reader, indices)


def some_pictures(paths: Sequence[Path], classes: tuple[str, ...] | None, reader: Reader, indices: Sequence[int]) -> DataBatch:
    """Read the pictures with these indices."""
    if reader.preprocessing is None:
        raise InputError(f"{reader.name} holds pictures, and the model takes none", hint="name a Dataset of what it takes")
    numbers = {name: number for number, name in enumerate(classes or ())}
    if classes and list(classes) != sorted(classes):
        reader.remarks["classes are numbered as people count, 2 before 10; torchvision's ImageFolder numbers them as texts"] = 1
    chosen = [paths[index] for index in indices]
    batch = load_batch(chosen, reader.preprocessing)
    reader.remarks.update(note.partition(": ")[2] for note in batch.notes)
    labels = torch.tensor([numbers[path.parent.name] for path in chosen]) if numbers else None
    return DataBatch((batch.tensor,), {}, labels, len(chosen), labels)


def indexed(found: Any, length: int, reader: Reader, batch_size: int, limit: int | None) -> Iterator[DataBatch]:
    """Yield samples that can be had by their index."""
    for indices in _groups(spaced(length, limit), batch_size):
        yield some_samples(found, reader, indices)


def some_samples(found: Any, reader: Reader, indices: Sequence[int]) -> DataBatch:
    """Read the samples with these indices."""
    return reader.collated([(index, _sample(found, index, reader.name)) for index in indices])


def _sample(found: Any, index: int, name: str) -> Any:
    try:
        return found[index]
    except Exception as error:  # of the user's code
        raise raised(error, f"sample {index} of {name}") from error


def streamed(found: Iterable[Any], is_loader: bool, reader: Reader, batch_size: int, limit: int | None) -> Iterator[DataBatch]:
    """Yield what comes one after the other: batches from a loader, samples from an IterableDataset, else what the first looks like."""
    items = _items(found, reader.name)
    first = next(items, None)
    if first is None:
        raise InputError(f"{reader.name} gives nothing", hint="check the path that it reads from; a generator gives its items only once")
    singly = not is_batch(first[1]) if isinstance(found, IterableDataset) else is_sample(first[1])
    items = chain([first], items)
    if singly and not is_loader:
        yield from (reader.collated(group) for group in _groups(islice(items, limit), batch_size))
        return
    left = limit
    for index, item in items:
        batch = reader.batched(index, item)
        yield batch if left is None else batch.cut(left)
        left = None if left is None else left - batch.size
        if left is not None and left <= 0:
            return


def _items(found: Iterable[Any], name: str) -> Iterator[tuple[int, Any]]:
    index = 0
    try:
        for item in found:
            yield index, item
            index += 1
    except Exception as error:  # of the user's code
        raise raised(error, f"item {index} of {name}") from error


def raised(error: Exception, what: str) -> InputError:
    """Return the error for an exception of the user's code: what raised, and in which line."""
    line = user_line(error)
    return InputError(f"{what} raised {cause(error)}{f' ({line})' if line else ''}", hint="mend it, or leave it out of the data set")


def spaced(length: int, limit: int | None) -> Sequence[int]:
    """Indices, evenly spaced where not all are wanted: the first ones of a folder are all of one class."""
    return range(length) if limit is None or limit >= length else [index * length // limit for index in range(limit)]


def _groups(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    remaining = iter(items)
    while group := list(islice(remaining, size)):
        yield group
