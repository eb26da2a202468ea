"""The forward passes of Score-CAM and Ablation-CAM: one sample many times over, in chunks, for all of its targets at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from netlens.errors import UsageError
from netlens.lenses.gradcam.answers import Answer, Target
from netlens.lenses.gradcam.perturbing import ablationcam, scorecam
from netlens.probing.cutting import Arguments
from netlens.probing.leaves import leaves, map_tensors
from netlens.probing.replacing import Site, replaced, without_channels

if TYPE_CHECKING:
    from netlens.lenses.gradcam.measure import Plan

Tell = Callable[[str, int, int, float], object]  # title, passes that are done, passes of all samples left, seconds of those that are done
COPIES = 1024  # of a layer's output with a channel taken away, in one pass through what follows
ELEMENTS = 1 << 25  # in such copies: 128 MiB


@dataclass(frozen=True, slots=True, eq=False)
class Asking:
    """Asks the model about one sample."""

    model: nn.Module
    inputs: Arguments  # of the whole batch
    answer: Answer  # to them
    sample: int
    targets: Sequence[Target]
    around: Callable[[], Any]
    tell: Tell
    left: int  # samples of the batch, this one among them: for the estimate

    @property
    def pictures(self) -> Tensor:
        """The input that is masked, (N, C, *size).

        Raises:
            UsageError: there is none.
        """
        found = next((tensor for _, tensor in leaves(self.inputs) if tensor.dim() > 2 and tensor.is_floating_point()), None)
        if found is None:
            raise UsageError("the input is no picture that could be masked", hint="take --method gradcam")
        return found

    def scores(self, count: int = 1, pictures: Tensor | None = None) -> Tensor:
        """Run the sample so many times, with these pictures in place of its own where there are some: scores of all targets, (T, M)."""
        own = None if pictures is None else self.pictures

        def place(tensor: Tensor) -> Tensor:
            if tensor is own and pictures is not None:
                return pictures.to(tensor.dtype)
            if not tensor.dim() or tensor.shape[0] != self.answer.samples:
                return tensor
            return tensor[self.sample : self.sample + 1].expand(count, *tensor.shape[1:])

        with torch.no_grad(), self.around():
            answer = self.answer.again(self.model(*map_tensors(self.inputs[0], place), **map_tensors(self.inputs[1], place)))
            return torch.stack([answer.scores([target] * answer.samples) for target in self.targets])


class _Kept:
    """Scores of chunks, in their order: asked for once, and then known for the other targets."""

    def __init__(self, title: str, asking: Asking, channels: int) -> None:
        self._title, self._asking, self._channels = title, asking, channels
        self._chunks: list[Tensor] = []
        self._done = 0
        self._start = perf_counter()

    def of(self, target: int, ask: Callable[[Any, int], Tensor]) -> Callable[[Any], Tensor]:
        """Return what asks for the scores of one target; `ask` runs a chunk of so many passes, and returns (T, M)."""
        place = -1

        def asked(chunk: Any) -> Tensor:
            nonlocal place
            place += 1
            if place == len(self._chunks):
                self._chunks.append(ask(chunk, len(chunk)))
                self._done += len(chunk)
                self._asking.tell(self._title, self._done, self._channels * self._asking.left, perf_counter() - self._start)
            return self._chunks[place][target]

        return asked


def score_maps(asking: Asking, site: Site, activation: Tensor, plan: Plan) -> list[Tensor]:
    """Score-CAM of one sample, a map (*grid) for each target.

    Args:
        asking: about the sample.
        site: of the layer.
        activation: of the sample, (C, *grid).
        plan: what is made.
    """
    picture = asking.pictures[asking.sample]
    kept = _Kept("Score-CAM", asking, min(len(activation), plan.top_channels or len(activation)))

    def ask(masks: Tensor, count: int) -> Tensor:
        return asking.scores(count, picture * masks[:, None].to(picture.dtype))

    return [
        scorecam(activation, kept.of(target, ask), picture.shape[1:], chunk=plan.chunk, top_channels=plan.top_channels)
        for target in range(len(asking.targets))
    ]


def ablation_maps(asking: Asking, site: Site, activation: Tensor, plan: Plan) -> list[Tensor]:
    """Ablation-CAM of one sample, a map (*grid) for each target; what comes before the layer runs once a chunk, for one copy.

    Args as for `score_maps`.
    """
    active = activation.flatten(1).ne(0).any(1).nonzero().view(-1)
    whole = torch.full((len(asking.targets),), torch.nan)
    scores = whole[:, None].repeat(1, len(activation))
    start, done = perf_counter(), 0
    for channels in active.split(max(1, min(COPIES, ELEMENTS // max(1, activation.numel())))) if len(active) else ():
        found = _ablated(asking, site, channels.tolist()).to(scores.device)
        whole, scores[:, channels.to(scores.device)] = found[:, -1], found[:, :-1].to(scores.dtype)
        done += len(channels)
        asking.tell("Ablation-CAM", done, len(active) * asking.left, perf_counter() - start)
    return [
        ablationcam(activation, own.to(activation.device).__getitem__, float(score), chunk=len(activation))
        for own, score in zip(scores, whole, strict=True)
    ]


def _ablated(asking: Asking, site: Site, channels: list[int]) -> Tensor:
    """Return the scores without each of these channels, and in the same pass, as their differences are small, with all: (T, M + 1)."""

    def copies(output: Tensor) -> Tensor:
        return torch.cat([without_channels(output, site.layout, channels), output], site.layout.batch_axis)

    count = len(channels) + 1
    try:
        with replaced(asking.model, site, copies):
            found = asking.scores()
        if found.shape[1] == count:
            return found
    except RuntimeError:  # the copies meet what was computed beside the layer, for one sample
        pass
    with replaced(asking.model, site, lambda output: copies(_first(output, site, count))):
        return asking.scores(count)


def _first(output: Tensor, site: Site, count: int) -> Tensor:
    """Return the first of so many equal samples."""
    axis = site.layout.batch_axis
    return output.narrow(axis, 0, output.shape[axis] // count)
