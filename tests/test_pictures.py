"""Picture files: their names, their provenance, what they replace and what they never touch, and `--show` on a real terminal."""

from __future__ import annotations

import errno
import json
import os
import random
import re
import stat
import struct
import subprocess
import sys
import tempfile
import tracemalloc
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from netlens import __version__
from netlens.cli.options import ReportFormat
from netlens.cli.pictures import Pictures
from netlens.drawing.png import FileNames, encode, is_ours, read_texts, safe_name
from netlens.errors import FileProblem
from tests.conftest import DROPPED, REPOSITORY
from tests.test_terminal import area_means, received

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))
OTHER = Image.new("RGB", (3, 3), "red")


def pictures(out: Path, subject: str = "net", overwrite: bool = False, show: bool = False, **facts: str) -> Pictures:
    return Pictures("kernels", subject, out=out, overwrite=overwrite, show=show, facts=facts)


def files(folder: Path) -> list[str]:
    """Every file and folder, hidden ones too."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def refused(error: FileProblem, *words: str) -> None:
    assert [word for word in words if word not in error.message] == [], error.message
    assert "--out FOLDER" in error.hint and "\n" not in error.message + error.hint


def strangers_file(path: Path) -> bytes:
    """A picture by another program, in the place of one of ours."""
    path.parent.mkdir(exist_ok=True)
    info = PngInfo()
    info.add_text("Software", "gimp, not netlens 1")
    OTHER.save(path, pnginfo=info)
    return path.read_bytes()


# --- names

HOSTILE = [
    *(
        "",
        ".",
        "..",
        "../../etc/passwd",
        "/etc/passwd",
        "a/../b",
        ".hidden",
        "-rf",
        "a.",
        "a...b",
        "~",
        "$(id)",
        "%s",
        "a b",
        "a:b",
        "a*b?c",
    ),
    *("con", "NUL.txt", "Lpt1", "com9.conv", "C:\\Windows\\x", "a\nb", "a\0b", "\x1b[31mred", "\u202eexe.gnp", "\udcff", "名前", "Ä"),
    *("x" * 500, "é" * 500),
]


def test_a_file_name_is_harmless_on_every_file_system():
    devices = {"CON", "PRN", "AUX", "NUL", *(f"{port}{n}" for port in ("COM", "LPT") for n in range(10))}
    for text in [*HOSTILE, *(chr(code) * 3 for code in range(0x180)), *devices, *(f"{device.lower()}.conv.1" for device in devices)]:
        name = safe_name(text)
        assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", name) and ".." not in name and not name.endswith("."), text
        assert len(name) <= 120 and name.split(".")[0].upper() not in devices, text


@pytest.mark.parametrize("text", ["layer1.0.conv1", "conv1-2", "Mixed_5b.branch1x1.conv", "vit-base_patch16.224", "console", "auxiliary"])
def test_a_harmless_name_stays_as_it_is(text):
    assert safe_name(text) == text


def test_names_that_become_the_same_are_kept_apart():
    """Compared as file systems do that know neither case nor what was replaced; each name keeps its file when asked again."""
    alike = ["conv", "Conv", "CONV", "a/b", "a:b", "a b", "a-b", "A/B", "con", "_con", *HOSTILE, *("x" * 300 + str(n) for n in range(50))]
    alike += ["é" * n for n in range(1, 50)]
    names = FileNames()
    given = {text: names.of(text) for text in alike}
    assert len({name.lower() for name in given.values()}) == len(set(alike))
    assert given == {text: names.of(text) for text in reversed(alike)}
    assert max(map(len, given.values())) <= 120
    assert names.of("conv", 2) not in given.values()


def test_a_long_name_keeps_its_beginning_and_its_end():
    name = safe_name("encoder." + "blocks.0." * 50 + "attention.query")
    assert name.startswith("encoder.blocks.0.") and name.endswith("attention.query") and len(name) == 120
    assert name != safe_name("encoder." + "blocks.0." * 51 + "attention.query")


# --- texts in a PNG file


def test_pillow_reads_what_we_write(tmp_path):
    texts = {"Software": "netlens 1", "Command": "netlens kernels 'a b'", "Model": "größe", "Layer": "层 → 1", "Scale": "±0.5"}
    (tmp_path / "a.png").write_bytes(encode(PICTURE, texts))
    with Image.open(tmp_path / "a.png") as image:
        assert image.text == texts
        np.testing.assert_array_equal(np.asarray(image), np.asarray(PICTURE))
    assert read_texts(tmp_path / "a.png") == texts


def test_we_read_what_pillow_writes(tmp_path):
    info = PngInfo()
    info.add_text("Title", "é")
    info.add_itxt("Author", "层", lang="zh", tkey="作者")
    info.add_text("Comment", "compressed", zip=True)  # zTXt; we write none, and a small one can become gigabytes
    info.add_itxt("Source", "compressed", zip=True)
    PICTURE.save(tmp_path / "a.png", pnginfo=info)
    assert read_texts(tmp_path / "a.png") == {"Title": "é", "Author": "层"}


def test_texts_cannot_steer_a_terminal_and_any_text_can_be_written(tmp_path):
    (tmp_path / "a.png").write_bytes(
        encode(PICTURE, {"Software": "netlens 1", "Command": "\x1b[31m\0\n\udcff\u202e", "Layer": "x" * 3_000_000})
    )
    assert read_texts(tmp_path / "a.png")["Command"] == "\\x1b[31m\\x00\\n\\udcff\\u202e"
    assert is_ours(tmp_path / "a.png") and (tmp_path / "a.png").stat().st_size < 100_000


def test_palette_pictures_stay_palette_pictures(tmp_path):
    image = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).convert("P")
    (tmp_path / "a.png").write_bytes(encode(image, {}))
    with Image.open(tmp_path / "a.png") as stored:
        assert stored.mode == "P" and stored.getpalette() == image.getpalette()
        np.testing.assert_array_equal(np.asarray(stored), np.asarray(image))


def chunk(kind: bytes, body: bytes, length: int | None = None) -> bytes:
    """A chunk as the PNG specification has it (section 5.3); its length may lie."""
    return struct.pack(">I", len(body) if length is None else length) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


HEAD = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
OURS = chunk(b"tEXt", b"Software\0netlens 1")


@pytest.mark.parametrize(
    ("content", "ours"),
    [
        (HEAD + OURS, True),
        (HEAD + chunk(b"iTXt", b"Software\0\0\0\0\0netlens 1"), True),
        (HEAD + chunk(b"tIME", b"x" * 7) + OURS, True),
        (b"", False),
        (OURS, False),
        (HEAD[1:] + OURS, False),
        (HEAD + chunk(b"tEXt", b"Software\0netlensoid"), False),
        (HEAD + chunk(b"tEXt", b"Comment\0Software\0netlens 1"), False),
        (HEAD + chunk(b"tEXt", b"Software\0gimp") + OURS, False),
        (HEAD + chunk(b"IDAT", b"") + OURS, False),
        (HEAD + OURS[:-1] + b"x", False),  # its checksum is wrong
        (HEAD + chunk(b"tEXt", b"Software\0netlens 1", length=2**32 - 1), False),
        (HEAD + chunk(b"junk", b"", length=2**31) + OURS, False),
        (HEAD + chunk(b"tEXt", b""), False),
        (HEAD + chunk(b"iTXt", b"Software"), False),
        (HEAD + chunk(b"iTXt", b"Software\0\1\0\0\0" + zlib.compress(b"netlens " * 10**6)), False),
        (HEAD + chunk(b"junk", b"x" * 2**20) + OURS, False),  # further in than anybody looks
    ],
)
def test_whose_file_it_is(tmp_path, content, ours):
    (tmp_path / "a.png").write_bytes(content)
    assert is_ours(tmp_path / "a.png") is ours


def test_a_damaged_file_is_never_an_exception(tmp_path):
    good = encode(PICTURE, {"Software": "netlens 1", "Layer": "层"})
    dice = random.Random(0)
    path = tmp_path / "a.png"
    for turn in range(300):
        damaged = bytearray(good[: dice.randrange(300)] if turn % 2 else good[:300])
        for _ in range(dice.randrange(4) if damaged else 0):
            damaged[dice.randrange(len(damaged))] = dice.randrange(256)
        path.write_bytes(damaged)
        assert set(read_texts(path).items()) <= {("Software", "netlens 1"), ("Layer", "层")}, "the checksum holds for what is read"


def test_a_huge_file_costs_little_memory(tmp_path):
    with (tmp_path / "a.png").open("wb") as file:
        file.write(HEAD + struct.pack(">I4s", 2**31 - 1, b"tEXt"))
        file.truncate(2**33)
    tracemalloc.start()
    try:
        assert not is_ours(tmp_path / "a.png")
        assert tracemalloc.get_traced_memory()[1] < 2**21
    finally:
        tracemalloc.stop()


def test_what_is_no_file_is_not_ours_and_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "ours.png").write_bytes(HEAD + OURS)
    (tmp_path / "link").symlink_to("ours.png")
    assert [is_ours(tmp_path / name) for name in ("pipe", "link", ".")] == [False] * 3


# --- writing


def test_a_picture_is_written_with_its_provenance(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["/usr/bin/netlens", "kernels", "resnet18", "--layer", "layer 1"])
    album = pictures(Path("netlens-out"), "resnet18", Model="resnet18", Seed="0")
    assert files(tmp_path) == []
    assert album.save("conv1", PICTURE, Layer="conv1", Scale="common") == str(Path("netlens-out", "kernels-resnet18-conv1.png"))
    assert files(tmp_path) == ["netlens-out", "netlens-out/kernels-resnet18-conv1.png"]
    with Image.open(tmp_path / "netlens-out" / "kernels-resnet18-conv1.png") as image:
        assert list(image.text.items()) == [
            ("Software", f"netlens {__version__}"),
            ("Command", "netlens kernels resnet18 --layer 'layer 1'"),
            ("Model", "resnet18"),
            ("Seed", "0"),
            ("Layer", "conv1"),
            ("Scale", "common"),
        ]
        np.testing.assert_array_equal(np.asarray(image), np.asarray(PICTURE))


def test_the_same_picture_twice_is_the_same_file(tmp_path):
    first, second = (Path(pictures(tmp_path / name, Model="net").save("conv1", PICTURE.copy())).read_bytes() for name in "ab")
    assert first == second


def test_an_earlier_file_of_ours_is_replaced(tmp_path):
    path = Path(pictures(tmp_path).save("conv1", OTHER))
    album = pictures(tmp_path)
    album.reserve(["conv1"])
    album.save("conv1", PICTURE)
    with Image.open(path) as image:
        assert image.size == PICTURE.size
    assert files(tmp_path) == [path.name]


def test_a_strangers_file_in_the_place_of_a_further_page_is_told_before_anything_is_written(tmp_path):
    path = tmp_path / "kernels-net-conv1-2.png"
    content = strangers_file(path)
    with pytest.raises(FileProblem) as caught:
        pictures(tmp_path).reserve(["conv0", "conv1"])
    refused(caught.value, str(path), "was not written by netlens")
    assert path.read_bytes() == content and files(tmp_path) == [path.name]
    pictures(tmp_path).reserve(["conv0", "conv"])  # "conv1-2" is no page of these
    pictures(tmp_path, overwrite=True).reserve(["conv0", "conv1"])


def test_pages_that_an_earlier_longer_run_left_are_removed_and_nothing_else_is(tmp_path, capsys):
    """Of pictures that are written again: not of another layer, be it called like a page, or another subject, nor what a stranger made."""
    first, other, again = pictures(tmp_path), pictures(tmp_path, "net-conv1"), pictures(tmp_path)
    first.reserve(["conv1", "conv2", "conv1-3"])
    third, fourth = [first.save("conv1", PICTURE, page=page) for page in (1, 2, 3, 4)][2:]
    kept = [first.save("conv2", PICTURE, page=page) for page in (1, 2)] + [first.save("conv1-3", PICTURE)]
    kept += [other.save(name, PICTURE, page=page) for name in ("conv1", "conv2") for page in (1, 2)]
    assert (Path(kept[2]).name, Path(fourth).name) == ("kernels-net-conv1-3.png", "kernels-net-conv1-4.png") and third != kept[2]
    (tmp_path / "mine.png").write_bytes(Path(fourth).read_bytes())
    strangers_file(tmp_path / "kernels-net-conv10-2.png")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    again.reserve(["conv1"])
    written = [again.save("conv1", OTHER, page=page) for page in (1, 2)]
    again.finish()
    after = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert {str(path) for path in before.keys() - after.keys()} == {third, fourth}
    assert {str(path) for path in after if after[path] != before[path]} == set(written)
    told = capsys.readouterr().err
    assert told.count("removed") == 2 and f"removed {third}" in told and f"removed {fourth}" in told


def test_an_old_page_that_is_write_protected_or_a_link_stays(tmp_path, monkeypatch):
    first, again = pictures(tmp_path), pictures(tmp_path)
    pages = [Path(first.save("conv1", PICTURE, page=page)) for page in (1, 2, 3, 4)]
    pages[1].rename(tmp_path / "elsewhere.png")
    pages[1].symlink_to("elsewhere.png")
    allowed = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != pages[2] and allowed(path, mode))  # root may write anything
    again.save("conv1", OTHER)
    again.finish()
    assert files(tmp_path) == ["elsewhere.png", "kernels-net-conv1-2.png", "kernels-net-conv1-3.png", "kernels-net-conv1.png"]


def test_a_run_that_fails_removes_nothing(tmp_path):
    first = pictures(tmp_path)
    for page in (1, 2):
        first.save("conv1", PICTURE, page=page)
    pictures(tmp_path).save("conv1", OTHER)  # never finished
    assert files(tmp_path) == ["kernels-net-conv1-2.png", "kernels-net-conv1.png"]


def test_a_page_says_of_which_picture_it_is(tmp_path):
    album = pictures(tmp_path)
    one, two = (album.save("conv1", PICTURE, page=page) for page in (1, 2))
    assert [Path(path).name for path in (one, two)] == ["kernels-net-conv1.png", "kernels-net-conv1-2.png"]
    assert "Page" not in read_texts(Path(one)) and read_texts(Path(two))["Page"] == "2 of kernels-net-conv1.png"


def test_no_two_pictures_of_a_run_share_a_file(tmp_path):
    """Also where names differ in case alone, or the second page of "conv" is called like the first of "conv-2"."""
    names = ["conv", "conv-2", "Conv", "a/b", "a:b", "conv-2"]
    album = pictures(tmp_path)
    album.reserve(names)
    saved = [album.save(name, PICTURE) for name in names]
    assert len({path.lower() for path in saved}) == len(names) == len(files(tmp_path))
    assert [Path(path).name for path in saved[:2]] == ["kernels-net-conv.png", "kernels-net-conv-2.png"]
    assert album.save("a/b", PICTURE) not in saved
    assert album.save("a/b", PICTURE, page=2) not in saved and len(files(tmp_path)) == len(names) + 2


@pytest.mark.parametrize("subject", HOSTILE)
def test_hostile_subjects_and_names_stay_in_the_folder(tmp_path, subject):
    out = tmp_path / "out"
    album = pictures(out, subject)
    for name in HOSTILE:
        album.save(name, OTHER)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert len(files(out)) == len(HOSTILE) and max(map(len, files(out))) <= 124
    assert all(re.fullmatch(r"kernels-[A-Za-z0-9._-]+\.png", name) for name in files(out))


def test_the_umask_holds(tmp_path):
    before = os.umask(0o027)
    try:
        path = Path(pictures(tmp_path / "out").save("conv1", PICTURE))
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


# --- what is not ours


def test_a_file_of_another_program_is_kept_byte_for_byte(tmp_path):
    path = tmp_path / "kernels-net-conv1.png"
    content = strangers_file(path)
    album = pictures(tmp_path)
    for attempt in (lambda: album.reserve(["conv0", "conv1"]), lambda: album.save("conv1", PICTURE)):
        with pytest.raises(FileProblem) as caught:
            attempt()
        refused(caught.value, str(path), "was not written by netlens")
        assert caught.value.hint.startswith("--overwrite replaces it")
    assert path.read_bytes() == content and files(tmp_path) == [path.name]


def test_overwrite_is_consent(tmp_path):
    path = tmp_path / "kernels-net-conv1.png"
    strangers_file(path)
    album = pictures(tmp_path, overwrite=True)
    album.reserve(["conv1"])
    album.save("conv1", PICTURE)
    assert is_ours(path) and files(tmp_path) == [path.name]


def test_a_file_that_a_stranger_puts_there_meanwhile_is_kept(tmp_path):
    album = pictures(tmp_path / "out")
    album.reserve(["conv1"])
    album.save("conv0", PICTURE)
    path = tmp_path / "out" / "kernels-net-conv1.png"
    content = strangers_file(path)
    with pytest.raises(FileProblem, match="was not written by netlens"):
        album.save("conv1", PICTURE)
    assert path.read_bytes() == content
    assert files(tmp_path / "out") == ["kernels-net-conv0.png", "kernels-net-conv1.png"]


def link_to_ours(path: Path) -> None:
    (path.parent / "elsewhere.png").write_bytes(HEAD + OURS)
    path.symlink_to("elsewhere.png")


PLACES = {
    "a link": link_to_ours,
    "a dangling link": lambda path: path.symlink_to("nowhere"),
    "a folder": lambda path: path.mkdir(),
    "not a regular file": os.mkfifo,
}


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("kind", PLACES)
def test_what_is_no_file_is_never_replaced(tmp_path, kind, overwrite):
    path = tmp_path / "kernels-net-conv1.png"
    PLACES[kind](path)
    before = [(name, (tmp_path / name).lstat().st_ino) for name in files(tmp_path)]
    album = pictures(tmp_path, overwrite=overwrite)
    for attempt in (lambda: album.reserve(["conv1"]), lambda: album.save("conv1", PICTURE)):
        with pytest.raises(FileProblem) as caught:
            attempt()
        refused(caught.value, str(path), kind.replace("dangling ", ""))
    assert [(name, (tmp_path / name).lstat().st_ino) for name in files(tmp_path)] == before


AS_NOBODY = """
import os, sys
from pathlib import Path
import netlens.drawing.png
from netlens.cli.pictures import Pictures
from netlens.errors import FileProblem
if os.getuid() == 0:  # who may write anything
    os.setuid(65534)
