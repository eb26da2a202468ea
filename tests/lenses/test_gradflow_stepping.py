"""The user's step function, against the same training written out in plain PyTorch with numpy on its raw gradients."""

from __future__ import annotations

import copy
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

from netlens.errors import ForwardFailed, InputError, NetlensError
from netlens.lenses.gradflow.report import ParameterFlow
from netlens.lenses.gradflow.stepping import Stepped, check_step, measured_steps
from netlens.loading.from_python import import_attribute
from netlens.loading.specs import parse_model_spec


class Net(nn.Module):
    """With a parameter of its own, dropout that is never random, a frozen layer, and layers that nothing uses."""

    def __init__(self, seed: int = 0) -> None:
        torch.manual_seed(seed)
        super().__init__()
        self.scale = nn.Parameter(torch.ones(6))
        self.unused = nn.Linear(2, 2)
        self.first, self.norm, self.last = nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 3)
        self.norm.weight.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.norm(torch.relu(self.first(x))) * self.scale)


X, Y = torch.randn(10, 4, generator=torch.Generator().manual_seed(7)), torch.arange(10) % 3


def ran(step: Callable[[], Any], steps: int = 1) -> Stepped:
    return measured_steps(check_step(step, "train.py:step"), "train.py:step", steps=steps)


def row(found: Stepped, name: str) -> ParameterFlow:
    return {each.name: each for each in found.measured.parameters}[name]


def array(tensor: Tensor | None) -> Any:
    assert tensor is not None
    return tensor.detach().double().numpy().copy()


def check_gradient(flow: ParameterFlow, gradient: Any) -> None:
    """Hold a row against numpy in float64."""
    sizes = np.abs(gradient)
    assert flow.status == "gradient" and flow.elements == gradient.size
    expected = (sizes.mean(), sizes.max(), np.sqrt((gradient**2).mean()), np.sqrt((gradient**2).sum()), (gradient == 0).mean())
    assert (flow.mean, flow.greatest, flow.rms, flow.norm, flow.zeros) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("clip", [None, 0.05, 1e6])
@pytest.mark.parametrize("to_none", [True, False])
def test_a_whole_step_is_that_of_plain_pytorch(clip, to_none):
    """Gradients before clipping, updates after; the model is trained exactly as without netlens."""
    model, twin = Net(), Net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    plain = torch.optim.AdamW(twin.parameters(), lr=1e-2, weight_decay=0.1)

    def step() -> Tensor:
        loss = F.cross_entropy(model(X), Y)
        optimizer.zero_grad(set_to_none=to_none)
        loss.backward()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        return loss

    found = ran(step, 3)
    losses, gradients, norms = [], {}, []
    for _ in range(3):
        plain.zero_grad(set_to_none=to_none)
        loss = F.cross_entropy(twin(X), Y)
        loss.backward()
        losses.append(loss.item())
        gradients = {name: array(each.grad) for name, each in twin.named_parameters() if each.grad is not None}
        norms.append(np.sqrt(sum((gradient**2).sum() for gradient in gradients.values())))
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(twin.parameters(), clip)
        before = {name: array(each) for name, each in twin.named_parameters()}
        plain.step()
    moved = {name: np.linalg.norm(array(each) - before[name]) / np.linalg.norm(before[name]) for name, each in twin.named_parameters()}
    assert [each.loss for each in found.measured.steps] == pytest.approx(losses, rel=1e-6)
    assert [each.norm for each in found.measured.steps] == pytest.approx(norms, rel=1e-5)
    for name, gradient in gradients.items():
        check_gradient(row(found, name), gradient)
        assert row(found, name).update == pytest.approx(moved[name], rel=1e-4)
        assert row(found, name).ratio == pytest.approx(np.linalg.norm(gradient) / np.linalg.norm(before[name]), rel=1e-5)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))
    assert found.optimizer == "the step function's own AdamW(lr=0.01)"
    notes = " ".join(found.measured.notes)
    assert ("clipped" in notes) is (clip == 0.05) and "zero_grad" not in notes


