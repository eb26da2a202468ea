"""Which arguments of the constructor would make the model fit: measured, not guessed from their names.

The model is built on the meta device with one integer changed, and the axes that move, and how far, give the value at which they would meet
the checkpoint. It counts only if the model that is built with it fits completely.
"""

from __future__ import annotations

import io
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from inspect import Parameter
from typing import Any

from torch import nn

from netlens.errors import NetlensError
from netlens.loading.arguments import RESERVED, accepted_arguments
from netlens.loading.checkpoints.fit import Fit
from netlens.loading.checkpoints.slots import slots_of
from netlens.loading.checkpoints.weights import on_meta
from netlens.loading.named import NamedModel

Shapes = dict[str, tuple[int, ...]]

STEPS = (16, 1, 8, 64, -1)  # tried in this order until one builds and moves something; then twice the value, and half of it
MOST_IDLE = 2  # steps that build and move nothing, after which an argument has no say in shapes
UNKNOWN = 8  # where an argument has no default: what it is compared from
MOST_ROUNDS = 4  # arguments that may be wrong at once
MOST_ARGUMENTS = 40
MOST_VALUE = 1 << 24  # beyond it a value is not an argument
MOST_REPEATS = 512  # of layers, where the argument counts them
SECONDS = 10.0  # in all; a model that takes longer than that to build has no hint


@dataclass(frozen=True, slots=True)
class Built:
    """A model on meta, and how the checkpoint fits it."""

    model: nn.Module
    shapes: Shapes
    fit: Fit


def fitting_arguments(
    named: NamedModel, found: Fit, again: Callable[[Mapping[str, object]], NamedModel], refit: Callable[[nn.Module], Fit]
) -> dict[str, int]:
    """Find integers for the constructor with which every tensor fits; {} where there are none.

    Args:
        named: the model as the user asked for it.
        found: how it fits.
        again: finds the same model with other arguments.
        refit: fits the checkpoint to a model.
    """
    if named.is_instance or not (found.differences or found.missing or found.unexpected):
        return {}
    search = _Search(named, again, refit)
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        return search.run()


