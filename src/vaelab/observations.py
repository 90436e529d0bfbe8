"""What one x is: the words for its shape, its scale of pixels, or the units of its numbers.

x is an image (C, H, W), a signal (C, L) of C channels and L steps, or a vector (D,).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from vaelab.errors import UserError

KINDS = {1: "vectors", 2: "signals", 3: "images"}
"""What x are called, by the number of axes of one."""
PICTURE_MODES = ("1", "L", "RGB", "I", "I;16", "F")
"""Modes of Pillow's pictures whose arrays are grey or red, green and blue."""
SLACK = 1e-3
"""Share of a scale by which floats may leave it: rounding and float16, a quarter of a level."""


def kind_text(x_shape: Sequence[int]) -> str:
    """Returns what x of this shape are called: images, signals or vectors."""
    return KINDS[len(x_shape)]


def size_text(x_shape: Sequence[int]) -> str:
    """Returns the size of one x in words: `28 x 28 x 1`, `100 steps x 2` or `5 numbers`."""
    channels, *space = x_shape
    if len(space) == 1:
        return f"{space[0]} steps x {channels}"
    return (
        " x ".join(map(str, [*space, channels]))
        if space
        else f"{channels} number{'s' * (channels != 1)}"
    )


def x_text(x_shape: Sequence[int]) -> str:
    """Returns kind and size of x in words: `28 x 28 x 1 images` or `vectors of 5 numbers`."""
    kind, size = kind_text(x_shape), size_text(x_shape)
    return f"{size} {kind}" if len(x_shape) == 3 else f"{kind} of {size}"


def table_columns(images: Any, names: Sequence[str]) -> Any:
    """Returns the columns of these names of a table, as float64 [N, C]; images that are no table.

    Args:
        images: A table, with `columns`, or anything else.
        names: The names.

    Raises:
        UserError: If a column is missing.
    """
    if not hasattr(images, "columns"):
        return images
    found = {str(name): name for name in images.columns}
    if missing := [name for name in names if name not in found]:
        raise UserError(f"there is no column {', '.join(missing[:4])}; this model takes them")
    try:
        return images[[found[name] for name in names]].to_numpy(float)
    except (TypeError, ValueError) as error:
        raise UserError(f"of the columns {', '.join(names)} some are no numbers") from error


def check_picture(value: Any, what: str) -> None:
    """Raises UserError for a picture of Pillow whose array is not its brightness, as of a palette.

    Args:
        value: A picture, or anything else.
        what: Its name in the message.
    """
    mode = getattr(value, "mode", None)
    if isinstance(mode, str) and hasattr(value, "convert") and mode not in PICTURE_MODES:
        raise UserError(
            f"{what}: a picture of mode {mode}; give picture.convert('RGB') or picture.convert('L')"
        )


