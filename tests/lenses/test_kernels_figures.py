"""Pictures of filters: every number of a tile is checked against the weight that it shows, by plain loops over indices."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from netlens.drawing.colours import STEPS
from netlens.drawing.grids import Grid, pages
from netlens.lenses.kernels import figures
from netlens.lenses.kernels.figures import Options, difference_grids, filter_grids, histogram_page, sheet, spectra_grids
from netlens.lenses.kernels.forms import first_components
from netlens.lenses.kernels.report import Histogram, LayerWeights

EVERYTHING = Options(max_filters=None, max_channels=None)


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def layer(filters: np.ndarray, kind: str = "conv2d", groups: int = 1, name: str = "conv1", type: str = "Conv2d") -> LayerWeights:
    """Return a report of which only what pictures need is true."""
    shape = filters.shape
    nothing = dict.fromkeys(LayerWeights.__dataclass_fields__)
    facts = {"index": 0, "name": name, "type": type, "kind": kind, "shape": shape, "filters": shape[0], "fan_in": math.prod(shape[1:])}
    return LayerWeights(**{**nothing, **facts, "groups": groups, "transposed": False, "dead": 0})  # type: ignore[arg-type]


def only(grids: list[Grid]) -> Grid:
    assert len(grids) == 1
    return grids[0]


def draw(filters: np.ndarray, options: Options = EVERYTHING, *, first: bool = False, **facts: object) -> Grid:
    return only(filter_grids(layer(filters, **facts), filters, options, first=first))  # type: ignore[arg-type]


def norm(values: np.ndarray) -> float:
    return math.sqrt(sum(float(value) ** 2 for value in values.flat))


# --- Which number stands where


def test_three_channels_are_red_green_and_blue():
    w = random(5, 3, 4, 6)
    grid = draw(w)
    assert grid.tiles.values.shape == (5, 4, 6, 3)
    for f, y, x, c in np.ndindex(5, 4, 6, 3):
        assert grid.tiles.values[f, y, x, c] == w[f, c, y, x]
    assert grid.tiles.labels == ("0", "1", "2", "3", "4")
    assert grid.title == "conv1 · Conv2d · 5 × 3 × 4 × 6"


def test_one_channel_is_one_tile_a_filter():
    """Depthwise, or grey pictures."""
    w = random(6, 1, 5, 3)
    for groups in (1, 6):
        grid = draw(w, groups=groups)
        for f, y, x in np.ndindex(6, 5, 3):
            assert grid.tiles.values[f, y, x] == w[f, 0, y, x]
        assert grid.tiles.columns is None


def test_four_channels_stand_side_by_side_in_each_tile():
    w = random(5, 4, 3, 2)
    grid = draw(w, first=True)
    assert grid.tiles.values.shape == (5, 3, 4 * 2 + 3), "a blank column between two channels"
    for f, c, y, x in np.ndindex(5, 4, 3, 2):
        assert grid.tiles.values[f, y, c * 3 + x] == w[f, c, y, x]
    assert (grid.tiles.values[:, :, 2::3] == 0).all()


def test_many_channels_are_a_mosaic_of_filters_and_channels():
    w = random(7, 12, 3, 2)
    grid = draw(w)
    assert (grid.tiles.columns, len(grid.tiles.values)) == (12, 7 * 12)
    for f, c, y, x in np.ndindex(7, 12, 3, 2):
        assert grid.tiles.values[f * 12 + c, y, x] == w[f, c, y, x]
    assert grid.tiles.row_labels == tuple(map(str, range(7)))
    assert grid.tiles.column_labels == tuple(map(str, range(12)))


def test_a_one_by_one_convolution_is_a_matrix():
    for kernel, kind in (((1, 1), "conv2d"), ((1,), "conv1d"), ((1, 1, 1), "conv3d"), ((), "linear"), ((), "embedding")):
        w = random(7, 12, *kernel)
        grid = draw(w, Options(max_filters=2, max_channels=2), kind=kind)
        assert grid.tiles.values.shape == (1, 7, 12), "limits are for tiles"
        for f, c in np.ndindex(7, 12):
            assert grid.tiles.values[0, f, c] == w[f, c].item()


def test_a_matrix_beyond_a_page_keeps_its_largest_rows_and_columns():
    w = random(1600, 3) * np.linspace(2, 1, 1600, dtype=np.float32)[:, None]
    kept = sorted(sorted(range(1600), key=lambda row: -norm(w[row]))[:1536])
    grid = draw(w, kind="linear", type="Linear")
    assert (grid.tiles.values[0] == w[kept]).all()
    assert "the 1,536 strongest of 1,600 output features" in grid.subtitle


def test_few_channels_in_time_are_strips():
    w = random(5, 4, 9)
    grid = draw(w, kind="conv1d")
    assert (grid.tiles.values == w).all(), "channels downwards, time to the right"
    assert (draw(random(5, 80, 3), first=True, kind="conv1d").tiles.values == random(5, 80, 3)).all(), "a spectrogram comes in"
    mosaic = draw(random(5, 80, 3), kind="conv1d").tiles
    for f, c, t in np.ndindex(5, 80, 3):
        assert mosaic.values[f * 80 + c, 0, t] == random(5, 80, 3)[f, c, t]


def test_one_channel_in_time_is_one_strip():
    w = random(5, 1, 9)
    assert (draw(w, kind="conv1d").tiles.values == w).all()


def test_slices_in_time_stand_side_by_side():
    """In colour with three channels; a line in the colour of frames is between them, also where each filter has its own scale."""
    w = random(5, 3, 2, 4, 3)
    grid = draw(w, kind="conv3d")
    assert grid.tiles.values.shape == (5, 4, 2 * 3 + 1, 3)
    for f, c, t, y, x in np.ndindex(*w.shape):
        assert grid.tiles.values[f, y, t * 4 + x, c] == w[f, c, t, y, x]
    lines = np.zeros((4, 7), bool)
    lines[:, 3] = True
    assert (grid.tiles.gaps == lines).all()
    assert "time slices t0 to t1 from left to right" in grid.footnote
    assert (draw(w, replace(EVERYTHING, scale="each"), kind="conv3d").tiles.gaps == lines).all()


def test_deep_slices_in_time_are_a_mosaic():
    w = random(5, 9, 2, 4, 3)
    grid = draw(w, kind="conv3d")
    for f, c, t, y, x in np.ndindex(*w.shape):
        assert grid.tiles.values[f * 9 + c, y, t * 4 + x] == w[f, c, t, y, x]


def test_a_convolution_that_is_flat_in_time_or_in_space_is_drawn_as_what_it_is():
    flat, temporal = random(5, 3, 1, 4, 4), random(5, 3, 4, 1, 1)
    assert (draw(flat, kind="conv3d").tiles.values == draw(flat[:, :, 0]).tiles.values).all()
    assert (draw(temporal, kind="conv3d").tiles.values == temporal[..., 0, 0]).all()


@pytest.mark.parametrize(("features", "channels", "side"), [(784, 1, 28), (64, 1, 8), (3072, 3, 32)])
def test_a_first_linear_layer_over_pictures_is_drawn_as_pictures(features, channels, side):
    w = random(6, features)
    values = draw(w, first=True, kind="linear", type="Linear").tiles.values
    for f, c, y, x in np.ndindex(6, channels, side, side):
        shown = values[f, y, x, c] if channels == 3 else values[f, y, x]
        assert shown == w[f, c * side * side + y * side + x]
    assert len(draw(w, first=False, kind="linear", type="Linear").tiles.values) == 1, "a matrix"


def test_the_rows_and_columns_of_a_matrix_are_numbered_with_true_indices():
    w = random(2000, 6)
    tiles = draw(w, kind="linear").tiles
    rows = sorted(sorted(range(2000), key=lambda row: -norm(w[row]))[: tiles.values.shape[1]])
    assert len(rows) < 2000
    assert tiles.ticks == (tuple(map(str, rows)), ("0", "1", "2", "3", "4", "5"))


@pytest.mark.parametrize("features", [16, 100 + 1, 3 * 16, 768 + 1])
def test_other_linear_layers_are_matrices(features):
    assert draw(random(6, features), first=True, kind="linear").tiles.values.shape == (1, 6, features)


# --- Which are shown


def test_sorted_by_norm_labels_stay_true():
    w = random(9, 3, 3, 3) * np.arange(1, 10, dtype=np.float32)[[3, 7, 0, 8, 2, 1, 5, 4, 6], None, None, None]
    grid = draw(w, replace(EVERYTHING, sort="norm"))
    order = sorted(range(9), key=lambda f: -norm(w[f]))
    assert grid.tiles.labels == tuple(map(str, order))
    for place, f in enumerate(order):
        assert (grid.tiles.values[place] == np.moveaxis(w[f], 0, -1)).all()
    assert "the strongest first" in grid.subtitle


@pytest.mark.parametrize("sort", ["index", "norm"])
def test_a_mosaic_shows_the_strongest_filters_and_channels(sort):
    w = random(100, 40, 3, 3)
    grid = draw(w, Options(sort=sort))
    rows = sorted(range(100), key=lambda f: -norm(w[f]))[:64]
    rows = rows if sort == "norm" else sorted(rows)
    columns = sorted(sorted(range(40), key=lambda c: -norm(w[:, c]))[:32])
    assert grid.tiles.row_labels == tuple(map(str, rows))
    assert grid.tiles.column_labels == tuple(map(str, columns))
    for place, (f, c) in enumerate((f, c) for f in rows for c in columns):
        assert (grid.tiles.values[place] == w[f, c]).all()
    assert grid.subtitle.startswith("the 64 strongest of 100 filters (rows) × the 32 strongest of 40 input channels (columns)")


def test_a_filter_that_is_not_finite_is_among_those_shown():
    w = random(100, 3, 3, 3)
    w[70, 1, 2, 0], w[80, 0, 0, 0] = np.nan, -np.inf
    w[5] = 1e-6
    grid = draw(w, Options(max_filters=2))
    assert grid.tiles.labels == ("70", "80")
    assert np.isnan(grid.tiles.values[0, 2, 0, 1]) and grid.tiles.values[1, 0, 0, 0] == -np.inf
    assert grid.footnote == "NaN or Inf in 70, 80 · dead: 5"
    assert pages(grid)[0].height > 100


def test_many_sick_filters_are_counted():
    w = random(100, 3, 3, 3)
    w[20:50] = 0
    assert draw(w).footnote == "dead: 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31 and 18 more"


# --- One tile a filter


def test_the_mean_over_channels():
    w = random(6, 20, 3, 2)
    grid = draw(w, replace(EVERYTHING, summary="mean"))
    for f, y, x in np.ndindex(6, 3, 2):
        assert grid.tiles.values[f, y, x] == pytest.approx(sum(float(w[f, c, y, x]) for c in range(20)) / 20, abs=1e-12)


def test_the_largest_channel():
    w = random(6, 20, 3, 2)
    grid = draw(w, replace(EVERYTHING, summary="largest"))
    for f in range(6):
        c = max(range(20), key=lambda c: norm(w[f, c]))
        assert (grid.tiles.values[f] == w[f, c]).all()
        assert grid.tiles.labels[f] == f"{f}:c{c}"


@pytest.mark.parametrize("shape", [(6, 20, 3, 3), (6, 4, 5, 5), (6, 9, 2, 3, 3), (3, 5, 7)])
def test_the_first_principal_component(shape):
    """Against numpy's SVD of each filter; the rank-1 matrix that it stands for is what SVD leaves best."""
    w = random(*shape)
    tiles, shares = first_components(w)
    for f in range(len(w)):
        matrix = w[f].reshape(shape[1], -1).astype(float)
        _, s, vt = np.linalg.svd(matrix)
        expected = vt[0] * s[0] / math.sqrt(shape[1])
        found = tiles[f].ravel()
        np.testing.assert_allclose(found, expected * np.sign(found @ expected), atol=1e-10)
        assert found @ matrix.mean(axis=0) > 0, "the sign of the mean"
        assert shares[f] == pytest.approx(s[0] ** 2 / norm(matrix) ** 2)


