"""Labels made fit for a loss, or refused with what is wrong: before a GPU stops at them with an assertion that names nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from netlens.errors import InputError
from netlens.loading.loss_names import KnownLoss, Labels
from netlens.loading.words import listed

IGNORED = -100  # torch's own ignore_index
Say = Callable[[str], object]


def fitted(loss: KnownLoss, scores: Tensor, labels: Any, options: Mapping[str, Any], say: Say) -> tuple[Tensor, Tensor]:
    """Return output and labels as the function of torch takes them.

    Args:
        loss: which one.
        scores: the output that it looks at.
        labels: of the data set.
        options: of the loss.
        say: is told what was changed.

    Raises:
        InputError: they are of the wrong dtype or shape, or out of range; both are named.
    """
    numbers = tensor_of(labels, loss.name).to(scores.device)
    if loss.labels is Labels.CLASSES:
        return _classes(loss, scores, numbers, options, say)
    if loss.labels is Labels.CLASS_SETS:
        return scores, _class_sets(loss, scores, numbers)
    numbers = as_output(loss, scores, numbers, say)
    if loss.labels is Labels.SHARES:
        _check_shares(loss, scores, numbers)
    if loss.labels in (Labels.SIGNS, Labels.PAIR_SIGNS):
        check_signs(loss, numbers)
    return scores, numbers


def tensor_of(labels: Any, name: str) -> Tensor:
    """Return labels that are numbers as a tensor.

    Raises:
        InputError: there are none, or they are something else.
    """
    if isinstance(labels, Tensor):
        return labels
    if labels is None:
        raise InputError(f"{name} needs labels, and there are none", hint="let the data set return (input, label)")
    if isinstance(labels, str) or (isinstance(labels, Sequence) and any(isinstance(label, str) for label in labels)):
        texts = [labels] if isinstance(labels, str) else labels
        what = f"the labels are texts ({listed(map(repr, texts), most=3)}), and {name} needs numbers"
        raise InputError(what, hint="let the data set return the index of each class, counted from 0")
    try:
        return torch.as_tensor(labels)
    except (TypeError, ValueError, RuntimeError):
        first = labels[0] if isinstance(labels, Sequence) and labels else labels
        held = f"{type(first).__name__} of {listed(map(str, first))}" if isinstance(first, Mapping) else type(first).__name__
        what = f"the labels are no tensor, but {type(labels).__name__ + ' of ' if first is not labels else ''}{held}"
        hint = (
            "name a function that takes (output, labels): --loss package.module:fn; models of detection return their own loss in train mode"
        )
        raise InputError(what, hint=hint) from None


def described(tensor: Tensor) -> str:
    """Return "(8, 10) of float32"."""
    return f"{tuple(tensor.shape)} of {str(tensor.dtype).removeprefix('torch.')}"


# --- Class indices


def _classes(loss: KnownLoss, scores: Tensor, labels: Tensor, options: Mapping[str, Any], say: Say) -> tuple[Tensor, Tensor]:
    if labels.is_floating_point():
        return scores, _probabilities(loss, scores, labels, say)
    found = class_layout(scores, labels)
    if found is None and labels.shape == scores.shape and scores.dim() > 1 and is_one_hot(labels):
        say("the labels are one-hot integers: the index of the 1 is taken; torch refuses them as they are")
        labels, found = labels.argmax(1), scores
    if found is None:
        raise InputError(_both(loss, scores, labels, "one class index for each row of scores"), hint=_shape_hint(scores, labels))
    if labels.dtype != torch.int64:
        if labels.dtype != torch.uint8:
            say(f"the labels are {str(labels.dtype).removeprefix('torch.')}, which torch's {loss.name} refuses: taken as int64")
        labels = labels.long()
    wanted = (*found.shape[:1], *found.shape[2:]) if found.dim() > 1 else ()
    if tuple(labels.shape) != wanted:
        say(f"the labels are {tuple(labels.shape)}, which torch's {loss.name} refuses: taken as {wanted}")
        labels = labels.reshape(wanted)
    if found is not scores:
        say(f"the classes are in the last dimension of the output {tuple(scores.shape)}; torch's {loss.name} has them in the second")
    _check_range(loss, found.shape[1 if found.dim() > 1 else 0], labels, int(options.get("ignore_index", IGNORED)))
    return found, labels


def class_layout(scores: Tensor, labels: Tensor) -> Tensor | None:
    """Return `scores` with the classes in the second dimension, where `labels` holds one index for each row of them; else None.

    (N, C) and (N,) or (N, 1); (N, C, d...) and (N, d...) or (N, 1, d...); (N, L, C) and (N, L), as language models have it; (C,) and ().
    """
    shape = tuple(labels.shape)
    if scores.dim() < 2:
        return scores if scores.dim() == 1 and shape == () else None
    rows = (scores.shape[0], *scores.shape[2:])
    if shape in (rows, (rows[0], 1, *rows[1:]), (*rows, 1)):
        return scores
    last = tuple(scores.shape[:-1])
    return scores.movedim(-1, 1) if scores.dim() > 2 and shape in (last, (*last, 1)) else None


def is_one_hot(labels: Tensor) -> bool:
    """Tell whether each row along the second dimension holds a single 1, and else 0."""
    return labels.shape[1] > 1 and bool(((labels == 0) | (labels == 1)).all() & (labels.sum(1) == 1).all())


def _probabilities(loss: KnownLoss, scores: Tensor, labels: Tensor, say: Say) -> Tensor:
    if loss.name != "cross_entropy" or labels.shape != scores.shape or scores.dim() < 2:
        hint = "let the data set return integers, label.long(); numbers that the output shall meet are for --loss mse"
        raise InputError(_both(loss, scores, labels, "class indices as integers"), hint=hint)
    sums = labels.detach().sum(1)
    if bool((labels < 0).any() | ((sums - 1).abs() > 1e-3).any()):
        rows = f"{float(sums.min()):.3g} to {float(sums.max()):.3g}"
        say(f"the labels are taken as probabilities of classes, and their rows sum to {rows}: several true classes are for bce_with_logits")
    return labels.to(scores.dtype)


def _check_range(loss: KnownLoss, classes: int, labels: Tensor, ignored: int) -> None:
    """Refuse labels that torch would stop at: with an IndexError on the CPU, with a broken device on a GPU."""
    counted = labels if loss.name == "multi_margin" else labels[labels != ignored]
    if not counted.numel():
        if labels.numel():
            raise InputError(
                f"all {labels.numel()} labels are {ignored}, which {loss.name} ignores: the loss is no number", hint="check them"
            )
        raise InputError("there are no labels in this batch", hint="check the data set")
    least, greatest = (int(value) for value in torch.stack(counted.aminmax()).tolist())
    if classes == 1:
        hint = "take --loss bce_with_logits, or give the model an output for each class"
        raise InputError(f"the model scores 1 class, and {loss.name} of one class is always 0", hint=hint)
    if least >= 0 and greatest < classes:
        return
    what = f"the labels go from {least} to {greatest}, and the model scores {classes} classes, 0 to {classes - 1}"
    raise InputError(what, hint=_range_hint(loss, classes, counted, least, greatest))


def _range_hint(loss: KnownLoss, classes: int, labels: Tensor, least: int, greatest: int) -> str:
    wrong = labels[(labels < 0) | (labels >= classes)].unique().tolist()
    if wrong in ([-1], [255]) and loss.name != "multi_margin":
        return f"if {wrong[0]} marks what shall not count: --loss {loss.name}:ignore_index={wrong[0]}"
    if least >= 1 and greatest == classes:
        return "they begin at 1: let the data set return label - 1"
    if least < 0:
        return "count classes from 0"
    return f"give the model {greatest + 1} outputs (often --model-arg num_classes={greatest + 1}), or renumber the labels"


def _class_sets(loss: KnownLoss, scores: Tensor, labels: Tensor) -> Tensor:
    if labels.is_floating_point() or labels.shape != scores.shape:
        hint = "for rows of 0 and 1 take --loss multilabel_soft_margin or bce_with_logits"
        raise InputError(_both(loss, scores, labels, Labels.CLASS_SETS.value), hint=hint)
    least, greatest = (int(value) for value in torch.stack(labels.aminmax()).tolist())
    if least < -1 or greatest >= scores.shape[-1]:
        what = f"the labels go from {least} to {greatest}, and the model scores {scores.shape[-1]} classes, 0 to {scores.shape[-1] - 1}"
        raise InputError(what, hint="rows of class indices end with -1; classes count from 0")
    return labels.long()


# --- Labels of the output's shape


def as_output(loss: KnownLoss, scores: Tensor, labels: Tensor, say: Say) -> Tensor:
    """Return labels of the output's shape and dtype.

    Raises:
        InputError: they have another number of elements, or another order of dimensions.
    """
    if labels.shape != scores.shape:
        if not alike(scores, labels):
            hint = _shape_hint(scores, labels)
            if not labels.is_floating_point() and class_layout(scores, labels) is not None:
                hint = f"take --loss cross_entropy, or let the data set return one_hot(label, {scores.shape[1]}).float()"
            raise InputError(_both(loss, scores, labels, loss.labels.value), hint=hint)
        try:
            joined = tuple(torch.broadcast_shapes(scores.shape, labels.shape))
        except RuntimeError:
            joined = ()
        broadcast = f"; torch would spread both to {joined}" if joined not in ((), tuple(scores.shape)) else ""
        say(f"output {tuple(scores.shape)} and labels {tuple(labels.shape)} are compared one to one{broadcast}")
        labels = labels.reshape(scores.shape)
    if not labels.is_floating_point():
        say(f"the labels are {str(labels.dtype).removeprefix('torch.')}: taken as {str(scores.dtype).removeprefix('torch.')}")
    narrow = torch.is_autocast_enabled(scores.device.type) and scores.dtype.itemsize < 4  # autocast computes losses in float32
    return labels.to(torch.float32 if narrow else scores.dtype)


def alike(scores: Tensor, labels: Tensor) -> bool:
    """Tell whether shapes are equal but for dimensions of 1."""
    return [size for size in scores.shape if size != 1] == [size for size in labels.shape if size != 1]


def _check_shares(loss: KnownLoss, scores: Tensor, labels: Tensor) -> None:
    least, greatest = _span(labels)
    if least < 0 or greatest > 1:
        hint = "let the data set return 0 and 1"
        if bool((labels.abs() == 1).all()):
            hint = "for -1 and 1 take --loss soft_margin, or let the data set return (label + 1) / 2"
        elif greatest == 255:
            hint = "let the data set return label / 255"
        raise InputError(f"the labels go from {least:g} to {greatest:g}, and {loss.name} needs 0 to 1", hint=hint)
    if loss.name == "bce":
        least, greatest = _span(scores)
        if least < 0 or greatest > 1:
            what = f"the output goes from {least:.3g} to {greatest:.3g}, and bce needs probabilities, 0 to 1"
            raise InputError(what, hint="take --loss bce_with_logits, which applies the sigmoid")


def check_signs(loss: KnownLoss, labels: Tensor) -> None:
    """Refuse labels that are neither -1 nor 1: torch computes something with them, and nothing is learned from a 0."""
    if not bool((labels.abs() == 1).all()):
        least, greatest = _span(labels)
        hint = f"let the data set return 2 * label - 1{', or take --loss bce_with_logits' if loss.name == 'soft_margin' else ''}"
        raise InputError(f"the labels go from {least:g} to {greatest:g}, and {loss.name} needs -1 and 1", hint=hint)


def _span(values: Tensor) -> tuple[float, float]:
    if not values.numel():
        raise InputError("there are no labels in this batch", hint="check the data set")
    least, greatest = torch.stack(values.detach().aminmax()).tolist()
    return float(least), float(greatest)


def _both(loss: KnownLoss, scores: Tensor, labels: Tensor, wants: str) -> str:
    return f"{loss.name} needs {wants}: the output is {described(scores)}, the labels are {described(labels)}"


def _shape_hint(scores: Tensor, labels: Tensor) -> str:
    if scores.dim() == 4 and labels.dim() in (3, 4) and scores.shape[-2:] != labels.shape[-2:]:
        return "bring the model's output to the size of the labels: torch.nn.functional.interpolate(output, labels.shape[-2:])"
    if scores.dim() < 2 or (scores.dim() == 2 and scores.shape[1] == 1):
        return "for one number a sample take --loss bce_with_logits or --loss mse"
    if scores.shape[:1] != labels.shape[:1]:
        return "the first dimension of both is the samples: check the model's last reshape, and what the data set returns"
    return "say another --loss, or name a function that takes (output, labels): --loss package.module:fn"
