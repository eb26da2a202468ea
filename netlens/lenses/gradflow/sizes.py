"""Rules on how large gradients are against the weights, from layer to layer. Standard library only.

Thresholds are those that planted faults and healthy fresh models separated; where they are ours, the comment says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from math import log10

from netlens.findings import Finding, Severity
from netlens.lenses.gradflow.diagnosis import LATE, Flow, Ill
from netlens.wording import counted, number, short

FALL = (4.0, 6.0)  # powers of ten between the first and the last quarter of the weights: warning, error; healthy fresh models: -2.8 to 3.6
HUGE = (1e3, 1e6)  # norm of the gradient / norm of the weights, of any; healthy: up to 64
USUAL_RATIO = 0.1  # norm of the gradient / norm of the weights; of healthy fresh models 0.01 to 1; ours
JUMP = 8.0  # times the size of what the layer before puts out, or a part of it: this layer is named; ours
ABRUPT = 0.5  # share of the whole fall, in powers of ten, that makes one place the culprit; ours
VANISHING = "normalise, add residual connections, use ReLU for sigmoid or tanh, or initialise with a gain of 1 (`netlens kernels` shows it)"
EXPLODING = (
    "look at the size of inputs and targets, about 1 is usual; initialise with a standard deviation of about 1 / sqrt(fan-in), normalise, "
    "average the loss for a sum, or clip gradients"
)


def slope(flow: Flow) -> Iterator[Ill]:
    """Tell of gradients that vanish or explode on their way back. What the second look no longer finds is said in passing."""
    last = _ratios(flow, None)
    begun, ended = _steep(_at_first(flow, last)), _steep(last)
    now = last if flow.report.look is None or (ended and not begun) else _ratios(flow, flow.report.look.ratio)
    severity = _steep(now)
    if severity is not None:
        ill = _slope(flow, now, severity)
        yield ill if begun else replace(ill, kind=LATE)
    elif ended is not None:
        yield _slope(flow, last, Severity.INFO)


def _at_first(flow: Flow, last: Mapping[int, float]) -> dict[int, float]:
    """Return these ratios with the gradients of the first of several steps, over the weights as they are now."""
    rows = flow.parameters
    return {
        place: ratio * (flow.since(place) / rms if flow.since(place) and (rms := rows[place].rms) else 1) for place, ratio in last.items()
    }


def _ratios(flow: Flow, again: tuple[float | None, ...] | None) -> dict[int, float]:
    """Return gradient / weights of each weight in forward order.

    Without those that began at 0, whose size says nothing, and without embeddings, of which a batch uses few rows.
    """
    found = {place: flow.parameters[place].ratio if again is None else again[place] for place in compared(flow)}
    return {place: value for place, value in found.items() if value and flow.parameters[place].weight_rms}


def compared(flow: Flow) -> list[int]:
    """Return the places of the weights whose sizes say something: not of embeddings."""
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
        message, says = f"its {told}{jump(flow, JUMP)}", f"the {told} at `{name}`"
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


def jump(flow: Flow, factor: float) -> str:
    """Name the layer whose output is most times larger, or smaller, than that of the layer before, where that is more than a factor."""
    known = [layer for layer in flow.report.layers if layer.activation_rms]
    jumps = {b.name: (b.activation_rms or 0) / (a.activation_rms or 1) for a, b in pairwise(known)}
    name = max(jumps, key=lambda name: jumps[name] ** (1 if factor > 1 else -1), default="")
    told = bool(name) and (jumps[name] > factor if factor > 1 else jumps[name] < factor)
    return f"; the output of `{short(name)}` is {number(jumps[name])} times that of the layer before" if told else ""
