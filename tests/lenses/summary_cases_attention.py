"""Hand-derived cases: attention in all the ways that models write it."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.lenses.summary_case import Case, Function, Net, floats, parameter


def attend_by_einsum(net: Any, x: Tensor) -> Tensor:
    q, k, v = net.qkv(x).view(*x.shape[:2], 3, 2, 4).unbind(2)
    weights = torch.einsum("bqhd,bkhd->bhqk", q, k).softmax(-1)
    return torch.einsum("bhqk,bkhd->bqhd", weights, v).flatten(2)


def attend_by_matmul(net: Any, x: Tensor) -> Tensor:
    q, k, v = net.q(x), net.k(x), net.v(x)
    return net.out((q @ k.transpose(1, 2)).softmax(-1) @ v)


def attend_fused(net: Any, x: Tensor) -> Tensor:
    q, k, v = net.qkv(x).view(*x.shape[:2], 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
    return F.scaled_dot_product_attention(q, k, v)


def attend_fused_single_head(net: Any, x: Tensor) -> Tensor:
    q, k, v = (layer(x).unsqueeze(1) for layer in (net.q, net.k, net.v))
    return net.out(F.scaled_dot_product_attention(q, k, v).squeeze(1))


class WindowAttention(nn.Module):
    """Attention scores plus a learned table, looked up by a registered integer buffer, as in Swin."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(4, 12)
        self.table = nn.Parameter(torch.zeros(3, 1))
        self.register_buffer("index", torch.arange(2)[:, None] - torch.arange(2)[None] + 1)
        nn.init.trunc_normal_(self.table, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        bias = self.table[self.index.view(-1)].view(1, 2, 2)
        return (q @ k.transpose(1, 2) + bias).softmax(-1) @ v


class CausalAttention(nn.Module):
    """A boolean mask kept as a buffer and cut to the length of the text, as in GPT-2."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(4, 12)
        self.register_buffer("causal", torch.ones(8, 8, dtype=torch.bool).tril(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        hidden = ~self.causal[: x.shape[1], : x.shape[1]]
        return (q @ k.transpose(1, 2)).masked_fill(hidden, float("-inf")).softmax(-1) @ v


class VisionTransformer(nn.Module):
    """Patches, a class token and a position of their own, one encoder layer, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, stride=4)
        self.token = nn.Parameter(torch.zeros(1, 1, 8))
        self.position = nn.Parameter(torch.zeros(1, 5, 8))
        self.encoder = nn.TransformerEncoderLayer(8, 2, dim_feedforward=16, batch_first=True)
        self.head = nn.Linear(8, 3)
        nn.init.trunc_normal_(self.position, std=0.02)

    def forward(self, images: Tensor) -> Tensor:
        x = self.patches(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.position
        return self.head(self.encoder(x)[:, 0])


class LearnedQuery(nn.Module):
    """A Parameter handed to a child as its input, as timm's CaiT and attention pooling do."""

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(2, 4))
        self.project = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return (self.project(self.query) @ x.transpose(1, 2)).softmax(-1) @ x


