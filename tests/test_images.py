"""Pictures: what files, folders and globs name, and how every kind of file looks when it is open."""

from __future__ import annotations

import os
import random
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from netlens.errors import FileProblem
from netlens.loading.images import find_images, open_image

ORIENTATION = 0x0112
RED, GREEN, BLUE, GREY = (255, 0, 0), (0, 255, 0), (0, 0, 255), (90, 90, 90)


def save(path: Path, colour: tuple[int, int, int] = RED, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (3, 2), colour).save(path, **options)
    return path


def names(folder: Path, *patterns: str) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in find_images([str(folder / pattern) for pattern in patterns])]


# --- Finding


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in (
        "img10.png",
        "img2.png",
        "IMG1.JPG",
        "cat/b.webp",
        "cat/a.bmp",
        "dog/deep/far.png",
        ".hidden.png",
        "._img2.png",
        ".git/x.png",
    ):
        save(tmp_path / name, format="PNG")
    (tmp_path / "labels.csv").write_text("a,b")
    (tmp_path / "folder.png").mkdir()
    return tmp_path


def test_a_folder_is_its_pictures_and_those_of_its_classes_in_natural_order(folder):
    assert names(folder, ".") == ["cat/a.bmp", "cat/b.webp", "IMG1.JPG", "img2.png", "img10.png"]


def test_globs_reach_any_depth_and_take_only_pictures(folder):
    assert names(folder, "*") == ["IMG1.JPG", "img2.png", "img10.png"]
    assert names(folder, "**/*.png") == ["dog/deep/far.png", "img2.png", "img10.png"]


def test_the_order_is_that_of_the_patterns_and_each_picture_comes_once(folder):
    (folder / "link.png").symlink_to(folder / "img2.png")
    assert names(folder, "img10.png", "link.png", "*.png", "cat", "cat/a.bmp") == ["img10.png", "link.png", "cat/a.bmp", "cat/b.webp"]


def test_the_order_does_not_depend_on_the_order_of_the_disk(folder, monkeypatch):
    expected = names(folder, ".")
    real = Path.iterdir

    def shuffled(path: Path):
        found = sorted(real(path))
        random.Random(3).shuffle(found)
        return iter(found)

    monkeypatch.setattr(Path, "iterdir", shuffled)
    assert names(folder, ".") == expected


def test_a_file_with_signs_of_a_glob_in_its_name_is_a_file(tmp_path):
    save(tmp_path / "img[1].png")
    assert names(tmp_path, "img[1].png") == ["img[1].png"]


def test_a_picture_without_a_suffix_is_known_by_its_first_bytes(tmp_path):
    save(tmp_path / "download", format="JPEG")
    assert names(tmp_path, "download") == ["download"]


def test_the_home_folder_is_understood(tmp_path, monkeypatch):
    save(tmp_path / "a.png")
    save(tmp_path / "~b.png")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert find_images(["~/a.png", "~b.png"]) == [tmp_path / "a.png", Path("~b.png")]


def test_finding_imports_nothing_heavy(folder):
    code = "import sys; from netlens.loading.images import find_images; find_images(sys.argv[1:]); print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
    assert not {"'torch'", "'PIL'", "'numpy'"} & set(done.stdout.strip("[]\n").split(", "))


