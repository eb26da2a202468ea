"""What the loss is given: which numbers the model puts out, which labels it is told, and whether one has to do with the other."""

from __future__ import annotations

from math import isfinite, log
from typing import Any

import torch
from torch import Tensor, nn

from netlens.errors import NetlensError
from netlens.lenses.gradflow.graphs import graph_leaves
from netlens.lenses.gradflow.output_labels import PIECE, class_rows, expected, label_range
from netlens.lenses.gradflow.report import OutputFacts
from netlens.lenses.gradflow.updates import together
from netlens.loading.loss_functions import floating_outputs
from netlens.loading.loss_guess import MOVING
from netlens.loading.loss_names import Labels
from netlens.loading.losses import Loss
from netlens.probing.differentiable import at_least_float32
from netlens.probing.leaves import leaves, map_tensors

CLOSE = 1e-3  # rows of probabilities sum to 1 within this
ROWS = 4096  # that are looked at, evenly spaced
# Last operations of a model, as autograd calls them, behind those that move values or take means of them.
PASSED = (*MOVING, "Mean", "AvgPool2D", "AdaptiveAvgPool2D", "MaxPool2DWithIndices", "UpsampleBilinear2D", "NativeDropout")
ANY_SIGN = ("Addmm", "Mm", "Bmm", "Baddbmm", "Convolution", "Linear", "Add", "Sub", "NativeLayerNorm", "NativeBatchNorm", "CudnnBatchNorm")
BOUNDED = ("Sigmoid", "Softmax", "Hardsigmoid")
POSITIVE = ("Relu", "Hardtanh", "Softplus", "Exp", "Abs", "Sqrt", "Clamp", "ClampMin", *BOUNDED)


def output_facts(model: nn.Module, output: Any, labels: Any, loss: Loss) -> OutputFacts | None:
    """Look at the output that the loss looks at, and at its labels; None: the model returns nothing but its loss. One fetch.

    Args:
        model: its parameters stand in for the graph where the output has none.
        output: of one batch, as the model returned it; best with its graph, which tells a squashed output from a small one.
        labels: of that batch.
        loss: which has been tried on them.
    """
    main = _main(output, loss)
    if main is None:
        return None
    name, scores = main
    with torch.no_grad():
        rows = class_rows(scores, labels, loss)
        values = rows if rows is not None else scores
        found: dict[str, Tensor] = {**_spread(values), **_dependence(scores, labels, loss), **_loss_moves(scores, output, labels, loss)}
        head = _last_weight(scores, model)
        if head is not None:
            found["head"] = head.detach().abs().amax()
        if isinstance(labels, Tensor) and labels.numel() and not labels.is_complex():
            found |= label_range(labels, rows, loss)
            if rows is not None:
                found |= expected(rows, labels, loss)
        numbers = dict(zip(found, together(list(found.values())).tolist(), strict=True))
    return _facts(name, scores, labels, loss, rows, numbers)


def _facts(name: str, scores: Tensor, labels: Any, loss: Loss, rows: Tensor | None, numbers: dict[str, float]) -> OutputFacts:
    greatest = numbers.get("label greatest")
    classes = rows.shape[1] if rows is not None else None
    if classes is not None and greatest is not None and (greatest >= classes or numbers["label least"] < 0):
        classes = None  # the user's own loss takes these labels for something else
    kind = _kind(scores if rows is None else rows, numbers, _last_operation(scores))
    told = "log" if kind == "probabilities" and loss.name != "cross_entropy" else ""  # of which such a loss takes the logarithm
    costs = [numbers[key] for key in (f"expected{told}", f"shifted{told}") if key in numbers]
    costs.sort(key=lambda value: abs(value - numbers.get("loss", value)))  # what the model's own loss is made of is nearer to it
    return OutputFacts(
        name=name,
        shape=tuple(scores.shape),
        classes=classes,
        label_least=numbers.get("label least"),
        label_greatest=greatest,
        label_dtype=str(labels.dtype).removeprefix("torch.")
        if isinstance(labels, Tensor)
        else ""
        if labels is None
        else type(labels).__name__,
        rows=kind,
        between=_between(numbers, scores.dtype),
        loss_moves=_moves(numbers),
        zero_head=numbers.get("head") == 0,
        chance=log(classes) if classes and loss.name != "multi_margin" else None,
        expected=costs[0] if classes and costs and isfinite(costs[0]) else None,
    )


def _main(output: Any, loss: Loss) -> tuple[str, Tensor] | None:
    """Return the part of the output that the loss looks at, or else the one that most likely is the answer."""
    if loss.leaf is not None and loss.leaf in (found := dict(leaves(output))):
        return loss.leaf, found[loss.leaf]
    try:
        outputs = floating_outputs(output)
    except NetlensError:
        return None
    return next(((name, tensor) for name, tensor in outputs if tensor.dim() and name != "loss"), None)


# --- What kind of numbers they are


def _spread(values: Tensor) -> dict[str, Tensor]:
    rows = _sampled(values)
    found = {"least": rows.amin(), "greatest": rows.amax(), "mean": rows.mean()}
    if rows.shape[1] > 1:
        found |= {"sum": (rows.sum(1) - 1).abs().amax(), "logsumexp": rows.logsumexp(1).abs().amax()}
    return found


