"""What is asked of the maps of one run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from netlens.lenses.gradcam.choices import Method

if TYPE_CHECKING:
    from torch import Tensor

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
    labels: int | None = None
    independent: bool = False
