"""Boxes on photos: each format against corners that were worked out by hand, and what is wrong with a file told in two lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from netlens.errors import FileProblem
from netlens.loading.boxes import on_input, read_boxes
from netlens.loading.preprocessing import Geometry
from sample_models import scenes

SIZE = (48, 64)  # height and width of every photo here

COCO = {
    "images": [{"id": 7, "file_name": "val/a.jpg"}, {"id": 9, "file_name": "val/b.jpg"}],
    "annotations": [
        {"image_id": 7, "category_id": 17, "bbox": [10, 20, 30.5, 5], "iscrowd": 0},
        {"image_id": 7, "category_id": 18, "bbox": [0, 0, 64.4, 48]},
    ],
    "categories": [{"id": 17, "name": "cat"}, {"id": 18, "name": "dog"}],
}

VOC = """<?xml version="1.0"?>
<annotation><folder>VOC2012</folder>{filename}
  <size><width>64</width><height>48</height><depth>3</depth></size>
  <object><name>cat</name><part><name>head</name><bndbox><xmin>5</xmin><ymin>5</ymin><xmax>6</xmax><ymax>6</ymax></bndbox></part>
    <bndbox><xmin>1</xmin><ymin>11</ymin><xmax>64</xmax><ymax>20</ymax></bndbox></object>
  <object><name>dog</name><bndbox><ymax>8.5</ymax><xmax>9</xmax><ymin>2</ymin><xmin>3</xmin></bndbox></object>
</annotation>"""


def written(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def own(folder: Path, *boxes: Any, photo: str = "a.png", label: str = "cat") -> Path:
    return written(folder / "boxes.json", {photo: [{"label": label, "box": box} for box in boxes]})


# --- Formats


def test_netlens_boxes_are_those_of_the_scenes():
    """The scenes are drawn anew; right and bottom are exclusive, so that a box is as wide as the object's pixels."""
    boxes = read_boxes(scenes.EXAMPLES / "boxes.json")
    assert boxes.labels == set(scenes.CLASSES)
    for index, path in enumerate(sorted(scenes.EXAMPLES.glob("*.png"))):
        scene = scenes.scene(scenes.EXAMPLES_SEED, index, objects=1 if index < 8 else 2)
        for label, mask in zip(scene.labels, scene.masks, strict=True):
            ((left, top, right, bottom),) = boxes.boxes_for(path, scenes.CLASSES[label], mask.shape)
            assert mask[:, int(left) : int(right)].sum() == mask[int(top) : int(bottom)].sum() == mask.sum()
            assert (mask[:, int(left)].any(), mask[:, int(right) - 1].any()) == (True, True)


def test_coco_has_corner_and_size(tmp_path):
    boxes = read_boxes(written(tmp_path / "instances.json", COCO))
    assert boxes.boxes_for(tmp_path / "val/a.jpg", "cat", SIZE) == [(10, 20, 40.5, 25)]
    assert boxes.boxes_for(tmp_path / "val/a.jpg", "dog", SIZE) == [(0, 0, 64, 48)]  # cut to the photo
    assert boxes.boxes_for(tmp_path / "val/b.jpg", "cat", SIZE) == []  # it has no objects, which is known


@pytest.mark.parametrize("filename", ["<filename>a.jpg</filename>", "<filename>a</filename>", ""])
@pytest.mark.parametrize("as_folder", [False, True])
def test_voc_counts_from_one_and_includes_the_last_pixel(tmp_path, filename, as_folder):
    path = written(tmp_path / "Annotations/a.xml", VOC.format(filename=filename))
    boxes = read_boxes(path.parent if as_folder else path)
    assert boxes.boxes_for(Path("JPEGImages/a.jpg"), "cat", SIZE) == [(0, 10, 64, 20)]
    assert boxes.boxes_for(Path("JPEGImages/a.jpg"), "dog", SIZE) == [(2, 1, 9, 8.5)]


