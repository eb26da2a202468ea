"""Planted faults: every one is found in the right layer, explained by what a person would write, and cured by its remedy.

What a layer got and expects is derived by hand from the model beside it. A remedy is taken at its word: the input that it names is made,
or the layer is built again with the argument that it names, and the real model must run.
"""

from __future__ import annotations

import contextlib
import inspect
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import netlens
from netlens.lenses.summary import attempts
from netlens.lenses.summary import failure as failure_module
from netlens.lenses.summary.report import Failure, SummaryReport
from netlens.loading.subject import Inputs, Subject
from tests.lenses.summary_case import Net


def floats(*shape: int) -> Tensor:
    return torch.rand(shape)


def ids(*shape: int, highest: int = 0) -> Tensor:
    return torch.full(shape, highest)


@dataclass(frozen=True)
class Fault:
    """A model that raises, and what is to be said about it."""

    name: str
    build: Callable[[], nn.Module]
    inputs: tuple[Any, ...]
    path: str
    got: str
    expects: str
    remedy: str | None = None  # None: whatever it is, it must be true
    before: tuple[str, ...] = ()  # layers that ran
    after: tuple[str, ...] = ()  # layers that did not
    producer: str | None = None


def layer(name: str, faulty: Callable[[], nn.Module], x: Tensor, got: str, expects: str, remedy: str | None = None) -> Fault:
    """A layer between two others: "before" has run, "after" has not. `nn.Identity` hands the model's own input on."""

    def build() -> nn.Module:
        return Net(lambda m, x: m.after(m.faulty(m.before(x))), before=nn.Identity(), faulty=faulty(), after=nn.Identity())

    return Fault(name, build, (x,), "faulty", got, expects, remedy, before=("before",), after=("after",))


def call(name: str, faulty: Callable[[], nn.Module], inputs: tuple[Any, ...], got: str, expects: str) -> Fault:
    """A layer that takes several arguments."""

    def build() -> nn.Module:
        return Net(lambda m, *args: m.after(m.faulty(*args)), faulty=faulty(), after=nn.Identity())

    return Fault(name, build, inputs, "faulty", got, expects, after=("after",))


def own_code(name: str, run: Callable[..., Any], inputs: tuple[Any, ...], got: str, expects: str, **members: Any) -> Fault:
    """A fault in the model's own forward, after the layer "before"."""

    def forward(m: Any, x: Any, *rest: Any) -> Any:
        return m.after(run(m, m.before(x), *rest))

    members = {"before": nn.Identity(), "after": nn.Identity(), **members}
    return Fault(name, lambda: Net(forward, **members), inputs, "", got, expects, before=("before",), after=("after",))


