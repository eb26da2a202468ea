"""What the tests of the rules and the table of featuremaps share: reports made by hand, and reports of small models that are run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from netlens.findings import Finding
from netlens.lenses.featuremaps.report import AttentionLayer, FeaturemapsReport, LayerActivity, OutputFacts, Run

HEALTHY = LayerActivity(
    index=0,
    name="conv",
    type="Conv2d",
    shape=(64, 16, 16),
    layout="channels first",
    grid=(16, 16),
    prefix=0,
    channels=64,
    samples=8,
    elements=8 * 64 * 16 * 16,
    activation=None,
    after_norm=False,
    final=False,
    mean=0.0125,
    std=0.75,
    rms=0.75,
    least=-3.25,
    greatest=3.5,
    percentiles=(-1.8, -1.2, -0.5, 0.0, 0.5, 1.2, 1.8),
    zeros=0.0,
    nan=0,
    infinite=0,
    dead=None,
    constant=0,
    saturated=None,
    effective_rank=24.6,
    correlation=0.125,
    between=0.5,
    within=0.4,
    concentration=0.25,
    histogram=None,
)
RUN = Run(
    device="cpu",
    dtype="float32",
    autocast=None,
    channels_last=False,
    samples=8,
    random_inputs=False,
    input_rms=1.0,
    batch_statistics=False,
    preprocessing="",
    peak_bytes=None,
)
OUTPUT = OutputFacts(name="", shape=(10,), between=0.25, nonfinite=0, classes=10, top_probability=0.3, entropy=0.8, predicted=4)


def layer(name: str = "conv", **changes: Any) -> LayerActivity:
    """Return a healthy convolution's output with some fields changed."""
    return replace(HEALTHY, name=name, **changes)


def relu(name: str = "relu", dead: int = 0, **changes: Any) -> LayerActivity:
    """Return a ReLU with some of its 64 channels dead."""
    return layer(name, **{"type": "ReLU", "activation": "relu", "dead": dead, "zeros": 0.5, "least": 0.0, **changes})


def attention(name: str = "attn", **changes: Any) -> AttentionLayer:
    """Return an attention layer of two heads over 64 patches and a class token."""
    values: dict[str, Any] = {
        "heads": 2,
        "queries": 65,
        "keys": 65,
        "grid": (8, 8),
        "prefix": 1,
        "entropy": (0.75, 0.95),
        "distance": (3.0, 4.0),
    }
    return AttentionLayer(0, name, **(values | changes))


def report(
    *layers: LayerActivity, run: dict[str, Any] | None = None, output: dict[str, Any] | None = None, **changes: Any
) -> FeaturemapsReport:
    """Return a report of these layers and a healthy head, numbered in order, as of a trained checkpoint on eight real samples."""
    rows = (*layers, layer("head", type="Linear", shape=(10,), channels=10, elements=80, grid=None, layout="features", final=True))
    values: dict[str, Any] = {
        "model": "Net",
        "source": "best.ckpt",
        "initialised": False,
        "inputs": "8 pictures",
        "run": replace(RUN, **(run or {})),
        "layers": tuple(replace(row, index=index) for index, row in enumerate(rows)),
        "attention": (),
        "output": replace(OUTPUT, **(output or {})),
        "first_nonfinite": None,
    }
    return FeaturemapsReport(**(values | changes))


def measured(model: Any, *batches: Any, initialised: bool | None = False, noise: bool = False, heads: bool = False) -> FeaturemapsReport:
    """Run a model on batches, tensors or tuples of arguments, and return its report."""
    from netlens.lenses.featuremaps.attention import AttentionRecorder
    from netlens.lenses.featuremaps.measure import measure

    def arguments() -> Iterator[Any]:
        for batch in batches:
            yield (batch if isinstance(batch, tuple) else (batch,)), {}

    recorder = AttentionRecorder(None, 0) if heads else None
    found = measure(model, arguments, attention=recorder)
    return FeaturemapsReport(
        model=type(model).__name__,
        source="",
        initialised=initialised,
        inputs="",
        run=replace(RUN, samples=found.samples, random_inputs=noise, input_rms=found.input_rms, batch_statistics=found.batch_statistics),
        layers=found.layers,
        attention=() if recorder is None else recorder.layers(),
        output=found.output,
        first_nonfinite=found.first_nonfinite,
        notes=found.notes,
    )


def codes(findings: Iterable[Finding]) -> list[str]:
    """Return the codes of findings, in their order."""
    return [finding.code for finding in findings]
