"""What a model is run on: what `--input` says, or, without it, what the model itself tells.

Reading `--input` needs no torch; making tensors and looking into a model does, and imports it then.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from netlens.loading.input_specs import Candidate, InputSpec, parse_input_spec

if TYPE_CHECKING:
    import torch
    from torch import nn

    from netlens.loading.named import NamedModel

__all__ = ["Candidate", "InputSpec", "default_inputs", "make_inputs", "parse_input_spec", "published"]


def make_inputs(
    specs: Sequence[InputSpec], model: nn.Module, device: torch.device | str
) -> tuple[tuple[Any, ...], dict[str, Any], tuple[str, ...]]:
    """Make the arguments of `model.forward`.

    Floating tensors are on `device`: without data on "meta", else normally distributed. Integers and booleans always have real values,
    on the CPU where `device` is "meta", since a forward pass may ask for them. Always the same values; no global random state is touched.

    Returns:
        positional arguments, named arguments, notes on the values for the reader ("input_ids: random integers in [0, 30522)").

    Raises:
        InputError: forward has no argument of that name, takes fewer, or needs more.
    """
    from netlens.loading.tensors import make_tensors

    return make_tensors(specs, model, device)


def default_inputs(named: NamedModel, model: nn.Module) -> list[Candidate]:
    """Guess what `model` takes: as published with it, or from its first layer. The most likely first; none has been tried.

    Raises:
        InputError: nothing tells, or forward needs several inputs that nothing describes.
    """
    from netlens.loading.first_layer import first_layer_inputs
    from netlens.loading.presets import preset_inputs

    return list(named.inputs) or preset_inputs(named, model) or first_layer_inputs(model)


def published(named: NamedModel) -> tuple[int, float] | None:
    """Return the parameters and GMACs that torchvision publishes for the weights of this architecture, or None."""
    if not named.presets:
        return None
    meta = named.presets[0].meta
    return int(meta["num_params"]), float(meta["_ops"])
