"""Attention maps: against softmax(Q K^T / sqrt(d)) as plain loops, with queries and keys computed apart from the model's attention."""

from __future__ import annotations

import copy
import math
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention as imported_attention
from torch.utils._python_dispatch import _get_current_dispatch_mode

from netlens.probing import attention_weights
from netlens.probing.attention_maps import AttentionMap, attended, rollout
from netlens.probing.leaves import leaves

NOTHING = -math.inf
GRAD_MODES = [torch.no_grad, torch.inference_mode, torch.enable_grad]


def by_hand(query: Tensor, key: Tensor, *, scale: float | None = None, added: Tensor | None = None) -> Tensor:
    """softmax(Q K^T scale + added), a number at a time; (N, heads, L, E) x (N, groups, S, E)."""
    (samples, heads, length, width), (_, groups, keys, _) = query.shape, key.shape
    q, k = query.detach().double().tolist(), key.detach().double().tolist()
    added = torch.zeros(samples, heads, length, keys) if added is None else added.expand(samples, heads, length, keys)
    bias, scale = added.double().tolist(), 1 / math.sqrt(width) if scale is None else scale
    weights = torch.zeros(samples, heads, length, keys, dtype=torch.float64)
    for n, h, i in np.ndindex(samples, heads, length):
        shared = k[n][h * groups // heads]
        scores = [sum(a * b for a, b in zip(q[n][h][i], shared[j], strict=True)) * scale + bias[n][h][i][j] for j in range(keys)]
        if max(scores) > NOTHING:
            powers = [math.exp(score - max(scores)) for score in scores]
            weights[n, h, i] = torch.tensor([power / sum(powers) for power in powers], dtype=torch.float64)
    return weights


def barred(mask: Tensor) -> Tensor:
    """What a bool mask (True may be attended to) adds to scores."""
    return torch.zeros(mask.shape).masked_fill(~mask, NOTHING)


def watch(model: nn.Module, *args: Any, **kwargs: Any) -> tuple[Any, list[AttentionMap]]:
    """Run a model, check that its output is bitwise what it is without, and return both."""
    plain = model(*args, **kwargs)
    maps: list[AttentionMap] = []
    with attended(model, maps.append):
        output = model(*args, **kwargs)
    for (name, one), (_, other) in zip(leaves(plain), leaves(output), strict=True):
        one, other = (tensor.to_padded_tensor(0.0) if tensor.is_nested else tensor for tensor in (one, other))
        assert torch.equal(one.isnan(), other.isnan()), name  # torch 2.4 gives NaN where nothing may be attended to
        assert torch.equal(one.nan_to_num(), other.nan_to_num()), name
    for found in maps:
        assert found.weights.shape[:3] == found.allowed.shape
        sums = found.weights.sum(dim=-1)
        assert ((sums - 1).abs() < 1e-5).logical_or((sums == 0) & (found.allowed == 0)).all(), f"{found.name}: rows sum to 1"
    return output, maps


def only(maps: list[AttentionMap]) -> AttentionMap:
    assert len(maps) == 1
    return maps[0]


def close(found: Tensor, truth: Tensor, tolerance: float = 1e-6) -> None:
    torch.testing.assert_close(found.double(), truth, rtol=0, atol=tolerance)


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    torch.manual_seed(0)
    with torch.no_grad():
        yield


class Function(nn.Module):
    """A module whose forward is a function."""

    def __init__(self, function: Callable[..., Any], **attributes: Any) -> None:
        super().__init__()
        self.function = function
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, *tensors: Tensor) -> Any:
        return self.function(*tensors)


def qkv(*batch: int, length: int = 5, keys: int | None = None, width: int = 4, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    keys = keys or length
    return [torch.randn(*batch, size, width, dtype=dtype) for size in (length, keys, keys)]


# --- Known numbers


def test_two_tokens_with_known_weights():
    """Scores ln 3 and 0, then 0 and 0: weights 3/4 and 1/4, then 1/2 and 1/2."""
    query, key = torch.tensor([[[[math.log(3), 0.0], [0.0, 0.0]]]]), torch.eye(2)[None, None]
    _, maps = watch(Function(lambda q, k: F.scaled_dot_product_attention(q, k, k, scale=1.0)), query, key)
    close(only(maps).weights[0, 0], torch.tensor([[0.75, 0.25], [0.5, 0.5]], dtype=torch.float64))
    assert only(maps).self_attention
    assert only(maps).allowed.tolist() == [[[2, 2]]]


# --- F.scaled_dot_product_attention, however it is called

MASK = torch.tensor([[True, False, True, True, False], [True] * 5, [False, True, False, True, True], [True, True, False, False, True]])
CALLS: dict[str, tuple[Callable[..., Tensor], dict[str, Any]]] = {
    "positional": (lambda q, k, v: F.scaled_dot_product_attention(q, k, v), {}),
    "keywords": (lambda q, k, v: torch.nn.functional.scaled_dot_product_attention(value=v, key=k, query=q), {}),
    "imported": (lambda q, k, v: imported_attention(q, k, v), {}),
    "private": (lambda q, k, v: torch._C._nn.scaled_dot_product_attention(q, k, v), {}),
    "scale": (lambda q, k, v: F.scaled_dot_product_attention(q, k, v, scale=0.3), {"scale": 0.3}),
    "dropout": (lambda q, k, v: F.scaled_dot_product_attention(q, k, v, dropout_p=0.0), {}),
    "bool mask": (lambda q, k, v: F.scaled_dot_product_attention(q, k, v, MASK), {"added": barred(MASK)}),
    "float mask": (lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=3.0 * MASK), {"added": 3.0 * MASK}),
    "causal": (lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True), {"added": barred(torch.ones(4, 5).bool().tril())}),
    "other width of values": (lambda q, k, v: F.scaled_dot_product_attention(q, k, v[..., :3]), {}),
    "no batch": (lambda q, k, v: F.scaled_dot_product_attention(q[0], k[0], v[0]), {}),
}