LAYERS = [
    layer("linear", lambda: nn.Linear(9216, 10), floats(1, 12544), "(1, 12544)", "(*, 9216)"),
    layer("linear_of_a_picture", lambda: nn.Linear(784, 10), floats(1, 1, 28, 28), "(1, 1, 28, 28)", "(*, 784)"),
    call("bilinear", lambda: nn.Bilinear(4, 5, 6), (floats(2, 4), floats(2, 7)), "(2, 4) and (2, 7)", "(*, 4) and (*, 5)"),
    # convolutions: channels, dimensions, an input smaller than the kernel
    layer("conv1d", lambda: nn.Conv1d(16, 8, 3), floats(2, 12, 50), "(2, 12, 50)", "(N, 16, L)"),
    layer("conv2d", lambda: nn.Conv2d(3, 8, 3), floats(1, 4, 32, 32), "(1, 4, 32, 32)", "(N, 3, H, W)"),
    layer("conv3d", lambda: nn.Conv3d(1, 8, 3), floats(1, 2, 8, 8, 8), "(1, 2, 8, 8, 8)", "(N, 1, D, H, W)"),
    layer("conv2d_rank", lambda: nn.Conv2d(3, 8, 3), floats(1, 3072), "(1, 3072)", "(N, 3, H, W)"),
    # least size: dilation * (kernel - 1) + 1 - 2 * padding = 2 * 4 + 1 - 2 = 7
    layer("conv2d_small", lambda: nn.Conv2d(3, 8, 5, padding=1, dilation=2), floats(1, 3, 4, 9), "(1, 3, 4, 9)", "(N, 3, H >= 7, W >= 7)"),
    layer("conv2d_grouped", lambda: nn.Conv2d(8, 8, 3, groups=8), floats(1, 6, 9, 9), "(1, 6, 9, 9)", "(N, 8, H, W)"),
    layer("conv_transpose1d", lambda: nn.ConvTranspose1d(4, 2, 3), floats(1, 5, 9), "(1, 5, 9)", "(N, 4, L)"),
    layer("conv_transpose2d", lambda: nn.ConvTranspose2d(4, 2, 3), floats(1, 5, 9, 9), "(1, 5, 9, 9)", "(N, 4, H, W)"),
    layer("conv_transpose3d", lambda: nn.ConvTranspose3d(4, 2, 3), floats(1, 5, 4, 4, 4), "(1, 5, 4, 4, 4)", "(N, 4, D, H, W)"),
    # norms
    layer("batch_norm1d", lambda: nn.BatchNorm1d(6), floats(2, 5), "(2, 5)", "(N, 6)"),
    layer("batch_norm1d_signal", lambda: nn.BatchNorm1d(6), floats(2, 5, 9), "(2, 5, 9)", "(N, 6, L)"),
    layer("batch_norm2d", lambda: nn.BatchNorm2d(6), floats(2, 5, 4, 4), "(2, 5, 4, 4)", "(N, 6, H, W)"),
    layer("batch_norm2d_rank", lambda: nn.BatchNorm2d(6), floats(2, 6), "(2, 6)", "(N, 6, H, W)"),
    layer("batch_norm3d", lambda: nn.BatchNorm3d(6), floats(2, 5, 2, 4, 4), "(2, 5, 2, 4, 4)", "(N, 6, D, H, W)"),
    layer("instance_norm1d", lambda: nn.InstanceNorm1d(6, affine=True), floats(2, 5, 9), "(2, 5, 9)", "(N, 6, L)"),
    layer("instance_norm2d", lambda: nn.InstanceNorm2d(6, affine=True), floats(2, 5, 4, 4), "(2, 5, 4, 4)", "(N, 6, H, W)"),
    layer("instance_norm3d", lambda: nn.InstanceNorm3d(6, affine=True), floats(2, 5, 2, 4, 4), "(2, 5, 2, 4, 4)", "(N, 6, D, H, W)"),
    layer("layer_norm", lambda: nn.LayerNorm(64), floats(2, 10, 48), "(2, 10, 48)", "(*, 64)"),
    layer("layer_norm_2_dims", lambda: nn.LayerNorm((8, 8)), floats(2, 3, 8, 9), "(2, 3, 8, 9)", "(*, 8, 8)"),
    layer("rms_norm", lambda: nn.RMSNorm(64), floats(2, 10, 48), "(2, 10, 48)", "(*, 64)"),
    layer("group_norm", lambda: nn.GroupNorm(4, 32), floats(2, 24, 8, 8), "(2, 24, 8, 8)", "(N, 32, *)"),
    layer("local_response_norm", lambda: nn.LocalResponseNorm(2), floats(4, 8), "(4, 8)", "(N, C, *)"),
    # embeddings
    layer("embedding_of_floats", lambda: nn.Embedding(100, 8), floats(1, 16), "(1, 16) float32", "ids of dtype int64 or int32"),
    layer("embedding_out_of_range", lambda: nn.Embedding(100, 8), ids(1, 16, highest=100), "ids from 100 to 100", "ids from 0 to 99"),
    layer("embedding_negative", lambda: nn.Embedding(100, 8), ids(1, 16, highest=-1), "ids from -1 to -1", "ids from 0 to 99"),
    layer("embedding_bag", lambda: nn.EmbeddingBag(100, 8), floats(1, 16), "(1, 16) float32", "ids of dtype int64 or int32"),
    layer("embedding_bag_offsets", lambda: nn.EmbeddingBag(100, 8), ids(16), "(16,) without offsets", "(N, L), or (L,) with offsets"),
    # recurrent
    layer("rnn", lambda: nn.RNN(8, 4), floats(5, 2, 7), "(5, 2, 7)", "(L, N, 8)"),
    layer("lstm", lambda: nn.LSTM(8, 4, batch_first=True), floats(2, 5, 7), "(2, 5, 7)", "(N, L, 8)"),
    layer("gru", lambda: nn.GRU(8, 4, batch_first=True), floats(2, 5, 8, 3), "(2, 5, 8, 3)", "(N, L, 8)"),
    call(
        "rnn_state", lambda: nn.RNN(8, 4), (floats(5, 2, 8), floats(1, 2, 6)), "a hidden state of (1, 2, 6)", "a hidden state of (1, 2, 4)"
    ),
    call(  # two layers, two directions: four states
        "gru_layers",
        lambda: nn.GRU(8, 4, 2, bidirectional=True),
        (floats(5, 2, 8), floats(2, 2, 4)),
        "a hidden state of (2, 2, 4)",
        "a hidden state of (4, 2, 4)",
    ),
    call(
        "lstm_cell_state",
        lambda: nn.LSTM(8, 4),
        (floats(5, 2, 8), (floats(1, 2, 4), floats(1, 2, 5))),
        "a cell state of (1, 2, 5)",
        "a cell state of (1, 2, 4)",
    ),
    layer("rnn_cell", lambda: nn.RNNCell(8, 4), floats(2, 7), "(2, 7)", "(N, 8)"),
    layer("lstm_cell", lambda: nn.LSTMCell(8, 4), floats(2, 7), "(2, 7)", "(N, 8)"),
    call("gru_cell", lambda: nn.GRUCell(8, 4), (floats(2, 8), floats(2, 5)), "a hidden state of (2, 5)", "a hidden state of (2, 4)"),
    # attention
    call(
        "attention_query",
        lambda: nn.MultiheadAttention(16, 2, batch_first=True),
        (floats(2, 5, 12), floats(2, 5, 16), floats(2, 5, 16)),
        "query (2, 5, 12)",
        "query (N, L, 16)",
    ),
    call(
        "attention_value",
        lambda: nn.MultiheadAttention(16, 2, vdim=8),
        (floats(5, 2, 16), floats(5, 2, 16), floats(5, 2, 16)),
        "value (5, 2, 16)",
        "value (L, N, 8)",
    ),
    call(
        "transformer",
        lambda: nn.Transformer(16, 2, 1, 1, 32, batch_first=True),
        (floats(2, 5, 16), floats(2, 5, 12)),
        "tgt (2, 5, 12)",
        "tgt (N, L, 16)",
    ),
    # pooling
    layer("max_pool1d", lambda: nn.MaxPool1d(4), floats(1, 3, 2), "(1, 3, 2)", "(N, C, L >= 4)"),
    layer("max_pool2d", lambda: nn.MaxPool2d(4), floats(1, 3, 2, 8), "(1, 3, 2, 8)", "(N, C, H >= 4, W >= 4)"),
    layer("max_pool3d", lambda: nn.MaxPool3d(2), floats(1, 3, 1, 4, 4), "(1, 3, 1, 4, 4)", "(N, C, D >= 2, H >= 2, W >= 2)"),
    layer("max_pool2d_rank", lambda: nn.MaxPool2d(2), floats(4, 8), "(4, 8)", "(N, C, H, W)"),
    layer("avg_pool1d", lambda: nn.AvgPool1d(4), floats(1, 3, 2), "(1, 3, 2)", "(N, C, L >= 4)"),
    layer("avg_pool2d", lambda: nn.AvgPool2d(7), floats(1, 3, 4, 4), "(1, 3, 4, 4)", "(N, C, H >= 7, W >= 7)"),
    layer("avg_pool3d", lambda: nn.AvgPool3d(2), floats(4, 4), "(4, 4)", "(N, C, D, H, W)"),
    layer("adaptive_avg_pool1d", lambda: nn.AdaptiveAvgPool1d(1), floats(9), "(9,)", "(N, C, L)"),
    layer("adaptive_avg_pool2d", lambda: nn.AdaptiveAvgPool2d(2), floats(1, 9), "(1, 9)", "(N, C, H, W)"),
    layer("adaptive_avg_pool3d", lambda: nn.AdaptiveAvgPool3d(2), floats(1, 9, 9), "(1, 9, 9)", "(N, C, D, H, W)"),
    layer("adaptive_max_pool2d", lambda: nn.AdaptiveMaxPool2d(2), floats(1, 9), "(1, 9)", "(N, C, H, W)"),
    # shapes
    layer("flatten", lambda: nn.Flatten(2), floats(1, 9), "(1, 9)", "at least 3 dimensions"),
    layer("unflatten", lambda: nn.Unflatten(1, (4, 7)), floats(1, 30), "(1, 30)", "28 = 4 x 7 in dimension 1"),
    layer("unflatten_open", lambda: nn.Unflatten(1, (4, -1)), floats(1, 30), "(1, 30)", "a multiple of 4 in dimension 1"),
    layer("pixel_shuffle", lambda: nn.PixelShuffle(3), floats(1, 8, 4, 4), "(1, 8, 4, 4)", "(*, a multiple of 9, H, W)"),
    layer("pixel_unshuffle", lambda: nn.PixelUnshuffle(2), floats(1, 8, 5, 4), "(1, 8, 5, 4)", "(*, C, H, W) with H and W multiples of 2"),
    layer("channel_shuffle", lambda: nn.ChannelShuffle(3), floats(1, 8, 4, 4), "(1, 8, 4, 4)", "(N, a multiple of 3, *)"),
    layer(
        "upsample", lambda: nn.Upsample(scale_factor=2, mode="bilinear"), floats(1, 8, 4), "(1, 8, 4)", "(N, C, H, W) for mode 'bilinear'"
    ),
    layer("fold", lambda: nn.Fold((4, 4), 2), floats(1, 12, 8), "(1, 12, 8)", "(N, a multiple of 4, 9)"),  # (4 - 2 + 1)^2 = 9 blocks
    layer("unfold", lambda: nn.Unfold(3), floats(1, 2, 2, 5), "(1, 2, 2, 5)", "(N, C, H >= 3, W >= 3)"),
    layer("reflection_pad1d", lambda: nn.ReflectionPad1d(3), floats(1, 2, 3), "(1, 2, 3)", "(N, C, L >= 4)"),
    layer("reflection_pad2d", lambda: nn.ReflectionPad2d((1, 1, 0, 5)), floats(1, 2, 4, 4), "(1, 2, 4, 4)", "(N, C, H >= 6, W >= 2)"),
    layer("replication_pad2d", lambda: nn.ReplicationPad2d(1), floats(4, 4), "(4, 4)", "(N, C, H, W)"),
    layer("circular_pad2d", lambda: nn.CircularPad2d(3), floats(1, 2, 2, 4), "(1, 2, 2, 4)", "(N, C, H >= 3, W >= 3)"),
    # activations
    layer("prelu", lambda: nn.PReLU(4), floats(1, 5, 3), "(1, 5, 3)", "(N, 4, *)"),
    layer("glu", lambda: nn.GLU(), floats(1, 5), "(1, 5)", "an even size in dimension -1"),
    layer("softmax", lambda: nn.Softmax(dim=2), floats(1, 5), "(1, 5)", "at least 3 dimensions, as it runs along dim=2"),
    layer("log_softmax", lambda: nn.LogSoftmax(dim=-3), floats(1, 5), "(1, 5)", "at least 3 dimensions, as it runs along dim=-3"),
    # losses
    call("mse_loss_dtype_free", lambda: nn.BCELoss(), (floats(4, 1), floats(4)), "(4, 1) and (4,)", "input and target of equal shape"),
    call("mse_loss", lambda: nn.MSELoss(), (floats(4, 3), floats(4, 2)), "(4, 3) and (4, 2)", "input and target of equal shape"),
    call("cross_entropy", lambda: nn.CrossEntropyLoss(), (floats(4, 10), ids(3)), "(4, 10) and (3,)", "(4, 10) and class numbers (4,)"),
    call(
        "cross_entropy_class",
        lambda: nn.CrossEntropyLoss(),
        (floats(4, 10), ids(4, highest=10)),
        "class numbers from 10 to 10",
        "class numbers from 0 to 9",
    ),
    # dtypes
    layer("linear_half", lambda: nn.Linear(4, 4).half(), floats(1, 4), "(1, 4) float32", "dtype float16, as its weights"),
    layer("conv_half", lambda: nn.Conv2d(3, 4, 3).half(), floats(1, 3, 8, 8), "(1, 3, 8, 8) float32", "dtype float16, as its weights"),
    layer("conv_of_integers", lambda: nn.Conv2d(3, 4, 3), ids(1, 3, 8, 8), "(1, 3, 8, 8) int64", "dtype float32, as its weights"),
    layer("linear_of_double", lambda: nn.Linear(4, 4), floats(1, 4).double(), "(1, 4) float64", "dtype float32, as its weights"),
    # what is no tensor
    Fault(
        "tuple_of_an_lstm",
        lambda: nn.Sequential(nn.LSTM(8, 4), nn.Linear(4, 2)),
        (floats(5, 2, 8),),
        "1",
        "a tuple of (5, 2, 4), a tuple",
        "a tensor",
        "`0` returned a tuple: pass on the item that is meant, perhaps [0]",
        before=("0",),
    ),
    Fault(
        "forward_without_return",
        lambda: nn.Sequential(Net(lambda m, x: None), nn.Linear(4, 2)),
        (floats(1, 4),),
        "1",
        "None",
        "a tensor",
        "`0` returned None: a forward without `return` does",
    ),
]


