"""Scores of classes, of a whole picture or of each place in it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from netlens.errors import UsageError
from netlens.lenses.gradcam.answers import Answer, Point, Size, Target, no_places, nonfinite, part, wide
from netlens.lenses.gradcam.endings import NOTES, before, ending
from netlens.lenses.gradcam.report import Class

SUMMED = (
    "classes are in the order of the areas where they win, the background last; p is the mean probability of a class there, and its score "
    "the sum of its scores there"
)
SIGNS = ("negative", "positive")  # the classes of a single logit
BACKGROUNDS = frozenset({"background", "__background__", "bg", "unlabeled", "unlabelled", "void"})


class OfClasses(Answer):
    """Scores of K classes. A single logit z is those of two classes: -z and z."""

    classes: int
    channels: int  # scores that the model gives
    values: Tensor  # (N, K, *grid), before softmax or sigmoid, in the graph

    def __init__(self, leaf: str, tensor: Tensor, channels: int, *, independent: bool = False) -> None:
        """Read `tensor`; `channels`: scores that the model gives; `independent`: several classes may be true at once."""
        super().__init__(leaf)
        self._single = channels == 1
        self.channels = channels
        self.classes = max(2, channels)
        self._ending = ending(tensor, channels)
        self._sigmoid = self._single or independent or self._ending == "sigmoid"
        self.notes = NOTES[self._ending]
        self._take(tensor)

    @property
    def samples(self) -> int:
        """The number of samples."""
        return len(self.values)

    def nonfinite(self, sample: int) -> int:
        """Count the elements of a sample's output that are not finite."""
        return nonfinite(self._seen[sample]) // (1 + self._single)

    @abstractmethod
    def _take(self, tensor: Tensor) -> None: ...

    @cached_property
    def _seen(self) -> Tensor:
        """The values without a graph."""
        return self.values.detach()

    def _read(self, output: Any) -> None:
        for kept in ("_seen", "_chances"):
            self.__dict__.pop(kept, None)
        self._take(part(output, self.leaf))

    def _scores(self, tensor: Tensor) -> Tensor:
        values = before(wide(tensor), self._ending)
        return torch.cat([-values, values], 1) if self._single else values

    def _name(self, index: int) -> str | None:
        return super()._name(index) or (SIGNS[index] if self._single else None)

    def _index(self, asked: str) -> int:
        sign = asked.strip().lower()
        return SIGNS.index(sign) if self._single and self.names is None and sign in SIGNS else super()._index(asked)


class ClassScores(OfClasses):
    """One score for each class of a picture; `values` are (N, K)."""

    @property
    def kind(self) -> str:  # type: ignore[override]
        """What it is."""
        return "single logit" if self._single else "class scores"

    def best(self, sample: int, count: int = 1, point: Point | None = None) -> tuple[Target, ...]:
        """Return the most probable classes; those whose score is not a number come last."""
        no_places(point)
        ranks = self._seen[sample].nan_to_num(-torch.inf).argsort(descending=True, stable=True)[:count].tolist()
        return tuple(
            Target(self._class(sample, index), f"prediction {rank}" if rank > 1 else "top prediction")
            for rank, index in enumerate(ranks, 1)
        )

    def resolve(self, sample: int, asked: str, point: Point | None = None) -> Target:
        """Return the class that is asked for."""
        no_places(point)
        return Target(self._class(sample, self._index(asked)), asked)

    def scores(self, targets: Sequence[Target]) -> Tensor:
        """Return the score of each sample's class, before softmax or sigmoid."""
        return self.values.gather(1, torch.tensor([[target.found.index] for target in targets], device=self.values.device))[:, 0]

    def probabilities(self, targets: Sequence[Target]) -> Tensor:
        """Return the probability of each sample's class."""
        scores = self.scores(targets)
        return scores.sigmoid() if self._sigmoid else (scores - self.values.logsumexp(1)).exp()

    @cached_property
    def _seen(self) -> Tensor:
        """The values without a graph; on the CPU, for they are read number by number."""
        return self.values.detach().cpu()

    @cached_property
    def _chances(self) -> Tensor:
        return self._seen.sigmoid() if self._sigmoid else self._seen.softmax(1)

    def _take(self, tensor: Tensor) -> None:
        self.values = self._scores(tensor.reshape(-1, self.channels))

    def _class(self, sample: int, index: int) -> Class:
        return Class(index, self._name(index), float(self._seen[sample, index]), float(self._chances[sample, index]))


