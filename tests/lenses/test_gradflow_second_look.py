"""The second look against three explicit steps of Adam on a deep copy."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netlens.lenses.gradflow.second_look import second_look


class Gated(nn.Module):
    """x + gate * branch(x), whose gate begins at zero: the branch gets no gradient at first; and a layer that is never used."""

    def __init__(self) -> None:
        super().__init__()
        self.branch, self.gate = nn.Linear(5, 5), nn.Parameter(torch.zeros(5))
        self.head, self.unused = nn.Linear(5, 3), nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x + self.gate * F.relu(self.branch(x)))


def made() -> tuple[Gated, tuple[Tensor, Tensor]]:
    torch.manual_seed(0)
    model = Gated()
    with torch.no_grad():
        model.branch.bias[:2] = -100  # two dead channels
    return model, (torch.randn(8, 5), torch.randint(0, 3, (8,)))


def test_it_is_the_gradient_after_three_steps_of_adam():
    model, batch = made()
    twin = copy.deepcopy(model)
    optimizer = torch.optim.Adam(twin.parameters(), lr=1e-3)
    for step in range(4):
        optimizer.zero_grad()
        F.cross_entropy(twin(batch[0]), batch[1]).backward()
        if step < 3:
            optimizer.step()
    arrays = {
        name: (weight.detach().double().numpy(), None if weight.grad is None else weight.grad.double().numpy())
        for name, weight in twin.named_parameters()
    }

    before = copy.deepcopy(model.state_dict())
    names = [name for name, _ in model.named_parameters()][::-1]
    look = second_look(model, lambda b: F.cross_entropy(model(b[0]), b[1]), batch, [model.get_parameter(name) for name in names])
    for name, ratio, zeros in zip(names, look.ratio, look.zeros, strict=True):
        weight, gradient = arrays[name]
        if gradient is None:
            assert ratio is None and zeros is None and name.startswith("unused")
            continue
        assert zeros == pytest.approx((gradient == 0).mean())
        expected = None if name == "gate" else pytest.approx(np.linalg.norm(gradient) / np.linalg.norm(weight), rel=1e-4)
        assert ratio == expected
    assert look.zeros[names.index("branch.bias")] == 2 / 5  # the gate has opened, dead channels stay
    assert look.nonzero_layers == 3  # branch, head, and the module that holds the gate
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_nothing_to_train():
    model, batch = made()
    model.requires_grad_(False)
    look = second_look(model, lambda b: F.cross_entropy(model(b[0]), b[1]), batch, list(model.parameters()))
    assert set(look.ratio) == {None} and set(look.zeros) == {None} and look.nonzero_layers == 0


def test_a_loss_without_a_graph_and_a_model_that_raises():
    model, batch = made()
    look = second_look(model, lambda b: F.cross_entropy(model(b[0]).detach(), b[1]), batch, list(model.parameters()))
    assert set(look.ratio) == {None}
    before, calls = copy.deepcopy(model.state_dict()), []

    def fails(b: tuple[Tensor, Tensor]) -> Tensor:
        calls.append(1)
        if len(calls) == 3:
            raise ZeroDivisionError
        return F.cross_entropy(model(b[0]), b[1])

    with pytest.raises(ZeroDivisionError):
        second_look(model, fails, batch, list(model.parameters()))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_half_precision_stays_finite():
    """In float16 Adam's usual 1e-8 is 0, and an element without gradient would become 0 / 0."""
    model, batch = made()
    model.half()
    look = second_look(model, lambda b: F.cross_entropy(model(b[0].half()).float(), b[1]), batch, list(model.parameters()))
    assert all(np.isfinite(ratio) for ratio in look.ratio if ratio is not None) and look.nonzero_layers == 3
