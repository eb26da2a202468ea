"""Running on the meta device: what stays real, what a copy of a model keeps, and that nothing of the size of weights is allocated."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import prune
from torch.nn.utils.parametrizations import orthogonal, spectral_norm, weight_norm
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import netlens
from netlens.lenses.summary.measure import measure
from netlens.lenses.summary.report import SummaryReport
from netlens.loading.subject import Inputs, Subject
from netlens.probing.building import built_on_meta
from netlens.probing.meta import NotCopied, input_stand_in, lazy_copy, skeleton, stand_in
from netlens.probing.mixed import LARGE, MixedMeta


def floats(*shape: int) -> Tensor:
    return torch.empty(shape, device="meta")


def flags(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.bool)


class Net(nn.Module):
    """A model of given members and a given forward."""

    def __init__(self, run: Callable[..., Any], **members: Any) -> None:
        super().__init__()
        self.run = run
        for name, member in members.items():
            setattr(self, name, member)

    def forward(self, *args: Any) -> Any:
        return self.run(self, *args)


def head(**members: Any) -> Net:
    """(2, 4) -> (2, 3): 15 parameters and 24 MACs."""
    return Net(lambda self, x: self.fc(x), fc=nn.Linear(4, 3), **members)


# -- what stays real -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "values"),
    [
        (lambda x: torch.arange(3, device=x.device), [0, 1, 2]),
        (lambda x: torch.zeros(2, dtype=torch.int64, device="meta"), [0, 0]),
        (lambda x: torch.full((2,), 7, device=x.device), [7, 7]),
        (lambda x: torch.full_like(x, 1, dtype=torch.int32)[0], [1, 1, 1, 1]),
        (lambda x: torch.tril(torch.ones(2, 2, dtype=torch.bool, device=x.device)), [[True, False], [True, True]]),
        (lambda x: x.new_zeros(2, dtype=torch.bool), [False, False]),
        (lambda x: torch.tensor([5, 6]).to(x.device), [5, 6]),
        (lambda x: torch.tensor([5, 6]).to("meta", torch.int32), [5, 6]),
        (lambda x: torch.arange(4, device=x.device).cumsum(0), [0, 1, 3, 6]),
        (lambda x: torch.ones(2).cpu() * 2, [2.0, 2.0]),
    ],
)
def test_integers_and_what_the_forward_makes_stay_readable(make, values):
    with MixedMeta():
        assert make(floats(3, 4)).tolist() == values


@pytest.mark.parametrize(
    "make",
    [
        lambda x: x.cpu(),
        lambda x: x.to("cpu", torch.float16),
        lambda x: torch.ones(3).to("meta"),
        lambda x: torch.arange(0, 1, 0.5, device="meta"),
        lambda x: torch.zeros(2, device=x.device),
        lambda x: x + torch.ones(4),
        lambda x: torch.cat([torch.ones(2, 4), x]),
        lambda x: torch.arange(4)[x.argmax(1)],
        lambda x: torch.zeros(LARGE, dtype=torch.int8, device="meta"),  # nobody reads so many one by one
    ],
)
def test_what_comes_from_floats_or_is_huge_is_meta(make):
    with MixedMeta():
        assert make(floats(3, 4)).is_meta


@pytest.mark.parametrize(
    "read", [lambda x: x.sum().item(), lambda x: bool((x > 0).any()), lambda x: x.cpu().numpy(), lambda x: x.nonzero()]
)
def test_values_that_do_not_exist_cannot_be_read(read):
    with MixedMeta(), pytest.raises((RuntimeError, TypeError)):
        read(floats(3, 4))


@pytest.mark.parametrize(
    ("select", "shape"),
    [
        (lambda x: x[flags(1, 0, 1)], (2, 4)),
        (lambda x: x[:, flags(1, 0, 0, 0)], (3, 1)),
        (lambda x: x[torch.ones(3, 4).tril() > 0], (6,)),  # 1 + 2 + 3
        (lambda x: x[torch.tensor([0, -3]), torch.tensor([3, 3])], (2,)),
        (lambda x: x.masked_select(flags(1, 0, 1, 1)), (9,)),  # 3 rows of 3
        (lambda x: x[:1].masked_select(torch.ones(3, 4) > 0), (12,)),
        (lambda x: x.repeat_interleave(torch.tensor([1, 2, 3]), 0), (6, 4)),
        (lambda x: x.repeat_interleave(2, 1), (3, 8)),
        (lambda x: x.split(torch.tensor([1, 2]).tolist())[1], (2, 4)),
        (lambda x: x.gather(1, torch.zeros(3, 2, dtype=torch.int64)), (3, 2)),
        (lambda x: torch.where(flags(1, 0, 1)[:, None], x, 0.0), (3, 4)),
        (lambda x: F.embedding(torch.tensor([[2, 0]]), x), (1, 2, 4)),
        (lambda x: F.embedding_bag(torch.tensor([0, 2, 1]), x, torch.tensor([0, 2])), (2, 4)),
        (lambda x: F.cross_entropy(x, torch.tensor([0, 3, -100])), ()),
    ],
)
def test_real_masks_lengths_and_positions_decide_the_shape(select, shape):
    with MixedMeta():
        assert tuple(select(floats(3, 4)).shape) == shape
    assert tuple(select(torch.ones(3, 4)).shape) == shape


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x: F.embedding(torch.tensor([3]), x),
        lambda x: F.embedding(torch.tensor([-1]), x),
        lambda x: F.embedding_bag(torch.tensor([0, 3]), x, torch.tensor([0])),
        lambda x: x[torch.tensor([3])],
        lambda x: x[:, torch.tensor([-5])],
        lambda x: x[flags(1, 1)],
        lambda x: x.index_select(1, torch.tensor([4])),
        lambda x: x.gather(1, torch.tensor([[4]])),
        lambda x: x.index_add(0, torch.tensor([3]), torch.ones(1, 4)),
        lambda x: F.cross_entropy(x, torch.tensor([0, 4, 1])),
    ],
)
def test_a_position_past_the_end_raises_as_on_the_cpu(wrong):
    with pytest.raises((IndexError, RuntimeError)):
        wrong(torch.ones(3, 4))
    with MixedMeta(), pytest.raises((IndexError, RuntimeError)):
        wrong(floats(3, 4))


@pytest.mark.parametrize(
    "write", [lambda r, x: r.copy_(x), lambda r, x: r.add_(x), lambda r, x: r[:2].copy_(x[:2]), lambda r, x: r.masked_fill_(x > 0, 1.0)]
)
def test_writing_unknown_values_into_a_real_tensor_keeps_its_identity(write):
    real = torch.zeros(3, 4)
    with MixedMeta():
        written = write(real, floats(3, 4))
    assert not written.is_meta and written.untyped_storage().data_ptr() == real.untyped_storage().data_ptr()


def test_assignment_through_a_mask_works_in_a_meta_tensor():
    with MixedMeta():
        x = floats(3, 4)
        x[flags(1, 0, 1)] = torch.ones(2, 4)
        x[flags(0, 1, 0)] = 0.5
    assert x.is_meta and x.shape == (3, 4)


def test_one_real_tensor_has_one_stand_in():
    made = []

    class Watching(MixedMeta):
        def made_stand_in(self, tensor: Tensor, meta: Tensor) -> None:
            made.append(tensor)

    table = torch.ones(4)
    with Watching() as mode:
        floats(3, 4) + table
        floats(3, 4) * table
        assert mode.stand_in_for(table) is mode.stand_in_for(table)
    assert len(made) == 1 and made[0] is table


# -- packed sequences ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("lengths", [[5, 3], [3, 5]])
def test_packed_sequences_are_as_on_the_cpu(batch_first, lengths):
    lstm = nn.LSTM(4, 6, batch_first=batch_first)

    def run(x: Tensor, model: nn.Module) -> Any:
        packed = pack_padded_sequence(x, torch.tensor(lengths), batch_first=batch_first, enforce_sorted=lengths == sorted(lengths)[::-1])
        out, (hidden, _) = model(packed)
        padded, found = pad_packed_sequence(out, batch_first=batch_first)
        return packed.data.shape, packed.batch_sizes.tolist(), out.data.shape, hidden.shape, padded.shape, found.tolist()

    shape = (2, 5, 4) if batch_first else (5, 2, 4)
    real = run(torch.ones(shape), lstm)
    with MixedMeta():
        assert run(floats(*shape), skeleton(lstm)) == real
    assert real[:2] == ((8, 4), [2, 2, 2, 1, 1])


@pytest.mark.parametrize("lengths", [[5, 0], [5, 3, 1], [3, 5]])
def test_lengths_that_cannot_be_packed(lengths):
    with pytest.raises(RuntimeError):
        pack_padded_sequence(torch.ones(5, 2, 4), torch.tensor(lengths))
    with MixedMeta(), pytest.raises(RuntimeError):
        pack_padded_sequence(floats(5, 2, 4), torch.tensor(lengths))


# -- building on meta ----------------------------------------------------------------------------------------------------------------


def tied_by_registering_twice() -> nn.Module:
    weight = nn.Parameter(torch.ones(3, 4))
    return Net(lambda self, x: F.linear(x, self.a) + F.linear(x, self.b), a=weight, b=weight)


def tied_by_assignment() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    return model


@pytest.mark.parametrize("build", [tied_by_registering_twice, tied_by_assignment])
def test_ties_survive_both_ways_of_emptying_a_model(build):
    with built_on_meta():
        built = build()
    for model in (built, skeleton(build())):
        weights = [parameter for name, parameter in model.named_parameters(remove_duplicate=False) if "bias" not in name]
        assert len(weights) == 2 and weights[0] is weights[1]
        assert all(parameter.is_meta for parameter in model.parameters())


def test_a_parameter_keeps_its_attributes_and_flags():
    def build() -> nn.Module:
        weight = nn.Parameter(torch.ones(3, 4), requires_grad=False)
        weight.no_decay = True  # type: ignore[attr-defined]
        return Net(lambda self, x: x, weight=weight)

    with built_on_meta():
        built = build()
    for model in (built, skeleton(build())):
        assert model.weight.is_meta and model.weight.no_decay and not model.weight.requires_grad
        assert type(model.weight) is nn.Parameter


class Special(nn.Parameter):
    """A subclass that may hold more than its data."""


def test_parameter_subclasses_and_integer_buffers_are_left_alone():
    def build() -> nn.Module:
        model = Net(lambda self, x: x, weight=Special(torch.ones(3)))
        model.register_buffer("steps", torch.tensor([1, 2]))
        model.register_buffer("scale", torch.ones(2, dtype=torch.complex64))
        return model

    with built_on_meta():
        built = build()
    for model in (built, skeleton(build())):
        assert type(model.weight) is Special and model.weight.tolist() == [1.0, 1.0, 1.0]
        assert model.steps.tolist() == [1, 2]
        assert model.scale.is_meta


def test_a_constructor_reads_what_it_computes_itself():
    with built_on_meta():
        widths = torch.linspace(4, 16, 4)
        model = nn.Sequential(*(nn.Linear(4, int(width)) for width in widths.tolist()))
    assert [layer.out_features for layer in model] == [4, 8, 12, 16]
    assert all(p.is_meta for p in model.parameters())


def test_nothing_hooks_registration_afterwards():
    with pytest.raises(ZeroDivisionError), built_on_meta():
        raise ZeroDivisionError
    assert not nn.Linear(2, 2).weight.is_meta and not nn.BatchNorm1d(2).running_mean.is_meta


HUGE = """
import json, sys, time
from torch import nn
import torch
from netlens.lenses.summary.measure import measure
from netlens.loading.subject import Inputs, Subject

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(8192)
        self.up, self.down = nn.Linear(8192, 53248, bias=False), nn.Linear(53248, 8192, bias=False)
        self.register_buffer("mask", torch.ones(8192, 8192).tril())
    def forward(self, x):
        return x + self.down(self.up(self.norm(x)).relu())

