"""Pictures as they are found in data sets, made up: clean ones of many kinds, and every fault that one file can have, planted.

Each comes from a seed alone. For tests, benchmarks and whole data sets; torch is not needed.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageOps

SIDE = 270
_BANK = 512


# ---------------------------------------------------------------------------------------------------------------------- clean scenes


@lru_cache(maxsize=32)
def _field(number: int) -> np.ndarray:
    """Return one of 12 seamless textures whose amplitude falls with frequency as 1/f, like that of photographs; mean 0, variance 1."""
    rng = np.random.default_rng(900 + number)
    steepness = 0.9 + 0.05 * number
    frequency = np.hypot(np.fft.fftfreq(_BANK)[:, None], np.fft.rfftfreq(_BANK)[None, :])
    frequency[0, 0] = np.inf
    phases = np.exp(2j * np.pi * rng.random(frequency.shape))
    field: np.ndarray = np.fft.irfft2(phases * frequency**-steepness, s=(_BANK, _BANK))
    return ((field - field.mean()) / field.std()).astype(np.float32)


def _texture(rng: np.random.Generator, height: int, width: int, kind: int | None = None) -> np.ndarray:
    field = _field(int(rng.integers(12)) if kind is None else kind)
    top, left = rng.integers(0, _BANK, 2)
    rows, columns = (top + np.arange(height)) % _BANK, (left + np.arange(width)) % _BANK
    piece: np.ndarray = field[rows[:, None], columns[None, :]]
    return piece[:: rng.choice([-1, 1]), :: rng.choice([-1, 1])]


def _colour(rng: np.random.Generator, low: int = 20, high: int = 235) -> np.ndarray:
    return rng.uniform(low, high, 3).astype(np.float32)


def _painted(rng: np.random.Generator, side: int, contrast: tuple[float, float] = (25, 55)) -> np.ndarray:
    """Return a textured surface, (side, side, 3) float32: one texture for light, another for tint."""
    light = _texture(rng, side, side)[..., None] * rng.uniform(*contrast)
    tint = _texture(rng, side, side)[..., None] * rng.uniform(-18, 18, 3)
    return (_colour(rng, 70, 185) + light + tint).astype(np.float32)


def _finished(rng: np.random.Generator, pixels: np.ndarray, grain: float = 2.0) -> Image.Image:
    """Add the grain of a sensor, and round."""
    noise = rng.standard_normal(pixels.shape[:2], dtype=np.float32)[..., None] * grain
    return Image.fromarray(np.clip(pixels + noise + 0.5, 0, 255).astype(np.uint8))


def _mask(rng: np.random.Generator, side: int, least: float = 0.15, most: float = 0.4) -> np.ndarray:
    """Return a random convex thing with a crisp edge, (side, side, 1) in 0..1."""
    middle, radius = rng.uniform(0.25, 0.75, 2) * side, rng.uniform(least, most) * side
    angles = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 9))))
    points = [(float(middle[0] + radius * np.cos(a)), float(middle[1] + radius * np.sin(a) * rng.uniform(0.7, 1))) for a in angles]
    shape = Image.new("L", (side, side))
    draw = ImageDraw.Draw(shape)
    if rng.random() < 0.4:
        draw.ellipse([middle[0] - radius, middle[1] - radius * 0.8, middle[0] + radius, middle[1] + radius * 0.8], fill=255)
    else:
        draw.polygon(points, fill=255)
    return (np.asarray(shape, np.float32) / 255)[..., None]


def _landscape(rng: np.random.Generator, side: int) -> Image.Image:
    down = np.linspace(0, 1, side, dtype=np.float32)[:, None, None]
    sky = _colour(rng, 120, 240) * (1 - 0.4 * down) + _texture(rng, side, side, 11)[..., None] * rng.uniform(2, 15)
    horizon = rng.uniform(0.25, 0.7) + 0.05 * _texture(rng, 1, side)[0]
    ground = np.arange(side)[:, None] > horizon[None, :] * side
    return _finished(rng, np.where(ground[..., None], _painted(rng, side) * 0.8, sky))


def _objects(rng: np.random.Generator, side: int) -> Image.Image:
    pixels = _painted(rng, side)
    for _ in range(int(rng.integers(1, 5))):
        mask = _mask(rng, side)
        pixels = pixels * (1 - mask) + _painted(rng, side) * mask
    return _finished(rng, pixels, rng.uniform(0, 6))


def _surface(rng: np.random.Generator, side: int) -> Image.Image:
    return _finished(rng, _painted(rng, side, (35, 65)), rng.uniform(0, 4))


def _portrait(rng: np.random.Generator, side: int) -> Image.Image:
    """Return something sharp before a background far out of focus."""
    behind = Image.fromarray(np.clip(_painted(rng, side), 0, 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(side / 20))
    mask = _mask(rng, side, 0.2, 0.35)
    return _finished(rng, np.asarray(behind, np.float32) * (1 - mask) + _painted(rng, side) * mask, 1.5)


def _stars(rng: np.random.Generator, side: int) -> Image.Image:
    pixels = np.full((side, side, 3), rng.uniform(4, 20), np.float32) + _texture(rng, side, side, 11)[..., None] * 2
    count = int(rng.integers(60, 300))
    rows, columns = rng.integers(1, side - 1, (2, count))
    light = rng.uniform(120, 255, count)[:, None]
    for dy, dx, share in ((0, 0, 1.0), (0, 1, 0.7), (1, 0, 0.7), (1, 1, 0.5)):
        pixels[rows + dy - 1, columns + dx - 1] += light * share
    return _finished(rng, pixels, 2.0)


def _night_city(rng: np.random.Generator, side: int) -> Image.Image:
    pixels = np.full((side, side, 3), 12, np.float32) + _texture(rng, side, side)[..., None] * 6
    for _ in range(int(rng.integers(40, 120))):
        x, y = rng.integers(0, side - 8, 2)
        pixels[y : y + rng.integers(2, 8), x : x + rng.integers(2, 6)] = _colour(rng, 150, 255)
    return _finished(rng, pixels, 3.0)


def _fog(rng: np.random.Generator, side: int) -> Image.Image:
    pixels = np.full((side, side, 3), rng.uniform(170, 215), np.float32) + _texture(rng, side, side, 11)[..., None] * 5
    for depth in range(3):
        edge = (0.35 + 0.2 * depth + 0.05 * _texture(rng, 1, side)[0]) * side
        pixels[np.arange(side)[:, None] > edge] -= rng.uniform(10, 30)
    return _finished(rng, pixels, 1.5)


def _clouds(rng: np.random.Generator, side: int) -> np.ndarray:
    """Return soft clouds, (side, side, 1), of variance about 1."""
    field = _texture(rng, side + 4, side + 4, 11)
    return np.mean([field[y : y + side, x : x + side] for y in range(5) for x in range(5)], axis=0)[..., None]


def _sky(rng: np.random.Generator, side: int) -> Image.Image:
    """Return a cloudless sky, or one with soft clouds, and nothing else."""
    down = np.linspace(0, 1, side, dtype=np.float32)[:, None, None]
    pixels = np.broadcast_to(_colour(rng, 90, 160) + down * rng.uniform(10, 80) + np.array([0, 20, 60], np.float32), (side, side, 3))
    if rng.random() < 0.5:
        pixels = pixels + _clouds(rng, side) * rng.uniform(5, 25)
    return _finished(rng, pixels, rng.uniform(0.5, 2.5))


def _sunset(rng: np.random.Generator, side: int) -> Image.Image:
    """Return a sun, its glow, and soft clouds."""
    row, column = np.mgrid[:side, :side].astype(np.float32)
    away = np.hypot(row - rng.uniform(0.4, 0.8) * side, column - rng.uniform(0.2, 0.8) * side)[..., None] / side
    pixels = _colour(rng, 40, 90) + np.exp(-away / rng.uniform(0.2, 0.6)) * np.array([170, 110, 40], np.float32)
    pixels = pixels + _clouds(rng, side) * rng.uniform(12, 25)
    return _finished(rng, np.where(away < rng.uniform(0.03, 0.08), 250, pixels), rng.uniform(0.5, 2))


def _page(rng: np.random.Generator, side: int) -> Image.Image:
    """Return lines of text on white: words are rows of strokes."""
    page = Image.new("RGB", (side, side), (250, 250, 248))
    draw = ImageDraw.Draw(page)
    margin, pitch = int(rng.integers(4, side // 6)), int(rng.integers(9, 18))
    for top in range(margin, side - margin - pitch, pitch):
        left = margin
        while left < side - margin - 4:
            for _ in range(int(rng.integers(2, 8))):
                height = int(rng.integers(pitch // 3, pitch * 2 // 3))
                draw.line([left, top + pitch // 2 - height // 2, left, top + pitch // 2 + height // 2], fill=(20, 20, 24))
                left += int(rng.integers(2, 4))
            left += 5
        if rng.random() < 0.15:
            draw.rectangle([0, top, side, top + pitch], fill=(250, 250, 248))
    return page


def _drawing(rng: np.random.Generator, side: int) -> Image.Image:
    """Return a few black lines on white."""
    paper = Image.new("RGB", (side, side), (255, 255, 255))
    draw = ImageDraw.Draw(paper)
    for _ in range(int(rng.integers(2, 9))):
        draw.line([tuple(map(float, rng.uniform(0, side, 2))) for _ in range(3)], fill=(0, 0, 0), width=int(rng.integers(1, 3)))
    return paper


def _sprite(rng: np.random.Generator, side: int) -> Image.Image:
    """Return pixel art, shown large: few colours, whole blocks."""
    colours = rng.integers(0, 256, (int(rng.integers(4, 9)), 3)).astype(np.uint8)
    cells = int(rng.choice([9, 15, 18, 27, 30]))
    levels = _texture(rng, cells, cells)
    ranks = np.digitize(levels, np.quantile(levels, np.linspace(0, 1, len(colours) + 1)[1:-1]))
    return Image.fromarray(colours[ranks]).resize((side, side), Image.Resampling.NEAREST)


def _macro(rng: np.random.Generator, side: int) -> Image.Image:
    """Return soft forms with one sharp part, as the depth of field of a close-up leaves."""
    soft = Image.fromarray(np.clip(_painted(rng, side, (40, 60)), 0, 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(side / 27))
    sharp = _painted(rng, side, (30, 50))
    depth = np.exp(-(((np.arange(side) - rng.uniform(0.3, 0.7) * side) / (0.12 * side)) ** 2)).astype(np.float32)[:, None, None]
    return _finished(rng, np.asarray(soft, np.float32) * (1 - depth) + sharp * depth, 2.0)


def _on_plain(rng: np.random.Generator, side: int) -> Image.Image:
    """Return one thing on white or black, as shops show it."""
    ground = np.full((side, side, 3), rng.choice([255.0, 250.0, 0.0, 8.0]), np.float32)
    mask = _mask(rng, side, 0.25, 0.45)
    return Image.fromarray(np.clip(ground * (1 - mask) + _painted(rng, side) * mask, 0, 255).astype(np.uint8))


def _snow(rng: np.random.Generator, side: int) -> Image.Image:
    pixels = 225 + _painted(rng, side, (8, 16)) * 0.1
    mask = _mask(rng, side, 0.1, 0.2)
    return _finished(rng, pixels * (1 - mask) + _painted(rng, side) * 0.6 * mask, 2.0)


def _chart(rng: np.random.Generator, side: int) -> Image.Image:
    plot = Image.new("RGB", (side, side), (255, 255, 255))
    draw = ImageDraw.Draw(plot)
    width = side // 8
    for bar in range(6):
        top = int(rng.uniform(0.1, 0.8) * side)
        draw.rectangle([(bar + 1) * width, top, (bar + 2) * width - 6, side - 20], fill=tuple(int(v) for v in rng.integers(0, 220, 3)))
    draw.line([width // 2, side - 20, side - 10, side - 20], fill=(0, 0, 0), width=2)
    return plot


def _stripes(rng: np.random.Generator, side: int) -> Image.Image:
    """Return a fence, a blind or planks: detail across it, a little along it."""
    period = rng.uniform(8, 30)
    wave = np.where((np.arange(side) / period + rng.random()) % 1 < rng.uniform(0.3, 0.7), 45.0, -45.0).astype(np.float32)
    pixels = _painted(rng, side, (12, 25)) + wave[None, :, None]
    return _finished(rng, pixels if rng.random() < 0.5 else pixels.transpose(1, 0, 2), 2.0)


_ORDINARY = (_landscape, _objects, _surface, _portrait)
_DIFFICULT = (*(_stars, _night_city, _fog, _sky, _sunset, _page, _drawing, _sprite, _macro, _on_plain, _snow, _chart, _stripes),)
SCENES: dict[str, Callable[[np.random.Generator, int], Image.Image]] = {scene.__name__[1:]: scene for scene in (*_ORDINARY, *_DIFFICULT)}


def clean(seed: int, side: int = SIDE, *, kind: str | None = None, difficult: bool = True) -> Image.Image:
    """Return a clean picture in RGB, (side, side); two of five are of the difficult kinds, unless these are not wanted."""
    return _scene(seed, side, kind, difficult).copy()


@lru_cache(maxsize=64)
def _scene(seed: int, side: int, kind: str | None, difficult: bool) -> Image.Image:
    rng = np.random.default_rng(seed)
    if kind is None:
        scenes = _DIFFICULT if difficult and rng.random() < 0.4 else _ORDINARY
        return scenes[int(rng.integers(len(scenes)))](rng, side)
    return SCENES[kind](rng, side)


def photo(seed: int, side: int = SIDE) -> Image.Image:
    """Return a clean picture of an ordinary kind: what faults are planted in."""
    return clean(seed, side, difficult=False)


# ---------------------------------------------------------------------------------------------------------------------- clean files


def _saved(im: Image.Image, stem: Path, suffix: str, **options: Any) -> Path:
    path = stem.with_name(stem.name + suffix)
    im.save(path, **options)
    return path


def _encoded(im: Image.Image, name: str = "JPEG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    im.save(buffer, name, **options)
    return buffer.getvalue()


def _written(data: bytes, stem: Path, suffix: str) -> Path:
    path = stem.with_name(stem.name + suffix)
    path.write_bytes(data)
    return path


def _with_exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "a camera"
    return exif


Writer = Callable[[int, Path], Path]


def _clean_multi_picture(seed: int, stem: Path) -> Path:
    im = clean(seed)
    return _saved(im, stem, ".jpg", format="MPO", save_all=True, append_images=[im.reduce(2)])


def _clean_with_tail(seed: int, stem: Path) -> Path:
    """Write a JPEG file with something after its end, as phones append."""
    return _written(_encoded(clean(seed), quality=88) + b"motion photo" * 40, stem, ".jpg")


CLEAN: dict[str, Writer] = {
    "jpeg-75": lambda seed, stem: _saved(clean(seed), stem, ".jpg", quality=75),
    "jpeg-85-optimised": lambda seed, stem: _saved(clean(seed), stem, ".JPG", quality=85, optimize=True),
    "jpeg-90": lambda seed, stem: _saved(clean(seed), stem, ".jpeg", quality=90),
    "jpeg-95-full-colour": lambda seed, stem: _saved(clean(seed), stem, ".jpg", quality=95, subsampling=0),
    "jpeg-50": lambda seed, stem: _saved(clean(seed), stem, ".jpg", quality=50),
    "jpeg-progressive": lambda seed, stem: _saved(clean(seed), stem, ".jpg", quality=85, progressive=True),
    "jpeg-restarts": lambda seed, stem: _saved(clean(seed), stem, ".jpg", quality=85, restart_marker_rows=1),
    "jpeg-exif-upright": lambda seed, stem: _saved(clean(seed), stem, ".jpg", quality=88, exif=_with_exif(1)),
    "jpeg-profile": lambda seed, stem: _saved(clean(seed), stem, ".jpg", quality=88, icc_profile=bytes(range(256)) * 12),
    "jpeg-large": lambda seed, stem: _saved(clean(seed, 640), stem, ".jpg", quality=88),
    "jpeg-small": lambda seed, stem: _saved(photo(seed).resize((64, 64), Image.Resampling.BOX), stem, ".jpg", quality=92),
    "jpeg-wide": lambda seed, stem: _saved(clean(seed, 400).crop((0, 40, 400, 290)), stem, ".jpg", quality=90),
    "multi-picture": _clean_multi_picture,
    "jpeg-tail": _clean_with_tail,
    "png": lambda seed, stem: _saved(clean(seed), stem, ".png", compress_level=1),
    "png-opaque-alpha": lambda seed, stem: _saved(_with_alpha(clean(seed), 255), stem, ".png", compress_level=1),
    "png-text": lambda seed, stem: _written(
        _with_chunk(_encoded(clean(seed), "PNG", compress_level=1), b"tEXt", b"Comment\0hello"), stem, ".png"
    ),
    "webp": lambda seed, stem: _saved(clean(seed), stem, ".webp", quality=85, method=0),
    "tiff": lambda seed, stem: _saved(clean(seed), stem, ".tif"),
    "tiff-packed": lambda seed, stem: _saved(clean(seed), stem, ".tiff", compression="tiff_lzw"),
    "bmp": lambda seed, stem: _saved(clean(seed), stem, ".bmp"),
    "ppm": lambda seed, stem: _saved(clean(seed), stem, ".ppm"),
}


def _with_alpha(im: Image.Image, level: int | Image.Image) -> Image.Image:
    im = im.convert("RGBA")
    im.putalpha(level)
    return im


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _with_chunk(png: bytes, kind: bytes, body: bytes) -> bytes:
    return png[:33] + _chunk(kind, body) + png[33:]


# ---------------------------------------------------------------------------------------------------------------------- planted faults


@dataclass(frozen=True, slots=True)
class Defect:
    """One kind of fault."""

    codes: tuple[str, ...]  # the first must be found; the others are right as well
    write: Callable[[int, Path], tuple[Path, ...]]  # (seed, path without its suffix) -> the files it wrote; of a pair, the original first

    @property
    def paired(self) -> bool:
        """Whether it takes two files."""
        return self.codes[0].startswith("duplicate")


def _one(writer: Writer, *codes: str) -> Defect:
    return Defect(codes, lambda seed, stem: (writer(seed, stem),))


def _bytes_fault(change: Callable[[bytes, np.random.Generator], bytes], suffix: str, name: str, *codes: str, **options: Any) -> Defect:
    """Return a fault of the bytes of an encoded picture."""

    def write(seed: int, stem: Path) -> Path:
        rng = np.random.default_rng([seed, 7])
        return _written(change(_encoded(photo(seed), name, **options), rng), stem, suffix)

    return _one(write, *codes)


def _look_fault(
    change: Callable[[Image.Image, np.random.Generator], Image.Image], *codes: str, suffix: str = ".jpg", **options: Any
) -> Defect:
    """Return a fault of the pixels."""

    def write(seed: int, stem: Path) -> Path:
        rng = np.random.default_rng([seed, 8])
        settings = {"quality": int(rng.integers(80, 96)), **options} if suffix == ".jpg" else options
        return _saved(change(photo(seed), rng), stem, suffix, **settings)

    return _one(write, *codes)


def _pair(change: Callable[[Image.Image, np.random.Generator], Image.Image], *codes: str, quality: int = 90) -> Defect:
    def write(seed: int, stem: Path) -> tuple[Path, ...]:
        im, rng = photo(seed), np.random.default_rng([seed, 9])
        first = _saved(im, stem, "-a.jpg", quality=90)
        return first, _saved(change(im, rng), stem, "-b.jpg", quality=quality)

    return Defect(codes, write)


def _cut(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: int(len(data) * rng.uniform(0.2, 0.9))]


def _zeroed(data: bytes, rng: np.random.Generator) -> bytes:
    """Overwrite a quarter with zeros, in the second half; the end mark stays."""
    start = int(len(data) * rng.uniform(0.5, 0.7))
    return data[:start] + bytes(len(data) // 4) + data[start + len(data) // 4 :]


def _scribbled(data: bytes, rng: np.random.Generator) -> bytes:
    """Overwrite 64 bytes in the middle."""
    start = int(len(data) * rng.uniform(0.4, 0.8))
    return data[:start] + rng.bytes(64) + data[start + 64 :]


def _swapped_restarts(data: bytes, rng: np.random.Generator) -> bytes:
    first = data.index(b"\xff\xd2")
    return data[:first] + b"\xff\xd5" + data[first + 2 :]


def _linear(gain: float, lift: float) -> Callable[[Image.Image, np.random.Generator], Image.Image]:
    return lambda im, rng: im.point([min(255, int(value * gain + lift)) for value in range(256)] * 3)


def _near_blank(im: Image.Image, rng: np.random.Generator) -> Image.Image:
    noise = rng.normal(0, 0.7, (im.height, im.width, 3)) + rng.integers(30, 220, 3)
    return Image.fromarray(np.clip(noise, 0, 255).astype(np.uint8))


def _moved(im: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Blur along a line: a camera that moved while it was open."""
    length, angle = int(rng.integers(15, 31)), rng.choice([0.0, 90.0, 0.0, 90.0, 8.0])
    pixels = np.asarray(im.rotate(angle, Image.Resampling.BICUBIC) if angle % 90 else im, np.float32)
    axis = 0 if angle == 90 else 1
    sums = np.cumsum(np.pad(pixels, [(length, 0) if side == axis else (0, 0) for side in range(3)], mode="edge"), axis=axis)
    blurred = (sums[length:] - sums[:-length] if axis == 0 else sums[:, length:] - sums[:, :-length]) / length
    return Image.fromarray(np.clip(blurred + 0.5, 0, 255).astype(np.uint8))


