"""The report's palette: viridis for ordered values, vermilion for failures.

Both can be told apart with any colour vision, and in grey print.
"""

from collections.abc import Sequence

import numpy as np

VIRIDIS = (
    *("#440154", "#482878", "#3e4a89", "#31688e", "#26828e"),
    *("#1f9e89", "#35b779", "#6ece58", "#b5de2b", "#fde725"),
)
INK, QUIET, PALE, LINES, WRONG = "#1f2933", "#5f6c7b", "#c3cbd4", "#e3e7ec", "#b8430a"
DARKEST, ALONE, LIGHTEST = 0.0, 0.35, 0.86  # of viridis, for lines and points on white


def colour_sequence(count: int) -> list[str]:
    """Returns this many hex colours from dark to light, all visible on white."""
    places = [ALONE] if count == 1 else np.linspace(DARKEST, LIGHTEST, count)
    return [palette_colour(float(place)) for place in places]


def palette_colour(place: float) -> str:
    """Returns the palette's hex colour at `place`, which is clamped to 0 (dark) to 1 (light)."""
    at = min(max(place, 0.0), 1.0) * (len(VIRIDIS) - 1)
    low = min(int(at), len(VIRIDIS) - 2)
    pair = np.array([rgb(colour) for colour in VIRIDIS[low : low + 2]])
    mixed = pair[0] + (at - low) * (pair[1] - pair[0])
    return "#" + "".join(f"{round(part):02x}" for part in mixed)


def rgb(colour: str) -> Sequence[int]:
    """Returns red, green and blue, from 0 to 255, of a hex colour."""
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]


def colour_scale(lower: bool = False) -> list[tuple[float, str]]:
    """Returns stops (place, hex colour) of a scale: light for high values, or low if `lower`."""
    colours = VIRIDIS[::-1] if lower else VIRIDIS
    return [(i / (len(colours) - 1), colour) for i, colour in enumerate(colours)]


def is_dark(colour: str) -> bool:
    """True if white letters are easier to read on the colour than black ones."""
    red, green, blue = rgb(colour)
    return 0.299 * red + 0.587 * green + 0.114 * blue < 140


def with_opacity(colour: str, opacity: float) -> str:
    """Returns a hex colour as CSS `rgba(...)` with an opacity from 0 to 1."""
    return f"rgba({','.join(map(str, rgb(colour)))},{opacity})"
