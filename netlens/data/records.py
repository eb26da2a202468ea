"""What is kept of each file: a row of fixed size, so that a million of them fit into half a GiB, and travel between processes as bytes."""

from __future__ import annotations

import numpy as np

# What one look at one file can tell, by itself. A row has one bit for each; the names are codes of findings.
FLAGS = (
    "file-unreadable",  # cannot be opened or read: permissions, a broken link, a failing disk
    "file-empty",  # 0 bytes
    "not-an-image",  # its bytes are something else: a web page, text, an archive
    "picture-truncated",  # it ends before the picture does
    "picture-damaged",  # it opens, but a part of its data is overwritten
    "picture-undecodable",  # a picture that Pillow cannot decode for another reason
    "picture-too-large",  # more pixels than a picture of a data set can have: never decoded
    "wrong-suffix",  # "a.jpg" that is a PNG file
    "mode-cmyk",
    "mode-palette",
    "mode-alpha",  # it has transparent parts, whose hidden colours training would see
    "all-transparent",  # nothing of it can be seen
    "mode-16-bit",
    "mode-float",  # also 32-bit integers
    "mode-bilevel",  # 1 bit a pixel
    "mode-grey",  # one channel, or three that are the same; a finding only among colour
    "exif-rotated",  # upright only for those who read its EXIF orientation
    "animated",  # more than one frame or page
    "too-small",  # a side under 10 pixels
    "blank",  # next to nothing in it
    "dark",
    "bright",
    "low-contrast",
    "blurred",  # out of focus
    "motion-blurred",  # blurred in one direction
    "upscaled",  # enlarged from a smaller picture
    "noisy",
    "letterboxed",  # uniform bars at two opposite edges
)
BITS = {code: 1 << place for place, code in enumerate(FLAGS)}
UNDECODED = sum(BITS[code] for code in FLAGS[:4] + FLAGS[5:7])  # rows without pixels: sizes may be known, looks are not

FORMATS = ("", "JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF", "other")  # "" where it is no picture
MODES = ("", "RGB", "L", "RGBA", "LA", "P", "CMYK", "YCbCr", "1", "I;16", "I", "F", "other")

THUMB = 16  # pixels a side

RECORD = np.dtype(
    [
        ("digest", "<u8", 2),  # blake2b of the file's bytes, 16 of them; 0, 0 where it cannot be read
        ("bytes", "<u8"),
        ("flags", "<u8"),  # BITS
        ("width", "<u4"),  # as stored, before EXIF turns it; 0 where unknown
        ("height", "<u4"),
        ("format", "u1"),  # place in FORMATS
        ("mode", "u1"),  # place in MODES
        ("quality", "u1"),  # of a JPEG file, estimated from its tables; 0 where unknown
        ("low", "u1"),  # 1st and 99th percentile of grey
        ("high", "u1"),
        ("pixels", "<u8"),  # what the sums run over; fewer than width * height where a reduced picture was decoded
        ("sums", "<u8", 6),  # of red, green, blue, and of their squares, as `convert("RGB")` gives them: exact integers
        ("spread", "<f4"),  # standard deviation of grey
        ("sharpness", "<f4"),  # variance of the Laplacian over the variance of grey
        ("direction", "<f4"),  # smaller over larger variance of the gradients across and down
        ("hash", "<u8"),  # 64-bit pHash, 0 where it would be noise
        ("mirrored", "<u8"),  # that of the mirror image
        ("thumb", "u1", (THUMB, THUMB)),  # grey
    ]
)


def has(records: np.ndarray, *codes: str) -> np.ndarray:
    """Tell which rows have any of these flags; (N,) bool."""
    mask = np.uint64(sum(BITS[code] for code in codes))
    found: np.ndarray = (records["flags"] & mask) != 0
    return found


def decoded(records: np.ndarray) -> np.ndarray:
    """Tell which rows have pixels; (N,) bool."""
    found: np.ndarray = (records["flags"] & np.uint64(UNDECODED)) == 0
    return found & (records["pixels"] > 0)
