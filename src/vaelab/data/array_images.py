"""Validation and conversion of arrays of pixels to images, uint8 [N, C, H, W]."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vaelab.data.wrong_rows import first_wrong_row
from vaelab.errors import UserError

Span = Sequence[float]
"""The two pixel values that mean black and white."""
MIN_SIDE = 8  # pixels
MIN_MAXIMUM = 128  # if no pixel reaches it, the range is probably not 0 to 255
IMAGES_PER_CHUNK = 1000  # images rescaled at a time, to bound memory


def convert_images(name: str, images: np.ndarray, span: Span | None) -> Tensor:
    """Returns images as uint8 [N, C, H, W], 0 black to 255 white; raises UserError if unfit.

    Rescales by `span` if given; otherwise accepts only booleans and whole numbers of 0 to 255,
    and does not copy uint8 images.
    """
    if images.ndim == 3:
        images = images[:, None]
    if images.ndim != 4:
        raise UserError(
            f"{name} have shape {images.shape}, but should be (N, H, W) or (N, C, H, W)"
        )
    if images.shape[-1] in (1, 3, 4) and images.shape[1] >= MIN_SIDE:
        raise UserError(f"{name} have shape {images.shape}, channels last; should be (N, C, H, W)")
    if min(images.shape[-2:]) < MIN_SIDE or images.shape[1] == 0:
        height, width = images.shape[-2:]
        raise UserError(
            f"{name} are too small: {height} x {width} pixels, at least {MIN_SIDE} x {MIN_SIDE} "
            "are needed"
        )
    if images.dtype == np.uint8 and span is not None and tuple(span) == (0, 255):
        return torch.from_numpy(images)  # as they are; not even read, for they may be many
    if images.dtype == np.bool_:
        return torch.from_numpy(images.astype(np.uint8) * 255)
    if images.dtype.kind not in "uif":
        raise UserError(f"{name} are {images.dtype}, but should be numbers or booleans")
    low, high = images.min(), images.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise UserError(f"{name}[{first_wrong_row(~np.isfinite(images))}] is not finite")
    if span is not None:
        return torch.from_numpy(rescale(name, images, span))
    if images.dtype.kind == "f" or low < 0 or high > 255 or high < MIN_MAXIMUM or low == high:
        raise UserError(range_error_text(name, images.dtype, float(low), float(high)))
    return torch.from_numpy(np.asarray(images, np.uint8))


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
