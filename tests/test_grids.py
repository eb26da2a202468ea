"""Grids of tiles: what a pixel says is what the number is, and nothing is cut off, lost or too small."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image, ImageFont

from netlens.drawing import text
from netlens.drawing.canvas import Canvas
from netlens.drawing.colours import MAT, channels, indices, palette
from netlens.drawing.grids import Grid, Scale, Tiles, contact_sheet, pages
from netlens.drawing.paint import area_means
from tests.conftest import REPOSITORY

GREYS = 240  # palette indices from here on are paper, frames and text
MAGENTA = 239


@dataclass(frozen=True)
class Written:
    """A line of text on a page, and its box."""

    page: int
    text: str
    left: int
    top: int
    right: int
    bottom: int


@pytest.fixture
def written(monkeypatch):
    """Note every line that is written; pages are told apart by the canvas, whose size is noted too."""
    lines: list[Written] = []
    canvases: list[Canvas] = []
    write = Canvas.write

    def note(canvas, x, y, line, face, *strength):
        if canvas not in canvases:
            canvases.append(canvas)
        left, top, right, bottom = face.getbbox(line)
        lines.append(Written(canvases.index(canvas), line, x + left, y + top, x + right, y + bottom))
        write(canvas, x, y, line, face, *strength)

    monkeypatch.setattr(Canvas, "write", note)
    return lines


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def numbers(count: int) -> tuple[str, ...]:
    return tuple(map(str, range(count)))


def runs(flags: np.ndarray) -> list[tuple[int, int]]:
    """Return where each run of True begins and ends."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(int)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def boxes(image: Image.Image) -> list[list[np.ndarray]]:
    """Find the tiles of a page by its pixels alone: rows of tiles. What shows numbers is neither grey nor, at the very end, the bar."""
    pixels = np.asarray(image)
    if image.mode == "P":
        data = pixels < GREYS
        data[runs(data.any(axis=1))[-1][0] :] = False
    else:
        data = pixels.max(axis=2) != pixels.min(axis=2)
    return [
        [pixels[top:bottom, left:right] for left, right in runs(data[top:bottom].any(axis=0))] for top, bottom in runs(data.any(axis=1))
    ]


def shrunk(tile: np.ndarray, height: int, width: int) -> np.ndarray:
    """Undo the enlarging, which must have been by whole numbers, every number a rectangle of one colour."""
    up, across = tile.shape[0] // height, tile.shape[1] // width
    small = tile[::up, ::across]
    np.testing.assert_array_equal(np.kron(small.reshape(height, width, -1), np.ones((up, across, 1))), tile.reshape(*tile.shape[:2], -1))
    return small


# --- Colours


def test_the_diverging_colours_are_those_of_matplotlib():
    import matplotlib

    theirs = matplotlib.colormaps["RdBu_r"].resampled(239)(np.arange(239), bytes=True)[:, :3].astype(int)
    assert np.abs(palette(True)[:239].astype(int) - theirs).max() <= 1


def test_the_sequential_colours_are_those_of_matplotlib():
    import matplotlib

    table = np.array(matplotlib.colormaps["viridis"].colors) * 255
    theirs = np.stack([np.interp(np.linspace(0, 255, 239), np.arange(256), channel) for channel in table.T], axis=1)
    assert np.abs(palette(False)[:239] - theirs).max() <= 2


@pytest.mark.parametrize("signed", [True, False])
def test_every_colour_of_a_palette_is_another_one(signed):
    colours = {tuple(colour) for colour in palette(signed).tolist()}
    assert len(colours) == 256
    assert {(255, 0, 255), (255, 255, 255)} <= colours


def test_zero_is_white_negative_blue_positive_red_and_equally_far():
    table = palette(True)
    np.testing.assert_array_equal(table[119], (247, 247, 247))
    assert table[0][2] > table[0][0] and table[238][0] > table[238][2]
    values = np.linspace(0, 1, 997)
    below, above = indices(-values, 1.0, True).astype(int), indices(values, 1.0, True).astype(int)
    np.testing.assert_array_equal(above - 119, 119 - below)


