"""One request: what the command line and the configuration file ask of the featuremaps lens, checked, and how it is answered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from netlens.cli import console, misfit
from netlens.cli.config import with_defaults
from netlens.cli.emit import Renderers, emit
from netlens.cli.lean import import_torch
from netlens.cli.options import FailLevel, ReportFormat
from netlens.cli.provenance import Labelled, check_show, pictures_of
from netlens.errors import CheckpointDoesNotFit, UsageError
from netlens.lenses.featuremaps.attention_shown import Query, parse_query
from netlens.lenses.featuremaps.choices import USUAL, Options, parse_channels
from netlens.lenses.featuremaps.report import FeaturemapsReport
from netlens.loading.asked import AskedModel, texts_of
from netlens.loading.asked_run import SAMPLING, AskedRun, AskedSamples
from netlens.loading.suggest import check_choice
from netlens.parts import Picture

if TYPE_CHECKING:
    from netlens.cli.pictures import Pictures
    from netlens.lenses.featuremaps.run import Ran

FROM_CONFIG = (
    *("format", "fail_on", "seed", "out", "show", "device"),
    *("dtype", "autocast", "channels_last", "batch_size", "auto_batch"),
)
CHOICES = {"sort": ("index", "variance", "mean"), "scale": ("common", "each")}


@dataclass(frozen=True, slots=True)
class Request:
    """Everything is checked that can be checked without torch."""

    model: AskedModel
    samples: AskedSamples
    running: AskedRun
    layers: tuple[str, ...]
    options: Options
    attention: bool
    attention_scale: str
    query: Query | None
    mean_maps: bool
    pictures: bool
    texts: Mapping[str, Any]  # as the user wrote them, for the JSON document

    @classmethod
    def of(cls, asked: Mapping[str, Any]) -> Request:
        """Check what is asked.

        Raises:
            NetlensError: any of it cannot be.
        """
        for name, known in CHOICES.items():
            check_choice(f"--{name}", asked.get(name), known)
        return cls(
            model=AskedModel.of(asked, "featuremaps"),
            samples=AskedSamples.of(asked),
            running=AskedRun.of(asked, "featuremaps"),
            layers=tuple(asked.get("layer") or ()),
            options=Options(
                scale=asked.get("scale") or "common",
                channels=parse_channels(asked["channels"]) if asked.get("channels") else USUAL,
                sort=asked.get("sort") or "index",
            ),
            attention=bool(asked.get("attention") or asked.get("query")),
            attention_scale=asked.get("scale") or "each",
            query=parse_query(asked["query"]) if asked.get("query") else None,
            mean_maps=bool(asked.get("mean_maps")),
            pictures=bool(asked.get("pictures", True)),
            texts=texts_of(asked, *SAMPLING, "layer", "device", "seed"),
        )


def run(asked: Mapping[str, Any]) -> int:
    """Answer one command line on stdout, and return the exit code.

    Raises:
        NetlensError: something the user must change.
    """
    check_show(asked)
    asked = with_defaults(asked, FROM_CONFIG)
    request = Request.of(asked)
    folder = pictures_of("featuremaps", request.model.spec, asked)
    import_torch()
    try:
        report = _report(request, folder)
    except CheckpointDoesNotFit as error:
        misfit.tell(error)
        raise
    form = ReportFormat(asked.get("format") or "table")
    code = _emit(request, report, form, FailLevel(asked.get("fail_on") or "error"))
    if folder is not None:
        folder.finish(form)
    return code


def _report(request: Request, folder: Pictures | None) -> FeaturemapsReport:
    from netlens.lenses.featuremaps.run import ran

    with console.download("fetching weights") as progress, console.progress("running") as step:
        found = ran(request, progress, console.note, step)
    report, run = found.report, found.report.run
    if folder is None:
        return report
    facts = {
        "Weights": report.source,
        "Inputs": report.inputs,
        "Preprocessing": run.preprocessing,
        "Dtype": run.dtype,
        "Autocast": run.autocast or "",
    }
    return replace(report, pictures=_drawn(request, found, Labelled(folder, facts)))


def _drawn(request: Request, found: Ran, folder: Labelled) -> tuple[Picture, ...]:
    from netlens.lenses.featuremaps.album import attention_names, draw, draw_attention
    from netlens.lenses.featuremaps.rules import alarms

    layers = [layer for layer in found.report.layers if found.maps[layer.name].count]
    _some_channels(request.options, max((layer.channels for layer in layers), default=0))
    title = request.model.spec.text
    whose, rolled = ((), None) if found.attention is None else (found.attention.shown(), found.attention.rollout())
    folder.reserve(attention_names(whose, rolled))
    with console.progress("drawing", len(layers)) as step:
        pictures = tuple(
            draw(
                layers,
                lambda layer: found.maps[layer.name].joined(),
                lambda layer: found.maps[layer.name].prefix(),
                found.shown,
                request.options,
                title=title,
                mean_maps=request.mean_maps,
                alarms=alarms(found.report),
                folder=folder,
                step=step,
            )
        )
    return (*pictures, *draw_attention(whose, rolled, found.shown, title=title, scale=request.attention_scale, folder=folder))


def _some_channels(options: Options, most: int) -> None:
    if most and isinstance(options.channels, tuple) and all(part.start >= most for part in options.channels):
        raise UsageError(
            f"--channels begins with {options.channels[0].start}, and no layer has so many", hint=f"they go from 0 to {most - 1}"
        )


def _emit(request: Request, report: FeaturemapsReport, form: ReportFormat, fail_on: FailLevel) -> int:
    from netlens.lenses.featuremaps import show
    from netlens.lenses.featuremaps.rules import diagnose

    spec = request.model.spec
    return emit(
        report,
        diagnose(report),
        lens="featuremaps",
        subject={**request.texts, "file": None if spec.path is None else str(spec.path)},
        format=form,
        fail_on=fail_on,
        renderers=Renderers(
            table=lambda width: show.table(report, width, title=spec.text),
            markdown=lambda: show.as_markdown(report, title=spec.text),
        ),
    )