class ClassMap(OfClasses):
    """Scores of classes at each place, as of a segmentation; `values` are (N, K, *grid).

    The score of a class is the sum over the places where it wins (Seg-Grad-CAM, Vinogradova et al. 2020, 2002.11434), or at one place;
    of a class that wins nowhere, over all.
    """

    kind = "class map"

    def __init__(self, leaf: str, tensor: Tensor, channels: int, *, independent: bool = False, size: Size | None = None) -> None:
        """Read `tensor`, also without its only channel; `size`: of the input, for points."""
        self._size = size
        super().__init__(leaf, tensor, channels, independent=independent)
        self.notes += (SUMMED,)

    def best(self, sample: int, count: int = 1, point: Point | None = None) -> tuple[Target, ...]:
        """Return the classes with the largest regions, the background last; at a point, those with the highest scores."""
        values = self._finite(sample)
        if point is not None:
            ranks = values[:, self._pixel(point)][:, 0].argsort(descending=True, stable=True)
            return tuple(self._target(sample, index, "", point) for index in ranks[:count].tolist())
        background, areas = self._background(), self._areas(values)
        found = sorted((index for index in range(self.classes) if areas[index]), key=lambda index: (index == background, -areas[index]))
        besides = "" if background is None or found[:1] == [background] else f" besides {self._name(background) or 'class 0'}"
        asked = [f"largest region{besides}", *(f"region {rank} by size" for rank in range(2, len(found) + 1))]
        pairs = zip(found or [int(values.flatten(1).mean(1).argmax())], asked, strict=False)
        return tuple(self._target(sample, index, text) for index, text in list(pairs)[:count])

    def resolve(self, sample: int, asked: str, point: Point | None = None) -> Target:
        """Return the class that is asked for, where it wins, or at the point."""
        return self._target(sample, self._index(asked), asked, point)

    def scores(self, targets: Sequence[Target]) -> Tensor:
        """Return the sum of the class's score, before softmax or sigmoid, over each target's region."""
        pairs = zip(self.values, targets, strict=True)
        return torch.stack([values[target.found.index][target.region].sum() for values, target in pairs])

    def probabilities(self, targets: Sequence[Target]) -> Tensor:
        """Return the mean of the class's probability over each target's region."""
        pairs = zip(self.values, targets, strict=True)
        return torch.stack([self._probability(values, target.found.index)[target.region].mean() for values, target in pairs])

    def _take(self, tensor: Tensor) -> None:
        self.values = self._scores(tensor[:, None] if tensor.dim() == 3 else tensor)

    def _target(self, sample: int, index: int, asked: str, point: Point | None = None) -> Target:
        region = self._won(self._finite(sample), index) if point is None else self._pixel(point)
        if point is not None:
            asked = ", ".join(filter(None, (asked, f"point {point}")))
        nowhere = not region.any()
        region = region | nowhere
        values = self._seen[sample]
        probability = self._probability(values, index)[region].mean()
        found = Class(index, self._name(index), float(values[index][region].sum()), float(probability))
        return Target(found, asked, region, point=point, nowhere=nowhere)

    def _probability(self, values: Tensor, index: int) -> Tensor:
        """Return the probability of a class: scores (K, *grid) -> (*grid)."""
        return values[index].sigmoid() if self._sigmoid else (values[index] - values.logsumexp(0)).exp()

    def _finite(self, sample: int) -> Tensor:
        return self._seen[sample].nan_to_num(-torch.inf, torch.inf, -torch.inf)

    def _won(self, values: Tensor, index: int) -> Tensor:
        """Return the places where a class wins; classes that are independent of one another each where they are more likely than not."""
        return values[index] > 0 if self._sigmoid else values.argmax(0) == index

    def _areas(self, values: Tensor) -> list[int]:
        counts = (values > 0).flatten(1).sum(1) if self._sigmoid else values.argmax(0).flatten().bincount(minlength=self.classes)
        return counts.tolist()

    def _background(self) -> int | None:
        """Return the class of what is nothing else: by its name; without names 0, unless several classes may be true at once."""
        if self.names is None or self._single:
            return 0 if self._single or not self._sigmoid else None
        return next((index for index, name in enumerate(self.names.names) if name.lower() in BACKGROUNDS), None)

    def _pixel(self, point: Point) -> Tensor:
        """Return the place that a point of the input lies in.

        Raises:
            UsageError: it lies outside.
        """
        grid = self.values.shape[2:]
        height, width = self._size or grid[-2:]
        if not (0 <= point[0] < width and 0 <= point[1] < height):
            raise UsageError(f"the point {point} is outside of the input", hint=f"it has {width} columns and {height} rows, from 0")
        if len(grid) != 2:
            raise UsageError(f"a point is a column and a row, and the class map has {len(grid)} dimensions", hint="leave --point out")
        region = torch.zeros(grid, dtype=torch.bool, device=self.values.device)
        region[point[1] * grid[0] // height, point[0] * grid[1] // width] = True
        return region
