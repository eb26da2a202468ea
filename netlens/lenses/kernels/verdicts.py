"""What is wrong with one weight: rules over its statistics, each with its thresholds. Standard library only.

Every rule is scale-free: it compares a layer with itself, or with what random weights of its shape give, and is silent on fresh models of
torchvision and timm (the sweep in tests/lenses/test_kernels_rules.py). A fault is told once: a rule that another one explains keeps quiet.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log10, prod, sqrt

from netlens.findings import Severity
from netlens.lenses.kernels.report import LayerWeights
from netlens.wording import counted, number, share

DEAD = (0.05, 0.50)  # share of filters: warning, error
DUPLICATES = (0.05, 0.50)
CONSTANT = 1e-3  # std / RMS; a random weight of 8 elements stays above 0.1
CONSTANT_ELEMENTS = 8
GAIN_WARNING = (1e-2, 8.0)  # RMS x sqrt(fan_in); fresh models where no normalisation follows have 0.026 to 7.7
GAIN_ERROR = (1e-3, 30.0)
FAN_OUT_GAIN = 2.0  # RMS x sqrt(fan_out); He et al. 2015 give sqrt(2) in fan-out mode, and so a gain of 11 where 528 channels become 8
GATE = "gate"  # in a layer's name: starts next to zero on purpose, beside a bias of 1 (gMLP, Liu et al. 2021: a standard deviation of 1e-6)
OUTLIER = (
    150.0,
    1500.0,
)  # max |w| over the robust deviation: 5 of a million normal weights, 100 where trunc_normal_(std=0.02) meets its bound
LOW_RANK = 1.1
RANK_ROWS, RANK_ELEMENTS = 3, 64  # smaller random matrices have a stable rank below 1.1 by chance: 2 x 8 in 2 %, 3 x 8 in 0.01 %
PRUNED = 0.50  # share of exact zeros: what magnitude pruning starts at; trained without pruning, floating-point weights have none
SPIKE = 0.25  # share with 0 < |w| < RMS / 1000: normal 0.0008, uniform 0.0006, Laplace 0.0014, so hundreds of times more
BIMODAL = 0.5  # how deep the valley is: two normals 4 sd apart; one mode gives 0
WIDE = 30.0  # std / initial std; a bound of ours: the sample model of this repository is trained to 9
WIDE_GAIN = GAIN_WARNING[1]  # a deliberately tiny initialisation may grow a thousandfold without becoming wide


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one rule says about one layer."""

    severity: Severity
    badness: float  # compares layers under the same rule
    message: str
    measured: str
    brief: str  # a few characters, for a list of layers


def _severity(value: float, bounds: tuple[float, float]) -> Severity | None:
    warning, error = bounds
    return Severity.ERROR if value >= error else Severity.WARNING if value >= warning else None


def nonfinite(layer: LayerWeights, fresh: bool) -> Verdict | None:
    """Any NaN or Inf."""
    count, elements = layer.nan + layer.infinite, prod(layer.shape)
    if not count:
        return None
    told = ", ".join(f"{n:,} {name}" for n, name in ((layer.nan, "NaN"), (layer.infinite, "Inf")) if n)
    message = f"{count:,} of {counted(elements, 'weight')} {'is' if count == 1 else 'are'} not finite"
    return Verdict(Severity.ERROR, count / elements, message, told, told)


def all_zero(layer: LayerWeights, fresh: bool) -> Verdict | None:
    """Zero everywhere; silent where the initialisation itself is zero and nothing has been learned yet."""
    elements = prod(layer.shape)
    if layer.zeros < elements or (fresh and layer.initial_std == 0):
        return None
    return Verdict(Severity.INFO, elements, f"all {elements:,} weights are 0", "RMS 0", f"{elements:,}")


def constant(layer: LayerWeights, fresh: bool) -> Verdict | None:
    """A trainable weight without spread: std < 0.001 x RMS."""
    if layer.trainable is False or prod(layer.shape) < CONSTANT_ELEMENTS or not layer.rms or layer.std is None or layer.mean is None:
        return None
    ratio = layer.std / layer.rms
    if ratio >= CONSTANT:
        return None
    message = f"all {prod(layer.shape):,} weights are nearly the same, {number(layer.mean)}"
    return Verdict(Severity.ERROR, -ratio, message, f"std / RMS {number(ratio)}", number(layer.mean))


def outlier(layer: LayerWeights, fresh: bool) -> Verdict | None:
    """One weight far from the others: max |w| / (1.4826 median |w|), of weights that do something."""
    severity = None if layer.outlier is None else _severity(layer.outlier, OUTLIER)
    if layer.outlier is None or severity is None or not (_dominated(layer) or _bulk_is_alive(layer)):
        return None
    message = f"its largest |weight| is {_times(layer.outlier)} the typical one"
    measured = f"max |w| {number(_largest(layer))}, {_times(layer.outlier)} the robust standard deviation"
    return Verdict(severity, layer.outlier, message, measured, _times(layer.outlier))


def dead(layer: LayerWeights, fresh: bool) -> Verdict | None:
    """Filters whose norm is 0.001 x the layer's RMS filter norm or less."""
    if not layer.norm or _dominated(layer):  # zero everywhere is another rule's
        return None
    return _of_filters(layer, layer.dead, DEAD, "dead: less than a thousandth of the usual norm")


def duplicates(layer: LayerWeights, fresh: bool) -> Verdict | None:
    """Filters that point where another filter points, beyond what random filters do by chance."""
    return _of_filters(layer, layer.duplicates, DUPLICATES, f"near copies of another (cosine above {number(layer.duplicate_cosine or 1)})")