@dataclass(frozen=True)
class Units:
    """Names of a vector's numbers or a signal's channels, and how to restore them as stored.

    A stored number is x * scale + mean, with those of its column or channel.

    Attributes:
        names: [C], of columns or channels.
        mean: [C]; 0 if the numbers are not standardised.
        scale: [C]; 1 if the numbers are not standardised.
    """

    names: tuple[str, ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Self:
        """Returns the units that `plain` describes."""
        return cls(*(tuple(plain[name]) for name in ("names", "mean", "scale")))

    @classmethod
    def default(cls, count: int) -> Self:
        """Returns the units of `count` columns or channels that are as stored, named 0, 1, ..."""
        return cls(tuple(map(str, range(count))), (0.0,) * count, (1.0,) * count)

    @property
    def plain(self) -> dict[str, Any]:
        """The attributes as plain lists, for checkpoints and JSON."""
        return {"names": [*self.names], "mean": [*self.mean], "scale": [*self.scale]}

    def standardize(self, stored: Tensor, axes: int) -> Tensor:
        """Returns x [..., C, *space] in float32 of stored numbers; `axes` is that of one x."""
        shape = (-1, *[1] * (axes - 1))
        x = stored.double()
        x = (x - x.new_tensor(self.mean).view(shape)) / x.new_tensor(self.scale).view(shape)
        return x.float()

    def restore(self, x: Tensor, axes: int) -> Tensor:
        """Returns x [..., C, *space] as stored, float64 on the CPU; `axes` is that of one x."""
        shape = (-1, *[1] * (axes - 1))
        x = x.detach().cpu().double()
        return x * x.new_tensor(self.scale).view(shape) + x.new_tensor(self.mean).view(shape)


@dataclass(frozen=True)
class PixelScale:
    """The values that are black and white in a user's images, by the type of their numbers.

    This is the rule by which every array of pixels is read. A data set has one scale: the `range`
    that was given, or the one that `find_span` finds in all training images together. The model
    keeps it, in checkpoints and exports. Images that come later, to a model or to `encode`, are
    read by their type alone and never by their values, so that a dark batch is as dark alone as
    among others: booleans are black and white, and numbers outside of the scale are refused.
    Images that a model returns are on the scale of floats.

    Attributes:
        floats: Black and white of floats.
        whole: Black and white of whole numbers.
    """

    floats: tuple[float, float] = (0.0, 1.0)
    whole: tuple[float, float] = (0.0, 255.0)

    @classmethod
    def of_data(cls, span: Sequence[float] | None, has_floats: bool) -> Self:
        """Returns the scale of a data set whose numbers have this black and white (None: default).

        Floats that span at most 2, as [-1, 1], say nothing of whole numbers, and bytes of 0 to 255
        nothing of floats. Any other span is that of both.

        Args:
            span: Black and white.
            has_floats: Whether the numbers of the data set are floats.
        """
        if span is None:
            return cls()
        black, white = float(span[0]), float(span[1])
        if has_floats and white - black <= 2:
            return cls(floats=(black, white))
        if not has_floats and (black, white) == cls().whole:
            return cls()
        return cls((black, white), (black, white))

    @classmethod
    def from_plain(cls, plain: Mapping[str, Sequence[float]]) -> Self:
        """Returns the scale that `plain` describes; raises UserError if it is none."""
        try:
            (black, white), (first, last) = plain["floats"], plain["whole"]
            found = cls((float(black), float(white)), (float(first), float(last)))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError("pixel_scale: should have black and white, floats and whole") from error
        if not all(0 < high - low < math.inf for low, high in (found.floats, found.whole)):
            raise UserError("pixel_scale: black should be below white")
        return found

    @property
    def plain(self) -> dict[str, list[float]]:
        """The attributes as plain lists, for checkpoints and JSON."""
        return {"floats": [*self.floats], "whole": [*self.whole]}

    @property
    def is_default(self) -> bool:
        """True if floats are in [0, 1] and whole numbers 0 to 255."""
        return self == PixelScale()

    def span(self, are_floats: bool) -> tuple[float, float]:
        """Returns black and white of floats or of whole numbers."""
        return self.floats if are_floats else self.whole

    def check_reach(self, low: float, high: float, are_floats: bool) -> None:
        """Raises UserError if the least or largest number of images is outside of the scale.

        Also if whole numbers are only 0 and 1, which may be bits, or nearly black.
        """
        black, white = self.span(are_floats)
        slack = SLACK * (white - black) if are_floats else 0
        asked = f"in [{black:g}, {white:g}]" if are_floats else f"{black:g} to {white:g}"
        if not (black - slack <= low and high <= white + slack):  # also NaN
            kind = "pixels of floats" if are_floats else "whole pixels"
            these = f"and these {'are ' if are_floats else ''}{low:g} to {high:g}"
            raise UserError(f"{kind} are {asked}, {these}{self.advice(low, high, are_floats)}")
        if not are_floats and self.whole == PixelScale().whole and high == 1:
            raise UserError(
                "whole pixels are 0 to 255, and these 0 and 1, nearly black; give black and white "
                "as booleans"
            )

    def doubt(self, low: float, high: float, are_floats: bool) -> str | None:
        """Returns a sentence on floats in [0, 1] of which the scale makes nearly black images.

        They are read on the scale all the same. None of others.
        """
        black, white = self.span(are_floats)
        if not are_floats or white - black <= 2 or not 0 <= low < high <= 1:
            return None
        return (
            f"floats from {low:g} to {high:g}, read with {black:g} as black and {white:g} as white "
            "as in training, are nearly alike; if they were divided, give them as they were"
        )

    def advice(self, low: float, high: float, are_floats: bool) -> str:
        """Returns what to do about numbers outside of the scale, to end a message."""
        if not self.is_default:
            return "; give them as the training images were"
        if not are_floats:
            return "; give them as those, or as floats in [0, 1]"
        bytes_of_floats = low >= 0 and 128 <= high <= 255  # else they would be nearly black
        if bytes_of_floats:
            return "; divide by 255, or give whole numbers of 0 to 255"
        return "; scale them, so that black is 0 and white is 1"

    def levels(self, images: Tensor) -> Tensor:
        """Returns images as uint8, 0 black to 255 white; they are unchecked, and clipped."""
        black, white = self.span(images.is_floating_point())
        if images.dtype == torch.uint8 and (black, white) == (0, 255):
            return images
        scaled = (images.double() - black) * (255 / (white - black))
        return scaled.round().clamp(0, 255).to(torch.uint8)

    def restore(self, x: Tensor) -> Tensor:
        """Returns images x in [0, 1] on the scale of floats."""
        black, white = self.floats
        return x if (black, white) == (0, 1) else x * (white - black) + black
