"""Reading the same sample again: whether its values are still those of the first time."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from torch.utils.data import DataLoader

from netlens.data.issues import Issue, Item
from netlens.loaders.aside import Say, attempted, seed
from netlens.loaders.digests import digest
from netlens.loaders.own import first_indices, is_stream
from netlens.loading.arrays import is_image
from netlens.probing.leaves import leaves
from netlens.wording import number

SAMPLES = 12  # half of them are read again, the other half between
LONGEST = 30.0  # seconds, twice
LEAST = 2  # samples that change: one could be a rare flip of a generator that is not seen otherwise

Reading = tuple[bytes, float | None]  # digest, mean


def samples_mutated(loader: DataLoader[Any], say: Say = lambda _text: None) -> list[Issue]:
    """Tell whether reading a sample changes it, or one that was read before ("sample-mutated").

    Samples are read with the same seeds, others are read, the samples are read again, and so on in another order by another process. What
    is another the second time, but the same in both orders, has been changed by reading it. Where the orders differ, a generator of the
    data set's own is at work, and nothing is said. A sample in hand whose values change when others are read shares its memory with them.
    """
    if is_stream(loader):
        return []
    what = "whether samples change when they are read was not tested"
    first = attempted(partial(_read, loader, False), LONGEST, what, say)
    second = attempted(partial(_read, loader, True), LONGEST, what, say) if first else None
    if first is None or second is None:
        return []
    names, overwritten, readings = first
    changed = _changed(readings, second[2])
    items = [Item((f"sample {names[place]}",), _drift([each[place] for each in readings])) for place in changed]
    if overwritten:
        items = [Item((f"sample {names[place]}",), "another one after others are read: all share one buffer") for place in overwritten]
    if not items:
        return []
    return [Issue("sample-mutated", tuple(items), len(names), f"{len(items)} of {len(names)} samples that were read again")]


def _read(loader: DataLoader[Any], others_first: bool) -> tuple[list[str], list[int], list[list[Reading]]]:
    try:
        return _in_order(loader, first_indices(loader, SAMPLES), others_first)
    except Exception:  # a sample that raises is not our business
        return _in_order(loader, first_indices(loader, SAMPLES, readable=True), others_first)


def _in_order(loader: DataLoader[Any], indices: list[Any], others_first: bool) -> tuple[list[str], list[int], list[list[Reading]]]:
    """Read samples, others, the samples again and again; return their names, those that changed in hand, and what each time gave."""
    half = (len(indices) + 1) // 2
    chosen, others = indices[:half], indices[half:]
    if others_first:
        _taken(loader, others)
    in_hand = _taken(loader, chosen)
    readings = [[_reading(sample) for sample in in_hand]]
    _taken(loader, others)
    overwritten = [place for place, sample in enumerate(in_hand) if others and digest(sample) != readings[0][place][0]]
    readings += [[_reading(sample) for sample in _taken(loader, chosen)] for _ in range(2)]
    return [str(index) for index in chosen], overwritten, readings


def _taken(loader: DataLoader[Any], indices: Sequence[Any]) -> list[Any]:
    found = []
    for place, index in enumerate(indices):
        seed(place)
        found.append(loader.dataset[index])
    return found


def _reading(sample: Any) -> Reading:
    return digest(sample), _mean(sample)


def _mean(sample: Any) -> float | None:
    """Return the mean of the first part that has one, to show where values drift."""
    for part in sample.values() if isinstance(sample, dict) else sample if isinstance(sample, (tuple, list)) else [sample]:
        tensor = next((tensor for _, tensor in leaves(part)), None)
        if tensor is not None and tensor.numel():
            return float(tensor.double().mean())
        if is_image(part) or (isinstance(part, np.ndarray) and part.dtype.kind in "biuf" and part.size):
            return float(np.asarray(part, dtype=np.float64).mean())
    return None


def _changed(first: list[list[Reading]], second: list[list[Reading]]) -> list[int]:
    """Return the places that are another the second time, in both orders alike; none where the orders give anything else."""
    if any(a != b for one, other in zip(first[:2], second[:2], strict=True) for (a, _), (b, _) in zip(one, other, strict=True)):
        return []
    changed = [place for place, (once, again) in enumerate(zip(*first[:2], strict=True)) if once[0] != again[0]]
    return changed if len(changed) >= min(LEAST, len(first[0])) else []


def _drift(readings: list[Reading]) -> str:
    means = [mean for _, mean in readings if mean is not None]
    return "read three times, its mean is " + ", ".join(map(number, means)) if means else "another one when it is read again"
