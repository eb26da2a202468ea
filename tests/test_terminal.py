"""Pictures in the terminal: what a terminal receives is turned back into an image and held against the picture, resized by definition."""

from __future__ import annotations

import re
from fractions import Fraction
from importlib.util import find_spec
from math import ceil, floor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from rich._palettes import EIGHT_BIT_PALETTE

from netlens.drawing.terminal import LARGEST, RAMP, Palette, draw, fitted, oklab, palette

DEFAULT = (-1, -1, -1)  # the terminal's own colour
TOKEN = re.compile(r"\x1b\[([0-9;]*)m|(.)|(\n)")


def received(text: str) -> np.ndarray:
    """Do what a terminal does with half blocks: (2 x lines, columns, 3) colours. Any other escape sequence fails, and so does colour
    that is left on at the end of a line."""
    lines: list[list[tuple[tuple[int, ...], tuple[int, ...]]]] = [[]]
    ink = paper = DEFAULT
    place = 0
    while place < len(text):
        match = TOKEN.match(text, place)
        assert match is not None and match[2] != "\x1b", f"not a colour: {text[place : place + 20]!r}"
        place = match.end()
        if match[3]:
            assert (ink, paper) == (DEFAULT, DEFAULT), "the line ends in colour"
            lines.append([])
        elif match[2]:
            assert match[2] in " ▀"
            lines[-1].append((ink if match[2] == "▀" else paper, paper))
        else:
            ink, paper = after(match[1], ink, paper)
    assert lines.pop() == [], "the last line is not ended"
    return np.array([[cell[half] for cell in line] for line in lines for half in (0, 1)])


