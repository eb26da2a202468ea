"""Whether a picture was enlarged, by what interpolation leaves in it."""

from __future__ import annotations

import numpy as np
from PIL import Image


def enlargement(im: Image.Image) -> float:
    """Return by how much a picture was enlarged, about; 0.0 where nothing shows that."""
    return 0.0
