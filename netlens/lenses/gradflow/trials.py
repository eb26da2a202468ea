"""Rules on what is not finite, on the loss over several steps, on overfitting one batch, and on processes. Standard library only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import isclose, isfinite
from statistics import median

from netlens.findings import Finding, Severity
from netlens.lenses.gradflow.diagnosis import Flow, Ill
from netlens.lenses.gradflow.rates import RATE
from netlens.lenses.gradflow.report import FirstNonFinite, Noise, Overfit, Rank
from netlens.wording import counted, listed, number, short

LEFT = (0.5, 0.9)  # of min(first loss, ln(classes)), after overfitting: warning, error
DIVERGED, MANY = 10.0, 3  # last loss / first loss, after so many steps; ours
APART = 10.0  # norm of the gradients of one process / that of the others; ours
LARGER = "times as large as"
SAME = 1e-6  # relative difference of loss and norm between processes that see the same samples; ours
CODES = {"forward": "act-nonfinite", "loss": "loss-nonfinite", "backward": "grad-nonfinite"}
REMEDIES = {
    "log": "keep what it is given above 0: clamp_min, log1p, or log_softmax",
    "sqrt": "add a small number under the root: its slope at 0 is infinite",
    "pow": "add a small number: the slope of a root at 0 is infinite",
    "norm": "add a small number under the root: the slope of a norm at 0 is infinite",
    "div": "keep the divisor away from 0",
    "exp": "subtract the maximum before it, or use logsumexp",
    "softmax": "look for a row that is masked out entirely",
    "acos": "keep what it is given inside -1 and 1",
    "asin": "keep what it is given inside -1 and 1",
}
OTHERWISE = "look for an overflow (fp16: try bf16), a division by zero, or the logarithm or root of what is not positive"


def nonfinite(flow: Flow) -> Iterator[Ill]:
    """Tell where NaN or Inf begins; nothing else is said of sizes then."""
    first = flow.report.first_nonfinite
    if first is not None:
        yield _first(flow, first)
    elif flow.broken:
        odd = [place for place, each in enumerate(flow.parameters) if each.nan or each.infinite]
        code, where = ("grad-nonfinite", flow.parameters[odd[-1]].layer) if odd else ("loss-nonfinite", "")
        says = f"the gradient is not finite from `{short(where)}` backwards" if odd else "the loss is not finite"
        finding = Finding(code, Severity.ERROR, short(where), says, threshold="0", remedy=OTHERWISE)
        yield Ill(finding, says, "not finite", tuple(odd[-1:]), ("nonfinite",), where)
    elif flow.report.noise is not None and flow.report.noise.nonfinite:
        yield _in_other_batches(flow.report.noise)


def _in_other_batches(noise: Noise) -> Ill:
    """Tell of batches whose gradient is not finite, though that of the steps is."""
    says = f"the gradient of {noise.nonfinite:,} of the {noise.batches:,} batches that were compared is not finite, at the same weights"
    remedy = "look for samples that hold NaN or Inf, and for losses of no element: torch.isfinite(x).all() of each batch"
    finding = Finding("grad-nonfinite", Severity.ERROR, "", says, f"{noise.nonfinite:,} batches", "0", remedy)
    return Ill(finding, says, "not finite")


def _first(flow: Flow, first: FirstNonFinite) -> Ill:
    counts = " and ".join(f"{count:,} {name}" for count, name in ((first.nan, "NaN"), (first.infinite, "Inf")) if count)
    by = f"`{first.operation}`" if first.operation else ""
    phase = {"forward": "in the forward pass", "loss": "in the loss", "backward": "in the backward pass"}[first.where]
    name = f"`{short(first.name)}`" if first.name else ""
    place = f"{' in ' if by else ''}{name}" if name else ""
    if first.source:
        where = f"first seen in {by or ''}{place}" if by or place else phase
        says = f"{short(first.source)} is not finite to begin with, {where}"
        remedy = (
            "look for samples that hold NaN or Inf: torch.isfinite(x).all() of each"
            if first.source == "input"
            else "go back to an earlier checkpoint: `netlens kernels` shows it"
        )
    else:
        says = f"{by}{place} makes the first {counts or 'NaN or Inf'} {phase}" if by or place else f"the first NaN or Inf is made {phase}"
        operation = first.operation.lower()
        remedy = next((text for key, text in REMEDIES.items() if key in operation), OTHERWISE)
    losses = [step.loss for step in flow.report.steps]
    if len(losses) > 1 and isfinite(losses[0]) and not first.source:
        says += f", in step {len(losses):,}"
        grown = [loss for loss in losses if isfinite(loss) and losses[0] > 0 and loss > DIVERGED * losses[0]]
        remedy = RATE if grown or any((each.update or 0) > DIVERGED for each in flow.parameters) else remedy
        says += f", after the loss grew from {number(losses[0])} to {number(max(grown))}" if grown else ""
    places = tuple(place for place, each in enumerate(flow.parameters) if first.name and each.layer == first.name)
    finding = Finding(CODES[first.where], Severity.ERROR, short(first.name), says, counts, "0", remedy)
    return Ill(finding, says, "not finite", places, ("nonfinite",), first.name)


def diverging(flow: Flow) -> Iterator[Ill]:
    """Tell of a loss that grows from step to step."""
    losses = [step.loss for step in flow.report.steps]
    if len(losses) > MANY and losses[0] > 0 and losses[-1] > DIVERGED * losses[0]:
        says = f"the loss grows from {number(losses[0])} to {number(losses[-1])} in {len(losses):,} steps"
        measured = f"{number(losses[-1] / losses[0])} times the first loss"
        yield Ill(Finding("loss-diverges", Severity.ERROR, "", says, measured, f"{DIVERGED:g} times", RATE), says)


def overfitting(flow: Flow) -> Iterator[Ill]:
    """Tell of a model that does not learn a single batch by heart."""
    tried = flow.report.overfit
    if tried is None or tried.passed or not tried.losses:
        return
    begun, left = tried.losses[0] if tried.chance is None else min(tried.losses[0], tried.chance), tried.losses[-1]
    share = tried.best / begun if begun > 0 and isfinite(left) else None
    stopped = f"; the updates of {listed([f'`{short(name)}`' for name in tried.stopped])} stopped" if tried.stopped else ""
    if isfinite(left):
        says = f"it cannot learn one batch of {counted(tried.samples, 'sample')}: the loss is at {number(tried.best)} after {_steps(tried)}"
    else:
        says = f"the loss becomes NaN or Inf after {_steps(tried)} on one batch"
    places = tuple(place for place, each in enumerate(flow.parameters) if each.name in tried.stopped)
    finding = Finding(
        "cannot-overfit",
        Severity.WARNING if share is not None and share <= LEFT[1] else Severity.ERROR,
        "",
        says + stopped,
        f"{number(share)} of the loss to begin with" if share is not None else f"loss {number(left)}",
        f"{LEFT[0]:g} (warning), {LEFT[1]:g} (error)",
        "look at labels and inputs first: do they belong to each other? Then at the loss, and at regularisation that cannot be turned off",
    )
    yield Ill(finding, says, "stopped", places)


def _steps(tried: Overfit) -> str:
    return f"{counted(tried.steps, 'step')} of {tried.optimizer}"


def processes(flow: Flow) -> Iterator[Ill]:
    """Compare the processes of one run: their weights must be equal, their samples must not, and their gradients alike in size."""
    ranks = flow.report.ranks
    if len(ranks) < 2:
        return
    hashes = [rank.parameters_hash for rank in ranks]
    usual = max(hashes, key=hashes.count)
    if differing := [rank.rank for rank in ranks if rank.parameters_hash != usual]:
        says = f"{_named(differing)} started the step with other parameters than the rest"
        remedy = (
            "seed all processes alike before the model is built, or let DistributedDataParallel broadcast; change weights on all of them"
        )
        yield _rank("ranks-differ", Severity.ERROR, differing, says, f"{len(set(hashes)):,} sets of parameters", "1", remedy)
    elif _same([rank.loss for rank in ranks]) and _same([rank.norm or 0.0 for rank in ranks]) and ranks[0].norm:
        says = f"all {len(ranks)} processes see the same samples: loss and gradients are equal"
        remedy = "give the loader a DistributedSampler, and call its set_epoch"
        yield _rank("ranks-alike", Severity.WARNING, [], says, f"loss {number(ranks[0].loss)} of each", "", remedy)
    odd = {rank.rank: why for rank in ranks if (why := _oddity(rank, [each for each in ranks if each is not rank]))}
    if odd and not differing:
        says = "the gradients of " + "; ".join(f"rank {rank} {why}" for rank, why in odd.items())
        remedy = "look at the samples of that process, and at what it does differently: an empty batch, other preprocessing, another device"
        grave = any(why.endswith("not finite") for why in odd.values())
        severity = Severity.ERROR if grave else Severity.WARNING
        ill = _rank("rank-outlier", severity, list(odd), says, "", f"{APART:g} times the others", remedy)
        yield replace(ill, kind="rank-far-larger") if any(LARGER in why for why in odd.values()) else ill


def _oddity(rank: Rank, others: list[Rank]) -> str:
    """Say what is odd about the gradients of one process, "" where nothing is."""
    norms = [other.norm for other in others if other.norm is not None and isfinite(other.norm)]
    usual = median(norms) if norms else 0.0
    if not isfinite(rank.loss) or (rank.norm is not None and not isfinite(rank.norm)):
        return "are not finite"
    if not rank.norm:
        return "are missing" if rank.norm is None and usual else "are 0" if usual else ""
    if usual and rank.norm > APART * usual:
        return f"are {number(rank.norm / usual)} {LARGER} those of the others"
    if len(others) > 1 and rank.norm * APART < usual:
        return f"are {number(usual / rank.norm)} times smaller than those of the others"
    return "point against the mean of all" if rank.cosine is not None and rank.cosine < 0 else ""


def _same(values: list[float]) -> bool:
    return all(isclose(value, values[0], rel_tol=SAME) for value in values)


def _named(ranks: list[int]) -> str:
    return f"rank{'s' if len(ranks) > 1 else ''} {listed([str(rank) for rank in ranks])}"


def _rank(code: str, severity: Severity, ranks: list[int], says: str, measured: str, threshold: str, remedy: str) -> Ill:
    where = _named(ranks) if ranks else ""
    return Ill(Finding(code, severity, where, says, measured, threshold, remedy), says, code.partition("-")[2], ranks=tuple(ranks))
