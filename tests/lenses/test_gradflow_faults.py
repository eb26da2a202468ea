"""Planted faults: each is found by its own rule, at its place, and nothing else is told beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import netlens
from netlens.errors import NetlensError
from netlens.lenses.gradflow.report import GradflowReport
from netlens.probing.untouched import seeded
from sample_models import sick
from sample_models.scenes import SceneDataset
from tests.lenses.gradflow_looked import grave, looked

SAMPLES, FEATURES, CLASSES, WIDTH = 16, 20, 4, 32
Change = Callable[[Tensor], Tensor]


class Function(nn.Module):
    def __init__(self, function: Change) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Net(nn.Module):
    """Three layers, with some function behind the first, behind the second, and at the end."""

    def __init__(self, after_first: Change | None = None, after_second: Change | None = None, at_end: Change | None = None) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(FEATURES, WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, CLASSES)
        self.act1, self.act2 = nn.ReLU(), nn.ReLU()
        self.one, self.two, self.end = (Function(f) if f else nn.Identity() for f in (after_first, after_second, at_end))

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.two(self.act2(self.second(self.one(self.act1(self.first(x))))))
        return self.end(self.head(hidden))


def net(change: Callable[[Net], object] = lambda model: None, **functions: Change) -> Callable[[], nn.Module]:
    """Return what builds a network, and changes something in it without a graph."""

    def build() -> nn.Module:
        model = Net(**functions)
        with torch.no_grad():
            change(model)
        return model

    return build


def deep(activation: Callable[[], nn.Module], gain: float, layers: int = 12) -> Callable[[], nn.Module]:
    """Return what builds many layers whose weights have a standard deviation of gain / sqrt(fan-in)."""

    def build() -> nn.Module:
        sizes = [FEATURES, *[WIDTH] * layers, CLASSES]
        linear = [nn.Linear(a, b) for a, b in pairwise(sizes)]
        for each in linear:
            nn.init.normal_(each.weight, std=gain / each.in_features**0.5)
            nn.init.zeros_(each.bias)
        return nn.Sequential(*[part for each in linear for part in (each, activation())][:-1])

    return build


class Unused(Net):
    def __init__(self) -> None:
        super().__init__()
        self.extra = nn.Linear(WIDTH, WIDTH)


class Side(Net):
    """A branch whose output is thrown away."""

    def __init__(self) -> None:
        super().__init__()
        self.side = nn.Linear(FEATURES, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        self.scores = self.side(x)
        return super().forward(x)


class WithoutGraph(Net):
    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return super().forward(x)


class Table(nn.Module):
    """Answers without looking."""

    def __init__(self) -> None:
        super().__init__()
        self.answers = nn.Parameter(torch.randn(1, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        return self.answers.expand(len(x), -1)


class Masked(nn.Module):
    """Attention in which one query may look at nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.head, self.softmax = nn.Linear(FEATURES, FEATURES), nn.Linear(FEATURES, CLASSES), nn.Softmax(-1)

    def forward(self, x: Tensor) -> Tensor:
        scores = self.query(x) @ x.t()
        scores = scores.masked_fill(torch.arange(len(x)).view(-1, 1) < torch.arange(len(x)) + 1, -torch.inf)
        return self.head(self.softmax(scores) @ x)


class Scaled(nn.Module):
    """Linear layers, of which one holds its weights a million times larger than it uses them."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(WIDTH, WIDTH) for _ in range(6)])
        self.first, self.head = nn.Linear(FEATURES, WIDTH), nn.Linear(WIDTH, CLASSES)
        with torch.no_grad():
            self.layers[3].weight *= 1e6

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        for place, layer in enumerate(self.layers):
            x = (layer(x) if place != 3 else F.linear(x, layer.weight * 1e-6, layer.bias)).relu()
        return self.head(x)


class Rnn(nn.Module):
    """A recurrent network of 60 steps that has no gates."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.rnn, self.head = nn.RNN(FEATURES, WIDTH, nonlinearity="relu", batch_first=True), nn.Linear(WIDTH, CLASSES)
        nn.init.orthogonal_(self.rnn.weight_hh_l0, gain)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x[:, None].expand(-1, 60, -1))[0][:, -1])


def hooked(model: nn.Module) -> None:
    model.second.weight.register_hook(torch.zeros_like)  # type: ignore[union-attr]


