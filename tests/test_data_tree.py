"""Folders of pictures: the same files, labels and indices as torchvision's ImageFolder, and what is odd about them."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path

import pytest

import netlens.data.tree as tree
from netlens.data.layout import list_folders
from netlens.data.layout_roots import split_of
from netlens.data.listing import Listing
from netlens.data.tree_kinds import IMAGE_FOLDER, LEFT_OUT, NO_PICTURES, suffix_of
from netlens.errors import FileProblem, NetlensError, UsageError

JPEG = b"\xff\xd8\xff\xe0\0\x10JFIF\0"


def filled(root: Path, *names: str) -> Path:
    """Write a small file at each path; a path that ends in a slash becomes a folder."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(exist_ok=True) if name.endswith("/") else path.write_bytes(JPEG)
    return root


def listed(*roots: Path | str) -> Listing:
    return list_folders([("", str(root)) for root in roots])


def odd(listing: Listing, root: Path) -> dict[str, list[tuple[str, ...]]]:
    """Return the paths of each oddity, below the root."""
    return {code: [tuple(os.path.relpath(path, root) for path in item.paths) for item in items] for code, items in listing.oddities.items()}


def same_as_image_folder(root: Path) -> None:
    from torchvision.datasets import ImageFolder

    expected = ImageFolder(str(root), allow_empty=True)
    listing = listed(root)
    (split,) = listing.splits
    taken = [(path, int(label)) for path, label in zip(listing.paths, listing.label, strict=True) if label >= 0]
    taken = [(path, label) for path, label in taken if suffix_of(path) in IMAGE_FOLDER]
    assert split.classes == tuple(expected.classes)
    assert {name: index for index, name in enumerate(split.classes)} == expected.class_to_idx
    assert taken == [sample for sample in expected.samples if not Path(sample[0]).name.startswith("._")]


# --- As ImageFolder


PLAIN = ("cat/a.jpg", "cat/b.jpg", "dog/a.png")


@pytest.mark.parametrize(
    "names",
    [
        PLAIN,
        ("cat/b.JPG", "cat/a.JpEg", "dog/x.PNG", "Dog/x.tiff", "dog/.jpg", "dog/jpg"),
        ("b/x/2.jpg", "b/x-1/1.jpg", "b/x/y/3.jpg", "b/0.jpg", "b-2/z.jpg", "b/x.d/1.jpg"),  # "-" and "." come before "/"
        (".ipynb_checkpoints/", "cat/a.jpg", ".hidden/b.jpg", "dog/.ipynb_checkpoints/a.jpg", "cat/.a.jpg", "cat/._a.jpg"),
        ("10/a.jpg", "1/a.jpg", "2/a.jpg", "9/"),
        ("Ünï/ä.jpg", "日本/猫.webp", "a b/c d.ppm", "😀/x.bmp", "z/\u2028.jpg", "z/line\nbreak.jpg", "z/%41.jpg", "z/[bold].jpg"),
        ("cat/a.gif", "cat/b.jfif", "cat/c.pgm", "cat/notes.txt", "stray.jpg", "dog/d.tif", "only/e.gif"),
        (f"deep/{'x/' * 60}a.jpg", "deep/b.jpg"),
        tuple(f"class_{number % 7}/{number:04}.jpg" for number in range(1000)),
    ],
)
def test_files_labels_and_indices_are_those_of_image_folder(tmp_path: Path, names: tuple[str, ...]) -> None:
    same_as_image_folder(filled(tmp_path, *names))


