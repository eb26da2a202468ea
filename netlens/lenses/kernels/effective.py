"""The weights that a module's forward uses: as they are stored, or computed from what is stored by a parametrisation or an older hook."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from netlens.probing.untouched import untouched

_STORED = ("_g", "_v", "_orig")  # what hooks of torch.nn.utils keep instead of the weight


@dataclass(frozen=True, slots=True)
class Effective:
    """One weight of a module."""

    name: str  # of the parameter, or of the attribute that is computed
    like: Tensor  # of its shape and type
    owner: object  # what it shares with its ties
    trainable: bool
    read: Callable[[], Tensor]  # on the CPU; it may share memory with the model


def effective_weights(module: nn.Module) -> Iterator[Effective]:
    """Yield the parameters of a module itself; those that are computed once, as computed, instead of what they are computed from."""
    hooks = _hooks(module)
    computed = {**_parametrised(module), **hooks}
    own = dict(module.named_parameters(recurse=False))  # not `_parameters`, which TorchScript keeps elsewhere
    for name in dict.fromkeys([*(_base(name, hooks) for name in own), *computed]):
        if name in computed:
            stored = [*_stored(module, name)]
            trainable = any(tensor.requires_grad for tensor in stored)
            yield Effective(name, computed[name](), (id(module), name), trainable, partial(_on_cpu, computed[name]))
        else:
            yield Effective(name, own[name], id(own[name]), own[name].requires_grad, partial(_on_cpu, own[name].detach))


def _on_cpu(compute: Callable[[], Tensor]) -> Tensor:
    return compute().cpu()


def _base(name: str, hooks: dict[str, Any]) -> str:
    """Return "weight" for "weight_g" where a hook makes the weight of it."""
    return next((name.removesuffix(end) for end in _STORED if name.endswith(end) and name.removesuffix(end) in hooks), name)


def _stored(module: nn.Module, name: str) -> Iterator[Tensor]:
    lists = getattr(module, "parametrizations", None)
    if isinstance(lists, nn.ModuleDict) and name in lists:
        yield from lists[name].parameters()
    for end in _STORED:
        if (parameter := module._parameters.get(name + end)) is not None:
            yield parameter


def _parametrised(module: nn.Module) -> dict[str, Callable[[], Tensor]]:
    lists = getattr(module, "parametrizations", None)
    return {name: partial(_as_in_eval, module, name) for name in lists} if isinstance(lists, nn.ModuleDict) else {}


def _as_in_eval(module: nn.Module, name: str) -> Tensor:
    """Compute a parametrised weight; in training mode spectral_norm would take a step of its power iteration."""
    with untouched(module), torch.no_grad():
        module.eval()
        weight: Tensor = getattr(module, name)
        return weight.detach().clone()


def _hooks(module: nn.Module) -> dict[str, Callable[[], Tensor]]:
    """Return what computes the weights of torch.nn.utils.weight_norm, spectral_norm and prune: the attribute itself may be of yesterday."""
    found: dict[str, Callable[[], Tensor]] = {}
    hooks: list[Any] = [*module._forward_pre_hooks.values()]
    for hook in hooks:
        if callable(getattr(hook, "apply_mask", None)):
            found[hook._tensor_name] = partial(_computed, hook.apply_mask, module)
        elif type(hook).__name__ == "SpectralNorm":
            found[hook.name] = partial(_computed, hook.compute_weight, module, False)
        elif type(hook).__name__ == "WeightNorm":
            found[hook.name] = partial(_computed, hook.compute_weight, module)
    return found


def _computed(compute: Callable[..., Tensor], *arguments: Any) -> Tensor:
    with torch.no_grad():
        return compute(*arguments).detach()
