"""One request: what the command line and the configuration file ask of the kernels lens, checked, and how it is answered."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from netlens.cli import console, misfit
from netlens.cli.config import with_defaults
from netlens.cli.emit import Renderers, emit
from netlens.cli.lean import import_torch
from netlens.cli.options import FailLevel, ReportFormat
from netlens.cli.provenance import Labelled, check_show, pictures_of
from netlens.errors import CheckpointDoesNotFit, UsageError
from netlens.lenses.kernels.checkpoints import compared, in_place_of_model, of_model, told_apart
from netlens.lenses.kernels.report import KernelsReport
from netlens.loading.asked import AskedModel, texts_of
from netlens.loading.checkpoints.archive import Archive
from netlens.loading.checkpoints.ask import Ask
from netlens.loading.specs import ModelSpec, parse_model_spec
from netlens.loading.suggest import check_choice
from netlens.parts import Picture

if TYPE_CHECKING:
    from netlens.cli.pictures import Pictures
    from netlens.lenses.kernels.source import Opened

FROM_CONFIG = ("format", "fail_on", "seed", "out", "show")
CHOICES = {
    "sort": ("index", "norm"),
    "scale": ("common", "each"),
    "reduce": ("mean", "largest", "pc1"),
}
KINDS = ("linear", "embedding")
MOST_FILTERS = 64


@dataclass(frozen=True, slots=True)
class Request:
    """Everything is checked that can be checked without torch."""

    spec: ModelSpec
    model: AskedModel | None
    archive: Archive | None  # a checkpoint that stands in the model's place
    key: str | None
    against: Ask | None
    layers: tuple[str, ...]
    include: tuple[str, ...]
    max_filters: int | None
    sort: str
    scale: str
    reduce: str | None
    fft: bool
    seed: int
    texts: Mapping[str, Any]  # as the user wrote them, for the JSON document

    @classmethod
    def of(cls, asked: Mapping[str, Any]) -> Request:
        """Check what is asked.

        Raises:
            NetlensError: any of it cannot be.
        """
        spec = parse_model_spec(asked["model"])
        archive = in_place_of_model(spec, asked)
        for name, known in CHOICES.items():
            check_choice(f"--{name}", asked.get(name), known)
        for kind in asked.get("include") or ():
            check_choice("--include", kind, KINDS)
        return cls(
            spec=spec,
            model=None if archive else AskedModel.of(of_model(asked), "kernels"),
            archive=archive,
            key=asked.get("key"),
            against=compared(asked),
            layers=tuple(asked.get("layer") or ()),
            include=tuple(asked.get("include") or ()),
            max_filters=_most(asked.get("max_filters")),
            sort=asked.get("sort") or "index",
            scale=asked.get("scale") or "common",
            reduce=asked.get("reduce"),
            fft=bool(asked.get("fft")),
            seed=int(asked.get("seed") or 0),
            texts=texts_of(asked, "against", "layer", "seed"),
        )

    @property
    def names(self) -> tuple[str, str]:
        """Return how the two checkpoints are called; "" where there is none."""
        loaded = self.model.checkpoint.archive if self.model is not None and self.model.checkpoint is not None else self.archive
        if loaded is not None and self.against is not None:
            return told_apart(loaded.path, self.against.archive.path)
        return "" if loaded is None else loaded.path.name, "" if self.against is None else self.against.archive.path.name


def _most(text: str | None) -> int | None:
    """Read `--max-filters`: a number, or None for all."""
    if text is None:
        return MOST_FILTERS
    if text == "all":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"--max-filters {text!r} is neither a number of filters nor all", hint="for example --max-filters 128")
    return int(text)


def run(asked: Mapping[str, Any]) -> int:
    """Answer one command line on stdout, and return the exit code.

    Raises:
        NetlensError: something the user must change.
    """
    check_show(asked)
    asked = with_defaults(asked, FROM_CONFIG)
    request = Request.of(asked)
    folder = pictures_of("kernels", request.spec, asked)
    import_torch()
    try:
        report = _report(request, folder)
    except CheckpointDoesNotFit as error:
        misfit.tell(error)
        raise
    code = _emit(request, report, asked)
    if folder is not None:
        folder.finish(ReportFormat(asked.get("format") or "table"))
    return code


def _report(request: Request, folder: Pictures | None) -> KernelsReport:
    """Measure, and draw what shall be drawn."""
    from netlens.lenses.kernels.measure import CONSTRUCTOR, measure, not_compared
    from netlens.lenses.kernels.source import opened
    from netlens.loading.select import select

    with ExitStack() as stack:
        with console.download("fetching weights") as progress:
            found = opened(request, stack, progress)
        tensors = found.weights.tensors
        types = [tensor.type or tensor.kind for tensor in tensors]  # as the table shows them
        chosen = select(request.layers, [tensor.name for tensor in tensors], types) if request.layers else None
        with console.progress("reading weights", len(tensors)) as step:
            layers = measure(found.weights, chosen=chosen, initial=found.initial, others=found.others, step=step)
        if found.initialised:  # then what it has is what its initialisation gives
            layers = tuple(replace(layer, initial_std=layer.std, initial_source=CONSTRUCTOR) for layer in layers)
        report = KernelsReport(
            model=found.model,
            source=found.source,
            initialised=found.initialised,
            against=request.names[1] or None,
            layers=layers,
            norms=found.weights.norms,
            notes=(*found.notes, *found.weights.notes, *(() if found.others is None else not_compared(layers, found.others))),
        )
        if folder is None:
            return report
        return replace(report, pictures=_drawn(request, found, report, Labelled(folder, {"Weights": report.source})))


def _drawn(request: Request, found: Opened, report: KernelsReport, folder: Labelled) -> tuple[Picture, ...]:
    from netlens.lenses.kernels.album import Drawable, draw, drawn
    from netlens.lenses.kernels.figures import Options
    from netlens.lenses.kernels.rules import alarms

    entries = [
        Drawable(layer, found.filters(layer.index), found.filters_of_other(layer.index) if layer.change else None, layer.index == 0)
        for layer in drawn(report.layers, request.include, named=bool(request.layers))
    ]
    with console.progress("drawing", len(entries)) as step:
        return tuple(
            draw(
                entries,
                report.layers,
                Options(scale=request.scale, max_filters=request.max_filters, sort=request.sort, summary=request.reduce),
                title=request.spec.text,
                fft=request.fft,
                compared=(request.names[0] or report.model, request.names[1]),
                alarms=alarms(report),
                folder=folder,
                step=step,
            )
        )


def _emit(request: Request, report: KernelsReport, asked: Mapping[str, Any]) -> int:
    from netlens.lenses.kernels import show
    from netlens.lenses.kernels.rules import diagnose

    title = request.spec.text
    return emit(
        report,
        diagnose(report),
        lens="kernels",
        subject={**request.texts, "file": None if request.spec.path is None else str(request.spec.path)},
        format=ReportFormat(asked.get("format") or "table"),
        fail_on=FailLevel(asked.get("fail_on") or "error"),
        renderers=Renderers(
            table=lambda width: show.table(report, width, title=title),
            markdown=lambda: show.as_markdown(report, title=title),
        ),
    )
