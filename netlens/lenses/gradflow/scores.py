"""Rules on the output, the labels and the loss: whether they fit each other, and whether the input matters. Standard library only."""

from __future__ import annotations

from collections.abc import Iterator

from netlens.findings import Finding, Severity
from netlens.lenses.gradflow.diagnosis import Flow, Ill
from netlens.lenses.gradflow.report import OutputFacts
from netlens.wording import number, short

IGNORED = 1e-10  # variance between samples / mean square of the output
ROUNDING = 1e-13  # a step of float32, squared; a fresh cait_xxs24, behind a LayerScale of 1e-5, has 1e-11
UNMOVED, DIFFERENT = 1e-7, 1e-8  # of the loss, when inputs change places: rounding; `between` of outputs that do differ; ours
BEGINNING = ((1.0, 0.5), (3.0, 1.5))  # loss above chance: more than both a number and a share of chance: warning, error
WITH_SIGMOID = ("bce_with_logits", "multilabel_soft_margin")
NOT_NEGATIVE = (  # losses of torch that are never below 0, as long as output and labels are what they want
    *("cross_entropy", "nll", "bce", *WITH_SIGMOID, "mse", "l1", "smooth_l1", "huber", "kl_div", "soft_margin", "multi_margin"),
    *("multilabel_margin", "ctc", "cosine_embedding", "margin_ranking", "triplet_margin", "triplet_margin_with_distance"),
)
IGNORED_LABELS = (-100, 255)  # by convention
SHAPING = ("flatten", "unflatten", "identity", "dropout", "squeeze")


def labels(flow: Flow) -> Iterator[Ill]:
    """Tell of labels that are outside what the loss takes."""
    output = flow.report.output
    least, greatest = (None, None) if output is None else (output.label_least, output.label_greatest)
    if output is None or least is None or greatest is None:
        return
    if output.classes is not None:
        low, high, kind = 0, output.classes - 1, f"class indices of {output.classes:,} scores"
    elif flow.report.run.loss in ("bce", *WITH_SIGMOID):
        low, high, kind = 0, 1, "shares"
    else:
        return
    ignored = IGNORED_LABELS if output.classes is not None else ()
    if (least < low and least not in ignored) or (greatest > high and greatest not in ignored):
        says = f"labels go from {least:g} to {greatest:g}, and as {kind} they must be in {low} to {high}"
        remedy = "count classes from 0, and let the last layer have as many outputs as there are classes" if output.classes else ""
        remedy = remedy or "bring labels to 0..1; -1 and 1 are for soft_margin"
        yield _ill("label-range", Severity.ERROR, says, f"{least:g} to {greatest:g}", f"{low} to {high}", remedy)


def scores(flow: Flow) -> Iterator[Ill]:
    """Tell of an activation at the end of the model that the loss has already, or has no use for."""
    output, loss = flow.report.output, flow.report.run.loss
    if output is None:
        return
    end, pooled = _end(flow)
    bounded = output.rows in ("in 0..1", "probabilities")
    if loss == "cross_entropy" and (output.rows == "probabilities" or (bounded and "sigmoid" in end)):
        says = f"cross_entropy is given {_described(output)}, and takes their softmax once more: gradients are far too small"
        yield _given("double-softmax", output, says, f"return scores: leave out the {_by(end, 'softmax')} at the end")
    elif loss in WITH_SIGMOID and bounded and ("sigmoid" in end or "softmax" in end):
        says = f"{loss} is given {_described(output)}, and takes their sigmoid once more"
        yield _given("double-sigmoid", output, says, f"return scores: leave out the {_by(end, 'sigmoid')} at the end")
    elif loss == "nll" and output.rows != "log probabilities":
        says = f"nll is given {_described(output)}, and wants log probabilities: it can fall without end, and is no likelihood"
        yield _given("nll-on-logits", output, says, "use cross_entropy on scores, or return log_softmax")
    elif loss in ("cross_entropy", *WITH_SIGMOID) and output.rows in ("not negative", "in 0..1") and end in ("relu", "relu6"):
        severity = Severity.INFO if pooled else Severity.WARNING
        says = f"{loss} is given the output of a ReLU{', pooled' if pooled else ''}: no score is ever negative"
        remedy = "nothing, where it is meant (SqueezeNet)" if pooled else "return scores: leave out the ReLU at the end"
        yield _given("relu-on-logits", output, says, remedy, severity)


