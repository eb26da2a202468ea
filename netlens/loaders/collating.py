"""The parts of samples and of batches, and batches of samples that cannot be stacked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any

from torch import Tensor
from torch.utils.data import default_collate

from netlens.loading.arrays import is_array, is_image
from netlens.loading.samples import LABELS


def by_name(item: Any) -> Any:
    """Return what a sample or a batch holds as a dict where it has names: named tuples, dataclasses, classes with `.to`."""
    if isinstance(item, tuple) and hasattr(item, "_fields"):
        return dict(zip(item._fields, item, strict=True))
    plain = isinstance(item, (Mapping, tuple, list, Tensor, str, bytes, int, float)) or item is None or is_array(item) or is_image(item)
    if not plain and (is_dataclass(item) or hasattr(item, "__dict__")):
        return {name: value for name, value in vars(item).items() if not name.startswith("_")}
    return item


def parts_of(item: Any) -> dict[str, Any]:
    """Return the parts of a sample or of a batch by their names: "image", or "0" and "1"; one alone is "0"."""
    item = by_name(item)
    if isinstance(item, Mapping):
        return {str(name): part for name, part in item.items()}
    return {str(place): part for place, part in enumerate(item)} if isinstance(item, (tuple, list)) else {"0": item}


def label_of(batch: Any) -> tuple[str, Any]:
    """Return the name and the value of the part of a batch that holds the labels; "", None where there is none."""
    batch = by_name(batch)
    if isinstance(batch, Mapping):
        name = next((name for name in LABELS if name in batch), "")
        return name, batch.get(name)
    if not isinstance(batch, (tuple, list)) or len(batch) < 2:
        return "", None
    return ("0", batch[0]) if len(batch) == 2 and _comes_first(*batch) else ("1", batch[1])


def _comes_first(label: Any, picture: Any) -> bool:
    """Tell whether a label is before its picture, or labels are before their pictures."""
    if isinstance(label, Tensor) and (label.dim() > 1 or label.is_floating_point() or label.is_complex()):
        return False
    is_picture = is_image(picture) or (isinstance(picture, Tensor) and picture.dim() >= 3 and picture.is_floating_point())
    return is_picture and isinstance(label, (int, Tensor))


def in_lists(samples: list[Any], anything: bool = False) -> Any:
    """Make a batch of samples of any shapes: of each part a tensor where that goes, else a list.

    Args:
        samples: as a collate function gets them.
        anything: whether to put None and pictures of Pillow into lists as well.

    Raises:
        Exception: torch's own, where samples are no batch in any way: None, pictures of Pillow, dicts with other keys.
    """
    if any(not isinstance(sample, type(samples[0])) for sample in samples):
        return default_collate(samples)
    parts = [parts_of(sample) for sample in samples]
    columns = {name: _column([part[name] for part in parts], anything) for name in parts[0]}
    return columns if "0" not in columns else tuple(columns.values())


def _column(values: list[Any], anything: bool) -> Any:
    try:
        return default_collate(values)
    except (RuntimeError, TypeError, KeyError, ValueError):
        if not anything and any(value is None or is_image(value) for value in values):
            raise
        return values
