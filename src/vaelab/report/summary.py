"""Means and standard deviations over seeds, and which of them is best."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from vaelab.errors import UserError, nearest
from vaelab.report.differences import levels
from vaelab.report.sweep import COSTS, Sweep

LOWER = {
    *("loss", "rate", "distortion", "bits_per_dim", "mse", "seconds", "marginal_kl"),
    "nll_bits_per_dim",
    *("frechet_classifier", "fid", "copied", "nll", "nll_ais", "nll_marginal", "nll_given_label"),
}
"""Metrics that are better when lower, by the last part of their names; all others when higher."""
MAIN = (
    *("val/elbo", "test/elbo", "test/rate", "test/distortion", "test/active_units"),
    *("nll", "mig"),
)
"""Metrics of the first table and of the figures, where there are any."""


@dataclass(frozen=True)
class Ranking:
    """What the best is best at.

    Attributes:
        metric: A measured column of the jobs.
        direction: `higher` or `lower` is better, or `auto` for what the metric's name says.
    """

    metric: str = "val/elbo"
    direction: str = "auto"

    @property
    def lower(self) -> bool:
        """Whether lower is better."""
        return is_lower(self.metric) if self.direction == "auto" else self.direction == "lower"

    def check(self, sweep: Sweep) -> None:
        """Checks that some run has the metric, unless none has any yet.

        Raises:
            UserError: With the nearest name that there is.
        """
        known = measured(sweep)
        if sweep.metrics and self.metric not in known:
            hint = nearest(self.metric, known)
            raise UserError(f"metric={self.metric}: no run has been measured by it; {hint}")

    def best(self, values: pd.Series) -> pd.Series:
        """The finite ones of these values, best first; equal ones in the order they had."""
        return finite(values).dropna().sort_values(ascending=self.lower, kind="stable")


def is_lower(metric: str) -> bool:
    return metric.rpartition("/")[2] in LOWER


def measured(sweep: Sweep) -> list[str]:
    """All metrics, those of training costs last."""
    return [*sweep.metrics, *(name for name in COSTS if sweep.jobs[name].notna().any())]


def main(sweep: Sweep, ranking: Ranking) -> list[str]:
    """The metrics of the first table: that of the ranking, and the main ones."""
    return [name for name in dict.fromkeys([ranking.metric, *MAIN]) if name in measured(sweep)]


@dataclass(frozen=True)
class Means:
    """Metrics over seeds, in tables with a row for each setting, by size of its values.

    Attributes:
        settings: The values of the settings, and `jobs` and `done`, how many there are.
        mean: A column for each metric; of finished runs, and of finite values.
        sd: Their standard deviations, with n - 1; NaN for fewer than two.
        n: How many values there are.
    """

    settings: pd.DataFrame
    mean: pd.DataFrame
    sd: pd.DataFrame
    n: pd.DataFrame

    def rows(self) -> list[dict[str, Any]]:
        """The settings of each row, with whole numbers as such."""
        return self.settings.astype(object).to_dict("records")

    def long(self) -> pd.DataFrame:
        """A row for each setting and metric that has a mean: the settings, metric, mean, sd, n."""
        settings = self.settings.drop(columns=["jobs", "done"])
        rows = [settings.iloc[:0].assign(metric="", mean=0.0, sd=0.0, n=0)]
        for name in self.mean:
            numbers = {kind: getattr(self, kind)[name] for kind in ("mean", "sd", "n")}
            rows.append(settings.assign(metric=name, **numbers)[numbers["n"] > 0])
        return pd.concat(rows, ignore_index=True)


def over(jobs: pd.DataFrame, by: Sequence[str], names: Sequence[str]) -> Means:
    """Means of some metrics over the jobs that are alike in the columns `by`.

    Those of no columns are over all jobs.
    """
    places = grouped(jobs, by)
    first = jobs[~places.duplicated()]
    settings = first[list(by)].set_axis(places[first.index], axis=0).sort_index()
    settings["jobs"] = places.value_counts()
    settings["done"] = (jobs["state"] == "done").groupby(places).sum()
    parts = pd.DataFrame({name: finite(jobs[name]) for name in names}).groupby(places)
    return Means(settings, parts.mean(), parts.std(ddof=1), parts.count())


def grouped(jobs: pd.DataFrame, by: Sequence[str]) -> pd.Series:
    """For each job the number of its setting, as they are ordered by size of their values."""
    ranks = [rank(jobs[name]) for name in by] or [pd.Series(0, index=jobs.index)]
    return jobs.groupby(ranks).ngroup()


def finite(values: pd.Series) -> pd.Series:
    numbers = pd.Series(values.to_numpy("float64", na_value=np.nan), index=values.index)
    return numbers.where(np.isfinite(numbers))


def rank(values: pd.Series) -> pd.Series:
    """The place of each value among the levels of its column."""
    places = {level: place for place, level in enumerate(levels(values))}
    found = [places.get(None if pd.isna(value) else value, 0) for value in values]
    return pd.Series(found, index=values.index)
