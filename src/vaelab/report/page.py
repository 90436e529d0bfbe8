"""The page: one HTML file that needs no network."""

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
from vaelab.report.differences import described, labels, levels, shown
from vaelab.report.summary import Means, Ranking, finite, main, measured, over
from vaelab.report.sweep import LATENT_DIM, STATES, Sweep, content
from vaelab.version import __version__

PICTURES = ("reconstructions", "samples", "traversal", "interpolation", "class_grid", "manifold")
MANY = 12  # values in the heading
LOG_LINES = 15
LOG_BYTES = 20_000


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: What it shows.
        value: What it is sorted by; None where it is empty.
        few: How many runs the value is of, where these are not all.
        state: Of a job.
    """

    text: str
    value: float | str | None = None
    few: int | None = None
    state: str = ""


def page(sweep: Sweep, ranking: Ranking, read: dict[int, Curves], best: int, folder: Path) -> str:
    """The whole page.

    Args:
        sweep: The sweep.
        ranking: What the best is best at.
        read: The curves of the jobs that have any, by their row.
        best: Runs whose pictures are shown.
        folder: Where the page will be, for links to logs.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    here = Path(__file__).parent
    parts = [part(group, runs, ranking, read, best) for group, runs in sweep.parts.items()]
    return environment.get_template("page.html").render(
        sweep=sweep,
        ranking=ranking,
        title=sweep.folder.resolve().name,
        counts=[(state, int((sweep.jobs["state"] == state).sum())) for state in STATES],
        swept=[(sweep.names[name], values(sweep, name)) for name in sweep.swept],
        failures=failures(sweep, folder),
        unfinished=unfinished(sweep),
        parts=parts,
        runs=runs(sweep, ranking),
        made_with=made_with(sweep),
        now=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        version=__version__,
        colours=colours,
        css=Markup((here / "page.css").read_text()),
        javascript=Markup((here / "page.js").read_text()),
        plotly=Markup(get_plotlyjs().replace("</script", r"<\/script")),
        embedded=embedded,
    )


def part(
    group: str, sweep: Sweep, ranking: Ranking, read: Mapping[int, Curves], best: int
) -> dict[str, Any]:
    """What the page has of runs that can be compared with each other.

    Args:
        group: What they are called; empty where these are all runs.
        sweep: These runs.
        ranking: See `page`.
        read: See `page`.
        best: See `page`.
    """
    means = over(sweep.jobs, sweep.settings, measured(sweep))
    seeds = ["seeds"] if "seed" in sweep.swept else []
    own = {row: read[row] for row in sweep.jobs.index if row in read}
    return {
        "group": group,
        "winner": winner(sweep, means, ranking),
        "summary": summary(sweep, means, ranking, main(sweep, ranking)),
        "everything": summary(sweep, means, ranking, measured(sweep)),
        "figures": {
            "rate-distortion": one(plots.rate_distortion(sweep)),
            "metrics": plots.fields(sweep, ranking),
            "active-units": one(plots.active_units(sweep)),
            "curves": plots.curves(sweep, ranking, own),
        },
        "over": [*seeds, *(sweep.names[name] for name in sweep.axes[2:])],
        "search": not sweep.is_grid,
        "several": bool((means.n.to_numpy() > 1).any()),
        "pictures": pictures(sweep, ranking, best),
    }


def one(figure: plots.Figure | None) -> dict[str, plots.Figure]:
    """A figure as a menu of one."""
    return {"": figure} if figure else {}


