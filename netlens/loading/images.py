"""Pictures that the user names: found without any library, opened as a person sees them."""

from __future__ import annotations

import glob
import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from netlens.errors import FileProblem
from netlens.loading.suggest import did_you_mean
from netlens.loading.words import cause, one_line, user_path

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
# Pillow guesses the format, and some of its formats start other programs (EPS runs Ghostscript): these do not.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
MAGIC = re.compile(rb"\x89PNG|\xff\xd8\xff|GIF8|BM|RIFF....WEBP|II[*+]\0|MM\0[*+]|P[1-6]\s", re.DOTALL)
HEAD = 512  # bytes that tell what a file is
CONVERT = "convert it to PNG or JPEG"
NAMES = "name a file, a folder or a quoted glob like 'val/**/*.jpg'"
SMALLER = "make it smaller with another program"
PERMISSIONS = "check the path and its permissions"
WHITE = (255, 255, 255, 255)
SIXTEEN = 65535  # the brightest value of 16 bits


@dataclass(frozen=True, slots=True)
class Photo:
    """A picture as a person sees it, turned upright."""

    path: Path
    image: Image.Image  # mode RGB; RGBA where transparency was asked for
    notes: tuple[str, ...] = ()  # what was done that one would not expect: "transparent parts are shown on white"


def find_images(patterns: Sequence[str]) -> list[Path]:
    """Return the pictures that files, folders and globs name: each once, in the order of the patterns, and naturally sorted within one.

    A folder stands for its pictures and those of its direct subfolders, the classes of a data set; hidden files are left out.

    Raises:
        FileProblem: a pattern leads to no picture.
    """
    found: dict[Path, Path] = {}
    try:
        for pattern in patterns:
            for path in _matches(pattern):
                found.setdefault(path.resolve(), path)
    except OSError as error:
        raise FileProblem(f"{one_line(error.filename)} cannot be read: {error.strerror}", hint=PERMISSIONS) from error
    return list(found.values())


def open_image(path: Path, *, transparency: bool = False) -> Photo:
    """Open a picture of any mode, upright by its EXIF orientation, in 8 bits a channel.

    Transparent parts are laid on white. Of several frames or pages the first is taken. 16-bit grey is scaled by 255 / 65535, so that
    pictures of one camera stay comparable; 32-bit and floating values are scaled from their own smallest and largest to 0..255, except
    floats in 0..1, where 1 is white.

    Args:
        path: a file.
        transparency: keep it as a fourth channel.

    Raises:
        FileProblem: it is no picture, or a damaged one, or one of absurd size.
    """
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # large, but below Pillow's limit; oddities in metadata
            with Image.open(path, formats=FORMATS) as opened:
                notes = _frames(opened)
                opened.load()
                image, turned = _upright(opened)
    except Image.DecompressionBombError as error:
        raise FileProblem(f"{one_line(path)} has more pixels than Pillow opens: {one_line(error)}", hint=SMALLER) from error
    except MemoryError as error:
        raise FileProblem(f"{one_line(path)} does not fit into memory", hint=SMALLER) from error
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error, zlib.error, EOFError, ...
        raise _unreadable(path, error) from error
    image, more = _eight_bits(path, image)
    image, white = (image.convert("RGBA"), ()) if transparency else _on_white(image)
    return Photo(path, image, (*notes, *turned, *more, *white))


def _matches(pattern: str) -> list[Path]:
    if not pattern.strip():
        raise FileProblem("--image names nothing", hint=NAMES)
    try:
        path = user_path(pattern)
    except RuntimeError:  # "~cat.png" is no user's home
        path = Path(pattern)
    if path.is_dir():
        return _in_folder(path)
    if path.exists():
        return [_checked(path)]
    if glob.has_magic(pattern):
        return _globbed(str(path))
    raise _missing(pattern, path)


def _in_folder(folder: Path) -> list[Path]:
    inside = list(_visible(folder.iterdir()))
    found = _pictures([*inside, *(path for child in inside if child.is_dir() for path in _visible(child.iterdir()))])
    if not found:
        hint = f"pictures end in {', '.join(SUFFIXES)}; deeper folders: --image '{one_line(folder)}/**/*.png'"
        raise FileProblem(f"the folder {one_line(folder)!r} holds no picture, nor do its subfolders", hint=hint)
    return found


def _globbed(pattern: str) -> list[Path]:
    files = [Path(name) for name in glob.glob(pattern, recursive=True)]  # noqa: PTH207 - Path.glob takes no absolute pattern
    found = _pictures(_visible(files))
    if found:
        return found
    what = f"none of the {len(files)} matches of {pattern!r} is a picture" if files else f"nothing matches {pattern!r}"
    raise FileProblem(what, hint="** stands for any number of folders, as in 'val/**/*.jpg'")


def _visible(paths: Iterable[Path]) -> Iterable[Path]:
    return (path for path in paths if not path.name.startswith("."))


def _pictures(paths: Iterable[Path]) -> list[Path]:
    return sorted((path for path in paths if path.suffix.lower() in SUFFIXES and path.is_file()), key=_natural)


