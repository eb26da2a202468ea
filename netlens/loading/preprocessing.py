"""From a photo to what a network takes, bit for bit as torchvision and timm do it, and back to the photo.

Only torch and Pillow are needed; both are imported when the first picture is prepared.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from netlens.errors import InputError
from netlens.loading.images import open_image

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # how a picture of so many channels is called
MOST_PIXELS = 1 << 28  # of a resized picture: one that is 1 pixel high and 100,000 wide would fill any memory


@dataclass(frozen=True, slots=True)
class Framing:
    """Which part of a photo a network sees, and how large; every size is (height, width)."""

    resize: str = "none"  # "none"; "shorter": the shorter side to `target`; "cover" and "contain": around or within it; "stretch": to it
    target: tuple[int, int] = (0, 0)
    crop: tuple[int, int] | None = None  # cut from the middle; what is not there is padded; None: as it comes from the resize
    interpolation: str = "bilinear"  # a name of Pillow's: "nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"
    antialias: bool = True  # False only for torchvision's video presets; Pillow knows nothing else
    pad_mean: bool = False  # pad with the mean colour; otherwise with black

    @classmethod
    def fitted(cls, height: int, width: int) -> Framing:
        """Return the framing of `--size`: as large as covers the input, then the middle of it."""
        return cls("shorter" if height == width else "cover", (height, width), (height, width))

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width of a photo after the resize, rounded as torchvision (shorter) and timm (cover, contain) round.

        Raises:
            InputError: it is so narrow that the resized one would fill the memory.
        """
        target = self.target
        if self.resize == "none":
            return height, width
        if self.resize == "stretch":
            return target
        if self.resize == "shorter":
            longer = int(target[0] * max(height, width) / min(height, width))
            found = (longer, target[0]) if height > width else (target[0], longer)
        else:
            ratios = (height / target[0], width / target[1])
            ratio = min(ratios) if self.resize == "cover" else max(ratios)
            found = max(1, round(height / ratio)), max(1, round(width / ratio))
        if found[0] * found[1] > MOST_PIXELS:
            what = f"a picture {height} pixels high and {width} wide would be resized to {found[0]} x {found[1]}"
            raise InputError(what, hint="cut out the part that the model shall see")
        return found

    def __str__(self) -> str:
        height, width = self.target
        how = {
            "none": "as it is",
            "shorter": f"shorter side to {height}",
            "cover": f"covering {height} x {width}",
            "contain": f"within {height} x {width}",
            "stretch": f"stretched to {height} x {width}",
        }[self.resize]
        cut = f", middle {self.crop[0]} x {self.crop[1]}" if self.crop and (self.resize, self.crop) != ("stretch", self.target) else ""
        return f"{how}{cut}" if self.resize == "none" else f"{how}{cut}, {self.interpolation}"


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How a photo becomes a network's input: framed, scaled to 0..1, minus mean, divided by std."""

    framing: Framing
    mean: tuple[float, ...]  # one for each channel, of values in 0..1
    std: tuple[float, ...]
    source: str  # "ResNet18_Weights.IMAGENET1K_V1, size from --size"
    assumed: tuple[str, ...] = ()  # what nobody said: of "size", "mean", "std"

    @property
    def channels(self) -> int:
        """1: grey; 3: red, green, blue; 4: these and opacity."""
        return len(self.mean)

    def __str__(self) -> str:
        mean, std = (", ".join(f"{value:.4g}" for value in values) for values in (self.mean, self.std))
        return f"{self.framing}; mean {mean}; std {std}"


@dataclass(frozen=True, slots=True)
class Geometry:
    """Where a network's input lies on the photo, so that a map over the input can be laid on the photo.

    Coordinates run from the upper left corner; the first pixel reaches from 0 to 1.
    """

    photo: tuple[int, int]  # height, width; upright
    input: tuple[int, int]  # height, width
    box: tuple[float, float, float, float]  # left, top, right, bottom of the input on the photo; beyond the photo where it is padded

    def to_photo(self, x: float, y: float) -> tuple[float, float]:
        """Return where a point of the input lies on the photo."""
        left, top, right, bottom = self.box
        return left + x * (right - left) / self.input[1], top + y * (bottom - top) / self.input[0]

    def to_input(self, x: float, y: float) -> tuple[float, float]:
        """Return where a point of the photo lies on the input, which may be outside of it."""
        left, top, right, bottom = self.box
        return (x - left) * self.input[1] / (right - left), (y - top) * self.input[0] / (bottom - top)


@dataclass(frozen=True, slots=True)
class Prepared:
    """One picture, ready for the network."""

    tensor: Tensor  # (C, H, W), float32
    geometry: Geometry