@pytest.mark.parametrize("grad_mode", GRAD_MODES)
@pytest.mark.parametrize("call", CALLS)
def test_scaled_dot_product_attention(call, grad_mode):
    function, options = CALLS[call]
    with grad_mode():
        query, key, value = qkv(2, 3, length=4, keys=5)
        _, maps = watch(Function(function), query, key, value)
    query, key = (query[:1], key[:1]) if call == "no batch" else (query, key)
    close(only(maps).weights, by_hand(query, key, **options))
    assert not maps[0].weights.requires_grad
    assert maps[0].weights.dtype == torch.float32
    assert not maps[0].self_attention, "4 queries, 5 keys"
    if "added" in options:
        assert maps[0].allowed[0, 0].tolist() == (options["added"] > NOTHING).sum(dim=-1).tolist()


@pytest.mark.skipif("enable_gqa" not in str(F.scaled_dot_product_attention.__doc__), reason="torch 2.5 brings it")
@pytest.mark.parametrize("grad_mode", GRAD_MODES)
def test_grouped_heads(grad_mode):
    """4 query heads on 2 key heads: the first two share the first."""
    with grad_mode():
        query, key, value = torch.randn(2, 4, 5, 8), torch.randn(2, 2, 5, 8), torch.randn(2, 2, 5, 8)
        for causal in (False, True):
            attend = Function(lambda q, k, v, causal=causal: F.scaled_dot_product_attention(q, k, v, enable_gqa=True, is_causal=causal))
            _, maps = watch(attend, query, key, value)
            close(only(maps).weights, by_hand(query, key, added=barred(torch.ones(5, 5).bool().tril()) if causal else None))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-15), (torch.bfloat16, 1e-6), (torch.float16, 1e-6)])
def test_weights_are_computed_in_float32_and_those_of_float64_in_float64(dtype, tolerance):
    query, key, value = qkv(2, 2, dtype=dtype)
    _, maps = watch(Function(F.scaled_dot_product_attention), query, key, value)
    close(only(maps).weights, by_hand(query, key), tolerance)
    assert maps[0].weights.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


def test_dropout_hits_the_output_and_not_the_weights():
    query, key, value = qkv(2, 2)
    attend, maps = Function(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, dropout_p=0.5)), []
    torch.manual_seed(1)
    plain = attend(query, key, value)
    torch.manual_seed(1)
    with attended(attend, maps.append):
        output = attend(query, key, value)
    assert torch.equal(plain, output), "the random numbers are the model's own"
    close(only(maps).weights, by_hand(query, key))


def test_a_query_that_may_attend_to_nothing_has_zeros():
    mask = torch.tensor([[True, False], [False, False]])
    for attend in (
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, mask),
        lambda q, k, v: (q @ k.mT / 2).masked_fill(~mask, NOTHING).softmax(dim=-1).nan_to_num() @ v,
    ):
        _, maps = watch(Function(attend), *qkv(1, 1, length=2))
        assert only(maps).weights.tolist() == [[[[1, 0], [0, 0]]]]
        assert maps[0].allowed.tolist() == [[[1, 0]]]


@pytest.mark.parametrize("least", [NOTHING, torch.finfo(torch.float32).min, -1e9, -1e4])
def test_every_kind_of_mask_bars_keys(least):
    causal = torch.full((4, 4), least).triu(1)
    _, maps = watch(Function(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, causal)), *qkv(1, 2, length=4))
    assert only(maps).allowed.tolist() == [[[1, 2, 3, 4]] * 2]
    assert torch.equal(maps[0].weights, maps[0].weights.tril())


def test_scores_of_an_exploded_model_are_no_masks():
    query, key, value = (1e4 * tensor for tensor in qkv(1, 1, length=6))
    _, maps = watch(Function(F.scaled_dot_product_attention), query, key, value)
    assert only(maps).allowed.eq(6).all()


