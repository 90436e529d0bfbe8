"""The page's interactive plots, as figures of plotly.js in plain dictionaries.

Not built with plotly's classes, which check each of some thousand curves for milliseconds; the
tests check these dictionaries with them.
"""

import base64
import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from vaelab.report import views
from vaelab.report.colours import INK, LINES, PALE, QUIET, faded, scale, sequence
from vaelab.report.curves import Curves, ordered, thinned
from vaelab.report.differences import shown
from vaelab.report.summary import Ranking
from vaelab.report.sweep import Sweep
from vaelab.report.units import titled

Figure = dict[str, Any]
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star", "hexagon")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
POINTS = 200_000
"""Of all curves together, so that the page stays small."""
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', Arial, sans-serif"
MANY = 12
LEGEND = {"itemwidth": 40, "tracegroupgap": 0}


def layout(height: int = 480, **changes: Any) -> dict[str, Any]:
    return {
        "height": height,
        "margin": {"l": 64, "r": 16, "t": 34, "b": 52},
        "font": {"family": FONT, "size": 13, "color": INK},
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "hoverlabel": {"bgcolor": "white", "font": {"color": INK}, "align": "left"},
        "legend": LEGEND,
    } | changes


def ruler(title: str, **changes: Any) -> dict[str, Any]:
    """An axis of numbers."""
    return {
        "title": {"text": safe(title), "standoff": 10},
        "gridcolor": LINES,
        "linecolor": QUIET,
        "zeroline": False,
        "ticks": "outside",
        "tickcolor": LINES,
        "automargin": True,
    } | changes


def setting_ruler(axis: views.Axis, **changes: Any) -> dict[str, Any]:
    """An axis of a setting's values, marked where there are values."""
    found = ruler(axis.name, **changes)
    if axis.log:
        found |= {"type": "log", "dtick": 1}
    if not axis.numeric:
        found |= {"range": [-0.5, len(axis.levels) - 0.5]}
    if not axis.numeric or len(axis.levels) <= MANY:
        found |= {"tickvals": axis.marks[0], "ticktext": texts(axis.marks[1])}
    return found


def colour_bar(axis: views.Axis) -> dict[str, Any]:
    """The levels of an axis as steps of a colour bar, or its numbers as a smooth one."""
    title = {"text": safe(axis.name), "side": "top"}
    bar: dict[str, Any] = {"title": title, "thickness": 14, "len": 0.6, "y": 0, "yanchor": "bottom"}
    count = len(axis.levels)
    if count > MANY:
        places = [smooth(axis, place) for place in axis.marks[0]]
        low, high = min(places), max(places)
        stops = [(i / 8, colour) for i, colour in enumerate(sequence(9))]
        if axis.log:
            powers = range(math.ceil(low), math.floor(high) + 1)
            bar |= {"tickvals": [*powers], "ticktext": [f"{10.0**p:g}" for p in powers]}
        return {"cmin": low, "cmax": high, "colorscale": stops, "colorbar": bar}
    stops = []
    for i, colour in enumerate(sequence(count)):
        stops += [(i / count, colour), ((i + 1) / count, colour)]
    bar |= {"tickvals": [*range(count)], "ticktext": texts(axis.labels), "ticks": ""}
    return {"cmin": -0.5, "cmax": count - 0.5, "colorscale": stops, "colorbar": bar}


def colour_value(axis: views.Axis, value: object) -> float:
    return smooth(axis, axis.place(value)) if len(axis.levels) > MANY else axis.level(value)


def smooth(axis: views.Axis, place: float) -> float:
    """A place on a smooth colour bar."""
    return math.log10(place) if axis.log else place