def _natural(path: Path) -> tuple[list[tuple[str, int]], str]:
    """Sort img2 before img10; equal but for case or leading zeros, by the letters themselves."""
    parts = re.findall(r"(\D*)([0-9]*)", str(path).casefold())
    return [(letters, int(digits or -1)) for letters, digits in parts], str(path)


def _checked(path: Path) -> Path:
    """Refuse by its first bytes a file that is no picture, before anything heavy is imported."""
    if not path.is_file():
        raise FileProblem(f"{one_line(path)} is no regular file", hint=NAMES)
    with path.open("rb") as file:
        head = file.read(HEAD)
    if MAGIC.match(head):
        return path
    raise _no_picture(path, head)


def _no_picture(path: Path, head: bytes) -> FileProblem:
    name = one_line(path)
    if not head:
        return FileProblem(f"{name} is empty", hint="get the file again")
    if head.startswith(b"version https://git-lfs"):
        return FileProblem(f"{name} is a Git-LFS pointer, not the picture itself", hint="fetch the file: git lfs pull")
    if head[4:8] == b"ftyp":
        return FileProblem(f"{name} is a HEIC or AVIF picture or a film, which netlens does not open", hint=CONVERT)
    if b"\0" not in head and head.isascii():
        return FileProblem(
            f"{name} is a text, not a picture: {one_line(head.decode('ascii'), 40)!r}", hint="name a PNG, JPEG or other picture"
        )
    hint = f"{CONVERT}; netlens opens files that end in {', '.join(SUFFIXES)}"
    return FileProblem(f"{name} is not a picture that netlens opens", hint=hint)


def _missing(pattern: str, path: Path) -> FileProblem:
    if re.match(r"\w+://", pattern):
        return FileProblem(
            f"{one_line(pattern)!r} is an address, not a file", hint="netlens downloads nothing: save the picture, and name its file"
        )
    folder = next(parent for parent in path.parents if parent.is_dir())
    child = path.relative_to(folder).parts[0]
    names = [other.name for other in _visible(folder.iterdir())]
    where = f": {one_line(folder)} has no {one_line(child)!r}" if child != pattern else ""
    return FileProblem(f"there is no picture {one_line(pattern)!r}{where}", hint=did_you_mean(child, names, NAMES))


def _frames(opened: Image.Image) -> tuple[str, ...]:
    """Say that there are more frames or pages; what a telephone hides in its JPEG (depth, a thumbnail) is no second picture."""
    count = getattr(opened, "n_frames", 1) if opened.format != "MPO" else 1
    return (f"the first of {count} {'pages' if opened.format == 'TIFF' else 'frames'}",) if count > 1 else ()


def _upright(opened: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    from PIL import ImageOps

    try:
        return ImageOps.exif_transpose(opened), ()
    except Exception:  # EXIF is a format of its own, damaged in many ways, and the pixels are there
        return opened.copy(), ("its EXIF data are damaged, so it may lie on its side",)


def _unreadable(path: Path, error: Exception) -> FileProblem:
    if isinstance(error, OSError) and error.errno:
        return FileProblem(f"{one_line(path)} cannot be read: {error.strerror}", hint=PERMISSIONS)
    _checked(path)  # what is no picture at all says so itself
    what = "its header cannot be read" if type(error).__name__ == "UnidentifiedImageError" else cause(error)
    hint = "get the file again, and compare its size with the source's"
    return FileProblem(f"{one_line(path)} is damaged or truncated: {what}", hint=hint)


def _eight_bits(path: Path, image: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    if not image.mode.startswith(("I", "F")):
        return image, ()
    import numpy as np
    from PIL import Image

    values = np.asarray(image).astype(np.float64)
    if not np.isfinite(values).all():
        raise FileProblem(f"{one_line(path)} holds values that are not finite", hint="replace NaN and inf in the picture")
    low, high = float(values.min()), float(values.max())
    if image.mode.startswith("I") and low >= 0 and high <= SIXTEEN:  # older versions of Pillow open 16 bits as I
        scaled, note = values / SIXTEEN, f"16-bit grey: {SIXTEEN} is white, the brightest value is {high:g}"
    elif image.mode == "F" and low >= 0 and high <= 1:
        scaled, note = values, f"floating grey: 1 is white, the brightest value is {high:g}"
    else:
        scaled, note = (values - low) / max(high - low, 1e-300), f"its values {low:g} to {high:g} are scaled to black to white"
    return Image.fromarray(np.rint(scaled * 255).astype(np.uint8)), (note,)


def _on_white(image: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    from PIL import Image

    if not (image.mode.lower() in ("la", "pa", "rgba") or "transparency" in image.info):
        return image.convert("RGB"), ()
    layered = image.convert("RGBA")
    if layered.getchannel("A").getextrema()[0] == WHITE[3]:
        return layered.convert("RGB"), ()
    ground = Image.new("RGBA", image.size, WHITE)
    return Image.alpha_composite(ground, layered).convert("RGB"), ("transparent parts are shown on white",)
