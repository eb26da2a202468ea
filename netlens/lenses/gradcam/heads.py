"""The head that CAM needs: global average pooling, and one linear layer."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from netlens.errors import UsageError
from netlens.lenses.gradcam.answers import Answer
from netlens.lenses.gradcam.class_answers import ClassScores
from netlens.lenses.gradcam.methods import widened

CLOSE = {torch.float64: 1e-9, torch.float32: 1e-3, torch.float16: 1e-2, torch.bfloat16: 5e-2}  # of the largest score; TF32 has few digits


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
        finite = (means.isfinite().all(1) & scores.isfinite().all(1)).nonzero()[:, 0]  # what is not finite cannot be compared
        means, scores = means[finite], scores[finite]
        close = CLOSE[_precision(activation, scores)]
        for weight, bias in _linear(model, activation.shape[1], answer.channels):
            rows = _of_classes(weight, answer.classes)
            made = means @ rows.T + (0 if bias is None else _of_classes(bias, answer.classes))
            if not len(finite) or (made - scores).abs().amax() <= close * scores.abs().amax():
                return rows
    raise UsageError(
        f"CAM needs scores that are a linear layer of the layer's means, and this layer's do not give those of {type(model).__name__}",
        hint="leave --layer out where it is given; else take --method gradcam, which is the same where CAM is possible",
    )


def _precision(activation: Tensor, scores: Tensor) -> torch.dtype:
    """Return what was computed in: under autocast activations may be wider than the scores, which show it by their digits."""
    if activation.dtype in (torch.float16, torch.bfloat16, torch.float64):
        return activation.dtype
    # bfloat16 first: nearly all of its numbers are numbers of float16 as well.
    half = (dtype for dtype in (torch.bfloat16, torch.float16) if torch.equal(scores.to(dtype).to(scores.dtype), scores))
    return next(half, torch.float32)


def _of_classes(given: Tensor, classes: int) -> Tensor:
    """Return weights or biases of all classes: a single logit z scores two, by -z and z."""
    given = widened(given)
    return given if len(given) == classes else torch.cat([-given, given])


def _linear(model: nn.Module, channels: int, classes: int) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Yield weight and bias of linear layers, and of convolutions of one pixel, from so many channels to so many classes."""
    for module in reversed(list(model.modules())):
        weight = getattr(module, "weight", None)
        if not isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)) or not isinstance(weight, Tensor):
            continue
        if weight.shape[:2] == (classes, channels) and weight.numel() == classes * channels:
            yield weight.detach().flatten(1), None if module.bias is None else module.bias.detach()
