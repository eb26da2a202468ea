"""From a checkpoint into a model: what was decided by `fit`, carried out, or nothing at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from netlens.errors import FileProblem, NetlensError
from netlens.loading.checkpoints.archive import Archive
from netlens.loading.checkpoints.distributed_tensors import distributed_tensors
from netlens.loading.checkpoints.fit import Fit, fit
from netlens.loading.checkpoints.slots import renames_of, slots_of
from netlens.loading.checkpoints.storages import Storages
from netlens.loading.named import NamedModel
from netlens.loading.words import one_line
from netlens.probing.building import built_on_meta
from netlens.probing.meta import skeleton

PIECE = 64 << 20  # bytes


def fit_model(model: nn.Module, archive: Archive, *, name: str, key: str | None = None, strip_prefix: str | None = None) -> Fit:
    """Decide how `archive` fits `model`, by names, shapes and dtypes; no value is read, and the model is not touched.

    Args:
        model: on any device, the meta device included.
        archive: the checkpoint.
        name: what the user calls the model.
        key: the group that the user wants.
        strip_prefix: the prefix that the user wants off.

    Raises:
        UsageError: no such group or prefix, or several that fit equally well.
    """
    slots = slots_of(model)
    found = fit(archive, slots, model=name, key=key, strip_prefix=strip_prefix)
    if found.complete:
        return found
    tensors = [*(pair.tensor for pair in found.pairs), *(difference.tensor for difference in found.differences), *found.unexpected]
    shapes = {stripped: tensor.shape for tensor in tensors if (stripped := found.stripping(tensor.name)) is not None}
    renames = _renames(model, shapes)
    if not renames:
        return found
    return fit(archive, slots, model=name, key=found.key if key is None else key, strip_prefix=strip_prefix, renames=renames)


def _renames(model: nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    try:
        return renames_of(skeleton(model), shapes)
    except Exception:  # a model that cannot be copied is not asked
        return {}


def on_meta(named: NamedModel) -> nn.Module:
    """Return the model without its weights; the user's own object as it is.

    Raises:
        ModelNotBuilt: its constructor raises.
    """
    if named.is_instance:
        return named.build()
    try:
        with built_on_meta():
            return named.build()
    except NetlensError:  # perhaps only because its constructor reads values of its weights
        return skeleton(named.build())


def load_into(model: nn.Module, found: Fit, archive: Archive, *, trust: bool = False) -> None:
    """Copy the tensors that fit into `model`, in place: its dtypes, devices and ties stay, and so does all that has no pair.

    Parameters on the meta device get memory, on the CPU. Every tensor is found and read before the first is written, and a few values of
    each are compared with the file afterwards.

    Args:
        model: changed in place.
        found: what goes where.
        archive: the checkpoint that `found` was made from.
        trust: let torch unpickle the metadata of a distributed checkpoint that names foreign classes.

    Raises:
        FileProblem: the file does not hold what it lists, and the model is as it was; or the file changed while it was read.
        ValueError: a tensor on the meta device would stay without data.
    """
    targets = _targets(model, found)
    with Storages(archive) as storages:
        values = _values(storages, archive, found, trust)
        _check_convertible(values, targets)
        targets = {**targets, **_with_memory(model, targets, values)}
        _copy(values, targets, storages)
        if not _in_pieces(archive, found):
            _compare(storages, found, targets)


def with_weights(named: NamedModel, found: Fit, archive: Archive, *, trust: bool = False) -> NamedModel:
    """Return the model with a `build` that loads the weights; it initialises only what the checkpoint does not give."""

    def build() -> nn.Module:
        model = named.build() if named.is_instance else _without_initialising(named, found)
        load_into(model, found, archive, trust=trust)
        return model

    return replace(named, build=build)


def _without_initialising(named: NamedModel, found: Fit) -> nn.Module:
    """Build on meta where the checkpoint fills everything there; else for real, for some values are made by the constructor alone."""
    try:
        with built_on_meta():
            model = named.build()
    except NetlensError:
        return named.build()
    named_tensors = _named_tensors(model)
    filled = {id(named_tensors[pair.name]) for pair in found.pairs}
    empty = any(tensor.is_meta and id(tensor) not in filled for tensor in named_tensors.values())
    return named.build() if empty or any(map(_keeps_meta, model.modules())) else model


def _keeps_meta(module: nn.Module) -> bool:
    """Tell whether a module holds tensors without data where no name leads to them: in plain attributes and lists."""
    plain = [value for name, value in vars(module).items() if name not in ("_parameters", "_buffers")]
    items = [item for value in plain for item in (value if isinstance(value, (list, tuple)) else (value,))]
    return any(isinstance(item, Tensor) and item.is_meta for item in items)


def _targets(model: nn.Module, found: Fit) -> dict[str, Tensor]:
    """Return the tensor of each pair, by its name.

    Raises:
        ValueError: a meta tensor has no pair.
    """
    named = _named_tensors(model)
    targets = {pair.name: named[pair.name] for pair in found.pairs}
    filled = {id(tensor) for tensor in targets.values()}
    empty = [name for name, tensor in named.items() if tensor.is_meta and id(tensor) not in filled]
    if empty:
        raise ValueError(f"{len(empty)} tensors on the meta device would stay without data: {empty[0]}")
    return targets


def _named_tensors(model: nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers(remove_duplicate=False))}


def _values(storages: Storages, archive: Archive, found: Fit, trust: bool) -> dict[str, Tensor]:
    """Find every tensor in the file; of mapped files nothing is read yet."""
    if _in_pieces(archive, found):
        return distributed_tensors(archive, found, trust=trust)
    return {pair.name: storages.tensor(pair.tensor) for pair in found.pairs}


def _copy(values: Mapping[str, Tensor], targets: Mapping[str, Tensor], storages: Storages) -> None:
    """Write the values; never more of the file stays in memory than a piece of it."""
    pending = 0
    with torch.no_grad():
        for name, value in values.items():
            targets[name].copy_(value.reshape(targets[name].shape))
            pending += value.numel() * value.element_size()
            if pending > PIECE:
                storages.forget()
                pending = 0


def _in_pieces(archive: Archive, found: Fit) -> bool:
    """Tell whether torch itself must put tensors together, out of the pieces that several processes wrote."""
    return archive.kind == "distributed" and any(pair.tensor.place < 0 for pair in found.pairs)


def _check_convertible(values: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> None:
    """Make all that can fail fail before anything is written."""
    for name, target in targets.items():
        if (
            not is_lazy(target) and torch._debug_has_internal_overlap(target) == 1
        ):  # elements that share memory cannot be written one by one
            raise FileProblem(
                f"{one_line(name)!r} of the model is an expanded tensor, which cannot be loaded into", hint="make it contiguous"
            )
    for stored, wanted in {(values[name].dtype, target.dtype) for name, target in targets.items()}:
        _try_conversion(stored, wanted)


def _try_conversion(stored: torch.dtype, wanted: torch.dtype) -> None:
    try:
        torch.empty(1, dtype=wanted).copy_(torch.empty(1, dtype=stored))
    except (RuntimeError, NotImplementedError) as error:
        raise FileProblem(f"{stored} cannot be converted to {wanted}", hint="save the weights in the model's own dtype") from error


def _with_memory(model: nn.Module, targets: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give the meta and lazy ones among the targets memory, ties kept."""
    fresh: dict[int, Tensor] = {}
    for name, target in targets.items():
        if is_lazy(target):
            target.materialize(values[name].shape)
        elif target.is_meta and id(target) not in fresh:
            empty = torch.empty_strided(target.shape, target.stride(), dtype=target.dtype, device="cpu")
            fresh[id(target)] = nn.Parameter(empty, requires_grad=target.requires_grad) if isinstance(target, nn.Parameter) else empty
    for module in model.modules():
        for registry in (module._parameters, module._buffers):
            for name, tensor in list(registry.items()):
                if id(tensor) in fresh:
                    setattr(module, name, fresh[id(tensor)])  # not into the registry itself: nn.RNN keeps a list beside it
    return {name: fresh[id(target)] for name, target in targets.items() if id(target) in fresh}


def _compare(storages: Storages, found: Fit, targets: Mapping[str, Tensor]) -> None:
    """Hold the first and the last element of every tensor against the file; of tied tensors the last one written counts."""
    last = {id(targets[pair.name]): pair for pair in found.pairs if 0 not in pair.tensor.shape and pair.tensor.place >= 0}
    for pair in last.values():
        target = targets[pair.name].detach()
        for position, element in zip((0, -1), storages.first_and_last(pair.tensor), strict=True):
            if not _same(target[(position,) * target.dim()].cpu(), element.to(target.dtype)):
                name, file = one_line(pair.name), one_line(storages.archive.path.name)
                raise FileProblem(f"{file} changed while {name!r} was read from it", hint="wait until the file is written, and try again")


def _same(loaded: Tensor, element: Tensor) -> bool:
    wide = torch.complex128 if loaded.is_complex() else torch.float64
    left, right = loaded.to(wide), element.to(wide)
    return bool(left == right) or bool(left.isnan() and right.isnan())
