"""One look at one file: one read, one hash, one decode, and everything that it can tell by itself."""

from __future__ import annotations

import hashlib
import os
import stat
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import PurePath

import numpy as np
from PIL import Image, ImageFile

from netlens.data import jpeg, magic
from netlens.data.hashing import SIDE, perceptual
from netlens.data.letterbox import inside
from netlens.data.looks import Looks, is_grey, judged, measured
from netlens.data.modes import alpha_faults, kind_faults
from netlens.data.records import BITS, FLAGS, FORMATS, MODES, RECORD

LARGEST_FILE = 512 << 20  # bytes; larger ones are not read
MOST_PIXELS = 80_000_000  # of a picture that is decoded: 320 MB; Pillow warns at 89 million, and refuses twice that
REDUCED = 4_000_000  # pixels: JPEG files over this are decoded at a half, a quarter or an eighth
ENOUGH = 250_000  # pixels that a reduced picture has at least
TOO_SMALL = 10  # pixels a side, as Ultralytics' dataset scan
FLAT = 6.0  # standard deviation of grey, under which a perceptual hash is that of noise
_PLACES = {name: place for place, name in enumerate(FORMATS)}
_MODES = {name: place for place, name in enumerate(MODES)}
_UNJUDGED = (
    "picture-damaged",
    "all-transparent",
    "mode-16-bit",
    "mode-float",
    "mode-bilevel",
    "too-small",
)  # what their pixels are, follows
_WASHED = ("blank", "dark", "bright", "low-contrast")  # too little is left to tell grey from colour


@dataclass(slots=True)
class _Seen:
    """A row while it is filled, and what there is to say about it."""

    row: np.void
    told: dict[str, str] = field(default_factory=dict)

    def tell(self, code: str, detail: str = "") -> None:
        self.told[code] = detail
        self.row["flags"] |= np.uint64(BITS[code])

    def tell_all(self, faults: Iterable[tuple[str, str]]) -> None:
        for code, detail in faults:
            self.tell(code, detail)

    def detail(self) -> str:
        return next((self.told[code] for code in FLAGS if code != "mode-grey" and code in self.told), "")


def look(path: str) -> tuple[np.ndarray, str]:
    """Return what one file is: one row of RECORD, (1,), and more about the first thing that is wrong ("" where nothing is).

    It raises nothing for what a file can contain, runs no other program, prints nothing, and opens no pipe or device.
    """
    rows = np.zeros(1, RECORD)
    seen = _Seen(rows[0])
    with warnings.catch_warnings():  # Pillow warns of what is told here
        warnings.simplefilter("ignore")
        data = _read(path, seen)
        if data:
            _look_into(data, path, seen)
    return rows, seen.detail()


def _read(path: str, seen: _Seen) -> bytes:
    """Return the bytes of a file; b"" where that is told already."""
    try:
        status = os.stat(path)  # noqa: PTH116
        if not stat.S_ISREG(status.st_mode):
            seen.tell("file-unreadable", "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe, a socket or a device")
            return b""
        seen.row["bytes"] = status.st_size
        if status.st_size > LARGEST_FILE:
            seen.tell("picture-too-large", f"a file of {status.st_size >> 20:,} MiB, which was not read")
            return b""
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - a Path costs as much as the read
            data = file.read()
    except (OSError, ValueError) as error:
        broken = isinstance(error, FileNotFoundError) and os.path.islink(path)  # noqa: PTH114
        seen.tell("file-unreadable", "a link to a file that is not there" if broken else getattr(error, "strerror", None) or str(error))
        return b""
    seen.row["bytes"] = len(data)
    seen.row["digest"] = np.frombuffer(hashlib.blake2b(data, digest_size=16).digest(), "<u8")
    if not data:
        seen.tell("file-empty", "0 bytes")
    return data


def _look_into(data: bytes, path: str, seen: _Seen) -> None:
    name = magic.picture_format(data)
    if not name:
        unread = magic.unread_picture(data)
        seen.tell("picture-undecodable", f"{unread}, which Pillow does not read") if unread else seen.tell(
            "not-an-image", magic.described(data)
        )
        return
    seen.row["format"] = _PLACES.get(name, _PLACES["other"])
    owner = magic.suffix_owner(PurePath(path).suffix)
    if owner and owner != name:
        seen.tell("wrong-suffix", f"a {name} file")
    try:
        _decode(data, name, seen)
    except Exception as error:  # decoders raise anything for broken data, MemoryError and SyntaxError included
        _tell_failure(error, seen)


