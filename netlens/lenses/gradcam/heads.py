"""The head that CAM needs: global average pooling, and one linear layer."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from netlens.errors import UsageError
from netlens.lenses.gradcam.answers import Answer
from netlens.lenses.gradcam.class_answers import ClassScores
from netlens.lenses.gradcam.methods import widened

CLOSE = {torch.float64: 1e-9, torch.float32: 1e-3}  # of the largest score; half precision and TF32 need more than float32's own 1e-6


def head_weights(model: nn.Module, activation: Tensor, answer: Answer) -> Tensor:
    """Return the weights of the linear layer that makes the scores of the means of `activation`: (K, C).

    Whether there is such a layer is not guessed from names but computed: W mean(A) + b must be the scores that the model gave.

    Args:
        model: whose layers are tried, the last ones first.
        activation: (N, C, *grid).
        answer: of the same batch.

    Raises:
        UsageError: the scores are made in another way.
    """
    if isinstance(answer, ClassScores):
        means, scores = widened(activation).flatten(2).mean(2), widened(answer.values.detach())
        close = (CLOSE[torch.float64] if activation.dtype == torch.float64 else CLOSE[torch.float32]) * float(scores.abs().amax())
        for weight, bias in _linear(model, activation.shape[1], scores.shape[1]):
            made = means @ widened(weight).T + (0 if bias is None else widened(bias))
            if float((made - scores).abs().amax()) <= close:
                return widened(weight)
    raise UsageError(
        f"CAM needs scores that are a linear layer of the layer's means, and those of {type(model).__name__} are made in another way",
        hint="take --method gradcam, which is the same where CAM is possible",
    )


def _linear(model: nn.Module, channels: int, classes: int) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Yield weight and bias of linear layers, and of convolutions of one pixel, from so many channels to so many classes."""
    for module in reversed(list(model.modules())):
        weight = getattr(module, "weight", None)
        if not isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)) or not isinstance(weight, Tensor):
            continue
        if weight.shape[:2] == (classes, channels) and weight.numel() == classes * channels:
            yield weight.detach().flatten(1), None if module.bias is None else module.bias.detach()
