"""The rules' second look: gradients after three neutral steps, when gates that begin at zero have opened."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from netlens.lenses.gradflow.report import Look
from netlens.lenses.gradflow.updates import LossOf, differentiate, neutral_adam, norms, on_a_copy, together

STEPS = 3
RATE = 1e-3


def second_look(model: nn.Module, loss_of: LossOf, batch: Any, parameters: Sequence[nn.Parameter]) -> Look:
    """Take three steps of Adam at 1e-3, measure the gradients again, and put the model back.

    Args:
        model: in the mode in which it is to be looked at.
        loss_of: of a batch.
        batch: the same for all steps; best the one of the first look.
        parameters: in the order of the report.

    Returns:
        `ratio` is None where there is no gradient, and where the parameter began at zero: three steps are no size to compare with.
    """
    began_at_zero = [norm == 0 for norm in norms([parameter.detach() for parameter in parameters]).tolist()]
    with on_a_copy(model) as trainable:
        optimizer = neutral_adam(trainable, RATE)
        for _ in range(STEPS if optimizer else 0):
            differentiate(loss_of(batch), trainable)
            optimizer.step()  # type: ignore[union-attr]
        differentiate(loss_of(batch), trainable)
        return _look(model, parameters, began_at_zero)


def _look(model: nn.Module, parameters: Sequence[nn.Parameter], began_at_zero: list[bool]) -> Look:
    places = [place for place, parameter in enumerate(parameters) if parameter.grad is not None and parameter.numel()]
    gradients: list[Tensor] = [parameters[place].grad for place in places]  # type: ignore[misc]
    sizes = norms(gradients).tolist(), norms([parameters[place].detach() for place in places]).tolist()
    filled = together([torch.count_nonzero(gradient) for gradient in gradients]).tolist()
    ratio: list[float | None] = [None] * len(parameters)
    zeros: list[float | None] = [None] * len(parameters)
    for place, gradient, weight, count in zip(places, *sizes, filled, strict=True):
        ratio[place] = gradient / weight if weight and not began_at_zero[place] else None
        zeros[place] = 1 - count / parameters[place].numel()
    arrived = {id(parameters[place]) for place, count in zip(places, filled, strict=True) if count}
    layers = sum(any(id(parameter) in arrived for parameter in module.parameters(recurse=False)) for module in model.modules())
    return Look(tuple(ratio), tuple(zeros), layers)