def _sampled(values: Tensor) -> Tensor:
    """Return rows of scores (rows, classes), evenly spaced over samples and places."""
    if values.dim() < 2:
        return at_least_float32(values.detach().reshape(-1, 1))
    places = values.detach().flatten(2) if values.dim() > 2 else values.detach()[:, :, None]
    each = max(1, places.shape[0] * places.shape[2] // ROWS)
    few = places[:, :, ::each] if each <= places.shape[2] else places[:: each // places.shape[2], :, :1]
    return at_least_float32(few.movedim(1, -1).reshape(-1, few.shape[1]))


def _kind(values: Tensor, numbers: dict[str, float], operation: str) -> str:
    least, greatest = numbers["least"], numbers["greatest"]
    several = values.dim() > 1 and values.shape[1] > 1
    rounding = torch.finfo(values.dtype).eps
    if several and least >= 0 and numbers["sum"] < max(CLOSE, rounding):
        return "probabilities"
    if several and greatest <= 0 and numbers["logsumexp"] < max(CLOSE, rounding * log(values.shape[1])):
        return "log probabilities"
    if least < 0 or greatest == least or operation in ANY_SIGN or not isfinite(greatest):
        return "scores"
    squashed = operation in BOUNDED or (operation not in POSITIVE and 0.2 <= numbers["mean"] <= 0.8 and values.numel() >= 8)
    if greatest <= 1 and squashed:
        return "in 0..1"
    return "not negative" if operation in POSITIVE or least == 0 else "scores"  # a linear layer puts out no exact zeros


def _last_operation(scores: Tensor) -> str:
    """Return what autograd calls the last operation that made numbers, "" where there is no graph."""
    node = scores.grad_fn
    while node is not None and (name := node.name().rpartition("Backward")[0]) in PASSED:
        node = node.next_functions[0][0] if node.next_functions else None
    return "" if node is None else name


# --- Whether they depend on the input


def _dependence(scores: Tensor, labels: Any, loss: Loss) -> dict[str, Tensor]:
    axis = _sample_axis(scores, labels, loss)
    if axis is None or scores.shape[axis] < 2:
        return {}
    variances, squares = [], []
    for piece in (
        scores.detach().movedim(axis, 0).flatten(1).split(max(1, PIECE // scores.shape[axis]), 1) if scores.dim() > 1 else [scores]
    ):
        wide = at_least_float32(piece.detach()) if piece.device.type == "mps" else piece.detach().double()
        variances.append((wide - wide.mean(0)).square().sum())
        squares.append(wide.square().sum())
    return {"variance": torch.stack(variances).sum(), "square": torch.stack(squares).sum()}


def _sample_axis(scores: Tensor, labels: Any, loss: Loss) -> int | None:
    """Return the dimension of the samples; None where labels say that there are others than the output has."""
    first = next((tensor for _, tensor in leaves(labels) if tensor.dim()), None) if labels is not None else None
    if not scores.dim() or (first is not None and len(first) not in scores.shape[:2]):
        return None
    steps_first = loss.known is not None and loss.known.labels is Labels.SEQUENCES
    return int(first is not None and (len(first) != scores.shape[0] or (steps_first and scores.shape[1] == len(first))))


def _between(numbers: dict[str, float], dtype: torch.dtype) -> float | None:
    variance, square = numbers.get("variance"), numbers.get("square")
    if variance is None or square is None or not isfinite(variance + square):
        return None
    found = variance / square if square else 0.0
    half = dtype.itemsize < 4 and square > 0 and found < torch.finfo(dtype).eps ** 2
    return None if half else found  # rounding hides smaller differences


def _loss_moves(scores: Tensor, output: Any, labels: Any, loss: Loss) -> dict[str, Tensor]:
    """Return the loss, and what it is when the outputs of one sample stand for all.

    Not of samples in another order: labels may all be the same, and a loss may be a mean of outputs.
    """
    try:
        found = {"loss": loss(output, labels)}
    except NetlensError:
        return {}
    axis = _sample_axis(scores, labels, loss)
    if loss.own or axis is None or scores.shape[axis] < 2:
        return found
    count = scores.shape[axis]
    for place in (0, count // 2):
        others = map_tensors(output, lambda tensor, place=place: _all_of(tensor, axis, count, place))
        if all(tensor is not scores for _, tensor in leaves(others)):
            try:
                found[f"loss {place}"] = loss(others, labels)
            except NetlensError:
                return found
    return found


def _all_of(tensor: Tensor, axis: int, count: int, place: int) -> Tensor:
    if tensor.dim() <= axis or tensor.shape[axis] != count:
        return tensor
    return tensor.detach().narrow(axis, place, 1).expand_as(tensor).contiguous()


def _moves(numbers: dict[str, float]) -> float | None:
    own = numbers.get("loss", 0.0)
    others = [value for key, value in numbers.items() if key.startswith("loss ")]
    if not others or not all(map(isfinite, (own, *others))):
        return None
    difference = max(abs(value - own) for value in others)
    return difference / abs(own) if own else float(difference > 0)


# --- The last layer


def _last_weight(scores: Tensor, model: nn.Module) -> Tensor | None:
    """Return the weight that is nearest to the output in its graph; without one the last that the model lists."""
    for each in (*graph_leaves([scores]), *reversed(list(model.parameters()))):
        if each.dim() > 1 and each.numel():
            return each
    return None