def _of_filters(layer: LayerWeights, count: int, bounds: tuple[float, float], what: str) -> Verdict | None:
    severity = _severity(count / layer.filters, bounds)
    if severity is None:
        return None
    message = f"{count:,} of {counted(layer.filters, 'filter')} {'is' if count == 1 else 'are'} {what}"
    return Verdict(severity, count / layer.filters, message, share(count, layer.filters), f"{count:,}/{layer.filters:,}")


def low_rank(layer: LayerWeights, fresh: bool) -> Verdict | None:
    """Stable rank ||W||_F^2 / sigma_max^2 near 1, where a random matrix would not have it."""
    rows = layer.filters // layer.groups
    if layer.stable_rank is None or layer.stable_rank >= LOW_RANK or _dominated(layer):
        return None
    if min(rows, layer.fan_in) < RANK_ROWS or rows * layer.fan_in < RANK_ELEMENTS:
        return None
    rank = number(layer.stable_rank)
    message = f"its {rows:,} filters{' of one group' if layer.groups > 1 else ''} are nearly multiples of a single one"
    return Verdict(Severity.WARNING, -layer.stable_rank, message, f"stable rank {rank} of {min(rows, layer.fan_in):,}", rank)


def pruned(layer: LayerWeights, fresh: bool) -> Verdict | None:
    """Exact zeros beyond those of dead filters; silent on a fresh model, whose initialisation may be sparse."""
    part = layer.zeros / prod(layer.shape)
    if fresh or part - layer.dead / layer.filters < PRUNED:
        return None
    return Verdict(Severity.INFO, part, f"{share(part)} of its weights are exactly 0: it was pruned", f"{layer.zeros:,} zeros", share(part))


def spike(layer: LayerWeights, fresh: bool) -> Verdict | None:
    """Weights next to zero beyond those of dead filters, which no zero-mean distribution of one scale has."""
    if layer.near_zero is None or layer.near_zero - layer.dead / layer.filters < SPIKE or _dominated(layer):
        return None
    message = f"a spike at zero: {share(layer.near_zero)} of its weights are within a thousandth of their RMS of 0, but are not 0"
    measured = f"{share(layer.near_zero)}; of a normal distribution it would be 0.08 %"
    return Verdict(Severity.WARNING, layer.near_zero, message, measured, share(layer.near_zero))


def bimodal(layer: LayerWeights, fresh: bool) -> Verdict | None:
    """A histogram with two modes; silent for tables that somebody fixed, such as sines, which have two on purpose."""
    if layer.valley is None or layer.valley < BIMODAL or layer.trainable is False or layer.kind == "embedding":
        return None
    message = f"its weights have two modes, with {share(layer.valley)} fewer between them than at the lower one"
    return Verdict(Severity.INFO, layer.valley, message, f"valley {number(layer.valley)}", number(layer.valley))


def scale(layer: LayerWeights, fresh: bool) -> Verdict | None:
    """Gain = RMS x sqrt(fan-in) far from 1, where no normalisation undoes it. A prediction: no signal was looked at."""
    if layer.normalised is not False or layer.head or layer.kind == "embedding" or not layer.gain or _dominated(layer):
        return None
    gain, small = layer.gain, layer.gain < 1
    if GAIN_WARNING[0] <= gain <= GAIN_WARNING[1] or (small and GATE in layer.name.lower()):
        return None
    severity = Severity.WARNING if GAIN_ERROR[0] <= gain <= GAIN_ERROR[1] else Severity.ERROR
    if severity is Severity.WARNING and not small and gain * sqrt(_fan_out(layer) / layer.fan_in) <= FAN_OUT_GAIN:
        return None
    message = f"it scales the RMS of its input by about {number(gain)}, and no normalisation follows: expect {_symptom(small)}"
    # A factor of 10 beyond the bound is as bad in either direction.
    badness = log10(GAIN_WARNING[0] / gain) if small else log10(gain / GAIN_WARNING[1])
    return Verdict(severity, badness, message, f"gain {number(gain)} (RMS {number(gain / sqrt(layer.fan_in))})", number(gain))


def _fan_out(layer: LayerWeights) -> int:
    return layer.filters // layer.groups * (prod(layer.shape[2:]) if layer.kind.startswith("conv") else 1)


def _symptom(small: bool) -> str:
    return "signals and gradients that vanish" if small else "activations that explode or saturate"


def wide(layer: LayerWeights, fresh: bool) -> Verdict | None:
    """Spread far beyond that of initialisation."""
    if fresh or layer.kind == "embedding" or not layer.initial_std or layer.std is None or _dominated(layer):
        return None
    ratio = layer.std / layer.initial_std
    if ratio < WIDE or (layer.gain or 0) < WIDE_GAIN:
        return None
    message = f"its weights are too wide: {_times(ratio)} what initialisation gives"
    measured = f"std {number(layer.std)}, initially {number(layer.initial_std)}"
    return Verdict(Severity.WARNING, ratio, message, measured, _times(ratio))


def _times(ratio: float) -> str:
    return f"{ratio:,.0f} times" if 100 <= ratio < 1e6 else f"{number(ratio)} times"


def _largest(layer: LayerWeights) -> float:
    return max(abs(layer.least or 0.0), abs(layer.greatest or 0.0))


def _dominated(layer: LayerWeights) -> bool:
    """One weight carries half of the energy: then it alone makes the others look dead, near zero and of rank one."""
    return (layer.outlier or 0) >= OUTLIER[0] and 2 * _largest(layer) ** 2 >= (layer.norm or 0) ** 2


def _bulk_is_alive(layer: LayerWeights) -> bool:
    """Whether the median, against which an outlier is measured, is that of weights that do something."""
    return layer.dead / layer.filters + (layer.near_zero or 0) < SPIKE
