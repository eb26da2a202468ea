"""`netlens.check_data` over whole trees in which everything is planted: what it finds, by which code, and what it says of clean files.

The plan of what was planted is the truth. A fault is found where its own files are named under its own code; a clean file is one in which
nothing was planted, and whatever is said of it is a false alarm, unless its pixels or its size, read here with Pillow, bear it out.
"""

from __future__ import annotations

import csv
import io
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

import netlens
from netlens.data.records import FLAGS
from netlens.findings import Severity
from netlens.lenses.check_data.report import CheckDataReport
from netlens.lenses.check_data.rulebook import BOOK, COPIES
from netlens.lenses.check_data.rules import severity
from tests.data_defects import CLEAN, DEFECTS, SIDE, photo
from tests.loader_faults import CASES, INFO, Case, clean_val

RECALL, EACH_KIND, FALSE = 0.95, 0.5, 0.001  # of all planted faults, of each kind, and of clean files at most
SEEDS, CLEAN_FILES = 4, 1000
NO_FILE = "folder"  # a folder named x.jpg is a folder for ImageFolder, too: through this door it is no file
# Kinds of which less than half may be found: a hash of the whole picture cannot know one that is cut by 3 to 8 % of a side, and what
# Lanczos' filter enlarges bends nowhere, so that it is found, but as blurred.
LIMITS = {"cropped", "upscaled-lanczos"}
CALLED = {"mode-grey": "grey-among-colour"}  # a grey picture is a finding only among others
LOOKS = frozenset(FLAGS[FLAGS.index("blank") :])  # what the pixels of one picture look like: judged by the files, and not by the trees
CLASSES = ("ant", "bee", "cow", "doe")


def severities(report: CheckDataReport) -> dict[str, Severity]:
    return {issue.code: severity(issue) for issue in report.issues}


def places(report: CheckDataReport, code: str) -> list[tuple[str, ...]]:
    return [item.paths for issue in report.issues if issue.code == code for item in issue.items]


# -- one file at a time, and pairs ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Field:
    """What was sown, and what came of it."""

    planted: dict[str, list[tuple[str, ...]]]  # by kind: the files of each seed
    clean: list[str]
    photos: set[str]  # of them, those of ordinary scenes
    report: CheckDataReport

    def found(self, kind: str) -> list[bool]:
        """Tell of each seed of a kind whether it was found by the right code; of a pair, both together."""
        code = DEFECTS[kind].codes[0]
        groups = [set(paths) for paths in places(self.report, CALLED.get(code, code))]
        return [any(group.issuperset(files) for group in groups) for files in self.planted[kind]]

    def said(self, files: Iterable[str]) -> dict[str, set[str]]:
        """Return the codes under which each of some files is named."""
        told: dict[str, set[str]] = {path: set() for path in files}
        for issue in self.report.issues:
            for path in (path for item in issue.items for path in item.paths):
                told.get(path, set()).add(issue.code)
        return told