def test_yolo_has_centre_and_size_in_shares(tmp_path):
    written(tmp_path / "labels/a.txt", "1 0.5 0.25 0.5 0.5\n0 0.25 0.75 0.125 0.25\n\n")
    assert read_boxes(tmp_path / "labels").boxes_for(Path("a.png"), "1", SIZE) == [(16, 0, 48, 24)]
    written(tmp_path / "classes.txt", "dog\ncat\n")
    boxes = read_boxes(tmp_path / "labels")
    assert boxes.boxes_for(Path("a.png"), "cat", SIZE) == [(16, 0, 48, 24)]
    assert boxes.boxes_for(Path("a.png"), "dog", SIZE) == [(12, 30, 20, 42)]


# --- Which photo, which label


def test_labels_are_compared_as_people_write_them(tmp_path):
    boxes = read_boxes(own(tmp_path, [1, 2, 3, 4], label="Traffic_Light"))
    for label in ("traffic light", "TRAFFIC-LIGHT", "signal, traffic light"):
        assert boxes.boxes_for(Path("a.png"), label, SIZE) == [(1, 2, 3, 4)]
    assert boxes.boxes_for(Path("a.png"), "light", SIZE) == []


def test_folders_tell_photos_of_one_name_apart(tmp_path):
    names = {"a.png": 1, "cats/a.png": 2, "dogs/a.png": 3}
    path = written(tmp_path / "b.json", {name: [{"label": "x", "box": [0, 0, size, 1]}] for name, size in names.items()})
    boxes = read_boxes(path)
    for photo, size in (("/data/cats/a.png", 2), ("/data/dogs/a.png", 3), ("/data/birds/a.png", 1), ("/data/bigcats/a.png", 1)):
        assert boxes.boxes_for(Path(photo), "x", SIZE) == [(0, 0, size, 1)]
    path = written(tmp_path / "b.json", {"train/a.png": [{"label": "x", "box": [0, 0, 1, 1]}]})
    assert read_boxes(path).boxes_for(Path("/elsewhere/a.png"), "x", SIZE) == [(0, 0, 1, 1)]  # there is only one


def test_boxes_follow_the_photo_through_resize_and_crop():
    """A photo 100 wide and 50 high is halved, and the middle 20 x 20 of it cut out: it begins at (30, 5) of the photo."""
    geometry = Geometry((50, 100), (20, 20), (30, 5, 70, 45))
    assert on_input([(30, 5, 50, 45), (0, 0, 10, 50)], geometry) == [(0, 0, 10, 20), (-15, -2.5, -10, 22.5)]


# --- What is wrong


def bomb(encoding: str) -> bytes:
    entities = '<!ENTITY e0 "eeeeeeeeee">' + "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 12))
    return f'<?xml version="1.0" encoding="{encoding}"?><!DOCTYPE a [{entities}]><annotation>&e11;</annotation>'.encode(encoding)


WRONG: dict[str, tuple[str, Any, str]] = {
    "empty": ("b.json", "", "not JSON"),
    "cut off": ("b.json", '{"a.png": [', "not JSON"),
    "deep": ("b.json", "[" * 100_000, "not JSON"),
    "no text": ("b.json", b"\xff\xfe\x00\xd8", "not JSON"),
    "a picture": ("b.png", b"\x89PNG\r\n\x1a\n\x00\xff", "not JSON"),
    "a list": ("b.json", [1, 2], "no object"),
    "no list": ("b.json", {"a.png": {"label": "x"}}, "'a.png' has no list"),
    "no label": ("b.json", {"a.png": [{"box": [0, 0, 1, 1]}]}, "'a.png' has no list"),
    "no box": ("b.json", {"a.png": [{"label": "x"}]}, "not four numbers: None"),
    "three": ("b.json", {"a.png": [{"label": "x", "box": [1, 2, 3]}]}, "not four numbers: [1, 2, 3]"),
    "words": ("b.json", {"a.png": [{"label": "x", "box": [1, 2, 3, "4"]}]}, "not four numbers"),
    "not a number": ("b.json", '{"a.png": [{"label": "x", "box": [0, 0, NaN, 1]}]}', "not four numbers"),
    "huge": ("b.json", '{"a.png": [{"label": "x", "box": [0, 0, 1' + "0" * 400 + ", 1]}]}", "not four numbers"),
    "no photo": ("b.json", {**COCO, "images": []}, "KeyError: 7"),
    "no file name": ("b.json", {**COCO, "images": [{"id": 7}]}, "file_name"),
    "coco of words": ("b.json", {**COCO, "annotations": "many"}, "do not fit together"),
    "coco box": ("b.json", {**COCO, "annotations": [{"image_id": 7, "category_id": 1, "bbox": [1]}]}, "not four numbers"),
    "no xml": ("b.xml", "<annotation>", "no XML"),
    "another xml": ("b.xml", "<svg/>", "its root is 'svg'"),
    "unknown encoding": ("b.xml", '<?xml version="1.0" encoding="klingon"?><annotation/>', "no XML"),
    "a bomb": ("b.xml", bomb("utf-8"), "DOCTYPE"),
    "a hidden bomb": ("b.xml", bomb("utf-16"), "DOCTYPE"),
    "no box in xml": ("b.xml", "<annotation><object><name>x</name></object></annotation>", "not four numbers"),
    "no yolo": ("f/a.txt", "0 0.5 0.5 0.1\n", "not four numbers"),
    "yolo words": ("f/a.txt", "cat and dog on mat\n", "not four numbers"),
    "other files": ("f/a.png", "", "neither VOC"),
}