def _enlarged(filter_: Image.Resampling, low: int, high: int) -> Callable[[Image.Image, np.random.Generator], Image.Image]:
    def change(im: Image.Image, rng: np.random.Generator) -> Image.Image:
        side = int(rng.integers(low, high))
        return im.resize((side, side), Image.Resampling.BOX).resize(im.size, filter_)

    return change


def _noise(channels: int) -> Callable[[Image.Image, np.random.Generator], Image.Image]:
    def change(im: Image.Image, rng: np.random.Generator) -> Image.Image:
        pixels = rng.integers(0, 256, (im.height, im.width, channels)).astype(np.uint8)
        return Image.fromarray(pixels if channels == 3 else np.repeat(pixels, 3, axis=2))

    return change


def _barred(im: Image.Image, rng: np.random.Generator) -> Image.Image:
    bar, level = int(im.height * rng.uniform(0.12, 0.25)), int(rng.choice([0, 0, 0, 255, 16]))
    framed = Image.new("RGB", im.size, (level,) * 3)
    upright = rng.random() < 0.5
    inside = im.resize((im.width, im.height - 2 * bar) if upright else (im.width - 2 * bar, im.height), Image.Resampling.BOX)
    framed.paste(inside, (0, bar) if upright else (bar, 0))
    return framed


