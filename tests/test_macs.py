"""Formulas and leaves that the small models of `lenses/summary_cases*.py` do not reach; every number is derived beside it."""

from __future__ import annotations

import gc
import time
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

import netlens
from netlens.probing.attention import fused_attention
from netlens.probing.leaves import MOST, leaves, map_tensors
from netlens.probing.macs import formula_of, is_free, multiplies

ones = torch.ones
aten = torch.ops.aten


class Net(nn.Module):
    """A model of given members and a given forward."""

    def __init__(self, run: Callable[..., Any], **members: Any) -> None:
        super().__init__()
        self.run = run
        for name, member in members.items():
            setattr(self, name, member)

    def forward(self, *args: Any) -> Any:
        return self.run(self, *args)


@dataclass
class Counted:
    """A model, its input, and its MACs."""

    build: Callable[[], nn.Module]
    inputs: tuple[Tensor, ...]
    macs: int
    needs: tuple[str, ...] = ()  # attributes of torch without which there is nothing to count
    on_meta: bool = True


def packed(self: Any, x: Tensor) -> Tensor:
    return self.lstm(pack_padded_sequence(x, torch.tensor([5, 3])))[0].data


def attend(_self: Any, query: Tensor, value: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(query, query, value)


def attend_below_the_diagonal(_self: Any, query: Tensor, value: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(query, query, value, attn_mask=ones(8, 8, dtype=torch.bool).tril())


def scaled(_self: Any, a: Tensor, b: Tensor) -> Tensor:
    left, right, one = a.to(torch.float8_e4m3fn), b.to(torch.float8_e4m3fn).t().contiguous().t(), torch.tensor(1.0)
    return torch._scaled_mm(left, right, scale_a=one, scale_b=one, out_dtype=torch.bfloat16)


def grouped(_self: Any, a: Tensor, b: Tensor) -> Tensor:
    return torch._grouped_mm(a, b, offs=torch.tensor([8, 24, 32], dtype=torch.int32))


def deformable(groups: int) -> nn.Module:
    ops = pytest.importorskip("torchvision.ops")
    return ops.DeformConv2d(4, 8, 3, groups=groups)


CASES = {
    # T N G (H I + H H), T = 5 steps, N = 2, H = 6, I = 4: 10 x 6 x 10 for each gate; 4 gates, 3, 1.
    "lstm": Counted(lambda: nn.LSTM(4, 6), (ones(5, 2, 4),), 2400),
    "gru": Counted(lambda: nn.GRU(4, 6), (ones(5, 2, 4),), 1800),
    "rnn": Counted(lambda: nn.RNN(4, 6), (ones(5, 2, 4),), 600),
    "lstm_batch_first": Counted(lambda: nn.LSTM(4, 6, batch_first=True), (ones(2, 5, 4),), 2400),
    # Two directions: 2 x 2400; the second layer reads 12: 2 x 10 x 24 x (12 + 6).
    "lstm_deep": Counted(lambda: nn.LSTM(4, 6, 2, bidirectional=True), (ones(5, 2, 4),), 4800 + 8640),
    # A state of 3 is projected from 6: 10 x (24 x (4 + 3) + 3 x 6).
    "lstm_projected": Counted(lambda: nn.LSTM(4, 6, proj_size=3), (ones(5, 2, 4),), 1860),
    # Lengths 5 and 3 are 8 steps, not 10: 8 x 24 x 10.
    "lstm_packed": Counted(lambda: Net(packed, lstm=nn.LSTM(4, 6)), (ones(5, 2, 4),), 1920),
    # 2 x 4 heads, 8 x 8 pairs, 16 for the score and 16 (5) for the weighted value.
    "attention": Counted(lambda: Net(attend), (ones(2, 4, 8, 16), ones(2, 4, 8, 16)), 8 * 64 * 32),
    "attention_narrow_value": Counted(lambda: Net(attend), (ones(2, 4, 8, 16), ones(2, 4, 8, 5)), 8 * 64 * 21),
    "attention_masked": Counted(lambda: Net(attend_below_the_diagonal), (ones(2, 4, 8, 16), ones(2, 4, 8, 16)), 8 * 64 * 32),
    # in_proj 6 x 8 x 24, scores and values 2 x 2 x 9 x 8, out_proj 6 x 64, feed-forward 2 x 6 x 8 x 16; also where the fast path hides it.
    "encoder_layer": Counted(lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), (ones(2, 3, 8),), 1152 + 288 + 384 + 1536),
    "scaled_mm": Counted(lambda: Net(scaled), (ones(16, 32), ones(32, 48)), 16 * 32 * 48, needs=("_scaled_mm", "float8_e4m3fn")),
    # 32 rows, each with one of 3 matrices of 16 x 8.
    "grouped_mm": Counted(
        lambda: Net(grouped), (ones(32, 16, dtype=torch.bfloat16), ones(3, 16, 8, dtype=torch.bfloat16)), 4096, needs=("_grouped_mm",)
    ),
    # Three products 16 x k @ k x 8 with k = 8, 16, 8, together 32.
    "grouped_mm_flat": Counted(
        lambda: Net(grouped), (ones(16, 32, dtype=torch.bfloat16), ones(32, 8, dtype=torch.bfloat16)), 4096, needs=("_grouped_mm",)
    ),
    # 2 x 8 x 4 x 4 outputs of 4 x 9; in 2 groups of 2 x 9.
    "deformable": Counted(lambda: deformable(1), (ones(2, 4, 6, 6), torch.zeros(2, 18, 4, 4)), 256 * 36),
    "deformable_groups": Counted(lambda: deformable(2), (ones(2, 4, 6, 6), torch.zeros(2, 18, 4, 4)), 256 * 18),
    # 2 x 6 x 3 x 3 outputs of 4 x 9, in every layout and precision, and without autograd.
    "inference_mode": Counted(
        lambda: Net(torch.inference_mode()(lambda self, x: self.c(x)), c=nn.Conv2d(4, 6, 3)), (ones(2, 4, 5, 5),), 3888
    ),
    "autocast": Counted(
        lambda: Net(torch.autocast("cpu", torch.bfloat16)(lambda self, x: self.c(x)), c=nn.Conv2d(4, 6, 3)), (ones(2, 4, 5, 5),), 3888
    ),
    "channels_last": Counted(lambda: nn.Conv2d(4, 6, 3).to(memory_format=torch.channels_last), (ones(2, 4, 5, 5),), 3888),
    "half": Counted(lambda: nn.Conv2d(4, 6, 3).bfloat16(), (ones(2, 4, 5, 5, dtype=torch.bfloat16),), 3888),
    "unbatched": Counted(lambda: nn.Conv2d(4, 6, 3), (ones(4, 5, 5),), 1944),
    "transposed": Counted(lambda: nn.ConvTranspose2d(4, 6, 3, stride=2), (ones(2, 4, 5, 5),), 2 * 4 * 25 * 6 * 9),
    # torch makes three real convolutions of a complex one (a + b)(c + d) - ac - bd; a complex product counts once.
    "complex_convolution": Counted(lambda: nn.Conv2d(4, 6, 3, dtype=torch.complex64), (ones(2, 4, 5, 5, dtype=torch.complex64),), 3 * 3888),
    "complex_linear": Counted(lambda: nn.Linear(4, 3, dtype=torch.complex64), (ones(2, 4, dtype=torch.complex64),), 24),
    "quantized": Counted(lambda: torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(4, 3))), (ones(2, 4),), 24, on_meta=False),
    # The diagonal of 3 x 3 holds 3 numbers, each meets a row of 4.
    "sparse": Counted(lambda: Net(lambda self, x: torch.sparse.mm(self.a, x), a=torch.eye(3).to_sparse()), (ones(3, 4),), 12),
    "sparse_at": Counted(lambda: Net(lambda self, x: self.a @ x, a=torch.eye(3).to_sparse()), (ones(3, 4),), 12),
    "sparse_vector": Counted(lambda: Net(lambda self, x: self.a @ x, a=torch.eye(3).to_sparse()), (ones(3),), 3),
    "sparse_rows": Counted(lambda: Net(lambda self, x: self.a @ x, a=torch.eye(3).to_sparse_csr()), (ones(3, 4),), 12, on_meta=False),
    # x x' (3 x 4 x 3), then times x (3 x 3 x 4): the cheaper order.
    "chain": Counted(lambda: Net(lambda self, x: torch.linalg.multi_dot([x, x.t(), x])), (ones(3, 4),), 36 + 36),
    "sum_of_products": Counted(lambda: Net(lambda self, a, b: torch.addbmm(ones(3, 5), a, b)), (ones(2, 3, 4), ones(2, 4, 5)), 120),
    "distances": Counted(lambda: Net(lambda self, x: torch.cdist(x, x)), (ones(3, 4),), 36),
    "bilinear": Counted(lambda: nn.Bilinear(4, 5, 6), (ones(2, 4), ones(2, 5)), 240),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("device", ["auto", "cpu"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_macs_are_those_derived_by_hand_on_meta_and_on_the_cpu(case, device):
    if not all(hasattr(torch, name) for name in case.needs):
        pytest.skip(f"this torch has no {' and '.join(case.needs)}")

    report = netlens.summary(case.build(), case.inputs, device=device)

    assert report.failure is None
    assert report.run.on == ("meta" if device == "auto" and case.on_meta else "cpu")
    assert report.totals.macs == case.macs
    assert report.uncounted == ()


# What a fused operator of another device gets, as its documentation has it: (operator, arguments, result, MACs).
STEPS, BATCH, INPUT, STATE = 5, 2, 4, 6
WEIGHTS = [ones(4 * STATE, INPUT), ones(4 * STATE, STATE), ones(4 * STATE), ones(4 * STATE)]
QKV = [ones(2, 4, 8, 16)] * 3
ELSEWHERE = {
    "aten._cudnn_rnn": ((ones(STEPS, BATCH, INPUT), WEIGHTS), None, STEPS * BATCH * 4 * STATE * (INPUT + STATE)),
    "aten._cudnn_rnn (packed)": ((ones(8, INPUT), WEIGHTS), None, 8 * 4 * STATE * (INPUT + STATE)),
    "aten._cudnn_rnn (two directions)": ((ones(STEPS, BATCH, INPUT), WEIGHTS * 2), None, 2 * STEPS * BATCH * 4 * STATE * (INPUT + STATE)),
    "aten.miopen_rnn": ((ones(STEPS, BATCH, INPUT), WEIGHTS), None, STEPS * BATCH * 4 * STATE * (INPUT + STATE)),
    "aten.mkldnn_rnn_layer": ((ones(STEPS, BATCH, INPUT), *WEIGHTS), None, STEPS * BATCH * 4 * STATE * (INPUT + STATE)),
    "aten._int_mm": ((ones(3, 4), ones(4, 5)), None, 60),
    "aten._scaled_dot_product_flash_attention": (QKV, None, 8 * 64 * 32),
    "aten._scaled_dot_product_efficient_attention": (QKV, None, 8 * 64 * 32),
    "aten._scaled_dot_product_cudnn_attention": (QKV, None, 8 * 64 * 32),
    "aten.addmm_": ((ones(3, 5), ones(3, 4), ones(4, 5)), None, 60),
    "aten.linear": ((ones(2, 3, 4), ones(5, 4)), None, 120),
}


@pytest.mark.parametrize("name", ELSEWHERE)
def test_operators_of_other_devices_are_counted(name):
    args, result, macs = ELSEWHERE[name]
    formula = formula_of(name.partition(" ")[0])

    assert formula is not None and formula(tuple(args), {}, result) == macs


Q = ones(1, 4, 8, 16)
WRONG_ATTENTION: dict[str, Callable[[Callable[[Tensor], Tensor]], Tensor]] = {
    "dtypes": lambda at: F.scaled_dot_product_attention(at(Q.half()), at(Q), at(Q)),
    "mask_dtype": lambda at: F.scaled_dot_product_attention(at(Q), at(Q), at(Q), attn_mask=at(ones(8, 8, dtype=torch.int64))),
    "mask_shape": lambda at: F.scaled_dot_product_attention(at(Q), at(Q), at(Q), attn_mask=at(ones(8, 7))),
    "mask_and_causal": lambda at: F.scaled_dot_product_attention(at(Q), at(Q), at(Q), attn_mask=at(ones(8, 8)), is_causal=True),
    "widths": lambda at: F.scaled_dot_product_attention(at(Q), at(ones(1, 4, 8, 15)), at(Q)),
    "heads": lambda at: F.scaled_dot_product_attention(at(Q), at(Q[:, :2]), at(Q[:, :2])),
    "groups": lambda at: F.scaled_dot_product_attention(at(Q), at(Q[:, :3]), at(Q[:, :3]), enable_gqa=True),
}


@pytest.mark.parametrize("wrong", WRONG_ATTENTION.values(), ids=WRONG_ATTENTION)
def test_attention_that_no_device_runs_is_refused(wrong):
    with pytest.raises(RuntimeError):
        wrong(lambda x: x)
    with fused_attention(lambda name, macs: None), pytest.raises(RuntimeError):
        wrong(lambda x: torch.empty_like(x, device="meta"))


def test_attention_on_meta_is_one_operator_only_while_it_is_watched():
    seen: list[tuple[str, int]] = []
    q, shared = torch.empty(1, 4, 8, 16, device="meta"), torch.empty(1, 2, 8, 16, device="meta")
    with fused_attention(lambda name, macs: seen.append((name, macs))):
        assert F.scaled_dot_product_attention(q, shared, shared, enable_gqa=True).shape == (1, 4, 8, 16)
    F.scaled_dot_product_attention(q, q, q)

    assert seen == [("aten.scaled_dot_product_attention", 4 * 8 * 8 * 32)]  # two query heads share a key head: no product is saved


# -- what is not counted -------------------------------------------------------------------------------------------------------------


@torch.library.custom_op("netlens_tests::gram", mutates_args=())
def gram(x: Tensor) -> Tensor:
    return x @ x.t()


@gram.register_fake
def _(x: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], x.shape[0])


@torch.library.custom_op("netlens_tests::real_only", mutates_args=())
def real_only(x: Tensor) -> Tensor:
    return x @ x.t()


# operator, who runs it, bytes of its result, whether it surely multiplies
UNCOUNTED = {
    "netlens_tests.gram": (lambda self, x: gram(x), "meta", 16, True),
    "netlens_tests.real_only": (lambda self, x: real_only(x), "cpu", 16, True),
    "aten._fft_r2c": (lambda self, x: torch.fft.rfft(x), "meta", 2 * 3 * 8, True),
}


@pytest.mark.parametrize("name", UNCOUNTED)
def test_an_operator_without_a_formula_is_listed_never_silently_zero(name):
    run, on, size, multiplied = UNCOUNTED[name]
    report = netlens.summary(nn.Sequential(nn.Identity(), Net(run)), ones(2, 4))

    (operator,) = report.uncounted
    assert (operator.name, operator.times, operator.output_bytes, operator.multiplies, operator.layers) == (
        name,
        1,
        size,
        multiplied,
        ("1",),
    )
    assert report.run.on == on and report.totals.macs == 0


@pytest.mark.parametrize(
    "operator",
    [
        "relu.default",
        "add.Tensor",
        "view.default",
        "t.default",
        "native_batch_norm.default",
        "max_pool2d_with_indices.default",
        "index.Tensor",
    ],
)
def test_what_counts_zero_by_convention(operator):
    name, _, overload = operator.partition(".")
    assert formula_of(f"aten.{name}") is None
    assert is_free(f"aten.{name}", getattr(getattr(aten, name), overload))


@pytest.mark.parametrize(
    "name", [name for name in dir(aten) if name.rstrip("_") in ("mm", "bmm", "addmm", "baddbmm", "convolution", "mv", "dot")]
)
def test_no_product_is_free(name):
    assert formula_of(f"aten.{name}") is not None
    assert not is_free(f"aten.{name}", getattr(getattr(aten, name), getattr(aten, name).overloads()[0]))


def test_what_surely_multiplies():
    assert all(map(multiplies, ["aten.linalg_qr", "aten._fft_c2c", "aten.some_new_mm", "flash_attn.fwd", "quantized.linear_unknown"]))
    assert not any(map(multiplies, ["aten.special_bessel_j0", "aten.some_new_sort", "torchvision.nms"]))


# -- leaves --------------------------------------------------------------------------------------------------------------------------

Pair = namedtuple("Pair", ["left", "right"])


@dataclass
class Detection:
    boxes: Tensor
    labels: list[Tensor] = field(default_factory=list)
    note: str = ""
    _hidden: Tensor | None = None


class Plain:
    def __init__(self) -> None:
        self.keys, self._private = [ones(1), ones(2)], ones(3)


def named(value: Any) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in leaves(value)}


