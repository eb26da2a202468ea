"""Measuring the weights of a model or a checkpoint, one after the other, so that no more than one is in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from math import prod, sqrt

import torch
from torch import Tensor, nn

from netlens.lenses.kernels.elements import elements
from netlens.lenses.kernels.layers import Weights, WeightTensor, weights_of_model
from netlens.lenses.kernels.report import KernelsReport, LayerWeights
from netlens.lenses.kernels.statistics import measured

CONSTRUCTOR, DEFAULT = "constructor", "torch's default"


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let torch compute on one thread: steps are small, and on several they would wait for each other longer than they work.

    It also makes the last digits independent of the machine's cores.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def kernels(
    model: nn.Module, *, layer: str | Sequence[str] | None = None, against: nn.Module | Mapping[str, Tensor] | None = None
) -> KernelsReport:
    """Statistics of every weight of `model`, which leaves as it came; `netlens.lenses.kernels.rules.diagnose` says what is wrong.

    Args:
        model: any module, on any device.
        layer: only these: names, ends of names, globs, types ("Conv2d"), indices or ranges of them ("0:3").
        against: another state of the same model, or its state dict: how far every weight has moved from there.

    Raises:
        netlens.errors.LayerNotFound: a pattern of `layer` names nothing.
    """
    from netlens.loading.select import select

    weights = weights_of_model(model)
    patterns = [layer] if isinstance(layer, str) else list(layer or ())
    chosen = select(patterns, [t.name for t in weights.tensors], [t.type for t in weights.tensors]) if patterns else None
    others = {} if against is None else _others(weights, against)
    layers = measure(weights, chosen=chosen, others=others)
    return KernelsReport(
        model=type(model).__name__,
        source="the values of the model",
        initialised=None,
        against=None if against is None else "the other model" if isinstance(against, nn.Module) else "the state dict",
        layers=layers,
        norms=weights.norms,
        notes=(*weights.notes, *(() if against is None else not_compared(layers, others))),
    )


@_one_thread()
def measure(
    weights: Weights,
    *,
    chosen: Sequence[int] | None = None,
    initial: Mapping[str, float] | None = None,
    others: Mapping[str, Callable[[], Tensor]] | None = None,
    step: Callable[[], object] = lambda: None,
) -> tuple[LayerWeights, ...]:
    """Measure weights, in the order of the model.

    Args:
        weights: what there is.
        chosen: indices into it; None: all.
        initial: `initial_scales` of a fresh model; where a name is not in it, torch's default counts.
        others: the same weights of another checkpoint, by name; one of another shape is not compared.
        step: called after each weight.
    """
    found = []
    for index in range(len(weights.tensors)) if chosen is None else chosen:
        tensor = weights.tensors[index]
        std, source = _initial(tensor, initial or {})
        other = (others or {}).get(tensor.name)
        values = None if other is None else other()
        same = values is not None and tuple(values.shape) == tensor.shape
        found.append(measured(tensor, index, initial_std=std, initial_source=source, other=values if same else None))
        step()
    return tuple(found)


@_one_thread()
def initial_scales(model: nn.Module) -> dict[str, float]:
    """Return the standard deviation of every weight of a model that has just been built."""
    found = {}
    for tensor in weights_of_model(model).tensors:
        known = elements(tensor.filters())
        if known.moments is not None:
            found[tensor.name] = known.moments.std * known.scale
    return found


def default_std(tensor: WeightTensor) -> float | None:
    """Return the standard deviation that torch's own layer of that kind begins with; None where it is not known.

    Convolutions and linear layers: kaiming_uniform(a = sqrt 5), U(-b, b) with b = 1 / sqrt(fan_in), so 1 / sqrt(3 fan_in), where fan_in is
    what torch computes: shape[1] times the kernel, also of transposed ones. Embeddings: 1. Attention's input projection: xavier_uniform,
    sqrt(2 / (inputs + outputs)). Recurrent layers: U(-b, b) with b = 1 / sqrt(hidden size), which only `weight_hh` tells.
    """
    parameter = tensor.key.rpartition(".")[2]
    fan_in = prod(tensor.shape[1:])
    if tensor.kind == "embedding":
        return 1.0
    if parameter.startswith("weight_ih") or not fan_in or (tensor.kind == "linear" and tensor.transposed):
        return None
    if parameter in ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"):
        return sqrt(2 / sum(tensor.shape))
    return 1 / sqrt(3 * fan_in)


def _initial(tensor: WeightTensor, initial: Mapping[str, float]) -> tuple[float | None, str]:
    if tensor.name in initial:
        return initial[tensor.name], CONSTRUCTOR
    return default_std(tensor), DEFAULT


def _others(weights: Weights, against: nn.Module | Mapping[str, Tensor]) -> dict[str, Callable[[], Tensor]]:
    """Return what reads the other values, by the names of weights."""
    if isinstance(against, nn.Module):
        return {tensor.name: tensor.read for tensor in weights_of_model(against).tensors}
    from netlens.loading.checkpoints.prefixes import bare

    state = {bare(key).removeprefix("module."): value for key, value in against.items()}
    keys = {tensor.name: tensor.key.removeprefix("module.") for tensor in weights.tensors}
    return {name: partial(_on_cpu, state[key]) for name, key in keys.items() if isinstance(state.get(key), Tensor)}


def _on_cpu(values: Tensor) -> Tensor:
    return values.detach().cpu()


def not_compared(layers: Sequence[LayerWeights], others: Mapping[str, object]) -> tuple[str, ...]:
    """Return a sentence for each reason for which weights have no `change`."""
    from netlens.loading.words import listed

    reasons = {
        "the other has none of that name": [layer.name for layer in layers if layer.name not in others],
        "the other is of another shape": [layer.name for layer in layers if layer.name in others and layer.change is None],
    }
    return tuple(f"not compared, for {why}: {listed(names)}" for why, names in reasons.items() if names)