for out in sys.argv[1:]:
    try:
        Pictures("kernels", "net", out=Path(out), overwrite=True, show=False, facts={}).reserve(["conv1"])
        print("taken")
    except FileProblem as error:
        print(error.message)
"""


def test_write_protection_is_respected():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        for inner, mode in (("closed", 0o555), ("protected", 0o777), ("open", 0o777)):
            (folder / inner).mkdir()
            file = Path(pictures(folder / inner).save("conv1", PICTURE))
            file.chmod(0o444 if inner == "protected" else 0o666)
            (folder / inner).chmod(mode)
        places = [str(folder / place) for place in ("closed", "closed/new", "protected", "open")]
        done = subprocess.run([sys.executable, "-c", AS_NOBODY, *places], capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert done.stdout.splitlines() == [
        f"{places[0]} cannot be written: files cannot be made in {places[0]}",
        f"{places[1]} cannot be written: files cannot be made in {places[0]}",
        f"{Path(places[2], 'kernels-net-conv1.png')} cannot be written: it is write-protected",
        "taken",
    ], done.stderr


# --- folders that cannot be used, and writing that fails


def a_file(path: Path) -> Path:
    path.write_text("mine")
    return path


@pytest.mark.parametrize("inside", ["", "deeper", "deeper/still"])
def test_a_file_in_the_place_of_the_folder_is_told_at_once(tmp_path, inside):
    file = a_file(tmp_path / "out")
    with pytest.raises(FileProblem) as caught:
        pictures(file / inside)
    refused(caught.value, str(file), "not a folder")
    assert file.read_text() == "mine"


def test_a_link_to_a_folder_is_a_folder_and_a_dangling_one_is_not(tmp_path):
    (tmp_path / "scratch").mkdir()
    (tmp_path / "out").symlink_to("scratch")
    pictures(tmp_path / "out").save("conv1", PICTURE)
    assert files(tmp_path / "scratch") == ["kernels-net-conv1.png"]
    (tmp_path / "gone").symlink_to("nowhere")
    with pytest.raises(FileProblem) as caught:
        pictures(tmp_path / "gone")
    refused(caught.value, "gone")


@pytest.mark.parametrize("out", ["x" * 300, "a\0b"])
def test_a_folder_that_cannot_be_made_is_two_lines(tmp_path, out):
    with pytest.raises(FileProblem) as caught:
        pictures(tmp_path / out).save("conv1", PICTURE)
    refused(caught.value, out)
    assert files(tmp_path) == []


@pytest.mark.parametrize(("number", "words", "hint"), [(errno.ENOSPC, "No space left", "make room"), (errno.EIO, "Input/output", "check")])
@pytest.mark.parametrize("existing", [False, True])
def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch, existing, number, words, hint):
    out = tmp_path / "a" / "b"
    if existing:
        out.mkdir(parents=True)
    before = files(tmp_path)
    album = pictures(out)
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(number, os.strerror(number))))
    with pytest.raises(FileProblem) as caught:
        album.save("conv1", PICTURE)
    refused(caught.value, words, str(out))
    assert hint in caught.value.hint
    assert files(tmp_path) == before


def test_a_full_disk_is_two_lines(tmp_path):
    """A real one: the process may write 1,000 bytes a file."""
    code = f"""
