"""Gradients equal those of a backward pass by hand, in float64 numpy; what stops them is told apart; the model is left as it was."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from netlens.errors import ForwardFailed, InputError
from netlens.lenses.gradflow import statistics
from netlens.lenses.gradflow.backward import Batch
from netlens.lenses.gradflow.measure import Measured, measure
from netlens.lenses.gradflow.report import FirstNonFinite, LayerFlow, ParameterFlow
from netlens.lenses.gradflow.statistics import Magnitudes, histograms, magnitudes

PRECISION = 1e-5  # of float32 against float64 numpy on the same gradients


class Net(nn.Module):
    """A convolution with channels last, a residual block whose ReLUs write into their input, dropout and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn, self.relu = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True)
        self.conv2, self.drop, self.fc = nn.Conv2d(4, 4, 3, padding=1), nn.Dropout(0.25), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn(self.conv1(x)))
        y = self.conv2(x)
        y += x
        return self.fc(self.drop(self.relu(y).mean((2, 3))))


class Parts(nn.Module):
    """A layer of each fate."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.body, self.frozen = nn.Linear(4, 3), nn.Linear(4, 4), nn.Linear(4, 4).requires_grad_(False)
        self.detached, self.graphless, self.unused = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.in_list = [nn.Linear(4, 4)]

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.body(self.frozen(x))
        with torch.no_grad():
            aside = self.graphless(hidden)
        return self.head(hidden + self.detached(hidden).detach() + aside + self.in_list[0](hidden))


class Twice(nn.Module):
    """One layer is called twice, and its weight is the output's as well."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix, self.out = nn.Embedding(7, 4), nn.Linear(4, 4), nn.Linear(4, 7, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.out(self.mix(torch.tanh(self.mix(self.embed(ids)))).mean(1))


