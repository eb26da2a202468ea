"""Where a map's score comes from: in pixels of the photo, in words, and as a line on the photo."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from netlens.lenses.gradcam.answers import Point
from netlens.lenses.gradcam.batches import Sample
from netlens.lenses.gradcam.detections import Detections
from netlens.lenses.gradcam.marks import EDGE, LINE, Mark, told
from netlens.lenses.gradcam.photo import Sample as Photo
from netlens.lenses.gradcam.show import as_text
from netlens.lenses.gradcam.targets import read
from netlens.loading.preprocessing import Geometry
from tests.lenses.gradcam_case import heat, report

# A photo of 640 x 480 whose shorter side becomes 240 and of which the middle 224 x 224 is seen: half the size, cut 48 and 8 pixels.
HALVED = Geometry((480, 640), (224, 224), (96.0, 16.0, 544.0, 464.0))


def sample(geometry: Geometry | None = HALVED) -> Sample:
    return Sample(Path("a.png"), geometry, torch.zeros(3, 224, 224), (1.0, 1.0))


def class_map() -> torch.Tensor:
    """Return scores of 3 classes at 2 x 2 places: 1 wins at two, 0 at two, 2 nowhere."""
    return torch.tensor([[[[0.0, 0.0], [5.0, 5.0]], [[3.0, 3.0], [0.0, 0.0]], [[1.0, 1.0], [1.0, 1.0]]]])


# --- In pixels of the photo, and in words


def test_a_point_of_the_photo_keeps_its_name() -> None:
    point = sample().point((500, 200))
    assert point is not None
    assert (point.x, point.y) == (202, 92)  # (500.5 - 96) / 2, (200.5 - 16) / 2
    assert point.said == f"{point}" == "500,200"
    assert read(class_map(), size=(224, 224)).targets(0, (), point)[0].asked == "point 500,200"


def test_a_detection_lies_on_the_photo() -> None:
    found = [{"boxes": torch.tensor([[10.0, 20.0, 30.0, 60.0]]), "labels": torch.tensor([1]), "scores": torch.tensor([0.5])}]
    answer = Detections(found)
    (target,) = answer.targets(0)
    expected = (96 + 2 * 10.0, 16 + 2 * 20.0, 96 + 2 * 30.0, 16 + 2 * 60.0)
    assert sample().on_photo(answer.top(0, 5))[0].box == expected
    facts = sample().described(heat(), target)
    assert facts.target.box == expected
    assert facts.region is None and facts.where == "box 116,56 to 156,136"
    assert sample(None).described(heat(), target).target.box == (10, 20, 30, 60)
    (mark,) = sample().marks([target]).values()
    assert (mark.kind, mark.box) == ("box", expected)


@pytest.mark.parametrize(
    ("asked", "point", "kind", "region", "where"),
    [
        ("1", None, "region", 0.5, "where it wins: 50.0 %"),
        ("2", None, "everywhere", 1.0, "everywhere, for it wins nowhere"),
        ("2", Point(200, 100, "496,216"), "point", 0.25, "one place"),
    ],
)
def test_a_class_map_is_explained_where_the_class_wins(asked: str, point: Point | None, kind: str, region: float, where: str) -> None:
    (target,) = read(class_map(), size=(224, 224)).targets(0, (asked,), point)
    facts = sample().described(heat(), target)
    assert (facts.region, facts.where, facts.target.box) == (region, where, None)
    ((question, mark),) = sample().marks([target]).items()
    assert question == (int(asked), target.asked) and mark.kind == kind
    if kind == "region":
        assert mark.region is not None and mark.region.tolist() == [[True, True], [False, False]] and mark.box == HALVED.box
    if kind == "point":
        assert mark.box == (496, 216, 498, 218)  # one pixel of the input is two of the photo


def test_class_scores_have_no_place() -> None:
    (target,) = read(torch.tensor([[1.0, 2.0]])).targets(0)
    assert sample().marks([target]) == {} and sample().described(heat(), target).where == ""


# --- As a line


def by_definition(inside: np.ndarray) -> np.ndarray:
    """Paint pixel by pixel: by the steps, across or down, to the nearest pixel of the other kind; beyond the picture nothing is inside."""
    height, width = inside.shape
    ringed = np.pad(inside, 4)
    painted = np.zeros((height, width, 3), np.uint8)
    for y in range(height):
        for x in range(width):
            steps = [
                abs(dy) + abs(dx)
                for dy in range(-4, 5)
                for dx in range(-4, 5)
                if ringed[y + 4 + dy if 0 <= y + 4 + dy < height + 8 else 0, x + 4 + dx if 0 <= x + 4 + dx < width + 8 else 0]
                != inside[y, x]
            ]
            nearest = min(steps, default=9)
            if inside[y, x]:
                painted[y, x] = LINE if nearest <= 2 else EDGE if nearest == 3 else 0
            elif nearest == 1:
                painted[y, x] = EDGE
    return painted


def test_a_region_is_outlined_where_it_is() -> None:
    """3 x 4 places over the box (10, 4) to (34, 28) of a photo of 40 x 30, drawn in twice that size: 12 pixels across, 16 down."""
    region = np.array([[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 1]], bool)
    drawn = Mark("region", (10, 4, 34, 28), region).drawn(np.zeros((60, 80, 3), np.uint8), (2, 2))
    inside = np.zeros((60, 80), bool)
    inside[8:56, 20:68] = region.repeat(16, 0).repeat(12, 1)
    np.testing.assert_array_equal(drawn, by_definition(inside))
    whole = Mark("region", (0, 0, 40, 30), np.ones((2, 2), bool)).drawn(np.zeros((30, 40, 3), np.uint8), (1, 1))
    np.testing.assert_array_equal(whole, by_definition(np.ones((30, 40), bool)))


def test_a_box_and_a_point_are_outlined_where_they_are() -> None:
    black = np.zeros((100, 200, 3), np.uint8)
    boxed = Mark("box", (10, 20, 60, 40)).drawn(black, (1, 2))
    y, x = np.nonzero((boxed == LINE).all(-1))
    assert (x.min(), x.max() + 1, y.min(), y.max() + 1) == (20 - 1, 120 + 1, 20 - 1, 40 + 1)  # two pixels on the edge of the box
    assert not boxed[23:37, 23:117].any(), "a thin line"
    ring = Mark("point", (50, 30, 51, 31)).drawn(black, (2, 2))
    y, x = np.nonzero((ring == LINE).all(-1))
    assert (x.mean(), y.mean()) == pytest.approx((101, 61), abs=0.6) and not ring[58:64, 98:104].any()
    assert not Mark("everywhere", (0, 0, 10, 10)).drawn(black, (1, 1)).any()


def test_marks_are_told_once_each() -> None:
    box = (0.0, 0.0, 1.0, 1.0)
    assert told([Mark("box", box), Mark("box", box), Mark("everywhere", box)]) == [
        "orange: the detection that is explained",
        "the class wins nowhere: its scores at all places are summed",
    ]


# --- Of a very long photo


@pytest.mark.parametrize(("height", "width", "shown"), [(50, 3000, (50, 50)), (3000, 50, (50, 50)), (100, 400, (100, 400))])
def test_of_a_very_long_photo_the_part_that_was_seen_is_shown(height: int, width: int, shown: tuple[int, int]) -> None:
    """The middle square is red and the rest blue; a mark on its middle stays there."""
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    pixels = np.full((height, width, 3), (0, 0, 255), np.uint8)
    pixels[top : top + side, left : left + side] = (255, 0, 0)
    box = (float(left), float(top), float(left + side), float(top + side))
    marks = {(0, ""): Mark("point", (left + side / 2 - 0.5, top + side / 2 - 0.5, left + side / 2 + 0.5, top + side / 2 + 0.5))}
    photo = Photo.of(Image.fromarray(pixels), box, [(box, False)], marks, title="", name="")
    assert photo.size == shown
    drawn = photo.marked(np.zeros((*photo.shape, 3), np.uint8), (0, ""))
    y, x = np.nonzero((drawn == LINE).all(-1))
    assert (y.mean(), x.mean()) == pytest.approx((photo.shape[0] / 2, photo.shape[1] / 2), abs=1)
    if shown == (50, 50):
        assert (np.asarray(photo.ground.photo) == (255, 0, 0)).all()
        assert f"shown: the part of the photo ({width:,} × {height:,}) that the network saw" in photo.notes and "pale" not in photo.notes
    else:
        assert "shown" not in photo.notes and "pale: outside of what the network saw" in photo.notes


def test_the_table_says_what_is_explained() -> None:
    shown = as_text(report(heat(asked="cat", where="everywhere, for it wins nowhere")))
    assert "explained" in shown and "everywhere, for it wins nowhere" in shown
    assert "explained" not in as_text(report(heat()))
