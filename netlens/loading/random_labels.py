"""Labels for a model without data: drawn so that the loss takes them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from netlens.loading.feeding import Batch
from netlens.loading.loss_functions import floating_outputs
from netlens.loading.loss_guess import ends_in
from netlens.loading.loss_names import KnownLoss, Labels
from netlens.probing.leaves import leaves


def draw_labels(loss: KnownLoss | None, output: Any, batch: Batch, generator: torch.Generator) -> Tensor:
    """Draw labels for one batch, on the CPU.

    Args:
        loss: that will get them; None: what the output looks like decides.
        output: of the model, for a batch of the same size.
        batch: the inputs.
        generator: draws.
    """
    scores = floating_outputs(output)[0][1]
    shape = tuple(scores.shape)
    kind = _kind_for(scores) if loss is None else loss.labels
    if kind is Labels.CLASSES:
        return _classes(scores, batch, generator)
    if kind is Labels.SHARES:
        return torch.randint(2, shape, generator=generator).float()
    if kind is Labels.SIGNS:
        return torch.randint(2, shape, generator=generator) * 2.0 - 1
    if kind is Labels.PAIR_SIGNS:
        return torch.randint(2, shape[:1], generator=generator) * 2.0 - 1
    if kind is Labels.CLASS_SETS:
        sets = torch.randint(scores.shape[-1], shape, generator=generator)
        return sets.where(torch.arange(scores.shape[-1]) < 1 + scores.shape[-1] // 4, -1)
    if kind is Labels.SEQUENCES:
        steps = shape[1] if shape[0] == batch.size else shape[0]
        return torch.randint(1, max(2, shape[-1]), (batch.size, max(1, steps // 4)), generator=generator)
    drawn = torch.randn(shape, generator=generator)
    if loss is not None and loss.name in ("kl_div", "poisson_nll"):  # probabilities, counts
        return drawn.softmax(1) if loss.name == "kl_div" else drawn.abs().round()
    return drawn


def detection_targets(images: list[Tensor], generator: torch.Generator) -> list[dict[str, Tensor]]:
    """Draw what torchvision's detectors are trained with: two objects of class 1 on each picture, with masks and 17 keypoints."""
    found = []
    for image in images:
        size = torch.tensor([image.shape[-1], image.shape[-2]] * 2)
        corner = torch.rand(2, 2, generator=generator) * 0.5
        boxes = torch.cat([corner, corner + 0.2 + 0.3 * torch.rand(2, 2, generator=generator)], dim=1) * size
        masks = torch.zeros(2, *image.shape[-2:], dtype=torch.uint8)
        for mask, box in zip(masks, boxes.int().tolist(), strict=True):
            mask[box[1] : box[3] + 1, box[0] : box[2] + 1] = 1
        places = boxes[:, None, :2] + torch.rand(2, 17, 2, generator=generator) * (boxes[:, 2:] - boxes[:, :2])[:, None]
        keypoints = torch.cat([places, torch.ones(2, 17, 1)], dim=2)
        found.append({"boxes": boxes, "labels": torch.ones(2, dtype=torch.int64), "masks": masks, "keypoints": keypoints})
    return found


def _kind_for(scores: Tensor) -> Labels:
    several = scores.dim() > 1 and scores.shape[1] > 1
    if scores.grad_fn is not None and ends_in(scores) == "Sigmoid":
        return Labels.SHARES
    if several:
        return Labels.CLASSES
    return Labels.SHARES if scores.dim() > 2 else Labels.VALUES


def _classes(scores: Tensor, batch: Batch, generator: torch.Generator) -> Tensor:
    """Draw one index for each row: the classes are last where a model of words scores each of them, else second."""
    shape = tuple(scores.shape)
    words = any(not tensor.is_floating_point() and tensor.shape == shape[:2] for _, tensor in leaves((batch.args, batch.kwargs)))
    if scores.dim() == 3 and words:
        return torch.randint(shape[2], shape[:2], generator=generator)
    return torch.randint(shape[1] if len(shape) > 1 else shape[0], (*shape[:1], *shape[2:]) if len(shape) > 1 else (), generator=generator)
