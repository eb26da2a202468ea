"""What is wrong with what a model computes: one finding a rule, at the layer where it begins or is worst. Standard library only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean

from netlens.findings import Finding, Severity
from netlens.lenses.featuremaps.report import FeaturemapsReport, LayerActivity
from netlens.lenses.featuremaps.verdicts import ENOUGH, RULES, Verdict, verdicts
from netlens.wording import counted, listed, number, short

IGNORED, INVARIANT = 1e-10, 1e-6  # variance between samples / mean square, at the end of the network: error, warning
VANISHED = (1e-5, 1e-8)  # RMS / RMS of the input, of all that comes after; ours: a fresh alexnet has 1e-3
ATTENTION, ATTENTION_KEYS = 0.10, 8  # mean entropy / ln N
CERTAIN_FRESH = 0.9  # mean largest probability of a model that has learned nothing; ours: with ln C of loss it would be 1 / C
CERTAIN_CLASSES = 3

LOST = "what comes out no longer depends on what goes in"


def diagnose(report: FeaturemapsReport) -> tuple[Finding, ...]:
    """Return what is wrong. After a value that is not finite nothing else is judged: it follows from that."""
    broken = tuple(_nonfinite(report))
    if broken:
        return broken
    return (*_lost(report), *_vanished(report), *_layers(report), *_attention(report), *_output(report))


def alarms(report: FeaturemapsReport) -> dict[str, str]:
    """Return a short word for each layer that is not well: name -> "dead, collapsed"."""
    said = {layer.name: ", ".join(RULES[code].word for code in verdicts(layer, report.run)) for layer in report.layers}
    if report.first_nonfinite is not None:
        said[report.first_nonfinite.name] = "not finite"
    elif (start := lost_from(report.layers, INVARIANT)) is not None:
        said[start.name] = "input lost"
    return {name: words for name, words in said.items() if words}


def marks(report: FeaturemapsReport) -> dict[int, dict[str, Severity]]:
    """Return which cells of the table are sick: index of a layer -> column -> how bad. What is only info has no mark."""
    found: dict[int, dict[str, Severity]] = {}
    for layer in report.layers:
        if layer.nan or layer.infinite:
            found.setdefault(layer.index, {})["nonfinite"] = Severity.ERROR
        for code, verdict in verdicts(layer, report.run).items():
            if verdict.severity > Severity.INFO:
                cells = found.setdefault(layer.index, {})
                cells.update({column: max(verdict.severity, cells.get(column, verdict.severity)) for column in RULES[code].columns})
    return found


def _nonfinite(report: FeaturemapsReport) -> Iterator[Finding]:
    first = report.first_nonfinite
    if first is not None:
        told = ", ".join(f"{count:,} {name}" for count, name in ((first.nan, "NaN"), (first.infinite, "Inf")) if count)
        own = "its own weights are not finite: `netlens kernels` shows where; go back to an earlier checkpoint"
        other = "look for an overflow (fp16: try --dtype bf16), a division by zero, or the logarithm or root of what is not positive"
        message = "it is the first layer that makes NaN or Inf out of finite numbers"
        remedy = own if first.weights else other
        yield Finding("act-nonfinite", Severity.ERROR, short(first.name), message, f"{told} in sample {first.sample}", "0", remedy)
    elif (odd := next((layer for layer in report.layers if layer.nan or layer.infinite), None)) is not None:
        remedy = "check the data: `netlens check-data`, or print torch.isfinite(x).all()"
        message = "its output is not finite, and neither is what the model was given"
        yield Finding("act-nonfinite", Severity.ERROR, short(odd.name), message, f"{odd.nan:,} NaN, {odd.infinite:,} Inf", "0", remedy)
    elif report.output is not None and report.output.nonfinite:
        count = report.output.nonfinite
        remedy = "look at the first layer that is not finite; a loss of this is NaN"
        yield Finding(
            "output-nonfinite", Severity.ERROR, report.output.name, "the model's output is not finite", f"{count:,} NaN or Inf", "0", remedy
        )


def lost_from(layers: Sequence[LayerActivity], bound: float) -> LayerActivity | None:
    """Return the first layer from which on the outputs of all samples are alike up to the end; class tokens and side inputs may be before.

    Args:
        layers: in the order in which they ran.
        bound: of the variance between samples / mean square.
    """
    start = None
    for layer in reversed(layers):
        if layer.between is None:
            continue
        if layer.between >= bound:
            break
        start = layer
    return start


def _lost(report: FeaturemapsReport) -> Iterator[Finding]:
    """The output of all samples is the same: the input is ignored."""
    between = None if report.output is None else report.output.between
    if report.run.samples < 2 or between is None or between >= INVARIANT:
        return
    start = lost_from(report.layers, INVARIANT)
    where = "" if start is None else short(start.name)
    ignored = between < IGNORED
    begins = "" if start is None else f"; it is lost from `{short(start.name)}` ({start.type}) on"
    yield Finding(
        "input-ignored" if ignored else "batch-invariant",
        Severity.ERROR if ignored else Severity.WARNING,
        where,
        f"{LOST}: all {report.run.samples:,} samples give {'the same' if ignored else 'nearly the same'} output{begins}",
        measured=f"variance between samples / mean square {number(between)}",
        threshold=f"{INVARIANT:g} (warning), {IGNORED:g} (error)",
        remedy="look at the weights and biases of that layer: zeros, a dead activation before it, or a bias that drowns the signal",
    )


def _vanished(report: FeaturemapsReport) -> Iterator[Finding]:
    """The signal has become tiny and stays so up to the last layers; branches that are scaled down on purpose come back."""
    reference = report.run.input_rms
    start, least = None, 0.0
    for layer in reversed([layer for layer in report.layers if not layer.final and layer.rms and reference]):
        ratio = (layer.rms or 0) / (reference or 1)
        if ratio >= VANISHED[0]:
            break
        start, least = layer, min(ratio, least or ratio)
    if start is None:
        return
    yield Finding(
        "vanishing-activations",
        Severity.ERROR if least <= VANISHED[1] else Severity.WARNING,
        short(start.name),
        f"the signal dies: from here on it is at most {number(VANISHED[0])} of the input's size, and does not recover",
        measured=f"RMS / RMS of the input down to {number(least)}",
        threshold=f"{VANISHED[0]:g} (warning), {VANISHED[1]:g} (error)",
        remedy="initialise with a standard deviation of about 1 / sqrt(fan-in) (`netlens kernels` names the layers), or normalise",
    )


def _layers(report: FeaturemapsReport) -> Iterator[Finding]:
    found = [(layer, code, verdict) for layer in report.layers for code, verdict in verdicts(layer, report.run).items()]
    for code, rule in RULES.items():
        ill = sorted(((layer, verdict) for layer, of, verdict in found if of == code), key=lambda pair: _order(pair[1]))
        if ill:
            (worst, verdict), others = ill[0], ill[1:]
            yield Finding(
                code,
                _for_noise(verdict.severity, report, code),
                short(worst.name),
                verdict.message + _others(others),
                measured=verdict.measured,
                threshold=rule.threshold,
                remedy=rule.remedy,
            )


def _for_noise(severity: Severity, report: FeaturemapsReport, code: str) -> Severity:
    """A trained network may well be silent on noise, which is none of its pictures."""
    noise = report.run.random_inputs and report.initialised is not True and code in ("dead-relu", "rank-collapse", "redundant-channels")
    return min(severity, Severity.WARNING) if noise else severity


def _order(verdict: Verdict) -> tuple[int, float]:
    return -verdict.severity, -verdict.badness


def _others(ill: Sequence[tuple[LayerActivity, Verdict]]) -> str:
    if not ill:
        return ""
    return f"; the worst of {len(ill) + 1:,} layers, before {listed([f'{short(layer.name)} ({verdict.brief})' for layer, verdict in ill])}"


def _attention(report: FeaturemapsReport) -> Iterator[Finding]:
    means = [(fmean(layer.entropy), layer) for layer in report.attention if layer.entropy and layer.keys >= ATTENTION_KEYS]
    ill = sorted(((mean, layer) for mean, layer in means if mean < ATTENTION), key=lambda pair: pair[0])
    if ill:
        mean, layer = ill[0]
        names = [f"{short(each.name)} ({number(value)})" for value, each in ill[1:]]
        more = f"; the worst of {counted(len(ill), 'layer')}, before {listed(names)}" if names else ""
        yield Finding(
            "attention-collapse",
            Severity.WARNING,
            short(layer.name),
            f"each token attends to hardly more than one other{more}",
            measured=f"mean entropy / ln {layer.keys:,} = {number(mean)}",
            threshold=f"{ATTENTION:g}",
            remedy="look at the scale of queries and keys: too large a learning rate, or a missing 1 / sqrt(d); QK-normalisation helps",
        )


def _output(report: FeaturemapsReport) -> Iterator[Finding]:
    output = report.output
    if output is None or (output.classes or 0) < CERTAIN_CLASSES or (output.between or 0) < INVARIANT:
        return
    if report.initialised is True and output.top_probability is not None and output.top_probability > CERTAIN_FRESH:
        yield Finding(
            "overconfident",
            Severity.WARNING,
            output.name,
            "it is sure of its answers before it has learned anything: the scores are far too large",
            measured=f"mean largest probability {number(output.top_probability)}",
            threshold=f"{CERTAIN_FRESH:g}; {number(1 / (output.classes or 1))} would be chance",
            remedy="scale the last layer's weights down, or normalise before it: the first loss should be near ln(classes)",
        )
    if output.predicted == 1 and report.run.samples >= ENOUGH and not report.run.random_inputs:
        yield Finding(
            "constant-output",
            Severity.INFO if report.initialised is True else Severity.WARNING,
            output.name,
            f"it predicts the same class for all {report.run.samples:,} samples",
            measured="1 class",
            threshold="2 classes, unless the samples are of one",
            remedy="check the preprocessing (--size, --mean, --std) and the labels: collapse to one class is the commonest sign of both",
        )