def wrong(folder: Path) -> dict[str, tuple[str, str]]:
    """Write what is no picture; return what is said about each, and the hint."""
    (folder / "text.png").write_text("hello")
    (folder / "page").write_text("<html></html>")
    (folder / "empty.png").touch()
    (folder / "lfs.png").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n")
    (folder / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(20))
    (folder / "model.pt").write_bytes(b"PK\x03\x04" + bytes(30))
    (folder / "none").mkdir()
    os.mkfifo(folder / "pipe")
    save(folder / "cat.png")
    return {
        "text.png": ("is a text, not a picture: 'hello'", "name a PNG"),
        "page": ("is a text, not a picture: '<html></html>'", "name a PNG"),
        "empty.png": ("is empty", "get the file again"),
        "lfs.png": ("is a Git-LFS pointer", "git lfs pull"),
        "phone.heic": ("HEIC", "convert it to PNG or JPEG"),
        "model.pt": ("is not a picture that netlens opens", "files that end in .bmp, .gif"),
        "none": ("holds no picture", "none/**/*.png"),
        "pipe": ("is no regular file", "name a file"),
        "cta.png": ("there is no picture", "did you mean 'cat.png'?"),
        "nowhere/deep/cat.png": ("has no 'nowhere'", "name a file, a folder or a quoted glob"),
        "*.jpg": ("nothing matches", "** stands for any number of folders"),
        "*.pt": ("none of the 1 matches of", "is a picture"),
    }


def test_every_mistake_is_told_in_one_sentence_with_a_way_out(tmp_path):
    for name, parts in wrong(tmp_path).items():
        with pytest.raises(FileProblem) as caught:
            find_images([str(tmp_path / name)])
        told = f"{caught.value.message} | {caught.value.hint}"
        assert [part for part in parts if part not in told] == [], told
        assert "\n" not in told


@pytest.mark.parametrize(("pattern", "part"), [("", "names nothing"), ("https://a.b/c.png", "netlens downloads nothing")])
def test_what_is_no_path_is_told(pattern, part):
    with pytest.raises(FileProblem) as caught:
        find_images([pattern])
    assert part in f"{caught.value.message} {caught.value.hint}"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_told(tmp_path):
    save(tmp_path / "a.png").chmod(0)
    with pytest.raises(FileProblem, match="Permission denied"):
        find_images([str(tmp_path / "a.png")])


# --- Opening


def corners(image: Image.Image) -> list[tuple[int, ...]]:
    """Return the colours of the four corners: upper left, upper right, lower right, lower left."""
    right, bottom = image.width - 1, image.height - 1
    return [image.getpixel(place) for place in ((0, 0), (right, 0), (right, bottom), (0, bottom))]


# Where the stored rows and columns lie when a person sees the picture (Exif 2.32, tag 274, "the 0th row is ... the 0th column is ..."):
# the stored corners (upper left, upper right, lower right, lower left) that are seen at the four corners.
SEEN = {1: "abcd", 2: "badc", 3: "cdab", 4: "dcba", 5: "adcb", 6: "dabc", 7: "cbad", 8: "bcda"}


@pytest.mark.parametrize("orientation", SEEN)
@pytest.mark.parametrize("form", ["png", "jpg", "tif", "webp"])
def test_pictures_are_upright(tmp_path, form, orientation):
    stored = Image.new("RGB", (32, 16))
    colours = dict(zip("abcd", (RED, GREEN, GREY, BLUE), strict=True))
    for place, colour in zip(((0, 0), (16, 0), (16, 8), (0, 8)), colours.values(), strict=True):
        stored.paste(colour, (*place, place[0] + 16, place[1] + 8))
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    lossless = {"webp": {"lossless": True}, "jpg": {"quality": 100, "subsampling": 0}}
    stored.save(tmp_path / f"a.{form}", exif=exif, **lossless.get(form, {}))
    photo = open_image(tmp_path / f"a.{form}")
    assert photo.image.size == ((32, 16) if orientation < 5 else (16, 32)) and photo.notes == ()
    seen = np.array(corners(photo.image), int)
    assert np.abs(seen - [colours[letter] for letter in SEEN[orientation]]).max() < 8  # JPEG is lossy


def test_damaged_exif_data_do_not_hide_the_picture(tmp_path):
    save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\xff\xff\xff\xff\xff\xff\xff\xff")
    assert open_image(tmp_path / "a.jpg").image.size == (3, 2)


def palette(transparent: bool) -> Image.Image:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    if transparent:
        image.info["transparency"] = 0
    return image


