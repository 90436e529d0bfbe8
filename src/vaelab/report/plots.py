"""The page's interactive plots, as plotly.js figures in plain dictionaries.

Plotly's own classes are not used, since their checks take milliseconds for each of some thousand
curves; the tests check these dictionaries with them.
"""

import base64
import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from vaelab.report import views
from vaelab.report.colours import (
    INK,
    LINES,
    PALE,
    QUIET,
    colour_scale,
    colour_sequence,
    with_opacity,
)
from vaelab.report.curves import Curves, menu_order, thinned
from vaelab.report.differences import value_text
from vaelab.report.summary import Ranking
from vaelab.report.sweep import Sweep
from vaelab.report.units import axis_title

Figure = dict[str, Any]
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star", "hexagon")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
POINTS = 200_000
"""Largest number of points of all curves together, which bounds the size of the page."""
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


def setting_axis(axis: views.Axis, **changes: Any) -> dict[str, Any]:
    """Returns the layout of a setting's axis, with ticks at its values if few or no numbers."""
    found = number_axis(axis.name, **changes)
    if axis.log:
        found |= {"type": "log", "dtick": 1}
    if not axis.numeric:
        found |= {"range": [-0.5, len(axis.levels) - 0.5]}
    if not axis.numeric or len(axis.levels) <= MANY:
        found |= {"tickvals": axis.marks[0], "ticktext": escaped_texts(axis.marks[1])}
    return found


def colour_bar(axis: views.Axis) -> dict[str, Any]:
    """Returns marker entries for colours by a setting: a stepped bar, smooth for many values."""
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


def colour_value(axis: views.Axis, value: object) -> float:
    """Returns the number that colours a value of a setting on `colour_bar`."""
    return (
        colour_bar_place(axis, axis.position(value))
        if len(axis.levels) > MANY
        else axis.level_index(value)
    )


def colour_bar_place(axis: views.Axis, place: float) -> float:
    """Returns a position on a smooth colour bar: its log10 if the axis is logarithmic."""
    return math.log10(place) if axis.log else place


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
    first = views.sweep_axis(sweep, sweep.axes[0]) if sweep.axes else None
    second = (
        views.sweep_axis(sweep, sweep.axes[1]) if len(sweep.axes) > 1 and sweep.is_grid else None
    )
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


def metric_plots(sweep: Sweep, ranking: Ranking) -> dict[str, Figure]:
    """Returns by metric a heat map, line or scatter plot over the first axes, if measured.

    Empty if no axis was swept.
    """
    found = {}
    for metric in views.available_metrics(sweep, ranking):
        view = views.metric_view(sweep, metric, ranking)
        if view is not None:
            draw = {"heat_map": heat_map_plot, "line": line_plot, "points": scatter_plot}[view.kind]
            found[metric] = draw(view)
    return found


def heat_map_plot(view: views.MetricView) -> Figure:
    """Returns a heat map of a metric's means over two settings, with the best cell framed."""
    assert view.y is not None
    places = views.decimal_places(view.mean, view.sd)
    cells, notes = [], []
    for row, column in np.ndindex(*view.mean.shape):
        mean, sd, n = view.mean[row, column], view.sd[row, column], view.n[row, column]
        text = f"{mean:.{places}f}" if np.isfinite(mean) else ""
        spread = f" ± {sd:.{places}f}" if np.isfinite(sd) else ""
        cells.append(f"{text}<br>{spread}" if spread and view.mean.shape[1] <= MANY else text)
        where = f"{view.x.name} {view.x.labels[column]}, {view.y.name} {view.y.labels[row]}"
        notes.append(f"{escaped_html(where)}<br>{text}{spread}, {n} {'run' if n == 1 else 'runs'}")
    trace = {
        "type": "heatmap",
        "z": [json_numbers(row) for row in view.mean],
        "text": split_into_rows(cells, view.mean.shape[1]),
        "texttemplate": "%{text}",
        "customdata": split_into_rows(notes, view.mean.shape[1]),
        "hovertemplate": "%{customdata}<extra></extra>",
        "hoverongaps": False,
        "colorscale": colour_scale(view.lower),
        "colorbar": metric_colour_bar(view.metric),
        "xgap": 2,
        "ygap": 2,
    }
    across = number_axis(view.x.name, **category_ticks(view.x), showgrid=False)
    upwards = number_axis(view.y.name, **category_ticks(view.y), showgrid=False)
    shapes = []
    if (best := view.best_cell()) is not None:
        low, left = best[0] - 0.5, best[1] - 0.5
        edges = {"x0": left, "x1": left + 1, "y0": low, "y1": low + 1}
        shapes.append({"type": "rect", **edges, "line": {"color": INK, "width": 2.5}})
    height = int(np.clip(140 + 62 * len(view.y.levels), 300, 900))
    return {
        "data": [trace],
        "layout": plot_layout(height, xaxis=across, yaxis=upwards, shapes=shapes),
    }