def _decode(data: bytes, name: str, seen: _Seen) -> None:
    structure = jpeg.structure_of(data) if name == "JPEG" else None
    missing = magic.missing_bytes(data, name)
    if structure and not structure.ended:
        missing = f"ends after {len(data.rstrip(bytes(1))):,} bytes, without an end mark"
    if missing:
        seen.tell("picture-truncated", missing)
    im = _opened(data, name, structure)
    seen.row["width"], seen.row["height"] = im.size
    seen.row["mode"] = _MODES.get(im.mode[:4], _MODES["other"])
    if im.width * im.height > MOST_PIXELS:
        seen.tell("picture-too-large", f"{im.width:,} x {im.height:,} pixels")
        return
    if not missing:
        seen.tell_all(kind_faults(im, data, name))
        with _silenced() if name == "TIFF" else nullcontext():
            _load(im, structure, seen)
        _judge_damage(im, data, name, structure, seen)
        seen.tell_all(alpha_faults(im))
        _judge_pixels(im, seen)


def _opened(data: bytes, name: str, structure: jpeg.Structure | None) -> Image.Image:
    """Open a picture without Pillow's limit of size, which would be warnings, or an error that hides the size."""
    if structure:
        return jpeg.WatchedJpeg(data, structure)
    if name not in Image.OPEN:
        Image.init()
    if name not in Image.OPEN:
        raise OSError(f"this Pillow does not read {name}")
    return Image.OPEN[name][0](BytesIO(data), "")


def _load(im: Image.Image, structure: jpeg.Structure | None, seen: _Seen) -> None:
    """Decode; large JPEG files reduced, and strictly, whatever the process has set."""
    if structure and im.width * im.height > REDUCED:
        factor = next((by for by in (8, 4, 2) if im.width * im.height / by**2 >= ENOUGH), 1)
        im.draft(None, (im.width // factor, im.height // factor))
    before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
    try:
        im.load()
    except OSError as error:
        cut = "truncated" in str(error) and not (structure and structure.ended)
        seen.tell("picture-truncated" if cut else "picture-damaged", _one_line(error))
        raise
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


@contextmanager
def _silenced() -> Iterator[None]:
    """Keep what libtiff writes about broken files, past Python, from standard error."""
    try:
        kept = os.dup(2)
    except OSError:  # there is none
        yield
        return
    try:
        with open(os.devnull, "wb") as nothing:  # noqa: PTH123
            os.dup2(nothing.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _judge_damage(im: Image.Image, data: bytes, name: str, structure: jpeg.Structure | None, seen: _Seen) -> None:
    what = magic.wrong_checksum(data) if name == "PNG" else ""
    if structure and isinstance(im, jpeg.WatchedJpeg):
        what = jpeg.overwritten(data, structure) or im.lost
        seen.row["quality"] = jpeg.quality_of(im.quantization.get(0, []))
    if what:
        seen.tell("picture-damaged", what)


def _judge_pixels(im: Image.Image, seen: _Seen) -> None:
    row = seen.row
    im = im if im.mode in ("RGB", "L") else im.convert("RGB")
    looks = measured(im)
    _fill(row, looks, im)
    if min(row["width"], row["height"]) < TOO_SMALL:
        seen.tell("too-small", f"{row['width']} x {row['height']} pixels")
    if any(code in seen.told for code in _UNJUDGED):
        return
    framed = inside(looks.pixels) if looks.spread else None
    if framed:
        seen.tell("letterboxed", f"{1 - (framed[2] - framed[0]) * (framed[3] - framed[1]):.0%} of it is bars")
        im = im.crop(tuple(round(at * side) for at, side in zip(framed, (im.width, im.height) * 2, strict=True)))  # type: ignore[arg-type]
        looks = measured(im)
    code, detail = judged(looks, im)
    if code:
        seen.tell(code, detail)
    if code not in _WASHED and is_grey(looks, im.width * im.height):
        seen.tell("mode-grey")


def _fill(row: np.void, looks: Looks, im: Image.Image) -> None:
    row["pixels"] = im.width * im.height
    row["sums"].reshape(2, 3)[:] = looks.sums.T
    row["low"], row["high"], row["spread"] = looks.low, looks.high, looks.spread
    row["sharpness"], row["direction"] = looks.sharpness, looks.direction
    small = np.frombuffer(looks.grey.resize((SIDE, SIDE), Image.Resampling.BOX).tobytes(), np.uint8).reshape(SIDE, SIDE)
    pairs = np.add(small[::2], small[1::2], dtype=np.uint16)
    row["thumb"] = (pairs[:, ::2] + pairs[:, 1::2] + 2) >> 2
    if looks.spread >= FLAT:
        row["hash"], row["mirrored"] = perceptual(small)


def _tell_failure(error: Exception, seen: _Seen) -> None:
    if not seen.row["flags"] & np.uint64(sum(BITS[code] for code in ("picture-truncated", "picture-damaged", "picture-undecodable"))):
        opened = seen.row["width"] and not isinstance(error, MemoryError)
        seen.tell("picture-damaged" if opened else "picture-undecodable", _one_line(error))


def _one_line(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:120]
