"""The report's plots as PNG figures by matplotlib, for papers and slides."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vaelab.files.atomic import atomic_file, make_folder
from vaelab.report import views
from vaelab.report.axes import shortened, sweep_axis
from vaelab.report.colours import (
    INK,
    PALE,
    QUIET,
    colour_sequence,
    is_dark,
    palette_colour,
)
from vaelab.report.decimals import decimal_places
from vaelab.report.matplotlib_axes import (
    MANY,
    blank_figure,
    colour_map,
    draw_colour_bar,
    escaped_mathtext,
    label_axis,
    level_colours,
)
from vaelab.report.mean_curves import MeanCurve
from vaelab.report.summary import Ranking, main_metrics
from vaelab.report.sweep import Sweep
from vaelab.report.units import axis_title

MARKERS = ("o", "s", "D", "^", "P", "X", "*", "h")
DASHES = ("-", "--", ":", "-.")


def write_figures(
    sweep: Sweep, ranking: Ranking, means: Mapping[str, Sequence[MeanCurve]], to: Path
) -> list[Path]:
    """Draws the sweep's figures, writes them as PNG files and returns their paths.

    Args:
        sweep: The sweep.
        ranking: The metric by which runs are ranked.
        means: Mean training curves, by tag.
        to: The folder, created if it is missing.
    """
    make_folder(to)
    paths = []
    for name, figure in draw_figures(sweep, ranking, means):
        paths.append(to / f"{name}.png")
        with atomic_file(paths[-1]) as file:
            figure.savefig(file, format="png")
    return paths


def draw_figures(
    sweep: Sweep, ranking: Ranking, means: Mapping[str, Sequence[MeanCurve]]
) -> Iterator[tuple[str, Any]]:
    """Yields name and matplotlib figure of each plot with data; of metrics only the main ones.

    Curves are of `val/elbo`.
    """
    if (points := views.rate_distortion_view(sweep)) is not None:
        yield "rate_distortion", draw_rate_distortion(sweep, points)
    known = views.available_metrics(sweep, ranking)
    for metric in [name for name in main_metrics(sweep, ranking) if name in known]:
        if (field := views.metric_view(sweep, metric, ranking)) is not None:
            draw = {"heat_map": draw_heat_map, "line": draw_line, "points": draw_points}[field.kind]
            yield field.file_stem, draw(field)
    if (units := views.active_units_view(sweep)) is not None:
        yield "active_units", draw_active_units(units)
    if lines := means.get("val/elbo"):
        title = ", ".join(sweep.names[name] for name in sweep.axes)
        yield "curves", draw_curves(lines, title)


def draw_rate_distortion(sweep: Sweep, view: views.RateDistortion) -> Any:
    """Returns the rate-distortion figure: runs, mean curves and lines of constant D + R."""
    figure, axes = blank_figure(7, 6)
    axes.set(xlabel="rate R, nats per image", ylabel="distortion D, nats per image")
    first = sweep_axis(sweep, sweep.axes[0]) if sweep.axes else None
    second = sweep_axis(sweep, sweep.axes[1]) if len(sweep.axes) > 1 and sweep.is_grid else None
    shade, smooth = level_colours(first)
    for path in view.lines:
        axes.plot(path["R"], path["D"], color=QUIET, linewidth=0.9, zorder=2)
    points = view.points.assign(
        colour=[shade(v) for v in view.points[sweep.axes[0]]] if first else colour_sequence(1)[0],
        level=[second.level_index(v) for v in view.points[sweep.axes[1]]] if second else 0,
    )
    style: dict[str, Any] = {"edgecolors": "white", "linewidths": 0.6, "zorder": 3}
    for level, part in points.groupby("level"):
        style["marker"] = MARKERS[level % len(MARKERS)]
        axes.scatter(part["R"], part["D"], s=42, c=list(part["colour"]), **style)
    limits = axes.get_xlim(), axes.get_ylim()
    for constant in view.contour_values():
        axes.axline((0, constant), slope=-1, color=PALE, linewidth=0.8, zorder=1)
    label = f"D + R = {view.least:.1f} nats"
    axes.axline((0, view.least), slope=-1, color=INK, linestyle="--", linewidth=1.2, label=label)
    axes.set(xlim=limits[0], ylim=limits[1])
    if view.has_equal_scale:
        axes.set_aspect("equal")
    axes.grid(False)
    if first and not smooth:
        for value, label in zip(first.levels, first.labels, strict=True):
            axes.scatter(
                [], [], color=shade(value), label=escaped_mathtext(f"{first.name} {label}")
            )
    if second and len(second.levels) <= MANY:
        for level, label in enumerate(second.labels):
            marker = MARKERS[level % len(MARKERS)]
            name = escaped_mathtext(f"{second.name} {label}")
            axes.scatter([], [], color=QUIET, marker=marker, label=name)
    figure.legend(loc="outside right upper", frameon=False)
    draw_colour_bar(figure, axes, first, smooth)
    return figure


def draw_heat_map(view: views.MetricView) -> Any:
    """Returns a metric's heat map over two settings; means as text for up to MANY columns."""
    assert view.y is not None
    rows, columns = view.mean.shape
    width, height = np.clip([2.6 + 0.95 * columns, 1.6 + 0.6 * rows], [4.5, 2.6], [16, 12])
    figure, axes = blank_figure(float(width), float(height))
    axes.grid(False)
    image = axes.imshow(
        view.mean, cmap=colour_map(view.better == "lower"), aspect="auto", origin="lower"
    )
    places = decimal_places(view.mean, view.sd)
    known = view.mean[np.isfinite(view.mean)]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    for row, column in np.ndindex(rows, columns):
        mean, sd = float(view.mean[row, column]), float(view.sd[row, column])
        if np.isfinite(mean) and columns <= MANY:
            place = (mean - low) / (high - low) if high > low else 0.5
            dark = is_dark(palette_colour(1 - place if view.better == "lower" else place))
            text = f"{mean:.{places}f}" + (f"\n± {sd:.{places}f}" if np.isfinite(sd) else "")
            colour = "white" if dark else INK
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
    axes.set_xticks(range(columns), [escaped_mathtext(label) for label in view.x.labels])
    axes.set_yticks(range(rows), [escaped_mathtext(label) for label in view.y.labels])
    axes.set(
        xlabel=escaped_mathtext(view.x.name),
        ylabel=escaped_mathtext(view.y.name),
        title=escaped_mathtext(axis_title(view.metric)),
    )
    figure.colorbar(image, ax=axes).outline.set_visible(False)
    return figure


