"""Maps of the whole network: FullGrad and LeGrad, as in their papers, before they are scaled for drawing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netlens.errors import NetlensError
from netlens.probing.attention_gradients import attention_gradients
from netlens.probing.bias_gradients import bias_gradients
from netlens.probing.differentiable import at_least_float32

Score = Callable[[Any], Tensor]  # a model's output -> (N,), before softmax
_MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}
_FLAT = 1e-6  # of a map's maximum: a smaller spread is rounding


def fullgrad(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], score: Score) -> Tensor:
    """FullGrad (Srinivas and Fleuret 2019, 1905.00780, section 4): what the input and the bias of every layer add to the score.

        S = psi(x * dy/dx) + sum over layers l and channels c of psi(b_c * dy/dz_c),    psi(m) = upsample(minmax(|m|))

    z is what a layer puts out, b its bias: of BatchNorm the implicit one (`bias_gradients` says what counts). minmax takes each channel to
    0..1; the authors' code takes a layer to 0..1 at once. Left out, as there: biases without a place, behind pooling or of one place.
    Tokens are folded to their grid; class tokens and attention windows have no place in it.

    Args:
        model: in eval mode.
        args: its arguments; the first floating tensor with three or more dimensions is the picture, (N, C, H, W) or (N, C, T, H, W).
        kwargs: its keyword arguments.
        score: of each sample, from the model's output.

    Returns:
        (N, H, W) at the picture's size, >= 0, in no unit; (N, T, H, W) for video. float32, of float64 float64.

    Raises:
        NetlensError: the model has no bias that is added at places of the picture.
    """
    sums: dict[torch.Size, Tensor] = {}  # by grid: enlarging is linear, so it comes after the sum over channels and layers

    def look(_: Tensor, maps: Tensor | None) -> None:
        if maps is not None:
            part = _rescaled(maps)
            sums[part.shape] = sums.get(part.shape, 0) + part

    found = bias_gradients(model, args, kwargs, score, look)
    if not sums:
        raise NetlensError(
            f"{type(model).__name__} has no biases at places of the picture, and FullGrad adds their gradients up",
            hint="--method layercam shows details as fine as its layer",
        )
    total = _rescaled(found.input * found.gradient)
    size = total.shape[1:]
    for part in sums.values():
        total += F.interpolate(part[:, None], size, mode=_MODES[len(size)], align_corners=False)[:, 0]
    return total


def legrad(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], score: Score) -> Tensor:
    """LeGrad (Bousselham et al. 2024, 2404.03214, eq. 2-7): the positive gradient of the attention maps, mean over layers.

        E_l = mean over heads h and queries i of (dy_l / dA_l[h, i, :])+,    E = mean over l of E_l, without the class token, as a grid

    A_l is the attention map of layer l, (heads, queries, keys); y_l the score that the network gives when the tokens of layer l go to its
    head as if l were the last layer. Where the head attends to the tokens itself (attentional pooling), its map stands in for A_l.
    The paper scales the result by min-max; this is the result before.

    Args:
        model: in eval mode.
        args: its arguments; the first floating tensor with three or more dimensions holds the samples.
        kwargs: its keyword arguments.
        score: of each sample, from the model's output.

    Returns:
        (N, h, w) on the grid of patches, >= 0, in units of score. float32, of float64 float64.

    Raises:
        NetlensError: no attention over places, or blocks that cannot be left out one by one (windows, several resolutions).
    """
    layers: list[Tensor] = []

    def look(gradients: list[Tensor]) -> None:
        layers.append(torch.stack([at_least_float32(gradient).clamp(min=0).mean(dim=(1, 2)) for gradient in gradients]).mean(dim=0))

    found = attention_gradients(model, args, kwargs, score, look)
    mean = torch.stack(layers).mean(dim=0)
    return mean[:, found.prefix :].reshape(-1, *found.grid)


def _rescaled(term: Tensor) -> Tensor:
    """(N, C, *grid) -> (N, *grid): the size of each channel's numbers from 0 to 1, a flat channel as 0, and their sum over channels."""
    maps = at_least_float32(term).abs()
    places = tuple(range(2, maps.dim()))
    least, greatest = maps.amin(dim=places, keepdim=True), maps.amax(dim=places, keepdim=True)
    flat = greatest - least <= _FLAT * greatest
    return ((maps - least) / (greatest - least)).masked_fill(flat, 0).sum(dim=1)
