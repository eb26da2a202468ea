"""One request: what the command line and the configuration file ask of the kernels lens, checked, and how it is answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netlens.cli import console, misfit
from netlens.cli.config import load_config
from netlens.cli.emit import Renderers, emit
from netlens.cli.lean import import_torch
from netlens.cli.options import FailLevel, ReportFormat
from netlens.cli.pictures import Pictures
from netlens.errors import CheckpointDoesNotFit, UsageError
from netlens.lenses.kernels.report import KernelsReport
from netlens.loading.checkpoints.archive import Archive
from netlens.loading.checkpoints.ask import Ask
from netlens.loading.checkpoints.groups import checked_group
from netlens.loading.checkpoints.read import read_archive
from netlens.loading.specs import ModelSpec, parse_model_args, parse_model_spec
from netlens.loading.suggest import did_you_mean

if TYPE_CHECKING:
    from netlens.lenses.kernels.figures import Options

FROM_CONFIG = ("format", "fail_on", "seed", "out")
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

    model: ModelSpec
    model_args: Mapping[str, object]
    weights: str | None
    checkpoint: Ask | None  # weights for the model
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
            _check_choice(name, asked.get(name), known)
        for kind in asked.get("include") or ():
            _check_choice("include", kind, KINDS)
        if asked.get("weights") and asked.get("checkpoint"):
            raise UsageError("--weights and --checkpoint both give values", hint="leave one of them out")
        return cls(
            model=spec,
            model_args=parse_model_args(asked.get("model_arg") or ()),
            weights=asked.get("weights"),
            checkpoint=None if archive else Ask.of(asked),
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
            texts=_texts(asked),
        )

    def options(self) -> Options:
        """Return how filters are drawn."""
        from netlens.lenses.kernels.figures import Options

        return Options(scale=self.scale, max_filters=self.max_filters, sort=self.sort, summary=self.reduce)


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
    return archive


def _against(asked: Mapping[str, Any]) -> Ask | None:
    if asked.get("against") is None:
        return None
    named = {name: asked[name] for name in ("key", "strip_prefix", "no_strict", "trust_checkpoint") if name in asked}
    return Ask.of({**named, "checkpoint": asked["against"]})


def _check_choice(name: str, value: str | None, known: Sequence[str]) -> None:
    if value is not None and value not in known:
        option = f"--{name.replace('_', '-')}"
        raise UsageError(f"{option} {value!r} is not one of {', '.join(known)}", hint=did_you_mean(value, known, f"for example {option} {known[0]}"))


def _most(text: str | None) -> int | None:
    """Read `--max-filters`: a number, or None for all."""
    if text is None:
        return MOST_FILTERS
    if text == "all":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"--max-filters {text!r} is neither a number of filters nor all", hint="for example --max-filters 128")
    return int(text)


def _texts(asked: Mapping[str, Any]) -> dict[str, Any]:
    named = ("model", "model_arg", "weights", "checkpoint", "key", "strip_prefix", "against", "layer", "seed")
    return {name: str(value) if isinstance(value, Path) else value for name, value in asked.items() if name in named}


def run(asked: Mapping[str, Any]) -> int:
    """Answer one command line on stdout, and return the exit code.

    Raises:
        NetlensError: something the user must change.
    """
    defaults = {name.replace("-", "_"): value for name, value in load_config(Path.cwd()).defaults.items()}
    asked = {**{name: defaults[name] for name in FROM_CONFIG if name in defaults}, **asked}
    request = Request.of(asked)
    album = Pictures(
        "kernels",
        request.model.name or request.model.attribute or (request.model.path.stem if request.model.path else ""),
        out=Path(asked.get("out") or OUT),
        overwrite=bool(asked.get("overwrite")),
        show=bool(asked.get("show")),
        facts={},
    )
    import_torch()
    try:
        report = _report(request, album)
    except CheckpointDoesNotFit as error:
        misfit.tell(error)
        raise
    code = _emit(request, report, asked)
    album.finish()
    return code


def _report(request: Request, album: Pictures) -> KernelsReport:
    """Measure and draw."""
    from netlens.lenses.kernels.album import draw
    from netlens.lenses.kernels.measure import measure
    from netlens.lenses.kernels.rules import diagnose
    from netlens.lenses.kernels.source import opened

    with ExitStack() as stack:
        found = opened(request, stack)
        with console.progress("reading weights", len(found.weights.tensors)) as step:
            report = measure(found, request.layers, step)
        if request.pictures:
            report = replace(report, pictures=draw(report, found, request, diagnose(report), album))
    return report


def _emit(request: Request, report: KernelsReport, asked: Mapping[str, Any]) -> int:
    from netlens.lenses.kernels import show
    from netlens.lenses.kernels.rules import diagnose

    title = request.model.text
    return emit(
        report,
        diagnose(report),
        lens="kernels",
        subject={**request.texts, "file": None if request.model.path is None else str(request.model.path)},
        format=ReportFormat(asked.get("format") or "table"),
        fail_on=FailLevel(asked.get("fail_on") or "error"),
        renderers=Renderers(
            table=lambda width: show.table(report, width, title=title),
            markdown=lambda: show.as_markdown(report, title=title),
        ),
    )
