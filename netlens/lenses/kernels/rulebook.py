"""The rules over the statistics of one weight, as one table: where they show, what they were measured against, what to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod

from netlens.lenses.kernels import verdicts as judge
from netlens.lenses.kernels.report import LayerWeights
from netlens.lenses.kernels.verdicts import Verdict
from netlens.wording import share


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule over the statistics of one weight."""

    judge: Callable[[LayerWeights, bool], Verdict | None]  # takes the layer, and whether its values are fresh from initialisation
    word: str  # for a label in a picture
    columns: tuple[str, ...]  # of the table: where it shows
    threshold: str
    remedy: str
    unless: tuple[str, ...] = ()  # codes that explain it
    fresh_remedy: str = ""  # where nothing has been learned yet


def verdicts(layer: LayerWeights, fresh: bool) -> dict[str, Verdict]:
    """Return what is wrong with one weight: code -> verdict.

    Args:
        layer: its statistics.
        fresh: the values are known to come from initialisation.
    """
    found: dict[str, Verdict] = {}
    if not prod(layer.shape):
        return found
    for code, rule in RULES.items():
        if found.keys().isdisjoint(rule.unless) and (verdict := rule.judge(layer, fresh)) is not None:
            found[code] = verdict
    return found


_ENDED = ("weight-nonfinite", "weight-all-zero", "constant-weights")
_FILTERS = ("dead-filters", "duplicate-filters")

RULES: Mapping[str, Rule] = {
    "weight-nonfinite": Rule(
        judge.nonfinite,
        "not finite",
        ("nonfinite",),
        "0",
        "training diverged before this was saved: go back to an earlier checkpoint, then lower the learning rate or clip gradients",
        fresh_remedy="the constructor makes them: look for a division by zero, or for torch.empty that nothing fills",
    ),
    "weight-all-zero": Rule(
        judge.all_zero,
        "all zero",
        ("std", "norm"),
        "RMS > 0",
        "normal where a layer starts from zero on purpose (a residual gate, LoRA's B, a new head); otherwise it was never trained",
        unless=_ENDED,
    ),
    "constant-weights": Rule(
        judge.constant,
        "constant",
        ("std",),
        f"{judge.CONSTANT:g}",
        "initialise it randomly, for example with nn.init.kaiming_normal_: filters that start equal get equal gradients and stay equal",
        unless=_ENDED,
    ),
    "weight-outlier": Rule(
        judge.outlier,
        "outliers",
        ("outlier", "min", "max"),
        f"{judge.OUTLIER[0]:g} times (warning), {judge.OUTLIER[1]:g} (error)",
        "look at that weight's history: clip gradients, or mend the file; int8 quantisation of this layer would lose all other weights",
        unless=_ENDED,
    ),
    "dead-filters": Rule(
        judge.dead,
        "dead filters",
        ("dead",),
        f"{share(judge.DEAD[0])} of filters (warning), {share(judge.DEAD[1])} (error)",
        "prune them, or train again with less weight decay or a lower learning rate",
        unless=_ENDED,
        fresh_remedy="look at the layer's initialisation: it leaves these filters out",
    ),
    "duplicate-filters": Rule(
        judge.duplicates,
        "copies",
        ("duplicates", "cosine"),
        f"{share(judge.DUPLICATES[0])} of filters (warning), {share(judge.DUPLICATES[1])} (error)",
        "initialise every filter randomly and on its own: copies get the same gradients and stay copies; or prune them",
        unless=_ENDED,
    ),
    "low-rank": Rule(
        judge.low_rank,
        "low rank",
        ("rank",),
        f"{judge.LOW_RANK}",
        "all its outputs carry one signal: look for a collapsed or copied initialisation, or for too much weight decay",
        unless=(*_ENDED, *_FILTERS),
    ),
    "weight-pruned": Rule(
        judge.pruned,
        "pruned",
        ("zeros",),
        f"{share(judge.PRUNED)} of weights",
        "nothing to do where it was meant; dense kernels do not get faster by zeros",
        unless=(*_ENDED, "dead-filters"),
    ),
    "weight-spike": Rule(
        judge.spike,
        "spike",
        ("near_zero",),
        f"{share(judge.SPIKE)} of weights",
        "these weights do nothing and still cost: set them to zero (prune), or lower the L1 penalty or weight decay that drove them there",
        unless=(*_ENDED, "dead-filters"),
    ),
    "weight-bimodal": Rule(
        judge.bimodal,
        "bimodal",
        ("valley",),
        f"valley {judge.BIMODAL:g}",
        "normal for binarised and quantised weights; otherwise look for two initialisations in one tensor, or a clipping bound",
        unless=(*_ENDED, "dead-filters", "weight-pruned", "weight-spike"),
    ),
    "init-scale": Rule(
        judge.scale,
        "scale",
        ("gain", "init"),
        f"{judge.GAIN_WARNING[0]:g} to {judge.GAIN_WARNING[1]:g} (warning), {judge.GAIN_ERROR[0]:g} to {judge.GAIN_ERROR[1]:g} (error)",
        "give it a standard deviation near 1 / sqrt(fan-in), for example with nn.init.kaiming_normal_, or normalise after it",
        unless=_ENDED,
    ),
    "weight-wide": Rule(
        judge.wide,
        "too wide",
        ("init",),
        f"{judge.WIDE:g} times, and a gain of {judge.WIDE_GAIN:g}",
        "lower the learning rate or use weight decay: before a normalisation wide weights stop learning, elsewhere activations explode",
        unless=(*_ENDED, "init-scale"),
    ),
}
