"""Words around a grid of images: names of its rows and columns, and a line below."""

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from textwrap import wrap

from PIL import Image, ImageDraw, ImageFont

FONT = 16  # pixels
CARD = (415, 213)
"""Pixels, width and height, in which TensorBoard shows a picture."""
LEGIBLE = 10  # pixels of a letter there
LONGEST = 24  # letters of a name


def with_names(
    grid: Image.Image, rows: Sequence[str], heads: Sequence[str], note: str, size: float = FONT
) -> Image.Image:
    """A grid with the names of its rows on the left, of its columns above, and a note below.

    Where there is no room for all names, every second one is left out, or more of them.

    Args:
        grid: Rows and columns of the same height and width.
        rows: A name for each row, or none.
        heads: A name for each column, or none; it may have several lines.
        note: What else there is to say, or nothing.
        size: Pixels of the letters.
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

    centres = evenly(len(rows), top, grid.height)
    for centre, name in spaced(zip(centres, rows, strict=True), [1.1 * size] * len(rows)):
        pen.text((left - size / 2, centre), name, "black", font, anchor="rm")

    widths = [max(map(font.getlength, name.split("\n"))) + size / 2 for name in heads]
    centres = evenly(len(heads), left, grid.width)
    for centre, name in spaced(zip(centres, heads, strict=True), widths):
        half = max(map(font.getlength, name.split("\n"))) / 2
        inside = min(max(centre, half), page.width - half)
        pen.multiline_text((inside, top / 2), name, "black", font, "mm", spacing=1, align="center")

    for i, line in enumerate(lines):
        middle = top + grid.height + 1.5 * size * (i + 0.5)
        pen.text((left, middle), line, "black", font, anchor="lm")
    return page


def with_captions(grid: Image.Image, captions: Sequence[str], columns: int) -> Image.Image:
    """A grid with a name at the foot of each of its cells, where a strip has been left white."""
    font = ImageFont.load_default(FONT)
    rows = -(-len(captions) // columns)
    wide, high = grid.width / columns, grid.height / rows
    letters = max(1, int(wide / font.getlength("n")))
    pen = ImageDraw.Draw(grid)
    for i, name in enumerate(captions):
        across, down = (i % columns + 0.5) * wide, (i // columns + 1) * high - 0.9 * FONT
        pen.text((across, down), shortened(name, letters), "black", font, anchor="mm")
    return grid


def size_on_card(grid: Image.Image, rows: Sequence[str], heads: Sequence[str], note: str) -> float:
    """Pixels of letters that are legible once TensorBoard has made the picture smaller."""
    unit = ImageFont.load_default(100)
    beside = max((unit.getlength(shortened(name)) / 100 + 1 for name in rows), default=0.0)
    above = 1.25 * max((1 + name.count("\n") for name in heads), default=0)
    below = 3.0 if note else 0.0  # two lines, as a rule
    card_width, card_height = (side / LEGIBLE for side in CARD)  # in letters
    wide, high = grid.width / (card_width - beside), grid.height / (card_height - above - below)
    return max(LEGIBLE, wide, high)


def shortened(name: str, letters: int = LONGEST) -> str:
    return name if len(name) <= letters else f"{name[: max(1, letters - 2)]}.."


def evenly(count: int, start: float, length: float) -> list[float]:
    """The centres of so many equal parts of a length."""
    return [start + (i + 0.5) * length / count for i in range(count)]


def spaced(
    names: Iterable[tuple[float, str]], widths: Sequence[float]
) -> Iterable[tuple[float, str]]:
    """Centres and names, but the first of every n alone where all would overlap; n is the least."""
    found = [(*named, width) for named, width in zip(names, widths, strict=True) if named[1]]
    for step in range(1, len(found) + 1):
        kept = found[::step]
        if all(b[0] - a[0] >= (a[2] + b[2]) / 2 for a, b in pairwise(kept)):
            return [(centre, name) for centre, name, _ in kept]
    return []
