"""Following the scores of attention through the operators of a model: product of queries and keys, softmax, product with the values."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from netlens.probing.attention_weights import Weights, dot_product_weights, packed_weights, softmax_rows
from netlens.probing.dispatching import as_without, bound, storage_key, storage_of, tensors
from netlens.probing.leaves import leaves
from netlens.probing.paths import Paths, Place, every_call

# Operators arrive taken apart, and whole in inference mode: `matmul` is `bmm` then, `softmax` is `_softmax`.
PRODUCTS = frozenset({"bmm", "baddbmm", "matmul", "einsum"})
SOFTMAXES = frozenset({"_softmax", "softmax", "_safe_softmax", "special_softmax"})
LAYERS = frozenset({"mm", "addmm", "linear"})
COPIES = frozenset({"_to_copy", "to", "clone", "contiguous"})  # of a parameter, a parameter still: autocast makes them
RESHAPING = frozenset({"cat", "slice", "expand"})  # change the number of scores, and scores they stay: attention sinks, shared heads
HEADS = ("num_heads", "num_attention_heads", "n_heads", "n_head", "nhead", "heads")

Look = Callable[[str, Tensor, Tensor], None]  # name, (N, heads, L, S), (N, heads, L)


@dataclass(slots=True)
class Attender(Place):
    """A module, and the shapes that it was last called with."""

    inputs: list[tuple[int, ...]] = field(default_factory=list)


@dataclass(slots=True)
class _Trace:
    """What is known of a tensor that holds scores, or weights."""

    path: str  # of the module that multiplied
    sides: tuple[int, ...]  # of the scores
    inner: int  # length of a query
    weights: Weights | None = None  # after softmax, until they are multiplied with values


class AttentionTracer(TorchDispatchMode):
    """Sees every operator below Python: code, whether compiled by TorchScript or not, runs as it is and takes the path that it takes."""

    supports_higher_order_operators = True

    def __init__(self, model: nn.Module, look: Look) -> None:
        super().__init__()
        self._paths = Paths(model, Attender)
        self._current: Attender | None = None
        self._look = look
        self._calls: dict[str, int] = {}  # name -> attentions in this pass
        self._parameters = {storage_key(tensor) for tensor in (*model.parameters(), *model.buffers())} - {0}
        # By storage: views share it, and autograd gives out other tensors than it got. With what takes them out when it is freed.
        self._traces: dict[int, tuple[_Trace, Any]] = {}
        self._copies: dict[int, Any] = {}  # of parameters

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else the first dispatch imports torch._dynamo

    def call(self, original: Any, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run one module's call."""
        caller = self._current
        if caller is None:
            self._calls.clear()
        place = self._paths.of(module, caller)
        place.inputs = [tuple(tensor.shape) for _, tensor in leaves((args, kwargs)) if not tensor.is_nested]
        self._current = place
        try:
            return original(module, *args, **kwargs)
        finally:
            self._current = caller

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = as_without(func, args, kwargs)
        schema = getattr(func, "_schema", None)
        if schema is None:  # a higher-order operator
            return result
        name = schema.name.partition("::")[2]
        if name.lstrip("_").startswith("scaled_dot_product"):
            self._fused(bound(schema, args, kwargs))
        elif name in ("_native_multi_head_attention", "_transformer_encoder_layer_fwd"):
            self._native(bound(schema, args, kwargs))
        elif not (name in PRODUCTS and self._product(name, args, result)) and not (name in SOFTMAXES and self._softmax(args, result)):
            self._carry(name, args, result)
        return result

    # -- operators that attend by themselves ---------------------------------------------------------------------------------------

    def _fused(self, given: dict[str, Any]) -> None:
        mask = given.get("attn_mask", given.get("attn_bias"))
        weights = dot_product_weights(given["query"], given["key"], mask, bool(given.get("is_causal")), given.get("scale"))
        self._found(self._place.path, weights, given["query"].shape[-1])

    def _native(self, given: dict[str, Any]) -> None:
        source, heads = (given["src"], given["num_heads"]) if "src" in given else (given["query"], given["num_head"])
        if given.get("norm_first"):
            source = F.layer_norm(source, source.shape[-1:], given["norm_weight_1"], given["norm_bias_1"], given["eps"])
        weights = packed_weights(source, given["qkv_weight"], given["qkv_bias"], heads, given.get("mask"), given.get("mask_type"))
        inside = isinstance(self._place.module, nn.TransformerEncoderLayer)  # whose attention is not called by itself
        self._found(".".join(filter(None, (self._place.path, "self_attn" if inside else ""))), weights, 0)

    # -- products and softmax ------------------------------------------------------------------------------------------------------

    def _product(self, name: str, args: Sequence[Any], result: Tensor) -> bool:
        """Note scores, or give out weights; False: one factor is a parameter, so it is a layer."""
        factors = args[1] if name == "einsum" else args[1:3] if name == "baddbmm" else args[:2]
        if any(self._is_parameter(factor) for factor in factors):
            return False
        for trace in map(self._trace, factors):
            if trace is not None and trace.weights is not None:
                weights, trace.weights = trace.weights, None
                self._found(_common(trace.path, self._place.path), weights, trace.inner)
                return True
        self._note(result, _Trace(self._place.path, tuple(result.shape), factors[0].shape[-1]))
        return True

    def _softmax(self, args: Sequence[Any], result: Tensor) -> bool:
        scores, dim = args[0], args[1]
        trace = self._trace(scores)
        if trace is None or scores.dim() < 3 or dim % scores.dim() != scores.dim() - 1 or scores.shape[-1] not in trace.sides:
            return False
        self._note(result, _Trace(_common(trace.path, self._place.path), trace.sides, trace.inner, softmax_rows(scores)))
        return True

    def _carry(self, name: str, args: Sequence[Any], result: Any) -> None:
        """Let scores stay scores, and weights weights, through masks, biases, dropout, changes of shape and layers over heads."""
        if not isinstance(result, Tensor) or (not self._traces and name not in COPIES):
            return
        given = list(tensors(args))
        if name in COPIES and self._is_parameter(given[0]):
            _keep(self._copies, result)
            return
        for tensor in given:
            trace = self._trace(tensor)
            if trace is None or not (tensor.numel() == result.numel() or name in RESHAPING):
                continue
            if name in LAYERS and given[-1].shape[-1] % trace.sides[-1] == 0:
                continue  # over all that the heads put out, not over heads: scores end here
            if name == "cat":
                trace.sides += (result.shape[-1],)
            self._note(result, trace)
            return

    # -- notes ---------------------------------------------------------------------------------------------------------------------

    @property
    def _place(self) -> Attender:
        return self._current or self._paths.found[""]

    def _is_parameter(self, tensor: Tensor) -> bool:
        key = storage_key(tensor)
        return key in self._parameters or key in self._copies

    def _trace(self, tensor: Tensor) -> _Trace | None:
        found = self._traces.get(storage_key(tensor))
        return None if found is None else found[0]

    def _note(self, tensor: Tensor, trace: _Trace) -> None:
        _keep(self._traces, tensor, trace)

    def _found(self, path: str, weights: Weights, inner: int) -> None:
        """Give out weights as (N, heads, L, S), unless it is channels that attend to each other."""
        place = self._paths.found.get(path, self._place)
        rows, allowed = (_by_heads(part, tail, place) for part, tail in zip(weights, (2, 1), strict=True))
        _, heads, queries, keys = rows.shape
        if queries == keys != inner and (heads * queries, inner) in map(_width_and_length, place.inputs):
            return
        self._calls[path] = number = self._calls.get(path, 0) + 1
        name = f"{path}#{number}" if number > 1 else path
        self._look(name, rows, allowed)


