"""Losses: the number that torch's own function gives on the same tensors, and two lines where they cannot fit."""

from __future__ import annotations

import math
import re
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netlens.errors import NetlensError
from netlens.loading.loss_names import LOSSES, known_loss
from netlens.loading.losses import OWN, Loss, choose_loss, own_loss

torch.manual_seed(0)
SCORES = torch.randn(6, 4, requires_grad=True)
INDICES = torch.tensor([0, 3, 1, 1, 2, 0])
HALVES = torch.randint(2, (6, 4)).float()
SIGNS = HALVES * 2 - 1
NUMBERS = torch.randn(6, 4)
SPREAD = torch.rand(6, 4) + 0.1
STEPS = torch.randn(12, 6, 4).log_softmax(2)  # (T, N, C)
WORDS = torch.tensor([[1, 2, 3, 0], [3, 1, 0, 0], [1, 0, 0, 0], [2, 2, 1, 3], [1, 3, 0, 0], [2, 0, 0, 0]])
LENGTHS = torch.tensor([3, 2, 1, 4, 2, 1])
PAIR = torch.tensor([1.0, -1, 1, 1, -1, -1])
TWO, THREE = torch.randn(6, 4), torch.randn(6, 4)


def plain(loss: Loss, output: Any, labels: Any) -> float:
    return float(loss(output, labels).detach())


# --- Every loss of torch, by its names

VALUES: dict[str, tuple[Any, Any, Tensor]] = {
    "cross_entropy": (SCORES, INDICES, F.cross_entropy(SCORES, INDICES)),
    "nll": (SCORES.log_softmax(1), INDICES, F.nll_loss(SCORES.log_softmax(1), INDICES)),
    "bce_with_logits": (SCORES, HALVES, F.binary_cross_entropy_with_logits(SCORES, HALVES)),
    "bce": (SCORES.sigmoid(), HALVES, F.binary_cross_entropy(SCORES.sigmoid(), HALVES)),
    "mse": (SCORES, NUMBERS, F.mse_loss(SCORES, NUMBERS)),
    "l1": (SCORES, NUMBERS, F.l1_loss(SCORES, NUMBERS)),
    "smooth_l1": (SCORES, NUMBERS, F.smooth_l1_loss(SCORES, NUMBERS)),
    "huber": (SCORES, NUMBERS, F.huber_loss(SCORES, NUMBERS)),
    "kl_div": (SCORES.log_softmax(1), NUMBERS.softmax(1), F.kl_div(SCORES.log_softmax(1), NUMBERS.softmax(1), reduction="none").mean()),
    "poisson_nll": (SCORES, HALVES, F.poisson_nll_loss(SCORES, HALVES)),
    "gaussian_nll": ((SCORES, SPREAD), NUMBERS, F.gaussian_nll_loss(SCORES, NUMBERS, SPREAD)),
    "soft_margin": (SCORES, SIGNS, F.soft_margin_loss(SCORES, SIGNS)),
    "hinge_embedding": (SCORES, SIGNS, F.hinge_embedding_loss(SCORES, SIGNS)),
    "multi_margin": (SCORES, INDICES, F.multi_margin_loss(SCORES, INDICES)),
    "multilabel_soft_margin": (SCORES, HALVES, F.multilabel_soft_margin_loss(SCORES, HALVES)),
    "multilabel_margin": (SCORES, WORDS.where(WORDS > 0, -1), F.multilabel_margin_loss(SCORES, WORDS.where(WORDS > 0, -1))),
    "ctc": (STEPS, WORDS, F.ctc_loss(STEPS, WORDS, torch.full((6,), 12), LENGTHS)),
    "cosine_embedding": ((SCORES, TWO), PAIR, F.cosine_embedding_loss(SCORES, TWO, PAIR)),
    "margin_ranking": ((SCORES[:, 0], TWO[:, 0]), PAIR, F.margin_ranking_loss(SCORES[:, 0], TWO[:, 0], PAIR)),
    "triplet_margin": ((SCORES, TWO, THREE), None, F.triplet_margin_loss(SCORES, TWO, THREE)),
    "triplet_margin_with_distance": ((SCORES, TWO, THREE), None, F.triplet_margin_with_distance_loss(SCORES, TWO, THREE)),
}


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides")
@pytest.mark.parametrize("name", VALUES)
def test_a_loss_by_name_is_the_one_of_torch(name):
    output, labels, expected = VALUES[name]
    loss = choose_loss(name, output, labels)
    assert (loss.name, loss.source, loss.notes) == (name, "--loss", ())
    torch.testing.assert_close(loss(output, labels), expected, rtol=1e-6, atol=1e-7)
    if loss.per_sample is not None:
        each = loss.per_sample(output, labels)
        assert each.shape == (6,) and float(each.mean().detach()) == pytest.approx(float(expected.detach()), rel=1e-5)


