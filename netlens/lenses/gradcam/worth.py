"""How far a map can be believed: what the class loses without the pixels that the map shows, and whether they lie on the object.

A picture (C, H, W) is as the network takes it, so that 0 is the mean colour. A map (H, W) is of the same size and may be signed: its
numbers order the pixels, and its positive part is what it shows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from math import isfinite

import torch
import torch.nn.functional as F
from torch import Tensor

from netlens.lenses.gradcam.report import Worth

Box = tuple[float, float, float, float]  # left, top, right, bottom; the first pixel reaches from 0 to 1
Probability = Callable[[Tensor], Tensor]  # pictures (M, C, H, W) -> (M,), of the class that is explained

# Of a curve: on the sample network, areas differ from those of 1024 steps by 0.005 (deletion) and 0.002 (insertion), root mean square.
STEPS = 50
# The standard deviation, as a share of the shorter side, of the blurred picture that insertion starts from. There the sample network gives
# the class 0.25 on average, where chance is 0.17; with the 5 pixels of 224 of RISE's authors it gives 0.97, which leaves nothing to insert.
BLUR = 1 / 16
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9)  # of the pixels that ROAD takes away, as in the paper's experiments
NOISE = 0.01  # standard deviation of what ROAD adds to imputed pixels, as in the authors' code
RESIDUAL = 1e-5  # of the imputed pixels' equations, relative to the picture: leaves errors below NOISE
ITERATIONS = 200  # at most, on each grid
SMALLEST = 8  # pixels of a side: such grids are not halved any more


def worth(
    heat: Tensor, picture: Tensor, probability: Probability, boxes: Sequence[Box] = (), *, steps: int = STEPS, batch_size: int = 32
) -> Worth:
    """Measure one map by every number of `Worth`, with 2 * steps + 16 forward passes.

    A blank map (nothing is > 0) has no order, so that it has no curves and no ROAD; it shows nothing, so that it loses what a picture of
    the mean colour loses, and misses every box. A map that is not finite has no numbers at all; one of a probability that is not finite
    has only those of the boxes.

    Args:
        heat: the map, (H, W).
        picture: (C, H, W).
        probability: called with `batch_size` pictures or fewer.
        boxes: of the class, on the input; where no pixel has its centre in any of them, there is nothing to hit.
        steps: of the deletion and of the insertion curve.
        batch_size: of the pictures that are made and run at once.
    """
    heat = heat.detach().float().cpu()
    if not heat.isfinite().all():
        return Worth()
    ordered = bool((heat > 0).any())
    pictures = chain([picture, explained(heat, picture)], _altered(heat, picture, steps) if ordered else ())
    before, after, *rest = _probabilities(pictures, probability, batch_size)
    on_boxes = Worth(pointing=pointing(heat, boxes), energy=energy(heat, boxes))
    if not all(map(isfinite, (before, after, *rest))):
        return on_boxes
    deletion = insertion = road = None
    if ordered:
        curves, (most, least) = rest[: 2 * steps], (rest[2 * steps :: 2], rest[2 * steps + 1 :: 2])
        deletion, insertion = area([before, *curves[:steps]]), area([*curves[steps:], before])
        road = (sum(least) - sum(most)) / 2 / len(SHARES)
    drop = max(0.0, before - after) / before if before > 0 else None
    return Worth(deletion, insertion, drop, float(after > before), road, on_boxes.pointing, on_boxes.energy)


def area(curve: Sequence[float]) -> float:
    """Return the area under a curve over 0..1 by the trapezoid rule; its points are evenly spaced."""
    return (sum(curve) - (curve[0] + curve[-1]) / 2) / (len(curve) - 1)


def pointing(heat: Tensor, boxes: Sequence[Box], tolerance: float = 0) -> float | None:
    """Return 1 where the map's maximum lies in a box, else 0: the pointing game (Zhang et al. 2016, 1608.00507).

    Of several maxima it is the share that lies in boxes: what pointing at one of them, drawn by chance, hits on average.

    Args:
        heat: (H, W); a blank one points at nothing.
        boxes: of the class.
        tolerance: so many pixels around a box count as inside; the paper allows 15 on photos of VOC and COCO.

    Returns:
        None where there is no box.
    """
    if not _inside(boxes, heat).any():
        return None
    grown = [(left - tolerance, top - tolerance, right + tolerance, bottom + tolerance) for left, top, right, bottom in boxes]
    hits = _inside(grown, heat)[heat == heat.max()]
    return float(hits.float().mean()) if heat.max() > 0 else 0.0


def energy(heat: Tensor, boxes: Sequence[Box]) -> float | None:
    """Return the share of the map's positive part that lies in boxes: the energy-based pointing game (Wang et al. 2020, 1910.01279).

    Returns:
        0 of a blank map; None where there is no box.
    """
    inside, shown = _inside(boxes, heat), heat.double().clamp(min=0)
    if not inside.any():
        return None
    return float(shown[inside].sum() / shown.sum()) if shown.any() else 0.0


def explained(heat: Tensor, picture: Tensor) -> Tensor:
    """Return the picture times the map's positive part divided by its maximum: the "explanation map" of Chattopadhyay et al. (1710.11063).

    The paper's average drop is max(0, p - o) / p, where p and o are the class's probabilities with the picture and with this one; they call
    p < o an increase.
    """
    shown = heat.clamp(min=0)
    return picture * (shown / shown.max().clamp(min=torch.finfo(shown.dtype).tiny)).to(picture)


def ranks(heat: Tensor) -> Tensor:
    """Number the pixels of a map, (H, W): 0 is the most important one.

    Equal ones come in an order drawn by chance, the same for every map of that size: row by row, a map's blank parts would be taken away
    from the top, which is an order that the map does not give.
    """
    drawn = torch.randperm(heat.numel(), generator=torch.Generator().manual_seed(0))
    order = drawn[heat.flatten()[drawn].argsort(descending=True, stable=True)]
    return torch.empty_like(order).scatter_(0, order, torch.arange(len(order))).view(heat.shape)


def blurred(picture: Tensor) -> Tensor:
    """Return a picture, (C, H, W), blurred by a Gaussian until only its colours are left."""
    sigma = BLUR * min(picture.shape[-2:])
    reach = int(3 * sigma) + 1
    kernel = torch.exp(-((torch.arange(-reach, reach + 1, device=picture.device) / sigma) ** 2) / 2)
    kernel = (kernel / kernel.sum()).view(1, 1, -1, 1)
    smooth = picture.float()[:, None]
    for _ in range(2):  # down, then across
        padded = F.pad(smooth, (0, 0, reach, reach), mode="replicate")
        smooth = F.conv2d(padded, kernel).transpose(-1, -2)
    return smooth[:, 0].to(picture)


def imputed(picture: Tensor, missing: Tensor) -> Tensor:
    """Fill missing pixels so that each is the weighted mean of its neighbours, as ROAD does (Rong et al. 2022, 2202.00449).

    Direct neighbours weigh 1/6 and diagonal ones 1/12; at the border, those that are there share the weight. The linear equations are
    solved by conjugate gradients, which start from the solution on a grid of half the size.

    Args:
        picture: (C, H, W), float32.
        missing: (M, H, W), true where a pixel is taken away; one of each mask is left.

    Returns:
        (M, C, H, W), without noise.
    """
    with _one_thread():
        return _filled(picture.expand(len(missing), *picture.shape), missing[:, None])


def _altered(heat: Tensor, picture: Tensor, steps: int) -> Iterator[Tensor]:
    """Yield the pictures of deletion and insertion, but for the whole one; then ROAD's, most and least relevant first by turns."""
    rank = ranks(heat).to(picture.device)
    counts = [round(step * rank.numel() / steps) for step in range(steps + 1)]
    yield from (torch.where(rank < count, 0, picture) for count in counts[1:])
    start = blurred(picture)
    yield from (torch.where(rank < count, picture, start) for count in counts[:-1])
    random = torch.Generator().manual_seed(0)
    for share in SHARES:
        count = round(share * rank.numel())
        missing = torch.stack([rank < count, rank >= rank.numel() - count])
        noise = NOISE * torch.randn((2, *picture.shape), generator=random).to(picture)
        yield from imputed(picture.float(), missing).to(picture) + noise * missing[:, None]


