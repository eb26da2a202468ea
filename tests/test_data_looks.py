"""What pixels look like, against definitions written as loops, and against pictures made so that the answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image, ImageFilter, ImageOps

from netlens.data.hashing import perceptual
from netlens.data.letterbox import inside
from netlens.data.look import look
from netlens.data.looks import is_grey, judged, measured
from netlens.data.resampled import blocks, enlargement
from tests.data_defects import SCENES, clean, photo


def laplacian_ratio(grey: np.ndarray) -> float:
    values = [
        float(grey[y - 1, x]) + float(grey[y + 1, x]) + float(grey[y, x - 1]) + float(grey[y, x + 1]) - 4 * float(grey[y, x])
        for y in range(1, len(grey) - 1)
        for x in range(1, len(grey[0]) - 1)
    ]
    return float(np.var(values) / np.var(grey.astype(np.float64)))


def direction(grey: np.ndarray) -> float:
    across = [float(row[x + 1]) - float(row[x]) for row in grey for x in range(len(row) - 1)]
    down = [float(column[y + 1]) - float(column[y]) for column in grey.T for y in range(len(column) - 1)]
    small, large = sorted((np.var(across), np.var(down)))
    return float(small / large)


@pytest.mark.parametrize("size", [(96, 80), (270, 270), (40, 300), (13, 11)])
def test_looks_are_what_their_definitions_say(size: tuple[int, int]) -> None:
    im = photo(11, 300).crop((0, 0, *size))
    looks = measured(im)
    factor = max(1, round(math.sqrt(size[0] * size[1]) / 128))
    grey = np.asarray(im.reduce(factor).convert("L"))
    np.testing.assert_array_equal(looks.pixels, grey)
    assert looks.low == np.percentile(grey, 1, method="inverted_cdf")
    assert looks.high == np.percentile(grey, 99, method="inverted_cdf")
    assert looks.spread == pytest.approx(np.std(grey.astype(np.float64)), rel=1e-9)
    assert looks.sharpness == pytest.approx(laplacian_ratio(grey), rel=1e-4)
    assert looks.direction == pytest.approx(direction(grey), rel=1e-4)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA", "P", "CMYK", "1"])
def test_sums_are_those_of_the_pixels_that_training_sees(mode: str, tmp_path: object) -> None:
    im = photo(12).crop((0, 0, 90, 70)).convert(mode)
    path = f"{tmp_path}/a.tif"
    im.save(path)
    pixels = np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3).astype(object)  # Python integers: nothing is rounded
    (row,), _ = look(path)
    assert row["sums"].tolist() == [*pixels.sum(axis=0), *(pixels**2).sum(axis=0)]
    assert row["pixels"] == 90 * 70


def phash(grey: np.ndarray) -> int:
    """The definition: a DCT-II as sums, the low 8 x 8, over the median or not."""
    scale = [math.sqrt(1 / 32)] + [math.sqrt(2 / 32)] * 7
    waves = [[math.cos(math.pi * (2 * x + 1) * k / 64) for x in range(32)] for k in range(8)]
    low = []
    for v in range(8):
        for u in range(8):
            sums = (float(grey[y, x]) * waves[v][y] * waves[u][x] for y in range(32) for x in range(32))
            low.append(scale[v] * scale[u] * math.fsum(sums))
    middle = sorted(low)[31:33]
    return int("".join("1" if value > sum(middle) / 2 else "0" for value in low), 2)


@pytest.mark.parametrize("seed", range(3))
def test_phash_is_its_definition_and_its_mirror_that_of_the_mirrored_picture(seed: int) -> None:
    grey = np.asarray(photo(seed).convert("L").resize((32, 32), Image.Resampling.BOX))
    found, mirrored = perceptual(grey)
    assert found == phash(grey)
    assert mirrored == perceptual(grey[:, ::-1])[0]
    assert perceptual(np.asarray(ImageOps.mirror(Image.fromarray(grey)))) == (mirrored, found)


def test_phash_of_symmetric_pictures_does_not_hang_on_rounding() -> None:
    half = np.random.default_rng(0).integers(0, 256, (32, 16))
    found, mirrored = perceptual(np.hstack([half, half[:, ::-1]]))
    assert found == mirrored


def test_copies_have_near_hashes_and_other_pictures_far_ones(tmp_path: object) -> None:
    def hashed(im: Image.Image) -> tuple[int, int]:
        im.save(f"{tmp_path}/a.jpg", quality=80)
        (row,), _ = look(f"{tmp_path}/a.jpg")
        return int(row["hash"]), int(row["mirrored"])

    pairs = [(hashed(photo(seed)), hashed(photo(seed).resize((180, 180))), hashed(ImageOps.mirror(photo(seed)))) for seed in range(12)]
    assert all((first[0] ^ second[0]).bit_count() <= 6 for first, second, _ in pairs)
    assert all((first[0] ^ third[1]).bit_count() <= 6 for first, _, third in pairs)
    assert all((pairs[a][0][0] ^ pairs[b][0][0]).bit_count() > 8 for a in range(12) for b in range(a))


def test_flat_pictures_have_no_hash_and_a_true_thumbnail(tmp_path: object) -> None:
    steps = np.repeat(np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16), 8, axis=0), 8, axis=1)
    Image.fromarray(steps).save(f"{tmp_path}/a.png")
    (row,), _ = look(f"{tmp_path}/a.png")
    np.testing.assert_array_equal(row["thumb"], np.arange(256).reshape(16, 16))
    Image.new("L", (64, 64), 7).save(f"{tmp_path}/b.png")
    (row,), _ = look(f"{tmp_path}/b.png")
    assert (row["hash"], row["mirrored"]) == (0, 0) and (row["thumb"] == 7).all()


@pytest.mark.parametrize("scene", sorted(SCENES))
def test_scenes_of_every_difficult_kind_are_left_alone(scene: str) -> None:
    found = [judged(measured(clean(seed, kind=scene)), clean(seed, kind=scene))[0] for seed in range(6)]
    assert found == [""] * 6


def test_grey_means_equal_channels() -> None:
    grey = photo(3).convert("L").convert("RGB")
    pixels = np.asarray(grey).copy()
    pixels[40:60, 40:60] = (200, 60, 60)  # one red square
    assert is_grey(measured(grey), 270 * 270)
    assert not is_grey(measured(Image.fromarray(pixels)), 270 * 270)
    assert not is_grey(measured(photo(3)), 270 * 270)


def barred(height: int, width: int, top: int, left: int, level: int = 0) -> np.ndarray:
    page = np.full((height, width), level, np.uint8)
    page[top : height - top, left : width - left] = np.random.default_rng(0).integers(40, 220, (height - 2 * top, width - 2 * left))
    return page


@pytest.mark.parametrize("level", [0, 255])
def test_bars_are_found_where_they_are(level: int) -> None:
    assert inside(barred(100, 120, 20, 0, level)) == pytest.approx((0, 0.20, 1, 0.80), abs=0.02)
    assert inside(barred(100, 120, 0, 30, level)) == pytest.approx((0.25, 0, 0.75, 1), abs=0.02)


def test_margins_on_four_sides_thin_bars_and_one_bar_are_no_letterbox() -> None:
    one_bar = barred(100, 120, 0, 0)
    one_bar[:30] = 0
    for page in (barred(100, 120, 20, 20), barred(100, 120, 3, 0), barred(100, 120, 0, 0), one_bar, np.zeros((50, 50), np.uint8)):
        assert inside(page) is None


FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@pytest.mark.parametrize(
    ("small", "large"), [((82, 82), (270, 270)), ((64, 64), (256, 256)), ((64, 48), (320, 240)), ((60, 90), (200, 300))]
)
@pytest.mark.parametrize("name", FILTERS)
def test_the_factor_of_an_enlargement_is_found(name: str, small: tuple[int, int], large: tuple[int, int]) -> None:
    for seed in range(4):
        original = clean(seed, kind="objects").resize(small, Image.Resampling.BOX)
        assert enlargement(original.resize(large, FILTERS[name])) == pytest.approx(large[0] / small[0], rel=0.03)


def test_the_factor_of_repeated_pixels_is_found_and_pixel_art_is_none() -> None:
    for seed in range(4):
        small = clean(seed, kind="surface").resize((60 + seed, 60 + seed), Image.Resampling.BOX)
        assert blocks(small.resize((270, 270), Image.Resampling.NEAREST)) == pytest.approx(270 / (60 + seed), rel=0.02)
        assert blocks(clean(seed, kind="sprite")) == 0


def test_blur_is_no_enlargement() -> None:
    for seed in range(8):
        soft = photo(seed).filter(ImageFilter.GaussianBlur(2 + seed))
        assert (enlargement(soft), blocks(soft)) == (0, 0)


def test_a_dark_picture_is_not_blamed_for_what_follows_from_it() -> None:
    for change, code in ((lambda v: v * 0.15, "dark"), (lambda v: v * 0.1 + 225, "bright"), (lambda v: v * 0.12 + 90, "low-contrast")):
        im = photo(5).filter(ImageFilter.GaussianBlur(1)).point([int(change(value)) for value in range(256)] * 3)
        assert judged(measured(im), im)[0] == code
