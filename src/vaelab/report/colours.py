"""The page's one palette: viridis for what has an order, vermilion for what is wrong.

Both are told apart with any colour vision, and in grey print.
"""

from collections.abc import Sequence

import numpy as np

VIRIDIS = (
    *("#440154", "#482878", "#3e4a89", "#31688e", "#26828e"),
    *("#1f9e89", "#35b779", "#6ece58", "#b5de2b", "#fde725"),
)
INK, QUIET, PALE, LINES, WRONG = "#1f2933", "#5f6c7b", "#c3cbd4", "#e3e7ec", "#b8430a"
DARKEST, ALONE, LIGHTEST = 0.0, 0.35, 0.86  # of viridis, for lines and points on white


def sequence(count: int) -> list[str]:
    """So many colours from dark to light, all of them visible on white."""
    places = [ALONE] if count == 1 else np.linspace(DARKEST, LIGHTEST, count)
    return [between(float(place)) for place in places]


def between(place: float) -> str:
    """The colour at a place from 0 to 1 of the palette."""
    at = min(max(place, 0.0), 1.0) * (len(VIRIDIS) - 1)
    low = min(int(at), len(VIRIDIS) - 2)
    pair = np.array([parts(colour) for colour in VIRIDIS[low : low + 2]])
    mixed = pair[0] + (at - low) * (pair[1] - pair[0])
    return "#" + "".join(f"{round(part):02x}" for part in mixed)


def parts(colour: str) -> Sequence[int]:
    """Red, green and blue from 0 to 255."""
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]


def scale(lower: bool = False) -> list[tuple[float, str]]:
    """Stops of a colour scale on which light is better."""
    colours = VIRIDIS[::-1] if lower else VIRIDIS
    return [(i / (len(colours) - 1), colour) for i, colour in enumerate(colours)]


def is_dark(colour: str) -> bool:
    """Whether white letters are read better on it than black ones."""
    red, green, blue = parts(colour)
    return 0.299 * red + 0.587 * green + 0.114 * blue < 140


def faded(colour: str, opacity: float) -> str:
    return f"rgba({','.join(map(str, parts(colour)))},{opacity})"
