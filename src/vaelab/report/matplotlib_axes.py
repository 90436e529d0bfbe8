"""Matplotlib figures with styled axes, labels, colours and colour bars."""

from typing import Any

from vaelab.report.axes import Axis
from vaelab.report.colours import (
    INK,
    LINES,
    QUIET,
    colour_scale,
    colour_sequence,
)

MANY = 12


def blank_figure(width: float = 7.0, height: float = 5.0) -> tuple[Any, Any]:
    """Returns an empty figure and its styled axes; width and height in inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(QUIET)
    axes.tick_params(colors=INK)
    axes.grid(color=LINES, linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def escaped_mathtext(text: str) -> str:
    """Returns a text in which matplotlib reads `$` as itself and not as a formula."""
    return text.replace("$", r"\$")


def label_axis(axes: Any, side: str, axis: Axis) -> None:
    """Labels an axis (`side`: x or y) with a setting; may make it logarithmic and mark its values.

    The values are marked if they are few or no numbers.
    """
    getattr(axes, f"set_{side}label")(escaped_mathtext(axis.name))
    if axis.log:
        getattr(axes, f"set_{side}scale")("log")
    if len(axis.levels) <= MANY or not axis.numeric:
        places, labels = axis.marks
        getattr(axes, f"set_{side}ticks")(
            places, [escaped_mathtext(label) for label in labels], minor=False
        )
        getattr(axes, f"{side}axis").minorticks_off()


def level_colours(axis: Axis | None) -> Any:
    """Returns a function from value to colour, and a ScalarMappable if over MANY levels, else None.

    Without an axis the function returns one colour for all.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, LogNorm, Normalize

    if axis is None or len(axis.levels) <= MANY:
        colours = colour_sequence(len(axis.levels) if axis else 1)
        return lambda value: colours[axis.level_index(value) if axis else 0], None
    ends = min(axis.marks[0]), max(axis.marks[0])
    norm = LogNorm(*ends) if axis.log else Normalize(*ends)
    smooth: Any = ScalarMappable(
        norm, LinearSegmentedColormap.from_list("shown", colour_sequence(9))
    )
    return lambda value: smooth.to_rgba(axis.position(value)), smooth


def draw_colour_bar(figure: Any, axes: Any, axis: Axis | None, smooth: Any) -> None:
    """Adds a colour bar of an axis to a figure; does nothing if `axis` or `smooth` is None."""
    if axis and smooth:
        bar = figure.colorbar(smooth, ax=axes, label=escaped_mathtext(axis.name), shrink=0.6)
        bar.outline.set_visible(False)


def colour_map(lower: bool) -> Any:
    """Returns a matplotlib colour map: light for high values, or for low ones if `lower`."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("metric", colour_scale(lower))
