"""One request: what the command line and the configuration file ask of the gradflow lens, checked, and how it is answered."""

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
from netlens.errors import CheckpointDoesNotFit, ModelNotBuilt, UsageError
from netlens.lenses.gradflow.report import GradflowReport
from netlens.loading.asked import AskedModel, texts_of
from netlens.loading.asked_run import SAMPLING, AskedRun, AskedSamples
from netlens.loading.loss_names import parse_loss
from netlens.loading.optimizers import parse_optimizer
from netlens.loading.suggest import check_choice
from netlens.wording import listed

if TYPE_CHECKING:
    from netlens.cli.pictures import Pictures
    from netlens.lenses.gradflow.session import Settings
    from netlens.loading.calls import Call

FROM_CONFIG = ("format", "fail_on", "seed", "out", "show", "device", "dtype", "channels_last", "batch_size")
CHOICES = {"sort": ("order", "worst"), "amp": ("bf16", "fp16")}
FOR_MODELS = ("model_arg", "weights", "checkpoint", "input", "data", "loss", "optimizer", "lr", "amp", "accumulate", "overfit", "lr_range")
LEARNING = ("loss", "steps", "accumulate", "amp", "train", "noise", "overfit", "lr_range")


@dataclass(frozen=True, slots=True)
class Request:
    """Everything is checked that can be checked without torch."""

    model: AskedModel
    samples: AskedSamples
    running: AskedRun
    asked: Mapping[str, Any]  # how it shall learn
    optimizer: Call
    sort: str | None
    texts: Mapping[str, Any]  # as the user wrote them, for the JSON document

    @classmethod
    def of(cls, asked: Mapping[str, Any]) -> Request:
        """Check what is asked.

        Raises:
            NetlensError: any of it cannot be.
        """
        for name, known in CHOICES.items():
            check_choice(f"--{name}", asked.get(name), known)
        if asked.get("loss"):
            parse_loss(asked["loss"])
        return cls(
            model=AskedModel.of(asked, "gradflow"),
            samples=AskedSamples.of(asked),
            running=AskedRun.of(asked, "gradflow"),
            asked={name: asked[name] for name in LEARNING if asked.get(name) is not None},
            optimizer=parse_optimizer(asked.get("optimizer") or "sgd", asked.get("lr")),
            sort=asked.get("sort"),
            texts=texts_of(asked, *SAMPLING, *LEARNING, "optimizer", "lr", "device", "seed"),
        )

    @property
    def may_be_a_step(self) -> bool:
        """Whether MODEL may name a training step: nothing is asked that needs a model."""
        return not self.for_models

    @property
    def for_models(self) -> tuple[str, ...]:
        """The options that are given and that no training step has, as the user writes them: "--lr"."""
        return tuple(f"--{name.replace('_', '-')}" for name in FOR_MODELS if self.texts.get(name))

    @property
    def settings(self) -> Settings:
        """How it shall learn; torch is imported by this."""
        from netlens.lenses.gradflow.session import Settings

        return Settings(optimizer=self.optimizer.name, options=self.optimizer.options, seed=self.running.seed, **self.asked)


def run(asked: Mapping[str, Any]) -> int:
    """Answer one command line on stdout, and return the exit code.

    Raises:
        NetlensError: something the user must change.
    """
    check_show(asked)
    asked = with_defaults(asked, FROM_CONFIG)
    request = Request.of(asked)
    folder = pictures_of("gradflow", request.model.spec, asked)
    import_torch()
    try:
        report = _report(request, folder)
    except CheckpointDoesNotFit as error:
        misfit.tell(error)
        raise
    if report is None:  # another process reports
        return 0
    form = ReportFormat(asked.get("format") or "table")
    code = _emit(request, report, form, FailLevel(asked.get("fail_on") or "error"))
    if folder is not None:
        folder.finish(form)
    return code


def _report(request: Request, folder: Pictures | None) -> GradflowReport | None:
    from netlens.lenses.gradflow.run import ran

    with console.download("fetching weights") as progress, console.progress("running") as step:
        try:
            report = ran(request, progress, console.note, step)
        except ModelNotBuilt as error:
            if request.for_models and error.message.endswith(", not a model"):
                raise _no_such_option(request, error) from error
            raise
    return report if folder is None or report is None else _drawn(request, report, folder)


def _no_such_option(request: Request, error: ModelNotBuilt) -> UsageError:
    """Tell that a function makes no model: as a training step it takes no options of models."""
    options = listed(request.for_models)
    what = f"{error.message}, and {options} {'does' if len(request.for_models) == 1 else 'do'} not apply to a training step"
    return UsageError(what, hint=f"leave {options} out if it is a training step: it has its own; else let it return the model")


def _drawn(request: Request, report: GradflowReport, folder: Pictures) -> GradflowReport:
    from netlens.lenses.gradflow.album import draw
    from netlens.lenses.gradflow.rules import alarms

    run = report.run
    facts = {"Weights": report.source, "Inputs": report.inputs, "Loss": run.loss, "Optimizer": run.optimizer, "Dtype": run.dtype}
    with console.progress("drawing") as step:
        pictures = tuple(draw(report, alarms(report), Labelled(folder, facts), request.model.spec.text, step))
    return replace(report, pictures=pictures)


def _emit(request: Request, report: GradflowReport, form: ReportFormat, fail_on: FailLevel) -> int:
    from netlens.lenses.gradflow import show
    from netlens.lenses.gradflow.rules import diagnose

    spec = request.model.spec
    return emit(
        report,
        diagnose(report),
        lens="gradflow",
        subject={**request.texts, "file": None if spec.path is None else str(spec.path)},
        format=form,
        fail_on=fail_on,
        renderers=Renderers(
            table=lambda width: show.table(report, width, title=spec.text, sort=request.sort),
            markdown=lambda: show.as_markdown(report, title=spec.text, sort=request.sort),
        ),
    )