def build():
    return nn.Sequential(*(Block() for _ in range(80)))

def peak():  # not ru_maxrss: a child inherits that from the process that started it
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])

before = peak()
start = time.perf_counter()
inputs = Inputs("test", lambda model, device: ((torch.empty(1, 128, 8192, device=device),), {}, ()))
report, error = measure(Subject("huge", build, False, lambda model: [inputs]))
after = peak()
seconds = time.perf_counter() - start
print(json.dumps([report.run.on, report.totals.parameters, report.totals.macs, after / 2**20, (after - before) / 2**20, seconds]))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_model_of_70_billion_parameters_takes_no_memory():
    """80 blocks of 2 x 8192 x 53248 weights and a norm of 2 x 8192: 69.8 G parameters, 260 GiB; every weight meets 128 rows."""
    done = subprocess.run([sys.executable, "-c", HUGE], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
    on, parameters, macs, peak, grown, seconds = json.loads(done.stdout)

    assert on == "meta"
    assert parameters == 80 * (2 * 8192 * 53248 + 2 * 8192) == 69_794_529_280
    assert macs == 80 * 128 * 2 * 8192 * 53248
    assert peak < 1.5 and grown < 0.6  # GiB: a mask of a constructor has 256 MiB for a moment
    assert seconds < 30


# -- copies of instances -------------------------------------------------------------------------------------------------------------


def test_a_skeleton_leaves_the_original():
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3).eval(), nn.Dropout())
    model[0].weight.grad = torch.ones(3, 4)
    handle = model[0].register_forward_hook(lambda *_: None)
    values = {name: value.clone() for name, value in model.state_dict().items()}
    random, grad = torch.get_rng_state(), model[0].weight.grad

    copied = skeleton(model)

    assert [module.training for module in copied.modules()] == [module.training for module in model.modules()] == [True, True, False, True]
    assert list(model[0]._forward_hooks) == [handle.id]
    assert all(torch.equal(value, values[name]) and not value.is_meta for name, value in model.state_dict().items())
    assert model[0].weight.grad is grad and torch.equal(torch.get_rng_state(), random)
    assert all(p.is_meta for p in copied.parameters()) and copied[0].weight.requires_grad