ON_WHITE = ("transparent parts are shown on white",)
MODES = {
    "1.png": (Image.new("1", (2, 1), 1), [(255, 255, 255)] * 2, ()),
    "L.png": (Image.new("L", (2, 1), 77), [(77, 77, 77)] * 2, ()),
    "P.png": (palette(False), [(10, 20, 30), (200, 100, 50)], ()),
    "P.gif": (palette(False), [(10, 20, 30), (200, 100, 50)], ()),
    "Pt.png": (palette(True), [(255, 255, 255), (200, 100, 50)], ON_WHITE),
    "LA.png": (Image.new("LA", (2, 1), (100, 51)), [(224, 224, 224)] * 2, ON_WHITE),  # 100 / 5 + 255 * 4 / 5
    "RGBA.png": (Image.new("RGBA", (2, 1), (0, 100, 200, 153)), [(102, 162, 222)] * 2, ON_WHITE),  # 0.6 v + 0.4 * 255
    "opaque.png": (Image.new("RGBA", (2, 1), (1, 2, 3, 255)), [(1, 2, 3)] * 2, ()),
    "CMYK.tif": (Image.new("CMYK", (2, 1), (255, 0, 0, 0)), [(0, 255, 255)] * 2, ()),  # full cyan takes red away
    "RGB.ppm": (Image.new("RGB", (2, 1), (4, 5, 6)), [(4, 5, 6)] * 2, ()),
    "L.pgm": (Image.new("L", (2, 1), 9), [(9, 9, 9)] * 2, ()),
    "RGB.bmp": (Image.new("RGB", (2, 1), (4, 5, 6)), [(4, 5, 6)] * 2, ()),
}


@pytest.mark.parametrize("name", MODES)
def test_every_mode_becomes_the_colours_that_a_person_sees(tmp_path, name):
    image, colours, notes = MODES[name]
    image.save(tmp_path / name, **({"transparency": 0} if name == "Pt.png" else {}))
    photo = open_image(tmp_path / name)
    assert photo.image.mode == "RGB"
    assert [photo.image.getpixel((x, 0)) for x in range(2)] == colours
    assert photo.notes == notes


def test_one_colour_of_a_grey_or_coloured_png_may_be_transparent(tmp_path):
    for mode, colour, other in (("L", 7, 8), ("RGB", (1, 2, 3), (1, 2, 4)), ("1", 0, 1)):
        image = Image.new(mode, (2, 1), colour)
        image.putpixel((1, 0), other)
        image.save(tmp_path / "a.png", transparency=colour)
        photo = open_image(tmp_path / "a.png")
        seen = Image.new(mode, (1, 1), other).convert("RGB").getpixel((0, 0))
        assert [photo.image.getpixel((x, 0)) for x in range(2)] == [(255, 255, 255), seen], mode


def test_transparency_is_kept_where_it_is_asked_for(tmp_path):
    Image.new("RGBA", (2, 1), (0, 100, 200, 153)).save(tmp_path / "a.png")
    photo = open_image(tmp_path / "a.png", transparency=True)
    assert (photo.image.getpixel((0, 0)), photo.notes) == ((0, 100, 200, 153), ())
    Image.new("CMYK", (2, 1), (255, 0, 0, 0)).save(tmp_path / "a.tif")
    assert open_image(tmp_path / "a.tif", transparency=True).image.getpixel((0, 0)) == (0, 255, 255, 255)


