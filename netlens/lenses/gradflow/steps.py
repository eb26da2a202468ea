"""`netlens gradflow pkg.train:step`: telling a training step from a model, and the report of its calls."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import nn

from netlens.errors import InputError
from netlens.lenses.gradflow.report import GradflowReport, Run
from netlens.lenses.gradflow.stepping import Stepped, check_step, measured_steps
from netlens.loading.arguments import required_arguments
from netlens.loading.from_python import import_attribute
from netlens.loading.specs import ModelSpec

if TYPE_CHECKING:
    from netlens.lenses.gradflow.distributed import Processes


class MakesAModel(BaseException):
    """The function returned a model: it is not a training step. No Exception, so that nobody takes it for a fault of the user's code."""


def step_of(spec: ModelSpec) -> Callable[[], Any] | None:
    """Return the function of the user's own that `spec` names, if it may be a training step: it needs no arguments; else None."""
    if spec.source != "python":
        return None
    found = import_attribute(spec)
    if isinstance(found, (type, nn.Module)) or not callable(found) or _says_model(found) or required_arguments(found):
        return None
    step = check_step(found, spec.text)

    def called() -> Any:
        result = step()
        if isinstance(result, nn.Module):
            raise MakesAModel
        return result

    return called


def _says_model(found: Any) -> bool:
    """Tell whether a function says that it returns a model."""
    try:
        returned = inspect.signature(found, eval_str=True).return_annotation
    except Exception:  # names that are not there, no signature at all
        return False
    return isinstance(returned, type) and issubclass(returned, nn.Module)


def stepped(
    step: Callable[[], Any], name: str, steps: int, device: str, processes: Processes | None, done: Callable[[], object]
) -> GradflowReport:
    """Call a training step, and describe what it does.

    Args:
        step: from `step_of`.
        name: as it was typed.
        steps: calls.
        device: for the report, where the parameters do not say.
        processes: this one among others.
        done: called after each call.

    Raises:
        NetlensError: it raises, or returns nothing of which a gradient can be taken.
        MakesAModel: it returns a model.
    """
    found = measured_steps(step, name, steps=steps, processes=processes, done=done)
    measured = found.measured
    if not measured.parameters:
        raise InputError(f"{name} trains no parameters that netlens sees", hint="call the model and its loss inside the function")
    return GradflowReport(
        model=name,
        source="the values of the training step",
        initialised=None,
        inputs=f"those of {name}",
        run=_run(found, device, 1 if processes is None else processes.size),
        parameters=measured.parameters,
        layers=measured.layers,
        steps=measured.steps,
        output=None,
        first_nonfinite=measured.first_nonfinite,
        ranks=found.ranks,
        notes=measured.notes,
        stepping=found.stepping,
    )


def _run(found: Stepped, device: str, size: int) -> Run:
    return Run(
        kind="step function",
        device=device,
        dtype="",
        amp=None,
        mode="",
        loss="the step function's own",
        loss_source="it returns it, or calls backward on it",
        optimizer=found.optimizer,
        batch_size=found.measured.batch_size or None,
        accumulate=1,
        steps=len(found.measured.steps),
        random_inputs=False,
        random_labels=False,
        processes=size,
        peak_bytes=None,
    )