a, b = floats(2, 3, 4, 5), floats(2, 3, 4, 5)
OWN_CODE = [
    own_code(  # a skip connection of an odd size: 15 // 2 * 2 = 14
        "cat",
        lambda m, x: torch.cat([x, F.interpolate(F.max_pool2d(x, 2), scale_factor=2)], dim=1),
        (floats(1, 8, 15, 15),),
        "cat of (1, 8, 15, 15) and (1, 8, 14, 14)",
        "(1, *, 15, 15) for each",
    ),
    own_code(
        "cat_of_ranks", lambda m, x: torch.cat([x, x[0]]), (floats(2, 3),), "cat of (2, 3) and (3,)", "tensors with equally many dimensions"
    ),
    own_code("stack", lambda m, x: torch.stack([x, x[:, 1:]]), (floats(2, 3),), "stack of (2, 3) and (2, 2)", "equal shapes"),
    own_code(
        "add",
        lambda m, x: x + m.shortcut(x),
        (floats(1, 16, 8, 8),),
        "add of (1, 16, 8, 8) and (1, 8, 8, 8)",
        "equal sizes, or 1, in dimension 1",
        shortcut=nn.Conv2d(16, 8, 1),
    ),
    own_code("multiply", lambda m, x: x * x[:, :2], (floats(4, 3),), "mul of (4, 3) and (4, 2)", "equal sizes, or 1, in dimension 1"),
    own_code(
        "in_place",
        lambda m, x: x.clone().add_(x[:, :2]),
        (floats(4, 3),),
        "add of (4, 3) and (4, 2)",
        "equal sizes, or 1, in dimension 1",
    ),
    own_code(
        "where",
        lambda m, x: torch.where(x > 0, x, x[:, :2]),
        (floats(4, 3),),
        "where of (4, 3) and (4, 3) and (4, 2)",
        "equal sizes, or 1, in dimension 1",
    ),
    own_code("matmul", lambda m, x, y: x @ y, (floats(3, 4), floats(5, 6)), "matmul of (3, 4) and (5, 6)", "(*, 5) on the left of (5, 6)"),
    # (2, 3, 4, 5) @ (2, 3, 4, 5) without a transpose: 6 products of (4, 5) and (4, 5)
    own_code("attention_scores", lambda m, x, y: x @ y, (a, b), "matmul of (6, 4, 5) and (6, 4, 5)", "(*, 4) on the left of (6, 4, 5)"),
    own_code(
        "matmul_batches",
        lambda m, x, y: x @ y,
        (floats(2, 4, 5), floats(3, 5, 4)),
        "sizes 2 and 3 in dimension 0",
        "equal sizes, or 1, in dimension 0",
    ),
    own_code(
        "bmm", lambda m, x, y: torch.bmm(x, y), (floats(2, 4, 5), floats(3, 5, 4)), "matmul of (2, 4, 5) and (3, 5, 4)", "equal batch sizes"
    ),
    # 16 x 6 x 6 = 576 is no multiple of 16 x 5 x 5 = 400
    own_code(
        "view",
        lambda m, x: x.view(-1, 400),
        (floats(1, 16, 6, 6),),
        "(1, 16, 6, 6) = 576 elements",
        "a multiple of 400 elements for the shape (-1, 400)",
    ),
    own_code(
        "reshape",
        lambda m, x: x.reshape(1, 400),
        (floats(1, 16, 6, 6),),
        "(1, 16, 6, 6) = 576 elements",
        "400 elements for the shape (1, 400)",
    ),
    own_code(
        "view_of_transposed",
        lambda m, x: x.transpose(1, 2).view(1, -1),
        (floats(1, 4, 6),),
        "",
        "",
    ),
    own_code(
        "einsum",
        lambda m, x, y: torch.einsum("bij,bjk->bik", x, y),
        (floats(1, 3, 4), floats(1, 5, 6)),
        "j = 5 in operand 1",
        "j = 4, as before",
    ),
    own_code(
        "functional_linear",
        lambda m, x: F.linear(x, m.weight),
        (floats(1, 20),),
        "matmul of (1, 20) and (30, 7)",
        "(*, 30) on the left of (30, 7)",
        weight=nn.Parameter(floats(7, 30)),
    ),
    own_code(
        "functional_conv",
        lambda m, x: F.conv2d(x, m.weight),
        (floats(1, 3, 9, 9),),
        "(1, 3, 9, 9)",
        "(N, 4, *)",
        weight=nn.Parameter(floats(7, 4, 3, 3)),
    ),
    # on the CPU attention is a product of (4, 8, 16) with the transposed keys, (4, 32, 8)
    own_code(
        "attention",
        lambda m, q, k: F.scaled_dot_product_attention(q, k, k),
        (floats(1, 4, 8, 16), floats(1, 4, 8, 32)),
        "matmul of (4, 8, 16) and (4, 32, 8)",
        "(*, 32) on the left of (4, 32, 8)",
    ),
    own_code("index", lambda m, x: x[:, 3], (floats(1, 3),), "index 3 in dimension 1", "an index from 0 to 2"),
    own_code("dimension", lambda m, x: x.mean(3), (floats(1, 3),), "dimension 3", "a dimension from -2 to 1"),
    own_code("functional_softmax", lambda m, x: F.softmax(x, 3), (floats(1, 3),), "dimension 3", "a dimension from -2 to 1"),
    own_code("permute", lambda m, x: x.permute(0, 2, 3, 1), (floats(1, 3, 4),), "a tensor with 3 dimensions", "4 dimensions to permute"),
    own_code(
        "split", lambda m, x: x.split([2, 3], 1), (floats(1, 4),), "split sizes 2, 3", "split sizes with the sum 4, the size of dimension 1"
    ),
    own_code(
        "expand", lambda m, x: x.expand(1, 5), (floats(1, 4),), "size 4 in dimension 1", "size 5 or 1 in dimension 1, to become (1, 5)"
    ),
    own_code("unpack", lambda m, x: unpacked(x), (floats(1, 4, 4),), "3 values", "4 values to unpack"),
]


