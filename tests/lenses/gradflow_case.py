"""What the tests of the rules and the tables of gradflow share: reports made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import log
from typing import Any

from netlens.lenses.gradflow.report import GradflowReport, LayerFlow, Look, OutputFacts, Overfit, ParameterFlow, Rank, Run, Step

HEALTHY = ParameterFlow(
    index=0,
    name="conv.weight",
    layer="conv",
    type="Conv2d",
    shape=(16, 16, 3, 3),
    elements=16 * 16 * 9,
    status="gradient",
    optimized=True,
    weight_rms=0.0833,
    mean=0.00123,
    greatest=0.0456,
    rms=0.0015,
    norm=0.072,
    zeros=0.0,
    nan=0,
    infinite=0,
    ratio=0.018,
    update=0.0125,
    signal=None,
    cosine=None,
)
NOTHING = ("mean", "greatest", "rms", "norm", "zeros", "ratio", "update")
LAYER = LayerFlow(
    index=0,
    name="conv",
    type="Conv2d",
    shape=(8, 16, 16, 16),
    status="gradient",
    activation_rms=1.0,
    mean=0.001,
    greatest=0.05,
    rms=0.002,
    zeros=0.0,
    nan=0,
    infinite=0,
)
RUN = Run(
    kind="model and loss",
    device="cpu",
    dtype="float32",
    amp=None,
    mode="train",
    loss="cross_entropy",
    loss_source="--loss",
    optimizer="SGD(lr=0.1)",
    batch_size=8,
    accumulate=1,
    steps=1,
    random_inputs=False,
    random_labels=False,
    processes=1,
    peak_bytes=None,
)
OUTPUT = OutputFacts(
    name="",
    shape=(8, 10),
    classes=10,
    label_least=0,
    label_greatest=9,
    label_dtype="int64",
    rows="scores",
    between=0.25,
    loss_moves=0.05,
    zero_head=False,
    chance=log(10),
    expected=2.4,
)


def parameter(name: str = "conv.weight", **changes: Any) -> ParameterFlow:
    """Return a healthy weight of a convolution with some fields changed."""
    return replace(HEALTHY, **{"name": name, "layer": name.rpartition(".")[0], **changes})


def without(name: str, status: str, **changes: Any) -> ParameterFlow:
    """Return a weight without a gradient: "unused", "detached" or "frozen"."""
    return parameter(name, **{**dict.fromkeys(NOTHING), "status": status, "optimized": status != "frozen", **changes})


def zero(name: str, **changes: Any) -> ParameterFlow:
    """Return a weight whose gradient is exactly 0, and SGD's step so, too."""
    return parameter(name, **{**dict.fromkeys(NOTHING, 0.0), "zeros": 1.0, **changes})


def scale(name: str, **changes: Any) -> ParameterFlow:
    """Return a scale of 16 channels, as a normalisation or a gate has."""
    return parameter(name, **{"type": "BatchNorm2d", "shape": (16,), "elements": 16, "weight_rms": 1.0, **changes})


def chain(ratios: Sequence[float | None], **changes: Any) -> list[ParameterFlow]:
    """Return weights in a row, "l0.weight" first, with these quotients of gradient and weights."""
    return [parameter(f"l{place}.weight", ratio=ratio, **changes) for place, ratio in enumerate(ratios)]


def layer(name: str = "conv", **changes: Any) -> LayerFlow:
    """Return a layer's output, with a healthy gradient but for some fields."""
    return replace(LAYER, name=name, **changes)


def silent(name: str, status: str = "gradient", **changes: Any) -> LayerFlow:
    """Return a layer whose output gets a gradient of 0, or none."""
    nothing = 0.0 if status == "gradient" else None
    values = {"mean": nothing, "greatest": nothing, "rms": nothing, "zeros": None if nothing is None else 1.0}
    return layer(name, **{**values, "status": status, **changes})


def report(
    *parameters: ParameterFlow,
    layers: Sequence[LayerFlow] = (),
    run: dict[str, Any] | None = None,
    output: dict[str, Any] | None = None,
    losses: Sequence[float] = (2.4,),
    **changes: Any,
) -> GradflowReport:
    """Return a report of a fresh network on real samples: these parameters, or eight healthy ones, numbered in order."""
    rows = parameters or tuple(chain([0.018] * 8))
    values: dict[str, Any] = {
        "model": "Net",
        "source": "as initialised with seed 0",
        "initialised": True,
        "inputs": "8 pictures",
        "run": replace(RUN, **{"steps": len(losses), **(run or {})}),
        "parameters": tuple(replace(row, index=index) for index, row in enumerate(rows)),
        "layers": tuple(replace(each, index=index) for index, each in enumerate(layers)),
        "steps": tuple(Step(loss, 0.5, tuple(row.rms for row in rows)) for loss in losses),
        "output": replace(OUTPUT, **(output or {})),
        "first_nonfinite": None,
    }
    return GradflowReport(**(values | changes))


def look(ratios: Sequence[float | None], zeros: Sequence[float | None] | None = None) -> Look:
    """Return a second look at as many parameters."""
    return Look(tuple(ratios), tuple(zeros if zeros is not None else [0.0] * len(ratios)), len(ratios))


def overfit(*losses: float, passed: bool = False, chance: float | None = log(10), **changes: Any) -> Overfit:
    """Return what `--overfit` found with these losses."""
    found = Overfit("Adam(lr=0.003)", 16, len(losses) - 1, losses, 0.115, chance, passed, min(losses[-5:]), ())
    return replace(found, **changes)


def rank(number: int, **changes: Any) -> Rank:
    """Return one healthy process of several."""
    found = Rank(number, "cpu", 2.3 + 0.01 * number, 0.5 + 0.01 * number, 0.7, "a1b2")
    return replace(found, **changes)
