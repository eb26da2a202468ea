"""A map over a photo: where its numbers fall, held against torch's interpolation and against pixels marked by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import interpolate

from netlens.drawing.colours import palette
from netlens.drawing.overlay import overlay, overlay_page, upsampled
from netlens.loading.preprocessing import Framing, Preprocessing, preprocess

GREY = 100


def photo(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), GREY, np.uint8)


def touched(image: Image.Image) -> np.ndarray:
    return (np.asarray(image) != GREY).any(axis=-1)


@pytest.mark.parametrize(
    ("small", "large"), [((7, 7), (224, 224)), ((3, 5), (20, 31)), ((1, 1), (4, 6)), ((14, 14), (9, 10)), ((2, 1), (5, 5))]
)
def test_upsampling_is_that_of_torch(small, large):
    values = np.random.default_rng(0).normal(size=small)
    theirs = interpolate(torch.from_numpy(values)[None, None], large, mode="bilinear", align_corners=False)[0, 0].numpy()
    ours = upsampled(values, (0, large[0]), (0, large[1]), range(large[0]), range(large[1]))
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)


def test_a_part_of_the_photo_is_read_as_if_it_were_the_whole():
    values = np.random.default_rng(0).normal(size=(3, 4))
    whole = upsampled(values, (0, 30), (0, 40), range(30), range(40))
    shifted = upsampled(values, (5, 35), (-7, 33), range(5, 35), range(33))
    np.testing.assert_allclose(shifted, whole[:, 7:])


def test_only_what_the_network_saw_is_covered():
    image = overlay(photo(20, 30), np.ones((2, 2)), (5, 3, 25, 18))
    expected = np.zeros((20, 30), bool)
    expected[3:18, 5:25] = True
    np.testing.assert_array_equal(touched(image), expected)


def test_a_box_between_pixels_covers_those_whose_centre_it_holds():
    covered = touched(overlay(photo(6, 6), np.ones((2, 2)), (0.6, 1.5, 3.4, 4.5)))
    assert (np.flatnonzero(covered.any(axis=0)).tolist(), np.flatnonzero(covered.any(axis=1)).tolist()) == ([1, 2], [1, 2, 3])


def test_a_box_beyond_the_photo_is_cut():
    """A padded input: of 4 x 4 cells of 10 pixels, the outer ones lie outside of a photo of 20 x 20."""
    values = np.zeros((4, 4))
    values[1, 2] = 1
    image = np.asarray(overlay(photo(20, 20), values, (-10, -10, 30, 30))).astype(int)
    strongest = np.abs(image - GREY).sum(axis=-1)
    peak = np.argwhere(strongest == strongest.max()).mean(axis=0)
    np.testing.assert_allclose(peak, (4.5, 14.5))  # the middle of rows 0..10 and columns 10..20, in pixel indices


def test_zero_is_transparent_and_the_limit_has_the_colour_of_its_end():
    values = np.array([[0.0, 2.0]])
    image = np.asarray(overlay(photo(2, 40), values, (0, 0, 40, 2), alpha=1.0))
    assert (image[:, :10] == GREY).all(), "up to the middle of the first number"
    assert (image[:, 30:] == palette(False)[238]).all()
    half = np.asarray(overlay(photo(2, 40), values, (0, 0, 40, 2), alpha=0.5))[0, -1]
    np.testing.assert_allclose(half, (GREY + palette(False)[238].astype(float)) / 2, atol=0.5)


def test_a_number_in_between_is_as_opaque_as_its_share():
    image = np.asarray(overlay(photo(4, 4), np.full((1, 1), 1.0), (0, 0, 4, 4), alpha=0.8, limit=4.0))
    colour = palette(False)[round(238 / 4)].astype(float)
    np.testing.assert_allclose(image[0, 0], GREY + 0.8 / 4 * (colour - GREY), atol=0.5)


def test_around_zero_blue_is_negative_and_red_positive():
    image = np.asarray(overlay(photo(2, 40), np.array([[-1.0, 1.0]]), (0, 0, 40, 2), colours="diverging", alpha=1.0))
    assert (image[0, 0] == palette(True)[0]).all() and (image[0, -1] == palette(True)[238]).all()
    np.testing.assert_allclose(image[0, 19:21].astype(int), GREY, atol=8)


def test_negative_numbers_are_transparent_on_a_scale_from_zero():
    assert not touched(overlay(photo(4, 4), np.full((2, 2), -1.0), (0, 0, 4, 4))).any()


def test_what_is_not_finite_is_magenta_and_does_not_spread():
    values = np.zeros((2, 2))
    values[0, 1] = np.nan
    image = np.asarray(overlay(photo(8, 8), values, (0, 0, 8, 8)))
    assert (image[:4, 4:] == (255, 0, 255)).all() and (image[4:] == GREY).all() and (image[:, :4] == GREY).all()


def test_the_photo_stays_as_it_is():
    picture = photo(6, 6)
    overlay(picture, np.ones((2, 2)), (0, 0, 6, 6))
    assert (picture == GREY).all()
    assert overlay(Image.fromarray(picture).convert("L"), np.ones((2, 2)), (0, 0, 6, 6)).size == (6, 6)


@pytest.mark.parametrize("size", [(300, 200), (200, 300), (180, 180)])
def test_a_marked_pixel_of_the_network_lies_where_the_photo_is_marked(size):
    """A white square on a photo that is resized and cropped: the brightest place of the input lies on it, whatever the photo's form."""
    height, width = size
    pixels = np.zeros((height, width, 3), np.uint8)
    top, left = height // 2 + 22, width // 2 - 31
    pixels[top : top + 6, left : left + 6] = 255
    prepared = preprocess(Image.fromarray(pixels), Preprocessing(Framing("shorter", (64, 64), (56, 56)), (0.0,) * 3, (1.0,) * 3, ""))
    image = np.asarray(overlay(photo(height, width), prepared.tensor.mean(0).numpy(), prepared.geometry.box)).astype(int)
    change = np.abs(image - GREY).sum(axis=-1)
    rows, columns = np.indices(change.shape)
    centre = (rows * change).sum() / change.sum(), (columns * change).sum() / change.sum()
    np.testing.assert_allclose(centre, (top + 2.5, left + 2.5), atol=0.7)


def test_a_page_shows_the_photo_beside_the_map_pale_where_the_network_is_blind():
    picture = np.zeros((400, 600, 3), np.uint8)
    picture[:] = (200, 40, 40)
    image = overlay_page(picture, np.ones((2, 2)), (100, 0, 500, 400), title="layer4", subtitle="mean", footnote="f", unit="activation")
    page = np.asarray(image)
    seen = (page == (200, 40, 40)).all(axis=-1)
    assert seen.sum() == 400 * 400, "once in colour; on the right in grey and covered"
    pale = np.rint(np.array((200, 40, 40)) + 0.55 * (255 - np.array((200, 40, 40))))
    assert (page == pale).all(axis=-1).sum() == 2 * 100 * 400


@pytest.mark.parametrize(("size", "most"), [((3, 5), 1600), ((2000, 3000), 1600), ((3000, 100), 1600), ((64, 64), 1600)])
def test_a_page_is_readable_for_photos_of_any_size(size, most):
    image = overlay_page(photo(*size), np.ones((7, 7)), (0, 0, size[1], size[0]), title="layer4")
    assert 400 < image.width <= most and 300 < image.height <= 1000


def test_a_map_of_zeros_leaves_the_photo():
    assert not touched(overlay(photo(5, 5), np.zeros((3, 3)), (0, 0, 5, 5))).any()
