"""Which files are pictures, by their names; and by their first bytes where names do not tell."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

IMAGE_FOLDER = frozenset((".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"))  # torchvision's IMG_EXTENSIONS
_PICTURES = ".gif .jfif .jfi .jif .jpe .heic .heif .hif .avif .avifs .apng .tga .jp2 .j2k .j2c .jpf .jpx .jxl .pbm .pnm .dib .mpo .qoi"
LEFT_OUT = frozenset(_PICTURES.split())  # pictures that it leaves out
_OTHERS = (
    ".txt .json .jsonl .csv .tsv .xml .md .rst .html .htm .yaml .yml .toml .ini .cfg .log .db .py .ipynb .sh .pdf .doc .docx .xls .xlsx "
    ".npy .npz .pt .pth .pkl .pickle .mat .h5 .hdf5 .mdb .parquet .arrow .tfrecord .safetensors .onnx .bin .zip .tar .gz .tgz .7z .rar "
    ".mp4 .avi .mov .mkv .webm .wav .mp3 .svg .ds_store .cache .lock .part .crdownload .md5 .sha256"
)
NO_PICTURES = frozenset(_OTHERS.split())  # what lies beside pictures; a file of any other suffix has its first bytes read
FIRST_BYTES = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n|GIF8[79]a|RIFF.{4}WEBP|BM.{4}\0{4}|II\*\0|MM\0\*|.{4}ftyp(?:avi[fs]|hei[cfmsx]|mif1|msf1)|\0{3}\x0cjP  ",
    re.DOTALL,
)
APPLE_DOUBLE = "._"  # macOS's notes on a file, written beside it on foreign disks
SYSTEM_FOLDERS = frozenset(("__MACOSX", "__pycache__", "@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information"))
ODD_CATEGORIES = frozenset(("Cc", "Cs", "Zl", "Zp"))  # Unicode's: control characters, bytes that are no UTF-8, line ends


def suffix_of(name: str) -> str:
    """Return what follows the last dot, in small letters, with the dot: ".jpg"; "" where there is none."""
    dot = name.rfind(".")
    return name[dot:].lower() if dot >= 0 else ""


def is_picture(name: str, folder: str) -> bool:
    """Tell whether a file shall be opened as a picture; `folder` ends in a slash.

    Only a regular file of a suffix that says nothing is read, and of it 16 bytes: to open a pipe may wait for ever.
    """
    suffix = suffix_of(name)
    if name.startswith(APPLE_DOUBLE) or suffix in NO_PICTURES:
        return False
    return suffix in IMAGE_FOLDER or suffix in LEFT_OUT or _begins_as_picture(folder + name)


def is_hidden(name: str) -> bool:
    """Tell whether a folder or a file was not meant to be seen."""
    return name.startswith(".") or name in SYSTEM_FOLDERS


def is_odd(name: str) -> bool:
    """Tell whether a name breaks lists of files, terminals or CSV files."""
    return not name.isprintable() and any(unicodedata.category(letter) in ODD_CATEGORIES for letter in name)


def alike(names: Sequence[str]) -> list[list[str]]:
    """Return the groups of names that differ only in case, or in how Unicode writes an accent: one name on Windows and macOS."""
    mixed = defaultdict(list)
    for name in names:
        if (folded := _folded(name)) != name:
            mixed[folded].append(name)
    if not mixed:
        return []
    for name in names:
        if name in mixed and _folded(name) == name:
            mixed[name].insert(0, name)
    return [sorted(group) for group in mixed.values() if len(group) > 1]


def _folded(name: str) -> str:
    if name.isascii():
        return name.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _begins_as_picture(path: str) -> bool:
    try:
        if not Path(path).is_file():
            return False
        with Path(path).open("rb") as file:
            return FIRST_BYTES.match(file.read(16)) is not None
    except OSError:
        return False
