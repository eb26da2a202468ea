"""Updates against an explicit `optimizer.step()` on a deep copy, in numpy float64; cosines by numpy; and nothing of it stays."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netlens.lenses.gradflow.updates import Cosines, differentiate, norms, on_a_copy, ratios, watched_steps

OPTIMIZERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "SGD": (torch.optim.SGD, {"lr": 0.1}),
    "momentum": (torch.optim.SGD, {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    "Adam": (torch.optim.Adam, {"lr": 1e-2, "amsgrad": True}),
    "AdamW": (torch.optim.AdamW, {"lr": 1e-2, "weight_decay": 0.5}),
    "RMSprop": (torch.optim.RMSprop, {"lr": 1e-3, "momentum": 0.5}),
}


class Net(nn.Module):
    """With a buffer that changes, a tied weight, and a bias that begins at zero."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4)
        self.last.weight = self.first.weight
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.norm(self.first(x))))


def made(seed: int = 0) -> tuple[Net, list[tuple[Tensor, Tensor]]]:
    torch.manual_seed(seed)
    return Net(), [(torch.randn(6, 4), torch.randint(0, 4, (6,))) for _ in range(4)]


def array(tensor: Tensor) -> Any:
    return tensor.detach().double().numpy().copy()


def explicit(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], optimizer: torch.optim.Optimizer) -> list[list[float | None]]:
    """Train as everybody does, and return ||after - before|| / ||before|| of every parameter in every step."""
    found = []
    for x, y in batches:
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        before = [array(parameter) for parameter in model.parameters()]
        optimizer.step()
        after = [array(parameter) for parameter in model.parameters()]
        sizes = [np.linalg.norm(a) for a in before]
        found.append([np.linalg.norm(b - a) / size if size else None for a, b, size in zip(before, after, sizes, strict=True)])
    return found


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_updates_are_those_of_an_explicit_step_on_a_deep_copy(name):
    make, options = OPTIMIZERS[name]
    model, batches = made()
    twin = copy.deepcopy(model)
    expected = explicit(twin, batches, make(twin.parameters(), **options))

    before = copy.deepcopy(model.state_dict())
    parameters, found = list(model.parameters()), []
    with on_a_copy(model):
        optimizer = make(model.parameters(), **options)
        for x, y in batches:
            differentiate(F.cross_entropy(model(x), y), parameters)
            with watched_steps(parameters, optimizer) as moves:
                optimizer.step()
            found.append(ratios(moves, len(parameters)))
    for now, then in zip(found, expected, strict=True):
        assert now == [None if value is None else pytest.approx(value, rel=1e-4) for value in then]
    assert found[0][4] is None and found[1][4] is not None  # a bias that begins at zero has nothing to be compared with
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_two_steps_by_hand():
    """w = (3, 4), gradient (3, 4): SGD 0.1 with momentum 0.9 moves it by 0.1, then by 0.1 (0.9 + 1) over what is left, 0.9."""
    weight = nn.Parameter(torch.tensor([3.0, 4.0]))
    optimizer, found = torch.optim.SGD([weight], lr=0.1, momentum=0.9), []
    for _ in range(2):
        weight.grad = torch.tensor([3.0, 4.0])
        with watched_steps([weight], optimizer) as moves:
            optimizer.step()
        found += ratios(moves, 1)
    assert found == pytest.approx([0.1, 0.19 / 0.9], rel=1e-6)


def test_what_has_no_update_has_no_number():
    trained, frozen, unused, foreign = (nn.Parameter(torch.ones(2)) for _ in range(4))
    frozen.requires_grad_(False)
    optimizer = torch.optim.SGD([trained, frozen, unused], lr=0.5, weight_decay=0.1)
    (trained.sum() + foreign.sum()).backward()
    with watched_steps([foreign, unused, frozen, trained], optimizer) as moves:
        optimizer.step()
    assert ratios(moves, 4) == [None, None, None, pytest.approx(0.5 * 1.1)]


def test_a_step_that_rounding_swallows_is_zero():
    """In bfloat16 the next number below 1 is 1 - 1/256: a step of 1/1000 changes nothing."""
    weight = nn.Parameter(torch.ones(8, dtype=torch.bfloat16))
    weight.grad = torch.ones_like(weight)
    with watched_steps([weight], optimizer := torch.optim.SGD([weight], lr=1e-3)) as moves:
        optimizer.step()
    assert ratios(moves, 1) == [0]


def test_steps_of_optimizers_that_the_caller_does_not_know():
    a, b = (nn.Parameter(torch.full((2,), 2.0)) for _ in range(2))

    def user_step() -> None:
        for parameter, lr in ((a, 0.1), (b, 0.3)):
            parameter.grad = torch.ones(2)
            torch.optim.SGD([parameter], lr=lr).step()

    with watched_steps([a, b]) as moves:
        user_step()
    assert len(moves) == 2 and ratios(moves, 2) == pytest.approx([0.05, 0.15])
    user_step()
    assert len(moves) == 2  # no hook is left


def test_a_step_that_the_scaler_leaves_out_is_none():
    weight = nn.Parameter(torch.ones(2))
    optimizer, scaler = torch.optim.SGD([weight], lr=0.1), torch.amp.GradScaler("cpu", init_scale=4.0)
    with watched_steps([weight], optimizer) as moves:
        scaler.scale((weight * torch.inf).sum()).backward()
        scaler.step(optimizer)
        assert moves == []
        scaler.update()
        optimizer.zero_grad()
        scaler.scale(weight.sum()).backward()
        scaler.step(optimizer)
    assert ratios(moves, 1) == pytest.approx([0.1])


