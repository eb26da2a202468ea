"""Which layers are sick, each fault once: rules over one layer, put together along the network. Standard library only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean

from netlens.findings import Severity
from netlens.lenses.featuremaps.report import AttentionLayer, FeaturemapsReport, LayerActivity
from netlens.lenses.featuremaps.verdicts import Verdict, verdicts

IGNORED, INVARIANT = 1e-10, 1e-6  # variance between samples / mean square, at the end of the network: error, warning; healthy: 1.4e-4
ROUNDING = 1e-13  # a step of float32, squared; a fresh cait_xxs24, whose class token sees patches through a LayerScale of 1e-5, has 1e-11
VANISHED = (1e-5, 1e-8)  # RMS / min(1, RMS of the input), of all that comes after; ours: a fresh alexnet ends at 7e-3
ATTENTION, ATTENTION_KEYS = 0.10, 8  # mean entropy / ln N; the trained ShapeViT has 0.82
OF_SAMPLES = ("dead-relu", "rank-collapse", "redundant-channels")  # a trained network may well be silent on noise
ROOTS = ("exploding-activations", "rank-collapse")  # of what later layers inherit


@dataclass(frozen=True, slots=True)
class Ill:
    """What one rule says about one layer of this report."""

    layer: LayerActivity
    code: str
    verdict: Verdict


class Diagnosis:
    """What is wrong with a report. A fault is told once, where it begins: what follows from it is left out.

    After a NaN, or an Inf that reaches the output, nothing else is judged; nor are layers behind the one at which the input was lost.
    Values that are too large saturate what comes after them, and make scores sure; copies in one layer make those after it alike.
    """

    def __init__(self, report: FeaturemapsReport) -> None:
        self.report = report
        self.broken = not self.passing and (
            any(layer.nan or layer.infinite for layer in report.layers) or bool(report.output is not None and report.output.nonfinite)
        )

    @cached_property
    def passing(self) -> list[LayerActivity]:
        """The layers with Inf, where it left no NaN and is gone at the output: a mask of -inf, but not a weight that is Inf."""
        report, output = self.report, self.report.output
        bad_weights = report.first_nonfinite is not None and report.first_nonfinite.weights
        if bad_weights or output is None or output.nonfinite or any(layer.nan for layer in report.layers):
            return []
        return [layer for layer in report.layers if layer.infinite]

    @cached_property
    def ignored(self) -> Severity | None:
        """How bad it is that the output hardly depends on the sample; of a fresh network it means little as long as it does at all."""
        output = self.report.output
        if self.broken or self.report.run.samples < 2 or output is None or output.between is None or output.between >= INVARIANT:
            return None
        if self.report.initialised is True and output.between > ROUNDING:
            return Severity.INFO
        return Severity.ERROR if output.between < IGNORED else Severity.WARNING

    @cached_property
    def lost(self) -> LayerActivity | None:
        """The layer from which on nothing depends on the input, up to the output."""
        return lost_from(self.report.layers, INVARIANT) if (self.ignored or 0) > Severity.INFO else None

    @cached_property
    def vanished(self) -> tuple[LayerActivity, float] | None:
        """The layer from which on the signal is tiny, and how small it becomes; branches that are scaled down on purpose come back."""
        layers, usual = self.report.layers, min(1.0, self.report.run.input_rms or 1.0)
        found = None
        if self.broken or not layers or not layers[-1].final:  # where not all layers were looked at, it may recover
            return None
        for layer in reversed([layer for layer in layers if not layer.final and layer.rms]):
            ratio = (layer.rms or 0) / usual
            if ratio >= VANISHED[0]:
                break
            found = layer, min(ratio, ratio if found is None else found[1])
        return None if self.lost is not None and found is not None and found[0].index > self.lost.index else found

    @cached_property
    def ill(self) -> list[Ill]:
        """The verdicts on layers, in their order, less those that follow from an earlier one."""
        if self.broken:
            return []
        found = [
            Ill(layer, code, self._for_noise(code, verdict))
            for layer in self.report.layers
            for code, verdict in verdicts(layer, self.report.run).items()
        ]
        exploded, collapsed = (next((each.layer.index for each in found if each.code == code), None) for code in ROOTS)
        return [
            each
            for each in found
            if not (each.code == "saturated" and exploded is not None and each.layer.index >= exploded)
            and not (each.code == "redundant-channels" and collapsed is not None and each.layer.index >= collapsed)
            and not (each.code == "dead-relu" and self._starts_closed(each.layer))
            and (self.lost is None or each.layer.index < self.lost.index or (each.layer is self.lost and _explains(each)))
        ]

    @cached_property
    def peaked(self) -> list[tuple[float, AttentionLayer]]:
        """The attention layers with too little entropy, the worst first, each after its mean entropy."""
        if self.broken or self.lost is not None or self.has("exploding-activations"):
            return []
        means = [(fmean(layer.entropy), layer) for layer in self.report.attention if layer.entropy and layer.keys >= ATTENTION_KEYS]
        return sorted(((mean, layer) for mean, layer in means if mean < ATTENTION), key=lambda pair: pair[0])

    def has(self, code: str) -> bool:
        """Tell whether a rule found any layer."""
        return any(each.code == code for each in self.ill)

    def _starts_closed(self, layer: LayerActivity) -> bool:
        """Tell whether a layer of a fresh network is fed with nothing but 0: a branch that starts at 0 by design (nfnet)."""
        before = next((row for row in self.report.layers if row.index == layer.index - 1), None)
        return self.report.initialised is True and before is not None and before.rms == 0

    def _for_noise(self, code: str, verdict: Verdict) -> Verdict:
        """Weaken by a level what a healthy trained network may do on noise."""
        if not self.report.run.random_inputs or self.report.initialised is True or code not in OF_SAMPLES:
            return verdict
        severity = Severity(max(Severity.INFO, verdict.severity - 1))
        return replace(verdict, severity=severity, message=f"{verdict.message} - on noise: look again with real samples")


def _explains(ill: Ill) -> bool:
    """Tell whether a verdict on the layer that loses the input says why it does."""
    return ill.code in ("dead-relu", "saturated", "exploding-activations") and ill.verdict.severity is Severity.ERROR


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
