"""The files of a report."""

from pathlib import Path

import pandas as pd

from vaelab.report import curves, figures, page
from vaelab.report.summary import Ranking, measured, over
from vaelab.report.sweep import Sweep
from vaelab.runs import naming


def write(sweep: Sweep, to: Path, ranking: Ranking, best: int) -> list[Path]:
    """Writes report.html, figures and tables into a folder, and returns their paths.

    Args:
        sweep: The sweep.
        to: The folder, made where it is not there yet.
        ranking: What the best is best at.
        best: Runs whose pictures the page shows.

    Raises:
        UserError: If no run has been measured by the ranking's metric, but some by others.
    """
    ranking.check(sweep)
    to.mkdir(parents=True, exist_ok=True)
    read = curves.of_jobs(sweep)
    tables = [to / name for name in ("runs.csv", "runs.parquet", "summary.csv")]
    sweep.jobs.to_csv(tables[0], index=False)
    sweep.jobs.to_parquet(tables[1], index=False)
    summarised(sweep).to_csv(tables[2], index=False)
    drawn: list[Path] = []
    for group, part in sweep.parts.items():
        of_part = {row: read[row] for row in part.jobs.index if row in read}
        drawn += figures.write(part, ranking, of_part, to / "figures" / naming.plain(group))
    html = to / "report.html"
    html.write_text(page.page(sweep, ranking, read, best, to), encoding="utf-8")
    return [html, *drawn, *tables]


def summarised(sweep: Sweep) -> pd.DataFrame:
    """The mean of each metric over seeds, in rows; of groups of runs, one below the other."""
    if "group" not in sweep.jobs:
        return over(sweep.jobs, sweep.settings, measured(sweep)).long()
    parts = [
        over(part.jobs, sweep.settings, measured(part)).long().assign(group=group)
        for group, part in sweep.parts.items()
    ]
    return pd.concat(parts, ignore_index=True)
