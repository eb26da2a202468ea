"""What a detector finds: boxes with a class and a confidence; the score of one is its confidence."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from netlens.errors import InputError
from netlens.lenses.gradcam.answers import Answer, Point, Size, Target, nonfinite, wide
from netlens.lenses.gradcam.report import Class
from netlens.loading.words import listed

PARTS = ("boxes", "scores", "labels")  # of torchvision's detectors
QUERIES = ("logits", "pred_logits")  # of DETR and its kin, in transformers and in its own code; beside `pred_boxes`
PLACE = re.compile(r"#\s*(\d{1,6})")
LOWER = "take another picture"


class NothingDetected(InputError):
    """The detector finds no box, or none of the class that is asked for, in a picture."""


class Boxes(NamedTuple):
    """What was found in one picture, the most confident first."""

    boxes: Tensor  # (D, 4): left, top, right, bottom
    scores: Tensor  # (D,), in the graph
    labels: Tensor  # (D,)


class Detections(Answer):
    """Boxes in each picture.

    The score of a target is the confidence of the box of its class that overlaps it most, times the intersection over union of the two
    (as in D-RISE, Petsiuk et al. 2021, 2006.03204). In the pass that found the target this is its own confidence; in a masked copy of
    the picture, what has become of it; 0 where the class is not found at all.
    """

    kind = "detections"

    def __init__(self, output: Any, *, labels: int | None = None, size: Size | None = None, lower: str = LOWER) -> None:
        """Read what `detects` knows.

        Args:
            output: what the model returned.
            labels: the number of classes, for DETR's kin: as many logits are independent, one more is that of no object.
            size: of the input; without it, boxes of DETR's kin stay shares of the picture.
            lower: how to have more found, from `lowering`.
        """
        super().__init__("")
        self._labels, self._size, self._lower = labels, size, lower
        self._read(output)

    @property
    def samples(self) -> int:
        """The number of samples."""
        return len(self._found)

    def nonfinite(self, sample: int) -> int:
        """Count the elements of a sample's output that are not finite."""
        return nonfinite(self._found[sample].boxes) + nonfinite(self._found[sample].scores)

    def top(self, sample: int, count: int) -> tuple[Class, ...]:
        """Return the most confident detections; none where nothing is found."""
        return tuple(self._target(sample, place, "").found for place in range(min(count, len(self._found[sample].scores))))

    def best(self, sample: int, count: int = 1, point: Point | None = None) -> tuple[Target, ...]:
        """Return the most confident detections, at a point those around it.

        Raises:
            NothingDetected: there is none.
        """
        where = "" if point is None else f" around the point {point}"
        places = self._places(sample, point)[:count]
        if not places:
            raise NothingDetected(f"the model detects nothing{where}", hint=self._lower)
        return tuple(
            self._target(sample, place, f"detection #{place + 1}{where}" if place else f"best detection{where}") for place in places
        )

    def resolve(self, sample: int, asked: str, point: Point | None = None) -> Target:
        """Return the most confident detection of a class, at a point of those around it; "#2" is the second of all by confidence.

        Raises:
            NothingDetected: there is none.
        """
        ranked, found = PLACE.fullmatch(asked.strip()), self._found[sample]
        if ranked:
            if not 1 <= int(ranked[1]) <= len(found.scores):
                raise NothingDetected(f"there is no detection {asked}: the model finds {len(found.scores)}", hint="count from #1")
            return self._target(sample, int(ranked[1]) - 1, asked)
        index = self._index(asked)
        places = [place for place in self._places(sample, point) if int(found.labels[place]) == index]
        if not places:
            there = dict.fromkeys(self._name(label) or f"class {label}" for label in found.labels.tolist())
            what = f"the model detects no {self._name(index) or f'class {index}'}" + ("" if point is None else f" around {point}")
            raise NothingDetected(what, hint=f"it detects {listed(there)}" if there else self._lower)
        return self._target(sample, places[0], asked)

    def scores(self, targets: Sequence[Target]) -> Tensor:
        """Return the confidence of each sample's detection, or what is left of it."""
        return torch.stack([_score(found, target) for found, target in zip(self._found, targets, strict=True)])

    def probabilities(self, targets: Sequence[Target]) -> Tensor:
        """Return the same: a confidence is a probability."""
        return self.scores(targets)

    def _read(self, output: Any) -> None:
        if isinstance(output, Mapping) and all(part in output for part in PARTS):
            output = [output]
        if isinstance(output, (list, tuple)):
            self._found = [_sorted(*(found[part] for part in PARTS)) for found in output]
            return
        found = queries(output)
        assert found is not None  # `detects` said so
        logits, boxes = found
        is_independent = logits.shape[-1] == self._labels
        self.classes = logits.shape[-1] - (not is_independent)
        probabilities = wide(logits).sigmoid() if is_independent else wide(logits).softmax(-1)[..., :-1]
        confidence, labels = probabilities.max(-1)
        self._found = [_sorted(*each) for each in zip(self._corners(wide(boxes.detach())), confidence, labels, strict=True)]

    def _corners(self, boxes: Tensor) -> Tensor:
        """Turn centres and sizes, as shares of the picture, into corners in pixels."""
        centre, half = boxes[..., :2], boxes[..., 2:] / 2
        height, width = self._size or (1, 1)
        return torch.cat([centre - half, centre + half], -1) * boxes.new_tensor([width, height, width, height])

    def _places(self, sample: int, point: Point | None) -> list[int]:
        boxes = self._found[sample].boxes.tolist()
        if point is None:
            return list(range(len(boxes)))
        x, y = point[0] + 0.5, point[1] + 0.5
        return [place for place, (left, top, right, bottom) in enumerate(boxes) if left <= x <= right and top <= y <= bottom]

    def _target(self, sample: int, place: int, asked: str) -> Target:
        found = self._found[sample]
        index, confidence = int(found.labels[place]), float(found.scores[place].detach())
        left, top, right, bottom = found.boxes[place].tolist()
        shown = Class(index, self._name(index), confidence, confidence, (left, top, right, bottom))
        return Target(shown, asked, box=found.boxes[place], place=place)