def unpacked(x: Tensor) -> Any:
    n, _channels, _height, _width = x.shape
    return n


class TwoInputs(nn.Module):
    def forward(self, x: Tensor, mask: Tensor, scale: float = 1.0) -> Tensor:
        return x * mask * scale


class NoForward(nn.Module):
    """`froward`: nothing overrides `nn.Module.forward`."""

    def froward(self, x: Tensor) -> Tensor:
        return x


def inner(name: str, part: Callable[[], nn.Module], run: Callable[..., Any], got: str, expects: str, remedy: str) -> Fault:
    return Fault(name, lambda: Net(run, part=part()), (floats(1, 4),), "part", got, expects, remedy)


CALLS = [
    Fault(
        "root_misses_an_argument",
        TwoInputs,
        (floats(1, 4),),
        "",
        "forward(x)",
        "forward(x, mask, scale=1.0)",
        "give one --input for each argument",
    ),
    Fault(
        "root_gets_too_many",
        nn.ReLU,
        (floats(1, 4), floats(1, 4)),
        "",
        "forward(input, 1 more)",
        "forward(input)",
        "give one --input for each argument",
    ),
    inner("misses_an_argument", TwoInputs, lambda m, x: m.part(x), "forward(x)", "forward(x, mask, scale=1.0)", ""),
    inner("wrong_keyword", TwoInputs, lambda m, x: m.part(x, x, size=2), "forward(x, mask, size=...)", "forward(x, mask, scale=1.0)", ""),
    inner("no_forward", NoForward, lambda m, x: m.part(x), "a call", "a method forward", "define forward(self, ...) in NoForward"),
    inner(
        "module_list",
        lambda: nn.ModuleList([nn.Linear(4, 4)]),
        lambda m, x: m.part(x),
        "a call",
        "to be looped over: a ModuleList has no forward",
        "call its layers one by one: nn.ModuleList only holds them",
    ),
]


def told(report: SummaryReport) -> tuple[str, ...]:
    """What must not depend on the device; torch's own words do."""
    failure = report.failure
    assert failure is not None
    return failure.path, failure.type, failure.got, failure.expects, failure.producer, failure.source, failure.remedy


def ran(report: SummaryReport) -> dict[str, bool]:
    return {layer.path: bool(layer.calls) for layer in report.layers}


FAULTS = LAYERS + OWN_CODE + CALLS


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_is_found_and_explained(fault: Fault):
    model = fault.build()

    report = netlens.summary(model, fault.inputs)

    failure = report.failure
    assert failure is not None
    assert (failure.path, failure.got, failure.expects) == (fault.path, fault.got, fault.expects)
    assert failure.type == type(model.get_submodule(fault.path)).__name__
    assert fault.remedy is None or failure.remedy == fault.remedy
    assert {path for path, yes in ran(report).items() if yes} >= set(fault.before)
    assert not {path for path, yes in ran(report).items() if yes} & {fault.path, *fault.after}
    assert report.outputs == () and report.totals.macs is None
    assert told(netlens.summary(model, fault.inputs, device="cpu")) == told(report)
    check_remedy(failure, fault.build, fault.inputs)