def test_leaves_of_python_structures():
    assert named(ones(2)) == {"": (2,)}
    assert named((ones(1), [ones(2), (ones(3),)])) == {"0": (1,), "1.0": (2,), "1.1.0": (3,)}
    assert named({"logits": ones(1), 3: {"deep": ones(2)}, "none": None, "text": "x"}) == {"logits": (1,), "3.deep": (2,)}
    assert named(OrderedDict(out=ones(1), aux=ones(2))) == {"out": (1,), "aux": (2,)}
    assert named(Pair(ones(1), [ones(2)])) == {"left": (1,), "right.0": (2,)}
    assert named(Detection(ones(1), [ones(2)], _hidden=ones(9))) == {"boxes": (1,), "labels.0": (2,)}
    assert named(Plain()) == {"keys.0": (1,), "keys.1": (2,)}
    assert named([None, 3, "text", b"", torch.float32, torch.Size([2]), nn.Linear(2, 2), Tensor]) == {}


def test_leaves_of_torch_structures():
    sequence = pack_padded_sequence(ones(5, 2, 4), torch.tensor([5, 3]))
    assert named(sequence) == {"data": (8, 4), "batch_sizes": (5,)}
    assert named(torch.distributions.Normal(torch.zeros(2), ones(2)))["loc"] == (2,)
    assert named(torch.return_types.max((ones(2), ones(2))))  # a structure of torch's own