@pytest.mark.parametrize("seed", range(3))
def test_a_random_tree_comes_in_the_order_of_image_folder(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    names = ("a", "b", "a-b", "a.b", "a b", "A", "0", "é", "_")
    same_as_image_folder(filled(tmp_path, *("/".join(draw.choices(names, k=draw.randint(1, 4))) + "/x.jpg" for _ in range(80))))


def test_links_are_followed_as_image_folder_does(tmp_path: Path) -> None:
    root = filled(tmp_path / "data", *PLAIN, "cat/more/c.jpg")
    filled(tmp_path / "elsewhere", "one.jpg", "two/two.jpg")
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "dog" / "linked").symlink_to(tmp_path / "elsewhere")  # a second way to one folder is no circle
    (root / "dog" / "file.jpg").symlink_to(tmp_path / "elsewhere" / "one.jpg")
    (root / "dog" / "broken.jpg").symlink_to(tmp_path / "nothing.jpg")
    (root / "dog" / "itself.jpg").symlink_to(root / "dog" / "itself.jpg")
    same_as_image_folder(root)
    assert not listed(root).oddities


def test_bytes_that_are_no_text_are_listed_as_image_folder_does(tmp_path: Path) -> None:
    filled(tmp_path, *PLAIN)
    (tmp_path / "cat" / os.fsdecode(b"\xff\xfe.jpg")).write_bytes(JPEG)
    same_as_image_folder(tmp_path)
    assert odd(listed(tmp_path), tmp_path) == {"odd-name": [("cat/\udcff\udcfe.jpg",)]}


def test_ten_thousand_entries_come_in_order(tmp_path: Path) -> None:
    folder = filled(tmp_path, "cat/", "dog/a.jpg") / "cat"
    for number in range(10_000):
        os.close(os.open(folder / f"{number}.jpg", os.O_CREAT))
    listing = listed(tmp_path)
    paths = list(listing.paths)
    assert len(paths) == 10_001
    assert all(a < b for a, b in pairwise(paths))
    assert not listing.oddities


# --- Oddities, each alone


ODD: dict[str, tuple[tuple[str, ...], dict[str, list[tuple[str, ...]]]]] = {
    "nothing": ((), {}),
    "hidden class": ((".cache/a.jpg",), {"hidden-class": [(".cache",)]}),
    "empty hidden class": ((".ipynb_checkpoints/",), {"hidden-class": [(".ipynb_checkpoints",)]}),
    "class of macOS": (("__MACOSX/cat/._a.jpg",), {"hidden-class": [("__MACOSX",)]}),
    "AppleDouble": (("cat/._a.jpg",), {"hidden-file": [("cat/._a.jpg",)]}),
    "hidden file": (("cat/.a.jpg",), {"hidden-file": [("cat/.a.jpg",)]}),
    "hidden folder in a class": (("cat/.ipynb_checkpoints/a.jpg",), {"hidden-file": [("cat/.ipynb_checkpoints",)]}),
    "skipped": (("cat/c.gif", "dog/d.JFIF"), {"skipped-file": [("cat/c.gif",), ("dog/d.JFIF",)]}),
    "without suffix": (("cat/ILSVRC_1",), {"skipped-file": [("cat/ILSVRC_1",)]}),
    "stray": (("s.jpg", "t.gif"), {"skipped-file": [("t.gif",)], "stray-file": [("s.jpg",), ("t.gif",)]}),
    "others": (("cat/a.txt", "dog/a.txt", "Thumbs.db"), {"other-file": [("cat/a.txt",), ("Thumbs.db",)]}),
    "classes alike": (("Cat/a.jpg",), {"case-collision": [("Cat", "cat")]}),
    "files alike": (("cat/A.JPG",), {"case-collision": [("cat/A.JPG", "cat/a.jpg")]}),
    "accents alike": (("cat/e\u0301.jpg", "cat/\u00e9.jpg"), {"case-collision": [("cat/e\u0301.jpg", "cat/\u00e9.jpg")]}),
    "sharp s alike": (("cat/STRASSE.jpg", "cat/straße.jpg"), {"case-collision": [("cat/STRASSE.jpg", "cat/straße.jpg")]}),
    "empty class": (("bird/",), {"empty-class": [("bird",)]}),
    "class of what is left out": (("bird/a.gif",), {"empty-class": [("bird",)], "skipped-file": [("bird/a.gif",)]}),
    "line break": (("cat/a\nb.jpg",), {"odd-name": [("cat/a\nb.jpg",)]}),
    "control character": (("cat\x1b[31m/b.jpg",), {"odd-name": [("cat\x1b[31m",)]}),
}


