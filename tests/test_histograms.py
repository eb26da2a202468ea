"""Histograms on a page: heights are read back from pixels and compared with the counts."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from netlens.drawing.colours import MAT, palette
from netlens.drawing.grids import TALLEST, WIDEST
from netlens.drawing.histograms import Panel, histograms, number

BARS = {False: {(176, 203, 228), (45, 93, 142)}, True: {(246, 190, 168), (170, 30, 30)}}  # fill and outline: ordinary, alarmed
BASE = int(palette(True)[MAT, 0])  # the grey of a base line
COUNTS = (1, 0, 4, 9, 400, 900, 10_000, 2_500, 0, 25, 1, 0, 0, 100, 3_600, 6_400)


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB"))


def bars(image: Image.Image, alarm: bool = False) -> np.ndarray:
    """Return which pixels of a page belong to bars."""
    page = pixels(image)
    return np.any([(page == colour).all(axis=-1) for colour in BARS[alarm]], axis=0)


def base_line(image: Image.Image) -> tuple[int, int, int]:
    """Return row, first and last column of the base line of a page with one panel, found as its longest grey run."""
    grey = (pixels(image) == BASE).all(axis=-1)
    row = int(grey.sum(axis=1).argmax())
    columns = np.flatnonzero(grey[row])
    assert len(columns) == columns[-1] - columns[0] + 1
    return row, int(columns[0]), int(columns[-1])


def read_heights(image: Image.Image, bins: int, alarm: bool = False) -> list[int]:
    """Read the height of each bin off a page with one panel, in pixels, and see that a bar stands on the base line without a gap."""
    row, left, right = base_line(image)
    found = bars(image, alarm)
    step = (right - left + 1) / bins
    heights = []
    for index in range(bins):
        column = found[:row, left + int((index + 0.5) * step)]
        height = int(column.sum())
        assert column[row - height : row].all()
        heights.append(height)
    return heights


@pytest.mark.parametrize("alarm", [False, True])
def test_a_bar_is_as_high_as_the_square_root_of_its_count(alarm):
    image = histograms("weights", [Panel("conv1", 1.0, 2.0, COUNTS, alarm=alarm)])[0]
    heights = read_heights(image, len(COUNTS), alarm)
    full = max(heights)
    assert full > 100
    for height, count in zip(heights, COUNTS, strict=True):
        if count == 0:
            assert height == 0
        else:
            assert abs(height - full * count**0.5 / max(COUNTS) ** 0.5) <= 0.5 or height == 2  # a lone value is seen


def test_zero_is_marked_where_it_lies():
    """Of -1..3 it is a quarter from the left; a range without it has no mark."""
    counts = [0] * 64
    counts[-1] = 5
    image = histograms("weights", [Panel("conv1", -1.0, 3.0, counts)])[0]
    row, left, right = base_line(image)
    plot = pixels(image)[row - 60 : row, left : right + 1]
    marked = np.flatnonzero(((plot < 200) & (plot[..., :1] == plot)).all(axis=-1).sum(axis=0) > 20)
    assert marked.tolist() == [(right + 1 - left) // 4]
    other = histograms("weights", [Panel("conv1", 1.0, 3.0, counts)])[0]
    assert ((pixels(other)[row - 60 : row, left : right - 10]) == 255).all()


def test_a_finding_is_marked_by_colour_and_by_a_sign():
    plain, alarmed = (histograms("", [Panel("", 1.0, 2.0, COUNTS, alarm=alarm)])[0] for alarm in (False, True))
    assert bars(plain).any() and not bars(plain, alarm=True).any()
    assert bars(alarmed, alarm=True).any() and not bars(alarmed).any()
    above = slice(0, base_line(plain)[0] - max(read_heights(plain, len(COUNTS))))
    assert (pixels(plain)[above] == 255).all() and (pixels(alarmed)[above] < 100).any(), "nothing is written but the sign"


@pytest.mark.parametrize("count", [0, 1, 2, 5, 20, 25, 155, 400])
def test_every_layer_is_drawn_and_a_page_is_fit_for_a_screen(count):
    """Each panel has one bin: its base line is seen once, on some page."""
    images = histograms("weights", [Panel(f"layer{index}.conv", 1.0, 2.0, (0, 1, 0)) for index in range(count)])
    assert all(image.width <= WIDEST and image.height <= TALLEST for image in images)
    lines = 0
    for image in images:
        grey = (pixels(image) == BASE).all(axis=-1)
        lines += sum(starts_of_runs(row) for row in grey)
        assert (pixels(image)[[0, -1]] == 255).all() and (pixels(image)[:, [0, -1]] == 255).all(), "nothing touches the edge"
    assert lines == count
    assert len(images) == {155: 3, 400: 6}.get(count, 1)


def starts_of_runs(row: np.ndarray) -> int:
    """Count runs of at least 100 pixels."""
    edges = np.diff(np.concatenate([[0], row.astype(int), [0]]))
    return int((np.flatnonzero(edges == -1) - np.flatnonzero(edges == 1) >= 100).sum())


def test_the_order_is_that_of_reading():
    """Two panels whose bars are left and right: the first is left of the second."""
    image = histograms("weights", [Panel("a", 1.0, 2.0, (1, 0)), Panel("b", 1.0, 2.0, (0, 1))])[0]
    row, *_ = np.flatnonzero(bars(image).any(axis=1))
    first, second = np.split(np.flatnonzero(bars(image)[row]), 2)
    assert first[-1] < image.width / 2 < second[0]
    assert second[0] - first[0] > image.width / 2


def test_odd_panels_are_drawn():
    """No finite value, a constant, hostile and endless names, extreme ranges."""
    panels = [
        Panel("nothing", 0.0, 0.0, ()),
        Panel("constant", 0.5, 0.5, (7,)),
        Panel("evil\x1b[2J\n\u202ename", -1e30, 1e-30, (1, 2)),
        Panel("long." * 200, -3e-9, 2e-9, (1,), "note " * 100),
    ]
    (image,) = histograms("title " * 100, panels, subtitle="words " * 100)
    assert image.width <= WIDEST
    assert (pixels(image)[[0, -1]] == 255).all() and (pixels(image)[:, [0, -1]] == 255).all()


def test_a_constant_stands_in_the_middle():
    image = histograms("weights", [Panel("constant", 0.5, 0.5, (99, *[0] * 63))])[0]
    _, left, right = base_line(image)
    places = np.flatnonzero(bars(image).any(axis=0))
    assert abs(places.mean() - (left + right) / 2) <= 1
    assert len(places) < 20


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0314, "0.031"),
        (-0.0999, "-0.1"),
        (128.0, "130"),
        (0.0, "0"),
        (1.26e-7, "1.3e-07"),
        (-8e7, "-8e+07"),
        (0.5, "0.5"),
        (99999, "100000"),
    ],
)
def test_numbers_have_two_significant_digits(value, text):
    assert number(value) == text
