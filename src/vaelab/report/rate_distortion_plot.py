"""The page's plot of runs by rate and distortion."""

from collections.abc import Mapping, Sequence
from typing import Any

from vaelab.report import views
from vaelab.report.axes import sweep_axis
from vaelab.report.colours import (
    INK,
    PALE,
    QUIET,
    colour_sequence,
)
from vaelab.report.plotly_layout import Figure, colour_bar, colour_value, number_axis, plot_layout
from vaelab.report.plotly_values import escaped_html, json_numbers
from vaelab.report.sweep import Sweep

SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star", "hexagon")


def rate_distortion_plot(sweep: Sweep) -> Figure | None:
    """Returns the plot of runs by rate and distortion; None if no finished run has both.

    Lines of constant D + R lie behind the points.
    """
    view = views.rate_distortion_view(sweep)
    if view is None:
        return None
    points, traces = view.points, []
    low, high = float(points["R"].min()), float(points["R"].max())
    room = max(high - low, 1.0)
    ends = [max(low - 0.3 * room, 0.0), high + 3 * room]
    hidden = {"showlegend": False, "hoverinfo": "skip"}
    pale = {"color": PALE, "width": 1}
    traces += [constant_line(constant, ends, pale) | hidden for constant in view.contour_values()]
    name = f"D + R = {view.least:.1f} nats"
    dashed = {"color": INK, "width": 1.5, "dash": "dash"}
    traces.append({**constant_line(view.least, ends, dashed), "name": name, "hoverinfo": "name"})
    first = sweep_axis(sweep, sweep.axes[0]) if sweep.axes else None
    second = sweep_axis(sweep, sweep.axes[1]) if len(sweep.axes) > 1 and sweep.is_grid else None
    traces += [
        hidden
        | {
            "type": "scatter",
            "mode": "lines",
            "x": json_numbers(path["R"]),
            "y": json_numbers(path["D"]),
            "line": {"color": QUIET, "width": 1.2},
            "legendgroup": str(path["level"].iloc[0]),
        }
        for path in view.lines
    ]
    groups = [*range(len(second.levels))] if second else [0]
    marked = [second.level_index(v) for v in points[sweep.axes[1]]] if second else [0] * len(points)
    for level in groups:
        part = points[[m == level for m in marked]]
        marker: dict[str, Any] = {
            "size": 10,
            "symbol": SYMBOLS[level % len(SYMBOLS)],
            "line": {"color": "white", "width": 1},
            "color": colour_sequence(1)[0],
        }
        if first:
            values = [colour_value(first, v) for v in part[sweep.axes[0]]]
            marker |= {"color": json_numbers(values), "showscale": level == 0} | colour_bar(first)
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": json_numbers(part["R"]),
                "y": json_numbers(part["D"]),
                "marker": marker,
                "legendgroup": str(level),
                "showlegend": False,
                "text": [
                    f"{escaped_html(row['folder'])}<br>rate {row['R']:.2f}, "
                    f"distortion {row['D']:.2f}, "
                    f"-ELBO {row['R'] + row['D']:.2f} nats"
                    for _, row in part.iterrows()
                ],
                "hovertemplate": "%{text}<extra></extra>",
            }
        )
        if second:
            traces.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "x": [None],
                    "y": [None],
                    "marker": {"size": 10, "color": QUIET, "symbol": marker["symbol"]},
                    "legendgroup": str(level),
                    "name": escaped_html(f"{second.name} {second.labels[level]}"),
                }
            )
    down, up = float(points["D"].min()), float(points["D"].max())
    tall = max(up - down, 1.0)
    right = high + 0.08 * room
    across = number_axis("rate R, nats per image", range=[low - 0.08 * room, right], showgrid=False)
    upwards = number_axis("distortion D, nats per image", showgrid=False)
    bottom = down - 0.1 * tall
    upwards["range"] = [bottom, up + 0.1 * tall]
    if view.has_equal_scale:
        upwards |= {"scaleanchor": "x", "scaleratio": 1, "constraintoward": "bottom"}
        across["constraintoward"] = "left"  # rates are never negative
    notes = [
        {
            "x": min(right, constant - bottom),
            "y": max(constant - right, bottom),
            "text": f"{constant:g}",
            "font": {"size": 11, "color": QUIET},
            "showarrow": False,
            "xanchor": "right",
            "yshift": 8,
        }
        for constant in view.contour_values()
        if constant - right < up
    ]
    drawn = plot_layout(580, xaxis=across, yaxis=upwards, annotations=notes, showlegend=True)
    return {"data": traces, "layout": drawn}


def constant_line(constant: float, ends: Sequence[float], line: Mapping[str, Any]) -> Figure:
    """Returns a trace of the line D = constant - R between two rates."""
    return {
        "type": "scatter",
        "mode": "lines",
        "x": list(ends),
        "y": [constant - rate for rate in ends],
        "line": dict(line),
    }