# -- remedies are taken at their word ------------------------------------------------------------------------------------------------


def check_remedy(failure: Failure, build: Callable[[], nn.Module], inputs: tuple[Any, ...]) -> None:
    """Do what the remedy says, with a real model on the CPU: it must run."""
    options = re.findall(r"--input (\S+)", failure.remedy) if " runs" in failure.remedy else []
    if options:
        positional = [made(option, build()) for option in options if "=" not in option]
        named = {option.split("=")[0]: made(option.split("=")[1], build()) for option in options if "=" in option}
        run(build(), *positional, **named)
    if "; then `" in failure.remedy:
        return
    path = "the model"
    for name, argument, size in re.findall(r"(?:`([^`]+)` would need|, or `[^`]+` would need)? ?(\w+)=(\d+)", failure.remedy):
        path = name or path
        model = build()
        rebuilt(model, re.findall(rf"`([^`]+)` would need {argument}={size}", failure.remedy)[0], argument, int(size))
        run(model, *inputs)


def made(option: str, model: nn.Module) -> Tensor:
    sizes, _, dtype = option.partition(":")
    usual = next((p.dtype for p in model.parameters()), torch.float32)
    return torch.ones([int(size) for size in sizes.split(",")]).to(getattr(torch, dtype) if dtype else usual)


def run(model: nn.Module, *args: Any, **kwargs: Any) -> None:
    with torch.no_grad():
        model.eval()(*args, **kwargs)


def rebuilt(model: nn.Module, path: str, argument: str, size: int) -> None:
    """Build the layer at `path` again, with one other argument."""
    old = model.get_submodule("" if path == "the model" else path)
    signature = inspect.signature(nn.RNNBase.__init__ if isinstance(old, nn.RNNBase) else type(old).__init__)
    names = [name for name in signature.parameters if hasattr(old, name) and name not in ("self", "mode", "proj_size")]
    arguments: dict[str, Any] = {name: getattr(old, name) for name in names}
    if "bias" in arguments and not isinstance(arguments["bias"], bool):
        arguments["bias"] = old.bias is not None
    arguments |= {argument: size}
    arguments = {name: value for name, value in arguments.items() if not isinstance(value, Tensor)}
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, type(old)(**arguments))


# -- whole models: what a person would write, word for word ---------------------------------------------------------------------------


def lenet() -> nn.Module:
    """For 32 x 32: (32 - 4) / 2 = 14, (14 - 4) / 2 = 5, so 16 x 5 x 5 = 400 features."""
    features = nn.Sequential(nn.Conv2d(1, 6, 5), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.MaxPool2d(2))
    return Net(
        lambda m, x: m.fc2(m.fc1(torch.flatten(m.features(x), 1))), features=features, fc1=nn.Linear(400, 120), fc2=nn.Linear(120, 10)
    )


def classifier(features: int = 8 * 112 * 112) -> nn.Module:
    """One convolution that keeps the size and one pooling that halves it: 224 x 224 gives 8 x 112 x 112."""
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(features, 10))


def odd_size() -> nn.Module:
    """For 50 x 50, which no published model has: 8 x 25 x 25 = 5000."""
    return classifier(5000)


def norm_of_other_width() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(16, 4, 3))


def two_linears() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 20), nn.ReLU(), nn.Linear(30, 4))


def adjacent_linears() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 20), nn.Linear(30, 4))


def two_faults() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 20), nn.ReLU(), nn.Linear(30, 4), nn.ReLU(), nn.Linear(5, 2))


def tokens() -> nn.Module:
    return nn.Sequential(nn.Embedding(100, 16), nn.Linear(16, 100))


def positions() -> nn.Module:
    """Tokens with 64 positions."""
    run = lambda m, x: m.words(x) + m.positions(torch.arange(x.shape[1]))  # noqa: E731
    return Net(run, words=nn.Embedding(100, 16), positions=nn.Embedding(64, 16))


def signal() -> nn.Module:
    """For 1000 samples: 4 x 250 = 1000 features."""
    return nn.Sequential(nn.Conv1d(1, 4, 3, padding=1), nn.MaxPool1d(4), nn.Flatten(), nn.Linear(1000, 2))


def patches() -> nn.Module:
    """A vision transformer in small: 14 x 14 patches of a 224 x 224 image, each with a position."""

    def forward(m: Any, x: Tensor) -> Tensor:
        return m.head(m.embed(x).flatten(2).transpose(1, 2) + m.positions)

    return Net(forward, embed=nn.Conv2d(3, 8, 16, 16), positions=nn.Parameter(torch.zeros(1, 196, 8)), head=nn.Linear(8, 2))


def checks_its_size() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        assert x.shape[-1] == 64, "wrong image height"
        return m.conv(x)

    return Net(forward, conv=nn.Conv2d(3, 8, 3))


def sum_of_branches() -> nn.Module:
    """Both branches get the model's input, so what ran before the second one did not produce what it got."""
    return Net(lambda m, x: m.left(x) + m.right(x), left=nn.Linear(8, 4), right=nn.Linear(6, 4))


