from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont, ImageOps
from torch import Tensor

from vaelab.errors import UserError
from vaelab.pictures.picture import FONT

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


def joined(files: Sequence[Path], names: Sequence[str]) -> Image.Image:
    """Image files beside each other, each below its name."""
    images = [Image.open(path).convert("RGB") for path in files]
    font = ImageFont.load_default(FONT)
    widths = [
        max(image.width, round(font.getlength(n))) for image, n in zip(images, names, strict=True)
    ]
    page = Image.new(
        "RGB", (sum(widths) + FONT * len(images), max(i.height for i in images) + 2 * FONT), "white"
    )
    pen, left = ImageDraw.Draw(page), 0
    for image, name, width in zip(images, names, widths, strict=True):
        pen.text((left + width / 2, FONT), name, "black", font, anchor="mm")
        page.paste(image, (left + (width - image.width) // 2, 2 * FONT))
        left += width + FONT
    return page
