"""All batches of one run: layers are chosen on the first, and of each only maps, numbers and what is drawn are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from netlens.drawing.overlay import Outline
from netlens.errors import NetlensError, UsageError
from netlens.lenses.gradcam.album import Scene
from netlens.lenses.gradcam.answers import Answer, Embedding, Target
from netlens.lenses.gradcam.choices import Method
from netlens.lenses.gradcam.detections import NothingDetected
from netlens.lenses.gradcam.facts import Share, equal_to, heatmap, of_methods, on_input
from netlens.lenses.gradcam.measure import Explained, Map, Plan, explain
from netlens.lenses.gradcam.report import Class, Heatmap, Layer, MethodWorth, Sanity, Shot, Worth
from netlens.lenses.gradcam.sanity import sanity
from netlens.lenses.gradcam.sites import candidates, chosen, named
from netlens.lenses.gradcam.targets import read
from netlens.lenses.gradcam.worth import energy, pointing, worth
from netlens.loading.boxes import Boxes
from netlens.loading.boxes import on_input as boxes_on_input
from netlens.loading.class_names import ClassNames
from netlens.loading.feeding import Batch
from netlens.loading.preprocessing import Geometry, Preprocessing
from netlens.loading.sampling import seen
from netlens.loading.words import listed
from netlens.probing.cutting import Arguments
from netlens.probing.leaves import leaves, map_tensors
from netlens.probing.replacing import Site
from netlens.wording import counted

TOP = 5  # predictions that are reported
CHECKED = 4  # samples whose maps are made again with other weights
SLOW = 2.0  # seconds from which on an estimate is told


@dataclass(frozen=True, slots=True)
class Settings:
    """What is asked of the maps."""

    methods: tuple[Method, ...]
    skip: bool = False  # methods that this model does not allow are left out, and told
    targets: tuple[str, ...] = ()
    point: tuple[float, float] | None = None  # on the photo, else on the input
    key: str | None = None  # of the output
    layers: tuple[str, ...] = ()
    list_layers: bool = False
    top_channels: int | None = None
    score: bool = False
    boxes: Boxes | None = None
    reference: Tensor | None = None
    labels: int | None = None
    independent: bool = False


class Explorer:
    """Makes and describes the maps of one batch after the other.

    Args:
        model: inside its wrappers, placed, in eval mode.
        settings: what is asked.
        names_for: of a number of classes, their names.
        around: a context for each pass: autocast.
        say: tells how long a slow method will take.
        step: called after each chunk of one.
        count: samples in all; None: not known.
        chunk: altered pictures in one pass.
    """

    def __init__(
        self,
        model: nn.Module,
        settings: Settings,
        names_for: Callable[[int | None], ClassNames | None],
        around: Callable[[], AbstractContextManager[Any]],
        say: Callable[[str], None] = lambda _text: None,
        step: Callable[[], object] = lambda: None,
        count: int | None = None,
        chunk: int = 16,
    ) -> None:
        self._model, self._settings, self._names_for, self._around = model, settings, names_for, around
        self._say, self._step, self._count = say, step, count
        self.layers: tuple[Layer, ...] = ()
        self.shots: list[Shot] = []
        self.maps: list[Heatmap] = []
        self.values: dict[int, np.ndarray] = {}
        self.scenes: list[Scene] = []
        self.sanity: tuple[Sanity, ...] = ()
        self.output = ""
        self._notes: dict[str, None] = {}
        self._methods: tuple[Method, ...] | None = None  # those that the model allows; None: not tried yet
        self._seconds: list[float] = []
        self._sites: dict[tuple[int, ...], tuple[Site, ...]] = {}  # by the shape of the input
        self._told: set[str] = set()
        self._first: tuple[Arguments, Explained] | None = None  # for the sanity check
        self._nothing: NothingDetected | None = None
        self._chunk = chunk

    def add(self, batch: Batch, arguments: Arguments, preprocessing: Preprocessing | None) -> None:
        """Take in one batch: as it is on the CPU, and placed; `preprocessing` says how it was made of photos."""
        try:
            self._add(batch, arguments, preprocessing)
        except NothingDetected as error:
            if batch.size > 1:
                for sample in range(batch.size):
                    self.add(_single(batch, sample), _one(arguments, batch.size, sample), preprocessing)
                return
            self._nothing = error
            self._describe(batch, 0, (), 0, None, preprocessing)
            self._notes[f"{self.shots[-1].name}: {error.message}"] = None

    def finish(self, seed: int | None) -> None:
        """Check that there are maps, and make some of them again with other weights, drawn with `seed`; None: do not.

        Raises:
            NothingDetected: a detector found nothing in any picture.
        """
        if self._nothing is not None and not self.maps:
            raise self._nothing
        if self._settings.boxes is not None and self.maps and all(made.worth is None or made.worth.pointing is None for made in self.maps):
            labels = listed(sorted(self._settings.boxes.labels), 4)
            self._notes[f"no box of {self._settings.boxes.source} has the label of a class that was explained: its labels are {labels}"] = (
                None
            )
        if seed is not None and self._first is not None:
            self.sanity = tuple(self._checked(method, seed) for method in self._methods or () if not method.slow)

    @property
    def methods(self) -> tuple[MethodWorth, ...]:
        """The mean worth of each method."""
        return of_methods(list(zip(self.maps, self._seconds, strict=True))) if self._settings.score or self._settings.boxes else ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know."""
        return tuple(self._notes)

    def _add(self, batch: Batch, arguments: Arguments, preprocessing: Preprocessing | None) -> None:
        if self._methods is None:
            self._choose(batch, arguments)
            if self._settings.list_layers:
                return
            self._methods = self._possible(batch, arguments)
        sites = self._sites_for(batch, arguments)
        with padded(self._model) as shares:
            made = self._explained(batch, arguments, sites, self._methods or ())
        self.output = str(made.answer)
        self._notes.update(dict.fromkeys(made.answer.notes))
        self._first = self._first or (arguments, made)
        for sample in range(batch.size):
            top, count = made.answer.top(sample, TOP), made.answer.nonfinite(sample)
            own = [each for each in made.maps if each.sample == sample]
            share = shares[sample] if sample < len(shares) else (1.0, 1.0)
            self._describe(batch, sample, top, count, made.answer.classes, preprocessing, share, [each.target for each in own])
            picture = _picture(arguments)
            for index, each in enumerate(own):
                self._keep(each, own[:index], batch, sample, share, made.answer, picture)

    def _explained(self, batch: Batch, arguments: Arguments, sites: Sequence[Site], methods: Sequence[Method]) -> Explained:
        plan = Plan(tuple(methods), self._chunk, self._settings.top_channels, partial(self._tell, batch.size))

        def ask(answer: Answer, sample: int) -> Sequence[Target]:
            return answer.targets(sample, self._settings.targets, self._point(batch, sample))

        return explain(self._model, arguments, sites, partial(self._read, batch, arguments), ask, plan, self._around)

    def _read(self, batch: Batch, arguments: Arguments, output: Any) -> Answer:
        asked, picture = self._settings, _picture(arguments)
        size = None if picture is None else (int(picture.shape[-2]), int(picture.shape[-1]))
        answer = read(
            output,
            samples=batch.size,
            size=size,
            key=asked.key,
            reference=asked.reference,
            labels=asked.labels,
            independent=asked.independent,
        )
        if not isinstance(answer, Embedding):
            answer.names = self._names_for(answer.classes)
        return answer

    def _choose(self, batch: Batch, arguments: Arguments) -> None:
        """Choose the layers by the first sample."""
        if not self._settings.list_layers and not any(method.layered for method in self._settings.methods):
            self._sites[_shape(arguments)] = ()
            return
        single, (args, kwargs) = _single(batch, 0), _one(arguments, batch.size, 0)

        def score(output: Any) -> Tensor:
            answer = self._read(single, (args, kwargs), output)
            return answer.scores(answer.targets(0, self._settings.targets, self._point(batch, 0))[:1])

        with self._around():
            choice = chosen(self._model, args, kwargs, score, self._settings.layers)
            if self._settings.list_layers:
                picked = {layer.index: layer for layer in choice.layers}
                self.layers = tuple(picked.get(layer.index, layer) for layer in candidates(self._model, args, kwargs))
                return
        self.layers = choice.layers
        self._sites[_shape(arguments)] = choice.sites

    def _sites_for(self, batch: Batch, arguments: Arguments) -> tuple[Site, ...]:
        """Return the chosen layers; with inputs of another size tokens lie on another grid."""
        shape = _shape(arguments)
        if shape not in self._sites:
            args, kwargs = _one(arguments, batch.size, 0)
            with self._around():
                self._sites[shape] = named(self._model, args, kwargs, [layer.name for layer in self.layers]) if self.layers else ()
        return self._sites[shape]

    def _possible(self, batch: Batch, arguments: Arguments) -> tuple[Method, ...]:
        """Return the methods that the model allows: all, unless those that it does not allow are to be left out."""
        if not self._settings.skip:
            return self._settings.methods
        single, one = _single(batch, 0), _one(arguments, batch.size, 0)
        return tuple(method for method in self._settings.methods if self._allows(method, single, one))

    def _allows(self, method: Method, single: Batch, one: Arguments) -> bool:
        if method.needs in ("activation", "masked inputs", "ablated channels"):
            return True
        try:
            self._explained(single, one, self._sites_for(single, one), (method,))
        except NothingDetected:
            raise
        except NetlensError as error:
            self._notes[f"{method.title} is left out: {error.message}"] = None
            return False
        return True

    def _describe(
        self,
        batch: Batch,
        sample: int,
        top: tuple[Class, ...],
        nonfinite: int,
        classes: int | None,
        preprocessing: Preprocessing | None,
        share: Share = (1.0, 1.0),
        targets: Sequence[Target] = (),
    ) -> None:
        """Add what is known of a sample, and what lies under its maps."""
        path, geometry = _at(batch.paths, sample), _at(batch.geometries, sample)
        name = f"sample {len(self.shots)}" if path is None else batch.name or path.name
        self.shots.append(Shot(name, None if geometry is None else geometry.photo, top, classes, nonfinite))
        if path is None or geometry is None or batch.name:
            pixels = seen(_single(batch, sample), preprocessing, 1)
            self.scenes.append(Scene(seen=pixels[0] if pixels else None))
            return
        left, above, right, below = geometry.box
        box = (left, above, left + (right - left) * share[1], above + (below - above) * share[0])
        self.scenes.append(Scene(photo=path, box=box, outlines=self._outlines(path, geometry.photo, targets)))

    def _outlines(self, path: Path, size: tuple[int, int], targets: Sequence[Target]) -> tuple[Outline, ...]:
        """Return the boxes of all objects on a photo, and whether they are of another class than the targets."""
        boxes = self._settings.boxes
        if boxes is None:
            return ()
        own = {box for target in targets for box in boxes.boxes_for(path, _label(target), size)}
        return tuple((box, box not in own) for label in sorted(boxes.labels) for box in boxes.boxes_for(path, label, size))

    def _keep(
        self, made: Map, earlier: Sequence[Map], batch: Batch, sample: int, share: Share, answer: Answer, picture: Tensor | None
    ) -> None:
        geometry = _at(batch.geometries, sample)
        size = tuple(made.values.shape[-2:]) if picture is None else tuple(picture.shape[-2:])

        def at(across: float, down: float) -> tuple[float, float]:
            x, y = across * share[1] * size[-1], down * share[0] * size[0]
            return (x, y) if geometry is None else geometry.to_photo(x, y)

        question = [other for other in earlier if other.target is made.target]
        found = heatmap(made, len(self.shots) - 1, tuple(layer.name for layer in self.layers), at, equal_to(made, question))
        if picture is not None and picture.dim() == 4 and made.values.dim() == 2 and (self._settings.score or self._settings.boxes):
            found = replace(found, worth=self._worth(made, picture[sample], share, answer, _at(batch.paths, sample), geometry))
        self.values[len(self.maps)] = made.shown.float().numpy()
        self.maps.append(found)
        self._seconds.append(made.seconds)

    def _worth(self, made: Map, picture: Tensor, share: Share, answer: Answer, path: Path | None, geometry: Geometry | None) -> Worth:
        heat = on_input(made.values, (picture.shape[-2], picture.shape[-1]), share)
        boxes: list[Any] = []
        if self._settings.boxes is not None and path is not None and geometry is not None:
            boxes = boxes_on_input(self._settings.boxes.boxes_for(path, _label(made.target), geometry.photo), geometry)
        if not self._settings.score:
            return Worth(pointing=pointing(heat, boxes), energy=energy(heat, boxes))

        def probability(pictures: Tensor) -> Tensor:
            with torch.no_grad(), self._around():
                return answer.again(self._model(pictures.to(picture))).probabilities([made.target] * len(pictures))

        found = worth(heat, picture, probability, boxes, batch_size=self._chunk)
        self._step()
        return found

    def _point(self, batch: Batch, sample: int) -> tuple[int, int] | None:
        """Return the point that is asked for, in pixels of the input.

        Raises:
            UsageError: the network does not see it.
        """
        point, geometry = self._settings.point, _at(batch.geometries, sample)
        if point is None or geometry is None:
            return None if point is None else (int(point[0]), int(point[1]))
        x, y = geometry.to_input(point[0] + 0.5, point[1] + 0.5)
        height, width = geometry.input
        if not (0 <= x < width and 0 <= y < height):
            photo = f"{geometry.photo[1]} wide and {geometry.photo[0]} high"
            raise UsageError(
                f"the network does not see the point {point[0]:g},{point[1]:g} of the photo, {photo}", hint="choose one inside the crop"
            )
        return int(x), int(y)

    def _tell(self, samples: int, title: str, done: int, total: int, seconds: float) -> None:
        """Say once how long a slow method will take."""
        self._step()
        if title in self._told:
            return
        self._told.add(title)
        passes = total * (self._count or samples) // samples
        expected = seconds / done * passes
        if expected > SLOW:
            pictures = counted(self._count or samples, "sample")
            self._say(f"{title}: {passes:,} forward passes for {pictures}, about {expected:,.0f} s")

    def _checked(self, method: Method, seed: int) -> Sanity:
        """Make maps of the first samples again while weights are drawn anew; of the same classes each time."""
        assert self._first is not None
        arguments, made = self._first
        batch = made.answer.samples
        some = _part(arguments, batch, slice(0, CHECKED))
        asked: list[list[Target]] = [[] for _ in range(min(batch, CHECKED))]
        for each in made.maps:
            if each.sample < CHECKED and all(each.target is not other for other in asked[each.sample]):
                asked[each.sample].append(each.target)

        def again() -> list[Tensor]:
            found = explain(
                self._model,
                some,
                self._sites[_shape(arguments)],
                made.answer.again,
                lambda _answer, sample: asked[sample],
                Plan((method,), self._chunk),
                self._around,
            )
            self._step()
            return [each.shown for each in found.maps]

        return Sanity(method.name, *sanity(self._model, again, seed=seed))


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


def _label(target: Target) -> str:
    return target.found.name or str(target.found.index)


def _picture(arguments: Arguments) -> Tensor | None:
    return next((tensor for _, tensor in leaves(arguments) if tensor.dim() in (4, 5) and tensor.is_floating_point()), None)


def _shape(arguments: Arguments) -> tuple[int, ...]:
    return next((tuple(tensor.shape[1:]) for _, tensor in leaves(arguments)), ())


def _part(arguments: Arguments, count: int, which: slice) -> Arguments:
    def cut(tensor: Tensor) -> Tensor:
        return tensor[which] if tensor.dim() and tensor.shape[0] == count else tensor

    return map_tensors(arguments[0], cut), map_tensors(arguments[1], cut)


def _one(arguments: Arguments, count: int, sample: int) -> Arguments:
    return _part(arguments, count, slice(sample, sample + 1))


def _single(batch: Batch, sample: int) -> Batch:
    args, kwargs = _one((batch.args, batch.kwargs), batch.size, sample)
    part = slice(sample, sample + 1)
    return Batch(args, kwargs, batch.paths[part], batch.geometries[part], batch.name)


T = TypeVar("T")


def _at(every: Sequence[T], index: int) -> T | None:
    return every[index] if index < len(every) else None
