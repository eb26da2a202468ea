"""What a lens looks at: a way to get the model, and the inputs to try on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from netlens.errors import InputError
from netlens.loading.inputs import InputSpec, default_inputs, make_inputs
from netlens.loading.models import NamedModel
from netlens.probing.leaves import map_tensors
from netlens.probing.meta import input_stand_in

Arguments = tuple[tuple[Any, ...], dict[str, Any], tuple[str, ...]]  # positional, named, notes for the reader


@dataclass(frozen=True)
class Inputs:
    """One way to call the model."""

    source: str  # "--input", "ResNet18_Weights.IMAGENET1K_V1", "first layer conv1"
    make: Callable[[nn.Module, torch.device], Arguments]


@dataclass(frozen=True)
class Subject:
    """A model that has been named but not built, and how to call it."""

    name: str  # "resnet18"; the class name of an instance
    build: Callable[[], nn.Module]  # a fresh model each time, except for an instance
    is_instance: bool
    inputs: Callable[[nn.Module], list[Inputs]]  # the most likely first


def from_named(named: NamedModel, specs: Sequence[InputSpec]) -> Subject:
    """The subject of a command line: a named model, and what `--input` says (nothing: the model's own default)."""

    def inputs(model: nn.Module) -> list[Inputs]:
        if specs:
            return [_described(tuple(specs), "--input")]
        return [_described(candidate.specs, candidate.source) for candidate in default_inputs(named, model)]

    return Subject(named.name, named.build, named.is_instance, inputs)


def from_instance(model: nn.Module, x: Any, named_inputs: Mapping[str, Any] | None, input_size: Any) -> Subject:
    """The subject of a Python call: a model, with an input, with sizes, or with neither.

    Args:
        model: left as it came.
        x: a tensor; a tuple of positional or a dict of named arguments; None for none.
        named_inputs: named arguments beside `x`.
        input_size: instead: (1, 3, 224, 224), or several such, or a dict of them by argument name.
    """
    named = NamedModel(type(model).__name__, "python", "", type(model).__name__, lambda: model, is_instance=True)
    if x is None and not named_inputs:
        return from_named(named, _specs(input_size))
    if input_size is not None:
        raise InputError("both an input and input_size are given", hint="give one of them")
    args, kwargs = _arguments(x)
    kwargs |= named_inputs or {}

    def make(_model: nn.Module, device: torch.device) -> Arguments:
        place = input_stand_in if device.type == "meta" else lambda tensor: tensor.to(device)
        return map_tensors(args, place), map_tensors(kwargs, place), ()

    return Subject(named.name, named.build, True, lambda _model: [Inputs("the given input", make)])


def _described(specs: tuple[InputSpec, ...], source: str) -> Inputs:
    return Inputs(source, lambda model, device: make_inputs(specs, model, device))


def _arguments(x: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(x, Mapping) and all(isinstance(key, str) for key in x):
        return (), dict(x)
    if x is None:
        return (), {}
    return (tuple(x), {}) if type(x) is tuple else ((x,), {})


def _specs(input_size: Any) -> list[InputSpec]:
    if input_size is None:
        return []
    if isinstance(input_size, Tensor):
        raise InputError("input_size is a tensor", hint="give the tensor itself: netlens.summary(model, x)")
    if isinstance(input_size, Mapping):
        return [InputSpec(str(name), _shape(size)) for name, size in input_size.items()]
    several = all(isinstance(size, Sequence) for size in input_size)
    return [InputSpec(None, _shape(size)) for size in (input_size if several else [input_size])]


def _shape(size: Any) -> tuple[int, ...]:
    shape = tuple(size)
    if not shape or not all(isinstance(n, int) and n > 0 for n in shape):
        raise InputError(f"input_size {size!r} is not a shape", hint="write it like (1, 3, 224, 224), or [(1, 3, 224, 224), (1, 10)]")
    return shape
