"""The report page: one HTML file with all its scripts, data and pictures, for use offline."""

import base64
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from vaelab.report import colours, mean_curves
from vaelab.report.active_units_plot import active_units_plot
from vaelab.report.curve_plots import curve_plots
from vaelab.report.decimals import decimal_places
from vaelab.report.differences import level_labels, levels, settings_text, value_text
from vaelab.report.mean_curves import MeanCurve
from vaelab.report.metric_plots import metric_plots
from vaelab.report.page_jobs import failed_jobs, unfinished_jobs
from vaelab.report.page_tables import best_setting, runs_table, settings_table
from vaelab.report.plotly_layout import Figure
from vaelab.report.rate_distortion_plot import rate_distortion_plot
from vaelab.report.summary import (
    Ranking,
    finite_or_nan,
    main_metrics,
    means_over,
    measured_columns,
)
from vaelab.report.sweep import LATENT_DIM, STATES, Sweep
from vaelab.runs.folder import is_inside
from vaelab.version import __version__

PICTURES = ("reconstructions", "samples", "traversal", "interpolation", "class_grid", "manifold")
PNG = b"\x89PNG\r\n\x1a\n"  # how every PNG file begins
MANY = 12  # values of a setting that the heading lists


def render_page(
    sweep: Sweep,
    ranking: Ranking,
    means: Mapping[str, Mapping[str, Sequence[MeanCurve]]],
    best: int,
    folder: Path,
) -> str:
    """Returns the page as HTML; reads the runs' pictures and logs, but writes nothing.

    Args:
        sweep: The sweep.
        ranking: The metric by which runs are ranked.
        means: Mean training curves of each group of comparable runs, by tag.
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
    parts = [
        group_section(group, runs, ranking, means[group], best)
        for group, runs in sweep.parts.items()
    ]
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
        most_curves=mean_curves.MOST,
    )


def group_section(
    group: str,
    sweep: Sweep,
    ranking: Ranking,
    curves: Mapping[str, Sequence[MeanCurve]],
    best: int,
) -> dict[str, Any]:
    """Returns the page's data for one group of comparable runs: tables, figures and pictures.

    Args:
        group: Name of the group; empty if all runs are in one.
        sweep: The runs of the group.
        ranking: See `render_page`.
        curves: Mean training curves of the group, by tag.
        best: See `render_page`.
    """
    means = means_over(sweep.jobs, sweep.settings, measured_columns(sweep))
    seeds = ["seeds"] if "seed" in sweep.swept else []
    return {
        "group": group,
        "winner": best_setting(sweep, means, ranking),
        "summary": settings_table(sweep, means, ranking, main_metrics(sweep, ranking)),
        "everything": settings_table(sweep, means, ranking, measured_columns(sweep)),
        "figures": {
            "rate-distortion": single_figure(rate_distortion_plot(sweep)),
            "metrics": metric_plots(sweep, ranking),
            "active-units": single_figure(active_units_plot(sweep)),
            "curves": curve_plots(sweep, curves),
        },
        "over": [*seeds, *(sweep.names[name] for name in sweep.axes[2:])],
        "search": not sweep.is_grid,
        "several": bool((means.n.to_numpy() > 1).any()),
        "settings": len(means.settings),
        "pictures": best_run_pictures(sweep, ranking, best),
    }


def single_figure(figure: Figure | None) -> dict[str, Figure]:
    """Returns a figure as a menu with one unnamed choice; empty for None."""
    return {"": figure} if figure else {}


def script_json(figures: Mapping[str, Any]) -> Markup:
    """Returns figures as JSON in which `<` is escaped, for an HTML script; ValueError on NaN."""
    text = json.dumps(figures, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", r"\u003c"))


def values_text(sweep: Sweep, name: str) -> str:
    """Returns text of a setting's values: all, or if over MANY count, first and last; or `none`."""
    found = levels(sweep.jobs[name])
    if len(found) > MANY:
        first, last = (
            value_text(value) for value in (found[0], [v for v in found if v is not None][-1])
        )
        return f"{len(found)} values from {first} to {last}"
    return ", ".join(level_labels(found)) or "none"


def best_run_pictures(sweep: Sweep, ranking: Ranking, best: int) -> dict[str, Any]:
    """Reads the best finished runs' PNG files as data URLs, a column per run; maybe none.

    Files that are no PNG, or outside of the sweep folder, are left out.
    """
    if ranking.metric not in sweep.jobs or not best:
        return {"runs": [], "rows": []}
    order = list(ranking.best_first(sweep.done[ranking.metric]).index[:best])
    places = decimal_places(finite_or_nan(sweep.done[ranking.metric]), [])
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
        files.append({path.stem: path for path in found if is_picture(path, sweep.folder)})
    names = {name for run in files for name in run}
    kinds = [name for name in PICTURES if name in names] + sorted(names - set(PICTURES))
    rows = [
        {"name": kind, "images": [data_uri(run[kind]) if kind in run else "" for run in files]}
        for kind in kinds
    ]
    return {"runs": columns, "rows": rows}


def is_picture(path: Path, folder: Path) -> bool:
    """Returns whether a path is a PNG file in a folder, and no link out of it; reads 8 bytes."""
    if not (is_inside(path, folder) and path.is_file()):
        return False
    with path.open("rb") as file:
        return file.read(len(PNG)) == PNG


def data_uri(path: Path) -> str:
    """Reads a PNG file and returns it as a data: URL."""
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


def made_with(sweep: Sweep) -> list[tuple[str, str]]:
    """Returns (name, distinct values) of versions, commit and machine in the runs' results."""
    found: dict[str, dict[str, None]] = {}
    for result in sweep.results:
        known = {**(result.get("versions") or {}), "commit": result.get("git_commit")}
        machine = {name: result.get(name) for name in ("device", "processor", "threads")}
        for name, value in {**known, **machine}.items():
            if value:
                found.setdefault(name, {})[str(value)] = None
    return [(name, ", ".join(several)) for name, several in found.items()]
