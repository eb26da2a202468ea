"""Rules on what a training step of the user's own does around its backward pass: the mistakes of a loop. Standard library only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from netlens.findings import Finding, Severity
from netlens.lenses.gradflow.diagnosis import Flow, Ill
from netlens.lenses.gradflow.rates import SMALL_STEP
from netlens.lenses.gradflow.report import Stepping
from netlens.wording import number

CLIPPED = 0.1  # part of the norm that clipping leaves, where steps are too small: it is to blame; ours
_SMALL = ("update-ratio-low", "update-imbalance")
SILENCES: Mapping[str, tuple[str, ...]] = {
    "stepped-early": _SMALL,
    "gradients-cleared": _SMALL,
    "gradients-clipped": _SMALL,
}


def calls(flow: Flow) -> Iterator[Ill]:
    """Tell what is wrong in the order of zero_grad, forward, backward and step."""
    found = flow.report.stepping
    if found is None:
        return
    if found.early == found.calls:
        yield _early(found)
    elif found.cleared == found.calls:
        says = "the gradients are cleared between the backward pass and the optimizer's step"
        yield _ill("gradients-cleared", Severity.ERROR, says, found.cleared, found, "call zero_grad() before backward(), or after step()")
    elif found.idle == found.calls and found.still and not found.passive:
        yield from _idle(found)
    if found.kept:
        says = "gradients of an earlier step are still there when backward runs, and are added to"
        yield _ill("gradients-kept", Severity.WARNING, says, found.kept, found, "call optimizer.zero_grad() before each backward pass")
    if found.rebuilt:
        says = "a new model is made in each call: what one has learned, the next does not know"
        remedy = "make model and optimizer once, outside of the function"
        yield _ill("model-rebuilt", Severity.WARNING, says, found.rebuilt, found, remedy)
    yield from _clipped(flow, found)


def _early(found: Stepping) -> Ill:
    says = "the optimizer steps, and no backward pass runs" if found.passive else "the optimizer steps before the backward pass"
    says += ": it has no gradients, and moves no weight by them"
    return _ill("stepped-early", Severity.ERROR, says, found.early, found, "call loss.backward(), then optimizer.step()")


def _idle(found: Stepping) -> Iterator[Ill]:
    """Without an optimizer, one call may be meant for its gradients alone."""
    if found.optimizer or found.calls > 1:
        says = "a backward pass runs, and nothing moves the weights: " + (
            "the optimizer never steps" if found.optimizer else "there is no optimizer"
        )
        remedy = "call optimizer.step() after backward(); where gradients are accumulated over more calls, raise --steps until one steps"
        yield _ill("never-stepped", Severity.WARNING, says, found.idle, found, remedy)


def _clipped(flow: Flow, found: Stepping) -> Iterator[Ill]:
    """Tell of clipping that leaves next to nothing; what an optimizer makes of that may be right, as Adam does."""
    before, after = found.clipped or (0.0, 0.0)
    steps = [update for place in flow.weights if (update := flow.parameters[place].update) is not None]
    if found.clipped and after < CLIPPED * before and steps and max(steps) < SMALL_STEP[0]:
        says = f"gradients are clipped from a norm of {number(before)} to {number(after)}"
        remedy = "clip to a larger norm: a usual one is 1, or a little above the norms of healthy steps"
        finding = Finding(
            "gradients-clipped", Severity.WARNING, "", says, f"{number(after / before)} of the norm is left", f"{CLIPPED:g}", remedy
        )
        yield Ill(finding, says)


def _ill(code: str, severity: Severity, says: str, count: int, found: Stepping, remedy: str) -> Ill:
    return Ill(Finding(code, severity, "", says, f"in {count:,} of {found.calls:,} calls", "0", remedy), says)