import resource, signal, sys
from pathlib import Path
from PIL import Image
from netlens.cli.pictures import Pictures
from netlens.errors import FileProblem
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
album = Pictures("kernels", "net", out=Path({str(tmp_path / "out")!r}), overwrite=False, show=False, facts={{}})
try:
    album.save("x", Image.effect_noise((99, 99), 9))
except FileProblem as error:
    sys.exit(error.message)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert "kernels-net-x.png cannot be written: File too large" in done.stderr
    assert files(tmp_path) == []


def test_an_interrupt_leaves_nothing_behind(tmp_path, monkeypatch):
    album = pictures(tmp_path / "out")

    def interrupted(*_: object) -> None:
        assert len(files(tmp_path)) == 2, "the folder and a temporary file"
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        album.save("conv1", PICTURE)
    assert files(tmp_path) == []


def test_two_runs_in_one_folder_leave_whole_pictures(tmp_path):
    code = """
import sys
from pathlib import Path
from PIL import Image
from netlens.cli.pictures import Pictures
for _ in range(4):
    album = Pictures("kernels", "net", out=Path(sys.argv[1]), overwrite=False, show=False, facts={})
    names = [f"conv{number}" for number in range(8)]
    album.reserve(names)
    for name in names:
        album.save(name, Image.new("L", (64, 64), int(sys.argv[2])))
"""
    runs = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "out"), shade], cwd=REPOSITORY) for shade in ("1", "2")]
    assert [run.wait(60) for run in runs] == [0, 0]
    assert files(tmp_path / "out") == [f"kernels-net-conv{number}.png" for number in range(8)]
    for path in (tmp_path / "out").iterdir():
        with Image.open(path) as image:
            assert image.getextrema() in ((1, 1), (2, 2))


