"""Tables of labels: which files and class indices they mean, however they are written, and what is wrong with their rows."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from netlens.data.listing import Listing
from netlens.data.table import list_tables
from netlens.errors import FileProblem, NetlensError, UsageError
from tests.test_data_tree import filled

FILES = ("a.jpg", "b.jpg", "c.jpg", "d.jpg")
HEALTHY = "file,label\na.jpg,cat\nb.jpg,dog\nc.jpg,cat\nd.jpg,dog\n"
SAMPLES = [("a.jpg", "cat"), ("b.jpg", "dog"), ("c.jpg", "cat"), ("d.jpg", "dog")]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with four pictures in `images`."""
    monkeypatch.chdir(tmp_path)
    filled(tmp_path / "images", *FILES)
    return tmp_path


def listed(text: str | bytes, images: str | None = "images", **options: object) -> Listing:
    Path("labels.csv").write_bytes(text.encode() if isinstance(text, str) else text)
    return list_tables([("", "labels.csv")], images, **options)  # type: ignore[arg-type]


def samples(listing: Listing) -> list[tuple[str, str | None]]:
    """Return each file's name and the name of its class."""
    classes = [listing.splits[place].classes for place in listing.split]
    pairs = zip(listing.paths, listing.label, classes, strict=True)
    return [(Path(path).name, names[label] if label >= 0 else None) for path, label, names in pairs]


def odd(listing: Listing) -> dict[str, list[tuple[str, ...]]]:
    return {code: [item.paths for item in items] for code, items in listing.oddities.items()}


# --- However it is written


@pytest.mark.parametrize(
    "text",
    [
        HEALTHY,
        HEALTHY.replace(",", ";"),
        HEALTHY.replace(",", "\t"),
        HEALTHY.replace(",", "|"),
        HEALTHY.replace(",", ", "),
        HEALTHY.replace("\n", "\r\n"),
        HEALTHY.replace("\n", "\r"),
        HEALTHY.replace("\n", "\n\n").replace("dog\n", "dog\n,\n"),
        HEALTHY.rstrip(),
        HEALTHY.removeprefix("file,label\n"),
        "".join(f'"{line.replace(",", chr(34) + "," + chr(34))}"\n' for line in HEALTHY.splitlines()),
        "\ufeff" + HEALTHY,
        HEALTHY.encode("utf-16"),
        HEALTHY.replace(".jpg", ""),
        HEALTHY.replace("\n", ",\n"),
        "note,label,id\n" + "".join(f'"one, two\nthree",{label},{name[0]}\n' for name, label in SAMPLES),
        "mask,image,label\n" + "".join(f"m{name},{name},{label}\n" for name, label in SAMPLES),
        ",Image Name,Class\n" + "".join(f"{row},{name},{label}\n" for row, (name, label) in enumerate(SAMPLES)),
        "image,cat,dog\na.jpg,1,0\nb.jpg,0,1\nc.jpg,1.0,0.0\nd.jpg,0,1\n",
        "image,width,label\n" + "".join(f"{name},{row + 640},{label}\n" for row, (name, label) in enumerate(SAMPLES)),
        HEALTHY.replace("a.jpg", "./x/../a.jpg"),
    ],
)
def test_the_same_table_in_many_hands(data: Path, text: str | bytes) -> None:
    (data / "images" / "x").mkdir()
    listing = listed(text)
    assert samples(listing) == SAMPLES
    assert listing.splits[0].classes == ("cat", "dog") and listing.splits[0].kind == "table" and listing.splits[0].root == "labels.csv"
    assert not listing.oddities
    assert listing.label.dtype == "int32" and listing.split.dtype == "uint8"


def test_a_list_as_caffe_writes_it(data: Path) -> None:
    listing = listed("a.jpg 1\nb.jpg 0\nc.jpg 1\n")
    assert samples(listing) == [("a.jpg", "1"), ("b.jpg", "0"), ("c.jpg", "1")]


def test_windows_1252(data: Path) -> None:
    filled(data / "images", "é.jpg")
    listing = listed("file,label\na.jpg,cat\né.jpg,chaton mâle\n".encode("cp1252"))
    assert samples(listing) == [("a.jpg", "cat"), ("é.jpg", "chaton mâle")]
    assert any("Windows-1252" in note for note in listing.notes)


