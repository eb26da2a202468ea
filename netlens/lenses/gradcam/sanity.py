"""Whether maps depend on what the network has learned: the weights are drawn anew, from the head downwards.

The cascading randomisation of Adebayo et al. 2018, 1810.03292.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain, groupby
from typing import Any

import torch
from torch import Tensor, nn

from netlens.probing.paths import every_call
from netlens.probing.untouched import seeded, untouched

MOST_BLOCKS = 6  # steps below the head
FEWEST_BLOCKS = 4

Owner = tuple[str, nn.Module]  # a module that holds parameters itself, and its name


def sanity(model: nn.Module, explain: Callable[[], Sequence[Tensor]], *, seed: int = 0) -> tuple[tuple[str, ...], tuple[float | None, ...]]:
    """Compare maps of the model with maps of the same model whose last layers were drawn anew, more of them with every step.

    The last layer that runs is the first step; the others follow in at most MOST_BLOCKS blocks, down to the first layer. The model
    comes back as it was, also when `explain` raises.

    Args:
        model: what is explained.
        explain: returns a map of each question, of any shape, before its ReLU; of the same classes every time, not of those that win now.
        seed: of the new weights.

    Returns:
        The names of the blocks; and for each the mean of `rank_correlation` over the maps, None where it is of none.
    """
    similarities = []
    with untouched(model):
        calls: dict[nn.Module, int] = {}
        with _first_calls(calls):
            before = explain()
        with _values_kept(model):
            owners, others = _owners(model, calls)
            blocks = _blocks(owners)
            for _, modules in blocks[-1:]:
                modules.extend(others)
            for number, (_, modules) in enumerate(blocks):
                with seeded(seed + number):
                    for module in modules:
                        _redraw(module)
                pairs = [rank_correlation(*maps) for maps in zip(before, explain(), strict=True)]
                known = [value for value in pairs if value is not None]
                similarities.append(sum(known) / len(known) if known else None)
    return tuple(name for name, _ in blocks), tuple(similarities)


def rank_correlation(real: Tensor, other: Tensor) -> float | None:
    """Return Spearman's rank correlation of the absolute values of two maps, as in the paper; equal values share their mean rank.

    Returns:
        -1..1; None where either is constant or not finite: it has no order that could be like another, nor unlike it.
    """
    first, second = _ranks(real), _ranks(other)
    return None if first is None or second is None else float((first * second).sum())


def _ranks(values: Tensor) -> Tensor | None:
    """Return ranks, less their mean, as a vector of length 1."""
    flat = values.detach().abs().flatten().cpu()
    if not flat.isfinite().all():
        return None
    found, places, counts = flat.unique(return_inverse=True, return_counts=True)
    if len(found) < 2:
        return None
    ranks: Tensor = (counts.cumsum(0) - (counts - 1) / 2).double()[places]  # 1, 2, 3.5, 3.5, 5
    ranks -= ranks.mean()
    return ranks.div_(ranks.norm())


# --- Layers, in the order in which they ran


@contextmanager
def _first_calls(found: dict[nn.Module, int]) -> Iterator[None]:
    """Number the modules in the order in which they are first called while the block runs."""

    def watch(original: Any, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        found.setdefault(module, len(found))
        return original(module, *args, **kwargs)

    with every_call(watch):
        yield


def _owners(model: nn.Module, calls: dict[nn.Module, int]) -> tuple[list[Owner], list[nn.Module]]:
    """Return every module with parameters of its own, the last that ran first; apart, those of which it is not known when they ran."""
    modules = dict(model.named_modules())

    def when(name: str) -> int:
        """Return the number of the call of a module, or of the nearest one that it is part of."""
        while name and modules.get(name) not in calls:
            name = name.rpartition(".")[0]
        return calls.get(modules[name], -1)

    owners = [(name, module) for name, module in reversed(modules.items()) if next(module.parameters(recurse=False), None) is not None]
    owners.sort(key=lambda owner: -when(owner[0]))
    known = [owner for owner in owners if when(owner[0]) > when("")] or owners
    return known, [module for _, module in owners[len(known) :]]


def _blocks(owners: list[Owner]) -> list[tuple[str, list[nn.Module]]]:
    """Group layers: the head, then neighbours whose names begin alike; a block is called after its last part, the nearest to the input."""
    body, depth = owners[1:], 1
    groups = _alike(body, depth)
    while max(map(len, groups), default=0) > max(1, len(body) // 2) or len(groups) < min(FEWEST_BLOCKS, len(body)):
        depth += 1
        groups = _alike(body, depth)
    count = min(MOST_BLOCKS, len(groups))
    merged = [list(chain(*groups[len(groups) * part // count : len(groups) * (part + 1) // count])) for part in range(count)]
    heads = [(name or type(module).__name__, [module]) for name, module in owners[:1]]
    return heads + [(_beginning(block[-1], depth), [module for _, module in block]) for block in merged]


def _alike(owners: list[Owner], depth: int) -> list[list[Owner]]:
    return [list(group) for _, group in groupby(owners, key=partial(_beginning, depth=depth))]


def _beginning(owner: Owner, depth: int) -> str:
    return ".".join(owner[0].split(".")[:depth])


# --- Weights


@contextmanager
def _values_kept(model: nn.Module) -> Iterator[None]:
    """Put the values of all parameters back; buffers and everything else are for `untouched`."""
    kept = [(parameter, parameter.detach().to("cpu", copy=True)) for parameter in model.parameters()]
    try:
        yield
    finally:
        with torch.inference_mode():  # parameters that were made in it cannot be written outside
            for parameter, values in kept:
                parameter.copy_(values)


@torch.inference_mode()
def _redraw(module: nn.Module) -> None:
    """Draw a module's own parameters anew, as torch starts them; what torch does not start, or leaves as it was, is shuffled.

    BatchNorm forgets its statistics as well.
    """
    before = [(parameter, parameter.clone()) for parameter in module.parameters(recurse=False)]
    reset = getattr(module, "reset_parameters", None)
    if callable(reset) and type(module).__module__.startswith("torch."):  # others may do anything in theirs
        reset()
    for parameter, values in before:
        if torch.equal(parameter, values):
            order = torch.randperm(parameter.numel()).to(parameter.device)
            parameter.copy_(values.flatten()[order].view_as(values))
