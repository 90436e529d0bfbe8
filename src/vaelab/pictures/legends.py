"""Text around a grid of images: names of rows and columns, captions, and a note below."""

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from textwrap import wrap

from PIL import Image, ImageDraw, ImageFont

FONT = 16  # size of the letters, in pixels
CARD = (415, 213)
"""Width and height, in pixels, of a card of TensorBoard, to which it shrinks a picture."""
LEGIBLE = 10  # least size of letters on a card, in pixels
LONGEST = 24  # most letters of a name


def with_names(
    grid: Image.Image, rows: Sequence[str], heads: Sequence[str], note: str, size: float = FONT
) -> Image.Image:
    """Returns a grid with row names, column heads and a note around it; omits crowded names.

    If the names have no room, only every second, third and so on is shown. Long row names are
    shortened. Returns a new image, or without any text the grid itself.

    Args:
        grid: Rows and columns of the same height and width.
        rows: A name for each row, or none.
        heads: A name for each column, or none; it may have several lines.
        note: A note, or an empty text.
        size: Size of the letters, in pixels.
    """
    if not (rows or heads or note):
        return grid
    font = ImageFont.load_default(size)
    rows, heads = [shortened(name) for name in rows], [*heads]
    left = math.ceil(max((font.getlength(name) for name in rows), default=-size) + size)
    top = math.ceil(1.25 * size * max((1 + name.count("\n") for name in heads), default=0))
    letters = max(20, int((left + grid.width) / font.getlength("n")))
    lines = wrap(note, letters)
    page = Image.new(
        grid.mode,
        (left + grid.width, top + grid.height + math.ceil(1.5 * size * len(lines))),
        "white",
    )
    page.paste(grid, (left, top))
    pen = ImageDraw.Draw(page)

    centres = even_centres(len(rows), top, grid.height)
    for centre, name in non_overlapping(zip(centres, rows, strict=True), [1.1 * size] * len(rows)):
        pen.text((left - size / 2, centre), name, "black", font, anchor="rm")

    widths = [max(map(font.getlength, name.split("\n"))) + size / 2 for name in heads]
    centres = even_centres(len(heads), left, grid.width)
    for centre, name in non_overlapping(zip(centres, heads, strict=True), widths):
        half = max(map(font.getlength, name.split("\n"))) / 2
        inside = min(max(centre, half), page.width - half)
        pen.multiline_text((inside, top / 2), name, "black", font, "mm", spacing=1, align="center")

    for i, line in enumerate(lines):
        middle = top + grid.height + 1.5 * size * (i + 0.5)
        pen.text((left, middle), line, "black", font, anchor="lm")
    return page


def draw_captions(grid: Image.Image, captions: Sequence[str], columns: int) -> Image.Image:
    """Draws captions into the grid, in place, at the foot of each cell; returns the grid.

    The cells should have a white strip there. Long captions are shortened.
    """
    font = ImageFont.load_default(FONT)
    rows = -(-len(captions) // columns)
    wide, high = grid.width / columns, grid.height / rows
    letters = max(1, int(wide / font.getlength("n")))
    pen = ImageDraw.Draw(grid)
    for i, name in enumerate(captions):
        across, down = (i % columns + 0.5) * wide, (i // columns + 1) * high - 0.9 * FONT
        pen.text((across, down), shortened(name, letters), "black", font, anchor="mm")
    return grid


def card_font_size(
    grid: Image.Image, rows: Sequence[str], heads: Sequence[str], note: str
) -> float:
    """Returns the letter size, in pixels, that is legible after TensorBoard shrinks the picture."""
    unit = ImageFont.load_default(100)
    beside = max((unit.getlength(shortened(name)) / 100 + 1 for name in rows), default=0.0)
    above = 1.25 * max((1 + name.count("\n") for name in heads), default=0)
    below = 3.0 if note else 0.0  # two lines, as a rule
    card_width, card_height = (side / LEGIBLE for side in CARD)  # in letters
    wide, high = grid.width / (card_width - beside), grid.height / (card_height - above - below)
    return max(LEGIBLE, wide, high)


def shortened(name: str, letters: int = LONGEST) -> str:
    """Returns the name, cut to so many letters with `..` at its end if it is longer."""
    return name if len(name) <= letters else f"{name[: max(1, letters - 2)]}.."


def even_centres(count: int, start: float, length: float) -> list[float]:
    """Returns the centres of `count` equal parts of a line from `start`."""
    return [start + (i + 0.5) * length / count for i in range(count)]


def non_overlapping(
    names: Iterable[tuple[float, str]], widths: Sequence[float]
) -> Iterable[tuple[float, str]]:
    """Returns every n-th centre and name, with the least n without overlap; omits empty names.

    Args:
        names: Centres and names.
        widths: Width of each name, in the unit of the centres.
    """
    found = [(*named, width) for named, width in zip(names, widths, strict=True) if named[1]]
    for step in range(1, len(found) + 1):
        kept = found[::step]
        if all(b[0] - a[0] >= (a[2] + b[2]) / 2 for a, b in pairwise(kept)):
            return [(centre, name) for centre, name, _ in kept]
    return []
