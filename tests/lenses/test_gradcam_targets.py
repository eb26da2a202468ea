"""What a model returned, read: outputs made by hand with known answers, and the gradient of every kind against finite differences."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from math import exp, log
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from netlens.errors import NetlensError, UsageError
from netlens.lenses.gradcam.answers import Answer, Embedding, Point
from netlens.lenses.gradcam.class_answers import ClassMap, ClassScores
from netlens.lenses.gradcam.detections import Detections
from netlens.lenses.gradcam.targets import NothingDetected, Target, embeddings, lowering, read
from netlens.loading.class_names import ClassNames

ROWS = torch.tensor([[1.0, 3.0, 2.0], [0.0, -1.0, 5.0]])
PETS = ClassNames(("cat", "dog", "bird"), "labels.txt")


def softmax(row: list[float]) -> list[float]:
    total = sum(exp(value) for value in row)
    return [exp(value) / total for value in row]


def checked_gradient(compute: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    """Return autograd's gradient of the sum of what `compute` returns, after comparing it with central differences."""
    at = at.double().requires_grad_()
    (gradient,) = torch.autograd.grad(compute(at).sum(), at)
    flat, step = at.detach().numpy().ravel(), 1e-6
    for index in range(flat.size):
        ends = []
        for sign in (1, -1):
            moved = flat.copy()
            moved[index] += sign * step
            ends.append(compute(torch.from_numpy(moved.reshape(at.shape))).sum().item())
        assert gradient.flatten()[index].item() == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=1e-7)
    return gradient


def asked(answer: Answer, *texts: str, sample: int = 0, point: Point | None = None) -> list[tuple[int, str]]:
    return [(target.found.index, target.asked) for target in answer.targets(sample, texts, point)]


# --- Class scores


def test_scores_and_probabilities_of_classes() -> None:
    answer = read(ROWS)
    assert (str(answer), answer.classes, answer.samples, answer.notes) == ("class scores", 3, 2, ())
    top = answer.top(0, 2)
    assert [(each.index, each.score, each.name) for each in top] == [(1, 3.0, None), (2, 2.0, None)]
    assert [each.probability for each in top] == pytest.approx([softmax([1, 3, 2])[1], softmax([1, 3, 2])[2]], rel=1e-6)
    targets = [answer.resolve(0, "2"), answer.resolve(1, "0")]
    assert answer.scores(targets).tolist() == [2.0, 0.0]
    assert answer.probabilities(targets).tolist() == pytest.approx([softmax([1, 3, 2])[2], softmax([0, -1, 5])[0]], rel=1e-6)
    gradient = checked_gradient(lambda rows: read(rows).scores(targets), ROWS)
    assert gradient.tolist() == [[0, 0, 1], [1, 0, 0]]


def test_several_targets_each_once() -> None:
    answer = read(ROWS)
    answer.names = PETS
    assert asked(answer) == [(1, "top prediction")]
    assert asked(answer, sample=1) == [(2, "top prediction")]
    assert asked(answer, "bird", "top2", "0", "CAT") == [(2, "bird"), (1, "top prediction"), (0, "0")]
    assert asked(answer, "top9") == [(1, "top prediction"), (2, "prediction 2"), (0, "prediction 3")]
    assert [each.name for each in answer.top(0, 3)] == ["dog", "bird", "cat"]
    with pytest.raises(UsageError, match="no class 3: the model has 3 classes"):
        answer.targets(0, ["3"])
    with pytest.raises(UsageError) as error:
        answer.targets(0, ["1"], point=Point(1, 1))
    assert "--point" in error.value.hint


def test_a_softmax_is_undone_as_far_as_it_can_be() -> None:
    """The score is log p, whose gradient by the scores before it is onehot - p; p does not change."""
    expected = torch.tensor([softmax(row) for row in ROWS.tolist()], dtype=torch.float64)
    answer = read(ROWS.softmax(1))
    targets = [answer.resolve(0, "2"), answer.resolve(1, "0")]
    assert "softmax" in answer.notes[0]
    assert answer.probabilities(targets).tolist() == pytest.approx([expected[0, 2].item(), expected[1, 0].item()], rel=1e-5)
    assert answer.scores(targets).tolist() == pytest.approx([log(expected[0, 2]), log(expected[1, 0])], rel=1e-5)
    gradient = checked_gradient(lambda rows: read(rows.softmax(1)).scores(targets), ROWS)
    torch.testing.assert_close(gradient, torch.tensor([[0, 0, 1], [1, 0, 0]]) - expected)


