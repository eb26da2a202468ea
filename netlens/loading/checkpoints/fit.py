"""Whether a checkpoint fits a model, and how: decided by names, shapes and dtypes, before any value is read. Standard library only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from netlens.errors import UsageError
from netlens.loading.checkpoints.archive import Archive, StoredTensor, TensorGroup
from netlens.loading.checkpoints.groups import chosen_group, copies
from netlens.loading.checkpoints.old_names import other_names
from netlens.loading.checkpoints.prefixes import Shape, Stripping, best_stripping, given_stripping, mixed_with, tallies
from netlens.loading.words import one_line

COUNTERS = ("num_batches_tracked", "n_averaged")  # bookkeeping: no output depends on it
QUANTISED = ("int8", "uint8", "qint8", "quint8", "qint32", "quint4x2", "quint2x4", "int4", "uint4", "int2", "uint2", "int1", "uint1")


@dataclass(frozen=True, slots=True)
class Slot:
    """One place for a tensor in a model."""

    name: str
    shape: Shape  # None: a lazy layer, which takes any
    dtype: str
    kind: str = "parameter"  # or "buffer"
    tied_to: str | None = None  # the first name of the same tensor
    persistent: bool = True  # False: the model makes it itself, and checkpoints do not hold it


@dataclass(frozen=True, slots=True)
class Pair:
    """A tensor of the file and the place that it fills."""

    name: str  # in the model
    tensor: StoredTensor


@dataclass(frozen=True, slots=True)
class Difference:
    """A tensor of the file whose place in the model is of another shape or nature."""

    name: str
    tensor: StoredTensor
    shape: Shape
    dtype: str
    why: str  # "axis 0", or why not in words


@dataclass(frozen=True, slots=True)
class DtypeChange:
    """So many tensors are converted."""

    stored: str
    model: str
    count: int


@dataclass(frozen=True, slots=True)
class Fit:
    """How one group of a checkpoint fits a model."""

    model: str  # what the user calls it
    key: str  # of the group; "" where the file is the state dict
    stripping: Stripping
    total: int  # tensors that a checkpoint of this model has
    pairs: tuple[Pair, ...]
    differences: tuple[Difference, ...]
    missing: tuple[str, ...]  # names in the model
    unexpected: tuple[StoredTensor, ...]
    tied: tuple[str, ...] = ()  # not in the file, but the same tensor as one that is
    forgiven: tuple[str, ...] = ()  # only in the file or only in the model, and harmless
    dtypes: tuple[DtypeChange, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def fitting(self) -> int:
        """The number of the model's tensors that the file has a value for."""
        return len(self.pairs) + len(self.tied)

    @property
    def complete(self) -> bool:
        """Whether every tensor of either side has its place on the other."""
        return not (self.differences or self.missing or self.unexpected)

    def coverage(self) -> str:
        """Say what fits and what was done for it: "120 of 122 tensors fit resnet18 · key `state_dict` · prefix `module.` stripped"."""
        left_over = f", and {len(self.unexpected):,} of the file have no place in it" if self.unexpected else ""
        words = [f"{self.fitting:,} of {self.total:,} tensors fit {self.model}{left_over}"]
        words += [f"key `{self.key}`"] if self.key else []
        words += [f"prefix `{self.stripping.prefix}` stripped"] if self.stripping.prefix else []
        words += ["wrappers' parts taken out of names"] if self.stripping.bare else []
        return " · ".join(words)


def fit(
    archive: Archive,
    slots: Sequence[Slot],
    *,
    model: str,
    key: str | None = None,
    strip_prefix: str | None = None,
    renames: Mapping[str, str] | None = None,
) -> Fit:
    """Decide which tensor of `archive` goes where in the model.

    Args:
        archive: the checkpoint.
        slots: the model's own list, in its order.
        model: what the user calls it.
        key: the group that the user wants, instead of the one that fits best.
        strip_prefix: the prefix that the user wants off, instead of the one that fits best; names without it are left out.
        renames: old name -> new name, as the model's own code renames when it loads.

    Raises:
        UsageError: no such group or prefix, several that fit equally well, or names of two kinds in one group.
    """
    places = {slot.name: slot.shape for slot in slots if slot.persistent}
    group = chosen_group(archive, lambda tensors: max(tally.score for tally in tallies(tensors, places).values()), key)
    stripping = best_stripping(group.tensors, places) if strip_prefix is None else given_stripping(group.tensors, places, strip_prefix)
    matcher = _Matcher(slots, stripping, renames or {}, leave_out=strip_prefix is not None)
    for tensor in group.tensors:
        matcher.add(tensor)
    found = matcher.result(model, group, copies(archive, group))
    missing = {name: places[name] for name in found.missing}
    other = mixed_with(found.unexpected, missing, stripping) if strip_prefix is None and found.pairs else None
    if other is not None:
        raise _mixed(found, other)
    return found


