"""Pictures of data: what is drawn is found again in the pixels, and checked against pictures and numbers that were put in by hand."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile

from netlens.data.issues import Issue, Item
from netlens.data.listing import Listing, Paths, Split
from netlens.drawing.canvas import Canvas
from netlens.lenses.check_data import figures, samples, sheets
from netlens.lenses.check_data.album import draw
from netlens.lenses.check_data.report import CheckDataReport
from tests.lenses.check_data_case import classes, issue, report, split

BAR, MAGENTA, BLANK = (176, 203, 228), (255, 0, 255), (228, 228, 228)
RED, BLUE, GREEN = (200, 30, 10), (10, 20, 220), (0, 150, 40)


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Collect every text that is written on a page."""
    texts: list[str] = []
    original = Canvas.write

    def write(self: Canvas, x: int, y: int, text: str, *more: Any) -> None:
        texts.append(text)
        original(self, x, y, text, *more)

    monkeypatch.setattr(Canvas, "write", write)
    return texts


@pytest.fixture
def in_time() -> Iterator[None]:
    """End a test that hangs."""
    signal.alarm(20)
    yield
    signal.alarm(0)


def plain(path: Path, colour: tuple[int, ...] = RED, size: tuple[int, int] = (40, 20), mode: str = "RGB", **options: Any) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path, **options)
    return str(path)


def listing(paths: Iterable[str], labels: Iterable[int], splits: Iterable[int] | None = None) -> Listing:
    """List files of the splits train and val, with classes cat and dog."""
    paths, labels = list(paths), list(labels)
    where = np.array(list(splits or [0] * len(paths)), np.uint8)
    named = tuple(Split(name, name, ("cat", "dog")) for name in ("train", "val"))
    return Listing(named, Paths(paths), where, np.array(labels, np.int32))


def count(image: Image.Image, colour: tuple[int, int, int], near: int = 0) -> int:
    apart = np.abs(np.asarray(image.convert("RGB")).astype(int) - colour).max(axis=-1)
    return int((apart <= near).sum())


def columns_of(image: Image.Image, colour: tuple[int, int, int]) -> np.ndarray:
    return np.flatnonzero((np.abs(np.asarray(image.convert("RGB")).astype(int) - colour).max(axis=-1) <= 2).any(axis=0))


def runs(image: Image.Image, colour: tuple[int, int, int]) -> list[int]:
    """Return how many pixels of a colour each line has, for lines that have any, without repeats."""
    lines = (np.asarray(image.convert("RGB")) == colour).all(axis=-1).sum(axis=1)
    return [int(after) for before, after in zip([0, *lines], lines, strict=False) if after and after != before]


def test_pictures_are_shown_as_imagefolder_loads_them(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = samples.thumbnail(plain(tmp_path / "turned.jpg", exif=exif), 40)
    assert turned.shape == (20, 40, 3), "the EXIF orientation is not read"
    hidden = samples.thumbnail(plain(tmp_path / "clear.png", (0, 150, 40, 0), mode="RGBA"), 40)
    assert (hidden == GREEN).all(), "transparent colours show"
    deep = tmp_path / "deep.png"
    Image.fromarray(np.full((20, 40), 30000, np.uint16)).save(deep)
    assert (samples.thumbnail(str(deep), 40) == 255).all(), "16 bits are cut to white"
    assert samples.thumbnail(plain(tmp_path / "large.jpg", size=(4000, 2000)), 100).shape == (50, 100, 3)
    assert samples.thumbnail(plain(tmp_path / "tiny.png", size=(4, 8)), 100).shape == (100, 50, 3)


def test_thumbnails_agree_with_torchvision(tmp_path):
    loader = pytest.importorskip("torchvision.datasets.folder").pil_loader
    noise = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    for name, image in {"a.png": Image.fromarray(noise), "b.png": Image.fromarray(noise).quantize(9)}.items():
        image.save(tmp_path / name)
        assert (samples.thumbnail(str(tmp_path / name), 40) == np.asarray(loader(str(tmp_path / name)))).all()


def test_what_cannot_be_opened_says_why_and_is_never_waited_for(tmp_path, in_time):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "page.jpg").write_text("<html>")
    bomb = tmp_path / "bomb.png"
    Image.new("1", (12000, 12000)).save(bomb)
    for name, why in {
        "pipe.png": "no regular file",
        "page.jpg": "UnidentifiedImageError",
        "bomb.png": "12,000 × 12,000",
        "no.png": "FileNotFound",
    }.items():
        with pytest.raises(samples.Unopened, match=why):
            samples.thumbnail(str(tmp_path / name), 40)