FUNCTIONS: tuple[Case, ...] = (
    # B*H*Lq*Lk*(E+Ev) = 2*3*4*6*(8+5).
    Case(
        "sdpa_different_lengths_and_widths",
        lambda: Function(F.scaled_dot_product_attention),
        lambda: (floats(2, 3, 4, 8), floats(2, 3, 6, 8), floats(2, 3, 6, 5)),
        parameters=0,
        macs=1872,
        output=(2, 3, 4, 5),
        saved=0,
    ),
    # The mask does not halve the count: 2*5*5*(4+4).
    Case(
        "sdpa_causal",
        lambda: Function(F.scaled_dot_product_attention, is_causal=True),
        lambda: (floats(1, 2, 5, 4), floats(1, 2, 5, 4), floats(1, 2, 5, 4)),
        parameters=0,
        macs=400,
        output=(1, 2, 5, 4),
    ),
    # Grouped queries (torch >= 2.5): 4 query heads on 2 key heads. The QUERY heads count: 4*3*5*(8+8).
    Case(
        "sdpa_grouped_queries",
        lambda: Function(F.scaled_dot_product_attention, enable_gqa=True),
        lambda: (floats(1, 4, 3, 8), floats(1, 2, 5, 8), floats(1, 2, 5, 8)),
        parameters=0,
        macs=960,
        output=(1, 4, 3, 8),
    ),
    # A boolean mask as input: 1*1*2*3*(4+4).
    Case(
        "sdpa_boolean_mask",
        lambda: Function(F.scaled_dot_product_attention),
        lambda: (floats(1, 1, 2, 4), floats(1, 1, 3, 4), floats(1, 1, 3, 4), torch.tensor([[True, True, False], [True, False, True]])),
        parameters=0,
        macs=48,
        output=(1, 1, 2, 4),
    ),
    # qkv 2*5*8*24 = 1920, attention 2*2*5*5*(4+4) = 800. q, k and v are views of ONE storage: 2*5*24*4 = 960; output 2*2*5*4*4 = 320;
    # logsumexp N*H*Lq*4 = 80.
    Case(
        "sdpa_on_one_projection",
        lambda: Net(attend_fused, qkv=nn.Linear(8, 24, bias=False)),
        lambda: (floats(2, 5, 8),),
        parameters=192,
        macs=2720,
        output=(2, 2, 5, 4),
        saved=1360,
        own_macs={"": 800, "qkv": 1920},
    ),
    # q, k, v, out: 4 * 3*16 = 192; attention 3*3*(4+4) = 72. Params 4*20. Saved, attention being ONE operator: q, k, v 3*48; its output 48,
    # which is also the input of `out`; logsumexp 3*4 = 12. (Written out as matmuls, as on meta, it would be the 228 of the next case.)
    Case(
        "sdpa_single_head_block",
        lambda: Net(attend_fused_single_head, q=nn.Linear(4, 4), k=nn.Linear(4, 4), v=nn.Linear(4, 4), out=nn.Linear(4, 4)),
        lambda: (floats(1, 3, 4),),
        parameters=80,
        macs=264,
        output=(1, 3, 4),
        saved=204,
        own_macs={"": 72, "q": 48, "out": 48},
    ),
    # The same by matmul. MACs equal. Saved: q, k, v 3*48; softmax result 3*3*4 = 36, kept by softmax and by `@ v`; input of `out` 48.
    Case(
        "matmul_single_head_block",
        lambda: Net(attend_by_matmul, q=nn.Linear(4, 4), k=nn.Linear(4, 4), v=nn.Linear(4, 4), out=nn.Linear(4, 4)),
        lambda: (floats(1, 3, 4),),
        parameters=80,
        macs=264,
        output=(1, 3, 4),
        saved=228,
        own_macs={"": 72, "q": 48, "out": 48},
    ),
    # qkv 2*5*8*24 = 1920, scores and sums 2*2*5*5*4 each = 800. Params 192+24.
    Case(
        "attention_by_einsum",
        lambda: Net(attend_by_einsum, qkv=nn.Linear(8, 24)),
        lambda: (floats(2, 5, 8),),
        parameters=216,
        macs=2720,
        output=(2, 5, 8),
        own_macs={"": 800, "qkv": 1920},
    ),
    # qkv 3*2*4*12 = 288; scores and sums 3*2*2*4 each = 96. Params 48+12+3. Buffer: 2*2 indices.
    # Saved: qkv 3*2*12*4 = 288 (q, k, v are views of it), softmax 3*4*4 = 48; the index is a buffer; + keeps nothing.
    Case(
        "window_attention_with_index_buffer",
        WindowAttention,
        lambda: (floats(3, 2, 4),),
        parameters=63,
        macs=384,
        output=(3, 2, 4),
        saved=336,
        own_macs={"": 96, "qkv": 288},
        buffers=4,
    ),
    # qkv 2*3*4*12 = 288; scores and sums 2*3*3*4 each = 144: masked places are multiplied too. Buffer 64.
    # Saved: qkv 2*3*12*4 = 288, the inverted mask, a new tensor of 3*3 bools = 9, softmax 2*9*4 = 72.
    Case(
        "causal_attention_with_mask_buffer",
        CausalAttention,
        lambda: (floats(2, 3, 4),),
        parameters=60,
        macs=432,
        output=(2, 3, 4),
        saved=369,
        own_macs={"": 144, "qkv": 288},
        buffers=64,
    ),
    # project 2*4*4 = 32; batch 3: (2,4)@(4,5) and (2,5)@(5,4): 3*40 each. Params 8+20.
    # Saved: the query is a parameter, x the input; `projected @ x^T` needs only x; softmax 3*2*5*4 = 120.
    Case(
        "parameter_as_input_of_a_child",
        LearnedQuery,
        lambda: (floats(3, 5, 4),),
        parameters=28,
        macs=272,
        output=(3, 2, 4),
        saved=120,
        own_macs={"": 240, "project": 32},
    ),
)


