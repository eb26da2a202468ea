"""Which layers maps are made of: asked for, or found by test."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from netlens.errors import LayerNotFound, NetlensError
from netlens.lenses.gradcam.recording import Recording, Row, recorded
from netlens.lenses.gradcam.report import Layer
from netlens.loading.select import select
from netlens.probing.cutting import cut
from netlens.probing.leaves import leaves
from netlens.probing.replacing import Site
from netlens.wording import counted

_AT_ONCE = 8  # layers that are tested in one pass, from the end; twice as many in the next
_INDEX = re.compile(r"-?\d+|(-?\d+)?:(-?\d+)?")
_NO_GRADIENT = "no gradient comes back to it: the score does not depend on it, or the forward switches gradients off after it"
Score = Callable[[Any], Tensor]  # of what the model returns: one number of each sample


@dataclass(frozen=True, slots=True)
class Choice:
    """The layers that maps are made of."""

    layers: tuple[Layer, ...]  # for the report, with reasons
    sites: tuple[Site, ...]  # for `cut`, in the same order


def candidates(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], *, scored: bool = True) -> list[Layer]:
    """Return every layer that puts out values on a grid, in the order in which they ran; one forward pass, without graph.

    Args:
        model: in eval mode.
        args: one sample.
        kwargs: of the same call.
        scored: as of `chosen`.
    """
    return [row.shown(index) for index, row in enumerate(recorded(model, (args, kwargs), scored=scored).rows)]


def chosen(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], score: Score, wanted: Sequence[str] = (), *, scored: bool = True
) -> Choice:
    """Return the layers that are asked for, or else the last one on which the score depends at more than one place.

    Without `wanted` layers are tested from the end: the gradient of the score must not be zero at two places of the grid or more; layers
    that hold the scores, windows, attention weights or a fixed pooling are passed over. Where no layer has a gradient, as with a head of
    zeros, the gradient of a random projection of what the last layer with weights takes is tested instead.

    Args:
        model: in eval mode.
        args: one sample.
        kwargs: of the same call.
        score: is called with what the model returns, in the graph.
        wanted: names, ends of names, globs, types, or indices in the list of `candidates`; of a container and its parts the container.
        scored: the model returns scores of classes, not an embedding: layers with as many channels at its end hold them.

    Raises:
        NetlensError: no layer is meant, or it has no grid.
    """
    recording, inputs = recorded(model, (args, kwargs), scored=scored), (args, kwargs)
    if not recording.rows:
        message = f"no layer of {type(recording.model).__name__} puts out values on a grid: there is no map to make"
        raise NetlensError(message, hint="`netlens summary` with the same model and input lists what layers put out")
    test = _Test(recording, inputs, score)
    if not wanted:
        return _choice(recording, [test.last()])
    meant = {row: parts for pattern in wanted for row, parts in asked(recording, pattern).items()}
    rows = sorted(meant, key=recording.rows.index)
    reached = test.reached(rows, score)
    return _choice(recording, [(row, _warning(row, where, meant[row])) for row, where in zip(rows, reached, strict=True)])


def named(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], names: Sequence[str]) -> tuple[Site, ...]:
    """Return the sites of layers that were chosen before, for inputs of another size."""
    sites = {row.site.name: row.site for row in recorded(model, (args, kwargs)).rows}
    for name in names:
        if name not in sites:
            raise NetlensError(f"layer {name!r} has no grid with an input of this size", hint="give inputs of one size, or another --layer")
    return tuple(sites[name] for name in names)


def asked(recording: Recording, pattern: str) -> dict[Row, int]:
    """Return the rows that one `--layer` means, each with the number of its own parts that are meant as well, and left out.

    Raises:
        LayerNotFound: there is no such layer. NetlensError: there is, but it has no grid.
    """
    rows = recording.rows
    if _INDEX.fullmatch(pattern) and pattern != ":":
        return {rows[index]: 0 for index in select([pattern], [row.site.name for row in rows], [])}
    exact = [(name, row) for row in (*rows, *recording.others) for name, _ in row.names if name == pattern]
    names = recording.names()
    if not exact:
        try:
            picked = select([pattern], [name for name, _, _ in names], [kind for _, kind, _ in names])
            exact = [(names[index][0], names[index][2]) for index in picked]
        except LayerNotFound as error:
            with_grid = [(name, kind) for name, kind, row in names if row in rows]
            raise LayerNotFound(pattern, [name for name, _ in with_grid], [kind for _, kind in with_grid]) from error
    found = list(dict.fromkeys(row for _, row in exact if row in rows))
    if not found:
        raise _no_grid(recording, pattern, exact[-1][1])
    inside = any(name.startswith(f"{pattern}.") for name, _ in found[-1].names) and pattern not in (name for name, _, _ in names)
    if inside:  # of a container that returns something else, the last inside it
        return {found[-1]: 0}
    return _outermost(found, [(name, row) for name, row in exact if row in found])


def _outermost(found: Sequence[Row], named: Sequence[tuple[str, Row]]) -> dict[Row, int]:
    """Leave out what lies inside another one that the pattern means by name: fused, one block would count many times."""
    parts = {row: {part for part in found if part is not row and part.lies_in([n for n, of in named if of is row])} for row in found}
    return {row: len(own) for row, own in parts.items() if not any(row in others for others in parts.values())}


def _no_grid(recording: Recording, pattern: str, row: Row) -> NetlensError:
    near = [each for each in recording.rows if each.order < row.order][-1:] or recording.rows[:1]
    shape = " x ".join(map(str, row.layout.shape))
    hint = "; ".join(f"the nearest that has one is {each.site.name!r}: {each.layout.channels} channels of {_size(each)}" for each in near)
    return NetlensError(f"layer {pattern!r} puts out {shape} numbers, which lie on no grid", hint=hint)


class _Test:
    """Finds out at how many places of a layer's grid a score depends on it."""

    def __init__(self, recording: Recording, inputs: tuple[tuple[Any, ...], dict[str, Any]], score: Score) -> None:
        self._recording, self._inputs, self._score = recording, inputs, score

    def reached(self, rows: Sequence[Row], score: Score) -> list[Tensor | None]:
        """Return where the gradient at each layer is not zero, (C, *grid); None where there is no gradient."""
        with cut(self._recording.model, [row.site for row in rows], self._inputs) as run:
            gradients = run.gradients(score(run.output))
        found = [gradients[row.site.name] for row in rows]
        return [None if gradient is None else (gradient != 0).any(0) for gradient in found]

    def last(self) -> tuple[Row, str]:
        """Return the last layer that passes, and why it is taken."""
        rows = self._recording.rows
        fit = [row for row in rows if not row.unfit] or rows
        what = f"the last of {counted(len(rows), 'layer')} with a map"
        if (row := self._latest(fit, self._score)) is not None:
            score = "score" if self._recording.classes is None else "class score"
            return row, f"{what} ({_size(row)}) on which the {score} depends{self._passed_over(row)}"
        if (head := self._recording.head) is not None:
            with _taken_by(head.site.module) as taken:
                row = self._latest(fit, lambda _: _projected(taken))
            if row is not None:
                return row, f"{what} ({_size(row)}) on which the input of {head.names[0][0]} depends; the class score depends on none"
        return fit[-1], f"{what} ({_size(fit[-1])}); the class score depends on none"

    def _passed_over(self, taken: Row) -> str:
        """Name the first layer after it that is not taken although the score depends on it."""
        classes, rows = self._recording.classes, self._recording.rows
        later = [row.site.name for row in rows if row.order > taken.order and row.layout.channels == classes]
        return f"; not {later[0]}, which holds the scores of the classes" if later else ""

    def _latest(self, fit: Sequence[Row], score: Score) -> Row | None:
        for rows in _from_the_end(fit):
            reached = dict(zip(rows, self.reached(rows, score), strict=True))
            for row in reversed(rows):
                if self._passes(row, reached[row]):
                    return row
        return None

    def _passes(self, row: Row, reached: Tensor | None) -> bool:
        if reached is None or int(reached.any(0).sum()) < 2:
            return False
        # Scores of the classes that are added to others, as in LR-ASPP: the score of one class depends on one channel only.
        return row.layout.channels != self._recording.classes or int(reached.flatten(1).any(1).sum()) > 1


