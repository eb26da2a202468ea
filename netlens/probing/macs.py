"""Multiply-adds of the operators that a forward pass runs.

Convention: one multiply-add of a matrix product or a convolution is one MAC; FLOPs = 2 x MACs. Bias, normalisation, activation,
pooling, interpolation, elementwise arithmetic and look-ups count 0, as in torch's own `torch/utils/flop_counter.py` and in the `_ops`
figures that torchvision publishes. Attention counts every query-key pair, also where a causal mask hides half of them.

Formulas take the operator's arguments and result as the dispatcher passes them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from netlens.probing.pointwise import broadcast

_SPARSE = (torch.sparse_coo, torch.sparse_csr, torch.sparse_csc)
Formula = Callable[[tuple[Any, ...], dict[str, Any], Any], int]


def _matrix_product(left: int) -> Formula:
    """(..., m, k) @ (..., k, n) with the left matrix at argument `left` and the right one behind it."""
    return lambda args, _kwargs, _out: int(_stored(args[left]) * args[left + 1].shape[-1])


def _stored(x: Tensor) -> int:
    """Elements of a matrix that are multiplied: of a sparse one, those that it holds."""
    return x._nnz() if x.layout in _SPARSE else x.numel()


def _elements(position: int) -> Formula:
    """Each element of argument `position` is multiplied once: matrix-vector and dot products."""
    return lambda args, _kwargs, _out: int(_stored(args[position]))


def _convolution(args: tuple[Any, ...], _kwargs: dict[str, Any], out: Any) -> int:
    """Every weight is used once at each output place, and at each *input* place of a transposed convolution."""
    x, weight, transposed = args[0], args[1], bool(args[6])
    places = x if transposed else out
    spatial = weight.dim() - 2
    batch = places.shape[0] if places.dim() > spatial + 1 else 1
    return int(batch * prod(places.shape[places.dim() - spatial :]) * weight.numel())


def _deformable_convolution(args: tuple[Any, ...], _kwargs: dict[str, Any], out: Any) -> int:
    return int(out.shape[0] * prod(out.shape[2:]) * args[1].numel())


def _linear(args: tuple[Any, ...], _kwargs: dict[str, Any], _out: Any) -> int:
    x, weight = args[0], args[1]
    return int(x.numel() * (weight.shape[0] if weight.dim() == 2 else 1))


def attention_macs(queries: Sequence[int], key: Tensor, value: Tensor) -> int:
    """Queries of shape (..., L), keys (..., S, E), values (..., S, Ev): scores take L S E, their weighted sum L S Ev."""
    return int(prod(queries) * key.shape[-2] * (key.shape[-1] + value.shape[-1]))


def _attention(args: tuple[Any, ...], _kwargs: dict[str, Any], _out: Any) -> int:
    return attention_macs(args[0].shape[:-1], args[1], args[2])


def _trilinear(args: tuple[Any, ...], _kwargs: dict[str, Any], _out: Any) -> int:
    """Products of three tensors over all broadcast places (`nn.Bilinear`: batch x out x in1 x in2)."""
    operands = []
    for tensor, expand in zip(args[:3], args[3:6], strict=True):
        shape = list(tensor.shape)
        for dim in sorted(expand):
            shape.insert(dim, 1)
        operands.append(shape)
    return prod(broadcast(*operands))


def _pairwise_distance(args: tuple[Any, ...], _kwargs: dict[str, Any], out: Any) -> int:
    return int(out.numel() * args[0].shape[-1])


def _mkldnn_rnn(args: tuple[Any, ...], _kwargs: dict[str, Any], _out: Any) -> int:
    """One direction of one layer: input (T, N, I), weights (G H, I) and (G H, H), every step."""
    x, from_input, from_hidden = args[0], args[1], args[2]
    return int(x.shape[0] * x.shape[1] * (from_input.numel() + from_hidden.numel()))


def _fused_rnn(args: tuple[Any, ...], _kwargs: dict[str, Any], _out: Any) -> int:
    """`_cudnn_rnn`: every weight matrix is used once a step; packed input is (steps in total, I)."""
    x, weights = args[0], args[1]
    steps = x.shape[0] if x.dim() == 2 else x.shape[0] * x.shape[1]
    return int(steps * sum(weight.numel() for weight in weights if weight.dim() == 2))


def _grouped_mm(args: tuple[Any, ...], _kwargs: dict[str, Any], out: Any) -> int:
    """Each row meets one group's matrix (mixture of experts): length x result; groups of two flat matrices share out the length."""
    a, b = args[0], args[1]
    return int((out.numel() if a.dim() + b.dim() > 4 else a.shape[0] * b.shape[1]) * a.shape[-1])