@dataclass(frozen=True, slots=True)
class Batch:
    """Several pictures, ready for the network."""

    tensor: Tensor  # (N, C, H, W), float32
    geometries: tuple[Geometry, ...]
    notes: tuple[str, ...]  # "logo.png: transparent parts are shown on white"


def preprocess(image: Image.Image, preprocessing: Preprocessing) -> Prepared:
    """Turn a photo, upright and in 8 bits, into a network's input.

    Equal to `weights.transforms()(image)` of torchvision and to `create_transform(...)(image)` of timm, bit for bit.

    Raises:
        InputError: the photo is so narrow that the resized one would fill the memory.
    """
    import torch

    framing = preprocessing.framing
    resized = framing.resized(image.height, image.width)
    crop = framing.crop or resized
    top, left = (_offset(size, kept) for size, kept in zip(resized, crop, strict=True))
    pixels = _pixels(image.convert(MODES[preprocessing.channels]), resized, framing)
    mean, std = (torch.tensor(values, dtype=torch.float32)[:, None, None] for values in (preprocessing.mean, preprocessing.std))
    colour = [min(255, max(0, round(255 * value))) if framing.pad_mean else 0 for value in preprocessing.mean]
    values = _cropped(pixels, top, left, crop, colour).float().div_(255).sub_(mean).div_(std)
    across, down = image.width / resized[1], image.height / resized[0]
    box = (left * across, top * down, (left + crop[1]) * across, (top + crop[0]) * down)
    return Prepared(values, Geometry((image.height, image.width), crop, box))


def prepared(paths: Iterable[Path], preprocessing: Preprocessing) -> Iterator[tuple[Prepared, tuple[str, ...]]]:
    """Yield one picture after the other, with notes on it; nothing is kept, and sizes may differ where the framing crops nothing.

    Raises:
        FileProblem: a file is no picture, or a damaged one. InputError: as for `preprocess`.
    """
    for path in paths:
        photo = open_image(path, transparency=preprocessing.channels == max(MODES))
        try:
            ready = preprocess(photo.image, preprocessing)
        except InputError as error:
            raise InputError(f"{path.name}: {error.message}", hint=error.hint) from None
        yield ready, tuple(f"{path.name}: {note}" for note in photo.notes)


def load_batch(paths: Iterable[Path], preprocessing: Preprocessing) -> Batch:
    """Prepare all pictures, and put them into one tensor.

    Raises:
        FileProblem, InputError: as for `prepared`; or the inputs are of different sizes.
    """
    import torch

    pictures = list(prepared(paths, preprocessing))
    sizes = sorted({picture.geometry.input for picture, _ in pictures})
    if len(sizes) > 1:
        (height, width), (other, wide) = sizes[0], sizes[-1]
        what = f"the pictures become inputs of different sizes: {height} x {width} and {other} x {wide}"
        raise InputError(what, hint=f"make them equal, like --size {height},{width}, or give one picture at a time")
    notes = tuple(note for _, notes in pictures for note in notes)
    return Batch(torch.stack([picture.tensor for picture, _ in pictures]), tuple(picture.geometry for picture, _ in pictures), notes)


def _offset(size: int, crop: int) -> int:
    """Return where a centre crop begins; below 0 where it is larger than the picture. As torchvision's center_crop rounds."""
    return round((size - crop) / 2) if size >= crop else -((crop - size) // 2)


def _pixels(image: Image.Image, size: tuple[int, int], framing: Framing) -> Tensor:
    """Return the resized picture, (C, H, W), uint8."""
    from PIL import Image

    if framing.antialias:
        resample = Image.Resampling[framing.interpolation.upper()]
        return _tensor(image.resize((size[1], size[0]), resample))
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.functional import resize

    found: Tensor = resize(_tensor(image), list(size), InterpolationMode(framing.interpolation), antialias=False)
    return found


def _tensor(image: Image.Image) -> Tensor:
    import torch

    values = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return values.view(image.height, image.width, -1).permute(2, 0, 1)


def _cropped(pixels: Tensor, top: int, left: int, size: tuple[int, int], colour: list[int]) -> Tensor:
    """Cut (C, height, width) out of a picture, with `colour` where there is none."""
    import torch

    part = pixels[:, max(top, 0) : top + size[0], max(left, 0) : left + size[1]]
    canvas = torch.tensor(colour, dtype=torch.uint8)[:, None, None].repeat(1, *size)
    down, right = max(-top, 0), max(-left, 0)
    canvas[:, down : down + part.shape[1], right : right + part.shape[2]] = part
    return canvas
