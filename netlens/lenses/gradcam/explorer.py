"""All batches of one run: layers are chosen on the first, and of each only maps, numbers and what is drawn are kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor, nn

from netlens.errors import NetlensError
from netlens.lenses.gradcam.album import Scene
from netlens.lenses.gradcam.answers import Answer, Embedding, Target
from netlens.lenses.gradcam.batches import Sample, padded, picture_of, sample_of, single, some_of
from netlens.lenses.gradcam.checking import checked, worth_of
from netlens.lenses.gradcam.choices import Method
from netlens.lenses.gradcam.detections import NothingDetected
from netlens.lenses.gradcam.facts import equal_to, heatmap, of_methods
from netlens.lenses.gradcam.layers import Layers
from netlens.lenses.gradcam.measure import Explained, Map, Plan, explain
from netlens.lenses.gradcam.report import Class, Heatmap, Layer, MethodWorth, Sanity, Shot
from netlens.lenses.gradcam.settings import Settings
from netlens.lenses.gradcam.targets import lowering, read
from netlens.loading.class_names import ClassNames
from netlens.loading.feeding import Batch
from netlens.loading.preprocessing import Preprocessing
from netlens.loading.sampling import seen
from netlens.loading.words import listed
from netlens.probing.cutting import Arguments
from netlens.wording import counted

TOP = 5  # predictions that are reported
SLOW = 2.0  # seconds from which on an estimate is told


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
        around: Callable[[], Any],
        say: Callable[[str], None] = lambda _text: None,
        step: Callable[[], object] = lambda: None,
        count: int | None = None,
        chunk: int = 16,
    ) -> None:
        self._model, self._settings, self._names_for, self._around = model, settings, names_for, around
        self._say, self._step, self._count, self._chunk = say, step, count, chunk
        self._layers = Layers(model, settings, around)
        self.shots: list[Shot] = []
        self.maps: list[Heatmap] = []
        self.values: dict[int, np.ndarray] = {}  # index of a map -> its numbers as in the paper
        self.scenes: list[Scene] = []
        self.sanity: tuple[Sanity, ...] = ()
        self.output = ""
        self._notes: dict[str, None] = {}
        self._methods: tuple[Method, ...] | None = None  # those that the model allows; None: not tried yet
        self._seconds: list[float] = []
        self._told: set[str] = set()
        self._first: tuple[Arguments, Explained] | None = None  # for the sanity check
        self._nothing: NothingDetected | None = None

    def add(self, batch: Batch, arguments: Arguments, preprocessing: Preprocessing | None) -> None:
        """Take in one batch: as it is on the CPU, and placed; `preprocessing` says how it was made of photos."""
        try:
            self._add(batch, arguments, preprocessing)
        except NothingDetected as error:
            if batch.size > 1:
                for index in range(batch.size):
                    self.add(single(batch, index), some_of(arguments, batch.size, index), preprocessing)
                return
            self._nothing = error
            self._describe(batch, 0, sample_of(batch, arguments, 0), preprocessing, (), None, 0, ())
            self._notes[f"{self.shots[-1].name}: {error.message}"] = None

    def finish(self, seed: int | None) -> None:
        """Check that there are maps, and make some of them again with other weights, drawn with `seed`; None: do not.

        Raises:
            NothingDetected: a detector found nothing in any picture.
        """
        boxes = self._settings.boxes
        if self._nothing is not None and not self.maps:
            raise self._nothing
        if boxes is not None and self.maps and all(made.worth is None or made.worth.pointing is None for made in self.maps):
            labels = listed(sorted(boxes.labels), 4)
            self._notes[f"no box of {boxes.source} is of a class that was explained: its labels are {labels}"] = None
        if seed is not None and self._first is not None:
            if slow := [method.title for method in self._methods or () if method.slow]:
                self._notes[f"the sanity check leaves out {listed(slow)}: it would take too long"] = None
            self.sanity = tuple(self._checked(method, seed) for method in self._methods or () if not method.slow)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers that are looked at; where they are to be listed, all."""
        return self._layers.found

    @property
    def methods(self) -> tuple[MethodWorth, ...]:
        """The mean worth of each method."""
        measured = self._settings.score or self._settings.boxes is not None
        return of_methods(list(zip(self.maps, self._seconds, strict=True))) if measured else ()

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
        with padded(self._model) as shares:
            made = self._explained(batch, arguments, self._methods)
        self.output = str(made.answer)
        self._notes.update(dict.fromkeys(made.answer.notes))
        self._first = self._first or (arguments, made)
        for index in range(batch.size):
            sample, answer = sample_of(batch, arguments, index, shares), made.answer
            own = [each for each in made.maps if each.sample == index]
            targets = [each.target for each in own]
            self._describe(batch, index, sample, preprocessing, answer.top(index, TOP), answer.classes, answer.nonfinite(index), targets)
            for place, each in enumerate(own):
                self._keep(each, own[:place], sample, answer)

    def _explained(self, batch: Batch, arguments: Arguments, methods: Sequence[Method]) -> Explained:
        def ask(answer: Answer, index: int) -> Sequence[Target]:
            return self._targets(answer, batch, arguments, index)

        sites, reading = self._layers.sites(arguments, batch.size), partial(self._read, batch, arguments)
        plan = Plan(tuple(methods), self._chunk, self._settings.top_channels, partial(self._tell, batch.size))
        return explain(self._model, arguments, sites, reading, ask, plan, self._around)

    def _targets(self, answer: Answer, batch: Batch, arguments: Arguments, index: int) -> tuple[Target, ...]:
        point = sample_of(batch, arguments, index).point(self._settings.point)
        return answer.targets(index, self._settings.targets, point)

    def _read(self, batch: Batch, arguments: Arguments, output: Any) -> Answer:
        asked, picture = self._settings, picture_of(arguments)
        answer = read(
            output,
            samples=batch.size,
            size=None if picture is None else (picture.shape[-2], picture.shape[-1]),
            lower=lowering(self._model),
            **asked.reading,
        )
        if not isinstance(answer, Embedding):
            answer.names = self._names_for(answer.classes)
        return answer

    def _choose(self, batch: Batch, arguments: Arguments) -> None:
        """Choose the layers by the first sample."""
        one, inputs = single(batch, 0), some_of(arguments, batch.size, 0)

        def score(output: Any) -> Tensor:
            answer = self._read(one, inputs, output)
            return answer.scores(self._targets(answer, one, inputs, 0)[:1])

        self._layers.choose(inputs, score)

    def _possible(self, batch: Batch, arguments: Arguments) -> tuple[Method, ...]:
        """Return the methods that the model allows: all, unless those that it does not allow are to be left out."""
        if not self._settings.skip:
            return self._settings.methods
        one, inputs = single(batch, 0), some_of(arguments, batch.size, 0)
        return tuple(method for method in self._settings.methods if self._allows(method, one, inputs))

    def _allows(self, method: Method, one: Batch, inputs: Arguments) -> bool:
        if method.needs in ("activation", "masked inputs", "ablated channels"):
            return True
        try:
            self._explained(one, inputs, (method,))
        except NothingDetected:
            raise
        except NetlensError as error:
            self._notes[f"{method.title} is left out: {error.message}"] = None
            return False
        return True

    def _describe(
        self,
        batch: Batch,
        index: int,
        sample: Sample,
        preprocessing: Preprocessing | None,
        top: tuple[Class, ...],
        classes: int | None,
        nonfinite: int,
        targets: Sequence[Target],
    ) -> None:
        """Add what is known of a sample, and what lies under its maps."""
        name = batch.name or (f"sample {len(self.shots)}" if sample.path is None else sample.path.name)
        self.shots.append(Shot(name, None if sample.geometry is None else sample.geometry.photo, sample.on_photo(top), classes, nonfinite))
        if sample.path is None or batch.name:
            pixels = seen(single(batch, index), preprocessing, 1)
            self.scenes.append(Scene(seen=pixels[0] if pixels else None, marks=sample.marks(targets)))
        else:
            outlines = sample.outlines(self._settings.boxes, targets)
            self.scenes.append(Scene(sample.path, box=sample.box(), outlines=outlines, marks=sample.marks(targets)))

    def _keep(self, made: Map, earlier: Sequence[Map], sample: Sample, answer: Answer) -> None:
        size = (made.values.shape[-2], made.values.shape[-1]) if made.values.dim() > 1 else (1, made.values.shape[-1])
        question = [other for other in earlier if other.target is made.target]
        names = tuple(layer.name for layer in self.layers)
        found = heatmap(made, len(self.shots) - 1, names, lambda x, y: sample.place(x, y, size), equal_to(made, question))
        self.values[len(self.maps)] = made.shown.float().numpy()
        worth = worth_of(made, sample, answer, self._model, self._settings, self._around, self._chunk)
        self.maps.append(replace(sample.described(found, made.target), worth=worth))
        self._seconds.append(made.seconds)
        if worth is not None:
            self._step()

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
        assert self._first is not None
        arguments, made = self._first
        sites = self._layers.sites(arguments, made.answer.samples)
        self._step()
        return checked(self._model, method, arguments, made, sites, self._chunk, self._around, seed=seed)