def scaled(name: str, factor: float) -> Callable[[Net], object]:
    return lambda model: model.get_parameter(name).mul_(factor)


def filled(name: str, value: float) -> Callable[[Net], object]:
    return lambda model: model.get_parameter(name).fill_(value)


def one(name: str, value: float) -> Callable[[Net], object]:
    return lambda model: model.get_parameter(name)[0].fill_(value)


def steady(output: Tensor, labels: Tensor) -> Tensor:
    """A loss that has a gradient and never another value."""
    return 1 + (output - output.detach())[:, 0].mean()


@dataclass(frozen=True)
class Fault:
    build: Callable[[], nn.Module]
    code: str
    where: str = ""
    asked: dict[str, Any] = field(default_factory=dict)
    x: Callable[[Tensor], Tensor] = lambda x: x
    labels: Callable[[Tensor], Tensor] = lambda labels: labels
    severity: str = "error"


def ce(**more: Any) -> dict[str, Any]:
    return {"loss": "cross_entropy", **more}


def soft(labels: Tensor) -> Tensor:
    return F.one_hot(labels, CLASSES).float()


FAULTS = {
    # where gradients arrive
    "detach() behind the first layer": Fault(net(after_first=Tensor.detach), "detached-parameters", "first", severity="warning"),
    ".data behind the second layer": Fault(net(after_second=lambda x: x.data), "detached-parameters", "", ce()),
    "through numpy": Fault(
        net(after_first=lambda x: torch.from_numpy(x.detach().numpy())), "detached-parameters", "first", severity="warning"
    ),
    "detach() at the end": Fault(net(at_end=Tensor.detach), "no-grad"),
    "argmax at the end": Fault(
        net(at_end=lambda x: F.one_hot(x.argmax(1), CLASSES).float()), "no-grad", "end", {"loss": "mse"}, labels=soft
    ),
    "no_grad in forward": Fault(WithoutGraph, "no-grad"),
    "a loss that detaches": Fault(net(), "no-grad", "", {"loss": lambda output, labels: F.cross_entropy(output.detach(), labels)}),
    "accuracy as a loss": Fault(net(), "no-grad", "", {"loss": lambda output, labels: (output.argmax(1) != labels).float().mean()}),
    "a layer that forward forgets": Fault(Unused, "unused-parameters", "extra", severity="warning"),
    "a branch that is thrown away": Fault(Side, "detached-parameters", "side", severity="warning"),
    "a large negative bias in front of a ReLU": Fault(net(filled("second.bias", -50)), "grad-zero", "act2"),
    "rounding": Fault(net(after_second=torch.round), "grad-zero", "two"),
    "a sign function": Fault(net(after_first=torch.sign), "grad-zero", "one"),
    "clamped scores": Fault(net(at_end=lambda x: (x * 1e3).clamp(-1e-3, 1e-3)), "grad-zero", "end", ce()),
    "a hook that zeroes a gradient": Fault(net(hooked), "grad-zero", "second"),
    "sigmoids that are saturated": Fault(
        net(scaled("first.weight", 1e6), after_first=lambda x: torch.sigmoid(x - 500)), "grad-zero", "one"
    ),
    "weights of a layer inside that are all 0": Fault(net(filled("second.weight", 0)), "input-ignored"),
    # not finite
    "a weight that is NaN": Fault(net(one("second.weight", torch.nan)), "act-nonfinite", "second"),
    "an input that is NaN": Fault(net(), "act-nonfinite", "first", x=lambda x: x.masked_fill(x > 2, torch.nan)),
    "the logarithm of 0": Fault(net(after_first=torch.log), "act-nonfinite", "one"),
    "an exponential that overflows": Fault(net(after_second=lambda x: torch.exp(1e3 * x)), "act-nonfinite", "two"),
    "a division by a spread of 0": Fault(net(after_first=lambda x: x / (x * 0).std(1, keepdim=True)), "act-nonfinite", "one"),
    "a row of attention that is masked out": Fault(Masked, "act-nonfinite", "softmax"),
    "the root of 0": Fault(net(after_first=torch.sqrt), "grad-nonfinite", "one"),
    "a length of 0": Fault(net(after_second=lambda x: x * (x * 0).pow(2).sum(1, keepdim=True).pow(0.5)), "grad-nonfinite", "two"),
    "the logarithm of a likelihood of 0": Fault(
        net(at_end=lambda x: torch.softmax(1e4 * x, 1)), "loss-nonfinite", "", {"loss": lambda p, y: -p[range(len(p)), y].log().mean()}
    ),
    "a step into infinity": Fault(net(), "act-nonfinite", "second", {"steps": 3, "options": {"lr": 1e38}}),
    # sizes
    "many sigmoids": Fault(deep(nn.Sigmoid, 1), "vanishing-gradient", "0"),
    "tanh layers with small weights": Fault(deep(nn.Tanh, 0.1), "vanishing-gradient"),
    "linear layers with large weights": Fault(deep(nn.ReLU, 6), "exploding-gradient"),
    "a recurrent network with large weights": Fault(lambda: Rnn(4.0), "exploding-gradient"),
    "a loss that is a sum, of large inputs": Fault(
        net(), "exploding-gradient", "", {"loss": "mse:reduction='sum'"}, x=lambda x: 100 * x, labels=lambda y: 1e5 * soft(y)
    ),
    "a learning rate far too large": Fault(net(), "update-ratio-high", "", {"options": {"lr": 300.0}}),
    "Adam with 1": Fault(net(), "update-ratio-high", "", {"optimizer": "Adam", "options": {"lr": 1.0}}),
    "a weight decay that eats the weights": Fault(
        net(), "update-ratio-high", "", {"optimizer": "AdamW", "options": {"weight_decay": 3000.0}}
    ),
    "a learning rate far too small": Fault(net(), "update-ratio-low", "", {"options": {"lr": 1e-10}}),
    "a learning rate of 0": Fault(net(), "update-ratio-low", "", {"options": {"lr": 0.0}}),
    "one layer that hardly moves": Fault(Scaled, "update-imbalance", "layers.3", {"optimizer": "Adam"}, severity="warning"),
    "a step the wrong way": Fault(
        lambda: nn.Linear(FEATURES, CLASSES),
        "loss-diverges",
        "",
        {"loss": "mse", "steps": 30, "options": {"lr": 0.05, "maximize": True}},
        labels=soft,
    ),
    # output and loss
    "softmax in front of cross-entropy": Fault(net(at_end=lambda x: x.softmax(1)), "double-softmax", "", ce()),
    "a softmax layer in front of cross-entropy": Fault(lambda: nn.Sequential(Net(), nn.Softmax(1)), "double-softmax", "", ce()),
    "sigmoid in front of its loss": Fault(
        lambda: nn.Sequential(Net(), nn.Sigmoid()), "double-sigmoid", "", {"loss": "bce_with_logits"}, labels=soft
    ),
    "scores in front of nll": Fault(net(), "nll-on-logits", "", {"loss": "nll"}),
    "scores out of a ReLU": Fault(lambda: nn.Sequential(Net(), nn.ReLU()), "relu-on-logits", "", ce(), severity="warning"),
    "answers without looking": Fault(Table, "input-ignored"),
    "a loss without information": Fault(net(), "loss-ignores-input", "", {"loss": steady}),
    "kl_div of scores": Fault(net(filled("head.bias", 2)), "negative-loss", "", {"loss": "kl_div"}, labels=soft, severity="warning"),
    "a head that is a hundred times too large": Fault(net(scaled("head.weight", 100)), "init-loss"),
    "labels that contradict each other": Fault(
        net(),
        "cannot-overfit",
        "",
        ce(overfit=True),
        x=lambda x: x[:8].repeat(2, 1),
        labels=lambda y: (torch.arange(len(y)) >= 8).long(),
        severity="warning",
    ),
}


