"""What the gradflow lens draws of its trials: whether the model learns one batch, and which learning rates are of use."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

from PIL import Image

from netlens.drawing.captions import joined, significant
from netlens.drawing.curves import Curve, curve_plot
from netlens.lenses.gradflow.report import Overfit, RateRange
from netlens.wording import counted, listed

BROKEN = "not finite"


def overfit_curve(heading: str, overfit: Overfit) -> Image.Image:
    """Plot the loss of a copy that is trained on one batch."""
    levels = [(overfit.target, f"learned: {significant(overfit.target)}")]
    if overfit.chance is not None:
        levels.append((overfit.chance, f"chance: {significant(overfit.chance)}"))
    curve = Curve(range(1, len(overfit.losses) + 1), overfit.losses, "step", "loss", levels=levels)
    verdict = "passed: the model learned the batch" if overfit.passed else "failed: the model did not learn the batch"
    how = f"one batch of {counted(overfit.samples, 'sample')}, {overfit.optimizer}"
    words = joined(verdict, how, f"best of the last five: {significant(overfit.best)}")
    stopped = f"updates stopped: {listed(overfit.stopped)}" if overfit.stopped else ""
    return curve_plot(heading, curve, subtitle=words, footnote=joined(_ends(overfit.losses, "step", curve.x), stopped))


def rate_curve(heading: str, found: RateRange) -> Image.Image:
    """Plot the loss while the learning rate grows, and mark the rates that are of use."""
    span = at = None
    if found.low is not None:
        to = "on" if found.high is None else f"to {significant(found.high)}"
        span = (found.low, found.rates[-1] if found.high is None else found.high, f"usable: {significant(found.low)} {to}")
    if found.steepest is not None:
        at = (found.steepest, f"falls fastest: {significant(found.steepest)}")
    limit = _limit(found.losses)
    curve = Curve(found.rates, found.losses, "learning rate", "loss, smoothed", log_x=True, span=span, at=at, limit=limit)
    words = "the learning rate grows from step to step" + ("" if span else " · no usable range was found")
    beyond = max((loss for loss in found.losses if isfinite(loss) and limit is not None and loss > limit), default=None)
    foot = joined(
        "" if beyond is None else f"the loss leaves the plot, up to {significant(beyond)}",
        _ends(found.losses, "learning rate", found.rates),
        _untold(found),
    )
    return curve_plot(heading, curve, subtitle=words, footnote=foot)


def _untold(found: RateRange) -> str:
    """Say why rates that are too large may look as if they were not."""
    if found.high is not None or found.learned is None:
        return ""
    return f"from {significant(found.learned)} on the batches were learned already: whether a rate is too large no longer shows"


def _ends(losses: Sequence[float], name: str, places: Sequence[float]) -> str:
    """Say from where on the loss is not finite."""
    place = next((place for loss, place in zip(losses, places, strict=True) if not isfinite(loss)), None)
    return "" if place is None else f"the loss is {BROKEN} from {name} {place:.4g} on"


def _limit(losses: Sequence[float]) -> float | None:
    """Choose how high a plot reaches: above where the loss began, so that its fall is seen even where it explodes later."""
    known = [loss for loss in losses if isfinite(loss)]
    return known[0] + max(known[0] - min(known), 0.3 * abs(known[0])) if known else None