def test_leaves_of_transformers_structures():
    outputs = pytest.importorskip("transformers.modeling_outputs")
    cache_utils = pytest.importorskip("transformers.cache_utils")
    output = outputs.BaseModelOutputWithPast(last_hidden_state=ones(1, 2), hidden_states=(ones(1), ones(2)))
    assert named(output) == {"last_hidden_state": (1, 2), "hidden_states.0": (1,), "hidden_states.1": (2,)}

    cache = cache_utils.DynamicCache()
    for layer in range(2):
        cache.update(ones(1, 2, 3, 4), ones(1, 2, 3, 5), layer)
    shapes = sorted(named(outputs.BaseModelOutputWithPast(past_key_values=cache)).values())
    assert shapes == [(1, 2, 3, 4), (1, 2, 3, 4), (1, 2, 3, 5), (1, 2, 3, 5)]


def test_a_structure_that_contains_itself_ends():
    cyclic: dict[str, Any] = {"x": ones(1)}
    cyclic["self"] = [cyclic]
    holder = Plain()
    holder.parent = holder  # type: ignore[attr-defined]

    assert named(cyclic) == {"x": (1,)}
    assert named(holder) == {"keys.0": (1,), "keys.1": (2,)}
    shared = [ones(2)]
    assert named([shared, shared]) == {"0.0": (2,), "1.0": (2,)}


