"""One request: what the command line and the configuration file ask of the gradcam lens, checked, and how it is answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netlens.cli import console, misfit
from netlens.cli.config import with_defaults
from netlens.cli.emit import Renderers, emit
from netlens.cli.lean import import_torch
from netlens.cli.options import FailLevel, ReportFormat
from netlens.cli.provenance import Labelled, arrays_of, check_show, pictures_of
from netlens.errors import CheckpointDoesNotFit, UsageError
from netlens.lenses.gradcam.choices import METHODS, USUAL, Method
from netlens.lenses.gradcam.report import GradcamReport
from netlens.loading.asked import AskedModel, texts_of
from netlens.loading.asked_run import SAMPLING, AskedRun, AskedSamples
from netlens.loading.images import find_images
from netlens.loading.suggest import check_choice

if TYPE_CHECKING:
    from netlens.cli.arrays import Arrays
    from netlens.cli.pictures import Pictures
    from netlens.lenses.gradcam.run import Ran
    from netlens.lenses.gradcam.settings import Settings
    from netlens.loading.boxes import Boxes
    from netlens.loading.class_names import ClassNames

FROM_CONFIG = (
    *("format", "fail_on", "seed", "out", "show", "device"),
    *("dtype", "autocast", "channels_last", "batch_size", "auto_batch"),
)
TEXTS = ("target", "names", "point", "against", "output", "method", "layer", "top_channels", "score", "boxes", "sanity", "device", "seed")


@dataclass(frozen=True, slots=True)
class Request:
    """Everything is checked that can be checked without torch."""

    model: AskedModel
    samples: AskedSamples
    running: AskedRun
    methods: tuple[Method, ...]
    every: bool  # all methods that the model allows
    targets: tuple[str, ...]
    names: ClassNames | None
    point: tuple[float, float] | None
    against: Path | None
    output: str | None
    layers: tuple[str, ...]
    list_layers: bool
    top_channels: int | None
    score: bool
    boxes: Boxes | None
    sanity: bool
    common: bool
    raw: bool
    texts: Mapping[str, Any]  # as the user wrote them, for the JSON document

    @classmethod
    def of(cls, asked: Mapping[str, Any]) -> Request:
        """Check what is asked.

        Raises:
            NetlensError: any of it cannot be.
        """
        from netlens.loading.boxes import read_boxes
        from netlens.loading.class_names import read_names

        check_choice("--scale", asked.get("scale"), ("each", "common"))
        methods, every = _methods(asked.get("method") or (), asked.get("top_channels"))
        samples = AskedSamples.of(asked)
        _something_goes_in(asked, samples)
        return cls(
            model=AskedModel.of(asked, "gradcam"),
            samples=samples,
            running=AskedRun.of({"auto_batch": True, **asked}, "gradcam"),  # samples do not depend on each other: the maps are the same
            methods=methods,
            every=every,
            targets=tuple(part for text in asked.get("target") or () for part in _parts(text)),
            names=read_names(asked["names"]) if asked.get("names") else None,
            point=_point(asked["point"]) if asked.get("point") else None,
            against=_against(asked["against"]) if asked.get("against") else None,
            output=asked.get("output"),
            layers=tuple(asked.get("layer") or ()),
            list_layers=bool(asked.get("list_layers")),
            top_channels=asked.get("top_channels"),
            score=bool(asked.get("score")),
            boxes=read_boxes(asked["boxes"]) if asked.get("boxes") else None,
            sanity=bool(asked.get("sanity")),
            common=asked.get("scale") == "common",
            raw=bool(asked.get("raw")),
            texts=texts_of(asked, *SAMPLING, *TEXTS),
        )

    @property
    def settings(self) -> Settings:
        """What is asked of the maps; torch is imported by this."""
        from netlens.lenses.gradcam.settings import Settings

        return Settings(
            methods=self.methods,
            skip=self.every,
            targets=self.targets,
            point=self.point,
            key=self.output,
            layers=self.layers,
            list_layers=self.list_layers,
            top_channels=self.top_channels,
            score=self.score,
            boxes=self.boxes,
        )


def _methods(texts: Sequence[str], top_channels: int | None) -> tuple[tuple[Method, ...], bool]:
    """Read "gradcam,layercam"; "all" are all, of which the model may not allow some."""
    names = [name.strip().lower() for text in texts for name in text.split(",") if name.strip()]
    if texts and not names:
        raise UsageError("--method names no method", hint=f"write --method {USUAL}, several with commas between them, or all")
    if top_channels is not None and not {"scorecam", "all"} & {*names}:
        raise UsageError("--top-channels is about Score-CAM, which is not asked for", hint="add --method scorecam, or leave it out")
    if "all" in names:
        return tuple(METHODS.values()), True
    for name in names:
        check_choice("--method", name, (*METHODS, "all"))
    return tuple(METHODS[name] for name in dict.fromkeys(names or [USUAL])), False


def _parts(text: str) -> list[str]:
    """Take numbers apart, "3,7"; a name may hold a comma."""
    if not text.strip(", "):
        raise UsageError("--target names no class", hint="write its number or its name, or leave --target out for the top prediction")
    parts = [part.strip() for part in text.split(",")]
    return parts if all(part.isdecimal() for part in parts) else [text]


def _point(text: str) -> tuple[float, float]:
    try:
        x, y = (float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--point {text!r} is no place", hint="write column,row in pixels of the photo, like --point 120,80") from None
    if not (0 <= x < 1e6 and 0 <= y < 1e6):
        raise UsageError(f"--point {text!r} lies on no photo", hint="count from the upper left corner, like --point 120,80")
    return x, y


def _against(text: str) -> Path:
    found = find_images([text])
    if len(found) > 1:
        raise UsageError(f"--against {text} names {len(found)} pictures", hint="name one: all others are compared with it")
    return found[0]


def _something_goes_in(asked: Mapping[str, Any], samples: AskedSamples) -> None:
    if not (samples.images or samples.inputs or asked.get("list_layers")):
        raise UsageError("there is nothing to look at", hint="add --image FILE or FOLDER, or --input FILE with saved tensors")
    if not samples.images:
        for name in ("against", "boxes"):
            if asked.get(name):
                raise UsageError(f"--{name} is about pictures, and none are given", hint="add --image FILE or FOLDER")


def run(asked: Mapping[str, Any]) -> int:
    """Answer one command line on stdout, and return the exit code.

    Raises:
        NetlensError: something the user must change.
    """
    check_show(asked)
    asked = with_defaults(asked, FROM_CONFIG)
    request = Request.of(asked)
    folder = None if request.list_layers else pictures_of("gradcam", request.model.spec, asked)
    arrays = arrays_of("gradcam", request.model.spec, asked) if request.raw and not request.list_layers else None
    import_torch()
    try:
        report = _report(request, folder, arrays)
    except CheckpointDoesNotFit as error:
        misfit.tell(error)
        raise
    form = ReportFormat(asked.get("format") or "table")
    code = _emit(request, report, form, FailLevel(asked.get("fail_on") or "error"))
    if folder is not None:
        folder.finish(form)
    if arrays is not None:
        arrays.finish()
    return code


def _report(request: Request, folder: Pictures | None, arrays: Arrays | None) -> GradcamReport:
    from netlens.lenses.gradcam.run import ran

    with console.download("fetching weights") as progress, console.progress("running") as step:
        found = ran(request, progress, console.note, step)
    if arrays is not None:
        from netlens.lenses.gradcam.album import write_raw

        found = replace(found, report=write_raw(found.report, found.maps, found.scenes, arrays))
    return found.report if folder is None else _drawn(request, found, folder)


def _drawn(request: Request, found: Ran, folder: Pictures) -> GradcamReport:
    from netlens.lenses.gradcam.album import draw

    report, run = found.report, found.report.run
    facts = {
        "Weights": report.source,
        "Inputs": report.inputs,
        "Preprocessing": run.preprocessing,
        "Dtype": run.dtype,
        "Autocast": run.autocast or "",
    }
    with console.progress("drawing", len(report.shots)) as step:
        title = request.model.spec.text
        pictures = tuple(
            draw(
                report,
                found.maps,
                found.scenes,
                title=title,
                common=request.common,
                folder=Labelled(folder, facts),
                step=step,
            )
        )
    return replace(report, pictures=pictures)


def _emit(request: Request, report: GradcamReport, form: ReportFormat, fail_on: FailLevel) -> int:
    from netlens.lenses.gradcam import show
    from netlens.lenses.gradcam.rules import diagnose

    spec = request.model.spec
    return emit(
        report,
        diagnose(report),
        lens="gradcam",
        subject={**request.texts, "file": None if spec.path is None else str(spec.path)},
        format=form,
        fail_on=fail_on,
        renderers=Renderers(
            table=lambda width: show.table(report, width, title=spec.text),
            markdown=lambda: show.as_markdown(report, title=spec.text),
        ),
    )
