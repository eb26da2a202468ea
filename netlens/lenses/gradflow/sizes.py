"""Rules on how large gradients and steps are against the weights, from layer to layer. Standard library only.

Thresholds are those that planted faults and healthy fresh models separated; where they are ours, the comment says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf, log10, sqrt
from statistics import median

from netlens.findings import Finding, Severity
from netlens.lenses.gradflow.diagnosis import Flow, Ill
from netlens.wording import counted, number, short

FALL = (4.0, 6.0)  # powers of ten between the first and the last quarter of the weights: warning, error; healthy fresh models: -2.8 to 3.6
HUGE = (1e3, 1e6)  # norm of the gradient / norm of the weights, of any; healthy: up to 64
LARGE_STEP = (0.5, 2.0)  # norm of the step / norm of the weights, median over weights; healthy: 0.008 to 0.1
SMALL_STEP = (1e-6, 1e-8)  # the same, of the largest
ONE_LARGE = 100.0  # the same, of one weight; ours: a fresh googlenet, whose BatchNorm undoes it, has 30 with SGD(lr=0.1)
ONE_SMALL = 1e-8  # ours: a step is lost in the rounding of float32
APART = 1e4  # quotient of the step of one weight and the median step; ours
ENOUGH = 4  # weights, for a median to say anything
USUAL, BAND = 1e-2, "0.001 to 0.1"  # of a step; Karpathy's guide is 0.001, healthy fresh models have 0.008 to 0.1
SMALL_START = 0.05  # gain, which is the RMS of weights x sqrt(fan-in); ours: 1 is usual
LEARNED = 0.05  # of the loss of knowing nothing: small steps are those of a model that has learned
USUAL_RATIO = 0.1  # norm of the gradient / norm of the weights; of healthy fresh models 0.01 to 1; ours
TINY = 1e-5  # the same: with it a step of SGD(lr=0.1) is too small, and the rate is not to blame; ours
JUMP = 8.0  # times the size of what the layer before puts out, or a part of it: this layer is named; ours
ABRUPT = 0.5  # share of the whole fall, in powers of ten, that makes one place the culprit; ours
VANISHING = "normalise, add residual connections, use ReLU for sigmoid or tanh, or initialise with a gain of 1 (`netlens kernels` shows it)"
EXPLODING = "initialise with a standard deviation of about 1 / sqrt(fan-in), normalise, average the loss for a sum, or clip gradients"


def slope(flow: Flow) -> Iterator[Ill]:
    """Tell of gradients that vanish or explode on their way back. What the second look no longer finds is said in passing."""
    first = _ratios(flow, None)
    now = first if flow.report.look is None else _ratios(flow, flow.report.look.ratio)
    severity, begun = _steep(now), _steep(first)
    if severity is not None:
        yield _slope(flow, now, severity)
    elif begun is not None:
        yield _slope(flow, first, Severity.INFO)


def _ratios(flow: Flow, again: tuple[float | None, ...] | None) -> dict[int, float]:
    """Return gradient / weights of each weight in forward order.

    Without those that began at 0, whose size says nothing, and without embeddings, of which a batch uses few rows.
    """
    found = {place: flow.parameters[place].ratio if again is None else again[place] for place in _compared(flow)}
    return {place: value for place, value in found.items() if value and flow.parameters[place].weight_rms}


def _compared(flow: Flow) -> list[int]:
    return [place for place in flow.weights if "Embedding" not in flow.parameters[place].type]


def _steep(ratios: Mapping[int, float]) -> Severity | None:
    fall, largest = _fall(ratios), max(ratios.values(), default=0.0)
    if abs(fall) >= FALL[1] or largest > HUGE[1]:
        return Severity.ERROR
    return Severity.WARNING if abs(fall) >= FALL[0] or largest > HUGE[0] else None


def _fall(ratios: Mapping[int, float]) -> float:
    """Return log10 of the largest ratio in the first quarter over that in the last one; below 0, gradients vanish."""
    values = list(ratios.values())
    quarter = max(1, len(values) // 4)
    return log10(max(values[:quarter]) / max(values[-quarter:])) if len(values) > 1 else 0.0


def _slope(flow: Flow, ratios: Mapping[int, float], severity: Severity) -> Ill:
    """Name the layer at which least, or most, arrives, and where the size changes most."""
    fall = _fall(ratios)
    outgrown = fall < 0 and next(iter(ratios.values())) * max(ratios.values()) > USUAL_RATIO**2  # small beside the last ones alone
    vanishes, steep = fall <= -FALL[0] and not outgrown, abs(fall) >= FALL[0] and not outgrown
    place = next(iter(ratios)) if vanishes else max(ratios, key=ratios.__getitem__)
    name, verb = flow.label(place), "vanishes" if vanishes else "explodes"
    if steep:
        told, where = f"the gradient {verb} on its way back to", _abrupt(flow, ratios, fall)
        message, says = f"{told} here{where}", f"{told} `{name}`{where}"
        measured = f"first quarter of {counted(len(ratios), 'weight')} {number(10**fall)} times the last quarter, by gradient / weights"
        threshold = f"1e{'-' if vanishes else ''}{FALL[0]:g} (warning), 1e{'-' if vanishes else ''}{FALL[1]:g} (error)"
    else:
        told = f"gradient is {number(ratios[place])} times as large as its weights"
        message, says = f"its {told}{_jump(flow, JUMP)}", f"the {told} at `{name}`"
        measured, threshold = f"{number(ratios[place])}", f"{number(HUGE[0])} (warning), {number(HUGE[1])} (error)"
    if severity is Severity.INFO:
        message += "; three steps later it no longer does so: what begins near 0 has opened"
    code, remedy = ("vanishing-gradient", VANISHING) if vanishes else ("exploding-gradient", EXPLODING)
    finding = Finding(code, severity, name, message, measured, threshold, remedy)
    word = code.partition("-")[0] if severity > Severity.INFO else "opens later"
    return Ill(finding, says, word, (place,), ("ratio",))


def _abrupt(flow: Flow, ratios: Mapping[int, float], fall: float) -> str:
    """Name the two weights between which most of the fall happens; "step by step" where it is spread."""
    places = list(ratios)
    jumps = [(log10(ratios[a] / ratios[b]) * (1 if fall > 0 else -1), a, b) for a, b in pairwise(places)]
    jump, a, b = max(jumps)
    if jump < ABRUPT * abs(fall):
        return ", step by step"
    before, after = flow.label(b), flow.label(a)
    return f", most of it between `{before}` and `{after}`" if len(jumps) > 1 else ""


def _jump(flow: Flow, factor: float) -> str:
    """Name the layer whose output is most times larger, or smaller, than that of the layer before, where that is more than a factor."""
    known = [layer for layer in flow.report.layers if layer.activation_rms]
    jumps = {b.name: (b.activation_rms or 0) / (a.activation_rms or 1) for a, b in pairwise(known)}
    name = max(jumps, key=lambda name: jumps[name] ** (1 if factor > 1 else -1), default="")
    told = bool(name) and (jumps[name] > factor if factor > 1 else jumps[name] < factor)
    return f"; the output of `{short(name)}` is {number(jumps[name])} times that of the layer before" if told else ""


def steps(flow: Flow) -> Iterator[Ill]:
    """Tell of a learning rate that is too large or too small: for all weights, for some of them, or for some against the others."""
    real = {place: update for place in flow.weights if place not in flow.zero and (update := flow.parameters[place].update) is not None}
    sure = {place: real[place] for place in _compared(flow) if place in real and not flow.gated}
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
    says = f"half of the weights change by {number(usual)} times their own size or more in a step: the learning rate is too large"
    threshold = f"{LARGE_STEP[0]:g} (warning), {LARGE_STEP[1]:g} (error)"
    worst = max(real, key=real.__getitem__)
    remedy = f"lower it about {number(usual / USUAL)} times: {BAND} is usual; most in `{short(flow.parameters[worst].name)}`"
    finding = Finding("update-ratio-high", severity, "", says, f"median step / weights {number(usual)}", threshold, remedy)
    return Ill(finding, says, "step too large", tuple(place for place in real if real[place] > LARGE_STEP[0]), ("update",))


def _all_small(flow: Flow, sure: Mapping[int, float]) -> Ill:
    largest = max(sure.values())
    severity = Severity.ERROR if largest < SMALL_STEP[1] else Severity.WARNING
    says = f"a step changes no weight by more than {number(largest)} of its size: the learning rate is too small"
    if 0 < max((flow.parameters[place].ratio or 0) for place in sure) < TINY and not _has_learned(flow):
        return _all_tiny(flow, sure, severity)
    factor = f"raise it about {number(USUAL / largest)} times" if largest else "raise it from 0 (a warm-up begins there)"
    if _has_learned(flow):
        severity, says = Severity.INFO, f"steps are small, since the loss is: nothing is left to learn from this batch ({number(largest)})"
    finding = Finding(
        "update-ratio-low",
        severity,
        "",
        says,
        f"largest step / weights {number(largest)}",
        f"{SMALL_STEP[0]:g} (warning), {SMALL_STEP[1]:g} (error)",
        f"{factor}: {BAND} is usual",
    )
    return Ill(finding, says, "step too small", tuple(sure), ("update",))


def _all_tiny(flow: Flow, sure: Mapping[int, float], severity: Severity) -> Ill:
    """Tell that steps are small since all gradients are: of a signal that shrinks on its way forward."""
    largest = max(flow.parameters[place].ratio or 0 for place in sure)
    says = f"the gradients of all weights are tiny: none is larger than {number(largest)} of its weights{_jump(flow, 1 / JUMP)}"
    measured = f"largest gradient / weights {number(largest)}"
    finding = Finding("vanishing-gradient", severity, "", says, measured, f"{TINY:g}, where no step is larger", VANISHING)
    return Ill(finding, says, "vanishing", tuple(sure), ("ratio",))


def _has_learned(flow: Flow) -> bool:
    """Whether the loss of a model that was trained is near 0."""
    loss, chance = flow.report.steps[-1].loss if flow.report.steps else None, flow.report.output and flow.report.output.chance
    return flow.report.initialised is not True and loss is not None and 0 <= loss < LEARNED * (chance or 1.0)


def _some(flow: Flow, real: Mapping[int, float], sure: Mapping[int, float]) -> Iterator[Ill]:
    """Compare weights with bounds, and with their median."""
    usual = median(sure.values()) if len(sure) >= ENOUGH else 0.0
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
