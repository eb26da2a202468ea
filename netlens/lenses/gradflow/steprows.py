"""Rows of the report, of what calls of the user's step function showed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from math import isfinite, sqrt

import torch

from netlens.lenses.gradflow.report import FirstNonFinite, LayerFlow, ParameterFlow, Step
from netlens.lenses.gradflow.stepnames import Known, owned
from netlens.lenses.gradflow.stepnumbers import BREAK, Seen
from netlens.lenses.gradflow.updates import Cosines


def layer_rows(seen: Seen) -> tuple[LayerFlow, ...]:
    """Return the rows of layers of one call, fetched together; names hold the model, and BREAK."""
    packs = seen.layers.packed()
    device = next((pack.device for pack in packs if pack.device.type != "cpu"), torch.device("cpu"))
    together = torch.cat([pack.to(device) for pack in packs]).tolist() if packs else []
    numbers = iter(together)
    return seen.layers.flows([[next(numbers) for _ in range(len(pack))] for pack in packs], seen.scale)


def without_top(name: str, tops: Collection[str]) -> str:
    """Return the name of a layer; of several models each begins with its own."""
    top, _, rest = name.rpartition(BREAK)
    return f"{top}.{rest}" if len(tops) > 1 else rest


def in_order(order: Mapping[int, Known], seen: Seen) -> list[Known]:
    """Return the parameters in forward order, those without use last."""
    used = [known for key, known in order.items() if key in seen.used or key in seen.gradients]
    return [*used, *(known for key, known in order.items() if key not in seen.used and key not in seen.gradients)]


def parameter_rows(
    order: Sequence[Known], seen: Seen, held: Collection[int], cosines: Mapping[int, Cosines], tops: Collection[str]
) -> tuple[ParameterFlow, ...]:
    """Return the rows of one call.

    Args:
        order: the parameters.
        seen: the call.
        held: ids of what optimizers have; empty: nobody knows.
        cosines: by ids, over all calls.
        tops: names of the models that ran.
    """
    rows = []
    for index, known in enumerate(order):
        key, tensor = id(known.tensor), known.tensor
        names, found, squares = owned(known, with_top=len(tops) > 1), seen.gradients.get(key), seen.weights.get(key, torch.nan)
        elements = tensor.numel() if found is None else found.elements
        arrived = "gradient" if found else "detached" if key in seen.used else "unused"
        norm = found and found.norm
        rows.append(
            ParameterFlow(
                index=index,
                name=names.name,
                layer=names.layer,
                type=names.type,
                shape=tuple(tensor.shape),
                elements=elements,
                status=arrived if tensor.requires_grad else "frozen",
                optimized=key in held if held else tensor.requires_grad,
                weight_rms=sqrt(squares / elements) if elements and isfinite(squares) else None,
                mean=found and found.mean,
                greatest=found and found.largest,
                rms=found and found.rms,
                norm=norm,
                zeros=found and found.zeros,
                nan=int(found.nan) if found else 0,
                infinite=int(found.infinite) if found else 0,
                ratio=norm / sqrt(squares) if norm is not None and isfinite(squares) and squares else None,
                update=seen.updates.get(key),
                signal=None,
                cosine=cosines[key].means(1)[0] if key in cosines else None,
                histogram=seen.histograms.get(key),
            )
        )
    return tuple(rows)


def step_row(order: Sequence[Known], seen: Seen, loss: float) -> Step:
    """Return the step of one call, its parameters as in `order`."""
    found = [seen.gradients.get(id(known.tensor)) for known in order]
    finite = all(not (each.nan or each.infinite) for each in seen.gradients.values())
    norm = sqrt(sum(each.squares for each in seen.gradients.values())) if seen.gradients and finite else None
    return Step(loss, norm, tuple(each and each.rms for each in found))


def where_broken(seen: Seen, loss: float, layers: Sequence[LayerFlow], rows: Sequence[ParameterFlow]) -> FirstNonFinite | None:
    """Return the first layer with an output that is not finite, or else the last with such a gradient: that is where it began.

    The operation is not known: the step has run, and cannot be run again from the same weights.
    """
    forward = next((layer for layer in layers if layer.activation_rms is None), None)
    if forward is not None:
        return FirstNonFinite("forward", forward.name, forward.type, "", 0, 0)
    if not isfinite(loss):
        return FirstNonFinite("loss", "", "", "", int(loss != loss), int(loss == loss))
    if seen.scale != 1:  # a GradScaler leaves such a step out
        return None
    broken = next((layer for layer in reversed(layers) if layer.nan or layer.infinite), None)
    if broken is not None:
        return FirstNonFinite("backward", broken.name, broken.type, "", broken.nan, broken.infinite)
    row = next((row for row in reversed(rows) if row.nan or row.infinite), None)
    return None if row is None else FirstNonFinite("backward", row.layer, row.type, "", row.nan, row.infinite)
