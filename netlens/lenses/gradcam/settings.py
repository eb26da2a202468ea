"""What is asked of the maps of one run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from netlens.lenses.gradcam.choices import Method

if TYPE_CHECKING:
    from torch import Tensor, nn

    from netlens.loading.boxes import Boxes


@dataclass(frozen=True, slots=True)
class Settings:
    """What is asked of the maps."""

    methods: tuple[Method, ...]
    skip: bool = False  # methods that this model does not allow are left out, and told
    targets: tuple[str, ...] = ()
    point: tuple[float, float] | None = None  # on the photo, else on the input
    key: str | None = None  # of the output
    layers: tuple[str, ...] = ()
    list_layers: bool = False
    top_channels: int | None = None
    score: bool = False
    boxes: Boxes | None = None
    reference: Tensor | None = None
    against: str = "the reference"  # what the picture of the reference is called
    labels: int | None = None
    independent: bool = False

    @property
    def reading(self) -> dict[str, Any]:
        """How the model's output is read."""
        names = ("key", "reference", "against", "labels", "independent")
        return {name: getattr(self, name) for name in names}

    def told_by(self, model: nn.Module) -> Settings:
        """Return the same with what the configuration of a model of transformers says of its classes."""
        config = getattr(model, "config", None)
        independent = getattr(config, "problem_type", None) == "multi_label_classification"
        return replace(self, labels=getattr(config, "num_labels", None), independent=independent)
