"""Numbers and labels of batches: against numpy in float64, plain loops, and definitions."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, SubsetRandomSampler

from netlens.loaders.check import original
from netlens.loaders.labels import Labels, in_blocks
from netlens.loaders.samples import read_singly
from netlens.loaders.source import source_of
from netlens.loaders.values import Stats, channel_axis, fields_of
from netlens.loaders.verdicts import is_training
from tests.loader_faults import Samples, sample

Pair = namedtuple("Pair", ["image", "label"])


def names(count: int, start: int = 0) -> list[str]:
    return [f"sample {index}" for index in range(start, start + count)]


def stats_of(*batches: Tensor) -> Stats:
    """Add batches one after the other."""
    stats = Stats.of("0", batches[0])
    start = 0
    for batch in batches:
        stats.add(batch, names(len(batch), start))
        start += len(batch)
    return stats


def test_mean_and_deviation_are_numpys() -> None:
    """Uneven batches, a large offset, 16 x 16: every pixel is looked at."""
    values = torch.randn(37, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 5.0, 0.1])[:, None, None] + 100
    stats = stats_of(*values.split([5, 1, 20, 11]))
    truth = values.double().numpy().transpose(1, 0, 2, 3).reshape(3, -1)
    facts = stats.facts()
    np.testing.assert_allclose(facts.mean, truth.mean(1), rtol=1e-12)
    np.testing.assert_allclose(facts.std, truth.std(1), rtol=1e-10)
    np.testing.assert_allclose(stats.spread, truth.std(), rtol=1e-10)
    assert (facts.low, facts.high) == (truth.min(), truth.max())


@pytest.mark.parametrize(("side", "step"), [(16, 1), (31, 1), (64, 4), (112, 7), (224, 7)])
def test_of_large_pictures_every_nth_pixel_counts(side: int, step: int) -> None:
    values = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    some = values[:, :, ::step, ::step].double().numpy()
    np.testing.assert_allclose(stats_of(values).facts().mean, some.mean((0, 2, 3)), rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float16, torch.bfloat16, torch.float64, torch.bool, torch.uint16])
def test_every_type_has_its_range(dtype: torch.dtype) -> None:
    values = torch.arange(3 * 4 * 4).reshape(1, 3, 4, 4).to(dtype)
    stats = stats_of(values)
    assert (stats.low, stats.high) == (0.0, 1.0 if dtype == torch.bool else 47.0)


def test_layouts_and_films_have_the_same_numbers() -> None:
    values = torch.randn(4, 3, 16, 20)
    truth = stats_of(values).facts()
    last = stats_of(values.permute(0, 2, 3, 1)).facts()
    film = stats_of(values[:, :, None].expand(4, 3, 2, 16, 20)).facts()
    for facts in (last, film):
        np.testing.assert_allclose(facts.mean, truth.mean, rtol=1e-12)
        np.testing.assert_allclose(facts.std, truth.std, rtol=1e-12)


def test_nan_and_infinity_are_counted_where_they_are_and_kept_out_of_the_rest() -> None:
    values = torch.rand(6, 3, 8, 8)
    clean = stats_of(values[[0, 1, 3, 5]]).facts()
    values[2, 0, :2, 0] = float("nan")
    values[4, 1, 0, 0], values[4, 2, 7, 7] = float("inf"), float("nan")
    stats = stats_of(values[:3], values[3:])
    assert stats.nonfinite == [("sample 2", "2 NaN"), ("sample 4", "1 NaN and 1 infinite")]
    facts = stats.facts()
    assert (facts.low, facts.high) == (clean.low, clean.high)
    np.testing.assert_allclose(facts.mean, clean.mean, rtol=1e-12)


def test_a_batch_without_a_finite_sample_has_no_range() -> None:
    facts = stats_of(torch.full((2, 5), float("nan"))).facts()
    assert (facts.low, facts.high) == (None, None)


def test_digests_know_a_picture_again_in_any_batch() -> None:
    values = torch.rand(12, 3, 224, 224)
    first = dict(stats_of(values).keys)
    second = dict(stats_of(values.flip(0)[:5], values.flip(0)[5:]).keys)
    assert [first[f"sample {index}"] for index in range(12)] == [second[f"sample {11 - index}"] for index in range(12)]
    assert len(set(first.values())) == 12


def test_small_pictures_that_differ_in_one_pixel_differ() -> None:
    values = torch.zeros(28 * 28 + 1, 1, 28, 28)
    for place in range(28 * 28):
        values[place, 0, place // 28, place % 28] = 0.5
    stats = stats_of(values)
    assert len({key for _, key in stats.keys}) == 28 * 28
    assert stats.constant == [("sample 784", "0 everywhere")]


@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((2, 3, 32, 32), 1),
        ((2, 1, 8, 8), 1),
        ((2, 4, 8, 8), 1),
        ((2, 32, 32, 3), 3),
        ((2, 13, 32, 32), None),  # of many bands
        ((2, 12, 17, 3), None),  # joints of a skeleton
        ((2, 32, 3), None),  # points
        ((2, 3, 8, 32, 32), 1),
        ((2, 8, 3, 32, 32), 2),
        ((2, 3), None),
    ],
)
def test_where_the_channels_are(shape: tuple[int, ...], axis: int | None) -> None:
    assert channel_axis(torch.zeros(shape)) == axis


def test_parts_of_batches_by_name() -> None:
    picture, label = torch.zeros(4, 3, 8, 8), torch.zeros(4)
    boxes = [{"boxes": torch.zeros(count, 4), "labels": torch.zeros(count)} for count in (1, 2)]
    shapes = lambda batch: {name: [tuple(tensor.shape) for tensor in tensors] for name, tensors in fields_of(batch).items()}  # noqa: E731
    assert shapes(picture) == {"0": [(4, 3, 8, 8)]}
    assert shapes((picture, label)) == {"0": [(4, 3, 8, 8)], "1": [(4,)]}
    assert shapes(Pair(picture, label)) == {"image": [(4, 3, 8, 8)], "label": [(4,)]}
    assert shapes({"x": {"a": picture}, "n": 3}) == {"x.a": [(4, 3, 8, 8)]}
    assert shapes([[picture, picture], label]) == {"0.0": [(4, 3, 8, 8)], "0.1": [(4, 3, 8, 8)], "1": [(4,)]}
    assert shapes((np.zeros((4, 2)), None, "text")) == {"0": [(4, 2)]}
    of_several_sizes = [torch.zeros(3, 8, 9), torch.zeros(3, 9, 8)]
    assert shapes((of_several_sizes, boxes)) == {
        "0": [(1, 3, 8, 9), (1, 3, 9, 8)],
        "1.boxes": [(1, 1, 4), (1, 2, 4)],
        "1.labels": [(1, 1), (1, 2)],
    }


def labels_of(label: Any, classes: int | None = None, said: bool = True) -> Labels:
    labels = Labels(classes, said)
    labels.add(label, names(len(label)))
    return labels


def test_indices_outside_are_those_of_a_plain_loop() -> None:
    label = torch.randint(-3, 8, (200,), generator=torch.Generator().manual_seed(0))
    label[label == -3] = -100
    wrong = [f"sample {row}" for row, value in enumerate(label.tolist()) if value != -100 and not 0 <= value < 5]
    assert [place for place, _ in labels_of(label, 5).wrong_indices] == wrong


def test_masks_are_judged_by_what_the_user_says_alone() -> None:
    masks = torch.zeros(3, 4, 4, dtype=torch.long)
    masks[1, 0, :3] = torch.tensor([255, 9, 12])
    assert labels_of(masks, 9).wrong_indices == [("sample 1", "label 9, 12")]
    assert labels_of(masks, 9, said=False).wrong_indices == []


def test_without_known_classes_negative_numbers_may_be_what_is_predicted() -> None:
    assert labels_of(torch.tensor([3, -1, 2])).wrong_indices == [("sample 1", "label -1")]
    assert labels_of(torch.tensor([3, -1, -7])).wrong_indices == []


@pytest.mark.parametrize(
    ("label", "classes", "kind"),
    [
        (torch.tensor([0, 1, 2]), 3, ""),
        (torch.tensor([0, 1, 2]).byte(), 3, ""),  # torch takes uint8
        (torch.tensor([0, 1, 2]).int(), 3, "int32"),
        (torch.tensor([0.0, 1.0, 2.0]), 3, "float32"),
        (torch.tensor([0.0, 1.0, 2.5]), 3, ""),
        (torch.tensor([0.0, 1.0, 1.0]), 2, ""),  # as BCEWithLogitsLoss takes them
        (torch.tensor([0.0, 1.0, 2.0]), None, ""),  # numbers to predict
        (torch.tensor([True, False]), None, "bool"),
        (torch.zeros(2, 4, 4, dtype=torch.bool), None, ""),  # masks
        (torch.zeros(2, 5, dtype=torch.bool), None, ""),  # several labels a sample
        (torch.zeros(2, 4, 4, dtype=torch.int32), None, "int32"),
        ([0, 1, 2], None, "a list of numbers"),
        (["cat", "dog"] * 8, None, "texts"),
        ([f"a cat, {place}" for place in range(16)], None, ""),  # captions
    ],
)
def test_types_that_cross_entropy_takes(label: Any, classes: int | None, kind: str) -> None:
    assert labels_of(label, classes).wrong_type(None) == kind


def test_a_type_that_is_refused_is_one_that_torch_refuses() -> None:
    """The reason for `label-type`, told by torch itself."""
    scores = torch.randn(3, 4)
    for dtype in (torch.int8, torch.int16, torch.int32, torch.bool, torch.float32):
        with pytest.raises(RuntimeError):
            torch.nn.functional.cross_entropy(scores, torch.tensor([0, 1, 1]).to(dtype))
    for dtype in (torch.int64, torch.uint8):
        torch.nn.functional.cross_entropy(scores, torch.tensor([0, 1, 1]).to(dtype))


def test_one_hot_rows_and_several_labels() -> None:
    rows = torch.eye(4)[torch.arange(40) % 4]
    rows[[5, 9]] = 0
    assert [place for place, _ in labels_of(rows).zero_rows] == ["sample 5", "sample 9"]
    rows[0, :2] = 1  # two labels: then none is as good as one
    assert labels_of(rows).zero_rows == []
    sparse = torch.zeros(40, 4)
    sparse[::3, 0] = 1  # mostly none: several labels a sample that are rare
    assert labels_of(sparse).zero_rows == []


def test_ignored_labels() -> None:
    assert (labels_of(torch.full((4,), -100)).kept, labels_of(torch.full((4,), -100)).ignored) == (0, 4)
    masks = torch.full((2, 3, 3), 255)
    assert labels_of(masks).kept == 0
    masks[0, 0, 0] = 2
    assert (labels_of(masks).kept, labels_of(masks).ignored) == (1, 17)


@pytest.mark.parametrize(
    ("labels", "blocks"),
    [
        ([0] * 8 + [1] * 8, True),
        ([1] * 8 + [0] * 8, True),
        ([0] * 8 + [1] * 8 + [0], False),
        ([0] * 16, False),  # one class: another finding
        ([0] * 4 + [1] * 4, False),  # too few to say
        (list(range(40)), False),  # every sample its own label
    ],
)
def test_blocks(labels: list[int], blocks: bool) -> None:
    assert in_blocks(labels) is blocks


@pytest.mark.parametrize(
    ("name", "training"),
    [("train", True), ("my.data:loader", True), ("value_range", True), ("data.py:val", False), ("testSet", False), ("Val2", False)],
)
def test_names_of_loaders_for_training(name: str, training: bool) -> None:
    assert is_training(name) is training


def test_what_a_worker_raised_without_torchs_words() -> None:
    def raises(index: int) -> Any:
        raise ValueError("cannot read\npicture 7")

    with pytest.raises(ValueError, match="Original Traceback") as caught:
        list(DataLoader(Samples(raises), num_workers=1))
    assert original(caught.value) == "ValueError: cannot read picture 7"


def test_samples_are_read_evenly_with_the_first_and_the_last() -> None:
    source = source_of(DataLoader(Samples(sample, 101)), "it")
    assert source.spread(5) == [0, 25, 50, 75, 100]
    assert source.spread(200) == list(range(101))
    assert source.spread(1) == [0]


def test_only_samples_that_the_sampler_may_give_are_read() -> None:
    chosen = SubsetRandomSampler([3, 9, 27])
    assert source_of(DataLoader(Samples(sample), sampler=chosen), "it").spread(10) == [3, 9, 27]


def test_parts_that_some_samples_do_not_have() -> None:
    kinds: list[Any] = [{"a": 1, "b": 2}, {"a": 1}, {"a": 1, "b": 2, "c": 3}]
    differing = read_singly(source_of(DataLoader(kinds), "it"), 10, lambda: None).differing  # type: ignore[arg-type]
    assert differing == {"b": {"a number": [0, 2], "missing": [1]}, "c": {"a number": [2], "missing": [0, 1]}}
