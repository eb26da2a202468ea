"""The weights of a checkpoint, by names and shapes alone; what those do not tell is left open, or told by a model of the same names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from torch import nn

from netlens.lenses.kernels.following import Containers, Place, followed, parent_of
from netlens.lenses.kernels.in_model import HEADS, WEIGHT, known, weights_of_model
from netlens.lenses.kernels.report import NormStatistics
from netlens.lenses.kernels.stored import Stored, put_in_order, why_not
from netlens.lenses.kernels.tensors import Weights, WeightTensor, left_out, norm_statistics

if TYPE_CHECKING:
    from netlens.loading.checkpoints.archive import StoredTensor, TensorGroup
    from netlens.loading.checkpoints.storages import Storages

PREFIXES = ("module", "model")  # that all names begin with because of who saved them, and not of the model
DEEPEST = 4  # prefixes
EMBEDDING = re.compile(r"embed|wte|wpe|token", re.IGNORECASE)
NORM = re.compile(r"norm|bn|ln", re.IGNORECASE)
NO_WEIGHT = re.compile(  # parameters and buffers of several dimensions that no layer multiplies its input with
    r".*(bias|pos_?emb|position|cls|class_token|class_emb|mask|rel_|relative|table|coords|index|anchor|freq|rope|gamma|beta|scale|running_|query|token).*"
)


def weights_of_group(group: TensorGroup, storages: Storages, skeleton: nn.Module | None = None) -> Weights:
    """Return the weights of a checkpoint, by the shapes of its tensors alone.

    Args:
        group: the state dict to look at.
        storages: of the archive, open.
        skeleton: a model (on the meta device) with the same names, where one is known: it tells types, groups and which are transposed.
    """
    models = {} if skeleton is None else {tensor.key: tensor for tensor in weights_of_model(skeleton, values=False).tensors}
    types = {} if skeleton is None else {path: type(module).__name__ for path, module in skeleton.named_modules()}
    lister = _Lister(put_in_order(_named(group.tensors, models)), storages, models)
    for stored in lister.parameters.values():
        lister.add(stored)
    return Weights(lister.result(), tuple(_norms(lister.parameters, storages, types)), left_out(lister.omitted))


def _named(tensors: tuple[StoredTensor, ...], models: Mapping[str, WeightTensor]) -> dict[str, StoredTensor]:
    """Return the tensors by the model's names: without wrappers' parts, and without what all names begin with and the model's do not."""
    from netlens.loading.checkpoints.prefixes import bare

    named = {bare(tensor.name): tensor for tensor in tensors}
    ways = [named]
    while (
        len(ways) <= DEEPEST and len(first := {name.partition(".")[0] for name in ways[-1]}) == 1 and all("." in name for name in ways[-1])
    ):
        if not models and not first <= set(PREFIXES):
            break
        ways.append({name.partition(".")[2]: tensor for name, tensor in ways[-1].items()})
    return max(ways, key=lambda way: len(way.keys() & models.keys())) if models else ways[-1]