@pytest.mark.parametrize(("name", "content", "what"), WRONG.values(), ids=WRONG)
def test_a_file_that_is_no_boxes_says_so_in_two_lines(tmp_path, name, content, what):
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        written(path, content)
    with pytest.raises(FileProblem) as caught:
        read_boxes(path.parent if name.startswith("f/") else path)
    assert_two_lines(caught.value, what)


def test_a_file_that_is_not_there_has_a_likely_name(tmp_path):
    own(tmp_path, [0, 0, 1, 1])
    with pytest.raises(FileProblem) as caught:
        read_boxes(tmp_path / "box.json")
    assert_two_lines(caught.value, "there is no file")
    assert caught.value.hint == "did you mean 'boxes.json'?"
    with pytest.raises(FileProblem, match="there is no file"):
        read_boxes(tmp_path / "nowhere" / "boxes.json")


@pytest.mark.parametrize(
    ("box", "what"),
    [
        ([30, 0, 10, 5], "ends before it begins: [30, 0, 10, 5]"),
        ([0, 5, 10, 5], "ends before it begins"),
        ([0, 0, 66, 40], "lies outside of it: [0, 0, 66, 40]"),
        ([0, 0, 40, 60], "lies outside"),
        ([-2, 0, 40, 40], "lies outside"),
        ([100, 100, 120, 120], "lies outside"),
    ],
)
def test_a_faulty_box_is_told_when_its_photo_is_asked_for(tmp_path, box, what):
    boxes = read_boxes(own(tmp_path, box))
    assert boxes.boxes_for(Path("a.png"), "dog", SIZE) == []
    with pytest.raises(FileProblem) as caught:
        boxes.boxes_for(Path("a.png"), "cat", SIZE)
    assert_two_lines(caught.value, f"boxes.json: a box of 'cat' on 'a.png' {what}")


def test_a_pixel_beyond_the_edge_is_rounding(tmp_path):
    boxes = read_boxes(own(tmp_path, [-1, -0.5, 65, 48.9]))
    assert boxes.boxes_for(Path("a.png"), "cat", SIZE) == [(0, 0, 64, 48)]


def test_a_photo_that_is_not_in_the_file_is_an_error(tmp_path):
    boxes = read_boxes(own(tmp_path, [0, 0, 1, 1], photo="val/IMG_0012.png"))
    with pytest.raises(FileProblem) as caught:
        boxes.boxes_for(Path("IMG-0012.png"), "cat", SIZE)
    assert_two_lines(caught.value, "boxes.json has no photo 'IMG-0012.png'")
    assert caught.value.hint == "did you mean 'IMG_0012.png'?"


def test_a_photo_of_an_ambiguous_name_is_an_error(tmp_path):
    boxes = read_boxes(written(tmp_path / "boxes.json", {"x/a.png": [], "y/a.png": []}))
    with pytest.raises(FileProblem) as caught:
        boxes.boxes_for(Path("/z/a.png"), "cat", SIZE)
    assert_two_lines(caught.value, "several photos 'a.png': x/a.png, y/a.png")


def assert_two_lines(error: FileProblem, what: str) -> None:
    assert what in error.message
    assert error.hint
    assert "\n" not in error.message + error.hint
    assert len(error.message) < 400
