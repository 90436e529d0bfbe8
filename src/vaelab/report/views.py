"""What is to be seen, as numbers: shared by the page's plots and the PNG figures."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from vaelab.report import curves
from vaelab.report.colours import sequence
from vaelab.report.differences import is_numeric, labels, levels, short, shown
from vaelab.report.summary import Ranking, finite, grouped, is_lower, measured, over
from vaelab.report.sweep import LATENT_DIM, Sweep

WIDE = 50
"""An axis whose largest value is so many times its smallest is logarithmic."""


@dataclass(frozen=True)
class Axis:
    """A swept setting as an axis, or as colours.

    Attributes:
        name: As it is called on the page.
        column: Its values, by job.
    """

    name: str
    column: pd.Series

    @cached_property
    def levels(self) -> list:
        return levels(self.column)

    @cached_property
    def labels(self) -> list[str]:
        return [brief(label, 28) for label in labels(self.levels)]

    @property
    def numeric(self) -> bool:
        return is_numeric(self.column)

    @cached_property
    def numbers(self) -> list[float]:
        """The levels that are numbers, by size."""
        return [float(level) for level in self.levels if self.numeric and level is not None]

    @property
    def log(self) -> bool:
        """Whether it is better seen on a logarithmic axis."""
        known = self.numbers
        return len(known) > 2 and known[0] > 0 and known[-1] / known[0] >= WIDE

    def place(self, value: object) -> float:
        """Where a value is on an axis of numbers, NaN for none; else which level it is."""
        if not self.numeric:
            return float(self.level(value))
        return math.nan if pd.isna(value) else float(value)  # type: ignore[arg-type]

    def level(self, value: object) -> int:
        """Which level a value is."""
        return self.levels.index(None if pd.isna(value) else value)

    @property
    def marks(self) -> tuple[list[float], list[str]]:
        """Where the levels stand, and what they are called."""
        places = [self.place(level) for level in self.levels]
        known = [i for i, place in enumerate(places) if not math.isnan(place)]
        return [places[i] for i in known], [self.labels[i] for i in known]


def brief(text: str, most: int) -> str:
    """A text of at most so many letters."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


def axis(sweep: Sweep, column: str) -> Axis:
    return Axis(sweep.names.get(column) or short([column])[column], sweep.jobs[column])


@dataclass(frozen=True)
class RateDistortion:
    """Rate and distortion of test images, nats per image.

    Attributes:
        points: The finished runs: the columns of the jobs, and `R` and `D`.
        lines: Means over seeds along the first axis, `R` and `D`, for each of the other settings,
            with `level`, that of the second axis.
        least: The smallest D + R of a run: minus the best ELBO.
    """

    points: pd.DataFrame
    lines: list[pd.DataFrame]
    least: float

    def constants(self) -> list[float]:
        """Values of D + R above the least one, round, for lines behind the points."""
        worst = float((self.points["R"] + self.points["D"]).max())
        step = nice((worst - self.least) / 4)
        if not step:
            return []
        first = math.floor(self.least / step + 0.5) + 1  # away from the least one
        return [step * i for i in range(first, math.ceil(worst / step) + 1)]

    @property
    def equal(self) -> bool:
        """Whether both axes can have one scale, so that D + R = const falls at 45 degrees."""
        rates, distortions = (float(np.ptp(self.points[name])) for name in ("R", "D"))
        return 0 < distortions / 2 < rates < 3 * distortions


def rate_distortion(sweep: Sweep) -> RateDistortion | None:
    """None where no finished run has both."""
    for prefix in ("test/", ""):
        names = [f"{prefix}rate", f"{prefix}distortion"]
        if all(name in sweep.metrics for name in names):
            break
    else:
        return None
    points = sweep.done.assign(R=finite(sweep.done[names[0]]), D=finite(sweep.done[names[1]]))
    points = points.dropna(subset=["R", "D"])
    if points.empty:
        return None
    lines = []
    if sweep.axes and sweep.is_grid and is_numeric(sweep.jobs[sweep.axes[0]]):
        along, *others = sweep.axes
        means = over(points, sweep.axes, ["R", "D"])
        path = means.settings.join(means.mean).dropna(subset=[along])
        second = axis(sweep, others[0]) if others else None
        for _, line in path.groupby(grouped(path, others)):
            if len(line) > 1:
                level = second.level(line[others[0]].iloc[0]) if second else 0
                lines.append(line.sort_values(along).assign(level=level))
    return RateDistortion(points, lines, float((points["R"] + points["D"]).min()))