def test_every_loss_that_torch_has_is_known():
    functions = [
        name for name in dir(F) if not name.startswith("_") and (name.endswith(("_loss", "entropy", "logits")) or name == "kl_div")
    ]
    classes = [name for name in dir(nn) if name.endswith(("Loss", "Loss2d"))]
    assert {name for name in (*functions, *classes) if known_loss(name) is None} <= {
        *("linear_cross_entropy", "LinearCrossEntropyLoss", "AdaptiveLogSoftmaxWithLoss")
    }
    assert set(VALUES) == {loss.name for loss in LOSSES}
    assert all(hasattr(F, loss.function) for loss in LOSSES)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("CrossEntropyLoss", "cross_entropy"),
        ("torch.nn.CrossEntropyLoss", "cross_entropy"),
        ("torch.nn:CrossEntropyLoss", "cross_entropy"),
        ("torch.nn.functional.cross_entropy", "cross_entropy"),
        ("nn.BCEWithLogitsLoss", "bce_with_logits"),
        ("F.binary_cross_entropy_with_logits", "bce_with_logits"),
        ("cross-entropy", "cross_entropy"),
        ("ce", "cross_entropy"),
        ("MSE", "mse"),
        ("mae", "l1"),
        ("KLDivLoss", "kl_div"),
        ("CTCLoss", "ctc"),
    ],
)
def test_names_are_those_that_people_use(text, name):
    found = known_loss(text)
    assert found is not None and found.name == name


def test_options_reach_torch():
    labels = INDICES.where(INDICES != 3, 255)
    text = "cross_entropy:ignore_index=255,label_smoothing=0.1,weight=[1, 2, 3, 4]"
    expected = F.cross_entropy(SCORES, labels, torch.tensor([1.0, 2, 3, 4]), ignore_index=255, label_smoothing=0.1)
    torch.testing.assert_close(choose_loss(text, SCORES, labels)(SCORES, labels), expected)
    summed = choose_loss("mse:reduction=sum", SCORES, NUMBERS)(SCORES, NUMBERS)
    torch.testing.assert_close(summed, F.mse_loss(SCORES, NUMBERS, reduction="sum"))
    with pytest.raises(NetlensError, match="cross_entropy has no option 'smoothing'"):
        choose_loss("cross_entropy:smoothing=0.1", SCORES, INDICES)


def test_objects_of_torch_are_taken_with_their_options():
    for given in (nn.CrossEntropyLoss(label_smoothing=0.2), lambda output, labels: F.cross_entropy(output, labels, label_smoothing=0.2)):
        loss = choose_loss(given, SCORES, INDICES)
        torch.testing.assert_close(loss(SCORES, INDICES), F.cross_entropy(SCORES, INDICES, label_smoothing=0.2))
    with pytest.raises(NetlensError, match="go from 1 to 4, and the model scores 4 classes"):
        choose_loss(nn.CrossEntropyLoss(), SCORES, INDICES + 1)


# --- What is done to labels, and said


def test_gradients_are_those_of_the_mean_by_hand():
    """d/ds of cross-entropy is (softmax - one-hot) / N."""
    scores = SCORES.detach().clone().requires_grad_()
    choose_loss(None, scores, INDICES)(scores, INDICES).backward()
    torch.testing.assert_close(scores.grad, (scores.detach().softmax(1) - F.one_hot(INDICES, 4)) / 6)


