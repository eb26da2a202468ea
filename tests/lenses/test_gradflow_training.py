"""Overfitting against a loop of Adam on a deep copy and planted faults; rates against the closed form of a quadratic."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from math import inf, log
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netlens.errors import InputError
from netlens.lenses.gradflow.report import RateRange
from netlens.lenses.gradflow.training import BATCHES, SAMPLES, overfit, rate_range, smoothed, without_dropout
from netlens.probing.untouched import untouched
from sample_models import scenes, sick
from sample_models.shapes import ShapeNet

Batch = tuple[Tensor, Tensor]


def classified(samples: int = SAMPLES, classes: int = 5) -> Batch:
    generator = torch.Generator().manual_seed(1)
    return 2 * torch.randn(samples, 8, generator=generator), torch.arange(samples) % classes


class Net(nn.Module):
    """A body, a head, and an `extra` layer that takes part by `share`."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.extra, self.head, self.unused = nn.Linear(8, 64), nn.Linear(8, 64), nn.Linear(64, 5), nn.Linear(2, 2)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor, share: float = 1.0) -> Tensor:
        return self.head(self.drop(torch.tanh(self.body(x) + share * self.extra(x))))


def made() -> Net:
    torch.manual_seed(0)
    return Net()


def entropy(model: nn.Module) -> Any:
    return lambda batch: F.cross_entropy(model(batch[0]), batch[1])


# --- Overfitting


def test_losses_are_those_of_adam_on_a_deep_copy_until_a_twentieth_of_chance():
    model, batch = made(), classified()
    twin = copy.deepcopy(model).eval()  # no dropout
    optimizer, expected = torch.optim.Adam(twin.parameters(), lr=3e-3), []
    while not expected or expected[-1] > 0.05 * log(5):
        loss = F.cross_entropy(twin(batch[0]), batch[1])
        expected.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    before = copy.deepcopy(model.state_dict())
    found = overfit(model, entropy(model), batch, samples=SAMPLES, classes=5)
    assert len(expected) < 80 and found.losses == pytest.approx(expected, rel=1e-4)
    assert found.passed and found.steps == len(expected) - 1 and found.best == found.losses[-1]
    assert (found.target, found.chance) == pytest.approx((0.05 * log(5), log(5)))
    assert found.stopped == ("unused.weight", "unused.bias")  # never moved, though it passed
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items()) and model.training and model.drop.p == 0.5


def test_labels_that_do_not_depend_on_the_input_cannot_be_learned():
    """Two of each input with different labels: half of them are always wrong, and ln 2 is the least loss, 0.43 of ln 5."""
    x, _ = classified(8)
    batch = torch.cat([x, x]), torch.cat([torch.zeros(8), torch.ones(8)]).long()
    model = made()
    found = overfit(model, entropy(model), batch, samples=16, classes=5)
    assert found.steps == 80 and len(found.losses) == 81 and found.passed and found.best == pytest.approx(log(2), rel=0.05)
    model.head = nn.Linear(64, 2)
    found = overfit(model, entropy(model), batch, samples=16, classes=2)
    assert not found.passed and found.best >= log(2) - 1e-6 and found.stopped == ("unused.weight", "unused.bias")


@pytest.mark.parametrize("fault", ["detached", "no longer used", "multiplied by zero"])
def test_where_the_updates_stopped(fault):
    """From the tenth step on nothing comes back to the body: without a path, or as zeros, which momentum hides for many steps."""
    model, batch = made(), classified()
    calls: list[int] = []

    def loss_of(given: Batch) -> Tensor:
        calls.append(1)
        late = len(calls) > 10
        hidden = torch.tanh(model.body(given[0]))
        if late:
            hidden = {"detached": hidden.detach(), "no longer used": given[0].repeat(1, 8), "multiplied by zero": hidden * 0}[fault]
        return F.cross_entropy(model.head(hidden), given[1]) + 3

    found = overfit(model, loss_of, batch, samples=SAMPLES, classes=5)
    assert not found.passed and found.steps == 80
    dead = {"head.weight"} if fault == "multiplied by zero" else set()
    alive = {"head.weight", "head.bias"} - dead
    assert set(found.stopped) == {name for name, _ in model.named_parameters()} - alive


