"""The data of each plot, shared by the page's plots and the PNG figures."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from vaelab.report import curves
from vaelab.report.colours import colour_sequence
from vaelab.report.differences import is_numeric, level_labels, levels, short_names, value_text
from vaelab.report.summary import (
    Ranking,
    finite_or_nan,
    is_lower_better,
    means_over,
    measured_columns,
    setting_numbers,
)
from vaelab.report.sweep import LATENT_DIM, Sweep

WIDE = 50
"""Ratio of largest to smallest value from which an axis is logarithmic."""


@dataclass(frozen=True)
class Axis:
    """A swept setting as an axis of a plot, or as its colours.

    Attributes:
        name: Name on the page.
        column: Its values, by job.
    """

    name: str
    column: pd.Series

    @cached_property
    def levels(self) -> list:
        """Distinct values: numbers sorted, others as they appear; None last if some lack one."""
        return levels(self.column)

    @cached_property
    def labels(self) -> list[str]:
        """The levels as short texts, cut to 28 letters."""
        return [shortened(label, 28) for label in level_labels(self.levels)]

    @property
    def numeric(self) -> bool:
        """True if the values are numbers."""
        return is_numeric(self.column)

    @cached_property
    def numbers(self) -> list[float]:
        """The levels that are numbers, sorted."""
        return [float(level) for level in self.levels if self.numeric and level is not None]

    @property
    def log(self) -> bool:
        """True if a logarithmic axis fits better: three or more positive levels, far apart."""
        known = self.numbers
        return len(known) > 2 and known[0] > 0 and known[-1] / known[0] >= WIDE

    def position(self, value: object) -> float:
        """Returns where a value lies on the axis: a number, NaN if missing; or its level index."""
        if not self.numeric:
            return float(self.level_index(value))
        return math.nan if pd.isna(value) else float(value)  # type: ignore[arg-type]

    def level_index(self, value: object) -> int:
        """Returns the index of a value among the levels."""
        return self.levels.index(None if pd.isna(value) else value)

    @property
    def marks(self) -> tuple[list[float], list[str]]:
        """The positions and labels of the levels, without a missing number."""
        places = [self.position(level) for level in self.levels]
        known = [i for i, place in enumerate(places) if not math.isnan(place)]
        return [places[i] for i in known], [self.labels[i] for i in known]


def shortened(text: str, most: int) -> str:
    """Returns a text cut to at most `most` letters, with dots if it was longer."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


def sweep_axis(sweep: Sweep, column: str) -> Axis:
    """Returns the axis of a column of the sweep's jobs."""
    return Axis(sweep.names.get(column) or short_names([column])[column], sweep.jobs[column])


@dataclass(frozen=True)
class RateDistortion:
    """Rates R and distortions D of test images, in nats per image.

    Attributes:
        points: The finished runs: the columns of the jobs, and `R` and `D`.
        lines: Means over seeds along the first axis, `R` and `D`, for each combination of the other
            settings, with `level`, the level index on the second axis.
        least: The smallest D + R of a run: minus the best ELBO.
    """

    points: pd.DataFrame
    lines: list[pd.DataFrame]
    least: float

    def contour_values(self) -> list[float]:
        """Returns round values of D + R above the least, for lines behind points; may be empty."""
        worst = float((self.points["R"] + self.points["D"]).max())
        step = round_step((worst - self.least) / 4)
        if not step:
            return []
        first = math.floor(self.least / step + 0.5) + 1  # at least half a step above the least one
        return [step * i for i in range(first, math.ceil(worst / step) + 1)]

    @property
    def has_equal_scale(self) -> bool:
        """True if both axes can have one scale, so that D + R = const falls at 45 degrees."""
        rates, distortions = (float(np.ptp(self.points[name])) for name in ("R", "D"))
        return 0 < distortions / 2 < rates < 3 * distortions


def rate_distortion_view(sweep: Sweep) -> RateDistortion | None:
    """Returns rates and distortions of finished runs; None if no run has both."""
    for prefix in ("test/", ""):
        names = [f"{prefix}rate", f"{prefix}distortion"]
        if all(name in sweep.metrics for name in names):
            break
    else:
        return None
    points = sweep.done.assign(
        R=finite_or_nan(sweep.done[names[0]]), D=finite_or_nan(sweep.done[names[1]])
    )
    points = points.dropna(subset=["R", "D"])
    if points.empty:
        return None
    lines = []
    if sweep.axes and sweep.is_grid and is_numeric(sweep.jobs[sweep.axes[0]]):
        along, *others = sweep.axes
        means = means_over(points, sweep.axes, ["R", "D"])
        path = means.settings.join(means.mean).dropna(subset=[along])
        second = sweep_axis(sweep, others[0]) if others else None
        for _, line in path.groupby(setting_numbers(path, others)):
            if len(line) > 1:
                level = second.level_index(line[others[0]].iloc[0]) if second else 0
                lines.append(line.sort_values(along).assign(level=level))
    return RateDistortion(points, lines, float((points["R"] + points["D"]).min()))