def test_a_hundred_thousand_leaves_are_bounded():
    many = [ones(1) for _ in range(100_000)]
    start = time.perf_counter()
    assert len(leaves(many)) == MOST
    assert len(leaves({"wide": [many, many]})) == MOST
    wide = [[[[list(range(20)) for _ in range(20)] for _ in range(20)] for _ in range(20)]]
    assert leaves(wide) == []
    assert time.perf_counter() - start < 5
    gc.collect()


def test_mapping_tensors_keeps_the_structure():
    sequence = pack_padded_sequence(ones(5, 2, 4), torch.tensor([5, 3]))
    value = {"a": [ones(1), (ones(2), 3)], "p": Pair(ones(1), None), "s": sequence, "o": OrderedDict(x=ones(1))}

    mapped = map_tensors(value, lambda tensor: tensor * 2)

    assert mapped["a"][0].item() == 2 and mapped["a"][1][1] == 3 and type(mapped["a"][1]) is tuple
    assert type(mapped["p"]) is Pair and mapped["p"].right is None
    assert type(mapped["s"]) is PackedSequence and mapped["s"].data.sum() == 2 * 8 * 4
    assert mapped["s"].batch_sizes.tolist() == [2, 2, 2, 1, 1]
    assert type(mapped["o"]) is OrderedDict
    assert value["a"][0].item() == 1
