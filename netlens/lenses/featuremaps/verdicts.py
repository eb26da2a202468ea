"""What is wrong with the output of one layer: rules over its statistics, each with its thresholds. Standard library only.

Thresholds are those that the field's planted faults and healthy fresh models separated; where they are ours, the comment says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import sqrt

from netlens.findings import Severity
from netlens.lenses.featuremaps.report import LayerActivity, Run
from netlens.wording import counted, number, share

DEAD_AFTER_NORM = (0.20, 0.50)  # share of channels: warning, error
# Else min(0.95, 0.5 + 2 / sqrt(channels)), since random features without bias die by chance; vgg16 comes nearest: 0.47 of 0.53.
DEAD_MOST, DEAD_BASE, DEAD_SPREAD = 0.95, 0.5, 2.0
DEAD_VALUES, DEAD_CHANNELS = 8, 8  # fewer values of a channel, or fewer channels, say nothing
ENOUGH = 8  # samples; a channel that is silent on fewer may be waiting for its picture
SATURATED = (0.5, 0.9)  # share of elements; healthy: 0.03
EXPLODED = (1e3, 1e5)  # RMS of a layer / max(1, RMS of the input); healthy: 85
COLLAPSED = 1.05  # effective rank; healthy: 1.15
COLLAPSED_CHANNELS, COLLAPSED_VALUES = 8, 32  # fewer channels, or fewer values of each, may have such a rank by chance
ALIKE = 0.95  # mean |correlation| of two channels; ours: healthy models stay below 0.77
RECTIFIERS = ("relu", "relu6")  # that put out nothing below 0
SQUASHERS = ("tanh", "sigmoid")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one rule says about one layer."""

    severity: Severity
    badness: float  # compares layers under the same rule
    message: str
    measured: str
    brief: str  # a few characters, for a list of layers
    threshold: str = ""  # where it depends on the layer


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule over the statistics of one layer."""

    judge: Callable[[LayerActivity, Run], Verdict | None]
    word: str  # for a label in a picture
    columns: tuple[str, ...]  # of the table: where it shows
    threshold: str
    remedy: str
    begins: bool = False  # told of the first layer that has it, since those after it inherit it; else of the worst


def dead(layer: LayerActivity, run: Run) -> Verdict | None:
    """Channels of a ReLU that are never positive."""
    if layer.activation not in RECTIFIERS or layer.final or layer.dead is None or layer.channels < DEAD_CHANNELS:
        return None
    if layer.elements < DEAD_VALUES * layer.channels:
        return None
    silent = layer.dead / layer.channels
    usual = min(DEAD_MOST, DEAD_BASE + DEAD_SPREAD / sqrt(layer.channels))
    bounds = DEAD_AFTER_NORM if layer.after_norm else (usual, usual)
    severity = _severity(silent, bounds)
    if severity is None:
        return None
    message = f"{layer.dead:,} of {counted(layer.channels, 'channel')} are never positive"
    if run.samples < ENOUGH:
        severity, message = Severity.INFO, f"{message} on {counted(run.samples, 'sample')}: too few to call them dead"
    threshold = (
        _bounds(*map(share, bounds)) if layer.after_norm else f"{share(usual)} of {layer.channels:,} channels that no layer normalises"
    )
    return Verdict(severity, silent, message, share(silent), f"{layer.dead:,}/{layer.channels:,}", threshold)


def saturated(layer: LayerActivity, run: Run) -> Verdict | None:
    """A tanh or sigmoid at its bounds, where its gradient is next to nothing."""
    if layer.activation not in SQUASHERS or layer.saturated is None or layer.final:
        return None
    severity = _severity(layer.saturated, SATURATED)
    if severity is None:
        return None
    message = f"{share(layer.saturated)} of its values are at the bounds of {layer.activation}, where the gradient is below a twentieth"
    return Verdict(severity, layer.saturated, message, share(layer.saturated), share(layer.saturated))


def exploded(layer: LayerActivity, run: Run) -> Verdict | None:
    """A root mean square far above that of the input, and above 1, which normalisation gives: small inputs may well be enlarged."""
    if layer.rms is None:
        return None
    usual = max(1.0, run.input_rms or 1.0)
    growth = layer.rms / usual
    severity = _severity(growth, EXPLODED)
    if severity is None:
        return None
    than = "the input" if usual == run.input_rms else "a normalised signal"
    message = f"its output is {number(growth)} times as large as {than} (RMS {number(layer.rms)})"
    return Verdict(severity, growth, message, f"{number(growth)} times", f"×{number(growth)}")


def collapsed(layer: LayerActivity, run: Run) -> Verdict | None:
    """All channels carry one signal."""
    rank = layer.effective_rank
    if layer.final or rank is None or rank >= COLLAPSED or not _comparable(layer, run):
        return None
    message = f"its {layer.channels:,} channels carry one signal: they differ by factors only"
    return Verdict(Severity.WARNING, -rank, message, f"effective rank {number(rank)} of {layer.channels:,}", number(rank))


def alike(layer: LayerActivity, run: Run) -> Verdict | None:
    """Channels that are copies of each other, without being a single one."""
    if layer.final or layer.correlation is None or layer.correlation < ALIKE or not _comparable(layer, run):
        return None
    if collapsed(layer, run) is not None:
        return None
    message = f"its {layer.channels:,} channels are copies of each other"
    told = f"mean |correlation| {number(layer.correlation)}"
    return Verdict(Severity.WARNING, layer.correlation, message, told, number(layer.correlation))


def _comparable(layer: LayerActivity, run: Run) -> bool:
    """Tell whether there are enough channels and values of each; rows of probabilities have few degrees of freedom by their nature."""
    enough = layer.channels >= COLLAPSED_CHANNELS and layer.elements >= COLLAPSED_VALUES * layer.channels and run.samples >= 2
    return enough and layer.activation not in ("softmax", "log_softmax")


def _bounds(warning: str, error: str) -> str:
    return f"{warning} (warning), {error} (error)"


def _severity(value: float, bounds: tuple[float, float]) -> Severity | None:
    warning, error = bounds
    return Severity.ERROR if value >= error else Severity.WARNING if value >= warning else None


RULES: Mapping[str, Rule] = {
    "dead-relu": Rule(
        dead,
        "dead",
        ("dead", "zeros"),
        "",
        "lower the learning rate, look at the biases before it (a large negative one silences a channel), or use LeakyReLU or GELU",
    ),
    "saturated": Rule(
        saturated,
        "saturated",
        ("saturated",),
        _bounds(*map(share, SATURATED)),
        "scale the weights before it down (Xavier initialisation), normalise its input, or use ReLU",
    ),
    "exploding-activations": Rule(
        exploded,
        "exploding",
        ("std", "rms"),
        _bounds(*(f"{bound:,.0f}" for bound in EXPLODED)),
        "initialise with a standard deviation of about 1 / sqrt(fan-in), normalise, or scale the residual branches down",
        begins=True,
    ),
    "rank-collapse": Rule(
        collapsed,
        "collapsed",
        ("rank",),
        f"{COLLAPSED}",
        "look for copied or rank-one weights before it (`netlens kernels`), or for a missing normalisation",
        begins=True,
    ),
    "redundant-channels": Rule(
        alike,
        "copies",
        ("correlation",),
        f"{ALIKE:g}",
        "look for duplicate filters (`netlens kernels`): copies get the same gradients and stay copies",
        begins=True,
    ),
}


def verdicts(layer: LayerActivity, run: Run) -> dict[str, Verdict]:
    """Return what is wrong with one layer: code -> verdict."""
    found = {code: rule.judge(layer, run) for code, rule in RULES.items()}
    return {code: verdict for code, verdict in found.items() if verdict is not None}
