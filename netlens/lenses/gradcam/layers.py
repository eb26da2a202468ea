"""The layers of one run: chosen on the first sample, and found again for inputs of another size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from netlens.lenses.gradcam.batches import shape_of, some_of
from netlens.lenses.gradcam.report import Layer
from netlens.lenses.gradcam.settings import Settings
from netlens.lenses.gradcam.sites import candidates, chosen, named
from netlens.probing.cutting import Arguments
from netlens.probing.replacing import Site


class Layers:
    """Knows which layers are looked at, and where they lie in a pass.

    Args:
        model: inside its wrappers, in eval mode.
        settings: what is asked.
        around: a context for each pass: autocast.
    """

    def __init__(self, model: nn.Module, settings: Settings, around: Callable[[], Any]) -> None:
        self._model, self._settings, self._around = model, settings, around
        self._sites: dict[tuple[int, ...], tuple[Site, ...]] = {}  # by the shape of the input: tokens lie on another grid
        self.found: tuple[Layer, ...] = ()  # for the report

    def choose(self, one: Arguments, score: Callable[[Any], Tensor]) -> None:
        """Choose them by one sample, unless no method looks at layers; `score` is of what the model returns.

        Raises:
            NetlensError: no layer is meant, or it has no grid.
        """
        listing, scored = self._settings.list_layers, self._settings.reference is None
        sites: tuple[Site, ...] = ()
        if listing or any(method.layered for method in self._settings.methods):
            with self._around():
                choice = chosen(self._model, *one, score, self._settings.layers, scored=scored)
                every = candidates(self._model, *one, scored=scored) if listing else choice.layers
            picked = {layer.index: layer for layer in choice.layers}
            self.found, sites = tuple(picked.get(layer.index, layer) for layer in every), choice.sites
        self._sites[shape_of(one)] = sites

    def sites(self, inputs: Arguments, samples: int) -> tuple[Site, ...]:
        """Return where they lie in a pass of a batch of so many samples.

        Raises:
            NetlensError: one of them has no grid with inputs of this size.
        """
        shape = shape_of(inputs)
        if shape not in self._sites:
            names = [layer.name for layer in self.found]
            with self._around():
                self._sites[shape] = named(self._model, *some_of(inputs, samples, 0), names) if names else ()
        return self._sites[shape]