def test_a_softmax_of_half_precision_over_many_classes_is_seen() -> None:
    torch.manual_seed(0)
    for dtype in (torch.float16, torch.bfloat16):
        assert "softmax" in read(torch.randn(4, 1000).mul(3).softmax(1).to(dtype)).notes[0]
    assert read(torch.rand(4, 10)).notes == ()  # numbers in 0..1 that do not add up to 1
    assert read(torch.tensor([[0.7, 0.3], [2.0, -1.0]])).notes == ()


def test_a_zero_probability_is_finite() -> None:
    answer = read(torch.tensor([[1.0, 0.0]], requires_grad=True))
    assert answer.top(0, 2)[1].probability == pytest.approx(0, abs=1e-30)
    assert torch.isfinite(answer.scores([answer.resolve(0, "1")])).all()


@pytest.mark.parametrize("after", [lambda x: x, lambda x: x.squeeze(1), lambda x: x.clone()[:, 0].unsqueeze(1)])
def test_a_single_logit_after_a_sigmoid_is_the_logit(after: Callable[[Tensor], Tensor]) -> None:
    logits = torch.tensor([[2.0], [-3.0]], dtype=torch.float64)
    answer = read(after(logits.requires_grad_().sigmoid()))
    assert "sigmoid" in answer.notes[0]
    targets = [answer.resolve(0, "1"), answer.resolve(1, "0")]
    assert answer.scores(targets).tolist() == pytest.approx([2.0, 3.0])
    assert answer.probabilities(targets).tolist() == pytest.approx([1 / (1 + exp(-2)), 1 / (1 + exp(-3))])
    gradient = checked_gradient(lambda x: answer.again(after(x.sigmoid())).scores(targets), logits.detach())
    assert gradient.flatten().tolist() == pytest.approx([1, -1])


def test_independent_classes_have_their_own_probabilities() -> None:
    expected = [1 / (1 + exp(-value)) for value in (1, 3, 2)]
    for answer in (read(ROWS, independent=True), read(ROWS.clone().requires_grad_().sigmoid())):
        assert [each.probability for each in sorted(answer.top(0, 3), key=lambda each: each.index)] == pytest.approx(expected, rel=1e-6)
        assert answer.scores([answer.resolve(n, "1") for n in (0, 1)]).tolist() == pytest.approx([3, -1], rel=1e-5)


@pytest.mark.parametrize("shape", [(2,), (2, 1), (2, 1, 1, 1)])
def test_a_single_logit_is_positive_or_negative(shape: tuple[int, ...]) -> None:
    output = torch.tensor([1.5, -2.0]).reshape(shape)
    answer = read(output)
    assert (answer.kind, answer.classes, answer.samples) == ("single logit", 2, 2)
    first, second = answer.top(0, 1)[0], answer.top(1, 1)[0]
    assert (first.index, first.name, first.score) == (1, "positive", 1.5)
    assert (second.index, second.name, second.score) == (0, "negative", 2.0)
    assert [first.probability, second.probability] == pytest.approx([1 / (1 + exp(-1.5)), 1 / (1 + exp(-2))], rel=1e-6)
    targets = [answer.resolve(0, "negative"), answer.resolve(1, "1")]
    assert answer.scores(targets).tolist() == [-1.5, -2.0]
    assert checked_gradient(lambda x: read(x).scores(targets), output).flatten().tolist() == [-1, 1]
    answer.names = ClassNames(("benign", "malignant"), "")
    assert asked(answer, "malignant") == [(1, "malignant")] and answer.top(0, 1)[0].name == "malignant"


def test_one_sample_may_come_without_its_dimension() -> None:
    assert read(torch.tensor([1.0, 3.0, 2.0]), samples=1).top(0, 1)[0].index == 1
    assert read(torch.tensor(-2.0), samples=1).top(0, 1)[0].name == "negative"
    answer = read(torch.tensor([1.0, 3.0, 2.0]), samples=1)
    assert answer.again(ROWS).samples == 2


def test_half_precision_is_widened() -> None:
    for dtype in (torch.float16, torch.bfloat16):
        answer = read(ROWS.to(dtype))
        assert answer.scores([answer.resolve(n, "1") for n in (0, 1)]).dtype == torch.float32
    assert read(ROWS.double()).scores([Target(read(ROWS).top(0, 1)[0], "")] * 2).dtype == torch.float64


