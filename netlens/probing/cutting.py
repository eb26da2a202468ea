"""One forward pass whose graph begins at a layer: gradients there cost what runs after it, and nothing is kept of what runs before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from netlens.errors import NetlensError
from netlens.probing.differentiable import Call, frozen, usable
from netlens.probing.leaves import map_tensors
from netlens.probing.replacing import Site, changed
from netlens.probing.tokens import Layout, as_maps

Arguments = Call


@dataclass(frozen=True, slots=True)
class Taken:
    """What a layer put out: a leaf of the graph where the graph begins with it, else in the graph."""

    name: str
    type: str
    tensor: Tensor
    layout: Layout


class Cut:
    """What one forward pass left: `taken` in the order in which layers ran, and `output`, what the model returned."""

    def __init__(self) -> None:
        self.taken: dict[str, Taken] = {}
        self.output: Any = None

    def maps(self, name: str) -> Tensor:
        """Return the activation of a layer, (N, C, *grid); a view, without graph."""
        taken = self.taken[name]
        return as_maps(taken.tensor.detach(), taken.layout)[0]

    def gradients(self, scores: Tensor, *, retain: bool = False) -> dict[str, Tensor | None]:
        """Return the gradient of the sum of `scores` by each activation, (N, C, *grid).

        None: the scores do not depend on it, or the model's forward switches gradients off after it. In eval mode samples do not depend on
        each other, so that with one score of each sample this is the gradient of its own score.

        Args:
            scores: of any shape, made of `output`.
            retain: keep the graph, for further scores.

        Raises:
            NetlensError: the forward writes over what the gradient needs.
        """
        if not scores.requires_grad:
            return dict.fromkeys(self.taken)
        try:
            tensors = [taken.tensor for taken in self.taken.values()]
            found = torch.autograd.grad(scores.sum(), tensors, retain_graph=retain, allow_unused=True)
        except RuntimeError as error:
            first = next(iter(self.taken))
            if "modified by an inplace operation" in str(error):
                message = f"after {first!r} the model's forward writes over a tensor that the gradient needs"
                raise NetlensError(message, hint="take a later --layer, or let the operation write to a tensor of its own") from error
            if type(error).__name__ == "CheckpointError":  # a class of newer versions of torch
                message = f"{first!r} is computed twice, by torch.utils.checkpoint, and a graph cannot begin in there"
                raise NetlensError(message, hint="switch the model's gradient checkpointing off: it only saves memory") from error
            raise
        return {
            name: None if gradient is None else as_maps(gradient, taken.layout)[0]
            for (name, taken), gradient in zip(self.taken.items(), found, strict=True)
        }

    def _take(self, site: Site, tensor: Tensor, in_place: bool) -> Tensor:
        """Keep an output, and return what goes on in its stead: a copy, since what comes after may write to it."""
        torch.set_grad_enabled(True)  # the forward may have switched it off
        if tensor.requires_grad:
            self.taken[site.name] = Taken(site.name, site.type, tensor, site.layout)
            return tensor.clone()
        leaf = (tensor.clone() if in_place or tensor.is_inference() else tensor.detach()).requires_grad_()
        self.taken[site.name] = Taken(site.name, site.type, leaf, site.layout)
        return tensor.copy_(leaf) if in_place else leaf.clone()  # in place: the forward may go on with either name of the tensor


@contextmanager
def cut(model: nn.Module, sites: Sequence[Site], inputs: Arguments) -> Iterator[Cut]:
    """Run one forward pass of `model`, with a graph that begins at the first of `sites`; in the block gradients are enabled.

    Nothing is saved for backward before that: parameters do not require gradients meanwhile. Works inside `no_grad` and `inference_mode`,
    for frozen models, in half precision, under autocast. A site of another branch, which does not depend on the first, begins there itself.
    Modes of the model are left to the caller.

    Args:
        model: as `inner` returns it; its weights' `requires_grad` and hooks are as they were afterwards.
        sites: of this model, for inputs of this size.
        inputs: positional and named arguments.

    Raises:
        NetlensError: a site was not reached.
        Exception: what the model's own forward raises.
    """
    run = Cut()
    with torch.inference_mode(False), torch.enable_grad():
        args, kwargs = map_tensors(inputs, usable)
        changes = {site: partial(run._take, site) for site in sites}
        with frozen(model), changed(model, changes):
            run.output = model(*args, **kwargs)
        missing = next((site.name for site in sites if site.name not in run.taken), None)
        if missing is not None:
            message = f"layer {missing!r} did not run with this input"
            raise NetlensError(message, hint="which layers run depends on the input: take a --layer that always does")
        yield run
