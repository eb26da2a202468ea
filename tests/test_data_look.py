"""One look at one file: planted faults have known codes, clean files have none, and no bytes at all make it fail."""

from __future__ import annotations

import hashlib
import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile

from netlens.data import jpeg
from netlens.data.look import look
from netlens.data.records import BITS, FLAGS, FORMATS, MODES, UNDECODED
from tests.data_defects import CLEAN, DEFECTS, SINGLE, photo

# Kinds that one look cannot always tell: the least share of 12 that must be found. Measured over 40: .95, .88, .62, .78, .52, .25.
HARD = {
    "jpeg-scribbled": 0.75,
    "motion-blurred": 0.6,
    "upscaled-blocks-jpeg": 0.4,
    "upscaled-bilinear": 0.5,
    "upscaled-bicubic": 0.25,
    "upscaled-lanczos": 0.0,
}
GREY = {"mode-grey"}


def flags_of(path: Path | str) -> set[str]:
    rows, _ = look(str(path))
    return {code for code in FLAGS if int(rows["flags"][0]) & BITS[code]}


def encoded(im: Image.Image, name: str = "JPEG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    im.save(buffer, name, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", sorted(SINGLE.keys() - HARD.keys()))
def test_a_planted_fault_has_its_code_and_no_other(kind: str, tmp_path: Path) -> None:
    for seed in range(3):
        (path,) = DEFECTS[kind].write(seed, tmp_path / f"x{seed}")
        found = flags_of(path)
        assert DEFECTS[kind].codes[0] in found
        assert found <= {*DEFECTS[kind].codes, *GREY}


@pytest.mark.parametrize("kind", sorted(HARD))
def test_faults_that_can_hide_are_mostly_found(kind: str, tmp_path: Path) -> None:
    found = [flags_of(DEFECTS[kind].write(seed, tmp_path / f"x{seed}")[0]) for seed in range(12)]
    assert sum(DEFECTS[kind].codes[0] in codes for codes in found) >= HARD[kind] * 12
    assert set().union(*found) <= {DEFECTS[kind].codes[0], "blurred", *GREY}


@pytest.mark.parametrize("kind", sorted(set(DEFECTS) - set(SINGLE)))
def test_each_of_two_copies_is_clean_by_itself(kind: str, tmp_path: Path) -> None:
    for seed in range(3):
        assert [flags_of(path) - GREY for path in DEFECTS[kind].write(seed, tmp_path / f"x{seed}")] == [set(), set()]


@pytest.mark.parametrize("kind", sorted(CLEAN))
def test_clean_files_of_every_kind_are_left_alone(kind: str, tmp_path: Path) -> None:
    found = {seed: flags_of(CLEAN[kind](seed, tmp_path / f"x{seed}")) - GREY for seed in range(30)}
    assert {seed: codes for seed, codes in found.items() if codes} == {}


def test_what_a_row_says_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    photo(1).crop((0, 0, 200, 120)).save(path, quality=83)
    rows, detail = look(str(path))
    (row,) = rows
    assert detail == ""
    assert row["digest"].tobytes() == hashlib.blake2b(path.read_bytes(), digest_size=16).digest()
    assert (row["bytes"], row["width"], row["height"], row["pixels"]) == (path.stat().st_size, 200, 120, 200 * 120)
    assert (FORMATS[row["format"]], MODES[row["mode"]], row["quality"]) == ("JPEG", "RGB", 83)


@pytest.mark.parametrize("quality", [1, 20, 49, 50, 75, 90, 99, 100])
def test_quality_is_what_the_file_was_saved_with(quality: int, tmp_path: Path) -> None:
    photo(2).save(tmp_path / "a.jpg", quality=quality)
    assert look(str(tmp_path / "a.jpg"))[0]["quality"][0] == quality


def test_quality_of_other_tables_is_unknown(tmp_path: Path) -> None:
    photo(2).save(tmp_path / "a.jpg", qtables=[list(range(3, 67))] * 2)
    assert look(str(tmp_path / "a.jpg"))[0]["quality"][0] == 0


def test_details_are_numbers(tmp_path: Path) -> None:
    data = encoded(photo(3), "PNG")
    (tmp_path / "a.png").write_bytes(data[:3204])
    assert look(str(tmp_path / "a.png"))[1].startswith("ends after 3,204 of ")
    (tmp_path / "b.jpg").write_bytes(data)
    assert look(str(tmp_path / "b.jpg"))[1] == "a PNG file"
    Image.new("RGB", (60, 40), (9, 9, 9)).save(tmp_path / "c.png")
    assert look(str(tmp_path / "c.png"))[1] == "its grey levels differ by 0 of 255 (standard deviation)"


