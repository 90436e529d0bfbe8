"""The report page: one HTML file with all its scripts, data and pictures, for use offline."""

import base64
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from vaelab.report import colours, plots, views
from vaelab.report.curves import Curves
from vaelab.report.differences import level_labels, levels, settings_text, value_text
from vaelab.report.summary import (
    Means,
    Ranking,
    finite_or_nan,
    main_metrics,
    means_over,
    measured_columns,
)
from vaelab.report.sweep import LATENT_DIM, STATES, Sweep, read_json_or_error
from vaelab.version import __version__

PICTURES = ("reconstructions", "samples", "traversal", "interpolation", "class_grid", "manifold")
MANY = 12  # values of a setting that the heading lists
LOG_LINES = 15
LOG_BYTES = 20_000


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


def render_page(
    sweep: Sweep, ranking: Ranking, read: dict[int, Curves], best: int, folder: Path
) -> str:
    """Returns the page as HTML; reads the runs' pictures and logs, but writes nothing.

    Args:
        sweep: The sweep.
        ranking: The metric by which runs are ranked.
        read: The curves of the jobs that have any, by row of the jobs' table.
        best: Number of runs whose pictures are shown.
        folder: The folder of the page, for links to logs.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    here = Path(__file__).parent
    parts = [group_section(group, runs, ranking, read, best) for group, runs in sweep.parts.items()]
    return environment.get_template("page.html").render(
        sweep=sweep,
        ranking=ranking,
        title=sweep.folder.resolve().name,
        counts=[(state, int((sweep.jobs["state"] == state).sum())) for state in STATES],
        swept=[(sweep.names[name], values_text(sweep, name)) for name in sweep.swept],
        failures=failed_jobs(sweep, folder),
        unfinished=unfinished_jobs(sweep),
        parts=parts,
        runs=runs_table(sweep, ranking),
        made_with=made_with(sweep),
        now=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        version=__version__,
        colours=colours,
        css=Markup((here / "page.css").read_text()),
        javascript=Markup((here / "page.js").read_text()),
        plotly=Markup(get_plotlyjs().replace("</script", r"<\/script")),
        embedded=script_json,
    )


def group_section(
    group: str, sweep: Sweep, ranking: Ranking, read: Mapping[int, Curves], best: int
) -> dict[str, Any]:
    """Returns the page's data for one group of comparable runs: tables, figures and pictures.

    Args:
        group: Name of the group; empty if all runs are in one.
        sweep: The runs of the group.
        ranking: See `render_page`.
        read: See `render_page`.
        best: See `render_page`.
    """
    means = means_over(sweep.jobs, sweep.settings, measured_columns(sweep))
    seeds = ["seeds"] if "seed" in sweep.swept else []
    own = {row: read[row] for row in sweep.jobs.index if row in read}
    return {
        "group": group,
        "winner": best_setting(sweep, means, ranking),
        "summary": settings_table(sweep, means, ranking, main_metrics(sweep, ranking)),
        "everything": settings_table(sweep, means, ranking, measured_columns(sweep)),
        "figures": {
            "rate-distortion": single_figure(plots.rate_distortion_plot(sweep)),
            "metrics": plots.metric_plots(sweep, ranking),
            "active-units": single_figure(plots.active_units_plot(sweep)),
            "curves": plots.curve_plots(sweep, ranking, own),
        },
        "over": [*seeds, *(sweep.names[name] for name in sweep.axes[2:])],
        "search": not sweep.is_grid,
        "several": bool((means.n.to_numpy() > 1).any()),
        "pictures": best_run_pictures(sweep, ranking, best),
    }


def single_figure(figure: plots.Figure | None) -> dict[str, plots.Figure]:
    """Returns a figure as a menu with one unnamed choice; empty for None."""
    return {"": figure} if figure else {}


def script_json(figures: Mapping[str, Any]) -> Markup:
    """Returns figures as JSON in which `<` is escaped, for an HTML script; ValueError on NaN."""
    text = json.dumps(figures, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", r"\u003c"))


def values_text(sweep: Sweep, name: str) -> str:
    """Returns a setting's values as text: all, or count, first and last of many; `none` for none.

    Many are more than MANY.
    """
    found = levels(sweep.jobs[name])
    if len(found) > MANY:
        first, last = (
            value_text(value) for value in (found[0], [v for v in found if v is not None][-1])
        )
        return f"{len(found)} values from {first} to {last}"
    return ", ".join(level_labels(found)) or "none"


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
    places = views.decimal_places(columns[0], columns[1])
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
    """Returns what a value is sorted by: a number, the text of texts and booleans, or None."""
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
        order = best + [at for at in order if at not in set(best)]
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
    places = {name: views.decimal_places(finite_or_nan(jobs[name]), []) for name in names}
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


def failed_jobs(sweep: Sweep, folder: Path) -> list[dict[str, str]]:
    """Returns the settings, error, log and last log lines of each failed job; reads the logs."""
    found = []
    for _, job in sweep.jobs[sweep.jobs["state"] == "failed"].iterrows():
        log = Path(job["folder"]) / job["log"] if pd.notna(job["log"]) else None
        path = sweep.folder / log if log else None
        known = path is not None and path.is_file()
        found.append(
            {
                "setting": settings_text(job, sweep.names) or job["folder"],
                "folder": job["folder"],
                "error": job["error"],
                "log": str(log or ""),
                "link": relative_link(path, folder) if path and known else "",
                "tail": log_tail(path) if path and known else "",
            }
        )
    return found


def relative_link(path: Path, folder: Path) -> str:
    """Returns the URL of a file relative to the folder of the page."""
    from urllib.parse import quote

    return quote(os.path.relpath(path.resolve(), folder.resolve()))


def log_tail(path: Path) -> str:
    """Returns the last LOG_LINES lines of a log, of its last LOG_BYTES bytes."""
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - LOG_BYTES, 0))
        lines = file.read().decode(errors="replace").splitlines()
    return "\n".join(lines[-LOG_LINES:])


def unfinished_jobs(sweep: Sweep) -> list[dict[str, str]]:
    """Returns settings and progress of each begun job without an end; reads `progress.json`."""
    found = []
    for _, job in sweep.jobs[sweep.jobs["state"] == "unfinished"].iterrows():
        progress = read_json_or_error(sweep.folder / job["folder"] / "progress.json")
        parts = []
        if "epoch" in progress:
            of = f" of {progress['epochs']}" if progress.get("epochs") else ""
            parts.append(f"epoch {progress['epoch']}{of}")
        if isinstance(progress.get("val/elbo"), float):
            parts.append(f"val/elbo {progress['val/elbo']:.2f}")
        share = "" if pd.isna(job["progress"]) else f"{job['progress']:.0%}"
        setting = {"setting": settings_text(job, sweep.names), "folder": job["folder"]}
        found.append({**setting, "share": share, "where": ", ".join(parts)})
    return found


def best_run_pictures(sweep: Sweep, ranking: Ranking, best: int) -> dict[str, Any]:
    """Reads the best finished runs' pictures, inlined as PNG, a column per run; maybe none."""
    if ranking.metric not in sweep.jobs or not best:
        return {"runs": [], "rows": []}
    order = list(ranking.best_first(sweep.done[ranking.metric]).index[:best])
    places = views.decimal_places(finite_or_nan(sweep.done[ranking.metric]), [])
    columns, files = [], []
    for at in order:
        job = sweep.jobs.loc[at]
        columns.append(
            {
                "setting": settings_text(job, sweep.names) or job["folder"],
                "folder": job["folder"],
                "value": f"{job[ranking.metric]:.{places}f}",
                "latents": value_text(job[LATENT_DIM]),
            }
        )
        found = (sweep.folder / job["folder"] / "figures").glob("*.png")
        files.append({path.stem: path for path in found})
    names = {name for run in files for name in run}
    kinds = [name for name in PICTURES if name in names] + sorted(names - set(PICTURES))
    rows = [
        {"name": kind, "images": [data_uri(run[kind]) if kind in run else "" for run in files]}
        for kind in kinds
    ]
    return {"runs": columns, "rows": rows}


def data_uri(path: Path) -> str:
    """Reads a PNG file and returns it as a data: URL."""
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


def made_with(sweep: Sweep) -> list[tuple[str, str]]:
    """Returns all versions, commits and devices that the finished runs were made with."""
    found: dict[str, dict[str, None]] = {}
    for result in sweep.results:
        known = {**(result.get("versions") or {}), "commit": result.get("git_commit")}
        for name, value in {**known, "device": result.get("device")}.items():
            if value:
                found.setdefault(name, {})[str(value)] = None
    return [(name, ", ".join(several)) for name, several in found.items()]
