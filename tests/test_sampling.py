"""What the network sees, turned back into pictures, and how samples and runs are asked for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from netlens.cli.options import HalfPrecision, Precision
from netlens.errors import UsageError
from netlens.loading.asked_run import AskedRun, AskedSamples
from netlens.loading.feeding import Batch
from netlens.loading.preprocessing import Framing, Preprocessing
from netlens.loading.sampling import seen


def batch(tensor: Tensor) -> Batch:
    return Batch((tensor,), {})


@pytest.mark.parametrize(("mean", "std"), [((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), ((0.5, 0.1, 0.9), (1.0, 2.0, 0.01))])
def test_a_prepared_picture_comes_back_as_it_was(mean, std):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 4, 6, 3), np.uint8)
    prepared = (pixels.astype(np.float64) / 255 - mean) / std  # the definition, in double precision
    values = torch.tensor(prepared.transpose(0, 3, 1, 2), dtype=torch.float32)
    pictures = seen(batch(values), Preprocessing(Framing(), mean, std, "test"), 4)
    assert len(pictures) == 4 and all((picture == wanted).all() for picture, wanted in zip(pictures, pixels, strict=False))
    assert all(picture.dtype == np.uint8 and picture.shape == (4, 6, 3) for picture in pictures)


def test_without_preprocessing_the_least_value_is_black_and_the_greatest_white():
    values = torch.tensor([[-3.0, 1.0], [0.0, -1.0]])[None, None]
    (picture,) = seen(batch(values), None, 4)
    assert picture[..., 0].tolist() == [[0, 255], [191, 128]]  # (v + 3) / 4 of 255: 191.25 and 127.5, which rounds to even
    assert (picture == picture[..., :1]).all()  # grey


def test_what_is_not_finite_is_black_or_white_and_does_not_set_the_scale():
    values = torch.tensor([[torch.nan, torch.inf], [-torch.inf, 2.0], [0.0, 1.0]])[None, None]
    (picture,) = seen(batch(values), None, 1)
    assert picture[..., 0].tolist() == [[0, 255], [0, 255], [0, 128]]
    for value in (torch.nan, 7.0):  # nothing finite, and a single value
        (picture,) = seen(batch(torch.full((1, 3, 2, 2), value)), None, 1)
        assert not picture.any()


def test_opacity_is_left_out():
    values = torch.tensor([0.0, 0.2, 1.0, 0.4])[None, :, None, None]
    (picture,) = seen(batch(values), None, 1)
    assert picture.tolist() == [[[0, 51, 255]]]


@pytest.mark.parametrize("values", [torch.zeros(1, 3, 4), torch.zeros(1, 5, 2, 2), torch.zeros(1, 3, 2, 2, dtype=torch.int64)])
def test_what_is_no_picture_is_none(values):
    assert seen(batch(values), None, 4) == () and seen(Batch((), {}), None, 4) == ()


def test_a_run_is_asked_for_by_options_and_by_texts_of_the_configuration_alike():
    by_option = AskedRun.of({"dtype": Precision.BF16, "autocast": HalfPrecision.FP16, "seed": 3}, "gradcam")
    assert by_option == AskedRun.of({"dtype": "bf16", "autocast": "fp16", "seed": 3, "channels_last": False}, "gradcam")
    assert (by_option.dtype, by_option.autocast, by_option.device, by_option.seed) == ("bf16", "fp16", "auto", 3)
    assert AskedRun.of({"autocast": HalfPrecision.OFF}, "gradcam").autocast is None
    with pytest.raises(UsageError, match="gradcam needs values"):
        AskedRun.of({"device": "meta"}, "gradcam")


def test_nothing_asked_is_random_numbers_in_batches_of_eight():
    assert AskedSamples.of({}) == AskedSamples((), (), None, None, None, None, None, 8)