def test_a_byte_that_is_no_utf_8_may_come_late(data: Path) -> None:
    rows = "file,label,note\n" + f"a.jpg,cat,{'x' * 10_000}\n" * 200  # 2 MB
    listing = listed(rows.encode() + "b.jpg,mâle,x\n".encode("cp1252"))
    assert samples(listing) == [("a.jpg", "cat"), ("b.jpg", "mâle")]


def test_what_was_chosen_is_said(data: Path) -> None:
    text = "who,picture,species,split\n" + "".join(f"x,{name},{label},train\n" for name, label in SAMPLES)
    assert listed(text).notes == ("labels.csv: paths are in column picture, labels in column species, splits in column split",)


@pytest.mark.parametrize(("path", "label", "expected"), [("second", "kind", "b.jpg"), ("first", "rank", "a.jpg")])
def test_columns_can_be_named(data: Path, path: str, label: str, expected: str) -> None:
    listing = listed("first,second,kind,rank\na.jpg,b.jpg,cat,1\n", path_column=path, label_column=label)
    assert samples(listing) == [(expected, {"kind": "cat", "rank": "1"}[label])]


def test_columns_without_a_header_are_numbered_from_1(data: Path) -> None:
    listing = listed("cat,a.jpg,7\ndog,b.jpg,8\n", label_column="1")
    assert samples(listing) == [("a.jpg", "cat"), ("b.jpg", "dog")]


def test_a_table_of_ids(data: Path) -> None:
    filled(data / "images", "007.PNG", "008.png")
    listing = listed("id,label\n007,cat\n008,dog\n")
    assert samples(listing) == [("007.PNG", "cat"), ("008.png", "dog")]
    assert listing.notes[1] == "labels.csv: files are those of column id with .PNG, .png added"


def test_paths_begin_at_images_else_beside_the_table_else_here(data: Path) -> None:
    filled(data, "a.jpg", "sub/a.jpg", "sub/b.jpg", "sub/e.jpg", "f.jpg")
    (data / "sub" / "labels.csv").write_text(f"file\na.jpg\nb.jpg\ne.jpg\nf.jpg\n../images/c.jpg\n{data}/images/d.jpg\n")
    listing = list_tables([("", "sub/labels.csv")], "./images/")
    expected = ["./images/a.jpg", "./images/b.jpg", "sub/e.jpg", "f.jpg", "./images/../images/c.jpg", f"{data}/images/d.jpg"]
    assert list(listing.paths) == expected
    assert not listing.oddities
    assert list(list_tables([("", "sub/labels.csv")], None).paths)[:2] == ["sub/a.jpg", "sub/b.jpg"]


@pytest.mark.parametrize("asked", [None, "data"])
def test_pictures_may_lie_in_parts_beside_the_table_or_in_the_folder_that_is_named(data: Path, asked: str | None) -> None:
    filled(data / "data", "part_1/1.jpg", "part_1/2.jpg", "part_2/3.jpg", ".thumbnails/1.jpg")
    (data / "data" / "labels.csv").write_text("id,dx\n1,a\n2,b\n3,a\n")
    listing = list_tables([("", "data/labels.csv")], asked)
    assert list(listing.paths) == ["data/part_1/1.jpg", "data/part_1/2.jpg", "data/part_2/3.jpg"]
    assert not listing.oddities
    assert listing.notes[2] == "data/labels.csv: files were found in data/part_1/, data/part_2/"


def test_a_name_that_several_parts_have_names_no_file(data: Path) -> None:
    filled(data / "data", "test/1.jpg", "train/1.jpg", "train/2.jpg")
    (data / "data" / "labels.csv").write_text("id,dx\n1,a\n2,b\n")
    listing = list_tables([("", "data/labels.csv")], None)
    assert list(listing.paths) == ["data/train/2.jpg"] and odd(listing) == {"row-without-file": [("data/labels.csv:2",)]}


# --- Labels


