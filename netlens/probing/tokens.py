"""Where channels, places and samples are in what a layer put out; tokens folded back to the grid that they came from."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import isqrt, prod
from typing import Any, Literal

from torch import Tensor, nn

from netlens.probing.activations import Output
from netlens.probing.leaves import leaves

Kind = Literal["channels first", "channels last", "tokens", "features", "sequence"]
Shape = tuple[int, ...]

_PREFIX = re.compile(r"(cls|class|dist|distillation|reg|register|storage)_?(tokens?|embedding)$")
_OF_CHANNELS = (
    "normalized_shape",
    "out_features",
    "embedding_dim",
    "embed_dim",
    "nf",
)  # attributes that give the size of the last dimension


@dataclass(frozen=True, slots=True)
class Layout:
    """How to read one output."""

    kind: Kind
    shape: Shape  # of one sample, in the order in which the layer put it out
    channels: int
    grid: Shape  # of the places; (H, W), (T, H, W), (L,); () for features
    prefix: int = 0  # tokens before those of the grid
    batch_axis: int = 0  # 1: sequence first, (L, N, C)
    folded: int = 1  # consecutive rows that are one sample: windows, frames


class Layouts:
    """Tells the layout of every output of a model, from its layers and from what was put out before.

    Linear, LayerNorm and Embedding have their channels last, what is called ...1d, ...2d, ...3d first; any other layer is read as the last
    one of the same shape. Tokens are folded to the last grid whose size, and up to as many prefix tokens as the model has, is their number.
    """

    def __init__(self, model: nn.Module) -> None:
        modules = list(model.modules())
        self._recurrent = any(isinstance(module, nn.RNNBase) for module in modules)
        self._sequence_first = {
            id(child) for module in modules if getattr(module, "batch_first", None) is False for child in module.modules()
        }
        self._takes_sequence_first = type(model).__module__.startswith("torch.nn.") and bool(self._sequence_first)
        self._most_prefix = _prefix_tokens(model)
        self._batch = 1
        self._picture: Shape | None = None
        self._known: dict[tuple[str, Shape, int], Layout] = {}
        self._last: dict[Shape, bool] = {}  # shape without the first dimension -> channels are last
        self._grids: dict[Shape, None] = {}  # in the order in which they were seen last
        self._channels = 0  # of the last output

    def begin(self, inputs: Any, batch: int | None = None) -> None:
        """Say what the next pass is fed with; `batch` is its number of samples where the first tensor does not tell."""
        found = [tensor for _, tensor in leaves(inputs) if tensor.dim()]
        axis = int(self._takes_sequence_first and bool(found) and found[0].dim() == 3)
        self._batch = batch or (found[0].shape[axis] if found else 1)
        self._picture = next((tuple(tensor.shape[2:]) for tensor in found if tensor.dim() == 4), None)

    def of(self, output: Output) -> Layout:
        """Return the layout of an output; called once for each, in the order of the pass."""
        shape = tuple(output.tensor.shape)
        key = (output.name, shape, self._batch)
        layout = self._known.get(key)
        if layout is None:
            layout = self._known[key] = self._new(output, shape)
        if layout.kind.startswith("channels") and len(layout.grid) > 1:
            self._grids.pop(layout.grid, None)
            self._grids[layout.grid] = None
        self._channels = layout.channels
        return layout

    def _new(self, output: Output, shape: Shape) -> Layout:
        if len(shape) < 2:
            channels = 1 if shape == (self._batch,) else prod(shape)
            return Layout("features", (channels,), channels, ())
        if self._batch_axis(output, shape) == 1:
            kind, grid, prefix = self._of_tokens(output, shape[0])
            return Layout(kind, (shape[0], *shape[2:]), shape[-1], grid, prefix, batch_axis=1)
        last = len(shape) == 2 or self._channels_last(output, shape)
        self._last[shape[1:]] = last
        rows, rest = divmod(shape[0], max(1, self._batch))
        windows = rows if rest == 0 and rows > 1 else 1
        return self._batch_first(output, shape, last, windows)

    def _batch_first(self, output: Output, shape: Shape, last: bool, windows: int) -> Layout:
        sample = shape[1:] if windows == 1 else (windows, *shape[1:])
        outer = () if windows == 1 else (windows,)
        if not last:
            return Layout("channels first", sample, shape[1], (*outer, *shape[2:]), folded=windows)
        grid: Shape = (*outer, *shape[1:-1])
        if not grid:
            return Layout("features", sample, shape[-1], ())
        if len(shape) > 3:
            return Layout("channels last", sample, shape[-1], grid, folded=windows)
        kind, grid, prefix = self._of_tokens(output, grid[0]) if len(grid) == 1 else ("tokens", grid, 0)
        return Layout(kind, sample, shape[-1], grid, prefix, folded=windows)

    def _of_tokens(self, output: Output, length: int) -> tuple[Kind, Shape, int]:
        if isinstance(output.module, nn.RNNBase) or (self._recurrent and not self._grids):
            return "sequence", (length,), 0
        return ("tokens", *self._folded_back(length))

    def _batch_axis(self, output: Output, shape: Shape) -> int:
        if isinstance(output.module, nn.RNNBase) and output.part not in ("", "0", "0.data"):
            return int(len(shape) == 3)  # states: (layers, N, H), also with batch_first
        if len(shape) != 3 or not self._sequence_first or (shape[0] == self._batch != shape[1]):
            return 0
        inside = id(output.module or output.caller_module) in self._sequence_first
        return int(inside or (shape[1] == self._batch and shape[0] != self._batch))

    def _channels_last(self, output: Output, shape: Shape) -> bool:
        known = None if output.module is None else _of_layer(output.module, shape)
        if known is None:
            known = self._last.get(shape[1:])
        if known is None and self._channels in (shape[1], shape[-1]) and shape[1] != shape[-1]:
            known = shape[-1] == self._channels
        return len(shape) == 3 if known is None else known

    def _folded_back(self, length: int) -> tuple[Shape, int]:
        for grid in reversed(self._grids):
            if 0 <= length - prod(grid) <= self._most_prefix:
                return grid, length - prod(grid)
        if self._picture is not None and not self._grids:  # patches were cut without a convolution
            for prefix in range(self._most_prefix + 1):
                if folded := _of_ratio(length - prefix, self._picture):
                    return folded, prefix
        return (length,), 0


def _prefix_tokens(model: nn.Module) -> int:
    """Count class, distillation and register tokens among the parameters; at least 1, since names are free."""
    tokens = {name: tensor for name, tensor in model.named_parameters() if _PREFIX.search(name)}
    return max(1, sum(tensor.shape[-2] if tensor.dim() > 1 else 1 for tensor in tokens.values()))


def _of_layer(module: nn.Module, shape: Shape) -> bool | None:
    """Tell whether channels are last, from a layer that can have them in one place only; None for any other."""
    if re.search(r"[123]d$", type(module).__name__) or isinstance(module, nn.GroupNorm):
        return False
    if isinstance(module, nn.RNNBase):
        return True
    dims = getattr(module, "dims", None)
    if isinstance(dims, (list, tuple)) and len(dims) == len(shape):  # torchvision's Permute
        return bool(dims[-1] == 1) if 1 in (dims[-1], dims[1]) or dims[1] == len(shape) - 1 else None
    for name in _OF_CHANNELS:
        size = getattr(module, name, None)
        size = size[-1] if isinstance(size, (tuple, list)) and size else size
        if isinstance(size, int) and size == shape[-1]:
            return True
    return None


def _of_ratio(length: int, picture: Shape) -> Shape | None:
    height, width = picture
    rows = isqrt(length * height // width) if length > 0 and width else 0
    return (rows, length // rows) if rows and length % rows == 0 and rows * width == length // rows * height else None


def batch_first(tensor: Tensor, layout: Layout) -> Tensor:
    """Return an output with samples in front: (N, *layout.shape), a view."""
    if tensor.dim() < 2:
        return tensor.reshape(-1, layout.channels)
    if layout.batch_axis == 1:
        return tensor.transpose(0, 1)
    return tensor if layout.folded == 1 else tensor.unflatten(0, (-1, layout.folded))


def as_maps(tensor: Tensor, layout: Layout) -> tuple[Tensor, Tensor | None]:
    """Return an output as maps, (N, C, *grid), and its prefix tokens, (N, prefix, C); views where that is possible.

    Args:
        tensor: as the layer put it out.
        layout: of this tensor.
    """
    samples = batch_first(tensor, layout)
    if layout.kind == "channels first":
        return (samples if layout.folded == 1 else samples.movedim(1, 2)), None
    if not layout.prefix and layout.kind != "tokens":
        return samples.movedim(-1, 1), None
    maps = samples.reshape(samples.shape[0], -1, layout.channels)
    prefix = maps[:, : layout.prefix] if layout.prefix else None
    return maps[:, layout.prefix :].unflatten(1, layout.grid).movedim(-1, 1), prefix


def as_rows(tensor: Tensor, layout: Layout) -> tuple[Tensor, int]:
    """Return an output as (N, C, P) and 1, or as (N, P, C) and 2, whichever needs no copy; P places, prefix tokens among them."""
    samples = batch_first(tensor, layout)
    count = samples.shape[0]
    if layout.kind != "channels first":
        return samples.reshape(count, prod(layout.shape) // max(1, layout.channels), layout.channels), 2
    maps = samples if layout.folded == 1 else samples.movedim(1, 2)
    last = maps.movedim(1, -1)
    if last.is_contiguous() and not maps.is_contiguous():  # torch.channels_last
        return last.reshape(count, prod(layout.grid), layout.channels), 2
    return maps.reshape(count, layout.channels, prod(layout.grid)), 1