def round_step(step: float) -> float:
    """Rounds a step up to 1, 2 or 5 times a power of ten; returns 0 if infinite or not positive."""
    if not 0 < step < math.inf:
        return 0.0
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step * 0.999)


@dataclass(frozen=True)
class MetricView:
    """A metric over the first axes: a heat map of two, a line of one, or points of a search.

    Attributes:
        metric: Its name.
        kind: `heat_map`, `line` or `points`.
        x: The horizontal axis.
        y: The vertical axis of a heat map and of points, else None.
        mean: Means [rows, columns] or [columns], or the values [jobs] of points; NaN if missing.
        sd: Standard deviations, likewise; NaN if the means are over more than seeds.
        n: The number of runs in each mean.
        others: The axes, beside seeds, that means are over.
        lower: True if lower is better.
    """

    metric: str
    kind: str
    x: Axis
    y: Axis | None
    mean: np.ndarray
    sd: np.ndarray
    n: np.ndarray
    others: list[str]
    lower: bool

    @property
    def file_stem(self) -> str:
        """The file name of its PNG figure, without the extension."""
        return f"{self.kind}_{self.metric.replace('/', '_')}"

    def best_cell(self) -> tuple[int, ...] | None:
        """Returns the index of the best mean; None if there is none."""
        if not np.isfinite(self.mean).any():
            return None
        found = np.nanargmin(self.mean) if self.lower else np.nanargmax(self.mean)
        return tuple(int(i) for i in np.unravel_index(found, self.mean.shape))


def metric_view(sweep: Sweep, metric: str, ranking: Ranking) -> MetricView | None:
    """Returns a metric over the first one or two axes; None if no axis was swept."""
    if not sweep.axes:
        return None
    lower = ranking.lower if metric == ranking.metric else is_lower_better(metric)
    x = sweep_axis(sweep, sweep.axes[0])
    y = sweep_axis(sweep, sweep.axes[1]) if len(sweep.axes) > 1 else None
    others = [sweep.names[name] for name in sweep.axes[2:]]
    if y and not sweep.is_grid:
        values = finite_or_nan(sweep.jobs[metric]).to_numpy()
        nothing = np.full(len(values), np.nan)
        count = np.isfinite(values).astype(int)
        return MetricView(metric, "points", x, y, values, nothing, count, [], lower)
    names = sweep.axes[:2]
    means = means_over(sweep.jobs, names, [metric])
    shape = [len(a.levels) for a in (y, x) if a]
    mean, sd, n = np.full(shape, np.nan), np.full(shape, np.nan), np.zeros(shape, int)
    for at, row in enumerate(means.setting_rows()):
        place = tuple(
            a.level_index(row[name]) for a, name in zip((x, y), names, strict=False) if a
        )[::-1]
        mean[place] = means.mean.loc[at, metric]
        sd[place] = math.nan if others else means.sd.loc[at, metric]
        n[place] = means.n.loc[at, metric]
    return MetricView(metric, "heat_map" if y else "line", x, y, mean, sd, n, others, lower)


@dataclass(frozen=True)
class ActiveUnits:
    """Number of active latents, against the number of latents or the first axis.

    Attributes:
        x: The horizontal axis: the number of latents, if it was swept.
        lines: For each level of the other axis a table: `level`, `x`, `mean`, `sd`.
        other: The other axis, if any.
        available: (x, number of all latents); empty if runs differ in that without sweeping it.
    """

    x: Axis
    lines: list[pd.DataFrame]
    other: Axis | None
    available: list[tuple[float, float]]


def active_units_view(sweep: Sweep) -> ActiveUnits | None:
    """Returns the active latents of finished runs; None if not measured or nothing was swept."""
    found = [n for n in ("test/active_units", "active_units") if n in sweep.metrics]
    if not found or not sweep.axes:
        return None
    size = next((n for n in sweep.axes if n.rpartition(".")[2] == "latent_dim"), sweep.axes[0])
    rest = [name for name in sweep.axes if name != size][:1]
    means = means_over(sweep.done, [size, *rest], found[:1])
    x, other = sweep_axis(sweep, size), sweep_axis(sweep, rest[0]) if rest else None
    table = means.settings.assign(
        x=[x.position(value) for value in means.settings[size]],
        mean=means.mean[found[0]],
        sd=means.sd[found[0]] if len(sweep.axes) <= 2 else np.nan,
        level=[other.level_index(v) for v in means.settings[rest[0]]] if other else 0,
    ).dropna(subset=["x", "mean"])
    lines = [part.sort_values("x") for _, part in table.groupby("level")]
    if size.rpartition(".")[2] == "latent_dim" and x.numeric:
        available = [(place, place) for place in x.numbers]
    else:
        sizes = levels(sweep.jobs[LATENT_DIM].dropna())
        available = [(place, float(sizes[0])) for place in x.marks[0]] if len(sizes) == 1 else []
    return ActiveUnits(x, lines, other, available)


