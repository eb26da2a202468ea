"""Every place in a network that a map could be made of, from one forward pass without graph."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import prod

import torch
from torch import nn

from netlens.lenses.gradcam.detections import detects
from netlens.lenses.gradcam.report import Layer
from netlens.probing.activations import Output, watched
from netlens.probing.counting import samples_in
from netlens.probing.cutting import Arguments
from netlens.probing.leaves import leaves, map_tensors
from netlens.probing.replacing import Site, inner
from netlens.probing.tokens import Layout, Layouts

_NUMBER = re.compile(r"#(\d+)$")
_POOL = re.compile(r"Adaptive\w*Pool|GlobalPool")
_ATTENTION = re.compile(r"Attention|Attn")
_FURTHEST = 2  # height : width of a grid of tokens against that of the picture, at most


@dataclass(eq=False)
class Row:
    """One tensor that layers put out, under all its names: a container that returns what a child returned has another for it."""

    order: int  # in which layers ran
    site: Site
    whole: tuple[int, ...]  # shape of the tensor, all samples
    weighted: bool  # the layer has weights of its own
    caller: str  # type of the module in whose forward it ran
    view_of: str  # an earlier output of the same numbers in another shape
    activation: str | None
    names: list[tuple[str, str]] = field(default_factory=list)  # with types, the innermost first
    unfit: str = ""  # why no map can be made of it, or why it is not taken unasked

    @property
    def layout(self) -> Layout:
        """How to read it."""
        return self.site.layout

    def lies_in(self, containers: Sequence[str]) -> bool:
        """Tell whether it was put out inside one of these, or by a function that one called."""
        return self.names[0][0].startswith(tuple(f"{name}{end}" for name in containers for end in ".:"))

    def shown(self, index: int, reason: str | None = None, *, chosen: bool = False) -> Layer:
        """Return the row for the report."""
        kind = "channels first" if self.layout.kind == "channels first" else "channels last" if len(self.layout.shape) > 2 else "tokens"
        reason = self.unfit if reason is None else reason
        shape, grid = self.layout.shape, self.layout.grid
        return Layer(index, self.site.name, self.site.type, shape, kind, grid, self.layout.channels, chosen, reason)


@dataclass
class Recording:
    """What one pass showed."""

    model: nn.Module  # inside its wrappers
    rows: list[Row]  # of outputs with a grid, in the order in which layers ran
    others: list[Row]  # of outputs without
    classes: int | None  # scores of classes that the model returns; None: it returns something else
    head: Row | None  # of the last layer with weights that ran

    def names(self) -> list[tuple[str, str, Row]]:
        """Return the names by which layers are asked for, with types; the last call of a layer goes by the plain name."""
        every = [(name, kind, row) for row in (*self.rows, *self.others) for name, kind in row.names]
        last = {base: name for (base, _), name in sorted((_numbered(name), name) for name, _, _ in every)}
        plain = {name: base for base, name in last.items()}
        return [(plain.get(name, name), kind, row) for name, kind, row in every]


def recorded(model: nn.Module, inputs: Arguments, *, scored: bool = True) -> Recording:
    """Run one forward pass without graph, and note every output of every layer.

    Args:
        model: in eval mode.
        inputs: positional and named arguments, one sample; layouts of tokens hold for this size only.
        scored: what the model returns is read as scores of classes, unless it is detections; else as an embedding.

    Raises:
        UsageError: the model is TorchScript.
        Exception: what its own forward raises.
    """
    model = inner(model)
    recorder = _Recorder(model, inputs)
    with torch.inference_mode(False), torch.no_grad(), watched(model, recorder.look, recorder.again):
        args, kwargs = map_tensors(inputs[0], _usable), map_tensors(inputs[1], _usable)
        output = model(*args, **kwargs)
    rows = list(recorder.rows.values())
    _number_first_calls(rows)
    picture = _picture(inputs)
    with_grid = [row for row in rows if _has_grid(row.layout, picture)]
    last = max((index for index, row in enumerate(rows) if row.weighted), default=-1)
    scores = leaves(output) if scored and not detects(output) else []
    classes = next((tensor.shape[1] for _, tensor in scores if tensor.dim() > 1 and tensor.is_floating_point()), None)
    fit: dict[str, str] = {}
    for row in with_grid:
        row.unfit = _unfit(row, fit.get(row.view_of, ""), picture, classes if row in rows[last:] else None)
        if not row.unfit:
            fit[row.names[0][0]] = row.site.name
    others = [row for row in rows if row not in with_grid]
    return Recording(model, with_grid, others, classes, rows[last] if last >= 0 else None)


class _Recorder:
    """Makes rows of outputs as they come."""

    def __init__(self, model: nn.Module, inputs: Arguments) -> None:
        self._model = model
        self._layouts = Layouts(model)
        listed = any(isinstance(value, list) for value in (*inputs[0], *inputs[1].values()))
        self._layouts.begin(inputs, samples_in(inputs) if listed else None)
        self.rows: dict[str, Row] = {}

    def look(self, output: Output) -> None:
        """Add a row."""
        module = output.module or output.caller_module
        if not output.tensor.numel() or module is None:
            return
        function = output.type if output.module is None else ""
        site = Site(output.name, output.type, module, self._layouts.of(output), output.call, output.part, function)
        weighted = output.module is not None and next(output.module.parameters(recurse=False), None) is not None
        self.rows[output.name] = Row(
            len(self.rows),
            site,
            tuple(output.tensor.shape),
            weighted,
            type(output.caller_module).__name__,
            output.same_as,
            output.activation,
            [(output.name, output.type)],
        )

    def again(self, output: Output) -> None:
        """Give a row the name of a container; it is called by the outermost that returns just this tensor."""
        row = self.rows.get(output.same_as)
        if row is None or tuple(output.tensor.shape) != row.whole or output.module is None:
            return
        row.names.append((output.name, output.type))
        path = _NUMBER.sub("", output.name)
        if output.part or output.module is self._model or not row.names[0][0].startswith((f"{path}.", f"{path}:")):
            return
        if row.site.function:  # a plain hook on the module costs less than looking for the function
            row.site = replace(row.site, module=output.module, call=output.call, function="")
        row.site = replace(row.site, name=output.name, type=output.type)


def _number_first_calls(rows: list[Row]) -> None:
    """Call the first of several calls "conv#1": "conv" is the last of them."""
    repeated = {_numbered(name)[0] for row in rows for name, _ in row.names if _NUMBER.search(name)}
    for row in rows:
        row.names = [(f"{name}#1" if name in repeated else name, kind) for name, kind in row.names]
        row.view_of += "#1" if row.view_of in repeated else ""
        if row.site.name in repeated:
            row.site = replace(row.site, name=f"{row.site.name}#1")


def _numbered(name: str) -> tuple[str, int]:
    found = _NUMBER.search(name)
    return (name[: found.start()], int(found[1])) if found else (name, 1)


def _picture(inputs: Arguments) -> tuple[int, ...]:
    """Return the size of what goes in: (H, W), (T, H, W), (L,); () where it is no grid."""
    sizes = [(tensor, name) for name, tensor in leaves(inputs) if tensor.is_floating_point() and tensor.dim() > 2]
    if not sizes:
        return ()
    first = sizes[0][0]
    listed = any(isinstance(value, list) and any(item is first for item in value) for value in (*inputs[0], *inputs[1].values()))
    return tuple(first.shape[1:] if listed else first.shape[2:])


def _has_grid(layout: Layout, picture: tuple[int, ...]) -> bool:
    flat = len(picture) < 2
    return layout.kind != "features" and len(layout.grid) >= (1 if flat else 2) and prod(layout.grid[-1 if flat else -2 :]) > 1


def _unfit(row: Row, view_of: str, picture: tuple[int, ...], classes: int | None) -> str:
    """Say why a layer is not taken unasked; "" for one that may be."""
    layout, (height, width) = row.layout, (row.layout.grid[-2:] if len(row.layout.grid) > 1 else (0, 0))
    if layout.channels == classes:
        return "holds the scores of the classes"
    if row.activation in ("softmax", "log_softmax"):
        return "holds shares that add up to 1, such as attention weights"
    if _POOL.search(row.names[0][1]):
        return "pools to a grid of its own"
    if view_of:
        return f"the numbers of {view_of} in another order"
    if len(picture) < 2:
        return ""
    if layout.kind != "channels first" and _ATTENTION.search(row.caller):
        return "queries, keys or values inside an attention"
    if len(layout.grid) > len(picture) or (layout.folded > 1 and layout.kind == "tokens"):
        return "its places are in windows or regions"
    if min(height, width) < 2:
        return "a single row of places"
    stretched = height * picture[-1] / (width * picture[-2])
    if layout.kind != "channels first" and not (
        abs(height - width) <= 1 if picture[-1] == picture[-2] else 1 / _FURTHEST <= stretched <= _FURTHEST
    ):
        return "its places do not lie over the picture"
    return ""


def _usable(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.clone() if tensor.is_inference() else tensor