def _holed(im: Image.Image, rng: np.random.Generator) -> Image.Image:
    alpha = Image.new("L", im.size, 255)
    ImageDraw.Draw(alpha).ellipse([20, 20, 150, 120], fill=int(rng.integers(0, 200)))
    return _with_alpha(im, alpha)


def _palette_with_hole(seed: int, stem: Path) -> Path:
    return _saved(photo(seed).quantize(64), stem, ".png", transparency=bytes([0, 128]) + bytes([255]) * 62, compress_level=1)


def _deep(kind: str, suffix: str) -> Writer:
    """Return a writer of grey pictures in 16 bits, in 32, or as floating point."""

    def write(seed: int, stem: Path) -> Path:
        grey = np.asarray(photo(seed).convert("L"))
        pixels: Any = {"I;16": grey.astype(np.uint16) * 257, "I": grey.astype(np.int32) * 65537, "F": grey.astype(np.float32) / 255}[kind]
        return _saved(Image.fromarray(pixels), stem, suffix)

    return write


def _deep_colour(seed: int, stem: Path) -> Path:
    """Write a PNG file of 16 bits a channel, by hand: Pillow writes none."""
    pixels = np.asarray(photo(seed)).astype(">u2") * 257
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, 2, 0, 0, 0)
    parts = _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(rows, 1)) + _chunk(b"IEND", b"")
    return _written(b"\x89PNG\r\n\x1a\n" + parts, stem, ".png")


