"""The pictures of one request: which are drawn, in which order, and what is said about each in the report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from netlens.drawing.album import Folder, write, write_pages
from netlens.lenses.gradflow import figures, trial_figures
from netlens.lenses.gradflow.report import GradflowReport
from netlens.parts import Picture

NAMES = ("flow", "ratios", "steps", "histograms", "overfit", "lr-range", "ranks")


def draw(report: GradflowReport, alarms: Mapping[str, str], folder: Folder, title: str, step: Callable[[], object]) -> Iterator[Picture]:
    """Write the pictures: gradients and ratios in depth, steps, histograms, and what `--overfit`, `--lr-range` and several processes add.

    Args:
        report: what was measured.
        alarms: parameter, layer or "rank 3" -> the word that it is marked with.
        folder: where they are written.
        title: what the user calls the model.
        step: called after each picture.
    """
    folder.reserve(NAMES)
    for pictures in (_of_gradients(report, alarms, folder, title), _of_training(report, alarms, folder, title)):
        for picture in pictures:
            yield picture
            step()


def _of_gradients(report: GradflowReport, alarms: Mapping[str, str], folder: Folder, title: str) -> Iterator[Picture]:
    names = tuple(each.name for each in report.parameters)
    if report.parameters or report.layers:
        image = figures.gradient_plot(f"{title} · gradients from layer to layer", report, alarms)
        yield write(folder, "flow", image, shows="gradient flow", layers=names, scale="logarithmic", prefer=True)
    if any(each.ratio is not None or each.update is not None for each in report.parameters):
        image = figures.ratio_plot(f"{title} · gradients and steps against weights", report, alarms)
        yield write(folder, "ratios", image, shows="ratios", layers=names, scale="logarithmic", prefer=True)
    if len(report.steps) > 1 and names:
        image = figures.steps_map(f"{title} · gradients from step to step", report.parameters, report.steps, alarms)
        yield write(folder, "steps", image, shows="steps", layers=names, scale="logarithmic, common")
    if any(each.histogram for each in report.parameters):
        images = figures.histogram_page(f"{title} · gradients", report.parameters, alarms)
        yield from write_pages(folder, "histograms", images, shows="histograms", layers=names, scale="each its own range")


def _of_training(report: GradflowReport, alarms: Mapping[str, str], folder: Folder, title: str) -> Iterator[Picture]:
    if report.overfit is not None and report.overfit.losses:
        image = trial_figures.overfit_curve(f"{title} · overfitting one batch", report.overfit)
        yield write(folder, "overfit", image, shows="overfit", layers=(), scale="", prefer=True)
    if report.rate_range is not None and report.rate_range.rates:
        image = trial_figures.rate_curve(f"{title} · learning rates", report.rate_range)
        yield write(folder, "lr-range", image, shows="learning rates", layers=(), scale="", prefer=True)
    if len(report.ranks) > 1:
        image = figures.rank_bars(f"{title} · processes compared", report.ranks, alarms)
        yield write(folder, "ranks", image, shows="ranks", layers=(), scale="")
