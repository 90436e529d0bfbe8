"""The page's plots of a metric over swept settings: heat map, line and scatter plot."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from vaelab.report import views
from vaelab.report.colours import (
    INK,
    QUIET,
    colour_scale,
    colour_sequence,
)
from vaelab.report.decimals import decimal_places
from vaelab.report.differences import value_text
from vaelab.report.plotly_layout import (
    MANY,
    Figure,
    category_ticks,
    number_axis,
    plot_layout,
    setting_axis,
)
from vaelab.report.plotly_values import escaped_html, json_numbers
from vaelab.report.summary import Ranking
from vaelab.report.sweep import Sweep
from vaelab.report.units import axis_title


def metric_plots(sweep: Sweep, ranking: Ranking) -> dict[str, Figure]:
    """Returns plots over the first one or two axes, by measured metric; {} if nothing was swept.

    A plot is a heat map, a line or, for a search, a scatter plot.
    """
    found = {}
    for metric in views.available_metrics(sweep, ranking):
        view = views.metric_view(sweep, metric, ranking)
        if view is not None:
            draw = {"heat_map": heat_map_plot, "line": line_plot, "points": scatter_plot}[view.kind]
            found[metric] = draw(view)
    return found


def heat_map_plot(view: views.MetricView) -> Figure:
    """Returns a heat map of a metric's means over two settings; the best cell, if any, framed."""
    assert view.y is not None
    places = decimal_places(view.mean, view.sd)
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
        "colorscale": colour_scale(view.better == "lower"),
        "colorbar": metric_colour_bar(view),
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


def metric_colour_bar(view: views.MetricView) -> dict[str, Any]:
    """Returns the layout of a metric's colour bar, which says that light is better, if it is."""
    better = "" if view.better == "none" else "; light is better"
    title = {"text": escaped_html(axis_title(view.metric) + better), "side": "right"}
    return {"thickness": 14, "outlinewidth": 0, "title": title}


def line_plot(view: views.MetricView) -> Figure:
    """Returns a plot of a metric's means over one setting, with standard deviations if any."""
    places = decimal_places(view.mean, view.sd)
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
    places = decimal_places(view.mean, view.sd)
    trace = {
        "type": "scatter",
        "mode": "markers",
        "x": json_numbers(view.x.position(view.x.column.iloc[i]) for i in known),
        "y": json_numbers(view.y.position(view.y.column.iloc[i]) for i in known),
        "marker": {
            "size": 11,
            "color": [float(view.mean[i]) for i in known],
            "colorscale": colour_scale(view.better == "lower"),
            "showscale": True,
            "colorbar": metric_colour_bar(view),
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


def split_into_rows(values: Sequence[str], columns: int) -> list[list[str]]:
    """Returns a list split into rows of `columns` values; the last row may be shorter."""
    return [list(values[i : i + columns]) for i in range(0, len(values), columns)]
