"""The attention maps of a running model, however it attends, without changing its code or its output."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor, nn

from netlens.probing.attention_tracing import AttentionTracer, traced


@dataclass(frozen=True, slots=True)
class AttentionMap:
    """One call of attention."""

    name: str  # path of the module that attends; "#2" its second call
    weights: Tensor  # (N, heads, queries, keys), rows sum to 1; detached, on its device
    self_attention: bool  # queries and keys come from the same tokens, as far as their number tells
    allowed: Tensor  # (N, heads, queries): how many keys a query may attend to


@contextmanager
def attended(model: nn.Module, look: Callable[[AttentionMap], None]) -> Iterator[None]:
    """Call `look` with the weights of every attention call while the block runs.

    The model runs as it would without, bit for bit; only what `torch.compile` made runs uncompiled. Weights are computed beside it:
    softmax(Q K^T scale + mask) in float32 (of float64: float64), with the scale and the mask of the call and without dropout; a query
    that may attend to nothing has zeros.

    Seen are `F.scaled_dot_product_attention`, `nn.MultiheadAttention` and `nn.TransformerEncoder` with their native paths, and attention
    written out: a product of two activations, softmax over the last axis, a product with values. A softmax of anything else is no
    attention, nor is that of channels over channels (XCiT, DaViT). Not seen are kernels of other packages (flash-attn, xformers),
    `flex_attention`, other threads, and attention without softmax.

    Windows (Swin) stand in the batch dimension: (N windows, heads, L, L). Where scores come as (N heads, L, S), the module's own
    `num_heads` (or the like) takes them apart. Names begin anew with each call of the model from outside.

    Args:
        model: whose modules give the names.
        look: gets one map at a time, and the map is gone when `look` lets it go. A map of 4,096 tokens x 16 heads takes 1 GiB a sample;
            beside it, scores take 64 MiB at a time.
    """

    def found(name: str, weights: Tensor, allowed: Tensor) -> None:
        look(AttentionMap(name, weights.detach(), weights.shape[2] == weights.shape[3], allowed))

    with traced(AttentionTracer(model, found)):
        yield


def rollout(maps: Sequence[Tensor]) -> Tensor:
    """Attention rollout (Abnar & Zuidema 2020, section 3): the product over layers of (A + I) / 2, A the mean over heads.

    Row i says how much of each input token is in token i at the end, if values are only mixed. A query that attended to nothing keeps
    what it has.

    Args:
        maps: one a layer, first layer first, (N, heads, L, L); means over heads as (N, 1, L, L) will do.

    Returns:
        (N, L, L), rows sum to 1.
    """
    if not maps:
        raise ValueError("rollout needs at least one map")
    return reduce(roll, maps[1:], roll(None, maps[0]))


def roll(rolled: Tensor | None, layer: Tensor) -> Tensor:
    """Continue a rollout, (N, L, L), by one layer, (N, heads, L, L); None: this is the first one."""
    mean = layer.mean(dim=1)
    mixed = mean + torch.eye(mean.shape[-1], dtype=mean.dtype, device=mean.device)
    mixed = mixed / mixed.sum(dim=-1, keepdim=True)
    return mixed if rolled is None else mixed @ rolled
