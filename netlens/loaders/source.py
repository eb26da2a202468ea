"""What was named: a Dataset, a DataLoader, or anything else that gives batches; made ready to be read without changing it."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    WeightedRandomSampler,
    default_collate,
)

from netlens.errors import InputError
from netlens.loaders.collating import in_lists
from netlens.loaders.drawn import Drawn
from netlens.loading.samples import classes_of, is_batch, is_sample
from netlens.loading.streams import raised
from netlens.loading.words import listed
from netlens.wording import counted

BATCH_SIZE = 32  # of a Dataset that comes without a loader
MOST_DRAWN = 10_000  # batches that are asked of a sampler of the user's own
HOW = "name a Dataset, a DataLoader, or a function without arguments that returns one"
ONE = "write a function without arguments that returns one of them, and name that"


@dataclass(frozen=True, slots=True)
class Source:
    """Something that gives batches, with what is known of it before anything is read."""

    name: str
    kind: str  # "Dataset", "IterableDataset", "DataLoader", "iterable"
    batches: Iterable[Any]  # a copy of the user's DataLoader, or one made here: it can be changed, and is iterated over
    dataset: Any  # gives samples by their index; None where there are none such
    length: int | None  # samples, as it says itself
    classes: tuple[str, ...] | None
    drawn: Drawn | None = None  # which samples each batch is made of

    @property
    def loader(self) -> Any:
        """The DataLoader that is read; None for other iterables."""
        return self.batches if isinstance(self.batches, DataLoader) else None

    @property
    def workers(self) -> int:
        """Worker processes that it starts."""
        return self.loader.num_workers if self.loader is not None else 0

    @property
    def batch_size(self) -> int | None:
        """Samples in a batch, where it is always the same."""
        return self.loader.batch_size if self.loader is not None else None

    @property
    def in_batches(self) -> int | None:
        """Batches in an epoch, as it says itself."""
        return length_of(self.batches)

    @property
    def is_stream(self) -> bool:
        """Whether samples come one after the other, from an IterableDataset."""
        return self.loader is not None and isinstance(self.loader.dataset, IterableDataset)

    @property
    def collates(self) -> bool:
        """Whether a DataLoader makes the batches; else the data set or the iterable does, or gives single samples."""
        return self.loader is not None and self.loader.batch_sampler is not None

    @property
    def in_order(self) -> bool:
        """Whether a DataLoader of the user gives sample 0, 1, 2, ... in batches of one size."""
        return self.kind == "DataLoader" and self._is_plain() and type(self.loader.sampler) is SequentialSampler

    @property
    def repeats(self) -> bool:
        """Whether samples may come several times because they shall."""
        sampler = getattr(self.loader, "sampler", None)
        return isinstance(sampler, WeightedRandomSampler) or (isinstance(sampler, RandomSampler) and sampler.replacement)

    @property
    def stacks(self) -> bool:
        """Whether all samples must have one shape: torch's own collate function, and batches made of any samples."""
        return self._is_plain() and self.loader.collate_fn in (default_collate, in_lists) and self.loader.batch_size > 1

    def _is_plain(self) -> bool:
        """Tell whether the DataLoader makes batches of `batch_size` samples as its sampler gives them."""
        return self.loader is not None and self.loader.batch_size is not None and not self.is_stream

    def keys_of(self, batch: int, size: int | None = None) -> list[Any] | None:
        """Return the indices of the samples of a batch; None where they are not known, or are not `size` many."""
        if self.drawn is None or batch >= len(self.drawn.batches):
            return None
        keys = self.drawn.batches[batch]
        return keys if size in (None, len(keys)) else None

    def changed(self, **attributes: Any) -> Source:
        """Return it with a DataLoader that has other attributes: `num_workers`, `collate_fn`."""
        return replace(self, batches=_copied(self.loader, **attributes))

    def spread(self, most: int) -> list[Any]:
        """Return at most `most` indices that it would give, evenly spaced, with the first and the last."""
        plain = self._is_plain() and type(self.loader.sampler) in (SequentialSampler, RandomSampler)
        keys: Sequence[Any] = range(self.length or 0) if plain or self.drawn is None else self.drawn.keys(MOST_DRAWN)
        if len(keys) <= most:
            return list(keys)
        return [keys[round(place * (len(keys) - 1) / max(most - 1, 1))] for place in range(most)]