@pytest.mark.parametrize(
    ("labels", "options", "classes", "indices"),
    [
        (["2", "0", "2", "1"], {}, ("0", "1", "2"), [2, 0, 2, 1]),
        (["3", "0", "1", "0"], {}, ("0", "1", "2", "3"), [3, 0, 1, 0]),  # 2 has no files
        (["1", "0", "1", "0"], {"classes": 3}, ("0", "1", "2"), [1, 0, 1, 0]),
        (["1", "0", "1", "0"], {"classes": ["no", "yes"]}, ("no", "yes"), [1, 0, 1, 0]),
        (["dog", "cat", "dog", "cat"], {"classes": ["dog", "cat", "cow"]}, ("dog", "cat", "cow"), [0, 1, 0, 1]),
        (["b", "B", "a", "10"], {}, ("10", "B", "a", "b"), [3, 1, 2, 0]),  # code points
        (["0", "F", "9", "A"], {}, ("0", "9", "A", "F"), [0, 3, 1, 2]),  # digits and letters are one kind of names
        (["n02", "n01", "n02", "n01"], {}, ("n01", "n02"), [1, 0, 1, 0]),
        (["None", "cat", "None", "cat"], {}, ("None", "cat"), [0, 1, 0, 1]),
    ],
)
def test_class_indices(data: Path, labels: list[str], options: Mapping[str, object], classes: tuple[str, ...], indices: list[int]) -> None:
    listing = listed("file,label\n" + "".join(f"{name},{label}\n" for name, label in zip(FILES, labels, strict=True)), **options)
    assert listing.splits[0].classes == classes
    assert listing.label.tolist() == indices
    assert not listing.oddities


@pytest.mark.parametrize(
    ("table", "note"),
    [
        ("file,score\na.jpg,0.31\nb.jpg,0.5\nc.jpg,0.77\nd.jpg,1\n", "are no classes"),
        ("file,cat,dog\na.jpg,1,0\nb.jpg,1,1\nc.jpg,0,0\nd.jpg,0,1\n", "several labels at once"),
        ("file,left,right\na.jpg,x,y\nb.jpg,x,y\n", "name it with --label-column: left, right"),
        ("file\na.jpg\nb.jpg\n", "no column that is known to hold labels"),
    ],
)
def test_tables_without_single_labels(data: Path, table: str, note: str) -> None:
    listing = listed(table)
    assert set(listing.label.tolist()) == {-1} and listing.splits[0].classes == ()
    assert any(note in said for said in listing.notes), listing.notes
    assert "label-missing" not in listing.oddities


def test_labels_that_begin_at_1_are_noted(data: Path) -> None:
    listing = listed("file,label\na.jpg,1\nb.jpg,2\nc.jpg,3\nd.jpg,1\n")
    assert listing.label.tolist() == [1, 2, 3, 1] and listing.splits[0].classes == ("0", "1", "2", "3")
    assert any("begin at 1" in note for note in listing.notes)


def test_identifiers_are_names(data: Path) -> None:
    listing = listed("file,label\na.jpg,1000000\nb.jpg,9\nc.jpg,1000000\nd.jpg,20\n")
    assert listing.splits[0].classes == ("9", "20", "1000000") and listing.label.tolist() == [2, 0, 2, 1]


# --- Splits


def test_a_column_of_splits(data: Path) -> None:
    listing = listed("file,label,Split\na.jpg,cat,test\nb.jpg,dog,TRAIN\nc.jpg,cat,valid\nd.jpg,dog,train\na.jpg,cat,train\n")
    assert [split.name for split in listing.splits] == ["train", "val", "test"]
    assert samples(listing) == [("b.jpg", "dog"), ("d.jpg", "dog"), ("a.jpg", "cat"), ("c.jpg", "cat"), ("a.jpg", "cat")]
    assert listing.split.tolist() == [0, 0, 0, 1, 2]
    assert {split.classes for split in listing.splits} == {("cat", "dog")}
    assert not listing.oddities  # one file in two splits is a leak, and no repeated row


def test_a_file_may_be_repeated_in_a_split_and_between_splits(data: Path) -> None:
    rows = "images/a.jpg,cat,train\nimages/a.jpg,cat,val\n" * 2 + "images/b.jpg,cat,train\n"
    listing = listed("file,label,split\n" + rows, None)
    assert samples(listing) == [("a.jpg", "cat"), ("b.jpg", "cat"), ("a.jpg", "cat")] and listing.split.tolist() == [0, 0, 1]
    assert odd(listing) == {"duplicate-row": [("labels.csv:2", "labels.csv:4"), ("labels.csv:3", "labels.csv:5")]}


