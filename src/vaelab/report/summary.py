"""Means and standard deviations of metrics over seeds, and the ranking of runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from vaelab.errors import UserError, spelling_hint
from vaelab.report.differences import levels
from vaelab.report.directions import Direction, better_direction
from vaelab.report.sweep import COSTS, Sweep

MAIN = (
    *("val/elbo", "test/elbo", "test/rate", "test/distortion", "test/active_units"),
    *("nll", "mig"),
)
"""Metrics of the first table and of the PNG figures, as far as measured."""


@dataclass(frozen=True)
class Ranking:
    """The metric by which runs are ranked, and whether higher or lower is better.

    Attributes:
        metric: A measured column of the jobs.
        direction: `higher` or `lower` is better; `auto`: by the name of the metric.
    """

    metric: str = "val/elbo"
    direction: Literal["auto", "higher", "lower"] = "auto"

    @property
    def better(self) -> Direction:
        """Which is better, `lower` or `higher`; `none` if `auto` does not know."""
        return better_direction(self.metric) if self.direction == "auto" else self.direction

    def check_metric(self, sweep: Sweep) -> None:
        """Raises UserError if no measured run has the metric, or if it needs a direction."""
        known = measured_columns(sweep)
        if sweep.metrics and self.metric not in known:
            hint = spelling_hint(self.metric, known)
            raise UserError(f"metric={self.metric}: no run has been measured by it; {hint}")
        if self.better == "none":
            raise UserError(
                f"metric={self.metric}: vaelab does not know which is better; give "
                "direction=lower or direction=higher"
            )

    def best_first(self, values: pd.Series) -> pd.Series:
        """Returns the finite values, best first; equal values keep their order."""
        rising = self.better == "lower"
        return finite_or_nan(values).dropna().sort_values(ascending=rising, kind="stable")


def measured_columns(sweep: Sweep) -> list[str]:
    """Returns the names of all metrics, followed by the training costs that were measured."""
    return [*sweep.metrics, *(name for name in COSTS if sweep.jobs[name].notna().any())]


def main_metrics(sweep: Sweep, ranking: Ranking) -> list[str]:
    """Returns the metrics of the first table: the ranking's and those of MAIN, if measured."""
    return [
        name for name in dict.fromkeys([ranking.metric, *MAIN]) if name in measured_columns(sweep)
    ]


@dataclass(frozen=True)
class Means:
    """Means of metrics over seeds, in four tables with the same row for each setting.

    Attributes:
        settings: The values of the settings, sorted, with numbers of runs in `jobs` and `done`.
        mean: A column for each metric, of finite values.
        sd: Standard deviations with n - 1; NaN for fewer than two values.
        n: Numbers of finite values.
    """

    settings: pd.DataFrame
    mean: pd.DataFrame
    sd: pd.DataFrame
    n: pd.DataFrame

    def setting_rows(self) -> list[dict[str, Any]]:
        """Returns each row's settings and numbers of runs as a dict, whole numbers as int."""
        return self.settings.astype(object).to_dict("records")

    def long_table(self) -> pd.DataFrame:
        """Returns a row per setting and metric that has a mean: settings, metric, mean, sd, n."""
        settings = self.settings.drop(columns=["jobs", "done"])
        rows = [settings.iloc[:0].assign(metric="", mean=0.0, sd=0.0, n=0)]
        for name in self.mean:
            numbers = {kind: getattr(self, kind)[name] for kind in ("mean", "sd", "n")}
            rows.append(settings.assign(metric=name, **numbers)[numbers["n"] > 0])
        return pd.concat(rows, ignore_index=True)


def means_over(jobs: pd.DataFrame, by: Sequence[str], names: Sequence[str]) -> Means:
    """Returns mean, sd and count of metrics' finite values over jobs with equal values in `by`.

    Jobs of all states count. With an empty `by` they are over all jobs.
    """
    places = setting_numbers(jobs, by)
    first = jobs[~places.duplicated()]
    settings = first[list(by)].set_axis(places[first.index], axis=0).sort_index()
    settings["jobs"] = places.value_counts()
    settings["done"] = (jobs["state"] == "done").groupby(places).sum()
    parts = pd.DataFrame({name: finite_or_nan(jobs[name]) for name in names}).groupby(places)
    return Means(settings, parts.mean(), parts.std(ddof=1), parts.count())


def setting_numbers(jobs: pd.DataFrame, by: Sequence[str]) -> pd.Series:
    """Returns per job the index of its combination of values in `by`, in sorted order."""
    ranks = [level_ranks(jobs[name]) for name in by] or [pd.Series(0, index=jobs.index)]
    return jobs.groupby(ranks).ngroup()


def finite_or_nan(values: pd.Series) -> pd.Series:
    """Returns a column as floats, with NaN for missing and infinite values."""
    numbers = pd.Series(values.to_numpy("float64", na_value=np.nan), index=values.index)
    return numbers.where(np.isfinite(numbers))


def level_ranks(values: pd.Series) -> pd.Series:
    """Returns the position of each value among the levels of its column."""
    places = {level: place for place, level in enumerate(levels(values))}
    found = [places.get(None if pd.isna(value) else value, 0) for value in values]
    return pd.Series(found, index=values.index)
