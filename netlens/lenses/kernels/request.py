"""One request: what the command line and the configuration file ask of the kernels lens, checked, and how it is answered."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, suppress
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
from netlens.lenses.kernels.report import KernelsReport
from netlens.loading.asked import AskedModel, texts_of
from netlens.loading.checkpoints.archive import Archive
from netlens.loading.checkpoints.ask import Ask
from netlens.loading.checkpoints.groups import checked_group
from netlens.loading.checkpoints.read import read_archive
from netlens.loading.specs import ModelSpec, parse_model_spec
from netlens.loading.suggest import check_choice
from netlens.parts import Picture

if TYPE_CHECKING:
    from netlens.lenses.kernels.source import Opened

FROM_CONFIG = ("format", "fail_on", "seed", "out", "show")
CHOICES = {
    "sort": ("index", "norm"),
    "scale": ("common", "each"),
    "reduce": ("mean", "largest", "pc1"),
}
KINDS = ("linear", "embedding")
MOST_FILTERS = 64
OF_A_MODEL = ("model_arg", "weights", "checkpoint", "strip_prefix", "no_strict", "trust_checkpoint")


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
    pictures: bool
    seed: int
    texts: Mapping[str, Any]  # as the user wrote them, for the JSON document

    @classmethod
    def of(cls, asked: Mapping[str, Any]) -> Request:
        """Check what is asked.

        Raises:
            NetlensError: any of it cannot be.
        """
        spec = parse_model_spec(asked["model"])
        archive = _archive(spec, asked)
        for name, known in CHOICES.items():
            check_choice(f"--{name}", asked.get(name), known)
        for kind in asked.get("include") or ():
            check_choice("--include", kind, KINDS)
        return cls(
            spec=spec,
            model=None if archive else AskedModel.of(asked),
            archive=archive,
            key=asked.get("key"),
            against=_against(asked),
            layers=tuple(asked.get("layer") or ()),
            include=tuple(asked.get("include") or ()),
            max_filters=_most(asked.get("max_filters")),
            sort=asked.get("sort") or "index",
            scale=asked.get("scale") or "common",
            reduce=asked.get("reduce"),
            fft=bool(asked.get("fft")),
            pictures=bool(asked.get("pictures", True)),
            seed=int(asked.get("seed") or 0),
            texts=texts_of(asked, "against", "layer", "seed"),
        )


def _archive(spec: ModelSpec, asked: Mapping[str, Any]) -> Archive | None:
    """Read the checkpoint that stands in the model's place."""
    if spec.source != "checkpoint" or spec.path is None:
        return None
    for name in OF_A_MODEL:
        if asked.get(name):
            option = f"--{name.replace('_', '-')}"
            hint = f"name the model that it belongs to: netlens kernels MODEL --checkpoint {spec.text}"
            raise UsageError(f"{option} needs a model, and {spec.text!r} is a checkpoint", hint=hint)
    archive = read_archive(spec.path)
    checked_group(archive, asked.get("key"))
    return _of_weights(archive, asked.get("key"))


def _of_weights(archive: Archive, key: str | None) -> Archive:
    """Refuse what an optimizer keeps beside each weight: it has the shapes of weights, and is none."""
    if any(group.key == key and group.role == "optimizer" for group in archive.groups):
        hint = f"leave --key out; `netlens summary {archive.path.name}` shows what is in it"
        raise UsageError(f"{key!r} of {archive.path.name} is the state of an optimizer, and no weights", hint=hint)
    return archive


def _stem(spec: ModelSpec) -> str:
    """Return what files are named after; a checkpoint with its folder, for many are called best.pt."""
    if spec.source == "checkpoint" and spec.path is not None:
        return "-".join(part for part in (spec.path.parent.name, spec.path.name) if part)
    return spec.attribute or spec.name


def _against(asked: Mapping[str, Any]) -> Ask | None:
    if asked.get("against") is None:
        return None
    named = {name: asked[name] for name in ("key", "strip_prefix", "no_strict", "trust_checkpoint") if name in asked}
    ask = Ask.of({**named, "checkpoint": asked["against"]})
    if ask is not None:
        _of_weights(ask.archive, ask.key)
    return ask


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
    if asked.get("show") and not asked.get("pictures", True):
        raise UsageError("--show draws pictures, and --no-pictures makes none", hint="leave one of them out")
    defaults = {name.replace("-", "_"): value for name, value in load_config(Path.cwd()).defaults.items()}
    asked = {**{name: defaults[name] for name in FROM_CONFIG if name in defaults}, **asked}
    request = Request.of(asked)
    album = _album(request, asked) if request.pictures else None
    import_torch()
    try:
        report = _report(request, album)
    except CheckpointDoesNotFit as error:
        misfit.tell(error)
        raise
    code = _emit(request, report, asked)
    if album is not None:
        album.finish(ReportFormat(asked.get("format") or "table"))
    return code


def _album(request: Request, asked: Mapping[str, Any]) -> Pictures:
    out = Path(asked.get("out") or OUT)
    with suppress(RuntimeError):  # no home of that name: then it is a name like any other
        out = out.expanduser()  # no shell has done it in pyproject.toml, nor in --out=~/pictures
    return Pictures(
        "kernels",
        _stem(request.spec),
        out=out,
        overwrite=bool(asked.get("overwrite")),
        show=bool(asked.get("show")),
        facts={"Model": request.spec.text, "Seed": str(request.seed)},
    )


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
            against=None if request.against is None else request.against.archive.path.name,
            layers=layers,
            norms=found.weights.norms,
            notes=(*found.notes, *found.weights.notes, *(() if found.others is None else not_compared(layers, found.others))),
        )
        return report if folder is None else replace(report, pictures=_drawn(request, found, report, folder))


def _drawn(request: Request, found: Opened, report: KernelsReport, folder: Pictures) -> tuple[Picture, ...]:
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
                compared=_compared(request, report),
                alarms=alarms(report),
                folder=folder,
                step=step,
            )
        )


def _compared(request: Request, report: KernelsReport) -> tuple[str, str]:
    """Return how the two checkpoints are called in a picture."""
    checkpoint = request.model.checkpoint if request.model is not None else None
    return report.model if checkpoint is None else checkpoint.archive.path.name, report.against or ""


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
