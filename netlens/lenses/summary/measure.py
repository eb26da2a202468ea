"""Shapes, parameters, multiply-adds and memory of a model, exactly, and as a rule without running it for real."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from netlens.errors import ModelNotBuilt
from netlens.lenses.summary.attempts import Attempt, attempt
from netlens.lenses.summary.failure import failure_of
from netlens.lenses.summary.report import Memory, Operator, Run, SummaryReport, Totals, Weight
from netlens.lenses.summary.structure import leaves_of, rows
from netlens.probing.macs import multiplies

if TYPE_CHECKING:
    from torch import nn

    from netlens.loading.subject import Subject


def measure(
    subject: Subject, *, device: str = "auto", time: bool = False, step: Callable[[], None] = lambda: None
) -> tuple[SummaryReport, Exception | None]:
    """Summarise `subject`.

    Shapes and counts come from a run on the meta device, which computes nothing and holds no weights; where a model cannot run
    there, from a real CPU run; where that does not fit into memory, only parameters are known. `report.run` says which and why.
    A forward that raises is no exception here: `report.failure` describes it, and what it raised is returned beside the report.

    Args:
        subject: the model and its inputs.
        device: "auto" (meta, then CPU), "meta" (nothing else), or a real device: "cpu", "cuda:0".
        time: also measure seconds of each layer on the real device (`device`, or the machine's accelerator, or the CPU).
        step: called after each timed pass, for a progress bar.

    Raises:
        ModelNotBuilt, InputError: the model or its inputs cannot be made.
    """
    try:
        tried = attempt(subject, device)
    except RecursionError as error:
        raise ModelNotBuilt(
            f"{subject.name} contains itself as a submodule, or is nested deeper than Python's recursion goes",
            hint="a module that is kept as an attribute is a submodule; keep the way back to a parent in a list: self.parent = [parent]",
        ) from error
    report = _report(tried)
    if time and report.failure is None and tried.on != "nothing":
        from netlens.lenses.summary.timing import timed

        try:
            return timed(report, subject, device, step), None
        except Exception as error:  # a model that runs once may not run again: it consumed its state
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            return replace(report, notes=(*report.notes, f"time: not measured, because the model raised on a later pass: {reason}")), None
    return report, tried.error


def _report(tried: Attempt) -> SummaryReport:
    ran = tried.forward if tried.on != "nothing" else None
    layers, weights = rows(tried.model, ran.records if ran else {}, tried.saved.records if tried.saved else {})
    complete = ran is not None and tried.error is None
    macs = sum(layer.macs for layer in layers) if complete else None
    return SummaryReport(
        model=type(tried.model).__name__,
        inputs=leaves_of(tried.inputs),
        input_source=tried.input_source,
        outputs=leaves_of(tried.outputs),
        run=Run(tried.on, "eval", tried.why),
        layers=layers,
        weights=weights,
        totals=Totals(
            parameters=sum(layer.parameters for layer in layers),
            trainable=sum(layer.trainable for layer in layers),
            buffers=sum(layer.buffers for layer in layers),
            macs=macs,
            flops=None if macs is None else 2 * macs,
        ),
        memory=_memory(tried, weights, complete),
        uncounted=_uncounted(tried) if ran else (),
        failure=failure_of(tried) if tried.error is not None and tried.on != "nothing" else None,
        notes=(*tried.notes, *_packed(tried.model)),
    )


def _packed(model: nn.Module) -> list[str]:
    """Say that quantised layers keep their weights where `parameters()` and `buffers()` do not show them."""
    if not any(hasattr(type(module), "_weight_bias") for module in model.modules()):
        return []
    return ["quantised layers pack their weights, which are then neither parameters nor buffers: they are not counted here"]


def _memory(tried: Attempt, weights: tuple[Weight, ...], complete: bool) -> Memory:
    ran = tried.forward if complete else None
    saved = sum(record.saved_bytes for record in tried.saved.records.values()) if tried.saved else None
    gradients = sum(weight.bytes for weight in weights if weight.trainable and weight.tied_to is None)
    held = sum(weight.bytes for weight in weights if weight.tied_to is None) + tried.input_bytes + gradients
    return Memory(
        parameters=_by_dtype(weights, "parameter"),
        buffers=_by_dtype(weights, "buffer"),
        inputs=tried.input_bytes,
        activations=sum(record.activation_bytes for record in ran.records.values()) if ran else None,
        peak_activations=ran.peak if ran else None,
        saved_for_backward=saved,
        saved_mode=tried.saved_mode,
        gradients=gradients,
        training_sgd=None if saved is None else held + saved,
        training_adam=None if saved is None else held + saved + 2 * gradients,
    )


def _by_dtype(weights: tuple[Weight, ...], kind: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for weight in weights:
        if weight.kind == kind and weight.tied_to is None:
            found[weight.dtype] = found.get(weight.dtype, 0) + weight.bytes
    return found


def _uncounted(tried: Attempt) -> tuple[Operator, ...]:
    seen = tried.forward.uncounted if tried.forward else {}
    found = [
        Operator(name, entry.times, entry.output_bytes, multiplies(name), tuple(list(entry.paths)[:5])) for name, entry in seen.items()
    ]
    return tuple(sorted(found, key=lambda operator: (-operator.output_bytes, operator.name)))