SAID: dict[str, tuple[str | None, Tensor, Tensor, Tensor, str]] = {
    "column of classes": ("cross_entropy", SCORES, INDICES[:, None], F.cross_entropy(SCORES, INDICES), r"the labels are \(6, 1\)"),
    "one-hot integers": (None, SCORES, F.one_hot(INDICES), F.cross_entropy(SCORES, INDICES), "one-hot integers: the index of the 1"),
    "int32": ("cross_entropy", SCORES, INDICES.int(), F.cross_entropy(SCORES, INDICES), "the labels are int32"),
    "words, classes last": (
        *("cross_entropy", STEPS, WORDS.repeat(2, 2)[:12, :6]),
        *(F.cross_entropy(STEPS.reshape(-1, 4), WORDS.repeat(2, 2)[:12, :6].reshape(-1)), "the classes are in the last dimension"),
    ),
    "rows that sum to 2": (
        *("cross_entropy", SCORES, HALVES.new_tensor([[1, 1, 0, 0]] * 6)),
        *(
            F.cross_entropy(SCORES, HALVES.new_tensor([[1, 1, 0, 0]] * 6)),
            "rows sum to 2 to 2: several true classes are for bce_with_logits",
        ),
    ),
    "mse of a column": (
        *("mse", SCORES[:, :1], NUMBERS[:, 0]),
        *(F.mse_loss(SCORES[:, 0], NUMBERS[:, 0]), r"compared one to one; torch would spread both to \(6, 6\)"),
    ),
    "bce of integers": (
        *("bce_with_logits", SCORES[:, 0], HALVES[:, 0].long()),
        *(F.binary_cross_entropy_with_logits(SCORES[:, 0], HALVES[:, 0]), "the labels are int64: taken as float32"),
    ),
    "ctc, samples first": ("ctc", STEPS.transpose(0, 1), WORDS, VALUES["ctc"][2], "the samples come first in the output"),
}


@pytest.mark.parametrize("case", SAID.values(), ids=SAID)
def test_labels_that_torch_refuses_or_mistakes_are_mended_and_it_is_said(case):
    name, output, labels, expected, words = case
    loss = choose_loss(name, output, labels)
    torch.testing.assert_close(loss(output, labels), expected)
    assert len(loss.notes) == 1 and re.search(words, loss.notes[0]), loss.notes


def test_double_labels_do_not_make_the_loss_double():
    loss = choose_loss("mse", SCORES, NUMBERS.double())
    assert loss(SCORES, NUMBERS.double()).dtype == torch.float32 and loss.notes == ()


def test_ignored_labels_do_not_count_by_hand():
    labels = torch.tensor([0, -100, 1, -100, -100, -100])
    rows = SCORES.detach().log_softmax(1)
    assert plain(choose_loss(None, SCORES, labels), SCORES, labels) == pytest.approx(-float(rows[0, 0] + rows[2, 1]) / 2)


def test_segmentation_is_the_mean_over_pixels_by_hand():
    scores, labels = torch.randn(2, 3, 4, 5), torch.randint(3, (2, 4, 5))
    expected = -sum(float(scores[n, :, y, x].log_softmax(0)[labels[n, y, x]]) for n in range(2) for y in range(4) for x in range(5)) / (
        2 * 4 * 5
    )
    for given in (labels, labels[:, None]):
        loss = choose_loss(None, scores, given)
        assert loss.name == "cross_entropy" and plain(loss, scores, given) == pytest.approx(expected, rel=1e-5)


def test_ctc_takes_lengths_as_well():
    short = torch.full((6,), 9)
    expected = F.ctc_loss(STEPS, WORDS, short, LENGTHS)
    torch.testing.assert_close(choose_loss("ctc", STEPS, (WORDS, short, LENGTHS))(STEPS, (WORDS, short, LENGTHS)), expected)
    padded = WORDS.where(WORDS > 0, -1)
    torch.testing.assert_close(choose_loss("ctc", STEPS, padded)(STEPS, padded), VALUES["ctc"][2])


def test_nan_comes_through_where_torch_stops():
    scores = torch.tensor([[0.5], [math.nan]], requires_grad=True)
    found = choose_loss("bce", scores, torch.ones(2, 1))(scores, torch.ones(2, 1))
    assert found.isnan() and found.requires_grad


def test_bfloat16_under_autocast_and_without():
    scores, labels = SCORES.detach().bfloat16().requires_grad_(), NUMBERS
    loss = choose_loss("mse", scores, labels)
    loss(scores, labels).backward()
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(loss(scores, labels).float(), F.mse_loss(scores.float(), labels), rtol=1e-2, atol=1e-2)


# --- What cannot be

