"""What a report shows of the way of the gradient, in the terms of the rules. Standard library only."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isfinite

from netlens.findings import Finding
from netlens.lenses.gradflow.report import GradflowReport, LayerFlow, ParameterFlow
from netlens.wording import short

NAMED = 3  # layers that a finding lists
LATE, UNDERFLOW = "late", "underflow"  # kinds: what only the steps brought about; gradients too small for their data type
SMALL = 0.1  # root mean square of a scale that begins near 0; ours


@dataclass(frozen=True, slots=True)
class Ill:
    """What one rule says about a report."""

    finding: Finding
    says: str  # the same as a clause: "the gradient stops at `relu3`"
    word: str = ""  # for a label in a picture or a table
    places: tuple[int, ...] = ()  # of parameters in the report
    columns: tuple[str, ...] = ()  # of the table of parameters: where it shows
    layer: str = ""  # in the table of layers
    ranks: tuple[int, ...] = ()
    kind: str = ""  # among causes and symptoms; "": the code of the finding


class Flow:
    """A report as the rules read it. Places are those of parameters in the report.

    Weights alone are compared: biases, scales of normalisations and gates are small or zero by design.
    """

    def __init__(self, report: GradflowReport) -> None:
        self.report = report
        self.parameters = report.parameters

    @cached_property
    def broken(self) -> bool:
        """Whether the loss or a gradient is not finite, so that sizes mean nothing."""
        odd = any(each.nan or each.infinite for each in self.parameters)
        return odd or self.report.first_nonfinite is not None or not all(isfinite(step.loss) for step in self.report.steps)

    @cached_property
    def fresh(self) -> bool:
        """Whether nothing has been learned yet."""
        return self.report.initialised is True

    @cached_property
    def arrives(self) -> bool:
        """Whether any parameter gets a gradient, or any layer where there is no parameter."""
        return any(each.status == "gradient" for each in self.parameters or self.report.layers)

    def having(self, status: str) -> tuple[int, ...]:
        """Return the places of the parameters that have this status."""
        return tuple(place for place, each in enumerate(self.parameters) if each.status == status)

    @cached_property
    def weights(self) -> tuple[int, ...]:
        """The places of weights that get a gradient, in forward order."""
        return tuple(place for place in self.having("gradient") if _is_weight(self.parameters[place]))

    @cached_property
    def dead(self) -> tuple[int, ...]:
        """Those of them whose gradient is exactly 0, and is so again at the second look, or behind no gate where there was none."""
        return tuple(place for place in self.zero if not self._opens(place))

    @cached_property
    def opening(self) -> tuple[int, ...]:
        """Those of them whose gradient is exactly 0 because of what begins at 0."""
        return tuple(place for place in self.zero if self._opens(place))

    @cached_property
    def zero(self) -> tuple[int, ...]:
        """Those of them whose gradient is exactly 0 at the first look."""
        return tuple(place for place in self.weights if self.parameters[place].zeros == 1)

    @cached_property
    def died(self) -> tuple[int, ...]:
        """Those of them that had a gradient in the first of several steps."""
        return tuple(place for place in self.zero if self.since(place) > 0)

    def since(self, place: int) -> float:
        """Return how large the first step's gradient of a parameter was; 0 where there was one step, or it is not known."""
        steps = self.report.steps
        first = steps[0].rms[place] if len(steps) > 1 and place < len(steps[0].rms) else None
        return first or 0.0

    def _opens(self, place: int) -> bool:
        if place in self.died:
            return False
        if self.report.look is not None:
            return self.report.look.zeros[place] not in (None, 1)
        head = self.report.output is not None and self.report.output.zero_head
        return head or any(self.parameters[place].name.startswith(block) for block in self._blocks)

    @cached_property
    def gated(self) -> bool:
        """Whether scales near 0, as LayerScale has, hide what is behind them as long as nothing is learned."""
        scales = [each for each in self.having("gradient") if each not in self.weights and not _is_bias(self.parameters[each].name)]
        sizes = [self.parameters[place].weight_rms for place in scales]
        return self.report.initialised is not False and any(size is not None and size < SMALL for size in sizes)

    @cached_property
    def _blocks(self) -> tuple[str, ...]:
        """The blocks, as beginnings of names, in which something begins at 0 and is about to open: a scale, a gate, B of LoRA."""
        gates = [each for each in self.parameters if each.weight_rms == 0 and (each.rms or 0) > 0 and not _is_bias(each.name)]
        return tuple(f"{parent}." if parent else "" for parent in (each.layer.rpartition(".")[0] for each in gates))

    @cached_property
    def stop(self) -> LayerFlow | None:
        """The layer that lets no gradient through to dead weights: the first after the last of them whose output gets none."""
        layers = [layer for layer in self.report.layers if layer.status == "gradient"]
        dead = {self.parameters[place].layer for place in self.dead}
        last = max((place for place, layer in enumerate(layers) if layer.rms == 0 and _belongs(layer, dead)), default=len(layers))
        return next((layer for layer in layers[last + 1 :] if layer.rms), None)

    @cached_property
    def culprit(self) -> LayerFlow | None:
        """That layer, or the one before the first dead weight that puts out 0; of a chain that puts out 0 the first."""
        found = self.stop or self._silent
        for layer in reversed(self.report.layers):
            if found is not None and found.activation_rms == 0 and layer.index == found.index - 1 and layer.activation_rms == 0:
                found = layer
        return found

    @cached_property
    def _silent(self) -> LayerFlow | None:
        """The layer before the first dead weight that puts out 0 everywhere."""
        if not self.dead:
            return None
        own = self.parameters[self.dead[0]].layer
        place = next((place for place, layer in enumerate(self.report.layers) if _belongs(layer, {own})), 0)
        return next((layer for layer in reversed(self.report.layers[:place]) if layer.activation_rms == 0), None)

    def cut(self, places: Sequence[int]) -> tuple[LayerFlow, LayerFlow] | None:
        """Return the last layer of these parameters that gets no gradient, and the first after it that does."""
        layers, owners = self.report.layers, {self.parameters[place].layer for place in places}
        last = max((place for place, layer in enumerate(layers) if layer.status != "gradient" and _belongs(layer, owners)), default=None)
        if last is None:
            return None
        after = next((place for place in range(last + 1, len(layers)) if layers[place].status == "gradient"), None)
        return None if after is None else (layers[after - 1], layers[after])

    def before(self, place: int) -> bool:
        """Tell whether any parameter before this one gets a gradient."""
        return any(each.status == "gradient" for each in self.parameters[:place])

    def all_zero(self, layer: str) -> bool:
        """Tell whether all weights of a layer are 0."""
        sizes = [each.weight_rms for each in self.parameters if each.layer == layer and _is_weight(each)]
        return bool(sizes) and not any(size != 0 for size in sizes)

    def share(self, places: Sequence[int]) -> float:
        """Return the share of elements in these parameters, of all that are not frozen."""
        every = sum(each.elements for each in self.parameters if each.status != "frozen")
        return sum(self.parameters[place].elements for place in places) / every if every else 0.0

    def label(self, place: int) -> str:
        """Name the layer of a parameter, or, where that is the model itself, the parameter."""
        return short(self.parameters[place].layer or self.parameters[place].name)

    def named(self, places: Iterable[int], of: Callable[[int], str] = lambda place: "") -> str:
        """Name the layers of these parameters: "`conv1` (0.5), `conv2` (0.4) and 3 more"; `of` is what stands in brackets."""
        texts: dict[str, str] = {}
        for place in places:
            texts.setdefault(self.label(place), of(place))
        told = [f"`{name}`{f' ({text})' if text else ''}" for name, text in texts.items()]
        return ", ".join(told[:NAMED]) + (f" and {len(told) - NAMED:,} more" if len(told) > NAMED else "")

    def common(self, places: Sequence[int]) -> str:
        """Return the innermost module that has all of these parameters; "" is the model."""
        paths = [self.parameters[place].layer.split(".") for place in places]
        same = 0
        while paths and all(len(path) > same and path[same] == paths[0][same] for path in paths):
            same += 1
        return ".".join(paths[0][:same]) if paths else ""


def _is_weight(parameter: ParameterFlow) -> bool:
    """Tell a matrix or kernel from a bias, a scale, a gate and a class token."""
    wide = sum(size > 1 for size in parameter.shape)
    return len(parameter.shape) >= 2 and parameter.elements > 1 and (wide >= 2 or "weight" in parameter.name.rpartition(".")[2])


def _is_bias(name: str) -> bool:
    return "bias" in name.rpartition(".")[2]


def _belongs(layer: LayerFlow, owners: Collection[str]) -> bool:
    """Tell whether an output is of one of these modules: of "conv", "conv#2" is the second call and "conv.0" a part; not "conv:relu"."""
    path = layer.name.partition("#")[0]
    return path in owners or (path.rpartition(".")[2].isdecimal() and path.rpartition(".")[0] in owners)
