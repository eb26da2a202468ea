"""Scaled dot product attention on the meta device, booked as the one operator that CPU and GPU kernels make of it.

Left alone, the meta device runs it as explicit matrix products, whose score matrix no fused kernel keeps (vit_b_16 at batch 2: 308.6 MB
saved for backward instead of 235.1). A kernel for `AutogradMeta` sees the call however it is written, and touches nothing but meta tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from netlens.probing.macs import attention_macs
from netlens.probing.pointwise import broadcast, dense_strides

NAME = "aten.scaled_dot_product_attention"


class _FusedAttention(torch.autograd.Function):
    """Keeps for backward what flash kernels keep: query, key, value, output and the log-sum-exp of each query's scores."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None, shape: tuple[int, ...]) -> Tensor:
        output = _in_order_of(query, (*shape, value.shape[-1]))
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            attn_mask = query.new_empty(attn_mask.shape)  # the kernels add it to the scores: 0 or -inf
        logsumexp = query.new_empty(shape, dtype=torch.float32)
        ctx.save_for_backward(query, key, value, output, logsumexp, *([] if attn_mask is None else [attn_mask]))
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:  # pragma: no cover - a summary never goes backward
        raise NotImplementedError("attention on the meta device has no backward")


def _output_shape(query: Tensor, key: Tensor, value: Tensor, enable_gqa: bool) -> tuple[int, ...]:
    """(..., L): the shape of the output without its last dimension. Raises RuntimeError as the real kernels do."""
    if query.shape[-1] != key.shape[-1] or key.shape[-2] != value.shape[-2]:
        raise RuntimeError(
            f"scaled_dot_product_attention: query {tuple(query.shape)}, key {tuple(key.shape)} and value {tuple(value.shape)} do not fit: "
            "query and key must agree in the last dimension, key and value in the last but one"
        )
    batches = [query.shape[:-2], key.shape[:-2], value.shape[:-2]]
    if enable_gqa:  # groups of query heads share a key head, so only the dimensions before the heads broadcast
        batches = [batches[0], *(shape[:-1] + query.shape[-3:-2] for shape in batches[1:])]
    return (*broadcast(*batches), query.shape[-2])


def _check(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None, is_causal: bool, enable_gqa: bool) -> None:
    """Raise as the real function does."""
    if enable_gqa and any(query.shape[-3] % shared.shape[-3] for shared in (key, value)):
        raise RuntimeError("number of heads in key and value must divide the number of heads in query")
    if not query.dtype == key.dtype == value.dtype:
        raise RuntimeError(f"expected query, key and value to have the same dtype, but got {query.dtype}, {key.dtype} and {value.dtype}")
    if attn_mask is not None and is_causal:
        raise RuntimeError("scaled_dot_product_attention: an explicit attn_mask should not be set when is_causal=True")
    if attn_mask is not None and attn_mask.dtype not in (torch.bool, query.dtype, torch.float32):
        raise RuntimeError(f"expected attn_mask dtype to be bool or float or to match query dtype, but got {attn_mask.dtype}")


def _in_order_of(query: Tensor, shape: tuple[int, ...]) -> Tensor:
    """An empty result whose dimensions lie in memory as the query's do: whether what follows is a view or a copy depends on it."""
    strides = [0] * (len(shape) - query.dim()) + list(query.stride())
    return torch.empty_strided(shape, dense_strides(shape, [strides]), dtype=query.dtype, device=query.device)


@contextmanager
def fused_attention(count: Callable[[str, int], None]) -> Iterator[None]:
    """Run every scaled dot product attention on meta tensors as one operator while the block runs.

    Args:
        count: called with the operator's name and its MACs, once a call.
    """

    counting = [count]  # emptied at the end: torch keeps `attend` longer, and with it all that it refers to

    def attend(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        *,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        shape = _output_shape(query, key, value, enable_gqa)
        _check(query, key, value, attn_mask, is_causal, enable_gqa)
        if attn_mask is not None:
            broadcast(attn_mask.shape, (*shape, key.shape[-2]))
        counting[0](NAME, attention_macs(shape, key, value))
        output: Tensor = _FusedAttention.apply(query, key, value, attn_mask, shape)
        return output

    library = torch.library.Library("aten", "IMPL")
    try:
        library.impl("scaled_dot_product_attention", attend, "AutogradMeta")
        yield
    finally:
        library._destroy()
        counting.clear()