def rate_distortion(sweep: Sweep) -> Figure | None:
    """A point for each run, means over seeds, and lines of D + R = const."""
    view = views.rate_distortion(sweep)
    if view is None:
        return None
    points, traces = view.points, []
    low, high = float(points["R"].min()), float(points["R"].max())
    room = max(high - low, 1.0)
    ends = [max(low - 0.3 * room, 0.0), high + 3 * room]
    hidden = {"showlegend": False, "hoverinfo": "skip"}
    pale = {"color": PALE, "width": 1}
    traces += [constant_line(constant, ends, pale) | hidden for constant in view.constants()]
    name = f"D + R = {view.least:.1f} nats"
    dashed = {"color": INK, "width": 1.5, "dash": "dash"}
    traces.append({**constant_line(view.least, ends, dashed), "name": name, "hoverinfo": "name"})
    first = views.axis(sweep, sweep.axes[0]) if sweep.axes else None
    second = views.axis(sweep, sweep.axes[1]) if len(sweep.axes) > 1 and sweep.is_grid else None
    traces += [
        hidden
        | {
            "type": "scatter",
            "mode": "lines",
            "x": clean(path["R"]),
            "y": clean(path["D"]),
            "line": {"color": QUIET, "width": 1.2},
            "legendgroup": str(path["level"].iloc[0]),
        }
        for path in view.lines
    ]
    groups = [*range(len(second.levels))] if second else [0]
    marked = [second.level(v) for v in points[sweep.axes[1]]] if second else [0] * len(points)
    for level in groups:
        part = points[[m == level for m in marked]]
        marker: dict[str, Any] = {
            "size": 10,
            "symbol": SYMBOLS[level % len(SYMBOLS)],
            "line": {"color": "white", "width": 1},
            "color": sequence(1)[0],
        }
        if first:
            values = [colour_value(first, v) for v in part[sweep.axes[0]]]
            marker |= {"color": clean(values), "showscale": level == 0} | colour_bar(first)
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": clean(part["R"]),
                "y": clean(part["D"]),
                "marker": marker,
                "legendgroup": str(level),
                "showlegend": False,
                "text": [
                    f"{safe(row['folder'])}<br>rate {row['R']:.2f}, distortion {row['D']:.2f}, "
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
                    "name": safe(f"{second.name} {second.labels[level]}"),
                }
            )
    down, up = float(points["D"].min()), float(points["D"].max())
    tall = max(up - down, 1.0)
    right = high + 0.08 * room
    across = ruler("rate R, nats per image", range=[low - 0.08 * room, right], showgrid=False)
    upwards = ruler("distortion D, nats per image", showgrid=False)
    bottom = down - 0.1 * tall
    upwards["range"] = [bottom, up + 0.1 * tall]
    if view.equal:
        upwards |= {"scaleanchor": "x", "scaleratio": 1, "constraintoward": "bottom"}
        across["constraintoward"] = "left"  # there are no rates below zero
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
        for constant in view.constants()
        if constant - right < up
    ]
    drawn = layout(580, xaxis=across, yaxis=upwards, annotations=notes, showlegend=True)
    return {"data": traces, "layout": drawn}


def constant_line(constant: float, ends: Sequence[float], line: Mapping[str, Any]) -> Figure:
    """D = constant - R between two rates."""
    return {
        "type": "scatter",
        "mode": "lines",
        "x": list(ends),
        "y": [constant - rate for rate in ends],
        "line": dict(line),
    }


def fields(sweep: Sweep, ranking: Ranking) -> dict[str, Figure]:
    """For each metric: a heat map, a line or points on the first axes."""
    found = {}
    for metric in views.metrics(sweep, ranking):
        view = views.field(sweep, metric, ranking)
        if view is not None:
            draw = {"heat_map": heat_map, "line": line, "points": searched}[view.kind]
            found[metric] = draw(view)
    return found


def heat_map(view: views.Field) -> Figure:
    assert view.y is not None
    places = views.decimals(view.mean, view.sd)
    cells, notes = [], []
    for row, column in np.ndindex(*view.mean.shape):
        mean, sd, n = view.mean[row, column], view.sd[row, column], view.n[row, column]
        text = f"{mean:.{places}f}" if np.isfinite(mean) else ""
        spread = f" ± {sd:.{places}f}" if np.isfinite(sd) else ""
        cells.append(f"{text}<br>{spread}" if spread and view.mean.shape[1] <= MANY else text)
        where = f"{view.x.name} {view.x.labels[column]}, {view.y.name} {view.y.labels[row]}"
        notes.append(f"{safe(where)}<br>{text}{spread}, {n} {'run' if n == 1 else 'runs'}")
    trace = {
        "type": "heatmap",
        "z": [clean(row) for row in view.mean],
        "text": folded(cells, view.mean.shape[1]),
        "texttemplate": "%{text}",
        "customdata": folded(notes, view.mean.shape[1]),
        "hovertemplate": "%{customdata}<extra></extra>",
        "hoverongaps": False,
        "colorscale": scale(view.lower),
        "colorbar": metric_bar(view.metric),
        "xgap": 2,
        "ygap": 2,
    }
    across = ruler(view.x.name, **categories(view.x), showgrid=False)
    upwards = ruler(view.y.name, **categories(view.y), showgrid=False)
    shapes = []
    if (best := view.best()) is not None:
        low, left = best[0] - 0.5, best[1] - 0.5
        edges = {"x0": left, "x1": left + 1, "y0": low, "y1": low + 1}
        shapes.append({"type": "rect", **edges, "line": {"color": INK, "width": 2.5}})
    height = int(np.clip(140 + 62 * len(view.y.levels), 300, 900))
    return {
        "data": [trace],
        "layout": layout(height, xaxis=across, yaxis=upwards, shapes=shapes),
    }