def test_the_first_principal_component_of_known_filters():
    """All channels multiples of one pattern: it explains all; its size is the root mean square of the multiples."""
    pattern = random(3, 3)
    w = np.stack([np.stack([factor * pattern for factor in (3, 4, 0, 5)]), np.zeros((4, 3, 3), np.float32)])
    w = np.concatenate([w, np.full((1, 4, 3, 3), np.nan, np.float32)])
    tiles, shares = first_components(w)
    np.testing.assert_allclose(tiles[0], math.sqrt((9 + 16 + 25) / 4) * pattern, rtol=1e-6)
    assert shares[0] == pytest.approx(1) and (tiles[1] == 0).all() and np.isnan(shares[1]) and np.isnan(tiles[2]).all()
    grid = draw(np.repeat(w, 3, axis=1), replace(EVERYTHING, summary="pc1"))
    assert grid.tiles.labels == ("0 · 100 %", "1 · –", "2 · –")


def test_colours_and_single_channels_need_no_summary():
    for w in (random(4, 3, 3, 3), random(4, 1, 3, 3), random(4, 6, 1, 1)):
        assert (draw(w, replace(EVERYTHING, summary="mean")).tiles.values == draw(w).tiles.values).all()


# --- Scale


def test_the_common_scale_is_the_largest_weight():
    w = random(5, 3, 4, 6)
    assert draw(w).scale.limit == np.abs(w).max()
    assert draw(w, replace(EVERYTHING, scale="each")).scale.limit is None


