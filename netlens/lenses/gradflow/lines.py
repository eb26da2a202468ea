"""What stands around the tables of gradients: lines of plain text, the same in the terminal and in Markdown."""

from __future__ import annotations

from collections import Counter
from math import isfinite
from statistics import median

from netlens.drawing.facts import Fact
from netlens.drawing.numbers import byte_size, exact
from netlens.lenses.gradflow.report import GradflowReport, Noise, Overfit, RateRange
from netlens.wording import counted, listed, number, short

ALIKE = 1.5  # quotient of two losses of one batch: of other dropout, smoothed labels or weighted classes; ours


def title_line(report: GradflowReport, title: str) -> str:
    """Say what was looked at, and where its weights come from."""
    parts = [title]
    for part in (report.model, report.source):
        parts += [part] if part and not any(said.endswith(part) for said in parts) else []
    return " · ".join(short(part) if part != report.source else part for part in parts if part)


def warning(report: GradflowReport) -> list[str]:
    """Say loudly that the data is made up."""
    made_up = [name for name, on in (("INPUTS", report.run.random_inputs), ("LABELS", report.run.random_labels)) if on]
    told = "the way of the gradient is real, its direction means nothing"
    return [f"RANDOM {' AND '.join(made_up)}: {told}; --data names real samples"] if made_up else []


def head(report: GradflowReport) -> list[Fact]:
    """State what was differentiated, and how it was run."""
    run = report.run
    size = "" if run.batch_size is None else f"batches of {exact(run.batch_size)}"
    how = [counted(run.steps, "step"), size, f"{exact(run.accumulate)} batches in a step" if run.accumulate > 1 else ""]
    how += [f"{run.mode} mode" if run.mode else "", f"on {run.device}", run.dtype, f"autocast {run.amp}" if run.amp else ""]
    how += [counted(run.processes, "process").replace("processs", "processes")] if run.processes > 1 else []
    source = f" ({run.loss_source})" if run.loss_source not in ("", "--loss") else ""
    found = {"input": report.inputs, "loss": f"{short(run.loss)}{source}", "optimizer": run.optimizer}
    return [Fact(label, text) for label, text in found.items() if text] + [Fact("run", " · ".join(part for part in how if part))]


def facts(report: GradflowReport) -> list[Fact]:
    """State what holds for the whole run."""
    found = {
        "loss": _loss(report),
        "gradient": _gradient(report),
        "steps": _updates(report),
        "noise": "" if report.noise is None else _noise(report.noise),
        "overfit": "" if report.overfit is None else _overfit(report.overfit),
        "rates": "" if report.rate_range is None else _rates(report.rate_range),
        "memory": "" if report.run.peak_bytes is None else f"{byte_size(report.run.peak_bytes)} at the peak on {report.run.device}",
        "pictures": _pictures(report),
    }
    return [Fact(label, text) for label, text in found.items() if text] + [Fact("note", note) for note in report.notes]


def _loss(report: GradflowReport) -> str:
    losses, output = [step.loss for step in report.steps], report.output
    if not losses:
        return ""
    told = number(losses[0])
    if len(losses) > 1:
        told += f" to {number(losses[-1])} in {counted(len(losses), 'step')}, lowest {number(min(losses))}"
    if output is not None and output.chance is not None and _is_mean_of_classes(report, losses[0]):
        told += f" · knowing nothing costs {number(output.chance)}" + (f", ln({exact(output.classes)})" if output.classes else "")
    return told


def _is_mean_of_classes(report: GradflowReport, loss: float) -> bool:
    """Tell whether the loss is a mean cross-entropy: its name says so, or whose it is, and it is about as large as that of the output."""
    expected = None if report.output is None else report.output.expected
    named = report.run.loss in ("cross_entropy", "nll") or report.run.kind == "the model's own loss"
    return named and expected is not None and loss <= ALIKE * expected and expected <= ALIKE * loss


def _gradient(report: GradflowReport) -> str:
    """Count what gets a gradient, and name where it is smallest and largest."""
    if not report.parameters:
        return ""
    counts = Counter(each.status for each in report.parameters)
    told = [f"{exact(counts['gradient'])} of {counted(len(report.parameters), 'parameter')}"]
    told += [f"{exact(counts[status])} {status}" for status in ("frozen", "unused", "detached") if counts[status]]
    norms = [step.norm for step in report.steps if step.norm is not None]
    told += [f"norm {number(norms[0])}" + (f" to {number(norms[-1])}" if len(norms) > 1 else "")] if norms else []
    sizes = sorted((each.rms, short(each.name)) for each in report.parameters if each.rms and isfinite(each.rms))
    if len(sizes) > 1:
        told.append(f"RMS from {number(sizes[0][0])} ({sizes[0][1]}) to {number(sizes[-1][0])} ({sizes[-1][1]})")
    return " · ".join(told)


def _updates(report: GradflowReport) -> str:
    every = [each.update for each in report.parameters if each.update is not None and len(each.shape) > 1]
    steps = sorted(update for update in every if update and isfinite(update))
    told = []
    if steps:
        sizes = f"{number(steps[0])} to {number(steps[-1])}, median {number(median(steps))}"
        told.append(f"of weights, by their size: {sizes}; 0.0001 to 0.1 is usual, 0.001 a rule of thumb (Karpathy)")
    for count, what in ((every.count(0), "not at all"), (sum(not isfinite(update) for update in every), "without bound")):
        told += [f"{counted(count, 'weight')} {what}"] if count else []
    return " · ".join(told)


def _noise(noise: Noise) -> str:
    between = "" if noise.low is None or noise.high is None else f" (90 % between {number(noise.low)} and {number(noise.high)})"
    scale = "the noise scale cannot be told" if noise.scale is None else f"noise scale {number(noise.scale)} samples{between}"
    signal = "" if noise.signal is None else f" · signal {number(noise.signal)}, the median over parameters"
    left_out = f" · without {exact(noise.nonfinite)} whose gradient is not finite" if noise.nonfinite else ""
    return f"{scale}{signal} · from {exact(noise.batches - noise.nonfinite)} batches of {exact(noise.batch_size)}{left_out}"


def _overfit(tried: Overfit) -> str:
    first, last = (number(tried.losses[place]) for place in (0, -1)) if tried.losses else ("", "")
    answer = "passed" if tried.passed else "FAILED"
    how = f"loss {first} to {last} in {counted(tried.steps, 'step')} of {tried.optimizer} on {counted(tried.samples, 'sample')}"
    stopped = f" · updates stopped: {listed([short(name) for name in tried.stopped])}" if tried.stopped and not tried.passed else ""
    return f"{answer}: {how}{stopped}"


def _rates(found: RateRange) -> str:
    if found.low is None:
        return (
            f"no rate from {number(found.rates[0])} to {number(found.rates[-1])} lets the loss fall" if found.rates else "no rate was tried"
        )
    learned = "" if found.learned is None else f", but from {number(found.learned)} on the batches were learned already"
    to = f"to {number(found.high)}" if found.high is not None else f"on, and none up to {number(found.rates[-1])} is too large{learned}"
    steepest = "" if found.steepest is None else f" · falls fastest at {number(found.steepest)}"
    return f"usable from {number(found.low)} {to}{steepest}"


def _pictures(report: GradflowReport) -> str:
    folders = dict.fromkeys(picture.file.rpartition("/")[0] or "." for picture in report.pictures)
    return f"{exact(len(report.pictures))} in {', '.join(folders)} · --format json lists them" if folders else ""
