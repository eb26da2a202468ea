"""Rules on how large the optimizer's steps are against the weights. Standard library only.

Thresholds are those that planted faults and healthy fresh models separated; where they are ours, the comment says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite, isnan, sqrt
from statistics import median

from netlens.findings import Finding, Severity
from netlens.lenses.gradflow.diagnosis import Flow, Ill
from netlens.lenses.gradflow.sizes import JUMP, VANISHING, compared, jump
from netlens.wording import counted, number, short

LARGE_STEP = (0.5, 2.0)  # norm of the step / norm of the weights, median over weights; healthy: 0.008 to 0.1
SMALL_STEP = (1e-6, 1e-8)  # the same, of the largest
ONE_LARGE = 100.0  # the same, of one weight; ours: a fresh googlenet, whose BatchNorm undoes it, has 30 with SGD(lr=0.1)
ONE_SMALL = 1e-8  # ours: a step is lost in the rounding of float32
APART = 1e4  # quotient of the step of one weight and the median step; ours
ENOUGH = 4  # weights, for a median to say anything
USUAL, BAND = 1e-2, "steps of 0.0001 to 0.1 of the weights"  # of a step; Karpathy's guide is 0.001, healthy fresh models have 0.008 to 0.1
SMALL_START = 0.05  # gain, which is the RMS of weights x sqrt(fan-in); ours: 1 is usual
LEARNED = 0.05  # of the loss of knowing nothing: small steps are those of a model that has learned
TINY = 1e-5  # the same: with it a step of SGD(lr=0.1) is too small, and the rate is not to blame; ours
RATE = "lower the learning rate: --lr-range shows which are usable"


def steps(flow: Flow) -> Iterator[Ill]:
    """Tell of a learning rate that is too large or too small: for all weights, for some of them, or for some against the others."""
    real = {place: update for place in flow.weights if place not in flow.zero and (update := flow.parameters[place].update) is not None}
    real = {place: inf if isnan(update) else update for place, update in real.items()}
    sure = {place: real[place] for place in compared(flow) if place in real and not flow.gated}
    if not real:
        return
    grown = [real[place] for place in real if not _begins_small(flow, place)] or list(real.values())
    usual = median(grown)
    if usual > LARGE_STEP[0 if len(grown) >= ENOUGH else 1]:  # of few weights, small ones of a fresh head count too much
        yield _all_large(flow, real, usual)
    elif sure and max(sure.values()) < SMALL_STEP[0]:
        yield _all_small(flow, sure)
    else:
        yield from _some(flow, real, sure)


def _begins_small(flow: Flow, place: int) -> bool:
    """Tell a weight that begins next to 0, as some last layers and gates do: the size of a step against it says as little as against 0."""
    row = flow.parameters[place]
    return flow.report.initialised is not False and (row.weight_rms or 0) * sqrt(row.elements / row.shape[0]) < SMALL_START


def _all_large(flow: Flow, real: Mapping[int, float], usual: float) -> Ill:
    severity = Severity.ERROR if usual > LARGE_STEP[1] else Severity.WARNING
    change = f"by {number(usual)} times their own size or more" if isfinite(usual) else "without bound"
    says = f"half of the weights change {change} in a step: the learning rate is too large"
    threshold = f"{LARGE_STEP[0]:g} (warning), {LARGE_STEP[1]:g} (error)"
    worst = max(real, key=real.__getitem__)
    lower = f"lower it about {number(usual / USUAL)} times: {BAND} are usual" if isfinite(usual) else RATE
    remedy = f"{lower}; most in `{short(flow.parameters[worst].name)}`"
    finding = Finding("update-ratio-high", severity, "", says, f"median step / weights {number(usual)}", threshold, remedy)
    return Ill(finding, says, "step too large", tuple(place for place in real if real[place] > LARGE_STEP[0]), ("update",))


def _all_small(flow: Flow, sure: Mapping[int, float]) -> Ill:
    largest = max(sure.values())
    severity = Severity.ERROR if largest < SMALL_STEP[1] else Severity.WARNING
    moved = f"by more than {number(largest)} of its size" if largest else "at all"
    why, remedy = _held_back(flow, largest)
    says = f"a step changes no weight {moved}: {why}"
    if 0 < max((flow.parameters[place].ratio or 0) for place in sure) < TINY and not _has_learned(flow):
        return _all_tiny(flow, sure, severity)
    if _has_learned(flow):
        remedy = "nothing: give it samples that it has not learned, to see it learn"
        severity, says = Severity.INFO, f"steps are small, since the loss is: nothing is left to learn from this batch ({number(largest)})"
    finding = Finding(
        "update-ratio-low",
        severity,
        "",
        says,
        f"largest step / weights {number(largest)}",
        f"{SMALL_STEP[0]:g} (warning), {SMALL_STEP[1]:g} (error)",
        remedy,
    )
    return Ill(finding, says, "step too small", tuple(sure), ("update",))


def _held_back(flow: Flow, largest: float) -> tuple[str, str]:
    """Return why steps are too small, and the remedy."""
    rate = _rate(flow)
    said = "" if rate is None else f" (lr={rate:g})"
    if rate == 0:
        return f"the learning rate is 0{said}", f"raise it from 0, where a warm-up may begin: {BAND} are usual"
    if largest:
        return f"the learning rate is too small{said}", f"raise it about {number(USUAL / largest)} times: {BAND} are usual"
    if rate is not None:
        return f"the learning rate is too small{said}", f"raise it: steps are lost in the rounding of the weights; {BAND} are usual"
    remedy = "look at the learning rate (a warm-up begins at 0), and for a zero_grad() between backward and step"
    return "the learning rate is 0 or far too small, or gradients are cleared before the optimizer steps", remedy


def _rate(flow: Flow) -> float | None:
    """Return the learning rate that the optimizer's description names."""
    found = re.search(r"\blr=([\d.eE+-]+)", flow.report.run.optimizer)
    return None if found is None else float(found[1])


