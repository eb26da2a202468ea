"""The methods that make a map of one layer from one pass: the equations of the papers on plain tensors. `perturbing` has the slow ones.

A_k is what channel k of the layer put out, over a grid of any number of dimensions with Z places; y is the score of a class before softmax;
g_k = dy/dA_k; mean and sum are over the grid. Maps are what stands in the paper before it takes the positive part, which is left to the
caller (`Method.rectified` in choices.py says where a paper does), so that evidence against a class can be told from no evidence at all.
They are in units of the paper, on the layer's grid, float32 of half precision and float64 of float64. What is not finite stays so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from netlens.lenses.gradcam.choices import FINER_CLASSES, FINER_GAMMA

POLE = 1e-3  # of Grad-CAM++: nearer to 0 than this, float32 leaves 2 + sum(A) g fewer than three digits
CANCELLED = 1e-6  # |sum A| / sum |A| below which float32 sums are rounding, and so is what is divided by them
SHALLOW = 4  # a side of so many places for one of the coarsest map: stages 1-3 of the 5 of VGG, which the paper of LayerCAM scales
RESIZING = {1: "linear", 2: "bilinear", 3: "trilinear"}

# -- one backward pass ---------------------------------------------------------------------------------------------------------------


def gradcam(activation: Tensor, gradient: Tensor) -> Tensor:
    """Grad-CAM, Selvaraju et al. 2017, eq. 1-2: sum_k mean(g_k) A_k, rectified in the paper.

    Args:
        activation: A, (N, C, *grid).
        gradient: g, the same shape.

    Returns:
        (N, *grid); so do all functions here that take a batch.
    """
    return weighted(activation, widened(gradient).flatten(2).mean(2))


def gradcampp(activation: Tensor, gradient: Tensor) -> Tensor:
    """Grad-CAM++, Chattopadhyay et al. 2018, eq. 7 and 19: sum_k w_k A_k, w_k = sum(a_k g_k+), a_k = g_k^2 / (2 g_k^2 + sum(A_k) g_k^3).

    Rectified in the paper. The score is exp(y), as there; its positive factor exp(y) is left out. Cancelling g^2 leaves
    w_k = sum over g_k > 0 of g_k / (2 + sum(A_k) g_k), which needs no epsilon and holds at any scale of the gradient. The paper has A >= 0,
    where the denominator is at least 2. With negative activations it can come near 0: it is then kept at least POLE from it, on its side.
    """
    total = widened(activation).flatten(2).sum(2, keepdim=True)
    positive = widened(gradient).flatten(2).clamp(min=0)
    denominator = 2 + total * positive
    pole = torch.full_like(denominator, POLE).copysign(denominator)
    return weighted(activation, (positive / pole.where(denominator.abs() < POLE, denominator)).sum(2))


def xgradcam(activation: Tensor, gradient: Tensor) -> Tensor:
    """XGrad-CAM, Fu et al. 2020, section 3: sum_k w_k A_k, w_k = sum(g_k A_k) / sum(A_k), rectified in the paper.

    A channel that is 0, or whose positive and negative activations cancel (to CANCELLED of their size), has no such weight and is left out.
    """
    places, slopes = widened(activation).flatten(2), widened(gradient).flatten(2)
    total, size = places.sum(2), places.abs().sum(2)
    cancelled = total.abs() <= CANCELLED * size
    weights = (places * slopes).sum(2) / total.masked_fill(cancelled, 1)
    return weighted(activation, weights.masked_fill(cancelled, 0))


def hirescam(activation: Tensor, gradient: Tensor) -> Tensor:
    """HiResCAM, Draelos and Carin 2020: sum_k g_k A_k, place by place; negative numbers are evidence against the class."""
    return (widened(activation) * widened(gradient)).sum(1)


def layercam(activation: Tensor, gradient: Tensor) -> Tensor:
    """LayerCAM, Jiang et al. 2021: sum_k g_k+ A_k, place by place, rectified in the paper."""
    return (widened(activation) * widened(gradient).clamp(min=0)).sum(1)


GRADIENT: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "gradcam": gradcam,
    "gradcam++": gradcampp,
    "xgradcam": xgradcam,
    "hirescam": hirescam,
    "layercam": layercam,
    "finercam": gradcam,  # of `finer_scores`
}


def finer_scores(scores: Tensor, targets: Tensor) -> Tensor:
    """Return what Finer-CAM takes Grad-CAM of, Zhang et al. 2025: y_c - gamma mean(y_d), d the classes whose scores are closest to y_c.

    gamma is FINER_GAMMA and there are FINER_CLASSES d, or all others where there are fewer; of one class alone it is the score itself.

    Args:
        scores: y, (N, K), in the graph.
        targets: c, (N,).

    Returns:
        (N,), in the graph.
    """
    scores, column = widened(scores), targets[:, None]
    own = scores.gather(1, column)
    distances = (scores - own).abs().scatter(1, column, torch.inf)
    similar = distances.argsort(dim=1, stable=True)[:, : min(FINER_CLASSES, scores.shape[1] - 1)]
    if not similar.shape[1]:
        return own[:, 0]
    return own[:, 0] - FINER_GAMMA * scores.gather(1, similar).mean(1)


# -- no backward pass ----------------------------------------------------------------------------------------------------------------


def cam(activation: Tensor, weights: Tensor) -> Tensor:
    """CAM, Zhou et al. 2016, eq. 2: sum_k w_k A_k, signed.

    Args:
        activation: A, (N, C, *grid), which goes into global average pooling.
        weights: w, (N, C): for each sample the row of its class in the linear layer that follows.
    """
    return weighted(activation, widened(weights))


def eigencam(activation: Tensor) -> Tensor:
    """Eigen-CAM, Muhammad and Yeasin 2020: A v, with A as (places, channels) and v its first right singular vector; no class, signed.

    A is not centred, as in the paper. The sign of v, which the equation leaves open, makes the number of the largest magnitude positive.
    v comes from the smaller of A A^T and A^T A, in float64 (on the CPU for mps, which has none). A sample that is not finite gives nan.
    """
    return torch.stack([_eigencam(widened(sample)) for sample in activation])


def _eigencam(sample: Tensor) -> Tensor:
    places = sample.flatten(1).T.to("cpu" if sample.device.type == "mps" else sample.device).double()
    if not places.isfinite().all():
        return torch.full_like(sample[0], torch.nan)
    few = places.shape[0] <= places.shape[1]
    values, vectors = torch.linalg.eigh(places @ places.T if few else places.T @ places)  # ascending
    map_: Tensor = values[-1].clamp(min=0).sqrt() * vectors[:, -1] if few else places @ vectors[:, -1]
    return (map_ * map_[map_.abs().argmax()].sign()).to(sample).view(sample.shape[1:])


# -- several layers ------------------------------------------------------------------------------------------------------------------


def fuse(maps: Sequence[Tensor], method: str) -> Tensor:
    """Make one map of the maps of several layers, each divided by its sample's maximum M, on the largest grid.

    Layers differ in unit, and what is shown of a map is its positive part: negative numbers are dropped first, whatever the method.
    The paper of LayerCAM takes the largest number at each place, after tanh(2 map / M) for shallow layers (eq. 9), which lifts their small
    numbers: here layers whose grid is SHALLOW times as fine as the coarsest. No other paper fuses layers; for the other methods it is the
    mean, as in pytorch-grad-cam: of the largest numbers most would be the noisiest layer's. A map without a positive number adds nothing.

    Args:
        maps: (N, *grid) of one input; grids may differ.
        method: a key of METHODS.

    Returns:
        (N, *grid), 0..1; a single map comes back as it is.
    """
    if len(maps) == 1:
        return maps[0]
    coarsest = [min(sides) for sides in zip(*(map_.shape[1:] for map_ in maps), strict=True)]
    largest = [max(sides) for sides in zip(*(map_.shape[1:] for map_ in maps), strict=True)]
    scaled = [_of_maximum(map_) for map_ in maps]
    if method != "layercam":
        return torch.stack([resized(map_, largest) for map_ in scaled]).mean(0)
    for place, map_ in enumerate(scaled):
        if max(side // least for side, least in zip(map_.shape[1:], coarsest, strict=True)) >= SHALLOW:
            scaled[place] = (2 * map_).tanh()
    return torch.stack([resized(map_, largest) for map_ in scaled]).amax(0)


def _of_maximum(maps: Tensor) -> Tensor:
    positive = widened(maps).clamp(min=0)
    greatest = positive.amax(tuple(range(1, maps.dim())), keepdim=True)
    return positive / greatest.masked_fill(greatest == 0, 1)


def resized(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Bring maps (N, *grid) to another size by linear interpolation, pixels as areas ("half-pixel")."""
    if tuple(maps.shape[1:]) == tuple(size):
        return maps
    return interpolate(maps[:, None], size=tuple(size), mode=RESIZING[len(size)], align_corners=False)[:, 0]


def weighted(activation: Tensor, weights: Tensor) -> Tensor:
    """Return sum_k w_k A_k, (N, *grid), of weights (N, C): not as a matrix product, which may be allowed to round to TF32."""
    return (widened(activation) * weights.view(*weights.shape, *[1] * (activation.dim() - 2))).sum(1)


def widened(tensor: Tensor) -> Tensor:
    """Return half precision as float32, anything else as it is."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