def source_of(found: Any, name: str) -> Source:
    """Make a Dataset, a DataLoader or an iterable ready to be read; the object itself is not changed.

    Raises:
        InputError: it is none of these.
    """
    if isinstance(found, DataLoader):
        return _of_loader(found, name, "DataLoader")
    if isinstance(found, Mapping):
        raise InputError(f"{name} is a dict of {listed(list(map(str, found)))}", hint=ONE)
    if isinstance(found, (list, tuple)) and any(isinstance(one, (DataLoader, Dataset)) for one in found):
        raise InputError(f"{name} holds {counted(len(found), 'data set')} or loaders", hint=ONE)
    if isinstance(found, IterableDataset):
        return _of_loader(DataLoader(found, None) if _gives_batches(found) else _batched(found), name, "IterableDataset")
    if length_of(found) is not None and hasattr(found, "__getitem__") and not isinstance(found, (str, bytes)) and _gives_samples(found):
        return _of_loader(_batched(found), name, "Dataset")
    if not isinstance(found, Iterable) or isinstance(found, (str, bytes, Path)):
        kind = type(found).__name__
        if hasattr(found, "__getitem__") and not isinstance(found, (str, bytes, type)):
            raise InputError(f"{name} is of the type {kind}, which does not say how many samples it has", hint="give it a __len__")
        raise InputError(f"{name} is of the type {kind}, which holds no samples", hint=HOW)
    return _of_iterable(found, name)


def length_of(found: Any) -> int | None:
    """Return its `len()`, where it has one.

    Raises:
        InputError: the user's `__len__` raises.
    """
    try:
        return len(found)
    except (TypeError, NotImplementedError):
        return None
    except Exception as error:  # of the user's code; a negative length is a ValueError
        said = raised(error, f"len() of {type(found).__name__}").message
        raise InputError(said, hint="let __len__ return how many samples there are") from error


@contextmanager
def left_as_found(source: Source) -> Iterator[None]:
    """Put the states of the loader's own generators back, as if nothing had been drawn."""
    sampler = getattr(source.loader, "sampler", None)
    owners = (source.loader, sampler, getattr(source.drawn, "_sampler", None))
    generators = [found for found in (getattr(owner, "generator", None) for owner in owners) if isinstance(found, torch.Generator)]
    states = [generator.get_state() for generator in generators]
    try:
        yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)


def _gives_samples(found: Any) -> bool:
    """Tell a list of samples from a list of batches; any other class with indices is a Dataset."""
    return not isinstance(found, (list, tuple)) or not found or is_sample(found[0])


def _batched(found: Any) -> DataLoader[Any]:
    """Make a loader as most would, which leaves to a collate function of the user's what cannot be stacked."""
    return DataLoader(found, BATCH_SIZE, collate_fn=in_lists)


def _gives_batches(found: Iterable[Any]) -> bool:
    try:
        first = next(iter(found), None)
    except Exception:  # of the user's code: told when it is read
        return False
    return first is not None and is_batch(first)


def _of_loader(loader: DataLoader[Any], name: str, kind: str) -> Source:
    by_index = not isinstance(loader.dataset, IterableDataset)
    place = "sampler" if loader.batch_sampler is None else "batch_sampler"
    drawn = Drawn(getattr(loader, place), place == "batch_sampler") if by_index else None
    read = _copied(loader, **({place: drawn} if drawn is not None else {}))
    return Source(name, kind, read, loader.dataset if by_index else None, length_of(loader.dataset), classes_of(loader), drawn)


def _copied(loader: DataLoader[Any], **attributes: Any) -> DataLoader[Any]:
    """Copy a DataLoader; its workers end with its iterator, and nothing is pinned, which values do not show."""
    copied = copy.copy(loader)
    vars(copied).update({"_iterator": None, "persistent_workers": False, "pin_memory": False, **attributes})
    if not copied.num_workers:
        vars(copied).update(prefetch_factor=None, timeout=0)
    return copied


class _Samples(IterableDataset[Any]):
    def __init__(self, samples: Iterable[Any]) -> None:
        self.samples = samples

    def __iter__(self) -> Iterator[Any]:
        return iter(self.samples)


def _of_iterable(found: Iterable[Any], name: str) -> Source:
    """Look at the first item, which says whether they are samples or batches."""
    items = iter(found)
    length = length_of(found)
    try:
        first = [next(items)]
    except StopIteration:
        first = []
    except Exception:  # of the user's code: told when it is read anew
        return Source(name, "iterable", found, None, None, classes_of(found))
    again = _Again(found, items, first)
    if first and is_sample(first[0]) and not is_batch(first[0]):
        return Source(name, "iterable", _batched(_Samples(again)), None, length, classes_of(found))
    return Source(name, "iterable", again, None, None, classes_of(found))


class _Again:
    """Items of which the first was looked at; from the start each time, where that can be had."""

    def __init__(self, found: Iterable[Any], items: Iterator[Any], first: list[Any]) -> None:
        self._found, self._next = found, chain(first, items)
        self.begun = False

    def __len__(self) -> int:
        return len(self._found)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Any]:
        if self.begun:
            return iter(self._found)
        self.begun = True
        return self._next
