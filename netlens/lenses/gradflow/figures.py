"""What the gradflow lens draws: gradients and steps from layer to layer, from step to step, and of each process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
from PIL import Image

from netlens.drawing.captions import joined, significant
from netlens.drawing.heatmaps import step_map
from netlens.drawing.histograms import Panel, histograms
from netlens.drawing.numbers import percent
from netlens.drawing.plots import Column, depth_plot
from netlens.lenses.gradflow.report import GradflowReport, LayerFlow, ParameterFlow, Rank, Step
from netlens.wording import counted

HEALTHY, GUIDE = (1e-4, 1e-1), 1e-3  # of an update against its weights
BANDS = "shaded: 0.0001 to 0.1, where most models that learn are; dashed: 0.001, a rule of thumb (Karpathy), a guide and not a bound"
WIDE = 330  # pixels of a column
LONG = 8  # rows: as many with nothing to show are drawn
BROKEN = "not finite"

Alarms = Mapping[str, str]
NONE: Alarms = {}


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the plot from layer to layer: a parameter, an output, or the only weight of a layer and its output."""

    name: str
    parameter: ParameterFlow | None = None
    layer: LayerFlow | None = None

    @property
    def flows(self) -> bool:
        """Whether any gradient arrives."""
        return any(each is not None and each.status == "gradient" for each in (self.parameter, self.layer))

    def alarm(self, alarms: Alarms) -> str | None:
        """Return the word for what a finding says about it, if there is one."""
        names = (self.parameter and self.parameter.name, self.layer and self.layer.name, self.parameter and self.parameter.layer)
        return next((alarms[name] for name in names if name and name in alarms), None)


def gradient_plot(heading: str, report: GradflowReport, alarms: Alarms = NONE) -> Image.Image:
    """Plot mean and greatest |gradient| of weights, and beside them of what layers put out, downwards in forward order.

    Args:
        heading: of the page.
        report: what was measured.
        alarms: parameter or layer -> a word for what a finding says about it; these are marked.
    """
    shown = _weights(report.parameters, alarms)
    rows = _folded(aligned(shown, report.layers), alarms)
    columns = [
        _gradients("|gradient| of weights", [row.parameter for row in rows]),
        _gradients("|gradient| of the layer's output", [row.layer for row in rows]),
    ]
    words = "gradient of the loss, downwards in forward order · blue: mean, grey: greatest"
    left_out = len(report.parameters) - len(shown)
    foot = f"without {counted(left_out, 'bias').replace('biass', 'biases')}" if left_out else ""
    return depth_plot(heading, [row.name for row in rows], columns, subtitle=words, footnote=foot, marks=_marks(rows, alarms), wide=WIDE)


def ratio_plot(heading: str, report: GradflowReport, alarms: Alarms = NONE) -> Image.Image:
    """Plot the norms of gradients and of the optimizer's steps against the norms of the weights, downwards in forward order."""
    weights = _weights(report.parameters, alarms)
    kept = _without_scales(weights, alarms)
    rows = _folded([Row(each.name, each) for each in kept], alarms)
    found = [row.parameter for row in rows if row.parameter]
    why = [_unknown(each, each.update) or ("" if each.optimized else "in no optimizer") for each in found]
    columns = [
        Column("gradient / weights", [each.ratio for each in found], log=True, absent=[_unknown(each, each.ratio) for each in found]),
        Column("update / weights", [each.update for each in found], log=True, healthy=HEALTHY, guide=GUIDE, absent=why),
    ]
    stepped = any(each.update is not None for each in found)
    shown, foot = (columns, BANDS) if stepped else (columns[:1], "")
    left_out = len(weights) - len(kept)
    foot = joined(foot, f"without {counted(left_out, 'weight')} of one axis, such as scales of normalization" if left_out else "")
    words = f"norms, downwards in forward order · optimizer: {report.run.optimizer}"
    return depth_plot(heading, [row.name for row in rows], shown, subtitle=words, footnote=foot, marks=_marks(rows, alarms), wide=WIDE)


def histogram_page(heading: str, parameters: Sequence[ParameterFlow], alarms: Alarms = NONE) -> list[Image.Image]:
    """Draw a histogram of the gradient of each weight that has one."""
    shown = [each for each in _weights(parameters, alarms) if each.status == "gradient"]
    panels = [_panel(each, Row(each.name, each).alarm(alarms) or "") for each in shown]
    sampled = any(each.histogram is not None and each.histogram.sampled for each in shown)
    words = "gradients, each over its full range" + (", large ones over that of an even sample" if sampled else "")
    return histograms(heading, panels, subtitle=f"{words}; the height of a bin is the square root of its count")


def steps_map(heading: str, parameters: Sequence[ParameterFlow], steps: Sequence[Step], alarms: Alarms = NONE) -> Image.Image:
    """Show how large the gradient of each weight is from step to step."""
    rows = _folded([Row(each.name, each) for each in _weights(parameters, alarms)], alarms)
    every = {each.name: values for each, values in zip(parameters, zip(*(step.rms for step in steps), strict=True), strict=True)}
    values = np.array([[-1.0 if value is None else value for value in every[row.parameter.name]] for row in rows if row.parameter], float)
    losses = f"loss {significant(steps[0].loss)} → {significant(steps[-1].loss)}"
    words = joined("downwards in forward order, steps from left to right", losses)
    unit, marks = "root mean square of the gradient", _marks(rows, alarms)
    return step_map(heading, [row.name for row in rows], values, unit=unit, subtitle=words, marks=marks)