def _huge_png(seed: int, stem: Path) -> Path:
    """Write a PNG file that says it has 65,500 x 65,500 pixels, in 100 bytes."""
    header = struct.pack(">IIBBBBB", 65_500, 65_500, 8, 2, 0, 0, 0)
    parts = _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(bytes(1000 + seed))) + _chunk(b"IEND", b"")
    return _written(b"\x89PNG\r\n\x1a\n" + parts, stem, ".png")


def _huge_jpeg(seed: int, stem: Path) -> Path:
    data = bytearray(_encoded(photo(seed)))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", 60_000, 60_000)
    return _written(bytes(data), stem, ".jpg")


def _frames(name: str, suffix: str) -> Writer:
    def write(seed: int, stem: Path) -> Path:
        frames = [photo(seed).resize((90, 90)), photo(seed + 1).resize((90, 90)), photo(seed + 2).resize((90, 90))]
        return _saved(frames[0], stem, suffix, format=name, save_all=True, append_images=frames[1:])

    return write


def _renamed(name: str, suffix: str, *also: str) -> Defect:
    return _one(lambda seed, stem: _written(_encoded(photo(seed), name), stem, suffix), "wrong-suffix", *also)


def _fixed(data: bytes, suffix: str, *codes: str) -> Defect:
    return _one(lambda seed, stem: _written(data + b"\n" * (seed % 5) if data else data, stem, suffix), *codes)


