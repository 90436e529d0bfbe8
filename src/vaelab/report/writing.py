"""Writes a report's files: the HTML page, the PNG figures and the tables."""

from pathlib import Path

import pandas as pd

from vaelab.files.atomic import atomic_file, make_folder, write_text
from vaelab.files.spreadsheets import without_formulas
from vaelab.report import figures, mean_curves, page
from vaelab.report.summary import Ranking, means_over, measured_columns
from vaelab.report.sweep import Sweep
from vaelab.runs import naming


def write_report(sweep: Sweep, to: Path, ranking: Ranking, best: int) -> list[Path]:
    """Writes report.html, PNG figures and tables of a sweep into a folder and returns their paths.

    Args:
        sweep: The sweep.
        to: The folder, created if it is missing.
        ranking: The metric by which runs are ranked.
        best: Number of runs whose pictures the page shows.

    Raises:
        UserError: If runs have been measured, but none by the metric of the ranking.
    """
    ranking.check_metric(sweep)
    make_folder(to)
    means = {g: mean_curves.read_mean_curves(p, ranking) for g, p in sweep.parts.items()}
    tables = [to / name for name in ("runs.csv", "runs.parquet", "summary.csv")]
    write_text(tables[0], without_formulas(sweep.jobs).to_csv(index=False))
    with atomic_file(tables[1]) as file:
        sweep.jobs.to_parquet(file, index=False)
    write_text(tables[2], without_formulas(summary_table(sweep)).to_csv(index=False))
    drawn: list[Path] = []
    for group, part in sweep.parts.items():
        folder = to / "figures" / naming.filename_text(group)
        drawn += figures.write_figures(part, ranking, means[group], folder)
    html = to / "report.html"
    write_text(html, page.render_page(sweep, ranking, means, best, to))
    return [html, *drawn, *tables]


def summary_table(sweep: Sweep) -> pd.DataFrame:
    """Returns means over seeds, a row per setting and measured metric, and per group if several."""
    if "group" not in sweep.jobs:
        return means_over(sweep.jobs, sweep.settings, measured_columns(sweep)).long_table()
    parts = [
        means_over(part.jobs, sweep.settings, measured_columns(part))
        .long_table()
        .assign(group=group)
        for group, part in sweep.parts.items()
    ]
    return pd.concat(parts, ignore_index=True)