def test_numbers_that_are_not_finite_are_counted_and_come_last() -> None:
    answer = read(torch.tensor([[1.0, float("nan"), 2.0], [float("inf"), float("-inf"), 0.0], [1.0, 2.0, 3.0]]))
    assert [answer.nonfinite(sample) for sample in range(3)] == [1, 2, 0]
    assert [each.index for each in answer.top(0, 3)] == [2, 0, 1]
    assert read(torch.tensor([float("nan"), 1.0])).nonfinite(0) == 1


# --- Which part of the output


@dataclass
class Output:
    """As of transformers."""

    loss: Tensor
    logits: Tensor
    hidden: tuple[Tensor, ...]


Two = namedtuple("Two", "logits aux_logits")
OTHER, MAP = torch.zeros(2, 7), torch.zeros(2, 4, 8, 8)


@pytest.mark.parametrize(
    ("output", "key", "leaf"),
    [
        (ROWS, None, ""),
        ((ROWS,), None, "0"),
        ([ROWS, MAP], None, "0"),  # of these only one is of rank 2
        ((MAP, ROWS), None, "1"),
        ({"aux": OTHER, "logits": ROWS}, None, "logits"),
        (OrderedDict(out=ROWS, aux=OTHER), None, "out"),
        (Output(torch.tensor(0.5), ROWS, (OTHER, MAP)), None, "logits"),
        (Two(ROWS, ROWS + 1), None, "logits"),
        ((ROWS, ROWS + 1), None, "0"),  # alike: auxiliary classifiers
        (({"scores": ROWS}, OTHER), None, "0.scores"),
        ((OTHER, ROWS), "1", "1"),
        ({"head": {"classes": ROWS, "features": OTHER}}, "classes", "head.classes"),
        ((ROWS, torch.zeros(5, 7)), None, "0"),  # the other is of five samples
        ((ROWS, torch.zeros(2, dtype=torch.int64)), None, "0"),
    ],
)
def test_the_answer_is_found(output: Any, key: str | None, leaf: str) -> None:
    answer = read(output, key=key, samples=2)
    assert isinstance(answer, ClassScores) and answer.leaf == leaf
    assert answer.values.tolist() == ROWS.tolist()
    assert str(answer) == (f"class scores in {leaf!r}" if leaf else "class scores")


@pytest.mark.parametrize(
    ("output", "options", "message", "hint"),
    [
        ((ROWS, OTHER), {}, "any may hold its answer: 0 (2, 3), 1 (2, 7)", "--output 0"),
        ({"a": MAP, "b": torch.zeros(2, 4, 2, 2)}, {}, "a (2, 4, 8, 8), b (2, 4, 2, 2)", "--output a"),
        ({"a": ROWS, "b": OTHER}, {"key": "c"}, "there is no output 'c': the model returns a (2, 3), b (2, 7)", "choose one"),
        ({"logits": ROWS, "b": OTHER}, {"key": "logit"}, "there is no output 'logit'", "--output logits"),
        (ROWS, {"key": "logits"}, "the model returns float32 (2, 3)", "leave --output out"),
        (torch.zeros(2, dtype=torch.int64), {}, "no floating numbers, but int64 (2,)", "argmax"),
        (None, {}, "no floating numbers, but an object of type NoneType", "scores"),
        ({"a": ROWS, "b": torch.zeros(2, dtype=torch.int64)}, {"key": "b"}, "torch.int64, which has no gradient", "floating"),
        (torch.zeros(2, 5, 7), {}, "(2, 5, 7), which is a row of numbers for each part of a sequence", "--output"),
        ({"pooler_output": OTHER}, {}, "'pooler_output' is an embedding, and scores no classes", "--against"),
        (MAP, {"reference": torch.ones(1, 4)}, "which is not one vector for each picture", "--output"),
        (OTHER, {"reference": torch.ones(1, 4)}, "a vector of 4 numbers, and the model returns 7", "--against"),
    ],
)
def test_what_cannot_be_read_is_told(output: Any, options: dict[str, Any], message: str, hint: str) -> None:
    with pytest.raises(NetlensError) as error:
        read(output, **options)
    assert message in error.value.message and hint in error.value.hint


