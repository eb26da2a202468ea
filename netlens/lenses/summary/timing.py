"""Seconds of each layer on a real device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from netlens.lenses.summary.report import SummaryReport
from netlens.probing.paths import Paths, Place, every_call
from netlens.probing.untouched import seeded, untouched

if TYPE_CHECKING:
    from netlens.loading.subject import Subject

WARM_UP = 3  # forward passes before any is timed: lazy initialisation, caches, algorithm choice of cuDNN
LEAST, MOST = 7, 50  # timed passes
LONG_ENOUGH = 1.0  # seconds: no more passes than needed to fill them


@dataclass(slots=True)
class _Stopwatch(Place):
    passes: list[float] = field(default_factory=list)  # seconds of its own operators in each pass


def timed(report: SummaryReport, subject: Subject, device: str, step: Callable[[], None]) -> SummaryReport:
    """Return the report with `seconds`: the median over passes of each layer's own time, and of a whole pass that nobody looks into.

    The device is synchronised before and after each layer, so the layers add up to more than the whole pass where a GPU would overlap them.

    Args:
        report: what `measure` found.
        subject: the model, built for real here.
        device: where it runs; "auto" and "meta" mean the machine's accelerator, else the CPU.
        step: called after each pass.
    """
    place = _device(device)
    with seeded(0):
        model = subject.build()
    if subject.is_instance:
        place = next((p.device for p in model.parameters()), place)
    else:
        model = model.to(place)
    inputs = next(inputs for inputs in subject.inputs(model) if inputs.source == report.input_source)
    args, kwargs, _ = inputs.make(model, place)
    with untouched(model), torch.no_grad():
        model.eval()
        whole, layers = _passes(model, args, kwargs, place, step)
    note = f"time: median of {len(whole)} passes on {place}, after {WARM_UP} for warming up"
    return replace(
        report,
        layers=tuple(replace(layer, seconds=median(layers[layer.path]) if layer.path in layers else 0.0) for layer in report.layers),
        totals=replace(report.totals, seconds=median(whole)),
        notes=(*report.notes, note),
    )


def _device(device: str) -> torch.device:
    if device not in ("auto", "meta"):
        return torch.device(device)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _passes(
    model: nn.Module, args: Any, kwargs: Any, device: torch.device, step: Callable[[], None]
) -> tuple[list[float], dict[str, list[float]]]:
    """Time whole passes and looked-into passes in turn, so that both see the same machine."""
    for _ in range(WARM_UP):
        model(*args, **kwargs)
        step()
    whole: list[float] = []
    paths: Paths[_Stopwatch] = Paths(model, _Stopwatch)
    while len(whole) < LEAST or (len(whole) < MOST and sum(whole) < LONG_ENOUGH):
        _synchronise(device)
        start = perf_counter()
        model(*args, **kwargs)
        _synchronise(device)
        whole.append(perf_counter() - start)
        _looked_into(model, args, kwargs, device, paths)
        step()
    return whole, {path: watch.passes for path, watch in paths.found.items() if watch.passes}


def _looked_into(model: nn.Module, args: Any, kwargs: Any, device: torch.device, paths: Paths[_Stopwatch]) -> None:
    own: dict[str, float] = {}
    open_calls: list[tuple[_Stopwatch, list[float]]] = []  # caller, and seconds of the calls that it made

    def watch(original: Any, module: nn.Module, call_args: tuple[Any, ...], call_kwargs: dict[str, Any]) -> Any:
        place = paths.of(module, open_calls[-1][0] if open_calls else None)
        below: list[float] = []
        open_calls.append((place, below))
        _synchronise(device)
        start = perf_counter()
        try:
            return original(module, *call_args, **call_kwargs)
        finally:
            _synchronise(device)
            seconds = perf_counter() - start
            open_calls.pop()
            own[place.path] = own.get(place.path, 0.0) + seconds - sum(below)
            if open_calls:
                open_calls[-1][1].append(seconds)

    with every_call(watch):
        model(*args, **kwargs)
    for path, seconds in own.items():
        paths.found[path].passes.append(seconds)


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
