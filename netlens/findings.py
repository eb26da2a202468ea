"""Findings: the verdicts of every lens, in one form.

Rules turn a report into findings; `--fail-on`, JSON, CI annotations and the exit code read nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum


class Severity(IntEnum):
    """How bad a finding is; comparable, so that `severity >= Severity.WARNING` reads as it sounds."""

    INFO = 1
    WARNING = 2
    ERROR = 3


@dataclass(frozen=True, slots=True)
class Finding:
    """One verdict."""

    code: str  # a key of CODES
    severity: Severity
    where: str  # a layer, a parameter, a file; "" means the whole subject
    message: str  # what is wrong, in one sentence
    measured: str = ""  # what was measured
    threshold: str = ""  # what it was measured against
    remedy: str = ""  # what to do about it


# Every code that netlens can report, with what it means. One table, so that users can look a code up.
CODES: dict[str, str] = {
    "expect-output": "the model's output does not have the expected shape",
    "expect-params": "the model does not have the expected number of parameters",
    "max-params": "the model has more parameters than allowed",
    "max-macs": "a forward pass takes more multiply-adds than allowed, or they cannot all be counted",
    "max-size": "parameters and buffers take more bytes than allowed",
    "max-memory": "the estimated training memory is larger than allowed",
    "lock-missing": "there is no lock file to compare with, and CI must not write one",
    "lock-differs": "the model differs from its lock file",
    "forward-failed": "the model's forward raised",
    "unused-module": "modules with parameters that the forward pass never calls",
    "unregistered-module": "a module that runs but is not registered, so training and saving miss its parameters",
    "uncounted-operators": "operators ran for which no formula for multiply-adds is known",
    "not-run": "the model could not be run, so only its parameters are known",
    "checkpoint-foreign-code": "a checkpoint names classes or functions that plain weights do not need; none of them was imported",
    "checkpoint-runs-code": "a checkpoint's own loader would run code that is in it",
    "checkpoint-optimizer-only": "a checkpoint holds the state of an optimizer, and no weights",
    "checkpoint-no-tensors": "a checkpoint holds no tensors",
    "checkpoint-values-nonfinite": "weights, or the state of an optimizer, have elements that are nan or infinite",
    "checkpoint-values-constant": "weights of several dimensions of which all elements are the same",
    "checkpoint-fat-view": "a file holds large storages of which its tensors are a small part",
    "checkpoint-unreadable": "tensors that cannot be read as plain numbers",
    "checkpoint-incomplete": "a checkpoint holds more than netlens follows, and not all of its tensors are listed",
    "checkpoint-half-precision": "weights are stored in less than 32 bits",
    "checkpoint-odd": "something about a checkpoint that is unusual, and harmless as such",
    "weight-nonfinite": "weights that are NaN or infinite",
    "weight-all-zero": "a weight of which all elements are 0",
    "constant-weights": "a trainable weight of which all elements are nearly the same",
    "weight-outlier": "a weight with an element that is far larger than the others",
    "dead-filters": "filters whose norm is a thousandth of the layer's, or less",
    "duplicate-filters": "filters that are near copies of another one",
    "low-rank": "a weight whose filters are nearly multiples of a single one",
    "weight-pruned": "at least half of a weight's elements are exactly 0",
    "weight-spike": "many elements of a weight are next to 0 without being 0",
    "weight-bimodal": "a histogram of weights with two modes",
    "init-scale": "a weight that makes the signal vanish or explode, and no normalisation follows",
    "weight-wide": "weights that are far wider than initialisation makes them",
    "bn-stats-bad": "running statistics of a normalisation that are not finite, or a negative variance",
    "bn-stats-stale": "running statistics that are as initialised, beside weights that were trained",
    "untrained-filters": "kernels that cannot be told from random initialisation",
    "weights-unchanged": "weights that are the same in both checkpoints",
    "act-nonfinite": "a layer puts out nan or infinite values",
    "output-nonfinite": "the model's output has nan or infinite values",
    "dead-relu": "channels of a ReLU that are never positive",
    "saturated": "a tanh or sigmoid that is at its bounds nearly everywhere",
    "exploding-activations": "activations grow far beyond the size of the input",
    "vanishing-activations": "activations shrink to nothing on their way through the network",
    "batch-invariant": "the outputs of different samples are nearly the same",
    "input-ignored": "the outputs of different samples are the same",
    "rank-collapse": "all channels of a layer carry one signal",
    "redundant-channels": "channels of a layer are copies of each other",
    "attention-collapse": "every token attends to hardly more than one other",
    "overconfident": "an untrained model is sure of its answers",
    "constant-output": "one class is predicted for every sample",
    "untrained": "maps of a model that has learned nothing yet",
    "map-nonfinite": "a map that is not finite, of an output that is",
    "dead-layer": "a blank map: the layer puts out 0 everywhere",
    "saturated-score": "a map of a saturated softmax or sigmoid, whose gradient is 0 or rounding errors",
    "zero-gradient": "a blank map: the score does not depend on the layer",
    "negative-evidence": "a blank map: nothing at the layer speaks for the class",
    "flat-map": "a map that is nearly the same everywhere",
    "not-predicted": "a class is explained that the model does not predict",
    "low-confidence": "the class that is explained is a guess of the model",
    "weights-ignored": "maps of a method that hardly change when all weights are drawn anew",
    "unfaithful-maps": "maps of a method that order pixels worse than chance",
    "misses-boxes": "maps of a method that never point at the object",
    "class-blind": "a class was asked for, and the method knows no class",
    "equal-maps": "methods whose maps are the same",
    "no-grad": "no parameter gets a gradient",
    "unused-parameters": "parameters that can learn, and that the forward pass never uses",
    "detached-parameters": "parameters that run, and to which no path leads from the loss",
    "not-updated": "parameters with a gradient that no optimizer has",
    "grad-zero": "weights whose gradient is exactly 0",
    "grad-nonfinite": "a gradient that is not finite, of a loss that is",
    "loss-nonfinite": "a loss that is not finite",
    "vanishing-gradient": "gradients shrink to nothing on their way back through the network",
    "exploding-gradient": "gradients that grow without bound on their way back, or are far larger than the weights",
    "update-ratio-high": "a learning rate at which a step changes the weights by half of their size, or more",
    "update-ratio-low": "a learning rate at which a step hardly changes any weight",
    "update-imbalance": "weights that a step changes far too much, hardly at all, or at another pace than the others",
    "stepped-early": "an optimizer that steps before, or without, a backward pass",
    "never-stepped": "a training step in which nothing moves the weights",
    "gradients-kept": "gradients that are added to those of an earlier step: zero_grad() is missing",
    "gradients-cleared": "gradients that are cleared between the backward pass and the optimizer's step",
    "gradients-clipped": "clipping that leaves so little of the gradients that steps are too small",
    "model-rebuilt": "a training step that makes a new model each time it is called",
    "label-range": "labels that are outside what the loss takes",
    "double-softmax": "cross-entropy is given probabilities in place of scores",
    "double-sigmoid": "a loss that takes the sigmoid itself is given the output of one",
    "nll-on-logits": "the negative log likelihood is taken of what are no log probabilities",
    "relu-on-logits": "the scores come out of a ReLU, and are never negative",
    "zero-output": "the last layer begins at 0",
    "loss-ignores-input": "the loss does not depend on the input, though the output does",
    "negative-loss": "a loss below 0",
    "init-loss": "an untrained model with a loss far above that of knowing nothing",
    "loss-diverges": "the loss grows from step to step",
    "cannot-overfit": "the model does not learn a single batch by heart",
    "ranks-differ": "processes of one run whose parameters are not the same",
    "ranks-alike": "processes of one run that see the same samples",
    "rank-outlier": "a process whose gradients are unlike those of the others",
}


def worst(findings: Iterable[Finding]) -> Severity | None:
    """Return the highest severity, or None when there is no finding."""
    return max((finding.severity for finding in findings), default=None)
