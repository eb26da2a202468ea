"""The layers of a transformer over the places of a picture: which modules they are, and which places their tokens stand for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import nn

from netlens.errors import NetlensError
from netlens.probing.activations import Output, watched
from netlens.probing.attention_maps import AttentionMap, attended
from netlens.probing.differentiable import Call, first_tensor
from netlens.probing.leaves import map_tensors
from netlens.probing.paths import every_call
from netlens.probing.tokens import Layouts

HINT = "--method gradcam needs feature maps only"


@dataclass(frozen=True, slots=True)
class Layers:
    """Blocks that hand on tokens of one shape, and where they attend."""

    blocks: tuple[nn.Module, ...]  # as they are called, one after the other; a module that is called twice stands here twice
    pooled: bool  # attention that gathers the tokens after the blocks has the maps, not the blocks
    tokens: int  # that are attended to
    grid: tuple[int, ...]
    prefix: int  # tokens before those of the grid


@dataclass(eq=False, slots=True)
class _Frame:
    """One running call of a module."""

    module: nn.Module
    above: tuple[_Frame, ...]
    taken: torch.Size | None
    returned: torch.Size | None = None


@dataclass(frozen=True, slots=True)
class _Attention:
    frames: tuple[_Frame, ...]  # in which it ran, outermost first
    rows: int  # samples, or windows
    queries: int
    keys: int


class _Survey:
    """Notes attention and token grids in one pass of one sample."""

    def __init__(self, model: nn.Module, call: Call) -> None:
        self._layouts = Layouts(model)
        self._layouts.begin(call)
        self._frames: tuple[_Frame, ...] = ()
        self.attentions: list[_Attention] = []
        self.grids: dict[int, tuple[int, ...]] = {}  # by the number of tokens
        args, kwargs = call
        with torch.no_grad(), watched(model, self._look), attended(model, self._attend), every_call(self._call):
            model(*args, **kwargs)

    def _look(self, output: Output) -> None:
        layout = self._layouts.of(output)
        if layout.folded == 1 and len(layout.grid) > 1:
            tokens = layout.prefix + prod(layout.grid)
            if layout.kind == "tokens" or tokens not in self.grids:
                self.grids[tokens] = layout.grid

    def _attend(self, found: AttentionMap) -> None:
        rows, _, queries, keys = found.weights.shape
        self.attentions.append(_Attention(self._frames, rows, queries, keys))

    def _call(self, original: Any, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        frame = _Frame(module, self._frames, _shape((args, kwargs)))
        self._frames = (*frame.above, frame)
        try:
            result = original(module, *args, **kwargs)
        finally:
            self._frames = frame.above
        frame.returned = _shape(result)
        return result


def attention_layers(model: nn.Module, call: Call) -> Layers:
    """Find the blocks of a transformer by running one sample.

    Blocks are the modules side by side that contain one call of self-attention or more each; nn.Sequential is gone through. Attention
    whose queries are not the tokens (a class token alone, the query of a pooling head) gathers what the blocks made.

    Raises:
        NetlensError: no attention over places, or attention that LeGrad has no equation for.
    """
    survey = _Survey(model, _one_sample(call))
    name = type(model).__name__
    over_grid = [found for found in survey.attentions if found.rows == 1 and found.keys in survey.grids]
    if not survey.attentions or (not over_grid and all(found.rows == 1 for found in survey.attentions)):
        raise NetlensError(f"{name} has no attention over places", hint=HINT)
    own = [found for found in over_grid if found.queries == found.keys]
    pooling = [found for found in over_grid if found.queries != found.keys]
    if own + pooling != survey.attentions:
        raise _undefined(name, "some of its attention is not over all tokens of the picture, but over windows or other tokens")
    if any(len({found.keys for found in group}) > 1 for group in (own, pooling)):
        raise _undefined(name, "its attention is over grids of several resolutions")
    tokens = (pooling or own)[0].keys
    grid = survey.grids[(own or pooling)[0].keys]
    if tokens < prod(grid):
        raise _undefined(name, "its attention is over grids of several resolutions")
    return Layers(_blocks(own, model), bool(own and pooling), tokens, grid, prefix=tokens - prod(grid))


def _blocks(found: Sequence[_Attention], model: nn.Module) -> tuple[nn.Module, ...]:
    if len(found) < 2:
        return (found[0].frames[-1].module if found else model,)
    name, frames = type(model).__name__, _side_by_side(found, 0)
    if not frames:
        raise _undefined(name, "its layers are not modules of their own, and none can be left out")
    if len({shape for frame in frames for shape in (frame.taken, frame.returned)}) > 1:
        raise _undefined(name, "its layers hand on tokens of different shapes, and none can be left out")
    return tuple(frame.module for frame in frames)


def _side_by_side(found: Sequence[_Attention], depth: int) -> list[_Frame]:
    """Return the calls into which all attention divides, in order; none where a module attends in its own forward, beside others."""
    if any(len(attention.frames) <= depth for attention in found):
        return []
    groups: dict[_Frame, list[_Attention]] = {}
    for attention in found:
        groups.setdefault(attention.frames[depth], []).append(attention)
    if len(groups) == 1:
        return _side_by_side(found, depth + 1)
    blocks = []
    for frame, inside in groups.items():
        stage = isinstance(frame.module, nn.Sequential) and len(inside) > 1
        blocks += (_side_by_side(inside, depth + 1) if stage else []) or [frame]
    return blocks


def _one_sample(call: Call) -> Call:
    """Keep the first sample of every tensor that holds as many as the picture does."""
    given = first_tensor(call, least_dims=3)
    samples = 0 if given is None else len(given)
    kept: Call = map_tensors(call, lambda tensor: tensor[:1] if tensor.dim() and len(tensor) == samples else tensor)
    return kept


def _shape(value: Any) -> torch.Size | None:
    tensor = first_tensor(value)
    return None if tensor is None else tensor.shape


def _undefined(name: str, reason: str) -> NetlensError:
    return NetlensError(f"LeGrad is not defined for {name}: {reason}", hint=HINT)