MODULES: tuple[Case, ...] = (
    # 4 projections of 2*3 rows * 64 = 1536; 2*3*3*(8+8) = 288, whatever the heads. Params 192+24+64+8.
    # out_proj is never called: a function uses its weight, so its MACs are the parent's.
    Case(
        "multihead_attention_with_weights",
        lambda: nn.MultiheadAttention(8, 2, batch_first=True),
        lambda: (floats(2, 3, 8),) * 3,
        parameters=288,
        macs=1824,
        output={"0": (2, 3, 8), "1": (2, 3, 3)},
        own_macs={"": 1824, "out_proj": 0},
    ),
    # The fused way is the same work; the second output is None and no leaf.
    Case(
        "multihead_attention_without_weights",
        lambda: nn.MultiheadAttention(8, 2, batch_first=True),
        lambda: (floats(2, 3, 8),) * 3,
        kwargs=lambda: {"need_weights": False},
        parameters=288,
        macs=1824,
        output={"0": (2, 3, 8)},
        own_macs={"": 1824, "out_proj": 0},
    ),
    # q 2*3*64 = 384, k 2*4*5*8 = 320, v 2*4*6*8 = 384, out 384, attention 2*3*4*(8+8) = 384. Params 64+40+48+24+64+8.
    Case(
        "multihead_attention_kdim_vdim",
        lambda: nn.MultiheadAttention(8, 2, kdim=5, vdim=6, batch_first=True),
        lambda: (floats(2, 3, 8), floats(2, 4, 5), floats(2, 4, 6)),
        parameters=248,
        macs=1856,
        output={"0": (2, 3, 8), "1": (2, 3, 4)},
    ),
    # bias_k and the zero row lengthen the keys 3 -> 5: 4*3*16 + 3*5*(4+4). Params 48+12+16+4 + two rows of 4.
    Case(
        "multihead_attention_longer_keys",
        lambda: nn.MultiheadAttention(4, 2, add_bias_kv=True, add_zero_attn=True, batch_first=True),
        lambda: (floats(1, 3, 4),) * 3,
        parameters=88,
        macs=312,
        output={"0": (1, 3, 4), "1": (1, 3, 5)},
    ),
    # No batch: 4*3*64 + 3*3*16.
    Case(
        "multihead_attention_unbatched",
        lambda: nn.MultiheadAttention(8, 2),
        lambda: (floats(3, 8),) * 3,
        parameters=288,
        macs=912,
        output={"0": (3, 8), "1": (3, 3)},
    ),
    # Attention 4*10*64 + 2*5*5*16 = 3360, feed-forward 2 * 10*8*16 = 2560. Params 288 + 144 + 136 + 2*16.
    # In eval mode torch would run one fused operator without a formula; the count must not depend on the mode.
    Case(
        "transformer_encoder_layer",
        lambda: nn.TransformerEncoderLayer(8, 2, dim_feedforward=16, batch_first=True),
        lambda: (floats(2, 5, 8),),
        parameters=600,
        macs=5920,
        output=(2, 5, 8),
        own_macs={"": 0, "self_attn": 3360, "self_attn.out_proj": 0, "linear1": 1280, "linear2": 1280},
    ),
    # The same with model.eval() called by the builder: the fused fast path would be taken.
    Case(
        "transformer_encoder_layer_in_eval",
        lambda: nn.TransformerEncoderLayer(8, 2, dim_feedforward=16, batch_first=True).eval(),
        lambda: (floats(2, 5, 8),),
        parameters=600,
        macs=5920,
        output=(2, 5, 8),
        own_macs={"": 0, "self_attn": 3360, "self_attn.out_proj": 0, "linear1": 1280, "linear2": 1280},
    ),
    # Two copies of that layer.
    Case(
        "transformer_encoder",
        lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, dim_feedforward=16, batch_first=True), 2),
        lambda: (floats(2, 5, 8),),
        parameters=1200,
        macs=11840,
        output=(2, 5, 8),
        own_macs={"": 0, "layers.0.self_attn": 3360, "layers.1.linear2": 1280},
    ),
    # Source 3, target 2, width 4. Encoder layer: 4*3*16 + 3*3*8 + 2*3*32 = 456. Decoder layer: self 4*2*16 + 2*2*8 = 160;
    # cross q, out 2*2*16, k, v 2*3*16, products 2*3*8: 208; feed-forward 2*2*32 = 128: 496.
    # Params: attention 80, feed-forward 40+36, a norm 8. Encoder 80+76+16 (+8 final), decoder 160+76+24 (+8 final).
    Case(
        "transformer_encoder_decoder",
        lambda: nn.Transformer(4, 1, num_encoder_layers=1, num_decoder_layers=1, dim_feedforward=8),
        lambda: (floats(3, 1, 4), floats(2, 1, 4)),
        parameters=448,
        macs=952,
        output=(2, 1, 4),
        own_macs={"encoder.layers.0.self_attn": 264, "decoder.layers.0.self_attn": 160, "decoder.layers.0.multihead_attn": 208},
    ),
    # Patches: 2*8*4 elements * 48 = 3072. Encoder as above at 5 tokens: 5920. Head 2*8*3 = 48. Params 392 + 8 + 40 + 600 + 27.
    Case(
        "vision_transformer",
        VisionTransformer,
        lambda: (floats(2, 3, 8, 8),),
        parameters=1067,
        macs=9040,
        output=(2, 3),
        own_macs={"": 0, "patches": 3072, "encoder.self_attn": 3360, "head": 48},
    ),
    # A table of scores without any matrix product: softmax(x) * weight is not a MAC.
    Case(
        "elementwise_gate_is_free",
        lambda: Net(lambda net, x: x.softmax(-1) * net.weight, weight=parameter(4)),
        lambda: (floats(3, 4),),
        parameters=4,
        macs=0,
        output=(3, 4),
        saved=48,  # softmax(x): x needs no gradient, but `* weight` keeps the other operand, 3*4*4
    ),
)

ATTENTION = FUNCTIONS + MODULES
