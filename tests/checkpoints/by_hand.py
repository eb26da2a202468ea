"""Archives and lists of places written down by hand, so that what is tested does not depend on the reader of files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path

from torch import nn

from netlens.loading.checkpoints.archive import Archive, StoredTensor, TensorGroup
from netlens.loading.checkpoints.fit import Slot
from netlens.loading.named import NamedModel

Shapes = Mapping[str, tuple[int, ...]]

NET: dict[str, tuple[int, ...]] = {"conv.weight": (8, 3, 3, 3), "conv.bias": (8,), "fc.weight": (10, 8), "fc.bias": (10,)}


def slots(shapes: Shapes = NET, **changed: Slot) -> tuple[Slot, ...]:
    """Return the places of a float32 model; `changed` replaces one, by its name with `__` for dots."""
    other = {name.replace("__", "."): slot for name, slot in changed.items()}
    return tuple(other.get(name, Slot(name, shape, "float32")) for name, shape in shapes.items())


def tensor(name: str, shape: tuple[int, ...], dtype: str = "float32", **more: object) -> StoredTensor:
    """Return one tensor with a storage of its own."""
    stride = tuple(prod(shape[axis + 1 :]) for axis in range(len(shape)))
    return StoredTensor(name, shape, dtype, stride, 0, name, 4 * prod(shape), **more)  # type: ignore[arg-type]


def group(shapes: Shapes, key: str = "", role: str = "weights", dtype: str = "float32") -> TensorGroup:
    """Return a state dict."""
    return TensorGroup(key, role, tuple(tensor(name, shape, dtype) for name, shape in shapes.items()))


def archive(*groups: TensorGroup) -> Archive:
    """Return a checkpoint with these state dicts."""
    return Archive(Path("weights.pth"), "torch zip", 1000, groups)


def prefixed(prefix: str, shapes: Shapes = NET) -> dict[str, tuple[int, ...]]:
    """Put a prefix before every name."""
    return {prefix + name: shape for name, shape in shapes.items()}


def saved(model: nn.Module, prefix: str = "", key: str = "", role: str = "weights") -> TensorGroup:
    """Return the state dict of a model, as a file would list it; no value is kept."""
    entries = model.state_dict().items()
    return TensorGroup(
        key, role, tuple(tensor(prefix + name, tuple(value.shape), str(value.dtype).removeprefix("torch.")) for name, value in entries)
    )


def named(build: Callable[..., nn.Module], **args: object) -> NamedModel:
    """Name a class or a function as the user's own."""
    return NamedModel("nets.py:Net", "python", "nets.py", build.__name__, lambda: build(**args), args=args, target=build)