def test_a_row_of_no_split(data: Path) -> None:
    listing = listed("file,label,split\na.jpg,cat,test\nb.jpg,dog,\nc.jpg,cat,train\nd.jpg,cat,train\n")
    assert odd(listing) == {"row-malformed": [("labels.csv:3",)]}
    assert samples(listing) == [("c.jpg", "cat"), ("d.jpg", "cat"), ("a.jpg", "cat")]


def test_numbered_folds_are_no_splits(data: Path) -> None:
    listing = listed("file,label,fold\na.jpg,cat,0\nb.jpg,dog,1\nc.jpg,cat,2\nd.jpg,dog,3\n")
    assert samples(listing) == SAMPLES and len(listing.splits) == 1


def test_a_table_for_each_split(data: Path) -> None:
    Path("train.csv").write_text("file,label\na.jpg,cat\nb.jpg,dog\n")
    Path("val.csv").write_text("path;class;set\nc.jpg;dog;train\nd.jpg;eel;val\na.jpg;cat;test\n")
    listing = list_tables([("train", "train.csv"), ("val", "val.csv")], "images")
    assert [(split.name, split.root, split.classes) for split in listing.splits] == [
        ("train", "train.csv", ("cat", "dog", "eel")),
        ("val", "val.csv", ("cat", "dog", "eel")),
    ]
    assert listing.split.tolist() == [0, 0, 1, 1, 1]
    assert samples(listing)[3] == ("d.jpg", "eel")
    assert not listing.oddities


# --- What is wrong with rows, each alone

MANY = "".join(f"{number}.jpg,{('cat', 'dog')[number % 2]}\n" for number in range(40))  # enough for one to be a stray
NUMBERS = MANY.replace("cat", "0").replace("dog", "1")


@pytest.mark.parametrize(
    ("rows", "options", "expected"),
    [
        (MANY, {}, {}),
        (MANY + "nowhere.jpg,cat\n", {}, {"row-without-file": [("labels.csv:42",)]}),
        (MANY + ",cat\n", {}, {"row-without-file": [("labels.csv:42",)]}),
        (MANY + "folder,cat\n", {}, {"row-without-file": [("labels.csv:42",)]}),
        (MANY.replace("7.jpg,dog\n", "", 1), {}, {"file-without-row": [("images/7.jpg",)]}),
        (MANY + "3.jpg,dog\n./3.jpg,dog\n", {}, {"duplicate-row": [("labels.csv:5", "labels.csv:42", "labels.csv:43")]}),
        (MANY + "3.jpg,cat\n", {}, {"label-conflict": [("labels.csv:5", "labels.csv:42")]}),
        (MANY.replace("2.jpg,cat", "2.jpg,", 1), {}, {"label-missing": [("labels.csv:4",)]}),
        (MANY.replace("2.jpg,cat", "2.jpg,NaN", 1), {}, {"label-missing": [("labels.csv:4",)]}),
        (MANY.replace("2.jpg,cat", "2.jpg,Cat ", 1), {}, {"label-spelling": [("labels.csv:4",)]}),
        (MANY.replace("2.jpg,cat", "2.jpg,3", 1), {}, {"label-type": [("labels.csv:4",)]}),
        (NUMBERS.replace("2.jpg,0", "2.jpg,cat", 1), {}, {"label-type": [("labels.csv:4",)]}),
        (NUMBERS.replace("2.jpg,0", "2.jpg,0.5", 1), {}, {"label-type": [("labels.csv:4",)]}),
        (NUMBERS.replace(",0\n", ",0.0\n").replace(",1\n", ",1.0\n"), {}, {"label-type": [("labels.csv",)]}),
        (NUMBERS.replace("2.jpg,0", "2.jpg,-1", 1), {}, {"label-range": [("labels.csv:4",)]}),
        (NUMBERS.replace("2.jpg,0", "2.jpg,2", 1), {"classes": 2}, {"label-range": [("labels.csv:4",)]}),
        (NUMBERS.replace("2.jpg,0", "2.jpg,2", 1), {"classes": ("a", "b")}, {"label-range": [("labels.csv:4",)]}),
        (MANY.replace("2.jpg,cat", "2.jpg,cow", 1), {"classes": ("cat", "dog")}, {"label-range": [("labels.csv:4",)]}),
        (MANY.replace("2.jpg,cat", "2.jpg,cow", 1), {"classes": 2}, {"label-range": [("labels.csv:4",)]}),  # the rarest
        (MANY + "3.jpg,\n", {}, {"duplicate-row": [("labels.csv:5", "labels.csv:42")], "label-missing": [("labels.csv:42",)]}),
        (MANY + "3.jpg,one,dog\n", {}, {"row-malformed": [("labels.csv:42",)]}),
        (MANY + "3.jpg\n", {}, {"row-malformed": [("labels.csv:42",)]}),
        (MANY + '"3.jpg,dog\n', {}, {"row-malformed": [("labels.csv:42",)]}),
        (MANY + '"3".jpg,dog\n', {}, {"row-malformed": [("labels.csv:42",)]}),
    ],
)
def test_one_fault_has_one_code(data: Path, rows: str, options: Mapping[str, object], expected: dict[str, list[tuple[str, ...]]]) -> None:
    for name in FILES:
        (data / "images" / name).unlink()
    filled(data / "images", *(f"{number}.jpg" for number in range(40)), "folder/", ".cache/a.jpg", ".a.jpg")
    assert odd(listed("file,label\n" + rows, **options)) == expected


