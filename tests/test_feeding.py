"""Batches: none too large, none lost, and lists and single tensors counted rightly."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from netlens.errors import InputError
from netlens.loading.feeding import Samples, first, of_inputs, of_nothing
from netlens.loading.inputs import parse_input_spec
from netlens.loading.named import NamedModel
from netlens.probing.counting import samples_in


def saved(folder: Path, *tensors: torch.Tensor) -> list[Path]:
    paths = [folder / f"{index}.pt" for index in range(len(tensors))]
    for path, tensor in zip(paths, tensors, strict=True):
        torch.save(tensor, path)
    return paths


def sizes(samples: Samples) -> list[list[int]]:
    return [[len(value) for value in batch.args] for batch in samples.batches()]


def test_a_saved_tensor_is_cut_into_batches_that_make_it_up(tmp_path):
    x = torch.randn(10, 3)
    samples = of_inputs(saved(tmp_path, x), nn.Linear(3, 2), 4)
    assert samples.count == 10 and not samples.random
    assert torch.equal(torch.cat([batch.args[0] for batch in samples.batches()]), x) and sizes(samples) == [[4], [4], [2]]
    assert sizes(samples) == [[4], [4], [2]]  # from the start, each time


def test_several_inputs_are_cut_together_or_not_at_all(tmp_path):
    model = nn.Bilinear(2, 3, 1)
    assert sizes(of_inputs(saved(tmp_path, torch.randn(5, 2), torch.randn(5, 3)), model, 4)) == [[4, 4], [1, 1]]
    assert sizes(of_inputs(saved(tmp_path, torch.randn(5, 2), torch.randn(1, 3)), model, 4)) == [[5, 1]]


def test_a_list_of_pictures_is_never_cut_into_channels():
    class Detector(nn.Module):
        def forward(self, pictures):
            return pictures

    samples = of_inputs([parse_input_spec("[3,8,8;3,8,8]")], Detector(), 2)
    (batch,) = samples.batches()
    assert samples.count == 2 == batch.size and [tuple(picture.shape) for picture in batch.args[0]] == [(3, 8, 8)] * 2


@pytest.mark.parametrize(
    ("args", "kwargs", "count"),
    [
        ((torch.zeros(4, 2),), {}, 4),
        (([torch.zeros(3, 2), torch.zeros(3, 5)],), {}, 2),
        ((), {"ids": torch.zeros(5)}, 5),
        ((None, torch.zeros(6, 1)), {}, 6),
        ((torch.tensor(1.0),), {}, 1),
        ((), {}, 1),
    ],
)
def test_samples_are_counted(args, kwargs, count):
    assert samples_in((args, kwargs)) == count


def test_no_sample_is_an_error(tmp_path):
    with pytest.raises(InputError, match="holds no samples"):
        of_inputs(saved(tmp_path, torch.empty(0, 3)), nn.Linear(3, 2), 4)
    with pytest.raises(InputError, match="holds no samples"):
        first(Samples("nothing", lambda: iter(()), 0))


def test_nothing_said_is_eight_samples_of_noise_always_the_same():
    model = nn.Conv2d(3, 2, 3)
    named = NamedModel("conv", "python", "", "conv", lambda: model, is_instance=True)
    batches = [first(of_nothing(named, model, 8)) for _ in range(2)]
    assert batches[0].size == 8 and torch.equal(batches[0].args[0], batches[1].args[0])
