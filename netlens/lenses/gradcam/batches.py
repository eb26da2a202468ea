"""Parts of a batch: its pictures, one of its samples, and where that lies on its photo."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor, nn

from netlens.drawing.numbers import percent
from netlens.drawing.overlay import Box, Outline
from netlens.errors import UsageError
from netlens.lenses.gradcam.answers import Point, Target
from netlens.lenses.gradcam.facts import Share
from netlens.lenses.gradcam.marks import Mark
from netlens.lenses.gradcam.report import Class, Heatmap
from netlens.loading.boxes import Boxes, on_input
from netlens.loading.feeding import Batch
from netlens.loading.preprocessing import Geometry
from netlens.probing.cutting import Arguments
from netlens.probing.leaves import leaves, map_tensors

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One sample of a batch."""

    path: Path | None  # of its photo
    geometry: Geometry | None  # of the input on the photo
    picture: Tensor | None  # as the network takes it, (C, H, W) or (C, T, H, W)
    share: Share  # of the grid's extent in the input's: more than 1 where the model pads it itself

    def place(self, across: float, down: float, size: tuple[int, int]) -> tuple[float, float]:
        """Return where a place of the grid, in shares of it, lies on the photo, or else on the input; `size`: of what is no picture."""
        height, width = size if self.picture is None else self.picture.shape[-2:]
        x, y = across * self.share[1] * width, down * self.share[0] * height
        return (x, y) if self.geometry is None else self.geometry.to_photo(x, y)

    def box(self) -> Box | None:
        """Return where the grid lies on the photo."""
        if self.geometry is None:
            return None
        left, top, right, bottom = self.geometry.box
        return left, top, left + (right - left) * self.share[1], top + (bottom - top) * self.share[0]

    def point(self, asked: tuple[float, float] | None) -> Point | None:
        """Return a pixel of the photo as one of the input.

        Raises:
            UsageError: the network does not see it.
        """
        if asked is None or self.geometry is None:
            return None if asked is None else Point(int(asked[0]), int(asked[1]))
        x, y = self.geometry.to_input(asked[0] + 0.5, asked[1] + 0.5)
        (height, width), (tall, wide) = self.geometry.input, self.geometry.photo
        if not (0 <= x < width and 0 <= y < height):
            hint = f"the photo is {wide} pixels wide and {tall} high; choose one inside of what is cropped from it"
            raise UsageError(f"the network does not see the point {asked[0]:g},{asked[1]:g} of the photo", hint=hint)
        return Point(int(x), int(y), f"{asked[0]:g},{asked[1]:g}")

    def on_photo(self, classes: Sequence[Class]) -> tuple[Class, ...]:
        """Return detections with their boxes on the photo."""
        return tuple(found if found.box is None else replace(found, box=self._from_input(found.box)) for found in classes)

    def described(self, made: Heatmap, target: Target) -> Heatmap:
        """Add to what is known of a map where on the photo its score comes from."""
        (found,) = self.on_photo([target.found])
        region = None if target.region is None else float(target.region.float().mean())
        return replace(made, target=found, region=region, where=_where(found, target, region))

    def marks(self, targets: Sequence[Target]) -> dict[tuple[int, str], Mark]:
        """Return what is to be drawn of targets, by their class and what they were asked by."""
        found = {(target.found.index, target.asked): self._mark(target) for target in targets}
        return {question: mark for question, mark in found.items() if mark is not None}

    def _mark(self, target: Target) -> Mark | None:
        if target.found.box is not None:
            return Mark("box", self._from_input(target.found.box))
        if target.region is None or self.picture is None or target.region.dim() != 2:
            return None
        if target.point is not None:
            x, y = target.point[:2]
            return Mark("point", self._from_input((x, y, x + 1, y + 1)))
        whole = self._from_input((0, 0, *self.picture.shape[:-3:-1]))
        return Mark("everywhere", whole) if target.nowhere else Mark("region", whole, target.region.cpu().numpy())

    def _from_input(self, box: Box) -> Box:
        return box if self.geometry is None else (*self.geometry.to_photo(*box[:2]), *self.geometry.to_photo(*box[2:]))

    def objects(self, boxes: Boxes | None, target: Target) -> list[Box]:
        """Return the boxes of a target's class, in pixels of the input."""
        if boxes is None or self.path is None or self.geometry is None:
            return []
        return on_input(boxes.boxes_for(self.path, _label(target), self.geometry.photo), self.geometry)

    def outlines(self, boxes: Boxes | None, targets: Sequence[Target]) -> tuple[Outline, ...]:
        """Return the boxes of all objects on the photo, and whether they are of another class than the targets."""
        if boxes is None or self.path is None or self.geometry is None:
            return ()
        path, size = self.path, self.geometry.photo
        own = {box for target in targets for box in boxes.boxes_for(path, _label(target), size)}
        return tuple((box, box not in own) for label in sorted(boxes.labels) for box in boxes.boxes_for(path, label, size))