def test_the_folder_and_the_files_are_checked_before_anything_heavy_is_imported(tmp_path):
    strangers_file(tmp_path / "kernels-net-a.png")
    code = f"""
import sys
from pathlib import Path
from netlens.cli.pictures import Pictures
from netlens.errors import FileProblem
album = Pictures("kernels", "net", out=Path({str(tmp_path)!r}), overwrite=False, show=True, facts={{}})
try:
    album.reserve(["a"])
except FileProblem:
    print(sorted({{"torch", "numpy", "PIL"}} & set(sys.modules)))
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=True).stdout == "[]\n"


# --- what is told


def test_a_few_files_are_told_one_by_one_on_stderr(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    album = pictures(Path("netlens-out"))
    for name in ("conv1", "conv2"):
        album.save(name, PICTURE)
    album.finish()
    out, err = capsys.readouterr()
    assert out == "" and err.splitlines() == [f"wrote {Path('netlens-out', f'kernels-net-{name}.png')}" for name in ("conv1", "conv2")]


def test_many_files_are_one_line_with_the_most_important_one(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    album = pictures(Path("netlens-out"))
    for number in range(20):
        album.save(f"conv{number}", OTHER)
    album.save("sheet", PICTURE, prefer=True)
    album.finish()
    (line,) = capsys.readouterr().err.splitlines()
    assert "21 pictures" in line and "netlens-out/kernels-net-*.png" in line and line.endswith("netlens-out/kernels-net-sheet.png")
    assert len(list(tmp_path.glob("netlens-out/kernels-net-*.png"))) == 21


def test_nothing_written_is_nothing_told(tmp_path, capsys):
    pictures(tmp_path / "out", show=True).finish()
    assert capsys.readouterr() == ("", "") and files(tmp_path) == []


@pytest.mark.parametrize(
    ("format", "needed"), [("table", "a terminal"), ("json", "--format table"), ("markdown", "--format table"), ("github", "--format")]
)
def test_show_in_a_pipe_is_one_sentence(tmp_path, monkeypatch, capsys, format, needed):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FORCE_COLOR", "3")
    album = pictures(Path("netlens-out"), show=True)
    album.save("conv1", PICTURE)
    album.finish(ReportFormat(format))
    out, err = capsys.readouterr()
    assert out == "" and err.splitlines()[1].startswith(f"--show needs {needed}")
    assert err.splitlines()[1].endswith("; the pictures are in netlens-out/") and "\x1b" not in err


# --- a real terminal

CHILD = """
import json, os, sys
from pathlib import Path
import numpy as np
from PIL import Image
from netlens.cli import console
from netlens.cli.pictures import Pictures
with console.report_only():
    album = Pictures("kernels", "net", out=Path("netlens-out"), overwrite=False, show=True, facts={})
    for seed in range(json.loads(sys.argv[1])):
        image = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 60, 3), dtype=np.uint8))
        album.save(f"p{seed}", image, prefer=seed == 5)
    album.finish()