def metric_colour_bar(metric: str) -> dict[str, Any]:
    """Returns the layout of the colour bar of a metric."""
    title = {"text": escaped_html(axis_title(metric)), "side": "right"}
    return {"thickness": 14, "outlinewidth": 0, "title": title}


def category_ticks(axis: views.Axis) -> dict[str, Any]:
    """Returns axis entries that space the values of a setting equally."""
    return {
        "tickvals": [*range(len(axis.levels))],
        "ticktext": escaped_texts(axis.labels),
        "ticks": "",
    }


def line_plot(view: views.MetricView) -> Figure:
    """Returns a plot of a metric's means over one setting, with standard deviations if any."""
    places = views.decimal_places(view.mean, view.sd)
    trace: dict[str, Any] = {
        "type": "scatter",
        "mode": "lines+markers" if view.x.numeric else "markers",
        "x": json_numbers(view.x.position(value) for value in view.x.levels),
        "y": json_numbers(view.mean),
        "line": {"color": colour_sequence(1)[0], "width": 2},
        "marker": {"color": colour_sequence(1)[0], "size": 9},
        "text": [
            f"{escaped_html(f'{view.x.name} {label}')}<br>{mean:.{places}f}"
            + (f" ± {sd:.{places}f}" if np.isfinite(sd) else "")
            + f", {n} {'run' if n == 1 else 'runs'}"
            for label, mean, sd, n in zip(view.x.labels, view.mean, view.sd, view.n, strict=True)
        ],
        "hovertemplate": "%{text}<extra></extra>",
    }
    if np.isfinite(view.sd).any():
        trace["error_y"] = {"array": json_numbers(view.sd), "thickness": 1.5, "width": 5}
    axes = {"xaxis": setting_axis(view.x), "yaxis": number_axis(axis_title(view.metric))}
    return {"data": [trace], "layout": plot_layout(420, **axes)}


def scatter_plot(view: views.MetricView) -> Figure:
    """Returns a plot with a point per measured run over two settings, coloured by the metric."""
    assert view.y is not None
    known = [i for i, value in enumerate(view.mean) if np.isfinite(value)]
    places = views.decimal_places(view.mean, view.sd)
    trace = {
        "type": "scatter",
        "mode": "markers",
        "x": json_numbers(view.x.position(view.x.column.iloc[i]) for i in known),
        "y": json_numbers(view.y.position(view.y.column.iloc[i]) for i in known),
        "marker": {
            "size": 11,
            "color": [float(view.mean[i]) for i in known],
            "colorscale": colour_scale(view.lower),
            "showscale": True,
            "colorbar": metric_colour_bar(view.metric),
            "line": {"color": QUIET, "width": 0.5},
        },
        "text": [
            f"{escaped_html(f'{view.x.name} {value_text(view.x.column.iloc[i])}')}, "
            f"{escaped_html(f'{view.y.name} {value_text(view.y.column.iloc[i])}')}"
            f"<br>{view.mean[i]:.{places}f}"
            for i in known
        ],
        "hovertemplate": "%{text}<extra></extra>",
    }
    axes = {"xaxis": setting_axis(view.x), "yaxis": setting_axis(view.y)}
    return {"data": [trace], "layout": plot_layout(480, **axes)}


def active_units_plot(sweep: Sweep) -> Figure | None:
    """Returns the plot of active latents by their number or the first axis; None without data."""
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
    """Returns a trace of the active latents for one level of the other axis."""
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