MODELS = [
    # 28 x 28: (28 - 4) / 2 = 12, (12 - 4) / 2 = 4, 16 x 4 x 4 = 256
    Fault(
        "lenet_on_mnist",
        lenet,
        (floats(1, 1, 28, 28),),
        "fc1",
        "(1, 256)",
        "(*, 400)",
        "--input 1,1,32,32 runs; for this input, `fc1` would need in_features=256 (16 x 4 x 4)",
        before=("features.0", "features.3"),
        after=("fc2",),
        producer="features",
    ),
    Fault(
        "image_too_large",
        classifier,
        (floats(1, 3, 256, 256),),
        "3",
        "(1, 131072)",  # 8 x 128 x 128
        "(*, 100352)",
        "--input 1,3,224,224 runs; for this input, `3` would need in_features=131072",
        before=("0", "1", "2"),
        producer="2",
    ),
    Fault(
        "odd_size",
        odd_size,
        (floats(1, 3, 64, 64),),
        "3",
        "(1, 8192)",
        "(*, 5000)",
        "--input 1,3,50,50 runs; for this input, `3` would need in_features=8192",
        producer="2",
    ),
    Fault(
        "no_batch_dimension",
        classifier,
        (floats(3, 224, 224),),
        "3",
        "(8, 12544)",  # the channels are taken for a batch: 112 x 112 each
        "(*, 100352)",
        "the batch dimension is missing: --input 1,3,224,224 runs",
        producer="2",
    ),
    Fault(
        "channels_last",
        classifier,
        (floats(1, 224, 224, 3),),
        "0",
        "(1, 224, 224, 3)",
        "(N, 3, H, W)",
        "the input looks channels last: --input 1,3,224,224 runs",
        after=("1", "2", "3"),
        producer="",
    ),
    Fault(
        "channels_last_without_batch",
        classifier,
        (floats(224, 224, 3),),
        "0",
        "(224, 224, 3)",
        "(N, 3, H, W)",
        "the input looks channels last and without a batch dimension: --input 1,3,224,224 runs",
    ),
    Fault(
        "gray_image",
        classifier,
        (floats(1, 1, 224, 224),),
        "0",
        "(1, 1, 224, 224)",
        "(N, 3, H, W)",
        "--input 1,3,224,224 runs; for this input, `0` would need in_channels=1",
    ),
    Fault(
        "matrix",
        classifier,
        (floats(224, 224),),
        "0",
        "(224, 224)",
        "(N, 3, H, W)",
        "the batch and channel dimensions are missing: --input 1,3,224,224 runs",
    ),
    Fault(
        "norm_of_other_width",
        norm_of_other_width,
        (floats(1, 3, 8, 8),),
        "1",
        "(1, 16, 6, 6)",
        "(N, 8, H, W)",
        "`1` would need num_features=16",
        producer="0",
    ),
    # ReLU stands between: the layer before has no argument to change
    Fault("two_linears", two_linears, (floats(1, 8),), "2", "(1, 20)", "(*, 30)", "`2` would need in_features=20", producer="1"),
    Fault(
        "adjacent_linears",
        adjacent_linears,
        (floats(1, 8),),
        "1",
        "(1, 20)",
        "(*, 30)",
        "`1` would need in_features=20, or `0` would need out_features=30",
        producer="0",
    ),
    Fault(
        "two_faults",
        two_faults,
        (floats(1, 8),),
        "2",
        "(1, 20)",
        "(*, 30)",
        "`2` would need in_features=20; then `4` raises",
        before=("0", "1"),
        after=("3", "4"),
    ),
    Fault(
        "tokens_as_floats",
        tokens,
        (floats(1, 128),),
        "0",
        "(1, 128) float32",
        "ids of dtype int64 or int32",
        "ids are integers: --input 1,128:int64 runs",
    ),
    Fault(
        "signal",
        signal,
        (floats(1, 1, 800),),
        "3",
        "(1, 800)",
        "(*, 1000)",
        "--input 1,1,1000 runs; for this input, `3` would need in_features=800",
    ),
    Fault(  # 256 / 16 = 16: 256 patches for 196 positions
        "vision_transformer",
        patches,
        (floats(1, 3, 256, 256),),
        "",
        "add of (1, 256, 8) and (1, 196, 8)",
        "equal sizes, or 1, in dimension 1",
        "--input 1,3,224,224 runs",
        producer="embed",
    ),
    Fault("checks_its_size", checks_its_size, (floats(1, 3, 60, 60),), "", "(1, 3, 60, 60)", "", "--input 1,3,64,64 runs"),
    Fault(
        "branches",
        sum_of_branches,
        (floats(1, 8),),
        "right",
        "(1, 8)",
        "(*, 6)",
        "`right` would need in_features=8",
        before=("left",),
        producer="",
    ),
]


@pytest.mark.parametrize("fault", MODELS, ids=lambda fault: fault.name)
def test_a_model_is_explained_word_for_word(fault: Fault):
    test_a_fault_is_found_and_explained(fault)

    failure = netlens.summary(fault.build(), fault.inputs).failure
    assert failure is not None
    assert fault.producer is None or failure.producer == fault.producer


# -- faults that have nothing to do with shapes ------------------------------------------------------------------------------------------


def raises(error: Exception) -> Callable[..., Any]:
    def run(m: Any, x: Tensor) -> Tensor:
        raise error

    return run


