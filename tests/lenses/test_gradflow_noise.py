"""Noise scale and signal against closed forms, McCandlish et al.'s two batch sizes in numpy, and simulated coverage."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from netlens.lenses.gradflow.noise import WIDTH, GradientNoise, interval, measure_noise, student

Array = np.ndarray[Any, Any]


def regression(random: np.random.Generator, count: int, batch_size: int, delta: Array, scales: Array, noise: float) -> Array:
    """Draw (count, d) gradients of batches: y = x w* + e, loss (x w - y)^2 / 2, so that each is the mean of x (x delta - e)."""
    x = random.standard_normal((count, batch_size, len(delta))) * scales
    error = x @ delta - noise * random.standard_normal((count, batch_size))
    return np.asarray((x * error[..., None]).mean(1))


def moments(delta: Array, scales: Array, noise: float) -> tuple[Array, Array]:
    """Mean and covariance of a sample's gradient. With H = E[x x'], Gaussian: H delta; H (delta' H delta + noise^2) + H delta delta' H."""
    hessian = np.diag(scales**2)
    mean = hessian @ delta
    return mean, hessian * (delta @ mean + noise**2) + np.outer(mean, mean)


DELTA, SCALES, NOISE = np.array([0.5, -1.0, 0.2, 0.3, 0.0, 0.8]), np.array([1.0, 0.5, 2.0, 1.5, 0.7, 0.3]), 1.0


def sums(gradients: Array, sizes: tuple[int, ...]) -> GradientNoise:
    found = GradientNoise(len(sizes))
    for gradient in gradients:
        found.add(list(torch.from_numpy(gradient).split(sizes)))
    return found


def test_closed_form_of_a_linear_regression():
    delta, scales = np.tile(DELTA, 10), np.tile(SCALES, 10)
    mean, covariance = moments(delta, scales, NOISE)
    gradients = regression(np.random.default_rng(0), 300, 64, delta, scales, NOISE)
    found = sums(gradients, (40, 20))
    noise = found.result(64)
    truth = np.trace(covariance) / (mean @ mean)
    assert noise.scale == pytest.approx(truth, rel=0.05)
    assert noise.low < truth < noise.high < 1.2 * noise.low
    quotients = mean**2 / (np.diag(covariance) / 64)  # between batches of 64
    assert found.signals() == pytest.approx([quotients[:40].mean(), quotients[40:].mean()], rel=0.1)
    assert noise.signal == pytest.approx(np.mean(found.signals()))  # the median of two


def test_the_same_numbers_as_from_two_batch_sizes():
    """McCandlish et al. 2018, appendix A.1, with B_small = 5 and B_big all 7 batches; two passes in numpy."""
    gradients = regression(np.random.default_rng(1), 7, 5, DELTA, SCALES, NOISE)
    small, big = 5, 35
    lengths = np.mean([g @ g for g in gradients]), gradients.mean(0) @ gradients.mean(0)
    length = (big * lengths[1] - small * lengths[0]) / (big - small)
    spread = (lengths[0] - lengths[1]) / (1 / small - 1 / big)
    found = sums(gradients, (1, 2, 3))
    assert found.result(5).scale == pytest.approx(spread / length, rel=1e-9)
    quotients = gradients.mean(0) ** 2 / gradients.var(0, ddof=1) * (4 / 6) - 1 / 7
    assert found.signals() == pytest.approx([max(0, quotients[a:b].mean()) for a, b in ((0, 1), (1, 3), (3, 6))], rel=1e-9)


@pytest.mark.parametrize(("batches", "size"), [(6, 0.3), (16, 1.0)])
def test_the_interval_covers_the_truth_in_nine_of_ten_cases(batches, size):
    """Weak and clear gradients; where the gradient may be zero the interval is open above, and errs on the wide side."""
    random, runs = np.random.default_rng(3), 300
    delta = size * DELTA
    mean, covariance = moments(delta, SCALES, NOISE)
    truth = np.trace(covariance) / (mean @ mean)
    inside = 0
    for _ in range(runs):
        gradients = regression(random, batches, 4, delta, SCALES, NOISE)
        found = sums(gradients, (6,)).result(4)
        inside += (found.low is None or found.low <= truth) and (found.high is None or truth <= found.high)
    assert 0.87 <= inside / runs <= (0.96 if size == 1 else 1)


def test_the_interval_of_a_wide_gradient_is_that_of_its_inner_products():
    """The sketch stands for 300,000 numbers: the interval must be the one that the exact inner products give."""
    random = np.random.default_rng(4)
    signal = random.random(300_000) * np.geomspace(1, 1e-3, 300_000)  # of one sign: sums of neighbours would not cancel
    gradients = signal + random.standard_normal((8, 300_000)) * np.geomspace(3, 1e-2, 300_000)
    found = sums(gradients, (WIDTH - 5, 7, 300_000 - WIDTH - 2)).result(16)
    exact = gradients @ gradients.T
    assert np.trace(exact) > 0 and found.scale is not None
    lengths = (exact.sum() - np.trace(exact)) / 56
    spreads = 16 * (np.trace(exact) / 8 - lengths)
    assert found.scale == pytest.approx(spreads / lengths, rel=1e-6)
    low, high = interval(spreads, lengths, torch.from_numpy(exact), 16)
    assert found.low < low < high < found.high  # a little wider, never narrower
    assert (found.low, found.high) == pytest.approx((low, high), rel=0.06)


def test_the_interval_holds_the_quotients_that_a_t_test_does_not_reject():
    """Fieller, slowly: leave out each batch, and try each quotient."""
    gradients = regression(np.random.default_rng(5), 9, 4, DELTA, SCALES, NOISE)
    n, t = 9, 1.8595  # 95 % of Student's t with 8 degrees of freedom

    def estimates(g: Array) -> Array:
        spread = g.var(0, ddof=1).sum()
        return np.array([4 * spread, g.mean(0) @ g.mean(0) - spread / len(g)])

    whole, parts = estimates(gradients), np.array([estimates(np.delete(gradients, index, 0)) for index in range(n)])

    def kept(quotient: float) -> bool:
        differences = parts @ [1, -quotient]
        return abs(whole @ [1, -quotient]) <= t * np.sqrt((n - 1) / n * ((differences - differences.mean()) ** 2).sum())

    tried = np.geomspace(0.01, 1000, 4000)
    inside = [quotient for quotient in tried if kept(quotient)]
    low, high = interval(*whole, torch.from_numpy(gradients @ gradients.T), 4)
    assert (low, high) == pytest.approx((inside[0], inside[-1]), rel=0.005)


def test_pure_noise_has_no_signal_and_a_scale_without_upper_end():
    gradients = np.random.default_rng(6).standard_normal((16, 4000))
    found = sums(gradients, (4000,))
    assert found.signals()[0] < 0.01
    noise = found.result(8)
    assert noise.high is None and (noise.low is None or noise.low > 8 * 16)


@pytest.mark.parametrize("batches", [6, 20])
def test_the_signal_does_not_depend_on_how_many_batches_there_are(batches):
    """Normal gradients of mean 1 and deviation 2: 1/4, over so many elements that the mean is sharp."""
    gradients = 1 + 2 * np.random.default_rng(7).standard_normal((batches, 200_000))
    assert sums(gradients, (200_000,)).signals()[0] == pytest.approx(0.25, rel=0.05)


def test_what_cannot_be_known():
    gradients = regression(np.random.default_rng(8), 3, 4, DELTA, SCALES, NOISE)
    assert GradientNoise(1).result(4).scale is None
    assert sums(gradients[:1], (6,)).result(4).scale is None
    few = sums(gradients, (6,))
    assert few.signals() == [None] and (few.result(4).low, few.result(4).high) == (None, None)
    broken = GradientNoise(2)
    for _ in range(5):
        broken.add([torch.full((3,), torch.nan), torch.ones(2)])
    assert broken.signals() == [None, None]
    assert broken.result(4).scale is None and broken.result(4).high is None
    assert (broken.result(4).batches, broken.result(4).nonfinite) == (5, 5)


def test_batches_whose_gradient_is_not_finite_are_counted_and_left_out():
    rows = regression(np.random.default_rng(10), 8, 4, DELTA, SCALES, NOISE)
    broken = np.insert(rows, [0, 3, 8], [[np.nan] * 6, [1, 2, np.inf, 4, 5, 6], [1, -np.inf, np.inf, 4, 5, 6]], axis=0)
    found, alone = sums(broken, (2, 4)), sums(rows, (2, 4))
    assert found.signals() == alone.signals() and None not in alone.signals()
    noise, expected = found.result(4), alone.result(4)
    assert (noise.scale, noise.low, noise.high, noise.signal) == (expected.scale, expected.low, expected.high, expected.signal)
    assert (noise.batches, noise.nonfinite, expected.batches, expected.nonfinite) == (11, 3, 8, 0)
    assert expected.scale is not None
    huge = GradientNoise(1)
    huge.add([torch.full((1 << 16,), 3e38)])  # finite, though sums of it are not
    assert (huge.batches, huge.nonfinite) == (1, 0)


def test_a_gradient_that_is_missing_in_some_batches_counts_as_zero():
    random = np.random.default_rng(9)
    rows = [torch.from_numpy(random.standard_normal(5) + 3) for _ in range(6)]
    holes, zeros = GradientNoise(3), GradientNoise(3)
    for index, row in enumerate(rows):
        missing = index in (0, 3)
        holes.add([None, None if missing else row, row])
        zeros.add([torch.zeros(5, dtype=torch.float64), torch.zeros_like(row) if missing else row, row])
    assert holes.signals()[1:] == pytest.approx(zeros.signals()[1:], rel=1e-12) and holes.signals()[0] is None
    a, b = holes.result(2), zeros.result(2)
    for one, other in ((a.scale, b.scale), (a.low, b.low), (a.high, b.high)):
        assert one == (None if other is None else pytest.approx(other, rel=1e-9))


def test_quantiles_of_students_t():
    """From the table in any textbook."""
    table = {3: 2.3534, 4: 2.1318, 7: 1.8946, 15: 1.7531, 63: 1.6694}
    assert {freedom: student(freedom) for freedom in table} == pytest.approx(table, rel=4e-3)


def test_a_model_is_differentiated_at_one_place_and_comes_back():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    batches = [(torch.randn(5, 3), torch.randn(5, 1)) for _ in range(6)]
    before = copy.deepcopy(model.state_dict())
    parameters = list(model.parameters())

    def loss_of(batch: tuple[Tensor, Tensor]) -> Tensor:
        return (model(batch[0]) - batch[1]).square().mean()

    ticks: list[int] = []
    noise, signals = measure_noise(model, loss_of, batches, parameters, batch_size=5, step=lambda: ticks.append(1))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in parameters) and len(ticks) == noise.batches == 6
    rows = np.stack(
        [torch.cat([g.flatten() for g in torch.autograd.grad(loss_of(batch), parameters)]).double().numpy() for batch in batches]
    )
    spread = rows.var(0, ddof=1).sum()
    length = rows.mean(0) @ rows.mean(0) - spread / 6
    assert length > 0 and noise.scale == pytest.approx(5 * spread / length, rel=1e-3)
    assert len(signals) == len(parameters)
