"""The words around pictures of filters: what is shown, how many of how many, how it is to be read, and which filters are sick."""

from __future__ import annotations

import numpy as np

from netlens.lenses.kernels.forms import Form, Options
from netlens.lenses.kernels.report import LayerWeights

NAMED = 12  # sick filters are listed up to so many
SILENT = 1e-3  # of the root mean square filter norm: the rule for dead filters


def title(layer: LayerWeights, *, short: bool = False) -> str:
    """Name a layer: "layer1.0.conv1 · Conv2d · 64 × 64 × 3 × 3"; short, without the type."""
    kind = "" if short else layer.type or layer.kind
    return " · ".join(filter(None, (layer.name, kind, " × ".join(map(str, layer.shape)))))


def subtitle(layer: LayerWeights, form: Form, kernels: np.ndarray, options: Options, *, moved: bool = False) -> str:
    """Say what is shown and how many: "the 64 strongest of 512 filters (rows) × 64 input channels (columns)"; by their norms."""
    count, channels = form.of
    rows = counted(len(form.filters), count, _row_word(layer), "that moved most" if moved else "")
    columns = counted(len(form.channels), channels, _column_word(layer), "that moved most" if moved else "")
    text = {
        "mosaic": f"{rows} (rows) × {columns} (columns)",
        "matrix": f"{rows} (downwards) × {columns} (to the right)",
        "single": f"{rows}; time to the right" if kernels.ndim == 3 else rows,
        "colour": f"{rows}; channels 0, 1, 2 as red, green, blue, grey is 0",
        "row": f"{rows}; each its {columns}, {'downwards' if kernels.ndim == 5 else 'side by side'}",
        "strip": f"{rows}; each its {columns} downwards, time to the right",
    }[form.look]
    if form.summary:
        text = (
            f"{rows}; each "
            + {
                "mean": f"the mean over its {columns}",
                "largest": f"the {'channel that moved most' if moved else 'largest'} of its {columns}, labelled filter:channel",
                "pc1": f"the first principal component of its {columns}, with its share of the squared norm",
            }[form.summary]
        )
    if options.sort == "norm" and count > 1:
        text += "; those that moved most first" if moved else "; the strongest first"
    return text


def footnote(layer: LayerWeights, form: Form, kernels: np.ndarray, beyond: str, norms: np.ndarray) -> str:
    """Say how to read what is not self-evident, what is beyond the scale, and name sick filters, also those not shown."""
    notes = [beyond] if beyond else []
    if kernels.ndim == 5:
        notes.append(f"time slices t0 to t{kernels.shape[2] - 1} from left to right")
    if layer.kind == "linear" and kernels.ndim == 4:
        notes.append(f"each row as a picture of {kernels.shape[2]} × {kernels.shape[3]}, as if the input were one, flattened")
    if layer.groups > 1 and form.of[1] > 1:
        notes.append(f"channels are counted within a group ({layer.groups} groups of {form.of[1]})")
    whole = np.isfinite(norms)
    notes += _sick("NaN or Inf in", np.flatnonzero(~whole))
    if layer.kind != "embedding" and layer.fan_in >= 4 and len(norms) >= 4 and whole.any():
        usual = np.sqrt(np.mean(norms[whole] ** 2))
        notes += _sick("dead:", np.flatnonzero(norms <= SILENT * usual))
    return " · ".join(notes)


def counted(shown: int, there: int, word: str, chosen: str = "") -> str:
    """Write "64 filters", "the 64 strongest of 512 filters" or "the 64 of 512 filters that moved most"."""
    words = f"{there:,} {word}" + ("" if there == 1 else "s")
    if shown == there:
        return words
    return f"the {shown:,} of {words} {chosen}" if chosen else f"the {shown:,} strongest of {words}"


def _sick(what: str, found: np.ndarray) -> list[str]:
    """Write "dead: 3, 17, 20", or how many more there are."""
    if not found.size:
        return []
    more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    return [f"{what} {', '.join(map(str, found[:NAMED]))}{more}"]


def _row_word(layer: LayerWeights) -> str:
    return {"linear": "output feature", "embedding": "row"}.get(layer.kind, "filter")


def _column_word(layer: LayerWeights) -> str:
    return {"linear": "input feature", "embedding": "dimension"}.get(layer.kind, "input channel")