def test_each_fault_says_what_was_found(data: Path) -> None:
    text = "file,label\na.jpg,Cat \nb.jpg,cat\nc.jpg,cat\nd.jpg,dog\na.jpg,dog\nx/y.jpg,cat\n"
    details = {code: item.detail for code, items in listed(text).oddities.items() for item in items}
    assert details == {
        "label-spelling": "'cat' in 2 rows, 'Cat ' in 1 row",
        "label-conflict": "labels 'Cat ', 'dog'",
        "row-without-file": "there is no images/x/y.jpg",
    }


def test_a_file_with_several_rows_is_listed_once_with_its_first_label(data: Path) -> None:
    listing = listed(HEALTHY + "b.jpg,cat\nb.jpg,dog\n../images/a.jpg,cat\n")
    assert samples(listing) == SAMPLES
    assert odd(listing) == {
        "label-conflict": [("labels.csv:3", "labels.csv:6", "labels.csv:7")],
        "duplicate-row": [("labels.csv:2", "labels.csv:8")],
    }


def test_boxes_are_no_repeated_rows(data: Path) -> None:
    """Without the column of boxes the same rows are a conflict and a repetition."""
    rows = ["a.jpg,cat,1", "a.jpg,dog,2", "b.jpg,dog,3", "b.jpg,dog,4", "c.jpg,cat,5", "d.jpg,cat,6"]
    boxes = listed("\n".join(["file,label,x_min", *rows]))
    assert samples(boxes) == [("a.jpg", "cat"), ("b.jpg", "dog"), ("c.jpg", "cat"), ("d.jpg", "cat")] and not boxes.oddities
    assert "column x_min" in boxes.notes[1]
    assert set(listed("\n".join(["file,label,note", *rows])).oddities) == {"label-conflict", "duplicate-row"}


def test_an_open_quotation_mark_says_how_many_rows_it_takes(data: Path) -> None:
    listing = listed('file,label\na.jpg,cat\nb.jpg,"dog\nc.jpg,cat\nd.jpg,dog\n', images=None)
    assert samples(listing) == [("a.jpg", "cat")]
    (item,) = listing.oddities["row-malformed"]
    assert item.paths == ("labels.csv:3",) and item.detail.endswith("and 2 lines after it are lost with it")


def test_lines_count_quoted_line_breaks(data: Path) -> None:
    listing = listed('file,note,label\na.jpg,"one\ntwo\nthree",cat\nnowhere.jpg,x,cat\nb.jpg,y,dog\n')
    assert odd(listing)["row-without-file"] == [("labels.csv:5",)]


def test_a_row_of_several_ones(data: Path) -> None:
    filled(data / "images", *(f"{number}.jpg" for number in range(1100)))
    rows = [f"{number}.jpg,{number % 2},{1 - number % 2}" for number in range(1100)]
    rows[1050], rows[1060] = "1050.jpg,1,1", "1060.jpg,0,0"
    listing = listed("\n".join(["file,cat,dog", *rows]))
    assert odd(listing)["label-one-hot"] == [("labels.csv:1052",), ("labels.csv:1062",)]
    assert listing.label.tolist().count(-1) == 2