def test_long_sequences_are_computed_in_chunks(monkeypatch):
    mask = torch.rand(7, 9) < 0.7
    model, tensors = Function(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, mask)), qkv(2, 3, length=7, keys=9)
    monkeypatch.setattr(attention_weights, "CHUNK", 2 * 3 * 9 * 2)
    largest = 0
    softmax = Tensor.softmax

    def noted(part: Tensor, dim: int) -> Tensor:
        nonlocal largest
        largest = max(largest, part.numel())
        return softmax(part, dim)

    monkeypatch.setattr(Tensor, "softmax", noted)
    _, maps = watch(model, *tensors)
    close(only(maps).weights, by_hand(*tensors[:2], added=barred(mask)))
    assert largest == 2 * 3 * 9 * 2


def test_three_dimensions_are_samples_unless_the_module_has_heads():
    """(N, L, E) is one head of N samples; the kernel sees (1, N, L, E)."""
    tensors = qkv(3)
    for grad_mode in GRAD_MODES:
        with grad_mode():
            _, maps = watch(Function(F.scaled_dot_product_attention), *tensors)
            assert only(maps).weights.shape == (3, 1, 5, 5)
            _, maps = watch(Function(F.scaled_dot_product_attention, num_heads=3), *tensors)
            assert only(maps).weights.shape == (1, 3, 5, 5)


# --- nn.MultiheadAttention and its native path


def projections(attention: nn.MultiheadAttention, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
    """Q and K of (N, L, E), with the weights taken out of the module: (N, heads, L, E / heads)."""
    width = attention.embed_dim
    if attention.in_proj_weight is not None:
        w_query, w_key = attention.in_proj_weight[:width], attention.in_proj_weight[width : 2 * width]
    else:
        w_query, w_key = attention.q_proj_weight, attention.k_proj_weight
    bias = torch.zeros(3 * width) if attention.in_proj_bias is None else attention.in_proj_bias
    q, k = query @ w_query.T + bias[:width], key @ w_key.T + bias[width : 2 * width]
    if attention.bias_k is not None:
        k = torch.cat([k, attention.bias_k.expand(len(k), 1, width)], dim=1)
    if attention.add_zero_attn:
        k = torch.cat([k, torch.zeros(len(k), 1, width)], dim=1)
    return tuple(part.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for part in (q, k))  # type: ignore[return-value]


@pytest.mark.parametrize("grad_mode", GRAD_MODES)
@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize(
    "options",
    [{}, {"batch_first": True}, {"bias": False}, {"kdim": 6, "vdim": 10}, {"add_bias_kv": True}, {"add_zero_attn": True}],
    ids=str,
)
def test_multihead_attention(options, need_weights, grad_mode):
    attention = nn.MultiheadAttention(8, 2, **options).eval()
    if attention.in_proj_bias is not None:
        nn.init.normal_(attention.in_proj_bias)
    query, key, value = torch.randn(3, 4, 8), torch.randn(3, 5, options.get("kdim", 8)), torch.randn(3, 5, options.get("vdim", 8))
    given = [query, key, value] if options.get("batch_first") else [tensor.transpose(0, 1) for tensor in (query, key, value)]
    with grad_mode():
        output, maps = watch(nn.Sequential(Named(attention, need_weights=need_weights, average_attn_weights=False)), *[given])
    found = only(maps)
    assert found.name == "0.attention"
    close(found.weights, by_hand(*projections(attention, query, key)))
    if need_weights:
        close(found.weights, output[1].double())


class Named(nn.Module):
    """Calls an attention with a list of query, key and value, or with one tensor as all three."""

    def __init__(self, attention: nn.Module, **options: Any) -> None:
        super().__init__()
        self.attention, self.options = attention, options

    def forward(self, given: list[Tensor] | Tensor) -> Any:
        return self.attention(*(given if isinstance(given, list) else [given] * 3), **self.options)


@pytest.mark.parametrize("grad_mode", GRAD_MODES)
@pytest.mark.parametrize("heads", [2, 1], ids=["native path", "odd heads: not native"])
@pytest.mark.parametrize("mask", [None, "causal", "padding", "both", "a head its own"])
def test_self_attention_with_masks(mask, heads, grad_mode):
    """Both paths; the native one is taken without gradients and with an even number of heads."""
    attention = nn.MultiheadAttention(8, heads, batch_first=True).eval()
    nn.init.normal_(attention.in_proj_bias)
    x = torch.randn(3, 5, 8)
    causal, padded = torch.ones(5, 5).bool().triu(1), torch.arange(5) >= torch.tensor([[5], [3], [1]])
    single = torch.rand(3 * heads, 5, 5) < 0.4
    single[..., 0] = False
    options: dict[str, dict[str, Tensor]] = {
        "causal": {"attn_mask": causal},
        "padding": {"key_padding_mask": padded},
        "both": {"attn_mask": causal, "key_padding_mask": padded},
        "a head its own": {"attn_mask": single},
    }
    given = options.get(mask or "", {})
    not_seen = torch.zeros(3, heads, 5, 5).bool()
    for part in given.values():
        not_seen = not_seen | (part.view(3, heads, 5, 5) if part.dim() == 3 else part[:, None, None] if part is padded else part)
    truth = by_hand(*projections(attention, x, x), added=barred(~not_seen))
    for need_weights in (True, False):
        with grad_mode():
            _, maps = watch(Named(attention, need_weights=need_weights, **given), x)
        close(only(maps).weights, truth)
        assert maps[0].name == "attention"
        if mask == "causal":
            assert torch.equal(maps[0].weights, maps[0].weights.tril())


def test_unbatched_multihead_attention():
    attention, x = nn.MultiheadAttention(8, 2).eval(), torch.randn(5, 8)
    for need_weights in (True, False):
        _, maps = watch(Named(attention, need_weights=need_weights), x)
        close(only(maps).weights, by_hand(*projections(attention, x[None], x[None])))


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("padded", [True, False])
def test_transformer_encoder_on_its_native_path(norm_first, padded):
    """With padding and without `norm_first` the native path packs samples into a nested tensor: padding then attends to nothing."""
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=norm_first)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=not norm_first).eval()
    x, padding = torch.randn(2, 5, 8), torch.arange(5) >= torch.tensor([[5], [3]])
    _, maps = watch(model, x, src_key_padding_mask=padding if padded else None)
    assert [found.name for found in maps] == ["layers.0.self_attn", "layers.1.self_attn"]
    fed = model.layers[0].norm1(x) if norm_first else x
    added = barred(~padding)[:, None, None] if padded else None
    if padded and not norm_first:
        added = added + barred(~padding)[:, None, :, None]
    close(maps[0].weights, by_hand(*projections(model.layers[0].self_attn, fed, fed), added=added))