def _from_the_end(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    end, count = len(rows), _AT_ONCE
    while end > 0:
        yield rows[max(0, end - count) : end]
        end, count = end - count, 2 * count


@contextmanager
def _taken_by(module: nn.Module) -> Iterator[list[Tensor]]:
    """Collect the first floating tensor that each call of a module gets."""
    taken: list[Tensor] = []
    handle = module.register_forward_pre_hook(
        lambda _, args, kwargs: taken.extend([t for _, t in leaves((args, kwargs)) if t.is_floating_point()][:1]), with_kwargs=True
    )
    try:
        yield taken
    finally:
        handle.remove()


def _projected(taken: Sequence[Tensor]) -> Tensor:
    features = taken[-1]
    random = torch.randn(features.shape, generator=torch.Generator().manual_seed(0))
    return (features * random.to(features)).sum()


def _warning(row: Row, reached: Tensor | None, parts: int) -> str:
    """Say what is wrong with a layer that is asked for, and how many of its own parts are left out."""
    left = f"{counted(parts, 'part')} of it that the pattern means as well, left out" if parts else ""
    return "; ".join(filter(None, (_ill(row, reached), left)))


def _ill(row: Row, reached: Tensor | None) -> str:
    if reached is None:
        return _NO_GRADIENT
    places = int(reached.any(0).sum())
    few = (
        "the class score does not depend on it"
        if places == 0
        else f"the class score depends on 1 of its {prod(row.layout.grid)} places only"
    )
    return row.unfit if places > 1 else few


def _size(row: Row) -> str:
    return " x ".join(map(str, row.layout.grid))


def _choice(recording: Recording, picked: Sequence[tuple[Row, str]]) -> Choice:
    layers = tuple(row.shown(recording.rows.index(row), reason, chosen=True) for row, reason in picked)
    return Choice(layers, tuple(row.site for row, _ in picked))
