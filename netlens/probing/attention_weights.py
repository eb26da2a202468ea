"""Attention weights, computed again from what an attention was called with; in float32, of float64 in float64."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK = 1 << 24  # scores that are computed at once, beside the weights themselves: 64 MiB
BARRED = 5000.0  # masks in use are -inf, the least number of a type, -1e9 and -1e4; -100 (Swin) cannot be told from a low score

Weights = tuple[Tensor, Tensor]  # (..., L, S), and how many keys each query may attend to: (..., L)


def softmax_rows(scores: Tensor) -> Weights:
    """Return softmax over the last axis; of a query that may attend to nothing, zeros."""
    return _in_chunks(lambda rows: scores[..., rows, :].to(_exact(scores)), scores.shape, scores)


def dot_product_weights(query: Tensor, key: Tensor, mask: Tensor | None, is_causal: bool, scale: float | None) -> Weights:
    """Return softmax(Q K^T scale + mask), as `F.scaled_dot_product_attention` defines it.

    Args:
        query: (..., heads, L, E).
        key: (..., heads, S, E); with fewer heads, groups of query heads share one.
        mask: as far as (..., heads, L, S); bool, True may be attended to, or added.
        is_causal: query i sees keys 0 to i.
        scale: None means 1 / sqrt(E).
    """
    dtype = _exact(query)
    if query.dim() > 2 and key.dim() > 2 and key.shape[-3] not in (1, query.shape[-3]):
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], dim=-3)
    batch = torch.broadcast_shapes(query.shape[:-2], key.shape[:-2], () if mask is None else mask.shape[:-2])
    shape = torch.Size((*batch, query.shape[-2], key.shape[-2]))
    transposed = key.to(dtype).transpose(-2, -1)
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    mask = None if mask is None else mask.expand(shape)
    numbers = torch.arange(max(shape[-2:]), device=query.device)

    def scores(rows: slice) -> Tensor:
        part = (query[..., rows, :].to(dtype) * scale @ transposed).expand(*batch, -1, -1)
        if mask is not None:
            part = part.masked_fill(~mask[..., rows, :], -math.inf) if mask.dtype == torch.bool else part + mask[..., rows, :]
        return part.masked_fill(numbers[: shape[-1]] > numbers[: shape[-2]][rows, None], -math.inf) if is_causal else part

    return _in_chunks(scores, shape, query)


def packed_weights(source: Tensor, weight: Tensor, bias: Tensor, heads: int, mask: Tensor | None, mask_type: int | None) -> Weights:
    """Return the weights of self-attention by `nn.MultiheadAttention`'s native path.

    Args:
        source: (N, L, E); nested: each sample with a length of its own, then padded here.
        weight: of query, key and value, (3 E, E).
        bias: (3 E).
        heads: that E is split into.
        mask: what is not zero is not attended to.
        mask_type: of the mask: 0 (L, L), 1 keys (N, L), 2 (N, heads, L, L).
    """
    lengths = None
    if source.is_nested:
        lengths = torch.tensor([len(sample) for sample in source.unbind()], device=source.device)
        source = torch.nested.to_padded_tensor(source, 0.0)
    dtype, width = _exact(source), source.shape[-1]
    projected = F.linear(source.to(dtype), weight[: 2 * width].to(dtype), bias[: 2 * width].to(dtype))
    query, key = projected.unflatten(-1, (2, heads, -1)).permute(2, 0, 3, 1, 4)
    allowed = None
    if mask is not None:
        allowed = ~mask.bool()
        allowed = allowed[:, None, None] if mask_type == 1 else allowed
    if lengths is not None:
        inside = torch.arange(source.shape[1], device=source.device) < lengths[:, None]
        allowed = inside[:, None, :, None] & inside[:, None, None, :]
    return dot_product_weights(query, key, allowed, False, None)


def _exact(tensor: Tensor) -> torch.dtype:
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def _in_chunks(scores: Callable[[slice], Tensor], shape: torch.Size, like: Tensor) -> Weights:
    weights = torch.zeros(shape, dtype=_exact(like), device=like.device)
    allowed = torch.zeros(shape[:-1], dtype=torch.int64, device=like.device)
    step = max(1, CHUNK * shape[-2] // max(weights.numel(), 1))
    for first in range(0, shape[-2] if weights.numel() else 0, step):
        rows = slice(first, first + step)
        part = scores(rows)
        greatest = part.amax(dim=-1, keepdim=True)
        nothing = greatest == -math.inf
        weights[..., rows, :] = part.softmax(dim=-1).masked_fill_(nothing, 0)
        # Scores of an exploded model lie as far below zero as others above it; what is barred lies beyond all of them.
        least = -(BARRED + 4 * greatest.abs().maximum(greatest.clamp(min=0).amax()))
        allowed[..., rows] = ((part >= least) & ~nothing).sum(dim=-1)
    return weights, allowed
