"""Reports of gradcam made by hand, for the tests of its rules and its tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from netlens.lenses.gradcam.report import Class, GradcamReport, Heatmap, Layer, MethodWorth, Run, Sanity, Shot, Worth

TABBY = Class(281, "tabby", 9.25, 0.612)
TIGER = Class(282, "tiger cat", 8.25, 0.2251)
LYNX = Class(287, "lynx", 6.5, 0.03912)
SHOT = Shot("cat.png", (480, 640), (TABBY, TIGER, LYNX), 1000, 0)
LAYER = Layer(57, "layer4", "Sequential", (512, 7, 7), "channels first", (7, 7), 512, True, "the latest output that the score depends on")
RUN = Run("cpu", "float32", None, False, "resize 256, crop 224", "class scores", False, None)
HEALTHY = Heatmap(
    sample=0,
    target=TABBY,
    asked="top prediction",
    method="gradcam",
    layers=("layer4",),
    shape=(7, 7),
    least=-0.5,
    greatest=2.125,
    positive=0.625,
    nonfinite=0,
    peak=(320, 210),
    gradient=0.0125,
    dead=False,
    equals=None,
)


def heat(**changes: Any) -> Heatmap:
    """Return a healthy map with some fields changed."""
    return replace(HEALTHY, **changes)


def report(*maps: Heatmap, run: dict[str, Any] | None = None, **changes: Any) -> GradcamReport:
    """Return a report of these maps, as of a trained ResNet; there are as many samples as the maps need, all alike."""
    count = 1 + max((found.sample for found in maps), default=0)
    values: dict[str, Any] = {
        "model": "ResNet",
        "source": "best.ckpt",
        "initialised": False,
        "inputs": "cat.png",
        "run": replace(RUN, **(run or {})),
        "layers": (LAYER,),
        "shots": tuple(replace(SHOT, name=f"cat{place or ''}.png") for place in range(count)),
        "maps": maps,
    }
    return GradcamReport(**(values | changes))


def scored(method: str, *, maps: int = 20, seconds: float = 0.05, **worth: float | None) -> MethodWorth:
    """Return the worth of a method that is good, with some numbers changed."""
    usual: dict[str, Any] = {
        "deletion": 0.12,
        "insertion": 0.55,
        "average_drop": 0.25,
        "increase": 0.3,
        "road": 0.31,
        "pointing": 0.95,
        "energy": 0.6,
    }
    return MethodWorth(method, maps, Worth(**(usual | worth)), seconds)


def checked(method: str, similarity: Sequence[float | None], steps: Sequence[str] = ("fc", "layer4.1.conv2", "conv1")) -> Sanity:
    """Return what became of a method's maps when the weights were drawn anew."""
    return Sanity(method, tuple(steps), tuple(similarity))