def metric_bar(metric: str) -> dict[str, Any]:
    """The colour bar of a metric."""
    title = {"text": safe(titled(metric)), "side": "right"}
    return {"thickness": 14, "outlinewidth": 0, "title": title}


def categories(axis: views.Axis) -> dict[str, Any]:
    """Cells of the same size, whatever the distances of the values."""
    return {"tickvals": [*range(len(axis.levels))], "ticktext": texts(axis.labels), "ticks": ""}


def line(view: views.Field) -> Figure:
    places = views.decimals(view.mean, view.sd)
    trace: dict[str, Any] = {
        "type": "scatter",
        "mode": "lines+markers" if view.x.numeric else "markers",
        "x": clean(view.x.place(value) for value in view.x.levels),
        "y": clean(view.mean),
        "line": {"color": sequence(1)[0], "width": 2},
        "marker": {"color": sequence(1)[0], "size": 9},
        "text": [
            f"{safe(f'{view.x.name} {label}')}<br>{mean:.{places}f}"
            + (f" ± {sd:.{places}f}" if np.isfinite(sd) else "")
            + f", {n} {'run' if n == 1 else 'runs'}"
            for label, mean, sd, n in zip(view.x.labels, view.mean, view.sd, view.n, strict=True)
        ],
        "hovertemplate": "%{text}<extra></extra>",
    }
    if np.isfinite(view.sd).any():
        trace["error_y"] = {"array": clean(view.sd), "thickness": 1.5, "width": 5}
    axes = {"xaxis": setting_ruler(view.x), "yaxis": ruler(titled(view.metric))}
    return {"data": [trace], "layout": layout(420, **axes)}


def searched(view: views.Field) -> Figure:
    """Runs as points, coloured by the metric."""
    assert view.y is not None
    known = [i for i, value in enumerate(view.mean) if np.isfinite(value)]
    places = views.decimals(view.mean, view.sd)
    trace = {
        "type": "scatter",
        "mode": "markers",
        "x": clean(view.x.place(view.x.column.iloc[i]) for i in known),
        "y": clean(view.y.place(view.y.column.iloc[i]) for i in known),
        "marker": {
            "size": 11,
            "color": [float(view.mean[i]) for i in known],
            "colorscale": scale(view.lower),
            "showscale": True,
            "colorbar": metric_bar(view.metric),
            "line": {"color": QUIET, "width": 0.5},
        },
        "text": [
            f"{safe(f'{view.x.name} {shown(view.x.column.iloc[i])}')}, "
            f"{safe(f'{view.y.name} {shown(view.y.column.iloc[i])}')}"
            f"<br>{view.mean[i]:.{places}f}"
            for i in known
        ],
        "hovertemplate": "%{text}<extra></extra>",
    }
    axes = {"xaxis": setting_ruler(view.x), "yaxis": setting_ruler(view.y)}
    return {"data": [trace], "layout": layout(480, **axes)}


def active_units(sweep: Sweep) -> Figure | None:
    view = views.active_units(sweep)
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
        traces.append(coloured_units(view, view.other))
    else:
        traces += [line_of_units(view, part) for part in view.lines]
    axes = {
        "xaxis": setting_ruler(view.x),
        "yaxis": ruler(titled("active_units"), rangemode="tozero"),
    }
    return {"data": traces, "layout": layout(420, showlegend=True, **axes)}