REFUSED: dict[str, tuple[str | None, Any, Any, str, str]] = {
    "floats": (
        "cross_entropy",
        SCORES,
        INDICES.float(),
        "class indices as integers: the output is (6, 4) of float32, the labels are (6,)",
        "long()",
    ),
    "floats, inferred": (None, SCORES, INDICES.double(), "the labels are (6,) of float64", "label.long()"),
    "from 1": ("cross_entropy", SCORES, INDICES + 1, "go from 1 to 4, and the model scores 4 classes, 0 to 3", "label - 1"),
    "from 1, inferred": (None, SCORES, INDICES + 1, "go from 1 to 4", "they begin at 1"),
    "too many classes": ("ce", SCORES, INDICES * 3, "go from 0 to 9", "num_classes=10"),
    "void": ("ce", SCORES, INDICES.where(INDICES > 0, 255), "go from 1 to 255", "--loss cross_entropy:ignore_index=255"),
    "minus one": ("nll", SCORES, INDICES.where(INDICES > 0, -1), "go from -1 to 3", "--loss nll:ignore_index=-1"),
    "negative": ("ce", SCORES, INDICES - 2, "go from -2 to 1", "count classes from 0"),
    "all ignored": ("ce", SCORES, INDICES * 0 - 100, "all 6 labels are -100", "check them"),
    "one class": ("ce", SCORES[:, :1], INDICES * 0, "the model scores 1 class", "bce_with_logits"),
    "none": ("ce", SCORES, None, "cross_entropy needs labels, and there are none", "(input, label)"),
    "none, inferred": (None, SCORES, None, "nothing tells which loss is meant", "--loss package.module:fn"),
    "texts": (None, SCORES, ["cat", "dog"], "the labels are texts ('cat', 'dog')", "the index of each class"),
    "boxes": (None, SCORES, [{"boxes": TWO, "labels": INDICES}], "list of dict of boxes, labels", "train mode"),
    "fewer rows": ("ce", SCORES, INDICES[:5], "the output is (6, 4) of float32, the labels are (5,) of int64", "first dimension"),
    "one number for classes": ("ce", SCORES[:, 0], INDICES, "the output is (6,)", "--loss bce_with_logits or --loss mse"),
    "another size": ("ce", torch.randn(2, 3, 4, 4), torch.zeros(2, 8, 8).long(), "(2, 3, 4, 4)", "interpolate"),
    "mse with classes": ("mse", SCORES, INDICES, "mse needs numbers, as many as the output has", "one_hot(label, 4)"),
    "bce of signs": ("bce_with_logits", SCORES, SIGNS, "go from -1 to 1, and bce_with_logits needs 0 to 1", "soft_margin"),
    "bce of bytes": ("bce_with_logits", SCORES, HALVES * 255, "go from 0 to 255", "label / 255"),
    "bce of scores": ("bce", SCORES, HALVES, "bce needs probabilities", "bce_with_logits"),
    "signs of 0 and 1": ("soft_margin", SCORES, HALVES, "needs -1 and 1", "2 * label - 1"),
    "a long word": ("ctc", STEPS[:3], WORDS, "sample 3 has 4 labels and 3 steps", "zero_infinity=True"),
    "a blank inside": ("ctc", STEPS, WORDS.flip(1), "a label of ctc is 0, the blank", "count classes from 1"),
    "one output of two": ("cosine_embedding", SCORES, PAIR, "compares 2 outputs, and the model returns 1", "tuple"),
    "negative variance": ("gaussian_nll", (SCORES, -SPREAD), NUMBERS, "torch's gaussian_nll raised ValueError", "another --loss"),
    "no numbers": ("ce", INDICES, INDICES, "the model returns no floating numbers", "before argmax"),
    "nothing fits": (None, SCORES, torch.zeros(6, 3), "(6, 3) of float32", "--loss cross_entropy"),
    "no such loss": ("cros_entropy", SCORES, INDICES, "there is no loss 'cros_entropy'", "did you mean 'cross_entropy'?"),
    "weights of its own": ("AdaptiveLogSoftmaxWithLoss", SCORES, INDICES, "has weights of its own", "part of the model"),
    "empty": ("mse", SCORES[:0], NUMBERS[:0], "the model returns no floating numbers", ""),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_two_lines_with_the_way_out(case):
    name, output, labels, message, hint = case
    with pytest.raises(NetlensError) as error:
        choose_loss(name, output, labels)
    assert message in error.value.message and hint in error.value.hint, (error.value.message, error.value.hint)
    assert "\n" not in error.value.message + error.value.hint


# --- Inferred

PICTURE = torch.randn(2, 3, 4, 4)
INFERRED: dict[str, tuple[Tensor, Tensor, str, str]] = {
    "classes": (SCORES, INDICES, "cross_entropy", "inferred: output (6, 4) and integer labels below 4"),
    "log probabilities": (SCORES.log_softmax(1), INDICES, "nll", "integer labels below 4; the output holds log probabilities"),
    "log of a softmax": (SCORES.softmax(1).log(), INDICES, "nll", "log probabilities"),
    "probabilities": (SCORES.softmax(1), INDICES, "cross_entropy", "the output holds probabilities"),
    "words": (STEPS, torch.zeros(12, 6).long(), "nll", "integer labels below 4"),
    "soft labels": (SCORES, NUMBERS.softmax(1), "cross_entropy", "labels whose rows sum to 1"),
    "several classes": (SCORES, HALVES, "bce_with_logits", "labels of 0 and 1"),
    "after a sigmoid": (SCORES.sigmoid(), HALVES, "bce", "the output holds probabilities"),
    "one-hot after a sigmoid": (SCORES.sigmoid(), nn.functional.one_hot(INDICES).float(), "bce", "labels of 0 and 1"),
    "after a sigmoid and a squeeze": (SCORES.sigmoid()[:, :1].squeeze(1), HALVES[:, 0], "bce", "probabilities"),
    "two classes, one number": (SCORES[:, 0] * 0 + 0.3, HALVES[:, 0].long(), "bce_with_logits", "labels of 0 and 1"),
    "numbers": (SCORES, NUMBERS, "mse", "labels of its shape"),
    "counts": (SCORES[:, :1], INDICES, "mse", "integer labels of its shape"),
    "mask": (PICTURE[:, :1], (PICTURE[:, :1] > 0).float(), "bce_with_logits", "labels of 0 and 1"),
    "picture": (PICTURE, PICTURE + 1, "mse", "labels of its shape"),
}


@pytest.mark.parametrize("case", INFERRED.values(), ids=INFERRED)
def test_output_and_labels_speak_for_a_loss(case):
    output, labels, name, source = case
    loss = choose_loss(None, output, labels)
    assert loss.name == name and source in loss.source and loss.source.startswith("inferred: output (")


def test_the_part_is_taken_that_the_labels_fit():
    output = {"hidden": torch.randn(6, 9), "aux": SCORES * 2, "out": SCORES}
    loss = choose_loss(None, output, INDICES)
    torch.testing.assert_close(loss(output, INDICES), F.cross_entropy(SCORES, INDICES))
    assert loss.leaf == "out" and loss.notes == ("cross_entropy looks at the output 'out', and not at 'aux'",)
    assert plain(loss, SCORES, INDICES) == pytest.approx(float(F.cross_entropy(SCORES, INDICES).detach()))  # without the other head
    tagged = {"next": torch.randn(2, 5, 8), "tags": torch.randn(2, 5, 3)}
    assert choose_loss("mse", tagged, torch.randn(2, 5, 3)).leaf == "tags"


# --- The model's own, and the user's

Result = namedtuple("Result", "loss logits")
LOSS = torch.tensor(0.7, requires_grad=True)


@pytest.mark.parametrize(
    ("output", "value", "source"),
    [
        (LOSS, 0.7, "its output is one number"),
        ({"loss": LOSS, "logits": SCORES}, 0.7, "its part 'loss'"),
        (Result(LOSS, SCORES), 0.7, "its part 'loss'"),
        ((LOSS, SCORES, TWO), 0.7, "part 0 of its output"),
        ((SCORES, LOSS), 0.7, "part 1 of its output"),
        ({"classification": LOSS, "bbox_regression": LOSS * 2}, 2.1, "the sum of classification, bbox_regression"),
        ({"loss": torch.stack([LOSS, LOSS * 3])}, 1.4, "its part 'loss'"),
    ],
)
def test_a_model_s_own_loss_is_found(output, value, source):
    loss = choose_loss(None, output, None)
    assert loss.own and loss.name == OWN and loss.source == f"the model returns it: {source}"
    assert plain(loss, output, None) == pytest.approx(value) and loss(output, None).requires_grad


def test_scores_are_no_loss():
    for output in (SCORES, {"out": SCORES}, (SCORES, TWO), [SCORES], (SCORES, TWO, LOSS), {}, None, ()):
        assert own_loss(output) is None


def test_a_named_loss_goes_before_the_model_s_own():
    output = {"loss": LOSS, "logits": SCORES}
    assert plain(choose_loss("cross_entropy", output, INDICES), output, INDICES) == pytest.approx(
        float(F.cross_entropy(SCORES, INDICES).detach())
    )


@pytest.mark.parametrize("kind", ["transformers", "detection"])
def test_real_models_with_losses_of_their_own(kind):
    torch.manual_seed(0)
    if kind == "transformers":
        transformers = pytest.importorskip("transformers")
        config = transformers.BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, vocab_size=40)
        model = transformers.BertForSequenceClassification(config).train()
        output = model(input_ids=torch.randint(40, (3, 5)), labels=torch.tensor([0, 1, 1]))
        expected = F.cross_entropy(output.logits, torch.tensor([0, 1, 1]))
    else:
        output = {"loss_classifier": LOSS, "loss_box_reg": LOSS + 1, "loss_objectness": LOSS * 0, "loss_rpn_box_reg": LOSS}
        expected = torch.tensor(3.1)
    torch.testing.assert_close(choose_loss(None, output, None)(output, None), expected)


