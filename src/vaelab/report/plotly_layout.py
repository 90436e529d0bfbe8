"""Layouts, axes and colour bars of the page's plots, as plotly.js reads them.

Plotly's own classes are not used, since their checks take milliseconds for each of some thousand
curves; the tests check these dictionaries with them.
"""

import math
from typing import Any

from vaelab.report.axes import Axis
from vaelab.report.colours import (
    INK,
    LINES,
    QUIET,
    colour_sequence,
)
from vaelab.report.plotly_values import escaped_html, escaped_texts

Figure = dict[str, Any]
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', Arial, sans-serif"
MANY = 12
LEGEND = {"itemwidth": 40, "tracegroupgap": 0}


def plot_layout(height: int = 480, **changes: Any) -> dict[str, Any]:
    """Returns the layout of a plot of this height in pixels, with changed or added entries."""
    return {
        "height": height,
        "margin": {"l": 64, "r": 16, "t": 34, "b": 52},
        "font": {"family": FONT, "size": 13, "color": INK},
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "hoverlabel": {"bgcolor": "white", "font": {"color": INK}, "align": "left"},
        "legend": LEGEND,
    } | changes


def number_axis(title: str, **changes: Any) -> dict[str, Any]:
    """Returns the layout of an axis of numbers with a title, with changed or added entries."""
    return {
        "title": {"text": escaped_html(title), "standoff": 10},
        "gridcolor": LINES,
        "linecolor": QUIET,
        "zeroline": False,
        "ticks": "outside",
        "tickcolor": LINES,
        "automargin": True,
    } | changes


def setting_axis(axis: Axis, **changes: Any) -> dict[str, Any]:
    """Returns the layout of a setting's axis, maybe log; ticks at levels if few or not numeric."""
    found = number_axis(axis.name, **changes)
    if axis.log:
        found |= {"type": "log", "dtick": 1}
    if not axis.numeric:
        found |= {"range": [-0.5, len(axis.levels) - 0.5]}
    if not axis.numeric or len(axis.levels) <= MANY:
        found |= {"tickvals": axis.marks[0], "ticktext": escaped_texts(axis.marks[1])}
    return found


def colour_bar(axis: Axis) -> dict[str, Any]:
    """Returns `marker` entries but `color`: a stepped colour bar, smooth if over MANY levels."""
    title = {"text": escaped_html(axis.name), "side": "top"}
    bar: dict[str, Any] = {"title": title, "thickness": 14, "len": 0.6, "y": 0, "yanchor": "bottom"}
    count = len(axis.levels)
    if count > MANY:
        places = [colour_bar_place(axis, place) for place in axis.marks[0]]
        low, high = min(places), max(places)
        stops = [(i / 8, colour) for i, colour in enumerate(colour_sequence(9))]
        if axis.log:
            powers = range(math.ceil(low), math.floor(high) + 1)
            bar |= {"tickvals": [*powers], "ticktext": [f"{10.0**p:g}" for p in powers]}
        return {"cmin": low, "cmax": high, "colorscale": stops, "colorbar": bar}
    stops = []
    for i, colour in enumerate(colour_sequence(count)):
        stops += [(i / count, colour), ((i + 1) / count, colour)]
    bar |= {"tickvals": [*range(count)], "ticktext": escaped_texts(axis.labels), "ticks": ""}
    return {"cmin": -0.5, "cmax": count - 0.5, "colorscale": stops, "colorbar": bar}


def colour_value(axis: Axis, value: object) -> float:
    """Returns the coordinate of a value on `colour_bar`: level index, or position if over MANY."""
    return (
        colour_bar_place(axis, axis.position(value))
        if len(axis.levels) > MANY
        else axis.level_index(value)
    )


def colour_bar_place(axis: Axis, place: float) -> float:
    """Returns log10 of an axis position if the axis is logarithmic, else the position itself."""
    return math.log10(place) if axis.log else place


def category_ticks(axis: Axis) -> dict[str, Any]:
    """Returns axis entries that space the values of a setting equally."""
    return {
        "tickvals": [*range(len(axis.levels))],
        "ticktext": escaped_texts(axis.labels),
        "ticks": "",
    }
