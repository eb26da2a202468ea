"""Which loss output and labels speak for, where nobody names one."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from netlens.errors import InputError
from netlens.loading.loss_functions import floating_outputs
from netlens.loading.loss_labels import alike, class_layout, described, is_one_hot, tensor_of
from netlens.loading.loss_names import EXAMPLE, KnownLoss, known_loss

# Operations of autograd that only move values, between the last function of a model and its output.
MOVING = ("Squeeze", "Unsqueeze", "View", "UnsafeView", "ReshapeAlias", "Select", "Slice", "T", "Transpose", "Permute", "ToCopy", "Clone")
ENDINGS = {"Sigmoid": "probabilities", "Softmax": "probabilities", "LogSoftmax": "log probabilities"}


def guessed(output: Any, labels: Any) -> tuple[KnownLoss, str]:
    """Return the loss, and why: "inferred: output (8, 10) and integer labels below 10".

    Raises:
        InputError: nothing tells.
    """
    if labels is None:
        what = "nothing tells which loss is meant: there are no labels, and the model returns no loss of its own"
        raise InputError(what, hint="let the data set return (input, label), or name a function: --loss package.module:fn")
    numbers = tensor_of(labels, "a loss")
    outputs = floating_outputs(output)
    for name, scores in outputs:
        found = _guess(scores, numbers.to(scores.device))
        if found is not None:
            loss = known_loss(found[0])
            assert loss is not None
            return loss, f"inferred: output {name + ' ' if name else ''}{tuple(scores.shape)} and {found[1]}"
    name, scores = outputs[0]
    what = f"nothing tells which loss is meant: the output {name + ' ' if name else ''}is {described(scores)}"
    raise InputError(f"{what}, the labels are {described(numbers)}", hint=EXAMPLE)


def _guess(scores: Tensor, labels: Tensor) -> tuple[str, str] | None:
    layout = class_layout(scores, labels)
    ending = ends_in(scores if layout is None else layout)
    several = layout is not None and layout.dim() > 1 and layout.shape[1] > 1
    if several and layout is not None:
        if labels.is_floating_point():
            return "cross_entropy", "one label for each row"  # which says what is wrong with them
        held = f"; the output holds {ENDINGS[ending]}" if ending else ""
        return ("nll" if ending == "LogSoftmax" else "cross_entropy"), f"integer labels below {layout.shape[1]}{held}"
    if not alike(scores, labels):
        return None
    binary = bool(((labels == 0) | (labels == 1)).all())
    if ending != "Sigmoid" and _rows_sum_to_one(scores, labels):
        soft = labels.is_floating_point() and ending == "LogSoftmax"
        return ("kl_div" if soft else "nll" if ending == "LogSoftmax" else "cross_entropy"), "labels whose rows sum to 1"
    if binary:
        return (
            "bce" if ending == "Sigmoid" else "bce_with_logits"
        ), f"labels of 0 and 1{'; the output holds probabilities' * bool(ending)}"
    return "mse", f"{'' if labels.is_floating_point() else 'integer '}labels of its shape"


def ends_in(scores: Tensor) -> str:
    """Return "Sigmoid", "Softmax" or "LogSoftmax" where the model ends in one, else ""; from the graph, or else from the values."""
    node = scores.grad_fn
    if node is None:
        return _looks_like(scores)
    while (name := node.name().rpartition("Backward")[0]) in MOVING and node.next_functions and node.next_functions[0][0] is not None:
        node = node.next_functions[0][0]
    return name if name in ENDINGS else "LogSoftmax" if _looks_like(scores) == "LogSoftmax" else ""


def _looks_like(scores: Tensor) -> str:
    values = scores.detach().float()
    if values.dim() > 1 and values.shape[1] > 1:
        if bool((values <= 0).all()) and bool((values.logsumexp(1).abs() < 1e-3).all()):
            return "LogSoftmax"
        if bool((values >= 0).all()) and bool(((values.sum(1) - 1).abs() < 1e-3).all()):
            return "Softmax"
    return "Sigmoid" if bool(((values >= 0) & (values <= 1)).all()) else ""


def _rows_sum_to_one(scores: Tensor, labels: Tensor) -> bool:
    if labels.shape != scores.shape or labels.dim() < 2 or labels.shape[1] < 2:
        return False
    if not labels.is_floating_point():
        return is_one_hot(labels)
    return bool((labels >= 0).all()) and bool(((labels.sum(1) - 1).abs() < 1e-3).all())