def test_the_native_path_is_taken_as_without():
    """Switched off, it gives other bits; so equal outputs mean something."""
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(64, 4, 128, batch_first=True, activation="gelu"), 3).eval()
    x = torch.randn(4, 33, 64)
    _, fast = watch(model, x)
    plain = model(x)
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        assert not torch.equal(model(x), plain)
        _, slow = watch(model, x)
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    assert [found.name for found in fast] == [found.name for found in slow]
    for one, other in zip(fast, slow, strict=True):
        close(one.weights, other.weights.double(), 1e-5)


def test_cross_attention_is_marked():
    model = nn.TransformerDecoder(nn.TransformerDecoderLayer(8, 2, 16, batch_first=True), 1).eval()
    tokens, memory = torch.randn(2, 4, 8), torch.randn(2, 6, 8)
    _, maps = watch(model, tokens, memory, tgt_mask=nn.Transformer.generate_square_subsequent_mask(4))
    assert [(found.name, tuple(found.weights.shape), found.self_attention) for found in maps] == [
        ("layers.0.self_attn", (2, 2, 4, 4), True),
        ("layers.0.multihead_attn", (2, 2, 4, 6), False),
    ]
    assert torch.equal(maps[0].weights, maps[0].weights.tril())


# --- Attention that is written out


class Product(nn.Module):
    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        return one @ other


class InModules(nn.Module):
    """Every step is a module, as quantisation wants it."""

    def __init__(self) -> None:
        super().__init__()
        self.scores, self.softmax, self.dropout, self.mix = Product(), nn.Softmax(dim=-1), nn.Dropout(), Product()

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return self.mix(self.dropout(self.softmax(self.scores(q * 0.5, k.mT))), v)