@pytest.mark.parametrize(
    ("value", "signed", "index"),
    [
        (0, True, 119), (3, True, 238), (-3, True, 0), (1.5, True, 178.5), (9, True, 238), (-9, True, 0),
        (0, False, 0), (3, False, 238), (1.5, False, 119), (-1, False, 0), (9, False, 238),
        (np.nan, True, 239), (np.inf, True, 239), (-np.inf, False, 239),
    ],
)  # fmt: skip
def test_a_number_has_its_colour(value, signed, index):
    assert abs(int(indices(np.array([value], np.float32), 3.0, signed)[0]) - index) <= 0.5


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "uint8", "int64", "bool"])
def test_any_kind_of_number_is_drawn(dtype):
    values = np.array([[[0, 1], [1, 0]]]).astype(dtype)
    ((tile,),) = boxes(pages(Grid("", Tiles(values), Scale(limit=1.0)))[0])
    np.testing.assert_array_equal(shrunk(tile, 2, 2), [[119, 238], [238, 119]])


@pytest.mark.parametrize("size", [1e-320, 1e-45, 1e-30, 1e30, 1e300])
def test_tiny_and_huge_numbers_are_drawn(size):
    ((tile,),) = boxes(pages(Grid("", Tiles(np.array([[[size, -size, 0.0]]])), Scale()))[0])
    np.testing.assert_array_equal(shrunk(tile, 1, 3), [[238, 0, 119]])


# --- Pixels are the numbers


SHAPES = [(1, 3, 3), (5, 1, 1), (16, 3, 3), (64, 7, 7), (7, 2, 9), (9, 1, 80), (6, 30, 2), (3, 100, 120), (40, 40, 40)]


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_pixel_inverts_to_the_number_that_it_shows(shape, labelled):
    values = random(*shape)
    limit = float(np.abs(values).max())
    (page,) = pages(Grid("t", Tiles(values, numbers(shape[0]) if labelled else ()), Scale(limit=limit)))
    tiles = [tile for row in boxes(page) for tile in row]
    assert len(tiles) == len(values)
    for tile, truth in zip(tiles, values, strict=True):
        shown = (shrunk(tile, *shape[1:]).astype(float) - 119) / 119 * limit
        assert np.abs(shown - truth).max() <= limit / 119 / 2 * 1.0001


def test_a_tile_with_a_scale_of_its_own_reaches_the_end_of_the_colours():
    values = random(12, 3, 3) * np.logspace(-6, 6, 12)[:, None, None]
    (page,) = pages(Grid("t", Tiles(values), Scale()))
    for tile, truth in zip([tile for row in boxes(page) for tile in row], values, strict=True):
        limit = max(abs(value) for value in truth.flat)
        shown = (shrunk(tile, 3, 3).astype(float) - 119) / 119 * limit
        assert np.abs(shown - truth).max() <= limit / 119 / 2 * 1.0001


def test_an_unsigned_pixel_inverts_to_its_number():
    values = np.abs(random(20, 5, 5))
    limit = float(values.max())
    (page,) = pages(Grid("t", Tiles(values), Scale(signed=False, limit=limit)))
    for tile, truth in zip([tile for row in boxes(page) for tile in row], values, strict=True):
        assert np.abs(shrunk(tile, 5, 5).astype(float) / 238 * limit - truth).max() <= limit / 238 / 2 * 1.0001


