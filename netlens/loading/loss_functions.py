"""Losses of torch, called with what a model returned: the right part of the output, labels that fit, options as tensors."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from netlens.errors import InputError, UsageError
from netlens.loading.loss_labels import Say, alike, check_signs, class_layout, described, fitted, tensor_of
from netlens.loading.loss_names import KnownLoss, Labels
from netlens.loading.shortage import out_of_memory
from netlens.loading.suggest import did_you_mean
from netlens.loading.words import cause, listed
from netlens.probing.leaves import Leaf, leaves

# Names under which models return their answer beside other things, the first one first.
MAIN = ("logits", "prediction_logits", "out", "output", "pred", "predictions", "scores")
OLD = ("size_average", "reduce")  # options of torch that are no longer meant to be used
TENSORS = ("weight", "pos_weight")  # options that torch wants as tensors


def floating_outputs(output: Any) -> list[Leaf]:
    """Return the floating parts of what a model returned, the one whose name says that it is the answer first."""
    found = [(name, tensor) for name, tensor in leaves(output) if tensor.is_floating_point() and tensor.numel()]
    if not found:
        what = listed(f"{name or 'a tensor'} {described(tensor)}" for name, tensor in leaves(output)) or type(output).__name__
        raise InputError(f"the model returns no floating numbers, but {what}", hint="let it return scores, before argmax")
    return sorted(found, key=lambda leaf: MAIN.index(leaf[0]) if leaf[0] in MAIN else len(MAIN))


def outputs_for(loss: KnownLoss, output: Any, labels: Any) -> list[Leaf]:
    """Return the parts of the output that `loss` looks at: those that the labels fit.

    Raises:
        InputError: there are too few.
    """
    found = floating_outputs(output)
    if loss.outputs > 1:
        if len(found) < loss.outputs:
            hint = "let forward return them as a tuple, or name a function of (output, labels): --loss package.module:fn"
            raise InputError(f"{loss.name} compares {loss.outputs} outputs, and the model returns {len(found)}", hint=hint)
        return found[: loss.outputs]
    if len(found) > 1 and isinstance(labels, Tensor):
        fitting = [leaf for leaf in found if _fits(loss, leaf[1], labels)]
        return (fitting or found)[:1]
    return found[:1]


def _fits(loss: KnownLoss, scores: Tensor, labels: Tensor) -> bool:
    classes = loss.labels is Labels.CLASSES and class_layout(scores, labels) is not None
    return (
        classes
        or (loss.labels is not Labels.SEQUENCES and alike(scores, labels))
        or (loss.labels is Labels.SEQUENCES and scores.dim() == 3)
    )


def check_options(loss: KnownLoss, options: Mapping[str, object]) -> None:
    """Refuse options that the function of torch does not have.

    Raises:
        UsageError: with those that it has.
    """
    names = [name for name, p in inspect.signature(_function(loss)).parameters.items() if p.default is not p.empty and name not in OLD]
    for name in options:
        if name not in names:
            raise UsageError(f"{loss.name} has no option {name!r}", hint=did_you_mean(name, names, f"it takes {listed(names)}"))


def loss_values(loss: KnownLoss, outputs: Sequence[Tensor], labels: Any, options: Mapping[str, Any], say: Say) -> Tensor:
    """Call the function of torch: a scalar, or several numbers where `options` say reduction "none".

    Args:
        loss: which one.
        outputs: as many as it takes.
        labels: of the data set.
        options: by torch's names; lists for tensors.
        say: is told what was done to outputs and labels.

    Raises:
        InputError: they do not fit; torch's own words where netlens knows no better ones.
    """
    given = {name: _option(name, value, outputs[0]) for name, value in options.items()}
    try:
        return _called(loss, outputs, labels, given, say)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        if out_of_memory(error):
            raise
        shapes = listed(described(tensor) for tensor in outputs)
        held = f", labels {described(labels)}" if isinstance(labels, Tensor) else ""
        what = f"torch's {loss.name} raised {cause(error)}: output {shapes}{held}"
        raise InputError(what, hint="take another --loss, or name a function of (output, labels): --loss package.module:fn") from error


def _called(loss: KnownLoss, outputs: Sequence[Tensor], labels: Any, options: Mapping[str, Any], say: Say) -> Tensor:
    function, first = _function(loss), outputs[0]
    if loss.labels is Labels.NOTHING:
        return function(*outputs, **options)
    if loss.labels is Labels.SEQUENCES:
        return _ctc(first, labels, options, say)
    if loss.labels is Labels.PAIR_SIGNS:
        signs = tensor_of(labels, loss.name).to(first.device)
        signs = signs.reshape(-1) if signs.numel() == first.shape[0] and first.dim() == 2 else signs
        check_signs(loss, signs)
        return function(*outputs, signs.to(first.dtype), **options)
    scores, fitting = fitted(loss, first, labels, options, say)
    if loss.name == "bce" and bool(scores.isnan().any()):  # torch stops at NaN; here it is to be found, and shown
        return scores if options.get("reduction") == "none" else scores.mean()
    return function(scores, fitting, *outputs[1:], **options)


def _function(loss: KnownLoss) -> Callable[..., Tensor]:
    found: Callable[..., Tensor] = getattr(F, loss.function)
    return found


def _option(name: str, value: Any, like: Tensor) -> Any:
    return torch.as_tensor(value, dtype=like.dtype, device=like.device) if name in TENSORS and value is not None else value


def _ctc(scores: Tensor, labels: Any, options: Mapping[str, Any], say: Say) -> Tensor:
    """Call ctc_loss with (T, N, C).

    Labels are (N, S), filled up with the blank or with negative numbers; or (labels, their lengths); or (labels, lengths of the outputs,
    lengths of the labels).
    """
    blank = int(options.get("blank", 0))
    parts = list(labels) if isinstance(labels, (tuple, list)) and all(isinstance(part, Tensor) for part in labels) else [labels]
    targets = tensor_of(parts[0], "ctc").to(scores.device)
    lengths = parts[-1].to(scores.device) if len(parts) > 1 else _lengths(targets, blank)
    samples = len(lengths)
    if scores.dim() != 3 or samples not in scores.shape[:2] or targets.is_floating_point():
        what = f"ctc needs an output (steps, samples, classes) and integer labels (samples, length): the output is {described(scores)}"
        raise InputError(f"{what}, the labels are {described(targets)}", hint="class 0 is the blank: count the others from 1")
    if scores.shape[1] != samples:
        say(f"the samples come first in the output {tuple(scores.shape)}; torch's ctc_loss has the steps there")
        scores = scores.transpose(0, 1)
    steps = parts[1].to(scores.device) if len(parts) > 2 else torch.full_like(lengths, scores.shape[0])
    if int(targets.max()) >= scores.shape[2]:
        what = f"the labels go to {int(targets.max())}, and the model scores {scores.shape[2]} classes, 0 to {scores.shape[2] - 1}"
        raise InputError(what, hint=f"one of the classes is the blank, {blank}: give the model {int(targets.max()) + 1} outputs")
    if bool((lengths > steps).any()) and not options.get("zero_infinity"):
        most = int((lengths - steps).argmax())
        what = f"sample {most} has {int(lengths[most])} labels and {int(steps[most])} steps: its ctc loss is infinite"
        raise InputError(what, hint="reduce steps less, shorten the labels, or take --loss ctc:zero_infinity=True")
    wide = scores.float() if scores.dtype.itemsize < 4 else scores
    return F.ctc_loss(wide, targets.clamp(min=0).long(), steps.long(), lengths.long(), **options)


def _lengths(targets: Tensor, blank: int) -> Tensor:
    """Count the labels in each row: what comes before the padding."""
    if targets.dim() != 2:
        raise InputError(f"ctc needs labels (samples, length), and they are {described(targets)}", hint="fill rows up with 0, the blank")
    kept = (targets != blank) & (targets >= 0)
    if bool((kept[:, 1:] & ~kept[:, :-1]).any()):
        raise InputError(f"a label of ctc is {blank}, the blank, in the middle of a row", hint="count classes from 1: 0 is the blank")
    return kept.sum(1)
