"""The weights of a model."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from netlens.lenses.kernels.effective import Effective, effective_weights
from netlens.lenses.kernels.following import Containers, Place, followed
from netlens.lenses.kernels.report import NormStatistics
from netlens.lenses.kernels.tensors import Weights, WeightTensor, left_out, norm_statistics

WEIGHT = re.compile(r"(weight|kernel)(_\w+)?|\w+_weight")  # what parameters are called in layers that are of no class of torch's
NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
STANDARDISED = "StdConv"  # timm's convolutions that normalise their own weight at each call
PLAIN = {"NonDynamicallyQuantizableLinear": "Linear"}  # how MultiheadAttention calls its output layer
HEADS = ("linear", "conv1d", "conv2d", "conv3d")


def weights_of_model(model: nn.Module, *, values: bool = True) -> Weights:
    """Return the weights of every convolution, linear layer and embedding of `model`, tied ones once.

    Args:
        model: in any mode, on any device; left as it came.
        values: leave out what is on the meta device, since it cannot be read.
    """
    from netlens.loading.checkpoints.prefixes import bare

    modules = {bare(path): module for path, module in model.named_modules() if "parametrizations" not in path.split(".")}
    lister = _Lister(values)
    for path, module in modules.items():
        lister.add(path, module)
    norms = [_statistics(path, module) for path, module in modules.items()] if values else []
    return Weights(lister.result(_containers(modules)), tuple(norm for norm in norms if norm), left_out(lister.omitted))


@dataclass(frozen=True, slots=True)
class _Use:
    """What a parameter of a module is for."""

    kind: str
    groups: int = 1
    transposed: bool = False


class _Lister:
    """Collects weights, and the places of weights and normalisations."""

    def __init__(self, values: bool) -> None:
        self.values = values
        self.tensors: list[WeightTensor] = []
        self.places: list[Place] = []
        self.owners: dict[object, str] = {}
        self.head = ""
        self.omitted: dict[str, list[str]] = {}

    def add(self, path: str, module: nn.Module) -> None:
        """Look at the parameters of one module, not at its children's."""
        if is_norm(module):
            self.places.append(Place(path, norm=True, features=_features(module)))
            return
        if callable(getattr(type(module), "weight", None)):
            self._omit("quantised", path)
        for weight in effective_weights(module):
            use = _use(module, weight)
            if use is not None:
                self._weight(f"{path}.{weight.name}".lstrip("."), module, weight, use)

    def _weight(self, key: str, module: nn.Module, weight: Effective, use: _Use) -> None:
        name = key.removesuffix(".weight")
        if why := self._why_not(weight.like):
            self._omit(why, name)
            return
        first = self.owners.setdefault(weight.owner, name)
        self.head = first if use.kind in HEADS else self.head
        if first != name:
            return
        tensor = WeightTensor(
            name=name,
            key=key,
            type=_type_name(module),
            kind=use.kind,
            shape=tuple(weight.like.shape),
            dtype=str(weight.like.dtype).removeprefix("torch."),
            groups=use.groups,
            transposed=use.transposed,
            trainable=weight.trainable,
            normalised=True if STANDARDISED in type(module).__name__ else None,
            head=False,
            read=weight.read,
        )
        self.tensors.append(tensor)
        self.places.append(Place(name, outputs=tensor.shape[1] if use.kind == "embedding" else tensor.layout[0]))

    def _why_not(self, tensor: Tensor) -> str:
        if is_lazy(tensor):
            return "lazy, without a shape yet"
        if self.values and tensor.is_meta:
            return "without values, on the meta device"
        return why_not_plain(tensor)

    def _omit(self, why: str, name: str) -> None:
        self.omitted.setdefault(why, []).append(name)

    def result(self, containers: Containers) -> tuple[WeightTensor, ...]:
        """Return the weights, with what depends on their neighbours."""
        after = {place.path: found for place, found in zip(self.places, followed(self.places, containers), strict=True)}
        return tuple(replace(t, normalised=t.normalised or known(t, after[t.name]), head=t.name == self.head) for t in self.tensors)