def test_order_and_status():
    model = Net()
    optimizer = torch.optim.SGD([model.last.weight], lr=0.1)

    def step() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(X), Y)
        loss.backward()
        optimizer.step()
        return loss

    found = ran(step)
    rows = found.measured.parameters
    assert [each.name for each in rows] == [
        "scale", "first.weight", "first.bias", "norm.weight", "norm.bias", "last.weight", "last.bias", "unused.weight", "unused.bias",
    ]  # fmt: skip
    assert [each.index for each in rows] == list(range(9))
    assert {each.name: each.status for each in rows if each.status != "gradient"} == {
        "norm.weight": "frozen", "unused.weight": "unused", "unused.bias": "unused",
    }  # fmt: skip
    assert [each.name for each in rows if each.optimized] == ["last.weight"]
    assert (rows[1].layer, rows[1].type, rows[0].layer, rows[0].type) == ("first", "Linear", "", "Net")


def test_layers_have_the_gradients_of_what_they_put_out():
    model, twin = Net(), Net()

    def step() -> Tensor:
        return F.cross_entropy(model(X), Y)

    flows = {each.name: each for each in ran(step).measured.layers}
    first = twin.first(X)
    first.retain_grad()
    hidden = torch.relu(first)
    hidden.retain_grad()
    F.cross_entropy(twin.last(twin.norm(hidden) * twin.scale), Y).backward()
    for name, tensor in (("first", first), (":relu", hidden)):
        expected = np.sqrt((array(tensor.grad) ** 2).mean()), np.sqrt((array(tensor) ** 2).mean())
        assert (flows[name].rms, flows[name].activation_rms) == pytest.approx(expected, rel=1e-5)


def test_a_step_without_backward_gets_one_and_leaves_no_trace():
    model = Net()
    model.first.bias.grad = torch.full((6,), 9.0)
    before = copy.deepcopy(model.state_dict())
    found = ran(lambda: {"loss": F.cross_entropy(model(X), Y), "logits": None}, 2)
    gradient = torch.autograd.grad(F.cross_entropy(model(X), Y), model.first.bias)[0]
    check_gradient(row(found, "first.bias"), array(gradient))
    assert row(found, "first.bias").cosine == pytest.approx(1) and row(found, "first.bias").update is None
    assert model.first.bias.grad.tolist() == [9.0] * 6 and model.last.weight.grad is None
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert any("no backward" in note for note in found.measured.notes) and any("did not move" in note for note in found.measured.notes)


def test_accumulated_batches_are_one_step():
    """Two half batches of equal size, each loss divided by 2: the gradient of the whole."""
    model, twin = Net(), Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step() -> None:
        for half in (slice(0, 5), slice(5, 10)):
            (F.cross_entropy(model(X[half]), Y[half]) / 2).backward()
        optimizer.step()
        optimizer.zero_grad()

    found = ran(step)
    loss = F.cross_entropy(twin(X), Y)
    loss.backward()
    assert found.measured.steps[0].loss == pytest.approx(loss.item(), rel=1e-6)
    check_gradient(row(found, "last.weight"), array(twin.last.weight.grad))
    assert row(found, "last.weight").update == pytest.approx(
        0.1 * np.linalg.norm(array(twin.last.weight.grad)) / np.linalg.norm(array(twin.last.weight)), rel=1e-4
    )


@pytest.mark.parametrize("zeroed", ["before", "after", "in place", "never"])
def test_a_forgotten_zero_grad_is_told(zeroed):
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step() -> Tensor:
        loss = F.cross_entropy(model(X), Y)
        if zeroed in ("before", "in place"):
            optimizer.zero_grad(set_to_none=zeroed == "before")
        loss.backward()
        optimizer.step()
        if zeroed == "after":
            model.zero_grad()
        return loss

    stepping = ran(step, 3).stepping
    assert stepping is not None and stepping.kept == (2 if zeroed == "never" else 0)


def test_a_loss_scale_is_divided_out():
    """The scaler on the CPU, with bfloat16 as there: gradients, updates and loss are those without it, clipping after unscale_ is seen."""
    model, twin = Net(), Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)

    def step() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(X), Y)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
        return loss

    found = ran(step)
    loss = F.cross_entropy(twin(X), Y)
    loss.backward()
    check_gradient(row(found, "first.weight"), array(twin.first.weight.grad))
    first = next(each for each in found.measured.layers if each.name == "last")
    output = torch.softmax(twin(X), 1) - F.one_hot(Y, 3)  # of cross-entropy: (softmax - label) / N
    assert first.rms == pytest.approx(np.sqrt((array(output / 10) ** 2).mean()), rel=1e-5)
    assert found.measured.steps[0].loss == pytest.approx(loss.item(), rel=1e-6)
    histogram = row(found, "first.weight").histogram
    assert histogram is not None and histogram.high == pytest.approx(float(twin.first.weight.grad.max()), rel=1e-5)
    assert any("1024" in note.replace(",", "") or "1.02e3" in note for note in found.measured.notes)
    assert not any("clipped" in note for note in found.measured.notes)


