"""How a source makes images of one size and number of channels, and what it says of it."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import Field

from vaelab.data.array_images import (
    MIN_MAXIMUM,
    MIN_SIDE,
    own_reach,
    range_text,
    usual_spans,
)
from vaelab.errors import UserError
from vaelab.files.image_decoding import Conversion

Side = Annotated[int, Field(ge=MIN_SIDE)]
Size = Side | tuple[Side, Side]
Fit = Literal["resize", "crop"]
Channels = Literal[1, 3]
Ground = Literal["black", "white"]
Range = tuple[float, float]
Shape = tuple[int, int]
"""Height and width."""
DONE = {
    "turned": "turned as their EXIF says",
    "deep": "scaled from more than 8 bits to 8",
    "alpha": "with transparent pixels laid on {ground}",
    "greyed": "made grey",
    "coloured": "made colour of grey",
    "first": "of several pictures, of which the first is taken",
}
"""Words for each change of images, by key; they follow the number of images."""


@dataclass(frozen=True)
class ImageSettings:
    """The settings of a source that reads images, as they stand on the command line.

    Attributes:
        size: Height and width, or both in one number; None: as they are.
        fit: `resize` stretches to that size, `crop` keeps proportions and cuts off the rest.
        channels: 1 or 3; None: 3 if an image has colour.
        ground: What transparent pixels show.
        span: Values of pixels that are black and white; None: those of the file's type.
    """

    size: Size | None = None
    fit: Fit = "resize"
    channels: Channels | None = None
    ground: Ground = "white"
    span: Range | None = None

    @classmethod
    def of_source(
        cls,
        size: Size | Sequence[int] | None,
        fit: Fit,
        channels: Channels | None,
        ground: Ground,
        span: Range | Sequence[float] | None,
    ) -> Self:
        """Returns the settings of a source's arguments, whose pairs may be lists.

        Raises:
            UserError: If black is not less than white.
        """
        shape: Any = tuple(size) if isinstance(size, Sequence) else size
        reach: Any = tuple(span) if span is not None else None
        made = cls(shape, fit, channels, ground, reach)
        made.check_range()
        return made

    def check_range(self) -> None:
        """Raises UserError if black is not less than white."""
        if self.span is not None and not 0 < self.span[1] - self.span[0] < math.inf:
            raise UserError(f"data.source.range=[{self.span[0]:g},{self.span[1]:g}] should rise")

    @property
    def shape(self) -> Shape | None:
        """Height and width; None: as they are."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    def conversion(self, channels: int) -> Conversion:
        """Returns how an image is converted to a number of channels."""
        level = 255 if self.ground == "white" else 0
        return Conversion(self.shape, self.fit, channels, level, self.span)

    def remarks(self, done: Counter[str], count: int, shapes: Iterable[Shape] = ()) -> list[str]:
        """Returns phrases on the changes of `count` images, which had these `shapes`."""
        found = []
        if done["resized"]:
            verb = "cropped and resized" if self.fit == "crop" else "resized"
            least, most = (shape_text(f(shapes, key=math.prod)) for f in (min, max))
            reach = f" from {least}" + (f" up to {most}" if most != least else "")
            found.append(f"{quantity(done['resized'], count)} {verb}{reach}")
        for key, words in DONE.items():
            if done[key]:
                text = words.format(ground=self.ground)
                found.append(f"{quantity(done[key], count)} {text}")
        return found


def quantity(some: int, count: int) -> str:
    """Returns how many of `count` images, in words."""
    return "all images" if some == count else f"{some:,} of {count:,} images"


def shape_text(shape: Shape) -> str:
    """Returns height and width as `28 x 28`."""
    return f"{shape[0]} x {shape[1]}"


def source_settings(source: object) -> ImageSettings | None:
    """Returns the settings by which a source makes images alike; None if it reads no pictures."""
    found = getattr(source, "settings", None)
    return found if isinstance(found, ImageSettings) else None


def check_brightness(what: str, span: Range | None, brightest: int, highest: float) -> None:
    """Raises UserError if all images are nearly black and no range says that they are to be.

    The arguments are those of `darkness`.
    """
    if said := darkness(what, span, brightest, highest):
        raise UserError(f"{said}; give {advised_ranges(highest)} if they are as dark as that")


def darkness(what: str, span: Range | None, brightest: int, highest: float) -> str | None:
    """Returns a phrase on images that are all nearly black; None if some are not, or by a range.

    Args:
        what: Where the images are from.
        span: The range that was given.
        brightest: The highest pixel of all images, of 255.
        highest: The same as the files have it, before it was scaled.
    """
    if span is not None or brightest >= MIN_MAXIMUM:
        return None
    return f"{what}: no pixel is above {highest:g}, nearly black if {type_white(highest)} is white"


def advised_ranges(highest: float) -> str:
    """Returns the settings of a range to choose from, for images up to `highest`."""
    is_whole = highest == round(highest)
    spans = [own_reach(0, max(highest, 1), is_whole), *usual_spans(0, highest, is_whole)]
    spans.append((0, type_white(highest)))
    return ", or ".join(dict.fromkeys(range_text(*span) for span in spans))


def type_white(highest: float) -> int:
    """Returns the white of files whose highest number this is: that of 8 or 16 bits."""
    return 65535 if highest > 255 else 255