def line_of_units(view: views.ActiveUnits, part: pd.DataFrame) -> Figure:
    """Active units of one level of the other axis."""
    level = int(part["level"].iloc[0])
    colour = sequence(len(view.other.levels) if view.other else 1)[level]
    trace: dict[str, Any] = {
        "type": "scatter",
        "mode": "lines+markers" if view.x.numeric and len(part) > 1 else "markers",
        "x": clean(part["x"]),
        "y": clean(part["mean"]),
        "line": {"color": colour, "width": 2},
        "marker": {"color": colour, "size": 9},
        "showlegend": view.other is not None,
        "hovertemplate": f"{safe(view.x.name)} %{{x}}: %{{y:.3g}} active<extra></extra>",
    }
    if view.other:
        trace["name"] = safe(f"{view.other.name} {view.other.labels[level]}")
    if part["sd"].notna().any():
        trace["error_y"] = {"array": clean(part["sd"]), "thickness": 1.5, "width": 5}
    return trace


def coloured_units(view: views.ActiveUnits, other: views.Axis) -> Figure:
    """Active units as points, coloured by an axis of many levels."""
    points = pd.concat(view.lines)
    values = [colour_value(other, other.levels[level]) for level in points["level"]]
    line = {"color": "white", "width": 1}
    return {
        "type": "scatter",
        "mode": "markers",
        "x": clean(points["x"]),
        "y": clean(points["mean"]),
        "marker": {"size": 10, "color": clean(values), "line": line} | colour_bar(other),
        "showlegend": False,
        "hovertemplate": f"{safe(view.x.name)} %{{x}}: %{{y:.3g}} active<extra></extra>",
    }


def curves(sweep: Sweep, ranking: Ranking, read: dict[int, Curves]) -> dict[str, Figure]:
    """For each tag: a line for each setting, with a band of a standard deviation over seeds."""
    found = views.settings(sweep, ranking, sorted(read))
    tags = ordered([*dict.fromkeys(tag for run in read.values() for tag in run)])
    limit = int(np.clip(POINTS / max(len(found) * len(tags), 1), 40, 300))
    title = ", ".join(sweep.names[name] for name in sweep.axes)
    return {tag: curve(views.lines(found, read, tag), tag, title, limit) for tag in tags}


def curve(lines: Sequence[views.Line], tag: str, title: str, limit: int) -> Figure:
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
                    "x": packed(np.concatenate([x, x[::-1]])),
                    "y": packed(np.concatenate([edge[0], edge[1][::-1]]).astype("float32")),
                    "fill": "toself",
                    "fillcolor": faded(colour, 0.15),
                    "line": {"width": 0},
                    "hoverinfo": "skip",
                    "showlegend": False,
                }
            )
        dash = DASHES[setting.dash % len(DASHES)]
        traces.append(
            shared
            | {
                "x": packed(steps),
                "y": packed(table["mean"].to_numpy("float32")),
                "line": {"color": colour, "width": 1.8, "dash": dash},
                "name": safe(views.brief(setting.label, 44)),
                "hovertemplate": f"{safe(setting.label)}<br>step %{{x}}: %{{y:.4g}}<extra></extra>",
            }
        )
    drawn = layout(
        520,
        xaxis=ruler("optimizer steps"),
        yaxis=ruler(titled(tag)),
        showlegend=True,
        legend=LEGEND | {"title": {"text": safe(views.brief(title, 50))}},
    )
    return {"data": traces, "layout": drawn}


def packed(values: np.ndarray) -> dict[str, str]:
    """An array as plotly.js reads it from bytes: a third of the size of its digits."""
    kind = {"int32": "i4", "float32": "f4"}[values.dtype.name]
    return {"dtype": kind, "bdata": base64.b64encode(values.tobytes()).decode()}


def clean(values: Any) -> list[float | None]:
    """Numbers as JSON has them, which knows none that are infinite or not a number."""
    return [float(value) if np.isfinite(value) else None for value in values]


def folded(values: Sequence[str], columns: int) -> list[list[str]]:
    return [list(values[i : i + columns]) for i in range(0, len(values), columns)]


def texts(values: Sequence[str]) -> list[str]:
    return [safe(value) for value in values]


def safe(text: str) -> str:
    """A text that plotly.js, which reads some HTML in labels, shows as it is."""
    return html.escape(str(text), quote=False)