@pytest.mark.parametrize("name", ODD)
def test_one_oddity_has_one_code(tmp_path: Path, name: str) -> None:
    planted, expected = ODD[name]
    listing = listed(filled(tmp_path, *PLAIN, *planted))
    found = odd(listing, tmp_path)
    assert {code: sorted(paths) for code, paths in found.items()} == {code: sorted(paths) for code, paths in expected.items()}


@pytest.mark.parametrize("names", [("1", "10", "2"), ("0", "1", "2", "10")])
def test_numeric_classes_whose_order_is_that_of_text(tmp_path: Path, names: tuple[str, ...]) -> None:
    listing = listed(filled(tmp_path, *(f"{name}/a.jpg" for name in names)))
    (item,) = listing.oddities["numeric-classes"]
    assert item.paths == (str(tmp_path),)
    assert item.detail == "ImageFolder's indices are " + ", ".join(f"{name}: {index}" for index, name in enumerate(sorted(names)))


@pytest.mark.parametrize("names", [tuple("0123456789"), ("00", "01", "10", "02"), ("5", "6"), ("1", "10", "2", "ten")])
def test_numeric_classes_in_order_are_silent(tmp_path: Path, names: tuple[str, ...]) -> None:
    assert not listed(filled(tmp_path, *(f"{name}/a.jpg" for name in names))).oddities


def test_a_loop_is_told_once_and_not_walked(tmp_path: Path) -> None:
    root = filled(tmp_path, *PLAIN)
    (root / "cat" / "up").symlink_to(root)
    (root / "cat" / "here").symlink_to(root / "cat")
    listing = listed(root)
    assert sorted(odd(listing, root)["link-loop"]) == [("cat/here",), ("cat/up",)]
    assert {item.detail for item in listing.oddities["link-loop"]} == {f"leads back to {root}", f"leads back to {root}/cat"}
    assert len(listing) == 3


