"""Reading image files for a model, writing them, and joining them side by side."""

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont, ImageOps
from torch import Tensor

from vaelab.data.array_images import MIN_MAXIMUM
from vaelab.errors import UserError
from vaelab.files.atomic import atomic_file
from vaelab.files.regular import check_regular_file
from vaelab.pictures.legends import FONT

MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}  # Pillow's modes by number of channels


def read_image(path: Path, shape: Sequence[int]) -> Tensor:
    """Reads an image file as uint8 (C, H, W), resized and cropped to fit, or raises UserError.

    For models whose training read no pictures. It is turned upright and converted to the number of
    channels. 16-bit and float images are scaled to 8 bits. Transparent pixels become black if the
    shape has no alpha channel. Warns if the image is made smaller, or scaled to be nearly black.

    Raises:
        UserError: If the file cannot be read, its pixels have no scale, or images have so many
            channels that no file does.
    """
    channels, height, width = shape
    if channels not in MODES:
        raise UserError(f"images={path}: no image file has the {channels} channels of this model")
    upright = read_upright(path, channels)
    image = ImageOps.fit(upright, (width, height))
    if min(upright.width / width, upright.height / height) > 1:
        size = f"from {upright.width} x {upright.height} pixels to {width} x {height}"
        warnings.warn(f"images={path}: made smaller, {size}", stacklevel=2)
    pixels = np.asarray(image).reshape(height, width, channels)
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy())


def read_upright(path: Path, channels: int) -> Image.Image:
    """Reads an image file, turned upright, of 8 bits and the channels of `MODES`, or UserError.

    16-bit and float images are scaled to 8 bits. Transparent pixels become black if there is no
    alpha channel.

    Raises:
        UserError: If the file cannot be read, or its pixels have no scale.
    """
    check_regular_file(path, "images=")
    try:
        with Image.open(path) as file:
            scaled = to_8_bits(path, ImageOps.exif_transpose(file))
            upright = composite_on_black(scaled, channels)
            return upright.convert(MODES[channels])
    except UserError as error:
        raise UserError(f"images={path}: {error}") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = getattr(error, "strerror", None) or "this is no image, or a damaged one"
        raise UserError(f"images={path}: cannot be read ({reason})") from error


def to_8_bits(path: Path, image: Image.Image) -> Image.Image:
    """Returns the image scaled to 8 bits if it has 16, 32 or floats; otherwise unchanged.

    Warns if it is nearly black then, as 12 bits in a file of 16 are.

    Raises:
        UserError: If a pixel is outside of the range of its type, [0, 1] for floats.
    """
    if image.mode != "F" and not image.mode.startswith("I"):
        return image
    pixels = np.asarray(image, np.float64)
    low, high = pixels.min(), pixels.max()
    white = 1 if image.mode == "F" else 65535 if high < 65536 else 2**31 - 1
    if not (low >= 0 and high <= white):
        raise UserError(f"its pixels reach from {low:g} to {high:g}, and should from 0 to {white}")
    if high * (255 / white) < MIN_MAXIMUM:
        said = f"no pixel is above {high:g}, nearly black if {white} is white"
        warnings.warn(f"images={path}: {said}", stacklevel=4)
    return Image.fromarray(np.rint(pixels * (255 / white)).astype(np.uint8))


def composite_on_black(image: Image.Image, channels: int) -> Image.Image:
    """Returns a transparent image on black, as RGB; unchanged if opaque or for 2 or 4 channels."""
    if channels in (2, 4) or not image.has_transparency_data:
        return image
    clear = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", clear.size, "black"), clear).convert("RGB")


def write_image(path: Path, image: Image.Image, **options: Any) -> None:
    """Writes an image file atomically, of the format of its suffix; takes Pillow's options.

    Raises:
        WriteError: If the file cannot be written.
    """
    encoded = io.BytesIO()  # Pillow's encoders hide why a file cannot be written
    image.save(encoded, path.suffix.removeprefix("."), **options)
    with atomic_file(path) as file:
        file.write(encoded.getvalue())


def read_rgb(path: Path) -> Image.Image:
    """Reads an image file as it is, in RGB; raises UserError if it cannot be read."""
    try:
        with Image.open(path) as file:
            return file.convert("RGB")
    except (OSError, ValueError, SyntaxError) as error:
        reason = getattr(error, "strerror", None) or "this is no image, or a damaged one"
        raise UserError(f"{path}: cannot be read ({reason})") from error


def join_image_files(files: Sequence[Path], names: Sequence[str]) -> Image.Image:
    """Reads image files and returns one image with all side by side, each below its name."""
    images = [read_rgb(path) for path in files]
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
