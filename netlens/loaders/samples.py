"""Single samples of a Dataset, read by their index: which of them raise, and how they differ."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from netlens.loaders.batches import Stuck, patient
from netlens.loaders.collating import label_of, parts_of
from netlens.loaders.source import Source
from netlens.loading.arrays import is_array, is_image
from netlens.loading.named import user_line
from netlens.loading.sample_labels import class_indices
from netlens.loading.words import cause
from netlens.probing.leaves import leaves

MOST = 1_000  # samples that are read one by one
SECONDS = 20.0  # for all of them
EXAMPLES = 5  # indices that are named of each shape


@dataclass(slots=True)
class Singles:
    """What was seen of single samples."""

    read: int = 0
    good: list[Any] = field(default_factory=list)  # indices of samples that did not raise
    raised: dict[Any, BaseException] = field(default_factory=dict)  # by index
    stuck: Any = None  # the index of the sample that never came
    forms: dict[str, dict[str, list[Any]]] = field(default_factory=dict)  # by part, by what it is: "float32 3 x 16 x 16": the indices
    labels: list[int] = field(default_factory=list)  # in the order of their indices, where they are whole numbers
    pictures: set[str] = field(default_factory=set)  # parts with three axes or more
    targets: bool = False  # whether labels are dicts, as detectors take them

    @property
    def differing(self) -> dict[str, dict[str, list[Any]]]:
        """The parts that are not the same in all samples, or that some do not have."""
        found = {}
        for part, forms in self.forms.items():
            having = {key for keys in forms.values() for key in keys}
            lacking = [key for key in self.good if key not in having]
            found[part] = forms | ({"missing": lacking} if lacking else {})
        return {part: forms for part, forms in found.items() if len(forms) > 1}

    @property
    def past_the_end(self) -> list[Any]:
        """The last indices, where each raises IndexError: the data set is shorter than it says."""
        last = self.good[-1] if self.good else None
        keys = [key for key, error in self.raised.items() if isinstance(error, IndexError)]
        return keys if isinstance(last, int) and all(isinstance(key, int) and key > last for key in keys) else []


def read_singly(source: Source, most: int, step: Callable[[], object], keys: Iterable[Any] | None = None) -> Singles:
    """Read samples by their index, evenly spread, and go on where one raises.

    Args:
        source: what they are read from; () where it has no indices.
        most: at most so many, and no more than MOST.
        step: is called after each.
        keys: the indices, where they are known.
    """
    singles = Singles()
    until = time.monotonic() + SECONDS
    for key in (source.spread(min(most, MOST)) if keys is None else keys) if source.dataset is not None else ():
        if time.monotonic() > until:
            break
        singles.read += 1
        try:
            with patient():
                sample = source.dataset[key]
        except Stuck:
            singles.stuck = key
            break
        except (Exception, SystemExit) as error:  # of the user's code
            singles.raised[key] = error
        else:
            _note(singles, key, sample)
        step()
    return singles


def told(error: BaseException) -> str:
    """Return an exception of the user's code in one line, with the place in it."""
    line = user_line(error)
    return cause(error) + (f" ({line})" if line else "")


def _note(singles: Singles, key: Any, sample: Any) -> None:
    singles.good.append(key)
    parts = parts_of(sample)
    for part, value in parts.items():
        singles.forms.setdefault(part, {}).setdefault(_form(value), []).append(key)
    singles.pictures |= {part for part, value in parts.items() if getattr(value, "ndim", 0) >= 3}
    label = label_of(sample)[1]
    singles.targets |= isinstance(label, Mapping)
    with suppress(RuntimeError, NotImplementedError):  # nested, sparse, meta tensors
        found = None if label is None else class_indices([label])
        if found is not None:
            singles.labels.append(int(found))


def _form(value: Any) -> str:
    """Say in a few words what decides whether values can be stacked."""
    if isinstance(value, Tensor) and value.is_nested:
        return "a nested tensor"
    if isinstance(value, Tensor) or is_array(value):
        return " x ".join(map(str, value.shape)) or "one number"
    if is_image(value):
        return f"a PIL picture ({value.mode})"
    if isinstance(value, (Mapping, tuple, list)):
        return ", ".join(f"{name} {_form(tensor)}" for name, tensor in leaves(value)[:EXAMPLES]) or f"a {type(value).__name__}"
    return "a number" if isinstance(value, (int, float)) else "None" if value is None else f"a {type(value).__name__}"
