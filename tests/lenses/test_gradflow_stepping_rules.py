"""Training steps with a planted mistake each, and the same step written well: what is said, and losses worked out in plain PyTorch."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netlens.errors import InputError
from netlens.findings import CODES, Severity
from netlens.lenses.gradflow.report import GradflowReport, Stepping
from netlens.lenses.gradflow.rules import diagnose, verdict
from netlens.lenses.gradflow.steps import stepped
from tests.lenses.gradflow_case import parameter, report

X, Y = torch.randn(16, 4, generator=torch.Generator().manual_seed(7)), torch.arange(16) % 3
ERROR, WARNING = Severity.ERROR, Severity.WARNING


def ran(step: Callable[[], Any], calls: int = 3) -> GradflowReport:
    return stepped(step, "train.py:step", calls, "cpu", None, lambda: None)


def told(found: GradflowReport) -> list[tuple[str, Severity]]:
    assert all(finding.code in CODES for finding in diagnose(found))
    return [(finding.code, finding.severity) for finding in diagnose(found)]


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))


def loss_of(model: nn.Module, part: slice = slice(None)) -> Tensor:
    return F.cross_entropy(model(X[part]), Y[part])


def in_order(*actions: str, optimizer: type[torch.optim.Optimizer] = torch.optim.SGD, lr: float = 0.1, to_none: bool = True) -> Any:
    """Return a step that does this, in this order, on one loss."""
    model = net()
    held = optimizer(model.parameters(), lr=lr)  # type: ignore[call-arg]

    def step() -> Tensor:
        if actions[0] == "zero":
            held.zero_grad(set_to_none=to_none)
        loss = loss_of(model)
        for action in actions[actions[0] == "zero" :]:
            if action == "zero":
                held.zero_grad(set_to_none=to_none)
            elif action == "clip":
                nn.utils.clip_grad_norm_(model.parameters(), 1e-6)
            elif action == "backward":
                loss.backward()
            else:
                held.step()
        return loss

    return step


MISTAKES: dict[str, tuple[tuple[str, ...], list[tuple[str, Severity]]]] = {
    "none": (("zero", "backward", "step"), []),
    "zero_grad after the step": (("backward", "step", "zero"), []),
    "step before backward": (("zero", "step", "backward"), [("stepped-early", ERROR)]),
    "no backward": (("zero", "step"), [("stepped-early", ERROR)]),
    "no step": (("zero", "backward"), [("never-stepped", WARNING)]),
    "no zero_grad": (("backward", "step"), [("gradients-kept", WARNING)]),
    "no zero_grad, clipped": (("backward", "clip", "step"), [("gradients-kept", WARNING), ("gradients-clipped", WARNING)]),
    "zero_grad between": (("backward", "zero", "step"), [("gradients-cleared", ERROR)]),
    "clipped to nothing": (("zero", "backward", "clip", "step"), [("gradients-clipped", WARNING)]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_the_order_is_told_once(mistake):
    actions, expected = MISTAKES[mistake]
    found = ran(in_order(*actions))
    assert told(found) == expected
    assert verdict(found)[0].startswith("is it learning? nothing stands") is not expected
    assert all(each.status == "gradient" for each in found.parameters)


@pytest.mark.parametrize("actions", [("zero", "step"), ("zero", "step", "backward")])
def test_gradients_are_measured_where_the_optimizer_steps_too_early(actions):
    """Nothing moves, so that they are those of the model as it was made."""
    found, twin = ran(in_order(*actions)), net()
    gradients = torch.autograd.grad(loss_of(twin), list(twin.parameters()))
    assert [each.norm for each in found.parameters] == pytest.approx([float(each.norm()) for each in gradients], rel=1e-5)
    assert [each.update for each in found.parameters] == [None] * 4


def test_a_step_that_moves_weights_before_its_backward_is_an_error_of_two_lines():
    """Weight decay moves them also with gradients of 0, and the graph of the loss needs them as they were."""
    model = net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for each in model.parameters():
        each.grad = torch.zeros_like(each)

    def step() -> Tensor:
        loss = loss_of(model)
        optimizer.step()
        return loss

    with pytest.raises(InputError, match="calls no backward, and changes") as caught:
        ran(step)
    assert "backward() before optimizer.step()" in caught.value.hint


def epoch(returned: str) -> tuple[Callable[[], Any], list[float]]:
    """Return a step with four optimizer steps, and its losses in plain PyTorch."""
    model, twin = net(), net()
    parts = [slice(place, place + 4) for place in range(0, 16, 4)]

    def train(model: nn.Module) -> list[Tensor]:
        optimizer, losses = torch.optim.SGD(model.parameters(), lr=0.1), []
        for part in parts:
            optimizer.zero_grad()
            losses.append(loss_of(model, part))
            losses[-1].backward()
            optimizer.step()
        return losses

    def step() -> Any:
        losses = train(model)
        return {"last": losses[-1], "last number": losses[-1].item(), "accuracy": 0.25, "nothing": None}[returned]

    return step, [loss.item() for loss in train(twin)]


@pytest.mark.parametrize("returned", ["last", "last number", "accuracy", "nothing"])
def test_the_loss_of_several_steps_is_what_is_returned_or_else_the_mean(returned):
    step, losses = epoch(returned)
    expected = losses[-1] if returned.startswith("last") else sum(losses) / 4
    assert ran(step, 1).steps[0].loss == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("last", [True, False])
def test_the_loss_of_accumulated_batches_is_their_sum_whatever_is_returned(last):
    """Four quarters, each divided by 4, are the whole; the last of them is a quarter of a quarter's loss."""
    model, twin = net(), net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step() -> Tensor | None:
        for place in range(0, 16, 4):
            loss = loss_of(model, slice(place, place + 4)) / 4
            loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss if last else None

    found = ran(step, 1)
    assert found.steps[0].loss == pytest.approx(loss_of(twin).item(), rel=1e-6) and told(found) == []


