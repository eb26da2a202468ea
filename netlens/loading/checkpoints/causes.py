"""Why a checkpoint does not fit: at most three causes, the most likely first, each with what would help where that can be told."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice

from torch import nn

from netlens.errors import NetlensError
from netlens.loading.checkpoints.archive import Archive, StoredTensor
from netlens.loading.checkpoints.constructor import fitting_arguments
from netlens.loading.checkpoints.fit import QUANTISED, Fit
from netlens.loading.checkpoints.identify import architectures
from netlens.loading.checkpoints.misfit import Cause, does_not_fit
from netlens.loading.checkpoints.prefixes import DEEPEST
from netlens.loading.checkpoints.weights import fit_model, on_meta
from netlens.loading.named import NamedModel
from netlens.loading.words import one_line

MOST = 3
ADAPTERS = ("lora_", "adapter_", "hada_", "lokr_")
MANY = 0.5  # of the tensors, for a cause to be one

Again = Callable[[Mapping[str, object]], NamedModel]


def checked_fit(
    named: NamedModel, archive: Archive, again: Again, *, key: str | None = None, strip_prefix: str | None = None, strict: bool = True
) -> Fit:
    """Fit a checkpoint to a model that has been named, without building it for real.

    Args:
        named: the model.
        archive: the checkpoint.
        again: finds the same model with other arguments, to learn which of them would fit.
        key: the group that the user wants.
        strip_prefix: the prefix that the user wants off.
        strict: refuse what does not fit completely; otherwise only what does not fit at all.

    Raises:
        CheckpointDoesNotFit: with tables and causes. UsageError: it cannot be told what is meant.
    """
    model = on_meta(named)

    def refit(other: nn.Module, key: str | None = key) -> Fit:
        return fit_model(other, archive, name=named.name, key=key, strip_prefix=strip_prefix)

    found = refit(model)
    if found.complete or (not strict and found.pairs):
        return found
    raise does_not_fit(found, archive.path.name, causes_of(named, model, found, archive, again, refit))


def causes_of(
    named: NamedModel, model: nn.Module, found: Fit, archive: Archive, again: Again, refit: Callable[..., Fit]
) -> tuple[Cause, ...]:
    """Return the likely causes.

    Args:
        named: the model as the user asked for it.
        model: it, on the meta device.
        found: how the checkpoint fits it.
        archive: the checkpoint.
        again: finds the same model with other arguments.
        refit: fits the checkpoint to a model; `key=` chooses a group.
    """
    tensors = _tensors(found)
    every = (
        *_adapters(tensors),
        *_quantised(found),
        *_arguments(named, found, again, refit),
        *_architecture(named, found, tensors, archive),
        *_averaged(model, archive, refit),
        *_outside(found),
        *_part(found),
    )
    return tuple(islice(every, MOST))


def _tensors(found: Fit) -> list[StoredTensor]:
    return [*(pair.tensor for pair in found.pairs), *(difference.tensor for difference in found.differences), *found.unexpected]


def _adapters(tensors: list[StoredTensor]) -> Iterator[Cause]:
    adapters = sum(any(mark in tensor.name.lower() for mark in ADAPTERS) for tensor in tensors)
    if adapters > MANY * len(tensors):
        yield Cause(
            "the file holds only an adapter (LoRA), small matrices that change a model whose own weights are elsewhere",
            "merge it into its base model first, and save that",
        )


def _quantised(found: Fit) -> Iterator[Cause]:
    dtypes = {difference.tensor.dtype for difference in found.differences if difference.tensor.dtype in QUANTISED}
    if dtypes:
        yield Cause(
            f"the file holds quantised weights ({', '.join(sorted(dtypes))}), and the model takes floating ones",
            "look for the file from before quantisation",
        )


def _arguments(named: NamedModel, found: Fit, again: Again, refit: Callable[[nn.Module], Fit]) -> Iterator[Cause]:
    arguments = fitting_arguments(named, found, again, refit)
    if arguments:
        words = " and ".join(f"{name}={value}" for name, value in arguments.items())
        options = " ".join(f"--model-arg {name}={value}" for name, value in arguments.items())
        yield Cause(f"built with {words}, {named.name} takes every tensor of the file", f"try {options}")


def _architecture(named: NamedModel, found: Fit, tensors: list[StoredTensor], archive: Archive) -> Iterator[Cause]:
    names = architectures((tensor.name, tensor.shape) for tensor in tensors)
    if names and named.name not in names:
        same = ", which have the same tensors" if len(names) > 1 else ""
        yield Cause(
            f"the tensors are those of torchvision's {' or '.join(names)}{same}, not of {named.name}",
            f"try netlens summary {names[0]} --checkpoint {one_line(archive.path)}",
        )
    elif not names and len(found.pairs) + len(found.differences) < 0.1 * len(tensors):
        yield Cause(f"almost no name in the file is one of {named.name}'s, so it was saved from another model")


def _averaged(model: nn.Module, archive: Archive, refit: Callable[..., Fit]) -> Iterator[Cause]:
    for group in archive.groups:
        if group.role == "ema" and group.key and group.tensors:
            try:
                fits = refit(model, key=group.key).complete
            except NetlensError:
                continue
            if fits:
                key = one_line(group.key)
                yield Cause(f"the averaged weights (EMA) under `{key}` fit completely", f"try --key {key}")
                return


def _outside(found: Fit) -> Iterator[Cause]:
    prefix = found.stripping.prefix
    outside = sum(found.stripping(tensor.name) is None for tensor in found.unexpected)
    if prefix and outside == len(found.unexpected) > 0 and not found.missing and not found.differences:
        shown = one_line(prefix)
        yield Cause(
            f"all that does not fit stands outside the prefix `{shown}`: it belongs to something else in the checkpoint",
            f"try --strip-prefix {shown}",
        )


def _part(found: Fit) -> Iterator[Cause]:
    """The file may hold the weights of one part of the model: then its names are the ends of the model's."""
    names, counts = {tensor.name for tensor in found.unexpected}, dict[str, int]()
    for name in found.missing:
        parts = name.split(".")
        for depth in range(1, min(len(parts), DEEPEST)):
            if ".".join(parts[depth:]) in names:
                part = ".".join(parts[:depth])
                counts[part] = counts.get(part, 0) + 1
    best = max(counts, key=lambda part: counts[part], default="")
    if best and counts[best] > MANY * len(names):
        yield Cause(f"the names are those below `{one_line(best)}` of the model: the file holds the weights of that part alone")
