"""What is asked of check-data, where it may be written, and what is left where it cannot be."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pytest

from netlens.cli.app import run
from netlens.data.issues import Issue, Item
from netlens.errors import FileProblem, NetlensError
from netlens.lenses.check_data.doors import door_of
from netlens.lenses.check_data.fix_list import FixList, outside
from netlens.lenses.check_data.request import classes_of
from tests.data_defects import photo


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def no_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse to look into folders called "closed": root may look everywhere."""
    for name in ("stat", "lstat"):
        real = getattr(Path, name)

        def refuse(path, real=real, **options):
            if "closed/" in str(path):
                raise PermissionError(errno.EACCES, "Permission denied", path)
            return real(path, **options)

        monkeypatch.setattr(Path, name, refuse)


def two_classes(root: Path) -> Path:
    for place in range(24):
        path = root / ("cat", "dog")[place % 2] / f"{place:03}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        photo(3_000_000 + place, 96).save(path, quality=90)
    return root


# -- doors ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["closed/data", "y" * 3000, "y" * 3000 + ".csv", "loop"])
def test_what_cannot_be_looked_at_is_an_error_of_the_user(here: Path, no_entry: None, text: str) -> None:
    (here / "closed").mkdir()
    (here / "loop").symlink_to("loop")
    with pytest.raises(FileProblem, match=r"DATA '.*' cannot be read: ") as raised:
        door_of(text)
    assert "permissions" in raised.value.hint


def test_a_device_is_no_data(here: Path) -> None:
    with pytest.raises(FileProblem, match="'/dev/null' is neither a folder nor a regular file") as raised:
        door_of("/dev/null")
    assert "did you mean" not in raised.value.hint


# -- classes -------------------------------------------------------------------------------------------------------------------------


def test_classes_by_number_names_file_and_folder(here: Path) -> None:
    Path("names.txt").write_text("dog\ncat\n")
    two_classes(here / "train")
    asked = ("3", "dog, cat", "names.txt", "train")
    assert [classes_of(text) for text in asked] == [3, ("dog", "cat"), ("dog", "cat"), ("cat", "dog")]


@pytest.mark.parametrize("content", ["cat\n\ndog\n", "cat\ndog\ncat\n", ""])
def test_a_file_of_classes_that_tells_no_order_is_refused_by_the_option_that_named_it(here: Path, content: str) -> None:
    Path("names.txt").write_text(content)
    with pytest.raises(NetlensError, match=r"^--classes .*names\.txt"):
        classes_of("names.txt")


# -- files to leave out --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["folder", "pipe", "link", "closed/bad.txt", "nowhere/bad.txt", "bad.txt/bad.txt", "y" * 3000])
def test_a_list_takes_the_place_of_a_regular_file_alone(here: Path, no_entry: None, name: str) -> None:
    Path("folder").mkdir()
    Path("closed").mkdir()
    os.mkfifo("pipe")
    Path("bad.txt").write_text("mine")
    Path("link").symlink_to("bad.txt")
    with pytest.raises(FileProblem, match="cannot be written"):
        FixList(Path(name), overwrite=True).check(Path(name))
    FixList(Path("bad.txt"), overwrite=True).check(Path("bad.txt"))
    with pytest.raises(FileProblem, match="is there already"):
        FixList(Path("bad.txt"), overwrite=False).check(Path("bad.txt"))


def test_paths_in_which_a_line_ends_are_counted() -> None:
    issues = [Issue("blank", (Item(("a",)),), 9, fix=("a\nb", "a\nb", "c\r", "d"))]
    assert FixList(Path("bad.txt"), False).content(issues) == b"d\n"
    assert FixList(Path("bad.txt"), False).told(issues) == "wrote bad.txt, without 2 paths in which a line ends: a .csv file takes them"
    assert FixList(Path("bad.csv"), False).told(issues) == "wrote bad.csv"


def test_a_link_that_leads_to_itself_is_outside(here: Path) -> None:
    (here / "loop").symlink_to("loop")
    outside(Path("loop"), ["data"], "--cache")
    with pytest.raises(NetlensError, match="lies inside the data"):
        outside(Path("data/../data/x"), ["data"], "--cache")


def test_hidden_files_are_left_out_and_hidden_folders_are_for_a_person_to_judge(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = two_classes(here / "data")
    (root / "cat/._000.jpg").write_bytes(b"\0\5\26\7")
    (root / "cat/.trash").mkdir()
    photo(5, 96).save(root / "cat/.trash/1.jpg", quality=90)
    assert run(["check-data", "data", "--no-pictures", "--fix-list", "bad.txt"]) == 1
    assert Path("bad.txt").read_text() == "data/cat/._000.jpg\n"


# -- pictures ------------------------------------------------------------------------------------------------------------------------


def test_a_full_disk_does_not_take_the_report_with_it(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two pictures can be written, and then none."""
    from netlens.cli.pictures import Pictures

    two_classes(here / "data")
    (here / "data/cat/000.jpg").write_bytes(b"")
    save, saved = Pictures.save, list[str]()

    def full(self: Pictures, name: str, *args, **kwargs) -> str:
        if len(saved) == 2:
            raise FileProblem("drawn/x.png cannot be written: No space left on device", hint="make room")
        saved.append(save(self, name, *args, **kwargs))
        return saved[-1]

    monkeypatch.setattr(Pictures, "save", full)
    monkeypatch.setattr(sys, "argv", ["netlens", "check-data"])
    with pytest.raises(FileProblem, match="No space left"):
        run(["check-data", "data", "--out", "drawn", "--fix-list", "bad.txt"])
    told = capsys.readouterr()
    assert "1 of 24 files is empty [file-empty]" in told.out and saved[0] in told.out
    assert Path("bad.txt").read_text() == "data/cat/000.jpg\n" and f"wrote {saved[1]}" in told.err


def test_nothing_is_written_among_the_pictures_that_a_table_names(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = two_classes(here / "data")
    (root / "labels.csv").write_text("file,label\n" + "".join(f"{path.relative_to(root)},a\n" for path in sorted(root.rglob("*.jpg"))))
    before = sorted(here.rglob("*"))
    with pytest.raises(FileProblem, match="--out data/cat holds pictures of the data"):
        run(["check-data", "data/labels.csv", "--out", "data/cat"])
    assert "24 files" in capsys.readouterr().out and sorted(here.rglob("*")) == before
    assert run(["check-data", "data/labels.csv", "--out", "data/drawn"]) == 0