def test_other_outputs_are_read_in_the_same_way() -> None:
    answer = read({"aux": OTHER, "logits": ROWS})
    targets = [answer.resolve(0, "2")] * 5
    again = answer.again({"logits": torch.arange(15.0).reshape(5, 3), "aux": OTHER})
    assert again.scores(targets).tolist() == [2, 5, 8, 11, 14]
    assert again.top(4, 1)[0].score == 14 and answer.top(0, 1)[0].score == 3  # the first one is left alone


# --- Class maps

PLACES = torch.tensor(  # (1, 3, 2, 3): class 0 wins at 3 places, class 1 at 1, class 2 at 2
    [[[[5.0, 5.0, 5.0], [0.0, 0.0, 0.0]], [[1.0, 1.0, 1.0], [4.0, 1.0, 1.0]], [[2.0, 2.0, 2.0], [2.0, 3.0, 6.0]]]]
)


def test_a_class_of_a_map_is_scored_where_it_wins() -> None:
    answer = read(PLACES)
    assert (answer.kind, answer.classes, answer.samples) == ("class map", 3, 1)
    (note,) = answer.notes
    assert "in the order of the areas where they win" in note and "mean probability" in note and "sum of its scores" in note
    assert asked(answer, "top9") == [(2, "largest region besides class 0"), (1, "region 2 by size"), (0, "region 3 by size")]
    assert asked(answer) == [(2, "largest region besides class 0")]
    target = answer.resolve(0, "2")
    assert target.found.score == 9  # 3 + 6
    assert target.found.probability == pytest.approx((softmax([0, 1, 3])[2] + softmax([0, 1, 6])[2]) / 2, rel=1e-6)
    gradient = checked_gradient(lambda maps: read(maps).scores([target]), PLACES)
    expected = torch.zeros(1, 3, 2, 3)
    expected[0, 2, 1, 1:] = 1
    assert gradient.tolist() == expected.tolist()


def test_the_region_stays_where_the_picture_changes() -> None:
    answer = read(PLACES)
    target = answer.resolve(0, "2")
    again = answer.again(torch.cat([PLACES, torch.zeros_like(PLACES), PLACES + 1]))
    assert again.scores([target] * 3).tolist() == [9, 0, 11]
    assert again.probabilities([target] * 3)[1].item() == pytest.approx(1 / 3)


def test_the_background_has_a_name_or_is_class_0() -> None:
    answer = read(PLACES)
    answer.names = ClassNames(("road", "car", "sky"), "")
    assert asked(answer) == [(0, "largest region")]
    answer.names = ClassNames(("road", "car", "Background"), "")
    assert asked(answer) == [(0, "largest region besides Background")]
    assert asked(read(PLACES - 1.5, independent=True)) == [(2, "largest region")]  # 6 places > 0, and 3 of class 0
    crack = read(torch.tensor([[[[2.0, -3.0, -1.0]]]]))
    crack.names = ClassNames(("wall", "crack"), "")
    assert asked(crack) == [(1, "largest region besides wall")]
    everywhere = read(torch.tensor([1.0, 0.0])[None, :, None, None].expand(1, 2, 4, 4))
    assert asked(everywhere) == [(0, "largest region")]  # nothing else is there


def test_a_class_that_wins_nowhere_is_scored_over_the_whole_picture() -> None:
    answer = read(torch.tensor([[[[3.0, 4.0]], [[1.0, 2.0]]]]))
    target = answer.resolve(0, "1")
    assert (target.found.score, target.asked, target.nowhere) == (3, "1", True) and target.region.all()  # type: ignore[union-attr]
    assert not answer.resolve(0, "0").nowhere


def test_a_point_is_called_what_the_user_calls_it() -> None:
    answer = read(PLACES, size=(20, 30))
    assert asked(answer, point=Point(29, 10, "500,200")) == [(2, "point 500,200")]
    with pytest.raises(UsageError, match="the point 500,200 is outside"):
        answer.targets(0, [], point=Point(30, 10, "500,200"))


