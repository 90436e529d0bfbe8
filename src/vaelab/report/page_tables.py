"""The page's tables of settings and of runs, and the best setting."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from vaelab.report.decimals import decimal_places
from vaelab.report.differences import settings_text, value_text
from vaelab.report.summary import (
    Means,
    Ranking,
    finite_or_nan,
    main_metrics,
)
from vaelab.report.sweep import Sweep


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: The text that is shown.
        value: The value by which rows are sorted; None for an empty cell.
        few: Number of runs behind a mean, if some finished runs lack the metric; else None.
        state: The state of a job, else empty.
    """

    text: str
    value: float | str | None = None
    few: int | None = None
    state: str = ""


def best_setting(sweep: Sweep, means: Means, ranking: Ranking) -> dict[str, str] | None:
    """Returns the setting of the best mean and that mean, as texts; None if not measured."""
    if ranking.metric not in means.mean:
        return None
    order = ranking.best_first(means.mean[ranking.metric])
    if order.empty:
        return None
    at = order.index[0]
    row = means.setting_rows()[at]
    names = {name: sweep.names[name] for name in sweep.settings}
    cell = estimate_cells(means, ranking.metric)[at]
    return {"setting": settings_text(row, names) or "all runs", "value": cell.text}


def estimate_cells(means: Means, metric: str) -> list[Cell]:
    """Returns a cell per setting: mean ± standard deviation over seeds; empty if not measured."""
    columns = [getattr(means, kind)[metric].to_numpy() for kind in ("mean", "sd", "n")]
    places = decimal_places(columns[0], columns[1])
    cells = []
    for mean, sd, n, done in zip(*columns, means.settings["done"], strict=True):
        text = f"{mean:.{places}f}" + ("" if math.isnan(sd) else f" ± {sd:.{places}f}")
        few = None if n == done else int(n)
        cells.append(Cell(text, float(mean), few) if n else Cell(""))
    return cells


def setting_cells(row: Mapping[str, Any], names: Sequence[str]) -> list[Cell]:
    """Returns the cells of a row with the values of these settings."""
    return [Cell(value_text(row[name]), sort_value(row[name])) for name in names]


def sort_value(value: Any) -> Any:
    """Returns the sort key of a value: float; str for texts and booleans; None if missing."""
    if pd.isna(value):
        return None
    return str(value) if isinstance(value, (str, bool)) else float(value)


def settings_table(
    sweep: Sweep, means: Means, ranking: Ranking, metrics: Sequence[str]
) -> dict[str, Any]:
    """Returns a table with a row per setting: in order of values, or best first for a search.

    Marks the best setting, if the metric of the ranking was measured.
    """
    rows = []
    order, settings = list(means.settings.index), means.setting_rows()
    columns = [estimate_cells(means, name) for name in metrics]
    best: list[int] = []
    if ranking.metric in means.mean:
        best = list(ranking.best_first(means.mean[ranking.metric]).index)
    if not sweep.is_grid:
        order = best + sorted(set(order) - set(best))
    for at in order:
        row = settings[at]
        count = f"{row['done']}" + (f" of {row['jobs']}" if row["done"] != row["jobs"] else "")
        cells = setting_cells(row, sweep.settings)
        cells.append(Cell(count, float(row["done"])))
        cells += [column[at] for column in columns]
        rows.append({"best": best[:1] == [at], "cells": cells})
    heads = [sweep.names[name] for name in sweep.settings]
    return {"heads": [*heads, "runs", *metrics], "rows": rows, "marked": ranking.metric}


def runs_table(sweep: Sweep, ranking: Ranking) -> dict[str, Any]:
    """Returns a table with a row per job: folder, state, settings, main metrics and seconds.

    The group, too, if there are several. Marks the best job of each group.
    """
    jobs, names = sweep.jobs, main_metrics(sweep, ranking)
    groups = [runs.jobs for runs in sweep.parts.values()] if ranking.metric in jobs else []
    best = [at for group in groups for at in ranking.best_first(group[ranking.metric]).index[:1]]
    places = {name: decimal_places(finite_or_nan(jobs[name]), []) for name in names}
    shown_settings = [name for name in sweep.swept if name != "seed"] + ["seed"]
    grouped = [name for name in ("group",) if name in jobs]
    rows = []
    for at, job in jobs.iterrows():
        cells = [Cell(job["folder"], job["folder"])]
        end = f", stopped at {job['stopped']}" if pd.notna(job["stopped"]) else ""
        cells.append(Cell(job["state"] + end, job["state"], state=job["state"]))
        cells += [Cell(value_text(job[name]), sort_value(job[name])) for name in grouped]
        cells += setting_cells(job, shown_settings)
        for name in [*names, "seconds"]:
            known = pd.notna(job[name])
            text = f"{job[name]:,.{places.get(name, 0)}f}" if known else ""
            cells.append(Cell(text, sort_value(job[name])))
        rows.append({"best": at in best, "cells": cells})
    heads = [sweep.names.get(name, name) for name in shown_settings]
    heads = ["folder", "state", *grouped, *heads, *names, "seconds"]
    return {"heads": heads, "rows": rows, "marked": ranking.metric}