@pytest.mark.parametrize(
    ("losses", "passes"), [((-2.0, -2.5, -2.9), False), ((-2.0, -3.0, -3.0), True), ((2.0, 1.1, 1.1), False), ((2.0, 1.5, 1.0), True)]
)
def test_without_classes_the_first_loss_is_the_measure(losses, passes):
    """To pass, 2 must fall to 1, and -2 to -3: by half of its size."""
    model = made()
    series = iter(losses)

    def loss_of(_: object) -> Tensor:
        return model.head.bias.sum() * 0 + next(series, losses[-1])

    found = overfit(model, loss_of, None, samples=16)
    assert found.passed is passes and found.chance is None
    assert found.target == pytest.approx(losses[0] - 0.95 * abs(losses[0])) and found.best == pytest.approx(losses[-1])


def test_fewer_than_five_steps_say_nothing_about_where_updates_stopped():
    """What begins at zero holds others up for a step or two."""
    model, series = made(), iter([2.0, 1.5, 0.05])
    found = overfit(model, lambda _: model.head.bias.sum() * 0 + next(series), None, samples=16)
    assert found.passed and found.steps == 2 and found.stopped == ()


def test_a_loss_that_is_no_number_fails_and_ends_it():
    model, batch = made(), classified()
    series = iter([1.5, 1.4, inf])
    found = overfit(model, lambda b: entropy(model)(b) * 0 + next(series), batch, samples=16, classes=5)
    assert not found.passed and found.losses == pytest.approx((1.5, 1.4, inf)) and found.best == pytest.approx(1.4) and found.steps == 2
    with torch.no_grad():
        model.body.weight[0, 0] = torch.nan
    found = overfit(model, entropy(model), batch, samples=16, classes=5)
    assert not found.passed and found.steps == 0 and found.best != found.best and found.stopped == ()


def test_nothing_can_move():
    model, batch = made(), classified()
    found = overfit(model, lambda b: entropy(model)(b).detach(), batch, samples=16, classes=5)
    assert not found.passed and set(found.stopped) == {name for name, _ in model.named_parameters()}
    assert len(set(found.losses)) == 1
    found = overfit(model.requires_grad_(False), entropy(model), batch, samples=16, classes=5)
    assert not found.passed and found.steps == 0 and len(found.losses) == 1


def pictures() -> Batch:
    data = scenes.SceneDataset(SAMPLES, seed=5)
    images, labels = zip(*data, strict=True)
    return torch.stack(images), torch.tensor(labels)


@pytest.mark.parametrize(
    ("make", "training", "passes"),
    [(sick.fresh_plain, True, True), (sick.dead_relu, True, True), (sick.frozen_body, False, False), (sick.nan_weight, True, False)],
)
def test_sick_twins(make, training, passes):
    """A fault that three quarters of a layer are dead is unlearned in a few steps; a frozen body and a NaN are not."""
    model = make().train(training)
    found = overfit(model, entropy(model), pictures(), samples=SAMPLES, classes=6)
    assert found.passed is passes


def test_the_stopping_place_of_a_sick_twin_is_that_of_an_explicit_loop():
    """Filters that start 2000 times too small: a few steps of Adam, and nothing comes back to the first layers."""
    model, (x, y) = sick.vanishing_init(), pictures()
    twin = copy.deepcopy(model)
    optimizer, zeros, losses = torch.optim.Adam(twin.parameters(), lr=3e-3), [], []
    while len(losses) < 81 and min(losses, default=9) > 0.05 * log(6):
        loss = F.cross_entropy(twin(x), y)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        zeros.append({name for name, parameter in twin.named_parameters() if not parameter.grad.any()})
        optimizer.step()
    found = overfit(model, entropy(model), (x, y), samples=SAMPLES, classes=6)
    assert found.losses == pytest.approx(losses, rel=1e-4) and found.steps == len(losses) - 1
    assert set(found.stopped) == set.intersection(*zeros[-6:-1])  # of the last loss no step was taken