def test_a_point_of_the_input_is_a_place_of_the_map() -> None:
    answer = read(PLACES, size=(20, 30))  # each place is 10 x 10 pixels
    assert asked(answer, point=Point(29, 10)) == [(2, "point 29,10")]
    assert asked(answer, "top2", point=Point(9, 19)) == [(1, "point 9,19"), (2, "point 9,19")]
    (target,) = answer.targets(0, ["1"], point=Point(10, 9))
    assert (target.found.score, target.asked) == (1, "1, point 10,9")
    assert checked_gradient(lambda maps: read(maps).scores([target]), PLACES)[0].nonzero().tolist() == [[1, 0, 1]]
    with pytest.raises(UsageError) as error:
        answer.targets(0, [], point=Point(30, 0))
    assert "30 columns and 20 rows" in error.value.hint


@pytest.mark.parametrize("squeezed", [False, True])
def test_a_map_of_one_channel_is_foreground_and_background(squeezed: bool) -> None:
    output = torch.tensor([[[[2.0, 3.0], [-1.0, -4.0]]]])
    answer = read(output[:, 0] if squeezed else output, size=(2, 2))
    assert (answer.kind, answer.classes) == ("class map", 2)
    (best,) = answer.targets(0)
    assert (best.found.index, best.found.name, best.found.score) == (1, "positive", 5)
    assert best.found.probability == pytest.approx((1 / (1 + exp(-2)) + 1 / (1 + exp(-3))) / 2, rel=1e-6)
    assert answer.resolve(0, "negative").found.score == 5  # 1 + 4
    assert answer.nonfinite(0) == 0 and read(torch.full((1, 1, 2, 2), float("nan"))).nonfinite(0) == 4


def test_a_map_of_probabilities_is_undone() -> None:
    answer = read(PLACES.softmax(1))
    target = answer.resolve(0, "2")
    expected = log(softmax([0, 1, 3])[2]) + log(softmax([0, 1, 6])[2])
    assert "softmax" in answer.notes[0] and target.found.score == pytest.approx(expected, rel=1e-5)


def test_films_have_class_maps_too() -> None:
    answer = read(torch.arange(2 * 3 * 2 * 4 * 5.0).reshape(2, 3, 2, 4, 5))
    assert isinstance(answer, ClassMap) and answer.resolve(1, "2").region.shape == (2, 4, 5)  # type: ignore[union-attr]
    with pytest.raises(UsageError, match="3 dimensions"):
        answer.targets(0, [], point=Point(0, 0))


def test_torchvisions_segmentation_models_are_read() -> None:
    from torchvision.models.segmentation import lraspp_mobilenet_v3_large

    torch.manual_seed(0)
    model = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=5).eval()
    output = model(torch.randn(2, 3, 40, 56))
    answer = read(output, samples=2, size=(40, 56))
    maps = output["out"].detach().double().numpy()
    for sample in range(2):
        (target,) = answer.targets(sample)
        areas = np.bincount(maps[sample].argmax(0).ravel(), minlength=5)
        areas[0] = areas[0] if areas[1:].sum() == 0 else 0
        index = int(areas.argmax())
        region = maps[sample].argmax(0) == index
        assert target.found.index == index
        assert target.found.score == pytest.approx(maps[sample, index][region].sum(), rel=1e-4)


# --- Detections


def detected(*scores: float) -> list[dict[str, Tensor]]:
    boxes = torch.tensor([[0.0, 0, 10, 10], [20, 20, 40, 40], [22, 20, 42, 40]])[: len(scores)]
    return [{"boxes": boxes, "labels": torch.tensor([1, 2, 2])[: len(scores)], "scores": torch.tensor(scores)}]


def test_detections_are_ranked_by_confidence() -> None:
    answer = read(detected(0.3, 0.9, 0.6))
    answer.names = ClassNames(("background", "cat", "dog"), "")
    assert (answer.kind, answer.samples, answer.classes) == ("detections", 1, None)
    assert [(each.index, each.name) for each in answer.top(0, 5)] == [(2, "dog"), (2, "dog"), (1, "cat")]
    assert [each.score for each in answer.top(0, 5)] == pytest.approx([0.9, 0.6, 0.3])
    targets = answer.targets(0, ["top2", "cat", "#3", "dog"])
    assert [(each.found.index, each.asked, each.place) for each in targets] == [
        (2, "best detection", 0),
        (2, "detection #2", 1),
        (1, "cat", 2),
    ]
    assert [answer.scores([each]).item() for each in targets] == pytest.approx([0.9, 0.6, 0.3])
    assert targets[1].box.tolist() == [22, 20, 42, 40]  # type: ignore[union-attr]
    assert asked(answer, point=Point(40, 30)) == [(2, "detection #2 around the point 40,30")]