def test_a_skeleton_holds_tensors_of_attributes_and_containers_as_meta():
    kept = torch.ones(3, 4, requires_grad=True)
    model = Net(lambda self, x: x, plain=kept, nested={"deep": [(torch.ones(5), torch.arange(2))]}, fc=nn.Linear(4, 3))
    model.derived = [[model.fc.weight * 2]]  # no leaf: `copy.deepcopy` would refuse it

    copied = skeleton(model)

    floating, integers = copied.nested["deep"][0]
    assert copied.plain.is_meta and copied.plain.requires_grad and floating.is_meta and copied.derived[0][0].is_meta
    assert integers.tolist() == [0, 1]
    assert model.plain is kept and not kept.is_meta


def test_a_stand_in_has_the_layout_of_what_it_stands_for():
    x = torch.ones(2, 3, 4, 4).to(memory_format=torch.channels_last)
    assert stand_in(x).stride() == x.stride()
    assert input_stand_in(torch.arange(3)).tolist() == [0, 1, 2]
    assert input_stand_in(x.requires_grad_()).requires_grad


class Wrapper(nn.Module):
    """Named as the wrapper of `torch.compile` is, which a test need not wait for."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._orig_mod = model

    def forward(self, x: Tensor) -> Tensor:
        return self._orig_mod(x)


Wrapper.__name__ = "OptimizedModule"


def test_compiled_wrappers_are_taken_off():
    model = nn.Sequential(Wrapper(nn.Linear(4, 3)))
    assert [type(module).__name__ for module in skeleton(Wrapper(model)).modules()] == ["Sequential", "Linear"]
    assert type(model[0]) is Wrapper
    report = netlens.summary(Wrapper(model), torch.ones(2, 4))
    assert [layer.path for layer in report.layers] == ["", "0"] and report.totals.macs == 24


class Forbidden(nn.Module):
    """Refuses to be copied."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def __deepcopy__(self, memo: Any) -> Any:
        raise TypeError("one of me is enough")

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x)