UNRELATED = {
    "attribute": (lambda m, x: m.fc3(x), "AttributeError: 'Net' object has no attribute 'fc3'"),
    "name": (lambda m, x: y, "NameError: name 'y' is not defined"),  # noqa: F821
    "zero_division": (lambda m, x: x / (1 // 0), "ZeroDivisionError: integer division or modulo by zero"),
    "key": (lambda m, x: {}["logits"], "KeyError: 'logits'"),
    "user": (raises(ValueError("no such mode")), "ValueError: no such mode"),
    "assertion": (raises(AssertionError()), "AssertionError"),
    "not_implemented": (raises(NotImplementedError("later")), "NotImplementedError: later"),
    "several_lines": (raises(RuntimeError("first\n  second")), "first second"),
    "very_long": (raises(RuntimeError("x" * 10_000)), "x" * 397 + "..."),
}


@pytest.mark.parametrize("name", UNRELATED)
def test_other_errors_are_told_in_their_own_words_without_a_search(name: str, monkeypatch: pytest.MonkeyPatch):
    run, message = UNRELATED[name]
    monkeypatch.setattr(failure_module, "_Bench", None)  # a search would end with a TypeError
    model = Net(lambda m, x: run(m, m.fc1(x)), fc1=nn.Linear(4, 4))

    report = netlens.summary(model, floats(1, 4))

    failure = report.failure
    assert failure is not None
    assert (failure.path, failure.type, failure.producer) == ("", "Net", "fc1")
    assert (failure.got, failure.expects, failure.remedy) == ("", "", "")
    assert failure.message == message
    assert failure.source.startswith("test_failures.py:")
    assert ran(report) == {"": False, "fc1": True}


def test_the_source_is_the_line_in_the_users_code():
    def forward(m: Any, x: Tensor) -> Tensor:
        return m.fc(x)  # the line

    failure = netlens.summary(Net(forward, fc=nn.Linear(3, 2)), floats(1, 4)).failure

    assert failure is not None
    assert re.fullmatch(r"test_failures\.py:\d+: return m\.fc\(x\)  # the line", failure.source)


def test_an_exception_that_the_model_translates_names_the_layer_and_both_errors():
    def forward(m: Any, x: Tensor) -> Tensor:
        try:
            return m.fc(x)
        except RuntimeError as error:
            raise ValueError("bad batch") from error

    failure = netlens.summary(Net(forward, fc=nn.Linear(3, 2)), floats(1, 4), device="cpu").failure

    assert failure is not None
    assert (failure.path, failure.type, failure.got, failure.expects) == ("fc", "Linear", "(1, 4)", "(*, 3)")
    assert re.fullmatch(r"ValueError: bad batch \(after .*mat1 and mat2 shapes cannot be multiplied \(1x4 and 3x2\)\)", failure.message)


def test_an_exception_that_the_model_handles_is_no_failure():
    def forward(m: Any, x: Tensor) -> Tensor:
        try:
            return m.first(x)
        except RuntimeError:
            return m.second(x)

    report = netlens.summary(Net(forward, first=nn.Linear(3, 2), second=nn.Linear(4, 2)), floats(1, 4))

    assert report.failure is None
    assert ran(report) == {"": True, "first": False, "second": True}


def test_a_fault_after_a_handled_exception_is_the_later_one():
    def forward(m: Any, x: Tensor) -> Tensor:
        with contextlib.suppress(RuntimeError):
            m.first(x)
        return m.second(x)

    failure = netlens.summary(Net(forward, first=nn.Linear(3, 2), second=nn.Linear(5, 2)), floats(1, 4)).failure

    assert failure is not None
    assert (failure.path, failure.expects) == ("second", "(*, 5)")


def test_what_autocast_repairs_on_a_real_device_is_no_failure():
    """On meta it does nothing: there a layer of bfloat16 gets float32."""

    def forward(m: Any, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return m.fc(x)

    report = netlens.summary(Net(forward, fc=nn.Linear(4, 2).bfloat16()), floats(1, 4))

    assert report.failure is None
    assert report.outputs[0].dtype == "bfloat16"


def test_a_batch_norm_over_one_value_is_no_failure_in_eval_mode():
    """In training mode it would raise: one value has no variance."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.BatchNorm1d(3)).train()

    report = netlens.summary(model, floats(1, 4))

    assert report.failure is None
    assert (report.run.mode, report.memory.saved_mode) == ("eval", "eval")


def test_a_layer_with_a_forward_of_its_own_is_not_judged_by_its_base_class():
    """It is a linear layer of 4 features on the last but one dimension; what fails is its view."""

    class Turned(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.transpose(-1, -2)).view(-1, 7)

    failure = netlens.summary(nn.Sequential(Turned(4, 3)), floats(1, 4, 5)).failure

    assert failure is not None
    assert (failure.path, failure.type) == ("0", "Turned")
    assert failure.expects == "a multiple of 7 elements for the shape (-1, 7)"  # 5 x 3 = 15 elements


def test_a_model_that_cannot_be_copied_is_still_explained():
    class Locked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(x)

        def __deepcopy__(self, memo: Any) -> Any:
            raise RuntimeError("not to be copied")

    failure = netlens.summary(Locked(), floats(1, 4), device="cpu").failure
    assert failure is not None
    assert (failure.path, failure.got, failure.expects, failure.remedy) == ("fc", "(1, 4)", "(*, 3)", "")


# -- the search is bounded, silent, and leaves nothing behind -----------------------------------------------------------------------------


def test_the_search_ends_in_time_and_proposes_nothing_that_was_not_run():
    """No size runs: the flatten gives 8 x n features, and 7 is no multiple. Every run takes a tenth of a second."""
    runs = []

    def forward(m: Any, x: Tensor) -> Tensor:
        runs.append(tuple(x.shape))
        time.sleep(0.1)
        return m.fc(m.conv(x).flatten(1))

    model = Net(forward, conv=nn.Conv2d(3, 8, 3), fc=nn.Linear(7, 2))
    begin = time.monotonic()
    failure = netlens.summary(model, floats(1, 3, 32, 32)).failure

    assert time.monotonic() - begin < 4
    assert len(runs) < 25
    assert failure is not None and "--input" not in failure.remedy
    assert failure.remedy == "`fc` would need in_features=7200 (8 x 30 x 30)"


def test_a_deep_model_is_not_searched_for_longer():
    layers = [nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()) for _ in range(300)]
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), *layers, nn.Flatten(), nn.Linear(7, 2))
    begin = time.monotonic()
    first = netlens.summary(nn.Sequential(*list(model)[:-1]), floats(1, 3, 32, 32))
    one_run = time.monotonic() - begin

    begin = time.monotonic()
    failure = netlens.summary(model, floats(1, 3, 32, 32)).failure

    assert first.failure is None and failure is not None
    assert failure.path == "302"
    assert time.monotonic() - begin < one_run + 3


def test_the_search_prints_nothing_and_leaves_the_model_and_the_random_state():
    def forward(m: Any, x: Tensor) -> Tensor:
        print("shape", tuple(x.shape))
        m.calls = getattr(m, "calls", 0) + 1
        torch.rand(1)
        return m.fc(m.conv(x).flatten(1))

    model = Net(forward, conv=nn.Conv2d(3, 8, 3), fc=nn.Linear(8 * 30 * 30, 2))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x = floats(1, 3, 40, 40)
    state = torch.get_rng_state()

    failure = netlens.summary(model, x, device="cpu").failure

    assert failure is not None and failure.remedy.startswith("--input 1,3,32,32 runs")
    assert torch.equal(torch.get_rng_state(), state)
    assert not hasattr(model, "calls") and model.training and model.fc.in_features == 7200
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_search_is_silent(capsys: pytest.CaptureFixture[str]):
    def forward(m: Any, x: Tensor) -> Tensor:
        print("ran")
        return m.fc(m.conv(x).flatten(1))

    netlens.summary(Net(forward, conv=nn.Conv2d(3, 8, 3), fc=nn.Linear(7200, 2)), floats(1, 3, 40, 40))

    assert capsys.readouterr().out == "ran\n"  # the one run that failed


def test_inputs_of_several_arguments_are_all_said():
    def forward(m: Any, image: Tensor, length: Tensor) -> Tensor:
        return m.fc(m.conv(image).flatten(1)) + length

    model = Net(forward, conv=nn.Conv2d(3, 8, 3), fc=nn.Linear(8 * 30 * 30, 2))
    report = netlens.summary(model, (floats(1, 3, 40, 40),), kwargs={"length": ids(1)})

    assert report.failure is not None
    assert report.failure.remedy.startswith(
        "--input 1,3,32,32 --input length=1:int64 runs; for this input, `fc` would need in_features=11552"
    )


# -- why meta was not enough ------------------------------------------------------------------------------------------------------------

REASONS = {
    "item": (lambda x: x * x.sum().item(), "part reads values (.item(), bool() or int()), which the meta device does not have"),
    "branch": (lambda x: x if x.sum() > 0 else -x, "part reads values (.item(), bool() or int()), which the meta device does not have"),
    "numpy": (lambda x: torch.from_numpy(x.numpy()), "part reads values (numpy), which the meta device does not have"),
    "tolist": (lambda x: torch.tensor(x.tolist()), "part reads values (tolist), which the meta device does not have"),
    "nonzero": (lambda x: x.nonzero(), "part reads values (nonzero), which the meta device does not have"),
    "mask": (lambda x: x[x > 0], "part reads values (a boolean mask as index), which the meta device does not have"),
    "unique": (lambda x: x.unique(), "part reads values (unique), which the meta device does not have"),
    "equal": (lambda x: x if torch.equal(x, x) else -x, "part reads values (bool), which the meta device does not have"),
    "sparse": (lambda x: x.to_sparse().to_dense(), "part calls to_sparse, which the meta device cannot run"),
    "device": (
        lambda x: x * (1 // (x.device.type == "cpu")),
        "run for real to make sure, because the meta device met ZeroDivisionError: integer division or modulo by zero",
    ),
}


@pytest.mark.parametrize("name", REASONS)
def test_the_reason_why_meta_was_not_enough_is_a_sentence_for_people(name: str):
    run, why = REASONS[name]

    report = netlens.summary(Net(lambda m, x: m.part(m.fc(x)), fc=nn.Linear(4, 4), part=Net(lambda m, x: run(x))), floats(1, 4))

    assert report.failure is None
    assert (report.run.on, report.run.why) == ("cpu", why)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("fasterrcnn_mobilenet_v3_large_320_fpn", "rpn reads values (nonzero), which the meta device does not have"),
        ("retinanet_resnet50_fpn", "the model reads values (a boolean mask as index), which the meta device does not have"),
        ("ssdlite320_mobilenet_v3_large", "the model reads values (a boolean mask as index), which the meta device does not have"),
    ],
)
def test_the_reason_of_a_detection_model(name: str, why: str):
    """Without the real run that follows, which takes seconds."""
    import torchvision

    def build() -> nn.Module:
        return torchvision.models.get_model(name, weights=None, weights_backbone=None)

    def inputs(_model: nn.Module) -> list[Inputs]:
        return [Inputs("test", lambda _model, device: (([torch.empty(3, 320, 320, device=device)],), {}, ()))]

    tried = attempts.attempt(Subject(name, build, False, inputs), "meta")

    assert attempts._brief(tried) == why


@pytest.mark.skipif(torch.cuda.is_available(), reason="here the device exists")
def test_a_tensor_on_a_device_that_is_not_there():
    model = Net(lambda m, x: m.fc(x) + torch.zeros(2, device="cuda"), fc=nn.Linear(4, 2))

    failure = netlens.summary(model, floats(1, 4)).failure

    assert failure is not None
    assert (failure.path, failure.producer, failure.remedy) == ("", "fc", "make tensors where the input is: device=x.device")


def test_distributions_run_on_meta():
    report = netlens.summary(Net(lambda m, x: torch.distributions.Normal(x, x.abs() + 1).rsample()), floats(1, 4))

    assert (report.failure, report.run.on) == (None, "meta")


# -- on the command line ------------------------------------------------------------------------------------------------------------------

NETS = """
import torch
from torch import nn

class Flat(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.fc = nn.Linear(8 * 32 * 32, 10)
    def forward(self, x):
        return self.fc(torch.flatten(self.conv(x), 1))

class Skip(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
    def forward(self, x):
        return torch.cat([x, self.conv(x)], 1)

class Rude(nn.Module):
    def forward(self, x):
        raise ValueError("\\x1b[2J\\x1b]0;owned\\x07first\\nsecond")

def Norm(): return nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(8))
def Tokens(): return nn.Sequential(nn.Embedding(100, 16), nn.Linear(16, 4))
def Lstm(): return nn.Sequential(nn.LSTM(8, 4), nn.Linear(4, 2))
def Pool(): return nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(8))
def Groups(): return nn.GroupNorm(4, 32)
def Attention(): return nn.TransformerEncoderLayer(64, 4, 64, batch_first=True)
def Unflat(): return nn.Sequential(nn.Linear(8, 30), nn.Unflatten(1, (4, 7)))
def Layers(): return nn.LayerNorm(64)

class Typo(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(4, 4)
    def forward(self, x):
        return self.fc2(self.fc1(x))
"""

COMMANDS = {
    # 8 x 64 x 64 = 32768, 8 x 32 x 32 = 8192
    "Flat 1,3,64,64": (
        "layer `fc` Linear expects (*, 8192), got (1, 32768) from `conv`",
        "--input 1,3,32,32 runs; for this input, `fc` would need in_features=32768 (8 x 64 x 64)",
    ),
    "Skip 1,3,9,9": (
        "the forward of Skip expects (1, *, 9, 9) for each, got cat of (1, 3, 9, 9) and (1, 8, 7, 7) after `conv`",
        "see nets.py:18: return torch.cat([x, self.conv(x)], 1)",
    ),
    "Rude 1,4": ("the forward of Rude raised: ValueError: \\x1b[2J\\x1b]0;owned\\x07first second", 'see nets.py:22: raise ValueError("'),
    "Norm 1,3,8,8": ("layer `1` BatchNorm2d expects (N, 8, H, W), got (1, 16, 6, 6) from `0`", "`1` would need num_features=16"),
    "Tokens 1,128": (
        "layer `0` Embedding expects ids of dtype int64 or int32, got (1, 128) float32",
        "ids are integers: --input 1,128:int64 runs",
    ),
    "Lstm 5,1,8": (
        "layer `1` Linear expects a tensor, got a tuple of (5, 1, 4), a tuple from `0`",
        "`0` returned a tuple: pass on the item that is meant, perhaps [0]",
    ),
    "Pool 1,3,9,9": ("layer `1` MaxPool2d expects (N, C, H >= 8, W >= 8), got (1, 4, 7, 7) from `0`", "--input 1,3,32,32 runs"),
    "Groups 2,24,8,8": (
        "the forward of GroupNorm expects (N, 32, *), got (2, 24, 8, 8)",
        "--input 2,32,8,8 runs; for this input, `the model` would need num_channels=24",
    ),
    "Attention 1,10,32": (
        "layer `self_attn` MultiheadAttention expects query (N, L, 64), got query (1, 10, 32)",
        "--input 1,10,64 runs",
    ),
    "Unflat 1,8": ("layer `1` Unflatten expects 28 = 4 x 7 in dimension 1, got (1, 30) from `0`", ""),
    "Layers 2,10,48": (
        "the forward of LayerNorm expects (*, 64), got (2, 10, 48)",
        "--input 2,10,64 runs; for this input, `the model` would need normalized_shape=48",
    ),
    "Typo 1,4": (
        "the forward of Typo raised: AttributeError: 'Typo' object has no attribute 'fc2'",
        "see nets.py:38: return self.fc2(self.fc1(x))",
    ),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_the_command_prints_the_table_then_two_lines_and_exits_with_2(command: str, netlens, tmp_path):
    (tmp_path / "nets.py").write_text(NETS)
    name, size = command.split()
    error, hint = COMMANDS[command]

    done = netlens("summary", f"nets.py:{name}", "--input", size, cwd=tmp_path)

    assert done.returncode == 2
    first, second = done.stderr.splitlines()
    assert first == f"error: {error}"
    assert second.startswith(f"hint: {hint}")
    assert "✗" in done.stdout and "\x1b" not in done.stdout + done.stderr