def after(codes: str, ink: tuple[int, ...], paper: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the colours after one SGR sequence."""
    numbers = [int(code or 0) for code in codes.split(";")]
    while numbers:
        code = numbers.pop(0)
        if code == 0:
            ink = paper = DEFAULT
            continue
        assert code in (38, 48)
        kind = numbers.pop(0)
        assert kind in (2, 5)
        colour = tuple(numbers.pop(0) for _ in range(3)) if kind == 2 else tuple(EIGHT_BIT_PALETTE[numbers.pop(0)])
        assert len(colour) == 3 and all(0 <= part <= 255 for part in colour)
        ink, paper = (colour, paper) if code == 38 else (ink, colour)
    return ink, paper


def area_means(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """The definition as plain loops: every new pixel is the mean of what it covers, parts of pixels by their share."""
    old_height, old_width = pixels.shape[:2]
    found = np.zeros((height, width, 3))
    for row in range(height):
        for column in range(width):
            for y, tall in covered(row, height, old_height):
                for x, wide in covered(column, width, old_width):
                    found[row, column] += float(tall * wide) * pixels[y, x]
    return found


def covered(place: int, new: int, old: int) -> list[tuple[int, Fraction]]:
    """The old pixels under a new one, each with its share."""
    size = Fraction(old, new)
    low, high = place * size, (place + 1) * size
    return [(index, (min(high, index + 1) - max(low, index)) / size) for index in range(floor(low), ceil(high))]


def noise(height: int, width: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_the_reader_reads_a_line_that_was_written_by_hand():
    text = "\x1b[48;2;1;2;3;38;2;4;5;6m▀ \x1b[48;5;196m▀\x1b[0m\n\x1b[38;5;16m▀\x1b[0m▀ \n"
    expected = [
        [(4, 5, 6), (1, 2, 3), (4, 5, 6)],
        [(1, 2, 3), (1, 2, 3), (255, 0, 0)],
        [(0, 0, 0), DEFAULT, DEFAULT],
        [DEFAULT, DEFAULT, DEFAULT],
    ]
    np.testing.assert_array_equal(received(text), expected)


@pytest.mark.parametrize("text", ["\x1b[c\n", "\x1b[2J\n", "\x1b]0;title\x07\n", "\x1b[48;2;1;2;3m \n", " ", "\x1b[31mx\n", "\r\n"])
def test_the_reader_refuses_whatever_else_a_terminal_would_do(text):
    with pytest.raises(AssertionError):
        received(text)


# --- truecolor: the picture itself


@pytest.mark.parametrize(
    ("height", "width", "columns", "lines"), [(50, 61, 20, 40), (64, 37, 36, 30), (33, 40, 39, 100), (90, 30, 80, 6), (41, 200, 17, 9)]
)
def test_a_reduced_picture_is_its_area_mean(height, width, columns, lines):
    image = noise(height, width)
    pixels = received(draw(image, columns, lines, Palette.TRUE))
    pixels = pixels[:-1] if (pixels[-1] == DEFAULT).all() else pixels
    assert pixels.shape[1] == columns or 2 * lines - 1 <= len(pixels) <= 2 * lines
    np.testing.assert_allclose(pixels, area_means(np.asarray(image), *pixels.shape[:2]), rtol=0, atol=0.501)


@pytest.mark.parametrize("factor", [2, 3, 7])
def test_a_whole_factor_is_what_pillow_reduces_to(factor):
    image = noise(20 * factor, 30 * factor)
    expected = np.asarray(image.reduce(factor), dtype=int)
    assert abs(received(draw(image, 30, 100, Palette.TRUE)) - expected).max() <= 1  # Pillow rounds in fixed point


@pytest.mark.parametrize(
    ("height", "width", "columns", "lines", "factor"), [(8, 5, 50, 50, 10), (3, 3, 20, 9, 6), (10, 21, 41, 50, 1), (1, 1, 7, 99, 7)]
)
def test_an_enlarged_picture_is_made_of_equal_squares(height, width, columns, lines, factor):
    image = noise(height, width)
    pixels = received(draw(image, columns, lines, Palette.TRUE))
    expected = np.kron(np.asarray(image), np.ones((factor, factor, 1), dtype=int))
    np.testing.assert_array_equal(pixels[: height * factor], expected)
    assert (pixels[height * factor :] == DEFAULT).all() and len(pixels) - height * factor == height * factor % 2


def test_every_weight_of_a_grid_of_small_kernels_can_be_told():
    """64 kernels of 3 x 3, as a page draws them: the cell in the middle of each weight has the weight's own colour."""
    weights = np.random.default_rng(0).integers(0, 256, (8, 8, 3, 3, 3))
    page = Image.new("RGB", (690, 690), "white")
    pen = ImageDraw.Draw(page)
    for i, j, y, x in np.ndindex(8, 8, 3, 3):
        left, top = 30 + 80 * j + 24 * x, 30 + 80 * i + 24 * y
        pen.rectangle((left, top, left + 23, top + 23), fill=tuple(weights[i, j, y, x].tolist()))
    pixels = received(draw(page, 100, 50, Palette.TRUE))
    assert pixels.shape == (100, 100, 3)
    for i, j, y, x in np.ndindex(8, 8, 3, 3):
        row, column = (int((30 + 80 * tile + 24 * part + 12) / 6.9) for tile, part in ((i, y), (j, x)))
        np.testing.assert_array_equal(pixels[row, column], weights[i, j, y, x])


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "I;16"])
def test_every_mode_of_pillow_is_drawn_in_its_colours(mode):
    image = Image.new(mode, (4, 4), 1 if mode in ("1", "P") else 255 if mode == "L" else (255, 255, 255, 255) if mode == "RGBA" else 65535)
    if mode == "P":
        image.putpalette([10, 20, 30, 255, 255, 255])
    assert (received(draw(image, 4, 4, Palette.TRUE)) == 255).all()


# --- 256 colours


def test_oklab_gives_the_published_values():
    """CSS Color 4 lists them: https://www.w3.org/TR/css-color-4/#named-colors."""
    colours = {(255, 255, 255): (1, 0, 0), (255, 0, 0): (0.62796, 0.22486, 0.12585), (0, 0, 255): (0.45201, -0.03246, -0.31153)}
    colours |= {(0, 128, 0): (0.51975, -0.14030, 0.10768), (0, 0, 0): (0, 0, 0)}
    np.testing.assert_allclose(oklab(np.array(list(colours))), list(colours.values()), atol=2e-5)