def test_a_detection_says_where_it_is_and_a_number_that_is_no_class_has_no_name() -> None:
    answer = read(detected(0.3, 0.9, 0.6))
    answer.names = ClassNames(("__background__", "cat", "N/A"), "")
    assert [(each.name, each.box) for each in answer.top(0, 2)] == [(None, (20, 20, 40, 40)), (None, (22, 20, 42, 40))]
    assert answer.resolve(0, "cat").found.box == (0, 0, 10, 10)


@pytest.mark.parametrize(
    ("name", "argument"),
    [
        ("fasterrcnn_mobilenet_v3_large_320_fpn", "box_score_thresh"),
        ("ssdlite320_mobilenet_v3_large", "score_thresh"),
        ("resnet18", None),
    ],
)
def test_the_hint_names_the_threshold_that_the_model_has(name: str, argument: str | None) -> None:
    """Torchvision itself is asked: the argument builds the model, and with 1.0 it detects nothing."""
    import torchvision

    build = torchvision.models.get_model_builder(name)
    if argument is None:
        assert lowering(build()) == "take another picture"
        return
    model = build(weights=None, weights_backbone=None, **{argument: 1.0}).eval()
    hint = lowering(model)
    assert hint == f"take another picture, or a lower threshold: --model-arg {argument}=0.01"
    output = model([torch.rand(3, 64, 64)])
    assert len(output[0]["scores"]) == 0
    with pytest.raises(NothingDetected) as error:
        read(output, lower=hint).targets(0)
    assert error.value.hint == hint


def test_what_is_not_detected_is_told() -> None:
    answer = read(detected(0.3))
    answer.names = ClassNames(("background", "cat", "dog"), "")
    with pytest.raises(NothingDetected) as error:
        answer.targets(0, ["dog"])
    assert (error.value.message, error.value.hint) == ("the model detects no dog", "it detects cat")
    with pytest.raises(NothingDetected, match="no detection #2: the model finds 1"):
        answer.targets(0, ["#2"])
    with pytest.raises(NothingDetected, match="detects nothing around the point 11,3"):
        answer.targets(0, [], point=Point(11, 3))
    empty = read(detected())
    with pytest.raises(NothingDetected) as error:
        empty.targets(0)
    assert error.value.hint == "take another picture" and empty.top(0, 5) == ()
    with pytest.raises(UsageError, match="no class is called 'mouse'"):
        answer.targets(0, ["mouse"])


def test_the_score_of_a_box_is_its_confidence_in_the_graph() -> None:
    """By hand: dog at (20, 20, 40, 40) and (22, 20, 42, 40) share 18 x 20 of 440 pixels."""
    target = read(detected(0.3, 0.9, 0.6)).targets(0, ["#1"])[0]

    def scores(values: Tensor) -> Tensor:
        return read([{**detected(0, 0, 0)[0], "scores": values}]).scores([target])

    assert checked_gradient(scores, torch.tensor([0.3, 0.9, 0.6])).tolist() == [0, 1, 0]
    moved = {
        "boxes": torch.tensor([[22.0, 20, 42, 40], [20, 20, 40, 40]]),
        "labels": torch.tensor([2, 1]),
        "scores": torch.tensor([0.5, 1.0]),
    }
    assert read([moved]).scores([target]).item() == pytest.approx(0.5 * 360 / 440)
    gone = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64), "scores": torch.zeros(0, requires_grad=True)}
    score = read([gone]).scores([target])
    assert score.tolist() == [0] and score.requires_grad


def test_queries_of_a_transformer_are_detections() -> None:
    """Two queries; the last class is of no object, unless the configuration says that all of them are classes."""
    logits = torch.tensor([[[0.0, 2.0, 1.0], [3.0, 0.0, 0.0]]], dtype=torch.float64)
    boxes = torch.tensor([[[0.5, 0.5, 0.2, 0.4], [0.25, 0.5, 0.5, 1.0]]], dtype=torch.float64)
    answer = read({"logits": logits, "pred_boxes": boxes, "last_hidden_state": torch.zeros(1, 2, 8)}, size=(100, 200))
    assert isinstance(answer, Detections) and answer.classes == 2
    best, second = answer.targets(0, ["top2"])
    assert (best.found.index, second.found.index) == (0, 1)
    assert [best.found.score, second.found.score] == pytest.approx([softmax([3, 0, 0])[0], softmax([0, 2, 1])[1]])
    assert best.box.tolist() == [0, 0, 100, 100] and second.box.tolist() == pytest.approx([80, 30, 120, 70])  # type: ignore[union-attr]
    gradient = checked_gradient(lambda x: read({"pred_logits": x, "pred_boxes": boxes}, size=(100, 200)).scores([best]), logits)
    p = softmax([3, 0, 0])
    assert gradient[0, 1].tolist() == pytest.approx([p[0] * (1 - p[0]), -p[0] * p[1], -p[0] * p[2]])
    independent = read({"logits": logits, "pred_boxes": boxes}, labels=3)
    assert independent.classes == 3 and independent.top(0, 1)[0].score == pytest.approx(1 / (1 + exp(-3)))