@dataclass(frozen=True)
class CurveSetting:
    """The runs of one setting, and name and look of their mean curve.

    Attributes:
        label: Values of the setting, as `4, 8`.
        runs: Rows of its runs among the jobs: finished ones, if there are any, else all.
        colour: Colour of the line.
        dash: Index of the line's dash pattern.
        visible: True if it is shown before anything is clicked.
    """

    label: str
    runs: list[int]
    colour: str
    dash: int
    visible: bool


def curve_settings(
    sweep: Sweep, ranking: Ranking, with_curves: Sequence[int]
) -> list[CurveSetting]:
    """Returns settings of these rows and their looks, in axis order or best first for a search."""
    jobs = sweep.jobs.loc[list(with_curves)]
    if jobs.empty:
        return []
    places = setting_numbers(jobs, sweep.settings)
    values = finite_or_nan(jobs[ranking.metric]) if ranking.metric in jobs else places * math.nan
    best = list(ranking.best_first(values.groupby(places).mean()).index)
    best += sorted(set(places) - set(best))
    dashed = sweep_axis(sweep, sweep.axes[1]) if len(sweep.axes) > 1 and sweep.is_grid else None
    order = sorted(best) if sweep.is_grid else best
    at_first = [place for place in order if place in best[:SHOWN] or len(best) <= 2 * SHOWN]
    later = [place for place in order if place not in at_first]
    colours = dict(zip(at_first, colour_sequence(len(at_first)), strict=True))
    colours |= zip(later, colour_sequence(len(later)), strict=True)
    found = []
    for place in order:
        group = jobs[places == place]
        finished = group[group["state"] == "done"]
        row = group.iloc[0]
        label = ", ".join(value_text(row[name]) for name in sweep.axes) or "all runs"
        dash = dashed.level_index(row[sweep.axes[1]]) if dashed else 0
        runs = list(finished.index if len(finished) else group.index)
        found.append(CurveSetting(label, runs, colours[place], dash, place in at_first))
    return found


SHOWN = 12
"""Number of curves shown at first, if there are more than twice as many."""


def available_metrics(sweep: Sweep, ranking: Ranking) -> list[str]:
    """Returns the metrics with a finite value in a finished run, that of the ranking first."""
    names = dict.fromkeys([ranking.metric, *sorted(measured_columns(sweep), key=metric_stage)])
    return [n for n in names if n in sweep.done and finite_or_nan(sweep.done[n]).notna().any()]


def metric_stage(metric: str) -> int:
    """Returns a sort key for menus: validation, test, evaluation, then other metrics."""
    order = ("val", "test", "")
    group = metric.rpartition("/")[0]
    return order.index(group) if group in order else len(order)


@dataclass(frozen=True)
class MeanCurve:
    """The mean curve of a setting over its seeds, with a row for each step."""

    setting: CurveSetting
    table: pd.DataFrame


def mean_curves(
    found: Sequence[CurveSetting], read: dict[int, curves.Curves], tag: str
) -> list[MeanCurve]:
    """Returns the mean curve of a tag for each setting; skips settings without that tag."""
    result = []
    for setting in found:
        runs = [read[run][tag] for run in setting.runs if tag in read.get(run, {})]
        if runs:
            result.append(MeanCurve(setting, curves.mean_curve(runs)))
    return result


def decimal_places(
    values: Sequence[float] | np.ndarray, deviations: Sequence[float] | np.ndarray
) -> int:
    """Returns how many decimals to show: two digits of the median deviation, or about four.

    Whole numbers get none, or one if they have deviations; at most five.
    """
    spread = np.asarray(deviations, float)
    spread = spread[np.isfinite(spread) & (spread > 0)]
    numbers = np.abs(np.asarray(values, float))
    numbers = numbers[np.isfinite(numbers)]
    if not len(numbers) or (numbers == numbers.round()).all():
        return 0 if not len(spread) else 1
    if len(spread):
        typical = float(np.median(spread)) * (1 + 1e-9)  # else rounding gives 0.1 three decimals
        return int(np.clip(1 - math.floor(math.log10(typical)), 0, 5))
    digits = 3 - math.floor(math.log10(max(numbers.max(), 1e-9)))
    return int(np.clip(digits, 2 if digits > -1 else 0, 5))
