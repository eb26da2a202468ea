"""Synthetic reports for tests that need no torch: a tiny network whose numbers are derived by hand, and ways to change it.

    Tiny(
      conv: Conv2d(1, 2, 3)      (1, 1, 4, 4) -> (1, 2, 2, 2)
      bn:   BatchNorm2d(2)       (1, 2, 2, 2) -> (1, 2, 2, 2)
      fc:   Linear(8, 3)         (1, 8)       -> (1, 3)        after x.flatten(1), a view
    )

parameters   conv 2*1*3*3 + 2 = 20      bn 2 + 2 = 4                   fc 3*8 + 3 = 27       together 51, in float32 204 bytes
buffers      bn running_mean 2, running_var 2 (float32), num_batches_tracked 1 (int64)       together 5, 4*4 + 8 = 24 bytes
MACs         conv 8 outputs * 9 = 72    bn 0                           fc 3 outputs * 8 = 24 together 96, FLOPs 192
activations  conv 8*4 = 32 bytes        bn 32                          fc 12                 together 76
peak         conv's and bn's outputs at once: 64 (bn's and fc's: 44)
saved        conv its input (not counted: it is the model's)
             bn   its input 32 and, in training, mean and 1/std of the batch 2*2*4 = 16       48
             fc   its input 32                                                                together 80
input        16*4 = 64 bytes
training     SGD: 204 + 24 + 64 + 204 (gradients) + 80 = 576           Adam: + 2*204 = 984
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from netlens.lenses.summary.report import Call, Failure, Layer, Memory, Operator, Run, SummaryReport, TensorLeaf, Totals, Weight

Shape = tuple[int, ...]


def leaf(*shape: int, name: str = "", dtype: str = "float32") -> TensorLeaf:
    """One tensor of an input or output: `leaf(1, 3)`, `leaf(1, 3, name="logits")`."""
    return TensorLeaf(name, shape, dtype)


def call(inputs: Shape | Sequence[TensorLeaf], outputs: Shape | Sequence[TensorLeaf], times: int = 1) -> Call:
    """Calls with the same shapes; a shape alone stands for one tensor."""
    return Call(_leaves(inputs), _leaves(outputs), times)


def _leaves(what: Shape | Sequence[TensorLeaf]) -> tuple[TensorLeaf, ...]:
    tensors = tuple(part for part in what if isinstance(part, TensorLeaf))
    return tensors or (leaf(*(part for part in what if isinstance(part, int))),)


def layer(path: str, type: str = "Linear", *calls: Call, parameters: int = 0, **changes: Any) -> Layer:
    """One layer; without calls it never ran. All its parameters are trainable and float32 unless told."""
    values: dict[str, Any] = {
        "path": path,
        "type": type,
        "detail": "",
        "depth": path.count(".") + 1 if path else 0,
        "registered": True,
        "alias_of": None,
        "calls": calls,
        "parameters": parameters,
        "trainable": parameters,
        "buffers": 0,
        "weight_bytes": 4 * parameters,
        "tied": (),
        "macs": 0,
        "activation_bytes": 0,
        "saved_bytes": 0,
    }
    return Layer(**(values | changes))


def weight(name: str, *shape: int, kind: str = "parameter", dtype: str = "float32", size: int = 4, tied_to: str | None = None) -> Weight:
    """One parameter or buffer; `size` is that of an element in bytes."""
    elements = 1
    for length in shape:
        elements *= length
    return Weight(name, shape, dtype, kind, kind == "parameter", size * elements, tied_to)


IMAGE, MAPS, FLAT, SCORES = (1, 1, 4, 4), (1, 2, 2, 2), (1, 8), (1, 3)

TINY_LAYERS = (
    layer("", "Tiny", call(IMAGE, SCORES)),
    layer("conv", "Conv2d", call(IMAGE, MAPS), parameters=20, macs=72, activation_bytes=32, detail="1, 2, kernel_size=(3, 3)"),
    layer("bn", "BatchNorm2d", call(MAPS, MAPS), parameters=4, buffers=5, weight_bytes=40, activation_bytes=32, saved_bytes=48),
    layer("fc", "Linear", call(FLAT, SCORES), parameters=27, macs=24, activation_bytes=12, saved_bytes=32, detail="8, 3"),
)
TINY_WEIGHTS = (
    weight("conv.weight", 2, 1, 3, 3),
    weight("conv.bias", 2),
    weight("bn.weight", 2),
    weight("bn.bias", 2),
    weight("bn.running_mean", 2, kind="buffer"),
    weight("bn.running_var", 2, kind="buffer"),
    weight("bn.num_batches_tracked", kind="buffer", dtype="int64", size=8),
    weight("fc.weight", 3, 8),
    weight("fc.bias", 3),
)
TINY = SummaryReport(
    model="Tiny",
    inputs=(leaf(*IMAGE),),
    input_source="--input",
    outputs=(leaf(*SCORES),),
    run=Run(on="meta", mode="eval", why=""),
    layers=TINY_LAYERS,
    weights=TINY_WEIGHTS,
    totals=Totals(parameters=51, trainable=51, buffers=5, macs=96, flops=192),
    memory=Memory(
        parameters={"float32": 204},
        buffers={"float32": 16, "int64": 8},
        inputs=64,
        activations=76,
        peak_activations=64,
        saved_for_backward=80,
        saved_mode="train",
        gradients=204,
        training_sgd=576,
        training_adam=984,
    ),
)


def report(**changes: Any) -> SummaryReport:
    """Return Tiny's report with some fields changed; with other `layers` the totals are theirs, unless `totals` is given too."""
    layers = changes.get("layers")
    if layers is not None and "totals" not in changes:
        numbers = {name: sum(getattr(row, name) for row in layers) for name in ("parameters", "trainable", "buffers", "macs")}
        changes["totals"] = Totals(**numbers, flops=2 * numbers["macs"])
    return replace(TINY, **changes)


