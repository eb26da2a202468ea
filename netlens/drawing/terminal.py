"""Pictures as text for a terminal: half blocks in colour, or a ramp of ASCII characters.

What a terminal can show is told by its environment. It is never asked: an answer that comes late, or that somebody else reads, ends up
in what the user types next. Nothing but colours and resets (SGR) is sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from functools import cache

import numpy as np
from PIL import Image

LARGEST = 100  # columns and lines; more takes longer over SSH and shows little more
BLOCK = "▀"  # the upper half in the foreground colour, the lower half in the background colour
RAMP = " .:;=xeA#@"  # by the ink of monospaced letters; the darker, the denser: the paper of a picture stays blank
RESET = "\x1b[0m"
TRUECOLOR_TERMINALS = ("kitty", "ghostty", "foot", "alacritty", "wezterm", "direct", "iterm", "vscode")  # SSH forwards TERM, not COLORTERM
LUMA = (0.2126, 0.7152, 0.0722)  # Rec. 709

Pixels = np.ndarray  # (h, w, 3), 0..255


class Palette(Enum):
    """The colours that a terminal shows."""

    NONE = "none"  # an ASCII ramp of brightness
    INDEXED = "256"  # a cube of 6 x 6 x 6 colours and 24 greys; the 16 that users choose themselves are left alone
    TRUE = "truecolor"


def palette(environ: Mapping[str, str], encoding: str | None) -> Palette:
    """Say what a terminal shows, by its environment and by what the stream can encode.

    NO_COLOR and a dumb terminal overrule FORCE_COLOR, as in the tables; FORCE_COLOR=2 and 3 stand for 256 colours and truecolor.
    """
    terminal = environ.get("TERM", "").lower()
    force = environ.get("FORCE_COLOR", "")
    if environ.get("NO_COLOR") or terminal in ("dumb", "unknown") or force == "0" or not _encodes(BLOCK, encoding):
        return Palette.NONE
    if force == "3" or (force != "2" and _is_truecolor(environ, terminal)):
        return Palette.TRUE
    return Palette.INDEXED if force or "256color" in terminal else Palette.NONE


def _is_truecolor(environ: Mapping[str, str], terminal: str) -> bool:
    if terminal.startswith("screen") and not environ.get("TMUX"):  # GNU screen before 5 garbles it, and COLORTERM is the outer terminal's
        return False
    names = f"{terminal} {environ.get('TERM_PROGRAM', '').lower()}"
    return environ.get("COLORTERM", "").lower() in ("truecolor", "24bit") or any(name in names for name in TRUECOLOR_TERMINALS)


def _encodes(text: str, encoding: str | None) -> bool:
    try:
        text.encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def draw(image: Image.Image, columns: int, lines: int, colours: Palette) -> str:
    """Draw a picture on at most so many columns and lines (and `LARGEST`), each line ended by a line feed.

    A column is taken to be half as wide as a line is high. Reduced, every pixel is the mean of the area that it covers; enlarged, it
    is a square. In the ASCII ramp dark is dense: it shows no colour, so red and blue of the same brightness look the same.
    """
    pixels = np.asarray(image.convert("RGB"))
    columns, lines = (min(max(limit, 1), LARGEST) for limit in (columns, lines))
    height, width = fitted(pixels.shape[0], pixels.shape[1], 2 * lines, columns)
    if colours is Palette.NONE:
        return _ramp(resized(pixels, (height + 1) // 2, width))
    return _half_blocks(resized(pixels, height, width), colours)


def fitted(height: int, width: int, tallest: int, widest: int) -> tuple[int, int]:
    """Return the largest size within limits: of the same aspect where reduced, a whole multiple where enlarged."""
    factor = min(tallest / height, widest / width)
    if factor >= 1:
        return height * int(factor), width * int(factor)
    return max(round(height * factor), 1), max(round(width * factor), 1)


def resized(pixels: Pixels, height: int, width: int) -> Pixels:
    """Return the mean colour of the area that each new pixel covers, rounded; enlarged by whole factors that is the nearest pixel's."""
    rows, columns = _shares(pixels.shape[0], height), _shares(pixels.shape[1], width)
    reduced = np.tensordot(rows, pixels.astype(np.float32), 1)  # (height, w, 3)
    means: Pixels = np.rint(columns @ reduced)
    return means.astype(np.uint8)


def _shares(old: int, new: int) -> np.ndarray:
    """(new, old): by how much each old interval makes up each new one."""
    starts = np.arange(new)[:, None] * (old / new)
    places = np.arange(old)[None, :]
    overlap: np.ndarray = np.minimum(starts + old / new, places + 1) - np.maximum(starts, places)
    return (overlap.clip(0) * (new / old)).astype(np.float32)


def _ramp(pixels: Pixels) -> str:
    dark = 1 - pixels @ np.array(LUMA) / 255
    steps = np.rint(dark * (len(RAMP) - 1)).astype(int)
    return "".join("".join(RAMP[step] for step in row).rstrip() + "\n" for row in steps)


def _half_blocks(pixels: Pixels, colours: Palette) -> str:
    codes = _indexed(pixels) if colours is Palette.INDEXED else _true(pixels)
    if len(codes) % 2:
        codes.append([""] * pixels.shape[1])
    return "".join(_line(upper, lower) for upper, lower in zip(codes[::2], codes[1::2], strict=True))


def _line(upper: list[str], lower: list[str]) -> str:
    """Write one line; a colour is sent only where it changes. Where both halves are the same, a space shows no seam between them."""
    parts, ink, paper = [], "", ""
    for above, below in zip(upper, lower, strict=True):
        wanted = [f"48;{below}"] if below != paper else []
        paper = below
        if above != below and above != ink:
            wanted.append(f"38;{above}")
            ink = above
        parts.append((f"\x1b[{';'.join(wanted)}m" if wanted else "") + (BLOCK if above != below else " "))
    return f"{''.join(parts)}{RESET}\n"


def _true(pixels: Pixels) -> list[list[str]]:
    return [[f"2;{red};{green};{blue}" for red, green, blue in row] for row in pixels.tolist()]


def _indexed(pixels: Pixels) -> list[list[str]]:
    """Choose the nearest of the 240 fixed colours, by the distance in Oklab."""
    known = _known_colours()
    distances = (known**2).sum(-1) - 2 * oklab(pixels) @ known.T  # less the square of the pixel, which is the same for all
    return [[f"5;{16 + number}" for number in row] for row in distances.argmin(-1).tolist()]


@cache
def _known_colours() -> np.ndarray:
    """(240, 3) in Oklab: the colours 16 to 255 of xterm."""
    steps = (0, 95, 135, 175, 215, 255)
    cube = [(red, green, blue) for red in steps for green in steps for blue in steps]
    return oklab(np.array([*cube, *((grey, grey, grey) for grey in range(8, 248, 10))]))


def oklab(colours: np.ndarray) -> np.ndarray:
    """Turn (..., 3) sRGB colours, 0..255, into a space in which distances are as large as they look (Ottosson 2020).

    Source: https://bottosson.github.io/posts/oklab/, the matrices of 2021-01-25.
    """
    srgb = np.asarray(colours, dtype=np.float64) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    cones = np.array(
        [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566], [0.0883024619, 0.2817188376, 0.6299787005]]
    )
    lab = np.array(
        [
            [0.2104542553, 0.7936177850, -0.0040720468],
            [1.9779984951, -2.4285922050, 0.4505937099],
            [0.0259040371, 0.7827717662, -0.8086757660],
        ]
    )
    found: np.ndarray = np.cbrt(linear @ cones.T) @ lab.T
    return found