def test_the_fixed_colours_are_themselves():
    colours = [tuple(EIGHT_BIT_PALETTE[number]) for number in range(16, 256)]
    image = Image.fromarray(np.array(colours, dtype=np.uint8).reshape(12, 20, 3))
    np.testing.assert_array_equal(received(draw(image, 20, 6, Palette.INDEXED)), np.array(colours).reshape(12, 20, 3))


def test_256_colours_are_the_nearest_ones():
    """Searched one by one; never one of the first 16, which everybody sets as they like."""
    image = noise(20, 30)
    text = draw(image, 30, 10, Palette.INDEXED)
    assert min(int(number) for number in re.findall(r"8;5;(\d+)", text)) >= 16
    known = [tuple(EIGHT_BIT_PALETTE[number]) for number in range(16, 256)]
    lab = {colour: oklab(np.array(colour)) for colour in known}
    for wanted, found in zip(np.asarray(image).reshape(-1, 3), received(text).reshape(-1, 3), strict=True):
        best = min(float(((oklab(wanted) - other) ** 2).sum()) for other in lab.values())
        assert float(((oklab(wanted) - lab[tuple(found.tolist())]) ** 2).sum()) == pytest.approx(best, abs=1e-12)


# --- the ASCII ramp


@pytest.mark.parametrize("file", ["DejaVuSansMono.ttf", "DejaVuSansMono-Bold.ttf", "cmtt10.ttf"])
def test_the_ramp_gets_denser_in_even_steps(file):
    """Measured as the ink of each character in monospaced fonts."""
    font = ImageFont.truetype(Path(find_spec("matplotlib").origin).parent / "mpl-data" / "fonts" / "ttf" / file, 40)
    ink = np.array([ink_of(char, font) for char in RAMP])
    assert (np.diff(ink) > 0).all(), dict(zip(RAMP, ink, strict=True))
    assert abs(ink / ink[-1] - np.linspace(0, 1, len(RAMP))).max() < 0.12


def ink_of(char: str, font: ImageFont.FreeTypeFont) -> float:
    image = Image.new("L", (60, 80))
    ImageDraw.Draw(image).text((10, 10), char, font=font, fill=255)
    return float(np.asarray(image, dtype=float).sum())


def test_the_ramp_tells_the_brightness():
    """Each character stands for a share of darkness, evenly from blank to the densest; a line is two rows of pixels."""
    image = noise(48, 40)
    lines = draw(image, 20, 50, Palette.NONE).splitlines()
    assert len(lines) == 12
    light = area_means(np.asarray(image), 12, 20) @ [0.2126, 0.7152, 0.0722] / 255
    shown = np.array([[RAMP.index(char) / (len(RAMP) - 1) for char in line.ljust(20)] for line in lines])
    assert abs(shown - (1 - light)).max() <= 0.5 / (len(RAMP) - 1) + 0.01  # colours are rounded first


def test_the_ramp_leaves_paper_blank_and_sends_no_colour():
    assert draw(Image.new("RGB", (10, 20), "white"), 10, 20, Palette.NONE) == "\n" * 10
    assert draw(Image.new("RGB", (10, 20), "black"), 10, 20, Palette.NONE) == "@@@@@@@@@@\n" * 10


# --- the size


def test_a_picture_fits_and_keeps_its_aspect():
    for height, width, tallest, widest in np.random.default_rng(0).integers(1, 300, (2000, 4)).tolist():
        rows, columns = fitted(height, width, tallest, widest)
        assert 1 <= rows <= tallest and 1 <= columns <= widest
        if height > tallest or width > widest:
            assert rows == tallest or columns == widest, "as large as it can be"
            assert rows == 1 or columns == 1 or abs(rows / columns - height / width) <= (rows / columns + 1) / columns
        else:
            factor = rows // height
            assert (rows, columns) == (factor * height, factor * width)
            assert (factor + 1) * height > tallest or (factor + 1) * width > widest, "as large as it can be"