MINE = """
import torch
from torch import nn
def focal(output, labels, gamma=2.0):
    each = nn.functional.cross_entropy(output, labels, reduction="none")
    return (1 - (-each).exp()) ** gamma * each
def number(output, labels): return output.sum().item()
def detached(output, labels): return output.detach().sum()
def broken(output, labels): return output @ labels
def alone(output): return output.square().mean()
def several(output, labels): return {"a": output.mean(), "b": output.sum()}
def indices(output, labels): return output.argmax()
class Scaled(nn.Module):
    def __init__(self, scale=1.0):
        super().__init__()
        self.register_buffer("scale", torch.tensor(float(scale)))
    def forward(self, output, labels): return self.scale * (output - labels).abs().mean()
class Needs(nn.Module):
    def __init__(self, classes): super().__init__()
value = 3
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(MINE)


@pytest.mark.parametrize(
    ("name", "labels", "expected"),
    [
        ("alone", INDICES, SCORES.square().mean()),
        ("alone", None, SCORES.square().mean()),
        ("several", None, SCORES.mean() + SCORES.sum()),
        ("Scaled", NUMBERS, F.l1_loss(SCORES, NUMBERS)),
        ("Scaled:scale=3", NUMBERS, 3 * F.l1_loss(SCORES, NUMBERS)),
    ],
)
def test_code_of_ones_own_is_called_with_the_output_as_it_is(mine, name, labels, expected):
    loss = choose_loss(f"mine.py:{name}", SCORES, labels)
    torch.testing.assert_close(loss(SCORES, labels), expected)
    assert loss.source == "--loss" and loss(SCORES, labels).requires_grad


def test_of_several_numbers_the_mean_is_taken_and_it_is_said(mine):
    loss = choose_loss("mine.py:focal:gamma=0", SCORES, INDICES)
    torch.testing.assert_close(loss(SCORES, INDICES), F.cross_entropy(SCORES, INDICES))
    assert loss.notes == ("mine.py:focal returns a loss for each part, (6,): their mean is taken",)
    none = choose_loss("cross_entropy:reduction=none", SCORES, INDICES)
    torch.testing.assert_close(none(SCORES, INDICES), F.cross_entropy(SCORES, INDICES))
    assert "their mean is taken" in none.notes[0]


def test_a_loss_without_a_graph_is_handed_on(mine):
    """That nothing can be learned from it is a finding, not an error."""
    assert not choose_loss("mine.py:detached", SCORES, INDICES)(SCORES, INDICES).requires_grad


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("number", "mine.py:number returned an object of type float, which has no gradient", "without .item()"),
        ("broken", "mine.py:broken raised RuntimeError: ", "(output, labels)"),
        ("indices", "returned () of int64, which is no loss", "floating"),
        ("Needs", "mine.py:Needs cannot be made: TypeError", "--loss mine.py:Needs:NAME=VALUE"),
        ("value", "mine.py:value is of the type int, and no function", "(output, labels)"),
        ("fokal", "mine.py has no 'fokal'", "did you mean 'focal'?"),
        ("focal:gama=2", "got an unexpected keyword argument 'gama'", ""),
    ],
)
def test_code_that_is_no_loss_is_two_lines(mine, name, message, hint):
    with pytest.raises(NetlensError) as error:
        choose_loss(f"mine.py:{name}", SCORES, INDICES)
    assert message in error.value.message and hint in error.value.hint
    if name == "broken":
        assert "(mine.py:9)" in error.value.message and "labels (6,) of int64" in error.value.message
