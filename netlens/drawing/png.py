"""What netlens writes into a PNG file besides the picture, and finds in one: texts that say where it comes from; and names for files.

Standard library only at module level, so that files can be checked before numpy and Pillow are imported.
"""

from __future__ import annotations

import hashlib
import io
import re
import stat
import zlib
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from netlens.drawing.escapes import harmless

if TYPE_CHECKING:
    from PIL.Image import Image

MAKER = "netlens "  # how the text "Software" begins in a file that netlens wrote
SIGNATURE = b"\x89PNG\r\n\x1a\n"
HEAD = 2**18  # bytes: all that is ever read of a file; our own texts stand in the first thousands
LONGEST_TEXT = 20_000  # characters; a command line can have two millions
COMPRESSION = 4  # of 9; 6 takes up to 3 times as long for a photograph that gets 8 % smaller
LONGEST = 120  # bytes of a file name; with the 19 that a temporary name adds it is within the 143 that encrypted file systems take
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)  # devices on Windows, whatever the extension


def encode(image: Image, texts: Mapping[str, str]) -> bytes:
    """Return the PNG file of a picture with these texts; equal pictures and texts give equal bytes.

    What does not fit into Latin-1 becomes iTXt. Characters that would steer a terminal are escaped, and very long texts are cut.
    """
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    for key, text in texts.items():
        info.add_text(key, harmless(text)[:LONGEST_TEXT])
    file = io.BytesIO()
    image.save(file, "PNG", pnginfo=info, compress_level=COMPRESSION)
    return file.getvalue()


def read_texts(path: Path) -> dict[str, str]:
    """Return the uncompressed texts that stand before the picture in a PNG file; {} for anything else.

    Raises:
        OSError: it cannot be read.
    """
    if not stat.S_ISREG(path.lstat().st_mode):  # opening a pipe would wait for ever
        return {}
    with path.open("rb") as file:
        head = file.read(HEAD)
    found: dict[str, str] = {}
    for kind, body in _chunks(head):
        key, _, rest = body.partition(b"\0")
        if kind == b"tEXt":
            found.setdefault(key.decode("latin-1"), rest.decode("latin-1"))
        elif kind == b"iTXt" and rest[:1] == b"\0":  # after the compression flag: the method, a language and a translated key
            text = rest[2:].split(b"\0", 2)[-1]
            found.setdefault(key.decode("latin-1"), text.decode("utf-8", "replace"))
    return found


def is_ours(path: Path) -> bool:
    """Whether netlens wrote this file.

    Raises:
        OSError: it cannot be read.
    """
    return read_texts(path).get("Software", "").startswith(MAKER)


def _chunks(head: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the chunks before the picture data, until one is damaged or cut off."""
    place = len(SIGNATURE)
    while head.startswith(SIGNATURE) and place + 12 <= len(head):
        end = place + 8 + int.from_bytes(head[place : place + 4], "big")
        kind, body = head[place + 4 : place + 8], head[place + 8 : end]
        if kind == b"IDAT" or zlib.crc32(kind + body) != int.from_bytes(head[end : end + 4], "big"):
            return
        yield kind, body
        place = end + 4


def safe_name(text: str, longest: int = LONGEST) -> str:
    """Turn a name into one that every file system takes, visible and at most so many bytes: "timm:resnet18" into "timm-resnet18".

    Different names can become the same one: `FileNames` keeps them apart.
    """
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", text)
    name = re.sub(r"\.{2,}", ".", name).strip(".-") or "unnamed"
    if RESERVED.match(name):
        name = f"_{name}"
    return name if len(name) <= longest else _with_hash(name, text, longest)


class FileNames:
    """Gives every name its own file name, also where file systems do not tell upper from lower case."""

    def __init__(self, longest: int = LONGEST) -> None:
        self._longest = longest
        self._owners: dict[str, tuple[str, int, int]] = {}

    def of(self, name: str, occurrence: int = 1, page: int = 1) -> str:
        """Return the file name of `name`, of its n-th occurrence, of a page; the same one when asked again."""
        owner = (name, occurrence, page)
        text = name if page == 1 else f"{self.of(name, occurrence)}-{page}"
        return next(found for found in self._candidates(text, occurrence) if self._owners.setdefault(found.lower(), owner) == owner)

    def _candidates(self, name: str, occurrence: int) -> Iterator[str]:
        safe = safe_name(name, self._longest)
        yield safe
        yield from (_with_hash(safe, f"{name}\0{occurrence}\0{salt}", self._longest) for salt in count())


def _with_hash(name: str, unique: str, longest: int) -> str:
    """Mark a name as one of several; its middle makes room, because the end of a layer's name says most."""
    digest = hashlib.sha256(unique.encode("utf-8", "backslashreplace")).hexdigest()[:8]
    room = longest - len(digest) - 2
    if len(name) <= room + 1:
        return f"{name}-{digest}"
    head, tail = name[: room // 2], name[len(name) - (room - room // 2) :]
    return f"{head}-{digest}-{tail}"