@pytest.mark.parametrize("colours", Palette)
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 3000), (3000, 1), (7, 7), (333, 777)])
@pytest.mark.parametrize(("columns", "lines"), [(0, 0), (1, 1), (20, 5), (80, 24), (100_000, 100_000)])
def test_nothing_leaves_the_terminal_in_any_size(colours, height, width, columns, lines):
    text = draw(noise(height, width), columns, lines, colours)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text).split("\n")
    assert "\x1b" not in "".join(plain) and plain.pop() == ""
    assert len(plain) <= min(max(lines, 1), LARGEST) and max(map(len, plain)) <= min(max(columns, 1), LARGEST)
    assert colours is Palette.NONE or received(text).size


# --- what the environment tells

TRUE, INDEXED, NONE = Palette.TRUE, Palette.INDEXED, Palette.NONE
ENVIRONMENTS = [
    ("", NONE),
    ("TERM=xterm", NONE),
    ("TERM=linux", NONE),
    ("TERM=dumb", NONE),
    ("TERM=xterm-256color", INDEXED),
    ("TERM=tmux-256color", INDEXED),
    ("TERM=screen-256color", INDEXED),
    ("TERM=xterm-256color COLORTERM=truecolor", TRUE),
    ("TERM=xterm COLORTERM=24bit", TRUE),
    ("TERM=xterm-256color COLORTERM=yes", INDEXED),
    ("TERM=xterm-kitty", TRUE),
    ("TERM=xterm-ghostty", TRUE),
    ("TERM=foot", TRUE),
    ("TERM=alacritty", TRUE),
    ("TERM=xterm-direct", TRUE),
    ("TERM=xterm-256color TERM_PROGRAM=vscode", TRUE),
    ("TERM=xterm-256color TERM_PROGRAM=iTerm.app", TRUE),
    ("TERM=xterm-256color TERM_PROGRAM=WezTerm", TRUE),
    ("TERM=xterm-256color TERM_PROGRAM=Apple_Terminal", INDEXED),  # reads 38;2 as something else
    ("TERM=screen-256color COLORTERM=truecolor TMUX=/tmp/tmux-0/default,1,0", TRUE),
    ("TERM=screen-256color COLORTERM=truecolor", INDEXED),  # GNU screen
    ("TERM=screen.xterm-256color COLORTERM=truecolor", INDEXED),
    ("TERM=xterm-256color COLORTERM=truecolor NO_COLOR=1", NONE),
    ("TERM=xterm-256color COLORTERM=truecolor NO_COLOR=", TRUE),  # an empty value is none: https://no-color.org
    ("TERM=xterm-kitty NO_COLOR=1 FORCE_COLOR=1", NONE),
    ("TERM=dumb COLORTERM=truecolor FORCE_COLOR=1", NONE),
    ("FORCE_COLOR=1", INDEXED),
    ("TERM=xterm FORCE_COLOR=true", INDEXED),
    ("TERM=xterm-kitty FORCE_COLOR=1", TRUE),
    ("TERM=xterm-kitty FORCE_COLOR=2", INDEXED),
    ("TERM=xterm FORCE_COLOR=3", TRUE),
    ("TERM=xterm-kitty FORCE_COLOR=0", NONE),
]


@pytest.mark.parametrize(("environment", "expected"), ENVIRONMENTS)
def test_the_environment_alone_tells_the_colours(environment, expected):
    environ = dict(setting.split("=", 1) for setting in environment.split())
    assert palette(environ, "utf-8") is expected


@pytest.mark.parametrize(
    ("encoding", "expected"), [("utf-8", TRUE), ("cp437", TRUE), ("ascii", NONE), ("iso8859-1", NONE), ("?", NONE), (None, NONE)]
)
def test_where_a_half_block_cannot_be_written_it_is_the_ramp(encoding, expected):
    assert palette({"COLORTERM": "truecolor"}, encoding) is expected
