"""The gradient of a score with respect to the attention maps of each layer of a transformer, as if it were the last layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, Node
from torch.nn.attention import SDPBackend, sdpa_kernel

from netlens.errors import NetlensError
from netlens.probing.attention_layers import HINT, Layers, attention_layers
from netlens.probing.differentiable import Call, differentiable, first_tensor
from netlens.probing.leaves import map_tensors
from netlens.probing.paths import every_call
from netlens.probing.replacing import exchanged

Score = Callable[[Any], Tensor]  # a model's output -> (N,)
Look = Callable[[list[Tensor]], None]


def attention_gradients(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], score: Score, look: Look) -> Layers:
    """Call `look` with the gradients of each layer's score with respect to its attention maps, first layer first.

    The score of layer l is that of the whole network with the layers after l handing on what they were given. There is one pass for each
    layer, in which this layer alone is computed: those before it hand on what it gets. The last pass puts out what the model puts out.
    Attention runs written out, softmax(Q K^T scale + mask) V, with `F.scaled_dot_product_attention` and `nn.MultiheadAttention` as with
    code that writes it out itself; the maps are the results of its softmax.

    Args:
        model: in eval mode.
        args: its arguments; the first floating tensor with three or more dimensions holds the samples.
        kwargs: its keyword arguments.
        score: (N,) from the model's output.
        look: gets one gradient a call of attention, (N, heads, queries, keys); `heads` may come together with other dimensions.

    Raises:
        NetlensError: attention is not over places, or cannot be differentiated.
    """
    with differentiable(model, args, kwargs) as call:
        layers = attention_layers(model, call)
        given = first_tensor(call, least_dims=3)
        relay = _Relay(layers)
        for running in range(len(layers.blocks)):
            with every_call(relay.call), sdpa_kernel(SDPBackend.MATH):
                output = relay.run(model, call, running)
            scores = score(output)
            maps = list(_attention_maps(scores.grad_fn, layers.tokens))
            if given is None or not maps:
                raise NetlensError(f"the attention of {type(model).__name__} runs in a kernel that has no attention maps", hint=HINT)
            gradients = torch.autograd.grad(scores.sum(), [GradientEdge(node, 0) for node in maps])
            look([gradient.reshape(len(given), -1, *gradient.shape[-2:]) for gradient in gradients])
    return layers


class _Relay:
    """Runs a model with all blocks but one handing on tokens; the one gets what it would get in the whole model."""

    def __init__(self, layers: Layers) -> None:
        self._layers = layers
        self._blocks = frozenset(map(id, layers.blocks))
        self._running = 0
        self._index = 0  # of the next block
        self._inside = False
        self._tokens: Tensor | None = None  # as the last block left them that ran
        self._form: Any = None  # what it returned

    def run(self, model: nn.Module, call: Call, running: int) -> Any:
        """Return the model's output with the block of this number as the last one."""
        self._running, self._index = running, 0
        args, kwargs = call
        return model(*args, **kwargs)

    def call(self, original: Any, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run one module's call, or leave it out."""
        if id(module) not in self._blocks or self._inside:
            return original(module, *args, **kwargs)
        index, self._index = self._index, self._index + 1
        if index == self._running:
            self._inside = True
            try:
                return self._block(original, module, args, kwargs)
            finally:
                self._inside = False
        tokens = self._tokens if index == self._running - 1 else first_tensor((args, kwargs))
        result = exchanged(self._form, first_tensor(self._form), tokens)
        if first_tensor(result) is not tokens:
            raise NetlensError(f"the blocks of this model return {type(result).__name__}, which cannot be handed on", hint=HINT)
        return result

    def _block(self, original: Any, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        pooled = self._layers.pooled  # then the graph begins behind the block, else before it
        if not pooled:
            args, kwargs = _with_leaf((args, kwargs))
        with torch.set_grad_enabled(not pooled):
            result = original(module, *args, **kwargs)
        self._form = map_tensors(result, Tensor.detach)
        self._tokens = first_tensor(self._form)
        return _with_leaf(result) if pooled else result


def _with_leaf(value: Any) -> Any:
    """Let a graph begin at the first tensor; a clone of the leaf is handed on, for it may be written into."""
    tensor = first_tensor(value)
    return value if tensor is None else exchanged(value, tensor, tensor.detach().requires_grad_().clone())


def _attention_maps(root: Node | None, tokens: int) -> Iterator[Node]:
    """Yield the softmax operators of a graph that give weights to so many tokens."""
    seen: set[Node] = set()
    nodes = [root]
    while nodes:
        node: Any = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        nodes += [parent for parent, _ in node.next_functions]
        if node.name() in ("SoftmaxBackward0", "SafeSoftmaxBackward0"):
            weights = node._saved_result
            last = node._saved_dim in (weights.dim() - 1, 2**64 - 1)  # -1 arrives without a sign
            if last and weights.dim() > 2 and weights.shape[-1] == tokens:
                yield node
