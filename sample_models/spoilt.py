"""A small picture data set as one finds it: mostly sound, with a few of each fault that costs a training run.

    python sample_models/spoilt.py FOLDER          # writes FOLDER/train and FOLDER/val, a folder for each class
    netlens check-data FOLDER                      # finds them all

Also a loader with the commonest fault of augmentation, which no look at files could find: sample_models/spoilt.py:noisy_loader
"""

from __future__ import annotations

import sys
from itertools import cycle
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

try:
    from scenes import CLASSES, SceneDataset, scene
except ImportError:  # imported from the repository's folder
    from sample_models.scenes import CLASSES, SceneDataset, scene

SEED = 8
TRAIN, VAL = 600, 150  # pictures, before any is spoilt


class Augmented(Dataset[tuple[Tensor, int]]):
    """Scenes with noise from a generator of their own: every worker has a copy of it, and draws the same noise."""

    def __init__(self) -> None:
        self.scenes, self.random = SceneDataset(256), np.random.default_rng(0)

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image, label = self.scenes[index]
        return image + float(self.random.normal(0, 0.1)), label


def noisy_loader() -> DataLoader[tuple[Tensor, int]]:
    """Return a loader of them with two workers."""
    return DataLoader(Augmented(), batch_size=32, num_workers=2, shuffle=True)


def picture(index: int) -> tuple[Image.Image, str]:
    """Draw one scene, and name its class."""
    drawn = scene(SEED, index)
    return Image.fromarray(drawn.image), CLASSES[drawn.labels[0]]


def write(folder: Path) -> None:
    """Write the data set; files that are there already are written over."""
    for split, first, count in (("train", 0, TRAIN), ("val", TRAIN, VAL)):
        for index in range(first, first + count):
            image, name = picture(index)
            place = folder / split / name
            place.mkdir(parents=True, exist_ok=True)
            image.save(place / f"{index:04}.jpg", quality=92)
    spoil(folder)


def spoil(folder: Path) -> None:
    """Plant the faults."""
    train, val = folder / "train", folder / "val"
    files = sorted(train.rglob("*.jpg"))
    for file, change in zip(files[5::17], cycle(CHANGES), strict=False):
        change(file)
    for number, file in enumerate(files[3::150]):
        (val / file.parent.name / f"again{number}.jpg").write_bytes(file.read_bytes())  # in both splits
    for number, file in enumerate(files[4::200]):
        other = next(name for name in CLASSES if name != file.parent.name)
        (train / other / f"copy{number}.jpg").write_bytes(file.read_bytes())  # two labels
    for file in files[20::150]:
        Image.open(file).save(file.with_name(f"{file.stem}-again.jpg"), quality=60)
    (train / ".ipynb_checkpoints").mkdir(exist_ok=True)  # a class, for ImageFolder
    (train / ".ipynb_checkpoints" / "0000-checkpoint.jpg").write_bytes(files[0].read_bytes())


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def _emptied(file: Path) -> None:
    file.write_bytes(b"")


def _page(file: Path) -> None:
    file.write_text("<!DOCTYPE html><html><title>404 Not Found</title></html>\n")


def _turned(file: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    Image.open(file).transpose(Image.Transpose.ROTATE_90).save(file, quality=92, exif=exif)


def _grey(file: Path) -> None:
    Image.open(file).convert("L").save(file, quality=92)


def _dark(file: Path) -> None:
    Image.open(file).point(lambda value: value // 12).save(file, quality=92)


def _blank(file: Path) -> None:
    Image.new("RGB", (64, 64), "grey").save(file)


def _as_png(file: Path) -> None:
    Image.open(file).save(file, format="PNG")


CHANGES = (_cut, _turned, _page, _dark, _emptied, _grey, _blank, _as_png)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("python sample_models/spoilt.py FOLDER")
    write(Path(sys.argv[1]))