class Dropping(nn.Module):
    """Every way to drop: layers, functions, attributes, recurrent and attention layers, whole paths."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Dropout(0.5), nn.AlphaDropout(0.5), nn.Dropout1d(0.5), DropPath(0.5))
        self.lstm = nn.LSTM(8, 8, 2, dropout=0.5, batch_first=True)
        self.attention = nn.MultiheadAttention(8, 2, dropout=0.5, batch_first=True)
        self.encoder = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.5, batch_first=True)
        self.attn_drop = nn.Dropout(0.5)
        self.attention_dropout = 0.5

    def forward(self, x: Tensor) -> Tensor:
        x = self.lstm(self.layers(x))[0]
        x = self.encoder(self.attention(x, x, x)[0]) + x
        for p in (self.attn_drop.p if self.training else 0.0, self.attention_dropout):
            x = x + F.scaled_dot_product_attention(x, x, x, dropout_p=p)
        return F.dropout2d(F.dropout(x, training=self.training)[None], training=self.training)[0]


class DropPath(nn.Module):
    """As timm writes it."""

    def __init__(self, drop_prob: float) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        return x * x.new_empty(len(x), 1, 1).bernoulli_(1 - self.drop_prob) if self.training else x


def test_no_dropout_is_left_and_all_of_it_comes_back():
    torch.manual_seed(0)
    model, x = Dropping(), torch.randn(4, 6, 8)
    modes = {name: (module.training, getattr(module, "p", None)) for name, module in model.named_modules()}
    with untouched(model), without_dropout(model):
        first = model(x)
        assert torch.equal(first, model(x)) and (first != 0).all()
        assert model.training and model.lstm.training
    assert modes == {name: (module.training, getattr(module, "p", None)) for name, module in model.named_modules()}
    assert model.lstm.dropout == model.attention.dropout == model.attention_dropout == model.layers[3].drop_prob == 0.5
    assert not torch.equal(model(x), model(x)) and F.dropout(torch.ones(99)).eq(0).any()


# --- Learning rates


class Quadratic(nn.Module):
    """sum of eigenvalue x^2 / 2: gradient descent at rate r multiplies each x by 1 - r eigenvalue, and diverges above 2 / the largest."""

    def __init__(self, *eigenvalues: float) -> None:
        super().__init__()
        self.eigenvalues = torch.tensor(eigenvalues, dtype=torch.float64)
        self.x = nn.Parameter(torch.ones_like(self.eigenvalues))

    def forward(self) -> Tensor:
        return (self.eigenvalues * self.x**2).sum() / 2


def tried(model: Quadratic, **options: Any) -> tuple[RateRange, list[float]]:
    losses: list[float] = []

    def loss_of(_: object) -> Tensor:
        loss = model()
        losses.append(loss.item())
        return loss

    return rate_range(model, loss_of, lambda: iter([None]), lambda: torch.optim.SGD(model.parameters(), lr=0.5), **options), losses


def closed_form(eigenvalues: list[float], rates: list[float]) -> list[float]:
    values = np.array(eigenvalues)
    factors = np.cumprod([np.ones(len(values)), *(1 - rate * values for rate in rates)], axis=0)
    return [float((values * x**2).sum() / 2) for x in factors]


@pytest.mark.parametrize("eigenvalues", [[50.0], [3.0, 3.0, 3.0], [1.0, 10.0, 100.0]])
def test_the_run_is_the_closed_form_of_a_quadratic(eigenvalues):
    model = Quadratic(*eigenvalues)
    found, losses = tried(model)
    rates = [1e-7 * 1e8 ** (index / 99) for index in range(len(found.rates))]
    assert found.rates == pytest.approx(rates) and model.x.tolist() == [1] * len(eigenvalues)
    expected = closed_form(eigenvalues, rates)[: len(losses)]
    assert losses == pytest.approx(expected, rel=1e-8, abs=1e-12)
    assert losses[-1] > 4 * losses[0] > 4 * max(losses[1:-1]) / 5 and len(found.losses) == len(losses) - 1  # stopped when it blew up


@pytest.mark.parametrize("largest", [3.0, 50.0, 2000.0])
def test_where_a_quadratic_diverges(largest):
    """2 / eigenvalue, and nothing else, where all are equal; the steepest fall is before 1 / eigenvalue, which is the minimum."""
    found, _ = tried(Quadratic(*[largest] * 3), steps=200)
    assert 0.5 * 2 / largest < found.high <= 2 / largest
    assert found.low < found.steepest < 1 / largest


def test_the_largest_of_several_eigenvalues_sets_the_limit():
    """Without noise what diverges first has become so small that it needs a few steps to show: less than four times the limit."""
    found, _ = tried(Quadratic(1, 10, 100), steps=200)
    assert 0.5 * 2 / 100 < found.high < 4 * 2 / 100


def test_noise_between_batches_does_not_hide_the_fall():
    """Ten batches whose losses differ by far more than training changes them."""
    model = Quadratic(20.0)
    offsets = np.random.default_rng(0).uniform(100, 500, BATCHES)
    found = rate_range(
        model, lambda offset: model() + offset, lambda: iter(offsets), lambda: torch.optim.SGD(model.parameters(), lr=1), steps=200
    )
    assert 0.5 * 2 / 20 < found.high <= 2 / 20 and found.low < 1 / 20
    assert found.losses[0] == pytest.approx(offsets.mean() + 10, rel=1e-3)


def test_a_loss_that_does_not_fall_has_no_usable_range():
    generator = torch.Generator().manual_seed(0)
    model = Quadratic(1.0)
    found = rate_range(
        model,
        lambda _: model.x.sum() * 0 + 2 + 0.3 * torch.randn((), generator=generator),
        lambda: iter([None]),
        lambda: torch.optim.SGD(model.parameters(), lr=1),
    )
    assert (found.low, found.high, found.steepest) == (None, None, None) and len(found.losses) == 100
    rising = rate_range(model, lambda _: -model(), lambda: iter([None]), lambda: torch.optim.SGD(model.parameters(), lr=1, maximize=True))
    assert (rising.low, rising.high) == (None, None)


def test_a_loss_that_falls_to_the_end_has_no_upper_rate():
    found, _ = tried(Quadratic(0.01))
    assert found.high is None and found.low is not None and found.low < found.steepest <= 10


def test_a_loss_that_is_no_number_ends_it_at_once():
    model = Quadratic(torch.nan)
    found, losses = tried(model)
    assert found == RateRange((), (), None, None, None) and len(losses) == 1


def test_groups_keep_their_quotient_and_every_optimizer_works():
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    before, seen = copy.deepcopy(model.state_dict()), []
    x = torch.randn(16, 4, generator=torch.Generator().manual_seed(0))

    def grouped() -> torch.optim.Optimizer:
        groups = [{"params": model[0].parameters(), "lr": 0.001}, {"params": model[2].parameters(), "lr": 0.01}]
        optimizer = torch.optim.AdamW(groups)
        optimizer.register_step_pre_hook(lambda *_: seen.append([group["lr"] for group in optimizer.param_groups]))
        return optimizer

    for make in (grouped, lambda: torch.optim.LBFGS(model.parameters(), max_iter=2)):
        found = rate_range(model, lambda b: (model(b) - b[:, :1]).square().mean(), lambda: iter([x]), make, low=1e-4, high=1, steps=20)
        assert found.low is not None
    assert all(a == pytest.approx(b / 10) for a, b in seen) and [b for _, b in seen] == pytest.approx(
        list(np.geomspace(1e-4, 1, 20))[: len(seen)]
    )
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_batches_are_taken_again_and_no_batch_is_an_error():
    model, taken = Quadratic(1.0), []

    def loss_of(batch: int) -> Tensor:
        taken.append(batch)
        return model()

    def batches() -> Iterator[int]:
        yield from range(25)

    def options() -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=1)

    rate_range(model, loss_of, batches, options, steps=24, high=1e-3)
    assert taken == [*range(BATCHES), *range(BATCHES), 0, 1, 2, 3, 4]
    with pytest.raises(InputError, match="no batch"):
        rate_range(model, loss_of, lambda: iter([]), options)


def test_smoothing_keeps_a_turn_in_its_place_and_takes_off_a_spike():
    curve = [abs(index - 20.0) for index in range(40)]
    found = smoothed(curve)
    assert found.index(min(found)) == 20 and found[:15] == pytest.approx(curve[:15]) and found[26:] == pytest.approx(curve[26:])
    assert smoothed([1.0] * 6 + [99.0] + [1.0] * 6) == [1.0] * 13
    assert smoothed([]) == [] and smoothed([3.0]) == [3.0]


def test_a_real_network_has_a_usable_range():
    torch.manual_seed(0)
    model = ShapeNet()
    data = scenes.SceneDataset(32, seed=5)
    images, labels = zip(*data, strict=True)
    x, y = torch.stack(images), torch.tensor(labels)
    found = rate_range(
        model,
        entropy(model),
        lambda: iter([(x[:16], y[:16]), (x[16:], y[16:])]),
        lambda: torch.optim.Adam(model.parameters()),
        low=1e-6,
        high=10,
        steps=50,
    )
    assert 1e-5 < found.low <= found.steepest <= found.high < 1  # around 1e-3, as everybody's default