def test_the_loss_of_lbfgs_is_that_of_the_weights_before_its_step():
    model, twin = net(), net()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=5)

    def step() -> None:
        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = loss_of(model)
            loss.backward()
            return loss

        optimizer.step(closure)

    found = ran(step, 1)
    assert found.steps[0].loss == pytest.approx(loss_of(twin).item(), rel=1e-6)


@pytest.mark.parametrize("forgotten", [False, True])
def test_gradients_of_the_judge_that_the_maker_leaves_are_no_forgotten_zero_grad(forgotten):
    """The textbook GAN: the maker's loss flows into the judge, whose gradients are cleared before its next step, or are not."""
    torch.manual_seed(0)
    maker, judge = nn.Linear(2, 4), nn.Linear(4, 1)
    first, second = torch.optim.Adam(judge.parameters(), 1e-3), torch.optim.Adam(maker.parameters(), 1e-3)
    noise = torch.randn(16, 2)

    def step() -> Tensor:
        fake = maker(noise)
        if not forgotten:
            first.zero_grad()
        (judge(fake.detach()) - judge(X)).sigmoid().mean().backward()
        first.step()
        second.zero_grad()
        loss = -judge(fake).sigmoid().mean()
        loss.backward()
        second.step()
        return loss

    assert ("gradients-kept" in dict(told(ran(step, 5)))) is forgotten


def test_a_model_that_is_made_in_each_call():
    """Rows are those of the model of the last call alone."""

    def step() -> Tensor:
        model = net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        loss = loss_of(model)
        loss.backward()
        optimizer.step()
        return loss

    found = ran(step, 4)
    assert told(found) == [("model-rebuilt", WARNING)] and diagnose(found)[0].measured == "in 3 of 4 calls"
    assert [each.name for each in found.parameters] == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert {each.name for each in found.layers} == {"0", "1", "2"}
    assert told(ran(step, 1)) == []


def test_models_that_take_turns_are_not_made_anew():
    models = net(), net()
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.1) for model in models]
    first, second = models
    turn = [0]

    def step() -> Tensor:
        model, optimizer = (first, optimizers[0]) if turn[0] % 2 == 0 else (second, optimizers[1])
        turn[0] += 1
        optimizer.zero_grad()
        loss = loss_of(model)
        loss.backward()
        optimizer.step()
        return loss

    assert "model-rebuilt" not in dict(told(ran(step, 2)))


@pytest.mark.parametrize(
    ("way", "calls", "expected"), [("data", 3, []), ("no_grad", 3, []), ("", 1, []), ("", 3, [("never-stepped", WARNING)])]
)
def test_training_by_hand_moves_the_weights(way, calls, expected):
    """Without an optimizer, one call may be meant for its gradients alone."""
    model = net()

    def step() -> Tensor:
        loss = loss_of(model)
        loss.backward()
        for each in model.parameters():
            assert each.grad is not None
            if way == "data":
                each.data -= 0.1 * each.grad
            elif way:
                with torch.no_grad():
                    each.sub_(0.1 * each.grad)
            each.grad = None
        return loss

    assert told(ran(step, calls)) == expected


def test_accumulation_over_calls_is_no_mistake_once_it_steps():
    model, count = net(), [0]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step() -> Tensor:
        loss = loss_of(model)
        loss.backward()
        count[0] += 1
        if count[0] % 3 == 0:
            optimizer.step()
            optimizer.zero_grad()
        return loss

    assert told(ran(step, 6)) == []


@pytest.mark.parametrize("rate", [0.0, 1e-12])
def test_the_optimizers_own_rate_is_named(rate):
    found = ran(in_order("zero", "backward", "step", lr=rate))
    assert found.run.optimizer == f"the step function's own SGD(lr={rate:.3g})" and f"(lr={rate:g})" in diagnose(found)[0].message
    assert ("from 0" in diagnose(found)[0].remedy) is (rate == 0)


WELL = Stepping(4, 0, True, 0, False, 0, 0, 0, 0, None, (0.1,))


def test_clipping_is_to_blame_only_where_steps_are_too_small():
    """Adam's steps do not depend on the size of the gradients."""
    clipped = replace(WELL, clipped=(1.0, 0.01))
    assert told(report(stepping=clipped)) == []
    rows = [parameter("a.weight", update=1e-7), parameter("b.weight", update=1e-7)]
    assert told(report(*rows, stepping=clipped)) == [("gradients-clipped", WARNING)]
    assert told(report(*rows, stepping=replace(clipped, clipped=(1.0, 0.2)))) == [("update-ratio-low", WARNING)]


def test_what_happens_in_some_calls_alone_is_no_cause():
    for some in (
        {"early": 3},
        {"cleared": 3},
        {"idle": 3, "still": True},
        {"idle": 4, "still": False},
        {"idle": 4, "still": True, "passive": 4},
    ):
        assert told(report(stepping=replace(WELL, **some))) == []


def test_watching_changes_nothing_of_what_is_trained():
    """With zero_grad forgotten, as without netlens: gradients add up."""
    model = net()
    twin = copy.deepcopy(model)

    def train(model: nn.Module) -> Callable[[], Tensor]:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

        def step() -> Tensor:
            loss = loss_of(model)
            loss.backward()
            optimizer.step()
            return loss

        return step

    ran(train(model), 3)
    plain = train(twin)
    for _ in range(3):
        plain()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))
