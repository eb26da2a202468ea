"""What a model says about a batch, and the score of what is to be explained: the common part, and likeness to another picture."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor

from netlens.errors import UsageError
from netlens.lenses.gradcam.report import Class
from netlens.loading.class_names import ClassNames, index_of
from netlens.loading.words import one_line
from netlens.probing.leaves import leaves

TOP = re.compile(r"top\s*([1-9]\d{0,3})")
NAMELESS = frozenset({"N/A", "n/a"})  # what lists of names have at numbers that are no class, as of COCO
Size = tuple[int, int]  # height and width of the input


class Point(NamedTuple):
    """A pixel of the input that is asked about; as text it is what the user calls it: a pixel of the photo."""

    x: int
    y: int
    said: str = ""

    def __str__(self) -> str:
        return self.said or f"{self.x},{self.y}"


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """What is explained of one sample. Other answers may be asked for it as well: of masked copies of the same picture."""

    found: Class
    asked: str  # as in `Heatmap.asked`
    region: Tensor | None = None  # (*grid), bool: of a class map, the places whose scores are added
    box: Tensor | None = None  # (left, top, right, bottom) of a detection, as the model gives it
    place: int | None = None  # of a detection, its rank by confidence, from 0
    point: Point | None = None  # at which `region` is
    nowhere: bool = False  # the class wins nowhere, so that `region` is everywhere


class Answer(ABC):
    """What a model returned for one batch. Only `scores` and `probabilities` are in the graph of the pass, if there is one."""

    kind: str  # as in `Run.output`
    classes: int | None = None  # None: the output does not say
    names: ClassNames | None = None  # of the classes; to be set by who knows them
    notes: tuple[str, ...] = ()

    def __init__(self, leaf: str) -> None:
        self.leaf = leaf

    def __str__(self) -> str:
        return f"{self.kind} in {one_line(self.leaf)!r}" if self.leaf else self.kind

    def again(self, output: Any) -> Answer:
        """Read, in the same way, what the same model returned for other inputs."""
        other = copy(self)
        other._read(output)
        return other

    def targets(self, sample: int, asked: Sequence[str] = (), point: Point | None = None) -> tuple[Target, ...]:
        """Return what is explained of a sample, each once.

        Args:
            sample: its index in the batch.
            asked: nothing (the best), "top3" (the three best), indices and names of classes, of detections "#2" (the second of all).
            point: only where the output has places: what is there.

        Raises:
            NetlensError: there is no such class, or several are meant, or the output has no places.
        """
        found: dict[tuple[int, int | None], Target] = {}
        for text in asked or ("top1",):
            several = TOP.fullmatch(text.strip().lower())
            for target in self.best(sample, int(several[1]), point) if several else (self.resolve(sample, text, point),):
                found.setdefault((target.found.index, target.place), target)
        return tuple(found.values())

    def top(self, sample: int, count: int) -> tuple[Class, ...]:
        """Return the best classes, the first one first."""
        return tuple(target.found for target in self.best(sample, count))

    @property
    @abstractmethod
    def samples(self) -> int:
        """The number of samples."""

    @abstractmethod
    def nonfinite(self, sample: int) -> int:
        """Count the elements of a sample's output that are not finite."""

    @abstractmethod
    def best(self, sample: int, count: int = 1, point: Point | None = None) -> tuple[Target, ...]:
        """Return what is explained where nothing is asked for, and then the next best."""

    @abstractmethod
    def resolve(self, sample: int, asked: str, point: Point | None = None) -> Target:
        """Return what one `--target` means for a sample."""

    @abstractmethod
    def scores(self, targets: Sequence[Target]) -> Tensor:
        """Return the score of one target for each sample, (N,); float32, or float64 where the model computes in that."""

    @abstractmethod
    def probabilities(self, targets: Sequence[Target]) -> Tensor:
        """Return the probability of one target for each sample, (N,)."""

    @abstractmethod
    def _read(self, output: Any) -> None: ...

    def _name(self, index: int) -> str | None:
        name = self.names.shown(index) if self.names is not None else None
        return None if name in NAMELESS else name

    def _index(self, asked: str) -> int:
        return index_of(asked, self.names, self.classes)


class Embedding(Answer):
    """A vector for each sample, (N, D): the score is the cosine of its angle to a reference."""

    kind = "embedding"

    def __init__(self, leaf: str, tensor: Tensor, reference: Tensor, against: str = "the reference") -> None:
        """Read `tensor`; `reference`: (1, D), of a picture that is called `against`."""
        super().__init__(leaf)
        self._said = f"likeness to {against}"
        self._vectors = wide(tensor).flatten(1)
        self._reference = wide(reference.detach()).reshape(1, -1)
        if self._vectors.shape[1] != self._reference.shape[1]:
            what = f"the reference is a vector of {self._reference.shape[1]:,} numbers, and the model returns {self._vectors.shape[1]:,}"
            raise UsageError(what, hint="make it with the same model: --against PICTURE")

    @property
    def samples(self) -> int:
        """The number of samples."""
        return len(self._vectors)

    @property
    def numbers(self) -> int:
        """The number of numbers in a vector."""
        return self._vectors.shape[1]

    def nonfinite(self, sample: int) -> int:
        """Count the elements of a sample's output that are not finite."""
        return nonfinite(self._vectors[sample])

    def best(self, sample: int, count: int = 1, point: Point | None = None) -> tuple[Target, ...]:
        """Return the likeness, which is all there is."""
        no_places(point)
        cosine = float(self._cosines()[sample].detach())
        return (Target(Class(0, self._said, cosine, None), self._said),)

    def resolve(self, sample: int, asked: str, point: Point | None = None) -> Target:
        """Refuse: there are no classes.

        Raises:
            UsageError: always.
        """
        raise UsageError(f"--target {one_line(asked)!r} names a class, and --against explains likeness", hint="leave one of them out")

    def scores(self, targets: Sequence[Target]) -> Tensor:
        """Return the cosine of each sample, in -1..1."""
        return self._cosines()

    def probabilities(self, targets: Sequence[Target]) -> Tensor:
        """Return the cosine as well: there is no probability."""
        return self._cosines()

    def _read(self, output: Any) -> None:
        self._vectors = wide(part(output, self.leaf)).flatten(1)

    def _cosines(self) -> Tensor:
        return F.cosine_similarity(self._vectors, self._reference.to(self._vectors), dim=1)


def wide(tensor: Tensor) -> Tensor:
    """Return half precision as float32, in the graph."""
    return tensor.float() if tensor.dtype.itemsize < 4 else tensor


def part(output: Any, leaf: str) -> Tensor:
    """Return one tensor of what a model returned, by its name."""
    return dict(leaves(output))[leaf]


def nonfinite(tensor: Tensor) -> int:
    """Count the elements that are not finite."""
    return int((~tensor.detach().isfinite()).sum())


def no_places(point: Point | None) -> None:
    """Refuse a point where the output has no places.

    Raises:
        UsageError: there is one.
    """
    if point is not None:
        raise UsageError("the model says nothing about single places in a picture", hint="leave --point out")
