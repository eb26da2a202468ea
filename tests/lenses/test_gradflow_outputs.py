"""Facts of output and loss against closed forms and plain numpy, and kinds of outputs that were made on purpose."""

from __future__ import annotations

from math import log
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netlens.lenses.gradflow.outputs import output_facts
from netlens.lenses.gradflow.report import OutputFacts
from netlens.loading.losses import choose_loss

EMPTY = nn.Identity()


def facts(output: Any, labels: Any, loss: Any = None, model: nn.Module = EMPTY) -> OutputFacts:
    found = output_facts(model, output, labels, choose_loss(loss, output, labels))
    assert found is not None
    return found


def scores(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def by_rows(output: Tensor, labels: Tensor) -> float:
    """Mean of -log softmax of the true class over rows whose label is a class, in numpy float64; classes in the second dimension."""
    rows = np.moveaxis(output.double().numpy(), 1, -1).reshape(-1, output.shape[1])
    costs = [
        np.log(np.exp(row).sum()) - row[label] for row, label in zip(rows, labels.flatten().tolist(), strict=True) if 0 <= label < len(row)
    ]
    return float(np.mean(costs))


def test_classes_labels_chance_and_cross_entropy():
    output, labels = scores(6, 10), torch.tensor([3, 1, 4, 1, 5, 8])
    found = facts(output, labels, "cross_entropy:label_smoothing=0.2")
    assert (found.name, found.shape, found.classes, found.label_least, found.label_greatest) == ("", (6, 10), 10, 1, 8)
    assert (found.label_dtype, found.rows, found.zero_head) == ("int64", "scores", False)
    assert found.chance == pytest.approx(log(10)) and found.expected == pytest.approx(by_rows(output, labels), rel=1e-6)


def test_scores_that_are_all_zero_cost_what_chance_does():
    found = facts(torch.zeros(4, 7), torch.tensor([0, 1, 2, 6]))
    assert found.expected == pytest.approx(log(7)) == found.chance
    assert (found.rows, found.between, found.loss_moves) == ("scores", 0, 0)


def test_ignored_labels_have_no_part():
    output, labels = scores(2, 5, 3, 4), torch.randint(0, 5, (2, 3, 4), generator=torch.Generator().manual_seed(1))
    labels[0, 1] = 255
    found = facts(output, labels, "cross_entropy:ignore_index=255")
    assert (found.classes, found.label_least, found.label_greatest) == (5, 0, float(labels[labels < 255].max()))
    assert found.expected == pytest.approx(by_rows(output, labels), rel=1e-6)


def test_classes_in_the_last_dimension_soft_labels_and_integers_of_8_bit():
    output, labels = scores(3, 6, 5), torch.randint(0, 5, (3, 6), generator=torch.Generator().manual_seed(2))
    assert facts(output, labels).expected == pytest.approx(by_rows(output.movedim(-1, 1), labels), rel=1e-6)
    soft = torch.softmax(scores(3, 4, seed=5), 1)
    found = facts(scores(3, 4), soft, "cross_entropy")
    by_hand = -(soft.double() * torch.log_softmax(scores(3, 4).double(), 1)).sum(1).mean()
    assert found.classes == 4 and found.expected == pytest.approx(float(by_hand), rel=1e-6)
    found = facts(scores(3, 4), torch.tensor([0, 3, 1], dtype=torch.uint8))
    assert (found.label_dtype, found.label_greatest) == ("uint8", 3)


@pytest.mark.parametrize(
    ("last", "loss", "rows"),
    [
        (nn.Softmax(1), "cross_entropy", "probabilities"),
        (nn.LogSoftmax(1), "cross_entropy", "log probabilities"),
        (nn.Sigmoid(), "cross_entropy", "in 0..1"),
        (nn.ReLU(), "cross_entropy", "not negative"),
        (nn.Identity(), "cross_entropy", "scores"),
        (nn.Softmax(1), "nll", "probabilities"),
    ],
)
@pytest.mark.parametrize("graph", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_kind_of_the_rows(last, loss, rows, graph, dtype):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 40), last).to(dtype)
    with torch.set_grad_enabled(graph):
        output = model(torch.randn(16, 5, dtype=dtype))
    found = facts(output, torch.arange(16), loss)
    assert found.rows == rows
    if rows == "log probabilities":
        tolerance = 1e-5 if dtype == torch.float32 else 0.02
        assert found.expected == pytest.approx(float(F.nll_loss(output.detach().float(), torch.arange(16))), rel=tolerance)


def test_positive_numbers_of_a_linear_layer_are_scores():
    """A bias can put all of them into 0..1; the graph tells that nothing squashed them."""
    head = nn.Linear(4, 1)
    nn.init.constant_(head.bias, 0.5)
    nn.init.normal_(head.weight, std=0.01)
    output = head(scores(32, 4))
    assert bool(((output > 0) & (output < 1)).all())
    assert facts(output, torch.ones(32, 1), "bce_with_logits").rows == "scores"
    assert facts(torch.sigmoid(output), torch.ones(32, 1), "bce_with_logits").rows == "in 0..1"
    assert facts(output, torch.ones(32, 1), "bce_with_logits").classes is None


def test_log_of_probabilities_for_a_loss_that_takes_it():
    output, labels = torch.softmax(scores(8, 6), 1), torch.arange(8) % 6
    found = facts(output, labels, lambda output, labels: -output[torch.arange(8), labels].log().mean())
    assert found.expected == pytest.approx(by_rows(scores(8, 6), labels), rel=1e-5)