def test_an_unreadable_folder_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Permissions do not bind root, who may run the tests."""
    root = filled(tmp_path, *PLAIN)

    def refused(path: str) -> object:
        if path.endswith("dog"):
            raise PermissionError(13, "Permission denied", path)
        return os.scandir(path)

    monkeypatch.setattr(tree, "scandir", refused)
    listing = listed(root)
    assert odd(listing, root) == {"folder-unreadable": [("dog",)]}
    assert listing.oddities["folder-unreadable"][0].detail == "Permission denied"
    assert listing.splits[0].classes == ("cat", "dog")


def test_what_is_no_file_is_never_opened(tmp_path: Path) -> None:
    """To open a pipe would wait for ever."""
    root = filled(tmp_path, *PLAIN)
    os.mkfifo(root / "cat" / "pipe")
    os.mkfifo(root / "cat" / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(root / "cat" / "socket"))
    (root / "dog" / "zero").symlink_to("/dev/zero")
    listing = listed(root)
    assert [Path(path).name for path in listing.paths] == ["a.jpg", "b.jpg", "pipe.jpg", "a.png"]  # ImageFolder takes pipe.jpg too
    assert [item.detail for item in listing.oddities["other-file"]] == ["3 files without a suffix"]


@pytest.mark.parametrize(
    ("first", "picture"),
    [
        (b"\xff\xd8\xff\xe1", True),
        (b"\x89PNG\r\n\x1a\n", True),
        (b"GIF89a", True),
        (b"RIFF\x0a\0\0\0WEBPVP8 ", True),
        (b"RIFF\x0a\0\0\0WAVEfmt ", False),
        (b"BM\x36\0\x0c\0\0\0\0\0\x36\0", True),
        (b"BMW 320i\nAudi A4\n", False),
        (b"II*\0\x08\0\0\0", True),
        (b"\0\0\0\x1cftypavif\0\0", True),
        (b"\0\0\0\x18ftypheic\0\0", True),
        (b"\0\0\0\x18ftypisom\0\0", False),
        (b"#!/bin/sh", False),
        (b"", False),
    ],
)
def test_a_file_of_unknown_suffix_is_known_by_its_first_bytes(tmp_path: Path, first: bytes, picture: bool) -> None:
    root = filled(tmp_path, *PLAIN)
    (root / "cat" / "x.0001").write_bytes(first)
    assert ("skipped-file" in listed(root).oddities) is picture
    assert ("other-file" in listed(root).oddities) is not picture


def test_the_kinds_of_suffixes_do_not_overlap() -> None:
    from torchvision.datasets.folder import IMG_EXTENSIONS

    assert set(IMG_EXTENSIONS) == IMAGE_FOLDER
    assert not (IMAGE_FOLDER | LEFT_OUT) & NO_PICTURES and not IMAGE_FOLDER & LEFT_OUT


# --- Layouts


def test_a_flat_folder_has_no_labels(tmp_path: Path) -> None:
    listing = listed(filled(tmp_path, "b.jpg", "a.png", "masks/"))
    assert [Path(path).name for path in listing.paths] == ["a.png", "b.jpg"]
    assert listing.splits[0].kind == "flat" and listing.splits[0].classes == ()
    assert listing.label.tolist() == [-1, -1]
    assert not listing.oddities


def test_a_flat_folder_may_have_a_folder_beside_its_pictures(tmp_path: Path) -> None:
    listing = listed(filled(tmp_path, "a.jpg", "b.jpg", "extra/c.jpg", ".thumbnails/a.jpg"))
    assert listing.splits[0].kind == "flat" and set(listing.label.tolist()) == {-1} and len(listing) == 4
    assert odd(listing, tmp_path) == {"hidden-file": [(".thumbnails",)]}
    assert "extra" in listing.notes[0]


def test_pictures_beside_classes_have_no_label(tmp_path: Path) -> None:
    listing = listed(filled(tmp_path, *PLAIN, *(f"{number}.jpg" for number in range(9))))
    assert listing.splits[0].kind == "folder"
    assert listing.label.tolist() == [-1] * 9 + [0, 0, 1]
    assert len(listing.oddities["stray-file"]) == 9


def test_what_image_folder_leaves_out_is_counted_by_suffix(tmp_path: Path) -> None:
    listing = listed(filled(tmp_path, *PLAIN, "cat/1.gif", "cat/2.GIF", "dog/3.heic", "dog/raw"))
    assert listing.splits[0].skipped == ((".gif", 2), ("", 1), (".heic", 1))
    assert len(listing) == 7


def test_one_class_with_folders_is_noted(tmp_path: Path) -> None:
    listing = listed(filled(tmp_path, "animals/cat/a.jpg", "animals/dog/b.jpg"))
    assert listing.splits[0].classes == ("animals",)
    assert f"name {tmp_path}/animals" in listing.notes[0]


def test_the_way_to_the_classes_may_be_long(tmp_path: Path) -> None:
    listing = listed(filled(tmp_path, "a/b/c/cat/1.jpg", "a/b/c/dog/2.jpg", "a/b/README.md"))
    assert f"name {tmp_path}/a/b/c" in listing.notes[0]
    assert not listed(filled(tmp_path / "x", "a/1.jpg", "a/b/2.jpg", "a/c/3.jpg")).notes  # a class that has pictures itself


@pytest.mark.parametrize("folder", ["images", "JPEGImages", "jpg"])
def test_a_folder_of_all_pictures_beside_labels_is_no_class(tmp_path: Path, folder: str) -> None:
    listing = listed(filled(tmp_path, f"{folder}/a.jpg", f"{folder}/b.jpg", "labels/a.txt", "labels/b.txt"))
    assert [(split.kind, split.classes) for split in listing.splits] == [("flat", ())]
    assert listing.label.tolist() == [-1, -1] and set(listing.oddities) == {"other-file"}
    assert listing.notes == (f"all pictures lie in {tmp_path}/{folder}, which is taken for no class",)


def test_images_with_classes_in_it_or_beside_a_class_is_one(tmp_path: Path) -> None:
    assert listed(filled(tmp_path / "a", "images/cat/1.jpg", "images/dog/2.jpg")).splits[0].classes == ("images",)
    assert listed(filled(tmp_path / "b", "images/1.jpg", "cat/2.jpg")).splits[0].classes == ("cat", "images")


def test_a_split_without_classes_beside_one_with_classes_is_noted(tmp_path: Path) -> None:
    listing = listed(filled(tmp_path, "train/cat/a.jpg", "train/dog/b.jpg", "test/c.jpg"))
    assert listing.notes[-1] == f"{tmp_path}/test has no folders of classes: its pictures have no labels"
    assert not any("no folders of classes" in note for note in listed(filled(tmp_path / "flat", "train/1.jpg", "test/2.jpg")).notes)


SPLITS = ("train/cat/a.jpg", "train/dog/b.jpg", "val/cat/c.jpg", "val/dog/d.jpg")


@pytest.mark.parametrize("wrap", ["", "images/", "imagenette2/"])
def test_splits_are_found_in_one_folder(tmp_path: Path, wrap: str) -> None:
    listing = listed(filled(tmp_path, *(wrap + name for name in SPLITS), *([wrap + "README.md"] if wrap else [])))
    assert [(split.name, split.root, split.classes) for split in listing.splits] == [
        ("train", f"{tmp_path}/{wrap}train", ("cat", "dog")),
        ("val", f"{tmp_path}/{wrap}val", ("cat", "dog")),
    ]
    assert listing.split.tolist() == [0, 0, 1, 1] and listing.label.tolist() == [0, 1, 0, 1]
    assert [os.path.relpath(path, tmp_path / wrap) for path in listing.paths] == list(SPLITS)
    assert "train, val" in listing.notes[0]


def test_splits_of_yolo_are_flat(tmp_path: Path) -> None:
    listing = listed(filled(tmp_path, "images/train/a.jpg", "images/val/b.jpg", "labels/train/a.txt", "labels/val/b.txt"))
    assert [(split.name, split.kind) for split in listing.splits] == [("train", "flat"), ("val", "flat")]
    assert not listing.oddities


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (("Training/a/1.jpg", "Validation/a/2.jpg", "TEST/a/3.jpg"), ["train", "val", "test"]),
        (("train2017/1.jpg", "val2017/2.jpg", "annotations/x.json"), ["train", "val"]),
        (("train/a/1.jpg", "val/a/2.jpg", "valid/a/3.jpg"), ["train", "val", "valid"]),
        (("train/cat/1.jpg", "train/dog/1.jpg"), ["train"]),  # alone, it is no class
        (("train/1.jpg", "bus/1.jpg", "plane/1.jpg"), [""]),  # beside others it is one
        (("train/a/1.jpg", "bus/a/1.jpg"), [""]),
        (("train/cat/1.jpg", "train/dog/1.jpg", "unlabeled/1.jpg"), ["train"]),  # unless classes are in it
        (("train/a/1.jpg", "test/"), ["train"]),
    ],
)
def test_names_of_splits(tmp_path: Path, names: tuple[str, ...], splits: list[str]) -> None:
    assert [split.name for split in listed(filled(tmp_path, *names)).splits] == splits


@pytest.mark.parametrize(
    ("text", "name"), [("dev", "val"), (" Train ", "train"), ("tests", None), ("trainer", None), ("test_images", "test"), ("0", None)]
)
def test_split_of(text: str, name: str | None) -> None:
    assert split_of(text) == name


def test_named_splits_are_taken_as_they_are(tmp_path: Path) -> None:
    filled(tmp_path, "a/cat/1.jpg", "a/val/2.jpg", "a/train/2.jpg", "b/cat/3.jpg")
    listing = list_folders([("train", f"{tmp_path}/a/"), ("val", f"{tmp_path}/b")])
    assert [(split.name, split.classes) for split in listing.splits] == [("train", ("cat", "train", "val")), ("val", ("cat",))]
    assert listing.split.dtype == "uint8" and listing.label.dtype == "int32"


def test_paths_are_as_a_user_types_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path, *PLAIN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for typed, first in (("./", "./cat/a.jpg"), (".", "./cat/a.jpg"), ("./cat/..//", "./cat/../cat/a.jpg"), ("~", f"{tmp_path}/cat/a.jpg")):
        assert next(iter(listed(typed).paths)) == first


def test_the_order_of_the_file_system_does_not_matter(tmp_path: Path) -> None:
    names = [*PLAIN, *SPLITS, "x.txt", "y.db", "cat/._a.jpg"]
    one, two = filled(tmp_path / "1", *names), filled(tmp_path / "2", *reversed(names))

    def below(root: Path) -> tuple[object, ...]:
        listing = listed(root)
        return [os.path.relpath(path, root) for path in listing.paths], listing.label.tolist(), odd(listing, root)

    assert below(one) == below(two)


# --- Errors


@pytest.mark.parametrize(
    ("names", "asked", "message", "hint"),
    [
        (("data/a/1.jpg",), "dta", "there is no folder", "did you mean 'data'?"),
        ((), "", "there is no folder", "check the path"),
        ((), "no/where", "there is no folder", "check the path"),
        ((), "a\0b", "there is no folder", "check the path"),
        (("data/",), "data", "holds no files", "name the folder"),
        (("data/cat/", "data/dog/"), "data", "holds no files", "name the folder"),
        (("data.zip",), "data.zip", "is a file", "unpack it"),
        (("labels.csv",), "labels.csv", "is a file", "--images"),
        (("0.tar",), "0.tar", "is a file", "unpack it"),
        (("cat.jpg",), "cat.jpg", "is a file", "name the folder that it is in"),
        (("data/0.tar", "data/1.tar", "data/x.txt"), "data", "2 .tar, 1 .txt", "Dataset or DataLoader"),
        (("data/all.zip",), "data", "1 .zip", "unpack"),
        (("data/train/x.csv", "data/val/y.csv"), "data", "2 .csv", "--images"),
        (("data/._a.jpg", "data/LICENSE.txt"), "data", "1 .txt", "pictures end in"),
    ],
)
def test_errors_say_what_to_do(tmp_path: Path, names: Iterable[str], asked: str, message: str, hint: str) -> None:
    filled(tmp_path, *names)
    with pytest.raises(FileProblem) as caught:
        listed(f"{tmp_path}/{asked}" if asked else "")
    assert message in caught.value.message and hint in caught.value.hint
    assert "\n" not in caught.value.message + caught.value.hint


def test_each_named_split_needs_pictures(tmp_path: Path) -> None:
    filled(tmp_path, "train/a/1.jpg", "val/")
    with pytest.raises(FileProblem, match="val holds no files"):
        list_folders([("train", f"{tmp_path}/train"), ("val", f"{tmp_path}/val")])


@pytest.mark.parametrize(
    "inner", [lambda root: root / "val", lambda root: root, lambda root: root / "val" / "..", lambda root: root / "link"]
)
def test_a_split_in_another_is_refused(tmp_path: Path, inner: Callable[[Path], Path]) -> None:
    filled(tmp_path, *SPLITS)
    (tmp_path / "link").symlink_to(tmp_path / "val")
    with pytest.raises(UsageError, match="would be in both splits") as caught:
        list_folders([("train", str(tmp_path)), ("val", str(inner(tmp_path)))])
    same = inner(tmp_path).resolve() == tmp_path
    assert (("are the same folder" in caught.value.message), ("for example" in caught.value.hint)) == (same, not same)


def test_an_unreadable_root_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: str) -> object:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(tree, "scandir", refused)
    with pytest.raises(NetlensError, match="cannot be read: Permission denied"):
        listed(filled(tmp_path, *PLAIN))