def _all_tiny(flow: Flow, sure: Mapping[int, float], severity: Severity) -> Ill:
    """Tell that steps are small since all gradients are: of a signal that shrinks on its way forward."""
    largest = max(flow.parameters[place].ratio or 0 for place in sure)
    says = f"the gradients of all weights are tiny: none is larger than {number(largest)} of its weights{jump(flow, 1 / JUMP)}"
    measured = f"largest gradient / weights {number(largest)}"
    finding = Finding("vanishing-gradient", severity, "", says, measured, f"{TINY:g}, where no step is larger", VANISHING)
    return Ill(finding, says, "vanishing", tuple(sure), ("ratio",))


def _has_learned(flow: Flow) -> bool:
    """Whether the loss of a model that was trained is near 0."""
    loss, chance = flow.report.steps[-1].loss if flow.report.steps else None, flow.report.output and flow.report.output.chance
    return flow.report.initialised is not True and loss is not None and 0 <= loss < LEARNED * (chance or 1.0)


def _some(flow: Flow, real: Mapping[int, float], sure: Mapping[int, float]) -> Iterator[Ill]:
    """Compare weights with bounds, and with their median."""
    steady = [sure[place] for place in sure if not _begins_small(flow, place)]
    usual = median(steady) if len(steady) >= ENOUGH else 0.0
    large = [place for place in real if real[place] > ONE_LARGE and not _begins_small(flow, place)]
    small = [place for place in sure if sure[place] < ONE_SMALL]
    odd = [place for place in sure if usual and _apart(sure[place], usual) > APART and not _begins_small(flow, place)]
    if large:
        yield _layers(flow, TOO_LARGE, real, large, f"{ONE_LARGE:g}")
    if small:
        yield _layers(flow, TOO_SMALL, sure, small, f"{ONE_SMALL:g}")
    if odd and not large and not small:
        yield _layers(flow, UNLIKE, sure, odd, f"{number(1 / APART)} to {number(APART)} times the median, {number(usual)}")


@dataclass(frozen=True, slots=True)
class _Pace:
    """A rule on the steps of single weights."""

    told: str  # before "3 weights: `conv1` (12.5)"
    word: str
    remedy: str


TOO_LARGE = _Pace(
    "a step is far larger than",
    "step too large",
    "lower the learning rate of this layer by a group of its own, or initialise its weights larger",
)
TOO_SMALL = _Pace(
    "a step hardly changes",
    "step too small",
    "raise the learning rate of this layer by a group of its own; half precision rounds small steps away: keep weights in float32",
)
UNLIKE = _Pace(
    "a step changes, at another pace than the others,",
    "other pace",
    "look at the scale of these weights (`netlens kernels`), normalise, or use Adam, whose steps depend less on it",
)


def _layers(flow: Flow, pace: _Pace, steps: Mapping[int, float], odd: Sequence[int], threshold: str) -> Ill:
    usual = median(steps.values())
    worst_first = sorted(odd, key=lambda place: -_apart(steps[place], usual))
    says = f"{pace.told} {counted(len(odd), 'weight')}: {flow.named(worst_first, lambda place: number(steps[place]))}"
    where, measured = flow.label(worst_first[0]), f"step / weights {number(steps[worst_first[0]])}"
    finding = Finding("update-imbalance", Severity.WARNING, where, says, measured, threshold, pace.remedy)
    return Ill(finding, says, pace.word, tuple(worst_first), ("update",))


def _apart(value: float, usual: float) -> float:
    return max(value / usual, usual / value) if value and usual else inf
