"""Validation and conversion of arrays of pixels to images, uint8 [N, C, H, W]."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from vaelab.data import on_disk
from vaelab.data.on_disk import OnDisk
from vaelab.data.wrong_rows import first_wrong_row
from vaelab.errors import UserError

Span = Sequence[float]
"""The two pixel values that mean black and white."""
Layout = Literal["NCHW", "NHWC"]
"""Order of the axes of images: channels first, or last."""
MIN_SIDE = 8  # pixels
NEARLY = 0.99  # floats that reach it, and not 1, are taken to end at 1
MIN_MAXIMUM = 128  # if no pixel reaches it, the range is probably not 0 to 255
IMAGES_PER_CHUNK = 1000  # images rescaled at a time, to bound memory


def find_layout(name: str, shape: tuple[int, ...]) -> tuple[Layout, list[str]]:
    """Returns the order of the axes by a shape, and a phrase if it is not that of [N, C, H, W].

    Channels are last if that axis is shorter than the second, and the others no square. Then it is
    a guess, and the phrase says so, unless it is too short for an image's side.

    Raises:
        UserError: If images have as many channels as rows and columns, as volumes have.
    """
    if len(shape) != 4:
        return "NCHW", []
    _, second, third, last = shape
    if second == third == last >= MIN_SIDE:
        raise UserError(
            f"{name} have shape {shape}: volumes are not read; if they are images of {last} "
            "channels, say data.source.layout=NCHW or data.source.layout=NHWC"
        )
    if last >= second or last == third or min(second, third) < MIN_SIDE:
        return "NCHW", []
    said = f"channels last, as {name} of shape {shape} say"
    if last >= MIN_SIDE:
        said = f"{name} of shape {shape} read as channels last, a guess; or data.source.layout=NCHW"
    return "NHWC", [said]


def find_span(images: np.ndarray) -> tuple[Span | None, list[str]]:
    """Returns the values of black and white of floats that leave no doubt, and a phrase on them.

    They leave none if they fill [0, 1] or [-1, 1], or are whole numbers up to 255 and not all dark.
    Otherwise, and for other types, returns None.
    """
    if images.dtype.kind != "f" or not images.size:
        return None, []
    low, high = float(images.min()), float(images.max())
    span: Span | None = None
    if low >= 0 and NEARLY <= high <= 1:
        span = (0, 1)
    elif -1 <= low <= -NEARLY and NEARLY <= high <= 1:
        span = (-1, 1)
    elif low >= 0 and MIN_MAXIMUM <= high <= 255 and are_whole(images):
        span = (0, 255)
    if span is None:
        return None, []
    said = f"{images.dtype} pixels from {low:g} to {high:g}, read with {span[0]} as black and "
    return span, [f"{said}{span[1]} as white"]


def are_whole(images: np.ndarray) -> bool:
    """Returns whether all numbers are whole; looks at some images at a time."""
    return all(
        bool((some == np.floor(some)).all())
        for start in range(0, len(images), IMAGES_PER_CHUNK)
        for some in [images[start : start + IMAGES_PER_CHUNK]]
    )


def convert_images(
    name: str, images: np.ndarray, span: Span | None, layout: Layout = "NCHW"
) -> Tensor | OnDisk:
    """Returns images as uint8 [N, C, H, W], 0 black to 255 white; raises UserError if unfit.

    Rescales by `span` if given; otherwise accepts only booleans and whole numbers of 0 to 255,
    and does not copy uint8 images with channels first. Those of a large mapped file stay on disk.
    """
    if images.ndim == 3:
        images = images[:, None]
    elif images.ndim != 4:
        raise UserError(
            f"{name} have shape {images.shape}, but should be (N, H, W) or (N, C, H, W)"
        )
    elif layout == "NHWC":
        images = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    if min(images.shape[-2:]) < MIN_SIDE or images.shape[1] == 0:
        height, width = images.shape[-2:]
        raise UserError(
            f"{name} are too small: {height} x {width} pixels, at least {MIN_SIDE} x {MIN_SIDE} "
            "are needed"
        )
    if images.dtype == np.bool_:
        return torch.from_numpy(images.astype(np.uint8) * 255)
    if images.dtype.kind not in "uif":
        raise UserError(f"{name} are {images.dtype}, but should be numbers or booleans")
    if is_large_file(images) and (span is None or tuple(span) == (0, 255)):
        assert isinstance(images, np.memmap)
        low, high = pixel_range(images) if span is None else (0, 255)
        if high < MIN_MAXIMUM or low == high:
            raise UserError(range_error_text(name, images.dtype, low, high))
        return OnDisk.of_mapped(images)
    if images.dtype == np.uint8 and span is not None and tuple(span) == (0, 255):
        return torch.from_numpy(images)  # as they are; not even read, for they may be many
    low, high = images.min(), images.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise UserError(f"{name}[{first_wrong_row(~np.isfinite(images))}] is not finite")
    if span is not None:
        return torch.from_numpy(rescale(name, images, span))
    if images.dtype.kind == "f" or low < 0 or high > 255 or high < MIN_MAXIMUM or low == high:
        raise UserError(range_error_text(name, images.dtype, float(low), float(high)))
    return torch.from_numpy(np.asarray(images, np.uint8))


def is_large_file(images: np.ndarray) -> bool:
    """Returns whether images are uint8, in a mapped file, and too large to hold them in memory."""
    mapped = isinstance(images, np.memmap) and images.flags.c_contiguous
    return mapped and images.dtype == np.uint8 and images.nbytes > on_disk.LARGE


def pixel_range(images: np.ndarray) -> tuple[int, int]:
    """Returns the least and largest of the first pixels that show a usual range, or of all."""
    low, high = 255, 0
    for start in range(0, len(images), IMAGES_PER_CHUNK):
        some = images[start : start + IMAGES_PER_CHUNK]
        low, high = min(low, int(some.min())), max(high, int(some.max()))
        if low < high and high >= MIN_MAXIMUM:
            break
    return low, high


def range_error_text(name: str, kind: np.dtype[Any], low: float, high: float) -> str:
    """Returns the error message for images of a doubtful pixel range, with the setting to give."""
    reach = f"{name} are {kind} from {low:g} to {high:g}"
    if low == high:
        return f"{name} are all {low:g}; data.source.range=[0,255] takes them as they are"
    if kind.kind == "f":
        black, white = (0, 1) if low >= 0 else (-1, 1)
        if low < black or high > white:
            black, white = (0, 255) if low >= 0 and high <= 255 else (low, high)  # type: ignore[assignment]
    else:
        black, white = (
            min(0, int(low)),
            int(high) if high < 256 else 2 ** int(high).bit_length() - 1,
        )
    asked = f"data.source.range=[{black:g},{white:g}]"
    if kind.kind == "u" and high < MIN_MAXIMUM:
        return (
            f"{reach}: nearly black, if 255 is white; give {asked}, or data.source.range=[0,255] "
            "if they are as dark as that"
        )
    return f"{reach}; say which values are black and white: {asked}"


def rescale(name: str, images: np.ndarray, span: Span) -> np.ndarray:
    """Returns uint8 images scaled from `span` to 0..255; raises UserError for pixels outside."""
    black, white = map(float, span)
    outside = first_wrong_row((images < black) | (images > white))
    if outside is not None:
        raise UserError(
            f"{name}[{outside}] reaches from {images[outside].min():g} to "
            f"{images[outside].max():g}, and data.source.range=[{black:g},{white:g}]"
        )
    found = np.empty(images.shape, np.uint8)
    for start in range(0, len(images), IMAGES_PER_CHUNK):
        chunk = slice(start, start + IMAGES_PER_CHUNK)
        some = images[chunk].astype(np.float64)
        found[chunk] = np.rint((some - black) * (255 / (white - black)))
    return found