def test_many_rows_as_the_csv_module_reads_them(data: Path) -> None:
    names = [f"{number:05}.jpg" for number in range(2000)]
    for name in names:
        (data / "images" / name).touch()
    with Path("labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "text", "label"])
        writer.writerows([name, f'say "{place}",\n{name}', f"class {place * place % 7}"] for place, name in enumerate(names))
    listing = list_tables([("", "labels.csv")], "images")
    with Path("labels.csv").open(newline="") as file:
        expected = [(row["file"], row["label"]) for row in csv.DictReader(file)]
    assert samples(listing) == expected
    assert odd(listing) == {"file-without-row": [(f"images/{name}",) for name in FILES]}


# --- Errors


@pytest.mark.parametrize(
    ("text", "options", "message", "hint"),
    [
        (HEALTHY, {"path_column": "fil"}, "has no column 'fil' for --path-column", "did you mean 'file'?"),
        (HEALTHY, {"label_column": "zzz"}, "has no column 'zzz' for --label-column", "its columns are file, label"),
        ("a.jpg,cat\nb.jpg,dog\n", {"label_column": "label"}, "has no column 'label'", "numbered from 1 to 2"),
        ("file,label\n", {}, "has no rows", "a row for each picture"),
        ("file,label,\na.jpg,cat\n", {}, "no row of labels.csv can be read: labels.csv:2: 2 cells, and others have 3", "what separates"),
        ("", {}, "is empty", "a column of paths"),
        ("\n\n", {}, "is empty", "a column of paths"),
        ("colour,mood\nred,good\nblue,bad\n", {}, "no column of labels.csv names pictures", "--path-column"),
        ("file,label\nx/q.jpg,cat\n", {}, "none of the files in column file of labels.csv exists, such as images/x/q.jpg", "--images"),
        ("file,label\nx\\a.jpg,cat\n", {}, "none of the files", "write / for \\"),
        ("url,label\nhttps://x.org/q.jpg,cat\n", {}, "none of the files", "download the files first"),
        (b"PK\x03\x04\x14\0\x06\0", {}, "may be a workbook", "save it as CSV"),
        (b"\x1f\x8b\x08\0abc", {}, "is no text", "unpack it"),
        (b"file,label\na.jpg,\0\0\0", {}, "is no text", "save it as CSV"),
    ],
)
def test_errors_say_what_to_do(data: Path, text: str | bytes, options: Mapping[str, object], message: str, hint: str) -> None:
    with pytest.raises(NetlensError) as caught:
        listed(text, **options)
    assert message in caught.value.message and hint in caught.value.hint


@pytest.mark.parametrize(
    ("ask", "message", "hint"),
    [
        (lambda: list_tables([("", "label.csv")], None), "there is no file 'label.csv'", "did you mean 'labels.csv'?"),
        (lambda: list_tables([("", "images")], None), "is a folder", "--images images"),
        (lambda: list_tables([("", "no/where.csv")], None), "there is no file", "check the path"),
        (lambda: list_tables([("", "labels.csv")], "image"), "there is no folder 'image'", "did you mean 'images'?"),
        (lambda: list_tables([("", "a\0b")], None), "cannot be read", "check the path"),
    ],
)
def test_what_is_not_there(data: Path, ask: Callable[[], Listing], message: str, hint: str) -> None:
    (data / "labels.csv").write_text(HEALTHY)
    with pytest.raises(FileProblem) as caught:
        ask()
    assert message in caught.value.message and hint in caught.value.hint


def test_an_unclosed_quotation_mark_early_on_leaves_a_readable_error(data: Path) -> None:
    with pytest.raises(FileProblem, match=r"no row of labels\.csv can be read: labels\.csv:2: unexpected end of data"):
        listed('file,label\n"a.jpg,cat\n' + "b.jpg,dog\n" * 100)


def test_no_column_is_a_usage_error(data: Path) -> None:
    with pytest.raises(UsageError):
        listed(HEALTHY, path_column="x")
