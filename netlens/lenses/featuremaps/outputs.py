"""What the model as a whole puts out: whether it depends on the sample, and how sure it is."""

from __future__ import annotations

from math import log
from typing import Any

import torch
from torch import Tensor

from netlens.lenses.featuremaps.report import OutputFacts
from netlens.probing.leaves import leaves

MOST_ELEMENTS = 1 << 22  # of a sample whose places are summed up one by one
CLASSES = 2  # at the least, for scores of classes


class OutputStatistics:
    """Sums over all samples of the first floating tensor that the model returns."""

    def __init__(self) -> None:
        self._name = ""
        self._shape: tuple[int, ...] = ()
        self._samples = self._nonfinite = 0
        self._squares = 0.0
        self._sum: Tensor | None = None
        self._certain: list[Tensor] = []  # of each batch: sum of the largest probability, sum of the entropy
        self._predicted: set[int] = set()

    def add(self, result: Any) -> None:
        """Take in what the model returned for one batch."""
        found = [(name, tensor) for name, tensor in leaves(result) if tensor.is_floating_point() and tensor.dim()]
        if not found:
            return
        self._name, tensor = found[0]
        values = tensor.detach().to(torch.float32 if tensor.dtype.itemsize < 4 else tensor.dtype)
        shape = tuple(values.shape[1:])
        if self._samples and shape != self._shape:  # sizes vary: only the samples at the start are compared
            return
        self._shape = shape
        self._samples += len(values)
        finite = values.isfinite()
        self._nonfinite += int((~finite).sum())
        values = values.where(finite, 0)
        self._squares += float(values.double().square().sum())
        if values[:1].numel() <= MOST_ELEMENTS:
            total = values.double().sum(0)
            self._sum = total if self._sum is None else self._sum + total
        if self._classes:
            self._add_scores(values)

    @property
    def _classes(self) -> int | None:
        return self._shape[0] if len(self._shape) == 1 and self._shape[0] >= CLASSES else None

    def _add_scores(self, scores: Tensor) -> None:
        sums = scores.sum(1)
        are_probabilities = bool((scores >= 0).all()) and torch.allclose(sums, torch.ones_like(sums), atol=1e-3)
        probabilities = scores if are_probabilities else scores.softmax(1)
        entropy = torch.special.entr(probabilities).sum(1)
        self._certain.append(torch.stack([probabilities.amax(1).sum(), entropy.sum()]).double().cpu())
        self._predicted.update(probabilities.argmax(1).tolist())

    def result(self) -> OutputFacts | None:
        """Return what is known; None where the model returned no floating tensor."""
        if not self._samples:
            return None
        top, entropy = torch.stack(self._certain).sum(0).tolist() if self._certain else (None, None)
        classes = self._classes
        return OutputFacts(
            name=self._name,
            shape=self._shape,
            between=self._between(),
            nonfinite=self._nonfinite,
            classes=classes,
            top_probability=None if top is None else top / self._samples,
            entropy=None if entropy is None or not classes else entropy / self._samples / log(classes),
            predicted=len(self._predicted) if self._certain else None,
        )

    def _between(self) -> float | None:
        """Variance between samples at a place / mean square, both summed over places."""
        if self._sum is None or self._samples < 2 or not self._squares:
            return None
        of_means = float(self._sum.square().sum()) / self._samples
        return max(0.0, 1 - of_means / self._squares)