def sown(root: Path, seeds: int, clean: int) -> Field:
    """Plant every kind with some seeds among clean files, evenly in four classes; no two of them show the same scene."""
    folders = [root / name for name in CLASSES]
    for folder in folders:
        folder.mkdir(parents=True)
    planted: dict[str, list[tuple[str, ...]]] = defaultdict(list)
    kinds = [kind for kind in DEFECTS if kind != NO_FILE]
    for number, (seed, kind) in enumerate((seed, kind) for seed in range(seeds) for kind in kinds):
        files = DEFECTS[kind].write(10 * number, folders[number % 4] / f"{kind}-{seed}")  # animations take the next two seeds, too
        planted[kind].append(tuple(map(str, files)))
    writers, healthy, photos = list(CLEAN.values()), [], set()
    for number in range(clean):
        seed, stem = 1_000_000 + number, folders[number // len(writers) % 4] / f"clean-{number}"
        if number % 4:
            path = writers[number % len(writers)](seed, stem)
        else:
            path = stem.with_suffix(".jpg")
            photo(seed).save(path, quality=60 + number % 36)
            photos.add(str(path))
        healthy.append(str(path))
    return Field(dict(planted), healthy, photos, netlens.check_data(root, workers=1))


def judge_recall(of: Field) -> None:
    found = {kind: of.found(kind) for kind in of.planted}
    counted = [one for each in found.values() for one in each]
    missed = {kind: f"{sum(each)} of {len(each)}" for kind, each in found.items() if not all(each)}
    assert np.mean(counted) >= RECALL, missed
    assert {kind: missed[kind] for kind, each in found.items() if np.mean(each) < EACH_KIND and kind not in LIMITS} == {}


def judge_silence(of: Field) -> None:
    alarms = {path: false for path, codes in of.said(of.clean).items() if (false := {code for code in codes if not is_true(path, code)})}
    looks = {path: codes - COPIES for path, codes in alarms.items() if codes - COPIES}
    assert {path: codes for path, codes in looks.items() if path in of.photos} == {}
    assert len(looks) <= FALSE * len(of.clean), looks
    copies = {path: codes & COPIES for path, codes in alarms.items() if codes & COPIES}
    assert len(copies) <= FALSE * len(of.clean) * len(of.clean) / CLEAN_FILES, copies  # pairs grow with the square


def is_true(path: str, code: str) -> bool:
    """Tell whether what is said of a clean file is so."""
    with Image.open(path) as image:
        if code == "odd-size":
            return image.size != (SIDE, SIDE)
        if code == "grey-among-colour":  # of a drawing, a page of text, stars, fog
            apart = np.ptp(np.asarray(image.convert("RGB"), np.int16), axis=2)
            return float(np.quantile(apart, 0.99)) <= 8  # JPEG's colour planes leave a few levels
    return False


@pytest.fixture(scope="module")
def field_of_all(tmp_path_factory: pytest.TempPathFactory) -> Field:
    return sown(tmp_path_factory.mktemp("field") / "data", SEEDS, CLEAN_FILES)


def test_every_kind_is_found_by_its_code(field_of_all: Field) -> None:
    judge_recall(field_of_all)


def test_clean_files_are_left_alone(field_of_all: Field) -> None:
    judge_silence(field_of_all)


def test_nothing_is_said_that_was_not_planted(field_of_all: Field) -> None:
    """No code beyond those of the plan, what is true of clean files, and what follows: GIF and HEIC files are left out by ImageFolder, a
    line of 270 x 4 pixels is narrow, and files that are equal by nature (black, heic) lie in several classes."""
    due = {CALLED.get(code, code) for kind in field_of_all.planted for code in DEFECTS[kind].codes}
    assert severities(field_of_all.report).keys() - due <= {"odd-size", "odd-aspect", "skipped-file", "duplicate-labels"}


def test_a_clean_set_would_leave_out_no_clean_file_and_one_of_each_two_copies(field_of_all: Field) -> None:
    out = {path for issue in field_of_all.report.issues for path in issue.fix}
    assert [path for path in field_of_all.clean if path in out] == []
    assert all(len(out & set(files)) == 1 for files in field_of_all.planted["copied"])
    assert all(out >= set(files) for kind in ("empty", "jpeg-cut", "web-page", "black") for files in field_of_all.planted[kind])


@pytest.mark.sweep
def test_thousands_of_files(tmp_path: Path) -> None:
    found = sown(tmp_path / "data", 25, 6000)
    judge_recall(found)
    judge_silence(found)


# -- folders, sets and tables --------------------------------------------------------------------------------------------------------

EACH = 12  # pictures of a class; under 10 are a finding


@lru_cache(maxsize=1)
def pool() -> list[Image.Image]:
    return [photo(2_000_000 + number, 96) for number in range(150)]


def jpeg(number: int, quality: int = 90) -> bytes:
    return encoded(pool()[number], "JPEG", quality=quality)


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


@dataclass
class Plot:
    """A healthy data set in the making: pictures are taken from the pool, each once."""

    root: Path
    taken: int = 0
    options: dict[str, Any] = field(default_factory=dict)
    data: str = "data"

    def put(self, path: str, content: bytes) -> str:
        """Write one file below the root, and return its path."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        return str(file)

    def fresh(self) -> bytes:
        self.taken += 1
        return jpeg(self.taken - 1)

    def fill(self, folder: str, count: int = EACH) -> list[str]:
        return [self.put(f"{folder}/{number:03}.jpg", self.fresh()) for number in range(count)]

    def checked(self) -> CheckDataReport:
        options = {name: str(self.root / value) if name == "val" else value for name, value in self.options.items()}
        return netlens.check_data(self.root / self.data, workers=1, **options)


Told = Sequence[tuple[str, ...]]
TREES: dict[str, tuple[tuple[str, ...], Callable[[Plot], Told]]] = {}  # codes, the planted one first


def case(*codes: str) -> Callable[[Callable[[Plot], Told]], Callable[[Plot], Told]]:
    """Enter a plot whose report has just these codes, and under the first of them just the places that are returned."""

    def enter(make: Callable[[Plot], Told]) -> Callable[[Plot], Told]:
        TREES[make.__name__] = codes, make
        return make

    return enter


def two_classes(plot: Plot) -> None:
    plot.fill("data/cat")
    plot.fill("data/dog")


@case()
def healthy_folder(plot: Plot) -> Told:
    two_classes(plot)
    return []


@case()
def healthy_splits(plot: Plot) -> Told:
    for split in ("train", "val"):
        for name in ("bird", "cat", "dog"):
            plot.fill(f"data/{split}/{name}")
    return []


@case("hidden-class")
def hidden_class(plot: Plot) -> Told:
    two_classes(plot)
    plot.fill("data/.ipynb_checkpoints")
    return [(str(plot.root / "data/.ipynb_checkpoints"),)]


@case("hidden-file")
def notes_of_macos(plot: Plot) -> Told:
    two_classes(plot)
    return [(plot.put("data/cat/._000.jpg", b"\0\5\x16\7" + bytes(80)),)]


@case("hidden-file")
def hidden_picture(plot: Plot) -> Told:
    two_classes(plot)
    return [(plot.put("data/cat/.000.jpg", plot.fresh()),)]


@case("link-loop")
def link_to_above(plot: Plot) -> Told:
    two_classes(plot)
    (plot.root / "data/dog/again").symlink_to(plot.root / "data")
    return [(str(plot.root / "data/dog/again"),)]


@case("case-collision")
def classes_alike(plot: Plot) -> Told:
    two_classes(plot)
    plot.fill("data/Cat")
    return [(str(plot.root / "data/Cat"), str(plot.root / "data/cat"))]


@case("numeric-classes")
def numbers_as_classes(plot: Plot) -> Told:
    for name in ("1", "2", "10"):
        plot.fill(f"data/{name}")
    return [(str(plot.root / "data"),)]


@case("empty-class")
def empty_class(plot: Plot) -> Told:
    two_classes(plot)
    (plot.root / "data/eel").mkdir()
    return [(str(plot.root / "data/eel"),)]


@case("skipped-file", "mode-palette")
def left_out_by_image_folder(plot: Plot) -> Told:
    two_classes(plot)
    return [(plot.put("data/cat/x.gif", encoded(pool()[149].quantize(64), "GIF")),), (plot.put("data/dog/x.JFIF", plot.fresh()),)]


@case("stray-file")
def beside_the_classes(plot: Plot) -> Told:
    two_classes(plot)
    return [(plot.put("data/x.jpg", plot.fresh()),)]


@case("other-file")
def no_pictures(plot: Plot) -> Told:
    two_classes(plot)
    return [(plot.put("data/cat/notes.txt", b"cats"),), (plot.put("data/Thumbs.db", b"\xd0\xcf"),)]


@case("odd-name")
def line_break_in_a_name(plot: Plot) -> Told:
    two_classes(plot)
    return [(plot.put("data/cat/a\nb.jpg", plot.fresh()),)]


@case("class-index-shift", "class-missing")
def other_indices_in_val(plot: Plot) -> Told:
    for name in ("bird", "cat", "dog"):
        plot.fill(f"data/train/{name}")
    for name in ("cat", "dog"):
        plot.fill(f"data/val/{name}")
    return [("cat",), ("dog",)]


@case("class-missing")
def val_lacks_the_last_class(plot: Plot) -> Told:
    for name in ("train/bird", "train/cat", "train/dog", "val/bird", "val/cat"):
        plot.fill(f"data/{name}")
    return [("dog",)]


@case("class-unknown")
def val_has_one_more(plot: Plot) -> Told:
    for name in ("train/bird", "train/cat", "val/bird", "val/cat", "val/dog"):
        plot.fill(f"data/{name}")
    return [("dog",)]


def train_and_val(plot: Plot) -> None:
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            plot.fill(f"{split}/{name}")
    plot.data, plot.options = "train", {"val": "val"}


def leak(plot: Plot, content: bytes) -> Told:
    """Put the first cat of the training set into the validation set once more, changed."""
    train_and_val(plot)
    return [(str(plot.root / "train/cat/000.jpg"), plot.put("val/cat/x.jpg", content))]


@case("leak-exact")
def the_same_in_val(plot: Plot) -> Told:
    return leak(plot, jpeg(0))


@case("leak-near")
def encoded_again_in_val(plot: Plot) -> Told:
    return leak(plot, jpeg(0, quality=70))


@case("leak-near", "odd-size")
def smaller_in_val(plot: Plot) -> Told:
    return leak(plot, encoded(pool()[0].resize((72, 72)), "JPEG", quality=90))


@case("leak-near")
def mirrored_in_val(plot: Plot) -> Told:
    return leak(plot, encoded(ImageOps.mirror(pool()[0]), "JPEG", quality=90))


@case("duplicate-labels")
def copies_with_other_labels(plot: Plot) -> Told:
    two_classes(plot)
    return [(str(plot.root / "data/cat/000.jpg"), plot.put("data/dog/x.jpg", jpeg(0)))]


@case("duplicate-labels")
def near_copies_with_other_labels(plot: Plot) -> Told:
    two_classes(plot)
    return [(str(plot.root / "data/cat/000.jpg"), plot.put("data/dog/x.jpg", jpeg(0, quality=70)))]


def betrayed(plot: Plot, change: Callable[[int], tuple[str, bytes]]) -> Told:
    """Make three classes of 40, one of them from another source."""
    for name in ("ant", "bee"):
        plot.fill(f"data/{name}", 40)
    for number in range(40):
        suffix, content = change(plot.taken + number)
        plot.put(f"data/cow/{number}{suffix}", content)
    return [("cow",)]


@case("class-betrayed")
def a_class_of_png_files(plot: Plot) -> Told:
    return betrayed(plot, lambda number: (".png", encoded(pool()[number], "PNG")))


@case("class-betrayed")
def a_class_of_another_size(plot: Plot) -> Told:
    return betrayed(plot, lambda number: (".jpg", encoded(pool()[number].resize((120, 80)), "JPEG", quality=90)))


@case("class-betrayed")
def a_class_of_another_quality(plot: Plot) -> Told:
    return betrayed(plot, lambda number: (".jpg", jpeg(number, quality=50)))


@case("class-betrayed")
def a_class_of_grey_pictures(plot: Plot) -> Told:
    return betrayed(plot, lambda number: (".jpg", encoded(pool()[number].convert("L"), "JPEG", quality=90)))


@case("class-imbalance", "tiny-class")
def a_rare_class(plot: Plot) -> Told:
    for name, count in (("ant", 60), ("bee", 60), ("cow", 3)):
        plot.fill(f"data/{name}", count)
    return [("cow",)]


@case("tiny-class")
def a_class_of_four(plot: Plot) -> Told:
    plot.fill("data/cat")
    plot.fill("data/dog", 4)
    return [("dog",)]


@case("one-label")
def one_class(plot: Plot) -> Told:
    plot.fill("data/cat", 30)
    return [("cat",)]


@case("class-missing")
def fewer_classes_than_asked(plot: Plot) -> Told:
    two_classes(plot)
    plot.options = {"classes": 3}
    return [(str(plot.root / "data"),)]


@case("label-range")
def more_classes_than_asked(plot: Plot) -> Told:
    two_classes(plot)
    plot.fill("data/eel")
    plot.options = {"classes": 2}
    return [("eel",)]


@case("odd-size")
def another_size(plot: Plot) -> Told:
    plot.fill("data/cat", 40)
    plot.fill("data/dog", 40)
    return [(plot.put("data/cat/x.jpg", encoded(photo(77, 400), "JPEG")),)]


@case("odd-aspect")
def a_narrow_picture(plot: Plot) -> Told:
    plot.fill("data/cat", 40)
    plot.fill("data/dog", 40)
    return [(plot.put("data/cat/x.jpg", encoded(photo(77, 400).crop((0, 0, 400, 60)), "JPEG")),)]


@case("modes-mixed")
def colour_among_grey(plot: Plot) -> Told:
    for number in range(40):
        plot.put(f"data/{('cat', 'dog')[number % 2]}/{number}.jpg", encoded(pool()[number].convert("L"), "JPEG"))
    return [(plot.put("data/cat/x.jpg", jpeg(50)),), (plot.put("data/dog/x.jpg", jpeg(51)),)]


def table(plot: Plot, change: Callable[[list[list[str]]], None], count: int = 2 * EACH) -> str:
    """Write pictures and a table of their labels, changed; return where the table is."""
    names = [f"{number:03}.jpg" for number in range(count)]
    for name in names:
        plot.put(f"images/{name}", plot.fresh())
    rows = [["file", "label"], *([name, ("cat", "dog")[place % 2]] for place, name in enumerate(names))]
    change(rows)
    with (plot.root / "labels.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
    plot.data, plot.options = "labels.csv", {**plot.options, "images": plot.root / "images"}
    return str(plot.root / "labels.csv")


def row(plot: Plot, place: int, cells: list[str]) -> str:
    """Write the table with other cells in one row, and return where that row is."""
    return f"{table(plot, lambda rows: rows.__setitem__(place, cells))}:{place + 1}"


@case()
def healthy_table(plot: Plot) -> Told:
    table(plot, lambda rows: None)
    return []


@case("row-without-file")
def row_of_no_file(plot: Plot) -> Told:
    path = table(plot, lambda rows: rows.append(["nowhere.jpg", "cat"]))
    return [(f"{path}:26",)]


@case("file-without-row")
def file_of_no_row(plot: Plot) -> Told:
    table(plot, lambda rows: rows.pop())
    return [(str(plot.root / "images/023.jpg"),)]


@case("duplicate-row")
def the_same_row_again(plot: Plot) -> Told:
    path = table(plot, lambda rows: rows.append(rows[4]))
    return [(f"{path}:5", f"{path}:26")]


@case("label-conflict")
def another_label_for_a_file(plot: Plot) -> Told:
    path = table(plot, lambda rows: rows.append([rows[1][0], "dog"]))
    return [(f"{path}:2", f"{path}:26")]


@case("label-missing")
def an_empty_cell(plot: Plot) -> Told:
    return [(row(plot, 7, ["006.jpg", ""]),)]


@case("label-spelling", "tiny-class")
def another_spelling(plot: Plot) -> Told:
    return [(row(plot, 7, ["006.jpg", "Cat "]),)]


@case("label-range")
def beyond_the_classes(plot: Plot) -> Told:
    plot.options = {"classes": 2}

    def change(rows: list[list[str]]) -> None:
        rows[1:] = [[name, str(place % 2)] for place, (name, _) in enumerate(rows[1:])]
        rows[9][1] = "2"

    return [(f"{table(plot, change)}:10",)]


@case("label-type")
def a_name_among_numbers(plot: Plot) -> Told:
    def change(rows: list[list[str]]) -> None:
        rows[1:] = [[name, str(place % 2)] for place, (name, _) in enumerate(rows[1:])]
        rows[9][1] = "cat"

    return [(f"{table(plot, change)}:10",)]


@case("label-type")
def numbers_with_a_point(plot: Plot) -> Told:
    def change(rows: list[list[str]]) -> None:
        rows[1:] = [[name, f"{place % 2}.0"] for place, (name, _) in enumerate(rows[1:])]

    return [(table(plot, change),)]


@case("row-malformed", "file-without-row")
def a_row_of_one_cell(plot: Plot) -> Told:
    return [(row(plot, 7, ["006.jpg"]),)]


@case("leak-exact")
def a_leak_between_splits_of_a_table(plot: Plot) -> Told:
    def change(rows: list[list[str]]) -> None:
        rows[0].append("split")
        for place, cells in enumerate(rows[1:]):
            cells.append("train" if place < 2 * EACH else "val")
        rows.append(["x.jpg", "cat", "val"])

    copy = plot.put("images/x.jpg", jpeg(0))
    table(plot, change, 4 * EACH)
    return [(str(plot.root / "images/000.jpg"), copy)]


@pytest.mark.parametrize("name", TREES)
def test_what_is_planted_in_a_tree_is_found_where_it_is_and_nothing_else(name: str, tmp_path: Path) -> None:
    codes, make = TREES[name]
    plot = Plot(tmp_path)
    planted = make(plot)
    report = plot.checked()
    assert severities(report).keys() - LOOKS == set(codes)
    assert sorted(places(report, codes[0]) if codes else []) == sorted(planted)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads everything")
def test_a_folder_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    plot = Plot(tmp_path)
    two_classes(plot)
    plot.fill("data/eel")
    (tmp_path / "data/eel").chmod(0)
    try:
        assert places(plot.checked(), "folder-unreadable") == [(str(tmp_path / "data/eel"),)]
    finally:
        (tmp_path / "data/eel").chmod(0o700)


# -- loaders -------------------------------------------------------------------------------------------------------------------------

QUICK = (
    *("samples_raise", "shapes_differ", "none_in_a_stream", "own_collate_raises", "worker_dies", "pil_without_transform"),
    *("channels_last", "double_pictures", "labels_from_one", "one_hot_without_one", "text_labels", "every_label_ignored"),
    *("one_label_only", "train_in_order", "fewer_samples_than_a_batch", "no_samples", "a_fifth_is_dropped", "length_too_large"),
    *("floats_to_255", "normalised_twice", "nan_in_a_sample", "numpy_generator_in_init", "stream_once_a_worker", "main_process_only"),
    *("changed_in_place", "keeps_everything", "plain", "val_in_order", "segmentation", "regression", "drawn_by_weight", "endless"),
)
NOT_CALLED = frozenset({"folder-unreadable", "workers-useless", "mode-grey"})  # above; a matter of time; never a finding by that name


def checked(name: str, one: Case) -> CheckDataReport:
    """Check one loader as a user's own script does."""
    from netlens.loading.datasets import called

    options: dict[str, Any] = {"classes": one.classes, "target_rate": one.rate, "samples": 200 if name == "endless" else None}
    if name == "val_in_order":  # what a loader is for is told by its place
        return netlens.check_data(clean_val(), val=called(one.make, name), **options)
    return netlens.check_data(called(one.make, name), **options)


@pytest.mark.parametrize("name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.sweep) for name in CASES])
def test_each_loader_has_the_faults_that_were_planted_in_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from netlens.loaders import batches

    if name.startswith("hangs"):
        monkeypatch.setattr(batches, "PATIENCE", 1.0)
    report = checked(name, CASES[name])
    told = severities(report)
    assert told.keys() >= CASES[name].codes
    assert {code for code, how in told.items() if how > Severity.INFO} <= CASES[name].codes


# -- how much is planted -------------------------------------------------------------------------------------------------------------


def test_as_many_kinds_are_planted_as_were_promised_and_every_code_is_among_them() -> None:
    singles = [kind for kind in DEFECTS if kind != NO_FILE]
    faulty = [name for name, (codes, _) in TREES.items() if codes]
    assert len(singles) >= 45 and len(faulty) >= 30
    assert len([one for one in CASES.values() if one.codes]) >= 30 and len([one for one in CASES.values() if not one.codes]) >= 8
    planted = {code for kind in singles for code in DEFECTS[kind].codes} | {code for codes, _ in TREES.values() for code in codes}
    planted |= {CALLED["mode-grey"]} | {code for one in CASES.values() for code in one.codes} | INFO
    assert BOOK.keys() - planted <= NOT_CALLED
