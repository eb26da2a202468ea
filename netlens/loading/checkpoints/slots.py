"""The places for tensors that a model has, as `state_dict` names them, and how its own code renames old ones."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from netlens.loading.checkpoints.fit import Slot


def slots_of(model: nn.Module) -> tuple[Slot, ...]:
    """List parameters and buffers in the order of `state_dict`, tied ones under each of their names."""
    first: dict[int, str] = {}
    found = []
    for path, module in model.named_modules(remove_duplicate=False):
        for kind, tensors in (("parameter", module._parameters), ("buffer", module._buffers)):
            for name, tensor in tensors.items():
                if tensor is not None:
                    full = f"{path}.{name}" if path else name
                    persistent = kind == "parameter" or name not in module._non_persistent_buffers_set
                    found.append(_slot(full, kind, tensor, first.get(id(tensor)), persistent))
                    first.setdefault(id(tensor), full)
    return tuple(found)


def _slot(name: str, kind: str, tensor: Tensor, tied_to: str | None, persistent: bool) -> Slot:
    shape = None if is_lazy(tensor) else tuple(tensor.shape)
    return Slot(name, shape, str(tensor.dtype).removeprefix("torch."), kind, tied_to, persistent)


def renames_of(model: nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    """Ask the model's own code what it calls tensors of these names: {"mlp.linear_1.weight": "mlp.0.weight"}.

    Modules keep old checkpoints loadable by renaming in `_load_from_state_dict` or in a hook of it (torchvision's published ViT weights
    need it). Here it is run on tensors without data; who still is there under another name has been renamed.

    Args:
        model: on the meta device; what it holds afterwards is of no use.
        shapes: of the tensors, by their names in the file without its prefix.
    """
    try:
        given = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
        state = OrderedDict(given)
        for path, module in model.named_modules(remove_duplicate=False):
            module._load_from_state_dict(state, f"{path}." if path else "", {}, False, [], [], [])
    except Exception:  # the user's code, or sizes beyond any tensor's: then nothing is renamed
        return {}
    old = {id(tensor): name for name, tensor in given.items()}
    now = {old[id(tensor)]: name for name, tensor in state.items() if id(tensor) in old}
    return {before: after for before, after in now.items() if before != after}