def test_one_weight_far_out_does_not_bleach_the_rest():
    w = random(64, 16, 3, 3)
    w[3, 2, 1, 1] = -500
    grid = draw(w)
    sizes = sorted(abs(float(value)) for value in w.flat)
    assert grid.scale.limit == sizes[math.ceil(0.999 * (len(sizes) - 1))]
    beyond = sum(size > grid.scale.limit for size in sizes)
    assert f"{beyond} numbers are beyond the scale, up to 500" in grid.footnote


def test_the_peak_of_a_small_filter_is_no_outlier():
    """A kernel that lets its input pass."""
    w = np.full((64, 1, 3, 3), 0.01, np.float32)
    w[0, 0, 1, 1] = 1
    assert draw(w).scale.limit == 1


def test_nothing_and_nothing_finite_have_a_scale():
    for value in (0, np.nan):
        assert draw(np.full((4, 3, 3, 3), value, np.float32)).scale.limit == 1
    assert filter_grids(layer(random(0, 3, 3, 3)), random(0, 3, 3, 3), EVERYTHING, first=True) == []


def test_a_pixel_inverts_to_the_weight():
    """From a drawn page: colour i stands for (i - 119) / 119 of the limit. The first pixel of the last colour is the corner of the tile."""
    w = random(1, 1, 3, 4)
    w[0, 0, 0, 0] = 4
    page = np.asarray(pages(draw(w))[0]).astype(int)
    top, left = np.argwhere(page == 2 * STEPS)[0]
    side = int((page[top] == 2 * STEPS).sum())
    for y, x in np.ndindex(3, 4):
        for corner in (0, side - 1):
            shown = (page[top + y * side + corner, left + x * side + corner] - STEPS) / STEPS * 4
            assert shown == pytest.approx(float(w[0, 0, y, x]), abs=4 / STEPS / 2 * 1.001)