def active_units_points(view: views.ActiveUnits, other: views.Axis) -> Figure:
    """Returns a trace of the active latents, coloured by an axis of many levels."""
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


def curve_plots(sweep: Sweep, ranking: Ranking, read: dict[int, Curves]) -> dict[str, Figure]:
    """Returns a plot of mean training curves for each tag, by tag; long curves are thinned."""
    found = views.curve_settings(sweep, ranking, sorted(read))
    tags = menu_order([*dict.fromkeys(tag for run in read.values() for tag in run)])
    limit = int(np.clip(POINTS / max(len(found) * len(tags), 1), 40, 300))
    title = ", ".join(sweep.names[name] for name in sweep.axes)
    return {tag: curve_plot(views.mean_curves(found, read, tag), tag, title, limit) for tag in tags}


def curve_plot(lines: Sequence[views.MeanCurve], tag: str, title: str, limit: int) -> Figure:
    """Returns the plot of one tag: a thinned mean curve per setting, in a band of one deviation.

    Args:
        lines: The mean curves.
        tag: The metric, for the title.
        title: The title of the legend.
        limit: Largest number of points of a curve.
    """
    traces: list[Figure] = []
    for one in lines:
        setting, table = one.setting, thinned(one.table, limit)
        colour, steps = setting.colour, table.index.to_numpy("int32")
        shared = {
            "type": "scatter",
            "mode": "lines",
            "legendgroup": str(setting.runs[0]),
            "visible": True if setting.visible else "legendonly",
        }
        band = table[table["sd"].notna()]
        if len(band) > 1:
            x = band.index.to_numpy("int32")
            edge = (band["mean"] + band["sd"]).to_numpy(), (band["mean"] - band["sd"]).to_numpy()
            traces.append(
                shared
                | {
                    "x": packed_array(np.concatenate([x, x[::-1]])),
                    "y": packed_array(np.concatenate([edge[0], edge[1][::-1]]).astype("float32")),
                    "fill": "toself",
                    "fillcolor": with_opacity(colour, 0.15),
                    "line": {"width": 0},
                    "hoverinfo": "skip",
                    "showlegend": False,
                }
            )
        dash = DASHES[setting.dash % len(DASHES)]
        traces.append(
            shared
            | {
                "x": packed_array(steps),
                "y": packed_array(table["mean"].to_numpy("float32")),
                "line": {"color": colour, "width": 1.8, "dash": dash},
                "name": escaped_html(views.shortened(setting.label, 44)),
                "hovertemplate": f"{escaped_html(setting.label)}<br>"
                "step %{x}: %{y:.4g}<extra></extra>",
            }
        )
    drawn = plot_layout(
        520,
        xaxis=number_axis("optimizer steps"),
        yaxis=number_axis(axis_title(tag)),
        showlegend=True,
        legend=LEGEND | {"title": {"text": escaped_html(views.shortened(title, 50))}},
    )
    return {"data": traces, "layout": drawn}


def packed_array(values: np.ndarray) -> dict[str, str]:
    """Returns a plotly.js array of base64 from int32 or float32; KeyError for another type.

    That is a third of the size of its digits.
    """
    kind = {"int32": "i4", "float32": "f4"}[values.dtype.name]
    return {"dtype": kind, "bdata": base64.b64encode(values.tobytes()).decode()}


def json_numbers(values: Any) -> list[float | None]:
    """Returns numbers as a list in which infinite and NaN ones, unknown to JSON, are None."""
    return [float(value) if np.isfinite(value) else None for value in values]


def split_into_rows(values: Sequence[str], columns: int) -> list[list[str]]:
    """Returns a list split into rows of `columns` values; the last row may be shorter."""
    return [list(values[i : i + columns]) for i in range(0, len(values), columns)]


def escaped_texts(values: Sequence[str]) -> list[str]:
    """Returns texts with `&`, `<` and `>` escaped for HTML."""
    return [escaped_html(value) for value in values]


def escaped_html(text: str) -> str:
    """Returns a text with `&`, `<`, `>` escaped, since plotly.js reads HTML in labels."""
    return html.escape(str(text), quote=False)