def known(tensor: WeightTensor, normalised: bool | None) -> bool | None:
    """Return what is known: embeddings are added up before they are normalised, so no normalisation next to one says nothing."""
    return None if tensor.kind == "embedding" and not normalised else normalised


def why_not_plain(tensor: Tensor) -> str:
    """Return why a tensor is no plain array of numbers; "" where it is one."""
    if type(tensor).__torch_dispatch__ is not Tensor.__torch_dispatch__:
        return f"of class {type(tensor).__name__}"
    if tensor.is_complex():
        return "complex"
    if tensor.is_quantized or not tensor.is_floating_point():
        return "quantised"
    return "" if tensor.layout == torch.strided else "sparse"


def _use(module: nn.Module, weight: Effective) -> _Use | None:
    """Return what a parameter is for; None for one that is no weight of a layer."""
    dimensions = 2 if is_lazy(weight.like) else weight.like.dim()
    if isinstance(module, nn.modules.conv._ConvNd):
        size = len(module.kernel_size)
        return _Use(f"conv{size}d", module.groups, module.transposed) if weight.name == "weight" else None
    if isinstance(module, (nn.Linear, nn.Embedding, nn.EmbeddingBag)):
        return _Use("linear" if isinstance(module, nn.Linear) else "embedding") if weight.name == "weight" else None
    if type(module).__name__ == "Conv1D" and hasattr(module, "nf"):  # transformers' linear layer, stored (inputs, outputs)
        return _Use("linear", transposed=True) if weight.name == "weight" else None
    if WEIGHT.fullmatch(weight.name) is None or not 2 <= dimensions <= 5:
        return None
    if dimensions == 2:
        return _Use("linear")
    if "conv" not in _type_name(module).lower():
        return None
    groups = getattr(module, "groups", 1)
    return _Use(f"conv{dimensions - 2}d", groups if isinstance(groups, int) else 1, getattr(module, "transposed", False) is True)


def is_norm(module: nn.Module) -> bool:
    """Tell whether a module normalises: by its class, or by the name of its class where it is a layer; responses are only scaled."""
    name = _type_name(module)
    by_name = "Norm" in name and "ResponseNorm" not in name and not any(True for _ in module.children())
    return isinstance(module, NORMS) or by_name or any(name == "running_var" for name, _ in module.named_buffers(recurse=False))


def _features(module: nn.Module) -> frozenset[int] | None:
    for name in ("num_features", "num_channels", "normalized_shape"):
        sizes = getattr(module, name, None)
        if sizes is not None:
            return frozenset([sizes] if isinstance(sizes, int) else sizes)
    sizes = [tensor.numel() for tensor in module.parameters(recurse=False) if not is_lazy(tensor) and tensor.dim() == 1]
    return frozenset(sizes) or None


def _statistics(path: str, module: nn.Module) -> NormStatistics | None:
    own = {**dict(module.named_parameters(recurse=False)), **dict(module.named_buffers(recurse=False))}
    mean, variance = own.get("running_mean"), own.get("running_var")
    if mean is None or variance is None or any(is_lazy(tensor) or tensor.is_meta for tensor in (mean, variance)):
        return None
    return norm_statistics(path, _type_name(module), mean, variance, own.get("weight"), own.get("bias"))


def _type_name(module: nn.Module) -> str:
    cls = nn.utils.parametrize.type_before_parametrizations(module)
    name = str(module.original_name) if isinstance(module, torch.jit.ScriptModule) else cls.__name__
    return PLAIN.get(name, name)


def _containers(modules: dict[str, nn.Module]) -> Containers:
    return Containers(
        ordered=lambda path: isinstance(modules.get(path), nn.Sequential),
        listing=lambda path: isinstance(modules.get(path), (nn.ModuleList, nn.ModuleDict)),
    )