def draw_line(view: views.MetricView) -> Any:
    """Returns the figure of a metric's means over one setting, with standard deviations."""
    figure, axes = blank_figure()
    x = [view.x.position(value) for value in view.x.levels]
    style: dict[str, Any] = {"color": colour_sequence(1)[0], "marker": "o", "capsize": 3}
    errors = view.sd if np.isfinite(view.sd).any() else None
    axes.errorbar(x, view.mean, errors, linestyle="-" if view.x.numeric else "", **style)
    label_axis(axes, "x", view.x)
    axes.set_ylabel(escaped_mathtext(axis_title(view.metric)))
    return figure


def draw_points(view: views.MetricView) -> Any:
    """Returns the figure of measured runs as points over two settings, coloured by the metric."""
    assert view.y is not None
    figure, axes = blank_figure()
    x, y = ([a.position(value) for value in a.column] for a in (view.x, view.y))
    shape = axes.scatter(
        x, y, s=36, c=view.mean, cmap=colour_map(view.better == "lower"), plotnonfinite=False
    )
    shape.set_edgecolor(QUIET)
    shape.set_linewidth(0.4)
    label_axis(axes, "x", view.x)
    label_axis(axes, "y", view.y)
    figure.colorbar(
        shape, ax=axes, label=escaped_mathtext(axis_title(view.metric))
    ).outline.set_visible(False)
    return figure


def draw_active_units(view: views.ActiveUnits) -> Any:
    """Returns the figure of active units over `view.x`, which is latent_dim or the first axis."""
    figure, axes = blank_figure()
    shade, smooth = level_colours(view.other)
    if view.available:
        places, counts = zip(*view.available, strict=True)
        axes.plot(places, counts, "--", color=INK, linewidth=1.2, label="all latents")
    for part in view.lines:
        level = int(part["level"].iloc[0])
        style: dict[str, Any] = {"marker": "o", "capsize": 3, "color": colour_sequence(1)[0]}
        style["linestyle"] = "-" if view.x.numeric and len(part) > 1 else ""
        if view.other:
            style["color"] = shade(view.other.levels[level])
            if not smooth:
                style["label"] = escaped_mathtext(f"{view.other.name} {view.other.labels[level]}")
        errors = part["sd"] if part["sd"].notna().any() else None
        axes.errorbar(part["x"], part["mean"], errors, **style)
    label_axis(axes, "x", view.x)
    axes.set_ylabel(axis_title("active_units"))
    axes.set_ylim(bottom=0)
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside right upper", frameon=False)
    draw_colour_bar(figure, axes, view.other, smooth)
    return figure


def draw_curves(lines: Sequence[MeanCurve], title: str) -> Any:
    """Returns the figure of the mean `val/elbo` curves of those settings that are visible."""
    figure, axes = blank_figure(8.5, 5)
    visible = [one for one in lines if one.setting.visible]
    for one in visible:
        table, colour = one.table, one.setting.colour
        dash = DASHES[one.setting.dash % len(DASHES)]
        label = escaped_mathtext(shortened(one.setting.label, 40))
        axes.plot(table.index, table["mean"], dash, color=colour, linewidth=1.3, label=label)
        low, high = table["mean"] - table["sd"], table["mean"] + table["sd"]
        axes.fill_between(table.index, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.set(xlabel="optimizer steps", ylabel=axis_title("val/elbo"))
    columns = math.ceil(len(visible) / 24)
    style: dict[str, Any] = {
        "frameon": False,
        "title": escaped_mathtext(shortened(title, 44)) or None,
        "ncols": columns,
    }
    figure.legend(loc="outside right upper", **style)
    return figure
