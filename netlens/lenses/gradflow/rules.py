"""What is wrong with how a model learns: one finding a cause, which takes its symptoms in. Standard library only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from netlens.findings import Finding, Severity
from netlens.lenses.gradflow import arrival, rates, scores, sizes, stepping_rules, trials
from netlens.lenses.gradflow.diagnosis import LATE, UNDERFLOW, Flow, Ill
from netlens.lenses.gradflow.report import GradflowReport
from netlens.wording import counted, number

Rule = Callable[[Flow], Iterator[Ill]]
ALWAYS: tuple[Rule, ...] = (stepping_rules.calls, trials.nonfinite, trials.processes, scores.labels)  # whatever the gradients are
OF_STATUS: tuple[Rule, ...] = (arrival.unreached, arrival.not_updated)
OF_OUTPUT: tuple[Rule, ...] = (scores.scores, scores.dependence, scores.values, trials.overfitting)
OF_SIZE: tuple[Rule, ...] = (arrival.grad_zero, sizes.slope, rates.steps, trials.diverging)

_LARGE = ("update-ratio-high", "update-imbalance", "loss-diverges", "init-loss")
_BLIND = ("input-ignored", "loss-ignores-input")
SILENCES: Mapping[str, tuple[str, ...]] = {  # cause -> symptoms, which need not be told beside it
    **stepping_rules.SILENCES,
    "no-grad": (*_BLIND, "cannot-overfit"),
    "label-range": ("negative-loss", "init-loss", "cannot-overfit", "loss-diverges"),
    "detached-parameters": ("cannot-overfit",),
    "grad-zero": (*_BLIND, "zero-output", "update-imbalance", "vanishing-gradient", "cannot-overfit"),
    "vanishing-gradient": (*_BLIND, UNDERFLOW, "update-ratio-low", "update-imbalance", "cannot-overfit"),
    "exploding-gradient": (*_LARGE, "cannot-overfit"),
    "double-softmax": ("init-loss", "cannot-overfit"),
    "double-sigmoid": ("init-loss", "cannot-overfit"),
    "nll-on-logits": ("negative-loss", "init-loss", "cannot-overfit"),
    "relu-on-logits": ("cannot-overfit",),
    "input-ignored": ("cannot-overfit",),
    "loss-ignores-input": ("cannot-overfit",),
    "init-loss": ("update-ratio-high", "update-imbalance", "loss-diverges"),
    "rank-far-larger": (*_LARGE, "exploding-gradient"),
    "update-ratio-high": ("loss-diverges", LATE),
    "loss-diverges": (LATE,),
}
SLOWS = frozenset(("not-updated", "unused-parameters", "double-softmax", "double-sigmoid", "nll-on-logits", "init-loss"))


def diagnose(report: GradflowReport) -> tuple[Finding, ...]:
    """Return what is wrong, each cause once, those that stop everything first."""
    return tuple(ill.finding for ill in _ills(report))


def second_look_matters(report: GradflowReport) -> bool:
    """Tell whether a rule speaks that three steps may silence: of what begins at 0, or near it."""
    flow = Flow(replace(report, look=None))
    return not flow.broken and (bool(flow.zero) or any(True for _ in sizes.slope(flow)))


def alarms(report: GradflowReport) -> dict[str, str]:
    """Return a short word for each parameter, layer and process ("rank 1") that is not well: name -> "dead, no optimizer"."""
    said: dict[str, dict[str, None]] = {}
    for ill in _ills(report):
        names = [report.parameters[place].name for place in ill.places] + [ill.layer] + [f"rank {rank}" for rank in ill.ranks]
        for name in names if ill.word and ill.finding.severity > Severity.INFO else ():
            said.setdefault(name, {})[ill.word] = None
    return {name: ", ".join(words) for name, words in said.items() if name}


def marks(report: GradflowReport) -> dict[int, dict[str, Severity]]:
    """Return which cells of the table of parameters are sick: place in the report -> column -> how bad; "note" has a word of each."""
    sick: dict[int, dict[str, Severity]] = {}
    for ill in _ills(report):
        for place in ill.places:
            for column in (*ill.columns, "note") if ill.finding.severity > Severity.INFO else ():
                row = sick.setdefault(place, {})
                row[column] = max(ill.finding.severity, row.get(column, Severity.INFO))
    return sick


def notes(report: GradflowReport) -> dict[int, str]:
    """Return the words beside the parameters, also of what is only information: place in the report -> "dead"."""
    said: dict[int, dict[str, None]] = {}
    for ill in _ills(report):
        for place in ill.places if ill.word else ():
            said.setdefault(place, {})[ill.word] = None
    return {place: ", ".join(words) for place, words in said.items()}


def blamed(report: GradflowReport) -> dict[str, tuple[str, Severity]]:
    """Return the layers at which something goes wrong: name -> word and how bad."""
    return {ill.layer: (ill.word, ill.finding.severity) for ill in _ills(report) if ill.layer}


def verdict(report: GradflowReport) -> tuple[str, Severity]:
    """Answer in one line whether it is learning, and if not, which layer stops it."""
    grave = sorted((ill for ill in _ills(report) if ill.finding.severity > Severity.INFO), key=lambda ill: -ill.finding.severity)
    if not grave:
        return _well(report), Severity.INFO
    worst = grave[0]
    answer = "in doubt" if worst.finding.severity < Severity.ERROR else "badly" if worst.finding.code in SLOWS else "no"
    more = f", and {counted(len(grave) - 1, 'more finding')}" if len(grave) > 1 else ""
    return f"is it learning? {answer}: {worst.says}{more}", worst.finding.severity


def _well(report: GradflowReport) -> str:
    """Say what speaks for it; of one step no more than that nothing is in its way."""
    trained = [each for each in report.parameters if each.status == "gradient"]
    arrived = f"all {counted(len(trained), 'parameter')} that can learn get gradients" if trained else "gradients flow through all layers"
    later = sum(each.zeros == 1 for each in trained)
    arrived += f", {later:,} of them after the first step" if later else ""
    tried = report.overfit
    if tried is not None and tried.passed:
        learned = f"the loss of one batch falls from {number(tried.losses[0])} to {number(tried.best)} in {counted(tried.steps, 'step')}"
        return f"is it learning? yes: {learned}, and {arrived}"
    return f"is it learning? nothing stands in its way: {arrived}"


def _ills(report: GradflowReport) -> list[Ill]:
    flow = Flow(report)
    rules = [*ALWAYS, *(OF_STATUS if flow.arrives else (arrival.no_grad,))]
    if not flow.broken:
        rules += [*(OF_SIZE if flow.arrives else ()), *OF_OUTPUT]
    return _causes([ill for rule in rules for ill in rule(flow)])


def _causes(ills: list[Ill]) -> list[Ill]:
    """Let each cause take in its symptoms: it is told as gravely as they are, and says what comes of it."""
    gone: set[int] = set()
    found: list[Ill] = []
    for cause in ills:
        symptoms = SILENCES.get(_kind(cause), ()) if cause.finding.severity > Severity.INFO else ()
        taken = [other for other, ill in enumerate(ills) if _kind(ill) in symptoms and other not in gone]
        gone.update(taken)
        found.append(_with(cause, [ills[other] for other in taken if ills[other].finding.severity > Severity.INFO]))
    return [ill for place, ill in enumerate(found) if place not in gone]


def _kind(ill: Ill) -> str:
    return ill.kind or ill.finding.code


def _with(cause: Ill, symptoms: list[Ill]) -> Ill:
    if not symptoms:
        return cause
    follows = " and ".join(ill.says.partition(";")[0].partition(":")[0] for ill in symptoms)
    severity = max(ill.finding.severity for ill in (cause, *symptoms))
    return replace(cause, finding=replace(cause.finding, severity=severity, message=f"{cause.finding.message}; so {follows}"))
