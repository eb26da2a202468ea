"""Whether a model trains at all, tried on a copy: `--overfit` and `--lr-range`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from math import isfinite, log
from statistics import fmean, median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from netlens.errors import InputError
from netlens.lenses.gradflow.report import Overfit, RateRange
from netlens.lenses.gradflow.updates import LossOf, Move, differentiate, neutral_adam, norms, on_a_copy, watched_steps

SAMPLES = 16  # for which the thresholds of `overfit` were tried
STEPS = 80
RATE = 3e-3
LEARNED = 0.05  # of the loss of knowing nothing: the batch is learned
PASSED = 0.5  # of the loss to begin with: it can be learned
LAST = 5  # steps that tell how it ends

BATCHES = 10  # that a test of learning rates goes through again and again, so that a loss has one of the same batch to compare with
LOST = 1000.0  # times the first loss, of batches that may differ much
DIVERGED = 4.0  # times the first loss above the least: no use in going on
SURE = 3.0  # times the noise of the curve
REACH = 2  # of smoothing, to either side
_DROPOUTS = ("dropout", "alpha_dropout", "dropout1d", "dropout2d", "dropout3d", "feature_alpha_dropout")
_DROPS = re.compile("drop|stochastic_?depth", re.IGNORECASE)


# --- Overfitting one batch


def overfit(
    model: nn.Module, loss_of: LossOf, batch: Any, *, samples: int, classes: int | None = None, step: Callable[[], object] = lambda: None
) -> Overfit:
    """Train a copy on one batch with Adam at 3e-3, without dropout, for at most 80 steps; a sound model learns it by heart.

    It passes when the best of the last five losses is at most half of min(first loss, ln classes), and stops early at a twentieth of
    ln classes. Where there are no classes, of the first loss. A loss below 0 has to fall by the same share of its size.

    Args:
        model: in the mode in which it is to be trained; left as it came.
        loss_of: of a batch.
        batch: SAMPLES samples, as the thresholds ask for.
        samples: how many there are.
        classes: of a cross-entropy; None: another loss.
        step: called after each step.
    """
    chance = log(classes) if classes and classes > 1 else None
    losses: list[float] = []
    still: list[Tensor] = []  # of a step each: (trainable,), whether nothing came to a parameter, or nothing of it could be seen
    with on_a_copy(model) as trainable, without_dropout(model):
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        optimizer = neutral_adam(trainable, RATE)
        with watched_steps(trainable, optimizer) as moves:
            while True:
                loss = loss_of(batch)
                losses.append(float(loss.detach()))
                target = _share(losses[0] if chance is None else chance, LEARNED)
                if optimizer is None or len(losses) > STEPS or not isfinite(losses[-1]) or losses[-1] <= target:
                    break
                differentiate(loss, trainable)
                optimizer.step()
                still.append(_still(moves.pop(), trainable))
                step()
    best = min(filter(isfinite, losses[-LAST:]), default=losses[-1])
    begun = losses[0] if chance is None else min(losses[0], chance)
    passed = isfinite(losses[-1]) and (best <= target or best <= _share(begun, PASSED))
    stopped = torch.stack(still[-LAST:]).all(0).tolist() if len(still) >= LAST else []  # what begins at zero may hold others up at first
    where = tuple(names[id(parameter)] for parameter, stays in zip(trainable, stopped, strict=False) if stays)
    return Overfit(f"Adam(lr={RATE})", samples, len(still), tuple(losses), target, chance, passed, best, where)


def _share(loss: float, share: float) -> float:
    """Return a share of a loss; of one below 0, the loss that is as far below."""
    return loss - (1 - share) * abs(loss)


def _still(move: Move, trainable: Sequence[nn.Parameter]) -> Tensor:
    """Tell of each parameter whether its gradient or its update was 0, or it had none; momentum moves it on for a while without."""
    found = torch.ones(len(trainable), dtype=torch.bool, device=move.update.device)
    gradients = norms([trainable[place].grad for place in move.places])  # type: ignore[misc]
    found[list(move.places)] = (move.update == 0) | (gradients == 0)
    return found


@contextmanager
def without_dropout(model: nn.Module) -> Iterator[None]:
    """Let no dropout layer, function or attribute of `model` drop anything; for use within `untouched`, which puts attributes back.

    What a forward writes in operators of its own, without an attribute that is called after it, stays.
    """
    for module in model.modules():
        kind = _DROPS.search(type(module).__name__) is not None and next(module.children(), None) is None
        if kind:
            module.training = False
        for name, value in list(vars(module).items()):
            if isinstance(value, float) and (_DROPS.search(name) or (kind and name == "p")):
                setattr(module, name, 0.0)
    with ExitStack() as stack:
        for function in _DROPOUTS:
            stack.callback(setattr, F, function, getattr(F, function))
            setattr(F, function, _kept)
        yield


def _kept(input: Tensor, *_: Any, **__: Any) -> Tensor:
    return input


# --- Learning rates


def rate_range(
    model: nn.Module,
    loss_of: LossOf,
    batches: Callable[[], Iterator[Any]],
    make_optimizer: Callable[[], Optimizer],
    *,
    low: float = 1e-7,
    high: float = 10.0,
    steps: int = 100,
    step: Callable[[], object] = lambda: None,
) -> RateRange:
    """Train a copy while the learning rate grows from step to step, each time by the same factor, until the loss blows up.

    The range test of Smith 2015, section 3.3, whose rates grow by the same difference. A loss belongs to the rate of the step before
    it. Groups of parameters keep the quotients of their rates.

    Args:
        model: in the mode in which it is to be trained; left as it came.
        loss_of: of a batch.
        batches: from the start each time; taken again when they end.
        make_optimizer: makes it for the model's own parameters.
        low: first rate.
        high: last rate.
        steps: between them.
        step: called after each step.
    """
    rates = [low * (high / low) ** (index / max(1, steps - 1)) for index in range(steps)]
    losses: list[float] = []  # the first before any step
    with on_a_copy(model) as trainable:
        optimizer, feed = make_optimizer(), _again(batches)
        shares = [float(group["lr"]) for group in optimizer.param_groups]
        for rate in rates:
            for group, share in zip(optimizer.param_groups, shares, strict=True):
                group["lr"] = rate * share / max(shares) if max(shares) else rate
            losses.append(_step(optimizer, loss_of, next(feed), trainable))
            step()
            if _diverged(losses):
                break
        else:
            with torch.no_grad():
                losses.append(float(loss_of(next(feed))))
    return _read(rates, losses)


def _again(batches: Callable[[], Iterator[Any]]) -> Iterator[Any]:
    """Give out the first BATCHES batches, over and over; fewer are repeated until they are as many."""
    while True:
        count = 0
        while count < BATCHES:
            before = count
            for batch in islice(batches(), BATCHES - count):
                yield batch
                count += 1
            if count == before:
                raise InputError("the data has no batch to train on", hint="give it at least one, or a smaller --batch-size")


def _step(optimizer: Optimizer, loss_of: LossOf, batch: Any, trainable: Sequence[nn.Parameter]) -> float:
    """Take a step, and return the loss before it; optimizers such as L-BFGS ask for the loss several times."""
    losses: list[Tensor] = []

    def closure() -> Tensor:
        loss = loss_of(batch)
        differentiate(loss, trainable)
        losses.append(loss.detach())
        return losses[-1]

    optimizer.step(closure)  # type: ignore[arg-type]
    return float(losses[0])


def _diverged(losses: Sequence[float]) -> bool:
    """Tell whether there is no use in going on."""
    if not isfinite(losses[-1]) or len(losses) <= BATCHES:
        return not abs(losses[-1]) <= LOST * abs(losses[0])
    paired = _paired(losses)
    return paired[-1] - min(paired) > DIVERGED * abs(paired[0])


def _paired(losses: Sequence[float]) -> list[float]:
    """Take off how much harder each batch was than the mean one before the rates were large enough to change anything."""
    first = losses[:BATCHES]
    return [loss - first[index % BATCHES] + fmean(first) for index, loss in enumerate(losses)] if len(losses) > BATCHES else list(losses)


def _read(rates: Sequence[float], losses: Sequence[float]) -> RateRange:
    """Find where the curve begins to fall, falls fastest, and turns up; all None where it does not fall by more than its noise."""
    least = min(filter(isfinite, losses), default=0.0)
    ceiling = least + DIVERGED * abs(losses[0]) if isfinite(losses[0]) else least
    paired = _paired([min(loss, ceiling) if isfinite(loss) else ceiling for loss in losses])[1:]
    if not paired:
        return RateRange((), (), None, None, None)
    curve = smoothed(paired)
    rates = tuple(rates[: len(curve)])
    noise = 1.4826 * median([abs(a - b) for a, b in zip(paired, curve, strict=True)])  # of normal numbers, their standard deviation
    lowest = min(range(len(curve)), key=curve.__getitem__)
    start = median(curve[: min(lowest, len(curve) // 10) + 1])
    fall = start - curve[lowest]
    if fall <= max(SURE * noise, 0.01 * abs(start)):
        return RateRange(rates, tuple(curve), None, None, None)
    first = max(index for index in range(lowest) if curve[index] >= start - 0.1 * fall)
    high = max(first, lowest - REACH)  # smoothing may have moved the turn so far
    drops = {index: curve[max(0, index - REACH)] - curve[min(lowest, index + REACH)] for index in range(first, high + 1)}
    turned = max(curve[lowest:]) > curve[lowest] + max(SURE * noise, 0.1 * fall)
    return RateRange(rates, tuple(curve), rates[first], rates[high] if turned else None, rates[max(drops, key=drops.__getitem__)])


def smoothed(values: Sequence[float]) -> list[float]:
    """Smooth a curve without moving its turns: the median of five neighbours, then the mean of five medians; fewer at the ends."""
    medians = [median(_around(values, index)) for index in range(len(values))]
    return [fmean(_around(medians, index)) for index in range(len(values))]


def _around(values: Sequence[float], index: int) -> Sequence[float]:
    reach = min(REACH, index, len(values) - 1 - index)
    return values[index - reach : index + reach + 1]
