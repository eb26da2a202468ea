"""The first layer that turns finite numbers into others."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from netlens.lenses.featuremaps.report import NonFinite
from netlens.probing.activations import Output
from netlens.probing.leaves import leaves
from netlens.probing.tokens import Layout, batch_first


class FirstNonFinite:
    """Watches for the first output that is not finite although what it was made from is; `found` stays None in a healthy run.

    Looking fetches one number an output. To leave a run on an accelerator alone, run a batch again with this once `LayerActivity.nan` or
    `infinite` say that there is something to find.
    """

    def __init__(self) -> None:
        self.found: NonFinite | None = None
        self._searching = True
        self._samples = 0  # of earlier batches
        self._batch = 0
        self._inputs: Any = ()

    def begin(self, inputs: Any, batch: int) -> None:
        """Say what the next pass is fed with, and how many samples that is; nothing is blamed on a layer if they are not finite."""
        self._samples += self._batch
        self._batch = batch
        self._inputs = inputs

    def add(self, output: Output, layout: Layout) -> None:
        """Look at one output; what it was called with is looked at only where it is not finite."""
        if not self._searching or _is_finite(output.tensor):
            return
        self._searching = False
        if all(_is_finite(tensor) for _, tensor in leaves(output.given)):
            self.found = self._blame(output.name, output.type, output.module, output, layout)
        elif all(_is_finite(tensor) for _, tensor in leaves(self._inputs)):
            # It was handed such numbers, but no layer before it made them: the code around it did.
            module = output.caller_module
            self.found = self._blame(output.caller, type(module).__name__ if module is not None else "", module, output, layout)

    def _blame(self, name: str, kind: str, module: nn.Module | None, output: Output, layout: Layout) -> NonFinite:
        tensor = output.tensor
        nan, infinite = int(tensor.isnan().sum()), int(tensor.isinf().sum())
        bad = ~batch_first(tensor, layout).isfinite().flatten(1).all(1)
        weights = module is not None and not all(_is_finite(tensor) for tensor in module.parameters(recurse=False))
        return NonFinite(name, kind, nan, infinite, self._samples + int(bad.nonzero()[0, 0]), weights)


def _is_finite(tensor: Tensor) -> bool:
    """Tell whether all elements are finite; the sum shows it, unless it overflows."""
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    return bool(tensor.detach().sum(dtype=torch.float32 if tensor.dtype.itemsize < 4 else None).isfinite()) or bool(tensor.isfinite().all())
