"""What was promised, beside what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tests.benchmarks.contestants import FLOOR, NETLENS, TORCH, TORCHINFO
from tests.benchmarks.rounds import Series, Spread, ratio

LARGE = "vit_h_14"
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Bar:
    """One promise: `measured` is at most `limit`; `summit` is what was hoped for."""

    what: str
    measured: float | None  # None: a part of it was not measured
    limit: float
    unit: str  # "x" is a ratio
    summit: float | None = None

    @property
    def verdict(self) -> str:
        if self.measured is None:
            return "not measured"
        if self.measured > self.limit:
            return "MISSED"
        return "ok, and the summit" if self.summit is not None and self.measured < self.summit else "ok"


def bars(processes: Sequence[Series], static: Sequence[Series]) -> list[Bar]:
    """Hold what was measured against the promises."""
    found = {(series.job.who, series.job.model): series for series in processes}
    models = list(dict.fromkeys(series.job.model for series in processes))
    result = [bar for model in models for bar in _import_bars(model, found)]
    if LARGE in models:
        result += _large_bars(found)
    help_cpu = next((series.cpu for series in static if series.job.label == "netlens --help"), None)
    result.append(Bar("netlens --help: CPU time", help_cpu.median if help_cpu else None, 0.15, "s"))
    return result


def missed(found: Sequence[Bar]) -> list[Bar]:
    """Return the promises that were not kept."""
    return [bar for bar in found if bar.verdict == "MISSED"]


def _import_bars(model: str, found: dict[tuple[str, str], Series]) -> list[Bar]:
    ours, floor = found.get((NETLENS, model)), found.get((FLOOR, model))
    return [
        Bar(f"{model}: wall time / import torch, torchvision", _ratio("wall", ours, floor), 1.1, "x", summit=1.0),
        Bar(f"{model}: CPU time / import torch, torchvision", _ratio("cpu", ours, floor), 1.1, "x", summit=1.0),
    ]


def _large_bars(found: dict[tuple[str, str], Series]) -> list[Bar]:
    ours, theirs, floor, torch = (found.get((who, LARGE)) for who in (NETLENS, TORCHINFO, FLOOR, TORCH))
    return [
        Bar(f"{LARGE}: wall time / torchinfo", _ratio("wall", ours, theirs), 0.25, "x"),
        Bar(f"{LARGE}: CPU time / torchinfo", _ratio("cpu", ours, theirs), 0.25, "x"),
        Bar(f"{LARGE}: peak memory beyond import torch, torchvision", _beyond(ours, floor), 100, "MiB"),
        Bar(f"{LARGE}: peak memory beyond import torch alone", _beyond(ours, torch), 100, "MiB"),
    ]


def _ratio(quantity: str, ours: Series | None, theirs: Series | None) -> float | None:
    return ratio(_spread(ours, quantity), _spread(theirs, quantity))


def _beyond(ours: Series | None, floor: Series | None) -> float | None:
    high, low = _spread(ours, "peak"), _spread(floor, "peak")
    return None if high is None or low is None else (high.median - low.median) / _MIB


def _spread(series: Series | None, quantity: str) -> Spread | None:
    return None if series is None else getattr(series, quantity)
