"""Mean training curves of settings over seeds, with their looks in plots."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from vaelab.report import curves
from vaelab.report.axes import sweep_axis
from vaelab.report.colours import colour_sequence
from vaelab.report.differences import value_text
from vaelab.report.summary import (
    Ranking,
    finite_or_nan,
    setting_numbers,
)
from vaelab.report.sweep import Sweep

SHOWN = 12
"""Number of curves shown at first, if there are more than twice as many."""
MOST = 200
"""Largest number of settings with curves: more make a page that no browser draws in time."""


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
    """Returns the best MOST settings of rows `with_curves`, and looks: sorted; a search best first.

    Args:
        sweep: The sweep.
        ranking: The metric by which runs are ranked.
        with_curves: Rows of the jobs that have curves.
    """
    jobs = sweep.jobs.loc[list(with_curves)]
    if jobs.empty:
        return []
    places = setting_numbers(jobs, sweep.settings)
    values = finite_or_nan(jobs[ranking.metric]) if ranking.metric in jobs else places * math.nan
    best = list(ranking.best_first(values.groupby(places).mean()).index)
    best = [*best, *sorted(set(places) - set(best))][:MOST]
    dashed = sweep_axis(sweep, sweep.axes[1]) if len(sweep.axes) > 1 and sweep.is_grid else None
    order = sorted(best) if sweep.is_grid else best
    at_first = [place for place in order if place in best[:SHOWN] or len(best) <= 2 * SHOWN]
    later = [place for place in order if place not in at_first]
    colours = dict(zip(at_first, colour_sequence(len(at_first)), strict=True))
    colours |= zip(later, colour_sequence(len(later)), strict=True)
    found, rows = [], places.groupby(places).groups
    for place in order:
        group = jobs.loc[rows[place]]
        finished = group[group["state"] == "done"]
        row = group.iloc[0]
        label = ", ".join(value_text(row[name]) for name in sweep.axes) or "all runs"
        dash = dashed.level_index(row[sweep.axes[1]]) if dashed else 0
        runs = list(finished.index if len(finished) else group.index)
        found.append(CurveSetting(label, runs, colours[place], dash, place in at_first))
    return found


@dataclass(frozen=True)
class MeanCurve:
    """The mean curve of a setting over its seeds, with a row for each step."""

    setting: CurveSetting
    table: pd.DataFrame


def read_mean_curves(sweep: Sweep, ranking: Ranking) -> dict[str, list[MeanCurve]]:
    """Reads the curves of the settings of `curve_settings` and returns their means, by tag.

    The runs of one setting at a time are in memory, and those of other settings are not read.
    """
    found: dict[str, list[MeanCurve]] = {}
    for setting in curve_settings(sweep, ranking, curves.rows_with_curves(sweep)):
        folders = sweep.jobs.loc[setting.runs, "folder"]
        runs = [curves.read_curves(sweep.folder / folder) for folder in folders]
        for tag in dict.fromkeys(tag for run in runs for tag in run):
            table = curves.mean_curve([run[tag] for run in runs if tag in run])
            found.setdefault(tag, []).append(MeanCurve(setting, table))
    return found
