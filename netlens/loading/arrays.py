"""Arrays, numbers and pictures, told apart and turned into tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

COLOURS = (1, 3, 4)  # channels of a picture


def is_part(value: Any) -> bool:
    """Tell whether a model could take it."""
    return isinstance(value, (Tensor, Mapping)) or is_array(value) or is_image(value)


def is_image(value: Any) -> bool:
    """Tell whether it is a picture of Pillow."""
    from PIL import Image

    return isinstance(value, Image.Image)


def is_array(value: Any) -> bool:
    """Tell whether it is an array of numpy."""
    import numpy as np

    return isinstance(value, np.ndarray)


def of_array(array: np.ndarray[Any, Any]) -> Tensor | None:
    """Return a copy that may be written to; None for texts and objects."""
    if array.dtype.kind not in "biufc":
        return None
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), order="C"))


def of_numbers(values: Sequence[Any]) -> Tensor | None:
    """Return numbers as a tensor; None for anything else."""
    try:
        return torch.tensor(values)
    except (TypeError, ValueError):  # texts, or lists of different lengths
        return None


def is_picture_shape(shape: Sequence[int]) -> bool:
    """Tell whether bytes of this shape are a picture: (H, W), (C, H, W) or (H, W, C)."""
    return len(shape) == 2 or (len(shape) == 3 and (shape[0] in COLOURS or shape[-1] in COLOURS))


def as_image(pixels: Tensor) -> Image.Image:
    """Return (H, W), (C, H, W) or (H, W, C) as a picture."""
    from PIL import Image

    if pixels.dim() == 3 and pixels.shape[-1] not in COLOURS:
        pixels = pixels.permute(1, 2, 0)
    return Image.fromarray(pixels.squeeze(-1).contiguous().numpy() if pixels.shape[-1] == 1 else pixels.contiguous().numpy())
