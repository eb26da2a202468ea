"""Hand-derived cases: what autograd keeps for backward. `N*4` below is elements times four bytes."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tests.lenses.summary_case import Case, Net, floats


class ConvWithFrozenNorm(nn.Module):
    """Keeps its batch norm in eval mode whatever the mode of the model, as detection backbones do."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.train()

    def train(self, mode: bool = True) -> ConvWithFrozenNorm:
        super().train(mode)
        self.norm.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution, then linear layers on channels-last data, a learned scale, a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(2, 2, 3, padding=1, groups=2)
        self.block = nn.Sequential(nn.LayerNorm(2), nn.Linear(2, 8), nn.GELU(), nn.Linear(8, 2))
        self.scale = nn.Parameter(torch.ones(2, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.block(self.depthwise(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return x + self.scale * y


def conv_norm_relu(inplace: bool) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(inplace), nn.Conv2d(4, 2, 1))


def between_two_linears(middle: nn.Module) -> nn.Module:
    """Linear(4, 6), `middle`, Linear(6, 2): 30 + 14 parameters, 24 + 12 MACs a row."""
    return nn.Sequential(nn.Linear(4, 6), middle, nn.Linear(6, 2))


def two_branches(run: Any) -> nn.Module:
    """Linear(4, 3) twice: 30 parameters, 24 MACs a row."""
    return Net(run, a=nn.Linear(4, 3), b=nn.Linear(4, 3))


def concatenated(net: Any, x: Tensor) -> Tensor:
    return net.head(torch.cat([net.a(x).relu(), net.b(x).relu()], 1))


def gated_halves(net: Any, x: Tensor) -> Tensor:
    value, gate = net.fc(x).chunk(2, -1)
    return value * gate.sigmoid()


def residual(net: Any, x: Tensor) -> Tensor:
    y = net.a(x).relu()
    return y + net.b(y)


def without_grad(net: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        features = net.backbone(x).relu()
    return net.head(features)


def checkpointed(use_reentrant: bool) -> nn.Module:
    def run(net: Any, x: Tensor) -> Tensor:
        return net.head(checkpoint(net.block, net.stem(x), use_reentrant=use_reentrant))

    block = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 6))
    return Net(run, stem=nn.Linear(4, 6), block=block, head=nn.Linear(6, 2))


MIDDLES: tuple[Case, ...] = (
    # In all of these 3 rows: params 44 (+ those of the middle), MACs 3*36 = 108, and the second linear keeps its input 3*6*4 = 72.
    # gelu keeps its input, another 72.
    Case("gelu", lambda: between_two_linears(nn.GELU()), lambda: (floats(3, 4),), parameters=44, macs=108, output=(3, 2), saved=144),
    # relu keeps its result, which is the 72 already counted, whether in place or not.
    Case("relu", lambda: between_two_linears(nn.ReLU()), lambda: (floats(3, 4),), parameters=44, macs=108, output=(3, 2), saved=72),
    Case(
        "relu_in_place",
        lambda: between_two_linears(nn.ReLU(inplace=True)),
        lambda: (floats(3, 4),),
        parameters=44,
        macs=108,
        output=(3, 2),
        saved=72,
    ),
    # silu needs its input; in place it must keep a copy of it, so nothing is won: 72 + 72.
    Case(
        "silu_in_place",
        lambda: between_two_linears(nn.SiLU(inplace=True)),
        lambda: (floats(3, 4),),
        parameters=44,
        macs=108,
        output=(3, 2),
        saved=144,
    ),
    # dropout keeps its noise. On the CPU and on meta that is x * noise with float noise, 72 (a GPU's fused dropout keeps a bool mask, 18).
    Case(
        "dropout", lambda: between_two_linears(nn.Dropout(0.5)), lambda: (floats(3, 4),), parameters=44, macs=108, output=(3, 2), saved=144
    ),
    # The identity keeps nothing of its own.
    Case("identity", lambda: between_two_linears(nn.Identity()), lambda: (floats(3, 4),), parameters=44, macs=108, output=(3, 2), saved=72),
    # softmax keeps its result = input of the second linear.
    Case(
        "softmax_between",
        lambda: between_two_linears(nn.Softmax(-1)),
        lambda: (floats(3, 4),),
        parameters=44,
        macs=108,
        output=(3, 2),
        saved=72,
    ),
    # LayerNorm: +12 params; input 72, mean and rstd 3*4 each.
    Case(
        "layer_norm",
        lambda: between_two_linears(nn.LayerNorm(6)),
        lambda: (floats(3, 4),),
        parameters=56,
        macs=108,
        output=(3, 2),
        saved=168,
    ),
    # BatchNorm1d: +12 params, 13 buffers; input 72, batch mean and invstd 6*4 each.
    Case(
        "batch_norm_1d",
        lambda: between_two_linears(nn.BatchNorm1d(6)),
        lambda: (floats(3, 4),),
        parameters=56,
        macs=108,
        output=(3, 2),
        saved=192,
        buffers=13,
    ),
)


CHAINS: tuple[Case, ...] = (
    # log_softmax keeps its result, 3*5*4. Params 25, MACs 3*20.
    Case(
        "log_softmax",
        lambda: nn.Sequential(nn.Linear(4, 5), nn.LogSoftmax(-1)),
        lambda: (floats(3, 4),),
        parameters=25,
        macs=60,
        output=(3, 5),
        saved=60,
    ),
    # Cross entropy: the log_softmax result 60 (kept by both of its parts), the total weight, one float; the labels are an input.
    Case(
        "cross_entropy",
        lambda: Net(lambda net, x, labels: F.cross_entropy(net.fc(x), labels), fc=nn.Linear(4, 5)),
        lambda: (floats(3, 4), torch.tensor([0, 1, 2])),
        parameters=25,
        macs=60,
        output=(),
        saved=64,
    ),
    # conv 2*4*25 elements * 27 = 5400, 1x1 conv 2*2*25 * 4 = 400. Params 108 + 8 + 10, buffers 9.
    # Saved: conv output 200*4 = 800 (input of the norm), batch mean and invstd 2*4*4 = 32, relu result 800 = input of the last conv.
    # In place it is the norm's output overwritten, otherwise a tensor of its own while nobody keeps the norm's output: 1632 either way.
    Case(
        "conv_norm_relu_in_place",
        lambda: conv_norm_relu(True),
        lambda: (floats(2, 3, 5, 5),),
        parameters=126,
        macs=5800,
        output=(2, 2, 5, 5),
        saved=1632,
        own_macs={"0": 5400, "1": 0, "2": 0, "3": 400},
        buffers=9,
    ),
    Case(
        "conv_norm_relu",
        lambda: conv_norm_relu(False),
        lambda: (floats(2, 3, 5, 5),),
        parameters=126,
        macs=5800,
        output=(2, 2, 5, 5),
        saved=1632,
        buffers=9,
    ),
    # The norm uses its running statistics (buffers): only its input 800 is kept. (On meta torch also keeps two tensors of 4 floats, 832:
    # its Python kernel makes up batch statistics in eval mode, the CPU's returns empty ones.)
    Case(
        "norm_kept_in_eval",
        ConvWithFrozenNorm,
        lambda: (floats(2, 3, 5, 5),),
        parameters=116,
        macs=5400,
        output=(2, 4, 5, 5),
        saved=800,
        buffers=9,
    ),
    # conv 1x1: 3*4*4 elements * 1 = 48. Params 8+8. GroupNorm: input 48*4 = 192, mean and rstd of 3*2 groups, 24 each.
    Case(
        "group_norm",
        lambda: nn.Sequential(nn.Conv2d(1, 4, 1), nn.GroupNorm(2, 4)),
        lambda: (floats(3, 1, 2, 2),),
        parameters=16,
        macs=48,
        output=(3, 4, 2, 2),
        saved=240,
    ),
    # conv 2*16 elements * 9. Max pooling keeps its input 32*4 = 128 and one int64 index a result, 8*8 = 64.
    Case(
        "max_pool",
        lambda: nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.MaxPool2d(2)),
        lambda: (floats(1, 1, 4, 4),),
        parameters=20,
        macs=288,
        output=(1, 2, 2, 2),
        saved=192,
    ),
    # Average pooling keeps its input.
    Case(
        "average_pool",
        lambda: nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.AvgPool2d(2)),
        lambda: (floats(1, 1, 4, 4),),
        parameters=20,
        macs=288,
        output=(1, 2, 2, 2),
        saved=128,
    ),
    # Pooling to 1x1 is a mean, which keeps only sizes; the head keeps the 2 pooled numbers. MACs 288 + 6, params 20+9.
    Case(
        "global_average_pool",
        lambda: nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 3)),
        lambda: (floats(1, 1, 4, 4),),
        parameters=29,
        macs=294,
        output=(1, 3),
        saved=8,
    ),
    # depthwise 2*16 elements * 9 = 288; linear on 16 rows: 16*16 twice. Params 20 + 4 + 24 + 18 + 2.
    # Saved: the norm's input 32*4 = 128 (a view of the convolution's output), mean and rstd 16*4 each, its output 128 for the first linear;
    # gelu input 16*8*4 = 512 and output 512 for the second linear; that one's output 128 for the scale.
    Case(
        "convnext_block",
        ConvNeXtBlock,
        lambda: (floats(1, 2, 4, 4),),
        parameters=68,
        macs=800,
        output=(1, 2, 4, 4),
        saved=1536,
        own_macs={"": 0, "depthwise": 288, "block.1": 256, "block.3": 256},
    ),
    # Flatten is a view: relu result and linear input are one storage, 2*8*4. conv 2*2*4 elements * 9 = 144, linear 2*24. Params 20+27.
    Case(
        "flatten_is_a_view",
        lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3)),
        lambda: (floats(2, 1, 4, 4),),
        parameters=47,
        macs=192,
        output=(2, 3),
        saved=64,
    ),
    # Transposing and flattening copies: the second linear keeps the copy 2*15*4; nobody keeps the original.
    # MACs 2*3*20 + 2*30. Params 25+32.
    Case(
        "transpose_makes_a_copy",
        lambda: Net(lambda net, x: net.b(net.a(x).transpose(1, 2).reshape(2, 15)), a=nn.Linear(4, 5), b=nn.Linear(15, 2)),
        lambda: (floats(2, 3, 4),),
        parameters=57,
        macs=180,
        output=(2, 2),
        saved=120,
    ),
)