@pytest.mark.parametrize("attribute", [threading.Lock(), (i for i in range(3)), sys, {"deep": [threading.Lock()]}, sys.__stderr__])
def test_what_cannot_be_copied_is_shared(attribute):
    model = head(attribute=attribute)

    assert skeleton(model).attribute is attribute
    report = netlens.summary(model, torch.ones(2, 4))
    assert (report.run.on, report.totals.parameters, report.totals.macs) == ("meta", 15, 24)


def test_a_model_that_forbids_copies_is_run_for_real():
    with pytest.raises(NotCopied, match="one of me is enough"):
        skeleton(nn.Sequential(Forbidden()))

    report = netlens.summary(nn.Sequential(Forbidden()), torch.ones(2, 4))

    assert (report.run.on, report.totals.parameters, report.totals.macs) == ("cpu", 15, 24)
    assert "a copy of the model cannot be made (TypeError: one of me is enough)" in report.run.why


def test_a_model_nested_too_deeply_to_be_copied_is_run_for_real():
    model: nn.Module = nn.Linear(4, 3)
    for _ in range(60):
        model = nn.Sequential(model)
    assert netlens.summary(model, torch.ones(2, 4)).run.on == "meta"


# -- models that are hard to empty ---------------------------------------------------------------------------------------------------


