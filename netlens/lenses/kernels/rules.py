"""What is wrong with the weights of a model, and with the statistics of its normalisations. Standard library only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from netlens.findings import Finding, Severity
from netlens.lenses.kernels.report import KernelsReport, LayerWeights, NormStatistics
from netlens.lenses.kernels.rulebook import RULES, verdicts
from netlens.lenses.kernels.verdicts import Verdict
from netlens.wording import counted, listed, number, short

NOISE_Z = 4.0  # standard deviations of independent weights; 200 layers of noise exceed it once in 80 models
NOISE_KERNEL = 3  # kernels smaller than this have too few neighbours
NOISE_WEIGHTS = 2_000  # in all such kernels together: fewer could hide a smoothness of 0.1 in their noise


def diagnose(report: KernelsReport) -> tuple[Finding, ...]:
    """Return what is wrong: one finding a rule, at the worst layer. A healthy fresh model gives nothing."""
    return (*_layers(report), *_bad_statistics(report), *_stale_statistics(report), *_untrained(report), *_unchanged(report))


def marks(report: KernelsReport) -> dict[int, dict[str, Severity]]:
    """Return which cells of the table are sick: index of a layer -> column -> how bad. What is only info has no mark."""
    found: dict[int, dict[str, Severity]] = {}
    for layer in report.layers:
        for code, verdict in verdicts(layer, report.initialised is True).items():
            if verdict.severity > Severity.INFO:
                cells = found.setdefault(layer.index, {})
                cells.update({column: max(verdict.severity, cells.get(column, verdict.severity)) for column in RULES[code].columns})
    return found


def _layers(report: KernelsReport) -> Iterator[Finding]:
    fresh = report.initialised is True
    found = [(layer, code, verdict) for layer in report.layers for code, verdict in verdicts(layer, fresh).items()]
    for code, rule in RULES.items():
        ill = sorted(((layer, verdict) for layer, of, verdict in found if of == code), key=lambda pair: _order(pair[1]))
        if ill:
            (worst, verdict), others = ill[0], ill[1:]
            yield Finding(
                code,
                verdict.severity,
                short(worst.name),
                verdict.message + _others(others),
                measured=verdict.measured,
                threshold=rule.threshold,
                remedy=(fresh and rule.fresh_remedy) or rule.remedy,
            )


def _order(verdict: Verdict) -> tuple[int, float]:
    return -verdict.severity, -verdict.badness


def _others(ill: Sequence[tuple[LayerWeights, Verdict]]) -> str:
    if not ill:
        return ""
    return f"; the worst of {len(ill) + 1:,} layers, before {listed([f'{short(layer.name)} ({verdict.brief})' for layer, verdict in ill])}"


def _bad_statistics(report: KernelsReport) -> Iterator[Finding]:
    bad = [norm for norm in report.norms if norm.nonfinite or (norm.least_variance or 0) < 0]
    if bad:
        nonfinite, variance = bad[0].nonfinite, bad[0].least_variance
        yield Finding(
            "bn-stats-bad",
            Severity.ERROR,
            short(bad[0].name),
            f"its running {'mean or variance is not finite' if nonfinite else 'variance is negative'}{_more(bad)}",
            measured=f"{nonfinite:,} NaN or Inf" if nonfinite or variance is None else f"variance {number(variance)}",
            threshold="finite, and a variance of 0 or more",
            remedy="eval mode gives NaN: find the first batch with NaN or Inf, or take an earlier checkpoint",
        )


def _stale_statistics(report: KernelsReport) -> Iterator[Finding]:
    stale = [norm for norm in report.norms if norm.untouched and norm.affine_moved]
    if stale and report.initialised is not True:
        yield Finding(
            "bn-stats-stale",
            Severity.WARNING,
            short(stale[0].name),
            f"its running mean and variance are still 0 and 1, while its weight and bias were trained{_more(stale)}",
            measured=f"{len(stale):,} of {counted(len(report.norms), 'normalisation')}",
            threshold="0",
            remedy="eval mode normalises by wrong numbers: train with model.train() and momentum > 0, save buffers, or recompute them",
        )


def _more(norms: Sequence[NormStatistics]) -> str:
    return f"; also {listed([short(norm.name) for norm in norms[1:]])}" if len(norms) > 1 else ""


def _untrained(report: KernelsReport) -> Iterator[Finding]:
    """Filters of a trained network are smooth somewhere: neighbours in a kernel see neighbours in the picture."""
    seen = [layer for layer in report.layers if layer.smoothness_z is not None and max(_kernel(layer), default=1) >= NOISE_KERNEL]
    largest = max((abs(layer.smoothness_z or 0) for layer in seen), default=NOISE_Z)
    weights = sum(layer.filters * layer.fan_in for layer in seen)
    if report.initialised is True or not largest < NOISE_Z or weights < NOISE_WEIGHTS:
        return
    which = "the one convolution" if len(seen) == 1 else f"all {len(seen):,} convolutions"
    yield Finding(
        "untrained-filters",
        Severity.WARNING,
        "",
        f"the kernels of {which} larger than 1 x 1 that were looked at cannot be told from random initialisation: "
        "neighbouring weights are not related",
        measured=f"at most {number(largest)} standard deviations of independent weights",
        threshold=f"{NOISE_Z:g} in one layer at least",
        remedy="check that this checkpoint was trained and that its names fit the model: a network that learned has smooth filters",
    )


def _kernel(layer: LayerWeights) -> tuple[int, ...]:
    return layer.shape[2:] if layer.kind.startswith("conv") else ()


def _unchanged(report: KernelsReport) -> Iterator[Finding]:
    compared = [layer for layer in report.layers if layer.change is not None]
    same = [layer for layer in compared if layer.change is not None and layer.change.largest == 0]
    if not same:
        return
    whole = len(same) == len(compared)
    names = listed([short(layer.name) for layer in same])
    yield Finding(
        "weights-unchanged",
        Severity.INFO,
        "" if whole else short(same[0].name),
        "no layer moved: both hold the same weights" if whole else f"{counted(len(same), 'layer')} did not move, while others did: {names}",
        measured=f"{len(same):,} of {counted(len(compared), 'layer')} equal bit for bit",
        remedy="compare two different checkpoints" if whole else "normal where they are frozen; otherwise they never got a gradient",
    )


def alarms(report: KernelsReport) -> dict[str, str]:
    """Return a short word for each layer that is not well: name -> "spike, outliers"."""
    fresh = report.initialised is True
    said = {layer.name: ", ".join(RULES[code].word for code in verdicts(layer, fresh)) for layer in report.layers}
    return {name: words for name, words in said.items() if words}