@pytest.mark.parametrize(("signed", "least"), [(True, -1.0), (False, 0.0)])
def test_a_coloured_pixel_inverts_to_its_three_numbers(signed, least):
    """Red, green and blue are 255 levels from the least to the largest number; a pixel that would be grey is not in the test."""
    generator = np.random.default_rng(3)
    values = generator.uniform(least, 1, size=(24, 5, 5, 3))
    values[..., 0], values[..., 1] = np.maximum(values[..., 0], 0.5), np.minimum(values[..., 1], 0.2)
    values[0, 0, 0] = (1, least, 1)  # would be magenta in 0..255
    (page,) = pages(Grid("t", Tiles(values), Scale(signed, limit=1.0)))
    assert page.mode == "RGB"
    tiles = [tile for row in boxes(page) for tile in row]
    assert len(tiles) == 24
    for tile, truth in zip(tiles, values, strict=True):
        shown = (shrunk(tile, 5, 5).astype(float) - 1) / 254 * (1 - least) + least
        assert np.abs(shown - truth).max() <= (1 - least) / 254 / 2 * 1.0001


def test_zero_is_the_middle_grey_of_coloured_tiles():
    assert channels(np.zeros((1, 3)), 1.0, True).tolist() == [[128, 128, 128]]


def test_what_is_not_finite_has_a_colour_that_no_number_has_and_the_footnote_names_it(written):
    values = random(4, 3, 3)
    values[1, 0, 2], values[2, 1, 0], values[3] = np.nan, np.inf, np.nan
    (page,) = pages(Grid("t", Tiles(values, columns=4), Scale()))
    (row,) = boxes(page)
    assert [np.argwhere(shrunk(tile, 3, 3) == MAGENTA).tolist() for tile in row[:3]] == [[], [[0, 2]], [[1, 0]]]
    assert (row[3] == MAGENTA).all()
    assert palette(True)[MAGENTA].tolist() == [255, 0, 255]
    assert any("magenta: NaN or infinite" in line.text for line in written)


def test_a_coloured_pixel_that_is_not_finite_is_magenta_and_no_other_is(written):
    values = np.tile([1.0, -1.0, 1.0], (2, 3, 3, 1))
    values[1, 2, 0, 1] = np.nan
    (page,) = pages(Grid("t", Tiles(values, columns=2), Scale(limit=1.0)))
    first, second = (shrunk(tile, 3, 3) for tile in boxes(page)[0])
    assert np.argwhere((second == (255, 0, 255)).all(axis=2)).tolist() == [[2, 0]]
    assert not (first == (255, 0, 255)).all(axis=2).any()
    assert any("magenta" in line.text for line in written)


def test_finite_numbers_within_the_scale_need_no_footnote(written):
    pages(Grid("t", Tiles(random(4, 3, 3)), Scale(limit=10.0)))
    assert not any(word in line.text for line in written for word in ("magenta", "beyond", "negative", "mean"))


@pytest.mark.parametrize(("scale", "words"), [(Scale(limit=0.1), "beyond the scale"), (Scale(False, 10.0), "negative")])
def test_the_footnote_tells_of_numbers_that_the_scale_does_not_reach(written, scale, words):
    pages(Grid("t", Tiles(random(4, 3, 3)), scale))
    assert any(words in line.text for line in written)


# --- Mosaics and pages


def test_a_mosaic_has_its_rows_and_columns_and_every_page_its_part():
    """16 filters x 512 channels: pages beside each other hold all channels, once, in order."""
    values = random(16 * 512, 3, 3)
    found = pages(Grid("t", Tiles(values, columns=512, row_labels=numbers(16), column_labels=numbers(512)), Scale(limit=9.0)))
    grids = [boxes(page) for page in found]
    assert all(len(grid) == 16 for grid in grids)
    for row in range(16):
        tiles = [shrunk(tile, 3, 3) for grid in grids for tile in grid[row]]
        np.testing.assert_array_equal(tiles, [indices(tile, 9.0, True) for tile in values[512 * row : 512 * (row + 1)]])


def test_rows_of_a_narrow_mosaic_stand_beside_each_other_in_order():
    values = random(64 * 3, 5, 5)
    (page,) = pages(Grid("t", Tiles(values, columns=3, row_labels=numbers(64)), Scale(limit=9.0)))
    grid = boxes(page)
    bands = len(grid[0]) // 3
    assert bands > 1
    tiles = [tile for band in range(bands) for row in grid for tile in row[3 * band : 3 * band + 3]]
    np.testing.assert_array_equal([shrunk(tile, 5, 5) for tile in tiles], [indices(tile, 9.0, True) for tile in values])
    assert page.width > 0.5 * page.height


