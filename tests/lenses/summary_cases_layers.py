"""Hand-derived cases: matrix products, convolutions and recurrent layers, as modules and as functions."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from tests.lenses.summary_case import Case, Function, Net, floats, parameter

MATRIX_PRODUCTS: tuple[Case, ...] = (
    # Params 4*8+8 + 8*3+3 = 40+27. MACs 5*(32+24). Saved: fc1 keeps the model's input (excluded), relu its result 5*8*4 = 160,
    # fc2 its input, which is that same storage.
    Case(
        "linear_chain",
        build=lambda: nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)),
        inputs=lambda: (floats(5, 4),),
        parameters=67,
        macs=280,
        output=(5, 3),
        saved=160,
        own_macs={"": 0, "0": 160, "1": 0, "2": 120},
        trainable=67,
        buffers=0,
    ),
    # The same in bfloat16: 2 bytes an element, so 5*8*2 = 80 are saved.
    Case(
        "linear_chain_bfloat16",
        build=lambda: nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).to(torch.bfloat16),
        inputs=lambda: (floats(5, 4).to(torch.bfloat16),),
        parameters=67,
        macs=280,
        output=(5, 3),
        saved=80,
    ),
    # Rows are all leading dimensions: 2*3 rows * 6*4. Params 24+4. Saved: only the model's input.
    Case(
        "linear_on_3d_input",
        build=lambda: nn.Linear(6, 4),
        inputs=lambda: (floats(2, 3, 6),),
        parameters=28,
        macs=144,
        output=(2, 3, 4),
        saved=0,
    ),
    # One row: 5*3. Params 15+3.
    Case("linear_on_1d_input", lambda: nn.Linear(5, 3), lambda: (floats(5),), parameters=18, macs=15, output=(3,)),
    # Batch (2,1) against (5): broadcast to 2*5 products of (3,4)@(4,6) = 10*72. All operands are inputs.
    Case(
        "matmul_broadcast",
        lambda: Function(torch.matmul),
        lambda: (floats(2, 1, 3, 4), floats(5, 4, 6)),
        parameters=0,
        macs=720,
        output=(2, 5, 3, 6),
        saved=0,
    ),
    # 3*4*5 each.
    Case("mm", lambda: Function(torch.mm), lambda: (floats(3, 4), floats(4, 5)), parameters=0, macs=60, output=(3, 5)),
    Case("addmm", lambda: Function(torch.addmm), lambda: (floats(5), floats(3, 4), floats(4, 5)), parameters=0, macs=60, output=(3, 5)),
    # 2*3*4*5; addbmm adds the two products up, which is not a MAC more.
    Case("bmm", lambda: Function(torch.bmm), lambda: (floats(2, 3, 4), floats(2, 4, 5)), parameters=0, macs=120, output=(2, 3, 5)),
    Case(
        "baddbmm",
        lambda: Function(torch.baddbmm),
        lambda: (floats(2, 3, 5), floats(2, 3, 4), floats(2, 4, 5)),
        parameters=0,
        macs=120,
        output=(2, 3, 5),
    ),
    Case(
        "addbmm",
        lambda: Function(torch.addbmm),
        lambda: (floats(3, 5), floats(2, 3, 4), floats(2, 4, 5)),
        parameters=0,
        macs=120,
        output=(3, 5),
    ),
    # Matrix (3,4) times vector: 12. Torch's own FlopCounterMode has no formula for this and the next four.
    Case("mv", lambda: Function(torch.mv), lambda: (floats(3, 4), floats(4)), parameters=0, macs=12, output=(3,)),
    Case("addmv", lambda: Function(torch.addmv), lambda: (floats(3), floats(3, 4), floats(4)), parameters=0, macs=12, output=(3,)),
    # n = 7; a scalar has the shape ().
    Case("dot", lambda: Function(torch.dot), lambda: (floats(7), floats(7)), parameters=0, macs=7, output=()),
    Case("vdot", lambda: Function(torch.vdot), lambda: (floats(7), floats(7)), parameters=0, macs=7, output=()),
    # `@` picks the operator by rank: (3,4)@(4) is mv = 12, (3)@(3) is dot = 3; together 15.
    Case(
        "matmul_of_vectors",
        lambda: Function(lambda m, v, w: (m @ v) @ w),
        lambda: (floats(3, 4), floats(4), floats(3)),
        parameters=0,
        macs=15,
        output=(),
    ),
    # b*h*q*k*d = 2*3*4*5*6 = 720.
    Case(
        "einsum_attention_scores",
        lambda: Function(lambda q, k: torch.einsum("bhqd,bhkd->bhqk", q, k)),
        lambda: (floats(2, 3, 4, 6), floats(2, 3, 5, 6)),
        parameters=0,
        macs=720,
        output=(2, 3, 4, 5),
    ),
    # Contracts i and j: 2*3 * (4*5) * 6 with a weight of (4,5,6). Params 120.
    Case(
        "einsum_over_two_dimensions",
        lambda: Net(lambda net, x: torch.einsum("abij,ijk->abk", x, net.weight), weight=parameter(4, 5, 6)),
        lambda: (floats(2, 3, 4, 5),),
        parameters=120,
        macs=720,
        output=(2, 3, 6),
        own_macs={"": 720},
    ),
    # multi_dot of (10,2)(2,10)(10,2) takes the cheaper order A(BC): 2*10*2 + 10*2*2 = 80, not (AB)C = 400.
    Case(
        "multi_dot_picks_the_cheaper_order",
        lambda: Function(lambda *matrices: torch.linalg.multi_dot(matrices)),
        lambda: (floats(10, 2), floats(2, 10), floats(10, 2)),
        parameters=0,
        macs=80,
        output=(10, 2),
    ),
    # N * out * in1 * in2 = 2*5*3*4. Params 60+5.
    Case("bilinear", lambda: nn.Bilinear(3, 4, 5), lambda: (floats(2, 3), floats(2, 4)), parameters=65, macs=120, output=(2, 5)),
    # Batch 2, 3 x 5 pairs of 4 numbers: 120; the power does not matter.
    Case(
        "cdist_euclidean",
        lambda: Function(torch.cdist),
        lambda: (floats(2, 3, 4), floats(2, 5, 4)),
        parameters=0,
        macs=120,
        output=(2, 3, 5),
    ),
    Case(
        "cdist_manhattan",
        lambda: Function(torch.cdist, p=1.0),
        lambda: (floats(2, 3, 4), floats(2, 5, 4)),
        parameters=0,
        macs=120,
        output=(2, 3, 5),
    ),
    # Above 25 rows torch computes p = 2 by another operator (a matrix product with two helper columns); the convention stays 26*2*3.
    Case(
        "cdist_of_many_points",
        lambda: Function(torch.cdist),
        lambda: (floats(26, 3), floats(2, 3)),
        parameters=0,
        macs=156,
        output=(26, 2),
    ),
    # Functions on own parameters. conv: 4*3*3 outputs * 27 = 972; mean over h, w; linear 4->6: 24; @ (6,2): 12; einsum 2->3: 6.
    # Params 108+24+12+6. Saved: the mean keeps nothing, so the inputs of linear, @ and einsum: (4+6+2)*4 = 48.
    Case(
        "functions_on_own_parameters",
        lambda: Net(
            lambda net, x: torch.einsum("nc,kc->nk", F.linear(F.conv2d(x, net.kernel).mean((2, 3)), net.linear) @ net.matrix, net.table),
            kernel=parameter(4, 3, 3, 3),
            linear=parameter(6, 4),
            matrix=parameter(6, 2),
            table=parameter(3, 2),
        ),
        lambda: (floats(1, 3, 5, 5),),
        parameters=150,
        macs=1014,
        output=(1, 3),
        saved=48,
        own_macs={"": 1014},
    ),
    # A convolution written as unfold + matmul: (4,18) @ (1,18,9) = 648, unfolding is free. Params 72.
    Case(
        "unfold_then_matmul",
        lambda: Net(lambda net, x: net.weight @ net.unfold(x), weight=parameter(4, 18), unfold=nn.Unfold(3)),
        lambda: (floats(1, 2, 5, 5),),
        parameters=72,
        macs=648,
        output=(1, 4, 9),
        own_macs={"": 648, "unfold": 0},
    ),
)


def deformable_convolution() -> nn.Module:
    from torchvision.ops import DeformConv2d

    return DeformConv2d(2, 3, 3)


CONVOLUTIONS: tuple[Case, ...] = (
    # Out (8+2-3)//2+1 = 4: 2*4*4*4 elements * 3*9. Params 4*27+4.
    Case(
        "conv2d_stride_padding",
        lambda: nn.Conv2d(3, 4, 3, stride=2, padding=1),
        lambda: (floats(2, 3, 8, 8),),
        parameters=112,
        macs=3456,
        output=(2, 4, 4, 4),
        saved=0,
    ),
    # 6*3*3 elements * 4/2*9. Params 6*2*9+6.
    Case(
        "conv2d_grouped",
        lambda: nn.Conv2d(4, 6, 3, groups=2),
        lambda: (floats(1, 4, 5, 5),),
        parameters=114,
        macs=972,
        output=(1, 6, 3, 3),
    ),
    # Depthwise 4*36*9 = 1296, pointwise 8*36*4 = 1152. Params 36 + 40. Saved: the pointwise input 4*36*4.
    Case(
        "conv2d_depthwise_separable",
        lambda: nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False), nn.Conv2d(4, 8, 1)),
        lambda: (floats(1, 4, 6, 6),),
        parameters=76,
        macs=2448,
        output=(1, 8, 6, 6),
        saved=576,
        own_macs={"0": 1296, "1": 1152},
    ),
    # Reach 5, out 7-5+1 = 3: 3*9 elements * 2*9. Params 54+3.
    Case(
        "conv2d_dilated",
        lambda: nn.Conv2d(2, 3, 3, dilation=2),
        lambda: (floats(1, 2, 7, 7),),
        parameters=57,
        macs=486,
        output=(1, 3, 3, 3),
    ),
    # Out 9-4+1 = 6: 2*5*6 elements * 3*4. Params 60+5.
    Case("conv1d", lambda: nn.Conv1d(3, 5, 4), lambda: (floats(2, 3, 9),), parameters=65, macs=720, output=(2, 5, 6)),
    # Out (2,3,4): 3*24 elements * 2*8. Params 48+3.
    Case("conv3d", lambda: nn.Conv3d(2, 3, 2), lambda: (floats(1, 2, 3, 4, 5),), parameters=51, macs=1152, output=(1, 3, 2, 3, 4)),
    # No batch dimension: 4*16 elements * 27.
    Case("conv2d_unbatched", lambda: nn.Conv2d(3, 4, 3), lambda: (floats(3, 6, 6),), parameters=112, macs=1728, output=(4, 4, 4)),
    # Nothing in, nothing to do.
    Case("conv2d_empty_batch", lambda: nn.Conv2d(3, 4, 3), lambda: (floats(0, 3, 8, 8),), parameters=112, macs=0, output=(0, 4, 6, 6)),
    # 16 elements * 9. Padding makes a 6x6 copy, which the convolution keeps: 36*4.
    Case(
        "conv2d_circular_padding",
        lambda: nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular"),
        lambda: (floats(1, 1, 4, 4),),
        parameters=10,
        macs=144,
        output=(1, 1, 4, 4),
        saved=144,
        own_macs={"": 144},
    ),
    # "same" with an even kernel pads one side: 16 elements * 4.
    Case(
        "conv2d_same_padding",
        lambda: nn.Conv2d(1, 1, 2, padding="same"),
        lambda: (floats(1, 1, 4, 4),),
        parameters=5,
        macs=64,
        output=(1, 1, 4, 4),
    ),
    # INPUT 2*4*25 = 200 elements * 3 * 9. Out (5-1)*2+3 = 11. Params 108+3.
    Case(
        "conv_transpose2d_stride",
        lambda: nn.ConvTranspose2d(4, 3, 3, stride=2),
        lambda: (floats(2, 4, 5, 5),),
        parameters=111,
        macs=5400,
        output=(2, 3, 11, 11),
        saved=0,
    ),
    # A deformable convolution multiplies as a plain one: 3*9 elements * 2*9; the offsets are an input. Params 54+3.
    Case(
        "deformable_convolution",
        deformable_convolution,
        lambda: (floats(1, 2, 5, 5), floats(1, 18, 3, 3)),
        parameters=57,
        macs=486,
        output=(1, 3, 3, 3),
    ),
    # INPUT 4*9 = 36 elements * 6/2 * 4. Params 4*3*4+6.
    Case(
        "conv_transpose2d_grouped",
        lambda: nn.ConvTranspose2d(4, 6, 2, stride=2, groups=2),
        lambda: (floats(1, 4, 3, 3),),
        parameters=54,
        macs=432,
        output=(1, 6, 6, 6),
    ),
    # INPUT 2*4 = 8 elements * 3 * 3. Out (4-1)*2-2+3+1 = 8. Params 18+3.
    Case(
        "conv_transpose1d_output_padding",
        lambda: nn.ConvTranspose1d(2, 3, 3, stride=2, padding=1, output_padding=1),
        lambda: (floats(1, 2, 4),),
        parameters=21,
        macs=72,
        output=(1, 3, 8),
    ),
)


def lstm_cell_loop(net: Any, x: torch.Tensor) -> torch.Tensor:
    hidden = (x.new_zeros(x.shape[1], 4), x.new_zeros(x.shape[1], 4))
    for step in x:
        hidden = net.cell(step, hidden)
    return hidden[0]


def pack_inside(net: Any, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    packed, _ = net.gru(pack_padded_sequence(x, lengths, enforce_sorted=False))
    return pad_packed_sequence(packed)[0]


RECURRENT: tuple[Case, ...] = (
    # A step of one row: layer 0: 4*3*(4+3) = 84, layer 1 sees both directions: 4*3*(6+3) = 108; 2 directions: 384; 5*2 rows.
    # Params of a direction: 12*4+12*3+24 = 108 and 12*6+12*3+24 = 132; twice 240.
    Case(
        "lstm_two_layers_bidirectional",
        lambda: nn.LSTM(4, 3, num_layers=2, bidirectional=True),
        lambda: (floats(5, 2, 4),),
        parameters=480,
        macs=3840,
        output={"0": (5, 2, 6), "1.0": (4, 2, 3), "1.1": (4, 2, 3)},
        own_macs={"": 3840},
    ),
    # 4H(I+P) + H*P = 24*6 + 12 = 156 a row, 3*2 rows. Params 24*4 + 24*2 + 48 + 2*6. h has P numbers, c has H.
    Case(
        "lstm_projection",
        lambda: nn.LSTM(4, 6, proj_size=2, batch_first=True),
        lambda: (floats(2, 3, 4),),
        parameters=204,
        macs=936,
        output={"0": (2, 3, 2), "1.0": (1, 2, 2), "1.1": (1, 2, 6)},
    ),
    # No batch dimension: 5 steps * 3*4*(3+4). Params 36+48+24.
    Case(
        "gru_unbatched",
        lambda: nn.GRU(3, 4),
        lambda: (floats(5, 3),),
        parameters=108,
        macs=420,
        output={"0": (5, 4), "1": (1, 4)},
    ),
    # Lengths 3 and 1: 4 real rows (not 6) * 84.
    Case(
        "gru_packed_input",
        lambda: Net(lambda net, packed: pad_packed_sequence(net.gru(packed)[0]), gru=nn.GRU(3, 4)),
        lambda: (pack_padded_sequence(floats(3, 2, 3), torch.tensor([3, 1])),),
        parameters=108,
        macs=336,
        output={"0": (3, 2, 4), "1": (2,)},
        own_macs={"": 0, "gru": 336},
    ),
    # The same, packed inside from an integer input that is not sorted: lengths 1 and 3.
    Case(
        "gru_packed_inside",
        lambda: Net(pack_inside, gru=nn.GRU(3, 4)),
        lambda: (floats(3, 2, 3), torch.tensor([1, 3])),
        parameters=108,
        macs=336,
        output=(3, 2, 4),
        own_macs={"gru": 336},
    ),
    # One gate: 2 steps * 4*(3+4). Params 12+16+8.
    Case("rnn_tanh", lambda: nn.RNN(3, 4), lambda: (floats(2, 1, 3),), parameters=36, macs=56, output={"0": (2, 1, 4), "1": (1, 1, 4)}),
    # 5 calls * 2 rows * 16*(3+4). Params 48+64+32.
    Case(
        "lstm_cell_loop",
        lambda: Net(lstm_cell_loop, cell=nn.LSTMCell(3, 4)),
        lambda: (floats(5, 2, 3),),
        parameters=144,
        macs=1120,
        output=(2, 4),
        own_macs={"": 0, "cell": 1120},
    ),
    # 2 rows * 12*(3+4); the hidden state is a second input.
    Case(
        "gru_cell",
        lambda: nn.GRUCell(3, 4),
        lambda: (floats(2, 3), floats(2, 4)),
        parameters=108,
        macs=168,
        output=(2, 4),
    ),
)

LAYERS = MATRIX_PRODUCTS + CONVOLUTIONS + RECURRENT
