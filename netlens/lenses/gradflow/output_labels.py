"""Labels of classes: which rows of scores they speak of, their range, and the cross-entropy of these rows."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from netlens.loading.loss_labels import IGNORED, class_layout, is_one_hot
from netlens.loading.loss_names import Labels
from netlens.loading.losses import Loss
from netlens.probing.differentiable import at_least_float32

PIECE = 1 << 24  # scores that are looked at together


def class_rows(scores: Tensor, labels: Any, loss: Loss) -> Tensor | None:
    """Return the scores with the classes in the second dimension, where labels say a class of each row; None: they do not."""
    if not isinstance(labels, Tensor) or (loss.known is not None and loss.known.labels is not Labels.CLASSES):
        return None
    if scores.dim() < 2:
        scores = scores[None] if labels.dim() == 0 else scores
    rows = scores if scores.shape == labels.shape and _shares(labels, loss) else class_layout(scores, labels)
    integers = not labels.is_floating_point() or (rows is not None and rows.shape == labels.shape)
    return rows if rows is not None and integers and rows.dim() > 1 and rows.shape[1] > 1 else None


def _shares(labels: Tensor, loss: Loss) -> bool:
    """Tell whether labels are the share of each class: soft labels, or one-hot."""
    if loss.known is None or labels.dim() < 2:
        return False
    return labels.is_floating_point() or is_one_hot(labels)


def label_range(labels: Tensor, rows: Tensor | None, loss: Loss) -> dict[str, Tensor]:
    """Return the least and the greatest label that counts."""
    counted = _counted(labels, rows, loss)
    if counted is None:
        least, greatest = labels.aminmax()
    else:
        least = labels.where(counted, torch.iinfo(labels.dtype).max).amin()
        greatest = labels.where(counted, torch.iinfo(labels.dtype).min).amax()
    return {"label least": least, "label greatest": greatest}


def _counted(labels: Tensor, rows: Tensor | None, loss: Loss) -> Tensor | None:
    """Return which labels a loss of classes does not ignore; what torch's own accepts out of range it was told to ignore."""
    if rows is None or labels.is_floating_point() or labels.dtype == torch.bool or labels.shape == rows.shape:
        return None
    return (labels >= 0) & (labels < rows.shape[1]) if loss.known is not None else labels != IGNORED


def expected(rows: Tensor, labels: Tensor, loss: Loss) -> dict[str, Tensor]:
    """Return the mean cross-entropy of the main output alone, and of its logarithm; of words also with each row for the next label."""
    counted = _counted(labels, rows, loss)
    if counted is not None:
        counted = counted & (labels >= 0) & (labels < rows.shape[1])
        targets = labels.long().where(counted, IGNORED).reshape(rows.shape[0], *rows.shape[2:])
    else:
        targets = labels if labels.is_floating_point() else labels.to(rows.dtype)
    found = {}
    for key in ("", "log") if loss.name != "cross_entropy" else ("",):
        found[f"expected{key}"] = _cross_entropy(rows, targets, key)
        if loss.own and rows.dim() == 3 and rows.shape[2] > 1:
            found[f"shifted{key}"] = _cross_entropy(rows[..., :-1], targets[..., 1:], key)
    return found


def _cross_entropy(rows: Tensor, targets: Tensor, key: str) -> Tensor:
    size, indices = max(1, PIECE // max(1, rows[0].numel())), targets.dtype == torch.long
    sums = []
    for few, few_targets in zip(rows.split(size), targets.split(size), strict=True):
        wide = at_least_float32(few.clamp_min(0)).log() if key else at_least_float32(few)
        sums.append(F.cross_entropy(wide, few_targets if indices else few_targets.to(wide), reduction="sum"))
    count = (targets != IGNORED).sum() if indices else targets.numel() // rows.shape[1]
    return torch.stack(sums).sum() / count
