"""What is known of one set of pictures, as plain values; standard library only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ClassCount:
    """How many samples one class has."""

    name: str
    index: int  # as a label
    count: int


@dataclass(frozen=True, slots=True)
class Spread:
    """How a size is spread over the pictures of a split."""

    smallest: float
    p5: float
    median: float
    p95: float
    largest: float


@dataclass(frozen=True, slots=True)
class Colours:
    """Mean and standard deviation of the pixels of a split, each channel in 0..1, as `Normalize` takes them.

    Every pixel counts the same. `std_of_pictures` is another number of the same name: the mean of what each picture has by itself, as
    ImageNet's is (pytorch/vision issues 1439 and 1965).
    """

    pictures: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    std_of_pictures: tuple[float, float, float]
    reduced: int  # large JPEG files of which a reduced picture was decoded


@dataclass(frozen=True, slots=True)
class SplitFacts:
    """One set of files, or one loader."""

    name: str  # "train"; "" where there is only one
    root: str  # as the user wrote it
    files: int  # samples of a loader
    decoded: int
    bytes: int
    classes: tuple[ClassCount, ...]
    formats: tuple[tuple[str, int], ...]  # the most frequent first
    modes: tuple[tuple[str, int], ...]
    width: Spread | None
    height: Spread | None
    aspect: Spread | None  # width over height
    colours: Colours | None
    skipped: tuple[tuple[str, int], ...] = ()  # suffixes that ImageFolder leaves out
