"""What ails one map, told from its own numbers. Standard library only."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from netlens.findings import Severity
from netlens.lenses.gradcam.choices import METHODS
from netlens.lenses.gradcam.report import Class, GradcamReport, Heatmap, Shot
from netlens.wording import bounded, number

FLAT = 0.95  # least / greatest of a map that is positive everywhere; ours
SURE = 1e-7  # 1 - probability; float32 has no more digits, and a gradient that is a difference of such numbers is rounding
SIGMOID_ENDS = 17.33  # the logit of 1 - eps / 4 in float32, to which the score before a saturated sigmoid is held
LEAST, LOG_LEAST = 1e-37, -85.0  # float32 ends there, and so do logarithms of probabilities
LIKELY = 0.5  # probability from which a class is predicted, also where another one is more probable

EARLIER = "take an earlier layer (`--list-layers`)"
TOKENS = f"of what comes after the last attention only the class token is used: {EARLIER}"
HEADLESS = "every class has the same score, so the head is 0 (`netlens kernels`): load trained weights"
CUT_OFF = "where the maps of all are blank, the head may be 0 (`netlens kernels`), or a detach() cuts it off"

_UNASKED = re.compile(r"top prediction|prediction \d|largest region|region \d+ by size|best detection|detection #\d|likeness ")


@dataclass(frozen=True, slots=True)
class Cause:
    """What is said of maps with one fault."""

    word: str  # in the table
    message: str
    measure: Callable[[Sequence[Heatmap]], str]
    threshold: str
    remedy: str


def cause(report: GradcamReport, found: Heatmap) -> str:
    """Return what ails a map, a key of `CAUSES`; "" where nothing does."""
    if found.nonfinite or found.least is None or found.greatest is None:
        return "map-nonfinite"
    blank = found.greatest <= 0
    if blank and found.dead:
        return "dead-layer"
    if METHODS[found.method].needs in ("gradient", "bias gradients", "attention gradients") and saturated(found):
        return "saturated-score"
    if blank:
        # A sum that is 0 at every place, of a method that needs no gradient at the layer: nothing that it looked at matters to the score.
        silent = found.gradient == 0 or (found.gradient is None and found.least == 0)
        return "zero-gradient" if silent else "negative-evidence"
    return "flat-map" if found.least >= FLAT * found.greatest and report.initialised is not True else ""


def severity(report: GradcamReport, found: Heatmap, code: str) -> Severity:
    """Say how bad it is. That nothing speaks for a class is no fault where the model does not predict it, or has learned nothing."""
    if code == "negative-evidence" and (report.initialised is True or not predicted(found.target, report.shots[found.sample])):
        return Severity.INFO
    return Severity.ERROR if code == "map-nonfinite" else Severity.WARNING


def saturated(found: Heatmap) -> bool:
    """Tell whether the score is what a softmax or sigmoid at its end leaves, so that its gradient is 0 or rounding.

    That of a softmax is the logarithm of the probability; scores that a model gives before it are not, but by chance.
    """
    probability, score = found.target.probability, found.target.score
    if probability is None:
        return False
    if probability >= 1 - SURE:
        return abs(score) <= 2 * SURE or (found.gradient == 0 and abs(score - SIGMOID_ENDS) < 0.01)
    return found.gradient == 0 and probability < LEAST and score < LOG_LEAST


def predicted(target: Class, shot: Shot) -> bool:
    """Tell whether the model predicts this class; of several that are independent of one another also those that are likely."""
    return _is_top(target, shot) or target.probability is None or target.probability >= LIKELY


def remedy(report: GradcamReport, maps: Sequence[Heatmap], code: str) -> str:
    """Say what to do about maps with one fault, by what is known of the run."""
    advice = CAUSES[code].remedy
    if code == "zero-gradient":
        if all(_headless(report.shots[found.sample]) for found in maps):
            return HEADLESS
        advice = f"{TOKENS if _of_tokens(report, maps) else EARLIER}; {CUT_OFF}"
    if code == "negative-evidence" and not all(_is_top(found.target, report.shots[found.sample]) for found in maps):
        advice = f"explain the top prediction, {advice}"
    return f"{half(report) if code in ('map-nonfinite', 'zero-gradient') else ''}{advice}"


def half(report: GradcamReport) -> str:
    """Suspect half precision where it is used; "" where it is not."""
    used = "16" in report.run.dtype or bool(report.run.autocast)
    return "try float32, for half precision overflows and underflows; " if used else ""


def _headless(shot: Shot) -> bool:
    """Tell whether all classes that are known have the same score, as a head of zeros gives."""
    return len(shot.top) > 1 and len({each.score for each in shot.top}) == 1


def _of_tokens(report: GradcamReport, maps: Sequence[Heatmap]) -> bool:
    names = {name for found in maps for name in found.layers}
    return any(layer.layout == "tokens" and layer.name in names for layer in report.layers)


def _is_top(target: Class, shot: Shot) -> bool:
    return not shot.top or shot.top[0].index == target.index


def asked_for(found: Heatmap) -> bool:
    """Tell whether the user named the class; else it is explained because of its rank."""
    return _UNASKED.match(found.asked) is None


def _least(maps: Sequence[Heatmap]) -> str:
    return f"largest sum {number(max(found.greatest or 0 for found in maps))}, least {number(min(found.least or 0 for found in maps))}"


def _gradient(maps: Sequence[Heatmap]) -> str:
    known = [found.gradient for found in maps if found.gradient is not None]
    return f"largest |gradient| {number(max(known))}" if known else "the map is 0 everywhere"


def _probability(maps: Sequence[Heatmap]) -> str:
    known = [found.target.probability for found in maps if found.target.probability is not None]
    furthest = max(known, key=lambda value: min(value, 1 - value))
    written = f"1 less {number(1 - furthest)}" if 0.5 < furthest < 1 else f"{furthest:.3g}"
    return f"probability {written}, {_gradient(maps)}"


def _evenness(maps: Sequence[Heatmap]) -> str:
    return f"least / greatest {bounded(min((found.least or 0) / (found.greatest or 1) for found in maps))}"


# The order is that in which causes are looked for: the first one explains the rest.
CAUSES: Mapping[str, Cause] = {
    "map-nonfinite": Cause(
        "not finite",
        "the map is not finite although the model's output is",
        lambda maps: f"up to {max(found.nonfinite for found in maps):,} places with NaN or Inf",
        "0",
        "look for a gradient that overflows: a square root or a norm at 0, a division by a tiny number",
    ),
    "dead-layer": Cause(
        "blank: dead layer",
        "the map is blank because the layer puts out 0 everywhere",
        lambda maps: "activations 0 everywhere",
        "",
        "`netlens featuremaps` shows where it begins; take another layer (`--list-layers`)",
    ),
    "saturated-score": Cause(
        "saturated",
        "the map is blank or made of rounding errors: the model ends in a softmax or sigmoid, which is saturated",
        _probability,
        f"1 less {SURE:g}, or {LEAST:g}",
        "let the model return the scores before its softmax or sigmoid",
    ),
    "zero-gradient": Cause(
        "blank: no gradient",
        "the map is blank because the score does not depend on the layer",
        _gradient,
        "0",
        f"{EARLIER}; {CUT_OFF}",
    ),
    "negative-evidence": Cause(
        "blank: nothing for it",
        "the map is blank because nothing at the layer speaks for the class: there is only evidence against it, or none",
        _least,
        "0",
        "take another layer, or look at the negative numbers of the raw map (`--method hirescam --raw`)",
    ),
    "flat-map": Cause(
        "flat",
        "the map is the same nearly everywhere, so that it shows no place",
        _evenness,
        f"{FLAT:g}",
        "take an earlier layer with a finer grid (`--list-layers`), or another method",
    ),
}
