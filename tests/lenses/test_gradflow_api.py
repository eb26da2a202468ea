"""`netlens.gradflow`: its numbers against finite differences and numpy in float64, and a model that is left as it came."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import netlens
from netlens.errors import NetlensError
from tests.test_untouched import ZOO, Noisy, Raising, Stateful, differences, state_of, state_of_the_process


class Small(nn.Module):
    """A convolution, a smooth activation, a normalisation and a head, in float64."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(2, 3, 2), nn.LayerNorm(3), nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(torch.tanh(self.conv(x)).mean((2, 3))))


@pytest.fixture
def small() -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    return Small().double(), torch.randn(5, 2, 4, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 0])


def test_gradients_equal_finite_differences(small):
    """Of each parameter, (loss(w + h) - loss(w - h)) / 2 h, one element at a time."""
    model, x, labels = small
    rows = {row.name: row for row in netlens.gradflow(model, x, labels, loss="cross_entropy").parameters}
    step = 1e-6
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            slopes = []
            for place in range(parameter.numel()):
                ends = []
                for sign in (1, -1):
                    parameter.view(-1)[place] += sign * step
                    ends.append(float(F.cross_entropy(model(x), labels)))
                    parameter.view(-1)[place] -= sign * step
                slopes.append((ends[0] - ends[1]) / (2 * step))
            found = np.array(slopes)
            row = rows[name]
            assert row.norm == pytest.approx(np.linalg.norm(found), rel=1e-6)
            assert row.mean == pytest.approx(np.abs(found).mean(), rel=1e-6)
            assert row.greatest == pytest.approx(np.abs(found).max(), rel=1e-6)


def test_statistics_equal_numpy_in_float64(small):
    model, x, labels = small
    report = netlens.gradflow(model, x, labels, lr=0.25)
    loss = F.cross_entropy(model(x), labels)
    gradients = dict(zip(dict(model.named_parameters()), torch.autograd.grad(loss, list(model.parameters())), strict=True))
    assert report.steps[0].loss == pytest.approx(loss.item(), rel=1e-12)
    whole = np.concatenate([gradient.numpy().ravel() for gradient in gradients.values()])
    assert report.steps[0].norm == pytest.approx(np.linalg.norm(whole), rel=1e-9)
    for row in report.parameters:
        gradient, weight = gradients[row.name].numpy(), model.get_parameter(row.name).detach().numpy()
        expected = (
            *(np.abs(gradient).mean(), np.abs(gradient).max(), np.sqrt((gradient**2).mean()), np.linalg.norm(gradient)),
            *((gradient == 0).mean(), np.sqrt((weight**2).mean())),
        )
        assert (row.mean, row.greatest, row.rms, row.norm, row.zeros, row.weight_rms) == pytest.approx(expected, rel=1e-9)
        if weight.any():
            assert row.ratio == pytest.approx(np.linalg.norm(gradient) / np.linalg.norm(weight), rel=1e-9)
            assert row.update == pytest.approx(0.25 * np.linalg.norm(gradient) / np.linalg.norm(weight), rel=1e-9)
        assert row.histogram is not None and sum(row.histogram.counts) == gradient.size


def test_gradients_of_activations_equal_those_of_autograd(small):
    model, x, labels = small
    found = {layer.name: layer for layer in netlens.gradflow(model, x, labels).layers}
    conv = model.conv(x)
    tanh = torch.tanh(conv)
    norm = model.norm(tanh.mean((2, 3)))
    scores = model.head(norm)
    slopes = torch.autograd.grad(F.cross_entropy(scores, labels), [conv, tanh, norm, scores])
    assert list(found) == ["conv", ":tanh", "norm", "head"]
    for layer, output, slope in zip(found.values(), (conv, tanh, norm, scores), slopes, strict=True):
        assert layer.rms == pytest.approx(np.sqrt((slope.numpy() ** 2).mean()), rel=1e-9)
        assert layer.greatest == pytest.approx(np.abs(slope.numpy()).max(), rel=1e-9)
        assert layer.activation_rms == pytest.approx(np.sqrt((output.detach().numpy() ** 2).mean()), rel=1e-9)


def test_the_mode_is_that_of_the_model():
    model, x, labels = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)), torch.randn(6, 4), torch.arange(6) % 3
    for train in (True, False):
        expected = F.cross_entropy(model.train(train)(x), labels).item()
        assert netlens.gradflow(model, x, labels).steps[0].loss == pytest.approx(expected, rel=1e-5)


def test_a_loss_of_the_users_own_and_arguments_by_name():
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 1)

        def forward(self, x: Tensor, *, scale: Tensor) -> Tensor:
            return self.fc(x) * scale

    model, x, scale = Two(), torch.randn(6, 4), torch.tensor(3.0)
    report = netlens.gradflow(
        model, x, torch.zeros(6, 1), kwargs={"scale": scale}, loss=lambda output, labels: (output - labels).abs().sum()
    )
    assert report.steps[0].loss == pytest.approx((model(x, scale=scale)).abs().sum().item(), rel=1e-5)


LABELS = torch.tensor([0, 3])
WAYS: list[dict[str, Any]] = [{}, {"steps": 3, "optimizer": "adam", "lr": 0.05, "overfit": True}]


@pytest.mark.parametrize("way", WAYS, ids=["one step", "trained"])
@pytest.mark.parametrize("build", ZOO)
def test_it_leaves_no_trace(build: Callable[[], nn.Module], way: dict[str, Any]):
    """Not one bit of a parameter, a buffer, `.grad`, an attribute, a flag, or a generator."""
    model, x = build(), torch.ones(2, 4)
    before, process = state_of(model), state_of_the_process()
    if build is Raising:
        with pytest.raises(NetlensError, match="second"):
            netlens.gradflow(model, x, LABELS, **way)
    else:
        report = netlens.gradflow(model, x, LABELS, **way)
        assert any(row.norm for row in report.parameters)
    assert differences(before, state_of(model)) == []
    assert differences(process, state_of_the_process()) == []
    assert x.tolist() == [[1.0] * 4] * 2 and not x.requires_grad and x.grad is None


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), GeneratorExit()])
def test_an_interrupt_goes_through_and_leaves_no_trace(error):
    model = Raising(error)
    before, process = state_of(model), state_of_the_process()
    with pytest.raises(type(error)):
        netlens.gradflow(model, torch.ones(2, 4), LABELS)
    assert differences(before, state_of(model)) == []
    assert differences(process, state_of_the_process()) == []


@pytest.mark.parametrize("build", [Noisy, Stateful])
def test_it_may_be_called_inside_no_grad_and_inference_mode(build):
    for mode in (torch.no_grad, torch.inference_mode):
        model = build()
        before = state_of(model)
        with mode():
            report = netlens.gradflow(model, torch.ones(2, 4), LABELS)
        assert any(row.norm for row in report.parameters) and differences(before, state_of(model)) == []
