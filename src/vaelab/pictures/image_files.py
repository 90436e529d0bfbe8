from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from vaelab.errors import UserError

MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}  # Pillow's, by their channels


def read_image(path: Path, shape: Sequence[int]) -> Tensor:
    """An image file as uint8 of a shape (C, H, W), without its edges where it is too long or wide.

    Raises:
        UserError: If the file cannot be read, or images have so many channels that no file does.
    """
    channels, height, width = shape
    if channels not in MODES:
        raise UserError(f"images={path}: no image file has the {channels} channels of this model")
    try:
        with Image.open(path) as file:
            upright = ImageOps.exif_transpose(file)
            image = ImageOps.fit(upright.convert(MODES[channels]), (width, height))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = getattr(error, "strerror", None) or "this is no image, or a damaged one"
        raise UserError(f"images={path}: cannot be read ({reason})") from error
    pixels = np.asarray(image).reshape(height, width, channels)
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy())