def test_an_overflow_that_the_scaler_takes_care_of_ends_nothing():
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)

    def step() -> Tensor:
        optimizer.zero_grad()
        loss = 8 * F.cross_entropy(model(X), Y)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return loss

    found = ran(step, 3)
    assert len(found.measured.steps) == 3 and found.measured.first_nonfinite is None
    assert any("no optimizer stepped" in note for note in found.measured.notes)


def test_two_steps_in_one_call():
    """d(w^2)/dw = 2 w: from 4, SGD at 0.25 moves w by 2 to 2, then by 1; the first is what the gradient belongs to."""
    weight = nn.Parameter(torch.tensor([4.0]))
    optimizer = torch.optim.SGD([weight], lr=0.25)

    def step() -> None:
        for _ in range(2):
            optimizer.zero_grad()
            (weight**2).sum().backward()
            optimizer.step()

    found = ran(step)
    flow = row(found, "weight")
    assert (flow.norm, flow.update, flow.ratio, weight.item()) == (8, 0.5, 2, 1)
    assert any("up to 2 optimizer steps" in note for note in found.measured.notes)


def test_two_models_that_train_against_each_other():
    """Of each the gradients before its own optimizer, though the other's loss flows through it later."""
    torch.manual_seed(0)
    maker, judge = nn.Linear(2, 4), nn.Linear(4, 1)
    twins = copy.deepcopy((maker, judge))
    first, second = torch.optim.SGD(judge.parameters(), lr=0.1), torch.optim.SGD(maker.parameters(), lr=0.1)
    noise, real = torch.randn(8, 2), torch.randn(8, 4)

    def step() -> float:
        first.zero_grad()
        (judge(maker(noise).detach()).mean() - judge(real).mean()).backward()
        first.step()
        second.zero_grad()
        (-judge(maker(noise)).mean()).backward()
        second.step()
        return 0.0

    found = ran(step)
    (twins[1](twins[0](noise).detach()).mean() - twins[1](real).mean()).backward()
    check_gradient(row(found, "judge.weight"), array(twins[1].weight.grad))
    with torch.no_grad():
        twins[1].weight -= 0.1 * twins[1].weight.grad
    (-twins[1](twins[0](noise)).mean()).backward()
    check_gradient(row(found, "maker.weight"), array(twins[0].weight.grad))
    assert {each.name.split(".")[0] for each in found.measured.layers} == {"maker", "judge"}


def test_parameters_outside_of_modules_and_training_by_hand():
    """No module, no optimizer, and no `.grad` left when the function returns."""
    weight = torch.full((3,), 2.0, requires_grad=True)

    def step() -> Tensor:
        loss = (weight**2).sum()
        loss.backward()
        with torch.no_grad():
            weight.sub_(0.25 * weight.grad)
        weight.grad = None
        return loss

    found = ran(step, 2)
    (flow,) = found.measured.parameters
    assert (flow.name, flow.layer, flow.status, flow.norm) == ("weight", "", "gradient", pytest.approx(np.sqrt(3) * 2))
    assert [each.loss for each in found.measured.steps] == [12, 3]  # 2, then 2 - 0.25 * 4
    assert found.optimizer == ""


def test_an_optimizer_that_runs_the_loss_itself():
    model = nn.Linear(3, 1)
    twin = copy.deepcopy(model)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=1)

    def step() -> None:
        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = model(X[:, :3]).square().mean()
            loss.backward()
            return loss

        optimizer.step(closure)

    found = ran(step)
    twin(X[:, :3]).square().mean().backward()
    check_gradient(row(found, "weight"), array(twin.weight.grad))
    assert row(found, "weight").update > 0


def test_a_model_called_past_itself_keeps_its_names():
    model = Net()
    rows = ran(lambda: F.cross_entropy(model.forward(X), Y)).measured
    assert {"first.weight", "last.bias", "scale"} <= {each.name for each in rows.parameters}
    assert {"first", "last"} <= {each.name for each in rows.layers}


