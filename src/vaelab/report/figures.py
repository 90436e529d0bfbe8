"""The same plots as PNG figures, for papers and slides."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vaelab.report import views
from vaelab.report.colours import INK, LINES, PALE, QUIET, between, is_dark, scale, sequence
from vaelab.report.curves import Curves
from vaelab.report.summary import Ranking, main
from vaelab.report.sweep import Sweep
from vaelab.report.units import titled

MARKERS = ("o", "s", "D", "^", "P", "X", "*", "h")
DASHES = ("-", "--", ":", "-.")
MANY = 12


def write(sweep: Sweep, ranking: Ranking, read: dict[int, Curves], to: Path) -> list[Path]:
    """Writes the figures that the sweep has, and returns their paths.

    Args:
        sweep: The sweep.
        ranking: What the best is best at.
        read: The curves of the jobs that have any, by their row.
        to: The folder.
    """
    to.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, figure in drawn(sweep, ranking, read):
        paths.append(to / f"{name}.png")
        figure.savefig(paths[-1])
    return paths


def drawn(sweep: Sweep, ranking: Ranking, read: dict[int, Curves]) -> Iterator[tuple[str, Any]]:
    """Each figure with its name."""
    if (points := views.rate_distortion(sweep)) is not None:
        yield "rate_distortion", rate_distortion(sweep, points)
    known = views.metrics(sweep, ranking)
    for metric in [name for name in main(sweep, ranking) if name in known]:
        if (field := views.field(sweep, metric, ranking)) is not None:
            draw = {"heat_map": heat_map, "line": line, "points": searched}[field.kind]
            yield field.file, draw(field)
    if (units := views.active_units(sweep)) is not None:
        yield "active_units", active_units(units)
    settings = views.settings(sweep, ranking, sorted(read))
    if lines := views.lines(settings, read, "val/elbo"):
        title = ", ".join(sweep.names[name] for name in sweep.axes)
        yield "curves", curves(lines, title)


def blank(width: float = 7.0, height: float = 5.0) -> tuple[Any, Any]:
    """A figure and its axes, in inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(QUIET)
    axes.tick_params(colors=INK)
    axes.grid(color=LINES, linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def plain(text: str) -> str:
    """A text in which matplotlib reads no formula."""
    return text.replace("$", r"\$")


def mark(axes: Any, side: str, axis: views.Axis) -> None:
    """Names an axis of settings and marks their values."""
    getattr(axes, f"set_{side}label")(plain(axis.name))
    if axis.log:
        getattr(axes, f"set_{side}scale")("log")
    if len(axis.levels) <= MANY or not axis.numeric:
        places, labels = axis.marks
        getattr(axes, f"set_{side}ticks")(places, [plain(label) for label in labels], minor=False)
        getattr(axes, f"{side}axis").minorticks_off()


def shades(axis: views.Axis | None) -> Any:
    """A function from a value of an axis to its colour; with many levels a `scale` for a bar."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, LogNorm, Normalize

    if axis is None or len(axis.levels) <= MANY:
        colours = sequence(len(axis.levels) if axis else 1)
        return lambda value: colours[axis.level(value) if axis else 0], None
    ends = min(axis.marks[0]), max(axis.marks[0])
    norm = LogNorm(*ends) if axis.log else Normalize(*ends)
    smooth: Any = ScalarMappable(norm, LinearSegmentedColormap.from_list("shown", sequence(9)))
    return lambda value: smooth.to_rgba(axis.place(value)), smooth


def rate_distortion(sweep: Sweep, view: views.RateDistortion) -> Any:
    figure, axes = blank(7, 6)
    axes.set(xlabel="rate R, nats per image", ylabel="distortion D, nats per image")
    first = views.axis(sweep, sweep.axes[0]) if sweep.axes else None
    second = views.axis(sweep, sweep.axes[1]) if len(sweep.axes) > 1 and sweep.is_grid else None
    shade, smooth = shades(first)
    for path in view.lines:
        axes.plot(path["R"], path["D"], color=QUIET, linewidth=0.9, zorder=2)
    points = view.points.assign(
        colour=[shade(v) for v in view.points[sweep.axes[0]]] if first else sequence(1)[0],
        level=[second.level(v) for v in view.points[sweep.axes[1]]] if second else 0,
    )
    style: dict[str, Any] = {"edgecolors": "white", "linewidths": 0.6, "zorder": 3}
    for level, part in points.groupby("level"):
        style["marker"] = MARKERS[level % len(MARKERS)]
        axes.scatter(part["R"], part["D"], s=42, c=list(part["colour"]), **style)
    limits = axes.get_xlim(), axes.get_ylim()
    for constant in view.constants():
        axes.axline((0, constant), slope=-1, color=PALE, linewidth=0.8, zorder=1)
    label = f"D + R = {view.least:.1f} nats"
    axes.axline((0, view.least), slope=-1, color=INK, linestyle="--", linewidth=1.2, label=label)
    axes.set(xlim=limits[0], ylim=limits[1])
    if view.equal:
        axes.set_aspect("equal")
    axes.grid(False)
    if first and not smooth:
        for value, label in zip(first.levels, first.labels, strict=True):
            axes.scatter([], [], color=shade(value), label=plain(f"{first.name} {label}"))
    if second and len(second.levels) <= MANY:
        for level, label in enumerate(second.labels):
            marker = MARKERS[level % len(MARKERS)]
            name = plain(f"{second.name} {label}")
            axes.scatter([], [], color=QUIET, marker=marker, label=name)
    figure.legend(loc="outside right upper", frameon=False)
    show_scale(figure, axes, first, smooth)
    return figure


def show_scale(figure: Any, axes: Any, axis: views.Axis | None, smooth: Any) -> None:
    """A colour bar for an axis of many levels."""
    if axis and smooth:
        bar = figure.colorbar(smooth, ax=axes, label=plain(axis.name), shrink=0.6)
        bar.outline.set_visible(False)


def heat_map(view: views.Field) -> Any:
    assert view.y is not None
    rows, columns = view.mean.shape
    width, height = np.clip([2.6 + 0.95 * columns, 1.6 + 0.6 * rows], [4.5, 2.6], [16, 12])
    figure, axes = blank(float(width), float(height))
    axes.grid(False)
    image = axes.imshow(view.mean, cmap=colour_map(view.lower), aspect="auto", origin="lower")
    places = views.decimals(view.mean, view.sd)
    known = view.mean[np.isfinite(view.mean)]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    for row, column in np.ndindex(rows, columns):
        mean, sd = float(view.mean[row, column]), float(view.sd[row, column])
        if np.isfinite(mean) and columns <= MANY:
            place = (mean - low) / (high - low) if high > low else 0.5
            dark = is_dark(between(1 - place if view.lower else place))
            text = f"{mean:.{places}f}" + (f"\n± {sd:.{places}f}" if np.isfinite(sd) else "")
            colour = "white" if dark else INK
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
    axes.set_xticks(range(columns), [plain(label) for label in view.x.labels])
    axes.set_yticks(range(rows), [plain(label) for label in view.y.labels])
    axes.set(xlabel=plain(view.x.name), ylabel=plain(view.y.name), title=plain(titled(view.metric)))
    figure.colorbar(image, ax=axes).outline.set_visible(False)
    return figure


def colour_map(lower: bool) -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("better is light", scale(lower))


def line(view: views.Field) -> Any:
    figure, axes = blank()
    x = [view.x.place(value) for value in view.x.levels]
    style: dict[str, Any] = {"color": sequence(1)[0], "marker": "o", "capsize": 3}
    errors = view.sd if np.isfinite(view.sd).any() else None
    axes.errorbar(x, view.mean, errors, linestyle="-" if view.x.numeric else "", **style)
    mark(axes, "x", view.x)
    axes.set_ylabel(plain(titled(view.metric)))
    return figure


def searched(view: views.Field) -> Any:
    assert view.y is not None
    figure, axes = blank()
    x, y = ([a.place(value) for value in a.column] for a in (view.x, view.y))
    shape = axes.scatter(x, y, s=36, c=view.mean, cmap=colour_map(view.lower), plotnonfinite=False)
    shape.set_edgecolor(QUIET)
    shape.set_linewidth(0.4)
    mark(axes, "x", view.x)
    mark(axes, "y", view.y)
    figure.colorbar(shape, ax=axes, label=plain(titled(view.metric))).outline.set_visible(False)
    return figure


def active_units(view: views.ActiveUnits) -> Any:
    figure, axes = blank()
    shade, smooth = shades(view.other)
    if view.available:
        places, counts = zip(*view.available, strict=True)
        axes.plot(places, counts, "--", color=INK, linewidth=1.2, label="all latents")
    for part in view.lines:
        level = int(part["level"].iloc[0])
        style: dict[str, Any] = {"marker": "o", "capsize": 3, "color": sequence(1)[0]}
        style["linestyle"] = "-" if view.x.numeric and len(part) > 1 else ""
        if view.other:
            style["color"] = shade(view.other.levels[level])
            if not smooth:
                style["label"] = plain(f"{view.other.name} {view.other.labels[level]}")
        errors = part["sd"] if part["sd"].notna().any() else None
        axes.errorbar(part["x"], part["mean"], errors, **style)
    mark(axes, "x", view.x)
    axes.set_ylabel(titled("active_units"))
    axes.set_ylim(bottom=0)
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside right upper", frameon=False)
    show_scale(figure, axes, view.other, smooth)
    return figure


def curves(lines: Sequence[views.Line], title: str) -> Any:
    figure, axes = blank(8.5, 5)
    visible = [one for one in lines if one.setting.visible]
    for one in visible:
        table, colour = one.table, one.setting.colour
        dash = DASHES[one.setting.dash % len(DASHES)]
        label = plain(views.brief(one.setting.label, 40))
        axes.plot(table.index, table["mean"], dash, color=colour, linewidth=1.3, label=label)
        low, high = table["mean"] - table["sd"], table["mean"] + table["sd"]
        axes.fill_between(table.index, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.set(xlabel="optimizer steps", ylabel=titled("val/elbo"))
    columns = math.ceil(len(visible) / 24)
    style: dict[str, Any] = {
        "frameon": False,
        "title": plain(views.brief(title, 44)) or None,
        "ncols": columns,
    }
    figure.legend(loc="outside right upper", **style)
    return figure