def test_torchvisions_detectors_are_read() -> None:
    from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn

    torch.manual_seed(0)
    model = fasterrcnn_mobilenet_v3_large_320_fpn(
        weights=None, weights_backbone=None, num_classes=3, min_size=64, max_size=64, box_score_thresh=0.0, box_detections_per_img=5
    ).eval()
    output = model([torch.rand(3, 64, 64), torch.rand(3, 48, 64)])
    answer = read(output, samples=2)
    assert isinstance(answer, Detections) and answer.samples == 2
    targets = [answer.targets(sample)[0] for sample in range(2)]
    scores = answer.scores(targets)
    assert scores.tolist() == [found["scores"].max().item() for found in output]
    (gradient,) = torch.autograd.grad(scores.sum(), model.roi_heads.box_predictor.cls_score.weight)
    assert gradient.isfinite().all() and gradient.any()


# --- Embeddings


def test_the_likeness_to_a_reference_is_a_cosine() -> None:
    torch.manual_seed(0)
    vectors, reference = torch.randn(3, 4), torch.randn(1, 4)
    answer = read({"last_hidden_state": torch.zeros(3, 5, 4), "pooler_output": vectors}, reference=reference)
    assert isinstance(answer, Embedding) and str(answer) == "embedding in 'pooler_output'" and answer.samples == 3
    a, b = vectors.double().numpy(), reference.double().numpy()[0]
    expected = a @ b / (np.linalg.norm(a, axis=1) * np.linalg.norm(b))
    targets = [answer.targets(sample)[0] for sample in range(3)]
    assert answer.scores(targets).tolist() == pytest.approx(expected.tolist(), rel=1e-5)
    assert [target.found.score for target in targets] == pytest.approx(expected.tolist(), rel=1e-5)
    assert targets[0].found.probability is None and targets[0].asked == "likeness to the reference" and answer.notes == ()
    gradient = checked_gradient(lambda x: read(x, reference=reference.double()).scores(targets), vectors)
    norms = np.linalg.norm(a, axis=1)[:, None]
    np.testing.assert_allclose(gradient, b / (norms * np.linalg.norm(b)) - expected[:, None] * a / norms**2, atol=1e-12)
    with pytest.raises(UsageError, match="--against explains likeness"):
        answer.targets(0, ["cat"])


def test_likeness_is_called_by_the_picture_and_outputs_without_a_name_may_be_scores() -> None:
    answer = read(torch.ones(1, 1000), reference=torch.ones(1, 1000), against="pal.png")
    (found,) = answer.top(0, 5)
    assert (found.name, found.probability) == ("likeness to pal.png", None) and found.score == pytest.approx(1)
    assert answer.targets(0)[0].asked == "likeness to pal.png"
    (note,) = answer.notes
    assert "1,000 numbers" in note and "if they are scores of classes" in note


def test_a_reference_is_read_from_an_output() -> None:
    vectors = torch.arange(8.0).reshape(2, 4)
    assert embeddings(vectors[:, :, None, None]).tolist() == vectors.tolist()
    assert embeddings({"logits": torch.zeros(2, 3), "image_embeds": vectors}).tolist() == vectors.tolist()


# --- In a model


def test_the_gradient_of_a_real_network_equals_finite_differences() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4), nn.Softmax(1)).double()
    x = torch.randn(2, 1, 5, 5)
    answer = read(net(x.double()))
    targets = [answer.resolve(0, "3"), answer.resolve(1, "0")]
    gradient = checked_gradient(lambda x: answer.again(net(x)).scores(targets), x)
    assert gradient.abs().max() > 1e-3
