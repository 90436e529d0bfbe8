"""The page's plots of mean training curves."""

from collections.abc import Mapping, Sequence

import numpy as np

from vaelab.report.axes import shortened
from vaelab.report.colours import (
    with_opacity,
)
from vaelab.report.curves import menu_order, thinned
from vaelab.report.mean_curves import MeanCurve
from vaelab.report.plotly_layout import LEGEND, Figure, number_axis, plot_layout
from vaelab.report.plotly_values import escaped_html, packed_array
from vaelab.report.sweep import Sweep
from vaelab.report.units import axis_title

DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
POINTS = 200_000
"""Largest number of points of all curves together, which bounds the size of the page."""


def curve_plots(sweep: Sweep, means: Mapping[str, Sequence[MeanCurve]]) -> dict[str, Figure]:
    """Returns a plot of mean training curves for each tag, by tag; long curves are thinned."""
    lines = sum(map(len, means.values()))
    limit = int(np.clip(POINTS / max(lines, 1), 40, 300))
    title = ", ".join(sweep.names[name] for name in sweep.axes)
    return {tag: curve_plot(means[tag], tag, title, limit) for tag in menu_order([*means])}


def curve_plot(lines: Sequence[MeanCurve], tag: str, title: str, limit: int) -> Figure:
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
                "name": escaped_html(shortened(setting.label, 44)),
                "hovertemplate": f"{escaped_html(setting.label)}<br>"
                "step %{x}: %{y:.4g}<extra></extra>",
            }
        )
    drawn = plot_layout(
        520,
        xaxis=number_axis("optimizer steps"),
        yaxis=number_axis(axis_title(tag)),
        showlegend=True,
        legend=LEGEND | {"title": {"text": escaped_html(shortened(title, 50))}},
    )
    return {"data": traces, "layout": drawn}