# --- Difference


def compare(this: np.ndarray, other: np.ndarray, options: Options = EVERYTHING, **facts: object) -> Grid:
    return only(difference_grids(layer(this, **facts), this, other, options, names=("new", "old")))  # type: ignore[arg-type]


def factor_of(grid: Grid) -> float:
    before, times, _ = grid.subtitle.partition(" × their difference")
    return float(before.split(", ")[-1]) if times else 1.0


def test_a_difference_stands_beside_both_in_each_tile():
    this = random(5, 3, 4, 4)
    other = this + 0.04 * random(5, 3, 4, 4, seed=1)
    grid = compare(this, other)
    factor = factor_of(grid)
    for f, c, y, x in np.ndindex(5, 3, 4, 4):
        a, b = float(this[f, c, y, x]), float(other[f, c, y, x])
        expected = (a, b, factor * (a - b))
        assert tuple(grid.tiles.values[3 * f + part, y, x, c] for part in range(3)) == pytest.approx(expected)
    limit = max(np.abs(this).max(), np.abs(other).max())
    change = np.abs(this - other).max()
    assert grid.scale.limit == limit
    assert factor in (1, 2, 5, 10, 20, 50, 100) and factor * change <= limit < 2.5 * factor * change
    names = ("new", "old", f"{factor:g} × their difference")
    assert (grid.tiles.columns, grid.tiles.column_labels, grid.tiles.row_labels) == (3, names, ("0", "1", "2", "3", "4"))
    assert grid.subtitle.startswith(f"{', '.join(names)}: three columns; 5 filters")


def test_where_each_filter_has_its_own_scale_the_three_share_a_tile_and_so_the_scale():
    this = random(5, 3, 4, 4)
    other = this + 0.04 * random(5, 3, 4, 4, seed=1)
    grid = compare(this, other, Options(scale="each"))
    factor = factor_of(grid)
    for f, c, y, x in np.ndindex(5, 3, 4, 4):
        a, b = float(this[f, c, y, x]), float(other[f, c, y, x])
        found = tuple(grid.tiles.values[f, y, part * 5 + x, c] for part in range(3))
        assert found == pytest.approx((a, b, factor * (a - b)))
    assert "from left to right in each tile" in grid.subtitle