def test_variance_between_samples_over_mean_square():
    output = scores(5, 4, 3) + 2
    values = output.double().numpy()
    expected = ((values - values.mean(0)) ** 2).sum() / (values**2).sum()
    assert facts(output, scores(5, 4, 3), "mse").between == pytest.approx(expected, rel=1e-9)
    same = scores(1, 4).expand(8, 4)
    assert facts(same, scores(8, 4), "mse").between == 0
    assert facts(scores(1, 4), scores(1, 4), "mse").between is None  # one sample tells nothing
    assert facts(torch.full((4, 3), torch.nan), torch.arange(4) % 3).between is None


def test_half_precision_hides_small_differences():
    output = 1 + 1e-3 * scores(8, 4)
    assert 0 < facts(output, scores(8, 4), "mse").between < 1e-5
    assert facts(output.bfloat16(), scores(8, 4), "mse").between is None


def test_samples_of_ctc_are_in_the_second_dimension():
    output = scores(12, 3, 5).log_softmax(2)
    labels = torch.tensor([[1, 2], [3, 4], [1, 4]])
    values = output.double().numpy()
    expected = ((values - values.mean(1, keepdims=True)) ** 2).sum() / (values**2).sum()
    assert facts(output, labels, "ctc").between == pytest.approx(expected, rel=1e-9)


def test_how_far_the_loss_moves_with_the_outputs_of_other_samples():
    output, labels = scores(4, 3), torch.tensor([0, 2, 1, 1])
    own = by_rows(output, labels)
    moved = [by_rows(output[place].expand(4, 3), labels) for place in (0, 2)]
    assert facts(output, labels).loss_moves == pytest.approx(max(abs(value - own) for value in moved) / own, rel=1e-5)


@pytest.mark.parametrize(
    ("loss", "moves"),
    [
        (lambda output, labels: output["logits"].square().mean(), True),  # the same in any order
        (lambda output, labels: F.cross_entropy(output["logits"], torch.zeros_like(labels)), True),
        (lambda output, labels: (0 * output["logits"]).sum() + labels.float().mean(), False),
        (lambda output, labels: torch.ones(()), False),
    ],
)
def test_a_loss_that_ignores_the_output(loss, moves):
    found = facts({"logits": scores(6, 3)}, torch.tensor([1, 1, 1, 1, 1, 1]), loss)
    assert (found.loss_moves == 0) is not moves
    assert found.name == "logits"


def test_labels_that_are_all_the_same_do_not_hide_that_the_loss_depends_on_the_input():
    assert facts(scores(6, 3), torch.ones(6, dtype=torch.long)).loss_moves > 0.01


def test_auxiliary_losses_are_not_counted():
    """Twice the same head and 0.3 of it: the loss is 1.3 ln C, and what is compared with ln C is the main head's."""
    output = {"aux": torch.zeros(4, 3), "out": torch.zeros(4, 3)}
    labels = torch.tensor([0, 1, 2, 0])
    found = facts(
        output, labels, lambda output, labels: F.cross_entropy(output["out"], labels) + 0.3 * F.cross_entropy(output["aux"], labels)
    )
    assert (found.name, found.expected) == ("out", pytest.approx(log(3)))


@pytest.mark.parametrize("shifts", [True, False])
def test_the_models_own_loss_of_words(shifts):
    """It shifts the words, or not: what is nearer to its loss is what it does, also with an auxiliary loss on top."""
    words, logits = torch.randint(0, 9, (2, 7), generator=torch.Generator().manual_seed(3)), scores(2, 7, 9) * 3
    pair = (logits[:, :-1], words[:, 1:]) if shifts else (logits, words)
    expected = by_rows(pair[0].movedim(-1, 1), pair[1])
    found = facts({"loss": torch.tensor(expected) + 0.01, "logits": logits}, words)
    assert found.expected == pytest.approx(expected, rel=1e-5)
    assert (found.classes, found.loss_moves) == (9, None)  # its loss cannot be taken of other outputs


def test_a_model_that_returns_only_losses_has_no_output():
    output = {"loss_box": torch.tensor(1.0), "loss_class": torch.tensor(2.0)}
    assert output_facts(EMPTY, output, None, choose_loss(None, output, None)) is None


def test_a_user_loss_may_take_labels_for_something_else():
    found = facts(scores(4, 3), torch.tensor([10, 250, 17, 99]), lambda output, labels: F.mse_loss(output.sum(1), labels.float()))
    assert (found.classes, found.chance, found.expected, found.label_greatest) == (None, None, None, 250)


class Net(nn.Module):
    """The head is listed first, and used last."""

    def __init__(self, zero: str) -> None:
        super().__init__()
        self.head, self.body = nn.Linear(6, 3), nn.Linear(4, 6)
        nn.init.zeros_(getattr(self, zero).weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.body(x))).squeeze()


def test_the_last_layer_is_the_one_nearest_to_the_output():
    x, labels = scores(4, 4), torch.tensor([0, 1, 2, 0])
    for zero in ("head", "body"):
        model = Net(zero)
        assert facts(model(x), labels, model=model).zero_head is (zero == "head")
    plain = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 3))
    nn.init.zeros_(plain[1].weight)
    assert facts(plain(x).detach(), labels, model=plain).zero_head  # without a graph: the last that the model lists


def test_numbers_are_fetched_once(monkeypatch):
    calls = []
    original = Tensor.tolist
    monkeypatch.setattr(Tensor, "tolist", lambda self: calls.append(self.shape) or original(self))
    output, labels = scores(6, 10), torch.arange(6)
    loss = choose_loss(None, output, labels)
    calls.clear()
    output_facts(EMPTY, output, labels, replace_loss(loss))
    assert len(calls) == 1


def replace_loss(loss: Any) -> Any:
    """Return a loss that fetches nothing itself."""
    from dataclasses import replace

    return replace(loss, function=F.cross_entropy)
