"""What `netlens summary FILE` learns about a checkpoint: plain values, which are also the JSON schema.

Nothing of the file was run to learn it. Sums count a tensor once in its group, whatever the number of its names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Values:
    """The elements of one tensor; only with --values. Extremes, mean and deviation are those of the finite elements."""

    minimum: float | None  # None: there is no finite element, or they have no order (complex)
    maximum: float | None
    mean: float | None
    std: float | None  # of the elements as a whole population
    nan: int
    infinite: int
    zeros: int


@dataclass(frozen=True, slots=True)
class Tensor:
    """One entry of a state dict."""

    name: str  # below its group's key, as the file has it: may hold any characters
    shape: tuple[int, ...]
    dtype: str
    elements: int
    bytes: int  # elements times the size of one
    tied_to: str | None  # the name in the same group under which the same memory is counted; None where it is counted here
    layout: str  # "contiguous", "channels_last", "permuted", "strided" (with gaps) or "expanded" (elements that share memory)
    stride: tuple[int, ...]
    storage_bytes: int  # of the storage that it is a part of
    location: str  # the device that it was saved from
    kind: str  # "parameter", "buffer", or "tensor" where the file does not say
    trainable: bool | None  # None: the file does not say
    unreadable: str = ""  # why it cannot be read as plain numbers; "" where it can
    values: Values | None = None

    @property
    def constant(self) -> bool:
        """Ask whether several elements have been read and are all the same finite number."""
        found = self.values
        return found is not None and self.elements > 1 and not found.nan + found.infinite and found.minimum == found.maximum is not None


@dataclass(frozen=True, slots=True)
class Group:
    """Tensors that belong together: one state dict inside the checkpoint."""

    key: str  # "" where the file itself is the state dict
    role: str  # "weights", "ema", "optimizer" or "other"
    tensors: tuple[Tensor, ...]
    elements: int
    parameters: int  # elements without the tensors that are known to be buffers
    frozen: int  # those of them that are known to require no gradient
    bytes: int
    dtypes: dict[str, int]  # dtype -> bytes
    locations: tuple[str, ...]  # the devices that its tensors were saved from


@dataclass(frozen=True, slots=True)
class ForeignName:
    """A class or function that the file names and that plain tensors do not need. It was not imported."""

    name: str
    verdict: str  # "hostile", "known" or "foreign"


@dataclass(frozen=True, slots=True)
class FatStorage:
    """A storage of which its tensors are a small part: the file holds the whole of it."""

    tensors: tuple[str, ...]  # at most the first five
    bytes: int
    used: int


@dataclass(frozen=True, slots=True)
class Storages:
    """The memory behind the tensors of all groups, each storage once."""

    count: int
    bytes: int
    used: int  # by tensors, as far as they lie in it
    fat: tuple[FatStorage, ...]  # the largest waste first


@dataclass(frozen=True, slots=True)
class Head:
    """The last layer, as far as names and shapes tell."""

    name: str
    shape: tuple[int, ...]
    outputs: int
    certain: bool  # its name says that it is a head; otherwise it is only the last 2-D weight


@dataclass(frozen=True, slots=True)
class Guess:
    """What the weights are most likely weights of."""

    models: tuple[str, ...] = ()  # names for `netlens summary`; several where they cannot be told apart
    how: str = ""  # "fits" (names and shapes), "names" (all names, and the shapes outside the head), "body" (with another head) or ""
    model_args: Mapping[str, str] = field(default_factory=dict)  # what the model needs: {"num_classes": "37"}
    layout: str = ""  # whose names these are, in words, only where it is certain: "BERT family of transformers, 12 layers"
    head: Head | None = None


@dataclass(frozen=True, slots=True)
class CheckpointReport:
    """All that is learned without running anything."""

    file: str
    kind: str  # a key of netlens.loading.checkpoints.archive.KINDS
    written_by: str  # the same in words
    bytes: int  # of the file, or of all files of the folder
    files: tuple[str, ...]  # that hold the tensors, where these are several
    groups: tuple[Group, ...]
    shown: tuple[int, ...]  # indices of the groups that the table shows
    storages: Storages
    scalars: dict[str, str]  # numbers, texts and flags beside the tensors
    contents: tuple[tuple[str, str], ...]  # what else is inside: ("lr_schedulers", "list of 1")
    foreign: tuple[ForeignName, ...]
    model_class: str  # of a pickled module; "" otherwise
    runs_code: str  # what its own loader would run; "" for plain weights
    complete: bool  # False: it holds more than netlens follows, and some tensors are not listed
    oddities: tuple[str, ...]
    guess: Guess
    values_read: bool

    @property
    def table(self) -> tuple[Group, ...]:
        """The groups that the table shows."""
        return tuple(self.groups[index] for index in self.shown)

    def of_role(self, *roles: str) -> tuple[Group, ...]:
        """Return the groups of these roles."""
        return tuple(group for group in self.groups if group.role in roles)

    def __str__(self) -> str:
        from netlens.lenses.summary.checkpoint_show import as_text

        return as_text(self)


def counted_once(tensors: Iterable[Tensor]) -> Iterable[Tensor]:
    """Yield the tensors under which memory is counted."""
    return (tensor for tensor in tensors if tensor.tied_to is None)
