"""What stands in words beside a map."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np

from netlens.drawing.captions import Bar, joined, significant
from netlens.drawing.numbers import percent
from netlens.drawing.overlay import heat_bar
from netlens.lenses.gradcam.choices import METHODS, Method
from netlens.lenses.gradcam.report import Class, Heatmap

UNIT = "positive part of the raw map"


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """A map, and what is said about it."""

    facts: Heatmap
    values: np.ndarray  # what is drawn, (*grid): the positive part; what is not finite stays
    limit: float  # where the colours end, > 0
    common: bool  # the limit is that of all maps of the method
    channels: int | None = None  # Score-CAM was made of so many at most

    @classmethod
    def of(cls, facts: Heatmap, raw: np.ndarray, limit: float | None, top_channels: int | None = None) -> Drawn:
        """Take the positive part; a limit of None is its largest finite number; `top_channels` is as in the report."""
        values = np.where(raw < 0, np.zeros_like(raw), raw)
        own = float(values.max(initial=0, where=np.isfinite(values)))
        channels = top_channels if METHODS[facts.method].needs == "masked inputs" else None
        return cls(facts, values, (own if limit is None else limit) or 1.0, limit is not None, channels)

    @property
    def method(self) -> Method:
        """How it was made."""
        return METHODS[self.facts.method]

    @property
    def question(self) -> tuple[int, str]:
        """What it explains: maps of other methods with the same one stand beside it."""
        return self.facts.target.index, self.facts.asked

    @property
    def place(self) -> str:
        """Name its layers: "layer3 + layer4 (fused)"."""
        if not self.method.layered:
            return "the whole network"
        return " + ".join(self.facts.layers) + (" (fused)" if len(self.facts.layers) > 1 else "")


def class_words(found: Class) -> str:
    """Name a class, and how sure of it the model is: "tabby cat · 62.1 %"."""
    if not isfinite(found.score if found.probability is None else found.probability):
        return "the model's output is not finite"
    sure = f"score {significant(found.score)}" if found.probability is None else percent(found.probability, 1)
    return joined(found.name or f"class {found.index}", sure)


def subject_words(drawn: Drawn) -> str:
    """Say what a map explains: a class, or of a class-blind method none."""
    return class_words(drawn.facts.target) if drawn.method.of_class else "class-blind"


def blank_words(drawn: Drawn) -> str:
    """Say what a map is that shows no place; "" where it shows one."""
    facts, values = drawn.facts, drawn.values
    finite = values[np.isfinite(values)]
    if not finite.size:
        return "NaN or infinite everywhere"
    if finite.any():
        return "the same everywhere" if finite.size == values.size and finite.min() == finite.max() else ""
    if facts.least is not None and facts.least < 0:
        return "no positive evidence"
    return "0: the layer is dead" if facts.dead else "0: the gradient is 0" if facts.gradient == 0 else "0 everywhere"


def tile_words(drawn: Drawn, place: str) -> str:
    """Say beside others what sets a map apart: "= Grad-CAM · max 0.0123".

    Args:
        drawn: the map.
        place: the layers that the page is about.
    """
    facts = drawn.facts
    same = f"= {METHODS[facts.equals].title}" if facts.equals else ""
    blind = "" if drawn.method.of_class else "class-blind"
    own = float(drawn.values.max(initial=0, where=np.isfinite(drawn.values)))
    scale = f"max {significant(own)}{f' of {significant(drawn.limit)}' if own < drawn.limit else ''}" if own else ""
    return joined(same, blind, drawn.place if drawn.place != place else "", scale)


@dataclass(frozen=True, slots=True)
class Words:
    """What stands around the maps of one sample on a page: what they have in common is said once."""

    maps: Sequence[Drawn]
    title: str  # what the user calls the model
    name: str  # of the sample

    @property
    def one_target(self) -> bool:
        """Whether all explain the same."""
        return len({drawn.question for drawn in self.maps}) == 1

    @property
    def one_method(self) -> bool:
        """Whether all are made in the same way."""
        return len({drawn.facts.method for drawn in self.maps}) == 1

    @property
    def place(self) -> str:
        """The layers that most of the maps are of."""
        return Counter(drawn.place for drawn in self.maps).most_common(1)[0][0]

    def heading(self) -> str:
        """Say what is explained, and how."""
        first = self.maps[0]
        if not self.one_target:
            return joined(self.name, first.method.title if self.one_method else "")
        if self.one_method and not first.method.of_class:
            return f"{first.method.title} · the same for every class"
        return joined(class_words(first.facts.target), first.method.title if self.one_method else "")

    def about(self, *more: str) -> str:
        """Name the model, the sample, the layers and their grid, and what was asked."""
        shapes = {drawn.facts.shape for drawn in self.maps if drawn.place == self.place}
        grid = f"{self.place}, {' × '.join(map(str, shapes.pop()))}" if len(shapes) == 1 else self.place
        first = self.maps[0]
        asked = first.facts.asked if any(drawn.method.of_class for drawn in self.maps) else ""
        most = max((drawn.channels or 0 for drawn in self.maps), default=0)
        channels = f"Score-CAM of at most {most:,} channels" if most else ""
        return joined(self.title, *((self.name, grid, asked) if self.one_target else (grid,)), channels, *more)

    def scale(self) -> str:
        """Say whose scale the colours are on."""
        return "one scale for all maps of a method" if self.maps[0].common else "each map its own scale" if len(self.maps) > 1 else ""

    def of(self, drawn: Drawn) -> str:
        """Say what sets a map apart from those beside it."""
        parts = [subject_words(drawn)] if self.one_method and not self.one_target else [drawn.method.title]
        return joined(*parts, "" if self.one_target or self.one_method else subject_words(drawn))

    def foot(self, *more: str) -> str:
        """Say what the colours cannot."""
        least = min((drawn.facts.least for drawn in self.maps if drawn.facts.least is not None), default=0)
        down = f", down to −{significant(-least)}" if self.one_method else ""  # methods differ in their units
        negative = f"not drawn: negative numbers{down}" if least < 0 else ""
        odd = any(not np.isfinite(drawn.values).all() for drawn in self.maps)
        return joined(*more, negative, "magenta: NaN or infinite" if odd else "")

    def bars(self, where: str = ", written above it") -> list[Bar]:
        """Return the colour bar; where maps have limits of their own, its end is "max", and `where` says where that is to be found."""
        limits = {drawn.limit for drawn in self.maps}
        if not any((drawn.values > 0).any() for drawn in self.maps):
            return []
        if len(limits) == 1 and self.one_method:
            return [heat_bar(significant(limits.pop()), UNIT)]
        whose = "method's" if self.maps[0].common else "map's"
        return [heat_bar("max", f"positive part · max: each {whose} own{where}")]
