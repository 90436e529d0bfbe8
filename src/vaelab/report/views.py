"""The data of each plot but curves, shared by the page's plots and the PNG figures."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from vaelab.report.axes import Axis, sweep_axis
from vaelab.report.differences import is_numeric, levels
from vaelab.report.directions import Direction, better_direction
from vaelab.report.summary import (
    Ranking,
    finite_or_nan,
    means_over,
    measured_columns,
    setting_numbers,
)
from vaelab.report.sweep import LATENT_DIM, Sweep


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
        better: `lower` or `higher` is better, or `none`.
    """

    metric: str
    kind: str
    x: Axis
    y: Axis | None
    mean: np.ndarray
    sd: np.ndarray
    n: np.ndarray
    others: list[str]
    better: Direction

    @property
    def file_stem(self) -> str:
        """The file name of its PNG figure, without the extension."""
        return f"{self.kind}_{self.metric.replace('/', '_')}"

    def best_cell(self) -> tuple[int, ...] | None:
        """Returns the index into `mean` of its best value; None if there is none."""
        if self.better == "none" or not np.isfinite(self.mean).any():
            return None
        found = np.nanargmin(self.mean) if self.better == "lower" else np.nanargmax(self.mean)
        return tuple(int(i) for i in np.unravel_index(found, self.mean.shape))


def metric_view(sweep: Sweep, metric: str, ranking: Ranking) -> MetricView | None:
    """Returns a metric's means over up to two axes, or a search's values; None without axes."""
    if not sweep.axes:
        return None
    better = ranking.better if metric == ranking.metric else better_direction(metric)
    x = sweep_axis(sweep, sweep.axes[0])
    y = sweep_axis(sweep, sweep.axes[1]) if len(sweep.axes) > 1 else None
    others = [sweep.names[name] for name in sweep.axes[2:]]
    if y and not sweep.is_grid:
        values = finite_or_nan(sweep.jobs[metric]).to_numpy()
        nothing = np.full(len(values), np.nan)
        count = np.isfinite(values).astype(int)
        return MetricView(metric, "points", x, y, values, nothing, count, [], better)
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
    return MetricView(metric, "heat_map" if y else "line", x, y, mean, sd, n, others, better)


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


def available_metrics(sweep: Sweep, ranking: Ranking) -> list[str]:
    """Returns the metrics with a finite value in a finished run, that of the ranking first."""
    names = dict.fromkeys([ranking.metric, *sorted(measured_columns(sweep), key=metric_stage)])
    return [n for n in names if n in sweep.done and finite_or_nan(sweep.done[n]).notna().any()]


def metric_stage(metric: str) -> int:
    """Returns a sort key for menus: validation, test, evaluation, then other metrics."""
    order = ("val", "test", "")
    group = metric.rpartition("/")[0]
    return order.index(group) if group in order else len(order)
