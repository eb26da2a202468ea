"""From what the reader found in a checkpoint to the report: sums, ties, layouts and storages. Standard library only.

No tensor is read here, except through `values`, which the caller passes with --values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cache
from math import prod
from typing import TYPE_CHECKING

from netlens.errors import UsageError
from netlens.lenses.summary.checkpoint_guess import guess
from netlens.lenses.summary.checkpoint_report import (
    CheckpointReport,
    FatStorage,
    ForeignName,
    Group,
    Storages,
    Tensor,
    Values,
    counted_once,
)

if TYPE_CHECKING:
    from netlens.loading.checkpoints.archive import Archive, StoredTensor, TensorGroup

LARGEST = 2**63 - 1  # elements and bytes; a file may claim more, no memory can hold it
STATISTICS = frozenset({"running_mean", "running_var", "num_batches_tracked"})  # of BatchNorm: never parameters
WASTE = 4096  # bytes of a storage without a tensor that are worth a word
SHOWN_NAMES = 5
DENSE = frozenset({"contiguous", "channels_last", "permuted"})
ROLES = ("weights", "ema", "other", "optimizer")  # what the table shows where nobody chose: the first of these that there is

ReadValues = Callable[["Archive"], "Iterable[tuple[tuple[int, int], Values | str]]"]


def measure(archive: Archive, *, key: str | None = None, values: ReadValues | None = None) -> CheckpointReport:
    """Describe a checkpoint.

    Args:
        archive: what the reader found.
        key: the group to show: its key or its role; "all" shows every group; None shows the weights.
        values: reads the elements and yields ((group, index), what they are, or why they cannot be read).

    Raises:
        UsageError: there is no such group.
    """
    from netlens.loading.checkpoints.archive import KINDS

    shown = chosen(archive.groups, key)
    read = dict(values(archive)) if values is not None else {}
    groups = tuple(_group(group, index, read) for index, group in enumerate(archive.groups))
    return CheckpointReport(
        file=str(archive.path),
        kind=archive.kind,
        written_by=KINDS.get(archive.kind, archive.kind),
        bytes=archive.size,
        files=tuple(str(path.name) for path in archive.shards),
        groups=groups,
        shown=shown,
        storages=_storages(archive.groups, groups),
        scalars=dict(archive.scalars),
        contents=archive.contents,
        foreign=tuple(ForeignName(name.name, name.verdict) for name in archive.foreign),
        model_class=archive.model_class,
        runs_code=archive.runs_code,
        complete=archive.complete,
        oddities=archive.oddities,
        guess=guess(archive, shown),
        values_read=values is not None,
    )


def chosen(groups: Sequence[TensorGroup], key: str | None) -> tuple[int, ...]:
    """Return the indices of the groups to show.

    Raises:
        UsageError: no group has this key or this role.
    """
    if key is None:
        roles = [group.role for group in groups]
        role = next((role for role in ROLES if role in roles), "weights")
        return tuple(index for index, found in enumerate(roles) if found == role)
    meant = [index for index, group in enumerate(groups) if group.key == key]
    meant = meant or [index for index, group in enumerate(groups) if key in ("all", group.role)]
    if not meant:
        from netlens.loading.suggest import did_you_mean
        from netlens.loading.words import listed

        known = list(dict.fromkeys(name for group in groups for name in (group.key, group.role) if name))
        hint = f"it has {listed(known)}; all shows everything" if known else "it holds no tensors"
        raise UsageError(f"nothing in the checkpoint is called {key[:80]!r}", hint=did_you_mean(key, known, hint))
    return tuple(meant)


def _group(group: TensorGroup, index: int, read: dict[tuple[int, int], Values | str]) -> Group:
    first: dict[tuple[object, ...], str] = {}
    tensors = [_tensor(stored, first) for stored in group.tensors]
    if read:
        tensors = [_with_values(tensor, read.get((index, place))) for place, tensor in enumerate(tensors)]
    dtypes: dict[str, int] = {}
    elements = parameters = frozen = 0
    for tensor in counted_once(tensors):
        elements += tensor.elements
        dtypes[tensor.dtype] = dtypes.get(tensor.dtype, 0) + tensor.bytes
        if is_parameter(tensor):
            parameters += tensor.elements
            frozen += tensor.elements if is_frozen(tensor) else 0
    locations = tuple(dict.fromkeys(tensor.location for tensor in tensors))
    return Group(group.key, group.role, tuple(tensors), elements, parameters, frozen, sum(dtypes.values()), dtypes, locations)


def _tensor(stored: StoredTensor, first: dict[tuple[object, ...], str]) -> Tensor:
    """Describe one tensor; `first` knows under which name each memory was seen first."""
    name, shape, stride, dtype = stored.name, stored.shape, stored.stride, stored.dtype
    elements = prod(shape)
    if elements > LARGEST:
        elements = LARGEST
    layout = layout_of(shape, stride)
    owner = name
    if elements and stored.storage:
        memory: tuple[object, ...] = (stored.storage, stored.offset, dtype, elements)
        owner = first.setdefault(memory if layout in DENSE else (*memory, shape, stride), name)
    return Tensor(  # by position: with names, 200,000 of them take a tenth of a second longer
        name,
        shape,
        dtype,
        elements,
        elements * item_size(dtype),
        None if owner == name else owner,
        layout,
        stride,
        stored.storage_bytes,
        stored.location,
        stored.kind,
        stored.trainable,
        "" if stored.readable else stored.why or "unknown layout",
    )


def _with_values(tensor: Tensor, found: Values | str | None) -> Tensor:
    if isinstance(found, str):
        return replace(tensor, unreadable=tensor.unreadable or found)
    return tensor if found is None else replace(tensor, values=found)


def is_parameter(tensor: Tensor) -> bool:
    """Ask whether a tensor counts as a parameter: where the file does not say, what has no gradient or is a statistic is a buffer."""
    if tensor.kind != "tensor":
        return tensor.kind == "parameter"
    fractional = tensor.dtype.startswith(("float", "bfloat", "complex"))
    return fractional and tensor.name.rpartition(".")[2] not in STATISTICS


def is_frozen(tensor: Tensor) -> bool:
    """Ask whether the file says that it is a parameter without a gradient; the entries of a state dict never have one."""
    return tensor.kind == "parameter" and tensor.trainable is False


@cache
def item_size(dtype: str) -> int:
    """Return the bytes of an element; of types that pack several into a byte, and of unknown ones, 1."""
    from netlens.loading.checkpoints.dtypes import ITEMSIZES

    return ITEMSIZES.get(dtype, 1)


def layout_of(shape: tuple[int, ...], stride: tuple[int, ...]) -> str:
    """Say how the elements lie in their storage; sizes of 1 have no say."""
    if len(stride) != len(shape) or stride == _row_major(shape) or 0 in shape:
        return "contiguous"
    steps = [(step, size, place) for place, (step, size) in enumerate(zip(stride, shape, strict=True)) if size != 1]
    dense, places = 1, []
    for step, size, place in sorted(steps):
        if step != dense:
            return "expanded" if step < dense else "strided"
        dense *= size
        places.append(place)
    if places == sorted(places, reverse=True):
        return "contiguous"
    image = [place for place in (1, *range(len(shape) - 1, 1, -1), 0) if shape[place] != 1]
    return "channels_last" if len(shape) in (4, 5) and places == image else "permuted"


def _row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    if len(shape) == 1:
        return (1,)
    step, steps = 1, []
    for size in reversed(shape):
        steps.append(step)
        step *= size
    return tuple(steps[::-1])


def _storages(stored: Sequence[TensorGroup], groups: Sequence[Group]) -> Storages:
    """Compare each storage with the tensors that lie in it; those that share elements count once where they are equal."""
    first: dict[str, tuple[StoredTensor, Tensor]] = {}
    further: dict[str, list[tuple[StoredTensor, Tensor]]] = {}
    for where, group in zip(stored, groups, strict=True):
        for source, tensor in zip(where.tensors, group.tensors, strict=True):
            pair = (source, tensor)
            if source.storage and first.setdefault(source.storage, pair) is not pair:
                further.setdefault(source.storage, []).append(pair)
    whole = used = 0
    fat = []
    for key, (source, tensor) in first.items():
        size, part, others = source.storage_bytes, tensor.bytes, further.get(key, ())
        if others:
            parts = {(one.offset, other.bytes) for one, other in ((source, tensor), *others)}
            size, part = max(size, *(one.storage_bytes for one, _ in others)), sum(length for _, length in parts)
        whole += size
        used += min(part, size)
        if size - part >= max(WASTE, size // 2):
            fat.append(FatStorage((tensor.name, *(other.name for _, other in others[: SHOWN_NAMES - 1])), size, part))
    fat.sort(key=lambda storage: storage.used - storage.bytes)
    return Storages(len(first), whole, used, tuple(fat))
