"""Decoding of image files to arrays of bytes, here or in a worker process that runs `serve`.

Imports nothing of vaelab and no torch, so that a worker starts within a moment.
"""

import os
import pickle
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageOps

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Pillow's formats that are opened; others, such as EPS, would start other programs."""
SUFFIXES = frozenset(
    (
        *(".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm"),
        *(".ppm", ".tif", ".tiff", ".webp"),
    )
)
ORIENTATION = 0x0112  # the tag of EXIF
GREY_MODES = ("1", "L", "LA", "La", "I", "F")
SIXTEEN_BIT = (0, 65535)


@dataclass(frozen=True)
class Conversion:
    """How images are made alike.

    Attributes:
        size: Height and width; None: as they are.
        fit: `resize` stretches, `crop` keeps the proportions and cuts off what is too much.
        channels: 1 or 3.
        ground: Grey value that transparent pixels get.
        span: Values of pixels that are black and white; None: 0 and 255, or of 16 bits 65535.
    """

    size: tuple[int, int] | None
    fit: str
    channels: int
    ground: int
    span: tuple[float, float] | None


@dataclass(frozen=True)
class Header:
    """What is known of an image before its pixels are decoded.

    Attributes:
        size: Height and width, as EXIF turns it.
        grey: Whether it has no colour.
        open_range: Whether its numbers do not say what is white, as 32-bit ones do not.
    """

    size: tuple[int, int]
    grey: bool
    open_range: bool


@dataclass(frozen=True)
class Decoded:
    """An image as bytes.

    Attributes:
        pixels: uint8 [C, H, W].
        size: Height and width before it was resized.
        done: What was done to it, by keys of `vaelab.data.image_settings.DONE`.
        highest: The highest value in it, before it was scaled to bytes.
    """

    pixels: np.ndarray
    size: tuple[int, int]
    done: tuple[str, ...]
    highest: float


class UnfitImageError(ValueError):
    """An error raised for an image that is whole and does not fit the settings."""


def read_header(path: str) -> Header:
    """Reads the header of an image file; raises one of many types if it is broken."""
    with open_image(path) as image:
        width, height = image.size
        # Of a PNG with EXIF behind its pixels, which is rare, Pillow would decode these.
        known = image.format != "PNG" or "exif" in image.info
        if known and orientation(image) >= 5:
            width, height = height, width
        return Header((height, width), is_grey(image), has_open_range(image))


def decode_file(path: str, how: Conversion) -> Decoded:
    """Decodes an image file; raises one of many types if it is broken or does not fit."""
    with open_image(path) as image:
        if image.format == "PNG":  # of which Pillow's decoder compares no checksum
            image.verify()
    with open_image(path) as image:
        return convert_image(image, how)