def _keep(notes: dict[int, Any], tensor: Tensor, note: _Trace | None = None) -> None:
    """Keep a note on a tensor for as long as its storage lives."""
    storage = storage_of(tensor)
    if storage is not None:
        key = storage._cdata
        notes[key] = (note, weakref.ref(storage, lambda _: notes.pop(key, None)))


@contextmanager
def traced(tracer: AttentionTracer) -> Iterator[None]:
    """Let `tracer` see every module call and operator of this thread while the block runs; compiled code runs uncompiled."""
    with ExitStack() as stack:
        if "torch._dynamo" in sys.modules and hasattr(torch.compiler, "set_stance"):  # loading the compiler takes longer than a model
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        stack.enter_context(tracer)
        stack.enter_context(every_call(tracer.call))
        yield


def _by_heads(tensor: Tensor, tail: int, place: Attender) -> Tensor:
    """Bring the dimensions before the last `tail` into the form (N, heads); heads may stand anywhere, or together with samples."""
    lead: tuple[int, ...] = tensor.shape[: tensor.dim() - tail]
    named = (getattr(place.module, name, None) for name in HEADS)
    heads = next((number for number in named if isinstance(number, int) and number > 0), 0)
    first = {shape[0] for shape in place.inputs if shape}
    if len(lead) == 2 and lead[0] == 1 and 1 not in first:  # fused kernels put a 1 before (N, L, E)
        tensor, lead = tensor[0], lead[1:]
    if len(lead) < 2:
        total = prod(lead)
        if not heads or total % heads:
            samples = first.pop() if len(first) == 1 else 1
            heads = total if total % max(1, samples) else total // max(1, samples)
        return tensor.reshape(-1, heads, *tensor.shape[len(lead) :])
    if heads and lead[-1] != heads:  # windows or blocks stand behind heads
        if heads in lead[1:-1]:
            tensor = tensor.movedim(lead.index(heads, 1), len(lead) - 1)
        elif lead[0] % heads == 0:
            tensor = tensor.unflatten(0, (-1, heads)).movedim(1, len(lead))
    return tensor.flatten(0, -2 - tail)


def _width_and_length(shape: tuple[int, ...]) -> tuple[int, int]:
    """(N, L, C) -> C and L; (N, C, H, W) -> C and H W."""
    return (shape[2], shape[1]) if len(shape) == 3 else (shape[1], shape[2] * shape[3]) if len(shape) == 4 else (0, 0)


def _common(one: str, other: str) -> str:
    """Return the path of the innermost module that both are in."""
    parts = []
    for a, b in zip(one.split("."), other.split("."), strict=False):
        if a != b:
            break
        parts.append(a)
    return ".".join(parts)