def test_a_difference_of_mosaics_is_three_blocks_of_what_moved_most():
    this = random(70, 20, 3, 3)
    other = this + 0.1 * random(70, 20, 3, 3, seed=1) * random(70, 20, 1, 1, seed=2)
    grid = compare(this, other, Options())
    change = this.astype(float) - other
    rows = sorted(sorted(range(70), key=lambda f: -norm(this[f] - other[f]))[:64])
    columns = sorted(sorted(range(20), key=lambda c: -norm(this[:, c] - other[:, c]))[:8])
    assert grid.tiles.row_labels == tuple(map(str, rows))
    assert grid.tiles.column_labels == tuple(map(str, columns)) * 3
    for i, f in enumerate(rows):
        for j, c in enumerate(columns):
            first, second, third = (grid.tiles.values[i * 24 + block * 8 + j] for block in range(3))
            assert (first == this[f, c]).all() and (second == other[f, c]).all()
            np.testing.assert_allclose(third, factor_of(grid) * change[f, c], atol=1e-7)


def test_a_difference_of_matrices_is_three_matrices():
    this, other = random(7, 12), random(7, 12, seed=1)
    grid = compare(this, other, kind="linear")
    factor = factor_of(grid)
    expected = np.stack([this, other, factor * (this.astype(float) - other)])
    np.testing.assert_allclose(grid.tiles.values, expected, atol=1e-6)
    assert grid.tiles.labels == ("new", "old", f"{factor:g} × their difference")


def test_a_difference_of_strips_and_of_slices_within_a_tile_is_from_top_to_bottom():
    each = Options(scale="each")
    this, other = random(5, 1, 9), random(5, 1, 9, seed=1)
    values = compare(this, other, each, kind="conv1d").tiles.values
    assert (values[:, 0] == this[:, 0]).all() and (values[:, 2] == other[:, 0]).all() and (values[:, [1, 3]] == 0).all()
    this, other = random(5, 3, 2, 4, 4), random(5, 3, 2, 4, 4, seed=1)
    values = compare(this, other, each, kind="conv3d").tiles.values
    for f, c, t, y, x in np.ndindex(*this.shape):
        assert values[f, y, t * 5 + x, c] == this[f, c, t, y, x]
        assert values[f, 5 + y, t * 5 + x, c] == other[f, c, t, y, x]


def test_a_difference_in_one_tile_a_filter_shows_the_channel_that_moved_most():
    this = random(6, 20, 3, 3)
    other = this.copy()
    for f in range(6):
        other[f, 2 * f] += 0.5
    grid = compare(this, other, Options(summary="largest"))
    for f in range(6):
        assert (grid.tiles.values[3 * f] == this[f, 2 * f]).all()
        assert grid.tiles.row_labels[f] == f"{f}:c{2 * f}"


def test_no_difference_is_nothing():
    w = random(5, 3, 4, 4)
    grid = compare(w, w)
    assert (grid.tiles.values[2::3] == 0).all() and factor_of(grid) == 1


# --- Spectra


def dft(image: np.ndarray, u: int, v: int, size: int) -> complex:
    """Sum over every pixel, as the definition says."""
    total = 0j
    for y, x in np.ndindex(*image.shape):
        angle = -2 * math.pi * (u * y + v * x) / size
        total += float(image[y, x]) * complex(math.cos(angle), math.sin(angle))
    return total


def test_a_spectrum_by_its_definition():
    w = random(2, 3, 5, 4)
    gains = only(spectra_grids(layer(w), w)).tiles.values
    assert gains.shape == (2, 32, 32)
    for f in range(2):
        for row, column in ((16, 16), (0, 0), (3, 20), (31, 7), (16, 24)):
            power = sum(abs(dft(w[f, c], row - 16, column - 16, 32)) ** 2 for c in range(3))
            assert gains[f, row, column] == pytest.approx(math.sqrt(power))


def test_a_spectrum_keeps_the_norm():
    """Parseval: the mean of the squared gains is the squared norm. Also with slices in time, and above 16 pixels."""
    for shape, size in (((3, 4, 7, 7), 32), ((2, 1, 20, 20), 40), ((2, 3, 3, 5, 5), 32)):
        w = random(*shape)
        gains = only(spectra_grids(layer(w), w)).tiles.values
        assert gains.shape[1:] == (size, size)
        for f in range(len(w)):
            assert (gains[f] ** 2).mean() == pytest.approx(norm(w[f]) ** 2)


