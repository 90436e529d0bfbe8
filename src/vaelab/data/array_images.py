"""Validation and conversion of arrays of pixels to images, uint8 [N, C, H, W]."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from vaelab.data import on_disk
from vaelab.data.on_disk import OnDisk
from vaelab.data.wrong_rows import first_wrong_row
from vaelab.errors import UserError
from vaelab.observations import SLACK

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

    They leave none if they fill [0, 1] or [-1, 1], but for rounding, or are whole numbers up to 255
    and not all dark. Otherwise, and for other types, returns None.
    """
    if images.dtype.kind != "f" or not images.size:
        return None, []
    low, high = float(images.min()), float(images.max())
    span: Span | None = None
    if low >= -SLACK and NEARLY <= high <= 1 + SLACK:
        span = (0, 1)
    elif -1 - 2 * SLACK <= low <= -NEARLY and NEARLY <= high <= 1 + 2 * SLACK:
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
    name: str,
    images: np.ndarray,
    span: Span | None,
    layout: Layout = "NCHW",
    parts: Iterable[np.ndarray] = (),
) -> Tensor | OnDisk:
    """Returns images as uint8 [N, C, H, W], 0 black to 255 white; raises UserError if unfit.

    Rescales by `span` if given; otherwise accepts only booleans and whole numbers of 0 to 255,
    and does not copy uint8 images with channels first. Those of a large mapped file stay on disk.

    Args:
        name: The name of the array, for messages.
        images: [N, C, H, W], [N, H, W, C] or [N, H, W].
        span: The pixel values that mean black and white.
        layout: Order of the axes.
        parts: Images of all parts, whose reach is advised as the range if there is none.
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
    if min(images.strides) < 0:  # as of images that were flipped, which torch does not take
        images = np.ascontiguousarray(images)
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
        raise UserError(range_error_text(name, images.dtype, *common_reach(images, parts)))
    return torch.from_numpy(np.asarray(images, np.uint8))


def common_reach(images: np.ndarray, parts: Iterable[np.ndarray]) -> tuple[float, float]:
    """Returns the least and largest number of images and of the parts that are like them.

    Like them are those of the same kind of number and at most twice their reach.
    """
    low, high = float(images.min()), float(images.max())
    found = [(low, high)]
    for part in parts:
        if part.dtype.kind == images.dtype.kind and part.size:
            ends = float(part.min()), float(part.max())
            if max(ends[1], high) - min(ends[0], low) <= 2 * (high - low):
                found.append(ends)
    lows, highs = zip(*found, strict=True)
    return min(lows), max(highs)


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
    """Returns the error message for images of a doubtful pixel range, with the settings to give.

    The first setting is the reach of the images, see `own_reach`, which makes them fill 0 to 255.
    Others are those of `usual_spans`.
    """
    is_whole = kind.kind in "ui" or (low, high) == (round(low), round(high))
    if low == high:
        if is_whole and 0 <= low <= 255:
            return f"{name} are all {low:g}; data.source.range=[0,255] takes them as they are"
        return f"{name} are all {low:g}, and one value alone is no image"
    reach = f"{name} are {kind} from {low:g} to {high:g}"
    spans = [own_reach(low, high, is_whole), *usual_spans(low, high, is_whole)]
    own, *others = dict.fromkeys(range_text(*span) for span in spans)
    if kind.kind in "ui" and low >= 0 and high < MIN_MAXIMUM:
        others = [range_text(0, 255)] if kind == np.uint8 else others
        more = f", or {others[0]} if they are as dark as that" if others else ""
        return f"{reach}: nearly black, if 255 is white; give {own}{more}"
    if kind.kind == "f" and low < -1:
        reach += ", as after a normalisation, which is best left out"
    more = f", or {others[0]} if they could reach that" if others else ""
    return f"{reach}; say which values are black and white: {own}{more}"


def range_text(black: float, white: float) -> str:
    """Returns the setting of a range as it is typed."""
    return f"data.source.range=[{black:.10g},{white:.10g}]"


def own_reach(low: float, high: float, is_whole: bool) -> Span:
    """Returns black and white that numbers from `low` to `high` fill, at most a level apart.

    Fractions are rounded outwards to a thousandth of their width, and black is 0 if that is near.
    """
    if 0 <= low <= 0.02 * high:
        low = 0.0
    width = high - low
    if is_whole or not 1e-300 < width < math.inf:
        return low, high
    step = 10.0 ** (math.floor(math.log10(width)) - 3)
    inward = 0.01  # of a step, by which a bound may be inside: 0.6 in float32 is 0.60000002
    return math.floor(low / step + inward) * step, math.ceil(high / step - inward) * step


def usual_spans(low: float, high: float, is_whole: bool) -> Sequence[Span]:
    """Returns the usual spans, at most one, that numbers from `low` to `high` may be meant by.

    They are [0, 1] and [-1, 1] of fractions, 0 to 255, and of larger whole numbers those of 10, 12,
    14 and 16 bits. None if the images would be nearly black.
    """
    if not is_whole and high <= 1:
        span = (0, 1) if low >= 0 else (-1, 1)
        return [span] if low >= -1 and max(-low, high) > 0.1 else []
    if low < 0 or (not is_whole and high < MIN_MAXIMUM):
        return []
    tops = [255, *(2**bits - 1 for bits in (10, 12, 14, 16))] if is_whole else [255]
    return [(0, top) for top in tops if top / 4 <= high <= top][:1]


def rescale(name: str, images: np.ndarray, span: Span) -> np.ndarray:
    """Returns uint8 images scaled from `span` to 0..255; raises UserError for pixels outside.

    Floats may be outside by `SLACK` of the span, and are clipped.
    """
    black, white = map(float, span)
    slack = SLACK * (white - black) if images.dtype.kind == "f" else 0
    outside = first_wrong_row((images < black - slack) | (images > white + slack))
    if outside is not None:
        raise UserError(
            f"{name}[{outside}] reaches from {images[outside].min():g} to "
            f"{images[outside].max():g}, and data.source.range=[{black:g},{white:g}]"
        )
    found = np.empty(images.shape, np.uint8)
    for start in range(0, len(images), IMAGES_PER_CHUNK):
        chunk = slice(start, start + IMAGES_PER_CHUNK)
        some = images[chunk].astype(np.float64)
        found[chunk] = np.rint((some - black) * (255 / (white - black))).clip(0, 255)
    return found
