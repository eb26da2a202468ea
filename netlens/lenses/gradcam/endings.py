"""What the last step of a model makes of its scores, and the way back: a saturated probability has no gradient left."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor, finfo

from netlens.lenses.gradcam.answers import wide

Ending = Literal["scores", "softmax", "sigmoid"]
NOTES: dict[Ending, tuple[str, ...]] = {
    "scores": (),
    "softmax": ("the model ends in a softmax, which saturates: the logarithm of the probability is explained",),
    "sigmoid": ("the model ends in a sigmoid, which saturates: the score before it is explained",),
}
# Steps of autograd that leave numbers as they are.
KEEPING = ("View", "Squeeze", "Unsqueeze", "Reshape", "Select", "Slice", "Alias", "ToCopy", "Clone", "Permute", "Transpose", "UnsafeView")


def ending(tensor: Tensor, channels: int) -> Ending:
    """Say what the last step of the model makes of its scores, (N, K, ...).

    A softmax is seen by its values; a sigmoid only where the tensor has a graph, for numbers in 0..1 may as well be scores.
    """
    if _ends_in_sigmoid(tensor):
        return "sigmoid"
    values = wide(tensor.detach())
    if channels == 1 or not bool(((values >= 0) & (values <= 1)).all()):
        return "scores"
    sums = values.reshape(-1, channels).sum(1) if values.dim() < 3 else values.sum(1)
    return "softmax" if bool(((sums - 1).abs() < (1e-3 if tensor.dtype.itemsize >= 4 else 1e-2)).all()) else "scores"


def before(tensor: Tensor, made_by: Ending) -> Tensor:
    """Return the scores that the model's last step was given; of a softmax the logarithms, which have the same softmax."""
    if made_by == "scores":
        return tensor
    least = finfo(tensor.dtype).tiny
    if made_by == "softmax":
        return tensor.clamp_min(least).log()
    return tensor.clamp_min(least).log() - (1 - tensor).clamp_min(finfo(tensor.dtype).eps / 4).log()


def _ends_in_sigmoid(tensor: Tensor) -> bool:
    step: Any = tensor.grad_fn
    while step is not None and step.name().startswith(KEEPING) and step.next_functions:
        step = step.next_functions[0][0]
    return step is not None and step.name().startswith("Sigmoid")
