"""The weights that a checkpoint stores, under the names of layers; those that are stored in parts are put together when they are read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from netlens.loading.checkpoints.archive import StoredTensor
    from netlens.loading.checkpoints.storages import Storages

OVERLAP = 4  # times the bytes of its storage that a tensor may have: more is a trick
PARTS = (  # name of the weight, and what part of it this is
    (re.compile(r"(.*?\.?)parametrizations\.(\w+)\.original0$"), "g"),
    (re.compile(r"(.*?\.?)parametrizations\.(\w+)\.original1$"), "v"),
    (re.compile(r"(.*?\.?)parametrizations\.(\w+)\.original$"), "orig"),
    (re.compile(r"(.*?\.?)parametrizations\.(\w+)\.0\._(u|v)$"), ""),
    (re.compile(r"(.*?\.?)(weight\w*?)_(g|v|orig|mask|u)$"), ""),
)


@dataclass(slots=True)
class Stored:
    """One parameter of a layer: whole, or in parts."""

    name: str  # in the model: "conv1.weight"
    parts: dict[str, StoredTensor] = field(default_factory=dict)

    @property
    def main(self) -> StoredTensor | None:
        """The part that has the shape of the weight; None where this is not a weight that can be put together."""
        for needed, main in (({""}, ""), ({"g", "v"}, "v"), ({"orig", "mask"}, "orig"), ({"orig", "u", "v"}, "orig")):
            if needed <= self.parts.keys():
                return self.parts[main]
        return None

    def read(self, storages: Storages) -> Tensor:
        """Return the weight, in memory of its own."""
        parts = {role: storages.tensor(part) for role, part in self.parts.items()}
        value = parts[""].clone() if "" in parts else _put_together({role: part.float() for role, part in parts.items()})
        storages.forget()
        return value


def _put_together(parts: Mapping[str, Tensor]) -> Tensor:
    """Compute what torch.nn.utils.weight_norm (g v / ||v||), spectral_norm (W / u^T W v) and prune (W mask) compute."""
    if "g" in parts:
        dimensions = [dimension for dimension, size in enumerate(parts["g"].shape) if size == 1]
        size: Tensor = torch.linalg.vector_norm(parts["v"], dim=dimensions, keepdim=True)
        return parts["v"] * (parts["g"] / size)
    if "mask" in parts:
        return parts["orig"] * parts["mask"]
    weight, left = parts["orig"], parts["u"]
    matrix = weight if len(left) == len(weight) else weight.transpose(0, 1)  # transposed convolutions are normalised along axis 1
    return weight / (left @ (matrix.flatten(1) @ parts["v"]))


def put_in_order(tensors: Mapping[str, StoredTensor]) -> dict[str, Stored]:
    """Return the parameters, in the order of the file; a name that only looks like a part's stays a name."""
    found: dict[str, Stored] = {}
    for name, tensor in tensors.items():
        whole, role = _part(name)
        found.setdefault(whole, Stored(whole)).parts[role] = tensor
    for whole, stored in list(found.items()):
        if stored.main is None:
            del found[whole]
            found |= {name: Stored(name, {"": tensor}) for name, tensor in tensors.items() if _part(name)[0] == whole}
    return found


def _part(name: str) -> tuple[str, str]:
    for pattern, role in PARTS:
        if match := pattern.fullmatch(name):
            return match[1] + match[2], role or match[3]
    return name, ""


def why_not(tensor: StoredTensor) -> str:
    """Return why a tensor cannot be looked at; "" where it can."""
    dtype = getattr(torch, tensor.dtype, None)
    if not tensor.readable or not isinstance(dtype, torch.dtype):
        return "quantised" if "quant" in tensor.why or "qint" in tensor.dtype else tensor.why or f"of type {tensor.dtype}"
    if tensor.location == "meta":
        return "without values, on the meta device"
    if dtype.is_complex or not dtype.is_floating_point:
        return "complex" if dtype.is_complex else "of integers"
    return "larger than its storage" if tensor.numel * dtype.itemsize > OVERLAP * max(tensor.storage_bytes, 1) else ""
