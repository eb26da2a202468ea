"""What is learned about data: plain values, and the JSON schema."""

from __future__ import annotations

from dataclasses import dataclass

from netlens.data.issues import Issue


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
    """What is known of one Dataset or DataLoader beside its faults."""

    name: str
    kind: str  # "Dataset", "IterableDataset", "DataLoader", "iterable"
    samples: int | None  # that it says it has
    read: int  # that were read
    batches: int
    batch_size: int | None
    fields: tuple[FieldFacts, ...]
    pace: Pace | None
    memory_per_epoch: int | None  # bytes by which the process grew; None: too short to tell


@dataclass(frozen=True, slots=True)
class CheckDataReport:
    """What is in the data, and every fault of it."""

    kind: str  # "files", "table" or "loader"
    splits: tuple[SplitFacts, ...]
    issues: tuple[Issue, ...]  # the worst first
    loaders: tuple[LoaderFacts, ...] = ()
    interrupted: int | None = None  # files that were looked at before Ctrl-C; None: all
    notes: tuple[str, ...] = ()
    pictures: tuple[str, ...] = ()  # files that were written