def embedded(figures: Mapping[str, Any]) -> Markup:
    """Figures as JSON that ends no script and opens none."""
    text = json.dumps(figures, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", r"\u003c"))


def values(sweep: Sweep, name: str) -> str:
    """The values of a setting in words: all of them, or where they lie."""
    found = levels(sweep.jobs[name])
    if len(found) > MANY:
        first, last = (
            shown(value) for value in (found[0], [v for v in found if v is not None][-1])
        )
        return f"{len(found)} values from {first} to {last}"
    return ", ".join(labels(found)) or "none"


def winner(sweep: Sweep, means: Means, ranking: Ranking) -> dict[str, str] | None:
    """The best setting and its value, if there is one."""
    if ranking.metric not in means.mean:
        return None
    order = ranking.best(means.mean[ranking.metric])
    if order.empty:
        return None
    at = order.index[0]
    row = means.rows()[at]
    names = {name: sweep.names[name] for name in sweep.settings}
    cell = estimates(means, ranking.metric)[at]
    return {"setting": described(row, names) or "all runs", "value": cell.text}


def estimates(means: Means, metric: str) -> list[Cell]:
    """Mean ± sd of each setting; with how many values where not all its finished runs have one."""
    columns = [getattr(means, kind)[metric].to_numpy() for kind in ("mean", "sd", "n")]
    places = views.decimals(columns[0], columns[1])
    cells = []
    for mean, sd, n, done in zip(*columns, means.settings["done"], strict=True):
        text = f"{mean:.{places}f}" + ("" if math.isnan(sd) else f" ± {sd:.{places}f}")
        few = None if n == done else int(n)
        cells.append(Cell(text, float(mean), few) if n else Cell(""))
    return cells


def setting_cells(row: Mapping[str, Any], names: Sequence[str]) -> list[Cell]:
    return [Cell(shown(row[name]), sortable(row[name])) for name in names]


def sortable(value: Any) -> Any:
    if pd.isna(value):
        return None
    return str(value) if isinstance(value, (str, bool)) else float(value)


def summary(sweep: Sweep, means: Means, ranking: Ranking, metrics: Sequence[str]) -> dict[str, Any]:
    """A row for each setting: in order; of a search, the best first."""
    rows = []
    order, settings = list(means.settings.index), means.rows()
    columns = [estimates(means, name) for name in metrics]
    best: list[int] = []
    if ranking.metric in means.mean:
        best = list(ranking.best(means.mean[ranking.metric]).index)
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


def runs(sweep: Sweep, ranking: Ranking) -> dict[str, Any]:
    """A row for each job."""
    jobs, names = sweep.jobs, main(sweep, ranking)
    groups = [runs.jobs for runs in sweep.parts.values()] if ranking.metric in jobs else []
    best = [at for group in groups for at in ranking.best(group[ranking.metric]).index[:1]]
    places = {name: views.decimals(finite(jobs[name]), []) for name in names}
    shown_settings = [name for name in sweep.swept if name != "seed"] + ["seed"]
    grouped = [name for name in ("group",) if name in jobs]
    rows = []
    for at, job in jobs.iterrows():
        cells = [Cell(job["folder"], job["folder"])]
        end = f", stopped at {job['stopped']}" if pd.notna(job["stopped"]) else ""
        cells.append(Cell(job["state"] + end, job["state"], state=job["state"]))
        cells += [Cell(shown(job[name]), sortable(job[name])) for name in grouped]
        cells += setting_cells(job, shown_settings)
        for name in [*names, "seconds"]:
            known = pd.notna(job[name])
            text = f"{job[name]:,.{places.get(name, 0)}f}" if known else ""
            cells.append(Cell(text, sortable(job[name])))
        rows.append({"best": at in best, "cells": cells})
    heads = [sweep.names.get(name, name) for name in shown_settings]
    heads = ["folder", "state", *grouped, *heads, *names, "seconds"]
    return {"heads": heads, "rows": rows, "marked": ranking.metric}


def failures(sweep: Sweep, folder: Path) -> list[dict[str, str]]:
    """Each failed job: its settings, its error and its log."""
    found = []
    for _, job in sweep.jobs[sweep.jobs["state"] == "failed"].iterrows():
        log = Path(job["folder"]) / job["log"] if pd.notna(job["log"]) else None
        path = sweep.folder / log if log else None
        known = path is not None and path.is_file()
        found.append(
            {
                "setting": described(job, sweep.names) or job["folder"],
                "folder": job["folder"],
                "error": job["error"],
                "log": str(log or ""),
                "link": link(path, folder) if path and known else "",
                "tail": tail(path) if path and known else "",
            }
        )
    return found


def link(path: Path, folder: Path) -> str:
    """The address of a file as seen from the page."""
    from urllib.parse import quote

    return quote(os.path.relpath(path.resolve(), folder.resolve()))


def tail(path: Path) -> str:
    """The last lines of a log."""
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - LOG_BYTES, 0))
        lines = file.read().decode(errors="replace").splitlines()
    return "\n".join(lines[-LOG_LINES:])


def unfinished(sweep: Sweep) -> list[dict[str, str]]:
    """Each job that has begun and neither ended nor failed: what it is and how far."""
    found = []
    for _, job in sweep.jobs[sweep.jobs["state"] == "unfinished"].iterrows():
        progress = content(sweep.folder / job["folder"] / "progress.json")
        parts = []
        if "epoch" in progress:
            of = f" of {progress['epochs']}" if progress.get("epochs") else ""
            parts.append(f"epoch {progress['epoch']}{of}")
        if isinstance(progress.get("val/elbo"), float):
            parts.append(f"val/elbo {progress['val/elbo']:.2f}")
        share = "" if pd.isna(job["progress"]) else f"{job['progress']:.0%}"
        setting = {"setting": described(job, sweep.names), "folder": job["folder"]}
        found.append({**setting, "share": share, "where": ", ".join(parts)})
    return found


def pictures(sweep: Sweep, ranking: Ranking, best: int) -> dict[str, Any]:
    """The figures of the best runs: a column for each run, a row for each picture."""
    if ranking.metric not in sweep.jobs or not best:
        return {"runs": [], "rows": []}
    order = list(ranking.best(sweep.done[ranking.metric]).index[:best])
    places = views.decimals(finite(sweep.done[ranking.metric]), [])
    columns, files = [], []
    for at in order:
        job = sweep.jobs.loc[at]
        columns.append(
            {
                "setting": described(job, sweep.names) or job["folder"],
                "folder": job["folder"],
                "value": f"{job[ranking.metric]:.{places}f}",
                "latents": shown(job[LATENT_DIM]),
            }
        )
        found = (sweep.folder / job["folder"] / "figures").glob("*.png")
        files.append({path.stem: path for path in found})
    names = {name for run in files for name in run}
    kinds = [name for name in PICTURES if name in names] + sorted(names - set(PICTURES))
    rows = [
        {"name": kind, "images": [inlined(run[kind]) if kind in run else "" for run in files]}
        for kind in kinds
    ]
    return {"runs": columns, "rows": rows}


def inlined(path: Path) -> str:
    """A picture as an address that holds it."""
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


def made_with(sweep: Sweep) -> list[tuple[str, str]]:
    """The versions, commits and devices of the finished runs."""
    found: dict[str, dict[str, None]] = {}
    for result in sweep.results:
        known = {**(result.get("versions") or {}), "commit": result.get("git_commit")}
        for name, value in {**known, "device": result.get("device")}.items():
            if value:
                found.setdefault(name, {})[str(value)] = None
    return [(name, ", ".join(several)) for name, several in found.items()]
