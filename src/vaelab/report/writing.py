"""The files of a report."""

from pathlib import Path

from vaelab.report import curves, figures, page
from vaelab.report.summary import Ranking, measured, over
from vaelab.report.sweep import Sweep


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
    over(sweep.jobs, sweep.settings, measured(sweep)).long().to_csv(tables[2], index=False)
    drawn = figures.write(sweep, ranking, read, to / "figures")
    html = to / "report.html"
    html.write_text(page.page(sweep, ranking, read, best, to), encoding="utf-8")
    return [html, *drawn, *tables]