def in_place(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scores = q @ k.transpose(-2, -1)
    scores *= 0.5
    scores += 0.0
    return F.dropout(scores.float().softmax(-1).type_as(q), 0.1, training=False) @ v


def flattened(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """(N heads, L, E), as fairseq has it."""
    q, k, v = (part.flatten(0, 1) for part in (q, k, v))
    return torch.bmm(torch.softmax(torch.baddbmm(torch.zeros(1, 1, 1), q, k.transpose(1, 2), alpha=0.5), dim=2), v)


def pixels(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Values come first, and weights are transposed, as in non-local networks."""
    weights = F.softmax(torch.matmul(q, k.mT) * 0.5, dim=-1)
    return v.mT @ weights.transpose(-2, -1)


EAGER: dict[str, Callable[..., Tensor]] = {
    "operators": lambda q, k, v: (q @ k.mT / 2).softmax(-1) @ v,
    "functions": lambda q, k, v: torch.matmul(F.softmax(torch.matmul(q, k.transpose(2, 3)) * 0.5, dim=3), v),
    "einsum": lambda q, k, v: torch.einsum("nhij,nhjd->nihd", torch.einsum("nhid,nhjd->nhij", q, k).div(2).softmax(dim=-1), v),
    "in place": in_place,
    "flattened": flattened,
    "transposed": pixels,
}


@pytest.mark.parametrize("grad_mode", GRAD_MODES)
@pytest.mark.parametrize("form", EAGER)
def test_written_out(form, grad_mode):
    with grad_mode():
        query, key, value = qkv(2, 3, length=5, keys=6)
        _, maps = watch(nn.Sequential(Named(Function(EAGER[form], num_heads=3))), [query, key, value])
    assert only(maps).name == "0.attention"
    close(maps[0].weights, by_hand(query, key))
    assert not maps[0].weights.requires_grad


def test_modules_for_every_step_are_inside_the_one_that_attends():
    query, key, value = qkv(2, 3)
    _, maps = watch(nn.Sequential(Named(InModules().eval())), [query, key, value])
    assert only(maps).name == "0.attention"
    close(maps[0].weights, by_hand(query, key))


def test_weights_that_are_used_twice_are_given_once():
    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        weights = (q @ k.mT / 2).softmax(dim=-1)
        return weights @ v + weights @ v.flip(-1)

    query, key, value = qkv(2, 3)
    _, maps = watch(Function(attend), query, key, value)
    close(only(maps).weights, by_hand(query, key))


def test_soft_caps_biases_and_talking_heads():
    """Between the product and the softmax anything of the same form may happen: Gemma's tanh, T5's bias, CaiT's layer over heads."""
    query, key, value = qkv(2, 3)
    bias, mix = torch.randn(1, 3, 5, 5), nn.Linear(3, 3)

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = 2 * torch.tanh(q @ k.mT / 2) + bias
        weights = mix(scores.permute(0, 2, 3, 1)).permute(0, 3, 1, 2).softmax(dim=-1)
        return mix(weights.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) @ v

    _, maps = watch(Function(attend, mix=mix), query, key, value)
    scores = 2 * torch.tanh(query.double() @ key.double().mT / 2) + bias
    mixed = torch.einsum("nhij,gh->ngij", scores, mix.weight.double()) + mix.bias.double()[:, None, None]
    powers = mixed.exp()
    close(only(maps).weights, powers / powers.sum(dim=-1, keepdim=True))


def test_attention_sinks_are_a_key_more():
    query, key, value = qkv(2, 3)
    sink = torch.randn(3, 1, 1)

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = torch.cat([q @ k.mT / 2, sink.expand(2, 3, 5, 1)], dim=-1)
        return scores.softmax(dim=-1)[..., :-1] @ v

    _, maps = watch(Function(attend), query, key, value)
    scores = torch.cat([query.double() @ key.double().mT / 2, sink.double().expand(2, 3, 5, 1)], dim=-1)
    close(only(maps).weights, scores.exp() / scores.exp().sum(dim=-1, keepdim=True))


class Channels(nn.Module):
    """XCiT: channels attend to channels."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads, self.qkv = 2, nn.Linear(8, 24)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 4, 1)
        return (F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT).softmax(dim=-1) @ v


def efficient(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Linear attention: each of both is a softmax of its own."""
    return q.softmax(dim=-1) @ (k.softmax(dim=-2).mT @ v)


def project(mixed: Tensor) -> Tensor:
    """Join heads, (N, heads, L, E), mix them by a square layer, and part them again."""
    joined = mixed.transpose(1, 2).flatten(2)
    return F.linear(joined, torch.eye(joined.shape[-1])).unflatten(-1, mixed.shape[1::2]).transpose(1, 2)


NO_ATTENTION: dict[str, nn.Module] = {
    "classes": Function(lambda x, _k, _v: F.linear(x, torch.ones(7, 4)).softmax(dim=-1)),
    "experts": Function(lambda x, _k, v: F.linear(x, torch.ones(5, 4)).softmax(dim=-1) @ v),
    "scores without values": Function(lambda q, k, _v: (q @ k.mT).softmax(dim=-1)),
    "over the other axis": Function(lambda q, k, v: (q @ k.mT).softmax(dim=-2) @ v),
    "linear attention": Function(efficient),
    "linear attention of joined heads": Function(
        lambda q, k, v: efficient(efficient(q, k, v).transpose(1, 2).flatten(2), *(part.transpose(1, 2).flatten(2) for part in (k, v)))
    ),
    "linear attention twice": Function(lambda q, k, v: efficient(project(efficient(q, k, v)), k, v)),
}


@pytest.mark.parametrize("grad_mode", GRAD_MODES)
@pytest.mark.parametrize("kind", NO_ATTENTION)
def test_other_softmaxes_are_no_attention(kind, grad_mode):
    with grad_mode():
        _, maps = watch(NO_ATTENTION[kind], *qkv(2, 3))
    assert not maps


@pytest.mark.parametrize("grad_mode", GRAD_MODES)
def test_neither_are_prototypes_nor_channels(grad_mode):
    prototypes = nn.Parameter(torch.randn(1, 6, 8))
    assign = Function(lambda x: (x @ prototypes.mT.expand(2, 8, 6)).softmax(dim=-1).mT @ x, prototypes=prototypes)
    with grad_mode():
        for model in (assign, Channels()):
            _, maps = watch(model, torch.randn(2, 5, 8))
            assert not maps
        with torch.autocast("cpu", torch.bfloat16):  # makes copies of parameters
            _, maps = watch(assign, torch.randn(2, 5, 8))
            assert not maps


def test_autocast():
    """The model computes in bfloat16, the softmax of its scores is taken in float32."""
    query, key, value = qkv(2, 3)
    with torch.autocast("cpu", torch.bfloat16):
        _, maps = watch(Function(EAGER["operators"]), query, key, value)
    half = (query.bfloat16() @ key.bfloat16().mT / 2).double()
    assert only(maps).weights.dtype == torch.float32
    close(maps[0].weights, half.exp() / half.exp().sum(dim=-1, keepdim=True))


@pytest.mark.parametrize(
    ("attribute", "shape", "axis"),
    [("num_heads", (2, 3, 4, 5, 6), 1), ("heads", (2, 4, 3, 5, 6), 2), ("n_head", (2 * 3, 4, 5, 6), None), ("nothing", (2, 4, 3, 5, 6), 2)],
)
def test_windows_stand_in_the_batch_wherever_heads_are(attribute, shape, axis):
    """2 samples, 3 heads, 4 windows of 5 tokens, of width 6; heads are those that the module has."""
    query, key, value = (torch.randn(shape) for _ in range(3))
    _, maps = watch(Function(EAGER["operators"], **{attribute: 3}), query, key, value)
    assert only(maps).weights.shape == (8, 3, 5, 5)
    query, key = (part.unflatten(0, (2, 3)) if axis is None else part.movedim(axis, 1) for part in (query, key))
    for n, window in np.ndindex(2, 4):
        truth = by_hand(query[n : n + 1, :, window], key[n : n + 1, :, window], scale=0.5)
        close(maps[0].weights[4 * n + window : 4 * n + window + 1], truth)


# --- Names, order and traces


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn = Function(F.scaled_dot_product_attention)

    def forward(self, x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(*[self.attn(self.attn(x, x, x), x, x)] * 3)


def test_names_begin_anew_with_each_call_of_the_model():
    model, names = Twice(), []
    with attended(model, lambda found: names.append(found.name)):
        for _ in range(2):
            model(torch.randn(1, 2, 3, 4))
    assert names == ["attn", "attn#2", ""] * 2


def test_a_map_is_gone_when_nobody_keeps_it():
    model, alive, most = Twice(), [], 0

    def look(found: AttentionMap) -> None:
        nonlocal most
        alive.append(weakref.ref(found.weights))
        most = max(most, sum(reference() is not None for reference in alive))

    with attended(model, look):
        model(torch.randn(1, 2, 3, 4))
        Function(lambda q, k, v: (q @ k.mT).softmax(-1))(*qkv(1, 1))
    assert most == 1
    assert not any(reference() for reference in alive)


def test_nothing_is_left_behind_after_an_error():
    def fail(*tensors: Tensor) -> Tensor:
        F.scaled_dot_product_attention(*tensors)
        raise ValueError("broken")

    model, call, maps = nn.Sequential(Named(Function(fail))), nn.Module.__call__, []
    state = copy.deepcopy({name: dict(vars(module)) for name, module in model.named_modules()})
    with pytest.raises(ValueError, match="broken"), attended(model, maps.append):
        model(qkv(1, 1))
    assert len(maps) == 1
    assert nn.Module.__call__ is call
    assert _get_current_dispatch_mode() is None
    assert {name: list(vars(module)) for name, module in model.named_modules()} == {name: list(held) for name, held in state.items()}
    model[0].attention.function = F.scaled_dot_product_attention
    model(qkv(1, 1))
    assert len(maps) == 1


class Scriptable(nn.Module):
    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return (q @ k.transpose(-2, -1) * 0.5).softmax(-1) @ v


def test_torchscript():
    query, key, value = qkv(2, 3)
    for model in (torch.jit.script(Scriptable()), torch.jit.trace(Scriptable(), (query, key, value))):
        _, maps = watch(model, query, key, value)
        close(only(maps).weights, by_hand(query, key))


def test_compiled_models_run_uncompiled():
    query, key, value = qkv(2, 3)
    model = torch.compile(Scriptable(), backend="eager")
    _, maps = watch(model, query, key, value)
    close(only(maps).weights, by_hand(query, key))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_on_a_gpu(dtype):
    """Flash, memory-efficient and cuDNN kernels are operators of their own."""
    tensors = [tensor.to("cuda", dtype) for tensor in qkv(2, 4, length=16, width=24)]
    backends = torch.nn.attention.SDPBackend
    for backend in (backends.FLASH_ATTENTION, backends.EFFICIENT_ATTENTION, backends.CUDNN_ATTENTION, backends.MATH):
        if dtype == torch.float32 and backend in (backends.FLASH_ATTENTION, backends.CUDNN_ATTENTION):
            continue
        with torch.nn.attention.sdpa_kernel(backend):
            _, maps = watch(Function(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True)), *tensors)
        truth = by_hand(tensors[0].cpu(), tensors[1].cpu(), added=barred(torch.ones(16, 16).bool().tril()))
        close(only(maps).weights.cpu(), truth, 1e-5)
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(32, 4, 64, batch_first=True), 1).eval().to("cuda", dtype)
    _, maps = watch(encoder, torch.randn(2, 5, 32, device="cuda", dtype=dtype))
    assert only(maps).name == "layers.0.self_attn"


# --- Models of torchvision, timm and transformers


def captured(module: nn.Module, model: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
    """What `module` puts out in a run of its own."""
    outputs: list[Tensor] = []
    handle = module.register_forward_hook(lambda _module, _args, output: outputs.append(output))
    model(*args, **kwargs)
    handle.remove()
    return outputs[0]


def test_torchvision_vit():
    from torchvision.models import VisionTransformer

    model = VisionTransformer(32, 8, 2, 4, 32, 64).eval()
    x = torch.randn(2, 3, 32, 32)
    for grad_mode in GRAD_MODES:
        with grad_mode():
            _, maps = watch(model, x)
        assert [found.name for found in maps] == [f"encoder.layers.encoder_layer_{index}.self_attention" for index in (0, 1)]
        block = model.encoder.layers[1]
        normed = captured(block.ln_1, model, x)
        close(maps[1].weights, by_hand(*projections(block.self_attention, normed, normed)), 2e-6)


def test_torchvision_swin_with_shifted_windows():
    from torchvision.models import SwinTransformer

    model = SwinTransformer([2, 2], 16, [2], [2], [4, 4], num_classes=3).eval()
    x = torch.randn(2, 3, 16, 16)
    for grad_mode in GRAD_MODES:
        with grad_mode():
            _, maps = watch(model, x)
        assert [(found.name, tuple(found.weights.shape)) for found in maps] == [
            ("features.1.0.attn", (2 * 4, 2, 16, 16)),
            ("features.1.1.attn", (2 * 4, 2, 16, 16)),
        ]
    block = model.features[1][0]
    windows = captured(block.norm1, model, x).unfold(1, 4, 4).unfold(2, 4, 4).flatten(1, 2).permute(0, 1, 3, 4, 2).reshape(8, 16, 16)
    q, k, _ = F.linear(windows, block.attn.qkv.weight, block.attn.qkv.bias).unflatten(-1, (3, 2, 8)).permute(2, 0, 3, 1, 4)
    close(maps[0].weights, by_hand(q, k, added=block.attn.get_relative_position_bias()))


def test_torchvision_maxvit():
    from torchvision.models import MaxVit

    model = MaxVit((64, 64), 8, 2, [8], [1], 8, 0.0).eval()
    _, maps = watch(model, torch.randn(1, 3, 64, 64))
    assert [(found.name, tuple(found.weights.shape)) for found in maps] == [
        (f"blocks.0.layers.0.layers.{kind}_attention.attn_layer.1", (64, 1, 4, 4)) for kind in ("window", "grid")
    ]


TIMM: dict[str, tuple[dict[str, Any], int, str, tuple[int, ...]]] = {
    "vit_tiny_patch16_224": ({}, 32, "blocks.0.attn", (2, 2, 5, 5)),
    "deit_tiny_distilled_patch16_224": ({}, 32, "blocks.0.attn", (2, 2, 6, 6)),
    "vit_betwixt_patch16_reg4_gap_256": ({}, 32, "blocks.0.attn", (2, 2, 8, 8)),
    "beit_base_patch16_224": ({}, 32, "blocks.0.attn", (2, 2, 5, 5)),
    "eva02_tiny_patch14_224": ({"patch_size": 16}, 32, "blocks.0.attn", (2, 2, 5, 5)),
    "cait_xxs24_224": ({}, 32, "blocks.0.attn", (2, 2, 4, 4)),
    "xcit_nano_12_p16_224": ({}, 32, "cls_attn_blocks.0.attn", (2, 2, 1, 5)),
}


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("name", TIMM)
def test_timm(name, fused):
    timm = pytest.importorskip("timm")
    options, size, layer, shape = TIMM[name]
    timm.layers.set_fused_attn(fused)
    try:
        model = timm.create_model(name, img_size=size, embed_dim=32, depth=2, num_heads=2, **options).eval()
    finally:
        timm.layers.set_fused_attn(True)
    x = torch.randn(2, 3, size, size)
    _, maps = watch(model, x)
    assert (maps[0].name, tuple(maps[0].weights.shape)) == (layer, shape)
    if name in ("vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224"):
        attention = model.blocks[1].attn
        assert attention.fused_attn == fused
        q, k, _ = captured(attention.qkv, model, x).unflatten(-1, (3, 2, 16)).permute(2, 0, 3, 1, 4)
        close(maps[1].weights, by_hand(q, k))


def test_timm_swin():
    timm = pytest.importorskip("timm")
    model = timm.create_model("swin_tiny_patch4_window7_224", img_size=32, window_size=4, embed_dim=16, depths=(2,), num_heads=(2,)).eval()
    _, maps = watch(model, torch.randn(2, 3, 32, 32))
    assert [(found.name, tuple(found.weights.shape)) for found in maps] == [
        (f"layers.0.blocks.{index}.attn", (8, 2, 16, 16)) for index in (0, 1)
    ]


WIDTH = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
TEXT = {**WIDTH, "vocab_size": 99, "bos_token_id": 1, "eos_token_id": 2}
PATCHES = {**WIDTH, "image_size": 32, "patch_size": 8}
T5 = {"d_model": 32, "d_kv": 8, "num_heads": 4, "num_layers": 1, "d_ff": 64, "vocab_size": 99}
TRANSFORMERS: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    "Bert": ("attentions", TEXT, ("input_ids", "attention_mask")),
    "GPT2": ("attentions", {"n_embd": 32, "n_layer": 2, "n_head": 4, **TEXT}, ("input_ids", "attention_mask")),
    "ViT": ("attentions", PATCHES, ("pixel_values",)),
    "Llama": ("attentions", {**TEXT, "num_key_value_heads": 2}, ("input_ids", "attention_mask")),
    "T5": ("encoder_attentions decoder_attentions cross_attentions", T5, ("input_ids", "attention_mask", "decoder_input_ids")),
}


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("name", TRANSFORMERS)
def test_transformers(name, implementation):
    """Against the weights that the library's own eager attention returns."""
    transformers = pytest.importorskip("transformers")
    places, options, wanted = TRANSFORMERS[name]
    inputs = {
        "input_ids": torch.arange(3, 15).view(2, 6),
        "attention_mask": torch.tensor([[1] * 6, [1] * 4 + [0] * 2]),
        "decoder_input_ids": torch.arange(3, 11).view(2, 4),
        "pixel_values": torch.randn(2, 3, 32, 32),
    }
    given = {key: inputs[key] for key in wanted}
    config = getattr(transformers, f"{name}Config")(**options)
    kind = getattr(transformers, f"{name}Model")
    if implementation == "sdpa" and not getattr(kind, "_supports_sdpa", True):
        pytest.skip("this version has it not")
    model = kind._from_config(config, attn_implementation=implementation).eval()
    eager = kind._from_config(copy.deepcopy(config), attn_implementation="eager").eval()
    eager.load_state_dict(model.state_dict())
    for grad_mode in GRAD_MODES:
        with grad_mode():
            _, maps = watch(model, **given)
        truth = eager(**given, output_attentions=True)
        weights = [weights for place in places.split() for weights in truth[place]]
        assert len(maps) == len(weights)
        for found, expected in zip(maps, weights, strict=True):
            close(found.weights, expected.double(), 1e-5)
    assert all(
        found.name.rsplit(".", 1)[-1] in ("self", "attn", "attention", "self_attn", "SelfAttention", "EncDecAttention") for found in maps
    )


def test_clip():
    transformers = pytest.importorskip("transformers")
    config = transformers.CLIPConfig(text_config={**TEXT, "max_position_embeddings": 9}, vision_config=PATCHES, projection_dim=8)
    for implementation in ("sdpa", "eager"):
        model = transformers.CLIPModel._from_config(config, attn_implementation=implementation).eval()
        _, maps = watch(model, input_ids=torch.arange(3, 15).view(2, 6), pixel_values=torch.randn(2, 3, 32, 32))
        assert [found.name for found in maps] == [
            f"{part}_model.encoder.layers.{index}.self_attn" for part in ("vision", "text") for index in (0, 1)
        ]
        assert torch.equal(maps[2].weights, maps[2].weights.tril()), "text is causal"


# --- Rollout


def test_rollout_of_two_layers_by_hand():
    """(A + I) / 2 is [[1, 0], [1/4, 3/4]] of the first and [[1/2, 1/2], [0, 1]] of the second; the later one stands at the left."""
    first = torch.tensor([[[[1.0, 0.0], [0.5, 0.5]]]])
    second = torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]])
    assert rollout([first, second]).tolist() == [[[0.625, 0.375], [0.25, 0.75]]]
    assert rollout([second, first]).tolist() == [[[0.5, 0.5], [0.125, 0.875]]]


def test_rollout_against_plain_loops():
    layers = [torch.randn(2, 3, 5, 5, dtype=torch.float64).softmax(dim=-1) for _ in range(4)]
    truth = torch.eye(5, dtype=torch.float64).repeat(2, 1, 1)
    for layer in layers:
        before = truth.clone()
        for n, i, j in np.ndindex(2, 5, 5):
            truth[n, i, j] = sum(
                ((sum(layer[n, h, i, m] for h in range(3)) / 3) + (1 if i == m else 0)) / 2 * before[n, m, j] for m in range(5)
            )
    found = rollout(layers)
    torch.testing.assert_close(found, truth, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.sum(dim=-1), torch.ones(2, 5, dtype=torch.float64), rtol=1e-12, atol=0)
    torch.testing.assert_close(rollout([layer.mean(dim=1, keepdim=True) for layer in layers]), truth, rtol=1e-12, atol=1e-12)


def test_what_attends_to_nothing_stays_as_it_is():
    assert rollout([torch.zeros(1, 2, 3, 3)]).tolist() == torch.eye(3)[None].tolist()


def test_rollout_of_nothing():
    with pytest.raises(ValueError, match="at least one map"):
        rollout([])