# -- JPEG structure ------------------------------------------------------------------------------------------------------------------


EVERY: tuple[dict[str, Any], ...] = ({"subsampling": 0}, {"subsampling": 1}, {"subsampling": 2}, {"optimize": True}, {"progressive": True})


def test_healthy_jpeg_files_decode_as_pillow_decodes_them_and_are_not_called_damaged() -> None:
    """All sizes about a block, all samplings, all modes, black ones as well: the data end where the pixels end, to the byte."""
    rng = np.random.default_rng(0)
    for mode, channels in (("L", 1), ("RGB", 3), ("CMYK", 4)):
        for side in (1, 7, 8, 9, 16, 17, 33, 64):
            for pixels in (rng.integers(0, 256, (side, side + 3, channels)), np.zeros((side, side + 3, channels))):
                im = Image.frombytes(mode, (side + 3, side), pixels.astype(np.uint8).tobytes())
                for options in EVERY:
                    data = encoded(im, quality=int(rng.integers(5, 100)), **options)
                    found = jpeg.structure_of(data)
                    watched = jpeg.WatchedJpeg(data, found)
                    watched.load()
                    assert (found.ended, jpeg.overwritten(data, found), watched.lost) == (True, "", "")
                    assert watched.tobytes() == Image.open(io.BytesIO(data)).tobytes()


def test_flat_areas_of_optimised_files_are_no_overwritten_ones() -> None:
    """With tables of its own, a file says nothing new with zero bits: a white page is one long run of zero bytes."""
    page = Image.new("RGB", (1200, 1200), "white")
    page.paste((10, 20, 30), (20, 20, 60, 40))
    settings: tuple[dict[str, Any], ...] = ({}, {"optimize": True}, {"progressive": True})
    for options in settings:
        data = encoded(page, **options)
        assert jpeg.overwritten(data, jpeg.structure_of(data)) == ""
    assert bytes(jpeg.ZEROS) in encoded(page, optimize=True)


def test_bytes_taken_from_and_added_to_the_data_are_noticed() -> None:
    """A tenth of the data less, and they end before the pixels; some of them twice, and the pixels end before them."""
    for seed in range(8):
        data = encoded(photo(seed), quality=90)
        start, end = jpeg.structure_of(data).scan, len(data) - 2
        middle, some = (start + end) // 2, (end - start) // 10
        for changed, expected in ((data[:middle] + data[middle + some :], jpeg.LATE), (data[:middle] + data[middle - some :], jpeg.EARLY)):
            watched = jpeg.WatchedJpeg(changed, jpeg.structure_of(changed))
            watched.load()
            assert watched.lost == expected


def test_large_jpeg_files_are_decoded_reduced_and_have_the_same_mean(tmp_path: Path) -> None:
    im = photo(4, 540).resize((2600, 2000), Image.Resampling.BICUBIC)
    im.save(tmp_path / "a.jpg", quality=90)
    (row,), _ = look(str(tmp_path / "a.jpg"))
    assert (row["width"], row["height"], row["pixels"]) == (2600, 2000, 650 * 500)
    np.testing.assert_allclose(row["sums"][:3] / row["pixels"], np.asarray(im).mean(axis=(0, 1)), atol=1.0)


def test_truncated_files_are_told_whatever_the_process_has_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    (tmp_path / "a.bmp").write_bytes(encoded(photo(5), "BMP")[:-9000])
    assert flags_of(tmp_path / "a.bmp") == {"picture-truncated"}
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


def test_a_thumbnail_in_a_tiff_file_is_no_second_page(tmp_path: Path) -> None:
    small = photo(6).reduce(4)
    small.encoderinfo = {"tiffinfo": {254: 1}}
    photo(6).save(tmp_path / "a.tif", save_all=True, append_images=[small])
    assert flags_of(tmp_path / "a.tif") == set()


# -- hostile files -------------------------------------------------------------------------------------------------------------------

FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "a.jpg": ("JPEG", {}),
    "b.jpg": ("JPEG", {"progressive": True}),
    "a.png": ("PNG", {}),
    "a.gif": ("GIF", {}),
    "a.webp": ("WEBP", {}),
    "a.bmp": ("BMP", {}),
    "a.tif": ("TIFF", {}),
    "b.tif": ("TIFF", {"compression": "tiff_lzw"}),
    "a.ppm": ("PPM", {}),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_beginning_of_a_file_is_called_broken_and_breaks_nothing(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    form, options = FORMS[name]
    data = encoded(photo(7).resize((64, 48)), form, **options)
    for length in [*range(40), *range(40, int(0.9 * len(data)), max(1, len(data) // 40))]:
        (tmp_path / name).write_bytes(data[:length])
        assert flags_of(tmp_path / name) & {*FLAGS[:4], "picture-undecodable", "picture-damaged"}, length
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", FORMS)
def test_no_flipped_bytes_make_it_fail(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    form, options = FORMS[name]
    healthy, rng = encoded(photo(8).resize((64, 48)), form, **options), np.random.default_rng(1)
    for _ in range(60):
        data = bytearray(healthy)
        for place in rng.integers(0, min(len(data), int(rng.choice([40, 700, 1 << 20]))), int(rng.integers(1, 5))):
            data[place] = int(rng.integers(256))
        (tmp_path / name).write_bytes(data)
        rows, _ = look(str(tmp_path / name))
        assert rows["bytes"][0] == len(healthy)
    assert capfd.readouterr() == ("", "")


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def huge_tiff() -> bytes:
    """Return a header whose tags claim 2**32 - 1 pixels a side, a strip at the end of the world, and a tag of four billion values."""
    entries = [(256, 4, 1, 0xFFFFFFFF), (257, 4, 1, 0xFFFFFFFF), (258, 3, 0xFFFFFFFF, 8), (273, 4, 1, 0xFFFFFFF0), (279, 4, 1, 0xFFFFFFFF)]
    table = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    return b"II*\0" + struct.pack("<I", 8) + table


HOSTILE = {
    "bomb.png": b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 2**31 - 1, 2**31 - 1, 8, 6, 0, 0, 0)) + chunk(b"IEND", b""),
    "text.png": b"\x89PNG\r\n\x1a\n"
    + chunk(b"IHDR", struct.pack(">IIBBBBB", 9, 9, 8, 0, 0, 0, 0))
    + chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(100 << 20)))
    + chunk(b"IEND", b""),
    "huge.tif": huge_tiff(),
    "huge.bmp": b"BM" + struct.pack("<IIIIiiHH", 54, 0, 54, 40, 2**31 - 1, 2**31 - 1, 1, 24) + bytes(24),
    "huge.gif": b"GIF89a\xff\xff\xff\xff\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\x08\0;",
    "huge.webp": b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8L" + struct.pack("<I", 10) + b"\x2f\xff\xff\xff\xff" + bytes(5),
    "endless.ppm": b"P6 " + b"9" * 5000,
    "program.jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(touched) (w) file\n",
    "vector.png": b"<svg xmlns='http://www.w3.org/2000/svg' onload='x()'/>",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_files_made_to_harm_are_told_and_not_decoded(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / name).write_bytes(HOSTILE[name])
    rows, detail = look(str(tmp_path / name))
    assert int(rows["flags"][0]) & (UNDECODED | BITS["picture-damaged"])
    assert detail and rows["pixels"][0] == 0
    assert capfd.readouterr() == ("", "")


def test_of_ten_thousand_frames_one_is_decoded(tmp_path: Path) -> None:
    frame = b"!\xf9\x04\0\1\0\0\0,\0\0\0\0\x10\0\x10\0\0\2\x0e\x8c\x8f\xa9\xcb\xed\x0f\xa3\x9c\xb4\xda\x8b\xb3>\x05\0"
    head = b"GIF89a\x10\0\x10\0\x80\0\0\0\0\0\xff\xff\xff"
    (tmp_path / "a.gif").write_bytes(head + frame * 10_000 + b";")
    assert "animated" in flags_of(tmp_path / "a.gif")


def test_a_pipe_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    assert flags_of(tmp_path / "a.jpg") == {"file-unreadable"}


@pytest.mark.parametrize("path", ["no/such/file.jpg", "a\0b.jpg", "", "x" * 5000])
def test_paths_that_name_nothing(path: str) -> None:
    assert flags_of(path) == {"file-unreadable"}


def test_files_too_large_to_read_are_not_read(tmp_path: Path) -> None:
    with (tmp_path / "a.jpg").open("wb") as file:
        file.truncate(3 << 30)  # a hole: it takes no room
    rows, detail = look(str(tmp_path / "a.jpg"))
    assert (flags_of(tmp_path / "a.jpg"), int(rows["bytes"][0]), detail) == (
        {"picture-too-large"},
        3 << 30,
        "a file of 3,072 MiB, which was not read",
    )


def test_nothing_is_written_beside_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    photo(9).save(path)
    before = path.read_bytes(), path.stat().st_mtime_ns
    look(str(path))
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    assert [each.name for each in tmp_path.iterdir()] == ["a.jpg"]
