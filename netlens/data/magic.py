"""What a file is by its first bytes, and whether a file of that format ends where it says."""

from __future__ import annotations

import struct
import zlib

# As Pillow names them. WEBP and AVIF are told by what stands after the first four bytes.
_PICTURES: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG2000"),
    (b"\xffO\xffQ", "JPEG2000"),
    (b"\0\0\1\0", "ICO"),
    (b"qoif", "QOI"),
    (b"\x01\xda", "SGI"),
)
_UNREAD_PICTURES: tuple[tuple[bytes, str], ...] = (
    (b"\xff\x0a", "a JPEG XL picture"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL picture"),
    (b"8BPS", "a Photoshop document"),
    (b"v/1\x01", "an OpenEXR picture"),
    (b"FUJIFILMCCD-RAW", "a camera's raw picture"),
)
_OTHERS: tuple[tuple[bytes, str], ...] = (
    (b"PK", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"Rar!", "a RAR archive"),
    (b"%PDF", "a PDF document"),
    (b"%!PS", "a PostScript program"),
    (b"\xc5\xd0\xd3\xc6", "a PostScript program"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x80\x02", "a Python pickle"),
    (b"\x00\x05\x16\x07", "a macOS resource file"),
    (b"version https://git-lfs", "a Git LFS pointer: the picture was not fetched"),
)
_HEIC = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")
SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jfif", ".jpe", ".mpo"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "BMP": (".bmp", ".dib"),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    "AVIF": (".avif", ".avifs"),
}
_OWNERS = {suffix: name for name, suffixes in SUFFIXES.items() for suffix in suffixes}


def picture_format(data: bytes) -> str:
    """Return Pillow's name of the format that the first bytes show; "" where they show none that is read here."""
    for start, name in _PICTURES:
        if data.startswith(start):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp" and data[8:12] in (b"avif", b"avis"):
        return "AVIF"
    return "PPM" if data[:1] == b"P" and data[1:2] in b"123456fF" and data[2:3].isspace() else ""


def unread_picture(data: bytes) -> str:
    """Say which kind of picture it is that Pillow does not read; "" where it is none."""
    if data[4:8] == b"ftyp" and data[8:12] in _HEIC:
        return "a HEIC picture"
    return next((words for start, words in _UNREAD_PICTURES if data.startswith(start)), "")


def described(data: bytes) -> str:
    """Say in words what a file is that is no picture: "a web page", "text", "a ZIP archive"."""
    for start, words in _OTHERS:
        if data.startswith(start):
            return words
    head = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if b"<svg" in head:
        return "an SVG drawing"
    if head.startswith((b"<!doctype html", b"<html", b"<head")) or b"<html" in head:
        return "a web page"
    if not data.strip(b"\0"):
        return "nothing but zero bytes"
    text = not head.translate(None, bytes(range(32, 127)) + b"\t\r\n\f")
    return "text" if text else f"of no known kind: it begins with {data[:4].hex(' ')}"


def suffix_owner(suffix: str) -> str:
    """Return the format that a suffix (".jpg", in any case) stands for; "" for one that stands for none."""
    return _OWNERS.get(suffix.lower(), "")


def missing_bytes(data: bytes, name: str) -> str:
    """Say where a file of this format ends too early: "ends after 3,204 of 9,811 bytes"; "" where it is whole, or says nothing."""
    if name == "PNG":
        return _png(data)[0]
    if name == "GIF":
        return _gif(data)
    if name == "WEBP" and len(data) >= 8:
        return _short(len(data), struct.unpack_from("<I", data, 4)[0] + 8)
    return _boxes(data) if name == "AVIF" else ""


def wrong_checksum(data: bytes) -> str:
    """Say which critical part of a PNG file does not have the checksum that it says; "" where all have."""
    return _png(data)[1]


def png_depth(data: bytes) -> int:
    """Return the bits of one channel that a PNG file's header says; Pillow may open 16 bits of colour as 8."""
    return data[24] if len(data) > 24 else 0


def _short(has: int, says: int) -> str:
    return f"ends after {has:,} of {says:,} bytes" if has < says else ""


def _png(data: bytes) -> tuple[str, str]:
    place, size, wrong = 8, len(data), ""
    while place + 12 <= size:
        (length,) = struct.unpack_from(">I", data, place)
        kind, end = data[place + 4 : place + 8], place + 12 + length
        if not kind.isalpha():
            if data.count(0, place) == size - place:
                break
            return "", wrong or f"no part begins at byte {place:,}, where one must"
        if end > size:
            return _short(size, end), wrong
        sum_ = int.from_bytes(data[end - 4 : end], "big")
        if kind[:1].isupper() and not wrong and zlib.crc32(memoryview(data)[place + 4 : end - 4]) != sum_:
            wrong = f"the checksum of its {kind.decode('ascii')} data at byte {place:,} is wrong"
        if kind == b"IEND":
            return "", wrong
        place = end
    return f"ends after {len(data.rstrip(bytes(1))):,} bytes, without an end mark", wrong


def _gif(data: bytes) -> str:
    """Walk a GIF file's blocks: one that lacks only its last byte is whole."""
    if len(data) < 13:
        return f"ends after {len(data):,} bytes, in its header"
    place, size = 13 + _colours(data[10]), len(data)
    while place < size and data[place] in b"!,":
        if data[place] == 0x2C:
            if place + 10 > size:
                break
            place += 11 + _colours(data[place + 9])
        else:
            place += 2
        while place < size and data[place]:
            place += data[place] + 1
        place += 1
    return f"ends after {size:,} bytes, inside a frame" if place > size else ""


def _colours(packed: int) -> int:
    return 3 << (packed & 7) + 1 if packed & 0x80 else 0


def _boxes(data: bytes) -> str:
    place = 0
    while place + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, place)
        if length < 8:
            return ""
        place += length
    return _short(len(data), place)