def _dangling(seed: int, stem: Path) -> Path:
    path = stem.with_name(stem.name + ".jpg")
    path.symlink_to(stem.with_name("nowhere.jpg"))
    return path


def _folder(seed: int, stem: Path) -> Path:
    path = stem.with_name(stem.name + ".jpg")
    path.mkdir()
    return path


def _copied(seed: int, stem: Path) -> tuple[Path, ...]:
    data = _encoded(photo(seed), quality=90)
    return _written(data, stem, "-a.jpg"), _written(data, stem, "-b.jpg")


def _unchanged(im: Image.Image, rng: np.random.Generator) -> Image.Image:
    return im


_PAGE = b"<!DOCTYPE html><html><head><title>404 Not Found</title></head><body>Not Found</body></html>"
_SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><rect width="9" height="9"/></svg>'
_HEIC = struct.pack(">I", 24) + b"ftypheic" + bytes(4) + b"mif1heic" + bytes(200)
_GREY = "mode-grey"
_SCRIBBLED_TOO = ("picture-damaged", "picture-truncated", "picture-undecodable")

DEFECTS: dict[str, Defect] = {
    # unreadable, or no picture
    "empty": _fixed(b"", ".jpg", "file-empty"),
    "dangling-link": _one(_dangling, "file-unreadable"),
    "folder": _one(_folder, "file-unreadable"),
    "web-page": _fixed(_PAGE, ".jpg", "not-an-image"),
    "text": _fixed(b"labels: cat, dog", ".png", "not-an-image"),
    "zip": _fixed(b"PK\3\4" + bytes(range(200)), ".jpg", "not-an-image"),
    "svg": _fixed(_SVG, ".png", "not-an-image"),
    "pdf": _fixed(b"%PDF-1.7 " + bytes(range(200)), ".jpg", "not-an-image"),
    "zeros": _fixed(bytes(4096), ".jpg", "not-an-image"),
    "garbage": _one(lambda seed, stem: _written(b"\x17" + np.random.default_rng(seed).bytes(3000), stem, ".jpg"), "not-an-image"),
    "macos-file": _one(lambda seed, stem: _written(b"\0\5\x16\7" + bytes(80 + seed), stem, ".jpg"), "not-an-image"),
    "lfs-pointer": _fixed(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", ".jpg", "not-an-image"),
    "heic": _fixed(_HEIC, ".heic", "picture-undecodable"),
    "huge-png": _one(_huge_png, "picture-too-large"),
    "huge-jpeg": _one(_huge_jpeg, "picture-too-large"),
    # it ends too early
    "jpeg-cut": _bytes_fault(_cut, ".jpg", "JPEG", "picture-truncated", quality=90),
    "jpeg-progressive-cut": _bytes_fault(_cut, ".jpg", "JPEG", "picture-truncated", quality=90, progressive=True),
    "jpeg-no-end": _bytes_fault(lambda data, rng: data[:-2], ".jpg", "JPEG", "picture-truncated", quality=90),
    "jpeg-zero-tail": _bytes_fault(lambda data, rng: _cut(data, rng).ljust(len(data), b"\0"), ".jpg", "JPEG", "picture-truncated"),
    "png-cut": _bytes_fault(_cut, ".png", "PNG", "picture-truncated", compress_level=1),
    "png-zero-tail": _bytes_fault(
        lambda data, rng: _cut(data, rng).ljust(len(data), b"\0"), ".png", "PNG", *_SCRIBBLED_TOO[1::-1], compress_level=1
    ),
    "gif-cut": _bytes_fault(_cut, ".gif", "GIF", "picture-truncated"),
    "webp-cut": _bytes_fault(_cut, ".webp", "WEBP", "picture-truncated", method=0),
    "bmp-cut": _bytes_fault(_cut, ".bmp", "BMP", "picture-truncated"),
    "tiff-cut": _bytes_fault(_cut, ".tif", "TIFF", "picture-truncated"),
    "ppm-cut": _bytes_fault(_cut, ".ppm", "PPM", "picture-truncated"),
    # a part is overwritten
    "jpeg-zeroed": _bytes_fault(_zeroed, ".jpg", "JPEG", "picture-damaged", quality=90),
    "jpeg-progressive-zeroed": _bytes_fault(_zeroed, ".jpg", "JPEG", "picture-damaged", quality=90, progressive=True),
    "jpeg-scribbled": _bytes_fault(_scribbled, ".jpg", "JPEG", "picture-damaged", quality=90),
    "jpeg-restarts-swapped": _bytes_fault(_swapped_restarts, ".jpg", "JPEG", "picture-damaged", quality=90, restart_marker_rows=1),
    "png-scribbled": _bytes_fault(_scribbled, ".png", "PNG", "picture-damaged", compress_level=1),
    "png-zeroed": _bytes_fault(_zeroed, ".png", "PNG", "picture-damaged", compress_level=1),
    # another format than its name says
    "png-as-jpg": _renamed("PNG", ".jpg"),
    "jpeg-as-png": _renamed("JPEG", ".png"),
    "webp-as-jpg": _renamed("WEBP", ".jpg"),
    "gif-as-jpg": _renamed("GIF", ".jpg", "mode-palette"),
    "bmp-as-jpg": _renamed("BMP", ".jpg"),
    # modes
    "cmyk": _look_fault(lambda im, rng: im.convert("CMYK"), "mode-cmyk"),
    "palette": _look_fault(lambda im, rng: im.quantize(128), "mode-palette", suffix=".png"),
    "palette-transparent": _one(_palette_with_hole, "mode-alpha", "mode-palette"),
    "alpha": _look_fault(_holed, "mode-alpha", suffix=".png", compress_level=1),
    "alpha-webp": _look_fault(_holed, "mode-alpha", suffix=".webp", method=0),
    "grey-alpha": _look_fault(lambda im, rng: _holed(im, rng).convert("LA"), "mode-alpha", _GREY, suffix=".png", compress_level=1),
    "all-transparent": _look_fault(lambda im, rng: _with_alpha(im, 0), "all-transparent", suffix=".png", compress_level=1),
    "16-bit-png": _one(_deep("I;16", ".png"), "mode-16-bit"),
    "16-bit-colour-png": _one(_deep_colour, "mode-16-bit"),
    "16-bit-tiff": _one(_deep("I;16", ".tif"), "mode-16-bit"),
    "32-bit-tiff": _one(_deep("I", ".tif"), "mode-float"),
    "float-tiff": _one(_deep("F", ".tif"), "mode-float"),
    "bilevel-png": _look_fault(lambda im, rng: im.convert("1"), "mode-bilevel", suffix=".png"),
    "bilevel-tiff": _look_fault(lambda im, rng: im.convert("1"), "mode-bilevel", suffix=".tif"),
    "grey": _look_fault(lambda im, rng: im.convert("L"), _GREY),
    "grey-as-colour": _look_fault(lambda im, rng: im.convert("L").convert("RGB"), _GREY),
    "exif-3": _look_fault(lambda im, rng: im.rotate(180), "exif-rotated", exif=_with_exif(3)),
    "exif-6": _look_fault(lambda im, rng: im.rotate(90), "exif-rotated", exif=_with_exif(6)),
    "exif-png": _look_fault(lambda im, rng: im.rotate(270), "exif-rotated", suffix=".png", exif=_with_exif(8), compress_level=1),
    "animated-gif": _one(_frames("GIF", ".gif"), "animated", "mode-palette"),
    "animated-png": _one(_frames("PNG", ".png"), "animated"),
    "animated-webp": _one(_frames("WEBP", ".webp"), "animated"),
    "pages-tiff": _one(_frames("TIFF", ".tif"), "animated"),
    # looks
    "tiny": _look_fault(lambda im, rng: im.resize((5, 5)), "too-small", suffix=".png"),
    "thin": _look_fault(lambda im, rng: im.resize((270, 4)), "too-small"),
    "black": _look_fault(_linear(0, 0), "blank"),
    "one-colour": _look_fault(lambda im, rng: Image.new("RGB", im.size, tuple(int(v) for v in rng.integers(0, 256, 3))), "blank"),
    "near-blank": _look_fault(_near_blank, "blank"),
    "dark": _look_fault(_linear(0.14, 0), "dark"),
    "dark-milder": _look_fault(_linear(0.2, 0), "dark"),
    "bright": _look_fault(_linear(0.12, 224), "bright"),
    "bright-milder": _look_fault(_linear(0.2, 210), "bright"),
    "low-contrast": _look_fault(_linear(0.12, 115), "low-contrast"),
    "blurred": _look_fault(lambda im, rng: im.filter(ImageFilter.GaussianBlur(rng.uniform(5, 9))), "blurred"),
    "defocused": _look_fault(
        lambda im, rng: im.filter(ImageFilter.BoxBlur(int(rng.integers(7, 12)))).filter(ImageFilter.BoxBlur(4)), "blurred"
    ),
    "motion-blurred": _look_fault(_moved, "motion-blurred"),
    "upscaled-blocks": _look_fault(_enlarged(Image.Resampling.NEAREST, 30, 90), "upscaled", suffix=".png"),
    "upscaled-blocks-jpeg": _look_fault(_enlarged(Image.Resampling.NEAREST, 30, 90), "upscaled"),
    "upscaled-bilinear": _look_fault(_enlarged(Image.Resampling.BILINEAR, 44, 66), "upscaled"),
    "upscaled-bicubic": _look_fault(_enlarged(Image.Resampling.BICUBIC, 44, 66), "upscaled"),
    "upscaled-lanczos": _look_fault(_enlarged(Image.Resampling.LANCZOS, 44, 66), "upscaled"),
    "noise": _look_fault(_noise(3), "noisy"),
    "noise-grey": _look_fault(_noise(1), "noisy", _GREY),
    "bars": _look_fault(_barred, "letterboxed"),
    # pairs: each file by itself is clean
    "copied": Defect(("duplicate-exact",), _copied),
    "encoded-again": _pair(_unchanged, "duplicate-near", quality=60),
    "resized": _pair(lambda im, rng: im.resize((im.width * 2 // 3,) * 2, Image.Resampling.BICUBIC), "duplicate-near"),
    "brighter": _pair(_linear(1.15, 12), "duplicate-near"),
    "mirrored": _pair(lambda im, rng: ImageOps.mirror(im), "duplicate-mirrored"),
    "cropped": _pair(lambda im, rng: im.crop((10, 8, im.width - 9, im.height - 12)), "duplicate-near"),
}
SINGLE = {name: defect for name, defect in DEFECTS.items() if not defect.paired}  # what one look at one file can tell
