"""Random numbers in workers: whether two of them, or two epochs, draw the same.

torch seeds Python's, numpy's and its own generators anew in each worker and epoch. A generator that the data set made for itself
(`np.random.default_rng()`, `random.Random()`, `torch.Generator()`) is copied into all of them (pytorch/pytorch issues 5059 and 3880).
Where a sample draws from both kinds, and never comes out twice the same for that, this cannot be seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from math import comb
from typing import Any

from torch.utils.data import DataLoader, get_worker_info

from netlens.data.issues import Issue, Item
from netlens.loaders.aside import Say, attempted
from netlens.loaders.digests import digest
from netlens.loaders.own import batches_of, first_indices, is_stream, own_loader

SAMPLES = 16  # of which half are read first: so many show a flip that happens every other time
LONGEST = 60.0  # seconds
STUCK = 20.0  # seconds for a batch
CHANCE = 1e-4  # of a false alarm, by Fisher's exact test

Draws = dict[tuple[int, int, int], bytes]  # (epoch, worker, sample) -> digest


def worker_seeds(loader: DataLoader[Any], say: Say = lambda _text: None) -> list[Issue]:
    """Tell whether workers draw the same random numbers ("worker-seeds"); latent where the loader has too few workers to show it.

    Two workers read the same samples, three times, each with new workers: in one order, in another one, in the first again. What differs
    between the orders is random (a sample that is changed in place is not: it is read once). Random samples that are equal in both
    workers, or in the first epoch and the last one, are drawn with the same numbers.
    """
    if is_stream(loader):
        return []
    found = attempted(partial(_read, loader), LONGEST, "whether workers draw the same random numbers was not tested", say)
    if found is None:
        return []
    names, draws = found
    samples = range(len(names))
    drawn = [(draws[0, worker, sample], draws[1, worker, sample]) for worker in (0, 1) for sample in samples]
    workers = [(draws[epoch, 0, sample], draws[epoch, 1, sample]) for epoch in (0, 1, 2) for sample in samples]
    epochs = [(draws[0, worker, sample], draws[2, worker, sample]) for worker in (0, 1) for sample in samples]
    alike = {
        "two workers": _too_alike(workers, drawn),
        "two epochs": not loader.persistent_workers and _too_alike(epochs, drawn),  # workers that go on do not begin anew
    }
    if not any(alike.values()):
        return []
    random = [sample for sample in samples if any(draws[0, worker, sample] != draws[1, worker, sample] for worker in (0, 1))]
    detail = "drawn at random, and the same in " + " and in ".join(what for what, is_so in alike.items() if is_so)
    items = tuple(Item((f"sample {names[sample]}",), detail) for sample in random)
    shows = loader.num_workers > 1 or (loader.num_workers == 1 and alike["two epochs"])
    return [Issue("worker-seeds", items, len(names), _measured(workers, epochs, drawn), "what is random should differ", latent=not shows)]


def _read(loader: DataLoader[Any]) -> tuple[list[str], Draws]:
    try:
        return _in_workers(loader, first_indices(loader, SAMPLES))
    except Exception:  # a sample that raises is not our business
        return _in_workers(loader, first_indices(loader, SAMPLES, readable=True))


def _in_workers(loader: DataLoader[Any], indices: list[Any]) -> tuple[list[str], Draws]:
    """Read samples in two workers and three epochs; ([], {}) where there is only one sample."""
    half = len(indices) // 2
    first, second = list(range(half)), list(range(half, 2 * half))
    draws: Draws = {}
    for epoch, order in enumerate(([first, second], [second, first], [first, second]) if half else ()):
        plan = [[indices[place] for place in places] for places in order for _worker in (0, 1)]
        places = _Places(order)
        for worker, found in batches_of(own_loader(loader, workers=2, plan=plan, collate=_told, timeout=STUCK)):
            draws |= {(epoch, worker, place): each for place, each in zip(places.next(worker), found, strict=True)}
    return [str(index) for index in indices[: 2 * half]], draws


class _Places:
    """Which samples a worker's next batch has."""

    def __init__(self, order: list[list[int]]) -> None:
        self._left: dict[int, Iterator[list[int]]] = {worker: iter(order) for worker in (0, 1)}

    def next(self, worker: int) -> list[int]:
        return next(self._left[worker])


def _told(samples: list[Any]) -> tuple[int, list[bytes]]:
    worker = get_worker_info()
    assert worker is not None
    return worker.id, [digest(sample) for sample in samples]


Pairs = list[tuple[bytes, bytes]]


def _differing(pairs: Pairs) -> int:
    return sum(a != b for a, b in pairs)


def _too_alike(pairs: Pairs, drawn: Pairs) -> bool:
    """Tell whether so few of `pairs` differ, beside so many of `drawn`, that chance does not explain it."""
    few, many = _differing(pairs), _differing(drawn)
    every, differing = len(pairs) + len(drawn), few + many
    ways = sum(comb(differing, k) * comb(every - differing, len(pairs) - k) for k in range(few + 1) if k <= len(pairs))
    return bool(drawn) and ways < CHANCE * comb(every, len(pairs))


def _measured(workers: Pairs, epochs: Pairs, drawn: Pairs) -> str:
    return (
        f"of {len(drawn)} readings in another order {_differing(drawn)} differ, of {len(workers)} in two workers {_differing(workers)}, "
        f"of {len(epochs)} in two epochs {_differing(epochs)}"
    )