def looked_at(fault: Fault, seed: int = 0) -> GradflowReport:
    with seeded(seed):
        model = fault.build()
        x, labels = torch.randn(SAMPLES, FEATURES), torch.arange(SAMPLES) % CLASSES
    return looked(model, (fault.x(x), fault.labels(labels)), noise=0, **fault.asked)


@pytest.mark.filterwarnings("ignore:reduction")
@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found_by_its_own_rule_alone_and_at_its_place(name):
    fault = FAULTS[name]
    (found,) = grave(looked_at(fault))
    assert (found.code, found.severity.name.lower()) == (fault.code, fault.severity)
    assert not fault.where or found.where == fault.where
    assert found.remedy


def test_what_a_step_made_infinite_is_put_down_to_the_learning_rate():
    (finding,) = grave(looked_at(FAULTS["a step into infinity"]))
    assert "in step 2" in finding.message and "learning rate" in finding.remedy


def test_faults_are_of_many_kinds_and_their_network_is_healthy_without_one():
    assert len(FAULTS) >= 25 and len({fault.code for fault in FAULTS.values()}) >= 20
    for activation in (None, torch.tanh, F.gelu):
        for seed in range(3):
            assert grave(looked_at(Fault(net(after_first=activation), ""), seed)) == []


@pytest.mark.filterwarnings("ignore:reduction")
@pytest.mark.sweep
@pytest.mark.parametrize("seed", range(1, 5))
@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found_with_other_numbers(name, seed):
    assert [finding.code for finding in grave(looked_at(FAULTS[name], seed))] == [FAULTS[name].code]