def test_a_last_row_that_is_not_full_ends_in_paper():
    values = np.ones((5, 3, 3), np.float32)
    (page,) = pages(Grid("t", Tiles(values, columns=3), Scale(limit=1.0)))
    assert [len(row) for row in boxes(page)] == [3, 2]
    pixels = np.asarray(page)
    left, right = runs((pixels == 238).any(axis=0))[2]
    below = pixels[runs((pixels == 238)[:, :left].any(axis=1))[1][0] + 1 :, left - 1 : right + 2]
    rows = (below[: right - left] == 255).all(axis=1)
    assert rows.all()


def test_2048_filters_are_paged_and_each_is_labelled_once(written):
    found = pages(Grid("t", Tiles(random(2048, 7, 7), numbers(2048)), Scale(limit=1.0)))
    assert len(found) == 3
    for number, page in enumerate(found):
        assert any(line.text == f"page {number + 1} of 3 · one scale for all" for line in written)
        tiles = [tile for row in boxes(page) for tile in row]
        assert min(min(tile.shape) for tile in tiles) >= 35
    labels = [line.text for line in written if line.text.isdigit() and line.text != "0"]
    assert labels == list(numbers(2048)[1:])


def places(page: Image.Image) -> list[tuple[range, range]]:
    """Find where the tiles of a page are, in reading order: rows and columns of pixels."""
    data = np.asarray(page) < GREYS
    data[runs(data.any(axis=1))[-1][0] :] = False
    return [
        (range(top, bottom), range(left, right))
        for top, bottom in runs(data.any(axis=1))
        for left, right in runs(data[top:bottom].any(axis=0))
    ]


def test_each_label_stands_above_its_tile(written):
    labels = tuple(f"f{index}" for index in range(700))
    found = pages(Grid("t", Tiles(np.zeros((700, 3, 3)), labels), Scale()), tallest=800)
    tiles = [(number, *place) for number, page in enumerate(found) for place in places(page)]
    lines = {line.text: line for line in written}
    assert len(found) > 1 and len(tiles) == 700
    for label, (page, down, across) in zip(labels, tiles, strict=True):
        line = lines[label]
        assert line.page == page and 0 <= down.start - line.bottom <= 8 and abs(line.left - across.start) <= 2


