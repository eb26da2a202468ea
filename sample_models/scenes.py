"""A data set whose truth is known: one shape (or two) on clutter, 64 x 64 pixels, with the shape's exact pixels and box.

The class is the shape. Place, size, rotation, texture and colour are drawn without looking at the class, so a network that tells
the classes apart must look at outlines, and a heatmap can be scored against the box.

    python sample_models/scenes.py                 # writes the examples in sample_models/scenes/ again
    sample_models/scenes.py:SceneDataset           # as a torch data set, for tools that take a name
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

Array = NDArray[Any]
Box = tuple[int, int, int, int]

SIZE = 64
CLASSES = ("circle", "square", "triangle", "star", "cross", "ring")
TEXTURES = ("plain", "stripes", "checks", "dots")
MEAN = (0.5, 0.5, 0.5)  # of RGB in 0..1
STD = (0.28, 0.28, 0.28)

EXAMPLES = Path(__file__).parent / "scenes"
EXAMPLES_SEED = 220  # a series whose first scenes show every class
CONTRAST = 0.5  # least distance in RGB (0..1 each) between a shape's colours and the background's own colour

ROWS, COLUMNS = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32) + np.float32(0.5)  # pixel centres


@dataclass(frozen=True, slots=True)
class Scene:
    """A picture and all that is known about it; tuples run over the objects.

    A pixel belongs to an object when the object covers at least half of it.
    """

    image: NDArray[np.uint8]  # (64, 64, 3) RGB
    labels: tuple[int, ...]  # indices into CLASSES
    boxes: tuple[Box, ...]  # (left, top, right, bottom) in pixels, right and bottom exclusive, tight around the object's pixels
    masks: NDArray[np.bool_]  # (objects, 64, 64)
    textures: tuple[int, ...]  # indices into TEXTURES
    colours: tuple[tuple[float, float, float], ...]  # the object's main colour, RGB in 0..1


def scene(seed: int, index: int, objects: int = 1) -> Scene:
    """Draw scene `index` of the series `seed`; the same three numbers give the same picture."""
    random = np.random.default_rng((seed, index, objects))
    ground = random.random(3)
    picture = _background(random, ground)
    labels = tuple(int(label) for label in random.permutation(len(CLASSES))[:objects])
    textures = tuple(int(texture) for texture in random.integers(len(TEXTURES), size=objects))
    masks, colours = [], []
    for label, texture, (column, row, radius) in zip(labels, textures, _places(random, objects), strict=True):
        x, y = _turned(COLUMNS - column, ROWS - row, random.uniform(0, 2 * np.pi))
        cover = np.clip(0.5 - _outline(CLASSES[label], x / radius, y / radius) * radius, 0, 1)
        first, second = _colour(random, ground), _colour(random, ground)
        paint = _mixed(first, (first + second) / 2, _texture(random, TEXTURES[texture]))
        picture += cover[..., None] * (paint - picture)
        masks.append(cover >= 0.5)
        colours.append((float(first[0]), float(first[1]), float(first[2])))
    picture += random.standard_normal(picture.shape, dtype=np.float32) * random.uniform(0.01, 0.06)
    image = np.clip(picture * 255 + 0.5, 0, 255).astype(np.uint8)
    return Scene(image, labels, tuple(map(_box, masks)), np.stack(masks), textures, tuple(colours))


def _places(random: np.random.Generator, objects: int) -> list[tuple[float, float, float]]:
    """Return (column, row, radius) of circles in the picture whose surrounding squares do not touch."""
    while True:
        radii = random.uniform(10, 18 if objects == 1 else 13, size=objects)
        places = [(*random.uniform(radius + 1, SIZE - radius - 1, size=2), radius) for radius in radii]
        pairs = [(a, b) for i, a in enumerate(places) for b in places[:i]]
        if all(max(abs(a[0] - b[0]), abs(a[1] - b[1])) > a[2] + b[2] + 2 for a, b in pairs):
            return places


def _box(mask: NDArray[np.bool_]) -> Box:
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


# --- Shapes: how far a point is outside the outline, in a circle of radius 1 around the origin


def _outline(shape: str, x: Array, y: Array) -> Array:
    outlines: dict[str, Callable[[Array, Array], Array]] = {
        "circle": lambda x, y: np.hypot(x, y) - 0.88,
        "square": lambda x, y: np.maximum(abs(x), abs(y)) - 0.7,
        "triangle": lambda x, y: _star(x, y, points=3, inner=0.5),
        "star": lambda x, y: _star(x, y, points=5, inner=0.42),
        "cross": lambda x, y: np.maximum(np.minimum(abs(x), abs(y)) - 0.28, np.maximum(abs(x), abs(y)) - 0.95),
        "ring": lambda x, y: abs(np.hypot(x, y) - 0.76) - 0.2,
    }
    return outlines[shape](x, y)


def _star(x: Array, y: Array, points: int, inner: float) -> Array:
    """Fold the plane into one half of one point: there the outline is a line from the tip (1, 0) to the inner corner."""
    half = np.pi / points
    angle = abs((np.arctan2(y, x) + half) % (2 * half) - half)
    radius = np.hypot(x, y)
    corner_x, corner_y = inner * np.cos(half), inner * np.sin(half)
    normal = np.array([corner_y, 1 - corner_x]) / np.hypot(corner_y, 1 - corner_x)
    return (radius * np.cos(angle) - 1) * normal[0] + radius * np.sin(angle) * normal[1]


# --- Paint


def _texture(random: np.random.Generator, name: str) -> Array:
    """Return how much of the second colour each pixel has, 0..1."""
    if name == "plain":
        return np.zeros((SIZE, SIZE), np.float32)
    period = random.uniform(5, 9)
    u, v = _turned(COLUMNS + random.uniform(0, period), ROWS, random.uniform(0, np.pi))
    across, along = np.sin(u * (2 * np.pi / period)), np.sin(v * (2 * np.pi / period))
    wave = {"stripes": across, "checks": across * along * 2, "dots": across + along - 0.7}[name]
    return np.clip(wave * (period / 4) + 0.5, 0, 1)


def _background(random: np.random.Generator, ground: Array) -> Array:
    """Slow waves of colour, patches of soft outline with textures of their own, and strokes."""
    picture = np.broadcast_to(ground, (SIZE, SIZE, 3)).astype(np.float32)
    for _ in range(3):
        x, _ = _turned(COLUMNS, ROWS, random.uniform(0, 2 * np.pi))
        wave = np.sin(x * random.uniform(0.03, 0.2) + random.uniform(0, 2 * np.pi))
        picture += wave[..., None] * random.normal(0, 0.08, size=3).astype(np.float32)
    for _ in range(random.integers(1, 4)):
        cover = random.uniform(0.3, 0.8) * _patch(random)
        paint = _mixed(random.random(3), random.random(3), _texture(random, TEXTURES[random.integers(len(TEXTURES))]))
        picture += cover[..., None] * (paint - picture)
    for _ in range(random.integers(2, 6)):
        picture += _stroke(random)[..., None] * (random.random(3).astype(np.float32) - picture)
    return picture


def _patch(random: np.random.Generator) -> Array:
    x, y = _turned(COLUMNS - random.uniform(0, SIZE), ROWS - random.uniform(0, SIZE), random.uniform(0, np.pi))
    length = random.uniform(8, 18)
    return np.asarray(np.exp(-((x / length) ** 2) - (y / (length * random.uniform(0.3, 0.6))) ** 2), np.float32)


def _stroke(random: np.random.Generator) -> Array:
    x, y = _turned(COLUMNS - random.uniform(0, SIZE), ROWS - random.uniform(0, SIZE), random.uniform(0, np.pi))
    return np.clip(random.uniform(0.7, 2) + 0.5 - np.hypot(np.maximum(abs(x) - random.uniform(4, 16), 0), y), 0, 1)


def _turned(x: Array, y: Array, angle: float) -> tuple[Array, Array]:
    cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return x * cosine + y * sine, y * cosine - x * sine


def _colour(random: np.random.Generator, ground: Array) -> Array:
    while True:
        colour = random.random(3)
        if np.linalg.norm(colour - ground) >= CONTRAST:
            return colour


def _mixed(first: Array, second: Array, share: Array) -> Array:
    return np.asarray(first + share[..., None] * (second - first), np.float32)


# --- For torch, and for the eye


def normalised(images: Tensor) -> Tensor:
    """Turn pictures, uint8 (..., 3, 64, 64), into what the sample models take: (value / 255 - MEAN) / STD."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return (images / 255 - mean) / std