@pytest.mark.parametrize("name", ["detach() at the end", "rounding", "a learning rate far too large", "scores in front of nll"])
def test_the_python_function_finds_them_too(name):
    fault = FAULTS[name]
    with seeded(0):
        model, x = fault.build(), torch.randn(SAMPLES, FEATURES)
    rate = fault.asked.get("options", {}).get("lr")
    report = netlens.gradflow(model, x, torch.arange(SAMPLES) % CLASSES, loss=fault.asked.get("loss"), lr=rate)
    assert [finding.code for finding in grave(report)] == [fault.code]


# -- what never gets to a rule: said in two lines -----------------------------------------------------------------------------------

REFUSED: dict[str, tuple[Callable[[], nn.Module], str, Callable[[Tensor], Tensor], str]] = {
    "all are frozen": (lambda: Net().requires_grad_(False), "cross_entropy", lambda y: y, "no parameters that are not frozen"),
    "nothing to learn": (nn.Tanh, "mse", lambda y: torch.zeros(SAMPLES, FEATURES), "no parameters"),
    "classes counted from 1": (Net, "cross_entropy", lambda y: y + 1, "from 1 to 4"),
    "a class below 0": (Net, "cross_entropy", lambda y: y - 1, "-1"),
    "labels that are all ignored": (Net, "cross_entropy", lambda y: y * 0 - 100, "all 16 labels are -100"),
    "labels of -1 and 1": (Net, "bce_with_logits", lambda y: 2 * soft(y) - 1, "needs 0 to 1"),
    "more labels than samples": (Net, "cross_entropy", lambda y: y.repeat(2), "32"),
    "labels of another width": (Net, "mse", lambda y: soft(y)[:, :2], r"\(16, 2\)"),
    "fractions for classes": (Net, "cross_entropy", lambda y: y + 0.5, "float"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_learned_from_is_refused_in_two_lines(name):
    build, loss, change, said = REFUSED[name]
    with pytest.raises(NetlensError, match=said) as raised:
        looked(build(), (torch.randn(SAMPLES, FEATURES), change(torch.arange(SAMPLES) % CLASSES)), loss=loss, noise=0)
    assert raised.value.hint


# -- the sick twins of ShapeNet -----------------------------------------------------------------------------------------------------

TWINS: dict[str, str | None] = {
    "healthy": None,
    "fresh_plain": None,
    "frozen_body": None,
    "duplicate_filters": None,
    "constant_output": None,
    "exploding_init": "exploding-gradient",
    "vanishing_init": "vanishing-gradient",
    "detached_branch": "detached-parameters",
    "unused_layer": "unused-parameters",
    "nan_weight": "act-nonfinite",
}


@pytest.mark.parametrize("twin", TWINS)
def test_each_sick_twin_raises_its_own(twin):
    """Duplicate filters, a head of zeros and a frozen body do not stop the gradient."""
    scenes = SceneDataset()
    pairs = [scenes[index] for index in range(SAMPLES)]
    x, labels = torch.stack([picture for picture, _ in pairs]), torch.tensor([label for _, label in pairs])
    report = looked(getattr(sick, twin)(), (x, labels), fresh=None, noise=0)
    assert [finding.code for finding in grave(report)] == ([TWINS[twin]] if TWINS[twin] else [])