"""


def on_a_terminal(folder: Path, count: int, columns: int, lines: int, env: dict[str, str]) -> tuple[str, str, bytes]:
    """Run CHILD with a pseudo-terminal as stdin and stdout; return what the terminal received, stderr, and what was typed and not read."""
    fcntl, pty, termios = (pytest.importorskip(name) for name in ("fcntl", "pty", "termios"))
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    settings = termios.tcgetattr(theirs)
    settings[1] &= ~termios.OPOST  # line feeds as they are written
    settings[3] &= ~termios.ECHO
    termios.tcsetattr(theirs, termios.TCSANOW, settings)
    os.write(ours, b"ls -la\n")
    kept = {name: value for name, value in os.environ.items() if name not in {*DROPPED, "COLORTERM", "TERM_PROGRAM", "TMUX"}}
    environment = {**kept, "PYTHONPATH": str(REPOSITORY), "PYTHONIOENCODING": "utf-8", **env}
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, json.dumps(count)], stdin=theirs, stdout=theirs, stderr=subprocess.PIPE, cwd=folder, env=environment
    )
    seen = b"".join(read_until_end(ours, child))
    errors = child.communicate(timeout=60)[1].decode()
    assert child.returncode == 0, errors
    os.set_blocking(theirs, False)
    typed = os.read(theirs, 100)
    os.close(ours)
    os.close(theirs)
    return seen.decode(), errors, typed


def read_until_end(terminal: int, child: subprocess.Popen[bytes]) -> Iterator[bytes]:
    from select import select

    while True:
        ended = child.poll() is not None
        if select([terminal], [], [], 0.05)[0]:
            yield os.read(terminal, 65536)
        elif ended:
            return


@pytest.mark.parametrize(
    ("env", "columns", "lines", "height", "width"),
    [
        ({"TERM": "xterm-256color", "COLORTERM": "truecolor"}, 80, 50, 40, 60),  # as large as it is
        ({"TERM": "xterm-256color", "COLORTERM": "truecolor"}, 20, 50, 13, 20),  # 60 : 20 = 40 : 13
        ({"TERM": "xterm-256color", "COLORTERM": "truecolor"}, 80, 13, 20, 30),  # ten lines of two pixels
        ({"TERM": "xterm-256color", "COLORTERM": "truecolor", "COLUMNS": "30", "LINES": "40"}, 80, 24, 20, 30),
    ],
)
def test_what_a_terminal_receives_is_the_picture(tmp_path, env, columns, lines, height, width):
    seen, errors, typed = on_a_terminal(tmp_path, 1, columns, lines, env)
    empty, title, text = seen.split("\n", 2)
    assert (empty, title, typed) == ("", "netlens-out/kernels-net-p0.png", b"ls -la\n")
    assert errors == "wrote netlens-out/kernels-net-p0.png\n"
    pixels = received(text)[:height]
    np.testing.assert_allclose(pixels, area_means(np.asarray(PICTURE), height, width), rtol=0, atol=0.501)


def test_256_colours_on_a_terminal_are_close_to_the_picture(tmp_path):
    seen, _, typed = on_a_terminal(tmp_path, 1, 80, 50, {"TERM": "xterm-256color"})
    pixels = received(seen.split("\n", 2)[2])
    assert pixels.shape == (40, 60, 3) and typed == b"ls -la\n" and ";2;" not in seen
    assert abs(pixels - np.asarray(PICTURE, dtype=int)).mean() < 25  # the cube's steps are 40 to 95 wide


@pytest.mark.parametrize(
    "env", [{"TERM": "dumb"}, {"TERM": "xterm-256color", "NO_COLOR": "1"}, {"TERM": "xterm-kitty", "PYTHONIOENCODING": "latin-1"}]
)
def test_without_colour_it_is_a_ramp_of_ascii_characters(tmp_path, env):
    seen, _, typed = on_a_terminal(tmp_path, 1, 20, 24, env)
    lines = seen.split("\n")[2:]
    assert seen.isascii() and "\x1b" not in seen and typed == b"ls -la\n"
    assert len(lines) == 8 and max(map(len, lines)) <= 20 and len(set("".join(lines))) > 2


def test_at_most_four_are_drawn_the_preferred_ones_first(tmp_path):
    seen, errors, _ = on_a_terminal(tmp_path, 9, 40, 24, {"TERM": "dumb"})
    assert re.findall(r"kernels-net-(p\d)\.png", seen) == ["p5", "p0", "p1", "p2"]
    assert errors.splitlines()[1:] == ["5 more in netlens-out/"]
    assert errors.startswith("wrote 9 pictures")
