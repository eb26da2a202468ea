"""Loaders of our own that do as the user's: the same samples, `collate_fn`, seeds; with other workers, or a plan of ours."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from copy import copy
from itertools import chain, islice
from typing import Any

from torch.utils.data import DataLoader, IterableDataset

PREFETCH = 2  # torch's default
MOST_TRIED = 4  # times the indices that are wanted


def own_loader(
    loader: DataLoader[Any],
    *,
    workers: int,
    plan: Iterable[Any] | None = None,
    collate: Callable[[Any], Any] | None = None,
    timeout: float = 0,
) -> DataLoader[Any]:
    """Return a copy of `loader`; only for a fork, since samplers, generators and the data are the user's.

    Args:
        loader: the user's.
        workers: processes.
        plan: indices of each batch; None: those of the user's sampler.
        collate: in place of the user's.
        timeout: seconds for one batch of workers; 0: no limit.
    """
    mine = copy(loader)
    state = vars(mine)
    state |= {
        "num_workers": workers,
        "prefetch_factor": (loader.prefetch_factor or PREFETCH) if workers else None,
        "pin_memory": False,
        "timeout": timeout if workers else 0,
        "in_order": True,
        "_iterator": None,
    }
    if plan is not None and loader.batch_sampler is None and collate is None:
        state["sampler"] = _Flat(plan)
    elif plan is not None:
        state["batch_sampler"] = plan
    if collate is not None:
        mine.collate_fn = collate
    if workers:
        mine.multiprocessing_context = "fork"  # a module that netlens loaded from a file has a name that new processes do not know
    return mine


class _Flat:
    """The indices of a plan, one by one: of a loader without automatic batches."""

    def __init__(self, plan: Iterable[Any]) -> None:
        self._plan = plan

    def __iter__(self) -> Iterator[Any]:
        return chain.from_iterable(self._plan)


def batches_of(loader: DataLoader[Any]) -> Iterator[Any]:
    """Yield batches by torch's own `__iter__`: a subclass may keep workers running that are not ours to ask."""
    return iter(DataLoader.__iter__(loader))


def is_stream(loader: DataLoader[Any]) -> bool:
    """Tell whether samples cannot be had by their indices."""
    return isinstance(loader.dataset, IterableDataset)


def groups_of(loader: DataLoader[Any]) -> Iterator[list[Any]]:
    """Yield the indices of each batch of an epoch, by the user's sampler; only for a fork."""
    if loader.batch_sampler is not None:
        return map(list, loader.batch_sampler)
    return ([index] for index in loader.sampler)


def first_indices(loader: DataLoader[Any], count: int, *, readable: bool = False) -> list[Any]:
    """Return the first `count` indices that differ, as the user's sampler gives them; only for a fork.

    Args:
        loader: the user's.
        count: at most so many.
        readable: read each sample, and leave out those that raise.
    """
    found: list[Any] = []
    for index in islice(chain.from_iterable(groups_of(loader)), MOST_TRIED * count):
        if index not in found and (not readable or _can_be_read(loader, index)):
            found.append(index)
        if len(found) == count:
            break
    return found


def _can_be_read(loader: DataLoader[Any], index: Any) -> bool:
    try:
        loader.dataset[index]
    except Exception:  # of the user's code: told by those who look at samples
        return False
    return True