def rank_bars(heading: str, ranks: Sequence[Rank], alarms: Alarms = NONE) -> Image.Image:
    """Compare the processes of one step: the loss of each, the norm of its own gradients, and their cosine with the mean of all."""
    names = [f"rank {each.rank} · {each.device}" for each in ranks]
    columns = [
        Column("loss", [each.loss for each in ranks], bars=True),
        Column("norm of its gradients", [each.norm for each in ranks], bars=True),
        Column("cosine with the mean", [each.cosine for each in ranks], bars=True),
    ]
    marks = {place: alarms[f"rank {each.rank}"] for place, each in enumerate(ranks) if f"rank {each.rank}" in alarms}
    return depth_plot(heading, names, columns, subtitle="each process by itself, before gradients are reduced", marks=marks)


def aligned(parameters: Sequence[ParameterFlow], layers: Sequence[LayerFlow]) -> list[Row]:
    """Put parameters between the layers where they are used: before what their layer puts out; those that never ran are last.

    A layer whose only parameter is shown has one row with it.
    """
    first: dict[str, int] = {"": 0}  # the first output of a layer, or of what is inside it
    for place, layer in enumerate(layers):
        parts = _path(layer).split(".")
        for length in range(1, len(parts) + 1):
            first.setdefault(".".join(parts[:length]), place)
    owners = Counter(each.layer for each in parameters)
    alone = {each.layer: each for each in parameters if owners[each.layer] == 1}
    rows: list[tuple[int, int, Row]] = []
    joint, last = set(), 0
    for place, layer in enumerate(layers):
        parameter = alone.get(layer.name)
        joint.add(parameter and parameter.name)
        rows.append((place, 1, Row(layer.name, parameter, layer)))
    for each in parameters:
        last = len(layers) if each.status == "unused" else first.get(_known(each.layer, first), last)
        if each.name not in joint:
            rows.append((last, 0, Row(each.name, each)))
    return [row for _, _, row in sorted(rows, key=lambda row: row[:2])]


def _folded(rows: Sequence[Row], alarms: Alarms) -> list[Row]:
    """Fold what is long and has nothing to show, such as a frozen backbone, to its first row, its last, and one between."""
    folded: list[Row] = []
    for silent, run in groupby(rows, key=lambda row: not row.flows and row.alarm(alarms) is None):
        each = list(run)
        if silent and len(each) > LONG:
            between = next((row for row in each[1:-1] if row.parameter), each[1])
            each = [each[0], replace(between, name=f"… {len(each) - 2:,} more"), each[-1]]
        folded += each
    return folded


def _known(path: str, first: Mapping[str, int]) -> str:
    """Return the path itself or the innermost module around it that put something out: attention uses `out_proj` without calling it."""
    while path not in first and "." in path:
        path = path.rpartition(".")[0]
    return path


def _path(layer: LayerFlow) -> str:
    """Return the path of the module in which an output was made: of "block:relu#2" that is "block"."""
    return layer.name.partition("#")[0].partition(":")[0]


def _weights(parameters: Sequence[ParameterFlow], alarms: Alarms) -> list[ParameterFlow]:
    """Leave out biases, unless a finding is about one: a layer's weight says how its gradient flows."""
    others = {each.layer for each in parameters if not _is_bias(each)}
    return [each for each in parameters if not _is_bias(each) or each.layer not in others or each.name in alarms]


def _without_scales(parameters: Sequence[ParameterFlow], alarms: Alarms) -> list[ParameterFlow]:
    """Leave out weights of one axis, as normalization has, unless a finding is about one: among others they hide how these go on."""
    kept = [each for each in parameters if len(each.shape) > 1 or each.name in alarms or each.layer in alarms]
    return kept if any(len(each.shape) > 1 for each in kept) else list(parameters)


def _is_bias(parameter: ParameterFlow) -> bool:
    return len(parameter.shape) == 1 and "bias" in parameter.name.rpartition(".")[2]


def _gradients(heading: str, flows: Sequence[ParameterFlow | LayerFlow | None]) -> Column:
    means, most = [each.mean if each else None for each in flows], [each.greatest if each else None for each in flows]
    absent = [_absent(each.status, each.mean, each.nan + each.infinite) if each else "" for each in flows]
    return Column(heading, means, log=True, ceiling=most, absent=absent)


def _unknown(each: ParameterFlow, ratio: float | None) -> str:
    """Say why there is no ratio to the weights."""
    return _absent(each.status, ratio, each.nan + each.infinite) or ("weights are 0" if ratio is None and each.weight_rms == 0 else "")


def _absent(status: str, value: float | None, broken: int) -> str:
    """Say why there is no number."""
    return status if status != "gradient" else BROKEN if value is None and broken else ""


def _marks(rows: Sequence[Row], alarms: Alarms) -> dict[int, str]:
    return {place: word for place, row in enumerate(rows) if (word := row.alarm(alarms)) is not None}


def _panel(each: ParameterFlow, alarm: str) -> Panel:
    found = each.histogram
    notes = [
        alarm,
        "" if each.rms is None else f"rms {significant(each.rms)}",
        f"{percent(each.zeros, 1)} zeros" if each.zeros else "",
        f"{each.nan + each.infinite:,} {BROKEN}" if each.nan + each.infinite else "",
        "of a sample" if found and found.sampled else "",
    ]
    low, high, counts = (found.low, found.high, found.counts) if found else (0.0, 0.0, ())
    return Panel(each.name, low, high, counts, joined(*notes), bool(alarm))