def test_a_truncated_picture_shows_what_is_left_and_nothing_else_changes(tmp_path):
    whole = tmp_path / "whole.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)).save(whole)
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(samples.Unopened, match="truncated"):
        samples.thumbnail(str(cut), 100)
    sheet = sheets.fault_sheet("data", issue("picture-truncated", str(cut)), {}, {})
    assert sheet.opened and count(sheet.image, (128, 128, 128), near=1) > 2000
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


def test_a_sheet_has_the_first_24_places_with_name_label_and_detail(tmp_path, written):
    paths = [plain(tmp_path / f"{place:02}.png", RED if place < 24 else BLUE) for place in range(30)]
    sheet = sheets.fault_sheet("./data", issue("dark", *paths, detail="99 % below 9"), dict.fromkeys(paths, "train · cat"), {})
    assert count(sheet.image, RED) == 24 * 166 * 83 and not count(sheet.image, BLUE)
    assert [text for text in written if text.endswith(".png")] == [f"{place:02}.png" for place in range(24)]
    said = " ".join(written)
    assert "30 of 1,000 pictures are nearly black · the first 24 of 30" in said and "train · cat · 99 % below 9" in said


def test_copies_stand_side_by_side_with_both_labels(tmp_path, written):
    pair = (plain(tmp_path / "a.png", RED), plain(tmp_path / "b.png", BLUE), plain(tmp_path / "c.png", GREEN))
    labels = {pair[0]: "train · cat", pair[1]: "val · dog"}
    image = sheets.fault_sheet("./data", issue("leak-near", pair, detail="96 % alike"), labels, {}).image
    red, blue = columns_of(image, RED), columns_of(image, BLUE)
    assert (len(red), len(blue)) == (166, 166) and 0 < blue[0] - red[-1] < 12 and not count(image, GREEN)
    assert "a.png = b.png" in written and "train · cat = val · dog · and 1 more · 96 % alike" in " ".join(written)


def test_what_ended_a_worker_is_not_opened_again(tmp_path, written):
    fatal = plain(tmp_path / "fatal.png", RED)
    found = report(issue("picture-undecodable", fatal, detail="the decoder crashed"), issue("wrong-suffix", fatal))
    assert samples.unopenable(found) == {fatal: "the decoder crashed"}
    sheet = sheets.fault_sheet("data", found.issues[1], {}, samples.unopenable(found))
    assert not sheet.opened and not count(sheet.image, RED) and count(sheet.image, BLANK) > 10000 and "the decoder crashed" in written


def test_bars_are_as_long_as_their_counts(written):
    image = figures.class_bars("data", [split("train", classes=classes(10, 5, 0)), split("val", classes=classes(3, 4))])
    assert runs(image, BAR) == [259 + 194, 129 + 259], "less a pixel of each bar, which is the line at 0"
    assert {"10", "5", "0", "3", "4", "train", "val", "! class2"} <= set(written)


def test_a_thousand_classes_fit_on_a_page(written):
    sizes = np.random.default_rng(0).permutation(np.arange(1, 1001)).tolist()
    image = figures.class_bars("data", [split(classes=classes(*sizes))])
    assert image.height < 2300 and any("the largest first" in text for text in written)
    lengths = (np.asarray(image.convert("RGB")) == BAR).all(axis=-1).sum(axis=1)
    lengths = lengths[lengths > 0]
    assert lengths[0] == 259 and (np.diff(lengths) <= 0).all()
    assert figures.class_bars("data", [split(classes=classes(*[1] * 5000))]).height < 2300


def test_sizes_stand_where_they_belong():
    values = np.array([[512, 128]] * 9 + [[128, 256]])
    image = np.asarray(figures.size_maps("data", [figures.Sizes("", values, 10)]).convert("RGB")).astype(int)
    ground = np.abs(image - (250, 250, 250)).max(axis=-1) == 0
    yellow = np.argwhere(np.abs(image - (253, 231, 37)).max(axis=-1) == 0)
    assert len(yellow) == 36, "one bin of 6 x 6 pixels is the fullest"
    down, across = np.argwhere(ground)[:, 0], np.argwhere(ground)[:, 1]
    left = across.min()
    assert yellow[:, 1].min() - left == 354, "512 is the widest: the last of 60 bins, on a scale from 128 to 512"
    bars = np.argwhere((image == BAR).all(axis=-1))
    above = bars[(bars[:, 0] < yellow[:, 0].min()) & (bars[:, 1] <= left + 360)]
    heights = {int(column) - left: int((above[:, 1] == column).sum()) for column in np.unique(above[:, 1])}
    assert heights == {**dict.fromkeys(range(6), 18), **dict.fromkeys(range(354, 360), 56)}, "9 to 1: their roots are 3 to 1"
    assert down.min() < yellow[:, 0].min()


