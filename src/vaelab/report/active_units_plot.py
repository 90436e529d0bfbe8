"""The page's plot of the number of active latents."""

from typing import Any

import pandas as pd

from vaelab.report import views
from vaelab.report.axes import Axis
from vaelab.report.colours import (
    INK,
    colour_sequence,
)
from vaelab.report.plotly_layout import (
    MANY,
    Figure,
    colour_bar,
    colour_value,
    number_axis,
    plot_layout,
    setting_axis,
)
from vaelab.report.plotly_values import escaped_html, json_numbers
from vaelab.report.sweep import Sweep
from vaelab.report.units import axis_title


def active_units_plot(sweep: Sweep) -> Figure | None:
    """Returns the plot of active units by latent_dim or first axis; None without axis or data."""
    view = views.active_units_view(sweep)
    if view is None:
        return None
    traces: list[Figure] = []
    if view.available:
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "x": [place for place, _ in view.available],
                "y": [count for _, count in view.available],
                "line": {"color": INK, "width": 1.5, "dash": "dash"},
                "name": "all latents",
                "hoverinfo": "skip",
            }
        )
    if view.other and len(view.other.levels) > MANY:
        traces.append(active_units_points(view, view.other))
    else:
        traces += [active_units_line(view, part) for part in view.lines]
    axes = {
        "xaxis": setting_axis(view.x),
        "yaxis": number_axis(axis_title("active_units"), rangemode="tozero"),
    }
    return {"data": traces, "layout": plot_layout(420, showlegend=True, **axes)}


def active_units_line(view: views.ActiveUnits, part: pd.DataFrame) -> Figure:
    """Returns a trace of `part`: active units ± sd at one level of the axis `view.other`."""
    level = int(part["level"].iloc[0])
    colour = colour_sequence(len(view.other.levels) if view.other else 1)[level]
    trace: dict[str, Any] = {
        "type": "scatter",
        "mode": "lines+markers" if view.x.numeric and len(part) > 1 else "markers",
        "x": json_numbers(part["x"]),
        "y": json_numbers(part["mean"]),
        "line": {"color": colour, "width": 2},
        "marker": {"color": colour, "size": 9},
        "showlegend": view.other is not None,
        "hovertemplate": f"{escaped_html(view.x.name)} %{{x}}: %{{y:.3g}} active<extra></extra>",
    }
    if view.other:
        trace["name"] = escaped_html(f"{view.other.name} {view.other.labels[level]}")
    if part["sd"].notna().any():
        trace["error_y"] = {"array": json_numbers(part["sd"]), "thickness": 1.5, "width": 5}
    return trace


def active_units_points(view: views.ActiveUnits, other: Axis) -> Figure:
    """Returns a trace of active units as points without sd, coloured by an axis of many levels."""
    points = pd.concat(view.lines)
    values = [colour_value(other, other.levels[level]) for level in points["level"]]
    line = {"color": "white", "width": 1}
    return {
        "type": "scatter",
        "mode": "markers",
        "x": json_numbers(points["x"]),
        "y": json_numbers(points["mean"]),
        "marker": {"size": 10, "color": json_numbers(values), "line": line} | colour_bar(other),
        "showlegend": False,
        "hovertemplate": f"{escaped_html(view.x.name)} %{{x}}: %{{y:.3g}} active<extra></extra>",
    }