def nice(step: float) -> float:
    """The next 1, 2 or 5 times a power of ten."""
    if not 0 < step < math.inf:
        return 0.0
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step * 0.999)


@dataclass(frozen=True)
class Field:
    """A metric on the first axes: a heat map of two, a line of one, points of a search.

    Attributes:
        metric: Its name.
        kind: `heat_map`, `line` or `points`.
        x: The axis to the right.
        y: The axis upwards of a heat map and of points.
        mean: [rows, columns] or [columns], or the values of points; NaN where there is none.
        sd: The same of standard deviations; NaN where they are not over seeds alone.
        n: The number of runs in each mean.
        others: The axes that a mean is over, beside seeds.
        lower: Whether lower is better.
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
    def file(self) -> str:
        return f"{self.kind}_{self.metric.replace('/', '_')}"

    def best(self) -> tuple[int, ...] | None:
        """The place of the best mean."""
        if not np.isfinite(self.mean).any():
            return None
        found = np.nanargmin(self.mean) if self.lower else np.nanargmax(self.mean)
        return tuple(int(i) for i in np.unravel_index(found, self.mean.shape))


def field(sweep: Sweep, metric: str, ranking: Ranking) -> Field | None:
    """None where no axis has been swept."""
    if not sweep.axes:
        return None
    lower = ranking.lower if metric == ranking.metric else is_lower(metric)
    x = axis(sweep, sweep.axes[0])
    y = axis(sweep, sweep.axes[1]) if len(sweep.axes) > 1 else None
    others = [sweep.names[name] for name in sweep.axes[2:]]
    if y and not sweep.is_grid:
        values = finite(sweep.jobs[metric]).to_numpy()
        nothing = np.full(len(values), np.nan)
        count = np.isfinite(values).astype(int)
        return Field(metric, "points", x, y, values, nothing, count, [], lower)
    names = sweep.axes[:2]
    means = over(sweep.jobs, names, [metric])
    shape = [len(a.levels) for a in (y, x) if a]
    mean, sd, n = np.full(shape, np.nan), np.full(shape, np.nan), np.zeros(shape, int)
    for at, row in enumerate(means.rows()):
        place = tuple(a.level(row[name]) for a, name in zip((x, y), names, strict=False) if a)[::-1]
        mean[place] = means.mean.loc[at, metric]
        sd[place] = math.nan if others else means.sd.loc[at, metric]
        n[place] = means.n.loc[at, metric]
    return Field(metric, "heat_map" if y else "line", x, y, mean, sd, n, others, lower)


@dataclass(frozen=True)
class ActiveUnits:
    """Latents that are used, against how many there are.

    Attributes:
        x: The axis to the right: the number of latents, if it was swept.
        lines: For each level of the other axis: `level`, `x`, `mean`, `sd`.
        other: The other axis, if there is one.
        available: All latents, for each `x`; or one number where all runs have as many.
    """

    x: Axis
    lines: list[pd.DataFrame]
    other: Axis | None
    available: list[tuple[float, float]]


def active_units(sweep: Sweep) -> ActiveUnits | None:
    """None where it was not measured or no axis has been swept."""
    found = [n for n in ("test/active_units", "active_units") if n in sweep.metrics]
    if not found or not sweep.axes:
        return None
    size = next((n for n in sweep.axes if n.rpartition(".")[2] == "latent_dim"), sweep.axes[0])
    rest = [name for name in sweep.axes if name != size][:1]
    means = over(sweep.done, [size, *rest], found[:1])
    x, other = axis(sweep, size), axis(sweep, rest[0]) if rest else None
    table = means.settings.assign(
        x=[x.place(value) for value in means.settings[size]],
        mean=means.mean[found[0]],
        sd=means.sd[found[0]] if len(sweep.axes) <= 2 else np.nan,
        level=[other.level(v) for v in means.settings[rest[0]]] if other else 0,
    ).dropna(subset=["x", "mean"])
    lines = [part.sort_values("x") for _, part in table.groupby("level")]
    if size.rpartition(".")[2] == "latent_dim" and x.numeric:
        available = [(place, place) for place in x.numbers]
    else:
        sizes = levels(sweep.jobs[LATENT_DIM].dropna())
        available = [(place, float(sizes[0])) for place in x.marks[0]] if len(sizes) == 1 else []
    return ActiveUnits(x, lines, other, available)


@dataclass(frozen=True)
class Setting:
    """The runs of one setting: what their curves are called and look like.

    Attributes:
        label: Its values, as `4, 8`.
        runs: The places of its runs among the jobs: of finished ones, where there are any.
        colour: That of its line.
        dash: Which dash its line has.
        visible: Whether it is shown before anything is clicked.
    """

    label: str
    runs: list[int]
    colour: str
    dash: int
    visible: bool


def settings(sweep: Sweep, ranking: Ranking, with_curves: Sequence[int]) -> list[Setting]:
    """The settings that have curves, in the order of their axes; of a search, best first."""
    jobs = sweep.jobs.loc[list(with_curves)]
    if jobs.empty:
        return []
    places = grouped(jobs, sweep.settings)
    values = finite(jobs[ranking.metric]) if ranking.metric in jobs else places * math.nan
    best = list(ranking.best(values.groupby(places).mean()).index)
    best += sorted(set(places) - set(best))
    dashed = axis(sweep, sweep.axes[1]) if len(sweep.axes) > 1 and sweep.is_grid else None
    order = sorted(best) if sweep.is_grid else best
    at_first = [place for place in order if place in best[:SHOWN] or len(best) <= 2 * SHOWN]
    later = [place for place in order if place not in at_first]
    colours = dict(zip(at_first, sequence(len(at_first)), strict=True))
    colours |= zip(later, sequence(len(later)), strict=True)
    found = []
    for place in order:
        group = jobs[places == place]
        finished = group[group["state"] == "done"]
        row = group.iloc[0]
        label = ", ".join(shown(row[name]) for name in sweep.axes) or "all runs"
        dash = dashed.level(row[sweep.axes[1]]) if dashed else 0
        runs = list(finished.index if len(finished) else group.index)
        found.append(Setting(label, runs, colours[place], dash, place in at_first))
    return found


SHOWN = 12
"""Curves that are shown at first where there are more than twice as many."""


def metrics(sweep: Sweep, ranking: Ranking) -> list[str]:
    """The metrics that finished runs have a finite value of, that of the ranking first."""
    names = dict.fromkeys([ranking.metric, *sorted(measured(sweep), key=stage)])
    return [n for n in names if n in sweep.done and finite(sweep.done[n]).notna().any()]


def stage(metric: str) -> int:
    """The order of metrics in menus: of validation, of tests, of evaluation, and the rest."""
    order = ("val", "test", "")
    group = metric.rpartition("/")[0]
    return order.index(group) if group in order else len(order)


@dataclass(frozen=True)
class Line:
    """A curve of a setting, over seeds."""

    setting: Setting
    table: pd.DataFrame


def lines(found: Sequence[Setting], read: dict[int, curves.Curves], tag: str) -> list[Line]:
    """The curves of one tag, with a row for each step; settings without it are left out."""
    result = []
    for setting in found:
        runs = [read[run][tag] for run in setting.runs if tag in read.get(run, {})]
        if runs:
            result.append(Line(setting, curves.average(runs)))
    return result


def decimals(values: Sequence[float] | np.ndarray, deviations: Sequence[float] | np.ndarray) -> int:
    """Places after the point for a column: two digits of a typical deviation, or about four."""
    spread = np.asarray(deviations, float)
    spread = spread[np.isfinite(spread) & (spread > 0)]
    numbers = np.abs(np.asarray(values, float))
    numbers = numbers[np.isfinite(numbers)]
    if not len(numbers) or (numbers == numbers.round()).all():
        return 0 if not len(spread) else 1
    if len(spread):
        typical = float(np.median(spread)) * (1 + 1e-9)  # or 0.1 would have three
        return int(np.clip(1 - math.floor(math.log10(typical)), 0, 5))
    digits = 3 - math.floor(math.log10(max(numbers.max(), 1e-9)))
    return int(np.clip(digits, 2 if digits > -1 else 0, 5))
