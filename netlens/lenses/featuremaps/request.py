"""One request: what the command line and the configuration file ask of the featuremaps lens, checked, and how it is answered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netlens.cli import console, misfit
from netlens.cli.config import load_config
from netlens.cli.emit import Renderers, emit
from netlens.cli.lean import import_torch
from netlens.cli.options import FailLevel, ReportFormat
from netlens.cli.pictures import OUT, Pictures
from netlens.errors import CheckpointDoesNotFit, UsageError
from netlens.lenses.featuremaps.attention_shown import Query, parse_query
from netlens.lenses.featuremaps.choices import USUAL, Options, parse_channels
from netlens.lenses.featuremaps.report import FeaturemapsReport
from netlens.loading.asked import AskedModel, texts_of
from netlens.loading.device import parse_compute_device
from netlens.loading.images import find_images
from netlens.loading.inputs import InputSpec, parse_input_spec
from netlens.loading.preprocessing_options import parse_mean, parse_size, parse_std
from netlens.loading.suggest import check_choice
from netlens.loading.words import user_path
from netlens.parts import Picture

if TYPE_CHECKING:
    from netlens.lenses.featuremaps.run import Ran

FROM_CONFIG = ("format", "fail_on", "seed", "out", "show", "device")
CHOICES = {"sort": ("index", "variance", "mean"), "scale": ("common", "each")}
SAVED = (".pt", ".pth", ".npy", ".npz", ".safetensors")  # files of tensors
BATCH = 8


@dataclass(frozen=True, slots=True)
class Request:
    """Everything is checked that can be checked without torch."""

    model: AskedModel
    images: tuple[Path, ...]
    inputs: tuple[InputSpec | Path, ...]
    data: str | None
    size: tuple[int, int] | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    samples: int | None
    batch_size: int
    layers: tuple[str, ...]
    options: Options
    attention: bool
    attention_scale: str
    query: Query | None
    mean_maps: bool
    pictures: bool
    device: str
    dtype: str | None
    autocast: str | None
    channels_last: bool
    auto_batch: bool
    seed: int
    texts: Mapping[str, Any]  # as the user wrote them, for the JSON document

    @classmethod
    def of(cls, asked: Mapping[str, Any]) -> Request:
        """Check what is asked.

        Raises:
            NetlensError: any of it cannot be.
        """
        for name, known in CHOICES.items():
            check_choice(f"--{name}", asked.get(name), known)
        _one_source(asked)
        return cls(
            model=AskedModel.of(asked),
            images=tuple(find_images(asked["image"])) if asked.get("image") else (),
            inputs=tuple(_input(text) for text in asked.get("input") or ()),
            data=asked.get("data"),
            size=parse_size(asked["size"]) if asked.get("size") else None,
            mean=parse_mean(asked["mean"]) if asked.get("mean") else None,
            std=parse_std(asked["std"]) if asked.get("std") else None,
            samples=asked.get("samples"),
            batch_size=asked.get("batch_size") or BATCH,
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
            device=parse_compute_device(asked.get("device") or "auto", "featuremaps"),
            dtype=_value(asked.get("dtype")),
            autocast=_value(asked.get("autocast")),
            channels_last=bool(asked.get("channels_last")),
            auto_batch=bool(asked.get("auto_batch")),
            seed=int(asked.get("seed") or 0),
            texts=texts_of(asked, "image", "input", "data", "size", "mean", "std", "layer", "device", "seed"),
        )


def _value(choice: Any) -> str | None:
    return None if choice is None else str(choice.value)


def _input(text: str) -> InputSpec | Path:
    path = user_path(text)
    return path if path.suffix.lower() in SAVED or path.is_file() else parse_input_spec(text)


def _one_source(asked: Mapping[str, Any]) -> None:
    given = [f"--{name}" for name in ("image", "input", "data") if asked.get(name)]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} both say what goes in", hint=f"leave one of them out, for example {given[-1]}")
    pictured = not given or given == ["--input"]
    for name in ("size", "mean", "std"):
        if pictured and asked.get(name):
            raise UsageError(f"--{name} is about pictures, and none are given", hint="add --image FILE or --data FOLDER")
    if asked.get("samples") and not asked.get("data"):
        raise UsageError("--samples limits --data, and none is given", hint="add --data FOLDER, or leave it out")


def run(asked: Mapping[str, Any]) -> int:
    """Answer one command line on stdout, and return the exit code.

    Raises:
        NetlensError: something the user must change.
    """
    defaults = {name.replace("-", "_"): value for name, value in load_config(Path.cwd()).defaults.items()}
    if defaults.get("device") == "meta":
        del defaults["device"]  # it is meant for summary
    asked = {**{name: defaults[name] for name in FROM_CONFIG if name in defaults}, **asked}
    request = Request.of(asked)
    form = ReportFormat(asked.get("format") or "table")
    spec = request.model.spec
    folder = Pictures(
        "featuremaps",
        spec.attribute or spec.name or spec.text,
        out=Path(asked.get("out") or OUT),
        overwrite=bool(asked.get("overwrite")),
        show=bool(asked.get("show")),
        facts={"Model": spec.text},
    )
    import_torch()
    try:
        report = _report(request, folder)
    except CheckpointDoesNotFit as error:
        misfit.tell(error)
        raise
    code = _emit(request, report, form, FailLevel(asked.get("fail_on") or "error"))
    folder.finish(form)
    return code


def _report(request: Request, folder: Pictures) -> FeaturemapsReport:
    from netlens.lenses.featuremaps.run import ran

    with console.download("fetching weights") as progress, console.progress("running") as step:
        found = ran(request, progress, console.note, step)
    return replace(found.report, pictures=_drawn(request, found, folder)) if request.pictures else found.report


def _drawn(request: Request, found: Ran, folder: Pictures) -> tuple[Picture, ...]:
    from netlens.lenses.featuremaps.album import draw, draw_attention
    from netlens.lenses.featuremaps.rules import alarms

    layers = [layer for layer in found.report.layers if found.maps[layer.name].count]
    _some_channels(request.options, max((layer.channels for layer in layers), default=0))
    title = request.model.spec.text
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
    if found.attention is None:
        return pictures
    whose = found.attention.shown()
    return (
        *pictures,
        *draw_attention(whose, found.attention.rollout(), found.shown, title=title, scale=request.attention_scale, folder=folder),
    )


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