class _Search:
    """One argument after the other: the change that makes most tensors fit is kept, until all of them do."""

    def __init__(self, named: NamedModel, again: Callable[[Mapping[str, object]], NamedModel], refit: Callable[[nn.Module], Fit]) -> None:
        self.named, self.again, self.refit = named, again, refit
        self.ends = time.monotonic() + SECONDS

    def run(self) -> dict[str, int]:
        changes: dict[str, int] = {}
        base = self.built({})
        for _ in range(MOST_ROUNDS):
            if base is None or base.fit.complete:
                break
            best = self._best_change(base, changes)
            if best is None:
                return {}
            changes, base = best
        return self._needed(changes) if base is not None and base.fit.complete else {}

    def built(self, changes: Mapping[str, object]) -> Built | None:
        """Build with these changes; None where that, or fitting, fails."""
        if time.monotonic() > self.ends:
            return None
        try:
            named = self.again({**self.named.args, **changes})
            model = on_meta(named)
            shapes = {slot.name: slot.shape for slot in slots_of(model) if slot.shape is not None and slot.persistent}
            return Built(model, shapes, self.refit(model))
        except (NetlensError, RecursionError, MemoryError):
            return None

    def _best_change(self, base: Built, changes: dict[str, int]) -> tuple[dict[str, int], Built] | None:
        best: tuple[dict[str, int], Built] | None = None
        for name, value in _integers(self.named, base.model, changes).items():
            for solution in self._solutions(base, changes, name, value):
                changed = {**changes, name: solution}
                tried = self.built(changed)
                if tried is not None and tried.fit.complete:
                    return changed, tried
                if tried is not None and _misfits(tried.fit) < _misfits(best[1].fit if best else base.fit):
                    best = (changed, tried)
        return best

    def _solutions(self, base: Built, changes: dict[str, int], name: str, value: int | None) -> list[int]:
        """Return the values of one argument at which most of what does not fit would; at most two."""
        start = base if value is not None else self.built({**changes, name: UNKNOWN})
        value = UNKNOWN if value is None else value
        if start is None:
            return []
        idle = 0
        for step in (*STEPS, value, -(value // 2)):
            moved = self.built({**changes, name: value + step}) if value + step > 0 else None
            if moved is not None and moved.shapes != start.shapes:
                votes = Counter(_crossings(start, moved, value, step))
                return [solution for solution, _ in votes.most_common(2) if solution != value or start is not base]
            idle += moved is not None
            if idle == MOST_IDLE:
                break
        return []

    def _needed(self, changes: dict[str, int]) -> dict[str, int]:
        """Leave out changes that later ones made needless."""
        for name in list(changes):
            rest = {other: value for other, value in changes.items() if other != name}
            tried = self.built(rest) if rest else None
            if tried is not None and tried.fit.complete:
                changes = rest
        return changes


def _misfits(found: Fit) -> tuple[int, int]:
    return len(found.differences) + len(found.missing) + len(found.unexpected), -len(found.pairs)


def _crossings(start: Built, moved: Built, value: int, step: int) -> Iterator[int]:
    """Yield the value at which each axis, or the number of tensors, would meet the checkpoint, were it a straight line."""
    for difference in start.fit.differences:
        before, after = start.shapes.get(difference.name), moved.shapes.get(difference.name)
        wanted = difference.tensor.shape
        if before is None or after is None or not len(before) == len(after) == len(wanted):
            continue
        for old, new, goal in zip(before, after, wanted, strict=True):
            yield from _crossing(old, new, goal, value, step, MOST_VALUE)
    old, new = len(start.shapes), len(moved.shapes)
    if old != new:
        goal = old + len(start.fit.unexpected) - len(start.fit.missing)
        yield from _crossing(old, new, goal, value, step, MOST_REPEATS)


def _crossing(old: int, new: int, goal: int, value: int, step: int, most: int) -> Iterator[int]:
    moved = (goal - old) * step
    if old not in (new, goal) and moved % (new - old) == 0:
        solution = value + moved // (new - old)
        if 0 < solution <= most:
            yield solution


def _integers(named: NamedModel, model: nn.Module, changes: Mapping[str, int]) -> dict[str, int | None]:
    """Return the constructor's integers with their present values; None where that is not known."""
    given = {name: value for name, value in {**named.args, **changes}.items() if isinstance(value, int) and _is_int(value)}
    others = [name for name, value in named.args.items() if not _is_int(value)]
    every = {**_declared(named, model), **given}
    return {name: every[name] for name in list(every)[:MOST_ARGUMENTS] if name not in RESERVED and name not in others}


def _declared(named: NamedModel, model: nn.Module) -> dict[str, int | None]:
    if named.config is not None:
        return {name: value for name, value in vars(named.config).items() if _is_int(value) and value > 0 and name[0] != "_"}
    accepted = accepted_arguments(named.target) if named.target is not None else None
    found = {name: _value(p.default) for name, p in accepted.parameters.items() if _takes_int(p)} if accepted else {}
    if accepted is None or accepted.anything:  # the class may take more; its defaults need not be what the call before it gave
        parameters = accepted_arguments(type(model)).parameters
        found = {**{name: _value(getattr(model, name, None)) for name, p in parameters.items() if _takes_int(p)}, **found}
    return found


def _takes_int(parameter: Parameter) -> bool:
    kind = parameter.annotation
    text = kind.__name__ if isinstance(kind, type) else str(kind)
    undecided = parameter.default in (None, Parameter.empty)
    return _is_int(parameter.default) or (undecided and text.replace("typing.", "") in ("int", "Optional[int]", "int | None"))


def _value(value: Any) -> int | None:
    return value if _is_int(value) else None


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