def open_image(path: str) -> Image.Image:
    """Opens an image file without decoding it; refuses one of more pixels than Pillow allows."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        return Image.open(path, formats=FORMATS)


def convert_image(image: Image.Image, how: Conversion) -> Decoded:
    """Decodes an image, turns it by EXIF, and makes bytes of one size and number of channels."""
    done = []
    if getattr(image, "n_frames", 1) > 1:
        done.append("first")
    if orientation(image) > 1:
        done.append("turned")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = ImageOps.exif_transpose(image)
    grey = is_grey(image)
    if grey != (how.channels == 1):
        done.append("coloured" if grey else "greyed")
    if is_deep(image):
        highest, image = scale(image, how.span or SIXTEEN_BIT)
        done.append("deep")
    else:
        image, transparent = without_alpha(image, how.ground)
        if transparent:
            done.append("alpha")
        image = image.convert("L" if how.channels == 1 else "RGB")
        highest = float(np.asarray(image).max())
        if how.span not in (None, (0, 255)):
            highest, image = scale(image, how.span)
    image = image.convert("L" if how.channels == 1 else "RGB")
    size = (image.height, image.width)
    if how.size and size != how.size:
        done.append("resized")
        image = fit_image(image, how.size, how.fit)
    pixels = np.asarray(image)
    channels_last = pixels if pixels.ndim == 3 else pixels[..., None]
    channels_first = np.ascontiguousarray(channels_last.transpose(2, 0, 1))
    return Decoded(channels_first, size, tuple(done), highest)


def fit_image(image: Image.Image, size: tuple[int, int], fit: str) -> Image.Image:
    """Returns an image of another height and width, by bicubic interpolation."""
    wanted = (size[1], size[0])
    if fit == "crop":
        return ImageOps.fit(image, wanted, Image.Resampling.BICUBIC)
    return image.resize(wanted, Image.Resampling.BICUBIC)


def scale(image: Image.Image, span: Sequence[float]) -> tuple[float, Image.Image]:
    """Returns the highest value and an image of bytes, 0 black to 255 white; ValueError outside."""
    values, (black, white) = np.asarray(image).astype(np.float64), span
    low, high = float(values.min()), float(values.max())
    if not (black <= low and high <= white):  # also where one is NaN
        raise UnfitImageError(
            f"reaches from {low:g} to {high:g}, beyond data.source.range=[{black:g},{white:g}]"
        )
    levels = np.rint((values - black) * (255 / (white - black)))
    return high, Image.fromarray(levels.astype(np.uint8))


def without_alpha(image: Image.Image, ground: int) -> tuple[Image.Image, bool]:
    """Returns an image on a grey ground without transparency, and whether it had any."""
    if not image.has_transparency_data:
        return image, False
    image = image.convert("RGBA")
    transparent = bool((np.asarray(image.getchannel("A")) < 255).any())
    below = Image.new("RGBA", image.size, (ground, ground, ground, 255))
    return Image.alpha_composite(below, image).convert("RGB"), transparent


def orientation(image: Image.Image) -> int:
    """Returns the orientation in an image's EXIF, 1 to 8; 1 for none, or one that is damaged."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = image.getexif().get(ORIENTATION, 1)
    except Exception:  # Pillow's parser raises many types; exif_transpose then does nothing
        return 1
    return found if found in range(1, 9) else 1


def is_grey(image: Image.Image) -> bool:
    """Returns whether an image's mode, or each colour of its palette, is grey."""
    if image.mode != "P":
        return image.mode in GREY_MODES or image.mode.startswith("I;16")
    colours = np.asarray(image.getpalette() or [0, 0, 0]).reshape(-1, 3)
    return bool((colours == colours[:, :1]).all())


def is_deep(image: Image.Image) -> bool:
    """Returns whether an image has numbers of more than 8 bits."""
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def has_open_range(image: Image.Image) -> bool:
    """Returns whether an image has numbers of 32 bits; Pillow's `I` is 16 in a PNG or PGM."""
    return image.mode == "F" or (image.mode == "I" and image.format not in ("PNG", "PPM"))


def fault_text(error: Exception) -> str:
    """Returns in words why an image could not be decoded."""
    if isinstance(error, (Image.DecompressionBombWarning, Image.DecompressionBombError)):
        return "more pixels than are decoded, as a trap would have"
    if isinstance(error, Image.UnidentifiedImageError):
        return "no image of a known format"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def attempt(function: Callable[..., Any], path: str, *others: Any) -> tuple[Any, str, bool]:
    """Returns the result, a fault in words, and whether the file is broken; never raises."""
    try:
        return function(path, *others), "", False
    except UnfitImageError as error:
        return None, str(error), False
    except Exception as error:  # decoders raise many types for a broken file
        return None, fault_text(error), True


def serve() -> None:
    """Answers pickled requests (function, paths, more arguments) from stdin; exits at its end.

    That comes also when the process that started this one is gone. Ignores Ctrl-C.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it too, and ends this process
    requests = sys.stdin.buffer
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # so that no decoder's message gets among the replies
    with suppress(EOFError, OSError):  # the parent is gone
        while True:
            name, paths, others = pickle.load(requests)
            found = [attempt(FUNCTIONS[name], path, *others) for path in paths]
            pickle.dump(found, replies)
            replies.flush()
    os._exit(0)  # a broken pipe would be tried, and told of, again at exit


FUNCTIONS: dict[str, Callable[..., Any]] = {"read_header": read_header, "decode_file": decode_file}
