"""What kind of picture a header announces: its mode and depth, its orientation, its frames; and what its alpha hides."""

from __future__ import annotations

from collections.abc import Iterator

from PIL import Image

from netlens.data.magic import png_depth

_ORIENTATION = 0x0112  # EXIF
_SUBFILE, _BITS = 254, 258  # TIFF
_CODES = {"I": "mode-float", "F": "mode-float", "CMYK": "mode-cmyk", "1": "mode-bilevel", "L": "mode-grey", "LA": "mode-grey"}
_CODES |= {"P": "mode-palette", "PA": "mode-palette"}


def kind_faults(im: Image.Image, data: bytes, name: str) -> Iterator[tuple[str, str]]:
    """Give codes of a picture that is opened and not loaded, each with what was seen.

    Args:
        data: its bytes.
        name: its format, as Pillow names it.
    """
    depth = png_depth(data) if name == "PNG" else max(im.tag_v2.get(_BITS, (8,))) if name == "TIFF" else 8  # type: ignore[attr-defined]
    if im.mode.startswith("I;16") or depth == 16:
        yield "mode-16-bit", "16 bits a channel"
    elif im.mode in _CODES:
        yield _CODES[im.mode], f"mode {im.mode}"
    if "exif" in im.info and (orientation := im.getexif().get(_ORIENTATION, 1)) not in (0, 1):
        yield "exif-rotated", f"EXIF orientation {orientation}"
    if name != "JPEG" and getattr(im, "is_animated", False) and not _has_thumbnail(im, name):
        yield "animated", "more than one page" if name == "TIFF" else "more than one frame"


def _has_thumbnail(im: Image.Image, name: str) -> bool:
    """Tell whether the second page of a TIFF file is a smaller copy of the first, and no page."""
    if name != "TIFF":
        return False
    im.seek(1)
    smaller = bool(im.tag_v2.get(_SUBFILE, 0) & 1)  # type: ignore[attr-defined]
    im.seek(0)
    return smaller


def alpha_faults(im: Image.Image) -> Iterator[tuple[str, str]]:
    """Give the code of a picture that has transparent parts, or no others; an alpha channel that is opaque hides nothing."""
    if "A" not in im.getbands() and "transparency" not in im.info:
        return
    alpha = im if "A" in im.getbands() else im.convert("RGBA")
    low, high = alpha.getchannel("A").getextrema()
    if high == 0:
        yield "all-transparent", "every pixel is transparent"
    elif low < 255:  # type: ignore[operator]
        yield "mode-alpha", f"alpha from {low} to {high} of 255"