@pytest.mark.parametrize(
    ("name", "values", "expected", "note"),
    [
        ("full.png", np.array([[0, 257, 32896, 65535]], np.uint16), [0, 1, 128, 255], "16-bit grey"),
        ("dark.png", np.array([[0, 2056, 4095, 129]], np.uint16), [0, 8, 16, 1], "the brightest value is 4095"),
        ("full.tif", np.array([[0, 257, 32896, 65535]], ">u2"), [0, 1, 128, 255], "16-bit grey"),
        ("wide.tif", np.array([[-100, 0, 100, 300]], np.int32), [0, 64, 128, 255], "-100 to 300"),
        ("unit.tif", np.array([[0, 0.25, 0.5, 0.75]], np.float32), [0, 64, 128, 191], "1 is white"),
        ("float.tif", np.array([[-1, 0, 1, 3]], np.float32), [0, 64, 128, 255], "-1 to 3"),
        ("flat.tif", np.array([[5, 5, 5, 5]], np.float32), [0, 0, 0, 0], "5 to 5"),
    ],
)
def test_more_than_eight_bits_are_scaled_by_a_rule_that_is_told(tmp_path, name, values, expected, note):
    Image.fromarray(values).save(tmp_path / name)
    photo = open_image(tmp_path / name)
    assert np.asarray(photo.image)[0].tolist() == [[value] * 3 for value in expected]
    assert len(photo.notes) == 1 and note in photo.notes[0]


@pytest.mark.parametrize(
    ("form", "note"), [("gif", "the first of 3 frames"), ("png", "the first of 3 frames"), ("tif", "the first of 3 pages")]
)
def test_of_several_frames_the_first_is_shown(tmp_path, form, note):
    frames = [Image.new("RGB", (4, 4), colour) for colour in (RED, GREEN, BLUE)]
    frames[0].save(tmp_path / f"a.{form}", save_all=True, append_images=frames[1:])
    photo = open_image(tmp_path / f"a.{form}")
    assert (photo.image.getpixel((1, 1)), photo.notes) == (RED, (note,))


def test_what_a_telephone_hides_in_its_jpeg_is_no_second_picture(tmp_path):
    frames = [Image.new("RGB", (16, 16), colour) for colour in (RED, GREEN)]
    frames[0].save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=frames[1:])
    photo = open_image(tmp_path / "a.jpg")
    assert photo.notes == () and photo.image.getpixel((8, 8))[0] > 250


def test_values_that_are_not_finite_are_refused(tmp_path):
    Image.fromarray(np.array([[0, np.nan]], np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(FileProblem, match="not finite"):
        open_image(tmp_path / "a.tif")


@pytest.mark.parametrize("form", ["png", "jpg", "gif", "webp", "tif", "bmp", "ppm"])
def test_a_truncated_or_damaged_file_is_told(tmp_path, form):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = tmp_path / f"a.{form}"
    Image.fromarray(noise).save(path)
    content = path.read_bytes()
    for damaged in (content[: len(content) // 2], content[:30]):
        path.write_bytes(damaged)
        with pytest.raises(FileProblem) as caught:
            open_image(path)
        assert "is damaged or truncated" in caught.value.message and "\n" not in caught.value.message


def test_a_damaged_checksum_is_told(tmp_path):
    save(tmp_path / "a.png")
    content = bytearray((tmp_path / "a.png").read_bytes())
    content[content.index(b"IDAT") + 6] ^= 0xFF
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(FileProblem, match="is damaged or truncated"):
        open_image(tmp_path / "a.png")


def test_a_picture_of_absurd_size_is_refused_by_its_header(tmp_path):
    header = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    (tmp_path / "a.png").write_bytes(data + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT")))
    with pytest.raises(FileProblem, match="more pixels than Pillow opens"):
        open_image(tmp_path / "a.png")


def test_what_is_no_picture_says_so_also_when_it_is_opened(tmp_path):
    (tmp_path / "a.png").write_text("hello")
    with pytest.raises(FileProblem, match="is a text, not a picture"):
        open_image(tmp_path / "a.png")
    with pytest.raises(FileProblem, match="No such file"):
        open_image(tmp_path / "b.png")


def test_formats_that_start_other_programs_are_never_tried(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(x) print\n")
    monkeypatch.setattr(subprocess, "Popen", lambda *_args, **_kwargs: pytest.fail("a program was started"))
    with pytest.raises(FileProblem, match="is a text, not a picture"):
        open_image(tmp_path / "a.png")