def test_a_method_of_a_trainer_and_a_wrapped_model():
    class Trainer:
        def __init__(self) -> None:
            self.net = nn.DataParallel(Net())
            self.optimizer = torch.optim.SGD(self.net.parameters(), lr=0.1)

        def step(self) -> Tensor:
            self.optimizer.zero_grad()
            loss = F.cross_entropy(self.net(X), Y)
            loss.backward()
            self.optimizer.step()
            return loss

    found = ran(Trainer().step, 2)
    assert found.measured.parameters[0].name == "scale" and all(each.update is not None for each in found.measured.parameters[1:3])
    assert found.measured.batch_size == 10


def test_where_it_is_not_finite():
    model = Net()

    def forward() -> Tensor:
        with torch.no_grad():
            model.norm.bias.fill_(torch.inf)
        return F.cross_entropy(model(X), Y)

    def backward() -> Tensor:
        return (model.first(X) * 0).sqrt().sum()

    found = ran(forward, 5).measured
    assert len(found.steps) == 1 and found.first_nonfinite is not None
    assert (found.first_nonfinite.where, found.first_nonfinite.name) == ("forward", "norm")
    model = Net()
    found = ran(backward).measured
    assert found.first_nonfinite is not None
    assert (found.first_nonfinite.where, found.first_nonfinite.name) == ("backward", "first")
    assert row(Stepped(found, "", ()), "first.bias").nan == 6


def test_nothing_is_left_behind_also_when_it_raises():
    model = Net()
    call, backward, scale = nn.Module.__call__, torch.autograd.backward, torch.amp.GradScaler.scale

    def step() -> None:
        model(X).sum().backward()
        raise ValueError("on purpose")

    with pytest.raises(ForwardFailed, match="on purpose"):
        ran(step)
    assert (nn.Module.__call__, torch.autograd.backward, torch.amp.GradScaler.scale) == (call, backward, scale)
    assert not _global_optimizer_pre_hooks and not _global_optimizer_post_hooks
    assert not model._forward_hooks and all(not each._backward_hooks for each in model.parameters())


MISTAKES = """
import torch
from torch import nn

model = nn.Linear(2, 2)
x = torch.ones(1, 2)
constant = 3


def takes(batch, rate, *more, size=1):
    return model(batch).sum()


def nothing():
    model(x)


def number():
    return model(x).sum().item()


def several():
    return model(x)


def detached():
    return model(x).sum().detach()


def text():
    return "0.5"


def raises():
    scores = model(x)
    return scores[7].sum()


def ends():
    raise SystemExit("no data")


def prints():
    print("printed by the step")
    return model(x).sum()
"""


@pytest.mark.parametrize(
    ("attribute", "message", "hint"),
    [
        ("takes", "takes batch, rate, and a training step is called without arguments", "def step(): return takes(...)"),
        ("nothing", "called no backward and returned nothing", "return the loss"),
        ("number", "returned a float, of which no gradient can be taken", "without .item()"),
        ("several", "returned (1, 2) of float32, which is no loss", ".mean()"),
        ("detached", "depends on no parameter", "detach()"),
        ("text", "returned an object of type str", "return the loss"),
        ("raises", "raised IndexError: index 7 is out of bounds for dimension 0 with size 1 (", "--traceback"),
        ("ends", "raised SystemExit: no data (", "on its own"),
        ("constant", "is of type int, not a function", "runs one training step"),
        ("model", "is a model, not a function", "runs one training step"),
    ],
)
def test_mistakes_are_told_in_two_lines(tmp_path: Path, attribute: str, message: str, hint: str):
    file = tmp_path / "train.py"
    file.write_text(MISTAKES)
    name = f"{file}:{attribute}"
    with pytest.raises(NetlensError) as caught:
        measured_steps(check_step(import_attribute(parse_model_spec(name)), name), name)
    assert isinstance(caught.value, (InputError, ForwardFailed))
    assert message in caught.value.message and hint in caught.value.hint and "\n" not in caught.value.message + caught.value.hint
    if attribute in ("raises", "ends"):
        line = MISTAKES.split("\n").index("    return scores[7].sum()" if attribute == "raises" else '    raise SystemExit("no data")') + 1
        assert f"train.py:{line})" in caught.value.message


def test_what_it_prints_stays_off_stdout(tmp_path, capsys):
    file = tmp_path / "train2.py"
    file.write_text(textwrap.dedent(MISTAKES))
    measured_steps(import_attribute(parse_model_spec(f"{file}:prints")), "prints")
    out, err = capsys.readouterr()
    assert out == "" and "printed by the step" in err
