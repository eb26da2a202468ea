"""The maps of one batch: one forward pass, whose graph begins at the layer, and for each target one pass backwards to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from netlens.errors import UsageError
from netlens.lenses.gradcam.answers import Answer, Target
from netlens.lenses.gradcam.choices import Method
from netlens.lenses.gradcam.class_answers import ClassScores
from netlens.lenses.gradcam.heads import head_weights
from netlens.lenses.gradcam.masking import Asking, Tell, ablation_maps, score_maps
from netlens.lenses.gradcam.methods import GRADIENT, cam, eigencam, finer_scores, fuse
from netlens.lenses.gradcam.whole import fullgrad, legrad
from netlens.probing.cutting import Arguments, Cut, cut
from netlens.probing.replacing import Site

Ask = Callable[[Answer, int], Sequence[Target]]  # what is to be explained of a sample; at least one


@dataclass(frozen=True, slots=True)
class Plan:
    """What is made of every batch."""

    methods: tuple[Method, ...]
    chunk: int  # masked pictures in one pass
    top_channels: int | None = None  # of Score-CAM
    tell: Tell = lambda _title, _done, _total, _seconds: None


@dataclass(frozen=True, slots=True, eq=False)
class Map:
    """One map."""

    sample: int  # in the batch
    target: Target
    method: Method
    values: Tensor  # (*grid), on the CPU, as in the paper before its ReLU; float32, of float64 float64
    gradient: float | None  # largest |gradient| at the layer
    dead: bool  # the layer's output is 0
    seconds: float

    @property
    def shown(self) -> Tensor:
        """The numbers as they stand in the paper."""
        return self.values.clamp(min=0) if self.method.rectified else self.values


@dataclass(frozen=True, slots=True, eq=False)
class Explained:
    """What was made of a batch."""

    answer: Answer
    maps: tuple[Map, ...]  # by sample, then by target, then by method


def explain(
    model: nn.Module,
    inputs: Arguments,
    sites: Sequence[Site],
    read: Callable[[Any], Answer],
    ask: Ask,
    plan: Plan,
    around: Callable[[], Any],
) -> Explained:
    """Make the maps of one batch.

    Args:
        model: inside its wrappers, in eval mode; it is left as it was.
        inputs: positional and named arguments, on the model's device.
        sites: the layers, in the order in which they run; several are fused. May be empty if no method needs one.
        read: of what the model returns, its answer.
        ask: what is to be explained of a sample of that answer.
        plan: what is made.
        around: a context for each pass: autocast.

    Raises:
        NetlensError: a method cannot be had of this model.
        Exception: what the model's own forward raises.
    """
    return _Batch(model, inputs, sites, plan, around).run(read, ask)


class _Batch:
    """Makes all maps, those of one cheap pass first, so that its graph is gone before the others begin."""

    def __init__(self, model: nn.Module, inputs: Arguments, sites: Sequence[Site], plan: Plan, around: Callable[[], Any]) -> None:
        self._model, self._inputs, self._sites, self._plan, self._around = model, inputs, sites, plan, around
        self._found: dict[tuple[int, int, str], Map] = {}
        self._blind: tuple[Tensor, float] | None = None  # of Eigen-CAM, the same for every target

    def run(self, read: Callable[[Any], Answer], ask: Ask) -> Explained:
        start = perf_counter()
        with self._around(), cut(self._model, self._sites, self._inputs) as passed:
            self._answer = answer = read(passed.output)
            asked = [tuple(ask(answer, sample)) for sample in range(answer.samples)]
            self._activations = [passed.maps(site.name) for site in self._sites]
            self._forward = perf_counter() - start
            rounds = [[each[min(rank, len(each) - 1)] for each in asked] for rank in range(max(map(len, asked), default=0))]
            for rank, targets in enumerate(rounds):
                self._cheap(rank, targets, passed, last=rank == len(rounds) - 1)
        del passed
        self._costly(rounds)
        order = {method.name: place for place, method in enumerate(self._plan.methods)}
        every = sorted(self._found.items(), key=lambda item: (item[0][0], item[0][1], order[item[0][2]]))
        return Explained(answer, tuple(found for (sample, rank, _), found in every if rank < len(asked[sample])))

    def _cheap(self, rank: int, targets: Sequence[Target], passed: Cut, *, last: bool) -> None:
        """Make the maps that come of the one forward pass; all of one target share one pass backwards."""
        methods = [method for method in self._plan.methods if method.needs in ("gradient", "activation", "head")]
        finer = [method for method in methods if method.name == "finercam"]
        shared = [method for method in methods if method.needs == "gradient" and method not in finer]
        for group in filter(None, (shared, finer)):
            start = perf_counter()
            scores = self._finer(targets) if group is finer else self._answer.scores(targets)
            gradients = self._gradients(passed, scores, retain=not last or (group is shared and bool(finer)))
            largest = torch.stack([gradient.abs().flatten(1).amax(1) for gradient in gradients]).amax(0).tolist()
            backward = perf_counter() - start
            for method in group:
                start = perf_counter()
                pairs = zip(self._activations, gradients, strict=True)
                values = fuse([GRADIENT[method.name](*pair) for pair in pairs], method.name)
                self._add(rank, targets, method, values, largest, self._forward + backward + perf_counter() - start)
        for method in methods:
            if method.needs == "head":
                start = perf_counter()
                weights = head_weights(self._model, self._activations[-1], self._answer)
                rows = weights[[target.found.index for target in targets]]
                self._add(rank, targets, method, cam(self._activations[-1], rows), None, self._forward + perf_counter() - start)
            elif method.needs == "activation":
                values, seconds = self._of_activation(method)
                self._add(rank, targets, method, values, None, self._forward + seconds)

    def _of_activation(self, method: Method) -> tuple[Tensor, float]:
        if self._blind is None:
            start = perf_counter()
            values = fuse([eigencam(maps) for maps in self._activations], method.name)
            self._blind = values, perf_counter() - start
        return self._blind

    def _finer(self, targets: Sequence[Target]) -> Tensor:
        if not isinstance(self._answer, ClassScores):
            raise UsageError(f"Finer-CAM compares classes, and the model's output is {self._answer}", hint="take --method gradcam")
        wanted = torch.tensor([target.found.index for target in targets], device=self._answer.values.device)
        return finer_scores(self._answer.values, wanted)

    def _gradients(self, passed: Cut, scores: Tensor, *, retain: bool) -> list[Tensor]:
        """Return the gradient at each site; zeros where the score does not depend on it."""
        found = passed.gradients(scores, retain=retain)
        pairs = zip(self._sites, self._activations, strict=True)
        return [torch.zeros_like(maps) if (gradient := found[site.name]) is None else gradient for site, maps in pairs]

    def _costly(self, rounds: Sequence[Sequence[Target]]) -> None:
        """Make the maps that need passes of their own."""
        for method in self._plan.methods:
            if method.needs in ("masked inputs", "ablated channels"):
                self._slow(method, rounds)
            elif method.needs in ("bias gradients", "attention gradients"):
                make = fullgrad if method.needs == "bias gradients" else legrad
                for rank, targets in enumerate(rounds):
                    start = perf_counter()
                    with self._around():
                        values = make(self._model, *self._inputs, self._scores(targets))
                    self._add(rank, targets, method, values, None, perf_counter() - start)

    def _scores(self, targets: Sequence[Target]) -> Callable[[Any], Tensor]:
        return lambda output: self._answer.again(output).scores(targets)

    def _slow(self, method: Method, rounds: Sequence[Sequence[Target]]) -> None:
        """Make maps sample by sample; what is run for one target is run for all."""
        samples = self._answer.samples
        make = score_maps if method.needs == "masked inputs" else ablation_maps
        for sample in range(samples):
            start = perf_counter()
            targets = list({id(targets[sample]): targets[sample] for targets in rounds}.values())
            asking = Asking(self._model, self._inputs, self._answer, sample, targets, self._around, self._plan.tell, samples - sample)
            layers = [make(asking, site, maps[sample], self._plan) for site, maps in zip(self._sites, self._activations, strict=True)]
            seconds = (perf_counter() - start) / len(targets)
            for rank, target in enumerate(targets):
                values = fuse([maps[rank][None] for maps in layers], method.name)[0]
                self._put(sample, rank, target, method, values, None, seconds)

    def _add(
        self, rank: int, targets: Sequence[Target], method: Method, values: Tensor, gradient: Sequence[float] | None, seconds: float
    ) -> None:
        own = values.detach().cpu()
        for sample, target in enumerate(targets):
            largest = None if gradient is None else gradient[sample]
            self._put(sample, rank, target, method, own[sample], largest, seconds / len(targets))

    def _put(self, sample: int, rank: int, target: Target, method: Method, values: Tensor, gradient: float | None, seconds: float) -> None:
        dead = bool(self._activations) and method.layered and not any(bool(maps[sample].any()) for maps in self._activations)
        self._found[sample, rank, method.name] = Map(sample, target, method, values.detach().cpu(), gradient, dead, seconds)
