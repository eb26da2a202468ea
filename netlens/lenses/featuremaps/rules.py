"""What is wrong with what a model computes: one finding a rule, at the layer where it begins or is worst. Standard library only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from netlens.findings import Finding, Severity
from netlens.lenses.featuremaps.diagnosis import ATTENTION, IGNORED, INVARIANT, VANISHED, Diagnosis, Ill
from netlens.lenses.featuremaps.report import FeaturemapsReport, OutputFacts
from netlens.lenses.featuremaps.verdicts import ENOUGH, RECTIFIERS, RULES
from netlens.wording import counted, number, short

CERTAIN_FRESH = 0.9  # mean largest probability of a model that has learned nothing; ours: healthy fresh models stay below 0.1
CERTAIN_CLASSES = 3
UNDECIDED = 0.5  # mean entropy / ln(classes); ours: the trained ShapeNet has below 0.15 on pictures of one class, a fresh body 0.97
HARDLY = 0.02  # variance between samples / mean square; ours: 0.06 on pictures of one class, 0.002 with a bias that decides
NAMED = 3  # layers that a finding lists beside its own

LOST = "what comes out no longer depends on what goes in"


def diagnose(report: FeaturemapsReport) -> tuple[Finding, ...]:
    """Return what is wrong, each fault once."""
    found = Diagnosis(report)
    if found.broken:
        return tuple(_nonfinite(report))
    causes = (*_lost(found), *_vanished(found), *_layers(found), *_attention(found), *_passing(found))
    symptoms = () if any(cause.severity > Severity.INFO for cause in causes) else _output(report)
    return (*causes, *symptoms)


def alarms(report: FeaturemapsReport) -> dict[str, str]:
    """Return a short word for each layer that is not well: name -> "dead, collapsed"."""
    found = Diagnosis(report)
    said: dict[str, list[str]] = {}
    if found.broken and report.first_nonfinite is not None:
        said[report.first_nonfinite.name] = ["not finite"]
    if found.lost is not None:
        said[found.lost.name] = ["input lost"]
    if found.vanished is not None:
        said.setdefault(found.vanished[0].name, []).append("vanishing")
    for each in found.ill:
        if each.verdict.severity > Severity.INFO:
            said.setdefault(each.layer.name, []).append(RULES[each.code].word)
    return {name: ", ".join(words) for name, words in said.items()}


def marks(report: FeaturemapsReport) -> dict[int, dict[str, Severity]]:
    """Return which cells of the table are sick: index of a layer -> column -> how bad. What is only info has no mark."""
    found = Diagnosis(report)
    cells = [(layer.index, "nonfinite", Severity.ERROR) for layer in report.layers if found.broken and (layer.nan or layer.infinite)]
    cells += [(each.layer.index, name, each.verdict.severity) for each in found.ill for name in RULES[each.code].columns]
    if found.lost is not None:
        cells.append((found.lost.index, "between", Severity.ERROR))
    if found.vanished is not None:
        cells.append((found.vanished[0].index, "std", Severity.WARNING))
    sick: dict[int, dict[str, Severity]] = {}
    for index, name, severity in cells:
        if severity > Severity.INFO:
            row = sick.setdefault(index, {})
            row[name] = max(severity, row.get(name, severity))
    return sick


def peaked(report: FeaturemapsReport) -> set[str]:
    """Return the names of attention layers that look at hardly more than one token."""
    return {layer.name for _, layer in Diagnosis(report).peaked}


def too_few(report: FeaturemapsReport) -> tuple[str, ...]:
    """Return a note on the rules that had too few samples to speak, of those that this model gives something to look at."""
    samples = report.run.samples
    if Diagnosis(report).broken or samples >= ENOUGH:
        return ()
    late = ["dead channels"] if any(layer.activation in RECTIFIERS and not layer.final for layer in report.layers) else []
    late += ["one class for all"] if _may_collapse(report) else []
    told = ["whether the output depends on the input, or channels are copies, is told from 2 samples on"] if samples < 2 else []
    told += [f"{' and '.join(late)} from {ENOUGH} samples on"] if late else []
    return (f"{counted(samples, 'sample')}: {', '.join(told)}",) if told else ()


def _nonfinite(report: FeaturemapsReport) -> Iterator[Finding]:
    first = report.first_nonfinite
    if first is not None:
        told = ", ".join(f"{count:,} {name}" for count, name in ((first.nan, "NaN"), (first.infinite, "Inf")) if count)
        own = "its own weights are not finite: `netlens kernels` shows where; go back to an earlier checkpoint"
        other = "look for an overflow (fp16: try --dtype bf16), a division by zero, or the logarithm or root of what is not positive"
        message = "it is the first layer that makes NaN or Inf out of finite numbers"
        wrong = next((layer.name for layer in report.layers if layer.nan), first.name)
        message += f"; the first NaN is in `{short(wrong)}`: Inf alone may be a mask" if not first.nan and wrong != first.name else ""
        remedy = own if first.weights else other
        yield Finding("act-nonfinite", Severity.ERROR, short(first.name), message, f"{told} in sample {first.sample}", "0", remedy)
    elif (odd := next((layer for layer in report.layers if layer.nan or layer.infinite), None)) is not None:
        remedy = "check the data: print torch.isfinite(x).all() for each sample"
        message = "its output is not finite, and neither is what the model was given"
        yield Finding("act-nonfinite", Severity.ERROR, short(odd.name), message, f"{odd.nan:,} NaN, {odd.infinite:,} Inf", "0", remedy)
    elif report.output is not None and report.output.nonfinite:
        count = report.output.nonfinite
        remedy = "look at the first layer that is not finite; a loss of this is NaN"
        yield Finding(
            "output-nonfinite", Severity.ERROR, report.output.name, "the model's output is not finite", f"{count:,} NaN or Inf", "0", remedy
        )


def _passing(found: Diagnosis) -> Iterator[Finding]:
    """Inf that something takes away again. Its sign is not known: an overflow that a clamp hides is told by the size of what is finite."""
    if found.passing:
        first, infinite = found.passing[0], sum(layer.infinite for layer in found.passing)
        yield Finding(
            "act-nonfinite",
            Severity.INFO,
            short(first.name),
            "Inf that is gone again later: a mask of -inf looks like this",
            measured=f"{infinite:,} Inf in {counted(len(found.passing), 'layer')}, no NaN, and the output is finite",
            threshold="0",
            remedy="nothing, where it is a mask; else look for an overflow that a clamp or a squashing function hides",
        )


def _lost(found: Diagnosis) -> Iterator[Finding]:
    """The output of all samples is the same: the input is ignored. Left out where a rule about that layer, or before it, says why."""
    output, start, severity = found.report.output, found.lost, found.ignored
    if output is None or severity is None or found.vanished is not None or any(each.layer is start for each in found.ill):
        return
    ignored = (output.between or 0) < IGNORED
    fresh = "; a fresh network may start so, behind a gate or LayerScale near 0: look again after some steps of training"
    begins = f"; it is lost from `{short(start.name)}` ({short(start.type)}) on" if start is not None else ""
    yield Finding(
        "input-ignored" if ignored else "batch-invariant",
        severity,
        "" if start is None else short(start.name),
        f"{LOST}: all {found.report.run.samples:,} samples give {'the same' if ignored else 'nearly the same'} output"
        + (fresh if severity is Severity.INFO else begins),
        measured=f"variance between samples / mean square {number(output.between or 0)}",
        threshold="1e-6 (warning), 1e-10 (error)",
        remedy="look at the weights and biases of that layer: zeros, a dead activation before it, or a bias that drowns the signal",
    )


def _vanished(found: Diagnosis) -> Iterator[Finding]:
    if found.vanished is None:
        return
    start, least = found.vanished
    yield Finding(
        "vanishing-activations",
        Severity.ERROR if least <= VANISHED[1] or found.lost is not None else Severity.WARNING,
        short(start.name),
        "the signal dies: from here on its RMS is below 1e-5 of the input's, and does not recover"
        + (f"; {LOST}" if found.lost is not None else ""),
        measured=f"RMS / RMS of the input down to {number(least)}",
        threshold="1e-5 (warning), 1e-8 (error)",
        remedy="initialise with a standard deviation of about 1 / sqrt(fan-in) (`netlens kernels` names the layers), or normalise",
    )


def _layers(found: Diagnosis) -> Iterator[Finding]:
    for code, rule in RULES.items():
        ill = [each for each in found.ill if each.code == code]
        worst_first = sorted(ill, key=lambda each: (each.layer is not found.lost, -each.verdict.severity, -each.verdict.badness))
        if not ill:
            continue
        first = ill[0] if rule.begins else worst_first[0]
        others = [each for each in worst_first if each is not first]
        yield Finding(
            code,
            max(each.verdict.severity for each in ill),
            short(first.layer.name),
            first.verdict.message + (f"; {LOST}" if first.layer is found.lost else "") + _others(others, rule.begins),
            measured=first.verdict.measured,
            threshold=first.verdict.threshold or rule.threshold,
            remedy=rule.remedy,
        )


def _others(ill: Sequence[Ill], begins: bool) -> str:
    """Say which other layers have it; `ill` is sorted, the worst first."""
    if not ill:
        return ""
    names = listed_few([f"{short(each.layer.name)} ({each.verdict.brief})" for each in ill])
    return f"; it begins here, and is in {counted(len(ill), 'later layer')}: {names}" if begins else f"; also {names}"


def listed_few(texts: Sequence[str]) -> str:
    """Return the first of them, and how many more there are."""
    more = f" and {len(texts) - NAMED:,} more" if len(texts) > NAMED else ""
    return ", ".join(texts[:NAMED]) + more


def _attention(found: Diagnosis) -> Iterator[Finding]:
    if found.peaked:
        (mean, layer), *others = found.peaked
        names = listed_few([f"{short(each.name)} ({number(value)})" for value, each in others])
        yield Finding(
            "attention-collapse",
            Severity.WARNING,
            short(layer.name),
            f"each token attends to hardly more than one other{f'; also {names}' if names else ''}",
            measured=f"mean entropy / ln {layer.keys:,} = {number(mean)}",
            threshold=f"{ATTENTION:g}",
            remedy="look at the scale of queries and keys: too large a learning rate, or a missing 1 / sqrt(d); QK-normalisation helps",
        )


def _output(report: FeaturemapsReport) -> Iterator[Finding]:
    """What the scores of classes show; of a fresh model's predictions nothing is said, they are chance."""
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
    if output.predicted == 1 and report.run.samples >= ENOUGH and _may_collapse(report):
        yield _constant(output, report.run.samples)


def _may_collapse(report: FeaturemapsReport) -> bool:
    """Tell whether it would mean something if all samples got one class: a network that has learned, on real samples."""
    classes = 0 if report.output is None else report.output.classes or 0
    return classes >= CERTAIN_CLASSES and not report.run.random_inputs and report.initialised is not True


def _constant(output: OutputFacts, samples: int) -> Finding:
    """One class for all samples is right where they are of one: then the model is sure, and its scores still differ between them."""
    entropy, between = output.entropy or 0, output.between or 0
    if entropy >= UNDECIDED:
        severity, why = Severity.WARNING, ", and is undecided about each"
    elif between < HARDLY:
        severity, why = Severity.WARNING, ", and its scores hardly depend on which"
    else:
        severity, why = Severity.INFO, ", and is sure of it: right where they are all of that class"
    return Finding(
        "constant-output",
        severity,
        output.name,
        f"it predicts the same class for all {samples:,} samples{why}",
        measured=f"1 class, entropy / ln(classes) {number(entropy)}, variance between samples / mean square {number(between)}",
        threshold=f"entropy {UNDECIDED:g} or more, or variance below {HARDLY:g} (warning)",
        remedy="where they are of several, check the preprocessing (--size, --mean, --std), the labels and what was trained",
    )