def lowering(model: nn.Module) -> str:
    """Say how to have a model detect more: by the threshold that it has, of torchvision's an argument of the function that builds it."""
    if not any(hasattr(module, "score_thresh") for module in model.modules()):
        return LOWER
    argument = "box_score_thresh" if hasattr(model, "roi_heads") else "score_thresh"
    return f"{LOWER}, or a lower threshold: --model-arg {argument}=0.01"


def detects(output: Any) -> bool:
    """Tell whether a model returned detections: a dict of boxes, scores and labels for each picture, or logits and boxes of queries."""
    if isinstance(output, (list, tuple)):
        return bool(output) and all(isinstance(found, Mapping) and all(part in found for part in PARTS) for found in output)
    return (isinstance(output, Mapping) and all(part in output for part in PARTS)) or queries(output) is not None


def queries(output: Any) -> tuple[Tensor, Tensor] | None:
    """Return logits (N, Q, K) and boxes (N, Q, 4) of a transformer's queries, or None."""
    for name in QUERIES:
        logits, boxes = (output.get(key) if isinstance(output, Mapping) else getattr(output, key, None) for key in (name, "pred_boxes"))
        if isinstance(logits, Tensor) and isinstance(boxes, Tensor):
            return logits, boxes
    return None


def _sorted(boxes: Tensor, scores: Tensor, labels: Tensor) -> Boxes:
    scores = wide(scores)
    order = scores.detach().argsort(descending=True, stable=True)
    return Boxes(wide(boxes.detach())[order], scores[order], labels[order])


def _score(found: Boxes, target: Target) -> Tensor:
    assert target.box is not None
    same = found.labels == target.found.index
    if not same.any():
        return found.scores.sum() * 0  # in the graph
    overlap = _overlap(found.boxes[same], target.box.to(found.boxes))
    return found.scores[same][overlap.argmax()] * overlap.max()


def _overlap(boxes: Tensor, box: Tensor) -> Tensor:
    """Return the intersection over union of each of (D, 4) with one."""
    sides = (torch.minimum(boxes[:, 2:], box[2:]) - torch.maximum(boxes[:, :2], box[:2])).clamp_min(0)
    areas = [(each[..., 2:] - each[..., :2]).clamp_min(0).prod(-1) for each in (boxes, box)]
    inside = sides.prod(-1)
    union = areas[0] + areas[1] - inside
    return torch.where((boxes == box).all(1), 1.0, inside / union.clamp_min(torch.finfo(boxes.dtype).tiny)).to(boxes.dtype)