class SceneDataset(Dataset[tuple[Tensor, int]]):
    """`length` scenes with one object: (normalised picture (3, 64, 64), class index)."""

    classes = CLASSES

    def __init__(self, length: int = 2048, seed: int = 0) -> None:
        self.length = length
        self.seed = seed

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if not 0 <= index < self.length:
            raise IndexError(index)  # this also ends a `for` over the data set
        found = scene(self.seed, index)
        return normalised(torch.from_numpy(found.image).permute(2, 0, 1)), found.labels[0]


def write_examples(folder: Path = EXAMPLES) -> None:
    """Write eight scenes with one object and four with two as PNG, and `boxes.json`: file -> [{label, box}]."""
    folder.mkdir(exist_ok=True)
    boxes = {}
    for index in range(12):
        found = scene(EXAMPLES_SEED, index, objects=1 if index < 8 else 2)
        names = [CLASSES[label] for label in found.labels]
        name = f"{index:02}-{'-'.join(names)}.png"
        Image.fromarray(found.image).save(folder / name, optimize=True)
        boxes[name] = [{"label": label, "box": box} for label, box in zip(names, found.boxes, strict=True)]
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(objects)}" for name, objects in boxes.items())
    (folder / "boxes.json").write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")


if __name__ == "__main__":
    write_examples()
