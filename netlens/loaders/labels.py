"""The labels in a loader's batches: class indices, masks, one-hot rows, numbers to predict, or none of these."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from netlens.loaders.values import measurable
from netlens.loading.arrays import is_array, of_array

IGNORED = -100  # `ignore_index` of torch's losses
VOID = 255  # what masks have at borders that nobody labelled: Pascal VOC, Cityscapes
ONE_HOT = 0.8  # of the rows have exactly one 1, and none has more: else they are several labels a sample
ENOUGH = 16  # labels that are needed to say something of all
PER_CLASS = 4  # and of each class, to speak of blocks
INTEGERS = (torch.int8, torch.int16, torch.int32)  # cross-entropy takes int64, and uint8


@dataclass(slots=True)
class Labels:
    """What was seen of the labels of all batches."""

    classes: int | None  # how many there are; None: not known
    said: bool  # whether the user said so: of masks, a data set's own list may leave the background out
    name: str = ""  # of the part of the batch that holds them
    seen: int = 0  # samples with a label
    counts: Counter[int] = field(default_factory=Counter)  # of class indices
    order: list[int] = field(default_factory=list)  # the class indices as they came
    texts: Counter[str] = field(default_factory=Counter)
    types: Counter[str] = field(default_factory=Counter)  # "int64", "a list of numbers": batches
    outside: list[tuple[str, str]] = field(default_factory=list)  # sample, "label 4"
    negative: Counter[int] = field(default_factory=Counter)
    empty: list[tuple[str, str]] = field(default_factory=list)  # sample, of one-hot rows that are zero
    one_hot: int = 0  # rows with exactly one 1
    not_one_hot: bool = False
    kept: int = 0  # labels, or pixels of masks, that the loss does not ignore
    ignored: int = 0
    whole_floats: bool = True  # floats that are class indices

    def add(self, label: Any, places: list[str]) -> None:
        """Take the labels of one more batch; `places` name its samples."""
        if is_array(label):
            label = of_array(label)
        if isinstance(label, Tensor) and measurable(label):
            self._tensor(label.detach().cpu(), places)
        elif isinstance(label, (list, tuple)) and label and all(isinstance(one, str) for one in label):
            self.seen += len(label)
            self.texts.update(label)
        elif isinstance(label, (list, tuple)) and label and all(isinstance(one, Real) for one in label):
            self.types["a list of numbers"] += 1
            self.seen += len(label)

    def _tensor(self, label: Tensor, places: list[str]) -> None:
        if label.dim() == 2 and label.shape[1] == 1:
            label = label[:, 0]
        if label.dim() == 0 or label.shape[0] != len(places) or not label.numel():
            return
        self.seen += len(places)
        if label.dtype != torch.bool or label.dim() == 1:
            self.types[str(label.dtype).removeprefix("torch.")] += 1
        if label.dim() == 2 and label.shape[1] > 1:
            self._rows(label, places)
        if label.is_floating_point():
            self.whole_floats &= label.dim() == 1 and bool((label == label.round()).all())
        elif label.dtype != torch.bool:
            self._indices(label.long(), places)

    def _indices(self, label: Tensor, places: list[str]) -> None:
        ignored = label == IGNORED
        if label.dim() >= 3:
            ignored |= label == VOID
        self.ignored += int(ignored.sum())
        self.kept += int((~ignored).sum())
        if label.dim() == 1:
            plain = label[~ignored].tolist()
            self.counts.update(plain)
            self.order += plain
        if label.dim() == 2:  # tokens: as many numbers as there are words
            return
        known = self.classes is not None and (self.said or label.dim() == 1)
        high = self.classes if known and self.classes is not None else torch.iinfo(torch.int64).max
        wrong = ((label < 0) | (label >= high)) & ~ignored
        for row in wrong.flatten(1).any(1).nonzero().flatten().tolist() if wrong.dim() > 1 else wrong.nonzero().flatten().tolist():
            values = label[row][wrong[row]].unique().tolist()
            self.negative.update(value for value in values if value < 0)
            self.outside.append((places[row], f"label {', '.join(map(str, values[:5]))}"))

    def _rows(self, label: Tensor, places: list[str]) -> None:
        binary = bool(((label == 0) | (label == 1)).all())
        sums = label.sum(1)
        if not binary or bool((sums > 1).any()):
            self.not_one_hot = True
            return
        self.one_hot += int((sums == 1).sum())
        self.empty += [(places[row], "all zero") for row in (sums == 0).nonzero().flatten().tolist()]

    @property
    def wrong_indices(self) -> list[tuple[str, str]]:
        """The samples whose label is no class. Where classes are not known, -1 alone is none; other negatives are numbers to predict."""
        return self.outside if self.classes is not None or set(self.negative) == {-1} else []

    @property
    def zero_rows(self) -> list[tuple[str, str]]:
        """The samples whose one-hot row is zero."""
        rows = self.one_hot + len(self.empty)
        return [] if self.not_one_hot or rows < ENOUGH or self.one_hot < ONE_HOT * rows else self.empty

    def wrong_type(self, names: Sequence[str] | None) -> str:
        """Return what the labels are, where cross-entropy does not take it; "" where it does, or where they are no classes."""
        if self.texts:
            known = bool(names) and set(self.texts) <= set(names or ())
            return "texts" if known or (self.seen >= ENOUGH and 2 * len(self.texts) <= self.seen) else ""
        if "a list of numbers" in self.types:
            return "a list of numbers"
        found = next((name for name in self.types if name in {"bool", *(str(one).removeprefix("torch.") for one in INTEGERS)}), "")
        if found and not self.one_hot and not self.not_one_hot:
            return found
        floats = [name for name in self.types if "float" in name]
        binary = self.classes in (None, 1, 2)  # as BCEWithLogitsLoss takes them
        return floats[0] if floats and self.whole_floats and not binary else ""


def in_blocks(labels: Sequence[int]) -> bool:
    """Tell whether each class comes in one piece, one after the other."""
    runs, classes = sum(1 for _ in groupby(labels)), len(set(labels))
    return classes > 1 and runs == classes and len(labels) >= max(ENOUGH, PER_CLASS * classes)