def sample_of(batch: Batch, arguments: Arguments, index: int, shares: Sequence[Share] = ()) -> Sample:
    """Return one sample of a batch; `arguments` are its inputs, placed."""
    picture = picture_of(arguments)
    own = None if picture is None else picture[index]
    return Sample(_at(batch.paths, index), _at(batch.geometries, index), own, _at(shares, index) or (1.0, 1.0))


def single(batch: Batch, index: int) -> Batch:
    """Return a batch of one sample."""
    args, kwargs = some_of((batch.args, batch.kwargs), batch.size, index)
    part = slice(index, index + 1)
    return Batch(args, kwargs, batch.paths[part], batch.geometries[part], batch.name)


def some_of(arguments: Arguments, count: int, first: int, number: int = 1) -> Arguments:
    """Return some samples of `count`."""

    def part(tensor: Tensor) -> Tensor:
        return tensor[first : first + number] if tensor.dim() and tensor.shape[0] == count else tensor

    return map_tensors(arguments[0], part), map_tensors(arguments[1], part)


def picture_of(arguments: Arguments) -> Tensor | None:
    """Return the pictures or films among the inputs, (N, C, H, W) or (N, C, T, H, W)."""
    return next((tensor for _, tensor in leaves(arguments) if tensor.dim() in (4, 5) and tensor.is_floating_point()), None)


def shape_of(arguments: Arguments) -> tuple[int, ...]:
    """Return the shape of a sample of the first input: what layouts of tokens hold for."""
    return next((tuple(tensor.shape[1:]) for _, tensor in leaves(arguments)), ())


@contextmanager
def padded(model: nn.Module) -> Iterator[list[Share]]:
    """Yield, for each picture of the first pass inside the block, how much larger it is for torchvision's detectors, which pad it."""
    found: list[Share] = []

    def look(_module: nn.Module, _given: Any, result: Any) -> None:
        images = result[0]
        if not found:
            height, width = images.tensors.shape[-2:]
            found.extend((height / own[0], width / own[1]) for own in images.image_sizes)

    hooks = [module.register_forward_hook(look) for module in model.modules() if type(module).__name__ == "GeneralizedRCNNTransform"]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _where(found: Class, target: Target, region: float | None) -> str:
    """Say where a target's score comes from, as in `Heatmap.where`."""
    if found.box is not None:
        left, top, right, bottom = (round(side) for side in found.box)
        return f"box {left},{top} to {right},{bottom}"
    if region is None:
        return ""
    if target.point is not None:
        return "one place"
    return "everywhere, for it wins nowhere" if target.nowhere else f"where it wins: {percent(region, 1)}"


def _label(target: Target) -> str:
    return target.found.name or str(target.found.index)


def _at(every: Sequence[T], index: int) -> T | None:
    return every[index] if index < len(every) else None