def _end(flow: Flow) -> tuple[str, bool]:
    """Return the type of the last layer that computes anything, in lower case, and whether pooling follows it."""
    pooled = False
    for layer in reversed(flow.report.layers):
        name = layer.type.lower()
        if "pool" in name:
            pooled = True
        elif not name.startswith(SHAPING):
            return name, pooled
    return "", pooled


def _by(end: str, otherwise: str) -> str:
    return next((name for name in ("softmax", "sigmoid") if name in end), otherwise)


def _described(output: OutputFacts) -> str:
    rows = {"probabilities": "probabilities", "in 0..1": "numbers in 0..1", "not negative": "numbers of which none is negative"}
    return rows.get(output.rows, output.rows)


def _given(code: str, output: OutputFacts, says: str, remedy: str, severity: Severity = Severity.ERROR) -> Ill:
    return _ill(code, severity, says, f"rows are {_described(output)}", "", remedy, output.name)


def dependence(flow: Flow) -> Iterator[Ill]:
    """Tell of an output, or a loss, that does not depend on the input; and of a last layer that begins at 0, of which that is expected."""
    output = flow.report.output
    if output is None:
        return
    if output.zero_head:
        says = "the last layer is all 0: the first gradient goes no further, by design in many models; from the second step on it does"
        yield _ill("zero-output", Severity.INFO, says, "", "", "nothing", output.name)
    elif output.between is not None and output.between < IGNORED:
        fresh = flow.fresh and output.between > ROUNDING
        says = "the output does not depend on the input"
        more = "; a fresh network may start so, behind a gate near 0" if fresh else ": all samples give the same"
        measured = f"variance between samples / mean square {number(output.between)}"
        remedy = "`netlens featuremaps` names the layer where the input is lost"
        severity = Severity.INFO if fresh else Severity.ERROR
        yield _ill("input-ignored", severity, f"{says}{more}", measured, f"{IGNORED:g}", remedy, output.name)
    elif output.loss_moves is not None and output.loss_moves < UNMOVED and (output.between or 0) > DIFFERENT:
        says = "the loss does not depend on the input, though the output does"
        remedy = "look at what the loss is made of: argmax, rounding, a clamp, a softmax of one class, or labels that are all ignored"
        yield _ill("loss-ignores-input", Severity.ERROR, says, f"it moves by {number(output.loss_moves)} of itself", f"{UNMOVED:g}", remedy)


def values(flow: Flow) -> Iterator[Ill]:
    """Tell of a loss below 0, and of a first loss far above that of knowing nothing."""
    output, losses = flow.report.output, [step.loss for step in flow.report.steps]
    if losses and min(losses) < 0:
        known = flow.report.run.loss in NOT_NEGATIVE
        says = f"the loss is negative{f', which {flow.report.run.loss} never is by right' if known else ''}"
        remedy = (
            "look at output and labels: kl_div wants log probabilities, and targets that are probabilities"
            if known
            else "nothing, if meant"
        )
        yield _ill("negative-loss", Severity.WARNING if known else Severity.INFO, says, number(min(losses)), "0", remedy)
    if flow.fresh and output is not None and output.chance and output.expected is not None:
        above = output.expected - output.chance
        warning, error = (max(least, part * output.chance) for least, part in BEGINNING)
        if above > warning:
            severity = Severity.ERROR if above > error else Severity.WARNING
            says = f"the loss begins at {number(output.expected)}, where knowing nothing costs ln(classes) = {number(output.chance)}"
            remedy = "look at the size of the inputs, about 1 is usual; scale the last layer's weights down, or normalise before it"
            bounds = f"{number(warning)} (warning), {number(error)} (error) above ln(classes)"
            yield _ill("init-loss", severity, says, f"{number(above)} above", bounds, remedy)


def _ill(code: str, severity: Severity, says: str, measured: str, threshold: str, remedy: str, where: str = "") -> Ill:
    return Ill(Finding(code, severity, short(where), says, measured, threshold, remedy), says)