BRANCHES: tuple[Case, ...] = (
    # 5 rows: relu results 5*3*4 = 60 each; the concatenation is a new tensor, 120, kept by the head. MACs 5*(24+12), params 30+14.
    Case(
        "concatenation",
        lambda: Net(concatenated, a=nn.Linear(4, 3), b=nn.Linear(4, 3), head=nn.Linear(6, 2)),
        lambda: (floats(5, 4),),
        parameters=44,
        macs=180,
        output=(5, 2),
        saved=240,
    ),
    # a + b keeps nothing at all.
    Case(
        "sum_of_branches",
        lambda: two_branches(lambda net, x: net.a(x) + net.b(x)),
        lambda: (floats(5, 4),),
        parameters=30,
        macs=120,
        output=(5, 3),
        saved=0,
    ),
    # a * b keeps both, 5*3*4 each.
    Case(
        "product_of_branches",
        lambda: two_branches(lambda net, x: net.a(x) * net.b(x)),
        lambda: (floats(5, 4),),
        parameters=30,
        macs=120,
        output=(5, 3),
        saved=120,
    ),
    # The halves are views of one 3*8*4 = 96 storage, kept whole though only one half is needed; the sigmoid result 3*4*4 = 48.
    Case(
        "views_keep_the_whole_storage",
        lambda: Net(gated_halves, fc=nn.Linear(4, 8)),
        lambda: (floats(3, 4),),
        parameters=40,
        macs=96,
        output=(3, 4),
        saved=144,
    ),
    # relu result 3*4*4, also the input of b. MACs 3*32, params 40.
    Case(
        "residual",
        lambda: Net(residual, a=nn.Linear(4, 4), b=nn.Linear(4, 4)),
        lambda: (floats(3, 4),),
        parameters=40,
        macs=96,
        output=(3, 4),
        saved=48,
    ),
    # Nothing is kept under no_grad; the head keeps its input 3*6*4. MACs 3*(24+12), params 30+14, all trainable.
    Case(
        "no_grad_part",
        lambda: Net(without_grad, backbone=nn.Linear(4, 6), head=nn.Linear(6, 2)),
        lambda: (floats(3, 4),),
        parameters=44,
        macs=108,
        output=(3, 2),
        saved=72,
        trainable=44,
    ),
    # Detached: the backbone keeps its input only, the model's; the head the features 72.
    Case(
        "detached_part",
        lambda: Net(lambda net, x: net.head(net.backbone(x).detach()), backbone=nn.Linear(4, 6), head=nn.Linear(6, 2)),
        lambda: (floats(3, 4),),
        parameters=44,
        macs=108,
        output=(3, 2),
        saved=72,
    ),
    # A checkpointed segment keeps its input 3*6*4 = 72; the head its own, 72. The segment is computed once: 3*(24 + 48+48 + 12).
    # Params 30 + 56+54 + 14.
    Case(
        "checkpoint",
        lambda: checkpointed(use_reentrant=False),
        lambda: (floats(3, 4),),
        parameters=154,
        macs=396,
        output=(3, 2),
        saved=144,
        own_macs={"": 0, "stem": 72, "block.0": 144, "block.2": 144, "head": 36},
    ),
    Case(
        "checkpoint_reentrant",
        lambda: checkpointed(use_reentrant=True),
        lambda: (floats(3, 4),),
        parameters=154,
        macs=396,
        output=(3, 2),
        saved=144,
        own_macs={"": 0, "stem": 72, "block.0": 144, "block.2": 144, "head": 36},
    ),
)

MEMORY = MIDDLES + CHAINS + BRANCHES