def test_sparse_gradients():
    torch.manual_seed(0)
    model = nn.Embedding(10, 3, sparse=True)
    before = array(model.weight)
    optimizer = torch.optim.SparseAdam(list(model.parameters()), lr=0.1)
    with watched_steps([model.weight], optimizer) as moves:
        model(torch.tensor([1, 1, 4])).square().sum().backward()
        optimizer.step()
    assert model.weight.grad.is_sparse
    expected = np.linalg.norm(array(model.weight) - before) / np.linalg.norm(before)
    assert ratios(moves, 1) == pytest.approx([expected], rel=1e-5) and expected > 0
    differentiate(model(torch.tensor([1, 1, 4])).sum(), [model.weight])
    assert torch.equal(model.weight.grad, torch.zeros(10, 3).index_fill(0, torch.tensor([1]), 2).index_fill(0, torch.tensor([4]), 1))


# --- Nothing stays


@pytest.mark.parametrize("name", ["Adam", "LBFGS"])
@pytest.mark.parametrize("fails", [False, True])
def test_everything_comes_back(name, fails):
    model, batches = made()
    optimizer = (
        torch.optim.Adam(model.parameters()) if name == "Adam" else torch.optim.LBFGS(model.parameters(), history_size=3, max_iter=2)
    )
    parameters = list(model.parameters())

    def train(count: int) -> None:
        for x, y in batches[:count]:

            def closure(x: Tensor = x, y: Tensor = y) -> Tensor:
                loss = F.cross_entropy(model(x), y)
                differentiate(loss, parameters)
                return loss.detach()

            optimizer.step(closure)

    train(2)
    grads = [parameter.grad for parameter in parameters]
    kept = copy.deepcopy((model.state_dict(), optimizer.state_dict(), grads))
    random = torch.get_rng_state()
    try:
        with on_a_copy(model, [optimizer]) as trainable:
            assert trainable == parameters and all(parameter.grad is None for parameter in parameters)
            optimizer.param_groups[0]["lr"] = 0.3
            model.eval()
            train(4)
            torch.rand(3)
            assert not torch.equal(model.first.weight, kept[0]["first.weight"])
            if fails:
                raise KeyError
    except KeyError:
        assert fails
    assert all(parameter.grad is grad for parameter, grad in zip(parameters, grads, strict=True))
    assert str((model.state_dict(), optimizer.state_dict(), grads)) == str(kept)
    twin = copy.deepcopy(model)
    twin.load_state_dict(kept[0])
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), twin.state_dict().values(), strict=True))
    assert model.training and torch.equal(random, torch.get_rng_state())


def test_training_works_where_the_caller_has_switched_gradients_off():
    model, batches = made()
    with torch.no_grad(), on_a_copy(model) as trainable:
        differentiate(F.cross_entropy(model(batches[0][0]), batches[0][1]), trainable)
        assert all(parameter.grad is not None for parameter in trainable)
    with torch.inference_mode(), on_a_copy(model) as trainable:
        x, y = (each.clone() for each in batches[0])
        differentiate(F.cross_entropy(model(x), y), trainable)
        assert all(parameter.grad is not None for parameter in trainable)


def test_old_gradients_are_neither_added_to_nor_overwritten():
    weight = nn.Parameter(torch.tensor([1.0, 2.0]))
    weight.grad = old = torch.tensor([5.0, 5.0])
    differentiate((weight**2).sum(), [weight])
    assert weight.grad.tolist() == [2, 4] and old.tolist() == [5, 5]
    differentiate(torch.tensor(1.0), [weight])
    assert weight.grad is None


# --- Cosines


def test_cosines_are_numpys_means_over_successive_steps():
    random = np.random.default_rng(0)
    steps = random.standard_normal((5, 2, 7)) + 0.5
    found = Cosines()
    for step in steps:
        found.add([torch.from_numpy(step[0]), torch.from_numpy(step[1]).float().to(torch.bfloat16)])
    expected = [
        np.mean([a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(steps[:-1, place], steps[1:, place], strict=True)])
        for place in range(2)
    ]
    assert found.means(2) == [pytest.approx(expected[0], rel=1e-9), pytest.approx(expected[1], abs=0.01)]


def test_cosines_by_hand():
    found = Cosines()
    assert found.means(4) == [None] * 4
    east, west, zero = torch.tensor([1.0, 0.0]), torch.tensor([-2.0, 0.0]), torch.zeros(2)
    gradient = east.clone()
    found.add([gradient, None, east, east])
    gradient.zero_()  # as `zero_grad(set_to_none=False)` does
    found.add([west, east, zero, west])
    found.add([torch.tensor([-1.0, 1.0]), None, east, None])
    assert found.means(4) == [pytest.approx((-1 + 2**-0.5) / 2), None, None, pytest.approx(-1)]


def test_complex_and_half_norms():
    tensors = [torch.tensor([3 + 4j, 0]), torch.full((10000,), 300.0, dtype=torch.float16), torch.tensor([3.0, 4.0], dtype=torch.float64)]
    assert norms(tensors).tolist() == pytest.approx([5, 30000, 5])
    assert norms([torch.full((4,), 1e5), torch.zeros(0)]).tolist() == pytest.approx([2e5, 0])
