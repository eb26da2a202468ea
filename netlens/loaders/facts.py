"""What is known of one Dataset or DataLoader beside its faults: plain values; standard library only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FieldFacts:
    """One tensor of a batch: the pictures, the labels."""

    name: str  # "0", "1", "pixel_values"
    shape: tuple[int, ...]  # of a batch
    dtype: str
    low: float | None  # over all that was read; None where it holds no numbers
    high: float | None
    mean: tuple[float, ...]  # by channel where it is a picture; () where it is not
    std: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a loader is, on this machine and now; these numbers differ from run to run."""

    samples_per_second: float  # of the loader as it is, when it runs steadily
    seconds_per_sample: float  # of one worker: what a sample costs
    workers: int  # that the loader has
    batches: int  # that were timed
    first_batch: float  # seconds until it comes
    wanted: float | None = None  # samples per second that the model, or --target-rate, eats
    wanted_by: str = ""  # "resnet50, one training step on cuda:0", "--target-rate"
    workers_needed: int | None = None  # ceil(wanted * seconds_per_sample); 0: none beside the main process


@dataclass(frozen=True, slots=True)
class LoaderFacts:
    """One Dataset or DataLoader."""

    name: str
    kind: str  # "Dataset", "IterableDataset", "DataLoader", "iterable"
    samples: int | None  # that it says it has
    read: int  # that were read
    batches: int
    batch_size: int | None
    fields: tuple[FieldFacts, ...]
    pace: Pace | None
    memory_per_epoch: int | None  # bytes by which the process grew; None: too short to tell