def changed(path: str, **changes: Any) -> tuple[Layer, ...]:
    """Return Tiny's layers, one of them changed: `report(layers=changed("fc", parameters=54))`."""
    return tuple(replace(row, **changes) if row.path == path else row for row in TINY_LAYERS)


def without_run(why: str = "no input is known") -> SummaryReport:
    """Return Tiny as it is reported when it could not be run: parameters only."""
    return report(
        outputs=(),
        run=Run(on="nothing", mode="eval", why=why),
        layers=tuple(replace(row, calls=(), macs=0, activation_bytes=0, saved_bytes=0) for row in TINY_LAYERS),
        totals=replace(TINY.totals, macs=None, flops=None),
        memory=replace(
            TINY.memory,
            activations=None,
            peak_activations=None,
            saved_for_backward=None,
            saved_mode=None,
            training_sgd=None,
            training_adam=None,
        ),
    )


def failed() -> SummaryReport:
    """Return Tiny whose `fc` got the maps without flattening."""
    idle: dict[str, Any] = {"calls": (), "macs": 0, "activation_bytes": 0, "saved_bytes": 0}
    rows = tuple(replace(row, **idle) if row.path in ("", "fc") else row for row in TINY_LAYERS)
    return report(
        outputs=(),
        layers=rows,
        totals=replace(TINY.totals, macs=None, flops=None),
        failure=Failure(
            path="fc",
            type="RuntimeError",
            message="mat1 and mat2 shapes cannot be multiplied (4x2 and 8x3)",
            got="(1, 2, 2, 2)",
            expects="(*, 8)",
            producer="bn",
            source="nets.py:12: return self.fc(x)",
            remedy="flatten the input of fc",
        ),
    )


def operator(name: str = "aten.fft_fft2", *, multiplies: bool = True, times: int = 1, layers: tuple[str, ...] = ("mix",)) -> Operator:
    """One operator that no formula counts."""
    return Operator(name, times, 4, multiplies, layers)