class _Matcher:
    """Puts tensors into places, one after the other."""

    def __init__(self, slots: Sequence[Slot], stripping: Stripping, renames: Mapping[str, str], *, leave_out: bool) -> None:
        self.slots = slots
        self.places = {slot.name: slot for slot in slots}
        self.stripping, self.renames, self.leave_out = stripping, renames, leave_out
        self.unwrapped = {Stripping(bare=True)(slot.name) or "": slot for slot in slots} if stripping.bare else self.places
        self.pairs: dict[str, Pair] = {}
        self.differences: dict[str, Difference] = {}
        self.unexpected: list[StoredTensor] = []
        self.forgiven: list[str] = []
        self.changes: dict[tuple[str, str], int] = {}
        self.renamed = self.left_out = self.own = 0

    def add(self, tensor: StoredTensor) -> None:
        """Find the place of one tensor."""
        name = self.stripping(tensor.name)
        if name is None and self.leave_out:
            self.left_out += 1
            return
        slot = None if name is None else self._slot(name)
        if slot is None or slot.name in self.pairs or slot.name in self.differences:
            counter = tensor.name.rpartition(".")[2] in COUNTERS
            (self.forgiven.append(tensor.name) if counter else self.unexpected.append(tensor))
        elif not slot.persistent:
            self.own += 1
        elif why := _why_not(tensor, slot):
            self.differences[slot.name] = Difference(slot.name, tensor, slot.shape, slot.dtype, why)
        else:
            self.pairs[slot.name] = Pair(slot.name, tensor)
            if tensor.dtype != slot.dtype:
                self.changes[tensor.dtype, slot.dtype] = self.changes.get((tensor.dtype, slot.dtype), 0) + 1

    def _slot(self, name: str) -> Slot | None:
        for index, candidate in enumerate((name, self.renames.get(name, name), *other_names(name))):
            slot = self.unwrapped.get(candidate)
            if slot is not None:
                self.renamed += index > 0 and candidate != name
                return slot
        return None

    def result(self, model: str, group: TensorGroup, copied: Sequence[str]) -> Fit:
        """Say what was found."""
        filled = {self.places[name].tied_to or name for name in self.pairs}
        absent = [slot for slot in self.slots if slot.persistent and slot.name not in self.pairs and slot.name not in self.differences]
        tied = tuple(slot.name for slot in absent if (slot.tied_to or slot.name) in filled)
        counters = tuple(slot.name for slot in absent if slot.name not in tied and slot.name.rpartition(".")[2] in COUNTERS)
        changes = tuple(DtypeChange(stored, wanted, count) for (stored, wanted), count in self.changes.items())
        return Fit(
            model=model,
            key=group.key,
            stripping=self.stripping,
            total=sum(slot.persistent for slot in self.slots),
            pairs=tuple(self.pairs.values()),
            differences=tuple(self.differences.values()),
            missing=tuple(slot.name for slot in absent if slot.name not in tied and slot.name not in counters),
            unexpected=tuple(self.unexpected),
            tied=tied,
            forgiven=(*counters, *self.forgiven),
            dtypes=changes,
            notes=tuple(self._notes(changes, len(counters), group, copied)),
        )

    def _notes(self, changes: Iterable[DtypeChange], counters: int, group: TensorGroup, copied: Sequence[str]) -> Iterator[str]:
        if counters:
            yield f"{counters:,} counters of batch norm (num_batches_tracked) are not in the file; no output in eval mode depends on them"
        for change in changes:
            yield _change_note(change)
        if self.renamed:
            yield f"{self.renamed:,} tensors stand in the file under older names of theirs"
        if self.own:
            yield f"{self.own:,} tensors of the file are buffers that the model makes itself; they were left out"
        if self.left_out:
            yield f"{self.left_out:,} tensors outside the prefix were left out"
        if group.role == "ema":
            yield "these are averaged weights (EMA), not the ones that were trained"
        if copied:
            yield f"the file also holds averaged weights (EMA): --key {copied[0]} takes them"


def _change_note(change: DtypeChange) -> str:
    text = f"{change.count:,} tensors are {change.stored} in the file and {change.model} in the model; they are converted"
    if change.stored.startswith("float8"):
        return f"{text}, without the scales that float8 weights often need"
    return text


def _why_not(tensor: StoredTensor, slot: Slot) -> str:
    """Say why a tensor cannot fill a place of its name; "" where it can."""
    if not tensor.readable:
        return f"{tensor.why or 'its kind'} can be read only by the package that wrote it"
    shape = slot.shape
    if shape is not None and tensor.shape != shape and not (shape == () and tensor.shape == (1,)):  # scalars of torch < 0.4
        return _shape_words(tensor.shape, shape)
    floats = slot.dtype.startswith(("float", "bfloat"))
    if slot.kind == "parameter" and floats and tensor.dtype in QUANTISED:
        return f"{tensor.dtype} holds quantised values, which mean nothing without their scales"
    if tensor.dtype.startswith("complex") and not slot.dtype.startswith("complex"):
        return f"{tensor.dtype} into {slot.dtype} would lose the imaginary part"
    return ""


def _shape_words(stored: tuple[int, ...], wanted: tuple[int, ...]) -> str:
    if len(stored) != len(wanted):
        return f"{len(stored)} axes, not {len(wanted)}"
    axes = [index for index, pair in enumerate(zip(stored, wanted, strict=True)) if pair[0] != pair[1]]
    return f"axis {axes[0]}" if len(axes) == 1 else f"axes {', '.join(map(str, axes[:-1]))} and {axes[-1]}"


def _mixed(found: Fit, other: str) -> UsageError:
    prefix = found.stripping.prefix
    shown = [f"with {one_line(text)!r} before it" if text else "as it is" for text in (prefix, other)]
    return UsageError(
        f"the names in the checkpoint are mixed: one part fits {found.model} {shown[0]}, another {shown[1]}",
        hint=f"load the part that you want: --strip-prefix {one_line(prefix or other)} --no-strict",
    )