def _probabilities(pictures: Iterable[Tensor], probability: Probability, batch_size: int) -> list[float]:
    found, rest = [], iter(pictures)
    while batch := list(islice(rest, batch_size)):
        found += probability(torch.stack(batch)).tolist()
    return found


def _inside(boxes: Sequence[Box], heat: Tensor) -> Tensor:
    """Tell which pixels have their centre in a box, (H, W)."""
    rows, columns = (torch.arange(size) + 0.5 for size in heat.shape)
    inside = torch.zeros(heat.shape, dtype=torch.bool)
    for left, top, right, bottom in boxes:
        inside |= ((rows >= top) & (rows < bottom))[:, None] & (columns >= left) & (columns < right)
    return inside


def _filled(pictures: Tensor, missing: Tensor) -> Tensor:
    """Return (M, C, H, W); `missing` is (M, 1, H, W)."""
    height, width = missing.shape[-2:]
    known = pictures * ~missing
    if min(height, width) <= SMALLEST:
        guess = known.sum((2, 3), keepdim=True) / (~missing).sum((2, 3), keepdim=True)
    else:
        share = F.avg_pool2d((~missing).float(), 2, ceil_mode=True)
        coarse = F.avg_pool2d(known, 2, ceil_mode=True) / share.clamp(min=1 / 8)
        guess = F.interpolate(_filled(coarse, share == 0), (height, width), mode="bilinear")
    return _solved(torch.where(missing, guess, known), missing)


def _solved(pictures: Tensor, missing: Tensor) -> Tensor:
    """Improve the missing pixels by conjugate gradients: the equations are symmetric and positive definite."""
    degree = _around(torch.ones_like(missing[:1], dtype=pictures.dtype))

    def lacks(values: Tensor) -> Tensor:
        """Return by how much the missing pixels exceed what their neighbours say."""
        return (degree * values - _around(values)) * missing

    residual = -lacks(pictures)
    step, size = residual, _squared(residual)
    limit = RESIDUAL**2 * _squared(pictures * ~missing)
    for _ in range(ITERATIONS):
        if (size <= limit).all():
            break
        pushed = lacks(step)
        length = size / _squared(step, pushed).clamp(min=torch.finfo(size.dtype).tiny)
        pictures, residual = pictures + length * step, residual - length * pushed
        size, before = _squared(residual), size
        step = residual + size / before.clamp(min=torch.finfo(size.dtype).tiny) * step
    return pictures


def _around(values: Tensor) -> Tensor:
    """Add up 1/6 of each pixel's direct neighbours and 1/12 of diagonal ones, and 1/3 of itself, which the degree then takes off."""
    padded = F.pad(values, (1, 1, 1, 1))
    down = padded[..., :-2, :] + 2 * padded[..., 1:-1, :] + padded[..., 2:, :]
    return (down[..., :-2] + 2 * down[..., 1:-1] + down[..., 2:]) / 12


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep torch to one thread on the CPU: of thousands of tiny operations, threads that wait for each other cost more than they give."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _squared(values: Tensor, others: Tensor | None = None) -> Tensor:
    return (values * (values if others is None else others)).sum((2, 3), keepdim=True)