def test_the_spectrum_of_a_wave_is_at_its_frequency():
    """Four pixels a cycle along x: two spots, left and right of the middle, and a gain of half its pixels."""
    wave = np.cos(2 * np.pi * np.arange(16) / 4)[None].repeat(16, axis=0)
    w = wave[None, None].astype(np.float32)
    gains = only(spectra_grids(layer(w), w)).tiles.values[0]
    spots = np.argwhere(gains > 0.99 * gains.max())
    assert spots.tolist() == [[16, 8], [16, 24]]
    assert gains.max() == pytest.approx(16 * 16 / 2)


def test_a_spectrum_in_time_runs_from_zero_to_half_a_cycle():
    w = random(3, 2, 40)
    grid = only(spectra_grids(layer(w, "conv1d"), w))
    assert grid.tiles.values.shape == (3, 1, 41)
    for f, k in ((0, 0), (1, 7), (2, 40)):
        power = sum(abs(dft(w[f, c][None], 0, k, 80)) ** 2 for c in range(2))
        assert grid.tiles.values[f, 0, k] == pytest.approx(math.sqrt(power))
    assert not grid.scale.signed and grid.scale.limit == grid.tiles.values.max()


def test_what_has_no_spectrum():
    for w, kind in ((random(4, 6, 1, 1), "conv2d"), (random(4, 64), "linear"), (random(0, 3, 3, 3), "conv2d")):
        assert spectra_grids(layer(w, kind), w) == []


def test_a_spectrum_of_what_is_not_finite():
    w = random(3, 3, 5, 5)
    w[1, 0, 0, 0] = np.inf
    grid = only(spectra_grids(layer(w), w))
    assert np.isnan(grid.tiles.values[1]).all() and np.isfinite(grid.tiles.values[[0, 2]]).all() and grid.scale.limit is not None


# --- Pages


def test_the_sheet_shows_the_strongest_filters_of_each_layer(monkeypatch):
    colour, deep, pointwise = random(9, 3, 3, 3), random(80, 20, 3, 3), random(50, 200, 1, 1)
    drawn: list[Grid] = []
    monkeypatch.setattr(figures, "contact_sheet", lambda title, sections, subtitle: drawn.extend(sections))
    sheet(
        "net",
        [(layer(colour), colour), (layer(deep, name="conv2"), deep), (layer(pointwise), pointwise), (layer(random(0, 3)), random(0, 3))],
    )
    assert [grid.title for grid in drawn] == ["conv1 · 9 × 3 × 3 × 3", "conv2 · 80 × 20 × 3 × 3", "conv1 · 50 × 200 × 1 × 1"]
    for place, f in enumerate(sorted(range(9), key=lambda f: -norm(colour[f]))):
        assert (drawn[0].tiles.values[place] == np.moveaxis(colour[f], 0, -1)).all()
    for place, f in enumerate(sorted(range(80), key=lambda f: -norm(deep[f]))):
        assert (drawn[1].tiles.values[place] == max(deep[f], key=norm)).all()
    rows = sorted(range(50), key=lambda f: -norm(pointwise[f]))[:32]
    columns = sorted(range(200), key=lambda c: -norm(pointwise[:, c]))[:128]
    assert (drawn[2].tiles.values[0] == pointwise[np.ix_(rows, columns)][..., 0, 0]).all()
    assert drawn[2].subtitle == "the strongest 32 × 128"


def test_the_sheet_is_an_image():
    w = random(8, 3, 3, 3)
    assert sheet("net", [(layer(w), w)]).width > 100


def test_the_page_of_histograms_says_what_a_finding_says(monkeypatch):
    found = Histogram(-1.0, 2.0, (1, 5, 2))
    one = replace(layer(random(4, 3)), name="a", histogram=found, std=0.5, initial_std=0.2)
    two = replace(layer(random(4, 3)), name="b")
    panels = []
    monkeypatch.setattr(figures, "histograms", lambda title, shown, subtitle: panels.extend(shown))
    histogram_page("net", [one, two], {"a": "spike"})
    assert [(panel.label, panel.note, panel.alarm) for panel in panels] == [("a", "spike · std 0.5 · ×2.5", True), ("b", "", False)]
    assert (panels[0].low, panels[0].high, panels[0].counts, sum(panels[1].counts)) == (-1.0, 2.0, (1, 5, 2), 0)
    monkeypatch.undo()
    assert len(histogram_page("net", [one, two], {})) == 1
