"""Which linear layer makes the scores, told by computing them: in half precision to as many digits as there are."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from netlens.errors import UsageError
from netlens.lenses.gradcam.class_answers import ClassScores
from netlens.lenses.gradcam.heads import head_weights

ACTIVATION = torch.tensor([[[[4.0, 0.0], [2.0, 2.0]], [[1.0, 1.0], [1.0, 1.0]]]])  # (1, 2, 2, 2): means 2 and 1
SCORES = (7.0, -3.0, 1.0)  # 3 x 2 + 1, -1 x 2 - 1, 1


def net() -> nn.Module:
    head = nn.Linear(2, 3, bias=False)
    head.weight.data = torch.tensor([[3.0, 1.0], [-1.0, -1.0], [0.0, 1.0]])
    return nn.Sequential(head)


def found(scores: Tensor, activation: Tensor = ACTIVATION) -> Tensor:
    return head_weights(net(), activation, ClassScores("", scores, 3))


def test_the_weights_are_those_of_the_layer_that_gives_the_scores():
    assert torch.equal(found(torch.tensor([SCORES])), net()[0].weight)


@pytest.mark.parametrize("wide", [True, False], ids=["autocast", "bf16"])
@pytest.mark.parametrize(("share", "is_head"), [(0.02, True), (0.1, False)])
def test_scores_of_bfloat16_may_differ_by_its_digits(wide, share, is_head):
    """bfloat16 has 8 bits: 7 x 1.02 is written as 7.125; most of its numbers are numbers of float16 as well, which has 11."""
    scores = torch.tensor([SCORES]).mul(1 + share).bfloat16()
    assert torch.equal(scores.half().bfloat16(), scores)
    activation = ACTIVATION if wide else ACTIVATION.bfloat16()
    if is_head:
        assert torch.equal(found(scores, activation), net()[0].weight)
    else:
        with pytest.raises(UsageError):
            found(scores, activation)


def test_scores_of_float16_and_float32_are_compared_by_their_own_digits():
    for scores, kind in ((torch.tensor([SCORES]) * 1.02, torch.float16), (torch.tensor([SCORES]) * 1.003, torch.float32)):
        with pytest.raises(UsageError):
            found(scores.to(kind))


def test_another_layer_than_the_last_is_suspected_where_one_is_given():
    with pytest.raises(UsageError) as error:
        found(torch.tensor([SCORES]), torch.ones(1, 5, 4, 4))
    assert "this layer" in error.value.message and error.value.hint.startswith("leave --layer out where it is given; else take --method")