def pruned() -> nn.Module:
    layer = nn.Linear(4, 3)
    prune.l1_unstructured(layer, "weight", 0.5)
    return layer


def frozen() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 3).requires_grad_(False), nn.Linear(3, 2))


def from_class(build: Callable[[], nn.Module], x: Tensor) -> SummaryReport:
    make = Inputs("test", lambda model, device: ((input_stand_in(x) if device.type == "meta" else x,), {}, ()))
    return measure(Subject("test", build, False, lambda model: [make]))[0]


# name, model, input shape, parameters, trainable, MACs of a forward pass.
# spectral norm: sigma = u . (W v) takes 3 x 4 + 3 beside the layer's 2 x 12; the power iteration runs only in training mode.
# weight norm: one magnitude for each of 3 rows more, no product. Lazy: the shapes follow from the input.
HARD = [
    ("pruned", pruned, (2, 4), 15, 15, 24),
    ("frozen", frozen, (2, 4), 23, 8, 36),
    ("spectral_norm", lambda: spectral_norm(nn.Linear(4, 3)), (2, 4), 15, 15, 24 + 3 + 12),
    ("spectral_norm_old", lambda: nn.utils.spectral_norm(nn.Linear(4, 3)), (2, 4), 15, 15, 24 + 3 + 12),
    ("weight_norm", lambda: weight_norm(nn.Linear(4, 3)), (2, 4), 18, 18, 24),
    ("weight_norm_old", lambda: nn.utils.weight_norm(nn.Linear(4, 3)), (2, 4), 18, 18, 24),
    ("lazy_linear", lambda: nn.Sequential(nn.LazyLinear(3), nn.ReLU(), nn.LazyLinear(2)), (2, 4), 15 + 8, 23, 24 + 12),
    ("lazy_conv", lambda: nn.Sequential(nn.LazyConv2d(3, 3), nn.LazyBatchNorm2d()), (2, 4, 5, 5), 108 + 3 + 6, 117, 2 * 9 * 108),
    ("plain_attribute", lambda: Net(lambda self, x: F.linear(x, self.weight), weight=torch.ones(3, 4)), (2, 4), 0, 0, 24),
    ("nested_list", lambda: Net(lambda self, x: F.linear(x, self.w[0][0]), w=[[nn.Parameter(torch.ones(3, 4))]]), (2, 4), 0, 0, 24),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("build", "shape", "parameters", "trainable", "macs"), [case[1:] for case in HARD], ids=[case[0] for case in HARD])
def test_hard_models_are_counted_without_data(build, shape, parameters, trainable, macs):
    x = torch.ones(shape)
    for report in (from_class(build, x), netlens.summary(build(), x), netlens.summary(build(), x, device="cpu")):
        assert report.failure is None
        assert (report.totals.parameters, report.totals.trainable, report.totals.macs) == (parameters, trainable, macs)
        assert report.run.why == ""
    assert from_class(build, x).run.on == netlens.summary(build(), x).run.on == "meta"


def test_orthogonal_weights_are_counted_as_on_the_cpu():
    reports = [netlens.summary(orthogonal(nn.Linear(4, 4)), torch.ones(2, 4), device=device) for device in ("auto", "cpu")]
    assert reports[0].run.on == "meta"
    assert reports[0].totals == reports[1].totals and reports[0].memory == reports[1].memory


def test_a_lazy_model_stays_lazy():
    model = nn.Sequential(nn.LazyConv2d(3, 3), nn.LazyBatchNorm2d())
    for device in ("auto", "cpu"):
        assert netlens.summary(model, torch.ones(2, 4, 5, 5), device=device).totals.parameters == 117
        assert [type(layer).__name__ for layer in model] == ["LazyConv2d", "LazyBatchNorm2d"]
        assert model[0].has_uninitialized_params() and model[1].has_uninitialized_params()
    copied = lazy_copy(model)
    copied(torch.ones(2, 4, 5, 5))
    assert model[0].has_uninitialized_params() and not copied[0].weight.is_meta
    assert model(torch.ones(2, 7, 5, 5)).shape == (2, 3, 3, 3)