def test_labels_of_rows_and_columns_stand_beside_theirs_and_are_thinned_evenly(written):
    rows, columns = tuple(f"r{row}" for row in range(40)), tuple(f"channel {column}" for column in range(40))
    (page,) = pages(Grid("t", Tiles(np.zeros((1600, 3, 3)), (), 40, rows, columns), Scale(limit=1.0)))
    tiles, lines = places(page), {line.text: line for line in written}
    assert [row for row in rows if row in lines] == list(rows)
    shown = [column for column in columns if column in lines]
    assert 5 <= len(shown) < 40 and shown == list(columns[:: 40 // len(shown)])
    for index, row in enumerate(rows):
        down, across = tiles[40 * index]
        assert abs((lines[row].top + lines[row].bottom) / 2 - (down.start + down.stop) / 2) <= 3 and lines[row].right < across.start
    for column in shown:
        down, across = tiles[int(column[8:])]
        assert abs(lines[column].left - across.start) <= 2 and 0 <= down.start - lines[column].bottom <= 8


def test_rows_and_columns_inside_a_tile_are_numbered_sparsely_where_they_are(written):
    """Of 40 x 90 numbers, each a square of whole pixels; the middle of a number is the middle of what it names."""
    (page,) = pages(Grid("t", Tiles(random(1, 40, 90), ticks=(numbers(40), tuple(f"c{n}" for n in range(90)))), Scale(limit=1.0)))
    ((tile,),) = boxes(page)
    ((down, across),) = places(page)
    side = tile.shape[0] // 40
    rows = [line for line in written if line.text.isdecimal() and line.right < across.start and line.top < down.stop]
    columns = [line for line in written if line.text.startswith("c")]
    assert 3 <= len(rows) <= 20 and 3 <= len(columns) <= 45
    for line in rows:
        assert abs((line.top + line.bottom) / 2 - (down.start + (int(line.text) + 0.5) * side)) <= 3
    for line in columns:
        middle = across.start + (int(line.text[1:]) + 0.5) * side
        assert abs((line.left + line.right) / 2 - middle) <= 2 or line.left == across.start, "no label begins before its tile"
        assert 0 <= down.start - line.bottom <= 8
    steps = {int(two.text) - int(one.text) for one, two in pairwise(sorted(rows, key=lambda line: int(line.text)))}
    assert len(steps) == 1


def test_the_last_label_is_not_cut_off_at_the_edge_of_the_page(written):
    labels = tuple(f"features.{n}.norm" for n in range(8))
    (page,) = pages(Grid("t", Tiles(random(8, 6, 6), labels), Scale(limit=1.0)))
    assert all(line.right <= page.width for line in written) and set(labels) <= {line.text for line in written}


def test_a_line_between_panels_has_the_colour_of_frames():
    """And the numbers on both of its sides have theirs."""
    values, gaps = random(6, 5, 7), np.zeros((5, 7), bool)
    gaps[:, 3] = True
    (page,) = pages(Grid("t", Tiles(values, gaps=gaps), Scale(limit=9.0)))
    found, pixels = places(page), np.asarray(page)
    assert len(found) == 12
    for number, (left, right) in enumerate(zip(found[::2], found[1::2], strict=True)):
        for (down, across), columns in ((left, slice(3)), (right, slice(4, 7))):
            panel = shrunk(pixels[down.start : down.stop, across.start : across.stop], 5, 3)
            np.testing.assert_array_equal(panel, indices(values[number, :, columns], 9.0, True))
        line = pixels[left[0].start : left[0].stop, left[1].stop : right[1].start]
        assert line.shape[1] == len(left[1]) // 3 and (line == MAT).all()


def test_so_has_a_line_between_coloured_panels():
    gaps = np.array([[False, True, False]])
    (page,) = pages(Grid("t", Tiles(np.array([[[[1, -1, -1]] * 3]]), gaps=gaps), Scale(limit=1.0)))
    red = (np.asarray(page) == (255, 1, 1)).all(axis=2)
    rows, columns = np.flatnonzero(red.any(axis=1)), np.flatnonzero(red.any(axis=0))
    panels = np.asarray(page)[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    side = len(rows)
    assert panels.shape == (side, 3 * side, 3) and (panels[:, side : 2 * side] == palette(True)[MAT]).all()
    assert red.sum() == 2 * side * side


def test_pictures_stand_at_the_left_of_fixed_columns_where_that_is_asked():
    red = np.full((8, 8, 3), (200, 9, 9), np.uint8)
    (page,) = pages(Grid("t", Tiles(random(6, 20, 20), columns=3, pictures=(red,), aside=True), Scale(limit=1.0)))
    rows, columns = np.nonzero((np.asarray(page) == (200, 9, 9)).all(axis=-1))
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (160, 160) and columns.min() == 20


def test_the_names_of_a_few_columns_are_all_written_in_full(written):
    names = ("this checkpoint", "epoch-89.ckpt", "difference")
    pages(Grid("t", Tiles(np.zeros((300, 1, 1)), columns=3, column_labels=names), Scale(limit=1.0)))
    assert set(names) <= {line.text for line in written}


@pytest.mark.parametrize("columns", [None, 1, 3, 8, 300])
@pytest.mark.parametrize(
    "shape", [(1, 3, 3), (10, 11, 11), (700, 3, 3), (300, 1, 50), (3, 700, 1200), (1, 3000, 4000), (5, 1, 4096)], ids=str
)
@pytest.mark.parametrize("size", [(1600, 2000), (800, 600)])
def test_no_page_is_larger_than_asked_and_no_line_is_cut_or_covered(written, shape, columns, size):
    count = shape[0]
    labels = tuple(f"{index}:c{index * 7}" for index in range(count))
    tiles = Tiles(np.zeros(shape, np.float32), labels if columns is None else (), columns, labels, labels)
    found = pages(Grid("A title " * 30, tiles, Scale(), "a subtitle " * 40, "a footnote " * 100), widest=size[0], tallest=size[1])
    assert all(page.width <= size[0] and page.height <= size[1] for page in found)
    for number, page in enumerate(found):
        lines = [line for line in written if line.page == number]
        assert all(line.left >= 0 and line.top >= 0 and line.right <= page.width and line.bottom <= page.height for line in lines)
        covered = np.zeros((page.height, page.width), int)
        for line in lines:
            covered[line.top : line.bottom, line.left : line.right] += 1
        assert covered.max() <= 1
        assert (np.asarray(page)[covered == 0] != 240).all()


@pytest.mark.parametrize(
    ("shape", "columns", "least", "most"),
    [
        ((1, 3, 3), None, 36, 256), ((16, 3, 3), None, 36, 256), ((512, 3, 3), None, 36, 256), ((1, 1, 1), None, 36, 256),
        ((4096, 3, 3), 64, 9, 256), ((40_000, 3, 3), 200, 9, 256), ((1024, 5, 5), 32, 15, 256), ((4, 200, 200), None, 200, 256),
        ((2, 300, 300), None, 300, 300),
    ],
)  # fmt: skip
def test_tiles_are_neither_tiny_nor_huge(shape, columns, least, most):
    page = pages(Grid("t", Tiles(np.ones(shape, np.float32), columns=columns), Scale(limit=1.0)))[0]
    assert all(least <= side <= most for row in boxes(page) for tile in row for side in tile.shape)


@pytest.mark.parametrize("shape", [(0, 3, 3), (4, 0, 3), (0, 7, 7, 3)])
def test_nothing_to_show_is_a_page_that_says_so(written, shape):
    assert len(pages(Grid("t", Tiles(np.zeros(shape)), Scale()))) == 1
    assert any("nothing to show" in line.text for line in written)


# --- Tiles that are larger than the page


def test_area_means_are_those_of_plain_loops():
    values = random(2, 7, 11).astype(np.float64)
    values[1, 6, 10] = np.nan
    means = area_means(values, (3, 4))
    assert means.shape == (2, 3, 3)
    for tile, row, column in np.ndindex(means.shape):
        block = [
            values[tile, y, x]
            for y in range(3 * row, min(3 * row + 3, 7))
            for x in range(4 * column, min(4 * column + 4, 11))
        ]  # fmt: skip
        np.testing.assert_allclose(means[tile, row, column], sum(block) / len(block), rtol=1e-12)


def test_a_large_matrix_is_reduced_and_the_footnote_says_how(written):
    values = random(1, 1000, 4500)
    (page,) = pages(Grid("t", Tiles(values), Scale(limit=1.0)))
    ((tile,),) = boxes(page)
    assert tile.shape == (334, 1500)
    truth = [[values[0, y : y + 3, x : x + 3].mean() for x in range(0, 4500, 3)] for y in range(0, 1000, 3)]
    assert np.abs((tile.astype(float) - 119) / 119 - np.clip(truth, -1, 1)).max() <= 0.5 / 119 * 1.001
    assert any("every pixel is the mean of 3 × 3" in line.text for line in written)


@pytest.mark.parametrize(("shape", "words"), [((1, 1, 4096), "mean of 1 × 3"), ((1, 4096, 1), "mean of 3 × 1")])
def test_a_long_strip_stays_wide_enough_to_be_seen(written, shape, words):
    (page,) = pages(Grid("t", Tiles(random(*shape)), Scale()))
    ((tile,),) = boxes(page)
    assert sorted(tile.shape) == [16, 1366]
    assert any(words in line.text for line in written)


# --- The scale is told


@pytest.mark.parametrize(
    ("count", "scale", "said", "marks"),
    [
        (4, Scale(limit=0.41236), "one scale for all", {"−0.412", "0", "+0.412"}),
        (4, Scale(limit=1.23456e-7), "one scale for all", {"−1.23e-7", "0", "+1.23e-7"}),
        (4, Scale(False, 12.0), "one scale for all", {"0", "12"}),
        (4, Scale(), "each tile its own scale", {"−max", "0", "+max"}),
        (1, Scale(), "its own scale", {"−2.5", "0", "+2.5"}),
    ],
)
def test_the_picture_says_which_scale_it_has(written, count, scale, said, marks):
    pages(Grid("t", Tiles(np.full((count, 2, 2), 2.5)), scale, "a subtitle"))
    lines = {line.text for line in written}
    assert f"a subtitle · {said}" in lines
    assert marks <= lines


def test_the_colour_bar_has_every_colour_in_order_and_stands_above_its_marks(written):
    (page,) = pages(Grid("t", Tiles(np.zeros((1, 3, 3))), Scale(limit=1.0, unit="weight")))
    pixels = np.asarray(page)
    top, bottom = runs((pixels < GREYS).any(axis=1))[-1]
    left, right = runs((pixels[top:bottom] < GREYS).any(axis=0))[0]
    assert (pixels[top:bottom, left:right] == np.arange(239)).all()
    middle = next(line for line in written if line.text == "0")
    assert abs((middle.left + middle.right) / 2 - (left + right) / 2) <= 1.5 and middle.top > bottom
    assert any(line.text == "weight" for line in written)


# --- Text


@pytest.mark.parametrize("length", [1, 5, 40, 400, 100_000])
@pytest.mark.parametrize("room", [20, 57, 300])
def test_elided_text_fits_and_keeps_both_ends(length, room):
    name = ("abcdefghij" * (length // 10 + 1))[:length]
    face = text.font(11)
    short = text.elided(name, face, room)
    assert face.getlength(short) <= room
    head, dots, tail = short.partition("…")
    assert (short == name) if not dots else (name.startswith(head) and len(head) - len(tail) in (0, 1))
    if dots:
        longer = name[: len(head) + 1] + "…" + name[len(name) - len(tail) :] if len(head) == len(tail) else ""
        assert not longer or face.getlength(longer) > room


def test_wrapped_text_keeps_its_words_in_order_and_ends_in_an_elided_line():
    face, words = text.font(12), [f"word{number}" for number in range(200)]
    lines = text.wrapped(" ".join(words), face, 300, 3)
    assert len(lines) == 3 and all(face.getlength(line) <= 300 for line in lines)
    kept = " ".join(lines[:2]).split()
    assert kept == words[: len(kept)] and lines[2].startswith(words[len(kept)]) and lines[2].endswith("word199")


@pytest.mark.parametrize("hostile", ["a\nb\tc", "\x1b[2J\x00\x07", "\u202egnp.exe", "\ud800", "漢字 🦊", "", " ", "\u0301" * 50])
def test_any_text_can_be_drawn_and_none_steers_anything(written, hostile):
    tiles = Tiles(random(4, 3, 3), (hostile,) * 4)
    pages(Grid(hostile, tiles, Scale(unit=hostile), hostile, hostile))
    pages(Grid(hostile, Tiles(random(4, 3, 3), (), 2, (hostile,) * 2, (hostile,) * 2), Scale()))
    contact_sheet(hostile, [Grid(hostile, tiles, Scale(), hostile)], subtitle=hostile)
    assert all(line.text.isprintable() for line in written)


def test_however_long_the_words_of_the_user_are_the_picture_says_its_scale_and_its_remarks(written):
    pages(Grid("t" * 9999, Tiles(np.full((1, 3, 3), np.nan)), Scale(limit=1.0), "word " * 9999, "word " * 9999))
    assert any(line.text.endswith("· one scale for all") for line in written)
    assert any(line.text.endswith("magenta: NaN or infinite") for line in written)


def test_without_matplotlib_there_is_a_font_as_well(monkeypatch):
    monkeypatch.setattr(text, "find_spec", lambda name: None)
    face = text.font.__wrapped__(11)
    assert isinstance(face, (ImageFont.FreeTypeFont, ImageFont.ImageFont)) and face.getlength("weight") > 0


def test_drawing_imports_neither_matplotlib_nor_torch():
    code = (
        "import sys, numpy as np\n"
        "from netlens.drawing.grids import Grid, Scale, Tiles, pages\n"
        "pages(Grid('t', Tiles(np.ones((4, 3, 3)), ('0', '1', '2', '3')), Scale()))\n"
        "print({'matplotlib', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# --- Contact sheets


def section(number: int, count: int = 64, side: int = 3) -> Grid:
    values = random(count, side, side, seed=number)
    return Grid(f"layer{number}.conv", Tiles(values), Scale(limit=float(np.abs(values).max())), f"{count} filters")


@pytest.mark.parametrize(("sections", "tallest"), [(0, 2000), (1, 2000), (20, 2000), (155, 2000), (500, 4000), (3000, 4000)])
def test_a_contact_sheet_is_one_page_whatever_the_network(written, sections, tallest):
    page = contact_sheet("net", [section(number) for number in range(sections)], subtitle="all layers")
    assert page.width <= 1600 and page.height <= tallest
    assert all(line.right <= page.width and line.bottom <= page.height for line in written)
    titled = [line.text for line in written if line.text.startswith("layer")]
    assert titled == [f"layer{number}.conv" for number in range(len(titled))]
    said = next(line.text for line in written if line.text.startswith("all layers"))
    assert len(titled) == sections if sections <= 500 else f"the first {len(titled)} of 3,000" in said


def test_a_strip_shows_the_first_tiles_of_its_section_and_says_how_many(written):
    grid = section(0, count=512)
    rows = boxes(contact_sheet("net", [grid]))
    tiles = [shrunk(tile, 3, 3) for row in rows for tile in row]
    assert len(rows) == 2
    np.testing.assert_array_equal(tiles, [indices(tile, grid.scale.limit, True) for tile in grid.tiles.values[: len(tiles)]])
    assert any(f"512 filters · {len(tiles)} of 512 · ±" in line.text for line in written)


def test_a_sheet_of_colours_and_numbers_shows_both_truly():
    coloured = np.tile([1.0, -1.0, 0.0], (3, 5, 5, 1))
    page = contact_sheet("net", [Grid("a", Tiles(coloured), Scale(limit=1.0)), Grid("b", Tiles(np.ones((3, 3, 3))), Scale(limit=1.0))])
    assert page.mode == "RGB"
    first, second = (row for row in boxes(page)[:2])
    assert [(tile == (255, 1, 128)).all() for tile in first] == [True] * 3
    assert [(tile == palette(True)[238]).all() for tile in second] == [True] * 3


@pytest.mark.parametrize(
    ("limits", "words"),
    [((1.0, 1.0), "one scale for all"), ((1.0, 2.0), "each layer its own scale"), ((None, None), "each tile its own scale")],
)
def test_a_sheet_says_whose_scale_it_is(written, limits, words):
    contact_sheet("net", [Grid("a", Tiles(random(4, 3, 3)), Scale(limit=limit)) for limit in limits], subtitle="s")
    assert any(line.text == f"s · {words}" for line in written)


def test_titles_of_a_crowded_sheet_do_not_run_into_each_other(written):
    sections = [
        Grid(f"a.very.long.layer.name.that.never.ends.block{number}.attention", Tiles(random(9, 3, 3)), Scale(limit=0.123), "9 filters")
        for number in range(155)
    ]
    page = contact_sheet("net", sections)
    covered = np.zeros((page.height, page.width), int)
    for line in written:
        covered[line.top : line.bottom, line.left : line.right] += 1
    assert covered.max() <= 1
