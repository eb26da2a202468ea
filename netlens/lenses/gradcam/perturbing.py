"""Score-CAM and Ablation-CAM: weights from what the score becomes when the input is masked, or a channel taken away; as in `methods`.

Both ask the caller for forward passes, a chunk of channels at a time, and never touch a model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from netlens.lenses.gradcam.methods import resized, weighted, widened

SMALL = 1e-6  # Ablation-CAM does not divide by a score that is less


def scorecam(
    activation: Tensor, masked: Callable[[Tensor], Tensor], size: Sequence[int], *, chunk: int, top_channels: int | None = None
) -> Tensor:
    """Score-CAM, Wang et al. 2020, algorithm 1: sum_k w_k A_k, w = softmax over k of y(x * H_k) - y(baseline), rectified in the paper.

    H_k is A_k brought to the input's size (linear interpolation, pixels as areas), minus its minimum, over its range. The baseline is the
    same for all channels, cancels in the softmax and is not asked for. A constant channel has no H_k and is left out, as in the authors'
    code.

    Args:
        activation: A of one sample, (C, *grid).
        masked: masks (M, *size) in 0..1, M <= chunk, to the class's scores (M,) of the sample times each mask.
        size: of the input: (H, W); of video (T, H, W).
        chunk: so many channels at once.
        top_channels: an approximation that the paper does not have (Faster-Score-CAM): only the channels whose activations vary most
            (standard deviation) are asked for, the others are left out.

    Returns:
        (*grid).
    """
    activation = widened(activation)
    flat = activation.flatten(1)
    channels = (~(flat.amax(1) == flat.amin(1))).nonzero().view(-1)  # nan is not constant
    if top_channels is not None:
        channels = channels[flat[channels].std(1, correction=0).argsort(descending=True, stable=True)[:top_channels]]
    if not len(channels):
        return torch.zeros_like(activation[0])
    scores = torch.cat([widened(masked(_masks(activation[some], size))) for some in channels.split(chunk)])
    return weighted(activation[None, channels], scores.to(activation).softmax(0)[None])[0]


def _masks(channels: Tensor, size: Sequence[int]) -> Tensor:
    large = resized(channels, size)
    axes = tuple(range(1, large.dim()))
    least, greatest = large.amin(axes, keepdim=True), large.amax(axes, keepdim=True)
    span = greatest - least
    return (large - least) / span.where(span > 0, 1)


def ablationcam(activation: Tensor, ablated: Callable[[list[int]], Tensor], score: float, *, chunk: int) -> Tensor:
    """Ablation-CAM, Desai and Ramaswamy 2020: sum_k w_k A_k, w_k = (y - y_k) / y, y_k with channel k put to 0; rectified in the paper.

    Divided by |y|: for y > 0, which the paper has in mind, that is its equation; for y < 0 a channel without which y falls stays evidence
    for the class, where / y would turn the map inside out. |y| < SMALL counts as SMALL: a positive factor that no picture shows. A
    channel that is 0 everywhere has y_k = y and needs no pass.

    Args:
        activation: A of one sample, (C, *grid).
        ablated: indices of at most `chunk` channels to the scores (M,), each with one of them put to 0.
        score: y, best from the same kind of pass: y - y_k are small differences.
        chunk: so many channels at once.

    Returns:
        (*grid).
    """
    activation = widened(activation)
    channels = activation.flatten(1).ne(0).any(1).nonzero().view(-1)
    if not len(channels):
        return torch.zeros_like(activation[0])
    scores = torch.cat([widened(ablated(some.tolist())) for some in channels.split(chunk)])
    weights = (score - scores) / max(abs(score), SMALL)
    return weighted(activation[None, channels], weights.to(activation)[None])[0]