class _Lister:
    """Collects weights, and the places of weights and normalisations."""

    def __init__(self, parameters: Mapping[str, Stored], storages: Storages, models: Mapping[str, WeightTensor]) -> None:
        self.parameters, self.storages, self.models = parameters, storages, models
        self.tensors: list[WeightTensor] = []
        self.places: list[Place] = []
        self.owners: dict[object, str] = {}
        self.head = ""
        self.omitted: dict[str, list[str]] = {}

    def add(self, stored: Stored) -> None:
        """Look at one parameter."""
        path, _, parameter = stored.name.rpartition(".")
        tensor = stored.main
        if tensor is None:
            return
        if parameter in ("running_mean", "weight") and self._is_norm(path):
            if not self.places or self.places[-1].path != path:
                self.places.append(Place(path, norm=True, features=frozenset(tensor.shape)))
        elif len(tensor.shape) >= 2 and not parameter.startswith("running_") and not parameter.endswith("bias"):
            self._add_weight(stored, tensor)

    def _is_norm(self, path: str) -> bool:
        """Tell it by running statistics, by a weight and a bias of one shape, or by a weight of one dimension and the name."""
        weight, bias = self._shape_of(path, "weight"), self._shape_of(path, "bias")
        named = NORM.search(path.rpartition(".")[2]) is not None and len(weight or ()) == 1
        return self._shape_of(path, "running_mean") is not None or (weight is not None and weight == bias) or named

    def _shape_of(self, path: str, parameter: str) -> tuple[int, ...] | None:
        stored = self.parameters.get(f"{path}.{parameter}" if path else parameter)
        return stored.main.shape if stored is not None and stored.main is not None else None

    def _add_weight(self, stored: Stored, tensor: StoredTensor) -> None:
        name = stored.name.removesuffix(".weight")
        why = next((why for part in stored.parts.values() if (why := why_not(part))), "")
        found = self._described(stored, tensor, name)
        if why or isinstance(found, str):
            self.omitted.setdefault(why or str(found), []).append(name)
            return
        memory = (tensor.storage, tensor.offset, tensor.shape, tensor.stride) if tensor.storage else name
        first = self.owners.setdefault(memory, name)
        self.head = first if found.kind in HEADS else self.head
        if first == name:
            self.tensors.append(found)
            self.places.append(Place(name, outputs=found.shape[1] if found.kind == "embedding" else found.layout[0]))

    def _described(self, stored: Stored, tensor: StoredTensor, name: str) -> WeightTensor | str:
        """Return the weight as the model or its shape tells it, or why it is none."""
        read = partial(stored.read, self.storages)
        trainable = tensor.trainable if tensor.kind == "parameter" else None  # a state dict holds detached tensors
        model = self.models.get(stored.name)
        if model is not None and len(model.shape) == len(tensor.shape) and tensor.shape[0] % model.groups == 0:
            return replace(model, key=tensor.name, shape=tensor.shape, dtype=tensor.dtype, trainable=trainable, read=read)
        kind = self._kind(stored.name, tensor.shape)
        if kind not in (*HEADS, "embedding"):
            return kind
        groups, transposed = self._layout(stored.name, kind, tensor.shape)
        return WeightTensor(name, tensor.name, "", kind, tensor.shape, tensor.dtype, groups, transposed, trainable, None, False, read)

    def _kind(self, name: str, shape: tuple[int, ...]) -> str:
        path, _, parameter = name.rpartition(".")
        weight = WEIGHT.fullmatch(parameter) is not None
        if not weight and NO_WEIGHT.fullmatch(parameter):
            return "no weights of layers by their names"
        if len(shape) == 2:
            return "embedding" if EMBEDDING.search(name) and self._shape_of(path, "bias") is None else "linear"
        return f"conv{len(shape) - 2}d" if weight and len(shape) <= 5 else "no kernels by their names or shapes"

    def _layout(self, name: str, kind: str, shape: tuple[int, ...]) -> tuple[int, bool]:
        """Return groups, as far as they show, and whether inputs come first: a bias has the length of the outputs."""
        path = name.rpartition(".")[0]
        outputs = (self._shape_of(path, "bias") or (0,))[0] if name.endswith(".weight") else 0
        before = next((place.outputs for place in reversed(self.places) if not place.norm), 0)
        if kind == "embedding" or (kind == "linear" and outputs != shape[1]):
            return 1, False
        if outputs and outputs != shape[0] and shape[1] and outputs % shape[1] == 0:
            return outputs // shape[1], True
        return (shape[0] if kind != "linear" and shape[1] == 1 and before == shape[0] else 1), False

    def result(self) -> tuple[WeightTensor, ...]:
        """Return the weights, with what neighbours tell, and layers of the same name whose shape shows which axis is which."""
        after = {place.path: found for place, found in zip(self.places, followed(self.places, self._containers()), strict=True)}
        told = {model.name for model in self.models.values()}
        turned = {_last(tensor.name) for tensor in self.tensors if tensor.kind == "linear" and tensor.transposed}
        found = []
        for tensor in self.tensors:
            square = tensor.kind == "linear" and tensor.shape[0] == tensor.shape[1] and _last(tensor.name) in turned
            normalised = tensor.normalised if tensor.name in told else known(tensor, after[tensor.name])
            head = tensor.name == self.head
            found.append(replace(tensor, transposed=tensor.transposed or square, normalised=normalised, head=head))
        return tuple(found)

    def _containers(self) -> Containers:
        """Whoever's children are all numbered is a list of them, and perhaps an ordered one."""
        children: dict[str, set[str]] = {}
        for name in self.parameters:
            path = parent_of(name)
            while path:
                parent, _, child = path.rpartition(".")
                children.setdefault(parent, set()).add(child)
                path = parent
        numbered = {path for path, found in children.items() if all(map(str.isdigit, found))}
        return Containers(ordered=lambda _path: False, listing=numbered.__contains__)


def _norms(parameters: Mapping[str, Stored], storages: Storages, types: Mapping[str, str]) -> Iterator[NormStatistics]:
    """Read the running statistics of every normalisation."""
    for name in parameters:
        path, _, parameter = name.rpartition(".")
        if parameter != "running_mean":
            continue
        mine = {part: parameters.get(f"{path}.{part}".lstrip(".")) for part in ("running_mean", "running_var", "weight", "bias")}
        read = {part: stored.read(storages) for part, stored in mine.items() if stored is not None and _readable(stored)}
        if "running_mean" in read and "running_var" in read:
            yield norm_statistics(
                path, types.get(path, ""), read["running_mean"], read["running_var"], read.get("weight"), read.get("bias")
            )


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _readable(stored: Stored) -> bool:
    return not any(map(why_not, stored.parts.values()))