class Between(nn.Module):
    """Some function between two layers."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(4, 4), Function(function), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.middle(self.first(x)))


class Function(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


@pytest.fixture(autouse=True)
def fixed() -> None:
    torch.manual_seed(0)


def batch(samples: int = 6, classes: int = 3, shape: tuple[int, ...] = (4,)) -> Batch:
    return (torch.randn(samples, *shape),), {}, torch.randint(0, classes, (samples,))


def run(model: nn.Module, *batches: Batch, loss: Callable[[Any, Any], Tensor] = F.cross_entropy, **options: Any) -> Measured:
    return measure(model, lambda: iter(batches), loss, **options)


def parameters(measured: Measured) -> dict[str, ParameterFlow]:
    return {row.name: row for row in measured.parameters}


def layers(measured: Measured) -> dict[str, LayerFlow]:
    return {row.name: row for row in measured.layers}


def facts(gradient: Tensor) -> dict[str, float]:
    """Return the statistics as they are defined, in float64."""
    g = gradient.detach().double().numpy()
    return {
        "mean": np.abs(g).sum() / g.size,
        "greatest": np.abs(g).max(),
        "rms": np.sqrt((g * g).sum() / g.size),
        "zeros": (g == 0).sum() / g.size,
        "nan": 0,
        "infinite": 0,
    }


def assert_equal(row: ParameterFlow | LayerFlow, gradient: Tensor, precision: float = PRECISION) -> None:
    found = {name: getattr(row, name) for name in facts(gradient)}
    assert found == pytest.approx(facts(gradient), rel=precision), row.name


# --- Numbers


def test_statistics_of_parameters_equal_numpy_on_the_gradients_of_a_backward_pass() -> None:
    model, ((x,), _, y) = Net().to(memory_format=torch.channels_last), batch(shape=(3, 8, 8))
    found = run(model, ((x,), {}, y), train=False)
    twin = deepcopy(model).eval()
    loss = F.cross_entropy(twin(x), y)
    loss.backward()

    rows = parameters(found)
    assert list(rows) == [f"{layer}.{kind}" for layer in ("conv1", "bn", "conv2", "fc") for kind in ("weight", "bias")]
    assert [row.index for row in found.parameters] == list(range(8))
    for name, parameter in twin.named_parameters():
        row, gradient, weight = rows[name], parameter.grad, parameter.detach().double().numpy()
        assert gradient is not None
        assert_equal(row, gradient)
        g = gradient.double().numpy()
        assert (row.status, row.optimized, row.shape, row.elements) == ("gradient", True, tuple(weight.shape), weight.size)
        assert row.norm == pytest.approx(np.linalg.norm(g), rel=PRECISION)
        assert row.weight_rms == pytest.approx(np.sqrt((weight**2).mean()), rel=PRECISION)
        assert row.ratio == (pytest.approx(np.linalg.norm(g) / np.linalg.norm(weight), rel=PRECISION) if weight.any() else None)
        assert row.histogram is not None
        assert row.histogram.counts == tuple(np.histogram(g, 64, (g.min(), g.max()))[0])
    everything = np.concatenate([parameter.grad.double().numpy().ravel() for parameter in twin.parameters() if parameter.grad is not None])
    assert found.steps[0].loss == pytest.approx(float(loss.detach()), rel=1e-6)
    assert found.steps[0].norm == pytest.approx(np.linalg.norm(everything), rel=PRECISION)
    assert found.steps[0].rms == tuple(row.rms for row in found.parameters)
    assert found.batch_size == 6


def test_gradients_of_layers_equal_those_of_a_forward_pass_unrolled_by_hand() -> None:
    model, ((x,), _, y) = Net(), batch(shape=(3, 8, 8))
    found = layers(run(model, ((x,), {}, y), train=False))

    model.eval()
    tensors: dict[str, Tensor] = {}
    tensors["conv1"] = model.conv1(x)
    tensors["bn"] = model.bn(tensors["conv1"])
    tensors["relu"] = tensors["bn"].relu()  # another tensor, so that the ReLU does not overwrite what it was given
    tensors["conv2"] = model.conv2(tensors["relu"])
    total = tensors["conv2"] + tensors["relu"]
    tensors["relu#2"] = total.relu()
    tensors["fc"] = model.fc(tensors["relu#2"].mean((2, 3)))
    gradients = torch.autograd.grad(F.cross_entropy(tensors["fc"], y), list(tensors.values()))

    assert list(found) == list(tensors)
    for (name, tensor), gradient in zip(tensors.items(), gradients, strict=True):
        assert_equal(found[name], gradient)
        assert (found[name].status, found[name].shape) == ("gradient", tuple(tensor.shape))
        assert found[name].activation_rms == pytest.approx(float(tensor.detach().double().square().mean().sqrt()), rel=PRECISION)


def test_gradients_equal_finite_differences() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    x, y = torch.randn(5, 3, dtype=torch.float64), torch.randint(0, 3, (5,))
    found = run(model, ((x,), {}, y))

    def difference(tensor: Tensor, loss: Callable[[], Tensor]) -> Tensor:
        """Return (loss(x + h) - loss(x - h)) / 2h for every element x."""
        slopes, flat = [], tensor.view(-1)
        for place in range(len(flat)):
            flat[place] += 1e-6
            above = loss()
            flat[place] -= 2e-6
            slopes.append((above - loss()) / 2e-6)
            flat[place] += 1e-6
        return torch.stack(slopes)

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            assert_equal(parameters(found)[name], difference(parameter, lambda: F.cross_entropy(model(x), y)), 1e-6)
        for place in range(3):
            output = model[: place + 1](x).clone()
            rest = model[place + 1 :]
            slopes = difference(output, lambda rest=rest, output=output: F.cross_entropy(rest(output), y))
            assert_equal(layers(found)[str(place)], slopes, 1e-6)


def test_batches_of_one_step_are_one_large_batch() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    (x,), _, y = batch(8)
    whole = run(model, ((x,), {}, y))
    parts = run(model, ((x[:4],), {}, y[:4]), ((x[4:],), {}, y[4:]), accumulate=2)

    assert parts.steps[0].loss == pytest.approx(whole.steps[0].loss, rel=1e-6)
    for one, other in zip((*parts.parameters, *parts.layers), (*whole.parameters, *whole.layers), strict=True):
        assert (one.mean, one.greatest, one.rms, one.zeros) == pytest.approx((other.mean, other.greatest, other.rms, other.zeros), rel=1e-4)


def test_a_loss_scale_is_divided_out_and_reduced_where_gradients_overflow() -> None:
    model, data = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)), batch()
    plain, scaled = run(model, data), run(model, data, scale=1024.0)
    for one, other in zip((*plain.parameters, *plain.layers), (*scaled.parameters, *scaled.layers), strict=True):
        assert (one.rms, one.greatest, one.mean) == pytest.approx((other.rms, other.greatest, other.mean), rel=1e-5)
    assert not scaled.notes

    half = nn.Linear(4, 3).half()
    x = torch.full((2, 4), 100.0, dtype=torch.float16)  # d loss / d weight is 200: with 65536 it would be 1.3e7
    found = run(half, ((x,), {}, None), loss=lambda output, labels: output.float().sum(), scale=65536.0)
    assert found.first_nonfinite is None
    assert parameters(found)["weight"].rms == pytest.approx(200)
    assert found.notes == ("gradients overflowed with a loss scale of 6.55e4: measured with 256",)


def test_autocast_is_around_forward_and_loss() -> None:
    model, ((x,), _, y) = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)), batch()
    found = run(model, ((x,), {}, y), around=lambda: torch.autocast("cpu", torch.bfloat16))
    with torch.autocast("cpu", torch.bfloat16):
        hidden = model[1](model[0](x))
        loss = F.cross_entropy(model[2](hidden), y)
    assert hidden.dtype == torch.bfloat16
    gradients = torch.autograd.grad(loss, [hidden, *model.parameters()])
    assert_equal(layers(found)["1"], gradients[0])
    for row, gradient in zip(found.parameters, gradients[1:], strict=True):
        assert_equal(row, gradient)


def test_a_tied_weight_is_one_row_and_a_layer_called_twice_two() -> None:
    model, ids, y = Twice(), torch.randint(0, 7, (5, 3)), torch.randint(0, 7, (5,))
    found = run(model, ((ids,), {}, y))
    first = model.embed(ids)
    second = model.mix(first)
    third = model.mix(second.tanh())
    logits = model.out(third.mean(1))
    gradients = torch.autograd.grad(F.cross_entropy(logits, y), [model.embed.weight, model.mix.weight, second, third])

    assert list(parameters(found)) == ["embed.weight", "mix.weight", "mix.bias"]
    for row, gradient in zip([*found.parameters[:2], layers(found)["mix"], layers(found)["mix#2"]], gradients, strict=True):
        assert_equal(row, gradient)


def test_sparse_gradients_are_those_of_all_elements() -> None:
    torch.manual_seed(1)
    sparse = nn.Sequential(nn.Embedding(7, 4, sparse=True), nn.Flatten(), nn.Linear(8, 3))
    ids, y = torch.tensor([[1, 1], [2, 1]]), torch.tensor([0, 2])
    row = run(sparse, ((ids,), {}, y)).parameters[0]
    dense = deepcopy(sparse)
    dense[0].sparse = False
    (gradient,) = torch.autograd.grad(F.cross_entropy(dense(ids), y), [dense[0].weight])
    assert_equal(row, gradient)
    assert row.zeros == 5 / 7  # rows 0, 3, 4, 5, 6


def test_a_gradient_that_the_model_takes_itself_is_not_the_loss_s() -> None:
    class Force(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            energy = self.first(x.requires_grad_()).square().sum()
            return torch.autograd.grad(energy, x, create_graph=True)[0]

    model, ((x,), _, y) = Force(), batch(classes=4)
    found = layers(run(model, ((x.clone(),), {}, y)))["first"]
    leaf = x.clone().requires_grad_()
    hidden = model.first(leaf)
    force = torch.autograd.grad(hidden.square().sum(), leaf, create_graph=True)[0]
    assert_equal(found, torch.autograd.grad(F.cross_entropy(force, y), hidden)[0])


def test_outputs_in_tuples_and_an_optimizer_of_some() -> None:
    class Pair(nn.Sequential):
        def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            x = self[0](x)
            return self[1](x), {"hidden": x}

    model = Pair(nn.Linear(4, 4), nn.Linear(4, 3))
    found = run(model, batch(), loss=lambda output, y: F.cross_entropy(output[0], y), optimized=[model[1].weight])
    assert [row.optimized for row in found.parameters] == [False, False, True, False]
    assert [row.status for row in found.parameters] == ["gradient"] * 4


# --- Steps


def test_steps_are_those_of_a_training_loop() -> None:
    model, batches = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)), [batch(), batch()]
    twin = deepcopy(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    before = deepcopy(model.state_dict())
    found = run(model, *batches, steps=3, after=lambda _: optimizer.step(), train=True)

    optimizer = torch.optim.SGD(twin.parameters(), lr=0.5, momentum=0.9)
    for step, ((x,), _, y) in zip(found.steps, (batches[0], batches[1], batches[0]), strict=True):
        optimizer.zero_grad()
        loss = F.cross_entropy(twin(x), y)
        loss.backward()
        gradients = [parameter.grad.double().numpy() for parameter in twin.parameters() if parameter.grad is not None]
        assert step.loss == pytest.approx(float(loss.detach()), rel=1e-5)
        assert step.rms == pytest.approx([np.sqrt((g**2).mean()) for g in gradients], rel=1e-3, abs=1e-7)
        optimizer.step()
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items() if "running" in name or "num" in name)


def test_nothing_follows_a_step_that_is_not_finite() -> None:
    model = nn.Sequential(nn.Linear(4, 3))

    def explode(parameters: Any) -> None:
        with torch.no_grad():
            parameters[0].fill_(torch.inf)

    found = run(model, batch(), steps=4, after=explode)
    assert len(found.steps) == 2
    assert found.steps[0].norm is not None
    assert found.steps[1].norm is None
    assert found.first_nonfinite == FirstNonFinite("forward", "0", "Linear", "", 0, 12, "weight 0.weight")


def test_random_numbers_of_a_run_depend_on_its_seed_alone() -> None:
    model, data = nn.Sequential(nn.Linear(4, 64), nn.Dropout(0.5), nn.Linear(64, 3)), batch()
    one, again, other = (run(model, data, steps=2, seed=seed) for seed in (0, 0, 1))
    assert one == again
    assert one.steps[0].loss != other.steps[0].loss
    assert one.steps[0].loss != one.steps[1].loss


# --- Where it stops


def test_frozen_unused_detached_and_unlisted_are_told_apart() -> None:
    model = Parts()
    found = run(model, batch())
    statuses = {row.layer: (row.status, row.optimized) for row in found.parameters}
    assert statuses == {
        "frozen": ("frozen", False),
        "body": ("gradient", True),
        "graphless": ("detached", True),
        "detached": ("detached", True),
        "<Linear>": ("gradient", False),
        "head": ("gradient", True),
        "unused": ("unused", True),
    }
    assert list(statuses)[-1] == "unused"
    assert {name: row.status for name, row in layers(found).items()} == {
        "frozen": "no grad",
        "body": "gradient",
        "graphless": "no grad",
        "detached": "detached",
        "<Linear>": "gradient",
        "head": "gradient",
    }
    assert all(row.rms is None and row.norm is None and row.histogram is None for row in found.parameters if row.status != "gradient")
    assert all(parameter.grad is None for parameter in (*model.parameters(), *model.in_list[0].parameters()))


def test_a_weight_that_is_used_without_its_module_is_not_unused() -> None:
    model = nn.ModuleDict({"attention": nn.MultiheadAttention(4, 2), "lstm": nn.LSTM(4, 3)})
    model.forward = lambda x: model["lstm"](model["attention"](x, x, x)[0])[0][-1]
    found = run(model, batch(shape=(2, 4)), loss=lambda output, y: output.sum())
    assert [row.name for row in found.parameters] == [
        *(f"attention.{name}" for name in ("in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias")),
        *(f"lstm.{name}_l0" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")),
    ]
    assert {row.status for row in found.parameters} == {"gradient"}


def test_reading_the_type_of_a_weight_does_not_use_it() -> None:
    model = nn.ModuleList([nn.Linear(4, 3), nn.Linear(4, 3)])
    model.forward = lambda x: model[0](x.to(model[1].weight.dtype).to(model[1].weight.device))
    assert [row.status for row in run(model, batch()).parameters] == ["gradient", "gradient", "unused", "unused"]


def test_a_loss_without_a_graph_is_no_error() -> None:
    found = run(nn.Linear(4, 3), batch(), loss=lambda output, y: F.cross_entropy(output, y).detach())
    assert [row.status for row in (*found.parameters, *found.layers)] == ["detached"] * 3
    assert found.steps[0].norm is None


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointed_blocks_show_their_layers(reentrant: bool) -> None:
    class Saving(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return self[1](checkpoint(self[0], x, use_reentrant=reentrant))

    model = Saving(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.5)), nn.Linear(8, 3))
    (x,), _, y = batch()
    found, plain = run(model, ((x.requires_grad_(),), {}, y)), run(nn.Sequential(*model), ((x,), {}, y))
    assert found == plain
    assert x.grad is None
    assert all(row.rms for row in found.layers)

    cut = run(model, ((x.detach(),), {}, y))
    assert [row.status for row in cut.parameters] == ["detached" if reentrant else "gradient"] * 2 + ["gradient"] * 2


# --- What is not finite


def test_finite_elements_are_measured_beside_others() -> None:
    gradient = torch.tensor([[1.0, -2.0, torch.nan], [0.0, torch.inf, -torch.inf]])
    for careful in (False, True):
        found = Magnitudes.of(magnitudes(gradient, careful=careful).tolist(), gradient.numel())
        assert (found.mean, found.largest, found.zeros, found.nan, found.infinite) == (1, 2, 1 / 3, 1, 2)
        assert (found.norm, found.rms) == pytest.approx((5**0.5, (5 / 3) ** 0.5))
    assert histograms([gradient])[0].counts == (1, *(0,) * 41, 1, *(0,) * 20, 1)  # -2, 0 and 1


@pytest.mark.parametrize(
    ("function", "where", "name", "operation", "nan", "infinite"),
    [
        (lambda x: torch.log(x * 0 - 1), "forward", "middle", "log", 24, 0),
        (lambda x: x / (x * 0), "forward", "middle", "div", 0, 24),
        (lambda x: x.masked_fill(x < 9, -torch.inf).softmax(1), "forward", "middle", "softmax", 24, 0),
        (lambda x: torch.where(x > 9, x, -torch.inf).relu() + (x * 0 + 200).exp(), "forward", "middle", "exp", 0, 24),
        (lambda x: torch.sqrt(x * 0), "backward", "middle", "SqrtBackward0", 0, 24),
        (lambda x: torch.where(x > 99, x / (x * 0), x), "backward", "middle", "DivBackward0", 24, 0),
        (lambda x: (x * 0 + 1e-30).pow(0.0001).log().mul(1e38).mul(10).sigmoid(), None, "", "", 0, 0),
    ],
)
def test_the_first_operation_that_is_not_finite(
    function: Callable[[Tensor], Tensor], where: str | None, name: str, operation: str, nan: int, infinite: int
) -> None:
    found = run(Between(function), batch())
    if where is None:  # -inf that a sigmoid takes is no fault
        assert found.first_nonfinite is None
        return
    assert found.first_nonfinite == FirstNonFinite(where, name, "Function", operation, nan, infinite)


def test_overflow_in_half_precision_is_named() -> None:
    found = run(Between(lambda x: (x * 0 + 300).half().square().float()), batch(), loss=lambda output, y: output.sum())
    assert found.first_nonfinite == FirstNonFinite("forward", "middle", "Function", "pow", 0, 24)
    with_autocast = run(
        Between(lambda x: x.float() * 0 + 3.4e38),
        batch(),
        loss=lambda output, y: output.sum(),
        around=lambda: torch.autocast("cpu", torch.bfloat16),
    )
    assert with_autocast.first_nonfinite == FirstNonFinite("forward", "last", "Linear", "to_copy", 0, 24)


def test_what_was_not_finite_to_begin_with_is_not_blamed_on_an_operation() -> None:
    model, ((x,), _, y) = Between(torch.relu), batch()
    x[0, 1] = torch.nan
    assert run(model, ((x,), {}, y)).first_nonfinite == FirstNonFinite("forward", "first", "Linear", "", 1, 0, "input")
    with torch.no_grad():
        model.last.weight[0, :2] = torch.inf
    found = run(model, ((x.nan_to_num(),), {}, y)).first_nonfinite
    assert found == FirstNonFinite("forward", "last", "Linear", "", 0, 2, "weight last.weight")


def test_what_the_loss_makes_is_the_loss_s() -> None:
    found = run(Between(torch.relu), batch(), loss=lambda output, y: (output * 0 - 1).log().mean())
    assert found.first_nonfinite == FirstNonFinite("loss", "", "", "log", 18, 0)
    found = run(Between(torch.relu), batch(), loss=lambda output, y: (output * 0).sqrt().mean())
    assert found.first_nonfinite == FirstNonFinite("backward", "", "", "SqrtBackward0", 0, 18)


# --- Magnitudes


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(), (7,), (3, 5, 4), (5, 300, 400)])
def test_magnitudes_equal_numpy_on_every_path(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    tensor = (torch.randn(shape) * (torch.rand(shape) > 0.3)).to(dtype)
    if tensor.dim() == 3:
        tensor[-1] = 1.1  # all rounding errors in one direction
    g = np.abs(tensor.double().numpy())
    expected = pytest.approx([g.sum(), (g * g).sum(), np.count_nonzero(g), 0, 0, g.max()], rel=PRECISION)
    for found in (magnitudes(tensor), magnitudes(tensor.mT if tensor.dim() > 1 else tensor), magnitudes(tensor, careful=True)):
        assert found.tolist() == expected
    if tensor.numel() < 100:  # as on accelerators, whose kernels add up large tensors in a tree: the CPU's do not
        assert statistics._elsewhere(tensor.flatten()).tolist() == expected
        assert statistics._together([tensor.float(), tensor.float()])[1].tolist() == expected


def test_a_sample_estimates_the_mean_and_the_zeros_of_many_elements_alone() -> None:
    tensor = torch.randn(8, 32, 64, 128) * (torch.rand(8, 32, 64, 128) > 0.3)
    tensor[0, 0, 0, 1], tensor[7, 31, 63, 126] = -torch.pi, 50
    found, exact = (Magnitudes.of(magnitudes(tensor, sampled=sampled).tolist(), tensor.numel()) for sampled in (True, False))
    assert (found.largest, found.nan, found.infinite) == (50, 0, 0)
    assert found.squares == pytest.approx(exact.squares, rel=1e-9)
    assert (found.mean, found.zeros) == pytest.approx((exact.mean, exact.zeros), rel=0.01)
    tensor[...] = 0
    assert Magnitudes.of(magnitudes(tensor, sampled=True).tolist(), tensor.numel()).zeros == 1
    tensor[0, 0, 32, 5] = -1  # in the second run of 4096, which no sample has
    found = Magnitudes.of(magnitudes(tensor, sampled=True).tolist(), tensor.numel())
    assert (found.largest, found.norm) == (1, 1)
    assert 0.999 < found.zeros < 1  # not dead


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_tiny_and_huge_gradients_keep_their_norm(size: float) -> None:
    tensor = torch.tensor([3.0, 4.0]) * size
    assert Magnitudes.of(magnitudes(tensor).tolist(), 2).norm == pytest.approx(5 * size, rel=1e-6)
    assert statistics.is_blurred(Magnitudes.of(statistics._elsewhere(tensor).tolist(), 2))  # and would be read again, carefully
    assert magnitudes(tensor, careful=True).tolist()[1] == pytest.approx(25 * size**2, rel=1e-6)


def test_a_histogram_of_many_elements_is_of_an_even_sample() -> None:
    values = torch.arange(5 * 32_768).float()
    (found,) = histograms([values])
    assert found is not None
    assert found.sampled
    assert (found.low, found.high) == (0, 5 * 32_767)  # every fifth
    assert found.counts == (512,) * 64


# --- No trace


class Hostile(Net):
    """Has everything that a pass may change."""

    def __init__(self) -> None:
        super().__init__()
        self.calls, self.cache = 0, [torch.zeros(2)]
        self.conv2.weight.requires_grad_(False)
        self.bn.eval()

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.cache[0] += random.random()
        return super().forward(x)


def failing(output: Tensor, labels: Tensor) -> Tensor:
    raise ValueError("no such loss")


def overwritten(output: Tensor, labels: Tensor) -> Tensor:
    wrong = output.exp()
    wrong += wrong.mean()
    return wrong.sum()


@pytest.mark.parametrize(("loss", "error"), [(F.cross_entropy, None), (failing, ValueError), (overwritten, ForwardFailed)])
def test_the_model_is_left_as_it_was(loss: Callable[[Any, Any], Tensor], error: type[Exception] | None) -> None:
    model, ((x,), _, y) = Hostile(), batch(shape=(3, 8, 8))
    optimizer = torch.optim.SGD([model.fc.bias], lr=1.0)
    hook = model.fc.bias.register_post_accumulate_grad_hook(lambda _: optimizer.step())  # an optimizer that steps during backward
    model.fc.weight.grad = torch.ones_like(model.fc.weight)
    x.requires_grad_()
    x.grad = torch.full_like(x, 2)

    def state() -> list[Any]:
        tensors = {**model.state_dict(), "cache": model.cache[0], "x": x.grad}
        return [
            {name: tensor.tolist() for name, tensor in tensors.items()},
            [(parameter.requires_grad, None if parameter.grad is None else parameter.grad.tolist()) for parameter in model.parameters()],
            [(module.training, dict(module._forward_hooks), dict(module._backward_hooks)) for module in model.modules()],
            (model.calls, random.getstate(), torch.get_rng_state().tolist(), np.random.get_state()[1].tolist()),
            (list(model.fc.bias._post_accumulate_grad_hooks.values()), nn.Module.__call__, torch.is_grad_enabled()),
        ]

    before, grad = state(), model.fc.weight.grad
    if error is None:
        assert all(row.rms for row in run(model, ((x,), {}, y), loss=loss).parameters if row.status == "gradient")
    else:
        with pytest.raises(error):
            run(model, ((x,), {}, y), loss=loss, train=True)
    assert state() == before
    assert model.fc.weight.grad is grad
    hook.remove()


def test_it_measures_inside_no_grad_and_inference_mode() -> None:
    model, data = nn.Linear(4, 3), batch()
    expected = run(model, data)
    with torch.no_grad():
        assert run(model, data) == expected
    with torch.inference_mode():
        assert run(model, data) == expected


def test_wrappers_are_taken_off() -> None:
    class Compiled(nn.Module):  # as torch.compile makes one
        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self._orig_mod = model

    model, data = nn.Sequential(nn.Linear(4, 3)), batch()
    assert run(nn.DataParallel(model), data) == run(Compiled(model), data) == run(model, data)


def test_errors_are_told() -> None:
    def nothing() -> Iterator[Batch]:
        yield from ()

    with pytest.raises(InputError, match="no batch"):
        measure(nn.Linear(4, 3), nothing, F.cross_entropy)
    with pytest.raises(ForwardFailed, match="the backward pass raised: one of the variables needed") as caught:
        run(nn.Linear(4, 3), batch(), loss=overwritten)
    assert caught.value.hint == "write a new tensor where one is changed in place"
