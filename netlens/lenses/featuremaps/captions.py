"""What stands in words beside the pictures of one layer."""

from __future__ import annotations

import numpy as np

from netlens.drawing.captions import joined
from netlens.lenses.featuremaps.report import LayerActivity

NAMED = 12  # channels are listed up to so many
UNIT = "activation"


def title(layer: LayerActivity, *, short: bool = False) -> str:
    """Name a layer: "layer1.0.relu · ReLU · 64 × 56 × 56"; short, without the type."""
    return joined(layer.name, "" if short and layer.name else layer.type, " × ".join(map(str, layer.shape)))


def places(layer: LayerActivity) -> str:
    """Say where the places of tokens are."""
    if layer.layout != "tokens" or layer.grid is None or len(layer.grid) < 2:
        return ""
    apart = f", {layer.prefix} prefix token{'s' if layer.prefix > 1 else ''} apart" if layer.prefix else ""
    return f"tokens folded to {' × '.join(map(str, layer.grid))}{apart}"


def is_signed(layer: LayerActivity, values: np.ndarray) -> bool:
    """Whether the layer goes below 0: over all samples, if the report knows."""
    least = layer.least if layer.least is not None else values.min(initial=0, where=np.isfinite(values))
    return bool(least < 0)


def oddities(maps: np.ndarray, word: str = "channels") -> list[str]:
    """Name channels that are 0 for these samples, and those that are not finite, also where they are not shown."""
    values = maps.swapaxes(0, 1).reshape(maps.shape[1], -1)
    silent, broken = np.flatnonzero((values == 0).all(axis=1)), np.flatnonzero(~np.isfinite(values).all(axis=1))
    return [
        *([f"NaN or Inf in {_list(broken)}"] if broken.size else []),
        *([f"0 everywhere: {_list(silent)} ({len(silent)} of {len(values):,} {word})"] if silent.size else []),
    ]


def _list(indices: np.ndarray) -> str:
    more = f" and {len(indices) - NAMED:,} more" if len(indices) > NAMED else ""
    return f"{', '.join(map(str, indices[:NAMED]))}{more}"