def test_headers_tell_sizes_and_what_has_none_is_left_out(tmp_path):
    paths = [plain(tmp_path / "a.png", size=(7, 9)), plain(tmp_path / "b.png", size=(3, 4)), str(tmp_path / "none.png")]
    values, files = samples.sizes(listing(paths, [0, 0, 0]), 0, {paths[1]: "empty"})
    assert values.tolist() == [[7, 9]] and files == 3
    assert samples.sizes(listing(paths, [0, 0, 0]), 1, {})[0].shape == (0, 2)


def test_tensors_are_drawn_from_their_lowest_to_their_highest_number(written):
    first, second = np.full((3, 8, 8), -2.0), np.full((1, 8, 8), 3.0)
    first[0], first[1, 0, 0] = 0.5, np.nan
    image = sheets.tensor_grid("loader", [first, second], ["cat", "dog"])
    assert image is not None
    red = round((0.5 + 2) / 5 * 255)
    assert count(image, (red, 0, 0)) > 20000 and count(image, MAGENTA) > 200
    assert "cat" in written and "dog" in written and any(text.startswith("-2 is black, 3 is white") for text in written)
    assert sheets.tensor_grid("loader", [], []) is None and sheets.tensor_grid("loader", [np.zeros(3)], ["x"]) is None


def test_constant_and_broken_tensors_are_drawn():
    for value in (0.0, np.nan, np.inf):
        assert sheets.tensor_grid("loader", [np.full((3, 4, 4), value)], []) is not None


class Kept:
    """A folder that remembers what it was given."""

    def __init__(self) -> None:
        self.reserved: list[str] = []
        self.saved: dict[str, bool] = {}

    def reserve(self, names: Iterable[str]) -> None:
        self.reserved += names

    def save(self, name: str, image: Image.Image, *, page: int = 1, prefer: bool = False, **facts: str) -> str:
        self.saved[name] = prefer
        return f"{name}.png"


def album(found: CheckDataReport, *more: Any) -> tuple[Kept, list[str]]:
    kept, steps = Kept(), []
    files = list(draw(found, *more, kept, lambda: steps.append(1), title="./data"))
    assert files == [f"{name}.png" for name in kept.saved] and len(steps) == len(files)
    assert set(kept.saved) <= set(kept.reserved) and len(kept.reserved) == len(set(kept.reserved))
    return kept, files


def test_an_album_has_a_sheet_a_fault_and_the_worst_that_show_something_come_first(tmp_path):
    good = [plain(tmp_path / "train" / f"{place}.png", size=(20 + place, 20)) for place in range(5)]
    empty = tmp_path / "train" / "empty.png"
    empty.touch()
    before = {path: path.stat() for path in tmp_path.rglob("*")}
    found = report(
        issue("dark", good[0]),
        issue("blurred", good[1]),
        issue("file-empty", str(empty), detail="0 bytes"),
        issue("exif-rotated", good[2]),
        issue("class-index-shift", "cat"),
        Issue("class-imbalance", (Item(()),), 2),
        splits=[split("train"), split("val", classes=())],
    )
    kept, files = album(found, listing([*good, str(empty)], [0, 1, 0, 1, 0, 0], [0, 0, 0, 1, 1, 1]), None)
    assert files[:4] == ["file-empty.png", "exif-rotated.png", "dark.png", "blurred.png"]
    assert [name for name, prefer in kept.saved.items() if prefer] == ["exif-rotated", "dark"]
    assert list(kept.saved)[4:] == ["samples-train", "samples-val", "classes", "sizes"]
    assert {path: path.stat() for path in tmp_path.rglob("*")}.keys() == before.keys()
    assert all(path.stat().st_mtime_ns == facts.st_mtime_ns for path, facts in before.items())


def test_an_album_of_loaders_has_what_the_network_gets():
    found = report(issue("sample-raises", "sample 17"), kind="loader")
    kept, _ = album(found, None, [("train", [np.zeros((3, 4, 4))], ["cat"]), ("val", [], [])])
    assert kept.saved == {"samples-train": True, "classes": False}


def test_pictures_of_one_size_need_no_plot(tmp_path):
    paths = [plain(tmp_path / f"{place}.png") for place in range(3)]
    kept, _ = album(report(splits=[split(classes=())]), listing(paths, [0, 0, 1]), None)
    assert list(kept.saved) == ["samples-train"]


def test_the_choice_of_samples_follows_the_seed(tmp_path, written):
    paths = [plain(tmp_path / f"{place:03}.png", size=(4, 4)) for place in range(60)]
    chosen = []
    for seed in (0, 0, 1):
        written.clear()
        assert sheets.file_grid("data", listing(paths, [0] * 60), 0, {paths[0]: "bad"}, seed) is not None
        chosen.append([text for text in written if text.endswith(".png")])
    assert chosen[0] == chosen[1] != chosen[2] and len(set(chosen[0])) == 36 and "000.png" not in chosen[0] + chosen[2]