def _quantized_convolution(args: tuple[Any, ...], _kwargs: dict[str, Any], out: Any) -> int:
    """Weights are packed for the kernel, and unpacked to be looked at."""
    weight = args[1].unpack()[0]
    return int(out.numel() // weight.shape[0] * weight.numel())


def _quantized_linear(args: tuple[Any, ...], _kwargs: dict[str, Any], _out: Any) -> int:
    return int(args[0].numel() * args[1].unpack()[0].shape[0])


_FORMULAS: dict[str, Formula] = {
    "aten.mm": _matrix_product(0),
    "aten.bmm": _matrix_product(0),
    "aten._int_mm": _matrix_product(0),
    "aten._scaled_mm": _matrix_product(0),
    "aten.addmm": _matrix_product(1),
    "aten._addmm_activation": _matrix_product(1),
    "aten.baddbmm": _matrix_product(1),
    "aten.addbmm": _matrix_product(1),
    "aten._sparse_mm": _matrix_product(0),
    "aten._sparse_addmm": _matrix_product(1),
    "aten.mv": _elements(0),
    "aten.addmv": _elements(1),
    "aten.dot": _elements(0),
    "aten.vdot": _elements(0),
    "aten.linear": _linear,
    "aten.convolution": _convolution,
    "aten._convolution": _convolution,
    "aten.convolution_overrideable": _convolution,
    **{f"quantized.conv{dims}d{relu}": _quantized_convolution for dims in (1, 2, 3) for relu in ("", "_relu")},
    **{f"quantized.linear{kind}": _quantized_linear for kind in ("", "_relu", "_dynamic", "_relu_dynamic")},
    "torchvision.deform_conv2d": _deformable_convolution,
    "aten._trilinear": _trilinear,
    "aten._cdist_forward": _pairwise_distance,
    "aten._euclidean_dist": _pairwise_distance,
    "aten.mkldnn_rnn_layer": _mkldnn_rnn,
    "aten._cudnn_rnn": _fused_rnn,
    "aten.miopen_rnn": _fused_rnn,
    "aten._grouped_mm": _grouped_mm,
    "aten.scaled_dot_product_attention": _attention,
    "aten._scaled_dot_product_attention_math": _attention,
    "aten._scaled_dot_product_flash_attention": _attention,
    "aten._scaled_dot_product_flash_attention_for_cpu": _attention,
    "aten._scaled_dot_product_efficient_attention": _attention,
    "aten._scaled_dot_product_cudnn_attention": _attention,
    "aten._scaled_dot_product_fused_attention_overrideable": _attention,
    "aten._scaled_dot_product_attention_math_for_mps": _attention,
}

# Operators that by convention count 0 and are neither tagged "pointwise" nor views: reductions, normalisation, pooling,
# interpolation, sorting, indexing, copies and constructors. Whatever is in none of these lists is reported, never counted as 0.
_FREE = frozenset(
    """
    _to_copy clone copy contiguous empty empty_like empty_strided new_empty new_empty_strided zeros zeros_like new_zeros ones
    ones_like new_ones full full_like new_full arange linspace logspace eye scalar_tensor tril_indices triu_indices rand rand_like
    randn randn_like randint randint_like randperm normal normal_functional bernoulli multinomial poisson exponential uniform
    native_dropout _fused_dropout dropout feature_dropout lift_fresh lift_fresh_copy lift _efficientzerotensor _local_scalar_dense
    item is_same_size equal set_ resize_ resize_as_ _resize_output_ record_stream _assert_async _assert_scalar
    _assert_tensor_metadata sym_size sym_numel sym_stride alias view reshape _reshape_alias expand permute transpose t squeeze
    unsqueeze select slice split split_with_sizes unbind chunk as_strided diagonal unfold detach view_as_real view_as_complex
    movedim swapaxes _unsafe_view _unsafe_index _unsafe_masked_index unsafe_split unsafe_chunk unsafe_split_with_sizes _conj
    _neg_view resolve_conj resolve_neg real imag cat stack hstack vstack _pack_padded_sequence _pad_packed_sequence roll flip rot90
    repeat repeat_interleave tile tril triu trace constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d
    replication_pad1d replication_pad2d replication_pad3d pad pixel_shuffle pixel_unshuffle channel_shuffle native_channel_shuffle
    im2col col2im unfold_backward masked_fill masked_scatter fill zero hardswish masked_select index index_put _index_put_impl_
    index_select index_add index_copy index_fill index_reduce gather scatter scatter_add scatter_reduce slice_scatter select_scatter
    diagonal_scatter as_strided_scatter diag_embed diag take put nonzero nonzero_static where argwhere one_hot embedding
    embedding_renorm_ _embedding_bag _embedding_bag_forward_only bincount histc bucketize searchsorted sum mean var std var_mean
    std_mean prod amax amin aminmax max min argmax argmin all any norm linalg_vector_norm logsumexp cumsum cumprod cummax cummin
    logcumsumexp count_nonzero nansum median nanmedian mode kthvalue topk sort msort argsort unique_consecutive _unique2 unique_dim
    isin renorm dist diff _weight_norm_interface _weight_norm _softmax _log_softmax _safe_softmax softmax log_softmax
    _masked_softmax native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training
    _native_batch_norm_legit_functional _batch_norm_with_update _batch_norm_no_update _batch_norm_impl_index cudnn_batch_norm
    miopen_batch_norm native_layer_norm native_group_norm rms_norm _fused_rms_norm batch_norm batch_norm_stats batch_norm_elemt
    local_response_norm _thnn_fused_lstm_cell _thnn_fused_gru_cell glu prelu _prelu_kernel rrelu rrelu_with_noise
    rrelu_with_noise_functional log_sigmoid_forward max_pool1d max_pool2d max_pool3d max_pool2d_with_indices max_pool3d_with_indices
    mkldnn_max_pool2d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d _adaptive_avg_pool2d _adaptive_avg_pool3d
    adaptive_max_pool2d adaptive_max_pool3d fractional_max_pool2d fractional_max_pool3d max_unpool2d max_unpool3d grid_sampler_2d
    grid_sampler_3d _grid_sampler_2d_cpu_fallback cudnn_grid_sampler affine_grid_generator upsample_nearest1d upsample_nearest2d
    upsample_nearest3d _upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d upsample_linear1d
    upsample_bilinear2d upsample_trilinear3d upsample_bicubic2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa
    _upsample_lanczos2d_aa nll_loss_forward nll_loss2d_forward mse_loss smooth_l1_loss huber_loss binary_cross_entropy
    multi_margin_loss multilabel_margin_loss_forward soft_margin_loss _ctc_loss _linalg_check_errors fft_fftfreq fft_rfftfreq
    fft_fftshift fft_ifftshift hann_window hamming_window hash_tensor nms
    _to_dense _to_sparse _to_sparse_csr _coalesce coalesce _sparse_coo_tensor_with_dims_and_tensors _indices _values indices values
    crow_indices col_indices sparse_mask roi_align roi_pool ps_roi_align ps_roi_pool
    quantize_per_tensor quantize_per_tensor_dynamic quantize_per_channel dequantize int_repr quantized_max_pool2d
    quantized_batch_norm floor_divide
    """.split()  # noqa: SIM905 - a list of 250 literals would be 250 lines
)
_FREE_NAMESPACES = frozenset({"aten", "torchvision", "prim", "prims"})
_IDLE_NAMESPACES = frozenset({"profiler"})  # whatever these do, it is not arithmetic
_FREE_QUANTIZED = re.compile(
    r"quantized\.(add|mul|cat|clamp|relu6?|leaky_relu|hardswish|sigmoid|softmax|batch_norm\dd|\w+_norm)(_relu|_out|_scalar)*"
)
_MULTIPLIES = re.compile(
    r"mm|mat|conv|linear|fft|linalg|svd|qr|chol|lu_|inverse|solve|eig|attention|rnn|lstm|gru|einsum|dot|dist|quantized"
)


def formula_of(name: str) -> Formula | None:
    """Return the formula of an operator ("aten.mm"), or None where none is known or none is needed."""
    found = _FORMULAS.get(name)
    # An in-place or out= twin ("addmm_") takes the same arguments in the same places.
    return found if found is not None else _FORMULAS.get(name.rstrip("_"))


def is_free(name: str, operator: Any) -> bool:
    """Tell whether an operator counts 0 by convention: a view, pointwise, or in the list above."""
    namespace, _, base = name.partition(".")
    if namespace in _IDLE_NAMESPACES or torch.Tag.pointwise in getattr(operator, "tags", ()) or _is_view(operator):
        return True
    return (namespace in _FREE_NAMESPACES and (base in _FREE or base.rstrip("_") in _FREE)) or _FREE_QUANTIZED.fullmatch(name) is not None


def multiplies(name: str) -> bool:
    """Tell whether an operator without a formula surely does multiply-adds, so that a total without it is a lower bound.

    Operators of other packages (fused attention, state-space scans) do, as a rule.
    """
    return name.partition(".")[0] not in _FREE_NAMESPACES or _MULTIPLIES.search(name.partition(".")[2]) is not None


def _is_view(operator: Any) -> bool:
    returns: Sequence[Any] = operator._schema.returns
    return bool(returns) and all(r.alias_info is not None for r in returns) and not operator._schema.is_mutable
